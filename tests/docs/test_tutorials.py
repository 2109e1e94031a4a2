"""Tutorials do what they say: every command and every block of Python in them runs, at a tiny size.

A comment `<!-- tiny: ... -->` before a block adds overrides to its command; a block with a title is a file.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs/tutorials").glob("*.md"))
BLOCK = re.compile(r'(?:<!-- tiny: (.*?) -->\n)?```(bash|python|yaml|toml)(?: title="([^"]+)")?\n(.*?)```', re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs(page, command, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict = {}
    for tiny, language, title, text in BLOCK.findall(page.read_text()):
        if title:
            (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / title).write_text(text)
        elif language == "python":
            exec(compile(text, str(page), "exec"), names)
        for line in text.replace("\\\n", " ").splitlines() if language == "bash" else ():
            first, *arguments = shlex.split(line, comments=True)
            assert first == "fedcl", line
            code, _, said = command(*arguments, *shlex.split(tiny))
            assert code == 0, said


def test_there_are_four():
    assert [page.stem for page in PAGES] == ["class_incremental", "communication", "your_images", "your_strategy"]
