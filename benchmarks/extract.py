"""What extraction costs, from the outside: ``python benchmarks/extract.py [SECTION ...] [--rounds N] [--quick]``.

Sections: naive, peer, plumbing, shared, short, memory, exact, gpu; all by default. Each drives ``aupipe extract`` in a
scratch folder as a user does. Ratios are within one round of runs that take turns, and medians over rounds. CPU time
is that of all processes, wall time uses every core; start-up (processes, imports, models) is measured on clips of one
frame and taken off both sides. Where aupipe has no such option the section says so.

naive, peer, plumbing, shared: real clips with one face in every frame. ``--clip`` names others.

On a machine that others use, only CPU time means anything, and that only where threads do not wait for each other
(they spin, at the script's expense): give it ``--threads 1``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from extract_clips import FPS, cut_clips, join_clips
from extract_run import (
    ASSETS,
    BFLOAT16,
    CORES,
    PRECISIONS,
    Bench,
    Cost,
    Encoders,
    RefusedError,
    beyond_start,
    in_turn,
    median_ratio,
    verdict,
)

# Every real clip of the test material with one face in every frame and pictures of 640x360 or less.
ONE_FACE = (
    "carphone_qcif_no_audio.mp4",
    "grid_bbaf2n_speech.mpg",
    "grid_swwp2s_speech.mpg",
    "single_face_smile_mp3.mp4",
    "wolfgang_emotions_silent_audio.mp4",
)
COMPARED = ("carphone_qcif_no_audio.mp4", "grid_bbaf2n_speech.mpg")
WHOLE_PICTURES = COMPARED[:1]  # small enough to be detected in at full size by both
REGNET, SWIN = "regnety_004", "swin_tiny_patch4_window7_224"  # of section naive; the others take REGNET
SOURCE_360P = "wolfgang_emotions_silent_audio.mp4"
SAME_FEATURES = 1e-3  # relative L2 distance between our fp32 rows and the script's, at most
PLUGGED = {"hog": {"kind": "hog"}, "geometry": {"kind": "geometry"}}  # encoders that cost next to nothing


def timm(model: str, precision: str = "float32") -> dict[str, Any]:
    return {"kind": "timm", "model": model, "weights": "random", "precision": precision}


def pair(bench: Bench, clips: Sequence[Path], encoders: Encoders, *options: str) -> tuple[Any, Any]:
    """A run over the clips, and the same over clips of one frame."""
    return (
        lambda: bench.aupipe(clips, encoders, *options),
        lambda: bench.aupipe(bench.one_frame_clips(clips), encoders, *options),
    )


def loop_pair(bench: Bench, clips: Sequence[Path], *arguments: str) -> tuple[Any, Any]:
    name, model, *options = arguments
    return (
        lambda: bench.loop(name, clips, model, *options),
        lambda: bench.loop(name, bench.one_frame_clips(clips), model, *options),
    )


def table(costs: dict[str, list[Cost]], base: str, frames: int, targets: dict[str, float]) -> None:
    """Frames per second, CPU time per frame, and both as ratios to ``base``."""
    print(f"  {'':22} {'frames/s':>9} {'cpu-ms/frame':>13} {'cpu x':>7}  wall x")
    for name, runs in costs.items():
        wall_s, cpu_s = (statistics.median(getattr(run, key) for run in runs) for key in ("wall_s", "cpu_s"))
        line = f"  {name:22} {frames / wall_s:9.1f} {1000 * cpu_s / frames:13.2f}"
        if base in costs:
            wall, cpu = (
                median_ratio([getattr(run, key) for run in costs[base]], [getattr(run, key) for run in runs])
                for key in ("wall_s", "cpu_s")
            )
            line += f" {cpu:7.2f}  " + (verdict(wall, targets[name]) if name in targets else f"{wall:6.2f}")
        print(line, flush=True)


def naive(bench: Bench, clips: list[Path]) -> None:
    """Against the script everybody writes: OpenCV, YuNet on every full-size frame, one warp, batch 1, fp32."""
    for model in bench.backbones:
        targets = {"aupipe float32": 4.5, "aupipe bfloat16": 7.5} if model == REGNET else {}
        print(f" {model}", flush=True)
        runs = {"script": loop_pair(bench, clips, "faces", model, "--threads", str(bench.threads))}
        for precision in PRECISIONS:
            runs[f"aupipe {precision}"] = pair(bench, clips, {"x": timm(model, precision)})
        costs = beyond_start(runs, bench.rounds)
        frames = costs["script"][0].said["frames"]
        table(costs, "script", frames, targets)
        compared = [clip for clip in clips if clip.name in COMPARED] or clips[:1]
        bench.loop("faces", compared, model, "--threads", "1")
        bench.aupipe(compared, {"x": timm(model)})
        agreement(bench, compared, WHOLE_PICTURES)


def agreement(bench: Bench, clips: Sequence[Path], same_input: Sequence[str] | None) -> None:
    """How far aupipe's rows are from the loop's; ``same_input``: clips both detect in at the same size, None all."""
    from aupipe.store import open_store

    with open_store(bench.folder / "project" / "features") as store:
        feature = next(spec.id for spec in store.features() if spec.name == "x")
        for clip in clips:
            theirs = np.load(bench.folder / "naive" / f"{clip.name}.npy")
            ours = np.asarray(store.read(clip.name, feature), dtype=np.float32)
            if len(ours) != len(theirs):
                raise SystemExit(f"{clip.name}: {len(ours)} rows, the loop has {len(theirs)}")
            faces = [np.isfinite(rows).all(axis=1) for rows in (ours, theirs)]
            both = faces[0] & faces[1]
            if not both.any():
                print(f"  rows of {clip.name}: no frame has a face in both")
                continue
            far = np.linalg.norm(ours[both] - theirs[both], axis=1) / np.linalg.norm(theirs[both], axis=1)
            counts = f"{faces[0].sum()} and {faces[1].sum()} of {len(ours)} rows"
            line = f"  rows of {clip.name:36} {counts:26} relative L2: median {np.median(far):.1e}, max {far.max():.1e}"
            if same_input is None or clip.name in same_input:
                line += f" (same pictures, <= {SAME_FEATURES:g}: {'met' if far.max() <= SAME_FEATURES else 'SHORT'})"
            print(line, flush=True)


def peer(bench: Bench, clips: list[Path]) -> None:
    """Whole frames without faces, against the decode, transform, forward loop of video_features, on one thread."""
    runs = {
        f"peer, batch {batch}": loop_pair(bench, clips, "frames", REGNET, "--threads", "1", "--batch", str(batch))
        for batch in (1, 32)
    }
    ours = "aupipe --no-face"
    try:
        bench.aupipe(bench.one_frame_clips(clips), {"x": timm(REGNET)}, "--no-face")
        for precision in PRECISIONS:
            runs[f"{ours} {precision}"] = pair(bench, clips, {"x": timm(REGNET, precision)}, "--no-face")
    except RefusedError as error:
        print(f"  {ours}: not measured, refused: {error}", flush=True)
    costs = beyond_start(runs, bench.rounds)
    frames = costs["peer, batch 1"][0].said["frames"]
    for base, target in (("peer, batch 1", 2.4), ("peer, batch 32", 1.45)):
        print(f"  against {base}; the peer has one core, aupipe {CORES}: cpu x is what one core against one would give")
        table(costs, base, frames, {f"{ours} float32": target})
    if f"{ours} float32" in costs:
        bench.loop("frames", clips[:1], REGNET, "--threads", "1", "--batch", "32")
        bench.aupipe(clips[:1], {"x": timm(REGNET)}, "--no-face")
        agreement(bench, clips[:1], None)


def plumbing(bench: Bench, clips: list[Path]) -> None:
    """What is not in a stage: 1 - the sum of the stages' CPU time over the CPU time of all processes."""
    for precision in PRECISIONS:
        run, start = pair(bench, clips, {"x": timm(REGNET, precision)})
        costs = in_turn({precision: run, "start-up": start}, bench.rounds)
        if len(costs) < 2:
            continue
        shares = []
        for whole, begun in zip(costs[precision], costs["start-up"], strict=True):
            in_stages, at_start = whole.stage_cpu_s(), begun.stage_cpu_s()
            if in_stages is None or at_start is None:
                print('  not measured: the summary of aupipe extract --json has no "stages"')
                return
            shares.append((in_stages - at_start) / (whole.cpu_s - begun.cpu_s))
        parts = ", ".join(
            f"{name} {stage['cpu_s']:.2f} s" for name, stage in costs[precision][-1].said["stages"].items()
        )
        share = statistics.median(shares)
        print(f"  {precision:9} stages' share of the CPU time {verdict(share, 0.9)}; {parts}", flush=True)


