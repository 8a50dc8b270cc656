"""The file of an overlay, written without a store: times, and how sound lies among the pictures."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from aupipe.extract.faces.face_table import FaceTable
from aupipe.report.faces import RecordingFaces
from aupipe.report.overlay import write_overlay
from aupipe.types import FaceTrack, Recording
from tests.conftest import write_video


def nobody(times_s: np.ndarray) -> RecordingFaces:
    """Rows at these times, none of which shows a face."""
    track = FaceTrack.from_rows(np.full((len(times_s), 15), np.nan, np.float32))
    return RecordingFaces(times_s, track, FaceTable.from_dense(np.zeros((len(times_s), 1, 17), np.float32)))


def test_frames_at_one_time_are_all_in_the_overlay(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60)
    times_s = np.arange(60) / 25
    times_s[30:] -= 1 / 25  # rows 29 and 30 are shown at one time
    assert write_overlay(Recording("a", video=path), nobody(times_s), tmp_path / "o.mp4") == 60
    with av.open(str(tmp_path / "o.mp4")) as container:
        found = [frame.time for frame in container.decode(video=0)]
    assert len(found) == 60
    assert np.abs(np.array(found) - times_s).max() < 1e-3


def test_the_sound_of_an_overlay_lies_beside_its_pictures_in_the_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 500, tone_hz=440)
    write_overlay(Recording("a", video=path), nobody(np.arange(500) / 25), tmp_path / "o.mp4")
    with av.open(str(tmp_path / "o.mp4")) as container:
        packets = [packet for packet in container.demux() if packet.dts is not None]
        in_file = sorted(packets, key=lambda packet: packet.pos or 0)
        times_s = np.array([float(packet.dts * packet.time_base) for packet in in_file])
        assert {packet.stream.type for packet in packets} == {"video", "audio"}
        assert sum(packet.duration or 0 for packet in packets if packet.stream.type == "audio") >= 20 * 48_000
    assert np.abs(np.diff(times_s)).max() < 4  # seconds: the encoder of the pictures looks ahead
