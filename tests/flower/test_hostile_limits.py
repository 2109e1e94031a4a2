"""Limits: what is derived from a run, what can be typed, and that a limit itself still passes."""

from dataclasses import replace

import pytest
import torch

from fedcl.core.errors import ConfigError, DataError, FedclError, WireError
from fedcl.core.inputs import InputSpec
from fedcl.core.types import Summary
from fedcl.distill.distiller import Distiller
from fedcl.distill.parameterizations.frequency import Frequency
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.distill.parameterizations.zoom import Zoom
from fedcl.federated.contract import lacking
from fedcl.federated.limits import Limits
from fedcl.federated.payload import Payload, Reply
from fedcl.flower.serial import Serial
from fedcl.flower.simulate import simulate
from strategies.federated.fedavg_replay import FedAvgReplay


def summary(toys, images, targets, decoder=None):
    return Summary(
        arrays={"images": images},
        targets=targets,
        num_classes=toys.CLASSES,
        inputs=InputSpec(shape=toys.SHAPE, preprocess=toys.UNITS),
        decoder=decoder or Pixels(),
        method="hand",
    )


def test_limits_come_from_the_run(toys):
    """The toys: 3 classes, images of 4 numbers, a network of 3 x 4 + 3; ipc=10."""
    ctx = toys.new_tools()
    limits = Limits().for_run(ctx)
    assert (limits.images, limits.bytes) == (10, 2**20 + 16 * (15 + 10 * 3 * (4 + 3)))
    assert Limits(summaries=2).for_run(ctx).bytes == 2**20 + 16 * (15 + 2 * 10 * 3 * (4 + 3))
    assert Limits(bytes=5, images=7).for_run(ctx) == Limits(bytes=5, images=7)
    for parameterization, images in ((Zoom(factor=2), 40), (Frequency(multiple=4), 40), (Pixels(), 10)):
        distiller = Distiller(parameterization=parameterization)
        assert Limits().for_run(replace(ctx, distiller=distiller)).images == images


@pytest.mark.parametrize("name", ["bytes", "summaries", "images", "examples", "weight", "tensor", "value", "label"])
def test_a_limit_that_forbids_everything(name):
    with pytest.raises(ConfigError, match=rf"limits\.{name}=0 must be a"):
        Limits(**{name: 0})
    with pytest.raises(ConfigError, match=rf"limits\.{name}=nan must be a"):
        Limits(**{name: float("nan")})


@pytest.mark.parametrize("key", ["weight", "tensor", "value", "label"])
def test_the_limit_itself_is_plausible(toys, key):
    """At the limit a number passes, on both sides; above it, NaN and infinity do not."""
    limits = Limits(**{key: 8.0})

    def check(number):
        values = torch.tensor([[0.0, -8.0, number]])
        if key in ("weight", "tensor"):
            return limits.check_values(Payload(**{"weights" if key == "weight" else "tensors": {"a": values}}))
        if key == "label":
            return limits.check_summary(summary(toys, torch.zeros(1, 1, 2, 2), values))
        image = torch.tensor([0.0, 0.0, -8.0, number]).view(1, 1, 2, 2)
        return limits.check_summary(summary(toys, image, torch.tensor([1])))

    check(8.0)
    for number in (8.001, -9.0, 1e30):
        with pytest.raises(WireError, match=rf"is not plausible; limits\.{key}=8"):
            check(number)
    for number in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(FedclError, match="NaN or infinity"):
            check(number)


def test_whole_numbers_count_and_truth_values_pass():
    Limits().check_values(Payload(weights={"n": torch.tensor(2**53), "b": torch.tensor(True), "e": torch.zeros(0)}))
    with pytest.raises(WireError, match="counters stay below"):
        Limits().check_values(Payload(weights={"n": torch.tensor(2**63 - 1)}))


@pytest.mark.parametrize(
    ("limits", "failed"),
    [
        (Limits(), []),
        (Limits(images=1), []),  # one of each class is what the toys send
        (Limits(bytes=1), [0, 1, 2, 3]),
        (Limits(examples=3), [2, 3]),  # client n has n + 2
        (Limits(examples=10**9), []),
        (Limits(value=1.5), [0, 1]),  # their images of class 0 are about -2, the others' about -1
    ],
)
def test_typed_limits_decide(toys, limits, failed):
    """Client n: image i is 40 i + n, of class i mod 3; what is sent are class means of (x / 255 - 0.5) / 0.25."""
    sim, seen = replace(toys.new_world(toys.Means()), limits=limits), []
    simulate(sim, Serial(), num_rounds=1, on_round=seen.append)
    assert [each["client"] for each in seen[0].failed] == failed


def test_a_decoder_with_a_huge_factor_never_runs(toys):
    """Neither from a message nor from a file: the number of images is known before one is made."""
    huge = summary(toys, torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), Zoom(factor=10**9))
    for call in (lambda: huge.num_images, huge.decode, huge.check):
        with pytest.raises(DataError, match="zoom's factor is at most 2"):
            call()
    fits = summary(toys, torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), Zoom(factor=2))
    assert fits.num_images == len(fits.decode()[0]) == 8


def test_replayed_examples_may_be_claimed(toys):
    """20 new examples, 3 classes, 10 images kept of each at every step."""
    ctx = toys.new_tools()
    strategy = FedAvgReplay()
    assert strategy.most_examples(20, 0, ctx) == 20
    assert strategy.most_examples(20, 2, ctx) == 20 + 20 * 3 + 2 * 30
    assert replace(strategy, replay=False).most_examples(20, 2, ctx) == 20


def test_only_a_client_without_examples_may_send_nothing():
    sends = ("weights", "tensors.control")
    assert lacking(Reply(client=0, num_examples=0), sends) is None
    assert lacking(Reply(client=0, num_examples=1), sends) == "sent no weights"
    control = {"control": torch.zeros(1)}
    assert lacking(Reply(client=0, num_examples=1, weights={"w": torch.zeros(1)}), sends) == "sent no tensors.control"
    assert lacking(Reply(client=0, num_examples=1, weights={"w": torch.zeros(1)}, tensors=control), sends) is None
