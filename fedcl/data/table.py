"""Tables: one CSV file with a line of column names and a column of classes.

Legend: N rows, D numbers of one row as a network reads it.
"""

import csv
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from fedcl.core.errors import ConfigError, DataError
from fedcl.core.inputs import Normalization
from fedcl.core.paths import typed_path
from fedcl.core.rules import number
from fedcl.core.seeding import numpy_rng
from fedcl.data.base import Dataset, DataSource, make_dataset, split_rows

MISSING = ("", "?", "na", "n/a", "nan", "null")  # cells, in lower case, that hold nothing


@dataclass(frozen=True, kw_only=True)
class Table(DataSource):
    """Rows of a CSV file as float32 [N, D], standardised when they are read.

    A column whose cells are all numbers becomes (x - mean) / std by the mean and the population standard deviation of
    the training rows; where all of these are equal, std counts as 1, so that they are 0. Any other column, and those
    that `categorical` names, becomes a 0 or 1 for each of the sorted words of the training rows; a word that only test
    rows have is 0 in all of them. Classes are the sorted words, or numbers, of the column `label`.
    """

    images = False

    path: str | None = None  # the file; a relative path starts at `root` if there is one
    label: str | None = None  # name of the column that holds the classes
    categorical: Sequence[str] = ()  # names of columns whose numbers are names
    ignore: Sequence[str] = ()  # names of columns that are left out
    delimiter: str = ","  # one character, or the word tab
    # part of each class (rounded, at least one row and never all) that is the test set
    test_fraction: Annotated[float, number(above=0, below=1, example=0.2)] = 0.2
    split_seed: int = 0  # which rows those are; the seed of a run does not move them
    horizontal_flip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizontal_flip:
            raise ConfigError("dataset.horizontal_flip=true is about images; leave it out for a table")
        if self.delimiter != "tab" and (len(self.delimiter) != 1 or self.delimiter in '\n\r"'):
            raise ConfigError(f"dataset.delimiter={self.delimiter!r} must be one character, or the word tab")

    def load(self) -> Dataset:
        if self.path is None:
            raise DataError("dataset=csv needs a file; type dataset.path=FILE.csv")
        path = typed_path("dataset.path", self.root or "", self.path)
        columns, lines = _read(path, "\t" if self.delimiter == "tab" else self.delimiter, self.ignore)
        if self.label is None:
            raise DataError(f"dataset.label needs the name of a column of {path.name}; it has {_few_of(columns)}")
        for key, names in (("label", [self.label]), ("categorical", self.categorical), ("ignore", self.ignore)):
            for name in names:
                if name not in columns:
                    raise DataError(f"dataset.{key}: {path.name} has no column '{name}'; it has {_few_of(columns)}")
        labels = columns.pop(str(self.label))
        order = str if None in map(_number, labels) else float
        places = {name: place for place, name in enumerate(sorted(set(labels), key=lambda text: (order(text), text)))}
        labels_N = torch.tensor([places[label] for label in labels])
        rng = numpy_rng(self.split_seed, "test split")
        train, test = split_rows(labels_N, self.test_fraction, rng, list(places), f"dataset.path={path}")
        inputs_ND, units = self._inputs(columns, lines, train.numpy())
        return make_dataset(
            name=path.stem,
            train=(inputs_ND[train], labels_N[train]),
            test=(inputs_ND[test], labels_N[test]),
            class_names=list(places),
            normalization=units,
        )

    def _inputs(
        self, columns: dict[str, list[str]], lines: list[int], train: np.ndarray
    ) -> tuple[Tensor, Normalization]:
        """float32 [N, D] of all rows, and the units of the D numbers."""
        inputs, mean, std = [], [], []
        for name, column in columns.items():
            if name in self.ignore:
                continue
            values = None if name in self.categorical else _numbers(name, column, lines)
            if values is not None:
                mean.append(float(values[train].mean()))
                std.append(float(values[train].std()) if np.ptp(values[train]) > 0 else 1.0)
                inputs.append((values - mean[-1]) / std[-1])
                continue
            words = sorted({column[row] for row in train})
            if len(words) == len(train):
                reason = "has another word in every row, as a name has"
                raise DataError(f"column '{name}' {reason}; type dataset.ignore=[{name}]")
            inputs += [np.array([float(cell == word) for cell in column]) for word in words]
            mean += [0.0] * len(words)
            std += [1.0] * len(words)
        if not inputs:
            raise DataError(f"no column is left beside dataset.label={self.label}; a network needs at least one")
        inputs_ND = torch.from_numpy(np.stack(inputs, 1).astype(np.float32))
        return inputs_ND, Normalization(mean=tuple(mean), std=tuple(std))


def _read(path: Path, delimiter: str, ignore: Collection[str]) -> tuple[dict[str, list[str]], list[int]]:
    """The cells of each column by its name, without spaces around them, and the line of each row in the file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            read = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            rows = [([cell.strip() for cell in row], read.line_num) for row in read if row]
    except FileNotFoundError:
        raise DataError(f"there is no file at dataset.path={path}; type dataset.path=FILE.csv") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"dataset.path={path} is no table ({reason}); save it as CSV in UTF-8") from error
    if len(rows) < 2:
        raise DataError(f"dataset.path={path} has no rows below a line of column names; save it as CSV with both")
    (names, _), *body = rows
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise DataError(
            f"the first line of dataset.path={path} must name two or more columns, each once, and says "
            f"{_few_of(names)}; where another character stands between cells, type dataset.delimiter=';'"
        )
    for row, line in body:
        if len(row) != len(names):
            raise DataError(
                f"line {line} of dataset.path={path} has {len(row)} cells for {len(names)} columns; mend it"
            )
        for name, text in zip(names, row, strict=True):
            if text.lower() in MISSING and name not in ignore:
                raise DataError(
                    f"line {line} of dataset.path={path} has no value in column '{name}' ({text or 'empty'}); fill it "
                    f"in, leave the row out, or type dataset.ignore=[{name}]"
                )
    return {name: [row[place] for row, _ in body] for place, name in enumerate(names)}, [line for _, line in body]


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)  # Python reads 1_000, nobody else does
    except ValueError:
        return None


def _numbers(name: str, column: Sequence[str], lines: Sequence[int]) -> np.ndarray | None:
    """float64 [N]; None where no cell is a number. DataError where some are not, or one is infinite."""
    found = [_number(cell) for cell in column]
    if all(value is None for value in found):
        return None
    for cell, value, line in zip(column, found, lines, strict=True):
        if value is None or not math.isfinite(value):
            what = "no number, and others are" if value is None else "not finite"
            key = "categorical" if value is None else "ignore"
            raise DataError(
                f"line {line}: '{cell}' in column '{name}' is {what}; mend it, or type dataset.{key}=[{name}]"
            )
    return np.array(found, dtype=np.float64)


def _few_of(names: Collection[str]) -> str:
    return ", ".join([*names][:12]) + (", ..." if len(names) > 12 else "")
