"""What sound costs: ``python benchmarks/audio.py [--seconds 60] [--device cpu] [--long 7200] [--model FOLDER ...]``.

Prints, per encoder, how many seconds of sound one second of computing handles (the real-time factor), which share of
the time the network's forward pass takes (the rest is front end, copies and Python), and how far half precision is
from single. ``--long N`` runs N seconds of synthetic sound through the encoders and prints the peak memory. Encoders
that need pretrained files run with seeded random numbers: as fast, and as wrong, as they should be.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aupipe.config import EncoderConfig
from aupipe.errors import AupipeError
from aupipe.extract.encoders import build_encoder
from aupipe.extract.encoders.frame_alignment import resample_to_frames
from aupipe.extract.gpu.numerics import compute_as_written
from aupipe.types import Waveform

HUBERT_BASE = {"model_type": "hubert"}  # transformers' defaults are hubert-base
HUBERT_LARGE = {
    "model_type": "hubert", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True,
}  # fmt: skip

HUBERT_TINY = {
    "model_type": "hubert", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "conv_dim": [16] * 7, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
LONG_ON_CPU = ("logmel", "mfcc", "vad", "hubert-tiny")  # what two hours of sound take minutes for, not hours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--large", action="store_true", help="HuBERT large as well")
    parser.add_argument("--only", default="", help="one encoder's name")
    parser.add_argument("--long", type=float, default=0, help="seconds of sound to run in bounded memory")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    compute_as_written()  # as runs do
    with tempfile.TemporaryDirectory() as folder:
        encoders = tables(Path(folder), options.large)
        if options.only:
            encoders = {name: table for name, table in encoders.items() if name == options.only}
        elif options.long and options.device == "cpu":
            encoders = {name: encoders[name] for name in LONG_ON_CPU}
        if options.long:
            long_sound(encoders, options.long, options.device)
        else:
            print(f"{options.seconds:.0f} s of sound on {options.device}, {options.threads} thread(s)")
            print(f"{'encoder':24} {'rows':>7} {'x real time':>12} {'in forward':>11} {'float16 differs by':>20}")
            for name, (kind, params) in encoders.items():
                measure(name, kind, params, options.seconds, options.device)


def tables(folder: Path, large: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """Encoder name -> kind and parameters; model folders with configurations alone are written into ``folder``."""
    for name, config in (("hubert-tiny", HUBERT_TINY), ("hubert-base", HUBERT_BASE), ("hubert-large", HUBERT_LARGE)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "logmel": ("logmel", {}),
        "mfcc": ("mfcc", {}),
        "egemaps": ("egemaps", {}),
        "vad": ("vad", {}),
        "vggish": ("vggish", {"weights": "random"}),
        "vggish hop 0.05 s": ("vggish", {"weights": "random", "hop_s": 0.05}),
    }
    for name in ("hubert-tiny", "hubert-base", "hubert-large") if large else ("hubert-tiny", "hubert-base"):
        model = {"model": str(folder / name), "weights": "random"}
        found[name] = ("speech", model)
        found[f"{name} conv"] = ("speech", model | {"tap": "extract_features"})
    return found


def sound(seconds: float) -> Waveform:
    """Noise that swells and falls like syllables."""
    n = round(seconds * 16000)
    samples = np.random.default_rng(0).standard_normal(n, dtype=np.float32)
    for start in range(0, n, 1 << 20):
        at = np.arange(start, min(start + (1 << 20), n)) / 16000
        samples[start : start + (1 << 20)] *= (0.1 * (1 + np.sin(2 * np.pi * 4 * at))).astype(np.float32)
    return Waveform(samples, 16000)


def measure(name: str, kind: str, params: dict[str, Any], seconds: float, device: str) -> None:
    try:
        encode = build_encoder(EncoderConfig("x", kind, "audio", params)).load(device)
    except AupipeError as error:
        print(f"{name:24} {error}")
        return
    wave = sound(seconds)
    encode(Waveform(wave.samples[:32000], 16000))  # the first call loads and allocates
    spent = ForwardTime(device)
    with spent:
        began = time.perf_counter()
        series = encode(wave)
        total = time.perf_counter() - began
    difference = ""
    if kind == "speech" and (device.startswith("cuda") or name.startswith("hubert-tiny")):  # minutes on a CPU
        half = build_encoder(EncoderConfig("x", kind, "audio", params | {"precision": "float16"})).load(device)(wave)
        scale = np.abs(series.data).mean()
        difference = f"{np.abs(half.data - series.data).max() / scale:.2%} of the mean"
    share = f"{spent.seconds / total:10.0%}" if spent.seconds else f"{'-':>10}"
    print(f"{name:24} {len(series.data):7d} {seconds / total:12.1f} {share} {difference:>20}", flush=True)


class ForwardTime:
    """Adds up the time spent inside outermost `torch.nn.Module` calls."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds = device, 0.0
        self._depth = 0
        self._call: Callable[..., Any] | None = None

    def __enter__(self) -> None:
        import torch

        self._call = call = torch.nn.Module.__call__

        def timed(module: Any, *args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            began = time.perf_counter()
            try:
                return call(module, *args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    if self.device.startswith("cuda"):
                        torch.cuda.synchronize()
                    self.seconds += time.perf_counter() - began

        torch.nn.Module.__call__ = timed  # type: ignore[method-assign]

    def __exit__(self, *exc: object) -> None:
        import torch

        assert self._call is not None
        torch.nn.Module.__call__ = self._call  # type: ignore[method-assign]


def long_sound(encoders: dict[str, tuple[str, dict[str, Any]]], seconds: float, device: str) -> None:
    wave = sound(seconds)
    clock = np.arange(int(seconds * 25)) / 25
    print(f"{seconds:.0f} s of sound, {len(clock)} frames; peak memory before: {peak_mib():.0f} MiB", flush=True)
    for name, (kind, params) in encoders.items():
        encoder: Any = build_encoder(EncoderConfig("x", kind, "audio", params))
        began = time.perf_counter()
        series = encoder.load(device)(wave)
        rows = resample_to_frames(series, clock, encoder)
        spent = time.perf_counter() - began
        results = (series.data.nbytes + rows.nbytes) / 2**20
        print(
            f"{name:24} {len(series.data):8d} rows, {spent:6.1f} s, {seconds / spent:7.1f} x real time, results "
            f"{results:.0f} MiB, peak memory so far {peak_mib():.0f} MiB",
            flush=True,
        )
        del series, rows


def peak_mib() -> float:
    """The most memory this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
