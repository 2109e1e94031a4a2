"""Help texts, read from the table of verbs and from the first page of a verb's YAML."""

from __future__ import annotations

import re
import textwrap
from functools import cache
from typing import Any

import yaml

from fedcl import __version__
from fedcl.cli.verbs import VERBS
from fedcl.core.paths import config_dir

REPORT = "tables and pictures of finished runs: fedcl report RUN_DIR... [out=DIR]"
SUMMARIES = {name: verb.summary for name, verb in VERBS.items()} | {"report": REPORT}
USAGE = f"""fedcl {__version__}: federated and continual learning with distilled data

{chr(10).join(f"  fedcl {name:<12} {summary}" for name, summary in SUMMARIES.items())}

  fedcl federated                       the embedded data set, in under a minute
  fedcl federated scenario.alpha=0.1    one value changed
  fedcl federated -m seed=0,1,2         a sweep; typed again it skips what is finished and goes on with the rest
  fedcl federated --cfg job             shows the configuration and runs nothing
  fedcl federated --help                lists the options"""
REPORT_USAGE = f"""fedcl report: {REPORT}

  fedcl report runs                     all finished runs below a folder, on one page: runs/report.html
  fedcl report RUN_A RUN_B out=there    two runs; the page lies in the folder there"""
WIDTH = 118


@cache
def page_of(verb: str) -> Any:
    """The YAML that a verb begins with, as plain values."""
    return yaml.safe_load((config_dir() / f"{verb}.yaml").read_text(encoding="utf-8"))


@cache
def groups_of(verb: str) -> dict[str, str | None]:
    """The groups of a verb -> the option that is chosen without being typed."""
    entries = [next(iter(entry.items())) for entry in page_of(verb)["defaults"] if isinstance(entry, dict)]
    plain = [(group, option) for group, option in entries if re.fullmatch(r"\w+", group)]
    return {group: option and option.removeprefix(f"{verb}/") for group, option in plain}


def options_of(verb: str, group: str) -> list[str]:
    """The options of a group that the verb can use."""
    folder = config_dir() / group
    folder = folder / verb if (folder / verb).is_dir() else folder
    files = sorted(folder.glob("*.yaml"))
    return [file.stem for file in files if group not in ("experiment", "method") or usable(verb, file.read_text())]


def usable(verb: str, text: str) -> bool:
    """Whether an experiment is about groups and keys that the verb has."""
    content = yaml.safe_load(text)
    overrides = [entry for entry in content.get("defaults", []) if isinstance(entry, dict)]
    chosen = {key.removeprefix("override /"): str(option) for entry in overrides for key, option in entry.items()}
    swept = ((content.get("hydra") or {}).get("sweeper") or {}).get("params") or {}
    named = {*chosen, *(key for key in content if key not in ("defaults", "hydra"))}
    named |= {key.partition(".")[0] for key in swept}
    strategy = chosen.get("strategy", verb)
    return named <= {*groups_of(verb), *page_of(verb)} and strategy.startswith(verb)


def help_of(verb: str) -> str:
    """What `fedcl VERB --help` prints."""
    about = page_of(verb)["hydra"]["help"]
    lines = [about["header"].strip(), "", "Groups, typed group=option; * is chosen without being typed:"]
    for group, chosen in groups_of(verb).items():
        options = [f"{option}*" if option == chosen else option for option in options_of(verb, group)]
        lines += textwrap.wrap(
            ", ".join(options),
            WIDTH,
            initial_indent=f"  {group:<18}",
            subsequent_indent=" " * 20,
            break_on_hyphens=False,
        )
    lines += ["", f"Keys, typed key=value; fedcl {verb} --cfg job lists all with the numbers of what is chosen:"]
    return "\n".join([*lines, *own_keys(verb), "", about["footer"].strip()])


def own_keys(verb: str) -> list[str]:
    """The verb's own keys with their comments, as its YAML has them."""
    text = (config_dir() / f"{verb}.yaml").read_text(encoding="utf-8")
    body = text[text.index("\nseed:") : text.index("\nhydra:")]
    lines = []
    above = ""
    for indent, key, value, comment in re.findall(r"^( *)(\w+):(?: ([^#\n]*?))?(?: *# (.*))?$", body, re.MULTILINE):
        above = above if indent else f"{key}."
        if value and not key.startswith("_"):
            lines.append(f"  {f'{above}{key}' if indent else key}={value}".ljust(31) + comment)
    return lines
