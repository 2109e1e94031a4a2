"""Gradient matching: what a step of training would do to a network, on real and on synthetic images.

Dataset Condensation with Gradient Matching (DC; Zhao, Mopuri & Bilen, ICLR 2021), equations 9 and 10: the
distance is summed over layers and, within a layer, over output units, 1 - cosine each; biases
and norms (one axis) are left out. DSA (Zhao & Bilen, ICML 2021) adds Siamese augmentation, DCC (Lee et al.,
ICML 2022) the gradient of all classes at once, IDC (Kim et al., ICML 2022) squared or absolute distances.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedcl.core.errors import ConfigError, DistillError
from fedcl.core.rules import one_of, whole
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.objectives.base import Objective
from fedcl.models.convnet import uncompiled
from fedcl.models.norms import batch_norms

DISTANCES = ("cos", "mse", "l1")
LAYERS = {"weights": 2, "convolutions": 4}  # name -> least number of axes of a matched parameter


@dataclass(frozen=True, kw_only=True)
class Gradient(Objective):
    """Distance of the gradients of mean cross-entropy, exact to second order in the synthetic images."""

    needs, reads_targets = frozenset({"network"}), True

    # cos (rows of output units), mse or l1 (sums over all entries)
    distance: Annotated[str, one_of("cos", "mse", "l1")] = "cos"
    per_class: bool = True  # one gradient a segment; false: one of all classes of the set (DCC)
    # first real batches that are matched by classes all the same, where per_class is false
    warm_up: Annotated[int, whole(0, example=0)] = 0
    # weights: parameters of two axes and more; convolutions: of four
    layers: Annotated[str, one_of(*LAYERS)] = "weights"
    vectorize: bool = False  # synthetic gradients of all segments in one vmap; pays where they are many and small
    chunk: Annotated[int, whole(1, example=64)] = 64  # real images a pass, to bound memory

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_class and self.warm_up:
            raise ConfigError(
                f"objective.warm_up={self.warm_up} is for objective.per_class=false; type objective.warm_up=0"
            )

    @property
    def batched(self) -> bool:
        return self.per_class

    def check(self, network: nn.Module) -> None:
        if batch_norms(network):
            raise DistillError(
                "gradient matching needs a network without batch norm, which mixes the images of a pass; "
                "type model.norm=instance, or choose another model (model=mlp)"
            )
        if not self._matched(network):
            raise DistillError(f"the network has no {self.layers} to match; type objective.layers=weights")

    def _matched(self, network: nn.Module) -> dict[str, Tensor]:
        """The parameters that gradients are taken for, as leaves of their own."""
        least = LAYERS[self.layers]
        return {n: p.detach().requires_grad_() for n, p in network.named_parameters() if p.ndim >= least}

    def _sizes(self, side: MatchBatch, step: MatchStep) -> tuple[int, ...]:
        by_class = self.per_class or step.network_index < self.warm_up
        return side.counts if by_class else (len(side.inputs),)

    def target(self, real: MatchBatch, step: MatchStep) -> list[Tensor]:
        """Gradients, one tensor [segments, *parameter] for each matched parameter."""
        matched = self._matched(step.network)
        groups = []
        sizes = self._sizes(real, step)
        for images, targets in zip(real.inputs.split(sizes), real.targets.split(sizes), strict=True):
            total = [torch.zeros_like(p) for p in matched.values()]
            for part, part_targets in zip(images.split(self.chunk), targets.split(self.chunk), strict=True):
                logits = functional_call(step.network, matched, (part,))
                loss = F.cross_entropy(logits, part_targets, reduction="sum") / len(images)
                for sum_, gradient in zip(total, torch.autograd.grad(loss, list(matched.values())), strict=True):
                    sum_ += gradient
            groups.append(total)
        return [torch.stack(parameter).detach() for parameter in zip(*groups, strict=True)]

    def loss(self, synthetic: MatchBatch, target: list[Tensor], step: MatchStep) -> Tensor:
        matched = self._matched(step.network)
        sizes = self._sizes(synthetic, step)
        stacked = self.vectorize and len(set(sizes)) == 1
        with uncompiled(step.network):  # these gradients have gradients; the real side's have not
            gradients = (_stacked if stacked else _looped)(step.network, matched, synthetic, sizes)
        terms = [self._distance(mine, real) for mine, real in zip(gradients, target, strict=True)]
        return torch.stack(terms).sum()

    def _distance(self, a_SO: Tensor, b_SO: Tensor) -> Tensor:
        """Distance of two gradients [segments, out, ...] of one parameter, summed over segments."""
        if self.distance == "mse":
            return (a_SO - b_SO).square().sum()
        if self.distance == "l1":
            return (a_SO - b_SO).abs().sum()
        a, b = a_SO.flatten(2), b_SO.flatten(2)
        return (1 - (a * b).sum(2) / (_norm(a) * _norm(b) + 1e-6)).sum()


def _norm(rows: Tensor) -> Tensor:
    """Euclidean length along the last axis; its gradient at zero is zero."""
    square = rows.square().sum(2)
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


def _looped(network: nn.Module, matched: dict[str, Tensor], side: MatchBatch, sizes: tuple[int, ...]) -> list[Tensor]:
    groups = []
    for images, targets in zip(side.inputs.split(sizes), side.targets.split(sizes), strict=True):
        loss = F.cross_entropy(functional_call(network, matched, (images,)), targets)
        groups.append(torch.autograd.grad(loss, list(matched.values()), create_graph=True))
    return [torch.stack(parameter) for parameter in zip(*groups, strict=True)]


def _stacked(network: nn.Module, matched: dict[str, Tensor], side: MatchBatch, sizes: tuple[int, ...]) -> list[Tensor]:
    def loss(parameters: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, parameters, (images,)), targets)

    images, targets = (t.unflatten(0, (len(sizes), sizes[0])) for t in (side.inputs, side.targets))
    return list(vmap(grad(loss), in_dims=(None, 0, 0))(matched, images, targets).values())
