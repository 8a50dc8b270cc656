"""What the store costs, as ratios to the bare file system within one run: ``python benchmarks/store.py [--folder F]``.

Every figure is the median over rounds of (limit / store), each round timing both in turn, so that a busy machine slows
both alike; CPU time for reads, wall time for writes (which wait for the disk). 1.0 is the speed of the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aupipe.config import FacesConfig
from aupipe.extract.faces.tracking import TrackParams
from aupipe.store import ItemRecord, Store, create_store, open_store
from aupipe.store.local import LocalStore
from aupipe.store.log.line import CLOSED_LINE, encode_line
from aupipe.store.maintenance.gc import collect
from aupipe.types import FeatureSpec, Recording, SourceIdentity

DIMS = (1280, 512, 768, 1024)
SPECS = [FeatureSpec(f"d{dim}", "visual", "benchmark", 1, {"dim": dim}) for dim in DIMS]
FRAMES, WINDOW, BATCH = 4500, 300, 32
Clock = Callable[[], float]


def ratio(limit: Callable[[], Any], store: Callable[[], Any], rounds: int, clock: Clock) -> float:
    """Median over rounds of the limit's time over the store's; who goes first alternates."""
    found = []
    for number in range(rounds):
        took = {}
        for run in (limit, store) if number % 2 else (store, limit):
            start = clock()
            run()
            took[run] = clock() - start
        found.append(took[limit] / took[store])
    return statistics.median(found)


def make_corpus(folder: Path, recordings: int) -> list[str]:
    """The same rows as flat files, in a Zarr store and in an HDF5 store."""
    names = [f"clip {number}.mp4" for number in range(recordings)]
    random = np.random.default_rng(0)
    stores = {backend: create_store(folder / backend, backend) for backend in ("zarr", "hdf5")}
    (folder / "flat").mkdir()
    for name in names:
        for spec, dim in zip(SPECS, DIMS, strict=True):
            rows = random.standard_normal((FRAMES, dim), np.float32).astype(np.float16)
            rows.tofile(folder / "flat" / f"{name}.{dim}")
            for store in stores.values():
                store.publish(name, spec, rows)
    return names


def windows(folder: Path, names: list[str], rounds: int) -> dict[str, float]:
    """Random 300-frame windows in batches of 32, warm, one feature and four."""
    flat = {
        (name, dim): np.memmap(folder / "flat" / f"{name}.{dim}", np.float16, "r", shape=(FRAMES, dim))
        for name in names
        for dim in DIMS
    }
    out = {dim: np.empty((BATCH, WINDOW, dim), np.float16) for dim in DIMS}
    random = np.random.default_rng(1)
    draws = [
        [(names[random.integers(len(names))], int(random.integers(FRAMES - WINDOW))) for _ in range(BATCH)]
        for _ in range(8)
    ]

    def bare(dims: tuple[int, ...]) -> None:
        for draw in draws:
            for dim in dims:
                for row, (name, start) in zip(out[dim], draw, strict=True):
                    row[...] = flat[name, dim][start : start + WINDOW]

    found = {}
    for backend in ("zarr", "hdf5"):
        store = open_store(folder / backend)

        def ours(dims: tuple[int, ...], store: Any = store) -> None:
            for draw in draws:
                for spec, dim in zip(SPECS, dims, strict=False):
                    feature = spec.id
                    for row, (name, start) in zip(out[dim], draw, strict=True):
                        store.read_into(row, name, feature, start)

        def views(dims: tuple[int, ...], store: Any = store) -> None:
            for draw in draws:
                for spec, dim in zip(SPECS, dims, strict=False):
                    for row, (name, start) in zip(out[dim], draw, strict=True):
                        row[...] = store.read(name, spec.id, start, start + WINDOW)

        handles = {
            (name, dim): _handle(store, backend, name, spec)
            for name in names
            for spec, dim in zip(SPECS, DIMS, strict=True)
        }

        def plain(dims: tuple[int, ...], handles: Any = handles) -> None:
            for draw in draws[:1]:
                for dim in dims:
                    for row, (name, start) in zip(out[dim], draw, strict=True):
                        row[...] = handles[name, dim][start : start + WINDOW]

        for dims, label in ((DIMS[:1], "one feature"), (DIMS, "four features")):
            limit, into, read, slowly = (partial(run, dims) for run in (bare, ours, views, plain))
            for run in (limit, into, read):  # warm
                run()
            key = f"windows, {label}, {backend}"
            found[f"{key}: read_into"] = ratio(limit, into, rounds, time.process_time)
            found[f"{key}: read"] = ratio(limit, read, rounds, time.process_time)
            label = {"zarr": "zarr-python", "hdf5": "h5py"}[backend]
            slow = ratio(limit, slowly, max(3, rounds // 8), time.process_time)
            found[f"{key}: {label} indexing"] = slow / len(draws)
        for handle in handles.values():
            if backend == "hdf5":
                handle.file.close()
    return found


def _handle(store: Any, backend: str, name: str, spec: FeatureSpec) -> Any:
    import h5py  # here, so that planning is measured without them
    import zarr

    path = store.item_path(store.published(name, spec.id))
    return zarr.open_array(f"{path}/data", mode="r") if backend == "zarr" else h5py.File(path, locking=False)["data"]


def whole_recordings(folder: Path, names: list[str], rounds: int) -> dict[str, float]:
    """Whole 1280-d recordings into an array that is there already."""
    out = np.empty((FRAMES, DIMS[0]), np.float16)
    found = {}
    for backend in ("zarr", "hdf5"):
        store = open_store(folder / backend)

        def bare() -> None:
            for name in names:
                out[...] = np.memmap(folder / "flat" / f"{name}.{DIMS[0]}", np.float16, "r", shape=out.shape)

        def ours(store: Any = store) -> None:
            for name in names:
                store.read_into(out, name, SPECS[0].id)

        bare()
        ours()
        found[f"whole recordings, {backend}"] = ratio(bare, ours, rounds, time.process_time)
    return found


def writing(folder: Path, rounds: int) -> dict[str, float]:
    """Whole items of 4500 x 1280 float16 against `tofile` + fsync of the same bytes, all three in turn.

    Beside the medians the first quartiles are compared: a disk that is busy with others slows one of the three at
    random by far more than they differ.
    """
    rows = np.random.default_rng(2).standard_normal((FRAMES, DIMS[0]), np.float32).astype(np.float16)
    stores = {backend: create_store(folder / f"written-{backend}", backend) for backend in ("zarr", "hdf5")}

    def bare(number: int) -> None:
        with open(folder / f"written.{number}", "wb") as file:
            rows.tofile(file)
            os.fsync(file.fileno())

    def publish(store: Store, number: int) -> None:
        store.publish(f"clip {number}", SPECS[0], rows)

    runs: dict[str, Callable[[int], None]] = {"tofile": bare}
    runs |= {backend: partial(publish, store) for backend, store in stores.items()}
    took: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 3):
        order = list(runs)[number % 3 :] + list(runs)[: number % 3]
        for name in order:
            start = time.perf_counter()
            runs[name](number)
            took[name].append(time.perf_counter() - start)
    found = {}
    for backend in stores:
        label = f"writing items of {rows.nbytes / 1e6:.1f} MB, {backend}"
        pairs = zip(took["tofile"][3:], took[backend][3:], strict=True)  # the first rounds warm up
        found[f"{label}: median"] = statistics.median(limit / ours for limit, ours in pairs)
        quarter, ours = (statistics.quantiles(took[name][3:], n=4)[0] for name in ("tofile", backend))
        found[f"{label}: first quartiles"] = quarter / ours
        shutil.rmtree(folder / f"written-{backend}")
    for file in folder.glob("written.*"):
        file.unlink()
    return found


def _name(number: int) -> str:
    return f"corpus/part {number % 40}/video {number:06d}.mp4"


def _make_video(path: Path, source: SourceIdentity) -> None:
    """A file without content that looks like its source from outside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(source.size)
    os.utime(path, ns=(source.mtime_ns, source.mtime_ns))


