"""Contract tests for parts of one's own: call them in a test of your package.

    from fedcl.testing import check_strategy

    def test_mine():
        check_strategy(Mine(updates=3))

Each runs the part for a moment on a toy data set of 8x8 images and holds it to the laws that fedcl's own parts keep
(ARCHITECTURE.md, Laws). A law that is broken is an AssertionError that says which.
"""

import json
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedcl.continual.contract import Strategy as ContinualStrategy
from fedcl.core.bugs import TRACEBACK
from fedcl.core.describe import describe
from fedcl.core.progress import Progress
from fedcl.core.record import read_record
from fedcl.core.types import Origin, Summary
from fedcl.data.base import Dataset, DataSource, make_dataset
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.objectives.base import Objective
from fedcl.federated.contract import Strategy as FederatedStrategy
from fedcl.federated.transforms.base import NoTransform, Transform
from fedcl.flower.batched import Batched
from fedcl.memory.buffer import Budget
from fedcl.models.base import Model
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP
from fedcl.runs.checkpoint import read_checkpoint
from fedcl.runs.continual import ContinualJob, run_continual
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.runs.results import trained_model
from fedcl.scenario.base import Labels, Recipe, Scenario
from fedcl.scenario.files import read_scenario, write_scenario

CLASSES, PER_CLASS, SIDE = 4, 16, 8
BRIEF = Distiller(ipc=1, steps=2, real_batch=8)  # as the strategies that distil are tried with
NOT_RESULTS = ("seconds", "config", "command", "versions")  # parts of a record that two equal runs may differ in


@dataclass(frozen=True, kw_only=True)
class ToyData(DataSource):
    """Four classes of grey 8x8 images, each a pattern of its own under noise: 64 for training, 64 for the test."""

    horizontal_flip: bool = False

    def load(self) -> Dataset:
        parts = [toy_images(seed) for seed in (0, 1)]
        return make_dataset(name="toy", train=parts[0], test=parts[1], horizontal_flip=self.horizontal_flip)


