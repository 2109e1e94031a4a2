"""The command line as a user meets it: help, composition, sweeps, and every kind of bad input."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from fedcl import __version__
from fedcl.cli.build import VERBS, compose_config, parts_of
from fedcl.cli.overrides import for_each_job, qualify
from fedcl.cli.usage import groups_of
from fedcl.core.errors import RunError
from fedcl.core.paths import option_files

pytestmark = pytest.mark.usefixtures("blank_pictures")

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "distiller=random",
    "distiller.ipc=1",
    "strategy.training.updates=2",
    "model.width=4",
    "scenario.num_clients=2",
)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


WRITES = "_target_:fedcl.core.record.write_atomically,path:{_target_:fedcl.core.paths.Path,_args_:[written]},data:hello"
BAD = {  # what is typed -> a part of the one line that must come back; values that do not fit are in test_build.py
    "unknown option": (["dataset=cifar101"], "(did you mean cifar10?); choose one of: cifar10, cifar100, csv, digits"),
    "misspelt key": (["scenario.alpah=3"], "did you mean scenario.alpha?"),
    "misspelt group": (["stratgy=fedavg"], "did you mean strategy?"),
    "misspelt top key": (["sed=3"], "did you mean seed?"),
    "added key": (["+scenario.foo=3"], "scenario has no key 'foo'; it takes alpha"),
    "flag for a key": (["--seed", "3"], "values are typed as key=value: seed="),
    "flag without its value": (["--cfg"], "--cfg shows one of job, hydra, all; type --cfg job"),
    "override for its value": (["-c", "seed=3"], "-c shows one of job"),
    "rate of an optimiser": (["distiller.optimizer.lr=-1"], "cannot be made from lr=-1, momentum=0.5"),
    "two values without -m": (["seed=1,2"], "type -m"),
    "bad grammar": (["seed=[1"], "cannot be read"),
    "no group option": (["model=null"], "model takes the name of an option: alexnet, convnet"),
    "fraction for a whole": (["seed=3.5"], "seed=3.5 does not fit; it must be a whole number"),
    "foreign target": (["model._target_=os.system"], "is not allowed"),
    "alpha 0": (["scenario.alpha=0"], "scenario.alpha=0 must be a number > 0; type scenario.alpha=0.5"),
    "rate of a client": (["strategy.training.lr=-1"], "must be a number > 0; type strategy.training.lr=0.01"),
    "rate of an evaluator": (
        ["strategy.training.augmentation.cutmix=2"],
        "type strategy.training.augmentation.",
    ),
    "axis": (["networks=queue", "networks.size=0"], "networks.size=0 must be a whole number >= 1"),
    "number of a job": (["evaluate_every=0"], "evaluate_every=0 must be a whole number >= 1; type evaluate_every=1"),
    "list of a part": (["model=mlp", "model.hidden=[4,0]"], "model.hidden=[4, 0] must be a list [...] of at least one"),
    "too many shards": (["scenario=shards", "scenario.classes_per_client=11"], "classes_per_client"),
    "missing data": (["dataset=mnist", "dataset.root=nowhere"], "dataset.download=true"),
    "no npz": (["dataset=npz"], "dataset.path"),
    "npz of objects": (["dataset=npz", "dataset.path=objects.npz"], "object"),
    "path of 5,000 letters": (["dataset=npz", f"dataset.path={'x' * 5000}"], "(5000 characters) is no path that can"),
    "root of 5,000 letters": (["dataset=mnist", f"dataset.root={'x' * 5000}"], "type dataset.root=PATH"),
    "nobody's home": (["dataset=npz", "dataset.path=~nosuchuser/x.npz"], "dataset.path=~nosuchuser/x.npz is no path"),
    "nobody's out": (["out=~nosuchuser/x"], "out=~nosuchuser/x is no path"),
    "out of 5,000 letters": ([f"out={'x' * 5000}"], "type out=PATH"),
    "group taken away": (["~strategy"], "~strategy takes away what a run needs; leave it out, or type strategy="),
    "data taken away": (["~dataset"], "~dataset takes away what a run needs"),
    "seed taken away": (["~seed"], "~seed takes away what a run needs; leave it out, or type seed=..."),
    "stop taken away": (["~stop"], "~stop takes away what a run needs"),
    "quiet taken away": (["~quiet"], "~quiet takes away what a run needs"),
    "null taken away": (["~out"], "~out takes nothing away"),
    "unknown key added": (["+foo=1"], "there is no key 'foo'"),
    "unknown keys added": (["+foo.bar=1"], "there is no key 'foo'"),
    "misspelt key forced": (["++sed=1"], "there is no key 'sed' (did you mean seed?)"),
    "group added": (["+strategy=fedavg"], "strategy is chosen without +: type strategy=fedavg"),
    "text like a reference": (["out=a%b/${x}"], "the text itself is typed '\\${x}'"),
    "no such variable": (["seed=${oc.env:NO_SUCH_VARIABLE}"], "there is no environment variable NO_SUCH_VARIABLE"),
    "group of another verb": (["buffer=5"], "fedcl federated has no buffer (fedcl continual has it)"),
    "number for a group": (["model=5"], "model takes the name of an option: alexnet, convnet, "),
    "rate": (["lr=0.1"], "(did you mean distiller.optimizer.lr or strategy.training.lr?)"),
    "images a class": (["ipc=10"], "(did you mean distiller.ipc?)"),
    "rate of a strategy": (["strategy.lr=0.1"], "(did you mean strategy.training.lr or distiller.optimizer.lr?)"),
    "mapping for a text": (["device={}"], "device={} does not fit; it must be a text"),
    "quoted mapping": (["device='{}'"], "device={} is no device; type device=cpu"),
    "mapping for a switch": (["quiet={}"], "quiet={} does not fit; it must be true or false"),
    "number for a switch": (["quiet=3"], "quiet=3 does not fit"),
    "mapping for a folder": (["out={}"], "out={} does not fit"),
    "beyond a float": (
        ["stop.accuracy=1e400"],
        "stop.accuracy=inf must be a number in (0, 1], or null; type",
    ),
    "beyond any float": (["stop.accuracy=1" + "0" * 400], "stop.accuracy=a number of 1329 bits is too large"),
    "beyond 64 bits": (["num_rounds=1" + "0" * 30], "too large; type a number below 2^63"),
    "package without its value": (["--package"], "type --cfg job --package distiller"),
    "override for a package": (["--package", "seed=3"], "--package needs the name of a group"),
    "no config folder": (["--config-dir", "nowhere"], "'nowhere' is none; type --config-dir FOLDER"),
    "nothing to inform of": (["--info"], "type --info defaults"),
    "no value": (["seed"], "'seed' is no key=value; type seed=VALUE"),
    "no key": (["=3"], "'=3' names no key"),
    "nothing": ([""], "'' is no key=value"),
    "null for a group": (["wire=null"], "wire=null: wire takes the name of an option: float16, float32, uint8"),
    "several options without -m": (["strategy=fedavg,feddm"], "type -m before them"),
    "sweep of nothing": (["-m", "seed=range(0)"], "the sweep has no job"),
    "class that a group lacks": (["model._target_=scenarios.iid.IID"], "derives from Model (fedcl.models.base)"),
    "function for a class": (
        ["~wire.dtype", "++wire._target_=fedcl.cli.main.main"],
        "derives from Wire (fedcl.core.coding)",
    ),
    "file written by a class": (
        ["~wire.dtype", f"++wire={{{WRITES}}}"],
        "wire._target_=fedcl.core.record.write_atomically is not allowed",
    ),
    "file written by Hydra": (
        [f"+hydra.callbacks.x={{{WRITES}}}"],
        "hydra.callbacks.x._target_=fedcl.core.record.write_atomically is not allowed",
    ),
    "launcher that is none": (["-m", "hydra.launcher._target_=os.system"], "hydra.launcher._target_=os.system is not"),
    "launcher that is not here": (["-m", "hydra/launcher=joblib"], "type pip install hydra-joblib-launcher"),
    "search path": (["hydra.searchpath=[file:///tmp]"], "--config-dir FOLDER"),
    "unwritable out": (["out=/dev/null/run"], "cannot be written"),
    "finished out": (["out=finished"], "already holds a finished run"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, command, tmp_path):
    np.savez("objects.npz", **{key: np.array(["x", None]) for key in ("x_train", "y_train", "x_test", "y_test")})
    (tmp_path / "finished").mkdir()
    (tmp_path / "finished" / "record.json").write_text('{"verb": "federated", "finished": true}')
    before = files(tmp_path)
    arguments, part = BAD[case]
    status, out, err = command("federated", *arguments)
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1, err
    assert part in err
    assert "Traceback" not in err
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nothing"], "type fedcl with one of: federated"),
        (["list", "stratgy"], "there is no group 'stratgy' (did you mean strategy?); choose one of: augmentation"),
        (["list", "model", "wire"], "fedcl list takes the name of one group"),
        (["list", "model=mlp"], "fedcl list takes the name of one group"),
        (["list", "--all"], "fedcl list has no flag --all"),
        (["show"], "type fedcl show GROUP=OPTION"),
        (["show", "model"], "type fedcl show GROUP=OPTION"),
        (["show", "model=mpl"], "model has no option 'mpl' (did you mean mlp?); type fedcl show model= and one of"),
        (["show", "mdl=mlp"], "there is no group 'mdl'"),
        (["report"], "RUN_DIR"),
        (["report", "nowhere"], "nowhere"),
        (["report", "r", "--out", "x"], "fedcl report has no flag --out; type out=FOLDER"),
        (["report", "r", "--out=x"], "type out=x"),
        (["report", "r", "out="], "out= names no folder"),
        (["report", "r", "ou=x"], "no key 'ou' (did you mean out?)"),
        (["report", "x" * 5000], "is no path that can exist here"),
        (["distill", "strategy=fedavg"], "fedcl distill has no strategy (fedcl federated and fedcl continual have it)"),
        (["distill", "strategy.lr=1"], "fedcl distill has no strategy"),
        (["continual", "buffer=5"], "buffer takes the name of an option: bytes, images, per_class"),
        (["continual", "~buffer"], "~buffer takes away what a run needs"),
        (["continual", "strategy=fedavg"], "strategy has no option 'fedavg'; choose one of: compress_recall"),
    ],
)
def test_bad_commands(arguments, part, command, tmp_path):
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert part in err
    assert files(tmp_path) == []


def test_help_and_version(command, tmp_path):
    assert command("--version") == (0, f"fedcl {__version__}\n", "")
    status, bare, _ = command()
    assert status == 0
    assert command("--help")[1] == bare
    for verb in VERBS:
        assert f"fedcl {verb}" in bare
        assert command(verb, "--help")[0] == 0
    assert command("report", "--help")[0] == command("report", "-h")[0] == 0
    assert "fedcl report runs" in command("report", "--help")[1]
    assert files(tmp_path) == []


def test_help_of_a_verb_lists_its_own_groups_and_keys(command):
    """Read beside what is composed: every group of the verb, none of the others, every key of its own."""
    for verb in VERBS:
        text = command(verb, "--help")[1]
        listed = set(re.findall(r"^  (\w+) +\w.*$", text.split("Keys,")[0], re.MULTILINE))
        assert listed == {*groups_of(verb)}, "every group has its word in the YAML"
        config = compose_config(verb, [])
        assert {group for group in config if group in listed} | {"tracker", "experiment", "method"} >= listed
        assert {*parts_of(verb)} - {"stop", "limits", "architectures"} <= listed
        keys = set(re.findall(r"^  ([\w.]+)=", text, re.MULTILINE))
        assert {"seed", "device", "out", "quiet"} <= keys
        assert all(OmegaConf.select(config, key, default=key) != key for key in keys)
    continual = command("continual", "--help")[1]
    assert not re.findall(r"^  (runtime|wire|method|evaluation) ", continual, re.MULTILINE)
    assert "distilled_replay*" in continual
    assert "one_shot" not in continual
    assert re.search(r"^  experiment +a whole .*\n +continual_gdumb, continual_hsu, continual_memory$", continual, re.M)
    assert "runs/continual/<time>" in continual


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--version"], ["--help"], ["help"], ["federated", "--help"], ["nothing"], ["report"]),
        *(["list"], ["list", "strategy"], ["show", "model=mlp"]),
    ],
)
def test_what_needs_no_run_imports_nothing_heavy(arguments):
    code = (
        "import sys; from fedcl.cli.main import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'hydra', 'omegaconf', 'numpy', 'flwr', 'matplotlib', 'rich'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == (2 if arguments in (["nothing"], ["report"]) else 0), done.stderr


def test_list_says_a_line_about_every_option(command, tmp_path):
    status, out, err = command("list")
    assert (status, err) == (0, "")
    groups = {group for verb in VERBS for group in groups_of(verb)}
    assert set(re.findall(r"^  (\w+) {2,}\w", out, re.MULTILINE)) == groups
    for group in groups:
        status, out, _ = command("list", group)
        assert status == 0
        lines = dict(re.findall(r"^  ([\w]+)\*? {2,}(\S.*)$", out, re.MULTILINE))
        assert lines.keys() == {name.rpartition("/")[2] for name in option_files(group)}, "each with its line"
        assert max(map(len, out.splitlines())) <= 120
    assert re.search(
        r"^  distribution\* +Distribution matching: class means of features.$", command("list", "objective")[1], re.M
    )
    assert re.search(r"^  fedavg +McMahan et al., AISTATS 2017", command("list", "strategy")[1], re.M), (
        "a class of many"
    )
    assert files(tmp_path) == []


def test_show_says_numbers_and_source(command, root):
    status, out, err = command("show", "strategy=one_shot")
    assert (status, err) == (0, "")
    file = root / "configs/strategy/federated/one_shot.yaml"
    assert out.splitlines()[0] == str(file)
    assert file.read_text().strip() in out
    inherited = command("show", "evaluation=published")[1]
    assert "nets: 5" in inherited
    assert f"which begins with {root / 'configs/evaluation/quick.yaml'}" in inherited


def test_a_foreign_yaml_makes_nothing_be_called(command, tmp_path):
    """What a folder of --config-dir says is checked as what is typed, for fedcl and for Hydra itself."""
    path = "{_target_: fedcl.core.paths.Path, _args_: [written]}"
    writes = f"{{_target_: fedcl.core.record.write_atomically, path: {path}, data: x}}"
    options = {
        "part": f"wire: {{dtype: {writes}}}",
        "callback": f"hydra: {{callbacks: {{x: {writes}}}}}",
        "logging": "hydra: {job_logging: {root: {handlers: [x]}, "
        "handlers: {x: {(): fedcl.core.record.write_atomically}}}}",
    }
    (tmp_path / "conf/experiment").mkdir(parents=True)
    for name, text in options.items():
        (tmp_path / f"conf/experiment/{name}.yaml").write_text(f"# @package _global_\n{text}\n")
    before = files(tmp_path)
    for typed in (
        ["experiment=part"],
        ["experiment=callback"],
        ["experiment=logging"],
        ["-m", "experiment=logging,part"],
    ):
        status, _, err = command("federated", "--config-dir", "conf", *typed, *TINY, "quiet=true")
        assert status == 2, typed
        assert "is not allowed" in err
        assert "Traceback" not in err
        assert [name for name in files(tmp_path) if not name.startswith("runs")] == before


def test_a_folder_with_configurations_of_ones_own(command, tmp_path):
    (tmp_path / "conf/wire").mkdir(parents=True)
    (tmp_path / "conf/wire/mine.yaml").write_text("_target_: fedcl.core.coding.Wire\ndtype: float16\n")
    assert command("federated", "--config-dir", "conf", "wire=mine", *TINY, "quiet=true", "out=here") == (0, "", "")
    assert json.loads((tmp_path / "here/record.json").read_text())["config"]["wire"]["dtype"] == "float16"


def test_values_of_the_environment_are_in_no_file(command, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2secret")
    typed = [*TINY, "dataset.root=${oc.env:TOKEN}", "quiet=true"]

    def run(*more):
        status, out, err = command("federated", *typed, *more)
        holding = [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
        assert not holding
        assert "hunter2" not in out + err
        return status, out + err

    assert run("out=here") == (0, "")
    record = json.loads((tmp_path / "here/record.json").read_text())
    assert record["config"]["dataset"]["root"].startswith("${oc.env:TOKEN} (")
    assert "dataset.root=${oc.env:TOKEN}" in record["command"]
    assert run("-m", "seed=0,1", "out=sweep")[0] == 0
    written = [(path, path.stat().st_mtime_ns) for path in sorted(tmp_path.glob("sweep/*/record.json"))]
    assert len(written) == 2
    assert run("-m", "seed=0,1", "out=sweep")[0] == 0
    assert written == [(path, path.stat().st_mtime_ns) for path, _ in written], "finished before"
    with monkeypatch.context() as other:
        other.setenv("TOKEN", "elsewhere")
        assert run("-m", "seed=0,1", "out=sweep")[0] == 0, "where data lies is not what is run"


def test_a_path_with_spaces_and_accents(command, tmp_path):
    assert command("federated", *TINY, "quiet=true", "out=my runs/ü") == (0, "", "")
    assert (tmp_path / "my runs/ü/record.json").is_file()


def test_after_a_run_the_next_step_is_told(command):
    _, out, _ = command("federated", *TINY, "out=here")
    result, after = out.splitlines()
    assert result.endswith("  here")
    assert after == "look at it, alone or beside other runs, with: fedcl report here"


def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(command, tmp_path, monkeypatch, timeless):
    typed = ["federated", *TINY, "strategy=fedavg", "strategy.training.epochs=null", "num_rounds=2", "quiet=true"]
    assert command(*typed, "out=whole") == (0, "", "")
    whole = timeless(json.loads((tmp_path / "whole/record.json").read_text()))
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) >= 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    for place, more in (("out=here", []), ("out=sweep", ["-m"])):
        calls.clear()
        with monkeypatch.context() as disk:
            disk.setattr("os.fsync", full)
            status, out, err = command(*typed, place, *more)
        assert (status, out) == (2, "")
        lines = [line for line in err.splitlines() if "jobs failed" not in line]
        assert len(lines) == 1, err
        assert "a file could not be written: No space left on device; " in err
        assert "make room and type the same command again to go on" in err
        assert not list(tmp_path.rglob(".*.*")), "halves of files"
        assert command(*typed, place, *more) == (0, "", "")
    records = [*tmp_path.glob("here/record.json"), *tmp_path.glob("sweep/*/record.json")]
    assert len(records) == 2
    for path in records:
        record = timeless(json.loads(path.read_text()))
        assert {**record, "command": []} == {**whole, "command": []}


def test_output_that_cannot_be_written(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "fedcl", "--help"], stdout=full, stderr=subprocess.PIPE, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "fedcl: a file could not be written: No space left on device; "
        "make room or choose another place, and type the same command again"
    ]


SWALLOWS = """
import os, signal, sys, time

