"""Where configuration is found: in the package of a wheel, beside the package of a checkout."""

from __future__ import annotations

import pytest

from fedcl.errors import ConfigError
from fedcl.paths import LANDMARK, config_dir


def test_checkout(root):
    assert config_dir() == root / "configs"


def test_a_wheel_has_it_inside_and_that_comes_first(tmp_path):
    package = tmp_path / "fedcl"
    for place in (tmp_path / "configs", package / "configs"):
        place.mkdir(parents=True)
        (place / LANDMARK).touch()
    assert config_dir(package) == package / "configs"


def test_a_foreign_configs_folder_is_not_taken(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.yaml").touch()
    with pytest.raises(ConfigError, match="install fedcl again"):
        config_dir(tmp_path / "fedcl")
