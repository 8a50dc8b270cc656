"""Workers die alone, plug-ins come along, and damage stops nobody else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aupipe.demo import DemoCorpus
from tests.cli.conftest import HOG, LEVEL, NO_FACES, Project, install_plugin
from tests.conftest import THREADS, write_video
from tests.made import write_talking

# An encoder somebody else wrote: it takes its process down on bright pictures.
POISON = """
import os, signal
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from aupipe.extract.imaging.templates import CropTemplate

@dataclass(frozen=True)
class Poison:
    modality: ClassVar[str] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self):
        return CropTemplate(112)

    def identify_weights(self):
        return None

    def load(self, device):
        def encode(crops):
            if crops.mean() > 60 and os.environ.get("POISON"):
                os.kill(os.getpid(), getattr(signal, os.environ["POISON"]))
            import cv2, torch
            threads = [torch.get_num_threads(), cv2.getNumThreads(), int(os.environ["OMP_NUM_THREADS"])]
            return np.tile(np.array(threads, np.float32), (len(crops), 1))
        return encode
"""


@pytest.fixture
def poisoned(project: Project) -> Project:
    """A project with the plug-in installed and one bright and two dark aligned tracks."""
    site = project.folder / "site"
    install_plugin(site, "poison", POISON, poison="Poison")
    project.environment["PYTHONPATH"] = str(site)
    import cv2
    import numpy as np

    for name, grey in (("dark", 10), ("bright", 200), ("dim", 20)):
        folder = project.folder / "tree" / "cropped_aligned" / name
        folder.mkdir(parents=True)
        for number in range(1, 40):
            cv2.imwrite(str(folder / f"{number:05d}.png"), np.full((112, 112, 3), grey, np.uint8))
    project.configure(
        '[dataset]\nlayout="affwild2"\nroot="tree"\nframes="cropped_aligned"\nfps=25.0\n'
        '[[encoder]]\nname="hog"\nkind="hog"\nmodality="visual"\n'
        '[[encoder]]\nname="mine"\nkind="poison"\nmodality="visual"\n'
    )
    return project


def test_a_video_that_takes_its_worker_down_is_failed_by_name_and_the_others_are_finished(poisoned: Project) -> None:
    answer = poisoned.run("extract", "--cpu", POISON="SIGKILL")
    assert answer.code == 3
    assert "done 4 " in answer.out
    failed = [line for line in answer.out.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert failed[0].startswith("FAILED  bright  hog, mine: ")
    assert "died on SIGKILL" in failed[0]
    assert "tried once more" in answer.err
    assert poisoned.run("store", "verify").code == 0
    again = poisoned.run("extract", "--cpu", "--retry-failed")
    assert again.code == 0
    assert "done 2 " in again.out


def test_a_plugin_is_listed_and_works_and_libraries_run_one_thread_each_beside_it(poisoned: Project) -> None:
    """Trap: their own threads fight with the stages' for the cores."""
    from aupipe.store import open_store

    for name in THREADS:  # of this test run
        poisoned.environment.pop(name)
    listed = poisoned.run("plugins")
    assert [line.split() for line in listed.out.splitlines() if "poison" in line] == [["poison", "poison"]]
    assert poisoned.run("extract", "--cpu").code == 0
    with open_store(poisoned.folder / "features") as store:
        assert (store["mine"]["bright"][:] == 1).all()


def test_workers_that_cannot_start_stop_the_run(poisoned: Project) -> None:
    (poisoned.folder / "site" / "cv2.py").write_text("raise SystemExit(7)\n")
    answer = poisoned.run("extract", "--cpu")
    assert answer.code == 1
    assert "could not start (exit code 7)" in answer.err


def test_a_damaged_input_fails_its_own_video_and_names_the_remedy(project: Project) -> None:
    for number, name in enumerate(("talk.mpg", "other.mp4")):
        write_talking(project.folder / "videos" / name, number, frames=16)
    project.configure(NO_FACES + HOG + LEVEL)
    assert project.run("extract", "--cpu", "--modality", "audio").code == 0
    clock = next((project.folder / "features").glob("clock@*/items/*/talk*/data/c.0"))
    clock.write_bytes(clock.read_bytes()[:-8])
    answer = project.run("extract", "--cpu")
    assert answer.code == 3
    assert "done 1 " in answer.out
    assert "aupipe store verify" in answer.out
    assert project.run("store", "verify", "--repair").code == 0
    assert project.run("extract", "--cpu", "--retry-failed").code == 0


def test_force_limit_and_fail_fast_do_what_they_say(project: Project) -> None:
    for number in range(3):
        write_video(project.folder / "videos" / f"{number}.mp4", frames=4, tone_hz=300)
    (project.folder / "videos" / "bad.mp4").write_text("text")
    project.configure(LEVEL)
    first = project.run("extract", "--cpu", "--limit", "2")
    assert (first.code, "done 2 " in first.out) == (0, True)
    forced = project.run("extract", "--cpu", "--limit", "2", "--force")
    assert (forced.code, "done 2 " in forced.out) == (0, True)
    fast = project.run("extract", "--cpu", "--fail-fast", "--workers", "1")
    assert fast.code == 3
    assert "bad.mp4" in fast.out


def test_a_video_without_sound_can_be_masked_instead_of_failed(project: Project) -> None:
    write_video(project.folder / "videos" / "silent.mp4", frames=7)
    project.configure(LEVEL)
    assert project.run("extract", "--cpu").code == 3
    answer = project.run("extract", "--cpu", "--retry-failed", "--on-missing-audio", "mask", "--json")
    assert answer.code == 0, answer.err
    item = next(row for row in answer.json() if row["message_type"] == "item" and row["feature"].startswith("level"))
    assert (item["frames"], item["valid_frames"]) == (7, 0)


def test_a_video_without_a_transcript_can_be_masked_instead_of_failed(project: Project) -> None:
    write_video(project.folder / "videos" / "talk.mp4", frames=7)
    (project.folder / "videos" / "talk.csv").write_text("frame, timestamp, AU01_r\n1, 0.0, 0.12\n")
    model = Path(__file__).parent.parent / "extract" / "models" / "tiny-roberta"
    project.configure(f'[[encoder]]\nname="words"\nkind="text"\nmodality="text"\nmodel="{model}"\nweights="random"\n')
    failed = project.run("extract", "--cpu")
    assert failed.code == 3
    assert "talk.mp4: no transcript beside it" in failed.out
    assert "talk.csv is none: no column 'word'" in failed.out
    answer = project.run("extract", "--cpu", "--retry-failed", "--on-missing-text", "mask", "--json")
    assert answer.code == 0, answer.err
    item = next(row for row in answer.json() if row["message_type"] == "item" and row["feature"].startswith("words"))
    assert (item["frames"], item["valid_frames"]) == (7, 0)


def test_features_whose_source_changed_are_not_trained_on(project: Project, corpus: DemoCorpus) -> None:
    tree = project.folder / "tree"
    shutil.copytree(corpus.root, tree)
    project.configure(f'[dataset]\nlayout="affwild2"\nroot="tree"\n{LEVEL}')
    assert project.run("extract", "--cpu").code == 0
    train = ("train", "--recipe", "baseline", "--set", "epochs=1")
    assert project.run(*train).code == 0
    shutil.copy(tree / "videos" / "demo-002.mp4", tree / "videos" / "demo-001.mp4")
    answer = project.run(*train)
    assert answer.code == 2
    assert "demo-001 (source changed)" in answer.err
