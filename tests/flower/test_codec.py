"""Requests and replies survive the wire; whatever is wrong with them is said; every byte is counted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedcl.core.coding import Wire
from fedcl.core.errors import WireError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import Origin, Summary
from fedcl.distill.parameterizations import load_decoder
from fedcl.federated.payload import Payload, Reply
from fedcl.flower.codec import Codec, Question
from fedcl.flower.fields import load_array, to_array
from fedcl.flower.weighing import sizes

WEIGHTS = {
    "conv": torch.arange(24.0).view(2, 3, 2, 2),
    "bias": torch.tensor([0.5, -0.25]),
    "scale": torch.tensor(3.0),
    "num_batches_tracked": torch.tensor(12),
}
ORIGIN = Origin(client=2, step=1, round=4)


TENSORS = {
    "control": torch.linspace(-1, 1, 6).view(2, 3),
    "places": torch.tensor([7, 2**40]),
    "levels": torch.tensor([-127, 127], dtype=torch.int8),
    "bits": torch.tensor([255, 0], dtype=torch.uint8),
    "mask": torch.tensor([True, False]),
}


def codec(toys, dtype="float32") -> Codec:
    about = {"num_classes": toys.CLASSES, "inputs": InputSpec(shape=toys.SHAPE, preprocess=toys.UNITS)}
    return Codec(wire=Wire(dtype=dtype), network=WEIGHTS, **about)


def asked(payload: Payload, **changes) -> Question:
    return Question(**{"work": "train", "round": 4, "step": 1, "shared": b"123456789", "payload": payload} | changes)


def summary(toys, *, soft=False, values=None) -> Summary:
    images = torch.linspace(-2, 2, 8).view(2, 1, 2, 2) if values is None else values
    count = len(images)
    targets = torch.full((count, 3), 1 / 3) if soft else torch.arange(count) % 3
    return Summary(
        arrays={"images": images},
        targets=targets,
        num_source_C=torch.tensor([5, 300, 0]),
        inputs=InputSpec(shape=toys.SHAPE, preprocess=toys.UNITS),
        decoder=load_decoder({"name": "pixels"}),
        method="hand",
        origin=ORIGIN,
    )


def flowers_bytes(content: RecordDict) -> int:
    """Length of all different objects that Flower would send."""
    return sum(len(part.deflate()) for part in get_all_nested_objects(content).values())


def round_trip(content: RecordDict) -> RecordDict:
    """Through Flower's own serialisation of records and arrays."""
    out = RecordDict()
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays = {}
            for name, array in record.items():
                chunks = {chunk.object_id: chunk for chunk in array.children.values()}
                arrays[name] = Array.inflate(array.deflate(), chunks)
            out[key] = ArrayRecord(arrays)
        else:
            out[key] = type(record).inflate(record.deflate())
    return out


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_question_and_reply_round_trip(toys, dtype):
    wire = codec(toys, dtype)
    config = {"key": 2**62 + 1, "rate": 0.1, "on": True, "name": "ä"}
    others = (replace(summary(toys), origin=Origin(client=9, step=0, round=3)), summary(toys, soft=True))
    ask = Payload(weights=WEIGHTS, tensors=TENSORS, scalars=config, summaries=others)
    question = wire.decode_question(round_trip(wire.encode_question(asked(ask))))
    assert (question.work, question.round, question.step, question.shared) == ("train", 4, 1, b"123456789")
    assert [summary.origin for summary in question.payload.summaries] == [summary.origin for summary in others]
    reply = Reply(
        client=2,
        num_examples=9,
        weights=WEIGHTS,
        tensors=TENSORS,
        scalars={"loss": 0.75, **config},
        summaries=(summary(toys), summary(toys, soft=True), summary(toys, values=torch.zeros(0, 1, 2, 2))),
    )
    back = wire.decode_reply(round_trip(wire.encode_reply(reply)), origin=ORIGIN)
    assert (back.client, back.num_examples, back.scalars) == (2, 9, reply.scalars)
    for tensors in (question.payload.tensors, back.tensors):
        assert set(tensors) == set(TENSORS)
        for name, tensor in TENSORS.items():
            exact = dtype == "float32" or name != "control"
            torch.testing.assert_close(tensors[name], tensor, atol=0 if exact else 1 / 255, rtol=0)
    tolerance = {"float32": 0.0, "float16": 1e-3, "uint8": 11 / 255}[dtype]  # the widest channel spans 11
    for weights in (question.payload.weights, back.weights):
        assert list(weights) == list(WEIGHTS)
        for name, tensor in WEIGHTS.items():
            torch.testing.assert_close(weights[name], tensor, atol=tolerance, rtol=tolerance)
    for sent, came in zip(reply.summaries, back.summaries, strict=True):
        torch.testing.assert_close(came.arrays["images"], sent.arrays["images"], atol=4 / 255, rtol=1e-3)
        torch.testing.assert_close(came.targets, sent.targets, atol=1e-3, rtol=0)  # never on 256 levels
        assert (came.num_source_C, came.num_classes) == (None, 3)  # what a client holds is its own business
        assert (came.decoder, came.method, came.origin) == (sent.decoder, "hand", ORIGIN)
    if dtype == "float32":
        sent = [replace(summary, num_source_C=None) for summary in reply.summaries]
        assert [came.sha256() for came in back.summaries] == [summary.sha256() for summary in sent]


