"""Erase everything of one recording from a store."""

from __future__ import annotations

import json
import os

from aupipe.errors import AupipeError, DamageError
from aupipe.store import fs
from aupipe.store.keys import recording_key
from aupipe.store.links import refuse_linked_items
from aupipe.store.local import LocalStore
from aupipe.store.log.journal import blank_lines, decode_line
from aupipe.store.maintenance.gc import forget, sweep
from aupipe.store.maintenance.inventory import feature_folders, names_in, refuse_links
from aupipe.store.maintenance.verify import lost_journals


def purge(store: LocalStore, recording: str) -> int:
    """Erase a recording: its items in every revision, its lines in journals and index files, its files in quarantine.

    Returns how many items were removed. No file of the store keeps anything of it, its name included, except where the
    name is part of another one: purge ``video2_left`` and ``video2_right`` together with ``video2``. Run it while no
    process writes.

    Raises AupipeError when a process wrote of the recording meanwhile. Raises DamageError, and erases nothing, when a
    journal was lost or when there is a link in the store, which may lead to another store.
    """
    refuse_links(store)
    refuse_linked_items([store.folder.journals])  # lines are blanked in place
    features = feature_folders(store)
    refuse_linked_items(_items(store, recording, features))
    if lost := lost_journals(store):
        raise DamageError(f"{lost[0]}: `aupipe store verify --repair`, then purge again")
    sweep(store)
    journals = [path for path in _files(store.folder.journals) if path.endswith(".jsonl")]
    blank_lines(journals, lambda line: _is_of(line, recording))
    forget(store, recording)
    items = _items(store, recording, features)
    for path in items:
        fs.remove(path)
    for path in _files(store.folder.quarantine):
        if f"{recording_key(recording)}." in os.path.basename(path):
            fs.remove(path)
        elif path.rpartition(".")[0].endswith(".jsonl") and not os.path.islink(path):
            blank_lines([path], lambda line: _is_of(line, recording))
    store.reload()
    if any(store.record(recording, feature) is not None for feature in features):
        raise AupipeError(f"{store.path}: {recording!r} was published during the purge: stop the run, purge again")
    return len(items)


def _items(store: LocalStore, recording: str, features: list[str]) -> list[str]:
    return [path for feature in features for path in store.revision_paths(recording, feature)]


def _files(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in names_in(folder)]


def _is_of(line: bytes, recording: str) -> bool:
    """Whether a journal line is of this recording; a damaged one is when its text holds the name."""
    decoded = decode_line(line, "")
    if decoded is not None:
        return decoded.record.recording == recording
    return json.dumps(recording).encode() in line
