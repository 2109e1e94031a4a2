"""A summary weighs and says the same wherever it lies: in a message, a file, a checkpoint, a memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from fedcl.core.coding import Wire
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import ArraySpec, Decoder, Origin, Summary
from fedcl.distill.blobs import Blob, decode, encode, pack_blobs, unpack_blobs
from fedcl.distill.files import load_summary, save_summary
from fedcl.distill.parameterizations.frequency import Frequency
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.distill.parameterizations.zoom import Zoom
from fedcl.federated.contract import Reply, ServerState
from fedcl.flower.codec import Codec
from fedcl.flower.weighing import sizes
from fedcl.memory.budget import Budget
from fedcl.memory.buffer import Buffer
from fedcl.memory.files import load_buffer, save_buffer
from fedcl.runs.checkpoint import Checkpoint, pack_server, unpack_server

UNITS, SHAPE, CLASSES = Normalization(mean=(0.5,) * 3, std=(0.25,) * 3), (3, 8, 8), 4
DTYPES = ("float32", "float16", "uint8")


def made(kind) -> Summary:
    """Six entries of classes 0, 0, 1, 1, 3, 3."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (6, *SHAPE), generator=generator, dtype=torch.uint8)
    images, labels = UNITS.apply(pixels) + 0.3 * torch.randn(6, *SHAPE, generator=generator), [0, 0, 1, 1, 3, 3]
    targets, decoder = torch.tensor(labels), {"zoom": Zoom(), "frequency": Frequency(kept=10)}.get(kind, Pixels())
    arrays = decoder.encode(pixels if kind == "real" else images, pixels)
    if kind == "soft":
        arrays |= {"raw_step_sizes": torch.tensor([-3.9, 1e-6, 0.3])}
        targets = torch.rand(6, CLASSES, generator=generator)
    extra = {"logits": torch.randn(6, CLASSES, generator=generator)} if kind == "logits" else {}
    return Summary(
        arrays=arrays | extra,
        targets=targets,
        num_source_C=torch.tensor([5, 300, 0, 7]),
        inputs=InputSpec(shape=SHAPE, preprocess=UNITS),
        decoder=decoder,
        method="hand",
        extra_rows=tuple(extra),
        origin=Origin(client=1, step=2, round=3),
    )


KINDS = {  # bytes of 6 entries and their labels: float32, float16, uint8
    "pixels": (6 * 192 * 4 + 6, 6 * 192 * 2 + 6, 6 * 192 + 6 + 3 * 8),
    "real": (6 * 192 + 6,) * 3,  # a byte a pixel on every wire
    "zoom": (6 * 192 * 4 + 6, 6 * 192 * 2 + 6, 6 * 192 + 6 + 3 * 8),
    "frequency": (6 * 30 * 4 + 6 + 80, 6 * 30 * 2 + 6 + 80, 6 * 30 + 6 + 80 + 30 * 8),  # the places are exact
    "soft": (6 * 192 * 4 + 12 + 96, 6 * 192 * 2 + 12 + 48, 6 * 192 + 12 + 48 + 3 * 8),
    "logits": (6 * 192 * 4 + 6 + 96, 6 * 192 * 2 + 6 + 48, 6 * 192 + 6 + 48 + 3 * 8),
}


