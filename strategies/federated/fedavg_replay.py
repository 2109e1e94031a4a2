"""FedAvg in a stream, with replay from small local memories: each client distils its step and keeps that.

McMahan et al., AISTATS 2017, https://arxiv.org/abs/1602.05629, algorithm 1, for the weights. Clients replay
what they kept of earlier steps beside their data, as exemplar-based federated class-incremental learning
does (Dong et al., "GLFC", CVPR 2022, https://arxiv.org/abs/2203.11473). Nothing but weights travels; what
a client keeps lies in the run's folder (`fedcl.federated.client_state`). `replay=false` is FedAvg fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.client_state import keep, recall, remembers
from fedcl.federated.contract import CLIENT_TRAINING, Reply, Request, ServerState, Strategy
from fedcl.training.loop import Training
from strategies.federated.shared import fresh_state, model_of


@dataclass(frozen=True, kw_only=True)
class FedAvgReplay(Strategy):
    training: Training = CLIENT_TRAINING  # of a client, each round
    replay: bool = True  # whether clients remember
    storage: str = "uint8"  # how synthetic images are kept: float32, float16, uint8; real ones are uint8 pixels
    num_rounds: int = 10  # rounds a step that the algorithm has by itself

    @property
    def unused(self) -> tuple[str, ...]:
        return () if self.replay else ("distiller", "strategy.storage")

    def init(self, ctx: Context) -> ServerState:
        return fresh_state(ctx)

    def request(self, state: ServerState, round: int, ctx: Context) -> Request:
        return Request(weights=state.weights)

    def client_work(self, request: Request, shards: Sequence[LabeledSet], round: int, ctx: Context) -> list[Reply]:
        return [self._one(request, shard, round, ctx) for shard in shards]

    def _one(self, request: Request, shard: LabeledSet, round: int, ctx: Context) -> Reply:
        client, step = shard.origin.client, shard.origin.step
        images, labels = ctx.normalization.apply(shard.images_NCHW), shard.labels_N
        seed = derive(ctx.seed, "local training", client=client, step=step, round=round)
        if self.replay:
            if len(shard) and not remembers(ctx.folder, client, step):
                key = derive(ctx.seed, "distill", step=step)
                (summary,) = ctx.distiller.distill([shard], key, ctx)
                keep(ctx.folder, client, step, summary, self.storage)
            images, labels = self._beside(images, labels, client, step, seed, ctx)
        if not len(labels):  # neither data nor memory: nothing to say, and no weight in the mean
            return Reply(client=client, num_examples=0)
        model = model_of(request.weights, ctx)
        self.training.fit(
            model,
            images.to(ctx.device),
            labels.to(ctx.device),
            seed=seed,
            flip=ctx.horizontal_flip,
            progress=ctx.progress,
        )
        weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        return Reply(client=client, num_examples=len(labels), weights=weights)

    def _beside(
        self, images: Tensor, labels: Tensor, client: int, step: int, seed: int, ctx: Context
    ) -> tuple[Tensor, Tensor]:
        """New data and memory, each class of memory about as often as a class of new data."""
        kept = [buffer.replay() for buffer in recall(ctx.folder, client, step)]
        if not kept:
            return images, labels
        old_images = torch.cat([part for part, _ in kept]).to(images.device)
        old_labels = torch.cat([part for _, part in kept]).to(labels.device)
        old = old_labels.argmax(1) if old_labels.is_floating_point() else old_labels
        per_class = len(labels) / max(1, len(labels.unique())) if len(labels) else 1
        times = max(1, int(0.5 + per_class * len(old.unique()) / len(old)))
        rows = torch.arange(len(old)).repeat(times)
        rows = rows[torch.randperm(len(rows), generator=torch_rng(seed, "memory"))].to(images.device)
        if old_labels.is_floating_point():
            labels = nn.functional.one_hot(labels, ctx.num_classes).float()
        return torch.cat([images, old_images[rows]]), torch.cat([labels, old_labels[rows]])

    def unusable(self, reply: Reply) -> str | None:
        return "sent no weights" if reply.num_examples and reply.weights is None else None

    def combine(self, state: ServerState, replies: Sequence[Reply], round: int, ctx: Context) -> ServerState:
        """The mean of weights, weighted by examples trained on; integer buffers become the largest."""
        weighing = [reply for reply in replies if reply.num_examples and reply.weights is not None]
        if not weighing:
            return state
        total = sum(reply.num_examples for reply in weighing)
        mean: dict[str, Tensor] = {}
        for name, old in (state.weights or {}).items():
            parts = [(reply.weights or {})[name] for reply in weighing]
            if old.is_floating_point():
                shares = [part * (reply.num_examples / total) for part, reply in zip(parts, weighing, strict=True)]
                mean[name] = torch.stack(shares).sum(0)
            else:
                mean[name] = torch.stack(parts).amax(0)
        return ServerState(weights=mean)

    def model(self, state: ServerState, ctx: Context) -> nn.Module:
        return model_of(state.weights, ctx)
