"""Payloads: what crosses the wire between server and clients, and what each side keeps between rounds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedcl.core.types import Summary

Weights = Mapping[str, Tensor]  # a state_dict: parameter and buffer names to tensors
Scalar = int | float | str | bool


@dataclass(frozen=True, kw_only=True)
class Payload:
    """Content of one message, in either direction. An empty one still costs its framing."""

    weights: Weights | None = None  # a state_dict of the run's network: names, shapes and dtypes are checked against it
    summaries: tuple[Summary, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)  # anything else by name, of floats or integers
    scalars: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClientState:
    """Memory of one client between its rounds; it stays where the client is. A client starts with an empty one."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    summaries: tuple[Summary, ...] = ()  # those without an image are not kept
    storage: str = "float32"  # of synthetic images in them: float32, float16 or uint8; real ones are uint8 pixels


@dataclass(frozen=True, kw_only=True)
class Reply(Payload):
    """Answer of one client to one question."""

    client: int  # partition id
    num_examples: int  # real examples that it stands for; 0: nothing to say, and no weight in a mean
    keep: ClientState | None = None  # what the client remembers from now on, never sent; None: as before


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """Memory of the server between rounds; tensors only, so that it can be saved and resumed."""

    weights: Weights | None = None  # of the global model, on the CPU
    summaries: tuple[Summary, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)  # optimiser moments and the like
