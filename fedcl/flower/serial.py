"""Runtime `serial`: ClientApps in this process, one after the other. Starts in milliseconds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedcl.core.progress import SILENT, Progress
from fedcl.core.rules import number
from fedcl.flower.client import SimulationContext, make_client_app
from fedcl.flower.compat import Run, identify, new_context, new_run, stamp
from fedcl.flower.runtime import Runtime, counted

_FIRST_NODE = 100  # node ids are Flower's, partition ids are ours; they differ here, as they do elsewhere


class SerialGrid(Grid):
    """A Flower grid without a network: messages are answered in this process, in their order, by one call each."""

    run = new_run()  # type: ignore[assignment]

    def __init__(self, app: ClientApp, num_clients: int, progress: Progress = SILENT) -> None:
        identify()
        self._app, self._progress = app, progress
        nodes = range(_FIRST_NODE, _FIRST_NODE + num_clients)
        self._contexts = {node: new_context(node, client, num_clients) for client, node in enumerate(nodes)}
        self._replies: dict[str, Message] = {}

    def answer(self, messages: Sequence[tuple[Message, Context]]) -> list[Message]:
        """One reply a message, in any order; a client's failure is a reply with an error."""
        replies = []
        with counted(self._progress, (message for message, _ in messages)) as advance:
            for message, context in messages:
                replies.append(self._app(message, context))
                advance()
        return replies

    def set_run(self, run: Run) -> None:
        self.run = run  # type: ignore[misc]

    def create_message(self, *args: Any, **options: Any) -> Message:
        return Message(*args, **options)

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


@dataclass(frozen=True, kw_only=True)
class Serial(Runtime):
    """The default: no processes, no threads, a debugger works."""

    # seconds; judged after the fact, because nothing can be interrupted here
    timeout: Annotated[float | None, number(above=0, example=600)] = None

    def launch(self, server: ServerApp, sim: SimulationContext, load: Callable[[], SimulationContext] | None) -> None:
        app = make_client_app(self.job(lambda: sim), sim.mods)
        server(SerialGrid(app, sim.num_clients, sim.ctx.progress), new_context(1, 0, 1))
