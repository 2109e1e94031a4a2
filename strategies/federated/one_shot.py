"""One-shot distillation: one round, nothing comes down but the question, summaries go up.

Dataset Distillation for one-shot federated learning: Zhou et al., arXiv 2009.07999 (DOSFL), Song et al.,
IJCNN 2023, arXiv 2208.11311 (FedD3). Each client distils its shard with whatever distiller the run names; the
server trains one network from scratch on the union of what it decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.contract import Reply, Request, ServerState, Strategy
from fedcl.training.augmentation import Siamese
from fedcl.training.loop import Training
from strategies.federated.shared import fresh_model, fresh_state, learn_from, model_of, replies_of

# Zhao & Bilen, WACV 2023, with a fixed number of updates in place of 1000 epochs
SERVER_TRAINING = Training(updates=500, augmentation=Siamese())


@dataclass(frozen=True, kw_only=True)
class OneShot(Strategy):
    training: Training = SERVER_TRAINING  # of the server's network, on the union of summaries
    num_rounds: int = 1  # rounds that the algorithm has by itself

    def init(self, ctx: Context) -> ServerState:
        return fresh_state(ctx)

    def request(self, state: ServerState, round: int, ctx: Context) -> Request:
        # the key shares networks and augmentation between clients, and is all that comes down
        return Request(config={"key": derive(ctx.seed, "distill", round=round)})

    def client_work(self, request: Request, shards: Sequence[LabeledSet], round: int, ctx: Context) -> list[Reply]:
        summaries = ctx.distiller.distill(shards, int(request.config["key"]), ctx)
        return replies_of(shards, summaries, round)

    def combine(self, state: ServerState, replies: Sequence[Reply], round: int, ctx: Context) -> ServerState:
        # what earlier steps and rounds left stays: the server's memory
        summaries = (*state.summaries, *(summary for reply in replies for summary in reply.summaries))
        return learn_from(summaries, fresh_model(ctx), self.training, state, round, ctx)

    def model(self, state: ServerState, ctx: Context) -> nn.Module:
        return model_of(state.weights, ctx)
