"""Export as shards that WebDataset reads: tar files with a sample per recording."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from aupipe.store.aligned import stored_items
from aupipe.store.keys import name_as_text, recording_key
from aupipe.store.view import FeatureView

SHARD_BYTES = 1_000_000_000  # after which a new shard is begun; a sample is never divided


def write_shards(
    folder: str, views: Sequence[FeatureView], names: Mapping[str, str], recordings: Sequence[str]
) -> None:
    """Write ``shard-000000.tar`` and so on. A sample has the members

    - ``json``: ``recording``, and for each feature its id and the names of its columns;
    - ``<feature>.npy``: its rows (T, ...), and ``<feature>.valid.npy`` (T,);
    - ``time_s.npy`` (T,), where the times are known.

    ``names``: feature id -> name in the files. A feature that a recording does not have is
    left out of its sample. The same rows give the same bytes.
    """
    left = deque(recordings)
    for number in count():
        if not left:
            return
        with tarfile.open(os.path.join(folder, f"shard-{number:06}.tar"), "w", format=tarfile.GNU_FORMAT) as shard:
            written = 0
            while left and written < SHARD_BYTES:
                written += _add_sample(shard, views, names, left.popleft())


def _add_sample(shard: tarfile.TarFile, views: Sequence[FeatureView], names: Mapping[str, str], recording: str) -> int:
    """Add the members of a recording to a shard. Returns their bytes."""
    key = recording_key(recording).replace(".", "_")  # WebDataset's key ends at the first dot
    members = _sample(views, names, recording)
    for member, content in members.items():
        about = tarfile.TarInfo(f"{key}.{member}")
        about.size, about.mode = len(content), 0o600
        shard.addfile(about, io.BytesIO(content))
    return sum(map(len, members.values()))


def _sample(views: Sequence[FeatureView], names: Mapping[str, str], recording: str) -> dict[str, bytes]:
    """Member -> its bytes."""
    items = {names[item.spec.id]: item for item in stored_items(views, recording) if item is not None}
    about = {name: {"id": item.spec.id, "columns": list(item.spec.columns)} for name, item in items.items()}
    members = {"json": json.dumps({"recording": name_as_text(recording), "features": about}).encode()}
    for name, item in items.items():
        members[f"{name}.npy"] = _npy(item.to_numpy())
        members[f"{name}.valid.npy"] = _npy(item.valid)
    times = next((times for item in items.values() if (times := item.known_times()) is not None), None)
    return members if times is None else members | {"time_s.npy": _npy(times)}


def _npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()
