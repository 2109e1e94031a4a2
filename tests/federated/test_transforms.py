"""Compression of what clients send: laws of every transform, and bytes and numbers that one can check in the head."""

from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate

from fedcl.core.errors import ConfigError, WireError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.distill.context import Context
from fedcl.federated.payload import ClientState, Payload, Reply
from fedcl.federated.transforms.base import Compressor, NoTransform, pack, unpack, visible
from fedcl.federated.transforms.qsgd import QSGD
from fedcl.federated.transforms.sign import Sign
from fedcl.federated.transforms.topk import TopK, index_dtype, places_are_bits
from fedcl.models.mlp import MLP
from fedcl.models.mlp_batchnorm import BatchNormMLP

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "compress").glob("*.yaml"))
ALL = [instantiate(yaml.safe_load(path.read_text())) for path in CONFIGS]
COMPRESSORS = [transform for transform in ALL if isinstance(transform, Compressor)]
NOTHING = ClientState()
each = pytest.mark.parametrize("transform", COMPRESSORS, ids=lambda transform: transform.name)


def new_context(model=None):
    return Context(
        model=model or MLP(hidden=(8,)),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=Normalization(mean=(0.5,), std=(0.5,)), invariances=("flip",)),
        num_classes=3,
    )


def moved(weights, seed=0):
    """The same with noise on every float; counters go on by one."""
    rng = torch.Generator().manual_seed(seed)
    return {
        name: tensor + torch.randn(tensor.shape, generator=rng) if tensor.is_floating_point() else tensor + 1
        for name, tensor in weights.items()
    }


def vector(values):
    return torch.tensor(values, dtype=torch.float32)


def num_bytes(parts):
    return {name: tensor.nbytes for name, tensor in parts.items()}


def travelled(transform, weights, start, ctx, mine=NOTHING):
    """What the strategy gets, and what the client keeps."""
    reply = pack([transform], Reply(client=ctx.client, num_examples=1, weights=weights), start, mine, ctx)
    state = reply.keep or mine
    return unpack([transform], replace(reply, keep=None), start, ctx), state, reply


# ---- numbers -----------------------------------------------------------------------------------------------------


def test_top_k_sends_the_largest_entries_and_keeps_the_rest():
    update = vector([1, -5, 0.5, 3, -2, 0, 0.25, -0.75])
    top = TopK(share=0.25)
    parts = top.encode(update, new_context())
    assert parts["values"].tolist() == [-5, 3]
    assert top.decode(parts, 8).tolist() == [0, -5, 0, 3, 0, 0, 0, 0]
    assert np.unpackbits(parts["places"].numpy()).tolist() == [
        0,
        1,
        0,
        1,
        0,
        0,
        0,
        0,
    ]  # one byte of bits, not two of places
    payload, kept = top.pack(Payload(weights={"w": update}), ClientState(), new_context())
    assert kept.tensors["topk/residue"].tolist() == [1, 0, 0.5, 0, -2, 0, 0.25, -0.75]
    payload, kept = top.pack(Payload(weights={"w": 2 * torch.ones(8)}), kept, new_context())
    assert payload.tensors["topk/values"].tolist() == [3, 2.5]  # what waited, and the new
    assert kept.tensors["topk/residue"].tolist() == [0, 2, 0, 2, 0, 2, 2.25, 1.25]


@pytest.mark.parametrize(
    ("size", "share", "places"),
    [
        (8, 0.25, 1),  # 2 places: 2 bytes, or 8 bits
        (256, 0.01, 3),  # 3 places of one byte, or 32 bytes of bits
        (257, 0.01, 6),  # 3 places of two bytes
        (1000, 0.05, 100),  # 50 places of two bytes, or 125
        (1000, 0.07, 125),  # 70 places of two bytes, or 125
        (40_000, 0.001, 160),  # 40 places of four bytes
        (40_000, 0.04, 5000),  # 1600 places of four bytes, or 5000
    ],
)
def test_bytes_of_top_k(size, share, places):
    kept = ceil(share * size)
    parts = TopK(share=share).encode(torch.randn(size, generator=torch.Generator().manual_seed(0)), new_context())
    assert num_bytes(parts) == {"values": 4 * kept, "places": places}


