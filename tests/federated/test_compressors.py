"""Random places, four bits and low rank: numbers that one can check by hand, and their bytes in the ledger."""

from dataclasses import replace
from math import ceil

import pytest
import torch
from flwr.serverapp.strategy import FedAvg

from fedcl.core.errors import ConfigError, WireError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.distill.context import Context
from fedcl.federated.payload import ClientState, Payload
from fedcl.federated.transforms.int4 import Int4
from fedcl.federated.transforms.powersgd import PowerSGD
from fedcl.federated.transforms.randomk import RandomK
from fedcl.flower.bridge import FlowerStrategy
from fedcl.models.mlp import MLP
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.testing import ToyData, ToyGrid
from fedcl.training.recipe import Training

pytestmark = pytest.mark.usefixtures("blank_pictures")

CTX = Context(
    model=MLP(hidden=(8,)),
    inputs=InputSpec(shape=(1, 4, 4), preprocess=Normalization(mean=(0.5,), std=(0.5,))),
    num_classes=3,
)


def vector(values):
    return torch.tensor(values, dtype=torch.float32)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def num_bytes(parts):
    return {name: tensor.nbytes for name, tensor in parts.items()}


# ---- randomk -----------------------------------------------------------------------------------------------------


def test_random_places_travel_as_a_seed_and_the_rest_waits():
    randomk, update = RandomK(share=0.25), random(10)
    parts = randomk.encode(update, CTX)
    assert num_bytes(parts) == {"values": 3 * 4, "seed": 4}
    places = randomk.places(int(parts["seed"]), 10).tolist()
    assert len({*places}) == 3
    decoded = randomk.decode(parts, 10)
    assert decoded[places].tolist() == update[places].tolist()
    assert decoded.count_nonzero() == 3
    payload, kept = randomk.pack(Payload(weights={"w": update}), ClientState(), CTX)
    assert torch.equal(kept.tensors["randomk/residue"], update - decoded)
    payload, _ = randomk.pack(Payload(weights={"w": update}), kept, replace(CTX, round=1))
    now = randomk.places(int(payload.tensors["randomk/seed"]), 10)
    assert torch.equal(payload.tensors["randomk/values"], (2 * update - decoded)[now])  # what waited, and the new


def test_places_are_drawn_anew_each_round_and_client():
    update = random(1000)
    cells = ({}, {}, {"round": 1}, {"client": 1}, {"step": 1})
    seeds = [int(RandomK().encode(update, replace(CTX, **cell))["seed"]) for cell in cells]
    assert seeds[0] == seeds[1]
    assert len({*seeds}) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)


# ---- int4 --------------------------------------------------------------------------------------------------------


def test_int4_takes_the_two_levels_around_an_entry():
    update = {"a": vector([7, -3.25, 0, 0.5]), "b": vector([[-14, 3, 0]]), "c": vector([0])}  # levels 1, 2 and 0 apart
    up, down = (
        Int4().restore(Int4().quantise(update, torch.full((8,), u, dtype=torch.float64)), update) for u in (0, 0.999)
    )
    assert up.tolist() == [7, -3, 0, 1, -14, 4, 0, 0]
    assert down.tolist() == [7, -4, 0, 0, -14, 2, 0, 0]


def test_two_entries_share_a_byte():
    update = {"a": vector([7, -7, 0]), "b": vector([3, -3])}  # codes 14, 0, 7, 14, 0 and a last one that is nobody's
    parts = Int4().quantise(update, torch.full((5,), 0.5, dtype=torch.float64))
    assert parts["codes"].tolist() == [14 * 16, 7 * 16 + 14, 0]
    assert parts["scales"].tolist() == pytest.approx([1, 3 / 7])


def test_int4_is_right_on_average():
    """Exactly: fractions 0.75 and 0.5 of a level are met by three and two of four equal parts of [0, 1)."""
    update = {"a": vector([7, -3.25, 0, 0.5])}
    grid = [torch.full((4,), (part + 0.5) / 4, dtype=torch.float64) for part in range(4)]
    decoded = [Int4().restore(Int4().quantise(update, uniform), update) for uniform in grid]
    torch.testing.assert_close(torch.stack(decoded).mean(0), update["a"], rtol=0, atol=1e-6)


def test_the_sixteenth_code_is_refused():
    parts = {"codes": torch.tensor([0xF0], dtype=torch.uint8), "scales": vector([1])}
    with pytest.raises(WireError, match="code 15"):
        Int4().restore(parts, {"a": vector([0])})


# ---- powersgd ----------------------------------------------------------------------------------------------------


def test_a_matrix_of_that_rank_arrives_and_a_vector_travels_whole():
    update = {"m": random(6, 2) @ random(2, 5, seed=1), "b": random(6, seed=2)}
    power = PowerSGD(rank=2)
    parts, kept = power.compress(update, {}, CTX)
    assert num_bytes(parts) == {"left": 4 * 2 * 6, "right": 4 * 2 * 5, "whole": 4 * 6}
    assert torch.equal(kept["warm"], parts["right"])
    expected = torch.cat([tensor.flatten() for tensor in update.values()])
    torch.testing.assert_close(power.restore(parts, update), expected, rtol=0, atol=1e-5)


