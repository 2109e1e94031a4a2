"""Plug-ins: packages of the user's own whose classes a configuration may name, and where their configurations lie.

A package becomes a plug-in by being named: `plugins=[mypkg]` on the command line, FEDCL_PLUGINS=mypkg,other in the
environment, or an entry point of the group `fedcl.plugins` in an installed distribution. A folder `configs/` in it
is searched beside fedcl's own. Nothing of a plug-in is imported before a configuration names one of its classes.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from fedcl.core.errors import ConfigError

VARIABLE = "FEDCL_PLUGINS"
FOLDER = "FEDCL_CONFIG_DIR"  # one more folder of configurations, as --config-dir gives it for one command
GROUP = "fedcl.plugins"
KNOWN = ("fedcl", "strategies", "scenarios", "torch", "torchvision", "flwr", "builtins")  # in no need of a row


class Plugin(NamedTuple):
    """One package that was named."""

    package: str  # dotted name
    place: Path  # its folder, or the file of a single module

    @property
    def configs(self) -> Path | None:
        """Its folder of configurations, if it has one."""
        return self.place / "configs" if (self.place / "configs").is_dir() else None


def find_plugins() -> tuple[Plugin, ...]:
    """Plug-ins of the environment and of installed distributions, in this order. ConfigError where one is not there."""
    return _find(os.environ.get(VARIABLE, ""), tuple(sys.path))


@cache
def _find(named: str, places: tuple[str, ...]) -> tuple[Plugin, ...]:
    sources = {name: f"plugins={name}" for name in named.split(",") if name}
    for point in entry_points(group=GROUP):
        owner = point.dist.name if point.dist else "?"
        sources.setdefault(point.module, f"plug-in {point.module} of the distribution {owner}")
    return tuple(Plugin(name, _locate(name, source)) for name, source in sources.items())


def _locate(name: str, source: str) -> Path:
    """The folder of a package, or the file of a module; only the packages above it are imported."""
    reason = f"there is no package '{name}'"
    try:
        spec = find_spec(name) if re.fullmatch(r"\w+(\.\w+)*", name) else None
    except Exception as error:  # a package above it fails while it is imported
        spec, reason = None, f"{type(error).__name__}: {error}"
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if spec is not None and spec.has_location:
        return Path(str(spec.origin))
    raise ConfigError(
        f"{source} cannot be found ({reason}); install it (pip install -e FOLDER), or start the command with "
        "PYTHONPATH=FOLDER, the folder above the package"
    )


def is_plugin(module: str) -> bool:
    """True for a dotted name that lies in a plug-in."""
    return any(f"{module}.".startswith(f"{plugin.package}.") for plugin in find_plugins())


@contextmanager
def plugins_opened(packages: Sequence[str] = (), folder: Path | None = None) -> Iterator[None]:
    """Name more plug-ins, and a folder of configurations, until the block ends; worker processes inherit both."""
    before = {name: os.environ.get(name) for name in (VARIABLE, FOLDER)}
    try:
        if packages:
            os.environ[VARIABLE] = ",".join(dict.fromkeys([*packages, *(before[VARIABLE] or "").split(",")])).strip(",")
        if folder is not None:
            os.environ[FOLDER] = str(folder.absolute())
        find_plugins()
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def plugin_versions(config: Any) -> dict[str, str]:
    """Foreign packages whose classes a described configuration names -> "1.2, sha256 0123456789ab".

    The hash is over the package's Python and YAML files: an installed version can be edited.
    """
    packages = sorted({name.partition(".")[0] for name in targets_of(config)} - {*KNOWN})
    return {package: describe_package(package) for package in packages}


def targets_of(node: Any) -> Iterator[str]:
    """Every class that a described configuration names."""
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    for item in node if isinstance(node, list) else ():
        yield from targets_of(item)


def describe_package(package: str) -> str:
    """Version of the distribution that brought a loaded package, and a hash of its files."""
    found = []
    with suppress(PackageNotFoundError, LookupError):
        found.append(version(packages_distributions()[package][0]))
    module = sys.modules.get(package)
    folders, file = list(getattr(module, "__path__", [])), getattr(module, "__file__", None)
    files = [path for place in folders for end in ("py", "yaml") for path in sorted(Path(place).rglob(f"*.{end}"))]
    if not folders and file:
        files = [Path(file)]
    if files:
        digest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files))
        found.append(f"sha256 {digest.hexdigest()[:12]}")
    return ", ".join(found) or "unknown"
