"""What a machine checks before it takes part in a run: a machine that would compute something else refuses by name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from aupipe.errors import AupipeError
from aupipe.extract.executors.cluster.messages import Order, WorkOrder
from aupipe.extract.executors.devices import choose_devices
from aupipe.extract.planning.features import FeatureSet
from aupipe.extract.planning.plan import Job, source_paths
from aupipe.extract.versions import library_versions, versions_of


def versions_for(features: FeatureSet) -> dict[str, str]:
    """The versions of all libraries that the features of a run pass through, here."""
    parts = [features.detector, *(encoder for _, encoder in features.encoders)]
    found = library_versions()
    for part in parts:
        if part is not None:
            found |= versions_of(part)
    return found


def weights_for(features: FeatureSet) -> dict[str, str]:
    """The SHA-256 of the weights of a run's detector and encoders, by name. Raises WeightsMissingError."""
    parts = [("detector", features.detector), *((config.name, encoder) for config, encoder in features.encoders)]
    found = {name: part.identify_weights() for name, part in parts if part is not None}
    return {name: weights.sha256 for name, weights in found.items() if weights is not None}


def refuse_unfit(order: Order) -> list[str]:
    """The torch devices this machine works on. Raises AupipeError where it would not do what the run asks for."""
    _refuse_other_versions(order.versions, versions_for(order.features))
    if order.store:
        _refuse_other_store(order)
    _refuse_other_weights(order.weights, weights_for(order.features))
    return choose_devices(order.gpu, order.cpu)


def _refuse_other_versions(wanted: Mapping[str, str], here: Mapping[str, str]) -> None:
    other = [
        f"{name} {here.get(name, 'missing')}, not {wanted[name]}" for name in wanted if here.get(name) != wanted[name]
    ]
    if other:
        raise AupipeError(f"other library versions than where the run was started: {'; '.join(other)}")


def _refuse_other_store(order: Order) -> None:
    if not os.path.isdir(order.store):
        raise AupipeError(f"{order.store}: the store is not there; is its file system mounted?")
    if not os.path.exists(order.mark):
        raise AupipeError(f"{order.store}: not the store of this run, but another folder at the same path")


def _refuse_other_weights(wanted: Mapping[str, str], here: Mapping[str, str]) -> None:
    other = [name for name in wanted if here.get(name) != wanted[name]]
    if other:
        raise AupipeError(f"other weights than where the run was started: {', '.join(other)}")


def work_content(order: WorkOrder) -> bytes:
    """The pickled work. Raises AupipeError where this machine cannot see the folder of its results, or write there."""
    if not order.file:
        return order.content
    path = Path(order.file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AupipeError(
            f"{path.parent}: not the folder that the run writes ({error.strerror}); is its file system mounted?"
        ) from error
    if hashlib.sha256(content).hexdigest() != order.sha256:
        raise AupipeError(f"{path}: not what the run has written there")
    if not os.access(path.parent, os.W_OK):
        raise AupipeError(f"{path.parent}: this machine cannot write there")
    return content


def gpus(devices: Sequence[str]) -> tuple[str, ...]:
    """Names that no two GPUs have, of those among some torch devices."""
    on_gpu = [name for name in devices if name != "cpu"]
    if not on_gpu:
        return ()
    import torch

    return tuple(str(torch.cuda.get_device_properties(name).uuid) for name in on_gpu)


def unseen(job: Job, size_bytes: int) -> str:
    """Why this machine does not see a job's video as the run does, in one line; empty where it does.

    ``size_bytes`` below 0: the run does not see it either, and it fails by name. A job may read no video.
    """
    if size_bytes < 0 or not job.recordings:
        return ""
    recording = job.recordings[0]
    paths: Sequence[os.PathLike[str]] = source_paths(recording, "clock")
    for path in paths:
        try:
            found = os.stat(path)
        except OSError as error:
            return f"{path}: {error.strerror}"
        if recording.video is not None and found.st_size != size_bytes:
            return f"{path}: {found.st_size:,} bytes, not {size_bytes:,}"
    return ""
