"""Questions and replies as Flower records.

A field is one stacked array, never one array an image or a class. What both sides know anyway (shape, classes,
normalisation, whose message it is) does not travel, nor does a client's count of examples of each class.
Everything that arrives is checked.

    both      "weights"    ArrayRecord   a state_dict of the run's network, if any
              "tensors"    ArrayRecord   named float32 tensors, coded as the wire says, if any
              "integers"   ArrayRecord   named tensors of whole numbers and truth values, as they are, if any
              "constants"  ArrayRecord   "weights", "tensors": quantisation constants [2, K] of each (wire=uint8)
              "scalars"    ConfigRecord  named scalars, if any
              "summary.0"  ArrayRecord   "arrays.<name>" (or "pixels.<name>"), "targets", "constants"
              "spec.0"     ConfigRecord  method and decoder; summaries 1, 2, ... likewise
    question  "task"       ConfigRecord  work, round, step, shared; origins: client, step, round of each summary
    reply     "metrics"    MetricRecord  num-examples
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedcl.core.coding import NO_CONSTANTS, Coded, Wire, weight_axis
from fedcl.core.errors import FedclError, WireError
from fedcl.core.inputs import InputSpec
from fedcl.core.types import Origin, Summary, label_dtype
from fedcl.distill.blobs import ARRAY, NUM_SOURCE, decode_tensors, encode_tensors
from fedcl.distill.parameterizations import load_decoder
from fedcl.federated.payload import Payload, Reply, Weights
from fedcl.flower.compat import filled, items_of
from fedcl.flower.fields import check_scalar, error_prefix, first_few, load_tensor, take_record, to_array

R = TypeVar("R", ConfigRecord, MetricRecord)
EXAMPLES = "num-examples"  # Flower's own name for the weight of a reply
_BUFFERS = (torch.int64, torch.int32, torch.int16, torch.bool)  # state_dict entries that travel as they are
_INTEGERS = (*_BUFFERS, torch.int8, torch.uint8)
_AS_THEY_ARE = {"weights": _BUFFERS, "integers": _INTEGERS}  # dtypes of a record that are not coded
_DECODER, _ARRAYS, _EXTRA = "decoder.", "arrays.", "extra_rows"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a client is asked."""

    work: str  # name of a client half
    round: int
    step: int
    shared: bytes = b""  # see `fedcl.federated.agreement`
    payload: Payload