def shared(bench: Bench, clips: list[Path]) -> None:
    """Two encoders in one pass against (both alone - one decode and detection), which landmarks alone cost."""
    first, second = {"a": timm(REGNET)}, {"b": timm("resnet18")}
    alone = {"c": {"kind": "geometry"}}
    runs = {"regnety_004": first, "resnet18": second, "both": first | second, "landmarks alone": alone}
    costs = beyond_start({name: pair(bench, clips, encoders) for name, encoders in runs.items()}, bench.rounds)
    if len(costs) < len(runs):
        return
    for key, target in (("cpu_s", 1.05), ("wall_s", None)):
        ratios = [
            getattr(both, key) / (getattr(a, key) + getattr(b, key) - getattr(c, key))
            for a, b, both, c in zip(*(costs[name] for name in runs), strict=True)
        ]
        figure = statistics.median(ratios)
        print(f"  {key.removesuffix('_s'):5}", verdict(figure, target, at_most=True) if target else f"{figure:6.2f}")
    for name, found in costs.items():
        print(f"  {name:16} {statistics.median(cost.cpu_s for cost in found):8.2f} s of CPU", flush=True)


def short(bench: Bench, clips: list[Path]) -> None:
    """Clips of one second against one video of the same frames."""
    count = 100 if bench.quick else 1000
    source = ASSETS / "videos" / SOURCE_360P
    seconds = cut_clips(source, bench.cache / f"seconds-{count}", count)
    whole = join_clips(seconds, bench.cache / f"seconds-{count}.mp4")
    for name, encoder in (("hog", PLUGGED["hog"]), (REGNET, timm(REGNET))):
        print(f" {count} clips of {FPS} frames, {name}", flush=True)
        runs = {"one video": pair(bench, [whole], {"x": encoder}), "clips": pair(bench, seconds, {"x": encoder})}
        table(beyond_start(runs, heavy_rounds(bench)), "one video", count * FPS, {"clips": 0.8})


