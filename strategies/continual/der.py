"""DER++: dark experience replay. The memory keeps logits beside images and labels.

Buzzega et al., NeurIPS 2020, https://arxiv.org/abs/2004.07211, equation 6: cross-entropy on the new batch,
alpha times the squared error to the stored logits of one memory batch, beta times the cross-entropy of
another. The memory is a reservoir that is filled while the step is learned, with the logits of that moment;
beta = 0 is DER.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.continual.contract import STEP_TRAINING, LearnerContext, State, Step, Strategy
from fedcl.continual.helpers import SEEN, masked_model, network, new_state, own_buffer, real_bytes, train, weights_of
from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive, torch_rng
from fedcl.memory.buffer import chosen
from fedcl.training.augmentation import Shares
from fedcl.training.loop import Training


@dataclass(frozen=True, kw_only=True)
class DERPlusPlus(Strategy):
    training: Training = STEP_TRAINING  # of each step; memory batches have the same size
    alpha: float = 0.5  # weight of the stored logits
    beta: float = 0.5  # weight of the stored labels

    unused = ("distiller",)

    def __post_init__(self) -> None:
        if self.training.augmentation.mixes:
            raise ConfigError(
                "DER++ keeps the logits of single images, and CutMix shows two in one; "
                "type strategy.training.augmentation.cutmix=0"
            )

    @property
    def needs_memory(self) -> bool:
        return True

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx, own_buffer(ctx, "none", "DER++"))

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, data, old = network(state, ctx), step.data, state.buffer
        generator = torch_rng(ctx.seed, "memory batches", step=step.index)
        # Everything that can be in memory during the step: the old rows, then the step's own.
        images = ctx.normalization.apply(data.images_NCHW)
        labels, logits = data.labels_N, torch.zeros(len(data), ctx.num_classes, device=ctx.device)
        if len(old):
            kept = old.replay()
            images = torch.cat([kept[0].to(ctx.device), images])
            labels = torch.cat([kept[1].to(ctx.device), labels])
            logits = torch.cat([old.column("logits").to(ctx.device), logits])
        rank = torch.rand(len(data), generator=torch_rng(ctx.seed, "ranks", step=step.index), dtype=torch.float64)
        rank = torch.cat([torch.cat([b.rank_N for b in old.blocks]), rank]) if len(old) else rank
        met = torch.arange(len(rank)) < len(old)  # rows that the learner has met
        room = self.room(ctx)

        def draw() -> Tensor:
            held = torch.nonzero(met)[:, 0]
            if len(held) > room:  # a reservoir: of all rows met, those of lowest rank
                held = held[torch.argsort(rank[held])[:room]]
            size = min(self.training.batch_size, len(held))
            return held[torch.randint(len(held), (size,), generator=generator)].to(ctx.device)

        criterion = self.training.criterion

        def loss(model: nn.Module, batch: Tensor, parts: Shares) -> Tensor:
            ((_, rows_N),) = parts  # one: CutMix is refused
            scores = model(batch)
            value = criterion(scores, data.labels_N[rows_N])
            if bool(met.any()):
                dark, plain = self.memory(images, draw, ctx, generator)
                value = value + self.alpha * F.mse_loss(model(dark[0]), logits[dark[1]])
                value = value + self.beta * criterion(model(plain[0]), labels[plain[1]])
            rows = rows_N + len(old)
            logits[rows] = scores.detach().float()
            met[rows.cpu()] = True
            return value

        train(
            model,
            data.images_NCHW,
            self.training,
            loss,
            seed=derive(ctx.seed, "training", step=step.index),
            ctx=ctx,
        )
        new = chosen(data, ctx.normalization, "reservoir", logits=logits[len(old) :].cpu())
        buffer = old.add(new, rank[len(old) :])
        return State(weights=weights_of(model), buffer=buffer, tensors={SEEN: step.seen_C})

    def memory(self, images: Tensor, draw, ctx: LearnerContext, generator: torch.Generator):
        """Two memory batches, augmented like new data: (images, rows) each."""
        found = []
        for rows in (draw(), draw()):
            change = self.training.augmentation.draw(len(rows), generator, flip=ctx.horizontal_flip)
            found.append((self.training.augmentation.apply(images[rows], change), rows))
        return found

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

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return masked_model(state, ctx)