@dataclass(frozen=True, kw_only=True)
class Codec:
    """Both directions of the wire. `encode_*` and `decode_*` raise WireError."""

    wire: Wire
    num_classes: int
    inputs: InputSpec  # of decoded images
    network: Weights | None = None  # a state_dict that all weights must resemble; None: any will do

    def encode_question(self, question: Question) -> RecordDict:
        task: dict[str, Any] = {"work": question.work, "round": question.round, "step": question.step}
        task["shared"] = question.shared
        if question.payload.summaries:
            task["origins"] = [number for s in question.payload.summaries for number in astuple(s.origin)]
        return self._put({"task": ConfigRecord(task)}, question.payload)

    def decode_question(self, content: RecordDict) -> Question:
        task = take_record(content, "task", ConfigRecord)
        numbers: Any = task.get("origins", [])
        origins = [Origin(client=c, step=s, round=r) for c, s, r in zip(*[iter(numbers)] * 3, strict=True)]
        shared = task.get("shared")
        return Question(
            work=str(task.get("work")),
            round=_whole(task, "round"),
            step=_whole(task, "step"),
            shared=shared if isinstance(shared, bytes) else b"",
            payload=Payload(**self._take(items_of(content), origins, Summary.check)),
        )

    def encode_reply(self, reply: Reply) -> RecordDict:
        return self._put({"metrics": _scalars(MetricRecord, {EXAMPLES: int(reply.num_examples)})}, reply)

    def decode_reply(
        self, content: RecordDict, *, origin: Origin, check: Callable[[Summary], object] = Summary.check
    ) -> Reply:
        """The reply of `origin.client`; `check` looks at each summary."""
        num_examples = _whole(take_record(content, "metrics", MetricRecord), EXAMPLES)
        if num_examples < 0:
            raise WireError(f"'{EXAMPLES}' must be a count, got {num_examples}")
        return Reply(client=origin.client, num_examples=num_examples, **self._take(items_of(content), origin, check))

    def check_weights(self, weights: Weights) -> Weights:
        """The same weights in the order of the network's.

        Raises:
            WireError: they are no state_dict of it.
        """
        if self.network is None:
            return weights
        if set(weights) != set(self.network):
            raise WireError(f"weights are called {first_few(weights)}, expected {first_few(self.network)}")
        for name, like in self.network.items():
            came, wanted = ((tensor.dtype, tensor.shape) for tensor in (weights[name], like))
            if came != wanted:
                raise WireError(
                    f"weights '{name}' are {came[0]} {list(came[1])}, expected {wanted[0]} {list(wanted[1])}"
                )
        return {name: weights[name] for name in self.network}

    def _put(self, content: dict[str, Any], payload: Payload) -> RecordDict:
        if payload.weights is not None:
            self.check_weights(payload.weights)
        integers = {name: tensor for name, tensor in payload.tensors.items() if tensor.dtype in _INTEGERS}
        floats = {name: tensor for name, tensor in payload.tensors.items() if name not in integers}
        constants: dict[str, Array] = {}
        for key, tensors in (("weights", payload.weights), ("tensors", floats or None), ("integers", integers or None)):
            if tensors is not None:
                content[key], blocks = self._encode_tensors(key, tensors)
                if any(block.numel() for block in blocks):
                    constants[key] = to_array(torch.cat(blocks, dim=1))
        if constants:
            content["constants"] = filled(ArrayRecord(), constants)
        if payload.scalars:
            content["scalars"] = _scalars(ConfigRecord, payload.scalars)
        for index, summary in enumerate(payload.summaries):
            content[f"summary.{index}"], content[f"spec.{index}"] = self._encode_summary(summary)
        return filled(RecordDict(), content)

    def _take(
        self, content: Mapping[str, Any], origins: Origin | Sequence[Origin], check: Callable[[Summary], object]
    ) -> dict[str, Any]:
        """Fields of a `Payload`; origins: of each summary, or of all."""
        weights, floats, integers = (self._decode_tensors(content, key) for key in ("weights", "tensors", "integers"))
        for name, tensor in (integers or {}).items():
            if name in (floats or {}) or tensor.dtype not in _INTEGERS:
                raise WireError(f"tensors '{name}' must hold whole numbers under one name, got {tensor.dtype}")
        scalars = dict(take_record(content, "scalars", ConfigRecord)) if "scalars" in content else {}
        for name, value in scalars.items():
            check_scalar(name, value)
        count = sum(key.startswith("summary.") for key in content)
        origins = [origins] * count if isinstance(origins, Origin) else origins
        if len(origins) != count:
            raise WireError(f"there are {count} summaries, and {len(origins)} origins of them")
        return {
            "weights": None if weights is None else self.check_weights(weights),
            "tensors": {**(floats or {}), **(integers or {})},
            "scalars": scalars,
            "summaries": tuple(
                self._decode_summary(content, index, origin, check) for index, origin in enumerate(origins)
            ),
        }

    def _encode_tensors(self, key: str, tensors: Mapping[str, Tensor]) -> tuple[ArrayRecord, list[Tensor]]:
        """A record of tensors, and the quantisation constants [2, K] of each that is coded."""
        arrays: dict[str, Array] = {}
        blocks: list[Tensor] = []
        for name, tensor in tensors.items():
            if tensor.dtype not in _AS_THEY_ARE.get(key, ()):
                coded = error_prefix(f"{key} '{name}'", self.wire.encode, tensor, weight_axis(tensor.ndim))
                blocks.append(coded.constants)
                tensor = coded.values
            arrays[name] = to_array(tensor)
        return filled(ArrayRecord(), arrays), blocks

    def _decode_tensors(self, content: Mapping[str, Any], key: str) -> dict[str, Tensor] | None:
        """Undo `_encode_tensors`; None where there is no such record."""
        if key not in content:
            return None
        known = take_record(content, "constants", ArrayRecord) if "constants" in content else {}
        rest = load_tensor(known, key) if key in known else NO_CONSTANTS
        if rest.ndim != 2 or len(rest) != 2:
            raise WireError(f"quantisation constants must be [2, K], got {list(rest.shape)}")
        tensors, record = {}, take_record(content, key, ArrayRecord)
        for name in record:
            tensor = load_tensor(record, name)
            if key != "integers" and tensor.dtype not in _AS_THEY_ARE.get(key, ()):
                axis, block = weight_axis(tensor.ndim), NO_CONSTANTS
                if channels := self.wire.num_channels(tuple(tensor.shape), axis):
                    block, rest = rest[:, :channels], rest[:, channels:]
                coded = Coded(values=tensor, constants=block)
                tensor = error_prefix(f"{key} '{name}'", self.wire.decode, coded, axis)
            tensors[name] = tensor
        if rest.shape[1]:
            raise WireError(f"{rest.shape[1]} quantisation constants belong to nothing")
        return tensors

    def _encode_summary(self, summary: Summary) -> tuple[ArrayRecord, ConfigRecord]:
        found = (summary.num_classes, summary.inputs.shape, summary.inputs.preprocess)
        if found != (self.num_classes, self.inputs.shape, self.inputs.preprocess):
            raise WireError(f"a summary of {found} cannot be sent where {self} is expected")
        tensors = encode_tensors(summary, self.wire).items()
        arrays = {_swap(name, ARRAY, _ARRAYS): to_array(tensor) for name, tensor in tensors if name != NUM_SOURCE}
        spec = {"method": summary.method, **{_DECODER + key: v for key, v in summary.decoder.spec().items()}}
        if summary.extra_rows:
            spec[_EXTRA] = " ".join(summary.extra_rows)
        return filled(ArrayRecord(), arrays), _scalars(ConfigRecord, spec)

    def _decode_summary(
        self, content: Mapping[str, Any], index: int, origin: Origin, check: Callable[[Summary], object]
    ) -> Summary:
        record = take_record(content, f"summary.{index}", ArrayRecord)
        spec = take_record(content, f"spec.{index}", ConfigRecord)
        try:
            arrays = {_swap(name, _ARRAYS, ARRAY): load_tensor(record, name) for name in record if name != NUM_SOURCE}
            if not isinstance(method := spec.get("method", ""), str):
                raise WireError(f"'method' of a summary cannot be {method!r}")
            summary = decode_tensors(
                arrays,
                self.wire,
                label_dtype(self.num_classes),
                num_classes=self.num_classes,
                inputs=self.inputs,
                decoder=load_decoder(decoder_spec(spec)),
                method=method,
                extra_rows=tuple(str(spec.get(_EXTRA, "")).split()),
                origin=origin,
            )
            check(summary)
        except FedclError as error:
            raise WireError(f"summary {index}: {error}") from error
        except Exception as error:  # a decoder given arrays that it does not know
            raise WireError(f"summary {index} cannot be decoded ({type(error).__name__}: {error})") from error
        return summary


def decoder_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary's spec says of its decoder."""
    return {key.removeprefix(_DECODER): value for key, value in spec.items() if key.startswith(_DECODER)}


def _scalars(kind: type[R], values: Mapping[str, Any]) -> R:
    for name, value in values.items():
        check_scalar(name, value)
    return filled(kind(), values)


def _swap(name: str, before: str, after: str) -> str:
    return after + name.removeprefix(before) if name.startswith(before) else name


def _whole(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise WireError(f"'{name}' must be a whole number, got {value!r}")
    return value
