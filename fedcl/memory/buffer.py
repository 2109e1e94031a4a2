"""Memory of a continual learner: summaries as blobs, under a budget in images per class, in images, or in bytes.

A buffer is a value: `add` gives a new one that is never over its budget, `replay` gives images and targets.
What is replayed was decoded from storage, so that coarse storage costs accuracy where it saves bytes.

Legend: N stored rows (images; a decoder may make several of one), M decoded images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcl.core.errors import ConfigError
from fedcl.core.inputs import InputSpec
from fedcl.core.types import LabeledSet, Origin, Summary, union
from fedcl.distill.blobs import Blob, decode, encode
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.memory.budget import Budget, Rows, positions


@dataclass(frozen=True, kw_only=True, eq=False)
class Block(Blob):
    """Rows that are stored in the same way, with their bookkeeping."""

    @property
    def label_N(self) -> Tensor:
        """int64 [N], class of a row (the likeliest, where labels are soft)."""
        return self.tensors["row.label_N"]

    @property
    def step_N(self) -> Tensor:
        """int64 [N], step that it came at."""
        return self.tensors["row.step_N"]

    @property
    def rank_N(self) -> Tensor:
        """float64 [N]; within its group the row of lowest rank stays longest."""
        return self.tensors["row.rank_N"]


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """Contents of a memory. Never over its budget."""

    budget: Budget
    blocks: tuple[Block, ...] = ()

    def __len__(self) -> int:
        """Stored rows."""
        return sum(len(block) for block in self.blocks)

    @property
    def num_bytes(self) -> int:
        return sum(block.num_bytes for block in self.blocks)

    @property
    def num_images(self) -> int:
        """Decoded images."""
        return sum(len(block.decoder.expand(block.label_N)) for block in self.blocks)

    @property
    def memory(self) -> dict[str, int]:
        """The record's `memory` part."""
        return {"bytes": self.num_bytes, "images": self.num_images, "stored_images": len(self)}

    def add(self, summary: Summary, rank_N: Tensor | None = None) -> Buffer:
        """A buffer with this summary's rows; whatever is over the budget is dropped, old rows and new alike.

        Args:
            rank_N: a number a stored row; of each group those of lowest rank stay. Without it, the position
                of the row within its class. Uniform random ranks make the buffer a uniform sample of
                all that was ever added (a reservoir).
        """
        if not len(summary.targets):
            return self
        label_N = (summary.targets.argmax(1) if summary.is_soft else summary.targets).cpu()
        blob = encode(replace(summary, num_source_C=None, origin=Origin()), self.budget.wire)
        columns = {
            "row.label_N": label_N,
            "row.step_N": torch.full((len(label_N),), summary.origin.step),
            "row.rank_N": (positions(label_N) if rank_N is None else rank_N).double().cpu(),
        }
        new = Block(tensors={**blob.tensors, **columns}, meta=blob.meta)
        blocks = list(self.blocks)
        for index, block in enumerate(blocks):
            if block.joins(new):
                blocks[index] = block.join(new)
                break
        else:
            blocks.append(new)
        return replace(self, blocks=tuple(blocks))._within_budget()

    def _within_budget(self) -> Buffer:
        sizes = [len(block) for block in self.blocks]
        rows = Rows(
            label_N=self.labels_N,
            step_N=torch.cat([block.step_N for block in self.blocks]),
            rank_N=torch.cat([block.rank_N for block in self.blocks]),
            block_N=torch.repeat_interleave(torch.tensor(sizes)),
            row_bytes_B=torch.tensor([block.row_bytes for block in self.blocks]),
            shared_bytes_B=torch.tensor([block.shared_bytes for block in self.blocks]),
        )
        most = max(block.decoder.num_initial(1) for block in self.blocks)
        keep_N = self.budget.keep(rows, self.blocks[0].meta["num_classes"], most)
        if bool(keep_N.all()):
            return self
        parts = zip(self.blocks, keep_N.split(sizes), strict=True)
        return replace(
            self, blocks=tuple(block.select(torch.nonzero(keep)[:, 0]) for block, keep in parts if bool(keep.any()))
        )

    def replay(self) -> tuple[Tensor, Tensor]:
        """Normalised float32 images [M, C, H, W], and int64 labels [M]; float32 [M, C] if any label is soft.

        Raises:
            ConfigError: there is nothing in it.
        """
        if not len(self):
            raise ConfigError("the buffer is empty: nothing can be replayed; give it a larger budget")
        return union([decode(block) for block in self.blocks])

    def column(self, name: str) -> Tensor:
        """float32 [N, ...]: one array of all rows, as decoded from storage (logits beside images)."""
        return torch.cat([decode(block).arrays[name] for block in self.blocks])

    @property
    def steps_M(self) -> Tensor:
        """int64 [M]: the step that every replayed image came from."""
        return torch.cat([block.decoder.expand(block.step_N) for block in self.blocks])

    @property
    def labels_N(self) -> Tensor:
        """int64 [N]: the class of every stored row."""
        return torch.cat([block.label_N for block in self.blocks] or [torch.zeros(0, dtype=torch.int64)])


def chosen(data: LabeledSet, spec: InputSpec, method: str, **rows: Tensor) -> Summary:
    """Real images that were chosen, as a summary of their pixels; `rows` are kept beside them, float32 [N, ...]."""
    return Summary(
        arrays={"images": data.inputs.cpu(), **rows},
        targets=data.labels_N.cpu(),
        num_source_C=data.counts_C.cpu(),
        inputs=spec,
        decoder=Pixels(),
        method=method,
        extra_rows=tuple(rows),
        origin=data.origin,
    )
