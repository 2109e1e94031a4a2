"""The client side: one ClientApp for every runtime.

It answers `train` with the strategy's client half and `query` with its partition id. A failure is a reply
with a reason, worded the same on every runtime.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app import Context as FlowerContext
from flwr.clientapp import ClientApp

from fedcl.core.coding import Wire
from fedcl.core.errors import RunError
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.contract import Reply, Strategy
from fedcl.flower.codec import Codec
from fedcl.flower.compat import PARTITION, error_reply

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SimulationContext:
    """All that both halves of a federated run live in. The server reads everything but the shards."""

    strategy: Strategy
    ctx: Context
    shard: Callable[[int, int], LabeledSet]  # (client, step) -> its data, with the origin filled in
    num_clients: int
    wire: Wire

    @property
    def codec(self) -> Codec:
        return Codec(
            wire=self.wire,
            num_classes=self.ctx.num_classes,
            shape_CHW=self.ctx.shape_CHW,
            normalization=self.ctx.normalization,
        )


_rebuilt: dict[str, SimulationContext] = {}  # in a worker process: the world of the run that it works for


@dataclass(frozen=True, kw_only=True)
class WorkerFactory:
    """A world that a worker process makes for itself, once, from a small description.

    Flower's simulation engine ships the ClientApp with every message, so `load` must be cheap to pickle:
    names and numbers, not data.
    """

    load: Callable[[], SimulationContext]
    key: str  # two descriptions with the same key make the same world

    @classmethod
    def of(cls, load: Callable[[], SimulationContext]) -> WorkerFactory:
        return cls(load=load, key=hashlib.sha256(pickle.dumps(load)).hexdigest())

    def __call__(self) -> SimulationContext:
        if self.key not in _rebuilt:
            _rebuilt.clear()
            _rebuilt[self.key] = self.load()
        return _rebuilt[self.key]


@dataclass(frozen=True, kw_only=True)
class ClientRuntime:
    """What a ClientApp needs, in whichever process it runs."""

    world: Callable[[], SimulationContext]  # the driver's own, or `WorkerFactory`
    num_threads: int  # of torch in the driver: the same everywhere, so that sums round the same way
    timeout: float | None = None  # seconds that a client's work may take; its answer is refused after that

    def ready(self) -> SimulationContext:
        if torch.get_num_threads() != self.num_threads:
            torch.set_num_threads(self.num_threads)
        return self.world()

    def late(self, seconds: float) -> str | None:
        """Why an answer is refused, or None if it came in time."""
        if self.timeout is None or seconds <= self.timeout:
            return None
        return f"time-out: took {seconds:.1f} s, runtime.timeout={self.timeout:g}"


def reason(error: BaseException) -> str:
    """One line for the record: the type's name and the message."""
    return one_line(f"{type(error).__name__}: {error}")


def one_line(text: str) -> str:
    """Without line breaks and runs of blanks, at most 500 characters."""
    return " ".join(text.split())[:500]


def work(world: SimulationContext, content: RecordDict, clients: Sequence[int]) -> list[Reply]:
    """The client half for a batch of clients: one reply each, in their order."""
    task = world.codec.decode_request(content)
    shards = [world.shard(client, task.step) for client in clients]
    replies = world.strategy.client_work(task.request, shards, task.round, world.ctx)
    if [reply.client for reply in replies] != list(clients):
        raise RunError(
            f"client_work answered for {[reply.client for reply in replies]}, asked: {list(clients)}; "
            "return one reply a shard, in order, with client=shard.origin.client"
        )
    return replies


def make_client_app(job: ClientRuntime) -> ClientApp:
    """The ClientApp of a run."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: FlowerContext) -> Message:
        try:
            world = job.ready()
            start = time.perf_counter()  # a worker's own start is nobody's work
            (reply,) = work(world, message.content, [int(context.node_config[PARTITION])])
            content = world.codec.encode_reply(reply)
        except Exception as error:
            _log.debug("client %s failed", context.node_config[PARTITION], exc_info=True)
            return error_reply(reason(error), message)
        late = job.late(time.perf_counter() - start)
        return error_reply(late, message) if late else Message(content, reply_to=message)

    @app.query()
    def roll_call(message: Message, context: FlowerContext) -> Message:
        partition = int(context.node_config[PARTITION])
        return Message(RecordDict({"client": ConfigRecord({PARTITION: partition})}), reply_to=message)

    return app
