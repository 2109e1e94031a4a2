from pathlib import Path

import numpy as np
import pytest
import torch

from fedcl.core.errors import ConfigError, DataError
from fedcl.data.table import Table

# Four plants a class: numbers, words, and a column that is always 7
PLANTS = """height, leaf, tray, kind
1, round, 7, moss
2, round, 7, moss
3, long, 7, moss
4, round, 7, moss
10, long, 7, fern
20, long, 7, fern
30, round, 7, fern
40, long, 7, fern
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str, **options) -> Table:
        path = tmp_path / "plants.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return Table(**{"path": str(path), "label": "kind", "test_fraction": 0.25} | options)

    return write


def test_numbers_are_standardised_by_the_training_rows_and_words_are_one_hot(write):
    """Worked out here from the file itself: the split is known by what the rows say in their own units."""
    data = write(PLANTS).load()
    assert data.name == "plants"
    assert data.class_names == ("fern", "moss")
    assert (data.inputs.shape, data.inputs.dtype, data.inputs.is_image) == ((4,), "float32", False)
    assert data.train.inputs.dtype == torch.float32
    own = {part: data.inputs.invert(held.inputs) for part, held in (("train", data.train), ("test", data.test))}
    assert sorted(torch.cat(list(own.values()))[:, 0].round().tolist()) == [1, 2, 3, 4, 10, 20, 30, 40]
    heights = own["train"][:, 0].double().round().numpy()
    assert len(heights) == 6
    mean, std = heights.mean(), np.sqrt(((heights - heights.mean()) ** 2).mean())
    assert data.inputs.preprocess.mean == pytest.approx((mean, 0, 0, 7))
    assert data.inputs.preprocess.std == pytest.approx((std, 1, 1, 1))
    for part, held in (("train", data.train), ("test", data.test)):
        rows = own[part][:, 0].round()
        assert held.inputs[:, 0].tolist() == pytest.approx(((rows - mean) / std).tolist(), abs=1e-6)
        is_long = torch.isin(rows, torch.tensor([3.0, 10, 20, 40]))
        assert torch.equal(held.inputs[:, 1], is_long.float())  # "long" before "round"
        assert torch.equal(held.inputs[:, 2], (~is_long).float())
        assert held.inputs[:, 3].tolist() == [0.0] * len(rows)  # a constant column
        assert torch.equal(held.labels_N, (rows < 5).long())
        assert torch.equal(held.counts_C, torch.tensor([3, 3] if part == "train" else [1, 1]))


def test_the_split_follows_its_own_seed(write):
    text = "x, kind\n" + "".join(f"{value}, {value % 2}\n" for value in range(40))
    first, again, other = (write(text, split_seed=seed).load().test.inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_word_of_test_rows_alone_is_none_of_the_known(write):
    data = write(PLANTS).load()
    tested = data.inputs.invert(data.test.inputs)[0, 0].round().int().item()
    lines = [line.replace("long", "lobed").replace("round", "lobed") if line.startswith(f"{tested},") else line
             for line in PLANTS.splitlines()]  # fmt: skip
    changed = write("\n".join(lines)).load()
    assert changed.test.inputs[0, 1:3].tolist() == [0, 0]
    assert torch.equal(changed.train.inputs, data.train.inputs)


def test_numbers_that_are_names(write):
    data = write(PLANTS, categorical=["tray"], ignore=["height"]).load()
    assert data.inputs.shape == (3,)  # long, round, 7
    assert data.train.inputs[:, 2].tolist() == [1.0] * 6


def test_classes_that_are_numbers_are_counted_in_their_order(write):
    rows = [f"{value}, {label}" for value, label in enumerate([10, 9, 10, 9, -1, -1])]
    assert write("\n".join(["x, kind", *rows])).load().class_names == ("-1", "9", "10")


@pytest.mark.parametrize(("delimiter", "character"), [(";", ";"), ("tab", "\t")])
def test_other_characters_between_cells(write, delimiter, character):
    text = "\ufeff" + PLANTS.replace(", ", character).replace("\n", "\r\n\r\n")  # as a spreadsheet writes it
    assert torch.equal(write(text, delimiter=delimiter).load().train.inputs, write(PLANTS).load().train.inputs)


def changed(line: int, old: str, new: str) -> str:
    lines = PLANTS.splitlines()
    assert old in lines[line - 1]
    return "\n".join([*lines[: line - 1], lines[line - 1].replace(old, new), *lines[line:]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(4, "long", ""), r"line 4 of .* has no value in column 'leaf' \(empty\); .* dataset\.ignore=\[leaf\]"),
        (changed(3, "2", "NaN"), r"line 3 of .* has no value in column 'height' \(NaN\)"),
        (changed(9, "fern", "?"), r"line 9 of .* has no value in column 'kind'"),
        (changed(5, "4,", "four,"), r"line 5: 'four' in column 'height' .* dataset\.categorical=\[height\]"),
        (changed(5, "4,", "1_0,"), "line 5: '1_0' in column 'height' is no number"),
        (changed(6, "10", "inf"), "line 6: 'inf' in column 'height' is not finite"),
        (changed(2, ", 7", ""), r"line 2 of .* has 3 cells for 4 columns"),
        (changed(1, "leaf", "height"), "each once"),
        (changed(1, "kind", "sort"), r"dataset\.label: plants\.csv has no column 'kind'; it has height, leaf, tray,"),
        (changed(2, "moss", "liverwort"), "class 'liverwort' of .* has 1 example"),
        (PLANTS.replace(",", ";"), r"type dataset\.delimiter=';'"),
        (PLANTS.splitlines()[0], "no rows"),
        ("", "no rows"),
        ('a,kind\n"1,x\n', "is no table"),
        (b"a,kind\n\xff,x\n", "UTF-8"),
        ("kind,code\n" + "".join(f"{n % 2},c{n}\n" for n in range(8)), r"another word in every row.*ignore=\[code\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_line_and_column(write, text, message):
    with pytest.raises(DataError, match=message):
        write(text).load()


def test_what_is_ignored_may_be_empty(write):
    assert write(changed(4, "long", ""), ignore=["leaf"]).load().inputs.shape == (2,)


def test_a_table_of_nothing_but_classes(write):
    with pytest.raises(DataError, match="no column is left"):
        write(PLANTS, ignore=["height", "leaf", "tray"]).load()


def test_files_and_columns_are_asked_for(write, tmp_path):
    with pytest.raises(DataError, match=r"type dataset\.path=FILE\.csv"):
        Table().load()
    with pytest.raises(DataError, match="there is no file"):
        Table(path=str(tmp_path / "none.csv"), label="kind").load()
    with pytest.raises(
        DataError, match=r"dataset\.label needs the name of a column of plants\.csv; it has height, leaf"
    ):
        write(PLANTS, label=None).load()
    with pytest.raises(DataError, match=r"dataset\.ignore: plants\.csv has no column 'moss'"):
        write(PLANTS, ignore=["moss"]).load()
    write(PLANTS)
    assert Table(root=str(tmp_path), path="plants.csv", label="kind").load().num_classes == 2


@pytest.mark.parametrize(
    "options", [{"test_fraction": 0}, {"test_fraction": 1}, {"delimiter": "::"}, {"horizontal_flip": True}]
)
def test_options_that_cannot_be(options):
    with pytest.raises(ConfigError, match=f"dataset.{next(iter(options))}"):
        Table(path=str(Path("plants.csv")), label="kind", **options)
