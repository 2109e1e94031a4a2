"""Toy strategies and a toy world: small enough to check in the head, complete enough to travel."""

import sys
import time
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from fedcl.core.coding import Wire
from fedcl.core.types import LabeledSet, Normalization, Origin, Summary
from fedcl.distill.context import Context
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.federated.contract import Reply, Request, ServerState, Strategy
from fedcl.flower.client import SimulationContext
from fedcl.models.base import Model

SHAPE = (1, 2, 2)
CLASSES = 3
UNITS = Normalization(mean=(0.5,), std=(0.25,))


@dataclass(frozen=True, kw_only=True)
class Linear(Model):
    """A linear classifier, with a batch norm (and so an integer buffer) if asked."""

    norm: bool = False

    def architecture(self, shape_CHW, num_classes):
        size = shape_CHW[0] * shape_CHW[1] * shape_CHW[2]
        head = [nn.BatchNorm2d(shape_CHW[0])] if self.norm else []
        return nn.Sequential(*head, nn.Flatten(), nn.Linear(size, num_classes))


@dataclass(frozen=True, kw_only=True)
class Toy(Strategy):
    """The parts that the toys share: clients named in `bad` fail, at their work or in what they send."""

    bad: dict = field(default_factory=dict)  # client -> what goes wrong there

    def init(self, ctx):
        return ServerState(weights={"w": torch.zeros(2, 3), "b": torch.zeros(3)})

    def request(self, state, round, ctx):
        return Request(weights=state.weights, config={"rate": 0.5, "name": "toy", "on": True, "round2": 2 * round})

    def client_work(self, request, shards, round, ctx):
        for shard in shards:
            if self.bad.get(shard.origin.client) == "raise":
                raise ValueError(f"client {shard.origin.client} is broken\nin two lines")
            if self.bad.get(shard.origin.client) == "sleep":
                time.sleep(0.3)
        return [self.spoil(self.one(request, shard, round)) for shard in shards]

    def spoil(self, reply):
        return reply

    def model(self, state, ctx):
        return ctx.new_model(0)


@dataclass(frozen=True, kw_only=True)
class Means(Toy):
    """Each client sends the mean image of each class that it holds."""

    def one(self, request, shard, round):
        images = UNITS.apply(shard.images_NCHW)
        held = torch.nonzero(shard.counts_C)[:, 0]
        summary = Summary(
            arrays={"images": torch.stack([images[shard.labels_N == label].mean(0) for label in held])},
            targets=held,
            num_source_C=shard.counts_C,
            shape_CHW=SHAPE,
            normalization=UNITS,
            decoder=Pixels(),
            method="means",
            origin=replace(shard.origin, round=round),
        )
        client = shard.origin.client
        return Reply(client=client, num_examples=len(shard), summaries=(summary,), metrics={"loss": 0.25 * client})

    def spoil(self, reply):
        if self.bad.get(reply.client) == "nan":
            summary = reply.summaries[0]
            return replace(
                reply, summaries=(replace(summary, arrays={"images": summary.arrays["images"] * torch.nan}),)
            )
        return reply

    def combine(self, state, replies, round, ctx):
        return ServerState(
            weights=state.weights,
            summaries=tuple(summary for reply in replies for summary in reply.summaries),
            tensors={"clients": torch.tensor([reply.client for reply in replies])},
        )


@dataclass(frozen=True, kw_only=True)
class Steps(Toy):
    """Each client adds its number plus one to the weights; the server takes the plain mean."""

    def one(self, request, shard, round):
        weights = {name: value + shard.origin.client + 1 for name, value in request.weights.items()}
        return Reply(client=shard.origin.client, num_examples=len(shard), weights=weights)

    def spoil(self, reply):
        fault = self.bad.get(reply.client)
        if fault == "shape":
            return replace(reply, weights={**reply.weights, "w": torch.zeros(3, 2)})
        if fault == "missing":
            return replace(reply, weights={"w": reply.weights["w"]})
        return replace(reply, client=0) if fault == "impostor" else reply

    def combine(self, state, replies, round, ctx):
        names = state.weights
        return ServerState(weights={n: torch.stack([r.weights[n] for r in replies]).mean(0) for n in names})


def shard(client: int, step: int) -> LabeledSet:
    """client + 2 images: image i is constant 40 * i + client + step, of class i mod 3."""
    count = client + 2
    values = (40 * torch.arange(count) + client + step).to(torch.uint8)
    return LabeledSet(
        images_NCHW=values.view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous(),
        labels_N=torch.arange(count) % CLASSES,
        num_classes=CLASSES,
        origin=Origin(client=client, step=step),
    )


def new_tools(model: Model | None = None) -> Context:
    return Context(
        seed=7,
        model=model or Linear(),
        distiller=None,  # type: ignore[arg-type]  # the toys do not distill
        normalization=UNITS,
        shape_CHW=SHAPE,
        num_classes=CLASSES,
    )


def new_world(strategy: Strategy, *, wire: str = "float32", clients: int = 4) -> SimulationContext:
    return SimulationContext(
        strategy=strategy, ctx=new_tools(), shard=shard, num_clients=clients, wire=Wire(dtype=wire)
    )


@dataclass(frozen=True, kw_only=True)
class Load:
    """The small description from which a worker process remakes the world."""

    strategy: Strategy
    wire: str
    clients: int

    def __call__(self) -> SimulationContext:
        return new_world(self.strategy, wire=self.wire, clients=self.clients)


@pytest.fixture
def toys():
    """This module, because a test file cannot import its conftest."""
    return sys.modules[__name__]
