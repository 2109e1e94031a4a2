import math

import pytest
import torch

from fedcl.core.errors import DataError
from fedcl.data.normalization import measure


def test_by_hand():
    images = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).reshape(2, 1, 2, 1)
    assert measure(images).mean == (0.5,)
    assert measure(images).std == (0.5,)


def test_channels_are_apart_and_a_constant_channel_gets_std_one():
    images = torch.zeros(3, 2, 1, 1, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor([0, 51, 102])
    images[:, 1] = 51
    found = measure(images)
    assert found.mean == pytest.approx((0.2, 0.2), abs=1e-15)
    assert found.std == pytest.approx((math.sqrt(2 / 3) * 0.2, 1.0), abs=1e-15)
    assert not found.apply(images)[:, 1].abs().max() > 1e-6


def test_equals_float64_moments_over_several_chunks():
    rows = torch.arange(9000)
    images = ((rows * rows) % 251).to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    wide = images[:, 0].double() / 255
    found = measure(images)
    assert found.mean == pytest.approx([wide.mean().item()] * 3, abs=1e-13)
    assert found.std == pytest.approx([wide.std(correction=0).item()] * 3, abs=1e-13)


@pytest.mark.parametrize("images", [torch.zeros(0, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, 1, 2, 2)])
def test_refuses_what_it_cannot_measure(images):
    with pytest.raises(DataError, match="cannot measure"):
        measure(images)
