"""What one client sends, or does, costs that client the round, with a reason, and nobody else; on every runtime.

Each attack has a client of its own in one run. The law: the run is, to the last bit, the run in which those clients
just fail, and its ledger counts what came.
"""

import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedcl.flower.batched import Batched
from fedcl.flower.bridge import FlowerStrategy
from fedcl.flower.compat import DEAD_WORKER
from fedcl.flower.fields import to_array
from fedcl.flower.ray import Ray
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from fedcl.training.recipe import Training

RUNTIMES = [Serial, Batched, pytest.param(Ray, marks=pytest.mark.ray)]
FEDAVG = FlowerStrategy(algorithm=FedAvg(), training=Training(epochs=None, updates=1, lr=0.1, batch_size=2))
BIAS, WEIGHT = "1.bias", "1.weight"  # of the toys' network: 3 and 3 x 4 numbers
SENT = to_array(np.zeros(3, np.float32))


def array(**changes):
    """The bias replaced by an array that says or holds something else."""
    about = {"dtype": SENT.dtype, "shape": SENT.shape, "stype": SENT.stype, "data": SENT.data} | changes
    return lambda content: content["weights"].update({BIAS: Array(**about)})


def put(record, name, values):
    """An array replaced by values that are what they say."""
    return lambda content: content[record].update({name: to_array(np.asarray(values))})


def metrics(**values):
    return lambda content: content["metrics"].update({name.replace("_", "-"): v for name, v in values.items()})


def one_more(content):
    content["metrics"]["num-examples"] += 1


def record(key, value):
    return lambda content: content.update({key: value})


HUGE = SENT.data.replace(b"(3,), }", b"(1000000000000,), }".ljust(7))
BIG = np.full((3, 4), 1e30, np.float32)

WEIGHTS = {  # attack: (what it does to the content of its reply, the reason)
    "many": (array(shape=(10**12,)), "has the shape (1000000000000,), which no array has"),
    "more": (array(shape=(10**9,)), "says float32 [1000000000], 4000000000 bytes, and is not such a file of 12"),
    "negative": (array(shape=(-(10**6),)), "has the shape (-1000000,)"),
    "too long a number": (array(shape=(10**400,)), "which no array has"),
    "books 4e12 bytes": (array(data=HUGE), "'1.bias' says float32 [3], 12 bytes, and is not such a file"),
    "crafted dtype": (array(dtype="f4, (99999,99999)f8"), "has the dtype 'f4, (99999,99999)f8'; one of float64"),
    "no dtype": (array(dtype="nonsense\n" * 1000), "has the dtype 'nonsense"),
    "date": (array(dtype="datetime64[s]"), "has the dtype 'datetime64[s]'"),
    "pickle": (array(dtype="object", data=b"\x80\x04N."), "has the dtype 'object'"),
    "stype": (array(stype="torch"), "is not an array of numbers"),
    "longer": (array(data=SENT.data + b"four"), "12 bytes, and is not such a file of 16 bytes"),
    "shorter": (array(data=b""), "12 bytes, and is not such a file of 0 bytes"),
    "other shape": (put("weights", BIAS, np.zeros((1, 3), np.float32)), "expected torch.float32 [3]"),
    "other dtype": (put("weights", BIAS, np.zeros(3)), "torch.float64"),
    "one name more": (put("weights", "mine", np.zeros(3, np.float32)), "weights are called"),
    "long name": (put("weights", "x" * 10**6, np.zeros(3, np.float32)), "a name of more than 200 characters"),
    "huge": (put("weights", WEIGHT, BIG), "weights '1.weight' reach 1e+30, which is not plausible; limits.weight=1"),
    "largest": (put("weights", WEIGHT, -3.4 * 1e8 * BIG), "reach 3.4e+38, which is not plausible"),
    "nan": (put("weights", WEIGHT, np.nan * BIG), "received NaN or infinity"),
    "no weights": (lambda content: content.pop("weights"), "sent no weights"),
    "1e18 examples": (metrics(num_examples=10**18), "is 1000000000000000000, and the client is registered with 26"),
    "one example more": (one_more, "'num-examples' is 28, and the client is registered with 27; see limits.examples"),
    "minus five": (metrics(num_examples=-5), "must be a count, got -5"),
    "half an example": (metrics(num_examples=0.5), "must be a count, got 0.5"),
    "examples of 1329 bits": (metrics(num_examples=10**400), "is a whole number of 1329 bits"),
    "metric of 1329 bits": (metrics(mine=10**400), "'mine' is a whole number of 1329 bits"),
    "list": (metrics(mine=[1.0]), "'mine' is a list"),
    "infinite": (metrics(mine=float("inf")), "'mine' must be a finite number, got inf"),
    "another record": (record("extra", ArrayRecord({"a": to_array(np.zeros(10**6))})), "'extra' is unknown here"),
    "another kind": (record("weights", ConfigRecord({"a": 1})), "'weights' is a ConfigRecord, not a ArrayRecord"),
    "bytes": (record("scalars", ConfigRecord({"a": b"x" * 10**6})), "'a' is a bytes"),
    "text": (record("scalars", ConfigRecord({"a": "x" * 10**6})), "text of 1000000 characters; 10000 can be sent"),
    "too much": (record("tensors", ArrayRecord({"a": to_array(np.zeros(10**6))})), "limits.bytes="),
    "huge tensor": (
        record("tensors", ArrayRecord({"a": to_array(BIG)})),
        "tensor 'a' reach 1e+30, which is not plausible; limits.tensor=1e+06",
    ),
    "empty": (lambda content: content.clear(), "'metrics' is missing"),
}


