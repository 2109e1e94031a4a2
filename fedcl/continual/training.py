"""Training of a step: on its own data, or on new data and memory together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.losses import over_seen
from fedcl.continual.networks import SEEN, network
from fedcl.core.seeding import derive, torch_rng
from fedcl.memory.buffer import Buffer
from fedcl.models.base import Network
from fedcl.training.loop import train
from fedcl.training.losses import Loss, Penalty, supervised
from fedcl.training.moments import load_moments, save_moments
from fedcl.training.recipe import Training


def fit(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    training: Training,
    step: Step,
    ctx: LearnerContext,
    *,
    loss: Loss | None = None,
    penalty: Penalty | None = None,
    moments: Mapping[str, Tensor] | None = None,
    purpose: str = "training",
) -> dict[str, Tensor]:
    """Train `model` in place; the optimiser's state afterwards, named for `State.tensors`.

    Args:
        images: uint8 or normalised float32 [N, C, H, W], on the device.
        targets: int64 [N] or float32 [N, K], on the device.
        loss: None: that of `training`, over the classes seen.
        moments: what an earlier call gave, to go on with its optimiser.
        purpose: names the random stream.

    Raises:
        RunError: the loss is not finite.
    """
    optimizer = training.new_optimizer(model.parameters())
    load_moments(optimizer, moments or {})
    train(
        model,
        images,
        targets,
        training,
        seed=derive(ctx.seed, purpose, step=step.index),
        loss=supervised(over_seen(step, training, ctx)) if loss is None else loss,
        penalty=penalty,
        optimizer=optimizer,
        spec=ctx.inputs,
        flip=ctx.inputs.flips,
        progress=ctx.progress,
    )
    return save_moments(optimizer)


def mix_with_memory(step: Step, buffer: Buffer, ctx: LearnerContext) -> tuple[Tensor, Tensor]:
    """New data and memory as one training set, about as much of one as of the other (Hsu et al., 2018).

    Memory smaller than the step is repeated floor(new / memory) times, larger memory gives a random part
    of the step's size: the cost of a step does not depend on how many there were.

    Returns:
        images [N, C, H, W] (uint8 if there is no memory, else normalised float32), the step's first, and targets.
    """
    new = step.data
    if not len(buffer):
        return new.inputs, new.labels_N
    images, targets = (tensor.to(ctx.device) for tensor in buffer.replay())
    if len(targets) > len(new):
        generator = torch_rng(derive(ctx.seed, "training", step=step.index), "part of memory")
        rows = torch.randperm(len(targets), generator=generator)[: len(new)]
    else:
        rows = torch.arange(len(targets)).repeat(max(1, len(new) // len(targets)))
    rows, labels = rows.to(ctx.device), new.labels_N
    if targets.is_floating_point():
        labels = F.one_hot(labels, ctx.num_classes).float()
    joined = torch.cat([ctx.inputs.apply(new.inputs), images[rows]])
    return joined, torch.cat([labels, targets[rows]])


def replay_step(
    state: State, step: Step, training: Training, ctx: LearnerContext, *, keep_optimizer: bool
) -> tuple[Network, dict[str, Tensor]]:
    """A step of replay: the network after training on new data and memory, and the state's tensors.

    Args:
        keep_optimizer: the optimiser's moments live on into the next step.
    """
    model = network(state, ctx)
    images, targets = mix_with_memory(step, state.buffer, ctx)
    moments = fit(model, images, targets, training, step, ctx, moments=state.tensors)
    return model, {SEEN: step.seen_C, **(moments if keep_optimizer else {})}
