"""Export of summaries to other programs: a picture, a numpy file, a torch data set."""

from pathlib import Path

import numpy as np
from torch.utils.data import TensorDataset

from fedcl.core.errors import ConfigError
from fedcl.core.types import Summary
from fedcl.runs.pictures import draw_summaries, labels_of


def export_summary(summary: Summary, path: str | Path) -> Path:
    """Write a decoded summary; the suffix says how.

    .png: a picture, one row a class. .npz: `images` uint8 [M, C, H, W], `labels` int64 [M], the likeliest class where
    labels are soft, and then `targets` float32 [M, num_classes], too. Of a table: `rows` float32 [M, D] in the units
    of its columns, in place of images.

    Raises:
        ConfigError: the suffix is neither, or a picture is asked of a table.
    """
    path = Path(path)
    if path.suffix not in (".png", ".npz"):
        raise ConfigError(f"{path} says no format: name the file .png or .npz; fedcl.torch_dataset gives tensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        if draw_summaries([summary], path) is None:
            raise ConfigError(f"rows of a table make no picture; name {path.stem}.npz")
        return path
    inputs, targets = summary.decode()
    own = summary.inputs.invert(inputs.detach().cpu())
    arrays = {"images": (own.clamp(0, 1) * 255).round().byte()} if summary.inputs.is_image else {"rows": own}
    arrays["labels"] = labels_of(summary)
    if summary.is_soft:
        arrays["targets"] = targets.detach().cpu()
    np.savez(path, **{name: tensor.numpy() for name, tensor in arrays.items()})  # type: ignore[arg-type]
    return path


def torch_dataset(summary: Summary) -> TensorDataset:
    """Pairs (float32 [C, H, W] as a network takes it, target): int64 classes, or float32 [num_classes] soft labels."""
    images, targets = summary.decode()
    return TensorDataset(images.detach(), targets.detach())
