"""Whether a project can run as it is configured: data set, weights, store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from aupipe.config import Config
from aupipe.dataset import open_dataset
from aupipe.dataset_model import Dataset
from aupipe.doctor import Finding
from aupipe.errors import AupipeError, NoStoreError
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.weights import is_random
from aupipe.quantities import counted
from aupipe.store import open_store
from aupipe.types import Recording

MANY_JOURNALS = 500  # one of each process that has written; each is read at the start of every other


def examine_project(config: Config) -> Iterator[Finding]:
    """Findings of a configuration; where there is no file of it, of the store only."""
    if config.file is None:
        remedy = "run `aupipe init` in the folder that holds your videos"
        yield Finding("WARN", "configuration", "no aupipe.toml in this folder or above", remedy)
    else:
        yield Finding("PASS", "configuration", str(config.file))
        try:
            dataset = open_dataset(config.dataset)
        except AupipeError as error:
            yield Finding("FAIL", "data set", str(error), "correct [dataset]")
        else:
            try:
                found = _examine_dataset(dataset)
            except AupipeError as error:  # a table of labels is read when it is asked for
                found = Finding("FAIL", "label sets", str(error), "correct the table, or its [[task]]")
            yield found
            yield from _examine_encoders(config, dataset.recordings[0])
    yield from _examine_store(config)


def _examine_dataset(dataset: Dataset) -> Finding:
    videos = {recording.video_id for recording in dataset.recordings}
    labelled = {task: len(tracks) for task, tracks in dataset.annotations.items() if tracks}
    found = f"{counted(len(dataset.recordings), 'recording')} of {counted(len(videos), 'video')}"
    labels = ", ".join(f"{count} annotated for {task}" for task, count in labelled.items())
    return Finding("PASS", "data set", f"{found}; {labels}" if labels else found)


def _examine_encoders(config: Config, recording: Recording) -> Iterator[Finding]:
    for encoder in config.encoders:
        subject = f"[[encoder]] {encoder.name}"
        try:
            graph = build_feature_set(config, [], [encoder.name]).graph(recording)
        except AupipeError as error:  # which says what to do
            yield Finding("FAIL", subject, str(error))
            continue
        weights = [spec.weights.name for spec, _ in graph.encoders if spec.weights is not None]
        found = f"{encoder.kind}, weights {weights[0]}" if weights else f"{encoder.kind}, no weights needed"
        if weights and is_random(str(encoder.params.get("weights", ""))):
            yield Finding("WARN", subject, found, "its features have no meaning: name a checkpoint")
        else:
            yield Finding("PASS", subject, found)


def _examine_store(config: Config) -> Iterator[Finding]:
    path = config.store.path
    try:
        store = open_store(path)
    except NoStoreError:
        yield Finding("PASS", "store", f"none yet at {path}: `aupipe extract` creates it")
        return
    except (AupipeError, OSError) as error:
        yield Finding("FAIL", "store", str(error), "aupipe store verify --repair")
        return
    with store:
        try:
            store.check_writable()
        except OSError as error:
            yield Finding("FAIL", "store", f"{path} cannot be written: {error}", "look at its owner and permissions")
            return
        states = Counter(record.state for record in store.records())
        damaged = sum(1 for _ in store.damaged())
    items = counted(states["done"], "item")
    found = f"{path} ({store.backend}): {items}, {states['failed']} failed, {damaged} of damaged media"
    journals = sum(1 for _ in (path / "journal").glob("*.jsonl"))
    if journals > MANY_JOURNALS:
        yield Finding("WARN", "store", f"{found}; {journals} journals", "aupipe store gc merges them")
    elif states["failed"]:
        yield Finding("WARN", "store", found, "aupipe status --failed")
    else:
        yield Finding("PASS", "store", found)
