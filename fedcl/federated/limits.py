"""Limits on what one client may send in answer to one question, so that it can hurt nobody but itself.

Bounded, then checked, then decoded: `fedcl.flower.bounds` holds raw records against `bytes`, `summaries`, `images` and
`examples` before anything is decoded; `check_*` look at the numbers afterwards. A reply beyond a limit costs its
sender the round, with a reason that names the key. Limits refuse what no honest client sends; poison that looks like
honest work is the business of a robust strategy (krum, bulyan, a trimmed mean).
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Annotated

import torch
from torch import Tensor

from fedcl.core.errors import WireError
from fedcl.core.rules import Checked, number, whole
from fedcl.core.types import Summary
from fedcl.distill.context import Context
from fedcl.federated.payload import Payload

FLOAT = 4  # bytes of a float32
ROOM = 2**20  # bytes for what is neither weights nor images: names, class means, logits
WHOLE = 2**53  # whole numbers up to here are exact as float64; counters never get there


@dataclass(frozen=True, kw_only=True)
class Limits(Checked):
    """Limits of one reply. None is derived from the run, see `for_run`."""

    config_key = "limits"

    # buffers, names and text together; None: 1 MiB and four times the network and the summaries in float32, which has
    # room for weights, control variates and two moments
    bytes: Annotated[int | None, whole(1, example=10_000_000)] = None
    summaries: Annotated[int, whole(1, example=1)] = 1  # in one reply
    # decoded images of one class in one summary; None: what the run's distiller makes
    images: Annotated[int | None, whole(1, example=50)] = None
    # that a client may say it stands for; None: those that it is registered with
    examples: Annotated[int | None, whole(1, example=1000)] = None
    # absolute value of a weight: a network whose weights come near computes with overflowing activations
    weight: Annotated[float, number(above=0, example=1e4)] = 1e4
    # absolute value in any other float tensor: control variates, means, logits
    tensor: Annotated[float, number(above=0, example=1e6)] = 1e6
    # absolute value of a decoded input, in standard deviations of the data: among N real values none lies further
    # from the mean than sqrt(N)
    value: Annotated[float, number(above=0, example=1e3)] = 1e3
    # absolute value of a soft label, which is near a probability
    label: Annotated[float, number(above=0, example=100)] = 1e2

    def for_run(self, ctx: Context) -> "Limits":
        """The same with `bytes` and `images` filled in from the run's network, inputs, classes and distiller."""
        images, size = self.images, self.bytes
        if images is None:
            made = ctx.distiller.parameterization
            images = made.num_initial(ctx.distiller.ipc) * made.images_per_entry(ctx.inputs.shape)
        if size is None:
            network = sum(tensor.numel() for tensor in ctx.new_model(0).state_dict().values())
            summary = images * ctx.num_classes * (prod(ctx.inputs.shape) + ctx.num_classes)
            size = ROOM + 4 * FLOAT * (network + self.summaries * summary)
        return replace(self, bytes=size, images=images)

    def check_values(self, payload: Payload) -> None:
        """Raise WireError where a number of a decoded payload is not finite or not plausible; see `check_summary`."""
        for name, tensor in (payload.weights or {}).items():
            check_range(f"weights '{name}'", tensor, "weight", self.weight)
        for name, tensor in payload.tensors.items():
            check_range(f"tensor '{name}'", tensor, "tensor", self.tensor)

    def check_summary(self, summary: Summary) -> None:
        """The same of a summary, which is decoded to what a network would see. Raises FedclError."""
        images, targets = summary.check()
        check_range("images", images, "value", self.value)
        if targets.is_floating_point():
            check_range("soft labels", targets, "label", self.label)


def check_range(what: str, values: Tensor, key: str, limit: float) -> None:
    """Raise WireError where a number is NaN, infinite or beyond `limit`; whole numbers may count to 2^53."""
    if values.dtype == torch.bool or not values.numel():
        return
    low, high = (float(end) for end in values.aminmax())
    top = max(abs(low), abs(high)) if low == low else low  # NaN if there is one
    floating = values.is_floating_point()
    if top <= (limit if floating else WHOLE):
        return
    if not floating:
        raise WireError(f"{what} hold a whole number of {top:.3g}; counters stay below 2^53")
    if not top < torch.inf:
        raise WireError(f"{what} hold NaN or infinity")
    raise WireError(f"{what} reach {top:.3g}, which is not plausible; limits.{key}={limit:g}")
