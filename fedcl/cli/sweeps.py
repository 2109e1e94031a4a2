"""Folders of runs, and sweeps that survive: the same command finds the same folders, skips what is finished there.

A sweep's folder is named after what varies and what is fixed, a job's folder after the values that vary. So a
sweep can be widened too: `seed=0,1,2,3` after `seed=0,1,2` runs one seed.
"""

import gc
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedcl.cli.typed import key_of
from fedcl.core.errors import RunError
from fedcl.core.record import RECORD, read_record

FINISHED, IN_USE = "finished before", "left to another process"
LONGEST = 120  # characters of a folder's name
# keys that decide where and how, not what
ELSEWHERE = ("out", "quiet", "device", "dataset.root", "dataset.download", "tracker", "plugins", "hydra")


@dataclass(kw_only=True)
class Sweep:
    """Outcome of the jobs of one command."""

    folder: Path | None = None  # above the jobs' folders
    started: list[str] = field(default_factory=list)  # overrides of every job, as typed
    left: Counter[str] = field(default_factory=Counter)  # why a job was not run -> how many
    failed: dict[str, BaseException] = field(default_factory=dict)

    def leave(self, why: str, what: object, say: Callable[[str], None]) -> None:
        """Note that the job under way is not run."""
        self.left[why] += 1
        say(f"{why}: {what}")

    @property
    def outcome(self) -> str:
        """One line: how many jobs ended how, and how to look at them."""
        counts = {"run": len(self.started) - self.left.total() - len(self.failed), FINISHED: self.left[FINISHED]}
        counts |= {"failed": len(self.failed), IN_USE: self.left[IN_USE]}
        counted = ", ".join(f"{count} {how}" for how, count in counts.items() if count)
        return f"{len(self.started)} jobs: {counted}; compare them with: fedcl report {self.folder}"


def decides(override: str) -> bool:
    """True for an override that is part of what is run."""
    key = key_of(override)
    return not any(key == name or key.startswith(f"{name}.") for name in ELSEWHERE)


def by_key(override: str) -> tuple[bool, str]:
    """For sorting: the order of typing does not matter, and seeds come last."""
    return key_of(override) == "seed", override


@contextmanager
def choose_folder(verb: str, config: Mapping[str, Any], choices: Mapping[str, str]) -> Iterator[Path]:
    """`out`, or a new `runs/<verb>/<time>-<name>`, which is removed again if the block leaves nothing in it."""
    if config["out"] not in (None, ""):
        yield Path(str(config["out"])).expanduser()
        return
    name = choices.get("experiment") or choices.get("strategy") or choices.get("distiller") or verb
    folder = new_folder(Path("runs") / verb, f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{name}")
    try:
        yield folder
    finally:
        with suppress(OSError):  # there is something in it
            os.removedirs(folder)


def new_folder(above: Path, name: str) -> Path:
    """Make `above/name`, or `name-2`, ...: the first that nobody has, so two that ask at once get two."""
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = above / f"{name}{suffix}"
        try:
            above.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder
        except FileNotFoundError:  # somebody removed `above`, which was empty
            continue
        except OSError as error:
            if not folder.is_dir():
                raise RunError(f"{folder} cannot be made ({error.strerror}); type out=FOLDER") from None
    raise RunError(f"{above} has a thousand runs of this second; type out=FOLDER")


def sweep_folder(
    verb: str, out: Any, typed: Sequence[str], several: Collection[str], listed: Collection[str] = ()
) -> Path:
    """`out`, or runs/<verb>/sweeps/<what varies and what is fixed>, of which `typed` has one job's overrides.

    `several` are keys that were typed with several values, `listed` those whose values an experiment lists: a part of
    these goes where the whole goes.
    """
    if out not in (None, ""):
        return Path(str(out)).expanduser()
    fixed = sorted((text for text in typed if decides(text) and key_of(text) not in {*several, *listed}), key=by_key)
    experiment = [text.partition("=")[2] for text in fixed if key_of(text) == "experiment"]
    fixed = [text for text in fixed if key_of(text) != "experiment"]
    moved = sorted({key_of(text) for text in typed} & ({*several} - {*listed}), key=by_key)
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
    """True where `out` holds a finished run of this configuration; RunError where of another (a default changed)."""
    record = read_record(out) if (out / RECORD).exists() else {}
    if not record.get("finished"):
        return False
    from fedcl.runs.checkpoint import differences  # with all that a run needs: a mistake is answered before that

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
