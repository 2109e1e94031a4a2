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

from fedcl.augmentation import Augmentation, Draw, Siamese
from fedcl.compute import laid_out
from fedcl.distill.checkpoint import Keeper, Slot, go_on
from fedcl.distill.groups import RealBatches, Segments
from fedcl.distill.initial import Initializer, Real
from fedcl.distill.labels import Hard, TargetRule
from fedcl.distill.objectives.base import Nothing, Objective, Side, batch_norms
from fedcl.distill.objectives.distribution import Distribution
from fedcl.distill.optimizers import check_optimizer
from fedcl.distill.parameterizations.base import Parameterization
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.distill.pool.base import Networks, Pool, PoolSource, Weights
from fedcl.distill.pool.fresh import Fresh
from fedcl.errors import ConfigError, DistillError
from fedcl.seeding import derive, torch_rng
from fedcl.types import LabeledSet, Summary
from fedcl.workbench import Workbench

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
    pool: Pool = field(default_factory=Fresh)  # the networks
    ipc: int = 10  # stored images per class
    steps: int = 300  # updates of the synthetic images; 0 = selection
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = SGD  # of groups: arrays, extra, labels
    real_batch: int = 256  # real images a class and step; a smaller class gives all that it has
    reuse: int = 1  # updates per network, real batch and draw; above 1 is faster and not the published method
    learn_images: bool = True  # false: images stay as they started, only labels and the like are learned
    lr_extra: float | None = None  # of the objective's own numbers (a step size); None = the optimiser's
    lr_labels: float | None = None  # of learned labels; None = the optimiser's
    published: Mapping[str, Any] = field(default_factory=dict)  # data set -> ipc -> the source's accuracy
    batching: str = "auto"  # together, apart, or auto: together on an accelerator, apart on the CPU

    def __post_init__(self) -> None:
        if self.ipc < 1:
            raise ConfigError(f"distiller.ipc={self.ipc} stores nothing; type distiller.ipc=1 or more")
        if self.steps < 0 or self.real_batch < 1 or self.reuse < 1:
            raise ConfigError("distiller.steps must be >= 0, distiller.real_batch and distiller.reuse >= 1")
        if self.batching not in ("auto", "together", "apart"):
            raise ConfigError(f"distiller.batching={self.batching} is not known; choose auto, together or apart")
        if any(lr is not None and lr < 0 for lr in (self.lr_extra, self.lr_labels)):
            raise ConfigError("distiller.lr_extra and distiller.lr_labels must be >= 0, or null for the optimiser's")
        self._check_learned()
        check_optimizer(self.optimizer)

    def _check_learned(self) -> None:
        """
        Raises:
            ConfigError: a rate is of something that is not learned, or nothing is.
        """
        extra = bool(self.objective.extra())
        if self.lr_labels is not None and not self.labels.learnable:
            raise ConfigError(
                f"distiller.lr_labels={self.lr_labels} is the rate of learned labels, and these are fixed; "
                "type distiller.lr_labels=null, or labels=logits"
            )
        if self.lr_extra is not None and not extra:
            raise ConfigError(
                f"distiller.lr_extra={self.lr_extra} is the rate of numbers that the objective learns beside the "
                "images, and this one learns none; type distiller.lr_extra=null"
            )
        if not self.selects and not (self.learn_images or self.labels.learnable or extra):
            raise ConfigError(
                "distiller.learn_images=false leaves nothing to learn; "
                "type labels=logits, or distiller.steps=0 for a selection"
            )

    @property
    def selects(self) -> bool:
        """Whether this is a selection: nothing is optimised."""
        return self.steps == 0 or isinstance(self.objective, Nothing)

    @property
    def idle(self) -> set[str]:
        """Names of the fields that decide nothing: those of an optimisation where there is none."""
        if not self.selects:
            return set()
        ways = {"pool", "augmentation", "optimizer", "real_batch", "reuse", "batching"}
        ways |= {"learn_images", "lr_extra", "lr_labels"}
        return ways | {"steps" if isinstance(self.objective, Nothing) else "objective"}

    def distill(
        self,
        sets: Sequence[LabeledSet],
        key: int,
        bench: Workbench,
        *,
        start: Sequence[Summary] | None = None,
        weights: Weights | None = None,
        keeper: Keeper | None = None,
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
            weights: the caller's network, for a pool that matches around it.
            keeper: where the state is kept, so that the same call goes on where it was interrupted.

        Raises:
            DistillError: the loss is not finite, the pool lacks what it needs, the objective cannot use the
                network, the pool the augmentation, or `start` or the keeper's state is of another distillation.
        """
        for data in sets:
            if data.shape_CHW != bench.shape_CHW or data.num_classes != bench.num_classes:
                raise DistillError(
                    f"a set of {data.num_classes} classes of {data.shape_CHW} images cannot be distilled "
                    f"for {bench.num_classes} classes of {bench.shape_CHW}"
                )
        if start is not None and len(start) != len(sets):
            raise DistillError(f"start holds {len(start)} summaries for {len(sets)} sets; give one for each")
        if len(sets) > 1 and self.together(bench.device) and not _has_batch_norm(bench):
            return self._run(sets, key, bench, start, weights, Slot(keeper, 0))
        starts = [None] * len(sets) if start is None else [[summary] for summary in start]
        return [
            self._run([data], key, bench, begin, weights, Slot(keeper, position))[0]
            for position, (data, begin) in enumerate(zip(sets, starts, strict=True))
        ]

    def together(self, device: torch.device) -> bool:
        """Whether several sets are worked on as one batch on that device, not one after the other."""
        wanted = self.batching == "together" or (self.batching == "auto" and device.type != "cpu")
        able = self.pool.shared and self.objective.batched and not self.objective.extra()
        return wanted and able and self.parameterization.rowwise

    def _run(
        self,
        sets: Sequence[LabeledSet],
        key: int,
        bench: Workbench,
        start: Sequence[Summary] | None,
        weights: Weights | None,
        slot: Slot,
    ) -> list[Summary]:
        segments = Segments.of(sets, bench.device)
        images, segment_N = self._starting_images(segments, key, bench)
        arrays = self.parameterization.encode(images, segments.images_NCHW)
        fresh = {} if self.selects else self.objective.extra()
        extra = {name: value.to(bench.device) for name, value in fresh.items()}
        targets = self.labels.initial(segments.label_S[segment_N], bench.num_classes).to(bench.device)
        if start is not None:
            targets = go_on(start, arrays, extra, targets, self.labels)
        if not self.selects and len(segment_N):
            source = PoolSource(
                new_model=lambda seed, **changes: laid_out(bench.new_model(seed, **changes), bench.device),
                seed=derive(key, "networks"),
                ipc=self.ipc,
                weights=weights,
                augmentation=self.augmentation,
                flip=bench.horizontal_flip,
                sets=tuple(sets),
                normalization=bench.normalization,
                progress=bench.progress,
            )
            if self.augmentation.mixes and not self.pool.mixes:
                raise DistillError(
                    "augmentation.cutmix mixes the batches that networks are trained on, never matched images, and "
                    "this pool trains none with it; type augmentation.cutmix=0, or pool=queue"
                )
            networks = self.pool.open(source)
            self._optimise(arrays, extra, targets, segments, segment_N, key, bench, networks, slot)
        return self._finish({**arrays, **extra}, targets, segments, segment_N, bench)

    def _starting_images(self, segments: Segments, key: int, bench: Workbench) -> tuple[Tensor, Tensor]:
        """Normalised images of all segments, and the segment of each (CPU)."""
        images = [torch.zeros(0, *bench.shape_CHW, device=bench.device)]
        owner = [torch.zeros(0, dtype=torch.int64)]
        count = self.parameterization.num_initial(self.ipc)
        for segment, (label, position) in enumerate(zip(segments.label_S, segments.set_S, strict=True)):
            origin = segments.sets[int(position)].origin
            seed = derive(key, f"initial images of class {label}", client=origin.client, step=origin.step)
            held = segments.images_of(segment)
            images.append(self.initializer.images(held, count, seed, bench.normalization))
            owner.append(torch.full((len(images[-1]),), segment))
        return torch.cat(images), torch.cat(owner)

    def _new_optimizer(
        self, arrays: Mapping[str, Tensor], extra: Mapping[str, Tensor], targets: Tensor
    ) -> tuple[torch.optim.Optimizer, dict[str, Tensor]]:
        """The optimiser, and what it optimises by name."""
        images = {name: v for name, v in arrays.items() if name not in self.parameterization.fixed_arrays}
        parts = [(images if self.learn_images else {}, None), (extra, self.lr_extra)]
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
        extra: dict[str, Tensor],
        targets: Tensor,
        segments: Segments,
        segment_N: Tensor,
        key: int,
        bench: Workbench,
        networks: Networks,
        slot: Slot,
    ) -> None:
        """Update `arrays`, `extra`, and `targets` where they are learned, in place."""
        optimizer, learned = self._new_optimizer(arrays, extra, targets)
        segment_M = self.parameterization.expand(segment_N)
        sizes = tuple(torch.bincount(segment_M, minlength=len(segments)).tolist())
        label_M, segment_M = segments.label_S[segment_M], segment_M.to(bench.device)
        batches = RealBatches(segments, self.real_batch, key, bench.normalization)

        def synthetic_side(draw: Draw | None, seed: int, turn: int) -> Side:
            images = self.parameterization.decode(arrays, bench.shape_CHW)
            return Side(
                images_NCHW=self.augmentation.apply(images, draw, label_M),
                targets=self.parameterization.expand(self.labels.decode(targets)),
                segment_N=segment_M,
                num_segments=len(segments),
                sizes=sizes,
                seed=seed,
                turn=turn,
                extra=extra,
                augmentation=self.augmentation,
                flip=bench.horizontal_flip,
            )

        first = slot.load(learned, optimizer, networks)
        bench.progress.begin("distilling", self.steps)
        bench.progress.advance("distilling", first)
        shown = first
        for step in range(first, self.steps):
            turn, again = divmod(step, self.reuse)  # the turn-th network, used for the again-th time
            if not again:
                network = networks.at(turn)
                if step == first:
                    self.objective.check(network)
                seed = derive(key, "objective", round=turn)
                generator = torch_rng(key, "augmentation", round=turn)
                draw = self.augmentation.draw(bench.num_classes, generator, flip=bench.horizontal_flip)
                draw = None if self.objective.augments else draw
                real = batches.at(turn, seed)
                images = self.augmentation.apply(real.images_NCHW, draw, batches.label_N)
                real = replace(real, images_NCHW=images, turn=turn)
                target = self.objective.target(real, network)
            loss = self.objective.loss(synthetic_side(draw, seed, turn), target, network)
            gradients = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
            for (name, tensor), gradient in zip(learned.items(), gradients, strict=True):
                tensor.grad = self._used(name, gradient)
            optimizer.step()
            self.parameterization.project(learned, bench.normalization)
            last = step == self.steps - 1
            if again == self.reuse - 1:
                with torch.no_grad():
                    updated = synthetic_side(None, seed, turn)
                networks.after(turn, updated, real)
            keep = last or (again == self.reuse - 1 and slot.due(turn, self.reuse))
            if keep or step % 50 == 0:  # a look at the device
                value = float(loss.detach())
                self._check(value, step)
                bench.progress.advance("distilling", step + 1 - shown, loss=value)
                shown = step + 1
            if keep:
                slot.save(step + 1, learned, optimizer, networks)
        bench.progress.end("distilling")
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
        bench: Workbench,
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
                    shape_CHW=bench.shape_CHW,
                    normalization=bench.normalization,
                    decoder=self.parameterization,
                    method=self.name,
                    origin=data.origin,
                )
            )
        return summaries


def _has_batch_norm(bench: Workbench) -> bool:
    with torch.device("meta"):
        return bool(batch_norms(bench.model.architecture(bench.shape_CHW, bench.num_classes)))
