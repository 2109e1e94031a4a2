"""The house as rules on imports and file sizes (ARCHITECTURE.md); a new file is under them at once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fedcl", "strategies", "scenarios")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in FILES]

# The layer of a module is that of the longest name here that it begins with.
LAYERS = {
    "fedcl": 0,
    "fedcl.errors": 0,
    "fedcl.folder_lock": 0,
    "fedcl.seeding": 0,
    "fedcl.paths": 0,
    "fedcl.checks": 0,
    "fedcl.progress": 0,
    "fedcl.endings": 0,
    "fedcl.verbs": 0,
    "fedcl.usage": 0,
    "fedcl.typed": 0,
    "fedcl.types": 1,
    "fedcl.scenario": 1,
    "fedcl.journal": 1,
    "fedcl.scenario_files": 1,
    "fedcl.ledger": 1,
    "fedcl.metrics": 1,
    "fedcl.ranking": 1,
    "fedcl.record": 1,
    "fedcl.tensor_files": 1,
    "fedcl.describe": 1,
    "fedcl.targets": 1,
    "fedcl.stopping": 1,
    "fedcl.compute": 1,
    "fedcl.augmentation": 2,
    "fedcl.data": 2,
    "fedcl.models": 2,
    "fedcl.training": 2,
    "fedcl.evaluation": 2,
    "fedcl.evaluation_cache": 2,
    "fedcl.fair": 2,
    "fedcl.wire": 2,
    "fedcl.workbench": 2,
    "fedcl.distill": 3,
    "fedcl.buffer": 3,
    "fedcl.buffer_files": 3,
    "fedcl.client_memory": 3,
    "fedcl.rehearsal": 4,
    "fedcl.federated": 4,
    "fedcl.continual": 4,
    "fedcl.flower": 5,
    "fedcl.runners": 6,
    "fedcl.report": 6,
    "fedcl.terminal": 6,
    "fedcl.trackers": 6,
    "fedcl.pictures": 6,
    "fedcl.build": 7,
    "fedcl.launch": 7,
    "fedcl.commands": 7,
    "fedcl.explain": 7,
    "fedcl.sweeps": 7,
    "fedcl.cli": 7,
    "fedcl.__main__": 7,
}
CEILING = {"strategies": 4, "scenarios": 1}  # the highest layer that a shelf of plug-ins may import


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer(module: str) -> int | None:
    """Layer of a fedcl module; None if nobody has said it."""
    parts = module.split(".")
    for size in range(len(parts), 1, -1):
        if (name := ".".join(parts[:size])) in LAYERS:
            return LAYERS[name]
    return 0 if module == "fedcl" else None


def imports(path: Path) -> list[str]:
    """Absolute names of all modules that a file imports when it runs, not those for annotations."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(inner if is_module(inner) else str(node.module))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return name.split(".")[0] in PACKAGES and (place.with_suffix(".py").is_file() or place.is_dir())


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_go_downward(path):
    module = module_name(path)
    package = module.split(".")[0]
    top = CEILING.get(package, layer(module))
    assert top is not None, f"say the layer of {module} in LAYERS"
    for name in imports(path):
        if name.split(".")[0] == "fedcl":
            assert layer(name) is not None, f"say the layer of {name} in LAYERS"
            assert layer(name) <= top, f"{module} (layer {top}) imports {name} (layer {layer(name)})"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_shelves_and_outside_packages(path):
    module, roots = module_name(path), {name.split(".")[0] for name in imports(path)}
    if module.startswith("fedcl"):
        assert not roots & {"strategies", "scenarios"}, "only configs/ names plug-ins"
    if module.startswith("scenarios"):
        assert not roots & {"torch", "torchvision", "sklearn", "strategies"}, "scenarios need numpy alone"
    if not module.startswith("fedcl.flower"):
        assert not roots & {"flwr", "ray"}, "only fedcl/flower imports flwr"
    if module not in ("fedcl.launch", "fedcl.build"):
        assert not roots & {"hydra", "omegaconf"}, "only launch and build import hydra"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_small_and_free_of_global_state(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for call in ("sys.path.", "os.chdir(", "torch.manual_seed(", "np.random.seed(", "random.seed("):
        assert call not in text, f"{call} in {path}"
    for call in ("pickle.load", "Unpickler", "torch.load(", "joblib.load", "allow_pickle=True"):
        assert call not in text, f"{call} in {path}: nothing read from outside is unpickled"


def test_the_layers_see_an_upward_import(tmp_path, monkeypatch):
    """The walker itself: it finds imports in functions, and leaves those for annotations out."""
    file = tmp_path / "sample.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import hydra\n"
        "def f():\n    from fedcl import cli\n    import flwr.app\n"
    )
    assert imports(file) == ["typing", "fedcl.cli", "flwr.app"]
    assert layer("fedcl.cli") == 7
    assert layer("fedcl.distill.objectives.distribution") == 3
    assert layer("fedcl.nowhere") is None


def test_packages_are_regular_packages():
    """A folder without __init__.py loses against a regular package of that name later on the path."""
    for path in FILES:
        assert (path.parent / "__init__.py").is_file(), path.parent
