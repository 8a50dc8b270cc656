"""Erase everything of one recording from a store."""

from __future__ import annotations

import os

from aupipe.errors import BusyError, DamageError
from aupipe.store import fs
from aupipe.store.keys import recording_key
from aupipe.store.links import refuse_linked_items
from aupipe.store.local import LocalStore
from aupipe.store.log.journal import blank_lines, damaged_lines
from aupipe.store.log.line import decode_line
from aupipe.store.maintenance.gc import forget, sweep
from aupipe.store.maintenance.inventory import feature_folders, paths_in, refuse_links, refuse_writers
from aupipe.store.maintenance.verify import lost_journals
from aupipe.store.run_log import FOLDER as RUN_LOGS
from aupipe.store.run_log import erase, run_logs

INDEX_FILES = ("index__", "catalogue__")  # what the names of index files in quarantine begin with


def purge(store: LocalStore, recording: str) -> int:
    """Erase a recording: its items in every revision, its lines in journals, index files and the logs of runs, its
    files in quarantine.

    Returns how many items were removed. No file of the store keeps anything of it, its name included, except where the
    name is part of another one: purge ``video2_left`` and ``video2_right`` together with ``video2``. What cannot be
    attributed is erased too: everything in ``tmp/``, whatever its age, damaged journal lines in quarantine, and in the
    logs of runs errors and why machines refused.

    Run it while no process writes. Raises BusyError, and erases nothing, when one of this machine does, and at the
    end when one wrote of the recording meanwhile, or when `gc` runs: then purge again. Raises DamageError, and erases
    nothing, when a journal was lost or is damaged, or when there is a link in the store, which may lead to another
    store.
    """
    refuse_links(store)
    logs = run_logs(store.root)
    refuse_linked_items([store.folder.journals, os.path.join(store.root, RUN_LOGS), *logs])  # blanked in place
    features = feature_folders(store)
    refuse_linked_items(_items(store, recording, features))
    if lost := lost_journals(store):
        raise DamageError(f"{lost[0]}: `aupipe store verify --repair`, then purge again")
    journals = [path for path in paths_in(store.folder.journals) if path.endswith(".jsonl")]
    for path in journals:  # a damaged line may hold a part of the name
        for number in damaged_lines(path):
            raise DamageError(f"{path} line {number} is damaged: `aupipe store verify --repair`, then purge again")
    refuse_writers(store, "purge again")
    sweep(store)
    for path in paths_in(store.folder.staging):
        fs.remove(path)
    blank_lines(journals, lambda line: _is_of(line, recording))
    for path in logs:
        erase(path, recording)
    forget(store, recording)
    items = _items(store, recording, features)
    for path in items:
        fs.remove(path)
    for path in paths_in(store.folder.quarantine):
        if _may_hold(path, recording):
            fs.remove(path)
    store.reload()
    if any(store.record(recording, feature) is not None for feature in features):
        raise BusyError(f"{store.path}: {recording!r} was published during the purge: stop the run, purge again")
    return len(items)


def _items(store: LocalStore, recording: str, features: list[str]) -> list[str]:
    return [path for feature in features for path in store.revision_paths(recording, feature)]


def _may_hold(path: str, recording: str) -> bool:
    """Whether something in quarantine is of a recording, or is an index file or a part of a journal, which may."""
    name = os.path.basename(path)
    return f"{recording_key(recording)}." in name or name.startswith(INDEX_FILES) or ".jsonl." in name


def _is_of(line: bytes, recording: str) -> bool:
    decoded = decode_line(line, "")
    return decoded is not None and decoded.record.recording == recording
