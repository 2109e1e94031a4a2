"""Toy strategies and a toy sim: small enough to check in the head, complete enough to travel."""

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fedcl.core.coding import Wire
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin, Summary
from fedcl.distill.context import Context
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.federated.client_state import ClientStore
from fedcl.federated.contract import Strategy, client_work
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.flower.client import SimulationContext
from fedcl.flower.compat import PARTITION
from fedcl.models.base import Model

SHAPE = (1, 2, 2)
CLASSES = 3
UNITS = Normalization(mean=(0.5,), std=(0.25,))


@dataclass(frozen=True, kw_only=True)
class Linear(Model):
    """A linear classifier, with a batch norm (and so an integer buffer) if asked."""

    norm: bool = False

    def architecture(self, shape, num_classes):
        size = shape[0] * shape[1] * shape[2]
        head = [nn.BatchNorm2d(shape[0])] if self.norm else []
        return nn.Sequential(*head, nn.Flatten(), nn.Linear(size, num_classes))


@dataclass(frozen=True, kw_only=True)
class Toy(Strategy):
    """The parts that the toys share: clients named in `bad` fail, at their work or in what they send."""

    bad: dict = field(default_factory=dict)  # client -> what goes wrong there

    def init(self, ctx):
        weights = ctx.new_model(0).state_dict()
        return ServerState(weights={name: torch.zeros_like(tensor) for name, tensor in weights.items()})

    def question(self, state, ctx):
        scalars = {"rate": 0.5, "name": "toy", "on": True, "round2": 2 * ctx.round}
        return Payload(weights=state.weights, scalars=scalars)

    @client_work(batch=True)
    def work(self, ask, sets, mine, contexts):
        for ctx in contexts:
            if self.bad.get(ctx.client) == "raise":
                raise ValueError(f"client {ctx.client} is broken\nin two lines")
            if self.bad.get(ctx.client) == "sleep":
                time.sleep(0.3)
        return [self.spoil(self.one(ask, data, ctx)) for data, ctx in zip(sets, contexts, strict=True)]

    def spoil(self, reply):
        return reply

    def model(self, state, ctx):
        return ctx.new_model(0)


@dataclass(frozen=True, kw_only=True)
class Means(Toy):
    """Each client sends the mean image of each class that it holds."""

    def one(self, ask, data, ctx):
        images = UNITS.apply(data.inputs)
        held = torch.nonzero(data.counts_C)[:, 0]
        summary = Summary(
            arrays={"images": torch.stack([images[data.labels_N == label].mean(0) for label in held])},
            targets=held,
            num_source_C=data.counts_C,
            inputs=InputSpec(shape=SHAPE, preprocess=UNITS),
            decoder=Pixels(),
            method="means",
            origin=replace(data.origin, round=ctx.round),
        )
        return Reply(
            client=ctx.client, num_examples=len(data), summaries=(summary,), scalars={"loss": 0.25 * ctx.client}
        )

    def spoil(self, reply):
        if self.bad.get(reply.client) == "nan":
            summary = reply.summaries[0]
            return replace(
                reply, summaries=(replace(summary, arrays={"images": summary.arrays["images"] * torch.nan}),)
            )
        return reply

    def round(self, state, clients, ctx):
        replies = list(clients.ask(self.work, self.question(state, ctx)))
        return ServerState(
            weights=state.weights,
            summaries=tuple(summary for reply in replies for summary in reply.summaries),
            tensors={"clients": torch.tensor([reply.client for reply in replies])},
        )


@dataclass(frozen=True, kw_only=True)
class Steps(Toy):
    """Each client adds its number plus one to the weights; the server takes the plain mean."""

    def one(self, ask, data, ctx):
        weights = {name: value + ctx.client + 1 for name, value in ask.weights.items()}
        return Reply(client=ctx.client, num_examples=len(data), weights=weights)

    def spoil(self, reply):
        fault, name = self.bad.get(reply.client), "1.weight"
        if fault == "shape":
            return replace(reply, weights={**reply.weights, name: torch.zeros(4, 3)})
        if fault == "missing":
            return replace(reply, weights={name: reply.weights[name]})
        return replace(reply, client=0) if fault == "impostor" else reply

    def round(self, state, clients, ctx):
        sums, count = {name: torch.zeros_like(tensor) for name, tensor in state.weights.items()}, 0
        for reply in clients.ask(self.work, self.question(state, ctx)):
            count += 1
            for name in sums:
                sums[name] += reply.weights[name]
            del reply
        return ServerState(weights={name: tensor / count for name, tensor in sums.items()})


