"""How a run tells what it is doing, without knowing who listens."""

from collections.abc import Mapping
from typing import Any


class Progress:
    """The silent listener, and the interface of the others. Nothing here may change a result.

    `fedcl/cli/terminal.py` shows the same events with rich on a terminal, or as plain lines.
    """

    def begin(self, task: str, total: int) -> None:
        """A countable piece of work starts: "rounds", "clients", "distilling", "training"."""

    def advance(self, task: str, amount: int = 1, **figures: float) -> None:
        """Some of it is done; `figures` are worth showing beside it (loss=..., accuracy=...)."""

    def end(self, task: str) -> None:
        """It is over, done or not."""

    def say(self, line: str) -> None:
        """One line worth reading later."""

    def wrote(self, record: Mapping[str, Any]) -> None:
        """The record of the run was written; it goes on changing, so look and keep nothing of it."""


def _told_to_all(event: str) -> Any:
    def tell(self: "Several", *args: Any, **figures: Any) -> None:
        for listener in self.listeners:
            getattr(listener, event)(*args, **figures)

    return tell


class Several(Progress):
    """Tells several listeners."""

    def __init__(self, *listeners: Progress) -> None:
        self.listeners = listeners

    begin, advance, end, say, wrote = map(_told_to_all, ("begin", "advance", "end", "say", "wrote"))


SILENT = Progress()
