"""The cost of loading batches: ``python benchmarks/train.py``. An epoch from the store against one from ready tensors.

The same windows in the same order through the same head, forward, backward and step: from batches that are tensors
already ("ready", 1.00), from windows that are tensors, each batch taking its own by index, from a data set that was
copied to the device once ("in memory", what `fit` does where it fits), streamed from the store whose files are in the
page cache ("streamed") or on the disk alone ("from disk": they are dropped from the page cache before each epoch), and
by a naive loop that opens each recording's file for each window. Turns are interleaved, numbers are medians of ratios
within a turn. Last come the bytes that a streamed epoch reads from the disk, and what it adds to the process's memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from aupipe.allocator import keep_freed_memory
from aupipe.store import Store, create_store, open_store
from aupipe.tasks import OFFICIAL
from aupipe.train.data import Scaling, columns, fit_scaling, load_examples
from aupipe.train.heads import build_head
from aupipe.train.labels import NAMES
from aupipe.train.loader import DeviceBatch, InMemory, Streaming
from aupipe.train.losses import build_loss
from aupipe.train.windows import tile
from aupipe.types import FeatureSpec, Labels, Recording, Window

HEADS = {"linear": {}, "mlp": {}, "tcn": {}, "gru": {"width": 32, "layers": 1, "hidden": 64}}
Epoch = Callable[[], Iterable[DeviceBatch]]


def make_store(folder: Path, recordings: int, frames: int, dim: int) -> tuple[list[Recording], dict[str, Labels], str]:
    """Random float16 features on disk, and a plain .npy beside for the naive loop."""
    rng = np.random.default_rng(0)
    spec = FeatureSpec("feature", "visual", "random", 1, dtype="float16")
    store, labels, made = create_store(folder / "store", "zarr"), {}, []
    for i in range(recordings):
        rows = rng.normal(size=(frames, dim)).astype(np.float16)
        made.append(Recording(f"r{i:03d}"))
        store.publish(made[-1].id, spec, rows)
        np.save(folder / f"{made[-1].id}.npy", rows)
        targets = (rng.random((frames, 12)) < 0.2).astype(np.float32)
        labels[made[-1].id] = Labels(OFFICIAL["au"], NAMES["au"], targets, np.ones(targets.shape, bool))
    return made, labels, spec.id


def indexed(whole: DeviceBatch, order: torch.Tensor, batch: int) -> Iterable[DeviceBatch]:
    """Batches of windows that lie in memory one by one, as a TensorDataset gives them to a batch sampler."""
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        yield DeviceBatch(*(part[some] for part in (whole.x, whole.mask, whole.targets, whole.valid)))


def naive(
    folder: Path, chunks: Sequence[Sequence[Window]], labels: dict[str, Labels], scaling: Scaling, device: str
) -> Iterable[DeviceBatch]:
    """As tutorials have it: a file opened and read for every window."""
    for chunk in chunks:
        x, y, size = [], [], max(len(window) for window in chunk)
        for window in chunk:
            rows = np.load(folder / f"{window.recording}.npy")[window.start : window.stop].astype(np.float32)
            rows = (rows - scaling.mean) / scaling.std
            rows = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
            x.append(np.pad(rows, ((0, size - len(rows)), (0, 0))))
            own = labels[window.recording].targets[window.start : window.stop]
            y.append(np.pad(own, ((0, size - len(own)), (0, 0))))
        there = np.arange(size) < np.array([len(window) for window in chunk])[:, None]
        valid = np.repeat(there[..., None], 12, axis=-1)
        parts = (np.stack(x), there, np.stack(y).astype(np.float32), valid)
        yield DeviceBatch(*(torch.from_numpy(part).to(device) for part in parts))


def main() -> None:
    """Print a line per head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=40)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `aupipe train` does
    device = options.device
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recordings, labels, feature = make_store(folder, options.recordings, options.frames, options.dim)
        began = time.perf_counter()
        store = open_store(folder / "store")
        examples = load_examples(store, recordings, {"feature": feature}, labels)
        scaling = fit_scaling(examples)
        opened = time.perf_counter() - began
        began = time.perf_counter()
        in_memory = InMemory(examples, scaling, device)
        placed = time.perf_counter() - began
        windows = [
            w for e in examples for w in tile(e.recording, len(e), options.window, options.window, 37 % options.window)
        ]
        (whole,) = in_memory.batches([windows])
        order = np.random.default_rng(1).permutation(len(windows))
        windows = [windows[i] for i in order]
        chunks = [windows[at : at + options.batch] for at in range(0, len(windows), options.batch)]
        ready = list(in_memory.batches(chunks))
        streamed = Streaming(examples, scaling, device)
        epochs: dict[str, Epoch] = {
            "ready": lambda: ready,
            "by index": lambda: indexed(whole, torch.from_numpy(order).to(device), options.batch),
            "in memory": lambda: in_memory.batches(chunks),
            "streamed": lambda: streamed.batches(chunks),
            "from disk": lambda: streamed.batches(chunks),
            "naive": lambda: naive(folder, chunks, labels, scaling, device),
        }
        frames = options.recordings * options.frames
        print(
            f"{frames:,} frames of {options.dim} columns, {len(chunks)} batches of {options.batch} x {options.window} "
            f"on {device}; opened and scaled in {opened:.2f} s, put on the device in {placed:.2f} s, once"
        )
        names = [name for name in epochs if name != "ready"]
        titles = "".join(f"{name:>10s}" for name in names) + "   x ready" + f"{'in memory / by index':>22s}"
        print(f"{'head':8s} {'s/epoch ready':>18s}{titles}")
        for head in options.heads.split(","):
            taken: dict[str, list[float]] = {name: [] for name in epochs}
            step = make_step(head, examples[0].dims, device)
            step(ready[0])
            for _ in range(options.turns):
                for name, epoch in epochs.items():
                    if name == "from disk":
                        drop_page_cache(store)
                    taken[name].append(run_epoch(epoch, step, device))
            ratio = {
                name: statistics.median(a / b for a, b in zip(seconds, taken["ready"], strict=True))
                for name, seconds in taken.items()
            }
            base = statistics.median(taken["ready"])
            new = statistics.median(a / b for a, b in zip(taken["in memory"], taken["by index"], strict=True))
            figures = "".join(f"{ratio[name]:10.2f}" for name in names)
            print(f"{head:8s} {base:18.3f}{figures}{'':10}{new:22.2f}", flush=True)
        for label in ("streamed", "from disk"):
            if label == "from disk":
                drop_page_cache(store)
            read, memory, most = number_in("io", "read_bytes"), number_in("status", "RssAnon"), 0
            for _ in streamed.batches(chunks):
                most = max(most, number_in("status", "RssAnon") - memory)
            read = number_in("io", "read_bytes") - read
            size = sum(record.nbytes for record in store.all_published())
            print(
                f"{label}: of {size / 1e6:.0f} MB, {read / 1e6:.0f} MB from the disk, {most / 1024:.0f} MiB of memory"
            )


def drop_page_cache(store: Store) -> None:
    """Unmap the files of a store, and have Linux drop their pages, so that they are read from the disk."""
    store.close()
    for path in Path(store.path).rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def number_in(file: str, key: str) -> int:
    """A number of this process: ``read_bytes`` of ``io``, ``RssAnon`` (kB) of ``status``."""
    lines = Path("/proc/self", file).read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def make_step(head: str, dims: tuple[int, ...], device: str) -> Callable[[DeviceBatch], None]:
    """One optimiser step of a fresh head."""
    torch.manual_seed(0)
    net = build_head(head, HEADS[head], columns(dims), 12, dims).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4)
    loss_of = build_loss("bce", {}, OFFICIAL["au"], torch.full((12,), 0.2, device=device))

    def step(batch: DeviceBatch) -> None:
        loss = loss_of(net(batch.x, batch.mask), batch.targets, batch.valid)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def run_epoch(epoch: Epoch, step: Callable[[DeviceBatch], None], device: str) -> float:
    """Seconds of one pass."""
    began = time.perf_counter()
    for batch in epoch():
        step(batch)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
