"""One-shot distillation: one round, nothing comes down but the question, summaries go up.

Dataset Distillation for one-shot federated learning: Zhou et al., arXiv 2009.07999 (DOSFL), Song et al.,
IJCNN 2023, arXiv 2208.11311 (FedD3). Each client distils its shard with whatever distiller the run names; the
server trains one network from scratch on the union of what it decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from fedcl.federated import Reply, Request, ServerState, Strategy, Tools
from fedcl.seeding import derive
from fedcl.training import Training
from fedcl.types import LabeledSet, union


@dataclass(frozen=True, kw_only=True)
class OneShot(Strategy):
    training: Training  # of the server's network, on the union of summaries
    num_rounds: int = 1  # rounds that the algorithm has by itself

    def init(self, tools: Tools) -> ServerState:
        return ServerState(weights=tools.new_model(derive(tools.seed, "global model")).cpu().state_dict())

    def request(self, state: ServerState, round: int, tools: Tools) -> Request:
        # the key shares networks and augmentation between clients, and is all that comes down
        return Request(config={"key": derive(tools.seed, "distill", round=round)})

    def client_work(self, request: Request, shards: Sequence[LabeledSet], round: int, tools: Tools) -> list[Reply]:
        summaries = tools.distiller.distill(shards, int(request.config["key"]), tools)
        return [
            Reply(
                client=shard.origin.client,
                num_examples=len(shard),
                summaries=(replace(summary, origin=replace(shard.origin, round=round)),),
            )
            for shard, summary in zip(shards, summaries, strict=True)
        ]

    def combine(self, state: ServerState, replies: Sequence[Reply], round: int, tools: Tools) -> ServerState:
        # what earlier steps and rounds left stays: the server's memory
        summaries = (*state.summaries, *(summary for reply in replies for summary in reply.summaries))
        summaries = tuple(summary for summary in summaries if summary.num_images)
        if not summaries:  # every client of this round had nothing
            return state
        images, targets = union(summaries)
        model = tools.new_model(derive(tools.seed, "global model"))
        self.training.fit(
            model,
            images.to(tools.device),
            targets.to(tools.device),
            seed=derive(tools.seed, "server training", round=round),
            flip=tools.horizontal_flip,
            progress=tools.progress,
        )
        return ServerState(weights=model.cpu().state_dict(), summaries=summaries)

    def model(self, state: ServerState, tools: Tools) -> nn.Module:
        model = tools.new_model(derive(tools.seed, "global model"))
        model.load_state_dict(dict(state.weights or {}))
        return model
