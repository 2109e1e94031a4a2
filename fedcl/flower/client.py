"""The client side: one ClientApp for every runtime.

It answers `train` with a client half of the strategy and `query` with its partition id. A failure is a reply
with a reason, worded the same on every runtime.
"""

import hashlib
import logging
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app import Context as FlowerContext
from flwr.clientapp import ClientApp

from fedcl.core.bugs import keep_traceback
from fedcl.core.coding import Wire
from fedcl.core.errors import WireError
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.agreement import agreement, disagreement
from fedcl.federated.client_state import ClientStore
from fedcl.federated.contract import Strategy, work_at_clients
from fedcl.federated.limits import Limits
from fedcl.federated.payload import Reply
from fedcl.federated.transforms.base import Transform, pack, visible
from fedcl.flower.codec import Codec, Question
from fedcl.flower.compat import PARTITION, error_reply
from fedcl.flower.guard import call_app, reason

_log = logging.getLogger(__name__)
Mod = Callable[..., Message]


@dataclass(frozen=True, kw_only=True)
class SimulationContext:
    """All that both halves of a federated run live in. The server reads everything but the shards and states."""

    strategy: Strategy
    ctx: Context
    shard: Callable[[int, int], LabeledSet]  # (client, step) -> its data, with the origin filled in
    num_clients: int
    wire: Wire
    compress: tuple[Transform, ...] = ()  # between a client's reply and the wire, in this order
    states: ClientStore = field(default_factory=ClientStore)
    limits: Limits = field(default_factory=Limits)  # of one client's reply
    registered: Callable[[int, int], int] | None = None  # (client, step) -> examples that it holds; None: as `shard`
    mods: tuple[Mod, ...] = ()  # Flower's: (message, context, call_next) -> message, around every client's work

    def most_examples(self, client: int, step: int) -> int:
        """Examples that a client may say it stands for."""
        if self.limits.examples is not None:
            return self.limits.examples
        held = len(self.shard(client, step)) if self.registered is None else self.registered(client, step)
        return self.strategy.most_examples(held, step, self.ctx)

    @cached_property
    def limits_of_run(self) -> Limits:
        return self.limits.for_run(self.ctx)

    @cached_property
    def codec(self) -> Codec:
        return Codec(
            wire=self.wire,
            num_classes=self.ctx.num_classes,
            inputs=self.ctx.inputs,
            network=self.ctx.new_model(0).cpu().state_dict(),
        )

    @cached_property
    def shared(self) -> bytes:
        return agreement(self.ctx)


_rebuilt: dict[str, SimulationContext] = {}  # in a worker process: the simulation of the run that it works for


@dataclass(frozen=True, kw_only=True)
class WorkerFactory:
    """A sim that a worker process makes for itself, once, from a small description.

    Flower's simulation engine ships the ClientApp with every message, so `load` must be cheap to pickle:
    names and numbers, not data.
    """

    load: Callable[[], SimulationContext]
    key: str  # two descriptions with the same key make the same simulation

    @classmethod
    def of(cls, load: Callable[[], SimulationContext]) -> "WorkerFactory":
        return cls(load=load, key=hashlib.sha256(pickle.dumps(load)).hexdigest())

    def __call__(self) -> SimulationContext:
        if self.key not in _rebuilt:
            _rebuilt.clear()
            _rebuilt[self.key] = self.load()
            _rebuilt[self.key].states.remote = True
        return _rebuilt[self.key]


@dataclass(frozen=True, kw_only=True)
class ClientRuntime:
    """What a ClientApp needs, in whichever process it runs."""

    sim: Callable[[], SimulationContext]  # the driver's own, or `WorkerFactory`
    num_threads: int  # of torch in the driver: the same everywhere, so that sums round the same way
    timeout: float | None = None  # seconds that a client's work may take; its answer is refused after that

    def ready(self) -> SimulationContext:
        if torch.get_num_threads() != self.num_threads:
            torch.set_num_threads(self.num_threads)
        return self.sim()


def answer(sim: SimulationContext, content: RecordDict, clients: Sequence[int]) -> tuple[Question, list[Reply]]:
    """The question, and the reply of each of these clients in their order, ready to travel.

    Raises:
        WireError: the question cannot be read, or comes from a server that shares other things.
    """
    question = sim.codec.decode_question(content)
    ask, step = question.payload, question.step
    differing = disagreement(question.shared, sim.shared)
    if differing is not None:
        raise WireError(f"client {clients[0]} does not share these with the server: {differing}")
    contexts = [replace(sim.ctx, client=client, step=step, round=question.round) for client in clients]
    kept = [sim.states.read(client) for client in clients]
    shards, seen = [sim.shard(client, step) for client in clients], [visible(state, sim.compress) for state in kept]
    replies = work_at_clients(sim.strategy, question.work, ask, shards, seen, contexts)
    packed = zip(replies, kept, contexts, strict=True)
    return question, [pack(sim.compress, reply, ask.weights, state, ctx) for reply, state, ctx in packed]


def remember(sim: SimulationContext, question: Question, reply: Reply) -> None:
    """Keep what a client wants to remember, once its reply is ready to be sent."""
    if reply.keep is not None:
        sim.states.write(reply.client, question.round, reply.keep)


class GuardedApp(ClientApp):
    """A ClientApp that always answers, whatever is called in it."""

    def __call__(self, message: Message, context: FlowerContext) -> Message:
        return call_app(super().__call__, message, context)


def make_client_app(job: ClientRuntime, mods: Sequence[Mod] = ()) -> ClientApp:
    """The ClientApp of a run; mods look at what a client works on, and not at the roll call."""
    app = GuardedApp()

    @app.train(mods=list(mods))
    def train(message: Message, context: FlowerContext) -> Message:
        client, sim = int(context.node_config[PARTITION]), None
        try:
            sim = job.ready()
            start = time.perf_counter()  # a worker's own start is nobody's work
            question, (reply,) = answer(sim, message.content, [client])
            content = sim.codec.encode_reply(reply)
            seconds = time.perf_counter() - start
            if job.timeout is not None and seconds > job.timeout:
                return error_reply(f"time-out: took {seconds:.1f} s, runtime.timeout={job.timeout:g}", message)
            remember(sim, question, reply)
            return Message(content, reply_to=message)
        except Exception as error:
            _log.debug("client %s failed", client, exc_info=True)
            if sim is not None and sim.states.folder is not None:
                keep_traceback(sim.states.folder.parent, error)
            return error_reply(reason(error), message)

    @app.query()
    def roll_call(message: Message, context: FlowerContext) -> Message:
        client = int(context.node_config[PARTITION])
        return Message(RecordDict({"client": ConfigRecord({PARTITION: client})}), reply_to=message)

    return app
