"""Laws of every federated strategy of configs/: a new page is under them as soon as it has a YAML."""

import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from fedcl.cli.build import compose_job
from fedcl.core.coding import Wire
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.federated.client_state import ClientStore
from fedcl.federated.ledger import Ledger
from fedcl.federated.payload import ServerState
from fedcl.flower.batched import Batched
from fedcl.flower.client import SimulationContext
from fedcl.flower.ray import Ray
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from fedcl.models.mlp import MLP
from fedcl.runs.checkpoint import Checkpoint, pack_server, unpack_server
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.loop import Training

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "strategy" / "federated").glob("*.yaml"))
CLIENTS, SHAPE, CLASSES = 7, (1, 4, 4), 3
ROUNDS = 3  # of which the last belongs to a second step
EMPTY = 2  # this client holds nothing at the first step


def brief(thing):
    """The same with two updates wherever something is trained or optimised."""
    if isinstance(thing, Training):
        return replace(thing, epochs=None, updates=2, batch_size=8)
    if not is_dataclass(thing):
        return thing
    changes = {field.name: brief(getattr(thing, field.name)) for field in fields(thing) if field.init}
    if isinstance(changes.get("steps"), int):
        changes["steps"] = 2
    return replace(thing, **changes)


@cache
def strategy_of(name):
    return brief(compose_job("federated", [f"strategy={name}"], Path("nowhere")).strategy)


def shard(client, step, empty=None):
    """client + 3 images whose rows say their class."""
    count = 0 if (client, step) == (empty, 0) else client + 3
    generator = torch.Generator().manual_seed(10 * client + step)
    labels = (torch.arange(count) + step) % CLASSES
    images = torch.randint(256, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    images[:, :, 0] = (80 * labels).to(torch.uint8)[:, None, None]
    origin = Origin(client=client, step=step)
    return LabeledSet(inputs=images, labels_N=labels, num_classes=CLASSES, origin=origin)


@dataclass(frozen=True, kw_only=True)
class Load:
    """A sim, made in whichever process."""

    name: str
    folder: Path
    wire: str = "float32"
    empty: int | None = None

    def __call__(self):
        ctx = Context(
            seed=3,
            model=MLP(hidden=(4,)),
            distiller=Distiller(ipc=1, steps=2, real_batch=4, augmentation=NoAugmentation()),
            inputs=InputSpec(shape=SHAPE, preprocess=Normalization(mean=(0.5,), std=(0.25,))),
            num_classes=CLASSES,
        )
        return SimulationContext(
            strategy=strategy_of(self.name),
            ctx=ctx,
            shard=partial(shard, empty=self.empty),
            num_clients=CLIENTS,
            wire=Wire(dtype=self.wire),
            states=ClientStore(self.folder),
        )


def run(load, runtime, **options):
    """The last state, and what happened in each round."""
    results = []
    options = {"num_rounds": ROUNDS, "step_of_round": lambda round: round // 2, "load": load, **options}
    state = simulate(load(), runtime, on_round=results.append, **options)
    rows = tuple(row for result in results for row in result.rows)
    return state, [(r.clients, r.failed, r.counted, r.reason) for r in results], Ledger(rows=rows).to_csv()


def same(one: ServerState, two: ServerState) -> bool:
    pairs = [(one.weights or {}, two.weights or {}), (one.tensors, two.tensors)]
    equal = all(set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)
    return equal and [s.sha256() for s in one.summaries] == [s.sha256() for s in two.summaries]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run in serial, once for each strategy."""

    @cache
    def of(name):
        return run(Load(name=name, folder=tmp_path_factory.mktemp(name)), Serial())

    return of


@pytest.mark.parametrize("name", NAMES)
def test_every_client_answers_and_the_state_changes(name, whole):
    state, facts, ledger = whole(name)
    assert [(failed, counted) for _, failed, counted, _ in facts] == [((), True)] * ROUNDS
    assert all(torch.isfinite(tensor).all() for tensor in (state.weights or {}).values())
    start = Load(name=name, folder=Path("nowhere"))()
    assert not same(state, start.strategy.init(start.ctx))
    assert all(f",{way}," in ledger for way in ("up", "down"))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_one_at_a_time_gives(name, whole, tmp_path):
    state, facts, ledger = whole(name)
    found, found_facts, found_ledger = run(Load(name=name, folder=tmp_path), Batched())
    assert same(found, state)
    assert (found_facts, found_ledger) == (facts, ledger)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_goes_on_ends_as_if_it_had_never_stopped(name, whole, tmp_path):
    """The server's state goes through a checkpoint, those of the clients lie in the folder."""
    load = Load(name=name, folder=tmp_path)
    first, _, _ = run(load, Serial(), num_rounds=2)
    run(load, Serial(), start_round=2, state=first)  # a session that is killed: what it kept must not be seen
    tensors, about = pack_server(first)
    state = unpack_server(Checkpoint(done=2, record={}, tensors=tensors, about=about))
    found, _, _ = run(load, Serial(), start_round=2, state=state)
    assert same(found, whole(name)[0])


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_over_a_coarse_wire_can_be_used(name, whole, tmp_path):
    state, facts, _ = run(Load(name=name, folder=tmp_path, wire="uint8"), Serial())
    assert facts == whole(name)[1]
    assert not same(state, whole(name)[0])  # the server computes with what was decoded


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_holds_nothing_does_no_harm(name, tmp_path):
    load = Load(name=name, folder=tmp_path, empty=EMPTY)
    state, facts, _ = run(load, Batched())
    assert [(failed, counted) for _, failed, counted, _ in facts] == [((), True)] * ROUNDS
    assert all(torch.isfinite(tensor).all() for tensor in (state.weights or {}).values())


@pytest.mark.ray
@pytest.mark.parametrize("name", NAMES)
def test_on_ray_it_is_the_same(name, whole, tmp_path):
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        found, facts, ledger = run(Load(name=name, folder=tmp_path), Ray())
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    state, expected, expected_ledger = whole(name)
    assert same(found, state)
    assert (facts, ledger) == (expected, expected_ledger)
