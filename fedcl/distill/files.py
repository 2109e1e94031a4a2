"""Summaries as safetensors: everything needed to train on them elsewhere, and nothing that runs.

Tensors: the arrays by name, `targets`, `num_source`. Metadata, each value JSON: `decoder`, `shape`,
`normalization` (mean and std of [0, 1] pixels), `method`, `origin`, `recipe` (how to train on it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fedcl.checks import fits
from fedcl.distill.parameterizations import load_decoder
from fedcl.errors import DataError
from fedcl.tensor_files import as_data_error, read_tensors, write_tensors
from fedcl.types import Normalization, Origin, Summary

FORMAT = "fedcl summary 1"


def save_summary(summary: Summary, path: Path, recipe: Mapping[str, Any] | None = None) -> None:
    """Write one summary; `recipe` says in plain values how a network is trained on it."""
    tensors = {f"array.{name}": array for name, array in summary.arrays.items()}
    tensors |= {"targets": summary.targets, "num_source": summary.num_source_C}
    about = {
        "decoder": summary.decoder.spec(),
        "shape": summary.shape_CHW,
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
        if not isinstance(method, str) or not all(fits(value, int) for value in origin.values()):
            raise DataError(f"'method' must be a text and 'origin' whole numbers, got {method!r} and {origin}")
        summary = Summary(
            arrays={name.removeprefix("array."): t for name, t in tensors.items() if name.startswith("array.")},
            targets=targets if targets.is_floating_point() else targets.to(torch.int64),
            num_source_C=tensors["num_source"],
            shape_CHW=tuple(about["shape"]),
            normalization=Normalization(**about["normalization"]),
            decoder=load_decoder(about["decoder"]),
            method=method,
            origin=Origin(**origin),
        )
        summary.check()
        return summary
