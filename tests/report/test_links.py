"""A run's folder may come from a stranger: what its links show elsewhere on this disk does not get into the report."""

from __future__ import annotations

import base64
import json

import pytest

from fedcl.core.errors import RunError
from fedcl.report import load_runs, write_report

SECRET = b"somebody's password"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return path


@pytest.mark.parametrize("name", ["summaries.png", "partition.svg", "partition.png"])
def test_a_picture_that_is_a_link_out_of_the_folder_is_left_out(make, secret, tmp_path, name):
    folder = make.save("a", make.federated("one_shot"))
    (folder / name).symlink_to(secret)
    (folder / "chain").symlink_to(secret.parent)
    page = write_report([make.root], tmp_path / "out").read_text()
    assert base64.b64encode(SECRET).decode() not in page
    (folder / name).unlink()
    (folder / name).symlink_to("chain/secret")  # by way of a link inside
    assert base64.b64encode(SECRET).decode() not in write_report([make.root], tmp_path / "out").read_text()


def test_links_within_the_folder_and_to_the_folder_are_followed(make, tmp_path):
    folder = make.save("a", make.federated("one_shot"))
    (folder / "first.png").write_bytes(b"picture")
    (folder / "summaries.png").symlink_to("first.png")
    (tmp_path / "latest").symlink_to(folder)
    page = write_report([tmp_path / "latest"], tmp_path / "out").read_text()
    assert base64.b64encode(b"picture").decode() in page


def test_a_record_that_is_a_link_out_of_the_folder_is_skipped(make, secret):
    secret.write_text(json.dumps(make.federated("one_shot")))
    folder = make.save("a", "{}")
    (folder / "record.json").unlink()
    (folder / "record.json").symlink_to(secret)
    runs, [skipped] = load_runs([make.root])
    assert not runs
    assert skipped.path == folder
    assert "link" in skipped.reason


def test_figures_are_not_written_through_a_link(make, tmp_path):
    make.save("a", make.federated("one_shot"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (make.root / "figures").symlink_to(elsewhere)
    with pytest.raises(RunError, match="figures is a link to another place; remove it"):
        write_report([make.root], make.root)
    assert not list(elsewhere.iterdir())
