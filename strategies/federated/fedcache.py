"""FedCache 2.0: distilled data in a cache at the server, from which clients learn networks of their own.

Pan, Sun, Wu, Wang, Liu, Gao, arXiv 2405.13378. Each round the server sends a client what it keeps of other clients'
summaries; the client goes on training its own network on its data and theirs, distils its data, and sends that up for
the cache. The network never travels and is what counts: `evaluate_clients=true` looks at it.

What differs: clients distil by whatever distiller the run names (the paper: kernel regression on features of the
client's network); a client gets whole summaries of `peers` others (the paper: a part of each class, more of the
classes that it holds); nothing is held back for a low accuracy; all networks have one architecture; and the server
trains a network from scratch on the cache, which the paper does not have, so that a run has a global accuracy, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from fedcl.core.rules import whole
from fedcl.core.seeding import numpy_rng
from fedcl.core.types import LabeledSet, Summary, union
from fedcl.distill.context import Context
from fedcl.federated.contract import Clients, Strategy, client_work
from fedcl.federated.helpers import distilled_replies, fit, fresh_model, learn_from, local_seed, model_of, weights_of
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.training.augmentation import Siamese
from fedcl.training.recipe import Training

CLIENT_TRAINING = Training(epochs=10, batch_size=64, optimizer="adam", lr=0.01, weight_decay=0.0, schedule="constant")
SERVER_TRAINING = Training(updates=500, augmentation=Siamese())  # as one_shot has it


@dataclass(frozen=True, kw_only=True)
class FedCache(Strategy):
    training: Training = CLIENT_TRAINING  # of a client's own network, each round
    server_training: Training = SERVER_TRAINING  # of the server's network, each round, on the cache
    # other clients whose summaries come down, drawn each round; None: all
    peers: Annotated[int | None, whole(0, example=3)] = None
    num_rounds: int = 12  # rounds that the algorithm has by itself

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        asked = {client: Payload(summaries=self._others(state.summaries, client, ctx)) for client in clients.ids}
        new = [summary for reply in clients.ask(self.learn, asked) for summary in reply.summaries]
        renewed = {(summary.origin.client, summary.origin.step) for summary in new}
        old = [summary for summary in state.summaries if (summary.origin.client, summary.origin.step) not in renewed]
        return learn_from((*old, *new), fresh_model(ctx), self.server_training, state, ctx)

    def _others(self, cache: Sequence[Summary], client: int, ctx: Context) -> tuple[Summary, ...]:
        """Summaries of other clients that come down to one client."""
        others = sorted({summary.origin.client for summary in cache} - {client})
        if self.peers is not None and self.peers < len(others):
            rng = numpy_rng(ctx.seed, "peers", client=client, round=ctx.round)
            others = rng.choice(others, size=self.peers, replace=False).tolist()
        return tuple(summary for summary in cache if summary.origin.client in others)

    @client_work(batch=True, sends=["summaries"])
    def learn(
        self, ask: Payload, sets: Sequence[LabeledSet], mine: Sequence[ClientState], contexts: Sequence[Context]
    ) -> list[Reply]:
        """The client's network, trained on and kept; a summary of its data."""
        replies = distilled_replies(sets, contexts)
        kept = [self._trained(ask, *each) for each in zip(sets, mine, contexts, strict=True)]
        return [replace(reply, keep=state) for reply, state in zip(replies, kept, strict=True)]

    def _trained(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> ClientState | None:
        """The client's network after training on its data and the summaries that came down."""
        if not len(data):
            return None
        model = self.personal_model(ServerState(), mine, ctx)
        images, targets = ctx.inputs.apply(data.inputs), data.labels_N
        if ask.summaries:
            more, labels = (part.to(images.device) for part in union(ask.summaries))
            if labels.is_floating_point():
                targets = F.one_hot(targets, ctx.num_classes).float()
            images, targets = torch.cat([images, more]), torch.cat([targets, labels])
        model = fit(model, images, targets, self.training, ctx, seed=local_seed(ctx))
        return ClientState(tensors=weights_of(model))

    def personal_model(self, state: ServerState, mine: ClientState, ctx: Context) -> nn.Module:
        return model_of(mine.tensors, ctx) if mine.tensors else fresh_model(ctx)
