"""Every YAML of the group makes a recipe that works on ten classes, and the fixed keys reach their place."""

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedcl.scenario.base import Labels, Partition, Recipe

FOLDER = Path(__file__).parents[2] / "configs" / "scenario"
FILES = sorted(FOLDER.glob("*.yaml"))
DEALT = [file for file in FILES if file.stem != "from_file"]  # that one deals nothing: test_from_file.py
# the size of the digits' training set
LABELS = Labels(train_N=np.arange(1437) % 10, test_N=np.arange(360) % 10, num_classes=10)


def recipe_of(file: Path, **changes) -> Recipe:
    return instantiate(OmegaConf.merge(OmegaConf.load(file), changes), _convert_="all")


@pytest.mark.parametrize("file", DEALT, ids=lambda file: file.stem)
@pytest.mark.parametrize("seed", range(5))
def test_a_file_works_as_it_is(file, seed):
    scenario = recipe_of(file).build(LABELS, seed=seed)
    held = np.concatenate(sum(scenario.shares, ()))
    np.testing.assert_array_equal(np.unique(held), np.arange(1437))
    assert (scenario.first_steps(LABELS) < scenario.num_steps).all()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_names_its_source_and_writes_out_every_number(file):
    assert file.read_text().startswith("# source: ")
    config = OmegaConf.load(file)
    fields = set(type(recipe_of(file)).__dataclass_fields__)
    assert set(config) - {"_target_"} == fields


@pytest.mark.parametrize("file", DEALT, ids=lambda file: file.stem)
def test_the_fixed_keys(file):
    keys = set(OmegaConf.load(file))
    assert recipe_of(file, seed=3).deal(LABELS, 0).sha256 == recipe_of(file).build(LABELS, 3).sha256
    if isinstance(recipe_of(file), Partition):
        assert recipe_of(file, num_clients=5).build(LABELS, seed=0).num_clients == 5
    if "num_steps" in keys:
        assert len(recipe_of(file, num_steps=2).build(LABELS, seed=0).groups) == 2


def test_the_fixed_keys_of_the_grid_reach_its_parts():
    file = FOLDER / "class_incremental_dirichlet.yaml"
    recipe = recipe_of(file, num_clients=3, num_steps=2, alpha=0.1, arrival="asynchronous", class_overlap=0.5)
    assert (recipe.partition.num_clients, recipe.partition.alpha, recipe.stream.num_steps) == (3, 0.1, 2)
    scenario = recipe.build(LABELS, seed=0)
    assert (scenario.num_clients, scenario.num_steps, len(scenario.groups)) == (3, 2, 2)
