"""The product: any one-client stream (when) times any partition (who), for federated continual learning.

Settings of the field that it covers: synchronous arrival with Dirichlet clients (Zhang et al., "TARGET", ICCV
2023, https://arxiv.org/abs/2303.06937), an order of tasks per client (Yoon et al., "FedWeIT", ICML 2021,
https://arxiv.org/abs/2003.03196), clients that hold a part of the classes (Dong et al., "GLFC", CVPR 2022,
https://arxiv.org/abs/2203.11473).
"""

from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.core.rules import number, one_of, whole
from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Labels, Partition, Recipe, Scenario
from scenarios.partition_utils import proportional_counts


@dataclass(frozen=True, kw_only=True)
class Grid(Recipe):
    """Cell (t, k) holds the examples that the stream brings at client k's step t and that client k owns.

    Owner. The partition deals the whole training set once, exactly as it does without a stream and with the
    same random numbers; an example has one owner at all steps. A part with a seed of its own is dealt from that.

    Class overlap o. Every class has exactly m = 1 + round(o (K - 1)) possible holders among the K clients:
    the i-th class to arrive belongs to the clients at places i m, ..., i m + m - 1 of an endlessly repeated
    random permutation of the clients, so that clients may hold equally many classes (+-1). Examples of a
    class that the partition gave to others go to its holders, in proportion to what these have of it (evenly
    if they have none). o = 1 is the partition as it is; o = 0 gives each client classes of its own.

    Arrival. Synchronous: all clients see the stream's step t at step t. Asynchronous: client k sees the
    stream's step p_k(t) at step t, with p_k a random permutation of the steps for each client.

    A client may hold nothing at a step; it holds something at one step at least.
    """

    stream: Recipe  # a recipe of one client: class_incremental, blurry, repetition, online, domain_incremental
    partition: Partition  # who owns which example
    # asynchronous needs a stream of one step a group
    arrival: Annotated[str, one_of("synchronous", "asynchronous")] = "synchronous"
    class_overlap: Annotated[float, number(least=0, most=1, example=1)] = 1.0  # o
    # Numbers of the parts, written once at the top so that scenario.num_clients, scenario.num_steps and
    # scenario.alpha work; the parts refer to them. None: not repeated. They must agree with the parts.
    num_clients: Annotated[int | None, whole(1, example=5)] = field(default=None, metadata={"repeats": True})
    num_steps: Annotated[int | None, whole(1, example=5)] = field(default=None, metadata={"repeats": True})
    alpha: Annotated[float | None, number(above=0, example=0.5)] = field(default=None, metadata={"repeats": True})

    def __post_init__(self) -> None:
        for key, part, kind in (("stream", self.stream, Recipe), ("partition", self.partition, Partition)):
            if not isinstance(part, kind):
                raise ScenarioError(f"scenario.{key} is no {kind.__name__}; give it a _target_ in scenarios/")
        super().__post_init__()
        for key, part in {"num_clients": "partition", "num_steps": "stream", "alpha": "partition"}.items():
            mine, theirs = getattr(self, key), getattr(getattr(self, part), key, None)
            if mine is not None and mine != theirs:
                raise ScenarioError(
                    f"scenario.{key}={mine} but scenario.{part}.{key}={theirs}; set scenario.{key} alone"
                )

    def build(self, labels: Labels, seed: int) -> Scenario:
        stream = self.stream.deal(labels, seed)
        self._check(stream)
        owner_N = np.full(len(labels.train_N), -1, dtype=np.int64)  # -1: nobody
        for client, share in enumerate(self.partition.deal(labels, seed).shares[0]):
            owner_N[share] = client
        if self.class_overlap < 1:
            owner_N = self._concentrate(owner_N, arrival_order(stream, labels), labels.train_N, seed)
        num_clients, num_steps = self.partition.num_clients, stream.num_steps
        cells_KT = []
        for client in range(num_clients):
            order_T = np.arange(num_steps)
            if self.arrival == "asynchronous":
                order_T = numpy_rng(seed, "arrival", client=client).permutation(num_steps)
            seen_T = [stream.share(client=0, step=step) for step in order_T.tolist()]
            cells_KT.append([share[owner_N[share] == client] for share in seen_T])
        name = f"{stream.name} x {self.partition.name}, {self.arrival}, overlap {self.class_overlap:g}"
        return replace(stream, name=name, seed=seed, shares=tuple(zip(*cells_KT, strict=True)), disjoint=True)

    def _check(self, stream: Scenario) -> None:
        if stream.num_clients != 1:
            raise ScenarioError(f"scenario.stream '{stream.name}' has {stream.num_clients} clients; it must have one")
        blocks = stream.num_steps == len(stream.groups) and not stream.transforms
        if self.arrival == "asynchronous" and not blocks:
            raise ScenarioError(
                f"scenario.arrival=asynchronous needs a class stream of one step a group, but '{stream.name}' has "
                f"{stream.num_steps} steps for {len(stream.groups)} groups, or transforms; "
                "type scenario.arrival=synchronous"
            )

    def _concentrate(self, owner_N: np.ndarray, order: np.ndarray, labels_N: np.ndarray, seed: int) -> np.ndarray:
        """The same array after each class has gone to its holders alone."""
        num_clients = self.partition.num_clients
        rng = numpy_rng(seed, "class overlap")
        ring_K = rng.permutation(num_clients)
        num_holders = 1 + int(self.class_overlap * (num_clients - 1) + 0.5)
        if len(order) * num_holders < num_clients:
            raise ScenarioError(
                f"{len(order)} classes with {num_holders} holders each leave some of {num_clients} clients without "
                f"any; type a larger scenario.class_overlap, or scenario.num_clients={len(order) * num_holders}"
            )
        for place, label in enumerate(order):
            holders = ring_K[(place * num_holders + np.arange(num_holders)) % num_clients]
            owned = (labels_N == label) & (owner_N >= 0)
            moving = rng.permutation(np.flatnonzero(owned & ~np.isin(owner_N, holders)))
            has = np.array([np.count_nonzero(owned & (owner_N == holder)) for holder in holders])
            quotas = proportional_counts(len(moving), has if has.any() else np.ones(num_holders))
            owner_N[moving] = np.repeat(holders, quotas)
        empty = np.flatnonzero(np.bincount(owner_N[owner_N >= 0], minlength=num_clients) == 0)
        if len(empty):
            raise ScenarioError(
                f"client {empty[0]} is left without examples: it has none of the classes that it may hold; "
                "type a larger scenario.class_overlap or scenario.alpha, or fewer scenario.num_clients"
            )
        return owner_N


def arrival_order(stream: Scenario, labels: Labels) -> np.ndarray:
    """int64: the classes that have training examples, by the step that first brings them, then by label."""
    seen = dict.fromkeys(label for (share,) in stream.shares for label in np.unique(labels.train_N[share]).tolist())
    return np.array(list(seen), dtype=np.int64)