class Unreadable(Exception):
    def __str__(self):
        raise RuntimeError("no")


class Rude(Exception):
    def __str__(self):
        raise SystemExit(3)


class RudeRecords(RecordDict):
    """Records that end whoever looks at them."""

    def __getattribute__(self, name):
        raise SystemExit(4)


def replies_with_rude_records(message, context, call_next):
    reply = call_next(message, context)
    reply.__dict__["_content"] = RudeRecords.__new__(RudeRecords)
    return reply


class RudeReply(Message):
    def __init__(self):
        pass

    @property
    def metadata(self):
        raise SystemExit(5)


def raises(error):
    def attack(message, context, call_next):
        raise error

    return attack


def gives(result):
    return lambda message, context, call_next: result


def clears_the_question(message, context, call_next):
    message.content.clear()
    raise ValueError("cleared")


def spoils_the_question(message, context, call_next):
    for sent in message.content["weights"].values():
        sent.data = b"spoilt"
    message.content["weights"].clear()
    message.content["task"]["round"] = 77
    raise ValueError("spoilt")


def renames_the_question(message, context, call_next):
    message.metadata.__dict__["_message_id"] = "mine"
    raise ValueError("renamed")


def answers_nobody(message, context, call_next):
    reply = call_next(message, context)
    reply.metadata.__dict__["_reply_to_message_id"] = "mine"
    return reply


def impersonates(message, context, call_next):
    reply = call_next(message, context)
    reply.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id - 1
    return reply


APPS = {
    "nothing": (gives(None), "the client's app returned a NoneType, not a message"),
    "a word": (gives("done"), "the client's app returned a str, not a message"),
    "exit": (raises(SystemExit(0)), "SystemExit: 0"),
    "interrupt": (raises(KeyboardInterrupt()), "KeyboardInterrupt:"),
    "generator exit": (raises(GeneratorExit()), "GeneratorExit:"),
    "unreadable": (raises(Unreadable()), "Unreadable, whose message cannot be read"),
    "exits when read": (raises(Rude()), "Rude, whose message cannot be read"),
    "reply that exits": (gives(RudeReply()), "SystemExit: 5"),
    "a long story": (raises(ValueError("a\n" * 10**6)), "ValueError: a a a"),
    "clears": (clears_the_question, "ValueError: cleared"),
    "spoils": (spoils_the_question, "ValueError: spoilt"),
    "renames": (renames_the_question, "ValueError: renamed"),
    "answers nobody": (answers_nobody, "answered another message, or for another client"),
    "impersonates": (impersonates, "answered another message, or for another client"),
}

IMAGE = np.zeros((2, 1, 2, 2), np.uint8)
FLAT = np.zeros((2, 1), np.float32)


def summary(**changes):
    """Summary 0 with other arrays; lengths that do not fit are put in by the caller."""

    def change(content):
        for name, values in changes.items():
            key = name if name in ("targets", "constants") else f"arrays.{name}"
            content["summary.0"][key] = to_array(np.asarray(values))

    return change


def spec(**values):
    return lambda content: content["spec.0"].update({k.replace("_", "."): v for k, v in values.items()})


def many(copies):
    def change(content):
        for index in range(1, copies):
            content[f"summary.{index}"], content[f"spec.{index}"] = content["summary.0"], content["spec.0"]

    return change


def both(*changes):
    def change(content):
        for each in changes:
            each(content)

    return change


def images(count, label=0):
    return summary(images=np.zeros((count, 1, 2, 2), np.uint8), targets=np.full(count, label, np.uint8))


