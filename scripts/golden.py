"""Golden values: what small runs of every verb, strategy, scenario and preset give, to seven digits.

    python scripts/golden.py            compares with tests/golden/values.json and says what moved
    python scripts/golden.py --write    replaces the file; CHANGELOG.md says why a value moved

The runs have the defaults of configs/ except for their lengths. `tests/test_golden.py` compares the same
values in the default test run. A tensor is named by its norm and by a sum that depends on order and sign.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fedcl.cli.build import compose_job
from fedcl.data.digits import Digits
from fedcl.runs.continual import run_continual
from fedcl.runs.distill import run_distill
from fedcl.runs.federated import run_federated

ROOT = Path(__file__).resolve().parent.parent
VALUES = ROOT / "tests" / "golden" / "values.json"
CONFIGS = ROOT / "configs"
RUN = {"federated": run_federated, "continual": run_continual, "distill": run_distill}

SMALL = ["device=cpu", "seed=0", "model.width=4"]
ENGINE = ["distiller.steps=2", "distiller.real_batch=8", "distiller.ipc=2"]
UPDATES = ["strategy.training.updates=4", "strategy.training.batch_size=16"]
TRAINING = [*UPDATES, "strategy.training.epochs=null"]
JUDGED = ["evaluation.nets=1", "evaluation.training.updates=4", "evaluation.cache=null", "evaluation.plain=false"]
OWN = {  # lengths, where an option has them under keys of its own
    "federated/one_shot": UPDATES,
    "federated/feddm": [*UPDATES, "strategy.steps=2"],
    "federated/fedaf": [*UPDATES, "strategy.steps=2"],
    "federated/fedcache": [*TRAINING, "strategy.server_training.updates=4"],
    "federated/bulyan": [*TRAINING, "scenario.num_clients=7", "strategy.algorithm.num_malicious_nodes=1"],
    "federated/krum": [*TRAINING, "strategy.algorithm.num_malicious_nodes=1"],
    "federated/multikrum": [*TRAINING, "scenario.num_clients=7", "strategy.algorithm.num_malicious_nodes=1"],
    "continual/gdumb": ["strategy.training.epochs=1"],
    "continual/eeil": [*TRAINING, "strategy.balanced=${strategy.training}"],
    "distill/mtt": [
        *("networks.folder={folder}/experts", "networks.num_experts=1", "networks.max_start=1", "networks.stretch=1"),
        "objective.inner_steps=2",
    ],
    "distill/frepo": ["networks.size=2"],
    "distill/ncfm": ["networks.size=2", "networks.epochs=1", "objective.frequencies=16", "distiller.real_batch=32"],
    "distill/rded": ["networks.epochs=1"],
    "distill/dcc": ["objective.warm_up=1"],
    "distill/dd": ["objective.inner_steps=2"],
    "distill/sldd": ["objective.inner_steps=2"],
    "distill/label_only": ["objective.inner_steps=2"],
    "distill/rat_bptt": ["objective.inner_steps=4", "objective.window=2"],
}


def options(group: str) -> list[str]:
    """The options of a group of configs/."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def cases() -> dict[str, tuple[str, list[str]]]:
    """Name -> (verb, overrides) of every run."""
    clients = ["scenario=iid", "scenario.num_clients=5", "num_rounds=2", *SMALL, *ENGINE]
    # no norm: behind one, a bias has a gradient of rounding errors, of which Adam makes whole steps
    learner = ["device=cpu", "seed=0", "model=mlp", "model.hidden=[16]", *ENGINE, "buffer.ipc=2"]
    stream = ["scenario=class_incremental_dirichlet", *SMALL, *ENGINE, "num_rounds=1", *TRAINING]
    found = {f"federated/{name}": ("federated", [*clients, *chosen]) for name, chosen in own("federated", TRAINING)}
    found["federated/one_shot uint8"] = ("federated", [*found["federated/one_shot"][1], "wire=uint8"])
    for name in options("compress"):
        if name != "none":  # which is federated/fedavg
            found[f"federated/fedavg {name}"] = ("federated", [*found["federated/fedavg"][1], f"compress={name}"])
    found["federated/stream"] = ("federated", [*stream, "strategy=fedavg_replay"])
    found |= {f"continual/{name}": ("continual", [*learner, *chosen]) for name, chosen in own("continual", TRAINING)}
    found["continual/domains"] = ("continual", [*found["continual/replay"][1], "scenario=domain_incremental"])
    for name in options("distiller"):
        typed = [f"distiller={name}", *ENGINE, *OWN.get(f"distill/{name}", []), *JUDGED]
        found[f"distill/{name}"] = ("distill", [*SMALL, *typed])
    return found