def toy_images(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [64, 1, 8, 8] and int64 [64]."""
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    patterns = torch.rand(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    noise = torch.randn(len(labels), 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return (127 + 100 * (patterns[labels] - 0.5) + 25 * noise).clamp(0, 255).to(torch.uint8), labels


@dataclass(frozen=True, kw_only=True)
class ToyGrid(Recipe):
    """Two classes a step, dealt in turn to all clients but the last, which holds nothing unless it is alone."""

    num_clients: int = 4
    num_steps: int = 2

    def build(self, labels: Labels, seed: int) -> Scenario:
        holders = max(1, self.num_clients - 1)
        steps = [np.flatnonzero(labels.train_N // 2 == step % 2) for step in range(self.num_steps)]
        nobody = [np.arange(0)] * (self.num_clients - holders)
        return Scenario(
            name="toy",
            seed=seed,
            num_classes=labels.num_classes,
            shares=tuple((*(rows[client::holders] for client in range(holders)), *nobody) for rows in steps),
            groups=(np.arange(len(labels.test_N)),),
            group_names=("all",),
        )


class _Killed(BaseException):
    """The end of a process, as far as a run can see it."""


class _Kill(Progress):
    """Listener that ends the run after its first round or step."""

    def advance(self, task: str, amount: int = 1, **figures: float) -> None:
        if task in ("rounds", "steps") and amount:
            raise _Killed


def check_strategy(
    strategy: FederatedStrategy | ContinualStrategy,
    *,
    model: Model | None = None,
    distiller: Distiller = BRIEF,
    num_clients: int = 4,
    budget: Budget | None = None,
    compress: Transform | None = None,
) -> None:
    """Hold a strategy to the laws of its contract, in two steps of a stream.

    The same seed gives the same bytes, whatever global random state says, which is left alone; clients in a batch
    give what one at a time give; a client without examples fails nothing; a killed run goes on to the same end; the
    model gives finite scores; the strategy can be written into a record and sent to a worker.

    Args:
        strategy: with short training: three updates are enough.
        model: what it trains; a small MLP.
        distiller: for strategies that distil.
        num_clients: of a federated strategy; the last one holds nothing.
        budget: of a continual strategy; two images a class.
        compress: of a federated strategy, between a client's reply and the wire; none.

    Raises:
        AssertionError: a law is broken; the message says which.
    """
    name = check_described(strategy)
    with tempfile.TemporaryDirectory(prefix="fedcl-check-") as scratch:
        folder = Path(scratch)
        parts: dict[str, Any] = {"source": ToyData(), "model": model or MLP(hidden=(16,)), "distiller": distiller}
        parts |= {"strategy": strategy, "device": "cpu", "out": folder / "plain"}
        if isinstance(strategy, FederatedStrategy):
            parts["compress"] = compress or NoTransform()
            job: Any = FederatedJob(**parts, recipe=ToyGrid(num_clients=num_clients), num_rounds=1)
            together = replace(job, runtime=Batched())
        else:
            job = together = ContinualJob(**parts, recipe=ToyGrid(num_clients=1), budget=budget or Budget(ipc=2))
        for row in _run(job).get("rounds", []):
            kept = job.out / TRACEBACK
            trace = f"\n{kept.read_text()}" if kept.exists() else ""
            assert not row["failed"], f"{name} fails at clients: {row['failed']}{trace}"
        whole = replace(together, out=folder / "at once")
        with _other_random_state():
            _run(whole, killed=True)
        if (found := _difference(job.out, whole.out)) is not None:
            raise AssertionError(f"{name}: {_broken_law(job, together, folder)} ({found})")
        scores = trained_model(job).eval()(torch.zeros(2, 1, SIDE, SIDE))
        assert scores.shape == (2, CLASSES), f"{name}.model gives {list(scores.shape)}, expected [N, num_classes]"
        assert torch.isfinite(scores).all(), f"{name}.model gives scores that are not finite"


def _run(job: Any, killed: bool = False) -> dict[str, Any]:
    """The record of a job, which may be killed after its first round or step and then goes on.

    Each time with a strategy as a worker or the next process would have it: nothing but its fields.
    """
    run: Any = run_federated if isinstance(job, FederatedJob) else run_continual

    def once(*listeners: Progress) -> dict[str, Any]:
        return run(replace(job, strategy=pickle.loads(pickle.dumps(job.strategy))), *listeners)

    if killed:
        with suppress(_Killed):
            once(_Kill())
    return once()


def _broken_law(job: Any, together: Any, folder: Path) -> str:
    """Which of the laws that two runs differ by, found by a run for each."""
    again = replace(job, out=folder / "again")
    with _other_random_state():
        _run(again)
    if _difference(job.out, again.out) is not None:
        return "two runs of one seed differ; random numbers come from derive(ctx.seed, ...), and no state is hidden"
    batch = replace(together, out=folder / "batch")
    _run(batch)
    if _difference(job.out, batch.out) is not None:
        return "clients in a batch give something else than one at a time"
    return "a run that was killed and went on ends elsewhere; what it needs belongs into the state"


def _difference(one: Path, two: Path) -> str | None:
    """The first thing in which two finished runs differ."""
    mine, theirs = (_results(read_record(folder)) for folder in (one, two))
    for key in {**mine, **theirs}:
        if mine.get(key) != theirs.get(key):
            return f"'{key}' of the record"
    mine, theirs = (dict(read_checkpoint(folder).tensors) for folder in (one, two))
    for key in {**mine, **theirs}:
        if key not in mine or key not in theirs or not torch.equal(mine[key], theirs[key]):
            return f"'{key}' of the last state"
    return None


def _results(node: Any) -> Any:
    """A record without its times and without how it was asked for."""
    if isinstance(node, dict):
        return {key: _results(value) for key, value in node.items() if key not in NOT_RESULTS}
    return [_results(item) for item in node] if isinstance(node, list) else node


@contextmanager
def _other_random_state() -> Iterator[None]:
    """Global random numbers elsewhere than before. AssertionError where the block leaves them elsewhere again."""
    kept = np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.rand(7)
            np.random.random(7)  # noqa: NPY002
            before = torch.get_rng_state(), repr(np.random.get_state(legacy=False))  # noqa: NPY002
            yield
            after = torch.get_rng_state(), repr(np.random.get_state(legacy=False))  # noqa: NPY002
    finally:
        np.random.set_state(kept)  # noqa: NPY002
    same = torch.equal(before[0], after[0]) and before[1] == after[1]
    assert same, "it draws from the global random state; use fedcl.core.seeding.torch_rng or numpy_rng"


def check_described(part: Any) -> str:
    """Hold a part to what every one of them must be: a frozen dataclass that a record can word and a worker receive.

    Gives the name of its class; AssertionError where it is none.
    """
    name = type(part).__name__
    assert is_dataclass(part) and part.__dataclass_params__.frozen, (  # type: ignore[attr-defined]  # noqa: PT018
        f"{name} is no @dataclass(frozen=True): its fields are the numbers that a configuration sets"
    )
    json.dumps(describe(part), allow_nan=False)
    try:
        back = pickle.loads(pickle.dumps(part))
    except Exception as error:
        raise AssertionError(f"{name} cannot be sent to a worker: {type(error).__name__}: {error}") from error
    assert describe(back) == describe(part), f"{name} arrives at a worker as another one"
    return name


def check_objective(objective: Objective, *, distiller: Distiller = BRIEF) -> None:
    """Hold an objective to the laws of distillation, on three clients of which one holds nothing.

    The images move and stay finite; the same key gives the same summary, whatever global random state says; a batch
    of clients gives bit for bit what one at a time gives; nobody's images come from nothing. `distiller` is what it is
    tried in, where it needs networks or labels of its own. AssertionError names the law that is broken.
    """
    name = check_described(objective)
    data = ToyData().load()
    distiller = replace(distiller, objective=objective)
    ctx = Context(model=ConvNet(width=4, depth=1), inputs=data.inputs, num_classes=CLASSES, distiller=distiller)
    rows = (torch.arange(0, 64, 2), torch.arange(1, 40, 2), torch.arange(0))
    sets = [data.train.select(held, Origin(client=client)) for client, held in enumerate(rows)]

    def hashes(summaries: list[Summary]) -> list[str]:
        for summary in summaries:
            summary.check()
        return [summary.sha256() for summary in summaries]

    made, begun = distiller.distill(sets, 5, ctx), replace(distiller, steps=0).distill(sets, 5, ctx)
    together = hashes(made)
    for after, before in zip(made[:2], begun[:2], strict=True):
        moved = not all(map(torch.equal, after.decode(), before.decode()))
        assert moved, f"{name}: the images do not move; its loss has no gradient in them"
    with _other_random_state():
        again = hashes(distiller.distill(sets, 5, ctx))
    assert together == again, f"{name}: two distillations of one key differ"
    alone = [hashes(distiller.distill([held], 5, ctx))[0] for held in sets]
    assert together == alone, f"{name}: a batch of clients gives something else than one at a time"
    assert not made[2].num_images, f"{name}: a client without images sends {made[2].num_images}"


def check_scenario(recipe: Recipe, labels: Labels | None = None) -> Scenario:
    """Hold a recipe to the laws of the grid, and give the scenario of seed 0.

    The same labels and seed give the same grid, whatever global random state says; every index is of an example; the
    partition file that a run leaves gives it back. `labels` are by default those of 200 training and 100 test examples
    of 10 classes. AssertionError names the law that is broken; ScenarioError where the labels cannot be dealt.
    """
    name = check_described(recipe)
    labels = labels or Labels(train_N=np.arange(200) // 20, test_N=np.arange(100) // 10, num_classes=10)
    scenario = recipe.deal(labels, 0)
    with _other_random_state():
        again = recipe.deal(labels, 0)
    assert scenario.sha256 == again.sha256, f"{name}: two grids of one seed differ; draw from numpy_rng(seed, purpose)"
    for what, parts, size in (
        ("training", [share for step in scenario.shares for share in step], len(labels.train_N)),
        ("test", scenario.groups, len(labels.test_N)),
    ):
        for part in parts:
            inside = part.dtype == np.int64 and (not len(part) or (part.min() >= 0 and part.max() < size))
            assert inside, f"{name}: indices of {what} examples must be int64 in [0, {size})"
    with tempfile.TemporaryDirectory(prefix="fedcl-check-") as scratch:
        write_scenario(Path(scratch) / "it.json", scenario, labels)
        back = read_scenario(Path(scratch) / "it.json", labels)
    assert back.sha256 == scenario.sha256, f"{name}: its partition file gives another grid"
    return scenario


def check_dataset(source: DataSource) -> Dataset:
    """Hold a data source to what runs rely on, and give its data set.

    Loading again gives the same data, whatever global random state says; inputs and labels suit each other, every
    class is in both sets, and normalised inputs are finite. AssertionError names the law that is broken; DataError
    where the data cannot be read, or contradict themselves.
    """
    name = check_described(source)
    data = source.load()
    with _other_random_state():
        again = source.load()
    for what, one, two in (("training", data.train, again.train), ("test", data.test, again.test)):
        same = torch.equal(one.inputs, two.inputs) and torch.equal(one.labels_N, two.labels_N)
        assert same, f"{name}: loading twice gives two {what} sets"
        assert one.counts_C.min() > 0, f"{name}: a class has no example in the {what} set"
        assert torch.isfinite(data.inputs.apply(one.inputs)).all(), f"{name}: normalised inputs are not finite"
    return data
