"""Runtime `batched`: in this process, all clients of a round in one call of the strategy's client half.

A batch gives what one at a time gives (the strategy's contract), so this only changes the speed. If the
batch fails, every client gets its own try, so that one bad client does not take the others down. With a
time-out there is no batch: a client is charged what it took itself, which nobody can tell in a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from flwr.app import Context, Message, MessageType
from flwr.serverapp import ServerApp

from fedcl.flower.client import ClientRuntime, SimulationContext, make_client_app, reason, work
from fedcl.flower.compat import PARTITION, error_reply, new_context
from fedcl.flower.grid import InProcessGrid
from fedcl.flower.runtime import Runtime, check_timeout
from fedcl.flower.serial import call_each

_log = logging.getLogger(__name__)


class BatchedGrid(InProcessGrid):
    """One `client_work` call for all train messages with the same content; the rest as in `serial`."""

    def __init__(self, job: ClientRuntime, num_clients: int) -> None:
        super().__init__(num_clients)
        self._job, self._app = job, make_client_app(job)

    def answer(self, messages: Sequence[tuple[Message, Context]]) -> list[Message]:
        groups: dict[int | None, list[tuple[Message, Context]]] = {}
        for message, context in messages:
            train = message.metadata.message_type == MessageType.TRAIN
            groups.setdefault(id(message.content) if train else None, []).append((message, context))
        replies: list[Message] = []
        for content, group in groups.items():
            alone = content is None or self._job.timeout is not None
            together = None if alone else self._together(group)
            replies += self._alone(group) if together is None else together
        return replies

    def _alone(self, group: list[tuple[Message, Context]]) -> list[Message]:
        return call_each(self._app, group, self._job.world().ctx.progress)

    def _together(self, group: list[tuple[Message, Context]]) -> list[Message] | None:
        """Replies of the batch, or None if it failed as a whole."""
        try:
            world = self._job.ready()
            replies = work(world, group[0][0].content, [int(context.node_config[PARTITION]) for _, context in group])
        except Exception as error:  # whatever it is: alone, the client that caused it fails with its reason
            _log.debug("a batch of %d clients failed", len(group), exc_info=True)
            listener = self._job.world().ctx.progress
            listener.say(f"a batch of {len(group)} clients failed ({reason(error)}); trying them one at a time")
            return None
        answers = []
        for (message, _), reply in zip(group, replies, strict=True):
            try:
                answers.append(Message(world.codec.encode_reply(reply), reply_to=message))
            except Exception as error:
                answers.append(error_reply(reason(error), message))
        return answers


@dataclass(frozen=True, kw_only=True)
class Batched(Runtime):
    """For strategies that distill many clients faster together than one by one, on a GPU above all."""

    timeout: float | None = None  # seconds that a client's work may take; with one, clients work one at a time

    def __post_init__(self) -> None:
        check_timeout(self.timeout)

    def launch(self, server: ServerApp, world: SimulationContext, load: Callable[[], SimulationContext] | None) -> None:
        job = ClientRuntime(world=lambda: world, num_threads=torch.get_num_threads(), timeout=self.timeout)
        server(BatchedGrid(job, world.num_clients), new_context(1, 0, 1))
