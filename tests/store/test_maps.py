"""How many files a process has mapped and open while it reads, whatever the number of recordings."""

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from aupipe.store import create_store, map_cache, open_store
from aupipe.train.data import fit_scaling, load_examples
from aupipe.train.loader import Streaming
from aupipe.train.windows import tile
from aupipe.types import Recording

from .contract import SPEC, WIDE, random_rows, same

MOST = 5


@pytest.fixture
def most(monkeypatch):
    monkeypatch.setattr(map_cache, "MAX_MAPS", MOST)
    monkeypatch.setattr(map_cache, "_maps", map_cache._Maps())  # stores of other tests may still be alive, and count
    return MOST


def mapped(folder: Path) -> int:
    """How many files below a folder this process maps; a map that was advised in parts has a line for each."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split(maxsplit=5)[-1] for line in lines if str(folder) in line})


def fill(path: Path, backend: str, recordings: int):
    store = create_store(path, backend)
    for number in range(recordings):
        store.publish(f"clip{number}", SPEC, random_rows(600, 3, seed=number, invalid=[5]))
        store.publish(f"clip{number}", WIDE, random_rows(600, 9, seed=number, dtype="float32"))
    return store


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_all_stores_of_a_process_map_a_bounded_number_of_files_and_keep_none_open(tmp_path, most, backend):
    fill(tmp_path / "one", backend, 4).close()
    fill(tmp_path / "two", backend, 4).close()
    stores = [open_store(tmp_path / name) for name in ("one", "two")]
    before = len(os.listdir("/proc/self/fd"))
    for number in range(4):
        for store in stores:
            for spec in (SPEC, WIDE):
                out = np.empty_like(store.read(f"clip{number}", spec.id, 200, 500))
                store.read_into(out, f"clip{number}", spec.id, 200)
                assert same(out, store["hog" if spec is SPEC else "swin_t"][f"clip{number}"][200:500])
                assert store[spec.id][f"clip{number}"].valid.sum() == 600 - (spec is SPEC)
                assert mapped(tmp_path) <= most
    assert mapped(tmp_path) == most
    assert len(os.listdir("/proc/self/fd")) == before
    stores[0].close()
    assert 0 < mapped(tmp_path) < most
    del store, stores
    gc.collect()
    assert mapped(tmp_path) == 0


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_threads_read_more_items_than_are_kept_mapped(tmp_path, most, backend):
    fill(tmp_path / "s", backend, 2 * most).close()
    store, errors = open_store(tmp_path / "s"), []

    def work(seed):
        random = np.random.default_rng(seed)
        try:
            for _ in range(1500):
                number, start = int(random.integers(2 * most)), int(random.integers(500))
                assert same(store.read(f"clip{number}", SPEC.id, start, start + 60), rows[number][start : start + 60])
                if random.random() < 0.01:
                    store.close()
        except Exception as error:
            errors.append(error)

    rows = [random_rows(600, 3, seed=number, invalid=[5]) for number in range(2 * most)]
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert mapped(tmp_path) <= most


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_training_maps_no_more_files_the_more_recordings_there_are(tmp_path, most, backend):
    fill(tmp_path / "s", backend, 8).close()
    store = open_store(tmp_path / "s")
    recordings = [Recording(f"clip{number}") for number in range(8)]
    examples = load_examples(store, recordings, {"hog": SPEC.id, "swin_t": WIDE.id})
    assert mapped(tmp_path) <= most
    scaling = fit_scaling(examples, center=0.5)
    assert mapped(tmp_path) <= most
    chunks = [tile(item.recording, len(item), 64, 64) for item in examples]
    for _ in Streaming(examples, scaling, "cpu").batches(chunks):
        assert mapped(tmp_path) <= most + 1  # and the one whose rows are being copied


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_rows_that_are_replaced_while_they_are_mapped_are_not_kept(tmp_path, backend, monkeypatch):
    fill(tmp_path / "s", backend, 1).close()
    store, new = open_store(tmp_path / "s"), random_rows(600, 3, seed=9)
    map_rows = store._map

    def slowly(recording, feature):
        rows = map_rows(recording, feature)
        monkeypatch.setattr(store, "_map", map_rows)
        store.publish("clip0", SPEC, new)  # as another thread does
        return rows

    monkeypatch.setattr(store, "_map", slowly)
    store.read("clip0", SPEC.id)
    assert same(store.read("clip0", SPEC.id), new)


def test_too_many_views_at_once_are_named_as_the_reason(tmp_path, monkeypatch):
    from aupipe.store.formats import mapping

    store = fill(tmp_path / "s", "hdf5", 1)
    monkeypatch.setattr(mapping._libc, "mmap", lambda *_: mapping._FAILED)
    monkeypatch.setattr(mapping.ctypes, "get_errno", lambda: 12)
    with pytest.raises(OSError, match=r"too many files are mapped.*copy the rows.*clip0-"):
        store.read("clip0", SPEC.id)