@dataclass(frozen=True, kw_only=True)
class Talk(Means):
    """Two questions: sizes of the shards up, then the others' summaries down, and states at clients."""

    fails: tuple = ()  # clients that fail at the first question

    def round(self, state, clients, ctx):
        sizes = {reply.client: reply.tensors["size"] for reply in clients.ask(self.count, Payload())}
        rest = Payload(summaries=state.summaries, scalars={"all": int(sum(sizes.values()))})
        own = {client: replace(rest, tensors={"yours": size}) for client, size in sizes.items() if client != 1}
        replies = list(clients.ask(self.tell, {1: rest, **own} if 1 in sizes else own))
        return ServerState(
            weights=state.weights,
            summaries=tuple(summary for reply in replies for summary in reply.summaries),
            tensors={f"{reply.client}": reply.tensors["seen"] for reply in replies},
        )

    @client_work(sends=["tensors.size"])
    def count(self, ask, data, mine, ctx):
        if ctx.client in self.fails:
            raise ValueError("cannot count")
        times = mine.tensors.get("times", torch.tensor(0)) + 1
        size = {"size": torch.tensor(len(data))}
        keep = ClientState(tensors={"times": times})
        return Reply(client=ctx.client, num_examples=len(data), tensors=size, keep=keep)

    @client_work(batch=True, sends=["summaries"])
    def tell(self, ask, sets, mine, contexts):
        replies = []
        for data, state, ctx in zip(sets, mine, contexts, strict=True):
            assert ask.tensors.get("yours", torch.tensor(len(data))) == len(data)  # its own, not another's
            origins = [1000 * s.origin.client + s.origin.round for s in ask.summaries]
            seen = torch.tensor([ask.scalars["all"], int(state.tensors["times"]), *origins])
            one = self.one(ask, data, ctx)
            replies.append(replace(one, tensors={"seen": seen}))
        return replies


def shard(client: int, step: int) -> LabeledSet:
    """client + 2 images: image i is constant 40 * i + client + step, of class i mod 3."""
    count = client + 2
    values = (40 * torch.arange(count) + client + step).to(torch.uint8)
    return LabeledSet(
        inputs=values.view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous(),
        labels_N=torch.arange(count) % CLASSES,
        num_classes=CLASSES,
        origin=Origin(client=client, step=step),
    )


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A Flower mod that gives chosen clients another app: (message, context, call_next) -> reply, or whatever else.

    `call_next(message, context)` is the honest reply, whose content an attack may change.
    """

    attacks: dict  # partition id -> the app in its place

    def __call__(self, message, context, call_next):
        attack = self.attacks.get(context.node_config[PARTITION])
        return call_next(message, context) if attack is None else attack(message, context, call_next)


def spoilt(change):
    """An attack that answers honestly and changes the content of its reply: `change(content)`."""

    def attack(message, context, call_next):
        reply = call_next(message, context)
        change(reply.content)
        return reply

    return attack


def new_tools(model: Model | None = None) -> Context:
    return Context(
        seed=7,
        model=model or Linear(),
        inputs=InputSpec(shape=SHAPE, preprocess=UNITS, invariances=("flip",)),
        num_classes=CLASSES,
    )


def new_world(strategy: Strategy, *, wire: str = "float32", clients: int = 4) -> SimulationContext:
    return SimulationContext(
        strategy=strategy, ctx=new_tools(), shard=shard, num_clients=clients, wire=Wire(dtype=wire)
    )


@dataclass(frozen=True, kw_only=True)
class Load:
    """The small description from which a worker process remakes the simulation."""

    strategy: Strategy
    wire: str
    clients: int
    folder: Path | None = None  # where clients keep their states

    def __call__(self) -> SimulationContext:
        sim = new_world(self.strategy, wire=self.wire, clients=self.clients)
        return replace(sim, states=ClientStore(self.folder))


@pytest.fixture
def toys():
    """This module, because a test file cannot import its conftest."""
    return sys.modules[__name__]
