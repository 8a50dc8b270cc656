"""What goes wrong in a worker process reaches the user in one line with the right exit code, and costs nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.cli.conftest import Answer, Project, install_plugin
from tests.cli.mounts import Mounting
from tests.conftest import write_video

# Encoders somebody else wrote, which break as they are told to (FAIL) on bright pictures or loud sound.
PLUGIN = """
import ctypes, os, signal, time
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from aupipe.extract.encoders import AudioInput, FrameAlignment, TimeSeries
from aupipe.extract.imaging.templates import CropTemplate

def fail():
    kind = os.environ.get("FAIL", "")
    if kind.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, kind))
    if kind == "holds the GIL":
        ctypes.PyDLL(None).sleep(3600)
    if kind == "sleeps":
        time.sleep(3600)

@dataclass(frozen=True)
class FrameChunk:
    width: int = 4
    modality: ClassVar[str] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self):
        return CropTemplate(32)

    def identify_weights(self):
        return None

    def load(self, device):
        with open("loaded", "w"):
            pass
        if os.environ.get("FAIL") == "does not load":
            raise RuntimeError("the driver is too old\\nfor this")
        def encode(crops):
            if crops.max(initial=0) > 100:
                fail()
            return np.tile(crops.reshape(len(crops), -1).mean(axis=1, keepdims=True), (1, self.width))
        return encode

@dataclass(frozen=True)
class Sound(FrameAlignment):
    modality: ClassVar[str] = "audio"
    version: ClassVar[int] = 1

    @property
    def reads(self):
        return AudioInput(16000)

    def identify_weights(self):
        return None

    def load(self, device):
        def encode(waveform):
            if np.abs(waveform.samples).max(initial=0) > 0.1:
                fail()
            times = np.arange(0, max(waveform.duration_s, 0.1), 0.02)
            return TimeSeries(np.zeros((len(times), 2), np.float32), waveform.start_s + times)
        return encode
"""
FAULTY_DISK = """
import os
if os.environ.get("FAULT"):
    from aupipe.store import fs
    from tests.store.disks import FaultyDisk
    fs.disk = FaultyDisk(os.environ["FAULT"])
"""
HANGING_OPEN = """
import os
if os.environ.get("HANG"):
    import av, time
    def hanging(source, *arguments, real=av.open, **options):
        if os.environ["HANG"] in str(source):
            time.sleep(3600)
        return real(source, *arguments, **options)
    av.open = hanging
