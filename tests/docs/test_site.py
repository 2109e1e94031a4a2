"""The site is built strictly: every link leads somewhere, every page is in its menu."""

import subprocess
import sys

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")


@pytest.mark.slow
def test_the_site_builds_strictly(root, tmp_path):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "-q",
        "--strict",
        "-f",
        ".mkdocs.yml",
        "-d",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (
        "index.html",
        "tutorials/your_strategy/index.html",
        "reference/groups/distiller/index.html",
        "api/federated/index.html",
    ):
        assert (tmp_path / "site" / page).is_file()
