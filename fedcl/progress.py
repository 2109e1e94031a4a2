"""How a run tells what it is doing, without knowing who listens."""

from __future__ import annotations


class Progress:
    """The silent listener, and the interface of the others. Nothing here may change a result.

    `fedcl/terminal.py` shows the same events with rich on a terminal, or as plain lines.
    """

    def begin(self, task: str, total: int) -> None:
        """A countable piece of work starts: "rounds", "clients", "distilling", "training"."""

    def advance(self, task: str, amount: int = 1, **figures: float) -> None:
        """Some of it is done; `figures` are worth showing beside it (loss=..., accuracy=...)."""

    def end(self, task: str) -> None:
        """It is over, done or not."""

    def say(self, line: str) -> None:
        """One line worth reading later."""


SILENT = Progress()