def test_what_was_decoded_is_sent_again_unchanged(toys):
    wire = codec(toys, "uint8")
    reply = Reply(client=2, num_examples=9, weights=WEIGHTS, summaries=(summary(toys),))
    once = wire.decode_reply(wire.encode_reply(reply), origin=ORIGIN)
    twice = wire.decode_reply(wire.encode_reply(once), origin=ORIGIN)
    assert once.summaries[0].sha256() == twice.summaries[0].sha256()
    assert all(torch.equal(once.weights[name], twice.weights[name]) for name in WEIGHTS)


def test_payload_is_elements_times_bytes(toys):
    reply = Reply(client=2, num_examples=9, scalars={"loss": 1.0}, weights=WEIGHTS, summaries=(summary(toys),))
    # "hand" and "pixels": 10 bytes, two numbers; weights: 27 floats, one int64. Who holds what does not travel.
    common = {"labels": 2, "scalars": 10 + 16}
    expected = {
        "float32": {**common, "images": 32, "weights": 27 * 4 + 8},
        "float16": {**common, "images": 16, "weights": 27 * 2 + 8},
        # constants: 2 x float32 for 2 channels of conv, 1 of bias, 1 of scale, 1 of the images
        "uint8": {**common, "images": 8, "weights": 27 + 8, "constants": 5 * 8},
    }
    for dtype, parts in expected.items():
        content = codec(toys, dtype).encode_reply(reply)
        assert sizes(content)[:2] == (parts, sum(parts.values()))
    ask = Payload(scalars={"on": True, "name": "ä"}, tensors=TENSORS)
    named = {"control": 24, "places": 16, "levels": 2, "bits": 2, "mask": 2}
    expected = {"scalars": len("train") + 8 + 8 + 9 + 1 + 2} | {f"tensors.{name}": n for name, n in named.items()}
    assert sizes(codec(toys).encode_question(asked(ask)))[0] == expected


def weights(**arrays) -> RecordDict:
    return RecordDict({"weights": ArrayRecord(arrays)})


def config(value) -> RecordDict:
    return RecordDict({"config": ConfigRecord({"k": value})})


ZEROS, HEAD = np.zeros(1000, np.float32), b"\x93NUMPY\x01\x00\x76\x00"  # the head says: 10 + 118 bytes
DOUBLES = Array(dtype="float64", shape=(10**12,), stype="numpy.ndarray", data=to_array(ZEROS).data)
NONSENSE = Array(dtype="f4, (99999,99999)f8", shape=(-3,), stype="numpy.ndarray", data=b"ten bytes!")
HEADLESS = Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=HEAD + b"12")


