"""Real records: every verb runs for a second; `make` edits their numbers where a test counts by hand."""

import copy
import json
from dataclasses import fields
from pathlib import Path

import pytest

from fedcl.cli.build import compose_job
from fedcl.runs.continual import run_continual
from fedcl.runs.distill import run_distill
from fedcl.runs.federated import run_federated
from fedcl.scenario.metrics import continual_part

CURVE = ((100, 0.5), (100, 0.96))
WORDS = ("config", "choices", "command")  # of a job that was typed
RUNNERS = {"federated": run_federated, "continual": run_continual, "distill": run_distill}
TINY = "model=convnet model.width=2"
TWO = f"{TINY} scenario.num_clients=2 distiller.ipc=1"
UPDATES = "strategy.training.updates=2"
SHORT = f"strategy.training.epochs=null {UPDATES}"
ONE_SHOT = f"{TWO} strategy=one_shot distiller=random {UPDATES} wire=uint8"
FEDAVG = f"{TWO} strategy=fedavg num_rounds=2 {SHORT}"
STREAM = "scenario=class_incremental_dirichlet scenario.num_steps=2"
DOMAINS = "scenario=domain_incremental scenario.transforms=['',rotate:90]"
JUDGED = "evaluation.nets=1 evaluation.plain=false evaluation.training.updates=2 evaluation.cache=null"
JOBS = {
    "fedavg": f"federated {FEDAVG}",
    "fedavg-uint8": f"federated {FEDAVG} wire=uint8",
    "one_shot": f"federated {ONE_SHOT}",
    "one_shot-python": f"federated {ONE_SHOT}",  # made from objects: no words, no command
    "feddm": f"federated {TWO} strategy=feddm wire=uint8 clients_per_round=1 num_rounds=2 strategy.steps=1 {UPDATES}",
    "federated-stream": f"federated {TWO} strategy=fedavg_replay {STREAM} distiller=random num_rounds=1 {SHORT}",
    "classes": f"continual {TINY} strategy=replay scenario.num_steps=2 buffer=images buffer.images=20 {SHORT}",
    "domains": f"continual {TINY} strategy=finetune {DOMAINS} {SHORT}",
    "dm": f"distill {TINY} distiller=dm distiller.ipc=1 distiller.steps=2 {JUDGED}",
}


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """The folder in which every job of `JOBS` has run; its pictures are empty files, which take no time."""
    root = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: Path(path).touch())
        for name, words in JOBS.items():
            verb, *overrides = words.split()
            job = compose_job(verb, overrides, root / name)
            if name.endswith("-python"):
                parts = {f.name: getattr(job, f.name) for f in fields(job)}
                job = type(job)(**{name: part for name, part in parts.items() if name not in WORDS})
            RUNNERS[verb](job)
    return root


@pytest.fixture(scope="session")
def records(real):
    """Name of a job -> its record."""
    return {name: json.loads((real / name / "record.json").read_text()) for name in JOBS}


class Makers:
    """Records for a test to save: real ones with other numbers. Changes are dotted: make.dm(**{"config.seed": 3})."""

    def __init__(self, root, records):
        self.root, self.records = root, records

    def save(self, name, record):
        """Write a record (or raw text) as `root/name/record.json` and return the folder."""
        folder = self.root / name
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(record if isinstance(record, str) else json.dumps(record))
        return folder

    def of(self, name, changes):
        record = copy.deepcopy(self.records[name])
        for path, value in changes.items():
            *parents, last = path.split(".")
            place = record
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        return record

    def federated(self, strategy="fedavg", seed=0, curve=CURVE, *, sha=None, wire="float32", **changes):
        """Rounds that cost `(bytes, accuracy)`: a quarter up, the rest down, 4 bytes of framing each way."""
        source = strategy if strategy in self.records else "fedavg"
        own = {"choices.strategy": strategy, "choices.wire": wire, "wire.dtype": wire, "seed": seed}
        if source != strategy:  # another algorithm of Flower's
            own["strategy.algorithm._target_"] = f"flwr.serverapp.strategy.{strategy}"
        record = self.of(source, {f"config.{key}": value for key, value in own.items()})
        record["rounds"] = [
            record["rounds"][0]
            | {"round": index, "accuracy": accuracy, "seconds": 0.5}
            | {"up": {"payload_bytes": size // 4 - 4, "wire_bytes": size // 4}}
            | {"down": {"payload_bytes": size - size // 4 - 4, "wire_bytes": size - size // 4}}
            for index, (size, accuracy) in enumerate(curve)
        ]
        ways = {
            way: {kind: sum(row[way][kind] for row in record["rounds"]) for kind in ("payload_bytes", "wire_bytes")}
            for way in ("up", "down")
        }
        payload, total = (sum(way[kind] for way in ways.values()) for kind in ("payload_bytes", "wire_bytes"))
        kinds = dict.fromkeys(record["communication"]["by_kind"], 0) | {"framing": total - payload, "weights": payload}
        record["communication"] |= {**ways, "total_wire_bytes": total, "by_kind": kinds}
        found = [accuracy for _, accuracy in curve if accuracy is not None]
        record["accuracy"] = {"last": found[-1], "mean_last5": sum(found[-5:]) / len(found[-5:]), "best": max(found)}
        record |= {"seed": seed, "seconds": 12.5, "command": ["fedcl", "federated", f"strategy={strategy}"]}
        record["scenario"]["sha256"] = sha or str(seed).zfill(64)
        return self._changed(record, changes)

    def continual(self, strategy="replay", seed=0, matrix=((0.9, None), (0.5, 0.7)), **changes):
        source = self.records["domains" if strategy == "finetune" else "classes"]["config"]["strategy"]
        own = {"choices.strategy": strategy, "strategy": source, "seed": seed}
        record = self.of("classes", {f"config.{key}": value for key, value in own.items()} | {"seed": seed})
        rows = [list(row) for row in matrix]
        last = sum(rows[-1]) / len(rows[-1])
        record |= {"matrix": rows, "accuracy": {"last": last, "mean_last5": last, "best": last}}
        record["continual"] |= continual_part(rows, first_step_of_group=record["scenario"]["first_steps"])
        record["memory"] |= {"bytes": 6400, "images": 100}
        return self._changed(record, changes)

    def distill(self, method="dm", seed=0, ipc=1, mean=0.88, *, random=0.6, kmeans=0.75, **changes):
        own = {"choices.distiller": method, "distiller.name": method, "distiller.ipc": ipc, "seed": seed}
        record = self.of("dm", {f"config.{key}": value for key, value in own.items()} | {"seed": seed})
        part = record["distillation"] | {"method": method, "ipc": ipc, "bytes": 640 * ipc, "seconds": 3.0}
        part["accuracy"] = {"mean": mean, "std": 0.01, "nets": 5, "values": [mean] * 5}
        for name, value in (("random", random), ("kmeans", kmeans)):
            part["controls"][name]["accuracy"] |= {"mean": value, "values": [value]}
        return self._changed(record | {"distillation": part}, changes)

    def _changed(self, record, changes):
        return Makers(self.root, {"": record}).of("", changes)


@pytest.fixture
def make(tmp_path, records):
    return Makers(tmp_path / "runs", records)


@pytest.fixture
def three_seeds(make):
    """FedAvg needs 200 bytes for 96 %, one-shot 20, 25 and 40: 10, 8 and 5 times fewer."""
    for seed, size in enumerate((20, 25, 40)):
        make.save(f"fedavg-{seed}", make.federated("fedavg", seed))
        make.save(f"one_shot-{seed}", make.federated("one_shot", seed, curve=((size, 0.97),)))
    return make
