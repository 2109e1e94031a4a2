"""One round over a Flower grid: who is asked, what is sent, what comes back, what it weighed.

Clients are sampled by partition id and from the seed. Replies are matched to their questions by message, and handed to
the strategy in order of partition id, whatever order they came in. Before anything of a reply is used it is weighed,
checked and decoded; whatever is wrong with it costs its client the rest of the round, with a reason, and nobody else.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedcl.core.errors import ConfigError, RunError, WireError
from fedcl.core.seeding import numpy_rng
from fedcl.core.types import Origin
from fedcl.federated.contract import Clients, Strategy, declared, lacking
from fedcl.federated.ledger import ROLL_CALL, Ledger, Transfer
from fedcl.federated.payload import Payload, Reply, ServerState, Weights
from fedcl.federated.transforms.base import unpack
from fedcl.flower.bounds import check_bounds
from fedcl.flower.client import SimulationContext
from fedcl.flower.codec import Question
from fedcl.flower.compat import PARTITION, copied, query_message, train_message
from fedcl.flower.guard import attempt, one_line, reason
from fedcl.flower.weighing import Sizes, sizes


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """Facts of one round."""

    round: int  # counted from 0
    step: int
    state: ServerState  # after the round
    clients: tuple[int, ...]  # partition ids that were sampled, ascending
    failed: tuple[Mapping[str, int | str], ...]  # {"client": id, "reason": one line}
    counted: bool  # False: a question had too few usable replies, so the state is as before
    reason: str | None = None  # why it did not count
    rows: tuple[Transfer, ...]  # of this round
    up: Mapping[str, int]  # {"payload_bytes", "wire_bytes"}
    down: Mapping[str, int]
    seconds: float = 0.0


class TooFewReplies(Exception):
    """End of a round that does not count; raised where the strategy runs out of replies."""


def check_clients(strategy: Strategy, num_clients: int, clients_per_round: int | None, min_success: int) -> int:
    """The number of clients of a round.

    Raises:
        ConfigError: it does not fit the clients that there are, or is too small for the strategy.
    """
    count = num_clients if clients_per_round is None else clients_per_round
    if not 1 <= count <= num_clients:
        raise ConfigError(f"clients_per_round={count} must lie in 1..{num_clients}, or be null for all clients")
    if not 1 <= min_success <= count:
        raise ConfigError(f"min_success={min_success} must lie in 1..{count}, the clients of a round")
    problem = strategy.too_few(count)
    if problem is not None:
        raise ConfigError(f"clients_per_round={count}: {problem}")
    return count


def sample_clients(seed: int, round: int, num_clients: int, count: int) -> tuple[int, ...]:
    """`count` different partition ids, ascending, from the seed and the round alone."""
    chosen = numpy_rng(seed, "client sampling", round=round).choice(num_clients, size=count, replace=False)
    return tuple(sorted(int(client) for client in chosen))


def call_roll(grid: Grid, num_clients: int) -> tuple[dict[int, int], tuple[Transfer, ...]]:
    """Flower's node id of every partition, and the ledger's rows of asking for it, which are in no total.

    Raises:
        RunError: a node did not answer, or the partitions are not those of the run.
    """
    nodes: dict[int, int] = {}
    rows: list[Transfer] = []
    for reply in grid.send_and_receive([query_message(node) for node in grid.get_node_ids()]):
        if reply.has_error():
            raise RunError(f"the roll call failed: {reply.error.reason}")
        client = int(reply.content["client"][PARTITION])  # type: ignore[arg-type, index]
        nodes[client] = reply.metadata.src_node_id
        for direction, content in (("down", RecordDict()), ("up", reply.content)):
            size = sizes(content)._asdict()
            rows.append(Transfer(round=0, step=0, client=client, direction=direction, kind=ROLL_CALL, **size))
    if sorted(nodes) != list(range(num_clients)):
        raise RunError(f"the roll call found partitions {sorted(nodes)}, expected 0..{num_clients - 1}")
    return nodes, tuple(sorted(rows, key=lambda row: row.client))


def one_round(clients: "RoundClients", state: ServerState) -> RoundResult:
    """The strategy's round, and what it left. An exception of the strategy's own is not caught."""
    start, ctx = time.perf_counter(), clients.ctx
    after = state
    with suppress(TooFewReplies):
        after = clients.sim.strategy.round(state, clients, ctx)
    clients.finish()
    counted = clients.uncounted is None
    rows = tuple(clients.rows if counted else (replace(row, delivered=False) for row in clients.rows))
    return RoundResult(
        round=ctx.round,
        step=ctx.step,
        state=after if counted else state,
        clients=clients.ids,
        failed=tuple({"client": client, "reason": why} for client, why in sorted(clients.failed.items())),
        counted=counted,
        reason=clients.uncounted,
        rows=rows,
        up=Ledger(rows=rows).totals("up"),
        down=Ledger(rows=rows).totals("down"),
        seconds=time.perf_counter() - start,
    )


class _Sent(NamedTuple):
    """A payload on its way: encoded and weighed once, copied for each client that gets it."""

    group: str  # name of the messages with this content
    content: RecordDict
    size: Sizes
    weights: Weights | None  # as a client sees them, which a lossy wire changes; None where nobody asks


class RoundClients(Clients):
    """The sampled clients of one round, over a grid."""

    def __init__(
        self,
        sim: SimulationContext,
        grid: Grid,
        nodes: Mapping[int, int],  # partition id -> Flower's node id
        ids: tuple[int, ...],
        *,
        round: int,
        step: int = 0,
        min_success: int = 1,  # usable replies that a question needs, all of them where it goes to fewer clients
        on_reply: Callable[[Reply], None] | None = None,
    ) -> None:
        self.sim, self.ids, self.num_clients = sim, ids, sim.num_clients
        self.ctx = replace(sim.ctx, round=round, step=step)
        self.rows: list[Transfer] = []
        self.failed: dict[int, str] = {}  # client -> reason
        self.uncounted: str | None = None  # why the round does not count
        self._grid, self._nodes, self._min_success, self._on_reply = grid, nodes, min_success, on_reply
        self._open: list[Iterator[Reply]] = []  # replies that the strategy has not taken yet

    def ask(
        self, work: Callable[..., Any], payload: Payload | Mapping[int, Payload], *, to: Sequence[int] | None = None
    ) -> Iterator[Reply]:
        name = work.__name__
        declared(self.sim.strategy, name)  # or it cannot be asked for
        own = payload if isinstance(payload, Mapping) else dict.fromkeys(self.ids, payload)
        unknown = sorted({*(to or ()), *own} - {*self.ids})
        if unknown:
            raise RunError(f"{name} is asked of clients {unknown}, and this round has {list(self.ids)}")
        wanted = [client for client in self.ids if client in own and (to is None or client in to)]
        sent: dict[int, _Sent] = {}  # id of a payload -> the payload on its way
        asked: list[tuple[int, _Sent, Message]] = []
        for client in wanted:
            if client in self.failed:
                continue
            key = id(own[client])
            if key not in sent:
                group = f"{self.ctx.round}/{len(self._open)}/{len(sent)}"
                sent[key] = self._send(name, own[client], group)
            message = train_message(copied(sent[key].content), self._nodes[client], sent[key].group)
            asked.append((client, sent[key], message))
        came = {m.metadata.reply_to_message_id: m for m in self._grid.send_and_receive([each[2] for each in asked])}
        taken = [(client, each, came.pop(message.metadata.message_id, None)) for client, each, message in asked]
        whole = len(wanted) == len(self.ids)
        replies = self._replies(name, taken, min(self._min_success, len(wanted)), whole=whole)
        self._open.append(replies)
        return replies

    def _send(self, work: str, payload: Payload, group: str) -> _Sent:
        sim, ctx = self.sim, self.ctx
        question = Question(work=work, round=ctx.round, step=ctx.step, shared=sim.shared, payload=payload)
        content = sim.codec.encode_question(question)
        weights = sim.codec.decode_question(content).payload.weights if sim.compress else None
        return _Sent(group, content, sizes(content), weights)

    def finish(self) -> None:
        """Weigh and check what the strategy did not take."""
        for replies in self._open:
            with suppress(TooFewReplies):
                deque(replies, maxlen=0)

    def _replies(
        self, work: str, came: list[tuple[int, _Sent, Message | None]], least: int, *, whole: bool
    ) -> Iterator[Reply]:
        """Usable replies. Raises TooFewReplies after the last one where there were fewer than `least`."""
        usable = holding = 0
        came.reverse()
        while came:  # taken off one by one, so that what was used is gone
            client, sent, message = came.pop()
            reply = self._opened(client, work, sent, message)
            del message
            if isinstance(reply, str):
                self.failed.setdefault(client, reply)
                continue
            usable += 1
            holding += reply.num_examples > 0
            if self._on_reply is not None:
                self._on_reply(reply)
            yield reply
            del reply
        problem = None
        if usable < least:
            problem = f"{work}: {usable} usable replies, min_success={self._min_success}"
        elif whole:
            problem = self.sim.strategy.too_few(holding)
        if problem is not None:
            self.uncounted = self.uncounted or problem
            raise TooFewReplies(problem)

    def _opened(self, client: int, work: str, sent: _Sent, message: Message | None) -> Reply | str:
        """The reply, or why there is none; in the ledger either way."""
        reply: Reply | str = "time-out: no reply came"
        up: Sizes | None = None
        if message is not None and message.has_error():
            reply = one_line(str(message.error.reason or f"error {message.error.code} without a reason"))
        elif message is not None:
            content = message.content
            opened, error = attempt(lambda: self._decoded(client, work, sent, content))
            if error is None:
                reply, up = opened
            else:  # whatever a client sends costs that client the round, and nobody else
                up, _ = attempt(lambda: _refused(content))  # None where no wire can carry it
                reply = reason(WireError(f"client {client}: {error}") if isinstance(error, WireError) else error)
        place = {"round": self.ctx.round, "step": self.ctx.step, "client": client, "kind": work}
        for direction, size in (("down", sent.size), ("up", up)):
            if size is not None:
                delivered = isinstance(reply, Reply)
                self.rows.append(Transfer(**place, **size._asdict(), direction=direction, delivered=delivered))
        return reply

    def _decoded(self, client: int, work: str, sent: _Sent, content: RecordDict) -> tuple[Reply, Sizes]:
        """A usable reply, and what it weighs. Raises whatever is wrong with it."""
        sim, ctx = self.sim, replace(self.ctx, client=client)
        check_bounds(content, sim.limits_of_run, examples=sim.most_examples(client, ctx.step), ctx=ctx)
        up, origin = sizes(content), Origin(client=client, step=ctx.step, round=ctx.round)
        reply = sim.codec.decode_reply(content, origin=origin, check=sim.limits_of_run.check_summary)
        if sim.compress:
            reply = unpack(sim.compress, reply, sent.weights, ctx)
            if reply.weights is not None:
                reply = replace(reply, weights=sim.codec.check_weights(reply.weights))
        sim.limits_of_run.check_values(reply)
        problem = lacking(reply, declared(sim.strategy, work).sends)
        if problem is None and reply.num_examples:
            problem = sim.strategy.unusable(work, reply, ctx)
        if problem is not None:
            raise WireError(problem)
        return reply, up


def _refused(content: RecordDict) -> Sizes:
    """What a refused message weighs, whatever its parts are called."""
    size = sizes(content)
    return size._replace(parts={"refused": size.payload_bytes})
