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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fedcl.distill.parameterizations import load_decoder
from fedcl.errors import DataError
from fedcl.record import write_atomically
from fedcl.types import Normalization, Origin, Summary

FORMAT = "fedcl summary 1"


def save_summary(summary: Summary, path: Path, recipe: Mapping[str, Any] | None = None) -> None:
    """Write one summary; `recipe` says in plain values how a network is trained on it."""
    tensors = {f"array.{name}": array.contiguous() for name, array in summary.arrays.items()}
    tensors["targets"] = summary.targets.contiguous()
    if summary.num_source_C is not None:
        tensors["num_source"] = summary.num_source_C.contiguous()
    about = {
        "decoder": summary.decoder.spec(),
        "shape": summary.shape_CHW,
        "num_classes": summary.num_classes,
        "normalization": asdict(summary.normalization),
        "method": summary.method,
        "origin": asdict(summary.origin),
        "recipe": dict(recipe or {}),
    }
    metadata = {"format": FORMAT} | {name: json.dumps(value, default=str) for name, value in about.items()}
    write_atomically(path, save(tensors, metadata))


def load_summary(path: Path) -> Summary:
    """Read one summary.

    Raises:
        DataError: the file is missing, is no summary, or contradicts itself.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise DataError(f"there is no summary at {path}") from None
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is not a safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path} is not a '{FORMAT}' file: its format says {metadata.get('format')!r}")
    try:
        about = {name: json.loads(metadata[name]) for name in ("decoder", "shape", "normalization", "method", "origin")}
        targets = tensors["targets"]
        return Summary(
            arrays={name.removeprefix("array."): t for name, t in tensors.items() if name.startswith("array.")},
            targets=targets if targets.is_floating_point() else targets.to(torch.int64),
            num_source_C=tensors.get("num_source"),
            num_classes=json.loads(metadata.get("num_classes", "0")),  # files of 0.1.0 have num_source alone
            shape_CHW=tuple(about["shape"]),
            normalization=Normalization(**about["normalization"]),
            decoder=load_decoder(about["decoder"]),
            method=about["method"],
            origin=Origin(**about["origin"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} lacks what a summary has ({type(error).__name__}: {error})") from None
