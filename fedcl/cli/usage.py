"""Help texts, read from the table of verbs and from the YAML that a verb begins with."""

import re
import textwrap
from functools import cache
from typing import Any

import yaml

from fedcl import __version__
from fedcl.cli.verbs import VERBS
from fedcl.core.paths import config_dir, option_files

REPORT = "tables and pictures of finished runs: fedcl report RUN_DIR... [out=DIR]"
LIST = "groups of options, or the options of one with a line each: fedcl list [GROUP]"
SHOW = "the numbers of one option and where they come from: fedcl show GROUP=OPTION"
SUMMARIES = {name: verb.summary for name, verb in VERBS.items()} | {"report": REPORT, "list": LIST, "show": SHOW}
USAGE = f"""fedcl {__version__}: federated and continual learning with distilled data

{chr(10).join(f"  fedcl {name:<12} {summary}" for name, summary in SUMMARIES.items())}

  fedcl federated                       the embedded data set, in under a minute
  fedcl federated scenario.alpha=0.1    one value changed
  fedcl federated -m seed=0,1,2         a sweep; typed again it skips what is finished and goes on with the rest
  fedcl federated --cfg job             shows the configuration and runs nothing
  fedcl federated --help                lists groups and keys

  fedcl federated --config-dir conf plugins=[mypkg] strategy=mine
                                        a method of your own: its class in mypkg, its YAML in conf/strategy/federated"""
REPORT_USAGE = f"""fedcl report: {REPORT}

  fedcl report runs                     all finished runs below a folder, on one page: runs/report.html
  fedcl report RUN_A RUN_B out=there    two runs; the page lies in the folder there"""
WIDTH = 118
BASE = "base"  # the YAML that the ones of all verbs begin with


def text_of(name: str) -> str:
    return (config_dir() / f"{name}.yaml").read_text(encoding="utf-8")


@cache
def page_of(verb: str) -> Any:
    """The YAML that a verb begins with, as plain values; the groups of the base before its own."""
    base, own = (yaml.safe_load(text_of(name)) for name in (BASE, verb))
    return base | own | {"defaults": [*base["defaults"], *own["defaults"]]}


@cache
def groups_of(verb: str) -> dict[str, str | None]:
    """The groups of a verb -> the option that is chosen without being typed."""
    entries = [next(iter(entry.items())) for entry in page_of(verb)["defaults"] if isinstance(entry, dict)]
    plain = [(group, option) for group, option in entries if re.fullmatch(r"\w+", group)]
    return {group: option and option.removeprefix(f"{verb}/") for group, option in plain}


@cache
def words_of(verb: str) -> dict[str, str]:
    """The groups of a verb -> a few words about each, as they stand behind it in the YAML."""
    found = re.findall(r"^  - (\w+): [\w/]+ # (.*)$", f"{text_of(verb)}\n{text_of(BASE)}", re.MULTILINE)
    return dict(found)


def options_of(verb: str, group: str) -> list[str]:
    """The options of a group that the verb can use, those of plug-ins with them."""
    files = option_files(group)
    own = {name.removeprefix(f"{verb}/"): path for name, path in files.items() if name.startswith(f"{verb}/")}
    found = sorted((own or files).items())
    return [name for name, path in found if group not in ("experiment", "method") or usable(verb, path.read_text())]


def usable(verb: str, text: str) -> bool:
    """True for an experiment about groups and keys that the verb has."""
    content = yaml.safe_load(text)
    overrides = [entry for entry in content.get("defaults", []) if isinstance(entry, dict)]
    chosen = {key.removeprefix("override /"): str(option) for entry in overrides for key, option in entry.items()}
    swept = ((content.get("hydra") or {}).get("sweeper") or {}).get("params") or {}
    named = {*chosen, *(key for key in content if key not in ("defaults", "hydra"))}
    named |= {key.partition(".")[0] for key in swept}
    strategy = chosen.get("strategy", verb)
    return named <= {*groups_of(verb), *page_of(verb)} and strategy.startswith(verb)


def help_of(verb: str) -> str:
    """Text of `fedcl VERB --help`."""
    about, words = page_of(verb)["hydra"]["help"], words_of(verb)
    lines = [about["header"].strip(), "", "Groups, typed group=option; * is chosen without being typed:"]
    for group in words:
        chosen = groups_of(verb)[group]
        options = ", ".join(f"{option}*" if option == chosen else option for option in options_of(verb, group))
        lines.append(f"  {group:<18}{words[group]}")
        lines += textwrap.wrap(options, WIDTH, initial_indent=" " * 20, subsequent_indent=" " * 20)
    lines += ["", "fedcl list GROUP says a line about each option, fedcl show GROUP=OPTION its numbers."]
    lines += ["", f"Keys, typed key=value; fedcl {verb} --cfg job lists all with the numbers of what is chosen:"]
    return "\n".join([*lines, *own_keys(verb), "", about["footer"].strip()])


def own_keys(verb: str) -> list[str]:
    """The keys of the base and of the verb with their comments, as the YAML has them."""
    lines = []
    for name in (BASE, verb):
        body = re.split(r"^hydra:", text_of(name).partition("\n\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
        above = ""
        for indent, key, value, comment in re.findall(r"^( *)(\w+):(?: ([^#\n]*?))?(?: *# (.*))?$", body, re.MULTILINE):
            above = above if indent else f"{key}."
            if value and not key.startswith("_"):
                shown = comment.replace("VERB", verb)
                lines.append(f"  {f'{above}{key}' if indent else key}={value}".ljust(31) + shown)
    return lines