def memory(bench: Bench, clips: list[Path]) -> None:
    """The most memory any process holds: hours of 360p video against two minutes, within 200 MB."""
    source = ASSETS / "videos" / SOURCE_360P
    piece = cut_clips(source, bench.cache / "eighteen-seconds", 1, frames=18 * FPS)
    peaks = {}
    for minutes in (2, 20 if bench.quick else 120):
        # 2 minutes are 6.7 pieces: whole pieces, so a little more.
        video = join_clips(piece * -(-minutes * 60 // 18), bench.cache / f"minutes-{minutes}.mp4")
        cost = bench.aupipe([video], PLUGGED, detect_px=160)
        peaks[minutes] = cost.peak_mib
        print(f"  {minutes:4d} minutes: peak {cost.peak_mib:7.0f} MiB, {cost.wall_s:6.1f} s", flush=True)
    least, most = peaks.values()
    print(f"  grows by MB {verdict((most - least) * 2**20 / 1e6, 200, at_most=True)}", flush=True)


def heavy_rounds(bench: Bench) -> int:
    return bench.rounds if bench.quick else max(1, bench.rounds // 3)


def exact(bench: Bench, clips: list[Path]) -> None:
    """Frames and pictures of `VideoReader` against sequential OpenCV and PyAV decode: every clip, and three turned."""
    import extract_exact

    extract_exact.measure(bench.folder)


def gpu(bench: Bench, clips: list[Path]) -> None:
    """End to end against the limit: the slower of decoding and the networks' forward passes."""
    import torch

    if not torch.cuda.is_available():
        print("  no GPU here: not measured")
        return
    import extract_gpu

    extract_gpu.measure(bench, ASSETS / "videos" / SOURCE_360P)


SECTIONS = {
    "naive": naive, "peer": peer, "plumbing": plumbing, "shared": shared, "short": short, "memory": memory,
    "exact": exact, "gpu": gpu,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, 100 short clips, 20 minutes for two hours")
    parser.add_argument(
        "--threads", type=int, default=0, help="of the script; 0: what torch and OpenCV take themselves"
    )
    parser.add_argument("--backbone", action="append", help=f"of section naive (default: {REGNET} and {SWIN})")
    parser.add_argument("--clip", action="append", help="a video of the test material, instead of the usual ones")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "aupipe-benchmark-clips")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; known: {', '.join(SECTIONS)}")
    clips = [ASSETS / "videos" / name for name in options.clip or ONE_FACE]
    with tempfile.TemporaryDirectory(prefix="aupipe-benchmark-") as folder:
        rounds = 1 if options.quick else options.rounds
        backbones = tuple(options.backbone or (REGNET, SWIN))
        bench = Bench(Path(folder), options.cache, rounds, options.quick, options.threads, backbones)
        if not options.quick:  # longer runs: what start-up varies by weighs less
            for clip in clips[:]:
                clips.append(Path(folder) / f"again_{clip.name}")
                clips[-1].symlink_to(clip)
        print(
            f"{CORES} cores, " + ("with bfloat16" if BFLOAT16 else "no bfloat16 instructions: bfloat16 is not measured")
        )
        for name in options.sections or SECTIONS:
            print(f"{name}: {SECTIONS[name].__doc__}\n  load {os.getloadavg()[0]:.1f}", flush=True)
            SECTIONS[name](bench, clips)


if __name__ == "__main__":
    main()
