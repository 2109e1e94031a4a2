"""Randomness is a function of what it is for: never a global generator, never the clock.

Every random stream of a run is named by `(seed, purpose, client, step, round)`. Two streams with different names are
independent; the same name gives the same stream on every runtime.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, *, client: int = 0, step: int = 0, round: int = 0) -> int:
    """A 63-bit seed for one stream: the head of SHA-256 over the stream's name.

    `seed` is the run's or one derived before, `purpose` says in words what the stream is for ("client sampling"), and
    client, step and round are the cell of the grid that it belongs to, 0 where it has none.
    """
    name = f"{int(seed)}|{purpose}|{int(client)}|{int(step)}|{int(round)}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def numpy_rng(seed: int, purpose: str, **cell: int) -> np.random.Generator:
    """A numpy generator for the stream of that name."""
    return np.random.default_rng(derive(seed, purpose, **cell))


def torch_rng(seed: int, purpose: str, **cell: int) -> "torch.Generator":
    """A CPU torch generator for the stream of that name.

    Random numbers are drawn on the CPU and moved, so that a device does not change a result's stream.
    """
    import torch

    return torch.Generator().manual_seed(derive(seed, purpose, **cell))
