"""How many replies the guarantees of Flower's robust algorithms ask for.

Flower itself computes with whatever came back: with too few replies Bulyan changes nothing, Krum chooses among
neighbours that may all be malicious, and a trimmed mean that cuts off nobody is a plain mean.
"""

import math

from flwr.serverapp.strategy import Bulyan, FedAvg, FedTrimmedAvg, MultiKrum

from fedcl.core.errors import ConfigError

_F = "strategy.algorithm.num_malicious_nodes"
_M = "strategy.algorithm.num_nodes_to_select"


def check_numbers(algorithm: FedAvg) -> None:
    """Raise ConfigError for numbers that no count of clients makes sense of."""
    for key, least in ((_F, 0), (_M, 1)):
        value = getattr(algorithm, key.rsplit(".", 1)[1], None)
        if value is not None and value < least:
            raise ConfigError(f"{key}={value} must be at least {least}")


def too_few(algorithm: FedAvg, replies: int) -> str | None:
    """Why the guarantee does not hold for so many replies, and what to type; None where it does."""
    name = type(algorithm).__name__
    if isinstance(algorithm, Bulyan | MultiKrum):
        malicious, chosen = algorithm.num_malicious_nodes, getattr(algorithm, "num_nodes_to_select", 0)
        # El Mhamdi et al., ICML 2018: n >= 4 f + 3; Krum, too: Blanchard et al., NeurIPS 2017: n >= 2 f + 3
        factor = 4 if isinstance(algorithm, Bulyan) else 2
        least = factor * malicious + 3
        if replies < least:
            fewer = f"type {_F}={(replies - 3) // factor}, or " if replies >= 3 else ""
            return (
                f"{name} with {_F}={malicious} needs the replies of {least} clients ({factor} f + 3), "
                f"not of {replies}; {fewer}{_ask(least)}"
            )
        if chosen > replies - malicious:
            return (
                f"{name} averages {_M}={chosen} replies beside {_F}={malicious} that may be malicious, so it needs "
                f"the replies of {chosen + malicious} clients, not of {replies}; "
                f"type {_M}={replies - malicious} or less, or {_ask(chosen + malicious)}"
            )
    if isinstance(algorithm, FedTrimmedAvg) and algorithm.beta > 0 and int(algorithm.beta * replies) < 1:
        least = math.ceil(1 / algorithm.beta)
        lower = f"type strategy.algorithm.beta={math.ceil(100 / replies) / 100}, or " if replies > 2 else ""
        return (
            f"{name} with strategy.algorithm.beta={algorithm.beta} cuts off nobody of {replies} clients, "
            f"and needs the replies of {least}; {lower}{_ask(least)}"
        )
    return None


def _ask(least: int) -> str:
    return f"ask {least} clients a round or more (clients_per_round, scenario.num_clients)"
