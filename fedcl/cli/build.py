"""From a composed configuration to a job: every plug-in is checked, then instantiated.

Configuration names classes by `_target_`, see `fedcl/core/targets.py`. Constructors hold hyper-parameters and do no
I/O, so a job that could be built has cost nothing and written nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.resolvers.oc import env

from fedcl.cli.installation import check_plugins
from fedcl.cli.overrides import qualify, search_path
from fedcl.cli.trackers import Tracker
from fedcl.cli.typed import doors_opened, key_of
from fedcl.cli.verbs import VERBS
from fedcl.core.checks import FromEnvironment, annotations_of, dotted, similar
from fedcl.core.describe import GROUPS, NOT_SETTINGS
from fedcl.core.errors import ConfigError
from fedcl.core.paths import config_dir
from fedcl.core.plugins import VARIABLE, is_plugin
from fedcl.core.targets import TARGET, check_value, expected_by, locate, make, values_of

# for numbers of a preset that follow another: lr: ${times:0.01,${distiller.ipc}}
OmegaConf.register_new_resolver("times", lambda number, count: number * count, replace=True)

BESIDE: dict[str, Any] = {  # keys that no field of a job has
    "out": str | int | float | None,
    "quiet": bool,
    "plugins": tuple[str, ...],
    "experiment": str | None,
    "method": str | None,
    "tracker": Tracker | None,
}
NEEDED = ("seed", "device", "quiet", "plugins")
SUITABLE = {"model": "mlp", "augmentation": "none"}  # of each group, an option for inputs of any kind


def compose_config(verb: str, overrides: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
    """The configuration of a verb, without running anything, and without Hydra's own part unless that is asked for."""
    typed = [*overrides, *search_path()]
    with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        return compose(config_name=verb, overrides=typed, return_hydra_config=return_hydra_config)


def keys_of(verb: str, overrides: Sequence[str]) -> list[str]:
    """Dotted names of all keys that can be typed with these options; interpolations are not followed."""
    plain: Any = OmegaConf.to_container(compose_config(verb, overrides), resolve=False)
    return dotted(plain)


def resolve(config: DictConfig) -> dict[str, Any]:
    """Plain values; a text that the environment gave knows where it comes from. ConfigError where one is missing."""
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
        # nothing is asked for where a number stands, which may be made of others
        asked = {key: isinstance(value[key], str | dict | list) for key in keys}
        nodes = {key: (named[key] if asked[key] else None) if same else named for key in keys}
        items = {key: marked(value[key], nodes[key]) for key in keys}
        return items if isinstance(value, dict) else list(items.values())
    if not isinstance(value, str) or value == named:
        return value
    return FromEnvironment.named(value, re.sub(r"@env:(\w+)@", r"${oc.env:\1}", str(named)))


def hints_of_groups(verb: str) -> dict[str, Any]:
    """The annotation of every key at the top of a verb's configuration: what its job says of the field.

    The axes of distillation stand beside the distiller, which refers to them.
    """
    job = annotations_of(VERBS[verb].job, include_extras=True)
    axes = annotations_of(job["distiller"])
    axes = {key: hint for key, hint in axes.items() if any(not expected.later for expected in expected_by(hint))}
    return axes | {GROUPS.get(key, key): hint for key, hint in job.items() if key not in NOT_SETTINGS} | BESIDE


def parts_of(verb: str) -> list[str]:
    """Keys of a verb's configuration that say of which classes its job is made."""
    job = annotations_of(VERBS[verb].job)
    return [GROUPS.get(name, name) for name, hint in job.items() if expected_by(hint) or expected_by(values_of(hint))]


def check_config(verb: str, config: Mapping[str, Any]) -> None:
    """Check every key, value and class of a resolved configuration; ConfigError at the first that cannot be."""
    for name in config.get("plugins", ()):
        if not is_plugin(name):
            raise ConfigError(
                f"plugins=[{name}] stands in a YAML, which cannot open a package; type it, or set {VARIABLE}"
            )
    hints = hints_of_groups(verb)
    known = [name for name in dotted(config) if name.partition(".")[0] in hints]
    for key, value in config.items():
        if key not in hints:
            raise ConfigError(f"there is no key '{key}'{similar(str(key), known)}; --cfg job lists all")
        check_value(value, hints[key], str(key))
    for key in (*parts_of(verb), *NEEDED):
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
    with doors_opened(overrides):
        typed = [qualify(verb, override) for override in overrides]
        config = compose_config(verb, typed, return_hydra_config=True)
        choices = plain_choices(verb, suit_inputs(config, config.hydra.runtime.choices, typed))
        with open_dict(config):
            del config["hydra"]
        return build_job(verb, resolve(config), choices, Path(out), ["fedcl", verb, *overrides])


def suit_inputs(config: DictConfig, choices: Mapping[str, str | None], typed: Sequence[str]) -> dict[str, str | None]:
    """Put options that take any inputs in place of defaults that only images have a use for; the choices with them.

    What was typed stays: if it does not suit, the run says so. `config`, as Hydra composed it, is changed in place;
    `choices` are groups, as "model" or "augmentation@evaluation.training.augmentation", to options.
    """
    chosen = dict(choices)
    if getattr(_class_at(config, "dataset"), "images", True):
        return chosen
    keys = [key_of(text) for text in typed]
    for key in choices:
        group, _, place = key.partition("@")
        place = place or group
        if key != "model" and group != "augmentation":  # model@architectures.convnet was named for what it is
            continue
        if any(one == key or f"{one}.".startswith(f"{place}.") for one in keys):
            continue
        if getattr(_class_at(config, place), "only_images", None) is not None:  # a text, or a property of its numbers
            chosen[key] = SUITABLE[group]
            with open_dict(config):
                option = OmegaConf.load(config_dir() / group / f"{chosen[key]}.yaml")
                OmegaConf.update(config, place, option, merge=False)
    return chosen


def _class_at(config: DictConfig, place: str) -> object:
    """The class that a part of the configuration names, if it names one."""
    node = OmegaConf.select(config, place)
    return locate(node[TARGET], f"{place}.{TARGET}") if isinstance(node, DictConfig) and TARGET in node else None


def plain_choices(verb: str, choices: Mapping[str, str | None]) -> dict[str, str]:
    """Group -> chosen option, without Hydra's own and without those that only choose others."""
    return {
        group: option.removeprefix(f"{verb}/")
        for group, option in choices.items()
        if option and not group.startswith("hydra/") and "@" not in group and group not in ("method", "tracker")
    }


def build_job(verb: str, config: dict[str, Any], choices: dict[str, str], out: Path, command: list[str]) -> Any:
    """The job of a verb, ready for its runner.

    Args:
        config: resolved configuration, see `resolve`.
        choices: group -> chosen option, kept in the record as `command` is.

    Raises:
        ConfigError: a key or value that cannot work.
    """
    check_plugins()
    from fedcl.core.compute import pick_device

    check_config(verb, config)
    pick_device(config["device"])
    job = VERBS[verb].job
    keys = {field.name: GROUPS.get(field.name, field.name) for field in fields(job) if field.name not in NOT_SETTINGS}
    values = {name: make(config, key) for name, key in keys.items() if key in config}
    return job(**values, out=out, choices=choices, command=command)
