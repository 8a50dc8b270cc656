"""Faults of machine, storage and input that no other test has, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import LEVEL, Project, workers_of
from tests.cli.test_worker_failures import PICTURES, SOUND, TREE, add_tracks, failed_lines, one_line, plugged
from tests.conftest import write_video

WHOLE = '[faces]\ndetector="none"\n'
__all__ = ["plugged"]  # a fixture

BROKEN_NUMBERS = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from faulty import FrameChunk

@dataclass(frozen=True)
class Numbers(FrameChunk):
    value: str = "inf"

    def load(self, device):
        def encode(crops):
            rows = crops.reshape(len(crops), -1)[:, :4].astype(np.float32)
            rows[crops.reshape(len(crops), -1).max(axis=1) > 100, 1] = float(self.value)
            return rows
        return encode
"""


def wait_until(true, what: str, process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, what
        assert process is None or process.poll() is None, what
        time.sleep(0.02)


def test_the_workers_of_a_killed_run_end_by_themselves(plugged: Project) -> None:
    add_tracks(plugged, bright=200)
    plugged.configure(TREE + PICTURES)
    process = plugged.start("extract", "--cpu", FAIL="sleeps")
    wait_until((plugged.folder / "loaded").exists, "no worker loads its encoder", process)
    workers = workers_of(process.pid)
    assert workers
    process.kill()
    process.wait()
    wait_until(lambda: not any(worker.is_running() for worker in workers), "workers outlive their run")
    assert plugged.run("extract", "--cpu").code == 0


def test_two_runs_at_once_over_the_same_videos_leave_one_whole_store(plugged: Project, arrays) -> None:
    for number in range(4):
        write_video(plugged.folder / "videos" / f"{number}.mp4", frames=5 + number, tone_hz=300)
    plugged.configure(WHOLE + PICTURES + SOUND)
    assert plugged.run("extract", "--cpu", "--store", "alone").code == 0
    processes = [plugged.start("extract", "--cpu", "--store", "shared") for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0], [p.stderr.read() for p in processes]
    assert arrays(plugged.folder / "shared") == arrays(plugged.folder / "alone")
    assert plugged.run("store", "verify", "--store", "shared").code == 0


def test_any_name_of_a_video_is_processed_and_printed_on_one_line(plugged: Project) -> None:
    names = [
        "with space.mp4", 'quote".mp4', "new\nline.mp4", "-dash.mp4", "%03d.mp4", "star*.mp4", "\U0001f600.mp4",
        "\u05d0\u05d1.mp4", "\x1b[31mred.mp4", "a/same.mp4", "b/same.mp4", "Case.mp4", "case.mp4", "zarr.json.mp4",
        "con.mp4", "caf\u00e9.mp4", "cafe\u0301.mp4", "x" * 240 + ".mp4", "no\udcffutf8.mp4", "http:x.mp4",
    ]  # fmt: skip
    made = write_video(plugged.folder / "made.mp4", frames=2).read_bytes()
    for name in names:
        path = plugged.folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made)
    plugged.configure(WHOLE + PICTURES)
    answer = plugged.run("extract", "--cpu")
    assert answer.code == 0, answer.err
    assert f"done {len(names)} " in answer.out
    assert "\x1b" not in answer.out + answer.err
    assert sum(line.startswith("[") for line in answer.err.splitlines()) == len(names)
    stored = {row["recording"] for row in plugged.run("store", "ls", "--json").json() if "recording" in row}
    assert {os.fsencode(name) for name in names} <= {os.fsencode(name) for name in stored}


def test_links_loops_and_vanished_videos_are_one_row_each(plugged: Project) -> None:
    videos = plugged.folder / "videos"
    write_video(plugged.folder / "elsewhere" / "out.mp4", frames=2)
    write_video(videos / "in.mp4", frames=2)
    (videos / "loop").symlink_to(videos)
    (videos / "outside").symlink_to(plugged.folder / "elsewhere")
    (videos / "gone.mp4").symlink_to(plugged.folder / "nowhere.mp4")
    plugged.configure(WHOLE + PICTURES)
    answer = plugged.run("extract", "--cpu")
    assert answer.code == 3
    assert "done 2 " in answer.out
    (line,) = failed_lines(answer)
    assert line.startswith("FAILED  gone.mp4")
    assert "No such file" in line
    (plugged.folder / "elsewhere" / "out.mp4").unlink()
    assert plugged.run("extract", "--cpu").code == 3
    status = [row for row in plugged.run("store", "ls", "--json").json() if row.get("recording") == "outside/out.mp4"]
    assert status  # what was made of a video that is gone stays


