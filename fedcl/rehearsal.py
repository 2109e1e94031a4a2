"""What continual learners have in common: a training loop with any loss, masks, and ways to remember.

Legend: N examples, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.buffer import Buffer, chosen, store
from fedcl.continual import State, Step, Tools
from fedcl.distill.distiller import Distiller
from fedcl.distill.selection import herding
from fedcl.errors import ConfigError, RunError
from fedcl.seeding import derive, torch_rng
from fedcl.training import Training, batches, probabilities, regression
from fedcl.types import LabeledSet, Normalization, Summary

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, batch after augmentation, rows_N) -> scalar
SEEN = "seen"  # name in State.extra: bool [K], classes that were trained on
OPTIMIZER = "optimizer"


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state_dict on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def new_state(tools: Tools, buffer: Buffer | None = None) -> State:
    """A fresh network, no memory, no class seen."""
    return State(
        weights=weights_of(fresh_model(tools)),
        buffer=Buffer(budget=tools.budget) if buffer is None else buffer,
        extra={SEEN: torch.zeros(tools.num_classes, dtype=torch.bool)},
    )


def fresh_model(tools: Tools) -> nn.Module:
    """The network as it was before the first step."""
    return tools.new_model(derive(tools.seed, "model"))


def network(state: State, tools: Tools) -> nn.Module:
    """The network with the state's weights, all outputs, on the device."""
    model = fresh_model(tools)
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


def masked_model(state: State, tools: Tools) -> nn.Module:
    """The state's network, restricted to the classes seen."""
    return Masked(network(state, tools), state.extra[SEEN])


def classify(targets: Tensor, seen_K: Tensor, training: Training) -> Loss:
    """The loss that `training` names over the classes seen; targets int64 [N] or float32 [N, K], on the device."""
    seen, offset = seen_K.to(targets.device), mask_offset(seen_K).to(targets.device)
    if training.loss == "cross_entropy":
        targets = probabilities(targets)

    def loss(model: nn.Module, batch: Tensor, rows_N: Tensor) -> Tensor:
        if training.loss == "mse":
            return regression(model(batch) * seen, targets[rows_N])
        return hard_or_soft(model(batch) + offset, targets[rows_N])

    return loss