def make_large_store(folder: Path, recordings: int, journals: int = 8, videos: bool = True) -> None:
    """A store with the records of ``recordings`` x 4 items in some closed journals, without items; their videos."""
    store = create_store(folder)
    for spec in SPECS:
        store.fail("x", spec, "makes the feature's folder")
    store.close()
    for writer in range(journals):
        with open(folder / "journal" / f"00000000-{writer % 1000}-{writer:08x}.jsonl", "wb") as file:
            for number in range(writer, recordings, journals):
                source = SourceIdentity(10**7 + number, (1_700_000_000 + number) * 10**9, f"{number:064x}")
                if videos:
                    _make_video(folder.parent / "videos" / _name(number), source)
                for spec, dim in zip(SPECS, DIMS, strict=True):
                    record = ItemRecord(
                        recording=_name(number),
                        feature=spec.id,
                        state="done",
                        frames=4000 + number % 999,
                        valid_frames=3900,
                        shape=(4000 + number % 999, dim),
                        dtype="float16",
                        nbytes=10**7 + number,
                        crc32c=number * 7919 % 2**32,
                        metadata_crc32c=number * 17 % 2**32,
                        revision=f"1-00000000-{writer}-{number * 31 % 2**32:08x}",
                        source=source,
                        seconds=1.5 + number / 1000,
                        versions={"aupipe": "0.1.0", "numpy": "2.4", "torch": "2.10"},
                        time_utc=f"2026-11-{1 + number % 28:02d}T{number % 24:02d}:{number % 60:02d}:00Z",
                    )
                    file.write(encode_line(1, record))
            file.write(CLOSED_LINE)


