"""The product: any one-client stream (when) times any partition (who), for federated continual learning.

Settings of the field that it covers: synchronous arrival with Dirichlet clients (Zhang et al., "TARGET", ICCV
2023, https://arxiv.org/abs/2303.06937), an order of tasks per client (Yoon et al., "FedWeIT", ICML 2021,
https://arxiv.org/abs/2003.03196), clients that hold a part of the classes (Dong et al., "GLFC", CVPR 2022,
https://arxiv.org/abs/2203.11473).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedcl.core.errors import ScenarioError
from fedcl.core.seeding import numpy_rng
from fedcl.scenario.base import Labels, Partition, Recipe, Scenario
from scenarios.checks import check_choice, check_fraction
from scenarios.partition_utils import proportional_counts

ARRIVALS = ("synchronous", "asynchronous")


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
    arrival: str = "synchronous"  # synchronous | asynchronous (needs a stream of one step a group)
    class_overlap: float = 1.0  # o in [0, 1]
    # Numbers of the parts, written once at the top so that scenario.num_clients, scenario.num_steps and
    # scenario.alpha work; the parts refer to them. None: not repeated. They must agree with the parts.
    num_clients: int | None = field(default=None, metadata={"repeats": True})
    num_steps: int | None = field(default=None, metadata={"repeats": True})
    alpha: float | None = field(default=None, metadata={"repeats": True})

    def __post_init__(self) -> None:
        for key, part, kind in (("stream", self.stream, Recipe), ("partition", self.partition, Partition)):
            if not isinstance(part, kind):
                raise ScenarioError(f"scenario.{key} is no {kind.__name__}; give it a _target_ in scenarios/")
        check_choice("scenario.arrival", self.arrival, ARRIVALS)
        check_fraction("scenario.class_overlap", self.class_overlap, example=1)
        for key, place, part in (
            ("num_clients", "partition", self.partition),
            ("num_steps", "stream", self.stream),
            ("alpha", "partition", self.partition),
        ):
            mine, theirs = getattr(self, key), getattr(part, key, None)
            if mine is not None and mine != theirs:
                raise ScenarioError(
                    f"scenario.{key}={mine} but scenario.{place}.{key}={theirs}; set scenario.{key} alone"
                )

    def build(self, labels: Labels, seed: int) -> Scenario:
        stream = self.stream.deal(labels, seed)
        self._check(stream)
        owner_N = self._owners(labels, seed)
        if self.class_overlap < 1:
            owner_N = self._concentrate(owner_N, arrival_order(stream, labels), labels.train_N, seed)
        num_clients, num_steps = self.partition.num_clients, stream.num_steps
        order_KT = np.tile(np.arange(num_steps), (num_clients, 1))
        if self.arrival == "asynchronous":
            for client in range(num_clients):
                order_KT[client] = numpy_rng(seed, "arrival", client=client).permutation(num_steps)
        cells_TK = []
        for step in range(num_steps):
            seen = [stream.share(client=0, step=int(order_KT[client, step])) for client in range(num_clients)]
            cells_TK.append(tuple(share[owner_N[share] == client] for client, share in enumerate(seen)))
        return Scenario(
            name=f"{stream.name} x {self.partition.name}, {self.arrival}, overlap {self.class_overlap:g}",
            seed=seed,
            num_classes=labels.num_classes,
            shares=tuple(cells_TK),
            groups=stream.groups,
            group_names=stream.group_names,
            transforms=stream.transforms,
            group_transforms=stream.group_transforms,
        )

    def _check(self, stream: Scenario) -> None:
        if stream.num_clients != 1:
            raise ScenarioError(f"scenario.stream '{stream.name}' has {stream.num_clients} clients; it must have one")
        blocks = stream.num_steps == len(stream.groups) and not stream.transforms
        if self.arrival == "asynchronous" and not blocks:
            raise ScenarioError(
                "scenario.arrival=asynchronous needs a class stream of one step a group, but "
                f"'{stream.name}' has {stream.num_steps} steps for {len(stream.groups)} groups, or "
                "transforms; type scenario.arrival=synchronous"
            )

    def _owners(self, labels: Labels, seed: int) -> np.ndarray:
        """int64 [N]: the client that owns each training example; -1 for none."""
        owner_N = np.full(len(labels.train_N), -1, dtype=np.int64)
        for client, share in enumerate(self.partition.deal(labels, seed).shares[0]):
            owner_N[share] = client
        return owner_N

    def _concentrate(self, owner_N: np.ndarray, order: np.ndarray, labels_N: np.ndarray, seed: int) -> np.ndarray:
        """Owners after each class has gone to its holders alone."""
        owner_N, num_clients = owner_N.copy(), self.partition.num_clients
        rng = numpy_rng(seed, "class overlap")
        ring_K = rng.permutation(num_clients)
        num_holders = 1 + int(self.class_overlap * (num_clients - 1) + 0.5)
        if len(order) * num_holders < num_clients:
            raise ScenarioError(
                f"{len(order)} classes with {num_holders} holders each leave some of {num_clients} clients "
                "without any; type a larger scenario.class_overlap, or "
                f"scenario.num_clients={len(order) * num_holders}"
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
    seen: dict[int, None] = {}
    for (share,) in stream.shares:
        seen.update(dict.fromkeys(np.unique(labels.train_N[share]).tolist()))
    return np.array(list(seen), dtype=np.int64)
