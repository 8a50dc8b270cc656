"""The level of the sound in dB of full scale, at the time it is heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe.config import Config, EncoderConfig
from aupipe.extract.encoders import build_encoder
from aupipe.extract.encoders.audio import level
from aupipe.extract.planning.features import build_feature_set
from aupipe.types import Recording, Waveform


def level_of(samples: np.ndarray, start_s: float = 0.0):
    return build_encoder(EncoderConfig("l", "level", "audio")).load("cpu")(Waveform(samples, 16000, start_s))


def test_a_sine_of_full_scale_has_3_db_less_than_a_constant_and_silence_the_floor() -> None:
    times = np.arange(16000) / 16000
    sine = np.sin(2 * np.pi * 1000 * times).astype(np.float32)
    for samples, expected in ((0 * sine + 1, 0.0), (sine, -3.0103), (sine / 10, -23.0103), (0 * sine, -100)):
        np.testing.assert_allclose(level_of(samples).data, expected, atol=0.01)
    assert level_of(np.zeros(3, np.float32)).data.shape == (1, 1)


def test_a_click_is_at_its_time_and_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).normal(0, 0.01, 48000).astype(np.float32)
    samples[32000:32160] = 0.9
    whole = level_of(samples, 4.0)
    assert whole.times_s[whole.data.argmax()] == pytest.approx(6.005, abs=0.02)
    monkeypatch.setattr(level, "BLOCK", 7)
    np.testing.assert_allclose(level_of(samples, 4.0).data, whole.data, rtol=1e-6)


def test_the_names_of_classes_are_no_part_of_a_feature_s_key() -> None:
    """Features of before, which had no names, are found by the same key."""
    network = Path(__file__).parent / "data" / "mean_colour.onnx"

    def spec(**params):
        encoders = (EncoderConfig("x", "onnx", "visual", {"weights": str(network), "size_px": 32, **params}),)
        return build_feature_set(Config(encoders=encoders)).graph(Recording("a.mp4", video=network)).named["x"]

    named = spec(classes=("a", "b", "c", "d", "e"))
    assert named.columns == ("a", "b", "c", "d", "e")
    assert named.key == spec().key != spec(channels="bgr").key
    assert "classes" not in named.params
