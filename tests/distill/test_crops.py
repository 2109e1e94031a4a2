"""Crops that a trained network is surest of (RDED)."""

from __future__ import annotations

import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.core.inputs import Normalization
from fedcl.distill.batch import Matched
from fedcl.distill.crops import Crops, random_crops
from fedcl.distill.initializers import ClassImages

UNIT = Normalization(mean=(0.0,), std=(1.0,))


class Bright(torch.nn.Module):
    """Surer of class 1 the brighter an image is."""

    def forward(self, images_NCHW):
        mean = images_NCHW.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def held(images, label=1):
    trained = Bright().eval()
    return ClassImages(inputs=images, spec=UNIT, label=label, matched=Matched(network=trained, trained=trained))


def greys(*values, side=8):
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, side, side).contiguous()


def test_the_surest_images_are_kept_one_crop_of_each():
    """Constant images: every crop is the image, and the brightest are surest of class 1, the darkest of class 0."""
    images = greys(10, 250, 90, 200, 130)
    for label, expected in ((1, [250, 200]), (0, [10, 90])):
        found = Crops().images(held(images, label), 2, seed=0)
        assert (found[:, 0, 4, 4] * 255).round().tolist() == expected
        assert torch.allclose(found.flatten(1).std(1), torch.zeros(2), atol=1e-6)


def test_cells_hold_crops_and_the_surest_are_spread_over_the_images():
    images = greys(*range(10, 250, 20))  # 12 images
    found = (Crops(factor=2).images(held(images), 2, seed=0) * 255).round()
    assert found.shape == (2, 1, 8, 8)
    cells = found.unflatten(2, (2, 4)).unflatten(4, (2, 4)).mean((3, 5))[:, 0].flatten(1)
    assert cells.tolist() == [[230, 190, 150, 110], [210, 170, 130, 90]]
    assert len(Crops(factor=2).images(held(greys(9, 8, 7)), 2, seed=0)) == 1  # three crops fill one image


def test_of_many_crops_the_surest_is_kept():
    """Half dark, half bright: more crops find a brighter one, and none is brighter than the bright half."""
    images = greys(*[0] * 20)
    images[..., 4:] = 255
    means = [float(Crops(crops=n, area=(0.05, 0.3)).images(held(images), 20, seed=3).mean()) for n in (1, 3, 20)]
    assert means[0] < means[1] < means[2] <= 1


def test_a_crop_is_a_part_of_its_image_and_the_whole_at_area_one():
    images = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = random_crops(images, (1.0, 1.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(whole, images, atol=1e-5, rtol=0)
    ramp = torch.arange(8.0).expand(50, 1, 8, 8)  # a part of area a spans 8 sqrt(a) columns, inside 0 .. 7
    part = random_crops(ramp, (0.25, 0.25), torch.Generator().manual_seed(0))
    inner = part[..., 5] - part[..., 2]  # three columns of four apart
    assert ((inner - 1.5).abs() < 1e-4).float().mean() > 0.5  # where the border clamps nothing
    assert part.min() >= 0
    assert part.max() <= 7
    assert part[:, 0, 0, 0].unique().numel() > 40  # anywhere; two may touch the same border


@pytest.mark.parametrize("wrong", [{"factor": 0}, {"crops": 0}, {"candidates": 0}, {"area": (0.5, 0.1)}])
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(ConfigError, match=r"initializer\."):
        Crops(**wrong)
