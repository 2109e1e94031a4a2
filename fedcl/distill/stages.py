"""Stages of a distillation: what it begins from, the comparison of a step, and the summaries that it ends in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedcl.core.compute import laid_out
from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import LabeledSet, Summary, normalised
from fedcl.distill.batch import NOTHING, MatchBatch, Matched, MatchStep
from fedcl.distill.context import Context
from fedcl.distill.fit import keeps_pixels
from fedcl.distill.groups import RealBatches, Segments
from fedcl.distill.initializers import ClassImages
from fedcl.distill.networks.base import NetworkSource, NetworkStream, Weights
from fedcl.distill.networks.fixed import Unchanged
from fedcl.distill.state import Comparison, DistillState, go_on
from fedcl.training.augmentation import Draw

if TYPE_CHECKING:
    from fedcl.distill.distiller import Distiller, Starts


def begin(
    distiller: Distiller, sets: Sequence[LabeledSet], key: int, ctx: Context, start: Starts, weights: Weights | None
) -> DistillState:
    """The state before the first step."""
    segments = Segments(sets, ctx.device)
    parameterization, labels = distiller.parameterization, distiller.labels
    asked = bool(distiller.initializer.needs or labels.needs)
    networks: NetworkStream = Unchanged(NOTHING)
    if len(segments) and (asked or not distiller.selects):
        source = NetworkSource(
            new_model=lambda seed, **changes: laid_out(ctx.new_model(seed, **changes), ctx.device),
            seed=derive(key, "networks"),
            ipc=distiller.ipc,
            weights=weights,
            augmentation=distiller.augmentation,
            flip=ctx.inputs.flips,
            sets=tuple(sets),
            inputs=ctx.inputs,
            progress=ctx.progress,
        )
        networks = distiller.networks.open(source)
    matched = networks.at(0) if asked else NOTHING
    images, segment_N = _starting_images(distiller, segments, key, ctx, matched)
    if images.dtype == torch.uint8 and not keeps_pixels(distiller):
        images = ctx.inputs.apply(images)
    arrays = parameterization.encode(images, segments.inputs)
    fresh = {} if distiller.selects else distiller.objective.learned_scalars()
    scalars = {name: value.to(ctx.device) for name, value in fresh.items()}
    targets = labels.initial(segments.label_S[segment_N], ctx.num_classes).to(ctx.device)
    if start is not None:
        targets = go_on(start, arrays, scalars, targets, labels)
    segment_M = parameterization.expand(segment_N)
    state = DistillState(
        key=key,
        ctx=ctx,
        segments=segments,
        batches=RealBatches(segments, distiller.real_batch, key, ctx.inputs, distiller.sampler),
        arrays=arrays,
        scalars=scalars,
        targets=targets,
        segment_N=segment_N,
        segment_M=segment_M.to(ctx.device),
        label_M=segments.label_S[segment_M],
        sizes=tuple(torch.bincount(segment_M, minlength=len(segments)).tolist()),
        matched=matched,
        networks=networks,
        total=0 if distiller.selects or not len(segment_N) else distiller.steps,
    )
    if state.total:
        state.optimizer = _new_optimizer(distiller, state)
        state.memory = distiller.objective.prepare(state.batches)
    return state


def _starting_images(
    distiller: Distiller, segments: Segments, key: int, ctx: Context, matched: Matched
) -> tuple[Tensor, Tensor]:
    """Images of all segments, uint8 pixels or normalised, and the segment of each (CPU)."""
    images, count = [], distiller.parameterization.num_initial(distiller.ipc)
    for segment, (label, position) in enumerate(zip(segments.label_S.tolist(), segments.set_S.tolist(), strict=True)):
        origin = segments.sets[position].origin
        seed = derive(key, f"initial images of class {label}", client=origin.client, step=origin.step)
        held = ClassImages(inputs=segments.images_of(segment), spec=ctx.inputs, label=label, matched=matched)
        images.append(distiller.initializer.images(held, count, seed))
    owner = torch.repeat_interleave(torch.tensor([len(made) for made in images], dtype=torch.int64))
    return torch.cat(images) if images else segments.inputs[:0], owner


def _new_optimizer(distiller: Distiller, state: DistillState) -> torch.optim.Optimizer:
    """The optimiser, with one group for each rate; what it moves is `state.learned` from now on."""
    images = {name: v for name, v in state.arrays.items() if name not in distiller.parameterization.named("fixed")}
    parts = [
        (images if distiller.optimise_images else {}, None),
        (state.scalars, distiller.lr_scalars),
        ({"targets": state.targets} if distiller.labels.learnable else {}, distiller.lr_labels),
    ]
    groups: list[dict[str, Any]] = []
    for tensors, lr in parts:
        if tensors:
            params = [tensor.requires_grad_() for tensor in tensors.values()]
            groups.append({"params": params, **({} if lr is None else {"lr": lr})})
            state.learned |= tensors
    return distiller.optimizer(groups)


def compare(distiller: Distiller, state: DistillState, index: int) -> Comparison:
    """Network, real batch and draw number `index`, and the objective's target for them."""
    ctx, objective = state.ctx, distiller.objective
    augmentation, flip, batches = distiller.augmentation, ctx.inputs.flips, state.batches
    matched = state.networks.at(index)
    step = MatchStep(
        **vars(matched),
        seed=derive(state.key, "objective", round=index),
        network_index=index,
        scalars=state.scalars,
        memory=state.memory,
        augmentation=augmentation,
        flip=flip,
    )
    generator = torch_rng(state.key, "augmentation", round=index)
    draw = None if objective.augments else augmentation.draw(ctx.num_classes, generator, flip=flip)
    if objective.needs_real or distiller.networks.needs_real:
        real = batches.at(index, matched)
        real = replace(real, inputs=augmentation.apply(real.inputs, draw, batches.label_N))
    else:
        real = batches.nothing()
    return Comparison(step=step, draw=draw, real=real, target=objective.target(real, step))