SUMMARIES = {  # on wire=uint8; two or three classes, one image each, where ten a class are allowed
    "decoder with factor 1e9": (spec(decoder_name="zoom", decoder_factor=10**9), "zoom's factor is at most 2"),
    "factor beyond the side": (spec(decoder_name="zoom", decoder_factor=3), "zoom's factor is at most 2"),
    "no factor": (spec(decoder_name="zoom", decoder_factor=0), "must be a whole number >= 1"),
    "factor of 400 digits": (spec(decoder_name="zoom", decoder_factor=10**400), "is a whole number of 1329 bits"),
    "a million coefficients": (spec(decoder_name="frequency", decoder_kept=1e6), "expected torch.float32"),
    "a module": (spec(decoder_name="os.path"), "named by an identifier"),
    "a million images": (images(10**6), "limits.bytes="),
    "an image too many": (images(11), "11 images of one class, and a client of this run sends 10; see limits.images"),
    "factor for forty": (both(images(10), spec(decoder_name="zoom", decoder_factor=2)), "40 images of one class"),
    "200 summaries": (many(200), "more summaries came than limits.summaries=1"),
    "two summaries": (many(2), "more summaries came than limits.summaries=1"),
    "labels for nothing": (summary(targets=np.zeros(3, np.uint8), images=IMAGE), "is [2, 1, 2, 2] for 3 labels"),
    "label out of range": (summary(targets=np.array([0, 3], np.uint8), images=IMAGE), "hard labels must be uint8"),
    "labels of another size": (summary(targets=np.zeros((2, 2), np.uint8), images=IMAGE), "hard labels must be"),
    "one number": (summary(targets=np.uint8(0), images=IMAGE), "labels must be [N] or [N, C]"),
    "soft labels of 1e4": (
        summary(targets=np.full((2, 3), 1e4, np.float16), images=IMAGE),
        "summary 0: soft labels reach 1e+04, which is not plausible; limits.label=100",
    ),
    "infinite soft labels": (summary(targets=np.full((2, 3), np.inf, np.float16), images=IMAGE), "NaN or infinity"),
    "soft labels for forty": (
        summary(targets=np.zeros((40, 3), np.float16), images=np.zeros((40, 1, 2, 2), np.uint8)),
        "40 images in all, and a client of this run sends 30",
    ),
    "constants of 3e38": (summary(constants=[[np.float32(-3e38)], [np.float32(3e38)]]), "reach 3e+38"),
    "constants of 1e30": (summary(constants=[[np.float32(0)], [np.float32(1e30)]]), "is not plausible; limits.value="),
    "nan constants": (summary(constants=[[np.float32(0)], [np.float32(np.nan)]]), "received NaN or infinity"),
    "50 MB": (spec(mine=b"x" * 5 * 10**6), "'mine' is a bytes"),
    "nobody reads it": (
        lambda content: content["summary.0"].update(mine=Array(SENT.dtype, (10**9,), SENT.stype, SENT.data)),
        "'mine' says float32 [1000000000], 4000000000 bytes",
    ),
    "no labels": (lambda content: content["summary.0"].pop("targets"), "'targets' is missing"),
    "no decoder": (lambda content: content.pop("spec.0"), "'spec.0' is missing"),
    "not of this wire": (summary(images=np.zeros((2, 1, 2, 2), np.float16), targets=[0, 1]), "hard labels must be"),
}


@pytest.fixture
def by_value(toys, runtime):
    """For workers, which can import neither this file nor its conftest."""
    if runtime is not Ray:
        yield
        return
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    modules = (toys, sys.modules[__name__])
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)


def run(toys, runtime, attacks, *, strategy=FEDAVG, wire="float32", **options):
    """One round of honest clients 0 to 3 and those of the attacks."""
    load, seen = toys.Load(strategy=strategy, wire=wire, clients=max(attacks) + 1), []
    sim = replace(load(), mods=(toys.Hostile(attacks=attacks),))
    state = simulate(sim, runtime(), load=load, on_round=seen.append, **{"num_rounds": 1, **options})
    return seen, state


def usable(result):
    """Clients whose replies were used."""
    return [row.client for row in result.rows if row.direction == "up" and row.delivered]


def kept(state):
    """The server's state, to the last bit."""
    return {name: value.tolist() for name, value in state.weights.items()}, [s.sha256() for s in state.summaries]


def facts(seen, state):
    """What must not depend on the runtime."""
    return kept(state), [(r.failed, r.rows) for r in seen]


def attacks_of(toys, table, first):
    """Client `first + n` mounts the n-th attack."""
    return {first + n: toys.spoilt(change) for n, (change, _) in enumerate(table.values())}