def open_folder(path: Path) -> LocalStore:
    """The store in a folder, with what maintenance needs of it."""
    store = open_store(path)
    assert isinstance(store, LocalStore)
    return store


def many_journals(folder: Path, recordings: int) -> dict[str, float]:
    """Opening and refreshing a store of 20,000 journals of 1,000 writers, before and after they are collected."""
    make_large_store(folder / "journals", recordings, 20_000, videos=False)
    found: dict[str, float] = {}
    for label in ("20,000 journals", "collected once", "collected twice"):
        start = time.perf_counter()
        store = open_folder(folder / "journals")
        found[f"{label}: open, s"] = time.perf_counter() - start
        start = time.perf_counter()
        states = store.states([spec.id for spec in SPECS])
        found[f"{label}: states of {len(states):,} recordings x {len(SPECS)}, s"] = time.perf_counter() - start
        took = []
        for _ in range(9):
            start = time.perf_counter()
            store.refresh()
            took.append(time.perf_counter() - start)
        found[f"{label}: refresh, ms"] = 1000 * statistics.median(took)
        start = time.perf_counter()
        collect(store, 0)
        found[f"{label}: collect, s"] = time.perf_counter() - start
    return found


def plan(folder: Path, recordings: int, look: bool) -> None:
    """Open and plan as `aupipe extract` does, in this process, and print what it took. Run in a fresh one.

    ``look``: at each video, whether it has changed; without it what is measured is the store and the plan alone.
    """
    from aupipe.extract.planning import plan as planner

    names = [_name(number) for number in range(recordings)]
    asked = [Recording(name, folder / "videos" / name) for name in names]
    parts = planner.FeatureSet(None, TrackParams(), FacesConfig(), ())
    named = {spec.name: spec for spec in SPECS}
    encoders: Any = [(spec, None) for spec in SPECS]
    graph = planner.FeatureGraph(SPECS[0], None, None, tuple(encoders), named)
    planner.FeatureSet._build_graph = lambda self, *kind: graph  # type: ignore[method-assign]
    if not look:
        planner.source_changed = lambda paths, known: False
    before, wall, cpu = _peak_mib(), time.perf_counter(), time.process_time()
    found = planner.make_plan(asked, parts, open_store(folder / "large"))
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    assert found.counts == {"done": recordings * len(SPECS)}
    assert not found.jobs
    print(json.dumps(took | {"mib": _peak_mib(), "mib_before": before}))


def _peak_mib() -> float:
    """Most memory this program has held; `ru_maxrss` would count what its parent held before it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def planning(folder: Path, recordings: int, rounds: int) -> dict[str, float]:
    """Open + plan over ``recordings`` x 4, each time in a fresh process; its imports are not counted."""
    make_large_store(folder / "large", recordings)
    open_folder(folder / "large").compact()
    command = [sys.executable, __file__, "--plan", str(folder), "--recordings", str(recordings)]
    found = {}
    for label, more in (("", []), (", looking at each video", ["--look"])):
        runs = [json.loads(subprocess.check_output(command + more)) for _ in range(rounds)]
        for key in runs[0]:
            found[f"open and plan {recordings:,} x {len(SPECS)}{label}: {key}"] = statistics.median(
                run[key] for run in runs
            )
    return found


def files_per_item(folder: Path) -> dict[str, float]:
    """Files below ``items/`` over the number of items."""
    found = {}
    for backend in ("zarr", "hdf5"):
        store = open_store(folder / backend)
        items = len(list(store.all_published()))
        files = sum(len(files) for path, _, files in os.walk(folder / backend) if "/items/" in path)
        found[f"files per item, {backend}"] = files / items
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write the corpus (default: a temporary folder)")
    parser.add_argument("--recordings", type=int, default=100_000, help="of the store that is planned over")
    parser.add_argument("--clips", type=int, default=24, help="of the corpus that is read (97 MB each, three times)")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--look", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        plan(options.plan, options.recordings, options.look)
        return
    folder = Path(tempfile.mkdtemp(prefix="aupipe-benchmark-", dir=options.folder))
    try:
        names = make_corpus(folder, options.clips)
        figures = windows(folder, names, options.rounds)
        figures |= whole_recordings(folder, names, options.rounds)
        figures |= files_per_item(folder)
        figures |= writing(folder, options.rounds)
        figures |= planning(folder, options.recordings, 5)
        figures |= many_journals(folder, options.recordings)
    finally:
        shutil.rmtree(folder)
    for label, figure in figures.items():
        print(f"{figure:10.3f}  {label}")


if __name__ == "__main__":
    main()
