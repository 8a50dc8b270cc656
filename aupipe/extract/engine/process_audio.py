"""Sound and words of a video: read, encoded, resampled to the frames, published."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.encoders import AudioInput, WordsInput
from aupipe.extract.encoders.frame_alignment import masked_blocks, resampled_blocks
from aupipe.extract.engine.job_context import JobContext, OpenItem, failing_alone
from aupipe.extract.engine.resources import Resources
from aupipe.extract.engine.scan_video import SOUND
from aupipe.extract.limits import SOUND_REACH_S
from aupipe.extract.media.audio import NoAudioError, read_audio_and_report
from aupipe.extract.media.clock import length_of
from aupipe.extract.media.report import MediaReport
from aupipe.extract.media.transcript import NoTranscriptError, spoken_words
from aupipe.types import AS_PLAYED

if TYPE_CHECKING:
    from aupipe.extract.media.report import MediaReport
    from aupipe.extract.media.transcript import Transcript
    from aupipe.types import StreamChoice, Waveform

    Sounds = dict[tuple[AudioInput | WordsInput, float], tuple[Waveform | Transcript, MediaReport | None]]


def process_audio(context: JobContext, resources: Resources, clock: NDArray[np.float64]) -> None:
    """Audio and text features of a video, on its clock (T,).

    Sound is decoded once per sample rate and reach beyond the last frame, the transcript read once. It is encoded and
    resampled to the frames in blocks; what is longer than memory should hold lies in temporary files.
    """
    read: Sounds = {}
    length_s, items, ended = length_of(clock), context.open_items(context.job.recordings, *SOUND), list[OpenItem]()

    def position() -> tuple[float, float]:
        return length_s * len(ended) / max(1, len(items)), length_s

    with resources.meter.phase(context.job.video_id, "sound", position):
        for item in items:
            with failing_alone(context, item):
                _process_item(context, resources, clock, item, read)
            ended.append(item)


def _process_item(
    context: JobContext, resources: Resources, clock: NDArray[np.float64], item: OpenItem, read: Sounds
) -> None:
    """One audio or text feature. ``read``: what others have read before."""
    recording, meter = context.job.recordings[0], resources.meter
    began_s = time.perf_counter()
    if recording.video is None:
        raise RecordingError(f"no {item.spec.modality}: {recording.id!r} is a folder of images without a video")
    reads = item.encoder.reads
    with meter.timed("load"):
        encode = resources.models.encoder(item.spec, item.encoder).encode
    with meter.timed("sound", len(clock)):
        try:
            until_s = math.inf
            if isinstance(reads, AudioInput):
                until_s = float(clock[-1]) + getattr(item.encoder, "reach_s", SOUND_REACH_S)
            key = reads, until_s
            if key not in read:
                read[key] = read_sound(recording.video, reads, until_s, recording.streams)
            content, report = read[key]
            if report is not None:
                context.note_media("audio", report)
            blocks = resampled_blocks(encode(content), clock, item.encoder)
        except (NoAudioError, NoTranscriptError) as error:
            features = context.features
            is_sound = isinstance(error, NoAudioError)
            if not (features.mask_missing_audio if is_sound else features.mask_missing_text):
                raise
            what = "no audio stream" if is_sound else "no transcript"
            context.note_media("audio" if is_sound else "text", MediaReport(absent=what))
            blocks = masked_blocks(item.encoder, encode, clock)
    with meter.timed("write"):
        context.publish(item.recording, item.spec, blocks, len(clock), began_s)


def read_sound(
    video: Path, reads: AudioInput | WordsInput, until_s: float, streams: StreamChoice = AS_PLAYED
) -> tuple[Waveform | Transcript, MediaReport | None]:
    """What an audio or text encoder reads of a video, and what decoding it found."""
    if isinstance(reads, AudioInput):
        return read_audio_and_report(video, reads.sample_rate, until_s, streams)
    return spoken_words(video, streams=streams), None