def test_the_smallest_integer_that_holds_a_place():
    assert [index_dtype(n) for n in (256, 257, 2**15, 2**15 + 1)] == [
        *(torch.uint8, torch.int16, torch.int16, torch.int32)
    ]
    assert not places_are_bits(80, 10)  # a tie: the places


def test_signs_share_the_mean_of_the_sizes():
    update = vector([1, -2, 3, 0, -4, 0.5, -0.5, 1, -4])
    parts = Sign().encode(update, new_context())
    assert num_bytes(parts) == {"bits": 2, "scale": 4}
    assert parts["scale"].item() == pytest.approx(16 / 9)
    plus = parts["scale"].item()
    assert Sign().decode(parts, 9).tolist() == pytest.approx([plus, -plus, plus, plus, -plus, plus, -plus, plus, -plus])


def test_bytes_of_qsgd():
    update = torch.randn(1025, generator=torch.Generator().manual_seed(0))
    for levels, bits in ((1, 2), (3, 3), (7, 4), (127, 8)):
        parts = QSGD(levels=levels).encode(update, new_context())
        assert num_bytes(parts) == {"codes": ceil(1025 * bits / 8), "norms": 3 * 4}  # buckets of 512, 512 and 1


def test_qsgd_takes_the_two_levels_around_an_entry():
    q = QSGD(levels=4, bucket=2)
    update = vector([3, -4, 0, 5])  # two buckets of norm 5: 2.4, -3.2, 0 and 4 levels of 1.25
    up, down = (q.decode(q.quantise(update, torch.full((4,), u, dtype=torch.float64)), 4) for u in (0.0, 0.999))
    assert up.tolist() == [3.75, -5, 0, 5]
    assert down.tolist() == [2.5, -3.75, 0, 5]


def test_qsgd_is_right_on_average():
    """Exactly: fractions 0.4 and 0.2 of a level are met by 2 and 1 of 5 equal parts of [0, 1)."""
    q = QSGD(levels=4, bucket=2)
    update = vector([3, -4, 0, 5])
    grid = [(part + 0.5) / 5 for part in range(5)]
    decoded = [q.decode(q.quantise(update, torch.full((4,), u, dtype=torch.float64)), 4).double() for u in grid]
    torch.testing.assert_close(torch.stack(decoded).mean(0), update.double(), rtol=0, atol=1e-6)


def test_qsgd_draws_anew_each_round_and_client():
    update = torch.randn(64, generator=torch.Generator().manual_seed(0))
    ctx = new_context()
    drawn = [QSGD().encode(update, replace(ctx, **cell))["codes"] for cell in ({}, {}, {"round": 1}, {"client": 1})]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


# ---- laws --------------------------------------------------------------------------------------------------------


@each
def test_what_is_sent_and_what_is_kept_make_up_the_update(transform):
    """Over rounds: all that was sent and the residue are all updates together; without memory, on average (above)."""
    ctx = new_context()
    start = ctx.new_model(0).state_dict()
    mine, sent, wanted = ClientState(), 0, 0
    for round in range(3):
        weights = moved(start, round)
        got, mine, _ = travelled(transform, weights, start, replace(ctx, round=round), mine)
        sent = sent + torch.cat([(got.weights[name] - start[name]).flatten() for name in start])
        wanted = wanted + torch.cat([(weights[name] - start[name]).flatten() for name in start])
    assert list(got.weights) == list(start)
    if transform.feeds_back:
        torch.testing.assert_close(sent + mine.tensors[f"{transform.name}/residue"], wanted, rtol=0, atol=1e-5)
        assert not visible(mine, [transform]).tensors
    else:
        assert mine == ClientState()
    assert not torch.allclose(sent, wanted, atol=1e-3)


@each
def test_it_is_smaller_than_the_weights(transform):
    ctx = new_context(MLP(hidden=(64, 64)))
    start = ctx.new_model(0).state_dict()
    *_, reply = travelled(transform, moved(start), start, ctx)
    assert reply.weights is None
    assert 4 * sum(t.nbytes for t in reply.tensors.values()) < sum(t.nbytes for t in start.values())


