"""Expert trajectories on disk: weights after every epoch of training on real data, made once and shared.

A folder holds `experts.json`, which says what the experts were trained on and how, and one
`expert-0000.safetensors` an expert: "weights" float32 [epochs + 1, P], the parameters flattened in the module's
order, row 0 the initialisation. An expert is written when it is finished, so an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedcl.core.errors import DataError, DistillError
from fedcl.core.inputs import InputSpec
from fedcl.core.record import write_atomically
from fedcl.core.tensor_files import open_tensors, write_tensors
from fedcl.core.types import LabeledSet

FORMAT = "fedcl experts 1"
WHAT = {"data": "another data set", "model": "another model", "training": "other training", "format": "another format"}


def describe(network: nn.Module, data: LabeledSet, spec: InputSpec, training: Mapping[str, Any]) -> dict[str, Any]:
    """What experts of that kind are, in plain values: the content of `experts.json`."""
    digest = hashlib.sha256(repr((data.num_classes, spec.preprocess)).encode())
    for tensor in (data.inputs, data.labels_N):
        digest.update(repr(tuple(tensor.shape)).encode() + tensor.cpu().contiguous().numpy().tobytes())
    shapes = {name: list(parameter.shape) for name, parameter in network.named_parameters()}
    model = {"layers": str(network).splitlines(), "shapes": shapes}
    return {"format": FORMAT, "data": digest.hexdigest(), "model": model, "training": dict(training)}


def open_folder(named: str | None, about: dict[str, Any]) -> Path:
    """The folder of experts of that kind, by default one whose name differs wherever `about` does; made if need be.

    DistillError where it holds something else.
    """
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path("runs", "experts", name) if named is None else Path(named)
    manifest = folder / "experts.json"
    if not manifest.exists():
        if any(folder.glob("expert-*.safetensors")):
            raise DistillError(
                f"{folder} has experts but no experts.json that says of what; choose another networks.folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(manifest, json.dumps(about, indent=1, sort_keys=True))
        return folder
    try:
        found = json.loads(manifest.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DistillError(f"{manifest} cannot be read ({error}); choose another networks.folder") from None
    wanted = json.loads(json.dumps(about))
    odd = [what for part, what in WHAT.items() if not isinstance(found, dict) or found.get(part) != wanted[part]]
    if odd:
        raise DistillError(
            f"the experts in {folder} are of {' and '.join(odd)}; "
            "type networks.folder=null to keep each kind in a folder of its own, or choose another folder"
        )
    return folder


def path_of(folder: Path, expert: int) -> Path:
    return folder / f"expert-{expert:04d}.safetensors"


def save_expert(folder: Path, expert: int, weights_TP: Tensor) -> None:
    write_tensors(path_of(folder, expert), FORMAT, {"weights": weights_TP}, {})


def read_weights(folder: Path, expert: int, epochs: tuple[int, ...], size: int) -> Tensor:
    """[len(epochs), size]: the rows of those epochs; nothing else is read.

    DistillError where the file is missing, damaged, too short or not finite.
    """
    try:
        with open_tensors(path_of(folder, expert), FORMAT) as file:
            rows = file.get_slice("weights")
            weights = torch.stack([rows[epoch] for epoch in epochs])
            if weights.dtype != torch.float32 or tuple(weights.shape) != (len(epochs), size):
                raise DataError(f"{weights.dtype} {list(weights.shape)} is not float32 {[len(epochs), size]}")
            if not torch.isfinite(weights).all():
                raise DataError("the weights hold NaN or infinity")
            return weights
    except DataError as error:
        raise DistillError(f"{error}; remove the file and it will be made again") from None
