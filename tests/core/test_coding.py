"""What coding for the wire keeps: everything, 11 bits, or 256 levels a channel."""

import pytest
import torch

from fedcl.core.coding import Coded, Wire, weight_axis
from fedcl.core.errors import ConfigError, WireError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import Origin, Summary
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.federated.payload import Reply
from fedcl.flower.codec import Codec
from fedcl.flower.fields import load_tensor

FLOAT32, FLOAT16, UINT8 = (Wire(dtype=name) for name in ("float32", "float16", "uint8"))


def numbers(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator) * 10 ** torch.arange(-3.0, 3.0).repeat(9)[: shape[-1]]


def test_float32_is_exact():
    x = torch.tensor([0.1, -0.0, 3e38, 1e-45])
    coded = FLOAT32.encode(x)
    assert coded.constants.numel() == 0
    assert torch.equal(FLOAT32.decode(coded).view(torch.int32), x.view(torch.int32))


def test_float16_keeps_eleven_bits():
    x = numbers(50, 6)
    error = (FLOAT16.decode(FLOAT16.encode(x)) - x).abs()
    assert (error <= x.abs() * 2**-11 + 2**-25).all()


def test_uint8_hand_checked():
    x = torch.tensor([[0.0, 102.0, 255.0], [-1.0, -1.0, -1.0]])
    coded = UINT8.encode(x, 0)
    assert coded.values.tolist() == [[0, 102, 255], [0, 0, 0]]
    assert coded.constants.tolist() == [[0.0, -1.0], [255.0, -1.0]]  # lowest and highest of the two rows
    assert torch.equal(UINT8.decode(coded, 0), x)


@pytest.mark.parametrize(("shape", "axis"), [((5, 3, 4, 4), 1), ((5, 3, 4, 6), 0), ((7, 6), 0), ((54,), None)])
def test_uint8_errs_by_at_most_half_a_level(shape, axis):
    x = numbers(*shape)
    back = UINT8.decode(UINT8.encode(x, axis), axis)
    rows = x.movedim(axis, 0).flatten(1) if axis is not None else x.view(1, -1)
    error = (back - x).abs()
    error = error.movedim(axis, 0).flatten(1) if axis is not None else error.view(1, -1)
    level = (rows.amax(1) - rows.amin(1)) / 255
    rounding = rows.abs().amax(1) * 2**-23  # of the float32 result
    assert (error.amax(1) <= level / 2 + rounding).all()


@pytest.mark.parametrize("values", [[0.1, 0.1], [1e-45, 0.0], [3e38, -3e38], [16777216.0, 16777218.0], []])
@pytest.mark.parametrize("wire", [FLOAT32, UINT8], ids=["float32", "uint8"])
def test_two_values_come_back_exactly(values, wire):
    x = torch.tensor(values)
    assert torch.equal(wire.decode(wire.encode(x)), x)


@pytest.mark.parametrize("wire", [FLOAT16, UINT8], ids=["float16", "uint8"])
@pytest.mark.parametrize("shift", [0.0, 1e4], ids=["around 0", "far from 0"])
def test_coding_twice_is_coding_once(wire, shift):
    x = numbers(40, 3, 5, 6) + shift
    once = wire.decode(wire.encode(x, 1), 1)
    again = wire.encode(once, 1)
    assert torch.equal(wire.decode(again, 1), once)


def test_axes_and_channels():
    assert [weight_axis(n) for n in (0, 1, 2, 4)] == [None, None, 0, 0]
    assert UINT8.num_channels((8, 3, 5, 5), 1) == 3
    assert UINT8.num_channels((8,), None) == 1
    assert FLOAT16.num_channels((8, 3, 5, 5), 1) == 0
    with pytest.raises(WireError, match="uint8 needs axis 1"):
        UINT8.num_channels((8,), 1)
    assert UINT8.for_labels() == FLOAT16
    assert FLOAT32.for_labels() == FLOAT32


