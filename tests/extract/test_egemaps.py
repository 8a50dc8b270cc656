"""eGeMAPS are openSMILE's, at the times they were heard, and their absence is said before anything is decoded."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.config import EncoderConfig
from aupipe.errors import UsageError
from aupipe.extract.encoders import build_encoder
from aupipe.types import Waveform


def egemaps():
    return build_encoder(EncoderConfig("e", "egemaps", "audio"))


def test_without_opensmile_planning_stops_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'aupipe\[egemaps\]'.*no commercial"):
        egemaps().identify_weights()


def test_rows_are_opensmiles_25_descriptors_and_a_click_is_at_its_time() -> None:
    pytest.importorskip("opensmile")
    samples = np.zeros(48000, np.float32)
    samples[16000:16160] = 0.5 * np.sin(np.arange(160) * 0.6)
    track = egemaps().load("cpu")(Waveform(samples, 16000, 4.0))
    assert track.data.shape == (296, 25)
    assert track.times_s[np.argmax(track.data[:, 0])] == pytest.approx(5.005, abs=0.011)
    np.testing.assert_allclose(track.times_s, 4.01 + 0.01 * np.arange(296))
