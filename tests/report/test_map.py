"""scripts/draw_map.py: the differences that it draws, on numbers that one can check by hand."""

import runpy
from pathlib import Path

MAP = runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / "draw_map.py"))
CELL = (1, 2)
FOUND = {
    "one_shot_dm": {CELL: {0: 90.0, 1: 92.0}},
    "one_shot_random": {CELL: {0: 80.0, 1: 84.0, 2: 99.0}},
    "one_shot_kmeans": {CELL: {0: 88.0, 1: 89.0}},
}


def test_differences_are_of_the_seeds_that_both_have():
    assert MAP["differences"](FOUND["one_shot_dm"][CELL], FOUND["one_shot_random"][CELL]) == [10.0, 8.0]


def test_the_best_selection_is_best_in_the_mean():
    assert MAP["best_selection"](FOUND, "one_shot_dm", CELL) == {0: 88.0, 1: 89.0}  # 88.5 against 87.7
    assert MAP["best_selection"](FOUND, "one_shot_dm", (9, 9)) == {}
    assert MAP["best_selection"](FOUND, "feddm", CELL) == {}  # three rounds cost more


def test_the_table_and_the_map(tmp_path):
    lines = MAP["table"](FOUND).splitlines()
    assert lines[2] == "| one_shot_dm | 1 | 2 | 91.0 ± 1.4 | +9.0 ± 1.4 | +2.5 ± 0.7 |"
    assert lines[3].endswith("|  |  |")
    MAP["draw"](FOUND, "toy", tmp_path / "map.svg")
    assert "+9.0" in (tmp_path / "map.svg").read_text()
