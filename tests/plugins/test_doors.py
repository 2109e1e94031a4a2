"""A package of the user's own: how it is named, what it may bring, what is refused, and what its bugs look like."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fedcl
from fedcl.core.errors import ConfigError
from fedcl.core.plugins import describe_package, find_plugins

pytestmark = pytest.mark.usefixtures("blank_pictures")
ROOT = Path(fedcl.__file__).resolve().parents[1]


def record(folder):
    return json.loads((folder / "record.json").read_text())


def test_named_on_the_command_line(lab, command, typed, tmp_path):
    conf = str(lab / "conf")
    done = command(
        "federated", "--config-dir", conf, "plugins=[sample_lab]", "strategy=typed", *typed, "out=a", "quiet=true"
    )
    assert done == (0, "", "")
    found = record(tmp_path / "a")
    assert found["config"]["strategy"]["_target_"] == "sample_lab.methods.Mine"
    assert found["config"]["choices"]["strategy"] == "typed"
    assert "plugins" not in found["config"]
    assert "plugins=[sample_lab]" in found["command"]
    assert re.fullmatch(r"sha256 [0-9a-f]{12}", found["versions"]["sample_lab"])
    assert not find_plugins(), "for one command"
    assert "FEDCL_PLUGINS" not in os.environ


def test_named_in_the_environment(lab, command, typed, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCL_PLUGINS", "sample_lab")
    monkeypatch.setenv("FEDCL_CONFIG_DIR", str(lab / "conf"))
    assert command("federated", "strategy=typed", *typed, "out=a", "quiet=true") == (0, "", "")
    assert "sample_lab" in record(tmp_path / "a")["versions"]


def test_installed_with_an_entry_point(installed, command, typed, tmp_path):
    assert command("federated", "strategy=mine", *typed, "out=a", "quiet=true") == (0, "", "")
    assert record(tmp_path / "a")["versions"]["sample_lab"].startswith("1.2, sha256 ")
    listed = command("list", "strategy")[1]
    assert re.search(r"^  mine +A careful server$", listed, re.MULTILINE)
    assert re.search(r"^  stripes +Two classes of 8x8 images", command("list", "dataset")[1], re.MULTILINE)
    assert re.search(r"^  energy +Energy: the mean image", command("list", "objective")[1], re.MULTILINE)
    assert "_target_: sample_lab.objectives.Energy" in command("show", "objective=energy")[1]
    assert re.search(r"\bmine\b", command("federated", "--help")[1])
    assert "sample_lab" not in sys.modules or "sample_lab.methods" in sys.modules


def test_listing_runs_nothing_of_a_plugin(lab, command):
    (lab / "sample_lab/__init__.py").write_text("raise SystemExit('imported')")
    assert "energy" in command("list", "objective", "plugins=[sample_lab]")[1]
    assert "energy" in command("federated", "plugins=sample_lab", "--help")[1]


def test_beside_built_in_methods_in_one_report(rendered, installed, command, typed, tmp_path):
    short = ("strategy.training.updates=5", "augmentation@strategy.training.augmentation=none", "quiet=true")
    for strategy in ("mine", "one_shot"):
        done = command("federated", f"strategy={strategy}", *typed, *short, f"out=runs/{strategy}")
        assert done == (0, "", "")
    assert command("report", "runs")[0] == 0
    page = (tmp_path / "runs/report.html").read_text()
    assert "mine" in page
    assert "one_shot" in page
    runs, skipped = fedcl.load_runs("runs")
    assert (len(runs), skipped) == (2, [])
    fedcl.load_run("runs/mine").model()


def test_python_and_the_command_line_make_the_same_run(installed, command, typed, tmp_path):
    assert command("federated", "strategy=mine", *typed, "out=a", "quiet=true") == (0, "", "")
    job = fedcl.compose_job("federated", ["strategy=mine", *typed], tmp_path / "b")
    from dataclasses import replace

    made = fedcl.run_federated(replace(job, choices=None))
    kept = record(tmp_path / "a")["config"]
    assert json.loads(json.dumps(made["config"])) | {"choices": 0} == kept | {"choices": 0}
    assert made["config"]["choices"].items() <= kept["choices"].items()


def test_a_run_of_a_plugin_is_loaded_where_it_is_named(lab, command, typed, tmp_path):
    typed = ("plugins=[sample_lab]", "strategy=mine", *typed, "out=a", "quiet=true")
    assert command("federated", *typed) == (0, "", "")
    with pytest.raises(ConfigError, match="type plugins="):
        fedcl.load_run("a").model()
    fedcl.load_run("a", plugins=["sample_lab"]).model()


def test_a_sweep_is_named_after_what_varies(installed, command, typed, tmp_path):
    done = command("federated", "-m", "plugins=sample_lab", "strategy=mine", "seed=0,1", *typed, "quiet=true")
    assert done == (0, "", "")
    (folder,) = (tmp_path / "runs/federated/sweeps").iterdir()
    assert "plugins" not in folder.name
    assert sorted(path.name for path in folder.iterdir()) == ["seed=0", "seed=1"]


REFUSED = [  # what is typed -> a part of the line that comes back
    (["strategy=typed"], "strategy has no option 'mine'"),
    (["+strategy={_target_:sample_lab.methods.Mine}", "~strategy"], "takes away what a run needs"),
    (
        ["strategy._target_=sample_lab.methods.Mine"],
        "if sample_lab is a package of your own, type plugins=[sample_lab]",
    ),
    (["plugins=[no_such_lab]"], "plugins=no_such_lab cannot be found (there is no package 'no_such_lab'); install it"),
    (["plugins=[a-b]"], "'a-b' is no name of one; type plugins=[mypkg]"),
    (["plugins=[sample_lab]", "strategy._target_=sample_lab.methods.make_mine"], "must be a class that derives from"),
    (["plugins=[sample_lab]", "strategy._target_=sample_lab.methods.Nothing"], "cannot be imported"),
    (["plugins=[sample_lab]", "strategy._target_=sample_lab.data.Stripes"], "must be a class that derives from"),
    (["plugins=[sample_lab]", "strategy._target_=sample_labx.Mine"], "type plugins=[sample_labx]"),
    (["experiment=opens"], "plugins=[sample_lab] stands in a YAML, which cannot open a package"),
]


@pytest.mark.parametrize(("arguments", "part"), REFUSED)
def test_what_was_not_named_stays_outside(arguments, part, lab, command, tmp_path):
    (lab / "conf/experiment").mkdir()
    (lab / "conf/experiment/opens.yaml").write_text(
        "# @package _global_\nplugins: [sample_lab]\nobjective: {_target_: sample_lab.objectives.Energy}\n"
    )
    status, out, err = command("federated", "--config-dir", str(lab / "conf"), *arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert part in err
    assert not list(tmp_path.rglob("*")) or arguments[0].startswith("plugins")
    assert "sample_lab.objectives" not in sys.modules


def test_a_class_of_another_package_in_its_name(lab, command):
    (lab / "other_lab.py").write_text("from sample_lab.methods import Mine\n")
    status, _, err = command("federated", "plugins=[other_lab]", "strategy._target_=other_lab.Mine")
    assert status == 2
    assert "it is sample_lab.methods.Mine; if sample_lab is a package of your own, type plugins=[sample_lab]" in err


def test_an_option_has_one_place(lab, command):
    own = lab / "conf/strategy/federated/fedavg.yaml"
    own.write_text("_target_: sample_lab.methods.Mine\n")
    status, _, err = command("federated", "--config-dir", str(lab / "conf"), "plugins=[sample_lab]", "strategy=fedavg")
    assert status == 2
    assert f"{own} has the name of another option, {ROOT / 'configs/strategy/federated/fedavg.yaml'}; rename it" in err
    own.write_text("defaults: [mine]\n")
    own.rename(own.with_name("short.yaml"))
    status, _, err = command("federated", "--config-dir", str(lab / "conf"), "plugins=[sample_lab]", "strategy=short")
    assert status == 2
    assert "a YAML that begins with that option says federated/mine@_here_" in err
    own.with_name("short.yaml").rename(lab / "conf/strategy/flat.yaml")
    status, _, err = command("federated", "--config-dir", str(lab / "conf"), "plugins=[sample_lab]", "strategy=flat")
    assert status == 2
    assert f"strategy=flat of fedcl federated belongs in {lab / 'conf/strategy/federated'}; move" in err


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("strategy.broken=true", "a bug: KeyError: 'my own bug' (sample_lab/methods.py:LINE)"),
        ("objective.broken=true", "client 0: AttributeError: 'MatchBatch' object has no attribute 'no_such_thing'"),
    ],
)
def test_a_bug_has_file_line_and_traceback(broken, said, installed, command, typed, tmp_path):
    """At the server the run fails; at the clients all of them fail, and so does the run."""
    file = "methods" if "strategy" in broken else "objectives"
    text = (installed / f"sample_lab/{file}.py").read_text().splitlines()
    line = next(number for number, row in enumerate(text, 1) if "my own bug" in row or "no_such_thing" in row)
    status, out, err = command("federated", "strategy=mine", *typed, broken, "out=a", "quiet=true")
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1, err
    assert said.replace("LINE", str(line)) in err
    assert f"(sample_lab/{file}.py:{line})" in err
    assert err.strip().endswith("the traceback is in a/traceback.txt")
    kept = (tmp_path / "a/traceback.txt").read_text()
    assert kept.startswith("Traceback")
    assert f'sample_lab/{file}.py", line {line}' in kept


def test_a_bug_leaves_its_traceback_in_python_too(installed, typed, tmp_path):
    job = fedcl.compose_job("federated", ["strategy=mine", "strategy.broken=true", *typed], tmp_path / "a")
    with pytest.raises(KeyError):
        fedcl.run_federated(job)
    assert "my own bug" in (tmp_path / "a/traceback.txt").read_text()


def test_an_edited_file_is_another_version(lab):
    sys.path_importer_cache.clear()
    __import__("sample_lab.data")
    before = describe_package("sample_lab")
    (lab / "sample_lab/data.py").open("a").write("# edited\n")
    assert describe_package("sample_lab") != before


def test_a_broken_entry_point_says_whose(installed, command):
    (installed / "sample_lab-1.2.dist-info/entry_points.txt").write_text("[fedcl.plugins]\nlab = gone_lab\n")
    status, _, err = command("federated", "--help")
    assert status == 2
    assert "plug-in gone_lab of the distribution sample-lab cannot be found" in err


def test_a_single_module_is_a_plugin(lab, command, typed, tmp_path):
    (lab / "one_file.py").write_text((lab / "sample_lab/methods.py").read_text())
    (lab / "conf/strategy/federated/typed.yaml").write_text("_target_: one_file.Mine\n")
    choice = ("plugins=one_file,sample_lab", "strategy=typed")
    done = command("federated", "--config-dir", str(lab / "conf"), *choice, *typed, "out=a", "quiet=true")
    assert done == (0, "", "")
    assert {"one_file", "sample_lab"} <= record(tmp_path / "a")["versions"].keys()


@pytest.mark.parametrize("how", ["command", "script"])
def test_a_folder_called_strategies_beside_a_script_is_named(how, tmp_path):
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies/__init__.py").touch()
    (tmp_path / "mine.py").write_text("import fedcl\nfedcl.compose_job('federated', [], 'a')\n")
    typed = ["-m", "fedcl", "federated", "out=a"] if how == "command" else ["mine.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *typed], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == (2 if how == "command" else 1)
    said = f"but Python finds {tmp_path / 'strategies'}; give {tmp_path / 'strategies'} another name"
    assert said in done.stderr.splitlines()[-1]


def test_a_decoder_is_one_of_fedcls(installed):
    """A summary that arrives names its decoder, and must not choose code."""
    from fedcl.core.errors import WireError
    from fedcl.distill.parameterizations import load_decoder

    with pytest.raises((WireError, ConfigError)):
        load_decoder({"name": "sample_lab"})