def sent(summary, wire):
    """(the summary as it arrives, its bytes by kind as the ledger has them)"""
    codec = Codec(wire=wire, num_classes=CLASSES, inputs=InputSpec(shape=SHAPE, preprocess=UNITS))
    content = codec.encode_reply(Reply(client=1, num_examples=9, summaries=(summary,)))
    parts = {kind: size for kind, size in sizes(content)[0].items() if kind != "scalars"}
    return codec.decode_reply(content, origin=summary.origin).summaries[0], parts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_byte_in_memory_is_a_byte_on_the_wire(kind, dtype, tmp_path):
    summary, wire = made(kind), Wire(dtype=dtype)
    arrived, parts = sent(summary, wire)
    blob = encode(summary, wire)
    kept = Buffer(budget=Budget(images=99, storage=dtype)).add(summary)
    assert parts == blob.parts
    assert sum(parts.values()) == blob.num_bytes == kept.num_bytes == KINDS[kind][DTYPES.index(dtype)]
    assert blob.num_bytes == 6 * blob.row_bytes + blob.shared_bytes
    for image, other in zip(arrived.decode(), kept.replay(), strict=True):  # and what is trained on is the same
        assert torch.equal(image, other)
    save_buffer(kept, tmp_path / "b")
    assert torch.equal(load_buffer(tmp_path / "b").replay()[0], arrived.decode()[0])
    if kind == "logits":
        assert torch.equal(kept.column("logits"), arrived.arrays["logits"])
    again = Buffer(budget=Budget(images=99, storage=dtype)).add(arrived)  # coding twice is coding once
    assert torch.equal(again.replay()[0], kept.replay()[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_hash_is_the_same_wherever_an_exact_summary_lies(kind, tmp_path):
    told = made(kind)
    untold = replace(told, num_source_C=None)
    save_summary(told, tmp_path / "s")
    tensors, about = pack_server(ServerState(summaries=(untold, told)))
    server = unpack_server(Checkpoint(done=1, record={}, tensors=tensors, about=about)).summaries
    assert [summary.origin for summary in server] == [told.origin] * 2
    found = [load_summary(tmp_path / "s"), server[1], decode(encode(told))]
    assert {summary.sha256() for summary in found} == {told.sha256()}
    found = [sent(told, Wire())[0], server[0]]
    assert {summary.sha256() for summary in found} == {untold.sha256()} != {told.sha256()}
    assert encode(told).num_bytes == encode(untold).num_bytes  # counts of real examples are not counted


def test_pixels_are_declared_and_nothing_is_guessed():
    """Numbers that happen to be pixels are numbers; pixels stay pixels though the wire is coarser or finer."""
    real = made("real")
    numbers = replace(real, arrays={"images": real.decode()[0]})
    assert torch.equal(real.decode()[0], numbers.decode()[0])
    assert (encode(real).num_bytes, encode(numbers).num_bytes) == (6 * 193, 6 * (4 * 192 + 1))
    for dtype in DTYPES:
        assert sent(real, Wire(dtype=dtype))[0].arrays["images"].dtype == torch.uint8


def test_coefficients_keep_what_the_wire_keeps():
    """Each coefficient has its own constants in memory too: one scale for all of a row would lose the small ones."""
    summary = made("frequency")
    kept = Buffer(budget=Budget(images=99, storage="uint8")).add(summary)
    coarse, exact = kept.column("coefficients"), summary.arrays["coefficients"]
    span_K = exact.amax(0) - exact.amin(0)
    assert bool(((coarse - exact).abs().amax(0) <= span_K / 510 * 1.001).all())
    assert float(span_K.max() / span_K.min()) > 2  # so a scale for all of them is twice as coarse for some


@dataclass(frozen=True, kw_only=True)
class Two(Decoder):
    """Images that are the sum of two arrays."""

    name = "two"
    arrays: ClassVar = {
        "b": ArraySpec(role="row", coding="image"),
        "a": ArraySpec(role="row", coding="per_column"),
        "c": ArraySpec(coding="per_column"),
    }

    def decode(self, arrays, shape):
        return arrays["b"] + arrays["a"][:, :, None, None] + arrays["c"].sum()


def test_every_array_has_constants_of_its_own():
    """Of different spans and sizes, in one tensor: each array is within half a level of its own."""
    generator = torch.Generator().manual_seed(0)
    b, a, c = (torch.rand(shape, generator=generator) for shape in ((6, *SHAPE), (6, 3), (2, 5)))
    spans = {"b": (b, 1.0), "a": (100 * a, 100.0), "c": (0.1 * c, 0.1)}
    summary = replace(made("pixels"), decoder=Two(), arrays={name: array for name, (array, _) in spans.items()})
    blob = encode(summary, Wire(dtype="uint8"))
    blob.__dict__["decoder"] = Two()  # which is no module of fedcl, so it is not found by its name
    assert blob.tensors["constants"].shape == (2, 3 + 3 + 5)
    assert {name for name in blob.tensors if blob.is_row(name)} == {"array.a", "array.b", "targets"}
    for name, array in decode(blob).arrays.items():
        assert float((array - spans[name][0]).abs().max()) <= spans[name][1] / 510 * 1.001


def test_blobs_in_one_file_stay_apart():
    blobs = [encode(made(kind), Wire(dtype="uint8")) for kind in KINDS]
    tensors, metas = pack_blobs(blobs)
    for blob, other in zip(blobs, unpack_blobs(tensors, metas), strict=True):
        assert decode(blob).sha256() == decode(other).sha256()


def test_no_entries_weigh_nothing_but_what_they_share():
    for kind in ("pixels", "real", "frequency"):
        whole = made(kind)
        rows = [name for name in whole.arrays if whole.spec_of(name).role == "row"]
        arrays = {name: array[:0] if name in rows else array for name, array in whole.arrays.items()}
        blob = encode(replace(whole, arrays=arrays, targets=whole.targets[:0]))
        assert blob.num_bytes == blob.shared_bytes == (80 if kind == "frequency" else 0)
        assert isinstance(blob, Blob)
        assert len(decode(blob).decode()[0]) == len(blob) == 0
