"""Whisper's encoder over sound of any length: windows of 30 s, of which the middles are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aupipe.errors import UsageError
from aupipe.extract.encoders.audio.sliding import slide
from aupipe.extract.encoders.audio.taps import SpeechSettings, Tap
from aupipe.extract.encoders.base import Encode, ShapedEncode, TimeSeries
from aupipe.extract.encoders.pretrained import settings
from aupipe.extract.media.long_arrays import cut
from aupipe.local_models import model_folder
from aupipe.types import Waveform

HOP = 320  # samples per row: 160 per mel frame, two mel frames per row
BATCH = {"cpu": 1, "cuda": 16}  # windows at a time


def whisper_encoder(speech: SpeechSettings, network: Any, device: str, dtype: torch.dtype) -> Encode:
    """The encode function of a Whisper model; its decoder is dropped."""
    from transformers import WhisperFeatureExtractor

    if speech.tap == "extract_features":
        raise UsageError(f"{speech.model}: Whisper has no extract_features; use last_hidden, layer or mean")
    encoder = network.encoder.to(device=device, dtype=dtype)
    tap = Tap(encoder, speech.tap, speech.layer)
    length = encoder.config.max_source_positions  # rows of a window: 1500
    context = round(speech.context_s * 16000 / HOP)
    if length <= 2 * context:
        raise UsageError(f"{speech.model}: a window is {length * 0.02} s, too short for context_s = {speech.context_s}")
    said = settings(model_folder(speech.model), "preprocessor_config.json")
    log_mel = WhisperFeatureExtractor(
        feature_size=encoder.config.num_mel_bins,
        n_fft=said.get("n_fft", 400),
        hop_length=160,
        chunk_length=length * HOP // 16000,
    )
    batch = BATCH["cuda" if device.startswith("cuda") else "cpu"]

    def encode(waveform: Waveform) -> TimeSeries:
        samples = waveform.samples
        rows = max(1, -(-len(samples) // HOP))

        def compute(starts: list[int]) -> Any:
            # Beyond the end is silence, as Whisper was trained; those rows are not kept.
            cuts = [cut(samples, start * HOP, (start + length) * HOP) for start in starts]
            mel = log_mel(cuts, sampling_rate=16000, return_tensors="pt").input_features.to(device=device, dtype=dtype)
            return tap.take(encoder(mel).last_hidden_state).cpu().numpy()

        with torch.inference_mode():
            data = slide(rows, length, context, batch, compute)
        times = waveform.start_s + np.arange(rows, dtype=np.float64) * (HOP / 16000)
        return TimeSeries(data, times, 400 / 16000)

    return ShapedEncode(encode, (encoder.config.d_model,))
