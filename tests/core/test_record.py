import json
import os

import pytest

from fedcl.core.errors import RunError
from fedcl.core.record import (
    ROWS,
    accuracy_part,
    head_of,
    open_folder,
    read_record,
    row_line,
    write_atomically,
    write_record,
)


def test_accuracies():
    part = accuracy_part([0.1, 0.9, 0.5, 0.5, 0.5, 0.6, 0.4])
    assert part == {"last": 0.4, "mean_last5": 0.5, "best": 0.9}
    assert accuracy_part([0.25]) == {"last": 0.25, "mean_last5": 0.25, "best": 0.25}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, "old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_record(tmp_path, {"verb": "federated", "accuracy": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_not_overwritten(tmp_path):
    write_record(tmp_path, {"verb": "federated", "finished": True})
    with pytest.raises(RunError, match=r"finished run.*out="), open_folder(tmp_path):
        raise AssertionError("the folder was opened")


def test_an_unwritable_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written.*out="), open_folder(tmp_path / "file" / "run"):
        raise AssertionError("the folder was opened")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "no record.json"),
        ("{", "not a readable"),
        ("[" * 100_000, "not a readable"),
        ("[]", "not a fedcl"),
        ("{}", "not a fedcl"),
    ],
)
def test_what_is_no_record_is_said(tmp_path, content, what):
    if content is not None:
        (tmp_path / "record.json").write_text(content)
    with pytest.raises(RunError, match=what):
        read_record(tmp_path)


def test_rows_beside_an_unfinished_record_are_read_with_it(tmp_path):
    record = {"verb": "federated", "rounds": [{"round": 0}, {"round": 1}], "seed": 3, "matrix": [[0.5]]}
    write_record(tmp_path, head_of(record))
    assert json.loads((tmp_path / "record.json").read_text())["rounds"] is None
    assert read_record(tmp_path) == record | {"rounds": [], "matrix": []}
    lines = row_line(rounds={"round": 0}), row_line(rounds={"round": 1}, matrix=[0.5])
    (tmp_path / ROWS).write_text("".join(lines) + lines[1][:-1])  # the last is being written
    assert json.dumps(read_record(tmp_path)) == json.dumps(record)  # in order
    write_record(tmp_path, record)  # it failed, or is of an earlier version: the rows are its own
    assert read_record(tmp_path) == record
    with pytest.raises(ValueError, match="JSON"):
        row_line(rounds={"accuracy": float("nan")})


@pytest.mark.parametrize("damage", [b"{\n", b"3\n", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_damaged_rows_are_one_line(damage, tmp_path):
    write_record(tmp_path, {"verb": "federated", "rounds": None})
    (tmp_path / ROWS).write_bytes(damage)
    with pytest.raises(RunError, match=f"{ROWS}.*delete {tmp_path}") as caught:
        read_record(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_round_trip(tmp_path):
    record = {"verb": "federated", "finished": False, "rounds": [{"accuracy": 1 / 3}]}
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record == json.loads((tmp_path / "record.json").read_text())
