"""Runs on every runtime: the same clients, numbers and bytes; failures with their reasons; exact resume."""

import random
import re
import sys
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.core.progress import Progress
from fedcl.federated.ledger import Ledger
from fedcl.flower.batched import Batched
from fedcl.flower.client import ClientRuntime, make_client_app
from fedcl.flower.codec import Question
from fedcl.flower.compat import new_context, train_message
from fedcl.flower.ray import Ray
from fedcl.flower.rounds import sample_clients
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from fedcl.flower.weighing import sizes


def run(sim, runtime=None, **options):
    """All rounds' results, the last state and the ledger: the roll call's rows, then those of the rounds."""
    results, roll = [], []
    options = {"num_rounds": 3, "clients_per_round": 3, **options}
    heard = {"on_round": lambda result: results.append(result), "on_roll_call": roll.extend}
    state = simulate(sim, runtime or Serial(), **heard, **options)
    return results, state, Ledger(rows=(*roll, *(row for result in results for row in result.rows)))


def facts(results, state, ledger: Ledger):
    """What must not depend on the runtime."""
    return (
        [(r.clients, r.failed, r.counted, r.up, r.down) for r in results],
        [[summary.sha256() for summary in r.state.summaries] for r in results],
        {name: tensor.tolist() for name, tensor in state.weights.items()},
        ledger.to_csv(),
    )


