"""Accuracies that are already known, one JSON file each, under a hash of everything that decides the number.

The key is made of what a network is really trained and tested on: the decoded images and targets, not the recipe that
made them, so that a changed decoder, selection or labelling asks again. With it go all settings, the whole source of
fedcl and the software and machine that round the last bit. What cannot be named like that is not kept.
"""

import hashlib
import json
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

import torch
from torch import Tensor

import fedcl
from fedcl.core.record import versions, write_atomically


def digest_of(*tensors: Tensor) -> str:
    """Hash of shapes, types and contents."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def code_version(root: Path = Path(fedcl.__file__).parent) -> str:
    """Hash of every Python file below `root`, by path and content."""
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()} {len(content)} ".encode() + content)
    return digest.hexdigest()


def environment(device: torch.device) -> dict[str, str]:
    """Software and machine, as far as they change how numbers are rounded."""
    return versions() | {
        "machine": f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "matmul": torch.get_float32_matmul_precision(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def is_named(value: object) -> bool:
    """Whether `repr(value)` and fedcl's source say all about it: plain values, and fedcl's own dataclasses of them."""
    if is_dataclass(value) and not isinstance(value, type):
        own = type(value).__module__.partition(".")[0] == "fedcl"
        return own and all(is_named(getattr(value, entry.name)) for entry in fields(value))
    return all(map(is_named, value)) if isinstance(value, tuple) else isinstance(value, int | float | str | None)


@dataclass(frozen=True, kw_only=True)
class EvaluationCache:
    """A folder of answers that runs share. Make it when a run starts: its code is what is on disk then."""

    folder: Path  # made when first needed
    code: str = field(default_factory=code_version)

    def accuracy(
        self, settings: tuple[object, ...], digests: tuple[str, ...], device: torch.device, ask: Callable[[], float]
    ) -> float:
        """The answer to that question, from `ask` where there is none that can be read; kept if it can be named."""
        if not is_named(settings):
            return ask()
        about = repr((settings, digests, sorted(environment(device).items()), self.code))
        path = self.folder / f"{hashlib.sha256(about.encode()).hexdigest()}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text())["accuracy"]
            if isinstance(known, float) and 0 <= known <= 1:
                return known
        value = ask()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"accuracy": value, "about": about}))
        return value
