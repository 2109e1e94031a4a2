"""What a run says: numbers for readers, few lines in a log, nothing when quiet."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fedcl.cli.terminal import (
    Live,
    Plain,
    live_bars,
    make_progress,
    result_line,
    show_bytes,
    show_figures,
    show_seconds,
)
from fedcl.core.progress import SILENT


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (1000, "1 kB"),
        (43_120, "43.1 kB"),
        (999_600, "1 MB"),
        (25_871_000, "25.9 MB"),
    ],
)
def test_bytes(size, text):
    assert show_bytes(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (42, "42 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_seconds(seconds, text):
    assert show_seconds(seconds) == text


def test_figures():
    assert (
        show_figures({"loss": 0.12345, "accuracy": 0.9731, "up_bytes": 43_120})
        == "loss 0.123  accuracy 0.973  up 43.1 kB"
    )


def work(progress):
    progress.begin("rounds", 2)
    for _ in range(2):
        progress.begin("distilling", 100)
        for step in range(100):
            progress.advance("distilling", loss=1 / (step + 1))
        progress.end("distilling")
        progress.advance("rounds", accuracy=0.5)
    progress.say("done")
    progress.end("rounds")


def test_plain_lines_are_few():
    stream = io.StringIO()
    work(Plain(stream))
    assert stream.getvalue() == "done\n"


def test_a_plain_line_says_where_the_work_stands():
    stream = io.StringIO()
    work(Plain(stream, pause=0))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 203  # without a pause, one for each advance
    assert lines[49].startswith("rounds 0/2  distilling 50/100  loss 0.02  distilling: about ")
    assert lines[100] == "rounds 1/2  accuracy 0.5" + lines[100][24:]


def test_remaining_time_is_of_the_outermost_work_that_moves(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fedcl.cli.terminal.time.monotonic", lambda: now[0])
    plain = Plain(io.StringIO(), pause=1000.0)
    plain.begin("rounds", 2)
    plain.begin("clients", 10)
    now[0] = 30.0
    plain.advance("clients", 3)
    assert plain.remaining() == "  clients: about 70 s left"  # three tenths took 30 s
    plain.end("clients")
    now[0] = 1000.0
    plain.begin("training", 100)
    now[0] = 1010.0
    plain.advance("training", 25)
    assert plain.remaining() == "  training: about 30 s left"  # what went before does not count
    plain.advance("rounds")
    assert plain.remaining() == "  rounds: about 16 min 50 s left"


def test_live_bars_come_and_go():
    stream = io.StringIO()
    bars = live_bars(Console(file=stream, force_terminal=True, width=100))
    live = Live(bars)
    with bars:
        live.begin("rounds", 2)
        live.begin("clients", 3)
        live.advance("clients", loss=0.5)
        assert [(t.description, t.completed, t.total, t.fields["figures"]) for t in bars.tasks] == [
            ("rounds", 0, 2, ""),
            ("clients", 1, 3, "loss 0.5"),
        ]
        live.end("clients")
        live.end("never begun")
        live.advance("clients")
        live.say("[brackets] stay")
        assert [task.description for task in bars.tasks] == ["rounds"]
    assert "[brackets] stay" in stream.getvalue()


def test_quiet_and_not_a_terminal(capsys):
    with make_progress(quiet=True) as progress:
        assert progress is SILENT
    with make_progress() as progress:
        assert isinstance(progress, Plain)
        progress.say("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_result_line():
    record = {
        "accuracy": {"last": 0.97312},
        "communication": {"up": {"wire_bytes": 43_120}, "down": {"wire_bytes": 812}},
        "seconds": 4.2,
    }
    assert result_line(record, Path("runs/x")) == "accuracy 0.9731  up 43.1 kB  down 812 B  4.2 s  runs/x"
    assert result_line({}, Path("runs/x")) == "runs/x"


def test_rounds_are_counted_from_one():
    record = {"stopped": {"by": "stop.accuracy"}, "rounds": [{"round": 0}, {"round": 1}]}
    assert result_line(record, Path("x")) == "stopped by stop.accuracy after round 2  x"
