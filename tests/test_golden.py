"""Golden values: a change of code that moves a number is noticed, and CHANGELOG.md says why it moved."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = runpy.run_path(str(ROOT / "scripts" / "golden.py"))
VALUES = json.loads(GOLDEN["VALUES"].read_text())
HINT = "if that is meant: python scripts/golden.py --write, and say why in CHANGELOG.md"

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.mark.parametrize("name", GOLDEN["cases"]())
def test_a_small_run_gives_what_it_gave(name, tmp_path):
    moved = GOLDEN["moved"](VALUES.get(name), GOLDEN["values_of"](name, tmp_path), name)
    assert not moved, "\n".join([*moved, HINT])


def test_every_scenario_deals_as_it_dealt():
    moved = GOLDEN["moved"](VALUES.get("scenarios"), GOLDEN["scenarios"]())
    assert not moved, "\n".join([*moved, HINT])


def test_no_value_is_left_over():
    assert set(VALUES) == {"scenarios", *GOLDEN["cases"]()}


def test_moved_sees_one_digit_in_five():
    assert GOLDEN["moved"]({"a": [1.0, 2.0]}, {"a": [1.0, 2.00001]}) == []
    assert GOLDEN["moved"]({"a": [1.0, 2.0]}, {"a": [1.0, 2.0001]}) == ["a[1]: was 2.0, is 2.0001"]
    assert GOLDEN["moved"]({"a": 10}, {"a": 11}) == ["a: was 10, is 11"]
    assert GOLDEN["moved"]({"a": 1}, {"b": 1}) == ["a: was 1, is None", "b: was None, is 1"]
