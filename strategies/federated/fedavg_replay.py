"""FedAvg in a stream, with replay from small local memories: each client distils its step and keeps that.

McMahan et al., AISTATS 2017, https://arxiv.org/abs/1602.05629, algorithm 1, for the weights. Clients replay
what they kept of earlier steps beside their data, as exemplar-based federated class-incremental learning
does (Dong et al., "GLFC", CVPR 2022, https://arxiv.org/abs/2203.11473). Nothing but weights travels; what
a client keeps is its `ClientState`. `replay=false` is FedAvg fine-tuning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import LabeledSet, Summary, union
from fedcl.distill.context import Context
from fedcl.federated.contract import CLIENT_TRAINING, Clients, Strategy, client_work
from fedcl.federated.helpers import fit, local_seed, mean_weights, model_of, weights_of
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.training.recipe import Training


@dataclass(frozen=True, kw_only=True)
class FedAvgReplay(Strategy):
    training: Training = CLIENT_TRAINING  # of a client, each round
    replay: bool = True  # whether clients remember
    storage: str = "uint8"  # how synthetic images are kept: float32, float16, uint8; real ones are uint8 pixels
    num_rounds: int = 10  # rounds a step that the algorithm has by itself

    @property
    def unused(self) -> tuple[str, ...]:
        return () if self.replay else ("distiller", "strategy.storage")

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        return ServerState(weights=mean_weights(clients.ask(self.train, Payload(weights=state.weights)), state.weights))

    @client_work(sends=["weights"])
    def train(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> Reply:
        """Local training on the step's data beside what the client kept of earlier steps."""
        images, labels = ctx.inputs.apply(data.inputs), data.labels_N
        seed = local_seed(ctx)
        keep = None
        if self.replay:
            if len(data) and all(summary.origin.step != ctx.step for summary in mine.summaries):
                (summary,) = ctx.distiller.distill([data], derive(ctx.seed, "distill", step=ctx.step), ctx)
                summary = replace(summary, origin=data.origin)
                keep = ClientState(summaries=(*mine.summaries, summary), storage=self.storage)
            earlier = [summary for summary in mine.summaries if summary.origin.step < ctx.step]
            images, labels = self._with_memory(images, labels, earlier, seed, ctx)
        if not len(labels):  # neither data nor memory: nothing to say, and no weight in the mean
            return Reply(client=ctx.client, num_examples=0)
        model = fit(model_of(ask.weights, ctx), images, labels, self.training, ctx, seed=seed)
        return Reply(client=ctx.client, num_examples=len(labels), weights=weights_of(model), keep=keep)

    def _with_memory(
        self, images: Tensor, labels: Tensor, kept: Sequence[Summary], seed: int, ctx: Context
    ) -> tuple[Tensor, Tensor]:
        """New data and memory, each class of memory about as often as a class of new data."""
        if not kept:
            return images, labels
        old_images, old_labels = (part.to(images.device) for part in union(kept))
        old = old_labels.argmax(1) if old_labels.is_floating_point() else old_labels
        per_class = len(labels) / max(1, len(labels.unique())) if len(labels) else 1
        times = max(1, int(0.5 + per_class * len(old.unique()) / len(old)))
        rows = torch.arange(len(old)).repeat(times)
        rows = rows[torch.randperm(len(rows), generator=torch_rng(seed, "memory"))].to(images.device)
        if old_labels.is_floating_point():
            labels = nn.functional.one_hot(labels, ctx.num_classes).float()
        return torch.cat([images, old_images[rows]]), torch.cat([labels, old_labels[rows]])

    def most_examples(self, held: int, step: int, ctx: Context) -> int:
        """New examples, and memory: what was kept of each earlier step, an old class as often as a new one."""
        if not (self.replay and step):
            return held
        made = ctx.distiller.parameterization
        kept = made.num_initial(ctx.distiller.ipc) * made.images_per_entry(ctx.inputs.shape) * ctx.num_classes
        return held * (1 + ctx.num_classes) + step * kept
