"""Summary files: what is read can be trained on, and says so where it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl.core.errors import DataError
from fedcl.core.types import Normalization, Summary
from fedcl.distill.files import load_summary, save_summary
from fedcl.distill.parameterizations.pixels import Pixels


def test_parts_that_contradict_each_other_are_refused(tmp_path):
    images, path = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), tmp_path / "s"
    whole = Summary(
        arrays={"images": images},
        targets=torch.tensor([0, 0, 1, 2]),
        num_source_C=torch.tensor([5, 0, 7]),
        shape_CHW=(1, 4, 4),
        normalization=Normalization(mean=(0.5,), std=(0.25,)),
        decoder=Pixels(),
        method="test",
    )
    for bad, said in [
        (replace(whole, targets=whole.targets[:3]), r"decode to \[4, 1, 4, 4\], expected \[3, 1, 4, 4\]"),
        (replace(whole, arrays={"images": images / 0}), "'images' holds NaN or infinity"),
        (replace(whole, arrays={"images": images * float("nan")}), "'images' holds NaN or infinity"),
        (replace(whole, arrays={}), "KeyError: 'images'"),
        (replace(whole, num_source_C=torch.tensor([5, -1, 7])), "not negative"),
        (replace(whole, arrays={"images": images[:, :, :3]}), r"decode to \[4, 1, 3, 4\]"),
        (replace(whole, shape_CHW=(0, 4, 4), arrays={"images": images[:, :0]}), r"cannot be \[0, 4, 4\]"),
        (replace(whole, targets=torch.ones(4, 3) / 0), "targets decode to NaN"),
    ]:
        save_summary(bad, path)
        with pytest.raises(DataError, match=rf"s is damaged.*{said}"):
            load_summary(path)
    save_summary(whole, path)
    assert load_summary(path).sha256() == whole.sha256()
