"""The one loop over batches that trains a network; what differs is its recipe, its loss and its penalty.

(`fedcl.distill.inner` trains inside an objective, by steps that are differentiated through: no training loop.)
"""

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from fedcl.core.errors import RunError
from fedcl.core.inputs import InputSpec
from fedcl.core.progress import SILENT, Progress
from fedcl.core.seeding import torch_rng
from fedcl.models.norms import batch_norms
from fedcl.training.losses import Batch, Loss, Penalty, probabilities, supervised
from fedcl.training.recipe import Training

Net = TypeVar("Net", bound=nn.Module)


@torch.enable_grad()
def train(
    model: Net,
    images: Tensor,
    targets: Tensor,
    recipe: Training,
    *,
    seed: int | torch.Generator,
    loss: Loss | None = None,
    penalty: Penalty | None = None,
    after_epoch: Callable[[nn.Module], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    spec: InputSpec | None = None,
    flip: bool = True,
    progress: Progress = SILENT,
) -> Net:
    """Train `model` in place and return it, in train mode.

    Args:
        images: [N, C, H, W], uint8 with `spec`, or float32 already normalised; on the model's device.
        targets: int64 [N] hard labels, or float32 [N, K] near probabilities (see `probabilities`).
        seed: names the order of examples and the augmentation; a generator gives both, as each batch needs them.
        loss: None: the criterion of `recipe.loss`. One of the caller's own takes its place.
        penalty: added to the loss of every batch, a function of the weights alone (FedProx, EWC).
        after_epoch: called after each whole pass; it looks at the network and changes nothing.
        optimizer: of the model's parameters, to go on with its moments; None: a new one.
        flip: whether mirrored images keep their class (see `Augmentation.draw`).

    Raises:
        RunError: the loss is not finite, or batch norm meets a batch of one image.
    """
    size, augmentation = len(images), recipe.augmentation
    total, per_epoch = recipe.num_updates(size), recipe.updates_per_epoch(size)
    if size and not per_epoch:
        raise RunError(f"training.min_batch={recipe.min_batch} leaves nothing of a set of {size}; type a smaller one")
    loss = supervised(recipe.criterion) if loss is None else loss
    targets = probabilities(targets) if recipe.loss == "cross_entropy" else targets
    order_rng = seed if isinstance(seed, torch.Generator) else torch_rng(seed, "batches")
    augment_rng = seed if isinstance(seed, torch.Generator) else torch_rng(seed, "augmentation")
    optimizer = recipe.new_optimizer(model.parameters()) if optimizer is None else optimizer
    averages = [torch.zeros_like(p) for p in model.parameters()] if recipe.average else []
    value = torch.zeros(())
    model.train()
    progress.begin("training", total)
    for update, rows in enumerate(batches(size, recipe.batch_size, total, order_rng, recipe.min_batch)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.factor(update, total, per_epoch)
        rows = rows.to(images.device)
        batch = images[rows] if spec is None else spec.apply(images[rows])
        batch = augmentation.apply(batch, augmentation.draw(len(rows), augment_rng, flip=flip))
        batch, parts = augmentation.mix(batch, rows, augment_rng)
        try:
            value = loss(model, Batch(inputs=batch, parts=parts, targets=targets))
        except ValueError as error:
            if len(rows) > 1 or not batch_norms(model):
                raise
            raise _one_image(size, recipe.batch_size) from error
        value = value if penalty is None else value + penalty(model)
        optimizer.zero_grad()
        value.backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        for average, parameter in zip(averages, model.parameters(), strict=False):  # there may be none
            average.lerp_(parameter.detach(), 1 - recipe.average)
        progress.advance("training")
        if after_epoch is not None and (update + 1) % per_epoch == 0:
            after_epoch(model)
    progress.end("training")
    last = float(value.detach())
    if not math.isfinite(last):
        raise RunError(f"training diverged: the loss is {last}; lower the learning rate (lr={recipe.lr})")
    if averages and total:
        with torch.no_grad():  # the average began at 0, so it is that much too short
            for parameter, average in zip(model.parameters(), averages, strict=True):
                parameter.copy_(average / (1 - recipe.average**total))
    return model


def _one_image(num_examples: int, batch_size: int) -> RunError:
    if num_examples == 1 or batch_size == 1:
        return RunError("batch norm cannot train on one image at a time; choose a model without it (model.norm=group)")
    return RunError(
        f"{num_examples} images in batches of {batch_size} end in a batch of one, which batch norm cannot use; type "
        "another batch_size, or +strategy.training.min_batch=2 (+evaluation.training.min_batch=2) to leave it out"
    )


def batches(num_examples: int, size: int, total: int, rng: torch.Generator, smallest: int = 1) -> Iterator[Tensor]:
    """`total` batches of row numbers, int64: shuffled passes over the data, each row once a pass.

    A pass is cut into ceil(N / size) batches; its last one may be smaller, and is left out below `smallest`.
    """
    given = 0
    while given < total and num_examples >= smallest:
        for rows in torch.randperm(num_examples, generator=rng).split(size):
            if given < total and len(rows) >= smallest:
                given += 1
                yield rows
