"""Experts: every step a stretch of a network's training on the real data (MTT, Cazenavette et al., CVPR 2022).

Experts are made once and shared. A folder holds `experts.json`, which says what they were trained on and how, and one
`expert-0000.safetensors` an expert: "weights" float32 [epochs + 1, P] after every epoch, the parameters flattened in
the module's order, row 0 the initialisation. An expert is written when it is finished, so an interrupted run goes on.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from fedcl.core.errors import DataError, DistillError
from fedcl.core.inputs import InputSpec
from fedcl.core.record import write_atomically
from fedcl.core.rules import number, whole
from fedcl.core.seeding import derive, torch_rng
from fedcl.core.tensor_files import open_tensors, write_tensors
from fedcl.core.types import LabeledSet
from fedcl.distill.batch import Matched
from fedcl.distill.inner import check_stateless, flatten
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream, Stateless
from fedcl.distill.networks.fixed import Unchanged
from fedcl.training.loop import train
from fedcl.training.recipe import Training

FORMAT = "fedcl experts 1"
WHAT = {"data": "another data set", "model": "another model", "training": "other training", "format": "another format"}


@dataclass(frozen=True, kw_only=True)
class Experts(Networks):
    """Trains what is missing when it is opened, with the distiller's augmentation.

    An expert is trained by plain SGD on cross-entropy, without momentum and weight decay.
    """

    provides, mixes = frozenset({"trajectory"}), True

    folder: str | None = None  # null = runs/experts/<name of their kind>, below the current folder
    num_experts: Annotated[int, whole(1, example=10)] = 10
    max_start: Annotated[int, whole(0, example=5)] = 5  # last epoch at which a stretch begins
    stretch: Annotated[int, whole(1, example=2)] = 2  # epochs from start to goal
    lr: Annotated[float, number(above=0, example=0.01)] = 0.01  # of SGD
    batch_size: Annotated[int, whole(1, example=256)] = 256
    seed: int = 0  # of the experts' initialisation, order and augmentation, shared by all runs

    def estimate_only(self) -> Networks:
        return _Untrained()

    def pretraining(self) -> Training:
        return Training(epochs=self.num_experts * self._epochs, batch_size=self.batch_size)

    @property
    def _epochs(self) -> int:
        return self.max_start + self.stretch

    def open(self, source: NetworkSource) -> NetworkStream:
        held, spec = source.only_set("experts")
        data, network = held.by_class(), source.new_model(0)
        check_stateless(network, "trajectory")
        numbers = {"epochs": self._epochs, "lr": self.lr, "batch_size": self.batch_size, "seed": self.seed}
        training = numbers | {"augmentation": repr(source.augmentation), "flip": source.flip}
        folder = open_folder(self.folder, describe(network, data, spec, training))
        source.progress.begin("experts", self.num_experts)
        for expert in range(self.num_experts):
            if not path_of(folder, expert).exists():
                save_expert(folder, expert, self._train(expert, data, spec, source))
            source.progress.advance("experts")
        source.progress.end("experts")
        network, size = network.requires_grad_(False), len(flatten(network))

        def at(step: int) -> Matched:
            generator = torch_rng(source.seed, "stretch", round=step)
            expert = int(torch.randint(self.num_experts, (), generator=generator))
            start = int(torch.randint(self.max_start + 1, (), generator=generator))
            weights = read_weights(folder, expert, (start, start + self.stretch), size)
            start_P, goal_P = weights.to(next(network.parameters()).device).unbind()
            return Matched(network=network, start_P=start_P, goal_P=goal_P)

        return Stateless(at)

    def _train(self, expert: int, data: LabeledSet, spec: InputSpec, source: NetworkSource) -> Tensor:
        """float32 [epochs + 1, P]: the weights of one expert."""
        plain = {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
        training = self.training(augmentation=source.augmentation, **plain)
        network = source.new_model(derive(self.seed, "expert", client=expert))
        data = data.to(next(network.parameters()).device)
        rows = [flatten(network).cpu()]
        for epoch in range(self._epochs):
            seed = derive(self.seed, "expert epoch", client=expert, round=epoch)
            more = {"spec": spec, "flip": source.flip, "progress": source.progress}
            train(network, data.inputs, data.labels_N, training, seed=seed, **more)
            rows.append(flatten(network).cpu())
        return torch.stack(rows)


@dataclass(frozen=True, kw_only=True)
class _Untrained(Networks):
    """From one random network to another: the work of a stretch, for an estimate."""

    provides, mixes = frozenset({"trajectory"}), True

    def open(self, source: NetworkSource) -> NetworkStream:
        network = source.new_model(0).requires_grad_(False)
        return Unchanged(Matched(network=network, start_P=flatten(network), goal_P=flatten(source.new_model(1))))


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
