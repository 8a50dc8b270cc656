"""The stage for what was heard and said in a video. Knows nothing of threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.clock import masked_frames, to_frames
from aupipe.extract.encoders import AudioInput, WordsInput
from aupipe.extract.encoders.text.transcript import Transcript, spoken_words
from aupipe.extract.job import Pass, failing_alone
from aupipe.extract.pipeline import SOUND, Stages
from aupipe.extract.sound import NoAudioError, read_audio
from aupipe.types import Waveform


def listen(run: Pass, stages: Stages, clock: NDArray[np.float64]) -> None:
    """Audio and text features of a video: what was heard and said, brought to the frames.

    Sound is decoded once per sample rate, the transcript read once.
    """
    recording = run.job.recordings[0]
    heard: dict[AudioInput | WordsInput, Waveform | Transcript] = {}
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
                    if reads not in heard:
                        heard[reads] = _hear(recording.video, reads)
                    rows = to_frames(encode(heard[reads]), clock, item.encoder)
                except NoAudioError:
                    if not run.loaded.parts.mask_missing_audio:
                        raise
                    rows = masked_frames(encode, reads, clock, item.encoder)
            run.begin()
            stages.write(_publishing(run, item, rows, began))


def _publishing(run: Pass, item: Any, rows: NDArray[Any], began_s: float) -> Callable[[], None]:
    def publish() -> None:
        with failing_alone(run, item):
            run.publish(item.recording, item.spec, [rows], len(rows), began_s)
        run.end()

    return publish


def _hear(video: Path, reads: AudioInput | WordsInput) -> Waveform | Transcript:
    return read_audio(video, reads.sample_rate) if isinstance(reads, AudioInput) else spoken_words(video)
