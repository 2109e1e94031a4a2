"""Networks and optimisers as named tensors, from which a training goes on exactly."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

OPTIMIZER, WEIGHTS = "optimizer/", "weights/"


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's state_dict on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def save_moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors, as "optimizer/<parameter>/<name>", on the CPU."""
    return {
        f"{OPTIMIZER}{index}/{name}": torch.as_tensor(value).detach().cpu().clone()
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if value is not None
    }


def load_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    """Undo `save_moments`; other names are passed over."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in under(OPTIMIZER, moments).items():
        index, _, name = key.partition("/")
        states.setdefault(int(index), {})[name] = value.clone()
    if states:
        optimizer.load_state_dict(optimizer.state_dict() | {"state": states})


def save_training(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors, and the state_dict as "weights/<name>", on the CPU."""
    return {f"{WEIGHTS}{name}": value for name, value in weights_of(network).items()} | save_moments(optimizer)


def load_training(network: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Undo `save_training`."""
    network.load_state_dict(under(WEIGHTS, state))
    load_moments(optimizer, state)


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
