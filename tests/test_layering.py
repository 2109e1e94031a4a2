"""The house as rules on imports and file sizes (ARCHITECTURE.md); a new file is under them at once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fedcl", "strategies", "scenarios")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in FILES]

# Rooms in the order of their layers: a room imports itself and those before it, and nothing else of fedcl.
ROOMS = [
    *("core", "scenario", "data", "models", "training", "distill", "memory", "protocol"),
    *("federated", "continual", "flower", "runs", "report", "cli"),
]
FLAT = {"fedcl": 0, "fedcl.__init__": 0, "fedcl.__main__": len(ROOMS), "fedcl.testing": len(ROOMS)}  # beside the rooms
CEILING = {"strategies": ROOMS.index("continual"), "scenarios": ROOMS.index("scenario")}  # the last room of a shelf


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer(module: str) -> int | None:
    """Layer of a fedcl module; None if it is in no room."""
    if module in FLAT:
        return FLAT[module]
    room = module.removeprefix("fedcl.").split(".")[0]
    return ROOMS.index(room) if room in ROOMS else None


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
    assert top is not None, f"{module} is in no room"
    for name in imports(path):
        if name.split(".")[0] == "fedcl":
            assert layer(name) is not None, f"{name} is in no room"
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
    if module not in ("fedcl.cli.launch", "fedcl.cli.build", "fedcl.cli.overrides"):
        assert not roots & {"hydra", "omegaconf"}, "only launch, build and overrides import hydra"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_small_and_free_of_global_state(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for call in ("sys.path.", "os.chdir(", "torch.manual_seed(", "np.random.seed(", "random.seed("):
        assert call not in text, f"{call} in {path}"
    for call in ("pickle.load(", "Unpickler", "torch.load(", "joblib.load", "allow_pickle=True"):
        assert call not in text, f"{call} in {path}: nothing read from outside is unpickled"


def test_the_layers_see_an_upward_import(tmp_path, monkeypatch):
    """The walker itself: it finds imports in functions, and leaves those for annotations out."""
    file = tmp_path / "sample.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import hydra\n"
        "def f():\n    from fedcl.cli import main\n    import flwr.app\n"
    )
    assert imports(file) == ["typing", "fedcl.cli.main", "flwr.app"]
    assert layer("fedcl.cli.main") == ROOMS.index("cli")
    assert layer("fedcl.distill.objectives.distribution") == ROOMS.index("distill")
    assert layer("fedcl.nowhere") is None


def test_packages_are_regular_packages():
    """A folder without __init__.py loses against a regular package of that name later on the path."""
    for path in FILES:
        assert (path.parent / "__init__.py").is_file(), path.parent


def folders_between(room: Path) -> dict[str, set[str]]:
    """Sub-folder of a room -> the other sub-folders that its files import."""
    found: dict[str, set[str]] = {path.name: set() for path in room.iterdir() if (path / "__init__.py").is_file()}
    base = ".".join(room.relative_to(ROOT).parts)
    for path in room.rglob("*.py"):
        own = path.relative_to(room).parts[0]
        for name in imports(path):
            other = name.removeprefix(f"{base}.").split(".")[0]
            if own in found and name.startswith(f"{base}.") and other in found and other != own:
                found[own].add(other)
    return found


def circle_of(arrows: dict[str, set[str]]) -> list[str]:
    """Names that are left when those that import none of the rest are taken away again and again."""
    left = dict(arrows)
    while free := [name for name, others in left.items() if not others & set(left)]:
        for name in free:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_between_the_folders_of_a_room(room):
    """Two folders that import each other are one."""
    assert circle_of(folders_between(ROOT / "fedcl" / room)) == []


def test_a_circle_is_seen():
    assert circle_of({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle_of({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert {"networks", "objectives", "samplers"} <= set(folders_between(ROOT / "fedcl" / "distill"))