def check_reasons(failed, tables, first):
    words = {name: words for table in tables for name, (_, words) in table.items()}
    found = {each["client"]: each["reason"] for each in failed}
    expected = {first + n: name for n, name in enumerate(words)}
    wrong = {name: found.get(client) for client, name in expected.items() if words[name] not in found.get(client, "")}
    assert wrong == {}
    assert set(found) == set(expected)
    assert all(len(reason) <= 500 and "\n" not in reason for reason in found.values())


def check_ledger(seen, limit):
    """Payload is what came: positive, less than the wire bytes, and never what somebody claims."""
    for row in seen[0].rows:
        assert 0 <= row.payload_bytes <= row.wire_bytes < limit
        assert row.wire_bytes > 0
        assert row.payload_bytes == sum(row.parts.values())
        if row.direction == "up" and not row.delivered:  # names that a sender made up are in no total
            assert row.parts == {"refused": row.payload_bytes}


FIRST = 4  # clients before it are honest


def check_law(toys, runtime, attacks, tables, **options):
    seen, state = run(toys, runtime, attacks, **options)
    check_reasons(seen[0].failed, tables, FIRST)
    check_ledger(seen, 10**7)
    quiet, expected = run(toys, Serial, dict.fromkeys(attacks, raises(ValueError("just fails"))), **options)
    assert usable(seen[0]) == usable(quiet[0]) == [0, 1, 2, 3]
    assert kept(state) == kept(expected)
    if runtime is not Serial:
        assert facts(seen, state) == facts(*run(toys, Serial, attacks, **options))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_hostile_weights_and_apps(toys, runtime, by_value):
    attacks = attacks_of(toys, WEIGHTS, FIRST)
    attacks |= {FIRST + len(WEIGHTS) + n: app for n, (app, _) in enumerate(APPS.values())}
    check_law(toys, runtime, attacks, (WEIGHTS, APPS))


@pytest.mark.parametrize("runtime", [Serial, Batched])
def test_records_that_exit_when_they_are_looked_at(toys, runtime):
    """In the process of the server; between processes such a class does not travel."""
    seen, _ = run(toys, runtime, {FIRST: replies_with_rude_records})
    (failed,) = seen[0].failed
    assert failed["client"] == FIRST
    assert failed["reason"].startswith("SystemExit: 4")
    assert usable(seen[0])[:FIRST] == [0, 1, 2, 3]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_hostile_summaries(toys, runtime, by_value):
    attacks = attacks_of(toys, SUMMARIES, FIRST)
    check_law(toys, runtime, attacks, (SUMMARIES,), strategy=toys.Means(), wire="uint8")


def dies_once(message, context, call_next):
    """The out-of-memory killer, in round 0."""
    if message.content["task"]["round"] == 0:
        os._exit(1)
    return call_next(message, context)


@pytest.mark.ray
@pytest.mark.parametrize("runtime", [Ray])
def test_a_dead_worker_costs_one_client_one_round(toys, runtime, by_value):
    seen, state = run(toys, runtime, {1: dies_once, 3: raises(ValueError("alive"))}, num_rounds=3)
    alive = {"client": 3, "reason": "ValueError: alive"}
    failed = [[{**each, "reason": each["reason"].partition(" (")[0]} for each in result.failed] for result in seen]
    assert failed == [[{"client": 1, "reason": DEAD_WORKER}, alive], [alive], [alive]]
    assert [usable(result) for result in seen] == [[0, 2], [0, 1, 2], [0, 1, 2]]

    def fails_once(message, context, call_next):
        if message.content["task"]["round"] == 0:
            raise ValueError("died")
        return call_next(message, context)

    _, expected = run(toys, Serial, {1: fails_once, 3: raises(ValueError("alive"))}, num_rounds=3)
    assert kept(state) == kept(expected)


@pytest.mark.parametrize("runtime", [Serial, Batched])
def test_ctrl_c_ends_the_run_whatever_a_client_does_with_it(toys, runtime):
    before = signal.getsignal(signal.SIGINT)

    def swallows(message, context, call_next):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("no signal came")
        return call_next(message, context)

    with pytest.raises(KeyboardInterrupt):
        run(toys, runtime, {3: swallows})
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.ray
@pytest.mark.parametrize("runtime", [Ray])
def test_ctrl_c_ends_a_run_on_ray(toys, runtime, by_value):
    load = toys.Load(strategy=toys.Means(), wire="float32", clients=2)
    with pytest.raises(KeyboardInterrupt):
        simulate(load(), Ray(), load=load, num_rounds=50, on_round=lambda result: os.kill(os.getpid(), signal.SIGINT))
