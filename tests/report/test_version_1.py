"""Records that fedcl 0.1.0 wrote: they are read, and stand in one group with today's runs of the same command."""

import json
import shutil
from pathlib import Path

import pytest

from fedcl.cli.build import compose_job
from fedcl.report import compare, load_runs
from fedcl.report.settings import settings
from fedcl.runs.continual import run_continual
from fedcl.runs.distill import run_distill
from fedcl.runs.federated import run_federated

RECORDS = sorted((Path(__file__).parent / "version_1").glob("*.json"))
EMPTY = ("null", "{}", "[]")
RUNNERS = {"federated": run_federated, "continual": run_continual, "distill": run_distill}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_same_command_in_both_versions(path, tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: Path(path).touch())
    (tmp_path / "then").mkdir()
    shutil.copy(path, tmp_path / "then/record.json")
    _, verb, *typed = json.loads(path.read_text())["command"]
    RUNNERS[verb](compose_job(verb, typed, tmp_path / "now"))
    runs, skipped = load_runs(tmp_path)
    assert skipped == []
    (group,) = compare(runs).groups
    assert len(group.runs) == 2
    now, old = (settings(run) for run in sorted(runs, key=lambda run: str(run.path)))
    gone = {key: value for key, value in old.items() if key not in now and value not in EMPTY}
    assert gone == {}  # every setting of 0.1.0 is one today
    assert {key: now[key] for key in old if key in now} == {key: value for key, value in old.items() if key in now}
