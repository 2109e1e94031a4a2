"""What a federated client remembers between rounds: files in the run's folder, never a message.

One file a client and step, `client-0003-step-0001.safetensors`. A file depends on the client's data of that
step alone and is written once, so a round that is done again after a crash finds the same memory; and every
runtime that shares a file system sees it.
"""

from __future__ import annotations

from pathlib import Path

from fedcl.core.errors import RunError
from fedcl.core.types import Summary
from fedcl.memory.buffer import Budget, Buffer
from fedcl.memory.files import load_buffer, save_buffer


def file_of(folder: Path | None, client: int, step: int) -> Path:
    """Where a client keeps what it remembers of a step.

    Raises:
        RunError: the run has no folder.
    """
    if folder is None:
        raise RunError(
            "clients of this strategy remember, and there is no folder for it; give LearnerContext a folder=..."
        )
    return folder / f"client-{client:04d}-step-{step:04d}.safetensors"


def remembers(folder: Path | None, client: int, step: int) -> bool:
    """Whether the client has kept something of that step."""
    return file_of(folder, client, step).exists()


def keep(folder: Path | None, client: int, step: int, summary: Summary, storage: str) -> None:
    """Store a summary of that step; `storage` is how synthetic images are stored (see `fedcl.memory.buffer.Budget`)."""
    path = file_of(folder, client, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = Budget(images=max(1, len(summary.targets)), storage=storage)
    save_buffer(Buffer(budget=whole).add(summary), path)


def recall(folder: Path | None, client: int, before: int) -> list[Buffer]:
    """What the client kept of all steps before `before`, in their order; empty ones are left out."""
    kept = [load_buffer(path) for s in range(before) if (path := file_of(folder, client, s)).exists()]
    return [buffer for buffer in kept if len(buffer)]


def stored(folder: Path) -> dict[str, int]:
    """Bytes and decoded images of all clients' memories together."""
    buffers = [load_buffer(path) for path in sorted(folder.glob("client-*-step-*.safetensors"))]
    return {
        "client_bytes": sum(buffer.num_bytes for buffer in buffers),
        "client_images": sum(buffer.num_images for buffer in buffers),
    }
