"""Pages that nobody writes: one a verb, one a group with its options, one a room of the public interface.

MkDocs calls `on_files` and `on_config`; everything is made from `configs/` and from docstrings.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
VERBS = {
    "federated": "Rounds between a server and simulated Flower clients.",
    "continual": "A stream of steps for one learner with a memory.",
    "distill": "One summary of a training set, beside real images of equal bytes.",
}
API = {  # room -> its modules
    "Values": ["fedcl.core.types", "fedcl.core.inputs", "fedcl.scenario.base"],
    "Distillation": ["fedcl.distill.distiller", "fedcl.distill.objectives.base", "fedcl.distill.networks.base"],
    "Federated": ["fedcl.federated.contract", "fedcl.federated.payload", "fedcl.federated.ledger"],
    "Continual": ["fedcl.continual.contract", "fedcl.memory.buffer", "fedcl.scenario.metrics"],
    "Training": ["fedcl.training.recipe", "fedcl.training.loop", "fedcl.training.losses", "fedcl.training.evaluation"],
    "Testing": ["fedcl.testing"],
    "Report": ["fedcl.report"],
}


def comment_of(path: Path) -> str:
    """The comment at the head of a YAML file, as one paragraph."""
    lines = []
    for line in path.read_text().splitlines():
        if line.startswith("# @package") or not line.strip():
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(lines)


def body_of(path: Path) -> str:
    """A YAML file without the comment at its head."""
    lines = path.read_text().splitlines()
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        lines.pop(0)
    return "\n".join(lines)


def groups() -> dict[str, list[Path]]:
    """Group as it is named in configs/ ("strategy/federated") to its options."""
    folders = sorted({path.parent for path in CONFIGS.rglob("*.yaml")} - {CONFIGS})
    return {str(folder.relative_to(CONFIGS)): sorted(folder.glob("*.yaml")) for folder in folders}


def group_page(group: str, options: list[Path]) -> str:
    """Every option of a group, with its source and its numbers."""
    name = group.partition("/")[0]
    parts = [f"# {group}\n\nTyped as `{name}=OPTION`; a number of the option as `{name}.KEY=VALUE`.\n"]
    for path in options:
        parts.append(f"## {path.stem}\n\n{comment_of(path)}\n\n```yaml\n{body_of(path)}\n```\n")
    return "\n".join(parts)


def verb_page(verb: str) -> str:
    """What a verb does, and every key that it has by itself."""
    return (
        f"# fedcl {verb}\n\n{VERBS[verb]}\n\n`fedcl {verb} --cfg job` prints every number that a run uses; "
        f"`fedcl {verb} --help` the groups.\n\n```yaml\n{body_of(CONFIGS / f'{verb}.yaml')}\n```\n"
    )


def api_page(modules: list[str]) -> str:
    """Docstrings of some modules."""
    return "".join(
        f"::: {module}\n\n"
        for module in modules
        if ROOT.joinpath(*module.split(".")).with_suffix(".py").exists() or ROOT.joinpath(*module.split(".")).is_dir()
    )


def pages() -> dict[str, str]:
    """Place in the site to content."""
    found = {f"reference/{verb}.md": verb_page(verb) for verb in VERBS}
    found |= {f"reference/groups/{g.replace('/', '_')}.md": group_page(g, options) for g, options in groups().items()}
    return found | {f"api/{name.lower()}.md": f"# {name}\n\n{api_page(modules)}" for name, modules in API.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name them in the navigation."""
    assert isinstance(config.nav, list)
    places = list(pages())
    config.nav = [
        *config.nav,
        {"Verbs": [p for p in places if p.startswith("reference/") and p.count("/") == 1]},
        {"Groups": [p for p in places if p.startswith("reference/groups/")]},
        {"Interface": [p for p in places if p.startswith("api/")]},
    ]
    return config
