"""A checkpoint as training scripts write it, and as extraction reads it."""

from __future__ import annotations

from pathlib import Path

import torch

from aupipe.extract.weights import imported_name
from aupipe.extract.weights.folder import import_weights


def save_checkpoint(content: object, path: Path) -> Path:
    """Pickle what a checkpoint holds to ``path``, and import it into the same folder, in place of an earlier one."""
    torch.save(content, path)
    (path.parent / imported_name(path)).unlink(missing_ok=True)
    import_weights(path, folder=path.parent)
    return path