@each
def test_buffers_travel_as_they_are(transform):
    ctx = new_context(BatchNormMLP(hidden=(8,)))
    start = ctx.new_model(0).state_dict()
    weights = moved(start)
    got, _, reply = travelled(transform, weights, start, ctx)
    buffers = [name for name in start if "running" in name or "num_batches" in name]
    assert buffers
    assert all(torch.equal(got.weights[name], weights[name]) for name in buffers)
    assert {name.removeprefix("as_is/") for name in reply.tensors if name.startswith("as_is/")} == {*buffers}
    assert {name: t.dtype for name, t in got.weights.items()} == {name: t.dtype for name, t in start.items()}


@each
def test_what_it_did_not_make_is_refused(transform):
    ctx = new_context()
    start = ctx.new_model(0).state_dict()
    reply = replace(travelled(transform, moved(start), start, ctx)[2], keep=None)
    for name, tensor in reply.tensors.items():
        for wrong in (None, tensor[:-1], tensor[None], tensor.double()):
            tensors = {k: v for k, v in {**reply.tensors, name: wrong}.items() if v is not None}
            with pytest.raises(WireError, match="compressed update"):
                unpack([transform], replace(reply, tensors=tensors), start, ctx)


@pytest.mark.parametrize("places", [[3, 1], [1, 1], [-1, 2], [2, 300]])
def test_places_of_a_sparse_update_are_checked(places):
    top = TopK(share=2 / 300)
    with pytest.raises(WireError, match="places"):
        top.decode({"values": vector([1, 2]), "places": torch.tensor(places, dtype=torch.int16)}, 300)
    with pytest.raises(WireError, match="places"):  # three bits for two values
        TopK(share=0.25).decode({"values": vector([1, 2]), "places": torch.tensor([7], dtype=torch.uint8)}, 8)


def test_codes_beyond_the_last_level_are_refused():
    with pytest.raises(WireError, match="code 3"):
        QSGD(levels=1, bucket=4).decode({"codes": torch.tensor([255], dtype=torch.uint8), "norms": vector([1])}, 4)


def test_weights_of_other_parameters_are_refused():
    ctx = new_context()
    start = ctx.new_model(0).state_dict()
    with pytest.raises(WireError, match="other parameters"):
        unpack([NoTransform()], Reply(client=0, num_examples=1, weights={"w": torch.zeros(3)}), start, ctx)
    with pytest.raises(WireError, match="send them"):
        pack([TopK()], Reply(client=0, num_examples=1, weights=start), None, ClientState(), ctx)


def test_two_transforms_are_undone_in_turn():
    """The second sees what the first made: signs of no weights are nothing, so top-k alone is told."""
    ctx = new_context()
    start = ctx.new_model(0).state_dict()
    weights = moved(start)
    both = [TopK(share=0.1), Sign()]
    reply = pack(both, Reply(client=0, num_examples=1, weights=weights), start, ClientState(), ctx)
    got = unpack(both, replace(reply, keep=None), start, ctx)
    alone, *_ = travelled(both[0], weights, start, ctx)
    assert all(torch.equal(got.weights[name], alone.weights[name]) for name in start)


def test_a_reply_without_examples_or_weights_stays_as_it_is():
    ctx = new_context()
    empty = Reply(client=0, num_examples=0)
    assert pack([TopK()], empty, None, ClientState(), ctx) is empty
    some = Reply(client=0, num_examples=2, tensors={"means": torch.ones(2)})
    sent = pack([TopK()], some, None, ClientState(), ctx)
    assert sent == some
    assert unpack([TopK()], sent, None, ctx) == some


@pytest.mark.parametrize(
    "wrong", [lambda: TopK(share=0), lambda: TopK(share=2), lambda: QSGD(levels=0), lambda: QSGD(bucket=0)]
)
def test_numbers_out_of_range(wrong):
    with pytest.raises(ConfigError, match="compress"):
        wrong()
