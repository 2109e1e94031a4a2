"""A fedcl strategy as a Flower strategy: who is asked, what is sent, what comes back, what it weighed.

The state lives here between calls; the fedcl strategy stays pure. Client sampling is by
partition id and from the seed; replies are combined in order of partition id, whatever order they came in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerInterface

from fedcl.core.errors import ConfigError, RunError, WireError
from fedcl.core.seeding import numpy_rng
from fedcl.core.types import Origin
from fedcl.federated.contract import Reply, Request, ServerState
from fedcl.federated.ledger import Ledger, Transfer
from fedcl.flower.client import SimulationContext, one_line, reason
from fedcl.flower.compat import PARTITION, query_message, train_message
from fedcl.flower.fields import sizes


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """What one round left."""

    round: int  # counted from 0
    step: int
    state: ServerState  # after the round
    clients: tuple[int, ...]  # partition ids that were asked, ascending
    replies: tuple[Reply, ...]  # the usable ones, in order of partition id
    failed: tuple[Mapping[str, int | str], ...]  # {"client": id, "reason": one line}
    counted: bool  # False: too few usable replies, so the state is as before
    reason: str | None = None  # why it did not count
    rows: tuple[Transfer, ...]  # of this round
    up: Mapping[str, int]  # {"payload_bytes", "wire_bytes"}
    down: Mapping[str, int]
    seconds: float = 0.0  # of sending, client work and combining


def sample_clients(seed: int, round: int, num_clients: int, count: int) -> tuple[int, ...]:
    """`count` different partition ids, ascending, from the seed and the round alone."""
    chosen = numpy_rng(seed, "client sampling", round=round).choice(num_clients, size=count, replace=False)
    return tuple(sorted(int(client) for client in chosen))


class Adapter(FlowerInterface):
    """The server half of a run. `result` is what the last `aggregate_train` made of its round."""

    def __init__(
        self,
        world: SimulationContext,
        *,
        clients_per_round: int | None = None,  # None: all of them
        min_success: int = 1,  # usable replies that a round needs to count
        step_of_round: Callable[[int], int] = lambda round: 0,
        state: ServerState | None = None,  # None: the strategy's initial state
    ) -> None:
        count = world.num_clients if clients_per_round is None else clients_per_round
        if not 1 <= count <= world.num_clients:
            raise ConfigError(f"clients_per_round={count} must lie in 1..{world.num_clients}, the number of clients")
        if not 1 <= min_success <= count:
            raise ConfigError(f"min_success={min_success} must lie in 1..{count}, the clients of a round")
        problem = world.strategy.too_few(count)
        if problem is not None:
            raise ConfigError(f"clients_per_round={count}: {problem}")
        self._world, self._count, self._min_success = world, count, min_success
        self._step_of_round = step_of_round
        self.state = world.strategy.init(world.ctx) if state is None else state
        self.result: RoundResult | None = None
        self._nodes: dict[int, int] = {}  # partition id -> Flower's node id
        self._clients: tuple[int, ...] = ()
        self._request, self._content = Request(), RecordDict()

    def call_roll(self, grid: Grid) -> tuple[Transfer, ...]:
        """Ask every node for its partition id, and return the ledger's rows of that, which are in no total."""
        nodes = list(grid.get_node_ids())
        rows: list[Transfer] = []
        for reply in grid.send_and_receive([query_message(node) for node in nodes]):
            if reply.has_error():
                raise RunError(f"the roll call failed: {reply.error.reason}")
            client = int(reply.content["client"][PARTITION])  # type: ignore[arg-type, index]
            self._nodes[client] = reply.metadata.src_node_id
            for direction, content in (("down", RecordDict()), ("up", reply.content)):
                rows.append(self._row(0, 0, client, direction, sizes(content), kind="roll call"))
        expected = list(range(self._world.num_clients))
        if sorted(self._nodes) != expected:
            raise RunError(f"the roll call found partitions {sorted(self._nodes)}, expected 0..{expected[-1]}")
        return tuple(sorted(rows, key=lambda row: row.client))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of round `server_round - 1`: the same content for every client, encoded once."""
        if not self._nodes:
            self.call_roll(grid)
        round, world = server_round - 1, self._world
        self._clients = sample_clients(world.ctx.seed, round, world.num_clients, self._count)
        self._request = world.strategy.request(self.state, round, world.ctx)
        self._content = world.codec.encode_request(self._request, round=round, step=self._step_of_round(round))
        return [train_message(self._content, self._nodes[client], str(round)) for client in self._clients]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check what came back, count it, and combine it; see `result`."""
        round = server_round - 1
        step = self._step_of_round(round)
        by_node = {message.metadata.src_node_id: message for message in replies}
        down = sizes(self._content)
        usable: list[Reply] = []
        failed: list[dict[str, int | str]] = []
        rows: list[Transfer] = []
        for client in self._clients:
            message = by_node.get(self._nodes[client])
            reply = self._open(message, Origin(client=client, step=step, round=round))
            up = None
            if message is not None and message.has_content():
                try:
                    up = sizes(message.content)
                except Exception as error:  # no wire can carry it: nothing came
                    reply = reason(error)
            delivered = isinstance(reply, Reply)
            rows.append(self._row(round, step, client, "down", down, delivered=delivered))
            if up is not None:
                rows.append(self._row(round, step, client, "up", up, delivered=delivered))
            if isinstance(reply, Reply):
                usable.append(reply)
            else:
                failed.append({"client": client, "reason": reply})
        uncounted = self._too_few(usable)
        if uncounted is None:
            self.state = self._world.strategy.combine(self.state, usable, round, self._world.ctx)
        else:  # whatever came back is not used
            rows = [replace(row, delivered=False) for row in rows]
        of_round = Ledger(rows=tuple(rows))
        self.result = RoundResult(
            round=round,
            step=step,
            state=self.state,
            clients=self._clients,
            replies=tuple(usable),
            failed=tuple(failed),
            counted=uncounted is None,
            reason=uncounted,
            rows=of_round.rows,
            up=of_round.totals("up"),
            down=of_round.totals("down"),
        )
        return None, None

    def _too_few(self, usable: list[Reply]) -> str | None:
        """Why a round with these replies does not count, or None."""
        if len(usable) < self._min_success:
            return f"{len(usable)} usable replies, min_success={self._min_success}"
        return self._world.strategy.too_few(sum(reply.num_examples > 0 for reply in usable))

    def _open(self, message: Message | None, origin: Origin) -> Reply | str:
        """The reply, or why there is none."""
        if message is None:
            return "time-out: no reply came"
        if message.has_error():
            return one_line(message.error.reason or f"error {message.error.code} without a reason")
        try:
            reply = self._world.codec.decode_reply(message.content, origin=origin, like=self._request.weights)
        except WireError as error:
            return reason(WireError(f"client {origin.client}: {error}"))
        except Exception as error:  # whatever a client sends costs that client the round, and nobody else
            return reason(error)
        problem = self._world.strategy.unusable(reply)
        return reply if problem is None else reason(WireError(f"client {origin.client} {problem}"))

    @staticmethod
    def _row(
        round: int,
        step: int,
        client: int,
        direction: str,
        size: tuple[dict[str, int], int, int],
        *,
        kind: str = "train",
        delivered: bool = True,
    ) -> Transfer:
        parts, payload_bytes, wire_bytes = size
        return Transfer(
            round=round,
            step=step,
            client=client,
            direction=direction,
            kind=kind,
            payload_bytes=payload_bytes,
            wire_bytes=wire_bytes,
            parts=parts,
            delivered=delivered,
        )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """None: the server evaluates on its own test set."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return None

    def summary(self) -> None:
        """Nothing is logged; the record says it all."""
