"""The example script is documentation that runs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import torch


def test_the_example_runs_and_its_report_has_its_numbers(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    try:
        names = runpy.run_path(str(root / "scripts" / "example_notebook.py"))
    finally:
        torch.set_num_threads(threads)
    page = Path(capsys.readouterr().out.splitlines()[-1])
    assert page == Path("runs/example/report.html")
    assert page.is_file()
    assert (tmp_path / "runs" / "example" / "mine.png").is_file()
    assert names["skipped"] == []
    assert len(names["runs"]) == 4
    federated, continual = names["compare"](names["runs"]).groups
    assert (federated.verb, continual.verb) == ("federated", "continual")
    assert len(federated.methods) == 3
    assert [method.family for method in federated.baselines] == ["fedavg"]
    assert len(names["continual"]["matrix"]) == 5
    record = json.loads((tmp_path / "runs" / "example" / "one_shot" / "record.json").read_text())
    assert record["config"]["choices"]["strategy"] == "one_shot"
    assert record["config"]["distiller"]["ipc"] == 2
    assert record["accuracy"]["last"] == names["record"]["accuracy"]["last"] > 0.3  # ten classes: chance is 0.1
    assert names["cut"]["communication"]["total_wire_bytes"] >= 50_000
