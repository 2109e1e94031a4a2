"""ConvNet-D: the network of most distillation papers (Gidaris & Komodakis 2018; Zhao et al., ICLR 2021).

D blocks of [3x3 convolution, norm, ReLU, 2x2 average pooling], then one linear layer.
"""

import functools
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.core.errors import ConfigError
from fedcl.core.rules import one_of, whole
from fedcl.models.base import INITIALIZATIONS, Model, Network, extra_padding, outputs_of
from fedcl.models.norms import NORMS, norm_layer

PRECISIONS = ("float32", "bfloat16")


class AveragePool2(nn.Module):
    """2x2 average pooling with stride 2; an odd last row or column is left out, as in `nn.AvgPool2d(2)`.

    On the CPU two rows of an image are one row of a matrix product with fixed weights of 1/4: the same
    numbers to the last rounding, several times faster than the library's loop, forwards and backwards, and in
    bfloat16 on matrix units. A compiler writes a better loop itself, together with what is around it.
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if x_NCHW.device.type != "cpu" or torch.compiler.is_compiling():
            return F.avg_pool2d(x_NCHW, 2)
        n, channels, height, width = x_NCHW.shape
        height, width = height // 2, width // 2
        pairs = x_NCHW[:, :, : 2 * height, : 2 * width].reshape(n * channels * height, 4 * width)
        return (pairs @ quarters(width, x_NCHW.dtype)).view(n, channels, height, width)


@functools.cache
def quarters(width: int, dtype: torch.dtype) -> Tensor:
    """[4 width, width]: 1/4 where an entry of two rows of 2 x `width` pixels belongs to an output pixel."""
    with torch.inference_mode(False):  # a tensor of inference mode could not be used in training later
        return torch.eye(width, dtype=dtype, device="cpu").repeat_interleave(2, 0).repeat(2, 1) / 4


def through(blocks: nn.Module, images_NCHW: Tensor) -> Tensor:
    """[N, D]: the blocks' output, flattened."""
    return blocks(images_NCHW).flatten(1)


@functools.cache
def compiled() -> Callable[[nn.Module, Tensor], Tensor]:
    """`through`, compiled once for all networks: those of the same layers share the code."""
    return torch.compile(through)


class ConvNetModule(Network):
    def __init__(self, recipe: "ConvNet", blocks: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.classifier = nn.Linear(num_features, num_classes)
        self.precision, self.initialization, self.compiled = recipe.precision, recipe.initialization, recipe.compile

    def extra_repr(self) -> str:
        return f"precision={self.precision}, initialization={self.initialization}"

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """[N, D] flattened features after the last pooling, in the dtype of the images."""
        run = compiled() if self.compiled else through
        with self._casting(images_NCHW):
            return run(self.blocks, images_NCHW).to(images_NCHW.dtype)

    def features(self, images_NCHW: Tensor) -> list[Tensor]:
        with self._casting(images_NCHW):
            return [values.to(images_NCHW.dtype) for values in outputs_of((AveragePool2,), self.blocks, images_NCHW)]

    def _casting(self, images_NCHW: Tensor) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        # no cache of cast weights: it would hand a tensor made without gradients to a pass that needs them
        return torch.autocast(images_NCHW.device.type, torch.bfloat16, cache_enabled=False)


@contextmanager
def uncompiled(network: nn.Module) -> Iterator[None]:
    """Run the network without torch.compile, whose code has no gradients of gradients."""
    found = [module for module in network.modules() if isinstance(module, ConvNetModule) and module.compiled]
    for module in found:
        module.compiled = False
    try:
        yield
    finally:
        for module in found:
            module.compiled = True


@dataclass(frozen=True, kw_only=True)
class ConvNet(Model):
    width: Annotated[int, whole(1, example=32)] = 32  # channels of the first block
    # blocks; None = 3 from 16 pixels a side on (4 from 64), 2 below
    depth: Annotated[int | None, whole(1, example=3)] = None
    norm: Annotated[str, one_of(*NORMS)] = "instance"
    norm_first: bool = False  # before the convolutions, of all blocks but the first (FRePo), not after them
    # every block has so many times the channels of the one before (FRePo: 2)
    growth: Annotated[int, whole(1, example=1)] = 1
    # PyTorch's default weights, or lecun: JAX's (FRePo), for networks without norm
    initialization: Annotated[str, one_of(*INITIALIZATIONS)] = "torch"
    # of convolutions; bfloat16 is faster where the machine multiplies it in hardware
    precision: Annotated[str, one_of(*PRECISIONS)] = "float32"
    compile: bool = False  # torch.compile of the blocks: seconds to a minute once; not for gradients of gradients

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise ConfigError("model.compile=true needs a C++ compiler, and there is none; type model.compile=false")

    def architecture(self, shape: tuple[int, ...], num_classes: int) -> ConvNetModule:
        channels, height, width = shape
        side = min(height, width)
        depth = self.depth or (2 if side < 16 else 3 if side < 64 else 4)
        if side < 2**depth:
            raise ConfigError(
                f"{depth} blocks halve a {height}x{width} image to nothing; type model.depth={side.bit_length() - 1}"
            )
        layers: list[nn.Module] = []
        for block in range(depth):
            padding = 1 + (0 if block else extra_padding(shape))
            height, width = height + 2 * padding - 2, width + 2 * padding - 2
            fan_out = self.width * self.growth**block
            convolution = nn.Conv2d(channels, fan_out, 3, padding=padding)
            if self.norm_first and block:
                layers.append(norm_layer(self.norm, channels, min(height, width)))
            layers.append(convolution)
            if not self.norm_first:
                layers.append(norm_layer(self.norm, fan_out, min(height, width)))
            layers += [nn.ReLU(inplace=True), AveragePool2()]
            channels, height, width = fan_out, height // 2, width // 2
        return ConvNetModule(self, nn.Sequential(*layers), channels * height * width, num_classes)
