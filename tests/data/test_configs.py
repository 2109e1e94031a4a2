from pathlib import Path

import pytest
import yaml

import fedcl.data.arrays
import fedcl.data.digits
import fedcl.data.folder
import fedcl.data.table
import fedcl.data.vision
from fedcl.data.base import DataSource

FILES = sorted((Path(__file__).resolve().parents[2] / "configs/dataset").glob("*.yaml"))
SOURCES = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (
        fedcl.data.arrays.Arrays,
        fedcl.data.digits.Digits,
        fedcl.data.folder.Folder,
        fedcl.data.table.Table,
        fedcl.data.vision.Vision,
    )
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_data_set_has_the_promised_keys_and_names_its_source(file):
    text = file.read_text()
    assert text.startswith("# source: ")
    config = yaml.safe_load(text)
    assert {"root", "download", "horizontal_flip"} <= set(config)
    assert config["download"] is False
    source = SOURCES[config.pop("_target_")](**config)
    assert isinstance(source, DataSource)
    assert set(config) == set(vars(source))  # every number is written out


def test_the_promised_data_sets_are_there():
    assert {file.stem for file in FILES} >= {
        *("digits", "mnist", "fashion_mnist", "kmnist", "svhn", "cifar10", "cifar100", "npz", "image_folder", "csv")
    }