@pytest.mark.parametrize(
    ("content", "payload"),
    [
        (weights(a=Array(ZEROS)), 4000),
        (weights(a=Array(ZEROS), b=Array(ZEROS.reshape(10, 100)), c=Array(ZEROS + 1)), 12000),
        (weights(**{f"w{n}": Array(ZEROS) for n in range(10)}), 4000),  # one object on the wire
        (weights(a=Array(np.zeros(4_000_000, np.float32))), 16_000_000 - 5 * 2**20),  # 4 chunks, two of them equal
        (weights(a=DOUBLES), 4000),  # whatever it says of itself
        (weights(a=NONSENSE), 10),
        (weights(a=HEADLESS), 0),
        (weights(a=Array(dtype="float32", shape=(9,), stype="numpy.ndarray", data=b"")), 0),
        (config([0.5] * 1000), 8000),
        (config([True] * 1000), 1000),
        (config(["ab", "ä"]), 4),
        (config(b"x" * 500), 500),
        (config([-64, 63, 64, 2**62]), 1 + 1 + 1 + 9),
        (config([2**63, *[100] * 1000]), 10 + 1000),
        (RecordDict({f"spec.{n}": ConfigRecord({"k": "x" * 500}) for n in range(9)}), 500),
        (RecordDict({"metrics": MetricRecord({"a": 1, "b": [0.5, 1.5]})}), 24),
        (RecordDict(), 0),
    ],
)
def test_payload_is_what_is_really_there(content, payload):
    parts, total, wire = sizes(content)
    assert wire == flowers_bytes(content)
    assert (total, sum(parts.values())) == (payload, payload)
    assert 0 < wire - total < 4000  # framing is never negative, and never what somebody claims


def test_framing_is_never_negative():
    """Whole numbers of every size, alone and in lists, with keys of one letter."""
    for bits in range(1, 64):
        for value in (2 ** (bits - 1), 2**bits - 1, -(2 ** (bits - 1))):
            for content in (config(value), config([value] * 300), config([abs(value), 2**63] * 150)):
                _, payload, wire = sizes(content)
                assert payload <= wire, value


def test_one_array_a_field(toys):
    reply = Reply(client=2, num_examples=9, summaries=(summary(toys),))
    content = codec(toys, "uint8").encode_reply(reply)
    assert sorted(content["summary.0"]) == ["arrays.images", "constants", "targets"]


def test_arrays_are_numpys_own_files():
    for values in (np.arange(6, dtype=np.float16).reshape(2, 3), np.zeros((0, 3), np.uint8), np.array(5)):
        array = to_array(values)
        assert array == Array(values)
        np.testing.assert_array_equal(load_array({"x": array}, "x"), values)
        assert load_array({"x": array}, "x").flags.writeable


def with_array(content: RecordDict, key: str, name: str, values) -> RecordDict:
    record = dict(content[key])
    if values is None:
        del record[name]
    else:
        record[name] = values if isinstance(values, Array) else Array(np.asarray(values))
    content[key] = ArrayRecord(record)
    return content


NAN_IMAGE = np.full((2, 1, 2, 2), np.nan, np.float32)
PICKLE = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=b"\x80\x04N.")
LIAR = Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=Array(np.zeros(2, np.float32)).data)


@pytest.mark.parametrize(
    ("key", "name", "values", "words"),
    [
        (
            "weights",
            "conv",
            np.zeros((2, 3, 3, 3), np.float32),
            r"weights 'conv' .* expected .* \[2, 3, 2, 2\]",
        ),
        ("weights", "conv", np.zeros((2, 3, 2, 2)), "torch.float64"),
        ("weights", "bias", np.array([np.inf, 0], np.float32), "weights 'bias': received NaN or infinity"),
        ("weights", "bias", None, "weights are called 'conv', 'scale', 'num_batches_tracked'"),
        ("weights", "bias", LIAR, "says float32"),
        ("weights", "num_batches_tracked", np.array(1, np.int32), "torch.int32"),
        ("summary.0", "arrays.images", NAN_IMAGE, "summary 0: array 'images': received NaN"),
        (
            "summary.0",
            "arrays.images",
            np.zeros((2, 1, 3, 2), np.float32),
            r"images \[2, 1, 3, 2\] for 2 labels",
        ),
        ("summary.0", "arrays.images", np.zeros((3, 1, 2, 2), np.float32), r"\[3, 1, 2, 2\] for 2 labels"),
        ("summary.0", "arrays.images", None, "cannot be decoded"),
        ("summary.0", "arrays.images", PICKLE, "has the dtype 'object'"),
        ("summary.0", "targets", np.array([0, 3], np.uint8), r"labels must lie in \[0, 3\)"),
        ("summary.0", "targets", np.array([0, 1]), "hard labels must be torch.uint8"),
        ("summary.0", "targets", np.ones((2, 4), np.float32), "soft labels must be"),
        ("summary.0", "targets", None, "'targets' is missing"),
        ("summary.0", "constants", np.zeros((2, 1), np.float32), "belong to nothing"),
    ],
)
def test_bad_arrays_are_refused(toys, key, name, values, words):
    wire = codec(toys)
    content = wire.encode_reply(Reply(client=2, num_examples=9, weights=WEIGHTS, summaries=(summary(toys),)))
    wire.decode_reply(content, origin=ORIGIN)  # good before
    spoilt = with_array(content, key, name, values)
    assert sizes(spoilt)[1] > 0  # it is counted all the same
    with pytest.raises(WireError, match=words):
        wire.decode_reply(spoilt, origin=ORIGIN)


