"""Speech-like audio for a demo face: a periodic source filtered by moving formants."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE_HZ = 16_000


def synthesise_speech(
    rng: np.random.Generator, voice: np.ndarray, jaw: np.ndarray, vowel: np.ndarray, fps: int, pitch_hz: float
) -> np.ndarray:
    """Speech that follows a face: (N,) float32 in [-1, 1] at 16 kHz, N = frames / fps seconds.

    `voice`, `jaw` and `vowel` are (T,) in [0, 1], one value per video frame: the first formant follows the jaw, the
    second the vowel, loudness the voice.
    """
    samples = round(len(voice) * SAMPLE_RATE_HZ / fps)
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    frame_s = (np.arange(len(voice)) + 0.5) / fps

    def follow(values: np.ndarray) -> np.ndarray:
        return np.interp(time_s, frame_s, values)

    loud, open_jaw, place = follow(voice), follow(jaw), follow(vowel)
    tune = 1.0 + 0.08 * np.sin(2 * np.pi * time_s / 2.3 + rng.uniform(0, 6)) + 0.1 * loud
    f0_hz = pitch_hz * tune
    phase = 2 * np.pi * np.cumsum(f0_hz) / SAMPLE_RATE_HZ
    formants_hz = (300 + 550 * open_jaw, 850 + 1300 * place, 2500 + 300 * place)
    buzz = np.zeros(samples)
    for harmonic in range(1, int(3600 / pitch_hz)):
        tone_hz = harmonic * f0_hz
        gain = sum(
            level / (1.0 + ((tone_hz - formant_hz) / width_hz) ** 2)
            for formant_hz, width_hz, level in zip(formants_hz, (90, 120, 180), (1.0, 0.6, 0.25), strict=True)
        )
        buzz += gain * np.sin(harmonic * phase)
    breath = np.diff(rng.normal(size=samples), prepend=0.0)  # hiss, stronger where the mouth is hardly open
    sound = loud**1.5 * (0.9 * buzz / max(np.abs(buzz).max(), 1e-9) + 0.03 * (1.2 - open_jaw) * breath)
    return (0.5 * sound).astype(np.float32)


def background_noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Noise with a level between -68 and -55 dB: (N,) float32."""
    return (10 ** (rng.uniform(-68, -55) / 20) * rng.normal(size=samples)).astype(np.float32)
