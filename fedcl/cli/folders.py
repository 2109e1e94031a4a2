"""Folders of single runs: the one that was typed, or a new one that nobody else has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from fedcl.core.errors import RunError


@contextmanager
def choose_folder(verb: str, config: Mapping[str, Any], choices: Mapping[str, str]) -> Iterator[Path]:
    """`out`, or a new `runs/<verb>/<time>-<name>`, which is removed again if the block leaves nothing in it.

    Raises:
        RunError: no folder can be made.
    """
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
    """Make `above/name`, or `name-2`, ...: the first that nobody has, so two that ask at once get two.

    Raises:
        RunError: it cannot be made.
    """
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
