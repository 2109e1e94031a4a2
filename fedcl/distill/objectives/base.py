"""Objective: the statistics of the real side, and the loss of the synthetic side against them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fedcl.core.errors import DistillError
from fedcl.core.inputs import InputSpec
from fedcl.core.rules import Checked
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.models.base import Network
from fedcl.models.norms import batch_norms

if TYPE_CHECKING:
    from fedcl.distill.groups import RealBatches


class Objective(Checked, ABC):
    """A frozen dataclass of the objective's numbers. Losses are sums over segments."""

    config_key = "objective"

    needs: frozenset[str] = frozenset()  # of its networks, see `fedcl.distill.fit.NEEDS`
    batched: bool = False  # several data sets may be one batch: the loss is a sum of terms of single segments
    needs_real: bool = True  # real images are drawn for it; false: `target` gets a batch of none
    reads_targets: bool = False  # its loss depends on the synthetic side's targets: they can be learned
    needs_scores: bool = False  # those targets are scores, no classes: labels that are `soft`
    augments: bool = False  # it augments by itself (a draw for every inner step), so the loop does not

    def learned_scalars(self) -> dict[str, Tensor]:
        """Starting values of numbers that are learned beside the images and travel with them (a step size).

        They become arrays of the summary, under these names, which no parameterization uses.
        """
        return {}

    def check(self, network: nn.Module) -> None:
        """Raise DistillError if this objective cannot use such a network (on the meta device)."""

    def prepare(self, real: "RealBatches") -> dict[str, Tensor]:
        """Tensors made once from all real images, before the first step: `MatchStep.memory`, kept in checkpoints."""
        return {}

    def target(self, real: MatchBatch, step: MatchStep) -> Any:
        """Statistics of the real side under `step.network`, without gradients; some losses read the batch itself."""
        return real

    @abstractmethod
    def loss(self, synthetic: MatchBatch, target: Any, step: MatchStep) -> Tensor:
        """Scalar, differentiable in `synthetic.inputs`; 0 where both sides are equal, if that is so."""


@dataclass(frozen=True, kw_only=True)
class NoObjective(Objective):
    """No objective: the summary is what the initializer chose."""

    batched = True

    def loss(self, synthetic: MatchBatch, target: Any, step: MatchStep) -> Tensor:
        return synthetic.inputs.sum() * 0


def mixes_images(network: nn.Module) -> bool:
    """True where what `network` makes of an image depends on the others of its pass."""
    return any(layer.training for layer in batch_norms(network))


def features(network: nn.Module, images_NCHW: Tensor) -> Tensor:
    """[N, D]: what `network` gives to its classifier, all images in one pass.

    DistillError where the network has no features, or batch norm has one image to normalise by.
    """
    embed = network_of(network).embed
    if len(images_NCHW) == 1 and mixes_images(network):
        raise DistillError(
            "batch norm cannot normalise a single image; type a larger distiller.ipc, or choose a model without "
            "batch norm (model.norm=instance)"
        )
    return embed(images_NCHW)


def network_of(module: nn.Module) -> Network:
    """The matched module as a network with features; DistillError where it is none."""
    if not isinstance(module, Network):
        raise DistillError(
            "this objective compares features, and the matched network has no embed(images); type networks=fresh, "
            "or choose another model"
        )
    return module


@torch.no_grad()
def features_of(images: Tensor, network: nn.Module, chunk: int = 256, spec: InputSpec | None = None) -> Tensor:
    """[N, D], without gradients: `chunk` images a pass, which bounds memory and is fastest on the CPU.

    Where the network mixes the images of a pass, all share one, as the synthetic side does: statistics of a part,
    which in class order is one class, would be another network's. `spec` is of uint8 images, and makes them inputs.
    """
    size = max(1, len(images)) if mixes_images(network) else chunk
    return torch.cat([features(network, spec.apply(part) if spec else part) for part in images.split(size)])
