"""From a composed configuration to a job: every plug-in is checked, then instantiated.

Configuration names classes by `_target_`; only the prefixes below are ever imported. Constructors hold
hyper-parameters and do no I/O, so a job that could be built has cost nothing and written nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from fedcl import DISTRIBUTION
from fedcl.checks import check_arguments, check_values
from fedcl.errors import ConfigError, FedclError, RunError
from fedcl.paths import PACKAGE, config_dir

ALLOWED = ("fedcl.", "strategies.", "scenarios.", "torch.optim.", "flwr.serverapp.strategy.")

# for numbers of a preset that follow another: lr: ${times:0.01,${distiller.ipc}}
OmegaConf.register_new_resolver("times", lambda number, count: number * count, replace=True)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One command that runs something. Its configuration is `configs/<verb>.yaml`."""

    summary: str  # one line of help
    module: str  # where its job and its runner are
    job: str  # frozen dataclass: what to run
    run: str  # function (job, progress) -> record
    parts: Mapping[str, str]  # field of the job -> group of the configuration that fills it


VERBS = {
    "federated": Verb(
        summary="clients that send summaries (or weights) to a server",
        module="fedcl.runners.federated",
        job="FederatedJob",
        run="run_federated",
        parts={
            "source": "dataset",
            "model": "model",
            "recipe": "scenario",
            "distiller": "distiller",
            "strategy": "strategy",
            "runtime": "runtime",
            "wire": "wire",
            "stop": "stop",
        },
    ),
    "continual": Verb(
        summary="a stream of classes or domains, and a learner with a distilled buffer",
        module="fedcl.runners.continual",
        job="ContinualJob",
        run="run_continual",
        parts={
            "source": "dataset",
            "model": "model",
            "recipe": "scenario",
            "distiller": "distiller",
            "strategy": "strategy",
            "budget": "buffer",
        },
    ),
    "distill": Verb(
        summary="one summary of a training set, judged beside real images of equal bytes",
        module="fedcl.runners.distill",
        job="DistillJob",
        run="run_distill",
        parts={
            "source": "dataset",
            "model": "model",
            "distiller": "distiller",
            "evaluation": "evaluation",
            "architectures": "architectures",
        },
    ),
}


def qualify(verb: str, argument: str) -> str:
    """`strategy=a,b` to `strategy=<verb>/a,<verb>/b`: each verb has its own folder of strategies."""
    key, equals, value = argument.partition("=")
    if key != "strategy" or not equals:
        return argument
    names = r"(?<![\w/])(?!null\b)([A-Za-z_]\w*)(?![\w/(])"  # choice(a,b): the words inside
    return "strategy=" + re.sub(names, rf"{verb}/\1", value)


def compose_config(verb: str, overrides: list[str]) -> DictConfig:
    """The configuration of a verb, without Hydra's own part and without running anything."""
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        return compose(config_name=verb, overrides=overrides)


