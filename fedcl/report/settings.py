"""What a configuration says about a run: its data, its model, its method, and where two differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedcl.core.describe import AXES
from fedcl.core.renamed import CLASSES, KEYS
from fedcl.report.records import Run

# Keys that say where and under which seed a run was made, and parts that say again what stands elsewhere.
NOT_SETTINGS = {"_target_", "out", "seed", "device", "quiet", "checkpoint_every", "evaluation.cache"}
NOT_SETTINGS |= {"evaluate_clients", "dataset.root", "dataset.download"}
SAID_AGAIN = {"choices", *AXES}
# Records of fedcl 0.1 keep these groups for strategies that never look at them.
UNUSED = {"fedcl.flower.bridge.": {"distiller"}}
UNUSED |= {f"strategies.continual.{name}.": {"distiller"} for name in ("replay", "der", "icarl", "gdumb")}
UNUSED |= {f"strategies.continual.{name}.": {"distiller", "buffer"} for name in ("finetune", "ewc", "lwf", "joint")}
ABSENT = "absent"
UNKNOWN = "another protocol"
TELLING = ("distiller.steps", "model.width", "evaluation.training.updates")  # what makes the largest difference


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys to values as JSON text; lists stay whole. Classes go by their names, wherever a version kept them."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = KEYS.get(key, key)
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
            continue
        if name == "_target_":
            value = str(value).rpartition(".")[2]
            value = CLASSES.get(value, value)
        found[f"{prefix}{name}"] = json.dumps(value, sort_keys=True)
    return found


def settings(run: Run) -> dict[str, str]:
    """The flat configuration that defines the method: without seeds, places, names, and what the job never used."""
    target = str(run.part("strategy").get("_target_"))
    left_out = SAID_AGAIN.union(*(groups for module, groups in UNUSED.items() if target.startswith(module)))
    config = {group: part for group, part in run.config.items() if KEYS.get(group, group) not in left_out}
    if "architectures" in config and (evaluation := run.part("evaluation")):
        named = evaluation.get("architectures") or ()
        config["architectures"] = {name: part for name, part in run.part("architectures").items() if name in named}
    rounds = config.pop("num_rounds", None)  # takes the place of the strategy's own number
    if rounds is not None and (strategy := run.part("strategy")):
        config["strategy"] = {**strategy, "num_rounds": rounds}
    if config.get("clients_per_round") == run.num_clients:
        config["clients_per_round"] = None
    if not compression(run):
        config.pop("compress", None)
    published = "distiller.published"  # and its protocol
    return {k: v for k, v in flat(config).items() if k not in NOT_SETTINGS and not k.startswith(published)}


def choice(run: Run, group: str) -> str:
    """The option chosen for a config group, "fedavg", without its folder; "" where the record does not say."""
    option = run.part("choices").get(group)
    return "" if option is None else str(option).rpartition("/")[2]


def family(run: Run) -> str:
    """The name that a method starts with: its strategy, or for `distill` its distiller."""
    if run.verb == "distill":
        return choice(run, "distiller") or run.record["distillation"]["method"]
    return choice(run, "strategy") or run.verb


def wire(run: Run) -> str:
    """How numbers travel, "uint8"; "" for a verb without communication."""
    return str(run.part("wire").get("dtype", "")) or choice(run, "wire")


def compression(run: Run) -> str:
    """How replies are compressed, "topk"; "" where they are not."""
    value = run.config.get("compress")
    parts = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, Mapping)]
    names = [str(part.get("_target_")).rpartition(".")[2] for part in parts]
    some = [name for name in names if name not in ("None", "NoTransform")]
    return (choice(run, "compress") if len(parts) == 1 else "") or "+".join(some) if some else ""


def participation(run: Run) -> str:
    """How many clients take part in a round, in words; "" for a verb without communication."""
    if run.verb != "federated":
        return ""
    count = run.config.get("clients_per_round")
    return "all clients" if count in (None, run.num_clients) else f"{count} of {run.num_clients} clients"


def differences(flats: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """For each configuration, the keys in which not all of them agree, with its own value."""
    keys = sorted({key for one in flats for key in one})
    varying = [key for key in keys if len({one.get(key) for one in flats}) > 1]
    return [{key: one.get(key, ABSENT) for key in varying} for one in flats]


def published(run: Run) -> float | None:
    """The published accuracy for this data and as many images a class, where the preset's `published` has one."""
    by_data = run.part("distiller").get("published")
    by_ipc = by_data.get(choice(run, "dataset")) if isinstance(by_data, Mapping) else None
    value = by_ipc.get(str(run.at("distillation", "ipc"))) if isinstance(by_ipc, Mapping) else None
    return value if isinstance(value, int | float) and 0 <= value <= 1 else None


def unlike(run: Run) -> list[str]:
    """What the published protocol has and this run has not: "steps=20000", "width=128"; [] where nothing differs."""
    protocol = run.part("distiller").get("published_protocol")
    if not isinstance(protocol, Mapping) or not protocol:
        return [UNKNOWN]
    own = {key: json.loads(value) for key, value in flat(run.config).items()}
    theirs = {key: json.loads(value) for key, value in flat(protocol).items()}
    differing = [key for key, value in theirs.items() if own.get(key) != value]
    differing.sort(key=lambda key: TELLING.index(key) if key in TELLING else len(TELLING))
    return [_setting(key, theirs[key]) for key in differing]


def _setting(key: str, value: object) -> str:
    *_, parent, name = ["", *key.split(".")]
    if name == "_target_":
        return f"{parent}={str(value).rpartition('.')[2]}"
    return f"other {parent} {name}" if isinstance(value, list) else f"{name}={json.dumps(value).strip(chr(34))}"
