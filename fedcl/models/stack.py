"""Stack of convolutions and poolings with one linear layer on top: the form of AlexNet and VGG."""

from torch import Tensor, nn

from fedcl.models.base import Network, extra_padding, outputs_of
from fedcl.models.norms import norm_layer

Plan = tuple[tuple[tuple[int, int], ...], ...]  # before each pooling: (channels, side of the kernel) of convolutions


class StackModule(Network):
    def __init__(self, shape: tuple[int, ...], num_classes: int, plan: Plan, width: int, norm: str | None) -> None:
        """Convolutions of `plan`, their channels in multiples of `width`, each with a norm (None: without) and ReLU.

        A pooling that finds one pixel a side is left out.
        """
        super().__init__()
        extra = extra_padding(shape)
        fan_in, height, wide = shape[0], shape[1] + 2 * extra, shape[2] + 2 * extra
        layers: list[nn.Module] = []
        for convolutions in plan:
            for factor, kernel in convolutions:
                padding = kernel // 2 + (0 if layers else extra)
                layers.append(nn.Conv2d(fan_in, factor * width, kernel, padding=padding))
                fan_in = factor * width
                layers += [nn.ReLU()] if norm is None else [norm_layer(norm, fan_in, min(height, wide)), nn.ReLU()]
            if min(height, wide) > 1:
                layers.append(nn.MaxPool2d(2))
                height, wide = height // 2, wide // 2
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(fan_in * height * wide, num_classes)

    def embed(self, images_NCHW: Tensor) -> Tensor:
        """[N, D] flattened features after the last layer of the stack."""
        return self.layers(images_NCHW).flatten(1)

    def features(self, images_NCHW: Tensor) -> list[Tensor]:
        return outputs_of((nn.ReLU, nn.MaxPool2d), self.layers, images_NCHW)
