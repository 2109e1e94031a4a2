"""DER++: dark experience replay. The memory keeps logits beside images and labels.

Buzzega et al., NeurIPS 2020, https://arxiv.org/abs/2004.07211, equation 6: cross-entropy on the new batch,
alpha times the squared error to the stored logits of one memory batch, beta times the cross-entropy of
another. The memory is a reservoir that is filled while the step is learned, with the logits of that moment;
beta = 0 is DER.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import Learner, network, replayed
from fedcl.continual.remember import real_bytes
from fedcl.core.errors import ConfigError
from fedcl.core.seeding import torch_rng
from fedcl.memory.buffer import chosen
from fedcl.training.losses import Batch


@dataclass(frozen=True, kw_only=True)
class DERPlusPlus(Learner):
    alpha: float = 0.5  # weight of the stored logits
    beta: float = 0.5  # weight of the stored labels

    needs_memory = True
    balance = "none"
    unused = ("distiller",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.training.augmentation.mixes:
            raise ConfigError(
                "DER++ keeps the logits of single images, and CutMix shows two in one; "
                "type strategy.training.augmentation.cutmix=0"
            )

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        data, old = step.data, state.buffer
        generator = torch_rng(ctx.seed, "memory batches", step=step.index)
        # Everything that can be in memory during the step: the old rows, then the step's own.
        images, labels = ctx.inputs.apply(data.inputs), data.labels_N
        logits = torch.zeros(len(data), ctx.num_classes, device=ctx.device)
        rank = torch.rand(len(data), generator=torch_rng(ctx.seed, "ranks", step=step.index), dtype=torch.float64)
        if len(old):
            kept, kept_labels = replayed(old, ctx)
            images, labels = torch.cat([kept, images]), torch.cat([kept_labels, labels])
            logits = torch.cat([old.column("logits").to(ctx.device), logits])
            rank = torch.cat([old.rows("rank_N"), rank])
        met = torch.arange(len(rank)) < len(old)  # rows that the learner has met
        room = self.room(ctx)
        augmentation, criterion = self.training.augmentation, self.training.criterion

        def draw() -> Tensor:
            """Rows of a memory batch."""
            held = torch.nonzero(met)[:, 0]
            if len(held) > room:  # a reservoir: of all rows met, those of lowest rank
                held = held[torch.argsort(rank[held])[:room]]
            size = min(self.training.batch_size, len(held))
            return held[torch.randint(len(held), (size,), generator=generator)].to(ctx.device)

        def augmented(rows: Tensor) -> Tensor:
            return augmentation.apply(images[rows], augmentation.draw(len(rows), generator, flip=ctx.inputs.flips))

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            scores = model(batch.inputs)
            value = batch.loss(criterion, scores)
            if bool(met.any()):
                dark, plain = draw(), draw()
                dark_images, plain_images = augmented(dark), augmented(plain)
                value = value + self.alpha * F.mse_loss(model(dark_images), logits[dark])
                value = value + self.beta * criterion(model(plain_images), labels[plain])
            ((_, rows_N),) = batch.parts  # one part: CutMix is refused
            rows = rows_N + len(old)
            logits[rows] = scores.detach().float()
            met[rows.cpu()] = True
            return value

        state = self.fit(state, network(state, ctx), (data.inputs, data.labels_N), step, ctx, loss=loss)
        new = chosen(data, ctx.inputs, "reservoir", logits=logits[len(old) :].cpu())
        return replace(state, buffer=old.add(new, rank[len(old) :]))

    def room(self, ctx: LearnerContext) -> int:
        """Rows that the budget holds: pixels, logits and a label each."""
        price = real_bytes(ctx, logits=torch.zeros(1, ctx.num_classes))
        room = ctx.budget.room(ctx.num_classes, price)
        if room < 1:
            raise ConfigError(
                f"buffer.{ctx.budget.unit}={ctx.budget.size} holds no image with its logits, {price} bytes; "
                f"type a larger buffer.{ctx.budget.unit}"
            )
        return room
