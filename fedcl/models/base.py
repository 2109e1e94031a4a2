"""Networks and their recipes: a shape, a number of classes and a seed decide every weight."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.core.rules import Checked
from fedcl.core.seeding import torch_rng

CUT_STD = 0.8796256610342398  # standard deviation of a standard normal that is cut at -2 and 2


class Network(nn.Module, ABC):
    """A network for classification: features, and a classifier on top of them."""

    initialization: str = "torch"  # of `reset_parameters`
    classifier: nn.Module  # [N, D] features to [N, classes] scores

    @abstractmethod
    def embed(self, images_NCHW: Tensor) -> Tensor:
        """Features [N, D] that the classifier sees, in the dtype of the images."""

    def features(self, images_NCHW: Tensor) -> list[Tensor]:
        """Outputs [N, ...] of the inner layers, first to last; the last one is what `embed` flattens or averages."""
        return [self.embed(images_NCHW)]

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.classifier(self.embed(images_NCHW))


def extra_padding(shape: tuple[int, ...]) -> int:
    """Pixels added on every side by the first convolution: 28x28 images become 32x32, as in the field's code."""
    return 2 if shape[1:] == (28, 28) else 0


def outputs_of(kinds: tuple[type[nn.Module], ...], layers: Iterable[nn.Module], images_NCHW: Tensor) -> list[Tensor]:
    """Outputs of the layers of these kinds, all layers applied one after the other."""
    found = []
    for layer in layers:
        images_NCHW = layer(images_NCHW)
        if isinstance(layer, kinds):
            found.append(images_NCHW)
    return found


class Model(Checked, ABC):
    """Hyper-parameters of an architecture: a frozen dataclass, named by one YAML in `configs/model/`."""

    config_key = "model"

    only_images: ClassVar[str | None] = "model=mlp"  # None: any inputs; else what to type for others than [C, H, W]

    @abstractmethod
    def architecture(self, shape: tuple[int, ...], num_classes: int) -> Network:
        """The network with whatever weights."""

    def varied(self, **changes: object) -> "Model":
        """The same architecture with other hyper-parameters; None, and what it does not have, changes nothing."""
        if not is_dataclass(self):
            return self
        own = {field.name for field in fields(self)}
        return replace(self, **{name: v for name, v in changes.items() if v is not None and name in own})

    def build(self, shape: tuple[int, ...], num_classes: int, seed: int) -> Network:
        """The network with weights drawn from `seed` (see `reset_parameters`), in train mode.

        Raises:
            ConfigError: the architecture cannot take inputs of this shape.
        """
        if self.only_images and len(shape) != 3:
            raise ConfigError(
                f"{type(self).__name__} reads images [C, H, W], and the inputs are {list(shape)}; "
                f"type {self.only_images}"
            )
        with torch.device("meta"):
            module = self.architecture(shape, num_classes)
        module = module.to_empty(device="cpu")
        reset_parameters(module, torch_rng(seed, "weights"))
        return module


def _torch_default(values: Tensor, fan_in: int, generator: torch.Generator) -> Tensor:
    bound = 1 / math.sqrt(fan_in)
    return values.uniform_(-bound, bound, generator=generator)


def _lecun_normal(values: Tensor, fan_in: int, generator: torch.Generator) -> Tensor:
    if values.ndim == 1:  # a bias
        return values.zero_()
    std = 1 / (CUT_STD * math.sqrt(fan_in))
    return nn.init.trunc_normal_(values, 0.0, std, -2 * std, 2 * std, generator=generator)


INITIALIZATIONS = {"torch": _torch_default, "lecun": _lecun_normal}


@torch.no_grad()
def reset_parameters(module: nn.Module, generator: torch.Generator) -> None:
    """Re-initialise every layer in place, from `generator` alone, as `module.initialization` says ("torch" without).

    Convolutions and linear layers: "torch", PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and
    biases, which is `kaiming_uniform_(a=sqrt(5))`; "lecun", JAX's default (LeCun et al., 1998), weights of variance
    1/fan_in from a normal distribution cut at two standard deviations, biases 0: a network without norm layers
    keeps signals three times as strong a layer. Norms: scale 1, shift 0, running statistics reset.
    """
    draw = INITIALIZATIONS[module.initialization if isinstance(module, Network) else "torch"]
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = math.prod(layer.weight.shape[1:])
            for parameter in layer.parameters(recurse=False):
                parameter.copy_(draw(torch.empty(parameter.shape), fan_in, generator))
        elif isinstance(layer, nn.GroupNorm | nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
            layer.reset_parameters()
        elif list(layer.parameters(recurse=False)):
            raise TypeError(f"reset_parameters does not know {type(layer).__name__}; add its default initialisation")
