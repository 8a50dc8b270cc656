"""The stage for what was heard and said in a video. Knows nothing of threads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.encoders import AudioInput, WordsInput
from aupipe.extract.encoders.frame_alignment import masked_blocks, resampled_blocks
from aupipe.extract.engine.job_context import JobContext, failing_alone
from aupipe.extract.engine.process_video import SOUND, Stages
from aupipe.extract.limits import SOUND_REACH_S
from aupipe.extract.media.audio import NoAudioError, read_audio_and_report
from aupipe.extract.media.report import MediaReport
from aupipe.extract.media.transcript import Transcript, spoken_words
from aupipe.types import Waveform


def listen(run: JobContext, stages: Stages, clock: NDArray[np.float64]) -> None:
    """Audio and text features of a video: what was heard and said, brought to the frames.

    Sound is decoded once per sample rate and reach beyond the last frame, the transcript read once. It is encoded and
    brought to the frames in blocks; what is longer than memory should hold lies in temporary files.
    """
    recording = run.job.recordings[0]
    heard: dict[tuple[AudioInput | WordsInput, float], tuple[Waveform | Transcript, MediaReport | None]] = {}
    for item in run.open_items(run.job.recordings, *SOUND):
        with failing_alone(run, item):
            began = time.perf_counter()
            if recording.video is None:
                raise RecordingError(f"no {item.spec.modality}: {recording.id!r} is a folder of images without a video")
            reads = item.encoder.reads
            with stages.meter.timed("load"):
                encode, _ = run.loaded.encode(item.spec, item.encoder)
            with stages.meter.timed("sound", len(clock)):
                try:
                    until_s = math.inf
                    if isinstance(reads, AudioInput):
                        until_s = float(clock[-1]) + getattr(item.encoder, "reach_s", SOUND_REACH_S)
                    key = reads, until_s
                    if key not in heard:
                        heard[key] = _read(recording.video, reads, until_s)
                    content, report = heard[key]
                    if report is not None:
                        run.note_media("audio", report)
                    blocks = resampled_blocks(encode(content), clock, item.encoder)
                except NoAudioError:
                    if not run.loaded.parts.mask_missing_audio:
                        raise
                    blocks = masked_blocks(item.encoder, encode, clock)
            run.begin()
            stages.write(_publishing(run, item, blocks, len(clock), began))


def _publishing(
    run: JobContext, item: Any, blocks: Iterator[NDArray[Any]], frames: int, began_s: float
) -> Callable[[], None]:
    def publish() -> None:
        with failing_alone(run, item):
            run.publish(item.recording, item.spec, blocks, frames, began_s)
        run.end()

    return publish


def _read(
    video: Path, reads: AudioInput | WordsInput, until_s: float
) -> tuple[Waveform | Transcript, MediaReport | None]:
    if isinstance(reads, AudioInput):
        return read_audio_and_report(video, reads.sample_rate, until_s)
    return spoken_words(video), None
