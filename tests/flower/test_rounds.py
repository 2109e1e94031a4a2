"""What a round may ask: several questions, of whom it likes, with what it likes; on every runtime the same."""

from dataclasses import dataclass, replace

import pytest
import torch

from fedcl.core.errors import RunError, WireError
from fedcl.federated.client_state import ClientStore
from fedcl.federated.contract import client_work
from fedcl.federated.ledger import Ledger
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.federated.transforms.base import Transform
from fedcl.flower.batched import Batched
from fedcl.flower.client import ClientRuntime, make_client_app
from fedcl.flower.codec import Codec, Question
from fedcl.flower.compat import new_context, train_message
from fedcl.flower.ray import Ray
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate

RUNTIMES = pytest.mark.parametrize("runtime", [Serial(), Batched()], ids=["serial", "batched"])


def run(sim, runtime, **options):
    results = []
    state = simulate(sim, runtime, num_rounds=2, on_round=results.append, **options)
    return state, results, Ledger(rows=tuple(row for result in results for row in result.rows))


@RUNTIMES
def test_two_questions_a_round(toys, runtime, tmp_path):
    sim = replace(toys.new_world(toys.Talk()), states=ClientStore(tmp_path))
    state, results, ledger = run(sim, runtime)
    assert [(result.failed, result.counted) for result in results] == [((), True)] * 2
    # 2 + 3 + 4 + 5 images in all; the second round; summaries of clients 0 to 3 of round 0 came down
    assert {name: tensor.tolist() for name, tensor in state.tensors.items()} == {
        str(client): [14, 2, 0, 1000, 2000, 3000] for client in range(4)
    }
    kinds = [(row.kind, row.client, row.direction) for row in ledger.rows if row.round == 1]
    assert kinds == [(kind, c, way) for kind in ("count", "tell") for c in range(4) for way in ("down", "up")]
    parts = [row.parts for row in ledger.rows if (row.round, row.kind, row.direction) == (1, "tell", "down")]
    assert all(part["images"] == 4 * 3 * 16 - 16 for part in parts)  # float32 [3, 1, 2, 2], client 0 has two classes
    assert [part.get("tensors.yours") for part in parts] == [8, None, 8, 8]
    assert ledger.communication()["by_kind"]["tensors.size"] == 2 * 4 * 8


def test_runtimes_agree_on_it(toys, tmp_path):
    facts = []
    for runtime in (Serial(), Batched()):
        sim = replace(toys.new_world(toys.Talk()), states=ClientStore(tmp_path / type(runtime).__name__))
        state, _, ledger = run(sim, runtime)
        facts.append(({name: tensor.tolist() for name, tensor in state.tensors.items()}, ledger.to_csv()))
    assert facts[0] == facts[1]


@RUNTIMES
def test_a_client_that_failed_is_not_asked_again_in_this_round(toys, runtime):
    state, results, ledger = run(toys.new_world(toys.Talk(fails=(2,))), runtime)
    ((failure,),) = [results[1].failed]
    assert failure["client"] == 2
    assert failure["reason"].startswith("ValueError: cannot count (tests/flower/conftest.py:")
    assert {row.client for row in ledger.rows if row.kind == "tell"} == {0, 1, 3}
    assert sorted(state.tensors) == ["0", "1", "3"]
    assert state.tensors["0"].tolist()[:2] == [10, 2]


@RUNTIMES
def test_who_failed_once_is_left_out_of_every_later_question(toys, runtime):
    class Twice(toys.Talk):
        def round(self, state, clients, ctx):
            for _ in range(2):
                list(clients.ask(self.count, Payload()))
            return state

    _, results, ledger = run(toys.new_world(Twice(fails=(2,))), runtime)
    assert [(each["client"], each["reason"].partition(" (")[0]) for each in results[0].failed] == [
        (2, "ValueError: cannot count")
    ]
    asked = [row.client for row in ledger.rows if (row.round, row.direction) == (0, "down")]
    assert asked == [0, 1, 2, 3, 0, 1, 3]


