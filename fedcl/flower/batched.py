"""Runtime `batched`: in this process, all clients of a question in one call of a client half that takes a batch.

A batch gives what one at a time gives (the strategy's contract), so this only changes the speed. If the
batch fails, every client gets its own try, so that one bad client does not take the others down. With a
time-out there is no batch: a client is charged what it took itself, which nobody can tell in a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from flwr.app import Context, Message, MessageType
from flwr.serverapp import ServerApp

from fedcl.federated.contract import declared
from fedcl.federated.payload import Reply
from fedcl.flower.client import ClientRuntime, SimulationContext, answer, make_client_app, remember, with_mods
from fedcl.flower.compat import PARTITION, new_context
from fedcl.flower.grid import InProcessGrid
from fedcl.flower.guard import attempt, call_app, reason
from fedcl.flower.runtime import Runtime, check_timeout
from fedcl.flower.serial import call_each

_log = logging.getLogger(__name__)


class BatchedGrid(InProcessGrid):
    """One call of a client half that takes a batch for all clients with the same question; the rest as in `serial`."""

    def __init__(self, job: ClientRuntime, num_clients: int) -> None:
        super().__init__(num_clients)
        self._job, self._app = job, make_client_app(job, job.sim().mods)

    def answer(self, messages: Sequence[tuple[Message, Context]]) -> list[Message]:
        groups: dict[str, list[tuple[Message, Context]]] = {}
        for message, context in messages:
            groups.setdefault(message.metadata.group_id, []).append((message, context))
        replies: list[Message] = []
        for group in groups.values():
            together = self._together(group) if self._takes_batch(group[0][0]) else None
            replies += together or call_each(self._app, group, self._job.sim().ctx.progress)
        return replies

    def _takes_batch(self, message: Message) -> bool:
        if message.metadata.message_type != MessageType.TRAIN or self._job.timeout is not None:
            return False
        return declared(self._job.sim().strategy, str(message.content["task"]["work"])).batch  # type: ignore[index]

    def _together(self, group: list[tuple[Message, Context]]) -> list[Message] | None:
        """Replies of the batch, or None if it failed as a whole."""
        sim, clients = self._job.ready(), [int(context.node_config[PARTITION]) for _, context in group]
        batch, error = attempt(lambda: answer(sim, group[0][0].content, clients))
        if error is not None:  # whatever it is: alone, the client that caused it fails with its reason
            _log.debug("a batch of %d clients failed", len(group), exc_info=error)
            listener = self._job.sim().ctx.progress
            listener.say(f"a batch of {len(group)} clients failed ({reason(error)}); trying them one at a time")
            return None
        question, replies = batch

        def send(reply: Reply, message: Message, context: Context) -> Message:
            content = sim.codec.encode_reply(reply)
            remember(sim, question, reply)
            return Message(content, reply_to=message)

        return [
            call_app(with_mods(partial(send, reply), sim.mods), message, context)
            for (message, context), reply in zip(group, replies, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Batched(Runtime):
    """For strategies that distill many clients faster together than one by one, on a GPU above all."""

    timeout: float | None = None  # seconds that a client's work may take; with one, clients work one at a time

    def __post_init__(self) -> None:
        check_timeout(self.timeout)

    def launch(self, server: ServerApp, sim: SimulationContext, load: Callable[[], SimulationContext] | None) -> None:
        job = ClientRuntime(sim=lambda: sim, num_threads=torch.get_num_threads(), timeout=self.timeout)
        server(BatchedGrid(job, sim.num_clients), new_context(1, 0, 1))
