"""Batches on the device: in memory or streamed, they equal what `collate` makes, to the last bit."""

import gc
import re
import sys
import threading
import time
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aupipe.train.context import Context
from aupipe.train.data import Example, Scaling, fit_scaling, load_examples
from aupipe.train.loader import InMemory, Streaming, bytes_in_memory, free_bytes, open_loader, plan_gathers
from aupipe.train.prefetch import PREFETCH, THREAD_NAME, prefetched
from aupipe.train.recipe import load_recipe
from aupipe.train.run import load_weights
from aupipe.train.windows import tile, with_context
from aupipe.types import FeatureSpec
from tests.train.reference_batch import collate

from .toy_corpus import CLOCK, make_corpus, train_corpus

SMALL = ("window=32", "hop=20", "batch=4", "head.width=8", "head.channels=[8]", "epochs=2")


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(train=4, validation=2, frames=90)


@pytest.fixture(scope="module")
def examples(corpus):
    return load_examples(corpus.store, corpus.train, corpus.features, corpus.labels)


@pytest.mark.parametrize("kind", [InMemory, Streaming])
@pytest.mark.parametrize(("center", "frames"), [(0.0, 2048), (0.5, 1), (0.0, 150)])
def test_a_loader_gives_what_collate_makes_in_the_order_asked_for(examples, kind, center, frames, monkeypatch):
    monkeypatch.setattr("aupipe.train.loader.GATHER_FRAMES", frames)
    scaling = fit_scaling(examples, center)
    windows = [window for item in examples for window in tile(item.recording, len(item), 40, 25, 7)]
    windows = [windows[i] for i in np.random.default_rng(0).permutation(len(windows))]
    assert len({len(window) for window in windows}) > 2  # padding occurs
    chunks = [windows[at : at + 3] for at in range(0, len(windows), 3)]
    by_id = {item.recording: item for item in examples}
    made = list(kind(examples, scaling, "cpu").batches(chunks))
    assert len(made) == len(chunks) > 3
    for batch, chunk in zip(made, chunks, strict=True):
        wanted = collate(by_id, chunk, scaling)
        for name in ("x", "mask", "targets", "valid"):
            assert np.array_equal(getattr(batch, name).numpy(), getattr(wanted, name)), name


MAPS = FeatureSpec("maps", "visual", "toy-maps", 1, dtype="float16", inputs={"clock": CLOCK.id})
WIDE = FeatureSpec("wide", "audio", "toy-wide", 1, dtype="float64", inputs={"clock": CLOCK.id})


@pytest.fixture(scope="module")
def mixed() -> list[Example]:
    """Recordings of features of three dtypes, one of them a map, with gaps, and one that is never there."""
    corpus = make_corpus(train=4, validation=0, frames=60)
    rng = np.random.default_rng(5)
    for number, recording in enumerate(corpus.train):
        size = len(corpus.labels[recording.id])
        maps = (100 * rng.normal(size=(size, 2, 3))).astype(np.float16)
        maps[rng.random(size) < (1.0 if number == 3 else 0.2)] = np.nan
        corpus.store.publish(recording.id, MAPS, maps)
        if number != 1:
            corpus.store.publish(recording.video_id, WIDE, 1e3 + rng.normal(size=(size, 5)))
    features = corpus.features | {"maps": MAPS.id, "wide": WIDE.id}
    return load_examples(corpus.store, corpus.train, features, corpus.labels)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("absent", ["zero", "nearest"])
@pytest.mark.parametrize("center", [0.0, 0.5])
def test_streamed_blocks_are_standardised_to_the_last_bit_as_rows_of_the_host_are(mixed, absent, center, device):
    if center:
        orders = [None] * len(mixed[0].arrays)
        orders[mixed[0].dims.index(6)] = np.array([2, 1, 0, 5, 4, 3])  # of the maps
        mixed = [replace(one, mirrored=tuple(orders)) for one in mixed]
    scaling = replace(fit_scaling(mixed, center, frozenset({3})), clip=2.0, absent=absent)
    windows = [w for one in mixed for w in with_context(tile(one.recording, len(one), 20, 15, 4), Context(3, 5), one)]
    windows = [windows[i] for i in np.random.default_rng(0).permutation(len(windows))]
    chunks = [windows[at : at + 3] for at in range(0, len(windows), 3)]
    by_id = {item.recording: item for item in mixed}
    made = list(Streaming(mixed, scaling, device, timed=True).batches(chunks))
    assert len(made) == len(chunks)
    for batch, chunk in zip(made, chunks, strict=True):
        wanted = collate(by_id, chunk, scaling, timed=True)
        for name in vars(wanted).keys() - {"raw"}:
            np.testing.assert_array_equal(getattr(batch, name).cpu().numpy(), getattr(wanted, name), err_msg=name)
        for found, own in zip(batch.raw, wanted.raw, strict=True):
            np.testing.assert_array_equal(found.cpu().numpy(), own)


def test_streamed_blocks_know_everything_that_decides_a_standardised_row():
    """`aupipe.train.blocks` does on the device what `aupipe.train.batch.fill` does: a new field belongs in both."""
    known = {"mean", "std", "center", "clip", "absent", "unscaled"}
    assert {field.name for field in fields(Scaling)} == known
    known = {"recording", "arrays", "present", "face_found", "labels", "surplus", "aux_labels", "mirrored"}
    assert {field.name for field in fields(Example)} == known


