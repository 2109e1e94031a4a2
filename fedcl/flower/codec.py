"""Requests and replies as Flower records.

A field is one stacked array, never one array an image or a class. What the server knows anyway (shape,
classes, normalisation, whose message it is) does not travel, nor does a client's count of examples of each class.
Everything that arrives is checked.

    request  "task"       ConfigRecord  round, step
             "config"     ConfigRecord  scalars of the strategy, if any
             "weights"    ArrayRecord   a state_dict, if any
             "constants"  ArrayRecord   "weights": quantisation constants [2, K] of all weights (wire=uint8)
    reply    "metrics"    MetricRecord  num-examples and the strategy's metrics
             "weights", "constants"     as above
             "summary.0"  ArrayRecord   "arrays.<name>", "targets", "constants"
             "spec.0"     ConfigRecord  method and decoder; summaries 1, 2, ... likewise
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedcl.core.coding import Coded, Wire, all_finite, image_axis, weight_axis
from fedcl.core.errors import FedclError, WireError
from fedcl.core.types import Normalization, Origin, Summary, label_dtype
from fedcl.distill.parameterizations import load_decoder
from fedcl.federated.contract import Reply, Request, Weights
from fedcl.flower.fields import (
    Constants,
    error_prefix,
    first_few,
    load_tensor,
    scalars,
    take_record,
    to_array,
    to_record,
)

EXAMPLES = "num-examples"  # Flower's own name for the weight of a reply
_BUFFERS = (torch.int64, torch.int32, torch.int16, torch.bool)  # state_dict entries that travel as they are
_DECODER = "decoder."
_ARRAYS = "arrays."


@dataclass(frozen=True, kw_only=True)
class Task:
    """A request as the client reads it."""

    request: Request
    round: int
    step: int


@dataclass(frozen=True, kw_only=True)
class Codec:
    """Both directions of the wire. `encode_*` and `decode_*` raise WireError."""

    wire: Wire
    num_classes: int
    shape_CHW: tuple[int, int, int]  # of a decoded image
    normalization: Normalization  # of decoded images

    def encode_request(self, request: Request, *, round: int, step: int) -> RecordDict:
        content = RecordDict({"task": ConfigRecord({"round": round, "step": step})})
        if request.config:
            content["config"] = scalars(ConfigRecord, request.config)
        self._put_weights(content, request.weights)
        return content

    def decode_request(self, content: RecordDict) -> Task:
        task = take_record(content, "task", ConfigRecord)
        config: dict[str, Any] = dict(content.get("config") or {})
        request = Request(weights=self._take_weights(content, None), config=config)
        return Task(request=request, round=_whole(task, "round"), step=_whole(task, "step"))

    def encode_reply(self, reply: Reply) -> RecordDict:
        if EXAMPLES in reply.metrics:
            raise WireError(f"a metric may not be called '{EXAMPLES}'")
        metrics = {EXAMPLES: int(reply.num_examples), **{name: float(v) for name, v in reply.metrics.items()}}
        content = RecordDict({"metrics": scalars(MetricRecord, metrics)})
        self._put_weights(content, reply.weights)
        for index, summary in enumerate(reply.summaries):
            content[f"summary.{index}"], content[f"spec.{index}"] = self._encode_summary(summary)
        return content

    def decode_reply(self, content: RecordDict, *, origin: Origin, like: Weights | None) -> Reply:
        """The reply of `origin.client`; `like`: weights that its own must resemble, None for no check."""
        metrics = dict(take_record(content, "metrics", MetricRecord))
        num_examples = metrics.pop(EXAMPLES, None)
        if not isinstance(num_examples, int) or num_examples < 0:
            raise WireError(f"'{EXAMPLES}' must be a count, got {num_examples!r}")
        for name, value in metrics.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise WireError(f"metric '{name}' must be a finite number, got {value!r}")
        num_summaries = sum(key.startswith("summary.") for key in content)
        return Reply(
            client=origin.client,
            num_examples=num_examples,
            metrics={name: float(value) for name, value in metrics.items()},  # type: ignore[arg-type]
            weights=self._take_weights(content, like),
            summaries=tuple(self._decode_summary(content, index, origin) for index in range(num_summaries)),
        )

    def _put_weights(self, content: RecordDict, weights: Weights | None) -> None:
        if weights is None:
            return
        arrays: dict[str, Array] = {}
        constants: list[Tensor] = []
        for name, tensor in weights.items():
            if tensor.dtype in _BUFFERS:
                arrays[name] = to_array(tensor)
                continue
            coded = error_prefix(f"weights '{name}'", self.wire.encode, tensor, weight_axis(tensor.ndim))
            arrays[name] = to_array(coded.values)
            constants.append(coded.constants)
        content["weights"] = to_record(arrays)
        if any(block.numel() for block in constants):
            content["constants"] = to_record({"weights": to_array(torch.cat(constants, dim=1))})

    def _take_weights(self, content: RecordDict, like: Weights | None) -> Weights | None:
        if "weights" not in content:
            return None
        record = take_record(content, "weights", ArrayRecord)
        if like is not None and set(record) != set(like):
            raise WireError(f"weights are called {first_few(record)}, expected {first_few(like)}")
        constants = Constants(content["constants"], "weights") if "constants" in content else Constants({}, "")
        weights: dict[str, Tensor] = {}
        for name in record:
            values = load_tensor(record, name)
            if values.dtype not in _BUFFERS:
                axis = weight_axis(values.ndim)
                block = constants.take(self.wire.num_channels(tuple(values.shape), axis))
                coded = Coded(values=values, constants=block)
                values = error_prefix(f"weights '{name}'", self.wire.decode, coded, axis)
            if like is not None and (values.shape != like[name].shape or values.dtype != like[name].dtype):
                raise WireError(
                    f"weights '{name}' are {values.dtype} {list(values.shape)}, "
                    f"expected {like[name].dtype} {list(like[name].shape)}"
                )
            weights[name] = values
        constants.finish()
        return weights if like is None else {name: weights[name] for name in like}

    def _encode_summary(self, summary: Summary) -> tuple[ArrayRecord, ConfigRecord]:
        found = (summary.num_classes, summary.shape_CHW, summary.normalization)
        if found != (self.num_classes, self.shape_CHW, self.normalization):
            raise WireError(f"a summary of {found} cannot be sent where {self} is expected")
        arrays: dict[str, Array] = {}
        constants: list[Tensor] = []
        for name, tensor in summary.arrays.items():
            coded = error_prefix(f"summary array '{name}'", self.wire.encode, tensor, image_axis(tensor.ndim))
            arrays[_ARRAYS + name] = to_array(coded.values)
            constants.append(coded.constants)
        if summary.is_soft:
            targets = error_prefix("soft labels", self.wire.for_labels().encode, summary.targets).values
        else:
            targets = summary.targets.to(label_dtype(self.num_classes))
        arrays["targets"] = to_array(targets)
        if any(block.numel() for block in constants):
            arrays["constants"] = to_array(torch.cat(constants, dim=1))
        spec = {"method": summary.method, **{_DECODER + key: v for key, v in summary.decoder.spec().items()}}
        return to_record(arrays), scalars(ConfigRecord, spec)

    def _decode_summary(self, content: RecordDict, index: int, origin: Origin) -> Summary:
        where = f"summary {index}"
        record = take_record(content, f"summary.{index}", ArrayRecord)
        spec = dict(take_record(content, f"spec.{index}", ConfigRecord))
        constants = Constants(record, "constants")
        arrays: dict[str, Tensor] = {}
        for name in (key for key in record if key.startswith(_ARRAYS)):
            values = load_tensor(record, name)
            axis = image_axis(values.ndim)
            coded = Coded(values=values, constants=constants.take(self.wire.num_channels(tuple(values.shape), axis)))
            arrays[name.removeprefix(_ARRAYS)] = error_prefix(f"{where}, '{name}'", self.wire.decode, coded, axis)
        constants.finish()
        try:
            summary = Summary(
                arrays=arrays,
                targets=self._decode_targets(load_tensor(record, "targets")),
                num_classes=self.num_classes,
                shape_CHW=self.shape_CHW,
                normalization=self.normalization,
                decoder=load_decoder(
                    {key.removeprefix(_DECODER): v for key, v in spec.items() if key.startswith(_DECODER)}  # type: ignore[misc]
                ),
                method=str(spec.get("method", "")),
                origin=origin,
            )
            with torch.no_grad():
                images, targets = summary.decode()
        except FedclError as error:
            raise WireError(f"{where}: {error}") from error
        except Exception as error:  # a decoder given arrays that it does not know
            raise WireError(f"{where} cannot be decoded ({type(error).__name__}: {error})") from error
        if tuple(images.shape) != (len(targets), *self.shape_CHW):
            raise WireError(
                f"{where} decodes to images {list(images.shape)} for {len(targets)} labels, "
                f"expected [{len(targets)}, {', '.join(map(str, self.shape_CHW))}]"
            )
        if not all_finite(images):
            raise WireError(f"{where} decodes to NaN or infinity")
        return summary

    def _decode_targets(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            wire = self.wire.for_labels()
            return wire.decode(Coded(values=targets, constants=torch.zeros(2, 0)))
        if targets.dtype != label_dtype(self.num_classes):
            raise WireError(f"hard labels must be {label_dtype(self.num_classes)}, got {targets.dtype}")
        return targets.long()


def _whole(record: ConfigRecord, name: str) -> int:
    value = record.get(name)
    if not isinstance(value, int):
        raise WireError(f"'{name}' must be a whole number, got {value!r}")
    return value
