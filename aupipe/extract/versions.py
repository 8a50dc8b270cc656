"""Which libraries made the numbers, for each item's record."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    "aupipe", "torch", "opencv-python-headless", "av", "librosa", "timm", "facenet-pytorch", "numpy", "onnxruntime"
)  # fmt: skip


def library_versions() -> dict[str, str]:
    """The versions of those that are installed here; to be asked in the process that computes."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
