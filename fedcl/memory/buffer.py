"""Memory of a continual learner: summaries as blobs, under a budget in images per class, in images, or in bytes.

A buffer is a value: `add` gives a new one that is never over its budget, `replay` gives images and targets.
What is replayed was decoded from storage, so that coarse storage costs accuracy where it saves bytes.

Legend: N stored rows (images; a decoder may make several of one), M decoded images.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedcl.core.errors import ConfigError
from fedcl.core.inputs import InputSpec
from fedcl.core.types import LabeledSet, Origin, Summary, union
from fedcl.distill.blobs import Blob, decode, encode
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.memory.budget import Budget, positions

# Beside each row: its class (the likeliest, where labels are soft), the step that it came at, and its rank; within its
# group the row of lowest rank stays longest.
COLUMNS = {"label_N": torch.int64, "step_N": torch.int64, "rank_N": torch.float64}
MOST = 2**62  # what tensors can be compared with


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """Contents of a memory. Never over its budget."""

    budget: Budget
    blocks: tuple[Blob, ...] = ()  # each of rows that are stored in the same way, with the columns above

    def __len__(self) -> int:
        """Stored rows."""
        return sum(len(block) for block in self.blocks)

    @property
    def num_bytes(self) -> int:
        return sum(block.num_bytes for block in self.blocks)

    @property
    def num_images(self) -> int:
        """Decoded images."""
        return sum(len(block.decoder.expand(block.tensors["row.label_N"])) for block in self.blocks)

    @property
    def memory(self) -> dict[str, int]:
        """The record's `memory` part."""
        return {"bytes": self.num_bytes, "images": self.num_images, "stored_images": len(self)}

    def add(self, summary: Summary, rank_N: Tensor | None = None) -> "Buffer":
        """A buffer with this summary's rows; whatever is over the budget is dropped, old rows and new alike.

        Args:
            rank_N: a number a stored row; of each group those of lowest rank stay. None: the row's position within
                its class. Uniform random ranks make the buffer a reservoir, a uniform sample of all that was added.
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
        new = replace(blob, tensors={**blob.tensors, **columns})
        for index, block in enumerate(self.blocks):
            if (joined := block.join(new)) is not None:
                blocks = (*self.blocks[:index], joined, *self.blocks[index + 1 :])
                break
        else:
            blocks = (*self.blocks, new)
        return replace(self, blocks=blocks)._within_budget()

    def _within_budget(self) -> "Buffer":
        keep = self._kept().split([len(block) for block in self.blocks])
        found = [(block, torch.nonzero(keep_N)[:, 0]) for block, keep_N in zip(self.blocks, keep, strict=True)]
        return replace(self, blocks=tuple(block.select(rows_N) for block, rows_N in found if len(rows_N)))

    def _kept(self) -> Tensor:
        """bool [N]: rows that stay. Groups have equal shares; what a small one leaves goes to the others."""
        budget, label_N, step_N = self.budget, self.labels_N, self.rows("step_N")
        group_N = {"classes": label_N, "steps": step_N, "none": torch.zeros_like(label_N)}[budget.balance]
        ranked = lexsort(self.rows("rank_N"), label_N, step_N)
        place_N = torch.empty_like(label_N)
        place_N[ranked] = positions(group_N[ranked])
        rows_per_image = max(block.decoder.num_initial(1) for block in self.blocks)
        if budget.ipc is not None and budget.balance != "none":
            return place_N < min(budget.ipc * rows_per_image, MOST)
        # The first row of each group, then the second of each, and so on, as long as the budget lasts.
        order = lexsort(place_N, group_N)
        if budget.bytes is None:
            cost_N, limit = torch.ones_like(order), budget.room(self.blocks[0].meta["num_classes"], 1) * rows_per_image
        else:  # what the rows of a block share comes with the first of them
            prices = [(len(block), block.row_bytes, block.shared_bytes) for block in self.blocks]
            sizes_B, row_bytes_B, shared_bytes_B = torch.tensor(prices).unbind(1)
            block_N, limit = torch.repeat_interleave(sizes_B)[order], budget.bytes
            cost_N = row_bytes_B[block_N] + shared_bytes_B[block_N] * (positions(block_N) == 0)
        keep_N = torch.zeros(len(order), dtype=torch.bool)
        keep_N[order[torch.cumsum(cost_N, 0) <= min(limit, MOST)]] = True
        return keep_N

    def replay(self) -> tuple[Tensor, Tensor]:
        """Normalised float32 images [M, C, H, W], and int64 labels [M]; float32 [M, C] if any label is soft.

        Raises ConfigError where there is nothing in it.
        """
        if not len(self):
            raise ConfigError("the buffer is empty: nothing can be replayed; give it a larger budget")
        return union([decode(block) for block in self.blocks])

    def column(self, name: str) -> Tensor:
        """float32 [N, ...]: one array of all rows, as decoded from storage (logits beside images)."""
        return torch.cat([decode(block).arrays[name] for block in self.blocks])

    def rows(self, name: str) -> Tensor:
        """[N]: one of `COLUMNS`, of every stored row."""
        columns = [block.tensors[f"row.{name}"] for block in self.blocks]
        return torch.cat(columns) if columns else torch.zeros(0, dtype=COLUMNS[name])

    @property
    def labels_N(self) -> Tensor:
        """int64 [N]: the class of every stored row."""
        return self.rows("label_N")

    @property
    def steps_M(self) -> Tensor:
        """int64 [M]: the step that every replayed image came from."""
        return torch.cat([block.decoder.expand(block.tensors["row.step_N"]) for block in self.blocks])


def lexsort(*keys_N: Tensor) -> Tensor:
    """Row numbers in order of the first key, then the second, ..."""
    return torch.from_numpy(np.lexsort([key_N.numpy() for key_N in reversed(keys_N)]))


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
