"""The one loop: a batch of data sets in, one summary for each out.

A published method is a point in the space of this file's fields, a preset in `configs/distiller/`. A client calls
`distill` with its shard, a continual learner with its step, a simulation with a hundred clients at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import torch

from fedcl.core.rules import Checked, number, one_of, whole
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill import fit, stages
from fedcl.distill.context import Context
from fedcl.distill.initializers import Initializer, Real
from fedcl.distill.journal import CheckpointStore, steps_left
from fedcl.distill.labels import Hard, TargetRule
from fedcl.distill.networks import Fresh, Networks, Weights
from fedcl.distill.objectives.base import NoObjective, Objective
from fedcl.distill.objectives.distribution import Distribution
from fedcl.distill.parameterizations.base import Parameterization
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.distill.samplers.base import Sampler, Uniform
from fedcl.distill.state import DistillState
from fedcl.models.norms import batch_norms
from fedcl.training.augmentation import Augmentation, Siamese

SGD = partial(torch.optim.SGD, lr=1.0, momentum=0.5)  # DM's
Starts = Sequence[Summary] | None  # summaries to go on from, one a set


@dataclass(frozen=True, kw_only=True)
class Distiller(Checked):
    """A distillation method with its numbers, those of the preset `dm`; `distill` is pure in what it is given."""

    config_key = "distiller"

    name: str = "dm"  # the preset's name, as the record shows it
    objective: Objective = field(default_factory=Distribution)  # what is matched
    parameterization: Parameterization = field(default_factory=Pixels)  # what is optimised
    initializer: Initializer = field(default_factory=Real)  # where it starts
    augmentation: Augmentation = field(default_factory=Siamese)  # one draw a class and step, for both sides
    labels: TargetRule = field(default_factory=Hard)  # hard, optimised, or made after the images
    networks: Networks = field(default_factory=Fresh)  # the networks
    sampler: Sampler = field(default_factory=Uniform)  # which real images of a class a step sees
    ipc: Annotated[int, whole(1, example=10)] = 10  # stored images per class
    steps: Annotated[int, whole(0, example=300)] = 300  # updates of the synthetic images; 0 = selection
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = SGD  # of groups: arrays, scalars, labels
    # real images a class and step; a smaller class gives all that it has
    real_batch: Annotated[int, whole(1, example=256)] = 256
    # updates per network, real batch and draw; above 1 is faster and not the published method
    reuse: Annotated[int, whole(1, example=1)] = 1
    optimise_images: bool = True  # false: images stay as they started, only labels and the like are learned
    # of the objective's own numbers (a step size); None = the optimiser's
    lr_scalars: Annotated[float | None, number(least=0, example=0.01)] = None
    # of learned labels; None = the optimiser's
    lr_labels: Annotated[float | None, number(least=0, example=0.01)] = None
    published: Mapping[str, Any] = field(default_factory=dict)  # data set -> ipc -> the source's accuracy
    published_protocol: Mapping[str, Any] = field(default_factory=dict)  # key -> what it was there (`published.py`)
    # together, one_at_a_time, or auto: together on an accelerator, apart on the CPU
    batching: Annotated[str, one_of("auto", "together", "one_at_a_time")] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        fit.check(self)

    @property
    def selects(self) -> bool:
        """True for a selection: nothing is optimised."""
        return self.steps == 0 or isinstance(self.objective, NoObjective)

    idle = property(fit.idle_fields)
    check = fit.check_context
    finish = stages.finish

    def together(self, device: torch.device) -> bool:
        """True where several sets are worked on as one batch on that device, not one after the other."""
        wanted = self.batching == "together" or (self.batching == "auto" and device.type != "cpu")
        able = self.networks.shared and self.objective.batched and not self.objective.learned_scalars()
        return wanted and able and self.parameterization.rowwise

    def distill(
        self,
        sets: Sequence[LabeledSet],
        key: int,
        ctx: Context,
        *,
        start: Starts = None,
        weights: Weights | None = None,
        store: CheckpointStore | None = None,
    ) -> list[Summary]:
        """One summary for each set, on the CPU.

        A class that a set does not hold is absent from its summary; one with fewer images than ipc gives fewer when
        images are chosen from it. On the CPU, and with batch norm (its statistics would be of all sets), sets are
        worked on one after the other, bit for bit as alone; together they agree to rounding.

        Args:
            sets: their `origin`s name each set's private random streams.
            key: names all random streams; the same key shares networks and augmentation between calls.
            start: summaries of this method to go on from, one a set.
            weights: the caller's network, for networks=around_global.
            store: keeps the state, so that the same call goes on where it was interrupted.

        Raises:
            DistillError: the loss is not finite, the objective cannot use the network, the networks lack what they
                need, or `start` or the store's state is of another distillation.
        """
        fit.check_sets(sets, start, ctx)
        together = len(sets) > 1 and self.together(ctx.device) and not batch_norms(fit.architecture(self, ctx))
        parts = [slice(None)] if together else [slice(index, index + 1) for index in range(len(sets))]
        summaries: list[Summary] = []
        for run, part in enumerate(parts):
            state = self.begin(sets[part], key, ctx, None if start is None else start[part], weights)
            for _ in steps_left(state, store, run, self.name, self.reuse):
                self.step(state)
            summaries += self.finish(state)
        return summaries

    def begin(
        self, sets: Sequence[LabeledSet], key: int, ctx: Context, start: Starts = None, weights: Weights | None = None
    ) -> DistillState:
        """The state before the first step; arguments as in `distill`, all sets in one batch."""
        self.check(ctx, weights is not None)
        return stages.begin(self, sets, key, ctx, start, weights)

    def step(self, state: DistillState) -> DistillState:
        """One update of everything that is learned, in place."""
        index, update = divmod(state.step, self.reuse)
        if update == 0 or state.comparison is None:  # a network, a real batch and a draw serve `reuse` updates
            state.comparison = stages.compare(self, state, index)
        now = state.comparison
        loss = self.objective.loss(stages.synthetic(self, state, now.draw), now.target, now.step)
        state.descend(torch.autograd.grad(loss, list(state.learned.values()), allow_unused=True))
        self.parameterization.project(state.learned, state.ctx.inputs)
        state.loss, state.step = loss.detach(), state.step + 1
        if update == self.reuse - 1:
            with torch.no_grad():
                updated = stages.synthetic(self, state, None)
            state.networks.after(index, updated, now.real)
        return state
