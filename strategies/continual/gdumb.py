"""GDumb: keep a balanced part of the data as it comes, train a new network on it. By its official rules.

Prabhu, Torr, Dokania, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", ECCV 2020,
with its public code: memory is the first M // C training images of each class to arrive, at whatever step (M % C
classes take one more), in a random order here (the code's is that of an unstable sort); SGD with cosine warm
restarts, gradients clipped, random crops of images padded with black, CutMix where asked for. The published figure
is the best test accuracy over epochs, which `LearnerContext.watch` lets a runner look at; the state holds the last.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import SEEN, Learner, Masked, fresh_model, replayed
from fedcl.continual.remember import real_bytes
from fedcl.core.seeding import torch_rng
from fedcl.memory.budget import positions
from fedcl.memory.buffer import chosen
from fedcl.training.augmentation import Augmentation, CutMix, Draw, OnlyMixed, shifted
from fedcl.training.recipe import Training

# Numbers of the public code
GDUMB_TRAINING = Training(
    epochs=128,
    batch_size=16,
    lr=0.05,
    lr_min=0.0005,
    schedule="restarts",
    weight_decay=1e-6,
    clip=10.0,
    augmentation=CutMix(),
)


@dataclass(frozen=True, kw_only=True)
class BlackCrop(OnlyMixed):
    """Each image moved by up to `reach` pixels each way, black coming in; then the augmentation `of`."""

    reach: int
    black: Tensor  # float32 [1, C, 1, 1], normalised

    def draw(self, count: int, generator: torch.Generator, *, flip: bool) -> Draw | None:
        shift = torch.randint(2 * self.reach + 1, (2, count), generator=generator) - self.reach
        return {"shift": shift.T} | (self.of.draw(count, generator, flip=flip) or {})

    def apply(self, images_NCHW: Tensor, draw: Draw | None, row_N: Tensor | None = None) -> Tensor:
        others = dict(draw or {})
        shift = others.pop("shift")
        dy_N, dx_N = (shift if row_N is None else shift[row_N]).T.to(images_NCHW.device)
        moved = shifted(images_NCHW - self.black, dy_N, dx_N) + self.black
        return self.of.apply(moved, others or None, row_N)


@dataclass(frozen=True, kw_only=True)
class GDumb(Learner):
    training: Training = GDUMB_TRAINING  # from scratch, on the memory alone; CutMix has probability 0.5 in CIFAR runs
    crop: float = 0.125  # black padding that a random crop moves in, as a fraction of the side: 4 of 28 or 32 pixels
    every_step: bool = True  # False: train only after the last step, as the code does

    needs_memory = True
    balance = "classes"
    unused = ("distiller",)

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        order = torch.randperm(len(step.data), generator=torch_rng(ctx.seed, "arrival", step=step.index))
        labels = step.data.labels_N.cpu()[order]
        held_C = state.buffer.labels_N.bincount(minlength=ctx.num_classes)
        rows = order[held_C[labels] + positions(labels) < self.quota(ctx)[labels]].to(ctx.device)
        buffer = state.buffer.add(chosen(step.data.select(rows), ctx.inputs, "first"))
        state = replace(state, buffer=buffer, tensors={SEEN: step.seen_C})
        if not (self.every_step or step.last):
            return state
        cropping = replace(self, training=replace(self.training, augmentation=self.cropped(ctx)))

        def look(model: nn.Module) -> None:
            if ctx.watch is not None and step.last:
                ctx.watch(Masked(model, step.seen_C))

        data, seed = replayed(buffer, ctx), torch_rng(ctx.seed, "gdumb", step=step.index)
        return cropping.fit(state, fresh_model(ctx), data, step, ctx, seed=seed, after_epoch=look)

    @property
    def only_images(self) -> str | None:
        """Change to type where inputs are no images: random crops are of images."""
        return "strategy.crop=0" if self.crop else None

    def quota(self, ctx: LearnerContext) -> Tensor:
        """int64 [C]: images that the memory keeps of each class; all together as many as fit."""
        room, classes = ctx.budget.room(ctx.num_classes, real_bytes(ctx)), ctx.num_classes
        return room // classes + (torch.arange(classes) < room % classes).long()

    def cropped(self, ctx: LearnerContext) -> Augmentation:
        """The training's augmentation, after random crops."""
        reach = round(self.crop * max(ctx.inputs.shape[1:], default=0))  # a table has no sides
        if not reach:
            return self.training.augmentation
        black = torch.zeros(1, ctx.inputs.shape[0], 1, 1, dtype=torch.uint8, device=ctx.device)
        return BlackCrop(reach=reach, black=ctx.inputs.apply(black), of=self.training.augmentation)
