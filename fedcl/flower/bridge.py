"""Flower's own weight strategies (FedAvg, FedProx, FedAdam, Krum, ...) as fedcl strategies.

Their `configure_train` and `aggregate_train` are called, not rewritten; clients train with `training.fit`.
The Flower object is only a recipe: each call works on a fresh copy, and what the algorithm remembers
(the moments of adaptive optimisers) travels in `ServerState.tensors`, so that a run resumes exactly.

Flower's algorithms see the floating-point tensors. An integer buffer (BatchNorm's `num_batches_tracked`) is
a counter, not a parameter: it becomes the largest of the replies.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn

from fedcl.core.errors import ConfigError, RunError
from fedcl.core.seeding import derive
from fedcl.core.types import LabeledSet
from fedcl.distill.context import Context
from fedcl.federated.contract import CLIENT_TRAINING, Reply, Request, ServerState, Strategy, Weights
from fedcl.flower.codec import EXAMPLES
from fedcl.flower.compat import train_message
from fedcl.flower.guarantees import check_numbers, too_few
from fedcl.flower.serial import SerialGrid
from fedcl.training.loop import Training

MEMORY = ("m_t", "v_t", "momentum_vector")  # what Flower's algorithms keep between rounds
_RESET = ("current_arrays",)  # set again from the state every round
_MU = "proximal-mu"  # FedProx's own name


@dataclass(frozen=True, kw_only=True)
class FlowerStrategy(Strategy):
    algorithm: FedAvg  # any of flwr.serverapp.strategy that averages weights; its sampling options are not used
    training: Training = CLIENT_TRAINING  # of a client, each round
    num_rounds: int = 20  # rounds that the algorithm has by itself

    unused = ("distiller",)

    def __post_init__(self) -> None:
        if not isinstance(self.algorithm, FedAvg):
            raise ConfigError(
                f"strategy.algorithm={type(self.algorithm).__name__} does not average weights; "
                "choose one of flwr.serverapp.strategy that derives from FedAvg"
            )
        check_numbers(self.algorithm)

    def init(self, ctx: Context) -> ServerState:
        return ServerState(weights=_on_cpu(ctx.new_model(derive(ctx.seed, "global model"))))

    def request(self, state: ServerState, round: int, ctx: Context) -> Request:
        _, config = self._configured(state, round)
        return Request(weights=state.weights, config=config)

    def client_work(self, request: Request, shards: Sequence[LabeledSet], round: int, ctx: Context) -> list[Reply]:
        weights = dict(request.weights or {})
        mu = float(request.config.get(_MU, 0.0))
        replies = []
        for shard in shards:
            if not len(shard):  # nothing at this step: nothing to say, and no weight in the mean
                replies.append(Reply(client=shard.origin.client, num_examples=0))
                continue
            model = _load(ctx, weights)
            self.training.fit(
                model,
                shard.images_NCHW.to(ctx.device),
                shard.labels_N.to(ctx.device),
                seed=derive(
                    ctx.seed,
                    "local training",
                    client=shard.origin.client,
                    step=shard.origin.step,
                    round=round,
                ),
                normalization=ctx.normalization,
                flip=ctx.horizontal_flip,
                proximal=(mu, weights) if mu else None,
                progress=ctx.progress,
            )
            replies.append(Reply(client=shard.origin.client, num_examples=len(shard), weights=_on_cpu(model)))
        return replies

    def unusable(self, reply: Reply) -> str | None:
        return "sent no weights" if reply.num_examples and reply.weights is None else None

    def too_few(self, replies: int) -> str | None:
        return too_few(self.algorithm, replies)

    def combine(self, state: ServerState, replies: Sequence[Reply], round: int, ctx: Context) -> ServerState:
        replies = [reply for reply in replies if reply.num_examples > 0]
        if not replies:
            return state
        algorithm, _ = self._configured(state, round)
        before = dict(vars(algorithm))
        common = set.intersection(*(set(reply.metrics) for reply in replies))  # Flower wants the same of all
        messages = [train_message(self._content(reply, common), reply.client + 1) for reply in replies]
        try:
            arrays, _ = algorithm.aggregate_train(round + 1, messages)
        except (AggregationError, InconsistentMessageReplies) as error:
            raise RunError(f"{type(self.algorithm).__name__} could not combine round {round + 1}: {error}") from error
        if arrays is None:
            why = self.too_few(len(replies)) or "it gave no weights"
            raise RunError(f"{type(self.algorithm).__name__} could not combine round {round + 1}: {why}")
        unknown = [k for k, v in vars(algorithm).items() if k not in (*MEMORY, *_RESET) and v is not before.get(k)]
        if unknown:
            raise ConfigError(
                f"{type(self.algorithm).__name__} remembers {', '.join(unknown)}, which the bridge "
                "cannot save; name it in MEMORY of fedcl/flower/bridge.py"
            )
        old = dict(state.weights or {})
        new = {name: _as(arrays[name].numpy(), old[name]) for name in _floats(old)}
        counters = {
            name: torch.stack([(reply.weights or {})[name] for reply in replies]).amax(0)
            for name in old
            if name not in new
        }
        return ServerState(
            weights={name: new[name] if name in new else counters[name] for name in old},
            tensors=_remember(algorithm, list(new)),
        )

    def model(self, state: ServerState, ctx: Context) -> nn.Module:
        return _load(ctx, dict(state.weights or {}))

    def _configured(self, state: ServerState, round: int) -> tuple[FedAvg, dict]:
        """A copy of the algorithm as it was when `round` began, and the config that it sends."""
        algorithm = copy.deepcopy(self.algorithm)
        _recall(algorithm, state.tensors, _floats(state.weights or {}))
        # No nodes: fedcl samples clients, and Flower's own sampling draws from a global generator.
        algorithm.fraction_train, algorithm.min_train_nodes, algorithm.min_available_nodes = 1.0, 0, 0
        config = ConfigRecord()
        algorithm.configure_train(round + 1, _record(state.weights or {}), config, SerialGrid(ClientApp(), 0))
        return algorithm, {name: value for name, value in config.items() if name != "server-round"}

    def _content(self, reply: Reply, metrics: set[str]) -> RecordDict:
        if reply.weights is None:
            raise RunError(f"client {reply.client} sent no weights")
        kept = {name: value for name, value in reply.metrics.items() if name in metrics}
        weight = {self.algorithm.weighted_by_key: reply.num_examples}
        return RecordDict(
            {
                self.algorithm.arrayrecord_key: _record(reply.weights),
                "metrics": MetricRecord({EXAMPLES: reply.num_examples, **kept, **weight}),
            }
        )


def _floats(weights: Weights) -> list[str]:
    return [name for name, tensor in weights.items() if tensor.is_floating_point()]


def _record(weights: Weights) -> ArrayRecord:
    """The floating-point tensors as Flower holds them."""
    return ArrayRecord({name: Array(weights[name].detach().cpu().numpy()) for name in _floats(weights)})


def _as(array: np.ndarray, like: Tensor) -> Tensor:
    """Back to the parameter's own dtype: some of Flower's algorithms answer in float64."""
    return torch.from_numpy(np.asarray(array)).to(like.dtype)


def _remember(algorithm: FedAvg, names: list[str]) -> dict[str, Tensor]:
    """The algorithm's memory as tensors called "<attribute>/<parameter>"."""
    extra: dict[str, Tensor] = {}
    for attribute in MEMORY:
        kept = getattr(algorithm, attribute, None)
        if kept is not None:
            arrays = kept if isinstance(kept, Mapping) else dict(zip(names, kept, strict=True))
            extra |= {f"{attribute}/{name}": torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return extra


def _recall(algorithm: FedAvg, extra: Mapping[str, Tensor], names: list[str]) -> None:
    """Undo `_remember`. FedAvgM keeps a list in the order of the parameters, the others keep dictionaries."""
    for attribute in MEMORY:
        if any(key.startswith(f"{attribute}/") for key in extra):
            arrays = {name: extra[f"{attribute}/{name}"].numpy().copy() for name in names}
            setattr(algorithm, attribute, list(arrays.values()) if attribute == "momentum_vector" else arrays)


def _load(ctx: Context, weights: dict[str, Tensor]) -> nn.Module:
    model = ctx.new_model(derive(ctx.seed, "global model"))
    model.load_state_dict(weights)
    return model


def _on_cpu(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
