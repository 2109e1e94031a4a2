"""What a configuration says about a run: its data, its model, its method, and where two differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedcl.core.describe import AXES
from fedcl.core.renamed import CLASSES, KEYS
from fedcl.report.records import Run

# Keys that say where and under which seed a run was made, and parts that say again what stands elsewhere.
NOT_SETTINGS = {"_target_", "out", "seed", "device", "quiet", "checkpoint_every", "evaluation.cache"} | {
    "evaluate_clients",
    "dataset.root",
    "dataset.download",
}
SAID_AGAIN = {"choices", *AXES}
# Records of fedcl 0.1 keep these groups for strategies that never look at them.
UNUSED = {"fedcl.flower.bridge.": ("distiller",)} | {
    f"strategies.continual.{name}.": groups
    for groups, names in {
        ("distiller",): ("replay", "der", "icarl", "gdumb"),
        ("distiller", "buffer"): ("finetune", "ewc", "lwf", "joint"),
    }.items()
    for name in names
}
ABSENT = "absent"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys to values as JSON text; lists stay whole. Classes go by their names, wherever a version kept them."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = KEYS.get(key, key)
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{name}."))
            continue
        if name == "_target_":
            value = str(value).rpartition(".")[2]
            value = CLASSES.get(value, value)
        found[f"{prefix}{name}"] = json.dumps(value, sort_keys=True)
    return found


def settings(run: Run) -> dict[str, str]:
    """The flat configuration that defines the method: without seeds, places, names, and what the job never used."""
    left_out = SAID_AGAIN | unused(run)
    config = {group: part for group, part in run.config.items() if KEYS.get(group, group) not in left_out}
    evaluation = config.get("evaluation")
    if "architectures" in config and isinstance(evaluation, Mapping):
        named = evaluation.get("architectures") or ()
        config["architectures"] = {name: part for name, part in config["architectures"].items() if name in named}
    rounds = config.pop("num_rounds", None)  # takes the place of the strategy's own number
    if rounds is not None and isinstance(config.get("strategy"), Mapping):
        config["strategy"] = {**config["strategy"], "num_rounds": rounds}
    if config.get("clients_per_round") == run.num_clients:
        config["clients_per_round"] = None
    if not compression(run):
        config.pop("compress", None)
    kept = {key: value for key, value in flat(config).items() if key not in NOT_SETTINGS}
    return {key: value for key, value in kept.items() if not key.startswith("distiller.published")}


def unused(run: Run) -> set[str]:
    """Groups of the configuration that the run's strategy never looks at."""
    strategy = run.config.get("strategy")
    target = str(strategy.get("_target_")) if isinstance(strategy, Mapping) else ""
    return {group for module, groups in UNUSED.items() if target.startswith(module) for group in groups}


def part(run: Run, group: str) -> dict[str, str]:
    """Everything that the configuration says about a group: `dataset`, `model`."""
    return {key: value for key, value in settings(run).items() if key.partition(".")[0] == group}


def choice(run: Run, group: str) -> str:
    """The option chosen for a config group, "fedavg", without its folder; "" where the record does not say."""
    choices = run.config.get("choices")
    option = choices.get(group) if isinstance(choices, Mapping) else None
    return "" if option is None else str(option).rpartition("/")[2]


def family(run: Run) -> str:
    """The name that a method starts with: its strategy, or for `distill` its distiller."""
    if run.verb == "distill":
        return choice(run, "distiller") or run.record["distillation"]["method"]
    return choice(run, "strategy") or run.verb


def wire(run: Run) -> str:
    """How numbers travel, "uint8"; "" for a verb without communication."""
    value = run.config.get("wire")
    return str(value.get("dtype", "")) if isinstance(value, Mapping) else choice(run, "wire")


def compression(run: Run) -> str:
    """How replies are compressed, "topk"; "" where they are not."""
    value = run.config.get("compress")
    targets = [str(part.get("_target_")) for part in (value if isinstance(value, list) else [value or {}])]
    some = [target.rpartition(".")[2] for target in targets if target.rpartition(".")[2] not in ("None", "NoTransform")]
    return (choice(run, "compress") if len(targets) == 1 else "") or "+".join(some) if some else ""


def participation(run: Run) -> str:
    """How many clients take part in a round, in words; "" for a verb without communication."""
    if run.verb != "federated":
        return ""
    count = json.loads(settings(run).get("clients_per_round", "null"))
    return "all clients" if count is None else f"{count} of {run.num_clients} clients"


def differences(flats: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """For each configuration, the keys in which not all of them agree, with its own value."""
    keys = sorted({key for one in flats for key in one})
    varying = [key for key in keys if len({one.get(key) for one in flats}) > 1]
    return [{key: one.get(key, ABSENT) for key in varying} for one in flats]
