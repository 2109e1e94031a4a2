"""FedAF: An Aggregation-Free Federated Learning for Tackling Data Heterogeneity.

Wang et al., CVPR 2024, arXiv 2404.18962. A round asks twice. First the global weights w come down and each client's
mean logits of each class, V_kc, go up. Then their mean V_c comes down; a client condenses its data by distribution
matching and a term that draws each class to V_c (collaborative data condensation), and sends the images with soft
labels R_kc, class means of softmax(logits / tau). The server goes on training w by cross-entropy and a symmetric KL
of R_c and the same means T_c of its own on a batch (local-global knowledge matching).

Open in what we could read, and chosen: clients match under gamma w + (1 - gamma) w~ with one fresh w~ a round for all;
V is of that network, R of w. The sliced Wasserstein distance of a class is of two points, its means; over all
directions that is their squared distance over the number of classes. Clients count alike.
"""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.context import Context
from fedcl.distill.networks import AroundGlobal
from fedcl.distill.objectives.base import features, network_of
from fedcl.distill.objectives.distribution import Distribution
from fedcl.federated import helpers
from fedcl.federated.contract import Clients, Strategy, client_work
from fedcl.federated.helpers import learn_from, summary_replies
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState, Weights
from fedcl.training.augmentation import Siamese
from fedcl.training.losses import Batch
from fedcl.training.recipe import Training

SERVER_TRAINING = Training(updates=200, lr=0.001, schedule="constant", augmentation=Siamese())


@dataclass(frozen=True, kw_only=True)
class Collaborative(Distribution):
    """Class means of features, and of logits near those of all clients."""

    near_CC: Tensor  # V: mean logits of each class
    weight: float  # of the second

    def loss(self, synthetic: MatchBatch, target: list[Tensor], step: MatchStep) -> Tensor:
        labels = synthetic.targets.argmax(1) if synthetic.targets.is_floating_point() else synthetic.targets
        mean_SD = synthetic.mean(features(step.network, synthetic.inputs))
        away_SC = network_of(step.network).classifier(mean_SD) - synthetic.mean(self.near_CC.to(mean_SD)[labels])
        return (mean_SD - target[0]).square().sum() + self.weight * away_SC.square().mean(1).sum()


@dataclass(frozen=True, kw_only=True)
class FedAF(Strategy):
    training: Training = SERVER_TRAINING  # of the global model, each round, on all clients' images
    steps: int = 50  # updates of a client's images each round
    gamma: float = 0.9  # share of the global weights in the network that clients match with
    collaborative: float = 0.8  # weight of the distance to the means of all clients
    matching: float = 0.8  # weight of the match of soft labels at the server
    temperature: float = 2.0  # tau of the soft labels
    num_rounds: int = 5  # rounds that the algorithm has by itself

    unused = ("distiller.networks", "distiller.objective", "distiller.steps")

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        held = [reply for reply in clients.ask(self.means, Payload(weights=state.weights)) if reply.num_examples]
        down = Payload(tensors={"means": helpers.mean_over_clients(held, "means", ctx)})
        replies = list(clients.ask(self.condense, down, to=[reply.client for reply in held]))
        local_CC = helpers.mean_over_clients(replies, "soft", ctx).clamp(min=1e-8).to(ctx.device)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            scores_NC = model(batch.inputs)
            soft_NC = F.softmax(scores_NC / self.temperature, dim=1)
            match = batch.blend(lambda rows: _divergence(soft_NC, batch.targets[rows], local_CC))
            return batch.loss(F.cross_entropy, scores_NC) + self.matching * match

        images = [summary for reply in replies for summary in reply.summaries]
        return learn_from(images, self.model(state, ctx), self.training, state, ctx, loss)

    @client_work(sends=["tensors.means", "tensors.held"])
    def means(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> Reply:
        """Mean logits of each class. The client keeps w until the second question of the round."""
        if not len(data):
            return Reply(client=ctx.client, num_examples=0)
        keep = ClientState(tensors=dict(ask.weights or {}))
        means, held = helpers.class_means(helpers.scores_of(self._mixed(keep.tensors, ctx), data, ctx), data)
        return Reply(client=ctx.client, num_examples=len(data), tensors={"means": means, "held": held}, keep=keep)

    @client_work(sends=["summaries", "tensors.soft", "tensors.held"])
    def condense(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> Reply:
        """Images of the client's classes, drawn to the means of all clients, and soft labels of its real images."""
        objective = Collaborative(near_CC=ask.tensors["means"], weight=self.collaborative, chunk=256)
        distiller = replace(ctx.distiller, networks=AroundGlobal(radius=0), objective=objective, steps=self.steps)
        key, weights = derive(ctx.seed, "distill", round=ctx.round), self._mixed(mine.tensors, ctx)
        (reply,) = summary_replies([data], distiller.distill([data], key, ctx, weights=weights), [ctx])
        scores_NC = helpers.scores_of(mine.tensors, data, ctx)
        soft, held = helpers.class_means(F.softmax(scores_NC / self.temperature, dim=1), data)
        return replace(reply, tensors={"soft": soft, "held": held}, keep=ClientState())

    def _mixed(self, weights: Weights, ctx: Context) -> Weights:
        fresh = ctx.new_model(derive(ctx.seed, "resampled network", round=ctx.round)).cpu().state_dict()
        mixed = {k: v * self.gamma + fresh[k] * (1 - self.gamma) for k, v in weights.items() if v.is_floating_point()}
        return {**weights, **mixed}

    def unusable(self, work: str, reply: Reply, ctx: Context) -> str | None:
        means, held = reply.tensors["means" if work == "means" else "soft"], reply.tensors["held"]
        return None if means.shape == 2 * held.shape == (ctx.num_classes,) * 2 else "sent means of other classes"


def _divergence(soft_NC: Tensor, targets: Tensor, local_CC: Tensor) -> Tensor:
    """(KL(T || R) + KL(R || T)) / 2, mean over the classes of a batch; T: the batch's mean soft labels of a class."""
    member_NC = targets if targets.is_floating_point() else F.one_hot(targets, len(local_CC)).float()
    own_CC = (member_NC.T @ soft_NC / member_NC.sum(0).clamp(min=1e-8)[:, None]).clamp(min=1e-8)
    return 0.5 * ((own_CC - local_CC) * (own_CC.log() - local_CC.log())).sum(1)[member_NC.sum(0) > 0].mean()
