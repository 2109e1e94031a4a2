"""What an accuracy costs in bytes, and what a budget buys.

Conventions: cumulative wire bytes, both directions, all clients; a target is reached at the first
evaluated round at or above it; at a budget stands the last evaluated round inside it (the last, not the
best: the test set chooses nothing).
"""

import math
from dataclasses import dataclass

from fedcl.report.compare import Group, Method
from fedcl.report.formats import Spread, spread
from fedcl.report.records import Run, total_bytes

TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
TARGET = 0.95  # of the statement
MOST_COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes that a method needs for an accuracy."""

    bytes: Spread | None  # over the seeds that reach it
    reached: int  # seeds that reach it
    seeds: int

    @property
    def always(self) -> bool:
        return self.reached == self.seeds


def bytes_to(run: Run, target: float) -> int | None:
    """Wire bytes until `run` first has the accuracy `target`; None if it never has."""
    return next((point.wire_bytes for point in run.curve if point.accuracy >= target), None)


def accuracy_at(run: Run, budget: float) -> float | None:
    """Accuracy at the last evaluated round within `budget` wire bytes; None if there is none."""
    return next((point.accuracy for point in reversed(run.curve) if point.wire_bytes <= budget), None)


def cost(method: Method, target: float) -> Cost:
    found = method.spread(lambda run: bytes_to(run, target))
    return Cost(bytes=found, reached=found.count if found else 0, seeds=len(method.runs))


def targets(group: Group) -> list[float]:
    """Accuracies worth a column: the highest that anyone reaches, and always 95 %."""
    reached = [t for t in TARGETS if any(cost(method, t).reached for method in group.methods)]
    kept = reached[-MOST_COLUMNS:]
    return kept if TARGET in kept else sorted([*kept[1 - MOST_COLUMNS :], TARGET])


def budgets(group: Group) -> list[float]:
    """Round budgets (1, 3, 10, 30, ... bytes) between the cheapest point and the dearest."""
    points = [point for method in group.methods for run in method.runs for point in run.curve if point.wire_bytes > 0]
    if not points:
        return []
    low, high = (choose(point.wire_bytes for point in points) for choose in (min, max))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [factor * 10**power for power in powers for factor in (1, 3) if factor * 10**power >= low]
    steps = [step for step in steps if step < high] + [step for step in steps if step >= high][:1]
    if len(steps) <= MOST_COLUMNS:
        return steps
    return [steps[round(i * (len(steps) - 1) / (MOST_COLUMNS - 1))] for i in range(MOST_COLUMNS)]


def times_fewer(group: Group, method: Method) -> Spread | None:
    """Total wire bytes of FedAvg over those of `method`, seed by seed on the same partition.

    None where no FedAvg ran on the method's wire with as many clients a round: other bytes are other things.
    """
    base = group.baseline(method)
    return None if base is None else spread(method.ratios(base, total_bytes, total_bytes))
