"""`fedcl list` and `fedcl show`: options with a line about each, and the numbers and the source of one.

Everything is read as text, YAML and Python alike, so that nothing heavy is imported and no plug-in runs.
"""

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from fedcl.cli.usage import groups_of, options_of, words_of
from fedcl.cli.verbs import VERBS
from fedcl.core.checks import nearest
from fedcl.core.errors import ConfigError
from fedcl.core.paths import PACKAGE, option_files
from fedcl.core.plugins import find_plugins

WIDTH = 118


def list_options(group: str | None) -> str:
    """The text of `fedcl list [GROUP]`; ConfigError where no verb has the group."""
    if group is None:
        return list_groups()
    verbs = verbs_of(group)
    split = any("/" in name for name in option_files(group))
    lines = []
    for verb in verbs if split else verbs[:1]:
        lines += [f"fedcl {verb}:"] if split else []
        lines += lines_of(group, verb)
    return "\n".join([*lines, f"numbers and source of one: fedcl show {group}=OPTION"])


def list_groups() -> str:
    """Every group, with its word and the verbs that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for verb in VERBS:
        for group, word in words_of(verb).items():
            found.setdefault((group, word), []).append(verb)
    lines = []
    for (group, word), verbs in sorted(found.items()):
        some = "" if len(verbs) == len(VERBS) else f" ({', '.join(verbs)})"
        lines.append(f"  {group:<18}{word}{some}")
    return "\n".join(["Groups; fedcl list GROUP says a line about each option:", *lines])


def lines_of(group: str, verb: str) -> list[str]:
    """A line for each option: its name, * behind the default, and what it is."""
    files, shared = option_files(group), Counter(target_of(path) for path in option_files(group).values())
    default = {groups_of(each).get(group) for each in VERBS if group in groups_of(each)}
    names = options_of(verb, group) if any("/" in name for name in files) else sorted(files)
    width = max((len(name) for name in names), default=0) + 3
    lines = []
    for name in names:
        path = files.get(f"{verb}/{name}") or files[name]
        line = first_line(path, alone=shared[target_of(path)] == 1)
        shown = line if len(line) <= WIDTH - width else f"{line[: WIDTH - width - 3]}..."
        lines.append(f"  {name + ('*' if name in default else ''):<{width}}{shown}".rstrip())
    return lines


def verbs_of(group: str) -> list[str]:
    """The verbs that have a group; ConfigError where none has it."""
    found = [verb for verb in VERBS if group in groups_of(verb)]
    if not found:
        groups = sorted({name for verb in VERBS for name in groups_of(verb)})
        raise ConfigError(f"there is no group '{group}'{nearest(group, groups)}; choose one of: {', '.join(groups)}")
    return found


def show_option(typed: str) -> str:
    """The text of `fedcl show GROUP=OPTION`: file, a line about it, and all that it says; ConfigError without it."""
    group, equals, option = typed.partition("=")
    verbs_of(group)
    files = option_files(group)
    named = [name for name in files if name == option or name.partition("/")[2] == option]
    if not equals or not named:
        known = sorted({name.rpartition("/")[2] for name in files})
        raise ConfigError(
            f"{group} has no option '{option}'{nearest(option, known)}; type fedcl show {group}= and one of: "
            f"{', '.join(known)}"
        )
    return "\n\n".join(describe_option(files[name], files) for name in named)


def describe_option(path: Path, files: Mapping[str, Path]) -> str:
    """File and content of an option, and of those among `files`, its group's, that it begins with."""
    text = path.read_text(encoding="utf-8")
    parts = [f"{path}\n{first_line(path, alone=True)}\n\n{text.strip()}"]
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        parent = files.get(entry.partition("@")[0]) if isinstance(entry, str) else None
        if parent is not None:
            parts.append(f"which begins with {describe_option(parent, files)}")
    return "\n\n".join(parts)


def first_line(path: Path, alone: bool) -> str:
    """Description of an option: the first comment of its YAML, or, where that names its source, its class's own.

    `alone`: no other option is of this class, so what the class says of itself tells them apart.
    """
    comments = re.findall(r"^# ?(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    comments = [comment for comment in comments if not comment.startswith("@package")]
    if comments and not comments[0].startswith("source:"):
        return comments[0]
    own = docstring_of(target_of(path)) if alone else ""
    return own or (comments[0].removeprefix("source:").strip() if comments else "")


def target_of(path: Path) -> str:
    """The class that an option names, "" where it inherits it."""
    found = re.search(r"^_target_: *(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1) if found else ""


def docstring_of(target: str) -> str:
    """First line of what a class, or the file that it has to itself, says; "" where no file is found by the name."""
    module, _, name = target.rpartition(".")
    file = file_of(module.split("."))
    if file is None:
        return ""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    public = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    own = [node for node in public if node.name == name]
    texts = [ast.get_docstring(node) or "" for node in ([tree, *own] if len(public) == 1 else [*own, tree])]
    return next(filter(None, texts), "").partition("\n")[0]


def file_of(parts: Sequence[str]) -> Path | None:
    """The file of a module of fedcl or of a plug-in."""
    places = {name: PACKAGE.parent / name for name in ("fedcl", "strategies", "scenarios")}
    places |= {plugin.package: plugin.place for plugin in find_plugins()}
    for package, place in places.items():
        if ".".join(parts).startswith(package):
            own = list(parts[len(package.split(".")) :])
            tries = [place, place.joinpath(*own).with_suffix(".py"), place.joinpath(*own, "__init__.py")]
            return next((path for path in tries if path.is_file()), None)
    return None
