"""Transforms: what stands between a client's reply and the wire, whatever the strategy.

A client packs its reply after its work, the server unpacks it once it is decoded and before the strategy sees it. What
a transform gets as weights are the differences of the trained parameters from the question's weights. All else of a
state_dict travels as it is, as tensors called "as_is/<name>": counters are whole numbers, and the running variance of
batch norm is a scale that half an update could turn negative.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fedcl.core.errors import WireError
from fedcl.core.rules import Checked
from fedcl.distill.context import Context
from fedcl.federated.payload import ClientState, Payload, Reply, Weights

AS_IS = "as_is/"
Parts = dict[str, Tensor]


class Transform(Checked, ABC):
    """Compression, clipping or noise on the way up, as a frozen dataclass of its numbers. Both methods are pure."""

    config_key = "compress"

    name: str  # the first part of the names of its tensors, on the wire and at a client: "<name>/<anything>"

    @abstractmethod
    def pack(self, payload: Payload, mine: ClientState, ctx: Context) -> tuple[Payload, ClientState]:
        """The payload that travels, and what the client keeps for the next time, at a client.

        `payload.weights` are differences, float32 on the CPU, or None where the reply has no weights.
        """

    @abstractmethod
    def unpack(self, payload: Payload, like: Weights | None, ctx: Context) -> Payload:
        """Undo `pack`, at the server.

        Args:
            payload: as decoded; nothing of it is trusted.
            like: the trained parameters of the question's weights, which give names and shapes.

        Raises:
            WireError: it is not what `pack` makes.
        """


@dataclass(frozen=True, kw_only=True)
class NoTransform(Transform):
    """Nothing between a reply and the wire."""

    name = "none"

    def pack(self, payload: Payload, mine: ClientState, ctx: Context) -> tuple[Payload, ClientState]:
        return payload, mine

    def unpack(self, payload: Payload, like: Weights | None, ctx: Context) -> Payload:
        return payload


class Compressor(Transform):
    """A transform of the whole update, with error feedback or without."""

    feeds_back: bool = False  # what was not sent is kept, and added to the next update (error feedback)

    @abstractmethod
    def compress(self, update: Weights, kept: Mapping[str, Tensor], ctx: Context) -> tuple[Parts, Parts]:
        """The update as tensors by name, of floats (coded as the wire says) or whole numbers (sent as they are); and
        what the client keeps, beside the residue, to find it the next time as `kept`."""

    @abstractmethod
    def restore(self, parts: Mapping[str, Tensor], like: Weights) -> Tensor:
        """float32 [P]: the update that `parts` say, as one vector in the order of the parameters `like`.

        Raises:
            WireError: they say none of those shapes.
        """

    def pack(self, payload: Payload, mine: ClientState, ctx: Context) -> tuple[Payload, ClientState]:
        if payload.weights is None:
            return payload, mine
        update, (own, _) = payload.weights, _split(mine.tensors, f"{self.name}/")
        if "residue" in own:
            update = pieces(flat(update) + own["residue"], update)
        parts, kept = self.compress(update, own, ctx)
        if self.feeds_back:
            kept = {**kept, "residue": flat(update) - self.restore(parts, update)}
        if kept:
            mine = replace(mine, tensors={**mine.tensors, **self._named(kept)})
        return replace(payload, weights=None, tensors={**payload.tensors, **self._named(parts)}), mine

    def unpack(self, payload: Payload, like: Weights | None, ctx: Context) -> Payload:
        parts, rest = _split(payload.tensors, f"{self.name}/")
        if not parts or like is None:
            return payload
        return replace(payload, weights=pieces(self.restore(parts, like), like), tensors=rest)

    def _named(self, parts: Parts) -> Parts:
        return {f"{self.name}/{name}": tensor for name, tensor in parts.items()}


class VectorCompressor(Compressor):
    """A compressor that sees the update as one vector of float32 [P], and keeps nothing beside the residue."""

    @abstractmethod
    def encode(self, update_P: Tensor, ctx: Context) -> Parts:
        """The first half of `compress`."""

    @abstractmethod
    def decode(self, parts: Mapping[str, Tensor], size: int) -> Tensor:
        """The update [size] that `parts` say.

        Raises:
            WireError: they say none of that size.
        """

    def compress(self, update: Weights, kept: Mapping[str, Tensor], ctx: Context) -> tuple[Parts, Parts]:
        return self.encode(flat(update), ctx), {}

    def restore(self, parts: Mapping[str, Tensor], like: Weights) -> Tensor:
        return self.decode(parts, sum(tensor.numel() for tensor in like.values()))


def flat(weights: Weights) -> Tensor:
    """All tensors as one vector [P]."""
    return torch.cat([tensor.flatten() for tensor in weights.values()])


def pieces(values_P: Tensor, like: Weights) -> dict[str, Tensor]:
    """Undo `flat`."""
    parts = values_P.split([tensor.numel() for tensor in like.values()])
    return {name: part.view_as(old) for (name, old), part in zip(like.items(), parts, strict=True)}


def take(parts: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """One of the parts of an encoded update.

    Raises:
        WireError: it is missing, or of another shape or dtype.
    """
    found = parts.get(name)
    if found is None or tuple(found.shape) != shape or found.dtype != dtype:
        said = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
        raise WireError(f"the compressed update's '{name}' must be {dtype} {list(shape)}, got {said}")
    return found


def trained_names(ctx: Context) -> set[str]:
    """Names of the network's parameters; its state_dict has buffers, too."""
    with torch.device("meta"):
        return {name for name, _ in ctx.model.architecture(ctx.inputs.shape, ctx.num_classes).named_parameters()}


