"""An epoch of cached crops against decoding again: ``python benchmarks/crops.py PROJECT [--feature crops]``.

PROJECT holds an `aupipe.toml` and the store in which `aupipe extract` put the feature ``crops``. Both give the same
crops of all training recordings: from the store as batches of a training epoch, and from the videos, decoded and warped
by the stored face tracks, without any detection. Turns are interleaved; the ratio is the median of those within a turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from aupipe.cli.data import gather
from aupipe.config import load_config
from aupipe.extract.imaging.templates import ArcFaceCropTemplate, crop
from aupipe.extract.media.video import VideoReader
from aupipe.store import Store, open_store
from aupipe.train.data import Scaling, load_examples
from aupipe.train.loader import Streaming
from aupipe.train.recipe import load_recipe
from aupipe.train.windows import chunks, tile
from aupipe.types import FaceTrack, Labels, Recording


def decode(store: Store, recordings: Sequence[Recording], feature: str) -> int:
    """Decode and crop every frame with a face; how many."""
    spec, frames = store.spec(feature), 0
    template = ArcFaceCropTemplate(spec.params["size_px"])
    for recording in recordings:
        assert recording.video is not None
        track = FaceTrack.from_rows(store.read(recording.id, spec.inputs["faces"]))
        for chunk in VideoReader(recording.video):
            index = chunk.index
            seen = track.valid[index]
            crop(chunk.rgb[seen], track.box[index][seen], track.landmarks[index][seen], template)
            frames += int(seen.sum())
    return frames


def measure(
    store: Store, recordings: Sequence[Recording], labels: Mapping[str, Labels], feature: str, turns: int
) -> tuple[float, float]:
    """Seconds of an epoch of batches from the store, and of decoding: those of the turn with the median ratio."""
    examples = load_examples(store, recordings, {"crops": feature}, labels)
    size = examples[0].dims[0]
    scaling = Scaling(np.zeros(size, np.float32), np.ones(size, np.float32), unscaled=frozenset({0}))
    loader = Streaming(examples, scaling, "cpu")
    windows = [window for item in examples for window in tile(item.recording, len(item), 64, 64)]
    found = []
    for _ in range(turns):
        began = time.perf_counter()
        frames = sum(int(batch.mask.sum()) for batch in loader.batches(chunks(windows, 4)))
        cached_s = time.perf_counter() - began
        began = time.perf_counter()
        seen = decode(store, recordings, feature)
        decoded_s = time.perf_counter() - began
        found.append((decoded_s / cached_s, cached_s, decoded_s))
        print(
            f"{frames} frames from the cache {cached_s:.2f} s; {seen} with a face decoded again {decoded_s:.2f} s; "
            f"ratio {decoded_s / cached_s:.1f}",
            flush=True,
        )
    _, cached_s, decoded_s = sorted(found)[len(found) // 2]
    return cached_s, decoded_s


def main() -> None:
    """Print the seconds of each side and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--feature", default="crops")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(options.project / "aupipe.toml")
    store = open_store(config.store.path)
    data = gather(config, store, load_recipe("tcn"), "au", [options.feature])
    cached_s, decoded_s = measure(store, data.train, data.labels, data.features[options.feature], options.turns)
    print(f"median ratio {decoded_s / cached_s:.1f}")


if __name__ == "__main__":
    main()
