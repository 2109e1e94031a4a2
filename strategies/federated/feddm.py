"""FedDM: Iterative Distribution Matching for Communication-Efficient Federated Learning.

Xiong, Wang, Cheng, Yu, Hsieh, CVPR 2023, arXiv 2207.09653, algorithm 1. Every round the global weights come
down; each client matches the distribution of its data in a ball around them (equation 8) and sends the
synthetic images; the server goes on training the global model on the union of this round's images.

What the paper leaves open follows the code that the field links: classes with at least `min_class` examples,
fresh real images at each round's start, summaries of earlier rounds forgotten. In a stream the last
summaries of each earlier step stay with the server (`memory`), which is fedcl's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch

from fedcl.core.errors import ConfigError
from fedcl.core.rules import whole
from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.networks import AroundGlobal
from fedcl.distill.objectives.base import Objective
from fedcl.distill.objectives.distribution import Distribution
from fedcl.federated.contract import Clients, Strategy, client_work
from fedcl.federated.helpers import learn_from, summary_replies
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.training.augmentation import Siamese
from fedcl.training.recipe import Training

SERVER_TRAINING = Training(updates=200, schedule="constant", augmentation=Siamese())
MATCHING = Distribution(logits=True, chunk=256)  # logits as well as features


@dataclass(frozen=True, kw_only=True)
class FedDM(Strategy):
    training: Training = SERVER_TRAINING  # of the global model, each round, on the union of summaries
    objective: Objective | None = MATCHING  # in place of the distiller's; None: the distiller's
    radius: float = 5.0  # rho: length of the perturbation of the global weights
    steps: int | None = 50  # updates of a client's images each round; None: as many as the distiller says
    # a class with fewer examples at a client is left out of its summary
    min_class: Annotated[int, whole(1, example=1)] = 1
    memory: bool = True  # whether summaries of earlier steps of a stream are trained on too
    num_rounds: int = 5  # rounds that the algorithm has by itself

    @property
    def unused(self) -> tuple[str, ...]:
        replaced = [name for name in ("objective", "steps") if getattr(self, name) is not None]
        return tuple(f"distiller.{name}" for name in ("networks", *replaced))

    def init(self, ctx: Context) -> ServerState:
        try:
            self.distiller(ctx).check(ctx, weights=True)
        except ConfigError as error:
            raise ConfigError(
                f"distiller={ctx.distiller.name} does not go with strategy=feddm, which matches around the global "
                f"weights: {error}; or choose distiller=dm, or strategy=one_shot"
            ) from None
        return super().init(ctx)

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        replies = clients.ask(self.match, Payload(weights=state.weights))
        new = [summary for reply in replies for summary in reply.summaries]
        return learn_from((*self._remembered(state, new), *new), self.model(state, ctx), self.training, state, ctx)

    @client_work(batch=True, sends=["summaries"])
    def match(
        self, ask: Payload, sets: Sequence[LabeledSet], mine: Sequence[ClientState], contexts: Sequence[Context]
    ) -> list[Reply]:
        """A summary of each client's data, matched around the global weights."""
        ctx = contexts[0]
        kept = [self._large_classes(data) for data in sets]
        key = derive(ctx.seed, "distill", round=ctx.round)
        summaries = self.distiller(ctx).distill(kept, key, ctx, weights=ask.weights)
        return summary_replies(sets, summaries, contexts)

    def distiller(self, ctx: Context) -> Distiller:
        """The run's distiller as clients use it: around the global weights, with this strategy's objective and steps.

        Raises:
            ConfigError: the objective, the augmentation or a rate does not fit networks around the global weights.
        """
        return replace(
            ctx.distiller,
            networks=AroundGlobal(radius=self.radius),
            objective=self.objective or ctx.distiller.objective,
            steps=ctx.distiller.steps if self.steps is None else self.steps,
        )

    def _large_classes(self, data: LabeledSet) -> LabeledSet:
        large = data.counts_C[data.labels_N] >= self.min_class
        return data.select(torch.nonzero(large)[:, 0])

    def _remembered(self, state: ServerState, new: Sequence[Summary]) -> tuple[Summary, ...]:
        """What the last round of each earlier step left: the server's memory."""
        steps = {summary.origin.step for summary in new}
        kept = [summary for summary in state.summaries if summary.origin.step not in steps]
        return tuple(kept) if self.memory else ()
