"""Networks and states of continual learners: beginnings, and answers restricted to the classes seen.

Legend: N examples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State
from fedcl.core.inputs import InputSpec
from fedcl.core.seeding import derive
from fedcl.memory.buffer import Buffer
from fedcl.models.base import Network

SEEN = "seen"  # name in State.tensors: bool [K], classes that were trained on


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state_dict on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def new_state(ctx: LearnerContext, buffer: Buffer) -> State:
    """A fresh network, this empty buffer, no class seen."""
    seen_K = torch.zeros(ctx.num_classes, dtype=torch.bool)
    return State(weights=weights_of(fresh_model(ctx)), buffer=buffer, tensors={SEEN: seen_K})


def fresh_model(ctx: LearnerContext) -> Network:
    """The network as it was before the first step."""
    return ctx.new_model(derive(ctx.seed, "model"))


def network(state: State, ctx: LearnerContext) -> Network:
    """The network with the state's weights, all outputs, on the device."""
    model = fresh_model(ctx)
    model.load_state_dict(dict(state.weights))
    return model


def teacher(state: State, ctx: LearnerContext) -> Network:
    """The state's network as one that is only asked: in eval mode, without gradients."""
    return network(state, ctx).eval().requires_grad_(False)


class Masked(nn.Module):
    """A network whose answers are classes that were seen: other outputs are minus infinity."""

    def __init__(self, network: nn.Module, seen_K: Tensor) -> None:
        super().__init__()
        self.network = network
        device = next(network.parameters()).device
        self.register_buffer("offset_K", mask_offset(seen_K).to(device))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.network(images_NCHW) + self.offset_K


def mask_offset(seen_K: Tensor) -> Tensor:
    """float32 [K]: 0 for seen classes, minus infinity for others; all 0 while none is seen."""
    offset = torch.zeros(len(seen_K))
    return offset.masked_fill(~seen_K.cpu(), -torch.inf) if bool(seen_K.any()) else offset


def masked_model(state: State, ctx: LearnerContext) -> nn.Module:
    """The state's network, restricted to the classes seen."""
    return Masked(network(state, ctx), state.tensors[SEEN])


@torch.no_grad()
def outputs(model: Callable[[Tensor], Tensor], images: Tensor, spec: InputSpec, chunk: int = 512) -> Tensor:
    """`model` of all images, in parts; images uint8 or normalised."""
    return torch.cat([model(spec.apply(part)) for part in images.split(chunk)])
