"""The contract of a federated algorithm: both halves, client and server, as pure functions.

A strategy is a frozen dataclass of hyper-parameters on one page, in `strategies/federated/`. What it
remembers is a `ServerState`, passed in and returned. Flower, Ray, bytes and sampling live elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from fedcl.core.types import LabeledSet, Summary
from fedcl.distill.context import Context
from fedcl.training.loop import Training

# The training of a client in each round where a strategy is given none: NIID-Bench, Li et al., ICDE 2022
CLIENT_TRAINING = Training(epochs=10, batch_size=64, weight_decay=1e-5, schedule="constant")
Weights = Mapping[str, Tensor]  # a state_dict: parameter and buffer names to tensors
Scalar = int | float | str | bool


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the server sends to every client of a round. An empty request still costs its framing."""

    weights: Weights | None = None
    config: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one client sends back."""

    client: int  # partition id
    num_examples: int  # real examples that it stands for
    summaries: tuple[Summary, ...] = ()
    weights: Weights | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """All that the server remembers between rounds; tensors only, so that it can be saved and resumed."""

    weights: Weights | None = None  # of the global model, on the CPU
    summaries: tuple[Summary, ...] = ()  # what the server keeps of the clients' summaries
    tensors: Mapping[str, Tensor] = field(default_factory=dict)  # optimiser moments and the like


class Strategy(ABC):
    """One federated algorithm. Every method is pure: no hidden state, no clock, no global randomness."""

    num_rounds: int  # rounds a step that the algorithm has by itself; num_rounds=... on the command line replaces it
    unused: Collection[str] = ()  # keys of the run that decide nothing here: ("distiller",), ("distiller.ipc",)

    @abstractmethod
    def init(self, ctx: Context) -> ServerState:
        """The state before the first round."""

    @abstractmethod
    def request(self, state: ServerState, round: int, ctx: Context) -> Request:
        """What the sampled clients of `round` (counted from 0) are asked."""

    @abstractmethod
    def client_work(self, request: Request, shards: Sequence[LabeledSet], round: int, ctx: Context) -> list[Reply]:
        """The client half, for a batch of clients; `shard.origin.client` says whose shard it is.

        A batch gives what one client at a time gives.
        """

    def unusable(self, reply: Reply) -> str | None:
        """What `combine` misses in one client's reply ("sent no weights"), or None; such a client has failed."""
        return None

    def too_few(self, replies: int) -> str | None:
        """Why `combine` cannot keep its promise with the replies of so many clients that hold examples, or None.

        Asked before the first round about the clients of a round, and in each round about what came back; a
        round with too few does not count.
        """
        return None

    @abstractmethod
    def combine(self, state: ServerState, replies: Sequence[Reply], round: int, ctx: Context) -> ServerState:
        """The server half: `replies` are in order of partition id and never empty."""

    @abstractmethod
    def model(self, state: ServerState, ctx: Context) -> nn.Module:
        """The global model that is evaluated, on the device."""