@pytest.mark.parametrize("wire", [FLOAT32, FLOAT16, UINT8], ids=["float32", "float16", "uint8"])
def test_what_is_declared_exact_is_not_rounded(wire):
    exact = wire.for_array("exact")
    for numbers in (torch.tensor([1e-7]), torch.tensor([-3.9, 0.1, 1 / 3]), torch.tensor([[0.0, 255], [7, 70000]])):
        coded = exact.encode(numbers, 1)
        assert coded.values.dtype == torch.float32
        assert coded.constants.numel() == 0
        assert torch.equal(exact.decode(coded, 1), numbers)
    with pytest.raises(WireError, match="NaN"):
        exact.decode(Coded(values=torch.tensor([torch.nan]), constants=torch.zeros(2, 0)), 1)
    with pytest.raises(WireError, match=r"expected torch\.float32"):
        exact.decode(Coded(values=torch.zeros(2, dtype=torch.uint8), constants=torch.zeros(2, 0)), 1)
    assert wire.for_array("image") == wire.for_array("per_column") == wire
    assert wire.for_array("soft") == wire.for_labels()


@pytest.mark.parametrize(("dtype", "width", "label"), [("float32", 4, 4), ("float16", 2, 2), ("uint8", 1, 2)])
def test_a_summary_with_step_sizes_and_learned_labels_arrives_and_is_counted(dtype, width, label):
    """2 images of 1x4x4, 3 classes. Step sizes are float32 on every wire, labels float16 where pixels are bytes."""
    units = Normalization(mean=(0.5,), std=(0.25,))
    generator = torch.Generator().manual_seed(0)
    sent = Summary(
        arrays={
            "images": torch.randn(2, 1, 4, 4, generator=generator),
            "raw_step_sizes": torch.tensor([-3.9, 1e-6, 0.3]),
            "step_size": torch.tensor([1e-7]),
        },
        targets=torch.rand(2, 3, generator=generator),
        num_source_C=torch.tensor([4, 5, 6]),
        inputs=InputSpec(shape=(1, 4, 4), preprocess=units),
        decoder=Pixels(),
        method="dd",
    )
    codec = Codec(wire=Wire(dtype=dtype), num_classes=3, inputs=InputSpec(shape=(1, 4, 4), preprocess=units))
    content = codec.encode_reply(Reply(client=0, num_examples=15, summaries=(sent,)))
    sizes = {name: load_tensor(content["summary.0"], name).nbytes for name in content["summary.0"]}
    constants = {"constants": 2 * 4} if dtype == "uint8" else {}  # of the one channel of the images
    assert sizes == constants | {
        "arrays.images": 32 * width,
        "arrays.raw_step_sizes": 12,
        "arrays.step_size": 4,
        "targets": 6 * label,
    }
    (came,) = codec.decode_reply(content, origin=Origin()).summaries
    for name in ("raw_step_sizes", "step_size"):
        assert torch.equal(came.arrays[name], sent.arrays[name])
    assert float((came.targets - sent.targets).abs().max()) <= 2**-12  # half of a step of float16 below 1


def test_no_images_is_no_error():
    x = torch.zeros(0, 3, 2, 2)
    assert UINT8.decode(UINT8.encode(x, 1), 1).shape == (0, 3, 2, 2)


@pytest.mark.parametrize(
    ("wire", "values", "words"),
    [
        (FLOAT32, torch.tensor([1.0, float("nan")]), "NaN"),
        (UINT8, torch.tensor([float("inf")]), "NaN or infinity"),
        (FLOAT16, torch.tensor([1e5]), "wire=float32"),
        (FLOAT32, torch.tensor([1.0], dtype=torch.float64), "float64"),
    ],
)
def test_refused_at_the_sender(wire, values, words):
    with pytest.raises(WireError, match=words):
        wire.encode(values)


@pytest.mark.parametrize(
    ("wire", "values", "constants", "words"),
    [
        (FLOAT32, torch.tensor([float("nan")]), torch.zeros(2, 0), "NaN"),
        (FLOAT16, torch.tensor([1.0]), torch.zeros(2, 0), "expected torch.float16"),
        (UINT8, torch.zeros(4, dtype=torch.uint8), torch.zeros(2, 2), "constants"),
        (UINT8, torch.zeros(4, dtype=torch.uint8), torch.full((2, 1), torch.inf), "NaN or infinity"),
    ],
)
def test_refused_at_the_receiver(wire, values, constants, words):
    with pytest.raises(WireError, match=words):
        wire.decode(Coded(values=values, constants=constants))


def test_unknown_wire():
    with pytest.raises(
        ConfigError, match=r"wire\.dtype=int4 must be one of float32, float16, uint8; type wire\.dtype=float32"
    ):
        Wire(dtype="int4")
