"""Whisper: what is said in a video, word by word, with times."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError, UsageError
from aupipe.extract.encoders.audio.vad import Vad, spoken_spans
from aupipe.extract.encoders.pretrained import identify_model, load_model, settings
from aupipe.extract.media.long_arrays import cut
from aupipe.extract.media.transcript import Transcript, write_transcript
from aupipe.extract.media.transcripts.word_times import Piece, timed_words
from aupipe.local_models import model_folder
from aupipe.types import AS_PLAYED, StreamChoice, Waveform, Weights

log = logging.getLogger(__name__)

PIECE_S = 28.0  # Whisper takes 30 s at a time: what a piece leaves is silence


@dataclass(frozen=True)
class Whisper:
    """Words with times from a Whisper model of `transformers`, on the video's clock.

    Only what Silero VAD takes for speech is recognised: Whisper invents words for silence and music. Speech is cut at
    pauses into pieces of at most 28 s, each recognised on its own, so memory does not grow with the video.
    ``model``: as for ``speech``; it needs ``alignment_heads`` in generation_config.json. ``language``: like ``"en"``;
    empty lets multilingual models decide piece by piece, and must stay empty for ``.en`` models.
    """

    model: str
    language: str = ""
    vad_threshold: float = 0.5
    precision: Literal["float32", "float16", "bfloat16"] = "float32"

    version: ClassVar[int] = 1

    def identify_weights(self) -> Weights:
        return identify_model(self.model, "pretrained")

    def load(self, device: str) -> Callable[[Waveform], Transcript]:
        """The function that recognises a 16 kHz waveform. Raises WeightsMissingError, UsageError."""
        import torch
        from transformers import AutoFeatureExtractor, AutoTokenizer, WhisperForConditionalGeneration, pipeline

        folder = model_folder(self.model)
        if not settings(folder, "generation_config.json").get("alignment_heads"):
            raise UsageError(
                f"{self.model}: its generation_config.json names no alignment_heads, without which words have no "
                "times; take the file of the Whisper model it was made from"
            )
        network = load_model(WhisperForConditionalGeneration, self.model, "pretrained")
        network = network.to(dtype=getattr(torch, self.precision))
        pipe = pipeline(
            "automatic-speech-recognition",
            model=network,
            tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True),
            feature_extractor=AutoFeatureExtractor.from_pretrained(folder, local_files_only=True),
            device=torch.device(device),
        )
        options = {"language": self.language, "task": "transcribe"} if self.language else {}
        speech_probability = Vad().load(device)

        def recognize(waveform: Waveform) -> Transcript:
            spans = spoken_spans(speech_probability(waveform), threshold=self.vad_threshold)

            def words(samples: NDArray[np.float32]) -> list[dict[str, Any]]:
                sound = {"raw": samples, "sampling_rate": waveform.sample_rate}
                found: Any = pipe(sound, return_timestamps="word", generate_kwargs=dict(options))
                return list(found["chunks"])

            return recognize_spans(waveform, spans, words)

        return recognize


def transcribe(
    video: Path, out: Path, recognize: Callable[[Waveform], Transcript], streams: StreamChoice = AS_PLAYED
) -> Transcript:
    """Recognise what is said in a video and write it to ``out``, where `spoken_words` reads it.

    Raises RecordingError ``no audio stream``, or when nothing can be decoded.
    """
    from aupipe.extract.media.audio import read_audio_and_report

    waveform, report = read_audio_and_report(video, 16000, streams=streams)
    for line in (*report.damage, *report.notes):
        log.warning("%s: %s", video, line)
    found = recognize(waveform)
    write_transcript(out, found)
    return found


@dataclass(frozen=True)
class Transcribed:
    """What came of a video: the number of its words, or why there are none."""

    words: int = 0
    failure: str = ""


@dataclass(frozen=True)
class Transcriber:
    """Writes the transcript of a video beside it; may be sent to another process, which loads the model once."""

    model: Whisper
    device: str
    streams: StreamChoice = AS_PLAYED

    def __call__(self, video: Path) -> Transcribed:
        """What came of a video. Raises WeightsMissingError, UsageError where the model cannot be used."""
        recognize = _loaded(self.model, self.device)
        try:
            return Transcribed(len(transcribe(video, video.with_suffix(".json"), recognize, self.streams)))
        except (RecordingError, UsageError) as error:  # UsageError: another process has written a transcript meanwhile
            return Transcribed(failure=str(error))


@cache
def _loaded(model: Whisper, device: str) -> Callable[[Waveform], Transcript]:
    return model.load(device)


def recognize_spans(
    waveform: Waveform,
    spans: NDArray[np.float64],
    words: Callable[[NDArray[np.float32]], list[dict[str, Any]]],
) -> Transcript:
    """The words of every piece of speech, each piece one utterance.

    ``words`` gives ``{"text", "timestamp": (start, end or None)}`` in seconds from the piece's beginning. Times beyond
    the piece, which Whisper gives now and then, are brought to its edges.
    """
    found: list[Piece] = []
    for utterance, (start_s, end_s) in enumerate(pieces(spans, PIECE_S)):
        first, last = (round((at - waveform.start_s) * waveform.sample_rate) for at in (start_s, end_s))
        for chunk in words(cut(waveform.samples, max(0, first), min(last, len(waveform.samples)))):
            begin, end = chunk["timestamp"]
            begin_s = min(start_s + (begin or 0.0), end_s)
            stop_s = end_s if end is None else min(start_s + end, end_s)
            found.append(Piece(chunk["text"], begin_s, stop_s, utterance, is_word=True))
    return Transcript(timed_words(found))


def pieces(spans: NDArray[np.float64], longest_s: float) -> Iterator[tuple[float, float]]:
    """Spans joined while they and the pauses between them fit into ``longest_s``; longer ones cut into equal parts."""
    joined: list[tuple[float, float]] = []
    for start, end in spans.tolist():
        if joined and end - joined[-1][0] <= longest_s:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    for start, end in joined:
        parts = max(1, int(np.ceil((end - start) / longest_s - 1e-9)))
        edges = np.linspace(start, end, parts + 1).tolist()
        yield from pairwise(edges)
