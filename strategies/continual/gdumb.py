"""GDumb: keep a balanced part of the data as it comes, train a new network on it. By its official rules.

Prabhu, Torr, Dokania, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", ECCV 2020,
with its public code: memory is the first M // C training images of each class to arrive, at whatever step (M % C
classes take one more), in a random order here (the code's is that of an unstable sort); SGD with cosine warm
restarts (epochs 1, 2, 4, 8, ... long) from lr to lr_min, the first epoch at lr / 10, gradients clipped, random crops of
images padded by 4, cutmix where asked for. The published figure is the best test accuracy over epochs, which
`LearnerContext.watch` lets a runner look at; the state holds the last epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step, Strategy
from fedcl.continual.helpers import (
    SEEN,
    Masked,
    fresh_model,
    hard_or_soft,
    mask_offset,
    masked_model,
    new_state,
    own_buffer,
    real_bytes,
    weights_of,
)
from fedcl.core.seeding import torch_rng
from fedcl.memory.buffer import chosen, positions
from fedcl.training.augmentation import cut_and_mix
from fedcl.training.loop import batches


@dataclass(frozen=True, kw_only=True)
class GDumb(Strategy):
    epochs: int = 128  # passes over the memory
    batch_size: int = 16
    lr: float = 0.05
    lr_min: float = 0.0005
    momentum: float = 0.9
    weight_decay: float = 1e-6
    clip: float = 10.0  # largest norm of the gradient
    crop: float = 0.125  # black padding that a random crop moves in, as a fraction of the side: 4 of 28 or 32 pixels
    cutmix: float = 0.0  # chance that a batch is mixed (Yun et al., ICCV 2019, alpha 1); 0.5 in the code's CIFAR runs
    every_step: bool = True  # False: train only after the last step, as the code does

    unused = ("distiller",)

    @property
    def needs_memory(self) -> bool:
        return True

    def init(self, ctx: LearnerContext) -> State:
        return new_state(ctx, own_buffer(ctx, "classes", "GDumb"))

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        order = torch.randperm(len(step.data), generator=torch_rng(ctx.seed, "arrival", step=step.index))
        labels = step.data.labels_N.cpu()[order]
        held_C = state.buffer.labels_N.bincount(minlength=ctx.num_classes)
        early = held_C[labels] + positions(labels) < self.quota(ctx)[labels]
        rows = order[early].to(ctx.device)
        buffer = state.buffer.add(chosen(step.data.select(rows), ctx.normalization, "first"))
        state = replace(state, buffer=buffer, tensors={SEEN: step.seen_C})
        if not self.every_step and step.index < step.num_steps - 1:
            return state
        model = fresh_model(ctx)
        self.fit(model, state, step, ctx)
        return replace(state, weights=weights_of(model))

    def quota(self, ctx: LearnerContext) -> Tensor:
        """int64 [C]: images that the memory keeps of each class; all together as many as fit."""
        room, classes = ctx.budget.room(ctx.num_classes, real_bytes(ctx)), ctx.num_classes
        return room // classes + (torch.arange(classes) < room % classes).long()

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        if epoch == 0:
            return self.lr / 10
        place, length = epoch - 1, 1
        while place >= length:
            place, length = place - length, 2 * length
        return self.lr_min + 0.5 * (self.lr - self.lr_min) * (1 + math.cos(math.pi * place / length))

    def fit(self, model: nn.Module, state: State, step: Step, ctx: LearnerContext) -> None:
        images, labels = (tensor.to(ctx.device) for tensor in state.buffer.replay())
        targets = F.one_hot(labels, ctx.num_classes).float()
        generator = torch_rng(ctx.seed, "gdumb", step=step.index)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        offset = mask_offset(step.seen_C).to(ctx.device)
        per_epoch = math.ceil(len(images) / self.batch_size)
        ctx.progress.begin("training", self.epochs)
        model.train()
        for update, rows in enumerate(batches(len(images), self.batch_size, self.epochs * per_epoch, generator)):
            epoch, place = divmod(update, per_epoch)
            optimizer.param_groups[0]["lr"] = self.rate(epoch)
            batch = self.cropped(images[rows.to(ctx.device)], ctx, generator)
            batch, wanted = self.mixed(batch, targets[rows.to(ctx.device)], generator)
            loss = hard_or_soft(model(batch) + offset, wanted)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), self.clip)
            optimizer.step()
            if place == per_epoch - 1:
                ctx.progress.advance("training")
                if ctx.watch is not None and step.index == step.num_steps - 1:
                    ctx.watch(Masked(model, step.seen_C))
        ctx.progress.end("training")

    def cropped(self, images_NCHW: Tensor, ctx: LearnerContext, generator: torch.Generator) -> Tensor:
        """Each image moved by up to `crop` of its side each way, black coming in."""
        count, channels, height, width = images_NCHW.shape
        reach = round(self.crop * max(height, width))
        if not reach:
            return images_NCHW
        black = ctx.normalization.apply(torch.zeros(1, channels, 1, 1, dtype=torch.uint8, device=ctx.device))
        padded = F.pad(images_NCHW - black, (reach,) * 4) + black
        shift = torch.randint(2 * reach + 1, (2, count), generator=generator).to(ctx.device)
        rows = shift[0][:, None] + torch.arange(height, device=ctx.device)
        columns = shift[1][:, None] + torch.arange(width, device=ctx.device)
        each = torch.arange(count, device=ctx.device)[:, None, None]
        return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def mixed(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cutmix: a rectangle of every image comes from another one, and so does its part of the label."""
        if not self.cutmix or float(torch.rand((), generator=generator)) >= self.cutmix:
            return images, targets
        share, y, x = torch.rand(3, generator=generator).tolist()  # Beta(1, 1) is uniform
        other = torch.randperm(len(images), generator=generator).to(images.device)
        images, kept = cut_and_mix(images, other, 1 - share, y, x)
        return images, kept * targets + (1 - kept) * targets[other]

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        return masked_model(state, ctx)