@RUNTIMES
def test_a_round_that_is_done_again_finds_the_clients_as_they_were(toys, runtime, tmp_path):
    """The second session begins after round 0, though the first came as far as round 1."""
    sim = replace(toys.new_world(toys.Talk()), states=ClientStore(tmp_path))
    first = simulate(sim, runtime, num_rounds=1)
    whole, _, _ = run(sim, runtime, start_round=1, state=first)
    sim = replace(sim, states=ClientStore(tmp_path))
    again, _, _ = run(sim, runtime, start_round=1, state=first)
    assert whole.tensors["0"].tolist()[:2] == again.tensors["0"].tolist()[:2] == [14, 2]


def test_equal_payloads_are_encoded_once_and_shared_by_nobody(toys, monkeypatch):
    """Three different payloads for four clients; a client that spoils its question spoils its own."""
    encoded, real = [], Codec.encode_question
    monkeypatch.setattr(Codec, "encode_question", lambda self, ask: encoded.append(ask) or real(self, ask))

    class Mixed(toys.Steps):
        def round(self, state, clients, ctx):
            same, other = Payload(weights=state.weights), Payload(weights=state.weights)
            list(clients.ask(self.work, {0: same, 1: other, 2: same, 3: Payload(weights=state.weights)}))
            return state

    def spoil(message, context, call_next):
        reply = call_next(message, context)
        message.content["weights"]["1.bias"].data = b""
        message.content.clear()
        return reply

    sim = replace(toys.new_world(Mixed()), mods=(spoil,))
    _, results, _ = run(sim, Serial())
    assert [result.failed for result in results] == [(), ()]
    assert len(encoded) == 2 * 3


@RUNTIMES
def test_replies_that_nobody_takes_are_weighed_and_checked_all_the_same(toys, runtime):
    class First(toys.Steps):
        def round(self, state, clients, ctx):
            reply = next(clients.ask(self.work, self.question(state, ctx)))
            return ServerState(weights=reply.weights)

    state, results, ledger = run(toys.new_world(First(bad={3: "raise"})), runtime)
    assert state.weights["1.bias"].tolist() == [2, 2, 2]
    assert [failure["client"] for failure in results[0].failed] == [3]
    assert [(row.client, row.delivered) for row in ledger.rows if row.direction == "up" and row.round == 0] == [
        (0, True),
        (1, True),
        (2, True),
    ]


def test_a_round_whose_second_question_fails_leaves_everything_at_the_server_as_it_was(toys):
    class Two(toys.Steps):
        def round(self, state, clients, ctx):
            moved = super().round(state, clients, ctx)
            list(clients.ask(self.broken, Payload(), to=[1, 2]))
            return moved

        @client_work()
        def broken(self, ask, data, mine, ctx):
            raise ValueError("never")

    state, results, ledger = run(toys.new_world(Two()), Serial())
    assert [result.reason for result in results] == ["broken: 0 usable replies, min_success=1"] * 2
    assert [failure["client"] for failure in results[0].failed] == [1, 2]
    assert all(torch.equal(tensor, torch.zeros_like(tensor)) for tensor in state.weights.values())
    assert not any(row.delivered for row in ledger.rows)


def test_what_cannot_be_asked_is_a_bug_of_the_server_half(toys):
    for question, error, words in (
        (lambda s, c: c.ask(s.work, Payload(), to=[9]), RunError, r"work is asked of clients \[9\], .* \[0, 1, 2, 3\]"),
        (lambda s, c: c.ask(s.work, {7: Payload()}), RunError, r"clients \[7\]"),
        (lambda s, c: c.ask(s.model, Payload()), WireError, r"no client half 'model'; mark the method with @client"),
        (lambda s, c: c.ask(s.work, Payload(weights={"x": torch.ones(1)})), WireError, "weights are called 'x'"),
    ):

        class Wrong(toys.Steps):
            def round(self, state, clients, ctx, question=question):
                return list(question(self, clients)) and state

        with pytest.raises(error, match=words):
            run(toys.new_world(Wrong()), Serial())


def test_asking_nobody_is_no_failure(toys):
    class Nobody(toys.Steps):
        def round(self, state, clients, ctx):
            assert list(clients.ask(self.work, Payload(), to=[])) == []
            return state

    assert run(toys.new_world(Nobody()), Serial())[1][0].counted


