"""Helpers of continual learners: networks and masks, losses, training beside memory, ways to remember.

Legend: N examples, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import LabeledSet, Normalization, Summary
from fedcl.distill.distiller import Distiller
from fedcl.distill.selection import herding
from fedcl.memory.buffer import Budget, Buffer, chosen, positions, store
from fedcl.training.augmentation import Shares
from fedcl.training.loop import Loss, Training, mixed_loss, probabilities, regression

SEEN = "seen"  # name in State.tensors: bool [K], classes that were trained on
OPTIMIZER = "optimizer"


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state_dict on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def new_state(ctx: LearnerContext, buffer: Buffer | None = None) -> State:
    """A fresh network, no memory, no class seen."""
    return State(
        weights=weights_of(fresh_model(ctx)),
        buffer=Buffer(budget=ctx.budget) if buffer is None else buffer,
        tensors={SEEN: torch.zeros(ctx.num_classes, dtype=torch.bool)},
    )


def own_buffer(ctx: LearnerContext, balance: str, who: str) -> Buffer:
    """An empty buffer for a learner whose own rule says what stays.

    Raises:
        ConfigError: the budget asks for a rule that is neither this one nor the default.
    """
    asked = ctx.budget.balance
    if asked not in (balance, Budget.balance):
        raise ConfigError(
            f"{who} has its own rule for what stays in memory, so buffer.balance={asked} would change nothing; "
            f"type buffer.balance={balance}"
        )
    return Buffer(budget=replace(ctx.budget, balance=balance))


def fresh_model(ctx: LearnerContext) -> nn.Module:
    """The network as it was before the first step."""
    return ctx.new_model(derive(ctx.seed, "model"))


def network(state: State, ctx: LearnerContext) -> nn.Module:
    """The network with the state's weights, all outputs, on the device."""
    model = fresh_model(ctx)
    model.load_state_dict(dict(state.weights))
    return model


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


def label_loss(targets: Tensor, seen_K: Tensor, training: Training) -> Callable[[Tensor, Shares], Tensor]:
    """The loss that `training` names over the classes seen, of scores [N, K] and the rows of their targets.

    Args:
        targets: of all rows, int64 [N] or float32 [N, K], on the device.
    """
    seen, offset = seen_K.to(targets.device), mask_offset(seen_K).to(targets.device)
    if training.loss == "mse":
        return lambda scores_NK, parts: mixed_loss(regression, scores_NK * seen, targets, parts)
    targets = probabilities(targets)
    return lambda scores_NK, parts: mixed_loss(hard_or_soft, scores_NK + offset, targets, parts)


def classify(targets: Tensor, seen_K: Tensor, training: Training) -> Loss:
    """`label_loss` of the network's scores, for learners that have no other."""
    of_scores = label_loss(targets, seen_K, training)
    return lambda model, batch, parts: of_scores(model(batch), parts)


