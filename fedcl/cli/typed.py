"""Arguments as they were typed: flags apart from values, and mistakes that need no configuration to be seen."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from fedcl.cli.usage import groups_of, options_of
from fedcl.cli.verbs import VERBS
from fedcl.core.checks import format_value, nearest
from fedcl.core.errors import ConfigError
from fedcl.core.plugins import plugins_opened

FLAGS = {  # of Hydra's, those that a verb passes on
    *("--help", "-h", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--multirun", "-m"),
    *("--config-dir", "-cd", "--info", "-i", "--hydra-help", "--shell-completion", "-sc"),
}
FOLDER_FLAGS = ("--config-dir", "-cd")
WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--info", "-i"}
SHOWING = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc"}  # run nothing
_CFG = ("job", "hydra", "all"), "--cfg job"
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"), "--info defaults"
SHOWN = {"--cfg": _CFG, "-c": _CFG, "--info": _INFO, "-i": _INFO}  # flag -> what it can show, and an example


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def doors_opened(arguments: Sequence[str]) -> AbstractContextManager[None]:
    """The plug-ins and the folder of configurations that were typed, open until the block ends."""
    packages = [name for argument in arguments if key_of(argument) == "plugins" for name in names_in(argument)]
    folder = None
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=False):
        flag, equals, value = argument.partition("=")
        if flag in FOLDER_FLAGS:
            given = value if equals else after
            folder = Path(given)
            if not given or not folder.is_dir():
                raise ConfigError(f"{flag} needs a folder of configurations, and '{given}' is none; type {flag} FOLDER")
    return plugins_opened(packages, folder)


def names_in(argument: str) -> list[str]:
    """The packages of `plugins=[a,b]`, however the list was quoted; ConfigError where one is no name of a package."""
    listed = argument.partition("=")[2].strip(" '\"[]")
    names = [name.strip(" '\"") for name in listed.split(",")] if listed else []
    if bad := [name for name in names if not re.fullmatch(r"\w+(\.\w+)*", name)]:
        raise ConfigError(f"plugins names packages, and '{bad[0]}' is no name of one; type plugins=[mypkg]")
    return names


def check_typed(verb: str, arguments: Sequence[str]) -> None:
    """Raise ConfigError for flags and keys that cannot be, before anything is composed."""
    check_flags(arguments)
    _, typed = split_flags(arguments)
    check_stop(verb, typed)
    for argument in typed:
        key, equals, _ = argument.partition("=")
        if not equals and not argument.startswith("~"):
            example = f"; type {argument}=VALUE" if re.fullmatch(r"\+*\w[\w.@/]*", argument) else ""
            raise ConfigError(f"'{format_value(argument)}' is no key=value{example}")
        if not key.strip("+~"):
            raise ConfigError(f"'{format_value(argument)}' names no key; values are typed as key=value")
        check_group(verb, argument)


def check_stop(verb: str, arguments: Sequence[str]) -> None:
    """Raise ConfigError where a budget is typed for a verb that has no rounds."""
    end = {"continual": "a stream is judged after its last step", "distill": "distiller.steps=... is its length"}
    if verb in end and any(key_of(argument).startswith("stop.") for argument in arguments):
        raise ConfigError(
            f"stop.* ends federated runs after a round, and fedcl {verb} has none: {end[verb]}; Ctrl-C ends it now, "
            "and the same command with out=FOLDER goes on"
        )


def check_flags(arguments: Sequence[str]) -> None:
    """Raise ConfigError for a flag that a verb does not have, or one without its value."""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=False):
        flag, equals, value = argument.partition("=")
        if flag.startswith("-") and flag not in FLAGS:
            key = flag.lstrip("-").replace("-", "_")
            raise ConfigError(f"fedcl has no flag {flag}; values are typed as key=value: {key}={value or '...'}")
        given = value if equals else after
        shown, hint = SHOWN.get(flag, ((), ""))
        if shown and given not in shown:
            raise ConfigError(f"{flag} shows one of {', '.join(shown)}; type {hint}")
        if flag in ("--package", "-p") and (not given or given.startswith("-") or (not equals and "=" in given)):
            raise ConfigError(f"{flag} needs the name of a group to show; type --cfg job --package distiller")


def check_group(verb: str, argument: str) -> None:
    """Raise ConfigError where a group is typed that the verb does not have, or chosen by what is no name."""
    key, equals, value = argument.partition("=")
    group = key.lstrip("+~").partition(".")[0].partition("@")[0]
    groups = groups_of(verb)
    having = [f"fedcl {other}" for other in VERBS if group in groups_of(other)]
    if having and group not in groups:
        raise ConfigError(
            f"fedcl {verb} has no {group} ({' and '.join(having)} {'have' if having[1:] else 'has'} it); "
            f"its groups are {', '.join(groups)}"
        )
    if key.lstrip("+~") != group or group not in groups:
        return
    options = ", ".join(options_of(verb, group))
    if key.startswith("~") and groups[group]:
        raise ConfigError(f"{key} takes away what a run needs; leave it out, or type {group}= and one of: {options}")
    if key.startswith("+") and equals and not value.startswith("{"):
        raise ConfigError(f"{group} is chosen without +: type {group}={value}")
    if equals and re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?|true|false", value.strip(), re.IGNORECASE):
        raise ConfigError(
            f"{argument}: {group} takes the name of an option: {options}; "
            f"numbers have keys of their own below it, as --cfg job shows: {group}.KEY={value}"
        )
    if equals and ((value == "null" and groups[group]) or (value.startswith("{") and not groups[group])):
        raise ConfigError(f"{argument}: {group} takes the name of an option: {options}")


def check_listing(verb: str, arguments: Sequence[str]) -> str | None:
    """The group that `fedcl list` is asked for, or the group=option of `fedcl show`; ConfigError for anything else."""
    flags, typed = split_flags(arguments)
    words = [word for word in typed if key_of(word) != "plugins"]
    if flags:
        raise ConfigError(f"fedcl {verb} has no flag {flags[0]}; it takes --config-dir FOLDER")
    if verb == "show" and (len(words) != 1 or "=" not in words[0]):
        raise ConfigError("fedcl show takes one option: type fedcl show GROUP=OPTION, for example model=mlp")
    if verb == "list" and (len(words) > 1 or "=" in "".join(words)):
        raise ConfigError("fedcl list takes the name of one group, or nothing: type fedcl list strategy")
    return words[0] if words else None


def check_report(arguments: Sequence[str]) -> None:
    """Raise ConfigError for what `fedcl report` does not take."""
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if argument.startswith("-"):
            key = flag.lstrip("-")
            hint = f"type {key}={value or 'FOLDER'}" if key == "out" else "it takes folders of runs, and out=FOLDER"
            raise ConfigError(f"fedcl report has no flag {flag}; {hint}")
        if argument == "out=":
            raise ConfigError("out= names no folder; type out=FOLDER, or leave it out")
        if "=" in argument and flag != "out" and "/" not in flag and not Path(argument).exists():
            close = nearest(flag, ["out"])
            raise ConfigError(f"fedcl report has no key '{flag}'{close}; it takes folders of runs, and out=FOLDER")


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and everything else, each in the order typed: Hydra reads overrides in one row only.

    The folder of configurations is left out: `doors_opened` has it.
    """
    flags, others = [], []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before in FOLDER_FLAGS or argument.partition("=")[0] in FOLDER_FLAGS:
            continue
        (flags if argument.startswith("-") or before in WITH_VALUE else others).append(argument)
    return flags, others
