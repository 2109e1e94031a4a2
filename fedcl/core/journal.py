"""Journal: a file that only grows, cut back to where a checkpoint left it when a run goes on.

A checkpoint keeps the mark of a journal (its bytes and their SHA-256), never its content: the cost of a round does
not depend on how many there were, and a journal that was changed since is refused.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcl.core.errors import RunError


class Journal:
    """Whole lines in one file that belongs to this run."""

    def __init__(self, path: Path) -> None:
        self.path, self._bytes, self._sum = path, 0, hashlib.sha256()

    def begin(self, head: str = "") -> None:
        """Start the file anew, whatever it held."""
        self.path.write_bytes(b"")
        self._bytes, self._sum = 0, hashlib.sha256()
        self.append(head)

    def append(self, lines: str) -> None:
        """Add lines at the end."""
        data = lines.encode()
        with self.path.open("ab") as file:
            file.write(data)
        self._bytes += len(data)
        self._sum.update(data)

    def mark(self) -> dict[str, Any]:
        """How far the file goes and what is in it; all of that is on the disk when this returns."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        return {"bytes": self._bytes, "sha256": self._sum.hexdigest()}

    def resume(self, mark: Mapping[str, Any]) -> str:
        """Cut off what was appended after the mark, and return the rest. RunError where it is not what it was then."""
        again = f"delete {self.path.parent} to start again"
        try:
            data = self.path.read_bytes()[: mark["bytes"]]
        except OSError as error:
            raise RunError(f"{self.path} cannot be read ({error.strerror}) and the run needs it; {again}") from None
        found = hashlib.sha256(data)
        if found.hexdigest() != mark["sha256"]:
            raise RunError(f"{self.path} was damaged or changed since the run wrote it; {again}")
        os.truncate(self.path, len(data))
        self._bytes, self._sum = len(data), found
        return data.decode()
