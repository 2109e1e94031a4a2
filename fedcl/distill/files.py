"""Summary files: a blob as safetensors, all that is needed to train on it elsewhere, and nothing that runs.

Tensors and metadata (each value JSON) are those of `fedcl/distill/blobs.py`; "recipe" says how to train on it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcl.core.tensor_files import as_data_error, read_tensors, write_tensors
from fedcl.core.types import Summary
from fedcl.distill.blobs import Blob, decode, encode

FORMAT = "fedcl summary 1"


def save_summary(summary: Summary, path: Path, recipe: Mapping[str, Any] | None = None) -> None:
    """Write one summary, exactly; `recipe` says in plain values how a network is trained on it."""
    blob = encode(summary)
    plain = json.loads(json.dumps(dict(recipe or {}), default=str))
    write_tensors(path, FORMAT, blob.tensors, {**blob.meta, "recipe": plain})


def load_summary(path: str | Path) -> Summary:
    """Read one summary, of this version or of 0.1.0. What is returned decodes to finite images, one for each target.

    Raises:
        DataError: the file is missing, is no summary, or contradicts itself.
    """
    path = Path(path)
    tensors, about = read_tensors(path, FORMAT)
    with as_data_error(f"{path} is damaged; make it again"):
        summary = decode(Blob(tensors=tensors, meta=about))
        summary.check()
        return summary