def own(verb: str, usual: list[str]) -> list[tuple[str, list[str]]]:
    """Every strategy of a verb, and what is typed for it."""
    found = [(name, OWN.get(f"{verb}/{name}", usual)) for name in options(f"strategy/{verb}")]
    return [(name, [f"strategy={name}", *typed]) for name, typed in found]


def values_of(name: str, folder: Path) -> dict[str, Any]:
    """Run one case in `folder` and give its numbers."""
    verb, overrides = cases()[name]
    typed = [text.replace("{folder}", str(folder)) for text in overrides]
    job = compose_job(verb, typed, folder / "run")
    record = RUN[verb](job)
    if verb == "distill":
        made = record["distillation"]
        return {
            "loss": [seven(loss) for _, loss in made["loss"]],
            "bytes": made["bytes"],
            "accuracy": seven(made["accuracy"]["mean"]),
            **fingerprints(folder / "run" / "summaries" / "summary.safetensors"),
        }
    found: dict[str, Any] = {"accuracy": seven(record["accuracy"]["last"])}
    if "communication" in record:
        found["payload_bytes"] = {way: record["communication"][way]["payload_bytes"] for way in ("up", "down")}
        found["wire_bytes"] = record["communication"]["total_wire_bytes"]
    if "matrix" in record:
        found["matrix"] = [[None if value is None else seven(value) for value in row] for row in record["matrix"]]
    return found | fingerprints(folder / "run" / "checkpoint.safetensors")


def fingerprints(file: Path) -> dict[str, dict[str, list[float]]]:
    """{group: [norm, mixed sum]} of the tensors of a file; a group is the first word of a name."""
    groups: dict[str, list[Tensor]] = {}
    with safe_open(file, "pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            groups.setdefault(name.split("/")[0], []).append(tensor.double().flatten())
    return {"tensors": {group: fingerprint(torch.cat(parts)) for group, parts in sorted(groups.items())}}


def fingerprint(values_N: Tensor) -> list[float]:
    """The norm, and the sum of values times cosines of their places."""
    places = torch.arange(len(values_N), dtype=torch.float64)
    return [seven(float(values_N.norm())), seven(float((values_N * places.cos()).sum()))]


def seven(value: float) -> float:
    """Seven significant digits."""
    return float(f"{value:.7g}")


def scenarios() -> dict[str, str]:
    """The hash of every scenario of configs/ on the digits."""
    labels = Digits().load().labels
    found = {}
    for name in options("scenario"):
        if name != "from_file":  # deals what a file says
            job = compose_job("federated", [f"scenario={name}", "seed=0"], "nowhere")
            found[name] = job.recipe.deal(labels, 0).sha256
    return found


def moved(was: Any, now: Any, path: str = "") -> list[str]:
    """One line for every value that differs: integers and text at all, numbers by more than rounding."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        keys = [*was, *(key for key in now if key not in was)]
        return [line for key in keys for line in moved(was.get(key), now.get(key), f"{path} {key}".strip())]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        scale = max((abs(value) for value in was if isinstance(value, float)), default=0.0)
        pairs = enumerate(zip(was, now, strict=True))
        return [line for index, (a, b) in pairs for line in differs(a, b, f"{path}[{index}]", scale)]
    return differs(was, now, path, 0.0)


def differs(was: Any, now: Any, path: str, scale: float) -> list[str]:
    if isinstance(was, list | Mapping) and isinstance(now, list | Mapping):
        return moved(was, now, path)
    if isinstance(was, float) and isinstance(now, float):
        # Processors round differently. ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 moved FRePo's second
        # loss by 4e-6 of itself and a sum of RaT-BPTT by 3e-6 of its norm, everything else by less than 2e-6.
        if abs(was - now) <= 1e-5 * max(abs(was), scale):
            return []
    elif was == now:
        return []
    return [f"{path}: was {was}, is {now}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the file")
    parser.add_argument("--only", default="", help="names that contain this")
    arguments = parser.parse_args()
    values: dict[str, Any] = {"scenarios": scenarios()}
    for name in cases():
        if arguments.only in name:
            with tempfile.TemporaryDirectory() as folder:
                values[name] = values_of(name, Path(folder))
    before = json.loads(VALUES.read_text()) if VALUES.exists() else {}
    lines = [line for name in values for line in moved(before.get(name), values[name], name)]
    print("\n".join(lines) or "nothing moved")
    if arguments.write:
        VALUES.write_text(json.dumps({**before, **values}, indent=1) + "\n")
        print(f"wrote {VALUES}")
        return 0
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
