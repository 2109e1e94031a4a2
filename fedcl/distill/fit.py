"""Checks of a distiller: numbers in range, rates of what is learned, and parts that fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from fedcl.core.errors import ConfigError, DistillError
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.context import Context
from fedcl.distill.objectives.base import NoObjective
from fedcl.distill.optimizers import check_optimizer

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
    """
    Raises:
        ConfigError: a number is out of range, a rate is of something that is not learned, or parts do not fit.
    """
    _check_numbers(distiller)
    _check_parts(distiller)
    check_optimizer(distiller.optimizer)


def _check_numbers(this: Distiller) -> None:
    if this.ipc < 1:
        raise ConfigError(f"distiller.ipc={this.ipc} stores nothing; type distiller.ipc=1 or more")
    if this.steps < 0 or this.real_batch < 1 or this.reuse < 1:
        raise ConfigError("distiller.steps must be >= 0, distiller.real_batch and distiller.reuse >= 1")
    if this.batching not in ("auto", "together", "one_at_a_time"):
        raise ConfigError(f"distiller.batching={this.batching} is not known; choose auto, together or one_at_a_time")
    if any(lr is not None and lr < 0 for lr in (this.lr_scalars, this.lr_labels)):
        raise ConfigError("distiller.lr_scalars and distiller.lr_labels must be >= 0, or null for the optimiser's")
    scalars = bool(this.objective.learned_scalars())
    if this.lr_labels is not None and not this.labels.learnable:
        raise ConfigError(
            f"distiller.lr_labels={this.lr_labels} is the rate of learned labels, and these are fixed; "
            "type distiller.lr_labels=null, or labels=logits"
        )
    if this.lr_scalars is not None and not scalars:
        raise ConfigError(
            f"distiller.lr_scalars={this.lr_scalars} is the rate of numbers that the objective learns beside the "
            "images, and this one learns none; type distiller.lr_scalars=null"
        )
    if not this.selects and not (this.optimise_images or this.labels.learnable or scalars):
        raise ConfigError(
            "distiller.optimise_images=false leaves nothing to learn; "
            "type labels=logits, or distiller.steps=0 for a selection"
        )


def _check_parts(distiller: Distiller) -> None:
    networks = distiller.networks
    axes = ("initializer", "labels") if distiller.selects else ("objective", "sampler", "initializer", "labels")
    for axis in axes:
        part = getattr(distiller, axis)
        for need in sorted(part.needs - networks.provides):
            what, typed = NEEDS.get(need, (f"'{need}'", f"networks=... whose class provides '{need}'"))
            raise ConfigError(
                f"{axis} {type(part).__name__} needs {what}, and networks {type(networks).__name__} provide none; "
                f"type {typed}"
            )
    if distiller.selects:
        return
    if networks.provides and not distiller.objective.needs:
        raise ConfigError(
            f"objective {type(distiller.objective).__name__} is a closed form that no network takes part in; "
            "type networks=none"
        )
    objective, labels = distiller.objective, distiller.labels
    if labels.learnable and not objective.reads_targets:
        raise ConfigError(
            f"labels {type(labels).__name__} are learned, and objective {type(objective).__name__} does not read the "
            "synthetic labels, so that nothing moves them; type labels=hard"
        )
    if objective.needs_scores and not labels.soft:
        raise ConfigError(
            f"objective {type(objective).__name__} is a regression on scores, and labels {type(labels).__name__} are "
            "classes; type labels=kernel"
        )
    if distiller.augmentation.mixes and not networks.mixes:
        raise ConfigError(
            "augmentation.cutmix mixes the batches that networks are trained on, never matched images, and "
            "these networks train none with it; type augmentation.cutmix=0, or networks=queue"
        )


def keeps_pixels(distiller: Distiller) -> bool:
    """True where images that were chosen stay the uint8 pixels that they are."""
    moved = distiller.optimise_images and not distiller.selects
    return distiller.parameterization.takes_pixels and not moved


def idle_fields(distiller: Distiller) -> set[str]:
    """Names of the fields that decide nothing: in a selection those of an optimisation."""
    if not distiller.selects:
        return set()
    ways = {"optimizer", "real_batch", "reuse", "batching", "sampler", "optimise_images", "lr_scalars", "lr_labels"}
    asked = distiller.initializer.needs | distiller.labels.needs
    ways |= set() if asked else {"networks", "augmentation"}
    return ways | {"steps" if isinstance(distiller.objective, NoObjective) else "objective"}


def check_context(distiller: Distiller, ctx: Context, weights: bool) -> None:
    """
    Raises:
        DistillError: the objective cannot use such networks, or the networks need weights that the caller has not.
    """
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
    """
    Raises:
        DistillError: a set is of other images or classes than the context, or `start` is not one summary a set.
    """
    for data in sets:
        if data.shape != ctx.inputs.shape or data.num_classes != ctx.num_classes:
            raise DistillError(
                f"a set of {data.num_classes} classes of {data.shape} images cannot be distilled "
                f"for {ctx.num_classes} classes of {ctx.inputs.shape}"
            )
    if start is not None and len(start) != len(sets):
        raise DistillError(f"start holds {len(start)} summaries for {len(sets)} sets; give one for each")
