"""Hydra's and OmegaConf's errors in one line: what is wrong, and what to type instead."""

import re
from contextlib import suppress

from fedcl.cli.build import keys_of
from fedcl.cli.overrides import qualify
from fedcl.cli.usage import groups_of, options_of
from fedcl.core.checks import format_value, nearest, similar
from fedcl.core.paths import option_files
from fedcl.core.renamed import renamed_key, renamed_option

NAMED = {  # what Hydra says of a name -> what fedcl does
    r"Could not delete from config. '([^']+)' does not exist": (
        "~NAME takes nothing away, as NAME is null or absent; leave it out"
    ),
    r"Interpolation key '([^']+)' not found": (
        r"there is no NAME that ${NAME} could stand for; the text itself is typed '\${NAME}'"
    ),
    r"Environment variable '([^']+)' not found": (
        "there is no environment variable NAME; set it, or type the value in its place"
    ),
}


def composition_error(error: BaseException, verb: str, arguments: list[str]) -> str:
    """One line for an error of composition; `arguments` are what the user typed after the verb."""
    text = str(error)
    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        return unknown_option(str(missing), verb)
    for pattern in (r"Could not override '([^']+)'", r"Key '([^']+)' is not in struct"):
        if match := re.search(pattern, text):
            key = match.group(1).split("@")[0]
            if now := renamed_key(key):
                return f"the key '{key}' is called '{now}' now; type {now}=..."
            return f"there is no key '{key}'{similar(key, known_keys(verb, arguments))}; --cfg job lists all"
    for pattern, said in NAMED.items():
        if match := re.search(pattern, text):
            return said.replace("NAME", match.group(1))
    if override := getattr(error, "override", None):
        key, _, value = str(override).partition("=")
        quoted = value.strip("'\"")
        shown = f'{key}="{format_value(quoted)}"'
        return f"'{format_value(override)}' cannot be read; a text of special characters is typed '{shown}'"
    if match := re.search(r"Ambiguous value for argument '([^']+)'|Sweep parameters '([^']+)' requires", text):
        several = match.group(1) or " ".join(argument for argument in arguments if "," in argument)
        return f"{several} has several values; type -m before them to run a sweep, or [...] for a list"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(line for line in lines if not re.match(r"full_key|object_type|reference_type|See http", line))


def unknown_option(missing: str, verb: str) -> str:
    """`missing` is group/option as Hydra looked for it."""
    folder, _, option = missing.removesuffix(".yaml").rpartition("/")
    group = folder.removesuffix(f"/{verb}")
    options = options_of(verb, group) if group in groups_of(verb) else []
    if not options:
        options = sorted(name.rpartition("/")[2] for name in option_files(folder))
    if folder in ("hydra/launcher", "hydra/sweeper"):
        kind = folder.removeprefix("hydra/")
        return f"Hydra has no {kind} '{option}' here; if it exists, type pip install hydra-{option}-{kind}"
    if group == folder and option in options:
        return f"there is no configuration '{missing}'; a YAML that begins with that option says {verb}/{option}@_here_"
    if not options:
        return f"there is no configuration '{missing}'"
    if now := renamed_option(group, option):
        return f"{group}={option} is called {group}={now} now"
    if group != folder and option in (misplaced := option_files(group)):
        path = misplaced[option]
        return f"{group}={option} of fedcl {verb} belongs in {path.parent / verb}; move {path} there"
    return f"{group} has no option '{option}'{nearest(option, options)}; choose one of: {', '.join(options)}"


def known_keys(verb: str, arguments: list[str]) -> list[str]:
    """Every key and group that may be typed with the options that were chosen, or with the defaults."""
    groups = groups_of(verb)
    chosen = [qualify(verb, a) for a in arguments if a.partition("=")[0] in groups and "," not in a]
    for overrides in (chosen, []):
        with suppress(Exception):  # the second error while explaining the first: explain with less
            return sorted({*groups, *keys_of(verb, overrides)})
    return sorted(groups)
