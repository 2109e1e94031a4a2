"""Summaries as safetensors: everything needed to train on them elsewhere, and nothing that runs.

Tensors: the arrays by name, `targets`, and `num_source` where it is told. Metadata, each value JSON: `decoder`,
`shape`, `num_classes`, `normalization` (mean and std of [0, 1] pixels), `method`, `origin`, `recipe` (how to train
on it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fedcl.core.checks import fits
from fedcl.core.errors import DataError
from fedcl.core.tensor_files import as_data_error, read_tensors, write_tensors
from fedcl.core.types import Normalization, Origin, Summary
from fedcl.distill.parameterizations import load_decoder

FORMAT = "fedcl summary 1"


def save_summary(summary: Summary, path: Path, recipe: Mapping[str, Any] | None = None) -> None:
    """Write one summary; `recipe` says in plain values how a network is trained on it."""
    tensors = {f"array.{name}": array for name, array in summary.arrays.items()} | {"targets": summary.targets}
    if summary.num_source_C is not None:
        tensors["num_source"] = summary.num_source_C
    about = {
        "decoder": summary.decoder.spec(),
        "shape": summary.shape_CHW,
        "num_classes": summary.num_classes,
        "normalization": asdict(summary.normalization),
        "method": summary.method,
        "origin": asdict(summary.origin),
        "recipe": json.loads(json.dumps(dict(recipe or {}), default=str)),
    }
    write_tensors(path, FORMAT, tensors, about)


def load_summary(path: Path) -> Summary:
    """Read one summary. What is returned decodes to finite images, one for each target.

    Raises:
        DataError: the file is missing, is no summary, or contradicts itself.
    """
    tensors, about = read_tensors(path, FORMAT)
    with as_data_error(f"{path} is damaged; make it again"):
        targets, origin, method = tensors["targets"], about["origin"], about["method"]
        classes = about.get("num_classes", 0)  # files of 0.1.0 have the counts alone
        if not isinstance(method, str) or not all(fits(value, int) for value in [classes, *origin.values()]):
            raise DataError(
                "'method' must be a text, 'origin' and 'num_classes' whole numbers, "
                f"got {method!r}, {origin} and {classes!r}"
            )
        summary = Summary(
            arrays={name.removeprefix("array."): t for name, t in tensors.items() if name.startswith("array.")},
            targets=targets if targets.is_floating_point() else targets.to(torch.int64),
            num_source_C=tensors.get("num_source"),
            num_classes=classes,
            shape_CHW=tuple(about["shape"]),
            normalization=Normalization(**about["normalization"]),
            decoder=load_decoder(about["decoder"]),
            method=method,
            origin=Origin(**origin),
        )
        summary.check()
        return summary