trigger = sys.argv.pop(1)

class Finder:
    # a library that Ctrl-C meets while it is imported, and that swallows what comes
    def find_spec(self, name, path=None, target=None):
        if name == trigger:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            except KeyboardInterrupt:
                if name in ("torch", "hydra", "rich"):
                    return None
                raise

sys.meta_path.insert(0, Finder())
from fedcl.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("yaml", []), ("hydra", []), ("torch", []), ("torch", ["-m", "seed=0,1"]), ("rich", ["-m", "seed=0,1"])],
)
def test_ctrl_c_while_modules_are_imported(module, arguments, tmp_path):
    """`yaml` is imported before the handler is there: Python's own KeyboardInterrupt is enough for it."""
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWS, module, "federated", *TINY, "out=here", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fedcl: interrupted\n")
    assert files(tmp_path) == []


@pytest.mark.parametrize("verb", VERBS)
def test_cfg_job_shows_the_configuration_and_runs_nothing(verb, command, tmp_path):
    status, out, err = command(verb, "device=cpu", "--cfg", "job", "seed=7")  # overrides on both sides of a flag
    assert (status, err) == (0, "")
    assert "seed: 7" in out
    assert files(tmp_path) == []


def test_qualify():
    assert qualify("federated", "strategy=fedavg") == "strategy=federated/fedavg"
    assert qualify("federated", "strategy=a,b2") == "strategy=federated/a,federated/b2"
    assert qualify("federated", "strategy=choice(a,b)") == "strategy=choice(federated/a,federated/b)"
    assert qualify("federated", "strategy=federated/a") == "strategy=federated/a"
    assert qualify("federated", "strategy.mu=a") == "strategy.mu=a"
    assert qualify("federated", "model=mlp") == "model=mlp"