def test_one_step_by_hand_and_its_memory():
    """Rank 1, warm from (1, 0): P is the first column, made a unit; Q = M^T P; what is left is kept and comes again."""
    power, update = PowerSGD(rank=1), {"m": vector([[3, 1, 0], [4, 0, 2], [0, 5, 1]])}
    warm = ClientState(tensors={"powersgd/warm": vector([1, 0, 0])})
    payload, kept = power.pack(Payload(weights=update), warm, CTX)
    sign = float(payload.tensors["powersgd/left"][0].sign())  # of a unit vector, which is anybody's choice
    assert (sign * payload.tensors["powersgd/left"]).tolist() == pytest.approx([0.6, 0.8, 0])
    assert (sign * payload.tensors["powersgd/right"]).tolist() == pytest.approx([5, 0.6, 1.6])
    residue = kept.tensors["powersgd/residue"].view(3, 3)
    expected = vector([[0, 0.64, -0.96], [0, -0.48, 0.72], [0, 5, 1]])
    torch.testing.assert_close(residue, expected, rtol=0, atol=1e-6)
    payload, _ = power.pack(Payload(weights=update), kept, CTX)
    left = (update["m"] + expected) @ vector([5, 0.6, 1.6])
    torch.testing.assert_close(payload.tensors["powersgd/left"].abs(), (left / left.norm()).abs(), rtol=0, atol=1e-6)


def test_a_warm_start_finds_the_best_rank_in_time():
    """Power iteration, when the update stays the same and nothing is fed back: the error of the best rank-1 matrix."""
    update, kept = {"m": random(8, 8)}, {}
    best = torch.linalg.svdvals(update["m"])[1:].square().sum().sqrt()
    errors = []
    for _ in range(60):
        parts, kept = PowerSGD(rank=1).compress(update, kept, CTX)
        errors.append(float((update["m"].flatten() - PowerSGD(rank=1).restore(parts, update)).norm()))
    assert errors[0] > 1.02 * best
    assert errors[-1] == pytest.approx(float(best), rel=1e-3)


def test_an_update_of_nothing_does_not_end_the_next_one():
    nothing, update, power = {"m": torch.zeros(6, 5)}, {"m": random(6, 2) @ random(2, 5, seed=1)}, PowerSGD(rank=2)
    parts, kept = power.compress(nothing, {}, CTX)
    assert not power.restore(parts, nothing).any()
    for _ in range(20):
        parts, kept = power.compress(update, kept, CTX)
    torch.testing.assert_close(power.restore(parts, update), update["m"].flatten(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("shape", "rank"), [((4, 4), 0), ((5, 4), 2), ((9,), 0), ((3, 90), 2), ((8, 2, 3, 3), 2)])
def test_factors_travel_where_they_are_smaller(shape, rank):
    assert PowerSGD(rank=2).rank_of(torch.zeros(shape)) == rank


@pytest.mark.parametrize("wrong", [lambda: RandomK(share=0), lambda: RandomK(share=2), lambda: PowerSGD(rank=0)])
def test_numbers_out_of_range(wrong):
    with pytest.raises(ConfigError, match="compress"):
        wrong()


# ---- bytes -------------------------------------------------------------------------------------------------------

SIZES = {"hidden": (16, 64), "its bias": (16,), "classifier": (4, 16), "its bias too": (4,)}  # of MLP(hidden=(16,))
P = 16 * 64 + 16 + 4 * 16 + 4


@pytest.mark.parametrize(
    ("compress", "parts"),
    [
        (RandomK(share=0.01), {"values": 4 * ceil(0.01 * P), "seed": 4}),
        (Int4(), {"codes": P // 2, "scales": 4 * len(SIZES)}),
        (PowerSGD(rank=2), {"left": 4 * 2 * (16 + 4), "right": 4 * 2 * (64 + 16), "whole": 4 * (16 + 4)}),
    ],
    ids=["randomk", "int4", "powersgd"],
)
def test_bytes_by_kind_in_the_ledger(tmp_path, compress, parts):
    """Two rounds of three clients that hold images: six times the parts up; the network comes down to all four."""
    job = FederatedJob(
        source=ToyData(),
        model=MLP(hidden=(16,)),
        recipe=ToyGrid(num_clients=4, num_steps=1),
        strategy=FlowerStrategy(algorithm=FedAvg(), training=Training(updates=2, batch_size=8)),
        compress=compress,
        num_rounds=2,
        device="cpu",
        out=tmp_path / "run",
    )
    kinds = run_federated(job)["communication"]["by_kind"]
    found = {kind: size for kind, size in kinds.items() if kind.startswith("tensors.")}
    assert found == {f"tensors.{compress.name}/{name}": 6 * size for name, size in parts.items()}
    assert kinds["weights"] == 8 * 4 * P
