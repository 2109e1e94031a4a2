"""Helpers of federated strategies: a global network, local training, a mean of weights, learning from summaries."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet, Summary, union
from fedcl.distill.context import Context
from fedcl.federated.payload import Reply, ServerState, Weights
from fedcl.training.loop import train
from fedcl.training.losses import Loss, Penalty
from fedcl.training.moments import weights_of as weights_of
from fedcl.training.recipe import Training

PenaltyOf = Callable[[nn.Module], Penalty | None]


def fresh_model(ctx: Context) -> nn.Module:
    """The global network as it was before the first round, on the device."""
    return ctx.new_model(derive(ctx.seed, "global model"))


def fresh_state(ctx: Context) -> ServerState:
    """The fresh network's weights, and no memory."""
    return ServerState(weights=fresh_model(ctx).cpu().state_dict())


def model_of(weights: Weights | None, ctx: Context) -> nn.Module:
    """The global network with these weights, on the device."""
    model = fresh_model(ctx)
    model.load_state_dict(dict(weights or {}))
    return model


def fit(
    model: nn.Module, images: Tensor, targets: Tensor, recipe: Training, ctx: Context, *, seed: int, **options: Any
) -> nn.Module:
    """The network after `train` on the device, with the mirror images that the inputs allow."""
    images, targets = images.to(ctx.device), targets.to(ctx.device)
    return train(model, images, targets, recipe, seed=seed, flip=ctx.inputs.flips, progress=ctx.progress, **options)


def local_seed(ctx: Context) -> int:
    """The random stream of a client's local training in this round."""
    return derive(ctx.seed, "local training", client=ctx.client, step=ctx.step, round=ctx.round)


def train_locally(
    weights: Weights | None, data: LabeledSet, recipe: Training, ctx: Context, *, penalty: PenaltyOf | None = None
) -> nn.Module:
    """The global network from `weights` after local training on a client's data, by the client's own random stream.

    Args:
        penalty: of the network before training, the penalty that is added to the loss of each batch.
    """
    model = model_of(weights, ctx)
    added = None if penalty is None else penalty(model)
    return fit(model, data.inputs, data.labels_N, recipe, ctx, seed=local_seed(ctx), penalty=added, spec=ctx.inputs)


def mean_weights(replies: Iterable[Reply], start: Weights | None) -> dict[str, Tensor]:
    """The mean of the replies' weights by examples, or `start` where nobody has any.

    Integer buffers (BatchNorm's counters) become the largest. Each reply is folded in and let go.
    """
    start, sums, total = start or {}, {}, 0
    for reply in replies:
        total += reply.num_examples
        for name, tensor in (reply.weights or {}).items() if reply.num_examples else ():
            if not tensor.is_floating_point():
                sums[name] = torch.maximum(sums.get(name, tensor), tensor)
            elif name in sums:
                sums[name] += tensor.double() * reply.num_examples
            else:
                sums[name] = tensor.double() * reply.num_examples
    means = {name: (t / total).to(start[name].dtype) if t.is_floating_point() else t for name, t in sums.items()}
    return means or dict(start)


@torch.no_grad()
def scores_of(weights: Weights, data: LabeledSet, ctx: Context) -> Tensor:
    """float32 [N, C], on the CPU: scores of a network with these weights, in eval mode."""
    model = model_of(weights, ctx).eval()
    parts = [model(ctx.inputs.apply(part.to(ctx.device))).cpu() for part in data.inputs.split(256)]
    return torch.cat(parts) if len(data) else torch.zeros(0, ctx.num_classes)


def class_means(values_ND: Tensor, data: LabeledSet) -> tuple[Tensor, Tensor]:
    """float32 [C, D], the mean row of each class, 0 without examples; bool [C], the classes that `data` holds."""
    member_NC, count_C = F.one_hot(data.labels_N.cpu(), data.num_classes).float(), data.counts_C.cpu()
    return member_NC.T @ values_ND / count_C.clamp(min=1)[:, None], count_C > 0


def mean_over_clients(replies: Iterable[Reply], name: str, ctx: Context) -> Tensor:
    """float32 [C, D]: the mean of the clients' rows of each class, which `tensors["held"]` names; 0 where nobody is."""
    total, count = torch.zeros(ctx.num_classes, 1), torch.zeros(ctx.num_classes, 1)
    for reply in replies:
        if reply.num_examples:
            held = (reply.tensors["held"] > 0)[:, None].float()
            total, count = total + held * reply.tensors[name], count + held
    return total / count.clamp(min=1)


def summary_replies(
    sets: Sequence[LabeledSet], summaries: Sequence[Summary], contexts: Sequence[Context]
) -> list[Reply]:
    """One summary from each client, of its data, made in this round."""
    replies = []
    for data, summary, ctx in zip(sets, summaries, contexts, strict=True):
        own = replace(summary, origin=replace(data.origin, round=ctx.round))
        replies.append(Reply(client=ctx.client, num_examples=len(data), summaries=(own,)))
    return replies


def distilled_replies(sets: Sequence[LabeledSet], contexts: Sequence[Context]) -> list[Reply]:
    """One summary from each client, distilled with networks and draws that all clients of a round share."""
    ctx = contexts[0]
    key = derive(ctx.seed, "distill", round=ctx.round)
    return summary_replies(sets, ctx.distiller.distill(sets, key, ctx), contexts)


def learn_from(
    summaries: Iterable[Summary],
    model: nn.Module,
    training: Training,
    state: ServerState,
    ctx: Context,
    loss: Loss | None = None,
) -> ServerState:
    """`model`, trained on the union of all summaries that hold an image, which stay in the server's state.

    Where no summary holds one (every client of this round had nothing) it is `state`. `loss`: None for the recipe's.
    """
    summaries = tuple(summary for summary in summaries if summary.num_images)
    if not summaries:
        return state
    fit(model, *union(summaries), training, ctx, seed=derive(ctx.seed, "server training", round=ctx.round), loss=loss)
    return ServerState(weights=model.cpu().state_dict(), summaries=summaries)