def test_numbers_that_are_none_are_refused_by_name_and_never_stored(plugged: Project) -> None:
    (plugged.folder / "site" / "numbers_.py").write_text(BROKEN_NUMBERS)
    entries = plugged.folder / "site" / "faulty-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text() + "numbers = numbers_:Numbers\n")
    add_tracks(plugged, dark=10, bright=200)
    words = {"inf": "infinite", "nan": "NaN", "1e6": "float16"}
    tables = [
        f'[[encoder]]\nname="as_{value}"\nkind="numbers"\nmodality="visual"\nvalue="{value}"\n' for value in words
    ]
    plugged.configure(TREE + "".join(tables))
    answer = plugged.run("extract", "--cpu")
    assert answer.code == 3, answer.err
    lines = failed_lines(answer)
    assert len(lines) == len(words)
    for value, said in words.items():
        (line,) = [line for line in lines if line.startswith(f"FAILED  bright  as_{value}: ")]
        assert said in line
    assert "done 3 " in answer.out


def memory_group() -> tuple[Path, str]:
    """A control group of this test's own that has a limit, and the limit's file, of version 1 or 2.

    Raises OSError where this machine lets us make none.
    """
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    first = next((path for _, controllers, path in groups if controllers == "memory"), None)
    folder = Path(f"/sys/fs/cgroup/memory{first}" if first is not None else "/sys/fs/cgroup")
    limit = "memory.limit_in_bytes" if first is not None else "memory.max"
    group = folder / f"aupipe-test-{os.getpid()}"
    group.mkdir()
    if not (group / limit).exists():
        group.rmdir()
        raise OSError(f"{folder} gives its groups no {limit}")
    return group, limit


@pytest.mark.slow
def test_a_worker_killed_for_want_of_memory_says_so_and_the_others_end(plugged: Project) -> None:
    try:
        group, limit = memory_group()
    except OSError as error:
        pytest.skip(
            "the kernel has to kill one process for want of memory and leave this machine alone, which takes a control "
            f"group with a limit; this machine gives none ({error}): run as root, where /sys/fs/cgroup can be written. "
            "A process that ends by the same signal is tested in test_worker_failures.py, everywhere"
        )
    hungry = "\nimport faulty\ndef fail():\n    import numpy as np\n    kept = [np.ones(1 << 27) for _ in range(40)]\n"
    (plugged.folder / "site" / "faulty.py").open("a").write(hungry.replace("import faulty\n", ""))
    add_tracks(plugged, dark=10, bright=200, dim=20)
    plugged.configure(TREE + PICTURES)
    try:
        (group / limit).write_text(str(2 << 30))
        script = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -c 'from aupipe.cli import main; main()' "
        result = subprocess.run(
            ["sh", "-c", script + "extract --cpu --batch-size 5"],
            cwd=plugged.folder, env=plugged.environment | {"FAIL": "memory"}, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "processes in the group")
        group.rmdir()
    assert result.returncode == 3, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert line.startswith("FAILED  bright  mine: ")
    assert "out of memory" in line
    assert "done 2 " in result.stdout


def test_a_signal_to_one_worker_costs_no_item(plugged: Project, arrays) -> None:
    """SIGKILL of a worker from outside, in the midst of encoding: its videos are tried again, exit code 0."""
    for number in range(3):
        write_video(plugged.folder / "videos" / f"{number}.mp4", frames=400)
    plugged.configure(WHOLE + PICTURES)
    assert plugged.run("extract", "--cpu", "--store", "alone").code == 0
    (plugged.folder / "loaded").unlink()
    process = plugged.start("extract", "--cpu", "--workers", "1", "--batch-size", "1")
    wait_until((plugged.folder / "loaded").exists, "no worker loads its encoder", process)
    for worker in workers_of(process.pid):
        worker.kill()
    assert process.wait(timeout=300) == 0, process.stderr.read()
    assert arrays(plugged.folder / "features") == arrays(plugged.folder / "alone")


def test_a_request_for_another_store_kind_or_place_touches_nothing(plugged: Project) -> None:
    write_video(plugged.folder / "videos" / "a.mp4", frames=2)
    plugged.configure(WHOLE + PICTURES)
    (plugged.folder / "file").write_text("mine")
    (plugged.folder / "foreign").mkdir()
    (plugged.folder / "foreign" / "thesis.tex").write_text("mine")
    for place in ("file", "foreign"):
        answer = plugged.run("extract", "--cpu", "--store", place)
        assert answer.code == 2
        assert place in one_line(answer)
    assert (plugged.folder / "file").read_text() == "mine"
    assert os.listdir(plugged.folder / "foreign") == ["thesis.tex"]
    assert plugged.run("extract", "--cpu").code == 0
    document = plugged.folder / "features" / "store.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | {"version": 99}))
    answer = plugged.run("extract", "--cpu")
    assert answer.code == 11
    assert "install a newer aupipe" in one_line(answer)


def test_a_network_that_kills_every_worker_stops_the_run_though_sound_succeeds(plugged: Project) -> None:
    for number in range(4):
        write_video(plugged.folder / "videos" / f"{number}.mp4", frames=60, tone_hz=300)  # bright from frame 45 on
    plugged.configure(WHOLE + PICTURES + LEVEL)
    answer = plugged.run("extract", "--cpu", FAIL="SIGKILL")
    assert answer.code == 1, answer.out
    assert "none is marked failed" in one_line(answer)
    assert not [row for row in plugged.run("store", "ls", "--json").json() if row.get("state") == "failed"]


