"""Summary files: what is read can be trained on, and says so where it cannot."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fedcl.core.errors import DataError, WireError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.tensor_files import write_tensors
from fedcl.core.types import Origin, Summary
from fedcl.distill.blobs import encode
from fedcl.distill.files import FORMAT, load_summary, save_summary
from fedcl.distill.parameterizations.pixels import Pixels


def test_parts_that_contradict_each_other_are_refused(tmp_path):
    images, path = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), tmp_path / "s"
    whole = Summary(
        arrays={"images": images},
        targets=torch.tensor([0, 0, 1, 2]),
        num_source_C=torch.tensor([5, 0, 7]),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=Normalization(mean=(0.5,), std=(0.25,))),
        decoder=Pixels(),
        method="test",
    )
    blob, images = encode(whole), whole.arrays["images"]
    for tensors, meta, said in [
        ({"targets": torch.tensor([0, 0, 1], dtype=torch.uint8)}, {}, r"'images' is \[4, 1, 4, 4\] for 3 labels"),
        ({"array.images": images / 0}, {}, "'images': received NaN or infinity"),
        ({"array.images": images.half()}, {}, "'images': expected torch.float32"),
        ({"pixels.images": images.clone()}, {}, "'pixels.images' belongs to nothing"),
        ({"other.images": images.clone()}, {}, "'other.images' belongs to nothing"),
        ({"constants": torch.zeros(2, 1)}, {}, "1 quantisation constants belong to nothing"),
        ({"num_source": torch.tensor([5, -1, 7])}, {}, "not negative"),
        ({"array.images": images[:, :, :3]}, {}, r"decodes to images \[4, 1, 3, 4\] for 4 labels"),
        ({"array.images": images[:, :0]}, {"shape": [0, 4, 4]}, r"cannot be \[0, 4, 4\]"),
        ({"targets": torch.ones(4, 3) / 0}, {}, "NaN"),
        ({"targets": whole.targets}, {}, "must be torch.uint8"),
        ({"targets": whole.targets.to(torch.uint8) + 254}, {}, r"must lie in \[0, 3\)"),
    ]:
        write_tensors(path, FORMAT, {**blob.tensors, **tensors}, {**blob.meta, **meta})
        with pytest.raises(DataError, match=rf"s is damaged.*{said}"):
            load_summary(path)
    for missing, said in [("array.images", "KeyError: 'images'"), ("targets", "'targets' is missing")]:
        write_tensors(path, FORMAT, {k: t for k, t in blob.tensors.items() if k != missing}, blob.meta)
        with pytest.raises(DataError, match=rf"s is damaged.*{said}"):
            load_summary(path)
    floats = {"targets": blob.tensors["targets"], "pixels.images": images}
    write_tensors(path, FORMAT, floats, blob.meta)
    with pytest.raises(DataError, match=r"'pixels.images' must be uint8, got torch.float32"):
        load_summary(path)
    with pytest.raises(WireError, match="summary array 'images': NaN or infinity"):
        save_summary(replace(whole, arrays={"images": images / 0}), path)
    save_summary(whole, path)
    assert load_summary(path).sha256() == whole.sha256()


@pytest.mark.parametrize("name", ["pixels", "frequency"])
def test_a_file_of_version_0_1_0_is_read(name, tmp_path):
    """It has int64 labels, the counts, no number of classes, no coding, no checksum; coefficients had four axes."""
    generator, targets = torch.Generator().manual_seed(0), torch.tensor([0, 2])
    if name == "pixels":
        decoder, arrays = {"name": "pixels"}, {"images": torch.randn(2, 1, 4, 4, generator=generator)}
    else:
        decoder = {"name": "frequency", "kept": 2, "multiple": 1}
        places = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
        arrays = {"coefficients": torch.randn(2, 2, 1, 1, generator=generator), "kept": places}
    about = {
        "decoder": decoder,
        "shape": [1, 4, 4],
        "normalization": {"mean": [0.5], "std": [0.25]},
        "method": "hand",
        "origin": {"client": 1, "step": 2, "round": 3},
        "recipe": {},
    }
    tensors = {f"array.{key}": array for key, array in arrays.items()} | {"targets": targets}
    tensors["num_source"] = torch.tensor([5, 0, 7])
    metadata = {"format": FORMAT, **{key: json.dumps(value) for key, value in about.items()}}
    save_file(tensors, tmp_path / "old.safetensors", metadata)
    old = load_summary(tmp_path / "old.safetensors")
    assert (old.num_classes, old.origin) == (3, Origin(client=1, step=2, round=3))
    assert torch.equal(old.targets, targets)
    assert torch.equal(old.num_source_C, tensors["num_source"])
    images = old.decode()[0]
    if name == "pixels":
        assert torch.equal(images, arrays["images"])
    else:  # of the first coefficient, the mean: a quarter of it at each of 16 pixels
        torch.testing.assert_close(images.mean((1, 2, 3)), arrays["coefficients"][:, 0, 0, 0] / 4)
    save_summary(old, tmp_path / "new.safetensors")
    assert load_summary(tmp_path / "new.safetensors").sha256() == old.sha256()
    save_file(tensors | {"targets": targets + 1}, tmp_path / "old.safetensors", metadata)
    with pytest.raises(DataError, match=r"hard labels must lie in \[0, 3\)"):
        load_summary(tmp_path / "old.safetensors")
