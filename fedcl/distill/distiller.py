"""The one loop: a batch of data sets in, one summary for each out.

Every method of the literature is a point in the space of this file's fields, written down as a preset in
`configs/distiller/`. A client calls `distill` with its shard, a continual learner with its step, a
simulation with a hundred clients at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fedcl.core.compute import laid_out
from fedcl.core.errors import ConfigError, DistillError
from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.checkpoint import CheckpointStore, Slot, go_on
from fedcl.distill.context import Context
from fedcl.distill.groups import RealBatches, Segments
from fedcl.distill.initializers import Initializer, Real
from fedcl.distill.labels import Hard, TargetRule
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream, Weights
from fedcl.distill.networks.fresh import Fresh
from fedcl.distill.objectives.base import MatchBatch, NoObjective, Objective, batch_norms
from fedcl.distill.objectives.distribution import Distribution
from fedcl.distill.optimizers import check_optimizer
from fedcl.distill.parameterizations.base import Parameterization
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.training.augmentation import Augmentation, Draw, Siamese

SGD = partial(torch.optim.SGD, lr=1.0, momentum=0.5)  # DM's


@dataclass(frozen=True, kw_only=True)
class Distiller:
    """A distillation method with its numbers; `distill` is pure in everything it is given.

    Without any, it is the preset `dm` (configs/distiller/dm.yaml).
    """

    name: str = "dm"  # the preset's name, as the record shows it
    objective: Objective = field(default_factory=Distribution)  # what is matched
    parameterization: Parameterization = field(default_factory=Pixels)  # what is optimised
    initializer: Initializer = field(default_factory=Real)  # where it starts
    augmentation: Augmentation = field(default_factory=Siamese)  # one draw a class and step, for both sides
    labels: TargetRule = field(default_factory=Hard)  # hard, or optimised
    networks: Networks = field(default_factory=Fresh)  # the networks
    ipc: int = 10  # stored images per class
    steps: int = 300  # updates of the synthetic images; 0 = selection
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = SGD  # of groups: arrays, scalars, labels
    real_batch: int = 256  # real images a class and step; a smaller class gives all that it has
    reuse: int = 1  # updates per network, real batch and draw; above 1 is faster and not the published method
    optimise_images: bool = True  # false: images stay as they started, only labels and the like are learned
    lr_scalars: float | None = None  # of the objective's own numbers (a step size); None = the optimiser's
    lr_labels: float | None = None  # of learned labels; None = the optimiser's
    published: Mapping[str, Any] = field(default_factory=dict)  # data set -> ipc -> the source's accuracy
    published_protocol: Mapping[str, Any] = field(default_factory=dict)  # key -> what it was there (`published.py`)
    batching: str = "auto"  # together, one_at_a_time, or auto: together on an accelerator, apart on the CPU

    def __post_init__(self) -> None:
        if self.ipc < 1:
            raise ConfigError(f"distiller.ipc={self.ipc} stores nothing; type distiller.ipc=1 or more")
        if self.steps < 0 or self.real_batch < 1 or self.reuse < 1:
            raise ConfigError("distiller.steps must be >= 0, distiller.real_batch and distiller.reuse >= 1")
        if self.batching not in ("auto", "together", "one_at_a_time"):
            raise ConfigError(
                f"distiller.batching={self.batching} is not known; choose auto, together or one_at_a_time"
            )
        if any(lr is not None and lr < 0 for lr in (self.lr_scalars, self.lr_labels)):
            raise ConfigError("distiller.lr_scalars and distiller.lr_labels must be >= 0, or null for the optimiser's")
        self._check_learned()
        check_optimizer(self.optimizer)

    def _check_learned(self) -> None:
        """
        Raises:
            ConfigError: a rate is of something that is not learned, or nothing is.
        """
        scalars = bool(self.objective.learned_scalars())
        if self.lr_labels is not None and not self.labels.learnable:
            raise ConfigError(
                f"distiller.lr_labels={self.lr_labels} is the rate of learned labels, and these are fixed; "
                "type distiller.lr_labels=null, or labels=logits"
            )
        if self.lr_scalars is not None and not scalars:
            raise ConfigError(
                f"distiller.lr_scalars={self.lr_scalars} is the rate of numbers that the objective learns beside the "
                "images, and this one learns none; type distiller.lr_scalars=null"
            )
        if not self.selects and not (self.optimise_images or self.labels.learnable or scalars):
            raise ConfigError(
                "distiller.optimise_images=false leaves nothing to learn; "
                "type labels=logits, or distiller.steps=0 for a selection"
            )

    @property
    def selects(self) -> bool:
        """Whether this is a selection: nothing is optimised."""
        return self.steps == 0 or isinstance(self.objective, NoObjective)

    @property
    def idle(self) -> set[str]:
        """Names of the fields that decide nothing: those of an optimisation where there is none."""
        if not self.selects:
            return set()
        ways = {"networks", "augmentation", "optimizer", "real_batch", "reuse", "batching"}
        ways |= {"optimise_images", "lr_scalars", "lr_labels"}
        return ways | {"steps" if isinstance(self.objective, NoObjective) else "objective"}

    def distill(
        self,
        sets: Sequence[LabeledSet],
        key: int,
        ctx: Context,
        *,
        start: Sequence[Summary] | None = None,
        weights: Weights | None = None,
        store: CheckpointStore | None = None,
    ) -> list[Summary]:
        """One summary for each set, on the CPU.

        A class that a set does not hold is absent from its summary; a class with fewer images than ipc gives
        fewer when images are chosen from it. On the CPU sets are worked on one after the other, so that
        a batch gives bit for bit what one at a time gives; together they agree to rounding. So they are with
        batch norm everywhere: its statistics would be of all sets.

        Args:
            sets: whose data; `origin` names each set's private random streams.
            key: names all random streams; the same key shares networks and augmentation between calls.
            start: summaries of this method to go on from, one a set.
            weights: the caller's network, for networks=around_global, which matches around it.
            store: where the state is kept, so that the same call goes on where it was interrupted.

        Raises:
            DistillError: the loss is not finite, the networks lack what they need, the objective cannot use the
                network, the networks the augmentation, or `start` or the store's state is of another distillation.
        """
        for data in sets:
            if data.shape_CHW != ctx.shape_CHW or data.num_classes != ctx.num_classes:
                raise DistillError(
                    f"a set of {data.num_classes} classes of {data.shape_CHW} images cannot be distilled "
                    f"for {ctx.num_classes} classes of {ctx.shape_CHW}"
                )
        if start is not None and len(start) != len(sets):
            raise DistillError(f"start holds {len(start)} summaries for {len(sets)} sets; give one for each")
        if len(sets) > 1 and self.together(ctx.device) and not _has_batch_norm(ctx):
            return self._run(sets, key, ctx, start, weights, Slot(store, 0))
        starts = [None] * len(sets) if start is None else [[summary] for summary in start]
        return [
            self._run([data], key, ctx, begin, weights, Slot(store, position))[0]
            for position, (data, begin) in enumerate(zip(sets, starts, strict=True))
        ]

    def together(self, device: torch.device) -> bool:
        """Whether several sets are worked on as one batch on that device, not one after the other."""
        wanted = self.batching == "together" or (self.batching == "auto" and device.type != "cpu")
        able = self.networks.shared and self.objective.batched and not self.objective.learned_scalars()
        return wanted and able and self.parameterization.rowwise

    def _run(
        self,
        sets: Sequence[LabeledSet],
        key: int,
        ctx: Context,
        start: Sequence[Summary] | None,
        weights: Weights | None,
        slot: Slot,
    ) -> list[Summary]:
        segments = Segments.of(sets, ctx.device)
        images, segment_N = self._starting_images(segments, key, ctx)
        arrays = self.parameterization.encode(images, segments.images_NCHW)
        fresh = {} if self.selects else self.objective.learned_scalars()
        scalars = {name: value.to(ctx.device) for name, value in fresh.items()}
        targets = self.labels.initial(segments.label_S[segment_N], ctx.num_classes).to(ctx.device)
        if start is not None:
            targets = go_on(start, arrays, scalars, targets, self.labels)
        if not self.selects and len(segment_N):
            source = NetworkSource(
                new_model=lambda seed, **changes: laid_out(ctx.new_model(seed, **changes), ctx.device),
                seed=derive(key, "networks"),
                ipc=self.ipc,
                weights=weights,
                augmentation=self.augmentation,
                flip=ctx.horizontal_flip,
                sets=tuple(sets),
                normalization=ctx.normalization,
                progress=ctx.progress,
            )
            if self.augmentation.mixes and not self.networks.mixes:
                raise DistillError(
                    "augmentation.cutmix mixes the batches that networks are trained on, never matched images, and "
                    "these networks train none with it; type augmentation.cutmix=0, or networks=queue"
                )
            networks = self.networks.open(source)
            self._optimise(arrays, scalars, targets, segments, segment_N, key, ctx, networks, slot)
        return self._finish({**arrays, **scalars}, targets, segments, segment_N, ctx)

    def _starting_images(self, segments: Segments, key: int, ctx: Context) -> tuple[Tensor, Tensor]:
        """Normalised images of all segments, and the segment of each (CPU)."""
        images = [torch.zeros(0, *ctx.shape_CHW, device=ctx.device)]
        owner = [torch.zeros(0, dtype=torch.int64)]
        count = self.parameterization.num_initial(self.ipc)
        for segment, (label, position) in enumerate(zip(segments.label_S, segments.set_S, strict=True)):
            origin = segments.sets[int(position)].origin
            seed = derive(key, f"initial images of class {label}", client=origin.client, step=origin.step)
            held = segments.images_of(segment)
            images.append(self.initializer.images(held, count, seed, ctx.normalization))
            owner.append(torch.full((len(images[-1]),), segment))
        return torch.cat(images), torch.cat(owner)

    def _new_optimizer(
        self, arrays: Mapping[str, Tensor], scalars: Mapping[str, Tensor], targets: Tensor
    ) -> tuple[torch.optim.Optimizer, dict[str, Tensor]]:
        """The optimiser, and what it optimises by name."""
        images = {name: v for name, v in arrays.items() if name not in self.parameterization.fixed_arrays}
        parts = [(images if self.optimise_images else {}, None), (scalars, self.lr_scalars)]
        if self.labels.learnable:
            parts.append(({"targets": targets}, self.lr_labels))
        groups: list[dict[str, Any]] = []
        for tensors, lr in parts:
            if tensors:
                params = [tensor.requires_grad_() for tensor in tensors.values()]
                groups.append({"params": params} if lr is None else {"params": params, "lr": lr})
        return self.optimizer(groups), {name: t for tensors, _ in parts for name, t in tensors.items()}

    def _optimise(
        self,
        arrays: dict[str, Tensor],
        scalars: dict[str, Tensor],
        targets: Tensor,
        segments: Segments,
        segment_N: Tensor,
        key: int,
        ctx: Context,
        networks: NetworkStream,
        slot: Slot,
    ) -> None:
        """Update `arrays`, `scalars`, and `targets` where they are learned, in place."""
        optimizer, learned = self._new_optimizer(arrays, scalars, targets)
        segment_M = self.parameterization.expand(segment_N)
        sizes = tuple(torch.bincount(segment_M, minlength=len(segments)).tolist())
        label_M, segment_M = segments.label_S[segment_M], segment_M.to(ctx.device)
        batches = RealBatches(segments, self.real_batch, key, ctx.normalization)

        def synthetic_batch(draw: Draw | None, seed: int, network_index: int) -> MatchBatch:
            images = self.parameterization.decode(arrays, ctx.shape_CHW)
            return MatchBatch(
                images_NCHW=self.augmentation.apply(images, draw, label_M),
                targets=self.parameterization.expand(self.labels.decode(targets)),
                segment_N=segment_M,
                num_segments=len(segments),
                sizes=sizes,
                seed=seed,
                network_index=network_index,
                scalars=scalars,
                augmentation=self.augmentation,
                flip=ctx.horizontal_flip,
            )

        first = slot.load(learned, optimizer, networks)
        ctx.progress.begin("distilling", self.steps)
        ctx.progress.advance("distilling", first)
        shown = first
        for step in range(first, self.steps):
            network_index, again = divmod(step, self.reuse)  # the network_index-th network, used for the again-th time
            if not again:
                network = networks.at(network_index)
                if step == first:
                    self.objective.check(network)
                seed = derive(key, "objective", round=network_index)
                generator = torch_rng(key, "augmentation", round=network_index)
                draw = self.augmentation.draw(ctx.num_classes, generator, flip=ctx.horizontal_flip)
                draw = None if self.objective.augments else draw
                real = batches.at(network_index, seed)
                images = self.augmentation.apply(real.images_NCHW, draw, batches.label_N)
                real = replace(real, images_NCHW=images, network_index=network_index)
                target = self.objective.target(real, network)
            loss = self.objective.loss(synthetic_batch(draw, seed, network_index), target, network)
            gradients = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
            for (name, tensor), gradient in zip(learned.items(), gradients, strict=True):
                tensor.grad = self._used(name, gradient)
            optimizer.step()
            self.parameterization.project(learned, ctx.normalization)
            last = step == self.steps - 1
            if again == self.reuse - 1:
                with torch.no_grad():
                    updated = synthetic_batch(None, seed, network_index)
                networks.after(network_index, updated, real)
            keep = last or (again == self.reuse - 1 and slot.due(network_index, self.reuse))
            if keep or step % 50 == 0:  # a look at the device
                value = float(loss.detach())
                self._check(value, step)
                ctx.progress.advance("distilling", step + 1 - shown, loss=value)
                shown = step + 1
            if keep:
                slot.save(step + 1, learned, optimizer, networks)
        ctx.progress.end("distilling")
        for tensor in learned.values():
            tensor.requires_grad_(False)

    def _used(self, name: str, gradient: Tensor | None) -> Tensor:
        if gradient is None:
            kind = type(self.objective).__name__
            raise DistillError(f"objective {kind} cannot learn '{name}': its loss does not see it; type labels=hard")
        return gradient

    def _check(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise DistillError(
                f"distiller '{self.name}': the loss is {loss} at step {step + 1}; lower distiller.optimizer.lr"
            )

    def _arrays_of(self, arrays: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """The arrays of one set: its rows, and whatever is not in rows (then there is only one set)."""
        own = {}
        for name, array in arrays.items():
            array = array.detach().cpu()
            array = array[rows] if name in self.parameterization.row_arrays else array
            own[name] = array.contiguous().clone()
        return own

    def _finish(
        self,
        arrays: dict[str, Tensor],
        targets: Tensor,
        segments: Segments,
        segment_N: Tensor,
        ctx: Context,
    ) -> list[Summary]:
        targets = self.labels.decode(targets.detach()).cpu()
        owner_N = segments.set_S[segment_N]
        summaries = []
        for position, data in enumerate(segments.sets):
            rows = torch.nonzero(owner_N == position)[:, 0]
            summaries.append(
                Summary(
                    arrays=self._arrays_of(arrays, rows),
                    targets=targets[rows],
                    num_source_C=data.counts_C.cpu(),
                    shape_CHW=ctx.shape_CHW,
                    normalization=ctx.normalization,
                    decoder=self.parameterization,
                    method=self.name,
                    origin=data.origin,
                )
            )
        return summaries


def _has_batch_norm(ctx: Context) -> bool:
    with torch.device("meta"):
        return bool(batch_norms(ctx.model.architecture(ctx.shape_CHW, ctx.num_classes)))
