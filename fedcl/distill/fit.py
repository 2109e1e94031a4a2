"""Checks of a distiller: rates of what is learned, and parts that fit each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import nn

from fedcl.core.errors import ConfigError, DistillError
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.context import Context
from fedcl.distill.objectives.base import NoObjective

if TYPE_CHECKING:
    from fedcl.distill.distiller import Distiller

# what networks provide and the other axes may need: its name -> in words, and what to type for it
NEEDS = {
    "network": ("a network", "networks=fresh"),
    "embedding": ("features of a network", "networks=fresh"),
    "trained": ("a network that was trained on the real images", "networks=trained, or networks=interpolated"),
    "trajectory": ("stretches of experts' training", "networks=experts"),
}


def check(distiller: Distiller) -> None:
    """Raise ConfigError where a rate is of what is not learned, or parts do not fit."""
    if fault := next(chain(_wrong_rates(distiller), _wrong_parts(distiller)), ""):
        raise ConfigError(fault)
    try:  # made once for nothing, so that its own checks speak before any work is done
        distiller.optimizer([{"params": [torch.zeros(1, requires_grad=True)]}])
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{name}={value}" for name, value in getattr(distiller.optimizer, "keywords", {}).items())
        raise ConfigError(
            f"distiller.optimizer cannot be made from {given or 'no values'} ({error}); --cfg job shows its keys"
        ) from error


def _wrong_rates(this: Distiller) -> Iterator[str]:
    scalars, labels = bool(this.objective.learned_scalars()), this.labels.learnable
    if this.lr_labels is not None and not labels:
        yield (
            f"distiller.lr_labels={this.lr_labels} is the rate of learned labels, and these are fixed; "
            "type distiller.lr_labels=null, or labels=logits"
        )
    if this.lr_scalars is not None and not scalars:
        yield (
            f"distiller.lr_scalars={this.lr_scalars} is the rate of numbers that the objective learns beside the "
            "images, and this one learns none; type distiller.lr_scalars=null"
        )
    if not (this.selects or this.optimise_images or labels or scalars):
        yield (
            "distiller.optimise_images=false leaves nothing to learn; "
            "type labels=logits, or distiller.steps=0 for a selection"
        )


def _wrong_parts(this: Distiller) -> Iterator[str]:
    networks, objective, labels = this.networks, this.objective, this.labels
    for axis in ("initializer", "labels") if this.selects else ("objective", "sampler", "initializer", "labels"):
        part = getattr(this, axis)
        for need in sorted(part.needs - networks.provides):
            what, typed = NEEDS.get(need, (f"'{need}'", f"networks=... whose class provides '{need}'"))
            named = f"{axis} {type(part).__name__}"
            yield f"{named} needs {what}, and networks {type(networks).__name__} provide none; type {typed}"
    if this.selects:
        return
    named, rule = f"objective {type(objective).__name__}", f"labels {type(labels).__name__}"
    if networks.provides and not objective.needs:
        yield f"{named} is a closed form that no network takes part in; type networks=none"
    if labels.learnable and not objective.reads_targets:
        yield (
            f"{rule} are learned, and {named} does not read the synthetic labels, so that nothing moves them; "
            "type labels=hard"
        )
    if objective.needs_scores and not labels.soft:
        yield f"{named} is a regression on scores, and {rule} are classes; type labels=kernel"
    if this.augmentation.mixes and not networks.mixes:
        yield (
            "augmentation.cutmix mixes the batches that networks are trained on, never matched images, and "
            "these networks train none with it; type augmentation.cutmix=0, or networks=queue"
        )


def keeps_pixels(distiller: Distiller) -> bool:
    """True where images that were chosen stay the uint8 pixels that they are."""
    return distiller.parameterization.takes_pixels and (distiller.selects or not distiller.optimise_images)


def idle_fields(distiller: Distiller) -> set[str]:
    """Names of the fields that decide nothing: in a selection those of an optimisation."""
    if not distiller.selects:
        return set()
    idle = {"optimizer", "real_batch", "reuse", "batching", "sampler", "optimise_images", "lr_scalars", "lr_labels"}
    if not distiller.initializer.needs | distiller.labels.needs:
        idle |= {"networks", "augmentation"}
    return idle | {"steps" if isinstance(distiller.objective, NoObjective) else "objective"}


def check_context(distiller: Distiller, ctx: Context, weights: bool = False) -> None:
    """Raise DistillError where this cannot work with the context's model, with or without the caller's weights."""
    if distiller.selects:
        return
    if distiller.networks.needs_weights and not weights:
        raise DistillError(
            f"networks {type(distiller.networks).__name__} lie around the caller's weights, and there are none; "
            "type networks=fresh"
        )
    distiller.objective.check(architecture(distiller, ctx))


def architecture(distiller: Distiller, ctx: Context) -> nn.Module:
    """The matched network without numbers (meta device)."""
    with torch.device("meta"):
        return ctx.model.varied(**distiller.networks.changes).architecture(ctx.inputs.shape, ctx.num_classes)


def check_sets(sets: Sequence[LabeledSet], start: Sequence[Summary] | None, ctx: Context) -> None:
    """Raise DistillError where a set is of other images or classes than the context, or `start` of other sets."""
    for data in sets:
        if data.shape != ctx.inputs.shape or data.num_classes != ctx.num_classes:
            raise DistillError(
                f"a set of {data.num_classes} classes of {data.shape} images cannot be distilled "
                f"for {ctx.num_classes} classes of {ctx.inputs.shape}"
            )
    if start is not None and len(start) != len(sets):
        raise DistillError(f"start holds {len(start)} summaries for {len(sets)} sets; give one for each")
