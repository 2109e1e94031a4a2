"""Ways to fill a buffer (a random part, herded exemplars, distilled images), and the bytes of an image in it."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.core.errors import ConfigError
from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.blobs import encode
from fedcl.distill.distiller import Distiller
from fedcl.distill.fit import keeps_pixels
from fedcl.distill.selection import herding
from fedcl.memory.buffer import Buffer, chosen
from fedcl.models.base import Network


def remember_random(buffer: Buffer, data: LabeledSet, ctx: LearnerContext) -> Buffer:
    """A uniform sample of each group of the budget's balance, over all that was ever shown to the buffer."""
    generator = torch_rng(ctx.seed, "ranks", step=data.origin.step)
    ranks = torch.rand(len(data), generator=generator, dtype=torch.float64)
    return buffer.add(chosen(data, ctx.inputs, "random"), ranks)


@torch.no_grad()
def unit_features(model: Network, images: Tensor, ctx: LearnerContext) -> Tensor:
    """float32 [N, D]: features of images, uint8 or normalised, scaled to unit length."""
    return F.normalize(torch.cat([model.embed(ctx.inputs.apply(part)) for part in images.split(512)]))


def remember_herding(buffer: Buffer, data: LabeledSet, model: Network, ctx: LearnerContext) -> Buffer:
    """iCaRL's exemplars (Rebuffi et al., CVPR 2017, algorithm 4): the first herded images of each class, as many
    as the budget keeps, on features of unit length."""
    if not len(data):
        return buffer
    model.eval()
    features = unit_features(model, data.inputs, ctx).cpu()
    model.train()
    labels = data.labels_N.cpu()
    # Whose rows stay depends on labels, steps and ranks alone: any order of the images tells how many to rank.
    trial = buffer.add(chosen(data, ctx.inputs, "herding"))
    if not len(trial):
        return trial
    came = trial.rows("step_N") == data.origin.step
    room_K = trial.labels_N[came].bincount(minlength=ctx.num_classes)
    picks = []
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label)[:, 0]
        picks.append(rows[herding(features[rows], min(int(room_K[label]), len(rows)), 0)])
    return buffer.add(chosen(data.select(torch.cat(picks)), ctx.inputs, "herding"))


def remember_distilled(state: State, step: Step, ctx: LearnerContext) -> State:
    """The state with the step's data in memory, distilled to as many images of each class as the budget will hold."""
    budget, classes = state.buffer.budget, int(step.seen_C.sum())
    image_bytes, shared_bytes = stored_bytes(ctx.distiller, ctx)
    count = budget.share(classes, image_bytes, shared_bytes * (step.index + 1))
    if count < 1:
        raise ConfigError(
            f"buffer.{budget.unit}={budget.size} holds less than one image for each of {classes} classes at step "
            f"{step.index + 1}; type a larger buffer.{budget.unit}"
        )
    key, distiller = derive(ctx.seed, "distill", step=step.index), replace(ctx.distiller, ipc=count)
    (summary,) = distiller.distill([step.data], key, ctx, weights=state.weights)
    return replace(state, buffer=state.buffer.add(summary))


def stored_bytes(distiller: Distiller, ctx: LearnerContext) -> tuple[int, int]:
    """Bytes of one image of `ipc` as the buffer will store it, with its label; and of what all images share."""
    parameterization, wire = distiller.parameterization, ctx.budget.wire
    real = torch.zeros(parameterization.num_initial(1), *ctx.inputs.shape, dtype=ctx.inputs.torch_dtype)
    start = real if keeps_pixels(distiller) else torch.zeros(real.shape)
    label = torch.zeros(len(start), dtype=torch.int64)
    summary = Summary(
        arrays=parameterization.encode(start, real),
        targets=F.one_hot(label, ctx.num_classes).float() if distiller.labels.learnable else label,
        num_classes=ctx.num_classes,
        inputs=ctx.inputs,
        decoder=parameterization,
        method=distiller.name,
    )
    blob = encode(summary, wire)
    return blob.row_bytes * len(start), blob.shared_bytes


def real_bytes(ctx: LearnerContext, **arrays: Tensor) -> int:
    """Bytes of one real image as the buffer will store it, with its label and `arrays` ([1, ...]) beside it."""
    black = torch.zeros(1, *ctx.inputs.shape, dtype=ctx.inputs.torch_dtype)
    image = LabeledSet(inputs=black, labels_N=torch.zeros(1, dtype=torch.int64), num_classes=ctx.num_classes)
    summary = chosen(image, ctx.inputs, "an image", **arrays)
    return encode(summary, ctx.budget.wire).num_bytes
