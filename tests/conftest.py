"""What several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def rendered():
    """For a test that looks at pictures, in a file that uses `blank_pictures`."""


@pytest.fixture
def blank_pictures(request, monkeypatch):
    """Pictures are drawn and their files exist, but are empty: rendering takes half the time of a small run."""
    if "rendered" not in request.fixturenames:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: Path(path).touch())


@pytest.fixture
def timeless():
    """A record without its times: what two runs of one job share."""

    def strip(node):
        if isinstance(node, dict):
            return {key: strip(value) for key, value in node.items() if key != "seconds"}
        return [strip(value) for value in node] if isinstance(node, list) else node

    return strip


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command here, in an empty folder: command("federated", ...) -> (status, stdout, stderr)."""
    from fedcl.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(list(arguments))
        return status, *capsys.readouterr()

    return run