"""
PICTURES = '[[encoder]]\nname="mine"\nkind="pictures"\nmodality="visual"\n'
SOUND = '[[encoder]]\nname="heard"\nkind="sound"\nmodality="audio"\n'
TREE = '[dataset]\nlayout="affwild2"\nroot="tree"\nframes="cropped_aligned"\nfps=25.0\n'


@pytest.fixture
def plugged(tmp_path: Path) -> Project:
    """An empty project with the plug-in installed."""
    site = tmp_path / "site"
    install_plugin(site, "faulty", PLUGIN, pictures="FrameChunk", sound="Sound")
    (site / "sitecustomize.py").write_text(HANGING_OPEN + FAULTY_DISK)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    paths = [str(site), str(Path(__file__).parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    return Project(tmp_path, environment | {"PYTHONPATH": os.pathsep.join(paths)})


def add_tracks(project: Project, **greys: int) -> None:
    """Folders of aligned crops, each of one grey level."""
    for name, grey in greys.items():
        folder = project.folder / "tree" / "cropped_aligned" / name
        folder.mkdir(parents=True)
        for number in range(1, 6):
            cv2.imwrite(str(folder / f"{number:05d}.png"), np.full((32, 32, 3), grey, np.uint8))


def one_line(answer: Answer) -> str:
    """The only line in which aupipe says why it stopped."""
    assert "Traceback" not in answer.err, answer.err
    (line,) = [line for line in answer.err.splitlines() if line.startswith("aupipe: ") and "running on" not in line]
    return line


def failed_lines(answer: Answer) -> list[str]:
    return [line for line in answer.out.splitlines() if line.startswith("FAILED")]


# What stops a run ------------------------------------------------------------------------------------------------


def test_a_disk_error_in_a_worker_reaches_the_user(plugged: Project) -> None:
    add_tracks(plugged, dark=10)
    plugged.configure(TREE + PICTURES)
    for fault, words in {
        "rename:1:eio": ["Input/output error", "the disk or the network file system has an error"],
        "rename:1:enospc": ["No space left on device", "MB are free", "free some space"],
        "rename:1:edquot": ["quota"],
        "rename:1:erofs": ["Read-only file system"],
    }.items():
        answer = plugged.run("extract", "--cpu", FAULT=fault)
        assert answer.code == 1
        line = one_line(answer)
        assert all(word in line for word in [*words, str(plugged.folder / "features")]), line
    assert plugged.run("extract", "--cpu").code == 0
    assert plugged.run("store", "verify").code == 0


def test_the_store_is_tried_before_workers_start(plugged: Project) -> None:
    add_tracks(plugged, dark=10)
    plugged.configure(TREE + PICTURES)
    assert plugged.run("extract", "--cpu").code == 0
    (plugged.folder / "loaded").unlink()
    answer = plugged.run("extract", "--cpu", "--force", FAULT="write:1:erofs")
    assert answer.code == 1
    assert "mounted read-only" in one_line(answer)
    assert not (plugged.folder / "loaded").exists()


@pytest.mark.parametrize(
    ("options", "after", "words"),
    [
        ("size=400k", ":", ["No space left on device", "0.0 MB are free", "the item being written takes 0.7 MB"]),
        ("size=20m,nr_inodes=12", ":", ["No space left on device", "no inodes are free"]),
        ("size=20m", "mount -o remount,ro features", ["Read-only file system", "mounted read-only"]),
    ],
    ids=["full", "no inodes", "read-only"],
)
def test_a_real_file_system_that_takes_no_more_is_named(
    plugged: Project, mounting: Mounting, options: str, after: str, words: list[str]
) -> None:
    add_tracks(plugged, dark=10)
    plugged.configure(TREE + PICTURES + "width=65536\n")
    (plugged.folder / "features").mkdir()
    make = f"{sys.executable} -c 'from aupipe.store import create_store; create_store(\"features\")'"
    run = f"{sys.executable} -c 'from aupipe.cli import main; main()' extract --cpu"
    script = f"mount -t tmpfs -o {options} none features && {make} && {after} && {run}"
    result = subprocess.run(
        mounting(script),
        cwd=plugged.folder, env=plugged.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    answer = Answer(result.returncode, result.stdout, result.stderr)
    assert answer.code == 1
    line = one_line(answer)
    assert all(word in line for word in [*words, "features"]), line
    assert (plugged.folder / "loaded").exists() == (after == ":")  # read-only is seen before workers start


def an_onnx_file(path: Path) -> bytes:
    """A network (1, 3, 32, 32) -> (1, 3)."""
    from onnx import TensorProto, helper

    source = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 32, 32])
    target = helper.make_tensor_value_info("means", TensorProto.FLOAT, [1, 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "means", [source], [target]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path.read_bytes()


@pytest.mark.parametrize(
    ("encoder", "code", "words"),
    [
        ('kind="onnx"\nweights="cut.onnx"\nsize_px=32', 12, ["cut.onnx", "does not open as an ONNX network"]),
        ('kind="onnx"\nweights="whole.onnx"\nsize_px=32\noutput="mean"', 2, ["no tensor 'mean'", "means"]),
        ('kind="onnx"\nweights="whole.onnx"\nsize_px=48', 2, ["'mine' cannot take in (1, 48, 48, 3)", "parameters"]),
        ('kind="arcface"\nweights="junk.pth"', 12, ["junk.pth"]),
        ('kind="arcface"\nweights="junk.safetensors"', 12, ["junk.safetensors"]),
        ('kind="timm"\nmodel="test_resnet.r160_in1k"\nweights="cut.pth"', 12, ["cut.pth"]),
    ],
)
def test_weights_that_cannot_be_used_stop_the_run_with_the_file_and_the_code(
    plugged: Project, encoder: str, code: int, words: list[str]
) -> None:
    import torch

    add_tracks(plugged, dark=10, dim=20)
    whole = an_onnx_file(plugged.folder / "whole.onnx")
    (plugged.folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    torch.save({"x.weight": torch.zeros(1000)}, plugged.folder / "x.pth")
    (plugged.folder / "cut.pth").write_bytes((plugged.folder / "x.pth").read_bytes()[:1500])
    for name in ("junk.pth", "junk.safetensors"):
        (plugged.folder / name).write_bytes(bytes(range(256)) * 4)
    plugged.configure(TREE + f'[[encoder]]\nname="mine"\nmodality="visual"\n{encoder}\n')
    answer = plugged.run("extract", "--cpu", AUPIPE_WEIGHTS=str(plugged.folder))
    assert answer.code == code, answer.err
    line = one_line(answer)
    assert all(word in line for word in words), line


def test_an_encoder_that_does_not_load_stops_the_run_and_fails_no_recording(plugged: Project) -> None:
    add_tracks(plugged, dark=10, dim=20)
    plugged.configure(TREE + PICTURES)
    answer = plugged.run("extract", "--cpu", FAIL="does not load")
    assert answer.code == 1
    assert one_line(answer).endswith(
        "encoder 'mine' of the package faulty cannot be loaded: RuntimeError: the driver is too old for this"
    )
    assert plugged.run("extract", "--cpu").code == 0


def test_too_little_memory_to_start_is_said(plugged: Project) -> None:
    add_tracks(plugged, dark=10)
    plugged.configure(TREE + PICTURES)
    result = subprocess.run(
        ["sh", "-c", f"ulimit -v 600000; {sys.executable} -c 'from aupipe.cli import main; main()' extract --cpu"],
        cwd=plugged.folder, env=plugged.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    answer = Answer(result.returncode, result.stdout, result.stderr)
    assert answer.code == 1
    assert "too little memory" in one_line(answer)


# What kills or holds up a worker ---------------------------------------------------------------------------------


def test_a_crash_in_sound_costs_no_visual_feature_and_the_reverse(plugged: Project) -> None:
    for name, tone in (("loud.mp4", 300.0), ("silent.mp4", None)):
        write_video(plugged.folder / "videos" / name, frames=6, tone_hz=tone)
    plugged.configure('[faces]\ndetector="none"\n' + PICTURES + SOUND)
    options = ("extract", "--cpu", "--on-missing-audio", "mask")
    answer = plugged.run(*options, FAIL="SIGSEGV")
    assert answer.code == 3
    assert failed_lines(answer) == ["FAILED  loud.mp4  heard: loud.mp4: the worker process died on SIGSEGV"]
    assert "done 3 " in answer.out
    again = plugged.run(*options, "--retry-failed")
    assert (again.code, "done 1 " in again.out) == (0, True)


def test_a_crash_in_pictures_costs_no_sound(plugged: Project) -> None:
    write_video(plugged.folder / "videos" / "bright.mp4", frames=60, tone_hz=None)  # frame 45 on is brighter than 100
    plugged.configure('[faces]\ndetector="none"\n' + PICTURES + SOUND)
    answer = plugged.run("extract", "--cpu", "--on-missing-audio", "mask", "--batch-size", "1", FAIL="SIGABRT")
    assert answer.code == 3
    assert failed_lines(answer) == ["FAILED  bright.mp4  mine: bright.mp4: the worker process died on SIGABRT"]
    assert "done 1 " in answer.out


def test_workers_that_die_on_every_video_stop_the_run_and_fail_nobody(plugged: Project) -> None:
    add_tracks(plugged, **{f"bright{number}": 200 for number in range(6)})
    plugged.configure(TREE + PICTURES)
    answer = plugged.run("extract", "--cpu", FAIL="SIGKILL")
    assert answer.code == 1
    line = one_line(answer)
    assert "died on SIGKILL" in line
    assert "none is marked failed" in line
    status = plugged.run("status", "--failed")
    assert "bright" not in status.out
    again = plugged.run("extract", "--cpu")  # nothing to retry: nothing had failed
    assert (again.code, "done 6 " in again.out) == (0, True)


def test_a_read_that_never_returns_fails_its_video_by_name_and_the_others_end(plugged: Project) -> None:
    for name in ("a.mp4", "stuck.mp4", "z.mp4"):
        write_video(plugged.folder / "videos" / name, frames=6)
    plugged.configure('[faces]\ndetector="none"\n' + PICTURES)
    answer = plugged.run("extract", "--cpu", "--stall-timeout", "5", HANG="stuck")
    assert answer.code == 3, answer.err
    (line,) = failed_lines(answer)
    assert line.startswith("FAILED  stuck.mp4  mine: stuck.mp4: decode: no progress for ")
    assert "done 2 " in answer.out
    assert "tried once more" not in answer.err  # its neighbours ended where they were
    again = plugged.run("extract", "--cpu", "--retry-failed")
    assert (again.code, "done 1 " in again.out) == (0, True)


@pytest.mark.parametrize("kind", ["holds the GIL", pytest.param("sleeps", marks=pytest.mark.slow)])
def test_an_encoder_that_never_returns_fails_the_video_on_which_it_does(plugged: Project, kind: str) -> None:
    add_tracks(plugged, dark=10, bright=200, dim=20)
    plugged.configure(TREE + PICTURES)
    answer = plugged.run("extract", "--cpu", "--stall-timeout", "5", "--batch-size", "1", FAIL=kind)
    assert answer.code == 3, answer.err
    (line,) = failed_lines(answer)
    assert line.startswith("FAILED  bright  mine: bright: ")
    assert ("stood still" if kind == "holds the GIL" else "encode: no progress") in line
    assert "done 2 " in answer.out


@pytest.mark.slow
def test_sound_that_never_ends_costs_no_visual_feature(plugged: Project) -> None:
    for name, tone in (("loud.mp4", 300.0), ("silent.mp4", None)):
        write_video(plugged.folder / "videos" / name, frames=6, tone_hz=tone)
    plugged.configure('[faces]\ndetector="none"\n' + PICTURES + SOUND)
    answer = plugged.run("extract", "--cpu", "--on-missing-audio", "mask", "--stall-timeout", "6", FAIL="sleeps")
    assert answer.code == 3, answer.err
    (line,) = failed_lines(answer)
    assert line.startswith("FAILED  loud.mp4  heard: loud.mp4: sound: no progress for ")
    assert "done 3 " in answer.out
