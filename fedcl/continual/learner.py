"""What most continual strategies share: beginnings, networks restricted to the classes seen, training, losses.

Legend: N examples, K classes.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step, Strategy
from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive, torch_rng
from fedcl.memory.budget import Budget
from fedcl.memory.buffer import Buffer
from fedcl.models.base import Network
from fedcl.training.loop import train
from fedcl.training.losses import Criterion, regression, supervised
from fedcl.training.moments import load_moments, save_moments, weights_of
from fedcl.training.recipe import Training

Pair = tuple[Tensor, Tensor]  # images and targets
SEEN = "seen"  # name in State.tensors: bool [K], classes that were trained on
# The training of each step where a strategy is given none: sizes for digits
STEP_TRAINING = Training(epochs=20, batch_size=64, optimizer="adam", lr=0.001, weight_decay=0.0, schedule="constant")


@dataclass(frozen=True, kw_only=True)
class Learner(Strategy):
    """A strategy that begins with a fresh network and an empty buffer, and answers with the classes seen."""

    training: Training = STEP_TRAINING  # of each step
    balance: ClassVar[str | None] = None  # its own rule for what stays in memory; None: the budget's
    keep_optimizer: ClassVar[bool] = False  # whether the optimiser's moments live on into the next step
    cross_entropy: ClassVar[str] = ""  # why the loss can be no other; "": it can

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cross_entropy and self.training.loss != "cross_entropy":
            raise ConfigError(
                f"{self.cross_entropy}, so training.loss={self.training.loss} has no meaning in it; "
                "type strategy.training.loss=cross_entropy"
            )

    def init(self, ctx: LearnerContext) -> State:
        """A fresh network, no class seen, and an empty buffer; ConfigError where the budget asks for another rule."""
        rule, asked = self.balance, ctx.budget.balance
        if rule is not None and asked not in (rule, Budget.balance):
            raise ConfigError(
                f"{type(self).__name__} as it is set has its own rule for what stays in memory, so "
                f"buffer.balance={asked} would change nothing; type buffer.balance={rule}"
            )
        buffer = Buffer(budget=replace(ctx.budget, balance=rule or asked))
        seen_K = torch.zeros(ctx.num_classes, dtype=torch.bool)
        return State(weights=weights_of(fresh_model(ctx)), buffer=buffer, tensors={SEEN: seen_K})

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return Masked(network(state, ctx), state.tensors[SEEN])

    def fit(self, state: State, model: nn.Module, data: Pair, step: Step, ctx: LearnerContext, **options: Any) -> State:
        """Train `model` in place; the state with its weights and the classes seen.

        Args:
            data: images [N, C, H, W], uint8 or normalised float32, and targets, int64 [N] or float32 [N, K]; on the
                device.
            options: of `train`: a loss in place of that of `training` over the classes seen, a penalty, a seed.

        Raises:
            RunError: the loss is not finite.
        """
        optimizer = self.training.new_optimizer(model.parameters())
        if self.keep_optimizer:
            load_moments(optimizer, state.tensors)
        options.setdefault("seed", derive(ctx.seed, "training", step=step.index))
        options.setdefault("loss", supervised(over_seen(step, self.training, ctx)))
        options |= {"optimizer": optimizer, "spec": ctx.inputs, "flip": ctx.inputs.flips, "progress": ctx.progress}
        train(model, *data, self.training, **options)
        moments = save_moments(optimizer) if self.keep_optimizer else {}
        return replace(state, weights=weights_of(model), tensors={SEEN: step.seen_C, **moments})


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
        self.register_buffer("offset_K", mask_offset(seen_K).to(next(network.parameters()).device))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.network(images_NCHW) + self.offset_K


def mask_offset(seen_K: Tensor) -> Tensor:
    """float32 [K]: 0 for seen classes, minus infinity for others; all 0 while none is seen."""
    return torch.zeros(len(seen_K)).masked_fill((~seen_K & seen_K.any()).cpu(), -torch.inf)


def replayed(buffer: Buffer, ctx: LearnerContext) -> Pair:
    """Images and targets of a buffer that is not empty, on the device (see `Buffer.replay`)."""
    images, targets = buffer.replay()
    return images.to(ctx.device), targets.to(ctx.device)


def mix_with_memory(step: Step, buffer: Buffer, ctx: LearnerContext) -> Pair:
    """New data and memory as one training set, about as much of one as of the other (Hsu et al., 2018).

    Memory smaller than the step is repeated floor(new / memory) times, larger memory gives a random part
    of the step's size: the cost of a step does not depend on how many there were.

    Returns:
        images [N, C, H, W] (uint8 if there is no memory, else normalised float32), the step's first, and targets.
    """
    new = step.data
    if not len(buffer):
        return new.inputs, new.labels_N
    images, targets = replayed(buffer, ctx)
    if len(targets) > len(new):
        generator = torch_rng(derive(ctx.seed, "training", step=step.index), "part of memory")
        rows = torch.randperm(len(targets), generator=generator)[: len(new)]
    else:
        rows = torch.arange(len(targets)).repeat(max(1, len(new) // len(targets)))
    rows, labels = rows.to(ctx.device), new.labels_N
    if targets.is_floating_point():
        labels = F.one_hot(labels, ctx.num_classes).float()
    return torch.cat([ctx.inputs.apply(new.inputs), images[rows]]), torch.cat([labels, targets[rows]])


def over_seen(step: Step, training: Training, ctx: LearnerContext) -> Criterion:
    """Criterion that `training` names, over the classes that the stream has brought so far."""
    seen_K = step.seen_C.to(ctx.device)
    if training.loss == "mse":
        return lambda scores_NK, targets: regression(scores_NK * seen_K, targets)
    offset_K = mask_offset(step.seen_C).to(ctx.device)

    def hard_or_soft(scores_NK: Tensor, targets: Tensor) -> Tensor:
        if not targets.is_floating_point():
            return F.cross_entropy(scores_NK + offset_K, targets)
        log = (scores_NK + offset_K).log_softmax(1)  # a class that was not seen takes no part in soft labels
        return -(targets * log.masked_fill(log == -torch.inf, 0.0)).sum(1).mean()

    return hard_or_soft


def distillation(scores_NK: Tensor, teacher_NK: Tensor, old_K: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation over old classes, of each row: T^2 cross-entropy of softened outputs (Hinton et al.,
    2015). 0 where there are no old classes."""
    old = old_K.to(scores_NK.device)
    student = (scores_NK[:, old] / temperature).log_softmax(1)
    return -(temperature**2) * ((teacher_NK[:, old] / temperature).softmax(1) * student).sum(1)