@pytest.mark.parametrize("wire", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("bad", [{}, {1: "raise", 3: "nan"}], ids=["all well", "two fail"])
def test_batched_is_serial(toys, wire, bad):
    sim = toys.new_world(toys.Means(bad=bad), wire=wire)
    assert facts(*run(sim, Batched(), clients_per_round=4)) == facts(*run(sim, clients_per_round=4))


def test_weights_go_round(toys):
    results, state, _ = run(toys.new_world(toys.Steps()), clients_per_round=None)
    assert results[0].clients == (0, 1, 2, 3)
    assert torch.equal(state.weights["1.bias"], torch.full((3,), 3 * 2.5))  # each round adds the mean of 1, 2, 3, 4


def test_the_server_sees_what_was_decoded(toys):
    (result,), state, _ = run(toys.new_world(toys.Means(), wire="uint8"), num_rounds=1)
    images = state.summaries[0].arrays["images"]
    assert len(images.unique()) > 1
    low, high = images.min(), images.max()
    levels = (images.double() - low) / (high.double() - low) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert state.summaries == result.state.summaries


def test_sampling_is_by_partition_id_and_from_the_seed(toys):
    first = [sample_clients(7, round, 100, 10) for round in range(3)]
    assert first == [sample_clients(7, round, 100, 10) for round in range(3)]
    assert len({*first, sample_clients(8, 0, 100, 10)}) == 4
    assert all(len(set(clients)) == 10 and list(clients) == sorted(clients) for clients in first)
    results, state, _ = run(toys.new_world(toys.Means()))
    assert [r.clients for r in results] == [sample_clients(7, round, 4, 3) for round in range(3)]
    assert tuple(state.tensors["clients"].tolist()) == results[-1].clients  # combined in order of partition id


def test_global_random_state_is_left_alone(toys):
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # noqa: NPY002
    run(toys.new_world(toys.Means()))
    assert before == (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_ledger_sums_what_was_serialised(toys):
    sim = toys.new_world(toys.Means(), wire="uint8")
    results, _, ledger = run(sim)
    up = down = 0
    strategy, codec = sim.strategy, sim.codec
    for result in results:
        ctx = replace(sim.ctx, round=result.round)
        ask = strategy.question(strategy.init(ctx), ctx)
        question = Question(work="work", round=result.round, step=0, shared=sim.shared, payload=ask)
        down += len(result.clients) * sizes(codec.encode_question(question))[2]
        for client in result.clients:
            (reply,) = strategy.work(ask, [sim.shard(client, 0)], [None], [replace(ctx, client=client)])
            up += sizes(codec.encode_reply(reply))[2]
    assert ledger.totals("up")["wire_bytes"] == up == sum(r.up["wire_bytes"] for r in results)
    assert ledger.totals("down")["wire_bytes"] == down == sum(r.down["wire_bytes"] for r in results)
    assert sum(ledger.communication()["by_kind"].values()) == up + down
    roll = [row for row in ledger.rows if row.kind == "roll call"]
    assert [(row.client, row.direction) for row in roll] == [(c, d) for c in range(4) for d in ("down", "up")]


REASONS = {
    "raise": "ValueError: client 2 is broken in two lines (tests/flower/conftest.py:59)",
    "nan": "WireError: summary array 'images': NaN or infinity cannot be sent; look for a diverged loss at the sender",
    "shape": "WireError: weights '1.weight' are torch.float32 [4, 3], expected torch.float32 [3, 4]",
    "missing": "WireError: weights are called '1.weight', expected '1.weight', '1.bias'",
    "impostor": "RunError: work answered for [0], asked: [2]; return one Reply a client, with client=ctx.client",
}


@pytest.mark.parametrize("fault", REASONS)
@pytest.mark.parametrize("runtime", [Serial(), Batched()], ids=["serial", "batched"])
def test_one_failure_has_a_reason_and_spares_the_others(toys, runtime, fault):
    toy = toys.Means if fault == "nan" else toys.Steps
    results, _, ledger = run(toys.new_world(toy(bad={2: fault})), runtime, clients_per_round=4, num_rounds=1)
    assert results[0].failed == ({"client": 2, "reason": REASONS[fault]},)
    assert results[0].counted
    assert [row.client for row in ledger.counted() if row.direction == "up"] == [0, 1, 3]
    assert [(row.client, row.direction) for row in ledger.counted() if not row.delivered] == [(2, "down")]


@pytest.mark.parametrize("runtime", [Serial, Batched])
def test_a_time_out_is_a_clients_own(toys, runtime):
    """Client 1 sleeps 0.3 s: it alone is late, on every runtime; the four share nothing (0.075 s each)."""
    sim, seen = toys.new_world(toys.Steps(bad={1: "sleep"})), []
    simulate(sim, runtime(timeout=0.15), num_rounds=1, on_round=seen.append)
    (failure,) = seen[0].failed
    assert failure["client"] == 1
    assert re.fullmatch(r"time-out: took \d\.\d s, runtime\.timeout=0\.15", failure["reason"])
    assert torch.equal(seen[0].state.weights["1.bias"], torch.full((3,), (1 + 3 + 4) / 3))
    with pytest.raises(ConfigError, match=r"runtime\.timeout=0 must be a number > 0"):
        runtime(timeout=0)


def test_loading_the_data_in_a_worker_is_not_a_clients_work(toys):
    """A worker process makes its sim with the first message; that client is not late for it."""

    sim = toys.new_world(toys.Steps(), clients=1)

    def slow():
        time.sleep(0.3)
        return sim

    app = make_client_app(ClientRuntime(sim=slow, num_threads=torch.get_num_threads(), timeout=0.15))
    ask = sim.strategy.question(sim.strategy.init(sim.ctx), sim.ctx)
    content = sim.codec.encode_question(Question(work="work", round=0, step=0, shared=sim.shared, payload=ask))
    assert app(train_message(content, 100), new_context(100, 0, 1)).has_content()


def test_too_few_replies_leave_the_state(toys):
    sim = toys.new_world(toys.Steps(bad={0: "raise", 1: "raise"}))
    results, state, ledger = run(sim, clients_per_round=4, min_success=3, num_rounds=2)
    assert [result.counted for result in results] == [False, False]
    assert [result.reason for result in results] == ["work: 2 usable replies, min_success=3"] * 2
    assert torch.equal(state.weights["1.bias"], torch.zeros(3))
    assert not any(row.delivered for row in ledger.counted())
    assert Ledger(rows=results[1].rows).totals("up")["wire_bytes"] > 0  # it was sent all the same


def test_a_round_in_which_every_client_fails_does_not_count_and_the_run_goes_on(toys):
    class Round1(toys.Steps):
        def spoil(self, reply):
            return reply

        def one(self, ask, data, ctx):
            if ctx.round == 1:
                raise ValueError("all of them")
            return super().one(ask, data, ctx)

    results, state, _ = run(toys.new_world(Round1()), clients_per_round=4)
    assert [result.counted for result in results] == [True, False, True]
    assert results[1].reason == "work: 0 usable replies, min_success=1"
    assert [failure["reason"].partition(" (")[0] for failure in results[1].failed] == ["ValueError: all of them"] * 4
    assert not any(row.delivered for row in results[1].rows)
    assert torch.equal(state.weights["1.bias"], torch.full((3,), 2 * 2.5))


def test_an_exception_of_the_server_half_ends_the_run(toys):
    class Buggy(toys.Steps):
        def round(self, state, clients, ctx):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(toys.new_world(Buggy()))


def test_resume_is_exact(toys):
    sim = toys.new_world(toys.Steps(), wire="float16")
    whole = run(sim, num_rounds=4)
    first = run(sim, num_rounds=2)
    rest = run(sim, num_rounds=4, start_round=2, state=first[1])
    later = tuple(row for row in rest[2].rows if row.kind != "roll call")  # it is called again, as it was before
    assert facts(first[0] + rest[0], rest[1], Ledger(rows=first[2].rows + later)) == facts(*whole)


@pytest.mark.parametrize("runtime", [Serial(), Batched()], ids=["serial", "batched"])
def test_a_reply_is_gone_once_the_strategy_let_go_of_it(toys, runtime):
    """A mean over replies holds the one that it folds in, and the one that was just decoded."""
    replies, alive = [], []

    def on_reply(reply):
        replies.extend(weakref.ref(tensor) for tensor in reply.weights.values())
        alive.append(sum(tensor() is not None for tensor in replies) / 2)  # tensors of a reply

    simulate(toys.new_world(toys.Steps()), runtime, num_rounds=3, on_reply=on_reply)
    assert len(alive) == 3 * 4
    assert max(alive) == 1


def test_stop_and_steps(toys):
    results = []

    def on_round(result):
        results.append(result)
        return result.round == 1

    simulate(
        toys.new_world(toys.Means()),
        Serial(),
        num_rounds=9,
        on_round=on_round,
        step_of_round=lambda r: 10 + r,
    )
    assert [(r.round, r.step) for r in results] == [(0, 10), (1, 11)]
    summary = results[1].state.summaries[3]
    assert summary.origin.step == 11
    image = summary.arrays["images"][1]  # client 3, class 1: images 1 and 4 of step 11
    pixel = ((40 + 3 + 11) + (160 + 3 + 11)) / 2
    torch.testing.assert_close(image, torch.full(toys.SHAPE, (pixel / 255 - 0.5) / 0.25))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clients_per_round": 5}, "1..4"),
        ({"clients_per_round": 0}, "1..4"),
        ({"min_success": 4}, "min_success=4"),
    ],
)
def test_numbers_that_do_not_fit(toys, options, words):
    with pytest.raises(ConfigError, match=words):
        run(toys.new_world(toys.Means()), **options)


