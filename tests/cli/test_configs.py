"""Every YAML is under contract the moment it exists: found by globbing, there is no list to edit."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from fedcl.cli.build import VERBS, build_job, compose_config
from fedcl.core.describe import settings_of
from fedcl.runs.checkpoint import differences

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*") if path.is_file())
IDS = [str(path) for path in FILES]
OPTIONS = [path for path in FILES if len(path.parts) > 1]
AXES = {"objective", "parameterization", "initializer", "augmentation", "labels", "networks", "sampler"}
GROUPS = {
    verb: {
        group
        for name in ("base", verb)
        for group in re.findall(r"^  - (\w+):", (CONFIGS / f"{name}.yaml").read_text(), re.MULTILINE)
    }
    for verb in VERBS
}


def verbs_of(path):
    """The verbs that have the option's group. Strategies are split by verb; an experiment is for the verbs
    that have every group it overrides."""
    if path.parts[0] == "strategy":
        return [verb for verb in VERBS if path.parts[1] == verb]
    needed = {path.parts[0]}
    if path.parts[0] in ("experiment", "method"):
        chosen = dict(re.findall(r"override /(\w+): (\S+)", (CONFIGS / path).read_text()))
        needed |= set(chosen)
        if "/" in chosen.get("strategy", ""):
            return [chosen["strategy"].split("/")[0]]
    return [verb for verb, groups in GROUPS.items() if needed <= groups]


def touched(path):
    """The groups that an option chooses from: its own, and those that it overrides."""
    group = path.parts[0]
    if group in ("experiment", "method"):
        return set.union(*GROUPS.values())
    return {group, *AXES} if group == "distiller" else {group}


@cache
def preset_of(path):
    """A preset whose other axes go with an axis: one that names the option, IDC where networks are to be mixed for."""
    if path.parts[0] not in AXES:
        return None
    named = f"override /{path.parts[0]}@_global_.{path.parts[0]}: {path.stem}\n"
    presets = sorted(p.stem for p in (CONFIGS / "distiller").glob("*.yaml") if named in p.read_text())
    mixes = yaml.safe_load((CONFIGS / path).read_text()).get("cutmix", 0) > 0
    return presets[0] if presets else "idc" if mixes else "dm"


def commands():
    """A verb and options that do not touch each other: each option is in one of few compositions.

    One verb is enough for an option, as a group is the same for all of its verbs. Axes of a command share a preset.
    """
    made = []
    for path in sorted(OPTIONS, key=lambda path: len(verbs_of(path))):
        fitting = (
            chosen
            for verb, chosen in made
            if verb in verbs_of(path)
            and not any(touched(path) & touched(other) for other in chosen)
            and len({preset_of(one) for one in (path, *chosen)} - {None}) < 2
        )
        chosen = next(fitting, None)
        if chosen is None:
            made.append((verbs_of(path)[0], chosen := []))
        chosen.append(path)
    return [pytest.param(verb, chosen, id=f"{verb} {' '.join(map(typed, chosen))}") for verb, chosen in made]


def typed(path):
    """An option as it is typed: group=option."""
    return f"{path.parts[0]}={'/'.join(path.with_suffix('').parts[1:])}"


def compose(verb, options):
    """The configuration with these options chosen; what only a user can say is filled in with a word."""
    presets = {preset_of(path) for path in options} - {None}
    overrides = [*(f"distiller={name}" for name in presets), *(typed(path) for path in options)]
    config = compose_config(verb, overrides)
    missing = [key for key in OmegaConf.missing_keys(config) if not key.startswith("hydra")]
    return compose_config(verb, overrides + [f"{key}=word" for key in missing]) if missing else config


def build(verb, config):
    return build_job(verb, OmegaConf.to_container(config, resolve=True), {}, Path("nowhere"), [])


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_file_is_a_yaml_with_its_source(path):
    assert path.suffix == ".yaml", "configs/ travels in the wheel: YAML only"
    text = (CONFIGS / path).read_text()
    assert re.search(r"\A(# @package _global_\n)?# source: \S", text), "begin with '# source: ...'"
    assert "${now:" not in text, "the clock is no configuration"
    if len(path.parts) > 1 and path.parts[0] not in ("experiment", "method"):
        content = yaml.safe_load(text)
        parents = [
            CONFIGS / path.parent / f"{name}.yaml" for name in content.get("defaults", []) if isinstance(name, str)
        ]
        texts = [text, *(parent.read_text() for parent in parents if parent.is_file())]
        assert any(re.search(r"^_target_: ", each, re.MULTILINE) for each in texts), "no _target_, here or inherited"


@pytest.mark.parametrize("path", OPTIONS, ids=[str(path) for path in OPTIONS])
def test_every_option_belongs_to_a_verb(path):
    assert verbs_of(path), "no verb has this group, or the groups that this experiment overrides"


@pytest.mark.parametrize(("verb", "options"), commands())
def test_every_option_composes_and_builds_without_io(verb, options, watch):
    config = compose(verb, options)
    for path in options:
        if target := re.search(r"^_target_: (\S+)", (CONFIGS / path).read_text(), re.MULTILINE):
            assert config[path.parts[0]]["_target_"] == target.group(1), "the option was not chosen"
    with watch() as seen:
        build(verb, config)
    if seen:  # the first of its kind imports what it needs
        with watch() as seen:
            build(verb, config)
    assert seen == []
    # a record of fedcl 0.1 kept what was composed, and is of the same run
    kept = OmegaConf.to_container(config, resolve=True)
    old = {
        key: value
        for key, value in kept.items()
        if key not in ("out", "quiet", "plugins", "experiment", "method", "tracker")
    }
    assert differences(old, settings_of(build(verb, config))) == []


def test_no_option_is_left_out():
    assert sorted(path for command in commands() for path in command.values[1]) == OPTIONS


@pytest.fixture
def watch():
    """Files opened, sockets, processes: a hook cannot be taken away, so it listens only while asked to."""
    from contextlib import contextmanager

    @contextmanager
    def listen():
        heard.clear()
        ears["open"] = True
        try:
            yield heard
        finally:
            ears["open"] = False

    return listen


heard: list[str] = []
ears = {"open": False}
IO = (
    "open",
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.mkdir",
    "os.remove",
    "os.rename",
)


def hook(event, arguments):
    if ears["open"] and event in IO:
        heard.append(f"{event}{arguments}")


sys.addaudithook(hook)


def test_the_watch_hears(watch, tmp_path):
    with watch() as seen:
        (tmp_path / "file").write_text("x")
        (tmp_path / "folder").mkdir()
    assert len(seen) == 2
    (tmp_path / "unheard").write_text("x")
    assert len(seen) == 2


def test_no_option_moves_another_key_of_its_run():
    """Choosing an option changes nothing but its group and what it says it overrides."""
    before = compose_config("federated", [])
    after = compose_config("federated", ["model=mlp", "wire=uint8"])
    for key in before:
        if key not in ("model", "wire"):
            assert before._get_node(key) == after._get_node(key), key
