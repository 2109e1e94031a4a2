"""Optimisers of synthetic images that PyTorch does not have. They keep all they know in tensors of their own."""

from collections.abc import Iterable
from typing import Any

import torch

from fedcl.core.errors import ConfigError
from fedcl.training.recipe import cosine


class Lamb(torch.optim.Optimizer):
    """Adam's direction, made as long as a fraction `lr` of the tensor (You et al., ICLR 2020), without decay.

    A tensor of length 0 moves as with Adam. `total` > 0: lr falls by a cosine to `floor` of itself in so many steps.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        total: int = 0,
        floor: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "total": total, "floor": floor})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (first, second), total, floor = group["betas"], group["total"], group["floor"]
            for tensor in (p for p in group["params"] if p.grad is not None):
                state = self.state[tensor]
                if not state:
                    state["step"] = torch.zeros(())
                    state["mean"], state["square"] = torch.zeros_like(tensor), torch.zeros_like(tensor)
                done = int(state["step"])
                lr = group["lr"] * (cosine(min(1.0, done / total), floor) if total else 1.0)
                state["step"] += 1
                state["mean"].lerp_(tensor.grad, 1 - first)
                state["square"].lerp_(tensor.grad.square(), 1 - second)
                mean = state["mean"] / (1 - first ** (done + 1))
                move = mean / ((state["square"] / (1 - second ** (done + 1))).sqrt() + group["eps"])
                length, stride = tensor.norm(), move.norm()
                ratio = torch.where((length > 0) & (stride > 0), length / stride, torch.ones_like(length))
                tensor.sub_(lr * ratio * move)


class CosineSGD(torch.optim.SGD):
    """SGD whose rate falls by a cosine to `floor` of itself in `total` steps (Loshchilov & Hutter, ICLR 2017).

    For few steps at a high rate, which takes the noise of real batches and networks with it. A `total` below 1 is a
    ConfigError.
    """

    def __init__(self, params: Iterable[Any], total: int = 0, lr: float = 1.0, floor: float = 0.0, **sgd: Any) -> None:
        if total < 1:
            raise ConfigError(
                f"CosineSGD slows down in {total} steps, and it needs at least 1; "
                "type +distiller.optimizer.total=STEPS, as many as distiller.steps"
            )
        super().__init__(params, lr=lr, **sgd)
        self.total, self.floor = total, floor

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        given = [group["lr"] for group in self.param_groups]
        for group, lr in zip(self.param_groups, given, strict=True):
            state = self.state[group["params"][0]]
            done = int(state.setdefault("step", torch.zeros(())))
            group["lr"] = lr * cosine(min(1.0, done / self.total), self.floor)
            state["step"] += 1
        super().step()
        for group, lr in zip(self.param_groups, given, strict=True):
            group["lr"] = lr


class ClippedAdam(torch.optim.Adam):
    """Adam on gradients no longer than `clip` times the moving average of their lengths (RaT-BPTT, Feng et al., 2024).

    Each tensor has its own average, of clipped lengths, with weight `decay` on the past; the first gradient sets it.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, clip: float = 2.0, decay: float = 0.9, **adam: Any
    ) -> None:
        super().__init__(params, lr=lr, **adam)
        self.clip, self.decay = clip, decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        usual: dict[torch.Tensor, torch.Tensor] = {}
        for tensor in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            length = tensor.grad.norm()
            usual[tensor] = self.state[tensor].pop("usual", length).to(length.device)
            bounded = torch.minimum(length, self.clip * usual[tensor])
            tensor.grad.mul_(bounded / length.clamp(min=1e-30))
            usual[tensor] = self.decay * usual[tensor] + (1 - self.decay) * bounded
        super().step()
        for tensor, average in usual.items():
            self.state[tensor]["usual"] = average
