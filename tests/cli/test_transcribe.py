"""`aupipe transcribe`: words beside the videos, where text encoders find them."""

from __future__ import annotations

from aupipe.extract.media.transcript import read_transcript
from tests.cli.conftest import Project
from tests.extract.test_transcript import save_tiny_whisper
from tests.made import spoken_s, write_talking

CONFIG = """
[dataset]
layout = "folder"
videos = "videos"
"""


def test_words_are_written_once_and_what_has_none_to_give_is_named(project: Project) -> None:
    videos = project.folder / "videos"
    write_talking(videos / "talk.mpg", frames=100)
    write_talking(videos / "silent.mp4", silent=True)
    write_talking(videos / "other.mp4")
    said = "word,start\nhello,0.5\n"
    (videos / "other.csv").write_text(said)
    save_tiny_whisper(project.folder / "whisper")
    project.configure(CONFIG)
    command = ("transcribe", "--cpu", "--model", project.folder / "whisper")
    answer = project.run(*command)
    assert answer.code == 3, answer.out + answer.err
    assert "silent.mp4: no audio stream" in answer.out
    found = read_transcript(videos / "talk.json")
    assert found.clock == "video"
    assert found.words
    start_s, end_s = spoken_s(videos / "talk.mpg")
    assert all(start_s <= word.start_s < end_s for word in found.words)
    assert sorted(path.name for path in videos.glob("*.json")) == ["talk.json"]
    assert (videos / "other.csv").read_text() == said
    (videos / "silent.mp4").unlink()
    again = project.run(*command)
    assert (again.code, again.out.strip()) == (0, "nothing to do: transcripts of 2 videos are there")
