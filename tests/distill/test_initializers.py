"""Where synthetic images start."""

from __future__ import annotations

import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.core.inputs import Normalization
from fedcl.distill.initializers import SELECTIONS, ClassImages, ClassMean, Mosaic, Noise, Real
from fedcl.distill.parameterizations.zoom import Zoom, grid

GREY = Normalization(mean=(0.5,), std=(0.25,))


def held_of(count, side=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, side, side), generator=generator).to(torch.uint8)


def one(held):
    return ClassImages(inputs=held, spec=GREY)


@pytest.mark.parametrize("select", sorted(SELECTIONS))
def test_real_images_are_of_the_class_and_different(select):
    held = held_of(9)
    images = Real(select=select).images(one(held), 4, 0)
    assert images.dtype == torch.uint8  # as they are
    same = (held[None] == images[:, None]).flatten(2).all(2)
    assert same.sum(1).tolist() == [1] * 4
    assert same.sum(0).max() == 1


@pytest.mark.parametrize("select", sorted(SELECTIONS))
def test_too_few_real_images_are_all_given_or_repeated(select):
    assert len(Real(select=select).images(one(held_of(3)), 5, 0)) == 3
    padded = Real(select=select, pad=True).images(one(held_of(3)), 5, 0)
    assert len(padded) == 5
    assert torch.equal(padded[3:], padded[:2])


def test_noise_is_standard_and_nobodys():
    images = Noise(std=2.0).images(one(held_of(1)), 500, 3)
    assert images.shape == (500, 1, 8, 8)
    # 32,000 draws: the mean within 5 * 2 / sqrt(32000), the deviation within 5 * 2 / sqrt(64000)
    assert abs(float(images.mean())) < 0.056
    assert abs(float(images.std()) - 2) < 0.040
    assert torch.equal(images, Noise(std=2.0).images(one(held_of(7) * 0), 500, 3))


def test_class_mean_with_noise():
    held = held_of(6)
    assert torch.allclose(
        ClassMean(std=0.0).images(one(held), 2, 0), GREY.apply(held).mean(0).expand(2, -1, -1, -1), atol=1e-5
    )
    a, b = ClassMean(std=1.0).images(one(held), 2, 0)
    assert not torch.equal(a, b)


def test_a_mosaic_is_made_of_shrunk_images():
    held = held_of(8)
    images = Mosaic(factor=2).images(one(held), 2, 0)
    assert images.shape == (2, 1, 8, 8)
    shrunk = GREY.apply(held).unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))  # means of 2x2 pixels
    cells = torch.stack([images[:, :, t:b, left:r] for t, b, left, r in grid(2, 8, 8)], 1).flatten(0, 1)
    distance = torch.cdist(cells.flatten(1), shrunk.flatten(1))
    assert sorted(distance.argmin(1).tolist()) == list(range(8))  # all eight, each once
    assert float(distance.amin(1).max()) < 1e-4


def test_mosaics_of_a_small_class_are_fewer_and_full():
    images = Mosaic(factor=2).images(one(held_of(5)), 3, 0)
    assert len(images) == 2  # five images fill one mosaic and begin another, which they fill by turns
    assert len(Mosaic(factor=2).images(one(held_of(1)), 3, 0)) == 1


def test_a_mosaic_of_ones_is_the_images():
    held = held_of(4)
    torch.testing.assert_close(Mosaic(factor=1).images(one(held), 4, 0), GREY.apply(held))


def test_grid_covers_once():
    for factor, height, width in ((2, 7, 9), (3, 8, 8), (1, 5, 4)):
        covered = torch.zeros(height, width)
        for top, bottom, left, right in grid(factor, height, width):
            covered[top:bottom, left:right] += 1
        assert (covered == 1).all()


def test_zoom_shows_each_cell():
    """A mosaic of constant images decodes to constant images."""
    held = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 8, 8) * 50
    mosaic = Mosaic(factor=2).images(one(held), 1, 0)
    decoded = Zoom(factor=2).decode({"images": mosaic}, (1, 8, 8))
    torch.testing.assert_close(decoded, GREY.apply(held))


@pytest.mark.parametrize(
    "wrong", [lambda: Real(select="best"), lambda: Mosaic(select="best"), lambda: Mosaic(factor=0)]
)
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(ConfigError, match=r"initializer\."):
        wrong()