def visible(mine: ClientState, transforms: Sequence[Transform]) -> ClientState:
    """A client's memory as its strategy sees it: without what transforms keep."""
    own = _own(mine, transforms)
    return replace(mine, tensors={k: v for k, v in mine.tensors.items() if k not in own}) if own else mine


def pack(transforms: Sequence[Transform], reply: Reply, like: Weights | None, mine: ClientState, ctx: Context) -> Reply:
    """A reply as it travels; what the transforms keep is in its `keep`. A reply without examples stays as it is."""
    if not transforms or not reply.num_examples:
        return reply
    payload = Payload(**_content(reply))
    if reply.weights is not None:
        if like is None or set(reply.weights) != set(like):
            raise WireError("only replies to a question that sent weights can be compressed; send them, too")
        trained = trained_names(ctx)
        buffers = {AS_IS + name: tensor for name, tensor in reply.weights.items() if name not in trained}
        change = {name: tensor - like[name] for name, tensor in reply.weights.items() if name in trained}
        payload = replace(payload, weights=change, tensors={**payload.tensors, **buffers})
    before = _own(mine, transforms)
    kept, state = dict(before), reply.keep
    for transform in transforms:
        payload, after = transform.pack(payload, ClientState(tensors=kept), ctx)
        kept |= after.tensors
    if state is not None or any(kept[name] is not before.get(name) for name in kept):
        state = visible(mine, transforms) if state is None else state
        state = replace(state, tensors={**state.tensors, **kept})
    return replace(reply, keep=state, **_content(payload))


def unpack(transforms: Sequence[Transform], reply: Reply, like: Weights | None, ctx: Context) -> Reply:
    """A reply as the strategy sees it.

    Raises:
        WireError: it is not what `pack` makes.
    """
    if not transforms or not reply.num_examples:
        return reply
    trained = trained_names(ctx)
    start = None if like is None else {name: tensor for name, tensor in like.items() if name in trained}
    payload = Payload(**_content(reply))
    for transform in reversed(transforms):
        payload = transform.unpack(payload, start, ctx)
    if payload.weights is not None and start is not None:
        if {k: v.shape for k, v in payload.weights.items()} != {k: v.shape for k, v in start.items()}:
            raise WireError("the update is of other parameters than the question's")
        buffers, rest = _split(payload.tensors, AS_IS)
        changed = {name: start[name] + change for name, change in payload.weights.items()}
        payload = replace(payload, weights={**buffers, **changed}, tensors=rest)
    return replace(reply, **_content(payload))


def _own(mine: ClientState, transforms: Sequence[Transform]) -> dict[str, Tensor]:
    """The tensors of a client's memory that belong to transforms, by name."""
    heads = tuple(f"{transform.name}/" for transform in transforms)
    return {name: tensor for name, tensor in mine.tensors.items() if name.startswith(heads)}


def _split(tensors: Mapping[str, Tensor], head: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Those whose names begin with `head`, without it, and the others."""
    own = {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}
    return own, {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}


def _content(payload: Payload) -> dict[str, Any]:
    return {field.name: getattr(payload, field.name) for field in fields(Payload)}