@pytest.mark.parametrize(
    ("change", "words"),
    [({"num_classes": 9}, "classes, network"), ({"inputs": (1, 4, 1)}, "inputs"), ({"model": None}, "network")],
)
def test_a_client_that_shares_other_things_is_refused_by_name(toys, change, words):
    """A server and a client of two worlds; the networks of the first pair differ in their sizes alone."""
    ours = toys.new_world(toys.Steps())
    made = {"inputs": lambda shape: replace(ours.ctx.inputs, shape=shape), "model": lambda _: toys.Linear(norm=True)}
    changes = {name: made.get(name, int)(value) for name, value in change.items()}
    theirs = replace(ours, ctx=replace(ours.ctx, **changes))
    app = make_client_app(ClientRuntime(sim=lambda: theirs, num_threads=torch.get_num_threads()))
    asked = Question(work="work", round=0, step=0, shared=ours.shared, payload=Payload())
    reply = app(train_message(ours.codec.encode_question(asked), 100), new_context(100, 0, 4))
    assert words.split(", ")[0] in reply.error.reason
    assert reply.error.reason.startswith("WireError: client 0 does not share these with the server: ")


@dataclass(frozen=True, kw_only=True)
class Whole(Transform):
    """Rounds the difference of the weights to whole numbers, and keeps what it rounded off for the next time."""

    name: str = "whole"

    def pack(self, payload, mine, ctx):
        sent, kept = {}, {}
        for name, tensor in payload.weights.items():
            wanted = tensor + mine.tensors.get(f"whole/{name}", 0.0)
            sent[f"whole/{name}"] = wanted.round().to(torch.int8)
            kept[f"whole/{name}"] = wanted - wanted.round()
        return replace(payload, weights=None, tensors={**payload.tensors, **sent}), ClientState(tensors=kept)

    def unpack(self, payload, like, ctx):
        own = {k.removeprefix("whole/"): tensor for k, tensor in payload.tensors.items() if k.startswith("whole/")}
        rest = {k: tensor for k, tensor in payload.tensors.items() if not k.startswith("whole/")}
        return replace(payload, weights=own, tensors=rest)


@RUNTIMES
@pytest.mark.parametrize("wire", ["float32", "float16"])
def test_a_transform_stands_between_the_reply_and_the_wire(toys, runtime, wire):
    """Clients add 0.6 each round: 1, 0, 1, 1 are sent of 0.6, 0.2, 0.8, 0.4 with what was left over."""

    class Slow(toys.Steps):
        @client_work(sends=["weights"])
        def work(self, ask, data, mine, ctx):
            assert not any(name.startswith("whole/") for name in mine.tensors)  # that is the transform's
            weights = {name: value + 0.6 for name, value in ask.weights.items()}
            keep = ClientState(tensors={"own": torch.tensor(ctx.round)})
            return Reply(client=ctx.client, num_examples=len(data), weights=weights, keep=keep)

    sim = replace(toys.new_world(Slow(), wire=wire), compress=(Whole(),))
    biases, results = [], []

    def on_round(result):
        results.append(result)
        biases.append(result.state.weights["1.bias"][0].item())

    simulate(sim, runtime, num_rounds=4, on_round=on_round)
    assert [result.failed for result in results] == [()] * 4
    assert biases == [1, 1, 2, 2]  # sums of 0.6: 0.6, 1.2, 1.8, 2.4, rounded
    up = [row.parts for row in results[0].rows if row.direction == "up"]
    assert all(part == {"tensors.whole/1.weight": 12, "tensors.whole/1.bias": 3, "scalars": 8} for part in up)
    assert sorted(sim.states.read(0).tensors) == ["own", "whole/1.bias", "whole/1.weight"]


@pytest.mark.ray
def test_ray_agrees_on_it(toys, tmp_path):
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(toys)  # a conftest has no name that a worker could import
    try:
        load = toys.Load(strategy=toys.Talk(), wire="uint8", clients=4, folder=tmp_path / "ray")
        on_ray, _, ledger = run(load(), Ray(), load=load)
    finally:
        cloudpickle.unregister_pickle_by_value(toys)
    state, _, expected = run(replace(load, folder=tmp_path / "serial")(), Serial())
    assert {name: tensor.tolist() for name, tensor in on_ray.tensors.items()} == {
        name: tensor.tolist() for name, tensor in state.tensors.items()
    }
    assert ledger.to_csv() == expected.to_csv()
