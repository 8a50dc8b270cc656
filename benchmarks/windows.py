"""How fast windows reach torch: ``python benchmarks/windows.py``. `WindowDataset` against the feed of `aupipe train`.

The same windows in the same order, without a head: as `fit` streams them from the store (standardised, as float32, with
labels and masks), by `WindowDataset.gather` into one batch, and by a `DataLoader` without worker processes, and with
them, forked and spawned. Files are in the page cache. Turns are interleaved; a number is the median of windows a second
of wall time, the start of worker processes left out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from train import make_store

from aupipe.store import open_store
from aupipe.store.windows import WindowDataset, cut_windows, keep
from aupipe.train.data import fit_scaling, load_examples
from aupipe.train.loader import Streaming
from aupipe.train.windows import chunks


def rate(epoch: Callable[[], Iterable[Any]], windows: int, skipped: int) -> float:
    """Windows a second, from the batch after the first ``skipped`` windows on."""
    batches = iter(epoch())
    next(batches)
    began = time.perf_counter()
    for _ in batches:
        pass
    return (windows - skipped) / (time.perf_counter() - began)


def main() -> None:
    """Print a line per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=40)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        recordings, labels, feature = make_store(Path(name), options.recordings, options.frames, options.dim)
        store = open_store(Path(name) / "store")
        windows = cut_windows(store, [feature], options.window)
        examples = load_examples(store, recordings, {"feature": feature}, labels)
        streaming = Streaming(examples, fit_scaling(examples), "cpu")
        dataset = WindowDataset(store, [feature], windows, options.window)
        groups = [range(at, min(at + options.batch, len(windows))) for at in range(0, len(windows), options.batch)]
        batch = dataset.allocate(options.batch)

        def loader(collate: Any = keep, **more: Any) -> Callable[[], Iterable[Any]]:
            made = torch.utils.data.DataLoader(dataset, batch_size=options.batch, collate_fn=collate, **more)
            return lambda: made

        ways: dict[str, Callable[[], Iterable[Any]]] = {
            "aupipe train, streamed": lambda: streaming.batches(chunks(windows, options.batch)),
            "gather into one batch": lambda: (dataset.gather(group, out=batch) for group in groups),
            "DataLoader, no workers, keep": loader(),
            "DataLoader, no workers, default": loader(None),
        }
        for method in ("fork", "spawn"):
            more = {"num_workers": options.workers, "multiprocessing_context": method, "persistent_workers": True}
            ways[f"DataLoader, {options.workers} workers ({method}), keep"] = loader(keep, **more)
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.turns + 1):
            for way, epoch in ways.items():
                rates[way].append(rate(epoch, len(windows), options.batch))
        for way, found in rates.items():
            print(f"{way:40} {statistics.median(found[1:]):>10,.0f} windows/s")


if __name__ == "__main__":
    main()