@pytest.mark.parametrize(
    ("key", "record", "words"),
    [
        ("metrics", MetricRecord({"loss": 1.0}), "'num-examples' must be a whole number, got None"),
        ("metrics", MetricRecord({"num-examples": -1}), "got -1"),
        ("metrics", MetricRecord({"num-examples": 1.5}), "got 1.5"),
        ("scalars", ConfigRecord({"loss": float("nan")}), "scalar 'loss'"),
        ("scalars", ConfigRecord({"loss": [1.0]}), "scalar 'loss'"),
        ("scalars", ConfigRecord({"loss": b"raw"}), "scalar 'loss'"),
        ("integers", ArrayRecord({"x": Array(np.zeros(1))}), "tensors 'x' must hold whole numbers"),
        ("integers", ArrayRecord({"control": Array(np.zeros(1, np.int64))}), "tensors 'control' must"),
        ("tensors", ArrayRecord({"x": Array(np.zeros(1, np.int64))}), "tensors 'x': expected torch.float32"),
        ("tensors", ArrayRecord({"x": Array(np.full(1, np.nan, np.float32))}), "tensors 'x': received NaN"),
        ("spec.0", ConfigRecord({"method": "x", "decoder.name": "os.path"}), "identifier"),
        ("spec.0", ConfigRecord({"method": "x", "decoder.name": "base"}), "does not define DECODER"),
        ("spec.0", ConfigRecord({"method": "x", "decoder.name": "pixels", "decoder.factor": 2}), "refuses"),
        ("spec.0", ConfigRecord({"method": "x"}), "named by an identifier"),
    ],
)
def test_bad_scalars_are_refused(toys, key, record, words):
    wire = codec(toys)
    control = {"control": torch.ones(2)}
    content = wire.encode_reply(Reply(client=2, num_examples=9, tensors=control, summaries=(summary(toys),)))
    content[key] = record
    with pytest.raises(WireError, match=words):
        wire.decode_reply(content, origin=ORIGIN)


def test_the_wire_is_agreed_on(toys):
    content = codec(toys, "uint8").encode_reply(Reply(client=2, num_examples=9, summaries=(summary(toys),)))
    with pytest.raises(WireError, match="float16"):
        codec(toys, "float16").decode_reply(content, origin=ORIGIN)
    short = with_array(content, "summary.0", "constants", np.zeros((2, 0), np.float32))
    with pytest.raises(WireError, match=r"constants \[2, 1\]"):
        codec(toys, "uint8").decode_reply(short, origin=ORIGIN)


def test_the_sender_refuses_what_the_server_does_not_expect(toys):
    other = replace(
        summary(toys), inputs=replace(summary(toys).inputs, preprocess=Normalization(mean=(0.0,), std=(1.0,)))
    )
    diverged = WEIGHTS | {"bias": torch.full((2,), torch.nan)}
    for reply, words in (
        (Reply(client=0, num_examples=1, summaries=(other,)), "cannot be sent"),
        (Reply(client=0, num_examples=1, weights={"w": torch.tensor(1.0)}), "weights are called 'w'"),
        (
            Reply(client=0, num_examples=1, weights=diverged),
            "weights 'bias': NaN",
        ),
        (Reply(client=0, num_examples=1, tensors={"x": torch.zeros(1).double()}), "tensors 'x': only float32"),
    ):
        with pytest.raises(WireError, match=words):
            codec(toys).encode_reply(reply)
    for value in (torch.zeros(2), [0.5, 1.5], b"raw", None):
        with pytest.raises(
            WireError, match=rf"'rates' is a {type(value).__name__}; only numbers.*, tensors as tensors"
        ):
            codec(toys).encode_question(asked(Payload(scalars={"rates": value})))  # type: ignore[dict-item]
