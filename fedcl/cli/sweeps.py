"""Sweeps that survive: the same command finds the same folders again, skips what is finished, goes on with the rest.

A sweep's folder is named after what varies and what is fixed, a job's folder after the values that vary. So a
sweep can be widened too: `seed=0,1,2,3` after `seed=0,1,2` runs one seed.
"""

from __future__ import annotations

import gc
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedcl.cli.typed import key_of
from fedcl.core.errors import InUseError, RunError
from fedcl.core.record import RECORD, read_record

LONGEST = 120  # characters of a folder's name
ELSEWHERE = (
    "out",
    "quiet",
    "device",
    "dataset.root",
    "dataset.download",
    "tracker",
    "plugins",
)  # decide where and how, not what


@dataclass(kw_only=True)
class Sweep:
    """Outcome of the jobs of one command."""

    folder: Path | None = None  # above the jobs' folders
    started: list[str] = field(default_factory=list)  # overrides of every job, as typed
    skipped: list[str] = field(default_factory=list)  # those that were finished before
    elsewhere: list[str] = field(default_factory=list)  # those that another process is running
    failed: dict[str, BaseException] = field(default_factory=dict)

    def skip(self, out: Path, say: Callable[[str], None]) -> None:
        """Note that the job under way was finished before."""
        self.skipped.append(self.started[-1])
        say(f"finished before: {out}")

    def leave(self, error: InUseError, say: Callable[[str], None]) -> None:
        """Note that another process has the job under way."""
        self.elsewhere.append(self.started[-1])
        say(f"left to another process: {error}")

    @property
    def outcome(self) -> str:
        """One line: how many jobs ended how, and how to look at them."""
        done = len(self.started) - len(self.skipped) - len(self.elsewhere) - len(self.failed)
        parts = [f"{done} run", f"{len(self.skipped)} finished before", f"{len(self.failed)} failed"]
        parts.append(f"{len(self.elsewhere)} left to another process")
        counted = ", ".join(part for part in parts if not part.startswith("0 "))
        return f"{len(self.started)} jobs: {counted}; compare them with: fedcl report {self.folder}"


def decides(override: str) -> bool:
    """True for an override that is part of what is run."""
    key = key_of(override)
    return not any(key == name or key.startswith(f"{name}.") for name in (*ELSEWHERE, "hydra"))


def by_key(override: str) -> tuple[bool, str]:
    """For sorting: the order of typing does not matter, and seeds come last."""
    return key_of(override) == "seed", override


def sweep_folder(
    verb: str, out: Any, typed: Sequence[str], several: Collection[str], listed: Collection[str] = ()
) -> Path:
    """`out`, or runs/<verb>/sweeps/<what varies and what is fixed>.

    Args:
        typed: overrides of one job.
        several: keys that were typed with several values.
        listed: keys whose values an experiment lists; a part of them goes where the whole goes.
    """
    if out not in (None, ""):
        return Path(str(out)).expanduser()
    varied = {*several, *listed}
    fixed = sorted((text for text in typed if decides(text) and key_of(text) not in varied), key=by_key)
    experiment = [text.partition("=")[2] for text in fixed if key_of(text) == "experiment"]
    fixed = [text for text in fixed if key_of(text) != "experiment"]
    moved = sorted({key_of(text) for text in typed} & (varied - {*listed}), key=by_key)
    return Path("runs") / verb / "sweeps" / folder_name([*experiment, *moved, *fixed])


def job_label(typed: Sequence[str], varied: Collection[str]) -> str:
    """The name of a job's folder: the values that vary, or all of them where none does."""
    chosen = sorted((text for text in typed if decides(text)), key=by_key)
    return folder_name([text for text in chosen if key_of(text) in varied] or chosen)


def folder_name(parts: Sequence[str]) -> str:
    """Parts with commas between them; what a folder cannot be called is replaced, and a hash keeps names apart."""
    text = ",".join(parts) or "defaults"
    plain = re.sub(r"[^\w.,=+-]", "-", text)
    if plain == text and len(plain) <= LONGEST:
        return plain
    return f"{plain[: LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def finished_before(out: Path, config: Mapping[str, Any]) -> bool:
    """True where `out` holds a finished run of this configuration.

    Raises:
        RunError: it holds a finished run of another one (a default changed since), or what is no record.
    """
    if not (out / RECORD).exists():
        return False
    from fedcl.runs.checkpoint import differences  # with all that a run needs: a mistake is answered before that

    record = read_record(out)
    if not record.get("finished"):
        return False
    changed = [text for text in differences(record.get("config") or {}, config) if decides(text.split(" was ")[0])]
    if changed:
        raise RunError(
            f"{out} holds a finished run of another configuration: {'; '.join(changed[:5])}; "
            "delete it, or type out=FOLDER for a new sweep"
        )
    return True


@contextmanager
def isolated_job() -> Iterator[None]:
    """Jobs of a sweep share one process: what one sets or holds is put back before the next."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)  # small images set it to one
        gc.collect()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
