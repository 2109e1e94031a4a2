"""What the pages of this folder have in common: a global network, replies of one summary, learning from summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet, Summary, union
from fedcl.distill.context import Context
from fedcl.federated.contract import Reply, ServerState, Weights
from fedcl.training.loop import Training


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


def replies_of(shards: Sequence[LabeledSet], summaries: Sequence[Summary], round: int) -> list[Reply]:
    """One summary from each client: of its shard, made in `round`."""
    return [
        Reply(
            client=shard.origin.client,
            num_examples=len(shard),
            summaries=(replace(summary, origin=replace(shard.origin, round=round)),),
        )
        for shard, summary in zip(shards, summaries, strict=True)
    ]


def learn_from(
    summaries: Sequence[Summary], model: nn.Module, training: Training, state: ServerState, round: int, ctx: Context
) -> ServerState:
    """The server's half: `model`, trained on the union of all summaries that hold an image, which stay in the state.

    Where no summary holds one (every client of this round had nothing) it is `state`.
    """
    summaries = tuple(summary for summary in summaries if summary.num_images)
    if not summaries:
        return state
    images, targets = union(summaries)
    training.fit(
        model,
        images.to(ctx.device),
        targets.to(ctx.device),
        seed=derive(ctx.seed, "server training", round=round),
        flip=ctx.horizontal_flip,
        progress=ctx.progress,
    )
    return ServerState(weights=model.cpu().state_dict(), summaries=summaries)
