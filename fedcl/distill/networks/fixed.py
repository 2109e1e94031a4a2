"""One network with the same initial weights at every step (DD's "fixed initialisation", Wang et al., 2018).

What is learned is good for these weights alone: whoever trains on the summary has to start from them.
"""

from dataclasses import dataclass

from fedcl.distill.batch import Matched
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream, Stateless


@dataclass(frozen=True, kw_only=True)
class Fixed(Networks):
    shared = True

    seed: int = 0  # of `Model.build`, with which the weights are found again

    def open(self, source: NetworkSource) -> NetworkStream:
        return Unchanged(Matched(network=source.new_model(self.seed).requires_grad_(False)))


class Unchanged(Stateless):
    """The same at every step."""

    def __init__(self, matched: Matched) -> None:
        super().__init__(lambda step: matched)
