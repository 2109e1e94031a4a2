"""Folders of configurations (fedcl's own lies inside the package in a wheel, beside it in a checkout); typed paths."""

import os
from pathlib import Path
from typing import Any

from fedcl.core.errors import ConfigError
from fedcl.core.plugins import FOLDER, find_plugins

PACKAGE = Path(__file__).resolve().parents[1]
LANDMARK = "federated.yaml"  # a folder that holds it is the right one


def config_dir(package: Path = PACKAGE) -> Path:
    """The folder of fedcl's YAML files, in or beside its package. ConfigError where the installation is broken."""
    inside, beside = package / "configs", package.parent / "configs"
    for place in (inside, beside):
        if (place / LANDMARK).is_file():
            return place
    missing = f"neither {inside} nor {beside} holds {LANDMARK}"
    raise ConfigError(f"fedcl's configuration files are missing: {missing}; install fedcl again")


def config_dirs() -> tuple[Path, ...]:
    """All folders of configurations: fedcl's, those of plug-ins, and the one of --config-dir or FEDCL_CONFIG_DIR."""
    own = os.environ.get(FOLDER)
    plugins = [plugin.configs for plugin in find_plugins() if plugin.configs is not None]
    return (config_dir(), *plugins, *([Path(own)] if own else []))


def option_files(group: str) -> dict[str, Path]:
    """The options of a group in all folders, by their path below it without suffix: "dm", "federated/one_shot".

    ConfigError where two folders have an option of one name, of which Hydra would silently take the first.
    """
    found: dict[str, Path] = {}
    for folder in config_dirs():
        for path in sorted((folder / group).rglob("*.yaml")):
            name = path.relative_to(folder / group).with_suffix("").as_posix()
            if found.setdefault(name, path) is not path:
                raise ConfigError(f"{path} has the name of another option, {found[name]}; rename it")
    return found


def typed_path(key: str, *parts: Any) -> Path:
    """A path as a user typed it for `key`, with ~ written out. ConfigError where no file can have this name."""
    path = Path()
    try:
        for part in parts:
            path = path / Path(str(part)).expanduser()
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # whoever opens it says so
    except (OSError, RuntimeError, ValueError) as error:  # too long, ~nobody, a zero byte
        reason = getattr(error, "strerror", None) or error
        text = str(Path(*map(str, parts)))
        short = text if len(text) <= 60 else f"{text[:60]}... ({len(text)} characters)"
        raise ConfigError(f"{key}={short} is no path that can exist here ({reason}); type {key}=PATH") from None
    return path
