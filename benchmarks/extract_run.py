"""Running things from the outside and what they cost; for `benchmarks/extract.py`."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from extract_clips import cut_clips

ASSETS = Path(os.environ.get("AUPIPE_TEST_ASSETS", Path(__file__).parents[2] / "shared" / "assets")).resolve()
USAGE = 2  # aupipe's exit code for an option or key it does not know
CORES = len(os.sched_getaffinity(0))
BFLOAT16 = any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf16"))
PRECISIONS = (
    ("float32", "bfloat16") if BFLOAT16 else ("float32",)
)  # without the instructions it is several times slower
AUPIPE = [sys.executable, "-c", "from aupipe.cli import main; main()"]

Run = Callable[[], "Cost"]
Encoders = dict[str, dict[str, Any]]  # name -> the other keys of its [[encoder]] table


class RefusedError(Exception):
    """This aupipe has no such option or key (yet)."""


@dataclass(frozen=True)
class Cost:
    """What a process and all it started took; ``said``: the last JSON line on its stdout."""

    wall_s: float
    cpu_s: float
    peak_mib: float  # of its largest process
    said: dict[str, Any]

    def stage_cpu_s(self) -> float | None:
        """CPU time of all stages by aupipe's own summary, or None where it states none."""
        stages = self.said.get("stages")
        return sum(stage["cpu_s"] for stage in stages.values()) if stages else None


def measure(command: Sequence[str | Path], folder: Path) -> Cost:
    """Run a command in ``folder``. CPU time is user + system of the process and all its descendants, as it reaps them.

    Raises RefusedError where it says usage error, RuntimeError where it fails otherwise.
    """
    environment = os.environ | {"AUPIPE_WEIGHTS": str(ASSETS / "weights")}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), cwd=folder, stdout=out, stderr=err, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = code = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        words = err.read().strip()
        if code == USAGE:
            raise RefusedError(words.splitlines()[-1] if words else "usage error")
        if code:
            raise RuntimeError(f"exit code {code} of {' '.join(map(str, command))}:\n{words[-2000:]}")
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
    return Cost(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, json.loads(lines[-1]) if lines else {})


@dataclass
class Bench:
    """The scratch folder, and how often each thing is run."""

    folder: Path
    cache: Path  # of made clips
    rounds: int
    quick: bool
    threads: int = 0  # of the naive script
    backbones: tuple[str, ...] = ()  # the naive script's, in turn
    device: tuple[str, ...] = ("--cpu",)

    def aupipe(self, clips: Sequence[Path], encoders: Encoders, *options: str, detect_px: int = 320) -> Cost:
        """``aupipe extract`` as a user runs it, in a folder with these videos and nothing extracted yet.

        The features stay in ``folder/project/features`` until the next run.
        """
        project = self.folder / "project"
        shutil.rmtree(project, ignore_errors=True)
        (project / "videos").mkdir(parents=True)
        for clip in clips:
            (project / "videos" / clip.name).symlink_to(clip)
        lines = ["[faces]", 'detector = "yunet"', f"detect_px = {detect_px}"]
        for name, params in encoders.items():
            lines += ["[[encoder]]", f'name = "{name}"', 'modality = "visual"']
            lines += [f"{key} = {json.dumps(value)}" for key, value in params.items()]
        (project / "aupipe.toml").write_text("\n".join(lines) + "\n")
        return measure([*AUPIPE, "extract", *self.device, "--json", *options], project)

    def loop(self, name: str, clips: Sequence[Path], model: str, *options: str) -> Cost:
        """One of the loops of `extract_naive.py`; its rows stay in ``folder/naive`` until the next run."""
        out = self.folder / "naive"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        script = Path(__file__).with_name("extract_naive.py")
        return measure([sys.executable, script, name, "--model", model, "--out", out, *options, *clips], self.folder)

    def one_frame_clips(self, clips: Sequence[Path]) -> list[Path]:
        """Clips of one frame to stand for ``clips``, one per core at most: a run over these is all start-up.

        It holds the start of every process (of as many workers), imports, models, the store, and their end.
        """
        source = ASSETS / "videos" / "single_face_smile_mp3.mp4"
        return cut_clips(source, self.cache / f"one-frame-{CORES}", CORES, frames=1)[: len(clips)]


def in_turn(runs: dict[str, Run], rounds: int) -> dict[str, list[Cost]]:
    """Run each once per round; who goes first changes, so that a busy machine slows all alike.

    A run that is refused is said, and left out of what is returned.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for number in range(rounds):
        names = list(costs)
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            try:
                costs[name].append(cost := runs[name]())
                print(f"  [{name}: {cost.wall_s:.1f} s, {cost.cpu_s:.1f} s of CPU]", file=sys.stderr, flush=True)
            except RefusedError as error:
                print(f"  {name}: not measured, refused: {error}", flush=True)
                del costs[name]
    return costs


def beyond_start(runs: dict[str, tuple[Run, Run]], rounds: int) -> dict[str, list[Cost]]:
    """Each (run, its start-up) in turn; the median wall and CPU time of the start-ups are taken off the runs'."""
    both = {(name, which): run for name, pair in runs.items() for which, run in zip(("", "start"), pair, strict=True)}
    costs = in_turn({f"{name} {which}".strip(): run for (name, which), run in both.items()}, rounds)
    found = {}
    for name in runs:
        if name in costs and (starts := costs.get(f"{name} start")):
            wall_s, cpu_s = (statistics.median(getattr(cost, key) for cost in starts) for key in ("wall_s", "cpu_s"))
            found[name] = [replace(cost, wall_s=cost.wall_s - wall_s, cpu_s=cost.cpu_s - cpu_s) for cost in costs[name]]
            if any(cost.wall_s <= 0 or cost.cpu_s <= 0 for cost in found[name]):
                raise SystemExit(f"{name} took no longer than its start-up: take more frames, or an idle machine")
            print(f"  {name}: start-up {wall_s:.1f} s, {cpu_s:.1f} s of CPU, taken off", flush=True)
    return found


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over rounds of the ratio within each."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def verdict(figure: float, target: float, at_most: bool = False) -> str:
    """The figure beside what it must show."""
    met = figure <= target if at_most else figure >= target
    return f"{figure:6.2f} ({'<=' if at_most else '>='} {target:g}: {'met' if met else 'SHORT'})"
