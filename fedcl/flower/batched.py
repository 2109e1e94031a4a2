"""Runtime `batched`: in this process, all clients of a question in one call of a client half that takes a batch.

A batch gives what one at a time gives (the strategy's contract), so this only changes the speed. If the
batch fails, every client gets its own try, so that one bad client does not take the others down. With a
time-out there is no batch: a client is charged what it took itself, which nobody can tell in a batch.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from flwr.app import Context, Message, MessageType
from flwr.serverapp import ServerApp

from fedcl.core.rules import number
from fedcl.federated.contract import declared
from fedcl.federated.payload import Reply
from fedcl.flower.client import ClientRuntime, SimulationContext, answer, make_client_app, remember
from fedcl.flower.compat import PARTITION, new_context, with_mods
from fedcl.flower.guard import attempt, call_app, reason
from fedcl.flower.runtime import Runtime
from fedcl.flower.serial import SerialGrid

_log = logging.getLogger(__name__)


class BatchedGrid(SerialGrid):
    """One call of a client half that takes a batch for all clients with the same question; the rest as in `serial`."""

    def __init__(self, job: ClientRuntime, sim: SimulationContext) -> None:
        super().__init__(make_client_app(job, sim.mods), sim.num_clients, sim.ctx.progress)
        self._job = job

    def answer(self, messages: Sequence[tuple[Message, Context]]) -> list[Message]:
        groups: dict[str, list[tuple[Message, Context]]] = {}
        for message, context in messages:
            groups.setdefault(message.metadata.group_id, []).append((message, context))
        replies: list[Message] = []
        for group in groups.values():
            replies += self._together(group) or super().answer(group)
        return replies

    def _together(self, group: list[tuple[Message, Context]]) -> list[Message] | None:
        """Replies of the batch, or None if there can be none, or it failed as a whole."""
        first, sim = group[0][0], self._job.ready()
        if first.metadata.message_type != MessageType.TRAIN or self._job.timeout is not None:
            return None
        if not declared(sim.strategy, str(first.content["task"]["work"])).batch:  # type: ignore[index]
            return None
        clients = [int(context.node_config[PARTITION]) for _, context in group]
        batch, error = attempt(lambda: answer(sim, first.content, clients))
        if error is not None:  # whatever it is: alone, the client that caused it fails with its reason
            _log.debug("a batch of %d clients failed", len(group), exc_info=error)
            self._progress.say(f"a batch of {len(group)} clients failed ({reason(error)}); trying them one at a time")
            return None
        question, replies = batch

        def send(reply: Reply, message: Message, context: Context) -> Message:
            content = sim.codec.encode_reply(reply)
            remember(sim, question, reply)
            return Message(content, reply_to=message)

        return [
            call_app(with_mods(partial(send, reply), list(sim.mods)), message, context)
            for (message, context), reply in zip(group, replies, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Batched(Runtime):
    """For strategies that distill many clients faster together than one by one, on a GPU above all."""

    # seconds that a client's work may take; with one, clients work one at a time
    timeout: Annotated[float | None, number(above=0, example=600)] = None

    def launch(self, server: ServerApp, sim: SimulationContext, load: Callable[[], SimulationContext] | None) -> None:
        server(BatchedGrid(self.job(lambda: sim), sim), new_context(1, 0, 1))
