"""Contract of a federated algorithm: straight-line server code that asks clients, and the client halves it asks for.

A strategy is a frozen dataclass of hyper-parameters on one page, in `strategies/federated/`. The server keeps a
`ServerState`, a client a `ClientState`; both are passed in and returned. Flower, Ray and bytes live elsewhere.

    def round(self, state, clients, ctx):
        replies = clients.ask(self.train, Payload(weights=state.weights))
        return ServerState(weights=mean_weights(replies, state.weights))

    @client_work(sends=["weights"])
    def train(self, ask, data, mine, ctx):
        ...
        return Reply(client=ctx.client, num_examples=len(data), weights=...)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from fedcl.core.errors import ConfigError, RunError, WireError
from fedcl.core.rules import Checked
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.helpers import fresh_state, model_of
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
from fedcl.training.recipe import Training

# The training of a client in each round where a strategy is given none: NIID-Bench, Li et al., ICDE 2022
CLIENT_TRAINING = Training(epochs=10, batch_size=64, weight_decay=1e-5, schedule="constant")

Method = TypeVar("Method", bound=Callable[..., Any])
_MARK = "_client_work"


@dataclass(frozen=True, kw_only=True)
class ClientWork:
    """Declaration of a client half."""

    batch: bool = False  # it takes and gives sequences, one element a client
    sends: tuple[str, ...] = ()  # what a reply that stands for examples must hold: "weights", "tensors.control", ...


def client_work(*, batch: bool = False, sends: Collection[str] = ()) -> Callable[[Method], Method]:
    """Mark a method of a strategy as a client half; only such methods can be asked for.

    Args:
        batch: the method takes (ask, sets, states, contexts), with an element a client in each but `ask`, and
            returns a list of replies; a batch gives what one client at a time gives. Otherwise it takes
            (ask, data, mine, ctx) and returns a `Reply`.
        sends: what a reply that stands for examples must hold: "weights", "summaries", "tensors.NAME" or
            "scalars.NAME". A client whose reply lacks it has failed.
    """
    for what in sends:
        if what not in ("weights", "summaries") and not what.startswith(("tensors.", "scalars.")):
            known = "weights, summaries, tensors.NAME, scalars.NAME"
            raise ConfigError(f"@client_work(sends=...) knows {known}, not {what!r}")

    def mark(method: Method) -> Method:
        setattr(method, _MARK, ClientWork(batch=batch, sends=tuple(sends)))
        return method

    return mark


class Clients(ABC):
    """The clients of one round, as the server half sees them."""

    ids: tuple[int, ...]  # partition ids of the sampled clients, ascending
    num_clients: int  # of the run, sampled or not

    @abstractmethod
    def ask(
        self, work: Callable[..., Any], payload: Payload | Mapping[int, Payload], *, to: Sequence[int] | None = None
    ) -> Iterator[Reply]:
        """Send a question to clients, and give their usable replies in order of partition id, one after the other.

        The question is on its way when this returns; a reply is decoded when it is its turn, so a mean can fold it
        in and let it go. Replies that failed are left out, and stand in the record with a reason.

        Args:
            work: a method of the strategy that is marked with `client_work`; its name travels.
            payload: one for all, or one a client; a client without an entry is not asked.
            to: partition ids, of `ids`; None: all.
        """


class Strategy(Checked, ABC):
    """One federated algorithm. Every method is pure: no hidden state, no clock, no global randomness."""

    config_key = "strategy"

    num_rounds: int  # rounds a step that the algorithm has by itself; num_rounds=... on the command line replaces it
    unused: Collection[str] = ()  # keys of the run that decide nothing here: ("distiller",), ("distiller.ipc",)

    def init(self, ctx: Context) -> ServerState:
        """The state before the first round: the fresh network's weights unless the algorithm has more to remember."""
        return fresh_state(ctx)

    @abstractmethod
    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        """The server half of round `ctx.round` of step `ctx.step`: ask clients, and give the state after it."""

    def model(self, state: ServerState, ctx: Context) -> nn.Module:
        """The global model that is evaluated, on the device."""
        return model_of(state.weights, ctx)

    def personal_model(self, state: ServerState, mine: ClientState, ctx: Context) -> nn.Module:
        """The model of client `ctx.client`, on the device; the global one unless the algorithm makes it its own."""
        return self.model(state, ctx)

    def unusable(self, work: str, reply: Reply, ctx: Context) -> str | None:
        """Reason why a reply to `work` cannot be used, or None: a tensor of another shape, say.

        Asked at the server about replies that stand for examples and hold what `sends` names, before `round` sees
        them. A client whose reply has a reason, or makes this raise, has failed.
        """
        return None

    def most_examples(self, held: int, step: int, ctx: Context) -> int:
        """Examples that a client may say it stands for, which holds `held` of them at that step."""
        return held

    def too_few(self, replies: int) -> str | None:
        """Reason why a round cannot keep the algorithm's promise with so many clients that hold examples, or None.

        Asked before the first round about the clients of a round, and in each round about what came back; a
        round with too few does not count.
        """
        return None


def declared(strategy: Strategy, name: str) -> ClientWork:
    """The declaration of a client half by its name.

    Raises:
        WireError: the strategy has no client half of that name.
    """
    found = getattr(getattr(type(strategy), name, None), _MARK, None)
    if found is None:
        raise WireError(f"{type(strategy).__name__} has no client half '{name}'; mark the method with @client_work()")
    return found


def sends_weights(strategy: Strategy) -> bool:
    """True where a client half promises weights, which is what compression compresses."""
    marks = (getattr(getattr(type(strategy), name), _MARK, None) for name in dir(type(strategy)))
    return any("weights" in mark.sends for mark in marks if mark is not None)


def work_at_clients(
    strategy: Strategy,
    name: str,
    ask: Payload,
    sets: Sequence[LabeledSet],
    states: Sequence[ClientState],
    contexts: Sequence[Context],
) -> list[Reply]:
    """Replies of a client half: one call for all where it takes a batch, one a client elsewhere.

    Raises:
        RunError: it gave other replies than one a client, in order.
    """
    method = getattr(strategy, name)
    if declared(strategy, name).batch:
        replies = list(method(ask, sets, states, contexts))
    else:
        replies = [method(ask, *each) for each in zip(sets, states, contexts, strict=True)]
    asked = [ctx.client for ctx in contexts]
    found = [getattr(reply, "client", type(reply).__name__) for reply in replies]
    if found != asked:
        problem = f"{name} answered for {found}, asked: {asked}"
        raise RunError(f"{problem}; return one Reply a client, with client=ctx.client")
    return replies


def lacking(reply: Reply, sends: Collection[str]) -> str | None:
    """Reason why a reply cannot be used, or None: it stands for examples and lacks what its work promises to send."""
    for what in sends if reply.num_examples else ():
        part, _, name = what.partition(".")
        held = getattr(reply, part)
        if not (name in held if name else held):
            return f"sent no {what}"
    return None
