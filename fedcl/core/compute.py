"""How the arithmetic is laid out on the machine: allocation, chunks, devices.

The chunk of a network pass follows the data sets, never the batch that they happen to be in: the same
call shapes give the same bits, so that clients one by one and all at once agree exactly.
"""

import ctypes
import math
from typing import TypeVar

import torch
from torch import nn

from fedcl.core.errors import ConfigError

Net = TypeVar("Net", bound=nn.Module)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt parameters


def keep_large_blocks() -> bool:
    """Tell glibc to keep freed blocks instead of returning them to the kernel; False where the C library is another.

    By default every activation above 32 MB is mapped, zeroed and unmapped again for each operation.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def laid_out(network: Net, device: torch.device) -> Net:
    """The network with its weights in the layout that its convolutions are fastest in: channels last on a GPU.

    On the CPU PyTorch's norms with a channel a group are two to ten times slower in channels last, which costs
    more than the convolutions gain.
    """
    return network.to(memory_format=torch.channels_last) if device.type == "cuda" else network  # type: ignore[call-overload]


def settle_threads(shape: tuple[int, ...]) -> int:
    """Set torch's threads for inputs of that shape and return their number: one for tables and below 16x16 pixels.

    Small operations cost more to hand out than to compute; two threads are no faster on 8x8 images, and many times
    slower when something else runs. One also makes a run's result independent of how many cores there are.
    """
    if math.prod(shape[1:]) < 256:
        torch.set_num_threads(1)
    return torch.get_num_threads()


def pick_device(name: str) -> torch.device:
    """ "auto" is the first GPU if there is one, else the CPU. ConfigError where a device is not known or not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        known = "type device=cpu, device=cuda, device=cuda:1 or device=auto"
        raise ConfigError(f"device={name} is no device; {known}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device={name} is not supported; type device=cpu, device=cuda or device=auto")
    gpus = torch.cuda.device_count() if device.type == "cuda" and torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ConfigError(f"device={name} is not there: this machine has {gpus} GPU(s); type device=cpu or device=auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps is not there on this machine; type device=cpu or device=auto")
    return device
