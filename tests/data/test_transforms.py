"""Named transforms of images, on pixels that can be followed by eye."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedcl.core.errors import ScenarioError
from fedcl.core.types import LabeledSet
from fedcl.data.sharded import ShardedDataset, group_sets
from fedcl.data.transforms import transform
from fedcl.scenario.base import Scenario

IMAGES = torch.randint(256, (5, 2, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
NAMES = ("rotate:30", "permute:3", "noise:0.1", "blur:1")


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_pixels(name):
    changed = transform(IMAGES, name, 1)
    assert changed.dtype == torch.uint8
    assert changed.shape == IMAGES.shape
    assert torch.equal(changed, transform(IMAGES, name, 1))
    assert not torch.equal(changed, IMAGES)


@pytest.mark.parametrize("name", ["", "rotate:0", "noise:0", "blur:0", "rotate:360"])
def test_nothing_changes_nothing(name):
    assert torch.equal(transform(IMAGES, name, 1), IMAGES)


def test_only_noise_reads_the_seed():
    for name in NAMES:
        assert torch.equal(transform(IMAGES, name, 1), transform(IMAGES, name, 2)) == (name != "noise:0.1")


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_move_pixels_exactly(turns):
    turned = transform(IMAGES, f"rotate:{90 * turns}", 0)
    assert torch.equal(turned, torch.rot90(IMAGES, turns, (2, 3)))


def test_an_oblong_image_keeps_its_shape():
    oblong = torch.zeros(1, 1, 4, 8, dtype=torch.uint8)
    oblong[0, 0, 1:3, 3:5] = 200  # a square in the centre stays where it is
    assert torch.equal(transform(oblong, "rotate:90", 0), oblong)


def test_a_permutation_is_one_for_all_images_and_channels():
    changed = transform(IMAGES, "permute:3", 0)
    assert torch.equal(changed.flatten(2).sort(2).values, IMAGES.flatten(2).sort(2).values)
    ramp = torch.arange(36, dtype=torch.uint8).view(1, 1, 6, 6)
    order = transform(ramp, "permute:3", 0).flatten().long()
    assert torch.equal(changed.flatten(2), IMAGES.flatten(2)[:, :, order])


def test_blur_spreads_a_point_and_keeps_a_plane():
    plane = torch.full((1, 1, 9, 9), 77, dtype=torch.uint8)
    assert torch.equal(transform(plane, "blur:1.5", 0), plane)
    point = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    point[0, 0, 4, 4] = 255
    spread = transform(point, "blur:1", 0)[0, 0].float()
    assert spread.argmax() == 40
    assert torch.equal(spread, spread.T)
    assert abs(float(spread[4, 5] / spread[4, 4]) - float(np.exp(-0.5))) < 0.03


def test_noise_has_the_strength_it_says():
    grey = torch.full((50, 1, 20, 20), 128, dtype=torch.uint8)
    noisy = transform(grey, "noise:0.1", 0).float()
    assert abs(float(noisy.std()) - 25.5) < 0.5
    assert abs(float(noisy.mean()) - 128) < 0.5


def test_unknown_transforms_are_refused():
    with pytest.raises(ScenarioError, match="swirl"):
        transform(IMAGES, "swirl:1", 0)


def test_cells_and_groups_apply_their_own_transforms():
    labels = torch.tensor([0, 0, 1, 1, 1])
    held = LabeledSet(inputs=IMAGES, labels_N=labels, num_classes=2)
    everything = np.arange(5)
    scenario = Scenario(
        name="turn",
        seed=0,
        num_classes=2,
        shares=((everything,), (everything[:2],)),
        groups=(everything, everything[3:]),
        group_names=("as is", "turned"),
        transforms=("", "rotate:90"),
        group_transforms=("", "rotate:180"),
    )
    cells = ShardedDataset(train=held, scenario=scenario)
    assert torch.equal(cells(0, 0).inputs, IMAGES)
    assert torch.equal(cells(0, 1).inputs, torch.rot90(IMAGES[:2], 1, (2, 3)))
    assert (cells(0, 1).origin.client, cells(0, 1).origin.step) == (0, 1)
    history = cells.history(0, 1)
    assert torch.equal(history.inputs, torch.cat([IMAGES, torch.rot90(IMAGES[:2], 1, (2, 3))]))
    first, second = group_sets(held, scenario)
    assert torch.equal(first.inputs, IMAGES)
    assert torch.equal(second.inputs, torch.rot90(IMAGES[3:], 2, (2, 3)))
    bare = ShardedDataset(train=held, scenario=replace(scenario, transforms=()))
    assert torch.equal(bare(0, 1).inputs, IMAGES[:2])
