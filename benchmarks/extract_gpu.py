"""The section ``gpu`` of `benchmarks/extract.py`: frames per second end to end against what the machine could do."""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from extract_clips import FPS, cut_clips
from extract_run import ASSETS, CORES, Bench, Cost, beyond_start, verdict

BACKBONES = ("swin_tiny_patch4_window7_224", "vit_base_patch16_224", "regnety_004")
PRECISION = "float16"
BATCH = 256
SECONDS = 18  # of a clip: what is encoded waits for the first clips to be seen whole, and the end for the last


def measure(bench: Bench, source: Path, device: str = "cuda:0") -> None:
    """Print, per backbone and for all together, frames/s over the limit, and the share of time the GPU did nothing."""
    bench.device = ("--gpu", device.removeprefix("cuda:"))
    clips = cut_clips(source, bench.cache / "gpu", 64 if bench.quick else 128, frames=SECONDS * FPS)
    frames = len(clips) * SECONDS * FPS
    decoded = decode_rate(clips[: 4 * CORES])
    print(f"  {frames} frames of 360p; decoding alone {decoded:.0f} frames/s on {decoders()} threads", flush=True)
    forward_s = {model: forward(model, device) for model in BACKBONES}
    detector_s = detector(bench, clips[0], device)
    for name, seconds in {**forward_s, "yunet at 320 px": detector_s}.items():
        print(f"  {name}: forward alone {1 / seconds:.0f} frames/s", flush=True)
    bench.aupipe(bench.one_frame_clips(clips), named(BACKBONES))  # finds the batch sizes
    plain = np.zeros(0)
    for models in ((BACKBONES[0],), (BACKBONES[1],), BACKBONES):
        wall_s, _, idle, rows = end_to_end(bench, clips, models)
        plain = rows if models == BACKBONES[:1] else plain
        networks_s = sum(forward_s[model] for model in models)
        rate, limit = frames / wall_s, min(decoded, 1 / (detector_s + networks_s))
        print(f"  {' + '.join(models)}: {rate:.0f} frames/s, GPU idle {idle:.0%} (nvidia-smi)")
        print(f"    of decoding, and the forwards of detector and encoders {verdict(rate / limit, 0.95)}", flush=True)
        if len(models) > 1:
            print(f"    time over the sum of forwards {verdict(wall_s * limit / frames, 1.05, at_most=True)}")
    options(bench, clips, frames, plain)


def named(models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Encoder tables."""
    return {
        f"x{number}": {"kind": "timm", "model": model, "weights": "random", "precision": PRECISION}
        for number, model in enumerate(models)
    }


def options(bench: Bench, clips: Sequence[Path], frames: int, plain: np.ndarray) -> None:
    """What decoding on the GPU and compiled encoders gain, and how far they move rows."""
    for chosen in (("--nvdec",), ("--compile",)):
        bench.aupipe(bench.one_frame_clips(clips), named(BACKBONES[:1]), *chosen)  # what is compiled is kept
        wall_s, _, idle, rows = end_to_end(bench, clips, BACKBONES[:1], *chosen)
        far = np.linalg.norm(rows - plain) / np.linalg.norm(plain)
        print(
            f"  {BACKBONES[0]} {' '.join(chosen)}: {frames / wall_s:.0f} frames/s, GPU idle {idle:.0%}, "
            f"rows {far:.1e} from those without",
            flush=True,
        )


def rows_of(bench: Bench, clip: str) -> np.ndarray:
    """Of the last run, where there is a face."""
    from aupipe.store import open_store

    with open_store(bench.folder / "project" / "features") as store:
        feature = next(spec.id for spec in store.features() if spec.name == "x0")
        return np.nan_to_num(store.read(clip, feature).astype(np.float32))


def end_to_end(
    bench: Bench, clips: Sequence[Path], models: Sequence[str], *options: str
) -> tuple[float, Cost, float, np.ndarray]:
    """Median wall seconds beyond start-up, one run's cost; of the last run the GPU's idle share and one clip's rows."""
    encoders = named(models)
    shares, rows = list[float](), list[np.ndarray]()

    def run() -> Cost:
        with busy_samples() as samples:
            cost = bench.aupipe(clips, encoders, *options)
        # Start-up and the end keep the GPU idle: from the first busy sample to the last.
        at = [number for number, busy in enumerate(samples) if busy]
        shares.append(1 - statistics.fmean(samples[at[0] : at[-1] + 1]) / 100 if at else 1.0)
        rows[:] = [rows_of(bench, clips[0].name)]
        return cost

    name = " + ".join(models)
    start = bench.one_frame_clips(clips)
    costs = beyond_start({name: (run, lambda: bench.aupipe(start, encoders, *options))}, bench.rounds)
    return statistics.median(cost.wall_s for cost in costs[name]), costs[name][-1], shares[-1], rows[0]


def decoders() -> int:
    return max(1, min(CORES - 2, 14))


def decode_rate(clips: Sequence[Path]) -> float:
    """Frames per second of decoding alone, without conversion to RGB, a clip per thread."""
    from aupipe.extract.media.video import VideoReader

    began = time.perf_counter()
    with ThreadPoolExecutor(decoders()) as pool:
        frames = sum(pool.map(lambda clip: len(VideoReader(clip).clock()), clips))
    return frames / (time.perf_counter() - began)


def detector(bench: Bench, clip: Path, device: str) -> float:
    """Seconds per picture of the detector's forward pass alone, network and suppression, without launching kernels."""

    from aupipe.extract.faces.detectors.yunet import YuNet
    from aupipe.extract.gpu.cuda_graphs import GraphedFunction
    from aupipe.extract.gpu.frames import DeviceFrameBuffer
    from aupipe.extract.gpu.numerics import compute_as_written
    from aupipe.extract.media.video import VideoReader

    compute_as_written()
    os.environ.setdefault("AUPIPE_WEIGHTS", str(ASSETS / "weights"))
    frames: Any = next(iter(VideoReader(clip, frame_buffer=lambda: DeviceFrameBuffer(device))))
    detect, pictures = YuNet().load_tensor(device), frames.shrunk(2)
    graph = GraphedFunction(lambda pictures: detect(pictures).box.flatten(1))
    return timed(lambda: graph([pictures], [len(pictures)], len(pictures)), 16) / len(pictures)


def timed(work: Callable[[], object], times: int) -> float:
    """Median seconds of one of ``times`` calls in a row, in its steady state."""
    import torch

    took = []
    for _ in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            work()
        torch.cuda.synchronize()
        took.append((time.perf_counter() - began) / times)
    return statistics.median(took[3:])  # the first ones choose algorithms


def forward(model: str, device: str, batch: int = BATCH) -> float:
    """Seconds per picture of the forward pass alone, in its steady state, eager, channels_last."""
    import timm
    import torch

    dtype = getattr(torch, PRECISION)
    network: Any = timm.create_model(model, num_classes=0).eval().to(device, dtype)
    network = network.to(memory_format=torch.channels_last)
    pixels = torch.randn(batch, 3, 224, 224, device=device).to(dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return timed(lambda: network(pixels), 4) / batch


@contextmanager
def busy_samples() -> Iterator[list[float]]:
    """Percent of time with a kernel running, ten times a second, by nvidia-smi."""
    samples: list[float] = []
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100", "-i", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def listen() -> None:
        assert process.stdout is not None
        samples.extend(float(line) for line in process.stdout if line.strip().isdigit())

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield samples
    finally:
        process.terminate()
        thread.join()
        process.wait()
