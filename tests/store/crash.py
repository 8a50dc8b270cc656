"""A small extraction, run in a process of its own so that it can be killed: ``python crash.py PATH BACKEND [SEED]``."""

import sys

import numpy as np

from aupipe.store import create_store
from aupipe.types import FeatureSpec, SourceIdentity

SPECS = [
    FeatureSpec("hog", "visual", "hog", 1),
    FeatureSpec("clock", "clock", "pts", 1, dtype="float64"),
]
RECORDINGS = ["a/clip 1.mp4", "b.mp4"]
SOURCE = SourceIdentity(7, 8, "cd" * 32)


def rows_of(recording, spec, seed=0):
    """What an encoder computes: always the same."""
    number = RECORDINGS.index(recording) + seed
    rows = np.random.default_rng(number).standard_normal((300 + number, *((5,) if spec.modality == "visual" else ())))
    rows[3] = np.nan
    return rows.astype(spec.dtype)


def extract(path, backend, seed=0):
    """Publish whatever is not published yet, as a run of `aupipe extract` does, and another revision of one item."""
    with create_store(path, backend) as store:
        for spec in SPECS:
            for recording in RECORDINGS:
                record = store.record(recording, spec.id)
                if record is not None and record.state == "done":
                    continue
                rows = rows_of(recording, spec, seed)
                with store.writer(
                    recording, spec, frames=len(rows), row_shape=rows.shape[1:], source=SOURCE, versions={"numpy": "2"}
                ) as item:
                    item.append(rows[:120])
                    item.append(rows[120:])
                    item.commit()
        replaced, rows = RECORDINGS[0], rows_of(RECORDINGS[0], SPECS[0], seed=9)
        if store.published(replaced, SPECS[0].id).frames != len(rows):
            store.publish(replaced, SPECS[0], rows, source=SOURCE)
        if store.record("deleted", SPECS[0].id) is None:
            store.publish("deleted", SPECS[0], rows)
        if store.record("deleted", SPECS[0].id).state == "done":
            store.delete("deleted", SPECS[0].id)


if __name__ == "__main__":
    extract(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
