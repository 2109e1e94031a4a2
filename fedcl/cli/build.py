"""From a composed configuration to a job: every plug-in is checked, then instantiated.

Configuration names classes by `_target_`, see `fedcl/core/targets.py`. Constructors hold hyper-parameters and do no
I/O, so a job that could be built has cost nothing and written nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.resolvers.oc import env

from fedcl import DISTRIBUTION
from fedcl.cli.trackers import Tracker
from fedcl.cli.verbs import VERBS
from fedcl.core.checks import FromEnvironment, annotations_of, dotted, similar
from fedcl.core.errors import ConfigError, RunError
from fedcl.core.paths import PACKAGE, config_dir
from fedcl.core.targets import check_value, expected_by, make

# for numbers of a preset that follow another: lr: ${times:0.01,${distiller.ipc}}
OmegaConf.register_new_resolver("times", lambda number, count: number * count, replace=True)

PLACES = ("out", "choices", "command")  # fields of a job that no key fills
BESIDE: dict[str, Any] = {  # keys that no field of a job has
    "out": str | int | float | None,
    "quiet": bool,
    "experiment": str | None,
    "method": str | None,
    "tracker": Tracker | None,
}
NEEDED = ("seed", "device", "quiet")


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
    """Plain values; a text that the environment gave knows where it comes from.

    Raises:
        ConfigError: a value that the user has to give is missing.
    """
    missing = sorted(OmegaConf.missing_keys(config), key=lambda key: (key.count("."), key))
    if missing:
        raise ConfigError(f"{missing[0]} has no value; type {missing[0]}=...")
    values = OmegaConf.to_container(config, resolve=True)
    if "oc.env" in OmegaConf.to_yaml(config):
        OmegaConf.register_new_resolver("oc.env", lambda name, *_: f"@env:{name}@", replace=True)
        try:
            values = marked(values, config)
        finally:
            OmegaConf.register_new_resolver("oc.env", env, replace=True)
    return values  # type: ignore[return-value]


def marked(value: Any, named: Any) -> Any:
    """`value` with its texts marked that the environment gave: `named` says @env:NAME@ in their place.

    Numbers stay numbers: they are the experiment, and no secret.
    """
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        same = isinstance(named, DictConfig if isinstance(value, dict) else ListConfig) and len(named) == len(value)
        items = {key: marked(value[key], told(named, key, value[key]) if same else named) for key in keys}
        return items if isinstance(value, dict) else list(items.values())
    if not isinstance(value, str) or value == named:
        return value
    return FromEnvironment.named(value, re.sub(r"@env:(\w+)@", r"${oc.env:\1}", str(named)))


def told(named: Any, key: Any, value: Any) -> Any:
    """What stands at a key; nothing is asked for where a number stands, which may be made of others."""
    return named[key] if isinstance(value, str | dict | list) else None


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
    if any(entry.value == "fedcl.cli.main:main" for entry in found.entry_points):
        return ""  # this project, under the name that it had
    return (
        f"the distribution fedcl {found.version} in this environment is another project; this one is called "
        f"{DISTRIBUTION}, and the two ask for different packages: type pip uninstall fedcl"
    )


def hints_of_groups(verb: str) -> dict[str, Any]:
    """The annotation of every key at the top of a verb's configuration: what its job says of the field.

    The axes of distillation stand beside the distiller, which refers to them.
    """
    entry = VERBS[verb]
    job = annotations_of(getattr(importlib.import_module(entry.module), entry.job))
    axes = annotations_of(job["distiller"])
    parts = {group: job[field] for field, group in entry.parts.items()}
    plain = {key: hint for key, hint in job.items() if key not in {*entry.parts, *PLACES}}
    return {**{key: axes[key] for key in axes if is_axis(axes[key])}, **plain, **parts, **BESIDE}


def is_axis(hint: Any) -> bool:
    return any(not expected.later for expected in expected_by(hint))


def check_config(verb: str, config: Mapping[str, Any]) -> None:
    """Check every key, value and class of a resolved configuration; nothing has been made.

    Raises:
        ConfigError: what is wrong, at which key.
    """
    hints = hints_of_groups(verb)
    known = [name for name in dotted(config) if name.partition(".")[0] in hints]
    for key, value in config.items():
        if key not in hints:
            raise ConfigError(f"there is no key '{key}'{similar(str(key), known)}; --cfg job lists all")
        check_value(value, hints[key], str(key))
    for key in (*VERBS[verb].parts.values(), *NEEDED):
        if key not in config:
            raise ConfigError(f"~{key} takes away what a run needs; leave it out, or type {key}=... for another value")
    if isinstance(config["distiller"].get("name"), FromEnvironment):
        raise ConfigError("distiller.name is written into every summary, so it is typed out and no ${oc.env:...}")


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
    from fedcl.core.compute import pick_device

    check_plugins()
    check_config(verb, config)
    entry = VERBS[verb]
    job = getattr(importlib.import_module(entry.module), entry.job)
    known = {field.name for field in fields(job)}
    plain = {key: value for key, value in config.items() if key in known - set(entry.parts) - {"out"}}
    pick_device(plain["device"])
    if plain["seed"] < 0:
        raise ConfigError(f"seed={plain['seed']} is negative; type seed=0 or a larger whole number")
    parts = {field: make(config, group) for field, group in entry.parts.items()}
    return job(**plain, **parts, out=out, choices=choices, command=command)