def test_a_run_leaves_its_record_and_nothing_of_hydra(command, tmp_path):
    environment = dict(os.environ)
    status, out, _ = command("federated", *TINY, "seed=3")
    assert status == 0
    (folder,) = (tmp_path / "runs" / "federated").iterdir()
    assert folder.name.endswith("-one_shot")
    assert str(folder.relative_to(tmp_path)) in out
    record = json.loads((folder / "record.json").read_text())
    assert record["finished"] is True
    assert record["seed"] == record["config"]["seed"] == 3
    assert record["config"]["choices"]["strategy"] == "one_shot"
    assert "out" not in record["config"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    assert not list(tmp_path.rglob("*.log")) + list(tmp_path.rglob("multirun.yaml")) + list(tmp_path.rglob(".hydra"))
    assert dict(os.environ) == environment


def test_quiet_says_nothing(command):
    assert command("federated", *TINY, "quiet=true", "out=here") == (0, "", "")


def stand_in(monkeypatch, run):
    monkeypatch.setattr("fedcl.runs.federated.run_federated", run)


def test_a_sweep_goes_on_after_a_failure(command, tmp_path, monkeypatch):
    seen = []

    def run(job, progress):
        seen.append((job.seed, job.choices["strategy"], job.out, job.command))
        if job.seed == 1:
            raise RunError("every client failed")
        job.out.mkdir(parents=True)
        return {"accuracy": {"last": 0.5}}

    stand_in(monkeypatch, run)
    status, out, err = command("federated", "-m", "seed=0,1", "strategy=one_shot,fedavg")
    assert status == 2
    assert [case[:2] for case in seen] == [(s, n) for s in (0, 1) for n in ("one_shot", "fedavg")]
    assert len({case[2] for case in seen}) == 4, "every job has its own folder"
    assert seen[1][3] == ["fedcl", "federated", "seed=0", "strategy=fedavg"]
    assert len(out.splitlines()) == 3, "a line a job, and one about the sweep"
    assert err.splitlines() == [
        "fedcl: [seed=1 strategy=one_shot] every client failed",
        "fedcl: [seed=1 strategy=fedavg] every client failed",
        "fedcl: 2 of 4 jobs failed: seed=1 strategy=one_shot; seed=1 strategy=fedavg",
    ]
    assert not list(tmp_path.rglob("multirun.yaml"))


def test_an_unknown_option_stops_a_sweep_before_it_starts(command, tmp_path, monkeypatch):
    stand_in(monkeypatch, lambda job, progress: pytest.fail("started"))
    status, _, err = command("federated", "-m", "strategy=one_shot,fedavgg")
    assert status == 2
    assert "did you mean fedavg?" in err
    assert files(tmp_path) == []


def test_ctrl_c(command, monkeypatch):
    def run(job, progress):
        raise KeyboardInterrupt

    stand_in(monkeypatch, run)
    status, _, err = command("federated")
    assert status == 130
    assert err.startswith("fedcl: interrupted; to go on, type the same command with out='runs/federated/")


def test_a_bug_is_one_line_with_file_and_line_and_its_traceback_lies_in_the_folder(command, tmp_path, monkeypatch):
    def run(job, progress):
        raise ValueError("a defect\nof two lines")

    line = run.__code__.co_firstlineno + 1
    stand_in(monkeypatch, run)
    status, out, err = command("federated", "out=here")
    assert (status, out) == (1, "")
    assert err == (
        f"fedcl: a bug: ValueError: a defect of two lines (tests/cli/test_cli.py:{line}); "
        "the traceback is in here/traceback.txt\n"
    )
    text = (tmp_path / "here/traceback.txt").read_text()
    assert text.startswith("Traceback")
    assert 'raise ValueError("a defect' in text
    status, out, err = command("federated")  # a folder of fedcl's own choice
    assert status == 1
    (kept,) = (tmp_path / "runs").rglob("traceback.txt")
    assert str(kept.relative_to(tmp_path)) in err


def test_a_mistake_after_an_earlier_bug_is_a_mistake(command, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/traceback.txt").write_text("of last week")
    assert command("federated", *TINY, "out=here", "scenario=shards", "scenario.classes_per_client=11")[0] == 2
    assert command("federated", *TINY, "out=here", "quiet=true") == (0, "", "")
    assert not (tmp_path / "here/traceback.txt").exists()


def test_values_below_swept_options_are_given_to_each_job():
    swept = ["distiller=idc,ncfm", "parameterization.factor=1", "seed=0", "+a.b=1", "~c.d", "a.b=[1,2]", "x.y=1,2"]
    assert for_each_job(swept) == [
        *("distiller=idc,ncfm", "parameterization.factor=choice(1)", "seed=0"),
        *("+a.b=1", "~c.d", "a.b=choice([1,2])", "x.y=1,2"),
    ]
    assert for_each_job(["seed=0,1", "scenario.alpha=1"]) == ["seed=0,1", "scenario.alpha=1"]  # no option varies
    assert for_each_job(["distiller=a,b", "x.y={"]) == ["distiller=a,b", "x.y={"]  # Hydra's to complain about


@pytest.mark.parametrize(
    ("typed", "now"),
    [
        ("pool=fresh", "networks=..."),
        ("networks=given", "networks=around_global"),
        ("distiller.pool.lr=3", "distiller.networks.lr=..."),
        ("distiller.lr_extra=1", "distiller.lr_scalars=..."),
        ("distiller.learn_images=false", "distiller.optimise_images=..."),
    ],
)
def test_an_old_name_says_the_new_one(command, typed, now):
    code, _, said = command("distill", typed)
    assert code == 2
    assert now in said
