"""Evaluation at clients: each client's network on its own share of the test set, dealt as the training set was.

Of the test examples of a class a client gets the part that it holds of the training examples of that class, of all
steps so far; where steps transform their images, of the steps of each transform apart, and transformed like them. So
any partition is followed, whatever its recipe. It is a simulation's look: nothing of it travels or is in the ledger.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fedcl.core.seeding import derive, numpy_rng
from fedcl.core.types import LabeledSet, Origin
from fedcl.data.transforms import transform
from fedcl.distill.context import Context
from fedcl.federated.contract import Strategy
from fedcl.federated.payload import ClientState, ServerState
from fedcl.scenario.base import Indices, Labels, Scenario
from fedcl.training.evaluation import correct

FIGURES = ("mean", "std", "worst_tenth", "worst")


@dataclass(frozen=True, kw_only=True)
class ClientTests:
    """Test sets of all clients."""

    test: LabeledSet  # the whole test set, on the device
    scenario: Scenario
    labels: Labels

    def shares(self, step: int) -> dict[str, list[Indices]]:
        """Test examples of every client after a step, for each transform so far."""
        counts, seed = {}, derive(self.scenario.seed, "test shares")
        for t, name in enumerate(self._names[: step + 1]):
            counts[name] = counts.get(name, 0) + self.scenario.counts(self.labels.train_N, t)
        return {name: deal_like(held, self.labels.test_N, numpy_rng(seed, name)) for name, held in counts.items()}

    def of_client(self, client: int, shares: Mapping[str, Sequence[Indices]]) -> list[LabeledSet]:
        """Its own of the `shares`, a set for each transform; none is empty."""
        sets = []
        for name, rows_K in shares.items():
            step = self._names.index(name)
            own = self.test.select(rows_K[client], Origin(client=client, step=step))
            seed = derive(self.scenario.seed, "image transform of a test share", client=client, step=step)
            sets.append(replace(own, inputs=transform(own.inputs, name, seed)))
        return [data for data in sets if len(data)]

    @property
    def _names(self) -> tuple[str, ...]:
        """The transform of each step."""
        return self.scenario.transforms or ("",) * self.scenario.num_steps


def deal_like(counts_KC: np.ndarray, test_N: np.ndarray, rng: np.random.Generator) -> list[Indices]:
    """int64 [K][...], ascending: the test examples of each class, dealt at random in the proportions of `counts_KC`.

    Numbers of a class are exact to less than one; a class that nobody holds is dealt to nobody.
    """
    shares: list[list[np.ndarray]] = [[] for _ in counts_KC]
    for label, held_K in enumerate(counts_KC.T):
        rows = rng.permutation(np.flatnonzero(test_N == label))
        if held_K.sum():
            ends = np.floor(held_K.cumsum() / held_K.sum() * len(rows) + 0.5).astype(np.int64)
            for share, part in zip(shares, np.split(rows, ends[:-1]), strict=True):
                share.append(part)
    return [np.sort(np.concatenate([*share, np.zeros(0, np.int64)])).astype(np.int64) for share in shares]


def at_clients(
    tests: ClientTests, strategy: Strategy, state: ServerState, mine: Callable[[int], ClientState], ctx: Context
) -> dict[str, Any]:
    """Accuracies after round `ctx.round` of step `ctx.step` at the clients that have a test example.

    Args:
        mine: what a client keeps, as its strategy sees it.

    Returns:
        The figures of `spread`, and as "accuracies" for each client its "client", "accuracy" and "examples".
    """
    personal = type(strategy).personal_model is not Strategy.personal_model
    network = strategy.model(state, ctx)
    shares, rows = tests.shares(ctx.step), []
    for client in range(tests.scenario.num_clients):
        if sets := tests.of_client(client, shares):
            own = strategy.personal_model(state, mine(client), replace(ctx, client=client)) if personal else network
            right = torch.cat([correct(own, data, ctx.inputs).cpu() for data in sets])
            rows.append({"client": client, "accuracy": int(right.sum()) / len(right), "examples": len(right)})
    return {**spread([row["accuracy"] for row in rows]), "accuracies": rows}


def spread(accuracies: list[float]) -> dict[str, float]:
    """Mean over clients, their standard deviation, mean of the worst tenth of them (rounded up), and the worst."""
    ascending = np.sort(np.array(accuracies))
    if not len(ascending):
        return dict.fromkeys(FIGURES, 0.0)
    tenth = ascending[: math.ceil(len(ascending) / 10)]
    figures = (ascending.mean(), ascending.std(), tenth.mean(), ascending[0])
    return {name: float(figure) for name, figure in zip(FIGURES, figures, strict=True)}
