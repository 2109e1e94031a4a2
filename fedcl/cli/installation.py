"""Installation: names that another distribution, or a folder of the user's, may have taken."""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from fedcl import DISTRIBUTION
from fedcl.core.errors import ConfigError
from fedcl.core.paths import PACKAGE


def check_plugins(package: Path = PACKAGE) -> None:
    """Raise ConfigError where `strategies` or `scenarios`, generic names both, is not the folder beside `fedcl`."""
    for name in ("strategies", "scenarios"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found == package.parent / name:
            continue
        owners = [owner for owner in packages_distributions().get(name, []) if owner != DISTRIBUTION]
        remedy = "start from another folder, or install fedcl again"
        if found is not None:
            remedy = f"uninstall {', '.join(owners)}" if owners else f"give {found} another name, or {remedy}"
        raise ConfigError(
            f"fedcl's package '{name}' belongs in {package.parent}, but Python finds {found or 'none'}; {remedy}"
        )


def namesake() -> str:
    """One line where the package index's other project called fedcl is installed beside this one, "" elsewhere."""
    try:
        found = distribution("fedcl")
    except PackageNotFoundError:
        return ""
    if any(entry.value == "fedcl.cli.main:main" for entry in found.entry_points):
        return ""  # this project, under the name that it had
    return (
        f"the distribution fedcl {found.version} in this environment is another project; this one is called "
        f"{DISTRIBUTION}, and the two ask for different packages: type pip uninstall fedcl"
    )
