"""A partition that was dealt once is dealt again from its file, and from a seed of its own."""

import json

import numpy as np
import pytest

from fedcl.core.errors import ConfigError, ScenarioError
from fedcl.scenario.base import Labels
from fedcl.scenario.files import read_scenario, write_scenario
from scenarios.blurry import Blurry
from scenarios.class_incremental import ClassIncremental
from scenarios.dirichlet import Dirichlet
from scenarios.domain_incremental import DomainIncremental
from scenarios.from_file import FromFile
from scenarios.grid import Grid
from scenarios.iid import IID

LABELS = Labels(train_N=np.arange(60) // 15, test_N=np.arange(12) // 3, num_classes=4)
RECIPES = {
    "partition": Dirichlet(num_clients=3, alpha=0.5, min_size=1),
    "stream": Blurry(num_steps=2),
    "domains": DomainIncremental(transforms=("", "noise:0.1"), examples="part"),
    "grid": Grid(stream=ClassIncremental(num_steps=4), partition=IID(num_clients=2), arrival="asynchronous"),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_what_is_written_is_read_and_written_again_the_same(kind, tmp_path):
    scenario = RECIPES[kind].deal(LABELS, 5)
    write_scenario(tmp_path / "a", scenario, LABELS)
    again = FromFile(path=str(tmp_path / "a")).deal(LABELS, 0)
    assert again.sha256 == scenario.sha256
    assert (again.name, again.seed, again.disjoint) == (scenario.name, 5, scenario.disjoint)
    assert (again.transforms, again.group_transforms) == (scenario.transforms, scenario.group_transforms)
    for mine, theirs in zip([*again.shares, again.groups], [*scenario.shares, scenario.groups], strict=True):
        assert [rows.tolist() for rows in mine] == [rows.tolist() for rows in theirs]
        assert {rows.dtype for rows in mine} == {np.dtype(np.int64)}
    write_scenario(tmp_path / "b", again, LABELS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_is_plain(tmp_path):
    """What somebody has to write who brings a partition along."""
    scenario = IID(num_clients=2).deal(Labels(train_N=np.array([0, 1]), test_N=np.array([0, 1]), num_classes=2), 0)
    write_scenario(tmp_path / "a", scenario, Labels(train_N=np.array([0, 1]), test_N=np.array([0, 1]), num_classes=2))
    content = json.loads((tmp_path / "a").read_text())
    shares = content.pop("shares")
    assert sorted(shares[0][0] + shares[0][1]) == [0, 1]
    assert content == {
        "format": "fedcl partition 1",
        "name": "iid",
        "seed": 0,
        "num_classes": 2,
        "num_train": 2,
        "num_test": 2,
        "disjoint": True,
        "group_names": ["all"],
        "transforms": [],
        "group_transforms": [],
        "groups": [[0, 1]],
    }


def changed(content, **parts):
    return json.dumps(content | parts)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda c: changed(c, shares=[[[60]]]),
            "step 1, client 0 names row 60, and rows are whole numbers from 0 to 59",
        ),
        (lambda c: changed(c, shares=[[[0], [-1]]]), "step 1, client 1 names row -1"),
        (lambda c: changed(c, shares=[[[0.5]]]), "names row 0.5"),
        (lambda c: changed(c, shares=[[[True]]]), "names row True"),
        (lambda c: changed(c, shares=[[[10**30]]]), "names row 1000"),
        (lambda c: changed(c, shares=[[[3, 3]]]), "step 1, client 0 names row 3 twice"),
        (lambda c: changed(c, shares=[[[3], [3]]]), "step 1: an example is held twice"),
        (lambda c: changed(c, groups=[[12]]), "group 1 names row 12, and rows are whole numbers from 0 to 11"),
        (lambda c: changed(c, groups=[[1, 1]]), "group 1 names row 1 twice"),
        (lambda c: changed(c, groups=[]), "has 0 groups but 1 names"),
        (lambda c: changed(c, groups=[3]), "group 1 is no list"),
        (lambda c: changed(c, shares=[]), "has no steps or no clients"),
        (lambda c: changed(c, shares=[7]), "step 1 is no list"),
        (lambda c: changed(c, shares=[[[1], [2]], [[3]]]), "different numbers of clients"),
        (lambda c: changed(c, transforms=["spin:3"]), "transform 'spin:3' is none of"),
        (lambda c: changed(c, num_train=61), "its num_train is 61, and here it is 60; type the dataset="),
        (lambda c: changed(c, num_test=10), "its num_test is 10, and here it is 12"),
        (lambda c: changed(c, num_classes=10), "its num_classes is 10, and here it is 4"),
        (lambda c: changed(c, seed="x"), "'seed' is missing or no int"),
        (lambda c: changed(c, shares=None), "'shares' is missing or no list"),
        (lambda c: changed(c, format="other"), "is no file of a partition"),
        (lambda c: "[1, 2]", "is no file of a partition"),
        (lambda c: json.dumps(c)[:40], "is no whole JSON file"),
        (lambda c: "[" * 100_000, "is no whole JSON file"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_in_a_line(damage, said, tmp_path):
    path = tmp_path / "p.json"
    write_scenario(path, IID(num_clients=2).deal(LABELS, 0), LABELS)
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path, LABELS)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ScenarioError, match=r"cannot be read \(No such file or directory\)"):
        FromFile(path=str(tmp_path / "none")).deal(LABELS, 0)
    with pytest.raises(ScenarioError, match=r"type scenario\.path="):
        FromFile().deal(LABELS, 0)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="is no whole JSON file"):
        FromFile(path=str(tmp_path / "bytes")).deal(LABELS, 0)
    with pytest.raises(ScenarioError, match="leave it null"):
        FromFile(path="a", seed=3)


@pytest.mark.parametrize("kind", ["partition", "stream", "domains", "grid"])
def test_a_seed_of_its_own_deals_the_same_under_every_seed_of_the_run(kind):
    recipe = RECIPES[kind]
    fixed = type(recipe)(**{**vars(recipe), "seed": 3})
    assert len({fixed.deal(LABELS, seed).sha256 for seed in (0, 1, 2)}) == 1
    assert fixed.deal(LABELS, 0).sha256 == recipe.deal(LABELS, 3).sha256
    assert fixed.deal(LABELS, 0).seed == 3  # of the noise in its images, too
    assert len({recipe.deal(LABELS, seed).sha256 for seed in (0, 1, 2)}) == 3


def test_a_part_of_a_grid_may_have_a_seed_of_its_own():
    stream, partition = ClassIncremental(num_steps=2, class_order="seed"), IID(num_clients=2, seed=7)
    grid = Grid(stream=stream, partition=partition)
    owners = {frozenset(np.concatenate([step[0] for step in grid.deal(LABELS, s).shares]).tolist()) for s in (0, 1, 2)}
    assert owners == {frozenset(IID(num_clients=2).deal(LABELS, 7).shares[0][0].tolist())}
    assert len({grid.deal(LABELS, seed).sha256 for seed in (0, 1, 2)}) > 1  # the order of classes is the run's


@pytest.mark.parametrize("seed", [-1, 0.5, True, "x"])
def test_what_is_no_seed(seed):
    with pytest.raises(ConfigError, match=r"scenario\.seed=.*whole number"):
        IID(num_clients=2, seed=seed).deal(LABELS, 0)