def test_the_benchmark_of_the_loaders_runs(monkeypatch, capsys):
    import train as benchmark

    small = "--recordings 3 --frames 90 --dim 8 --window 16 --batch 4 --turns 1 --heads linear --device cpu"
    monkeypatch.setattr(sys, "argv", ["train.py", *small.split()])
    benchmark.main()
    assert re.search(r"^linear +0\.\d{3}", capsys.readouterr().out, re.MULTILINE)


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=4), max_size=30), st.integers(1, 200))
def test_small_batches_are_gathered_together_and_never_padded_beyond_their_longest_window(lengths, most):
    sizes = np.array([size for batch in lengths for size in batch], dtype=int)
    gathers = list(plan_gathers(1000 + np.arange(len(sizes)), sizes, [len(batch) for batch in lengths], most))
    given_back, place = [], 0
    for gather in gathers:
        np.testing.assert_array_equal(gather.starts, 1000 + place + np.arange(len(gather.sizes)))
        place += len(gather.sizes)
        batches = np.split(gather.sizes, np.cumsum(gather.counts)[:-1])
        assert len({max(batch) for batch in batches}) == 1
        assert sum(map(sum, batches[:-1])) < most
        given_back += [batch.tolist() for batch in batches]
    assert given_back == lengths


def test_examples_without_labels_are_loaded_too(corpus):
    examples = load_examples(corpus.store, corpus.train, corpus.features)
    scaling = fit_scaling(examples)
    chunk = tile(examples[0].recording, len(examples[0]), 40, 40)
    for loader in (InMemory(examples, scaling, "cpu"), Streaming(examples, scaling, "cpu")):
        assert next(iter(loader.batches([chunk]))).targets.shape[2] == 0


def test_what_exceeds_the_memory_limit_is_streamed(examples):
    scaling = fit_scaling(examples)
    size = bytes_in_memory(examples)
    assert size == sum(
        part.nbytes for part in vars(InMemory(examples, scaling, "cpu")).values() if hasattr(part, "nbytes")
    )
    assert isinstance(open_loader(examples, scaling, memory_limit=size), InMemory)
    assert isinstance(open_loader(examples, scaling, memory_limit=size - 1), Streaming)
    assert 0 < free_bytes("cpu") < 1 << 50


def test_streaming_trains_to_exactly_the_weights_of_a_data_set_in_memory(corpus, tmp_path):
    runs = [
        train_corpus(corpus, tmp_path / str(memory_limit), load_recipe("tcn", SMALL), memory_limit=memory_limit)
        for memory_limit in (None, 0)
    ]
    weights = [load_weights(run)[0] for run in runs]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_recording_that_cannot_be_read_stops_the_loader_with_its_own_error(examples):
    scaling = fit_scaling(examples)
    loader = Streaming(examples[:1], scaling, "cpu")
    with pytest.raises(KeyError, match=examples[1].recording):
        list(loader.batches([tile(item.recording, len(item), 40, 40) for item in examples[:2]]))


@pytest.mark.parametrize("kind", [InMemory, Streaming])
def test_a_loader_prefetches_a_little_and_stops_when_it_is_closed(examples, kind, monkeypatch):
    monkeypatch.setattr("aupipe.train.loader.GATHER_FRAMES", 1)  # one gather per chunk
    loader, made = kind(examples, fit_scaling(examples), "cpu"), []
    name = "_gather" if kind is InMemory else "_make"
    make = getattr(loader, name)
    monkeypatch.setattr(loader, name, lambda chunk: made.append(chunk) or make(chunk))
    chunks = [[window] for item in examples for window in tile(item.recording, len(item), 10, 10)]
    before = {thread for thread in threading.enumerate() if thread.name == THREAD_NAME}
    batches = loader.batches(chunks)
    for taken in range(1, 4):
        next(batches)
        time.sleep(0.05)
        assert taken <= len(made) <= taken + PREFETCH
    del batches
    gc.collect()
    assert len(made) < len(chunks)
    assert before >= {thread for thread in threading.enumerate() if thread.name == THREAD_NAME}


def test_deterministic_refuses_operations_without_a_deterministic_implementation(corpus, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on, warn_only=False: seen.append((on, warn_only)))
    for strict in (False, True):
        train_corpus(corpus, tmp_path / str(strict), load_recipe("baseline", ["epochs=1"]), deterministic=strict)
    assert [entry for entry in seen if entry[0]] == [(True, True), (True, False)]


@pytest.mark.slow
def test_a_compiled_head_trains_to_nearly_the_same_scores(corpus, tmp_path):
    """Without dropout, whose masks a compiled head draws in its own way."""
    calm = (*SMALL, "head.dropout=0.0", "head.input_dropout=0.0")
    runs = [
        train_corpus(corpus, tmp_path / str(compiled), load_recipe("tcn", calm), compiled=compiled)
        for compiled in (False, True)
    ]
    losses = [[epoch.loss for epoch in run.history] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("moment", ["while its thread is started", "while a batch is awaited", "between batches"])
def test_an_interrupt_leaves_no_thread_running(monkeypatch, moment):
    """A thread that computes while the interpreter ends takes the process down with it."""
    made = threading.Event()

    def make(chunk):
        made.set()
        time.sleep(0.01)
        return chunk

    begin = threading.Thread.start

    def interrupted(thread):
        begin(thread)
        made.wait(5)
        raise KeyboardInterrupt

    if moment == "while its thread is started":
        monkeypatch.setattr(threading.Thread, "start", interrupted)
    batches = prefetched(make, range(1000))
    if moment == "while a batch is awaited":
        next(batches)
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    elif moment == "between batches":
        next(batches)
        batches.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]