def synthetic(distiller: Distiller, state: DistillState, draw: Draw | None) -> MatchBatch:
    """The synthetic side as it is now, augmented by the draw."""
    images = distiller.augmentation.apply(decoded(distiller, state), draw, state.label_M)
    targets, count = distiller.parameterization.expand(distiller.labels.decode(state.targets)), len(state.segments)
    return MatchBatch(inputs=images, targets=targets, segment_N=state.segment_M, num_segments=count, sizes=state.sizes)


def decoded(distiller: Distiller, state: DistillState) -> Tensor:
    """The synthetic images as networks see them; those that are not learned stay the pixels that they are."""
    arrays = normalised(state.arrays, state.ctx.inputs)
    return distiller.parameterization.decode(arrays, state.ctx.inputs.shape)


@torch.no_grad()
def finish(distiller: Distiller, state: DistillState) -> list[Summary]:
    """One summary for each set, on the CPU."""
    parameterization, ctx, labels = distiller.parameterization, state.ctx, distiller.labels
    values = state.targets.detach()
    targets, beside = labels.decode(values), {}
    if len(state.segment_N):
        owner_M = parameterization.expand(torch.arange(len(state.segment_N))).to(ctx.device)
        # most rules look at no image
        targets, beside = labels.finish(values, lambda: decoded(distiller, state).detach(), owner_M, state.matched)
    arrays = {name: array.detach().cpu() for name, array in {**state.arrays, **state.scalars, **beside}.items()}
    targets, owner_N = targets.cpu(), state.segments.set_S[state.segment_N]
    row_arrays = parameterization.named("row")
    summaries = []
    for position, data in enumerate(state.segments.sets):
        rows = torch.nonzero(owner_N == position)[:, 0]
        summaries.append(
            Summary(
                # what is not in rows belongs to the only set
                arrays={
                    name: (v[rows] if name in row_arrays else v).contiguous().clone() for name, v in arrays.items()
                },
                targets=targets[rows],
                num_source_C=data.counts_C.cpu(),
                inputs=ctx.inputs,
                decoder=parameterization,
                method=distiller.name,
                origin=data.origin,
            )
        )
    return summaries
