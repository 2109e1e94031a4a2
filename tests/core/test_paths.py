"""Where configuration is found: in the package of a wheel, beside the package of a checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcl.core.errors import ConfigError
from fedcl.core.paths import LANDMARK, config_dir, typed_path


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


def test_a_path_is_joined_and_its_home_written_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert typed_path("dataset.path", "~/data", "x.npz") == tmp_path / "data/x.npz"
    assert typed_path("dataset.path", "", "x.npz") == Path("x.npz")
    assert typed_path("dataset.path", "data", "/x.npz") == Path("/x.npz")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("~nosuchuser/x", "~nosuchuser/x is"),
        ("x" * 5000, f"{'x' * 60}... (5000 characters) is"),
        ("a\0b", "a\0b is"),
    ],
)
def test_a_path_that_cannot_be(text, shown):
    with pytest.raises(ConfigError) as caught:
        typed_path("dataset.path", text)
    assert str(caught.value).startswith(f"dataset.path={shown} no path that can exist here (")
