"""`aupipe transcribe`: words beside the videos, where text encoders find them."""

from __future__ import annotations

import shutil
from pathlib import Path

from aupipe.extract.encoders.text.transcript import read_transcript
from tests.cli.conftest import Project
from tests.extract.test_transcript import save_tiny_whisper

CONFIG = """
[dataset]
layout = "folder"
videos = "videos"
"""


def test_words_are_written_once_and_what_has_none_to_give_is_named(project: Project, assets: Path) -> None:
    videos = project.folder / "videos"
    for clip in ("grid_swwp2s_speech.mpg", "carphone_qcif_no_audio.mp4", "single_face_smile_mp3.mp4"):
        shutil.copy(assets / "videos" / clip, videos)
    said = "word,start\nhello,0.5\n"
    (videos / "single_face_smile_mp3.csv").write_text(said)
    save_tiny_whisper(project.folder / "whisper")
    project.configure(CONFIG)
    command = ("transcribe", "--cpu", "--model", project.folder / "whisper")
    answer = project.run(*command)
    assert answer.code == 3, answer.out + answer.err
    assert "carphone_qcif_no_audio.mp4: no audio stream" in answer.out
    found = read_transcript(videos / "grid_swwp2s_speech.json")
    assert found.clock == "video"
    assert found.words
    assert all(0.3 < word.start_s < 3 for word in found.words)
    assert sorted(path.name for path in videos.glob("*.json")) == ["grid_swwp2s_speech.json"]
    assert (videos / "single_face_smile_mp3.csv").read_text() == said
    (videos / "carphone_qcif_no_audio.mp4").unlink()
    again = project.run(*command)
    assert (again.code, again.out.strip()) == (0, "nothing to do: 2 videos have transcripts")


def test_a_model_that_is_not_here_is_named(project: Project, assets: Path) -> None:
    shutil.copy(assets / "videos" / "grid_swwp2s_speech.mpg", project.folder / "videos")
    project.configure(CONFIG)
    answer = project.run("transcribe", "--cpu", "--model", "openai/whisper-small")
    assert answer.code == 12
    assert "hf download openai/whisper-small" in answer.err
