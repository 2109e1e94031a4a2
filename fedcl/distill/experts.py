"""Expert trajectories on disk: weights after every epoch of training on real data, made once and shared.

A folder holds `experts.json`, which says what the experts were trained on and how, and one
`expert-0000.safetensors` an expert: "weights" float32 [epochs + 1, P], the parameters flattened in the module's
order, row 0 the initialisation. An expert is written when it is finished, so an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedcl.core.errors import DataError, DistillError
from fedcl.core.inputs import InputSpec
from fedcl.core.progress import SILENT, Progress
from fedcl.core.record import write_atomically
from fedcl.core.seeding import derive
from fedcl.core.tensor_files import open_tensors, write_tensors
from fedcl.core.types import LabeledSet
from fedcl.distill.inner import flatten
from fedcl.training.augmentation import Augmentation
from fedcl.training.loop import train
from fedcl.training.recipe import Training

FORMAT = "fedcl experts 1"
WHAT = {"data": "another data set", "model": "another model", "training": "other training", "format": "another format"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one expert is trained: plain SGD, cross-entropy, no momentum, no weight decay (MTT)."""

    epochs: int
    lr: float
    batch_size: int
    augmentation: Augmentation
    flip: bool
    seed: int  # of initialisation, order and augmentation; not the run's, so that runs share experts


def describe(network: nn.Module, data: LabeledSet, spec: InputSpec, recipe: Recipe) -> dict[str, Any]:
    """What experts of that kind are, in plain values: the content of `experts.json`."""
    digest = hashlib.sha256(repr((data.num_classes, spec.preprocess)).encode())
    for tensor in (data.inputs, data.labels_N):
        digest.update(repr(tuple(tensor.shape)).encode() + tensor.cpu().contiguous().numpy().tobytes())
    shapes = {name: list(parameter.shape) for name, parameter in network.named_parameters()}
    return {
        "format": FORMAT,
        "data": digest.hexdigest(),
        "model": {"layers": str(network).splitlines(), "shapes": shapes},
        "training": {**asdict(recipe), "augmentation": repr(recipe.augmentation)},
    }


def folder_name(about: dict[str, Any]) -> str:
    """A name that differs wherever `describe` does."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def open_folder(folder: Path, about: dict[str, Any]) -> None:
    """Make the folder, or check that it holds experts of that kind.

    Raises:
        DistillError: it holds something else.
    """
    manifest = folder / "experts.json"
    if not manifest.exists():
        if folder.is_dir() and any(folder.glob("expert-*.safetensors")):
            raise DistillError(
                f"{folder} has experts but no experts.json that says of what; choose another networks.folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(manifest, json.dumps(about, indent=1, sort_keys=True))
        return
    try:
        found = json.loads(manifest.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DistillError(f"{manifest} cannot be read ({error}); choose another networks.folder") from None
    wanted = json.loads(json.dumps(about))
    odd = [name for name in WHAT if not isinstance(found, dict) or found.get(name) != wanted[name]]
    if odd:
        raise DistillError(
            f"the experts in {folder} are of {' and '.join(WHAT[name] for name in odd)}; "
            "type networks.folder=null to keep each kind in a folder of its own, or choose another folder"
        )


def path_of(folder: Path, expert: int) -> Path:
    return folder / f"expert-{expert:04d}.safetensors"


def train_expert(
    network: nn.Module,
    data: LabeledSet,
    spec: InputSpec,
    recipe: Recipe,
    expert: int,
    progress: Progress = SILENT,
) -> Tensor:
    """float32 [epochs + 1, P]: the weights of one expert, `network` being its initialisation."""
    training = Training(
        epochs=1,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        momentum=0.0,
        weight_decay=0.0,
        schedule="constant",
        augmentation=recipe.augmentation,
    )
    device = next(network.parameters()).device
    images, labels = data.inputs.to(device), data.labels_N.to(device)
    rows = [flatten(network).cpu()]
    for epoch in range(recipe.epochs):
        seed = derive(recipe.seed, "expert epoch", client=expert, round=epoch)
        train(
            network,
            images,
            labels,
            training,
            seed=seed,
            spec=spec,
            flip=recipe.flip,
            progress=progress,
        )
        rows.append(flatten(network).cpu())
    return torch.stack(rows)


def save_expert(folder: Path, expert: int, weights_TP: Tensor) -> None:
    write_tensors(path_of(folder, expert), FORMAT, {"weights": weights_TP}, {})


def read_weights(folder: Path, expert: int, epochs: tuple[int, ...], size: int) -> Tensor:
    """[len(epochs), size]: the rows of those epochs; nothing else is read.

    Raises:
        DistillError: the file is missing, damaged, too short or not finite.
    """
    path = path_of(folder, expert)
    try:
        with open_tensors(path, FORMAT) as file:
            rows = file.get_slice("weights")
            weights = torch.stack([rows[epoch] for epoch in epochs])
            if weights.dtype != torch.float32 or tuple(weights.shape) != (len(epochs), size):
                raise DataError(f"{weights.dtype} {list(weights.shape)} is not float32 {[len(epochs), size]}")
            if not torch.isfinite(weights).all():
                raise DataError("the weights hold NaN or infinity")
            return weights
    except DataError as error:
        raise DistillError(f"{error}; remove the file and it will be made again") from None