@pytest.mark.slow
def test_memory_that_runs_out_on_one_video_fails_it_alone_and_on_all_fails_nobody(plugged: Project) -> None:
    hungry = "\ndef fail():\n    raise MemoryError('Unable to allocate 7.50 MiB')\n"
    with (plugged.folder / "site" / "faulty.py").open("a") as file:
        file.write(hungry)
    add_tracks(plugged, dark=10, bright=200, dim=20)
    plugged.configure(TREE + PICTURES)
    answer = plugged.run("extract", "--cpu")
    assert answer.code == 3, answer.err
    (line,) = failed_lines(answer)
    assert line.startswith("FAILED  bright  mine: bright: too little memory (Unable to allocate 7.50 MiB)")
    assert "done 2 " in answer.out
    add_tracks(plugged, bright2=200, bright3=200)
    answer = plugged.run("extract", "--cpu", "--retry-failed")
    assert answer.code == 1
    assert "too little memory" in one_line(answer)
    assert "none is marked failed" in one_line(answer)


def write_frames(
    path: Path, pictures: list, codec: str, pix_fmt: str, cover: bool = False, twice: bool = False
) -> None:
    """A video of these pictures; ``cover``: with an attached picture, ``twice``: with a second video stream of one."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        streams = [container.add_stream(codec, rate=25)]
        if twice or cover:
            streams.append(container.add_stream("mjpeg" if cover else codec, rate=25))
            if cover:
                streams[1].disposition = av.stream.Disposition.attached_pic
        for stream in streams:
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuvj420p" if stream.codec_context.name == "mjpeg" else pix_fmt
        for stream, shown in zip(streams, [pictures, pictures[:1]], strict=False):
            for picture in shown:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def test_odd_but_whole_media_give_a_row_for_each_frame(plugged: Project) -> None:
    """One frame; no face anywhere; 10 bits, grey, full chroma with alpha; a cover picture; two video streams."""
    import numpy as np

    grey = [np.full((64, 64, 3), 60 + 5 * k, np.uint8) for k in range(6)]
    videos = plugged.folder / "videos"
    videos.mkdir()
    kinds = {
        "one.mp4": (grey[:1], "h264", "yuv420p"),
        "ten_bits.mkv": (grey, "ffv1", "yuv420p10le"),
        "grey.mkv": (grey, "ffv1", "gray"),
        "alpha.mkv": (grey, "ffv1", "yuva444p"),
        "lossless.avi": (grey, "huffyuv", "rgb24"),
    }
    for name, (pictures, codec, pix_fmt) in kinds.items():
        write_frames(videos / name, pictures, codec, pix_fmt)
    write_frames(videos / "cover.mp4", grey, "h264", "yuv420p", cover=True)
    write_frames(videos / "two.mkv", grey, "h264", "yuv420p", twice=True)
    plugged.configure('[faces]\ndetector="mtcnn"\n[[encoder]]\nname="hog"\nkind="hog"\nmodality="visual"\n')
    answer = plugged.run("extract", "--cpu", "--json")
    assert answer.code == 0, answer.out + answer.err
    rows = {
        row["recording"]: (row["frames"], row["valid_frames"])
        for row in answer.json()
        if row["message_type"] == "item" and row["feature"].startswith("hog@")
    }
    wanted = dict.fromkeys([*kinds, "cover.mp4", "two.mkv"], (6, 0)) | {"one.mp4": (1, 0)}
    assert rows == wanted


NO_NETWORK = """
import os, socket
def refuse(self, address, *arguments):
    if self.family != socket.AF_UNIX:
        open(os.environ["NETWORK_LOG"], "a").write(f"{address}\\n")
        raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
"""


def test_missing_weights_are_named_with_the_command_and_no_process_reaches_for_a_network(plugged: Project) -> None:
    with (plugged.folder / "site" / "sitecustomize.py").open("a") as file:
        file.write(NO_NETWORK)
    log = str(plugged.folder / "network.log")
    write_video(plugged.folder / "videos" / "a.mp4", frames=2, tone_hz=300)
    plugged.configure(WHOLE + PICTURES + SOUND)
    assert plugged.run("extract", "--cpu", NETWORK_LOG=log).code == 0
    models = {
        'kind="timm"\nmodality="visual"\nmodel="swin_tiny_patch4_window7_224.ms_in1k"': "hf download",
        'kind="speech"\nmodality="audio"\nmodel="facebook/hubert-base-ls960"': "hf download",
        'kind="mae"\nmodality="visual"': "mae_pretrain_vit_base.pth",
    }
    for table, words in models.items():
        plugged.configure(f'{WHOLE}[[encoder]]\nname="net"\n{table}\n')
        answer = plugged.run("extract", "--cpu", NETWORK_LOG=log)
        assert answer.code == 12, answer.err
        assert words in one_line(answer)
    assert not Path(log).exists(), Path(log).read_text()
