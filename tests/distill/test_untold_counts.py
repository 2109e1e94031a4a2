"""A summary that does not tell how many real examples it stands for: in files, in a buffer."""

from dataclasses import replace

import pytest
import torch

from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import Origin, Summary
from fedcl.distill.files import load_summary, save_summary
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.memory.budget import Budget
from fedcl.memory.buffer import Buffer

TOLD = Summary(
    arrays={"images": torch.arange(8.0).view(2, 1, 2, 2)},
    targets=torch.tensor([0, 2]),
    num_source_C=torch.tensor([5, 0, 7, 0]),
    inputs=InputSpec(shape=(1, 2, 2), preprocess=Normalization(mean=(0.5,), std=(0.25,))),
    decoder=Pixels(),
    method="hand",
    origin=Origin(client=1, step=2, round=3),
)
UNTOLD = replace(TOLD, num_source_C=None)


@pytest.mark.parametrize("summary", [TOLD, UNTOLD], ids=["told", "untold"])
def test_a_file_says_what_the_summary_says(summary, tmp_path):
    save_summary(summary, tmp_path / "a.safetensors")
    loaded = load_summary(tmp_path / "a.safetensors")
    assert (loaded.sha256(), loaded.num_classes, loaded.origin) == (summary.sha256(), 4, summary.origin)
    assert (loaded.num_source_C is None) == (summary.num_source_C is None)


def test_a_buffer_does_not_need_the_counts():
    told, untold = (Buffer(budget=Budget(images=9)).add(summary) for summary in (TOLD, UNTOLD))
    assert told.num_bytes == untold.num_bytes
    assert all(torch.equal(*pair) for pair in zip(told.replay(), untold.replay(), strict=True))
    assert torch.equal(untold.labels_N, torch.tensor([0, 2]))
