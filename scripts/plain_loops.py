"""Distillation as the papers print it: one class after the other, PyTorch's layers, nothing arranged for speed.

What `benchmark_engine.py` compares the engine with. Written for this purpose from the descriptions of DM (Zhao &
Bilen, WACV 2023, algorithm 1), DSA (Zhao & Bilen, ICML 2021, algorithm 1 and its table of transformations) and MTT
(Cazenavette et al., CVPR 2022, algorithm 1). Images are normalised float32 in class order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REAL = 256  # real images a class and step


class PlainConvNet(nn.Module):
    """ConvNet-3 as it is written down: convolution, norm with a channel a group, ReLU, average pooling."""

    def __init__(self, channels: int, width: int, classes: int, padding: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block, (fan_in, fan_out) in enumerate(pairwise((channels, width, width, width))):
            layers.append(nn.Conv2d(fan_in, fan_out, 3, padding=1 if block else padding))
            layers += [nn.GroupNorm(fan_out, fan_out), nn.ReLU(), nn.AvgPool2d(2)]
        self.blocks = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * 16, classes)

    def embed(self, images: Tensor) -> Tensor:
        return self.blocks(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.embed(images))


def new_network(images: Tensor, width: int, classes: int = 10) -> PlainConvNet:
    """PyTorch's default initialisation; 28x28 images are padded to 32x32."""
    return PlainConvNet(images.shape[1], width, classes, padding=3 if images.shape[2] == 28 else 1)


def augment(x: Tensor, strategy: int, u: list[float]) -> Tensor:
    """One transformation, the same for the whole batch: colour, crop, cutout, scale or rotation."""
    n, _, height, width = x.shape
    if strategy == 0:
        x = x + (u[0] - 0.5)
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * (u[1] * 2) + mean
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * (u[2] + 0.5) + mean
    if strategy == 1:
        reach = int(height * 0.125 + 0.5)
        dy, dx = int(u[0] * (2 * reach + 1)), int(u[1] * (2 * reach + 1))
        return F.pad(x, [reach] * 4)[:, :, dy : dy + height, dx : dx + width]
    if strategy == 2:
        side = int(height * 0.5 + 0.5)
        top, left = int(u[0] * height) - side // 2, int(u[1] * width) - side // 2
        mask = torch.ones(height, width)
        mask[max(0, top) : top + side, max(0, left) : left + side] = 0
        return x * mask
    if strategy == 3:
        a, b, c, d = u[0] * (1.2 - 1 / 1.2) + 1 / 1.2, 0.0, 0.0, u[1] * (1.2 - 1 / 1.2) + 1 / 1.2
    else:
        angle = (u[0] - 0.5) * 30 * math.pi / 180
        a, b, c, d = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    theta = torch.tensor([[a, b, 0.0], [c, d, 0.0]]).expand(n, 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=True), align_corners=True)


def starting_images(real: list[Tensor], ipc: int, generator: torch.Generator) -> Tensor:
    """[10 * ipc, C, H, W]: random real images, class after class."""
    return torch.cat([images[torch.randperm(len(images), generator=generator)[:ipc]] for images in real])


def plain(method: str, real: list[Tensor], width: int, ipc: int, lr: float = 1.0) -> Iterator[Tensor]:
    """The synthetic images [10 * ipc, C, H, W] after each step of DM or DSA, without end.

    Args:
        real: the images of each class.
    """
    generator = torch.Generator().manual_seed(0)
    synthetic = starting_images(real, ipc, generator).requires_grad_()
    optimizer = torch.optim.SGD([synthetic], lr=lr, momentum=0.5)
    while True:
        network = new_network(real[0], width, len(real))
        loss = torch.zeros(())
        for c, images in enumerate(real):
            strategy = int(torch.randint(5, (), generator=generator))
            u = torch.rand(3, generator=generator).tolist()
            rows = torch.randperm(len(images), generator=generator)[:REAL]
            seen = augment(images[rows], strategy, u)
            made = augment(synthetic[c * ipc : (c + 1) * ipc], strategy, u)
            match = means if method == "dm" else gradients
            loss = loss + match(network, seen, made, c)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield synthetic.detach()


def means(network: PlainConvNet, seen: Tensor, made: Tensor, c: int) -> Tensor:
    """Squared distance of the mean features."""
    return (network.embed(seen).detach().mean(0) - network.embed(made).mean(0)).square().sum()


def gradients(network: PlainConvNet, seen: Tensor, made: Tensor, c: int) -> Tensor:
    """1 - cosine of the gradients, summed over the output units of every layer."""
    parameters = list(network.parameters())
    wanted = torch.autograd.grad(F.cross_entropy(network(seen), torch.full((len(seen),), c)), parameters)
    loss = F.cross_entropy(network(made), torch.full((len(made),), c))
    got = torch.autograd.grad(loss, parameters, create_graph=True)
    total = torch.zeros(())
    for a, b in zip(wanted, got, strict=True):
        if a.ndim > 1:
            a, b = a.detach().flatten(1), b.flatten(1)
            total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def trajectory(synthetic: Tensor, labels: Tensor, weights: list[Tensor], goal: list[Tensor], inner: int, width: int):
    """One step of MTT by full unrolling: the gradients of the images and of the step size."""
    network = new_network(synthetic, width)
    names = [name for name, _ in network.named_parameters()]
    images, rate = synthetic.clone().requires_grad_(), torch.tensor(0.01, requires_grad=True)
    reached = [w.clone().requires_grad_() for w in weights]
    generator = torch.Generator().manual_seed(0)
    for _ in range(inner):
        strategy = int(torch.randint(5, (), generator=generator))
        made = augment(images, strategy, torch.rand(3, generator=generator).tolist())
        logits = torch.func.functional_call(network, dict(zip(names, reached, strict=True)), (made,))
        steps = torch.autograd.grad(F.cross_entropy(logits, labels), reached, create_graph=True)
        reached = [w - rate * g for w, g in zip(reached, steps, strict=True)]
    far = torch.stack([(a - b).square().sum() for a, b in zip(weights, goal, strict=True)]).sum()
    left = torch.stack([(a - b).square().sum() for a, b in zip(reached, goal, strict=True)]).sum()
    return torch.autograd.grad(left / far, [images, rate])
