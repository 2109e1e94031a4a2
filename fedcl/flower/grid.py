"""A Flower grid without a network: messages are answered in this process, in their order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from fedcl.flower.compat import Run, identify, new_context, new_run, stamp

_FIRST_NODE = 100  # node ids are Flower's, partition ids are ours; they differ here, as they do elsewhere


class InProcessGrid(Grid):
    """The part that every in-process runtime shares; `answer` is what they differ in."""

    def __init__(self, num_clients: int) -> None:
        identify()
        self._run = new_run()
        self._contexts = {
            _FIRST_NODE + client: new_context(_FIRST_NODE + client, client, num_clients)
            for client in range(num_clients)
        }
        self._replies: dict[str, Message] = {}

    @abstractmethod
    def answer(self, messages: Sequence[tuple[Message, Context]]) -> list[Message]:
        """One reply a message, in any order; a client's failure is a reply with an error."""

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        ids = [stamp(message) for message in messages]
        for reply in self.answer([(message, self._contexts[message.metadata.dst_node_id]) for message in messages]):
            stamp(reply)
            self._replies[reply.metadata.reply_to_message_id] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))
