import hashlib

import pytest
import torch
from sklearn.datasets import load_digits

from fedcl.data.digits import Digits


@pytest.fixture(scope="module")
def digits():
    return Digits(horizontal_flip=False).load()


def test_sizes_and_classes(digits):
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.inputs.shape == (1, 8, 8)
    assert digits.test.counts_C.tolist() == [36] * 10
    assert digits.class_names == tuple("0123456789")
    for part in (digits.train, digits.test):
        assert part.labels_N.diff().min() == 0  # class order
        assert part.inputs.is_contiguous()


def test_the_split_is_the_same_everywhere_and_always(digits):
    digest = hashlib.sha256()
    for part in (digits.train, digits.test):
        digest.update(part.inputs.numpy().tobytes())
        digest.update(part.labels_N.numpy().tobytes())
    assert digest.hexdigest() == "d17347ea114b2ba9c8e30cacc285b8b2436498426df86fe480d7ba5f50a5feeb"


def test_both_parts_together_are_the_source_scaled_to_255(digits):
    scaled = torch.tensor([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255])
    images, labels = load_digits(return_X_y=True)
    source = torch.cat([torch.from_numpy(labels)[:, None], scaled[torch.from_numpy(images).long()]], dim=1)
    ours = torch.cat(
        [torch.cat([part.labels_N[:, None], part.inputs.long().flatten(1)], 1) for part in (digits.train, digits.test)]
    )
    assert sorted(ours.tolist()) == sorted(source.tolist())


def test_normalised_training_pixels_have_mean_0_and_std_1(digits):
    pixels = digits.inputs.preprocess.apply(digits.train.inputs).double()
    assert pixels.mean().item() == pytest.approx(0, abs=1e-6)
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-6)
