"""One-shot distillation: one round, nothing comes down but the question, summaries go up.

Dataset Distillation for one-shot federated learning: Zhou et al., arXiv 2009.07999 (DOSFL), Song et al.,
IJCNN 2023, arXiv 2208.11311 (FedD3). Each client distils its shard with whatever distiller the run names; the
server trains one network from scratch on the union of what it decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.contract import Clients, Strategy, client_work
from fedcl.federated.helpers import distilled_replies, fresh_model, learn_from
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.training.augmentation import Siamese
from fedcl.training.recipe import Training

# Zhao & Bilen, WACV 2023, with a fixed number of updates in place of 1000 epochs
SERVER_TRAINING = Training(updates=500, augmentation=Siamese())


@dataclass(frozen=True, kw_only=True)
class OneShot(Strategy):
    training: Training = SERVER_TRAINING  # of the server's network, on the union of summaries
    num_rounds: int = 1  # rounds that the algorithm has by itself

    def init(self, ctx: Context) -> ServerState:
        ctx.distiller.check(ctx)
        return super().init(ctx)

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        new = [summary for reply in clients.ask(self.distill, Payload()) for summary in reply.summaries]
        # what earlier steps and rounds left stays: the server's memory
        return learn_from((*state.summaries, *new), fresh_model(ctx), self.training, state, ctx)

    @client_work(batch=True, sends=["summaries"])
    def distill(
        self, ask: Payload, sets: Sequence[LabeledSet], mine: Sequence[ClientState], contexts: Sequence[Context]
    ) -> list[Reply]:
        """A summary of each client's data; networks and augmentation are the same for all clients of a round."""
        return distilled_replies(sets, contexts)
