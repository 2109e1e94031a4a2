"""Where the configuration lives: inside the package in a wheel, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from fedcl.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent
LANDMARK = "federated.yaml"  # a folder that holds it is the right one


def config_dir(package: Path = PACKAGE) -> Path:
    """The folder of fedcl's YAML files.

    Args:
        package: the folder of the imported `fedcl` package.

    Raises:
        ConfigError: neither place has them; the installation is broken.
    """
    places = (package / "configs", package.parent / "configs")
    for place in places:
        if (place / LANDMARK).is_file():
            return place
    raise ConfigError(
        f"fedcl's configuration files are missing: neither {places[0]} nor {places[1]} holds {LANDMARK}; "
        "install fedcl again"
    )