def hard_or_soft(scores_NK: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with labels or probabilities. A class outside the mask takes no part in soft labels."""
    if not targets.is_floating_point():
        return F.cross_entropy(scores_NK, targets)
    log = scores_NK.log_softmax(1)
    return -(targets * log.masked_fill(log == -torch.inf, 0.0)).sum(1).mean()


def distillation(scores_NK: Tensor, teacher_NK: Tensor, old_K: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation over old classes: T^2 cross-entropy of softened outputs (Hinton et al., 2015)."""
    old = old_K.to(scores_NK.device)
    student = (scores_NK[:, old] / temperature).log_softmax(1)
    return -(temperature**2) * ((teacher_NK[:, old] / temperature).softmax(1) * student).sum(1).mean()


def train(
    model: nn.Module,
    images: Tensor,
    training: Training,
    loss: Loss,
    *,
    seed: int,
    tools: Tools,
    moments: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Train `model` in place with any loss; the optimiser's state afterwards, named for `State.extra`.

    Args:
        images: uint8 or normalised float32 [N, C, H, W], on the device.
        loss: given the model, a batch after augmentation, and its rows.
        moments: what an earlier call gave, to go on with its optimiser.

    Raises:
        RunError: the loss is not finite.
    """
    total = training.num_updates(len(images))
    order_rng, augment_rng = torch_rng(seed, "batches"), torch_rng(seed, "augmentation")
    parameters = list(model.parameters())
    optimizer = training.new_optimizer(parameters)
    load_moments(optimizer, moments or {})
    value = torch.zeros(())
    model.train()
    tools.progress.begin("training", total)
    for update, rows in enumerate(batches(len(images), min(training.batch_size, len(images)), total, order_rng)):
        for group in optimizer.param_groups:
            group["lr"] = training.lr * training.factor(update, total)
        rows = rows.to(images.device)
        batch = normalised(images[rows], tools.normalization)
        draw = training.augmentation.draw(len(batch), augment_rng, flip=tools.horizontal_flip)
        value = loss(model, training.augmentation.apply(batch, draw), rows)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        tools.progress.advance("training")
    tools.progress.end("training")
    last = float(value.detach())
    if last != last or abs(last) == float("inf"):
        raise RunError(f"training diverged: the loss is {last}; lower the learning rate (lr={training.lr})")
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


def beside(step: Step, buffer: Buffer, seed: int, tools: Tools) -> tuple[Tensor, Tensor]:
    """New data and memory as one training set, about as much of one as of the other (Hsu et al., 2018).

    Memory smaller than the step is repeated floor(new / memory) times, larger memory gives a random part
    of the step's size: the cost of a step does not depend on how many there were.

    Returns:
        images [N, C, H, W] (uint8 if there is no memory, else normalised float32), and targets.
    """
    new = step.data
    if not len(buffer):
        return new.images_NCHW, new.labels_N
    images, targets = (tensor.to(tools.device) for tensor in buffer.replay())
    if len(targets) > len(new):
        rows = torch.randperm(len(targets), generator=torch_rng(seed, "part of memory"))[: len(new)]
    else:
        rows = torch.arange(len(targets)).repeat(max(1, len(new) // len(targets)))
    rows, labels = rows.to(tools.device), new.labels_N
    if targets.is_floating_point():
        labels = F.one_hot(labels, tools.num_classes).float()
    joined = torch.cat([tools.normalization.apply(new.images_NCHW), images[rows]])
    return joined, torch.cat([labels, targets[rows]])


def rehearse(
    state: State, step: Step, training: Training, tools: Tools, *, keep_optimizer: bool
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A step of replay: the network after training on new data beside memory, and the state's `extra`.

    Args:
        keep_optimizer: whether the optimiser's moments live on into the next step.
    """
    model = network(state, tools)
    seed = derive(tools.seed, "training", step=step.index)
    images, targets = beside(step, state.buffer, seed, tools)
    loss = classify(targets, step.seen_C, training)
    moments = train(model, images, training, loss, seed=seed, tools=tools, moments=state.extra)
    return model, {SEEN: step.seen_C, **(moments if keep_optimizer else {})}


@torch.no_grad()
def outputs(
    model: Callable[[Tensor], Tensor], images: Tensor, normalization: Normalization, chunk: int = 512
) -> Tensor:
    """`model` of all images, in parts; images uint8 or normalised."""
    return torch.cat([model(normalised(part, normalization)) for part in images.split(chunk)])


def remember_random(buffer: Buffer, data: LabeledSet, seed: int, tools: Tools) -> Buffer:
    """A uniform sample of each group of the budget's balance, over all that was ever shown to the buffer."""
    generator = torch_rng(seed, "ranks", step=data.origin.step)
    ranks = torch.rand(len(data), generator=generator, dtype=torch.float64)
    return buffer.add(chosen(data, tools.normalization, "random"), ranks)


def remember_herding(buffer: Buffer, data: LabeledSet, model: nn.Module, count: int, tools: Tools) -> Buffer:
    """iCaRL's exemplars (Rebuffi et al., CVPR 2017, algorithm 4): the first `count` herded images of each
    class, on features of unit length."""
    model.eval()
    features = F.normalize(outputs(model.embed, data.images_NCHW, tools.normalization)).cpu()  # type: ignore[arg-type]
    picks, ranks = [], []
    for label in data.labels_N.unique().tolist():
        rows = torch.nonzero(data.labels_N.cpu() == label)[:, 0]
        order = herding(features[rows], min(count, len(rows)), 0)
        picks.append(rows[order])
        ranks.append(torch.arange(len(order), dtype=torch.float64))
    model.train()
    if not picks:
        return buffer
    return buffer.add(chosen(data.select(torch.cat(picks)), tools.normalization, "herding"), torch.cat(ranks))


def remember_distilled(buffer: Buffer, step: Step, tools: Tools, weights: Mapping[str, Tensor] | None) -> Buffer:
    """The step's data, distilled to as many images of each class as the budget will hold."""
    distiller = tools.distiller
    image_bytes, shared_bytes = stored_bytes(distiller, tools)
    count = buffer.budget.share(int(step.seen_C.sum()), image_bytes, shared_bytes * (step.index + 1))
    if count < 1:
        raise ConfigError(
            f"buffer.{buffer.budget.unit}={buffer.budget.size} holds less than one image for each of "
            f"{int(step.seen_C.sum())} classes at step {step.index + 1}; type a larger buffer.{buffer.budget.unit}"
        )
    key = derive(tools.seed, "distill", step=step.index)
    (summary,) = replace(distiller, ipc=count).distill([step.data], key, tools, weights=weights)
    return buffer.add(summary)


def stored_bytes(distiller: Distiller, tools: Tools) -> tuple[int, int]:
    """Bytes of one image of `ipc` as the buffer will store it, with its label; and of what all images share."""
    parameterization, wire = distiller.parameterization, tools.budget.wire
    generator = torch_rng(0, "an image")
    start = torch.rand(parameterization.num_initial(1), *tools.shape_CHW, generator=generator)
    real = torch.randint(256, (2, *tools.shape_CHW), generator=generator, dtype=torch.uint8)
    real[0] = 0
    if distiller.selects:
        start = tools.normalization.apply(real[: len(start)])
    label = torch.zeros(len(start), dtype=torch.int64)
    summary = Summary(
        arrays=parameterization.encode(start, real),
        targets=F.one_hot(label, tools.num_classes).float() if distiller.labels.learnable else label,
        num_source_C=torch.zeros(tools.num_classes, dtype=torch.int64),
        shape_CHW=tools.shape_CHW,
        normalization=tools.normalization,
        decoder=parameterization,
        method=distiller.name,
    )
    block = store(summary, label.double(), wire)
    return block.row_bytes * block.rows_per_image, block.shared_bytes