def hard_or_soft(scores_NK: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with labels or probabilities. A class outside the mask takes no part in soft labels."""
    if not targets.is_floating_point():
        return F.cross_entropy(scores_NK, targets)
    log = scores_NK.log_softmax(1)
    return -(targets * log.masked_fill(log == -torch.inf, 0.0)).sum(1).mean()


def distillation(scores_NK: Tensor, teacher_NK: Tensor, old_K: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation over old classes, of each row: T^2 cross-entropy of softened outputs (Hinton et al.,
    2015). 0 where there are no old classes."""
    old = old_K.to(scores_NK.device)
    student = (scores_NK[:, old] / temperature).log_softmax(1)
    return -(temperature**2) * ((teacher_NK[:, old] / temperature).softmax(1) * student).sum(1)


def train(
    model: nn.Module,
    images: Tensor,
    training: Training,
    loss: Loss,
    *,
    seed: int,
    ctx: LearnerContext,
    moments: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Train `model` in place by any loss; the optimiser's state afterwards, named for `State.tensors`.

    Args:
        images: uint8 or normalised float32 [N, C, H, W], on the device.
        moments: what an earlier call gave, to go on with its optimiser.

    Raises:
        RunError: the loss is not finite.
    """
    optimizer = training.new_optimizer(list(model.parameters()))
    load_moments(optimizer, moments or {})
    training.minimise(
        model,
        images,
        loss,
        seed=seed,
        normalization=ctx.normalization if images.dtype == torch.uint8 else None,
        flip=ctx.horizontal_flip,
        optimizer=optimizer,
        progress=ctx.progress,
    )
    return save_moments(optimizer)


def normalised(images: Tensor, normalization: Normalization) -> Tensor:
    """Float images as they are, uint8 pixels in normalised units."""
    return normalization.apply(images) if images.dtype == torch.uint8 else images


def save_moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors, as "optimizer/<parameter>/<name>", on the CPU."""
    states = optimizer.state_dict()["state"]
    return {
        f"{OPTIMIZER}/{index}/{name}": torch.as_tensor(value).detach().cpu().clone()
        for index, entries in states.items()
        for name, value in entries.items()
        if value is not None
    }


def load_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    """Undo `save_moments`; other names are passed over."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        head, _, rest = key.partition("/")
        if head == OPTIMIZER:
            index, _, name = rest.partition("/")
            states.setdefault(int(index), {})[name] = value.clone()
    if states:
        optimizer.load_state_dict(optimizer.state_dict() | {"state": states})


def mix_with_memory(step: Step, buffer: Buffer, seed: int, ctx: LearnerContext) -> tuple[Tensor, Tensor]:
    """New data and memory as one training set, about as much of one as of the other (Hsu et al., 2018).

    Memory smaller than the step is repeated floor(new / memory) times, larger memory gives a random part
    of the step's size: the cost of a step does not depend on how many there were.

    Returns:
        images [N, C, H, W] (uint8 if there is no memory, else normalised float32), and targets.
    """
    new = step.data
    if not len(buffer):
        return new.images_NCHW, new.labels_N
    images, targets = (tensor.to(ctx.device) for tensor in buffer.replay())
    if len(targets) > len(new):
        rows = torch.randperm(len(targets), generator=torch_rng(seed, "part of memory"))[: len(new)]
    else:
        rows = torch.arange(len(targets)).repeat(max(1, len(new) // len(targets)))
    rows, labels = rows.to(ctx.device), new.labels_N
    if targets.is_floating_point():
        labels = F.one_hot(labels, ctx.num_classes).float()
    joined = torch.cat([ctx.normalization.apply(new.images_NCHW), images[rows]])
    return joined, torch.cat([labels, targets[rows]])


def replay_step(
    state: State, step: Step, training: Training, ctx: LearnerContext, *, keep_optimizer: bool
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A step of replay: the network after training on new data beside memory, and the state's `extra`.

    Args:
        keep_optimizer: whether the optimiser's moments live on into the next step.
    """
    model = network(state, ctx)
    seed = derive(ctx.seed, "training", step=step.index)
    images, targets = mix_with_memory(step, state.buffer, seed, ctx)
    loss = classify(targets, step.seen_C, training)
    moments = train(model, images, training, loss, seed=seed, ctx=ctx, moments=state.tensors)
    return model, {SEEN: step.seen_C, **(moments if keep_optimizer else {})}


@torch.no_grad()
def outputs(
    model: Callable[[Tensor], Tensor], images: Tensor, normalization: Normalization, chunk: int = 512
) -> Tensor:
    """`model` of all images, in parts; images uint8 or normalised."""
    return torch.cat([model(normalised(part, normalization)) for part in images.split(chunk)])


def remember_random(buffer: Buffer, data: LabeledSet, seed: int, ctx: LearnerContext) -> Buffer:
    """A uniform sample of each group of the budget's balance, over all that was ever shown to the buffer."""
    generator = torch_rng(seed, "ranks", step=data.origin.step)
    ranks = torch.rand(len(data), generator=generator, dtype=torch.float64)
    return buffer.add(chosen(data, ctx.normalization, "random"), ranks)


def remember_herding(buffer: Buffer, data: LabeledSet, model: nn.Module, ctx: LearnerContext) -> Buffer:
    """iCaRL's exemplars (Rebuffi et al., CVPR 2017, algorithm 4): the first herded images of each class, as many
    as the budget keeps, on features of unit length."""
    if not len(data):
        return buffer
    model.eval()
    features = F.normalize(outputs(model.embed, data.images_NCHW, ctx.normalization)).cpu()  # type: ignore[arg-type]
    model.train()
    labels = data.labels_N.cpu()
    # Whose rows stay depends on labels, steps and ranks alone: any order of the images tells how many to rank.
    trial = buffer.add(chosen(data, ctx.normalization, "herding"), positions(labels).double())
    if not len(trial):
        return trial
    came = torch.cat([block.step_N for block in trial.blocks]) == data.origin.step
    room_K = trial.labels_N[came].bincount(minlength=ctx.num_classes)
    picks, ranks = [], []
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label)[:, 0]
        order = herding(features[rows], min(int(room_K[label]), len(rows)), 0)
        picks.append(rows[order])
        ranks.append(torch.arange(len(order), dtype=torch.float64))
    return buffer.add(chosen(data.select(torch.cat(picks)), ctx.normalization, "herding"), torch.cat(ranks))


def remember_distilled(buffer: Buffer, step: Step, ctx: LearnerContext, weights: Mapping[str, Tensor] | None) -> Buffer:
    """The step's data, distilled to as many images of each class as the budget will hold."""
    distiller = ctx.distiller
    image_bytes, shared_bytes = stored_bytes(distiller, ctx)
    count = buffer.budget.share(int(step.seen_C.sum()), image_bytes, shared_bytes * (step.index + 1))
    if count < 1:
        raise ConfigError(
            f"buffer.{buffer.budget.unit}={buffer.budget.size} holds less than one image for each of "
            f"{int(step.seen_C.sum())} classes at step {step.index + 1}; type a larger buffer.{buffer.budget.unit}"
        )
    key = derive(ctx.seed, "distill", step=step.index)
    (summary,) = replace(distiller, ipc=count).distill([step.data], key, ctx, weights=weights)
    return buffer.add(summary)


def stored_bytes(distiller: Distiller, ctx: LearnerContext) -> tuple[int, int]:
    """Bytes of one image of `ipc` as the buffer will store it, with its label; and of what all images share."""
    parameterization, wire = distiller.parameterization, ctx.budget.wire
    generator = torch_rng(0, "an image")
    start = torch.rand(parameterization.num_initial(1), *ctx.shape_CHW, generator=generator)
    real = torch.randint(256, (2, *ctx.shape_CHW), generator=generator, dtype=torch.uint8)
    real[0] = 0
    if distiller.selects:
        start = ctx.normalization.apply(real[: len(start)])
    label = torch.zeros(len(start), dtype=torch.int64)
    summary = Summary(
        arrays=parameterization.encode(start, real),
        targets=F.one_hot(label, ctx.num_classes).float() if distiller.labels.learnable else label,
        num_source_C=torch.zeros(ctx.num_classes, dtype=torch.int64),
        shape_CHW=ctx.shape_CHW,
        normalization=ctx.normalization,
        decoder=parameterization,
        method=distiller.name,
    )
    block = store(summary, label.double(), wire)
    return block.row_bytes * block.rows_per_image, block.shared_bytes


def real_bytes(ctx: LearnerContext, **arrays: Tensor) -> int:
    """Bytes of one real image as the buffer will store it, with its label and `arrays` ([1, ...]) beside it."""
    black = torch.zeros(1, *ctx.shape_CHW, dtype=torch.uint8)
    image = LabeledSet(images_NCHW=black, labels_N=torch.zeros(1, dtype=torch.int64), num_classes=ctx.num_classes)
    summary = chosen(image, ctx.normalization, "an image", **arrays)
    return store(summary, torch.zeros(1), ctx.budget.wire).row_bytes