def resolve(config: DictConfig) -> dict[str, Any]:
    """Plain values. A value that the user has to give and did not is named.

    Raises:
        ConfigError: a value is missing.
    """
    missing = sorted(OmegaConf.missing_keys(config), key=lambda key: (key.count("."), key))
    if missing:
        raise ConfigError(f"{missing[0]} has no value; type {missing[0]}=...")
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def check_plugins(package: Path = PACKAGE) -> None:
    """`strategies` and `scenarios` are generic names: another distribution may have taken them.

    Raises:
        ConfigError: one of them is not the folder beside `fedcl`.
    """
    for name in ("strategies", "scenarios"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found == package.parent / name:
            continue
        owners = [owner for owner in packages_distributions().get(name, []) if owner != DISTRIBUTION]
        remedy = f"uninstall {', '.join(owners)}" if owners else "start fedcl from another folder, or install it again"
        raise ConfigError(
            f"fedcl's package '{name}' belongs in {package.parent}, but Python finds {found or 'none'}; {remedy}"
        )


def namesake() -> str:
    """One line where the package index's other project called fedcl is installed beside this one, "" elsewhere."""
    try:
        found = distribution("fedcl")
    except PackageNotFoundError:
        return ""
    if any(entry.value == "fedcl.cli:main" for entry in found.entry_points):
        return ""  # this project, under the name that it had
    return (
        f"the distribution fedcl {found.version} in this environment is another project; this one is called "
        f"{DISTRIBUTION}, and the two ask for different packages: type pip uninstall fedcl"
    )


def check_targets(node: Any, path: str) -> None:
    """Every `_target_` below `node` is allowed, exists, and takes the values it is given.

    Raises:
        ConfigError: what is wrong, at which key.
    """
    if isinstance(node, list):
        for index, item in enumerate(node):
            check_targets(item, f"{path}[{index}]")
    if not isinstance(node, dict):
        return
    values = {key: value for key, value in node.items() if not str(key).startswith("_")}
    if "_target_" in node:
        target = str(node["_target_"])
        if not target.startswith(ALLOWED):
            raise ConfigError(f"{path}._target_={target} is not allowed; it must begin with {', '.join(ALLOWED)}")
        try:
            module, _, name = target.rpartition(".")
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{path}._target_={target} cannot be imported ({one_line(error)})") from error
        check_arguments(found, values, path)
    for key, value in values.items():
        check_targets(value, f"{path}.{key}" if path else key)


def make(config: dict[str, Any], group: str) -> Any:
    """The object that `config[group]` describes; a plain value or null stays what it is."""
    try:
        return instantiate(config[group], _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, FedclError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from error
        raise ConfigError(f"{group} cannot be made from its values ({one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """The message of an error with its line breaks taken out."""
    return " ".join(str(error).split()) or type(error).__name__


def compose_job(verb: str, overrides: Sequence[str], out: str | Path) -> Any:
    """The job of a command without running it: compose_job("federated", ["strategy=fedavg"], "runs/a").

    For notebooks that want the presets of configs/; `run_federated(job)` and its sisters run it.

    Raises:
        ConfigError: a key or value that cannot work.
    """
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        typed = [qualify(verb, override) for override in overrides]
        config = compose(config_name=verb, overrides=typed, return_hydra_config=True)
    choices = plain_choices(verb, config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return build_job(verb, resolve(config), choices, Path(out), ["fedcl", verb, *overrides])


def plain_choices(verb: str, choices: Mapping[str, str | None]) -> dict[str, str]:
    """Group -> chosen option, without Hydra's own and without those that only choose others."""
    return {
        group: option.removeprefix(f"{verb}/")
        for group, option in choices.items()
        if option and not group.startswith("hydra/") and "@" not in group and group not in ("method", "tracker")
    }


@contextmanager
def choose_folder(verb: str, config: Mapping[str, Any], choices: Mapping[str, str]) -> Iterator[Path]:
    """`out`, or a new `runs/<verb>/<time>-<name>`, which is removed again if the block leaves nothing in it.

    Raises:
        RunError: no folder can be made.
    """
    if config["out"] not in (None, ""):
        yield Path(str(config["out"])).expanduser()
        return
    name = choices.get("experiment") or choices.get("strategy") or choices.get("distiller") or verb
    folder = new_folder(Path("runs") / verb, f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{name}")
    try:
        yield folder
    finally:
        with suppress(OSError):  # there is something in it
            os.removedirs(folder)


def new_folder(above: Path, name: str) -> Path:
    """Make `above/name`, or `name-2`, ...: the first that nobody has, so two that ask at once get two.

    Raises:
        RunError: it cannot be made.
    """
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = above / f"{name}{suffix}"
        try:
            above.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder
        except FileNotFoundError:  # somebody removed `above`, which was empty
            continue
        except OSError as error:
            if not folder.is_dir():
                raise RunError(f"{folder} cannot be made ({error.strerror}); type out=FOLDER") from None
    raise RunError(f"{above} has a thousand runs of this second; type out=FOLDER")


def build_job(verb: str, config: dict[str, Any], choices: dict[str, str], out: Path, command: list[str]) -> Any:
    """The job of a verb, ready for its runner.

    Args:
        config: resolved configuration, see `resolve`.
        choices: group -> chosen option, kept in the record.
        command: what was typed, kept in the record.

    Raises:
        ConfigError: a key or value that cannot work.
    """
    from fedcl.compute import pick_device

    check_plugins()
    check_targets(config, "")
    entry = VERBS[verb]
    job = getattr(importlib.import_module(entry.module), entry.job)
    known = {field.name for field in fields(job)}
    plain = {key: value for key, value in config.items() if key in known - set(entry.parts) - {"out"}}
    check_values(job, plain, "")
    pick_device(plain["device"])
    if plain["seed"] < 0:
        raise ConfigError(f"seed={plain['seed']} is negative; type seed=0 or a larger whole number")
    parts = {field: make(config, group) for field, group in entry.parts.items()}
    return job(**plain, **parts, out=out, choices=choices, command=command)