def test_errors_of_the_server_half_keep_their_type(toys):
    def on_round(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(toys.new_world(toys.Means()), Serial(), num_rounds=1, on_round=on_round)


class Heard(Progress):
    def __init__(self):
        self.events = []

    def begin(self, task, total):
        self.events.append((task, total))

    def advance(self, task, amount=1, **figures):
        self.events.append(task)


def test_progress_counts_rounds_and_clients(toys):
    sim, heard = toys.new_world(toys.Means()), Heard()
    simulate(replace(sim, ctx=replace(sim.ctx, progress=heard)), Serial(), num_rounds=1)
    assert heard.events == [("rounds", 1), ("clients", 4), *["clients"] * 4, "rounds"]


def test_ray_is_asked_for_politely(toys, monkeypatch):
    with pytest.raises(ConfigError, match="load="):
        simulate(toys.new_world(toys.Means()), Ray(), num_rounds=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    load = toys.Load(strategy=toys.Means(), wire="float32", clients=4)
    with pytest.raises(ConfigError, match=r'pip install "flwr\[simulation\]"'):
        simulate(load(), Ray(), num_rounds=1, load=load)


@pytest.mark.ray
@pytest.mark.parametrize("toy", ["Means", "Steps"])
def test_ray_is_serial(toys, toy):
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(toys)  # a conftest has no name that a worker could import
    try:
        load = toys.Load(strategy=getattr(toys, toy)(bad={1: "raise", 3: "nan"}), wire="uint8", clients=4)
        on_ray = run(load(), Ray(), load=load, clients_per_round=4)
    finally:
        cloudpickle.unregister_pickle_by_value(toys)
    assert facts(*on_ray) == facts(*run(load(), clients_per_round=4))
    assert on_ray[0][0].failed[0]["reason"].startswith("ValueError: client 1 is broken in two lines (")
    assert "ray" in sys.modules
