"""Files of every container, codec, pixel format, frame rate and kind of sound are read as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.media_matrix import CASES, Case, examine, run, write

MAIN = """
mp4 libx264 yuv420p 25 aac 48000 stereo
mp4 libx264 yuv420p 25 aac 48000 mono start=0.5 sound=0.25
mp4 libx264 yuv420p 0.2 aac 48000 mono
mov prores_ks yuva444p10le 24 pcm_s16le 48000 stereo
mov libx264 yuv420p 25 pcm_mulaw 8000 mono
mkv libx264 yuv420p 25 ac3 48000 5.1
mkv libx264 yuv420p 240 flac 48000 mono
mkv libx264 yuv420p 25 wavpack 96000 stereo
mkv ffv1 gray16le 25 flac 48000 mono
webm libvpx-vp9 yuv420p 25 libopus 48000 mono vfr
avi mpeg4 yuv420p 25 pcm_s16le 16000 mono
ts libx264 yuv420p 25 aac 48000 mono sound=0.5
mpg mpeg2video yuv420p 29.97 ac3 48000 stereo
flv flv yuv420p 25 libmp3lame 44100 stereo
ogv libvpx yuv420p 25 libopus 48000 stereo
3gp h263 yuv420p 15 libopencore_amrnb 8000 mono
wmv wmv2 yuv420p 25 wmav2 44100 stereo
"""


@pytest.mark.parametrize("line", MAIN.strip().splitlines())
def test_a_file_has_its_rows_pictures_times_and_sound(tmp_path: Path, line: str) -> None:
    assert line in CASES
    case = Case(line)
    found = examine(case, write(case, tmp_path))
    assert found.misses(case) == [], found


@pytest.mark.slow
def test_all_files_of_the_matrix_are_read_as_written_or_a_reason_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = CASES.strip().splitlines()
    assert run([Case(line) for line in lines], tmp_path) == 0
    said = capfd.readouterr().out
    assert int(said.splitlines()[-1].split()[0]) >= 120, said
