"""Flower's own weight strategies (FedAvg, FedProx, FedAdam, Krum, ...) as fedcl strategies.

Their `configure_train` and `aggregate_train` are called, not rewritten; clients train with `train_locally`.
The Flower object is only a recipe: each call works on a fresh copy, and what the algorithm remembers
(the moments of adaptive optimisers) travels in `ServerState.tensors`, so that a run resumes exactly.

Flower's algorithms see the floating-point tensors. An integer buffer (BatchNorm's `num_batches_tracked`) is
a counter, not a parameter: it becomes the largest of the replies.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg

from fedcl.core.errors import ConfigError, RunError
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.contract import CLIENT_TRAINING, Clients, Strategy, client_work
from fedcl.federated.helpers import train_locally, weights_of
from fedcl.federated.payload import ClientState, Payload, Reply, ServerState, Weights
from fedcl.flower.codec import EXAMPLES
from fedcl.flower.compat import memory_of, set_memory, train_message
from fedcl.flower.guarantees import check_numbers, too_few
from fedcl.flower.serial import SerialGrid
from fedcl.training.losses import proximal
from fedcl.training.recipe import Training

_MU = "proximal-mu"  # FedProx's own name


@dataclass(frozen=True, kw_only=True)
class FlowerStrategy(Strategy):
    algorithm: FedAvg  # any of flwr.serverapp.strategy that averages weights; its sampling options are not used
    training: Training = CLIENT_TRAINING  # of a client, each round
    num_rounds: int = 20  # rounds that the algorithm has by itself

    unused = ("distiller",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.algorithm, FedAvg):
            raise ConfigError(
                f"strategy.algorithm={type(self.algorithm).__name__} does not average weights; "
                "choose one of flwr.serverapp.strategy that derives from FedAvg"
            )
        check_numbers(self.algorithm)

    def too_few(self, replies: int) -> str | None:
        return too_few(self.algorithm, replies)

    def round(self, state: ServerState, clients: Clients, ctx: Context) -> ServerState:
        old = dict(state.weights or {})
        floats = [name for name, tensor in old.items() if tensor.is_floating_point()]
        algorithm, scalars = self._configured(state, floats, ctx.round)
        before = dict(vars(algorithm))
        messages, counters = [], {}
        for reply in clients.ask(self.train, Payload(weights=state.weights, scalars=scalars)):
            if reply.num_examples and reply.weights:
                metrics: dict[str, Any] = dict.fromkeys((EXAMPLES, algorithm.weighted_by_key), reply.num_examples)
                arrays = _record(reply.weights, floats)
                content = RecordDict({algorithm.arrayrecord_key: arrays, "metrics": MetricRecord(metrics)})
                messages.append(train_message(content, reply.client + 1))
                for name in old.keys() - {*floats}:
                    count = reply.weights[name]
                    counters[name] = torch.maximum(counters.get(name, count), count)
        if not messages:
            return state
        try:
            arrays, _ = algorithm.aggregate_train(ctx.round + 1, messages)
            problem = self.too_few(len(messages)) or "it gave no weights"
        except (AggregationError, InconsistentMessageReplies) as error:
            arrays, problem = None, error
        if arrays is None:
            raise RunError(f"{type(algorithm).__name__} could not combine round {ctx.round + 1}: {problem}")
        # back to each parameter's own dtype: some of Flower's algorithms answer in float64
        new = {name: torch.from_numpy(np.asarray(arrays[name].numpy())).to(old[name].dtype) for name in floats}
        weights = {name: new[name] if name in new else counters[name] for name in old}
        return ServerState(weights=weights, tensors=memory_of(algorithm, before, floats))

    @client_work(sends=["weights"])
    def train(self, ask: Payload, data: LabeledSet, mine: ClientState, ctx: Context) -> Reply:
        """Local training from the global weights, near them where FedProx says so."""
        if not len(data):  # nothing at this step: nothing to say, and no weight in the mean
            return Reply(client=ctx.client, num_examples=0)
        weights, mu = dict(ask.weights or {}), float(ask.scalars.get(_MU, 0.0))
        penalty = partial(proximal, mu=mu, weights=weights)
        model = train_locally(weights, data, self.training, ctx, penalty=penalty)
        return Reply(client=ctx.client, num_examples=len(data), weights=weights_of(model))

    def _configured(self, state: ServerState, floats: list[str], round: int) -> tuple[FedAvg, dict[str, Any]]:
        """A copy of the algorithm as it was when `round` began, and the scalars that it sends."""
        algorithm = copy.deepcopy(self.algorithm)
        set_memory(algorithm, state.tensors, floats)
        # No nodes: fedcl samples clients, and Flower's own sampling draws from a global generator.
        algorithm.fraction_train, algorithm.min_train_nodes, algorithm.min_available_nodes = 1.0, 0, 0
        config = ConfigRecord()
        algorithm.configure_train(round + 1, _record(state.weights or {}, floats), config, SerialGrid(ClientApp(), 0))
        return algorithm, {name: value for name, value in config.items() if name != "server-round"}


def _record(weights: Weights, names: Iterable[str]) -> ArrayRecord:
    """These tensors as Flower holds them."""
    return ArrayRecord({name: Array(weights[name].detach().cpu().numpy()) for name in names})
