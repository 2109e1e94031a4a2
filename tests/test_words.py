"""The field's words: private names that were given up do not come back as names of anything."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIVEN_UP = set(  # names of 0.1.0; each has one now that a newcomer in the field can guess
    re.findall(
        r"\w+",
        """
        Workbench workbench bench Tools pool Pool PoolSource Given Between Nothing Side turn again combine client_memory
        learn_images extra lr_extra fair Judge judge Lot lot lots judgement keeper Keeper Slot rehearsal rehearse beside
        Cells dealing cut world ClientWorld ClientJob Rebuild brief beforehand apart some naming spell words
        """,
    )
)


def defined(tree: ast.AST) -> set[str]:
    """Names that a module gives to classes, functions, parameters and fields; a local variable is nobody else's."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def test_no_name_is_one_that_was_given_up():
    found = {}
    for package in ("fedcl", "strategies", "scenarios"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name == "record_schema.py":  # keys of records, which stay readable
                continue
            names = defined(ast.parse(path.read_text())) | {path.stem}
            if taken := {name for name in names if name.lstrip("_") in GIVEN_UP}:
                found[str(path.relative_to(ROOT))] = sorted(taken)
    assert not found, "\n".join(f"{path}: {names}" for path, names in found.items())


def test_a_name_that_was_given_up_would_be_seen():
    module = "class Side:\n    again: int\n\n    def turn(self, bench):\n        cut = 1\n"
    assert defined(ast.parse(module)) == {"Side", "again", "turn", "self", "bench"}
