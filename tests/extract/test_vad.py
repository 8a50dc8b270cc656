"""Speech is found where people speak."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from aupipe.config import EncoderConfig
from aupipe.demo.corpus import synthesise_audio
from aupipe.errors import WeightsMissingError
from aupipe.extract.encoders import TimeSeries, build_encoder
from aupipe.extract.encoders.audio.vad import spoken_spans
from aupipe.extract.nets.silero import Silero, adapt_state_dict
from aupipe.types import Waveform
from tests.made import read_audio, recording_plans

torch.set_num_threads(1)


def vad(**params):
    return build_encoder(EncoderConfig("v", "vad", "audio", params))


def speech_column(assets: Path) -> dict[str, float]:
    """Clip -> the share of speech its README states."""
    found = {}
    for line in (assets / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        said = re.search(r"speech (\d+)%", line)
        if said and "." in cells[1]:
            found[cells[1]] = int(said[1]) / 100
    return found


def assert_share(assets: Path, name: str, share: float) -> None:
    wave = read_audio(assets / "videos" / name, 16000)
    spans = spoken_spans(vad(weights=str(assets / "weights" / "silero_vad_16k.safetensors")).load("cpu")(wave))
    assert np.diff(spans, axis=1).sum() / wave.duration_s == pytest.approx(share, abs=0.1)


@pytest.mark.assets
def test_the_share_of_speech_is_the_one_stated_for_every_clip(assets: Path) -> None:
    column = speech_column(assets)
    assert len(column) >= 16
    for name, share in column.items():
        assert_share(assets, name, share)


@pytest.mark.parametrize("number", [0, 1])
def test_drawn_people_are_heard_where_they_talk(number: int) -> None:
    plan = recording_plans(seed=5, seconds=4.0)[number]
    sound = synthesise_audio(plan)
    wave = Waveform(np.concatenate([np.zeros(32000, np.float32), sound, np.zeros(32000, np.float32)]), 16000, 1.0)
    spans = spoken_spans(vad().load("cpu")(wave))
    loud = np.flatnonzero(plan.tracks[0].motion.voice > 0.2) / 25 + 3.0  # two seconds of silence, from 1.0 on
    assert spans[0, 0] == pytest.approx(loud[0], abs=0.1)
    assert spans[-1, 1] == pytest.approx(loud[-1] + 0.04, abs=0.25)
    heard = np.any([(loud > start) & (loud < end) for start, end in spans], axis=0)
    assert heard.mean() > 0.9
    assert len(spoken_spans(vad().load("cpu")(Waveform(np.zeros(48000, np.float32), 16000)))) == 0


@pytest.mark.assets
def test_speech_begins_and_ends_with_the_words(assets: Path) -> None:
    wave = read_audio(assets / "videos" / "grid_swwp2s_speech.mpg", 16000)
    spans = spoken_spans(vad(weights=str(assets / "weights" / "silero_vad_16k.safetensors")).load("cpu")(wave))
    # The alignment's frames, "set" to "soon"; the file's clock begins where its sound does.
    assert spans[0, 0] - wave.start_s == pytest.approx(12250 / 25000, abs=0.3)
    assert spans[-1, 1] - wave.start_s == pytest.approx(55250 / 25000, abs=0.3)


def test_the_network_is_sileros_own() -> None:
    """With the weights of the package's TorchScript model it gives what that model gives, chunk by chunk."""
    package = pytest.importorskip("silero_vad")
    with pytest.warns(FutureWarning):
        model = package.load_silero_vad()
    names = {
        "stft.forward_basis_buffer": "stft_conv.weight",
        "decoder.rnn.": "lstm_cell.",
        "decoder.decoder.2.": "final_conv.",
        **{f"encoder.{i}.reparam_conv.": f"conv{i + 1}." for i in range(4)},
    }
    state = {}
    for key, value in model.state_dict().items():
        for theirs, ours in names.items():
            if key.startswith(f"_model.{theirs}"):
                state[ours + key.removeprefix(f"_model.{theirs}")] = value
    network = Silero().eval()
    network.load_state_dict(adapt_state_dict(state))
    rng = np.random.default_rng(0)
    sound = rng.standard_normal(16000) * 0.2 * np.abs(np.sin(np.arange(16000) / 1500))
    samples = torch.from_numpy(sound.astype(np.float32))
    with torch.inference_mode():
        found = network(samples)
        padded = torch.nn.functional.pad(samples, (0, -len(samples) % 512))
        expected = [model(padded[i : i + 512], 16000).item() for i in range(0, len(padded), 512)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_long_sound_is_judged_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = vad().load("cpu")
    wave = Waveform((np.random.default_rng(0).standard_normal(48000) * 0.1).astype(np.float32), 16000)
    whole = encode(wave).data
    monkeypatch.setattr("aupipe.extract.nets.silero.BLOCK", 7)
    np.testing.assert_allclose(encode(wave).data, whole, atol=1e-5)


def test_spans_follow_the_rules() -> None:
    def spans(text: str) -> list[list[int]]:
        """One letter per 32 ms: s speech, - silence, m in between; spans in rows, without padding."""
        values = np.array([{"s": 0.9, "-": 0.1, "m": 0.4}[letter] for letter in text], np.float32)
        track = TimeSeries(values[:, None], 5 + (np.arange(len(text)) + 0.5) * 0.032)
        return np.round((spoken_spans(track, pad_s=0.0) - 5) / 0.032).astype(int).tolist()

    assert spans("-" * 20) == []
    assert spans("--" + "s" * 10 + "-" * 10) == [[2, 12]]
    assert spans("--sssssss-----") == []  # 7 rows are 224 ms
    assert spans("--ssssssss-----") == [[2, 10]]  # 8 rows are 256 ms
    assert spans("ssssss---ssssss") == [[0, 15]]  # a pause of 96 ms
    assert spans("ssssssssss----------ssssssssss") == [[0, 10], [20, 30]]
    assert spans("ssssssmmmmmmmmssss") == [[0, 18]]  # not silent enough to end it


def test_without_the_package_and_without_a_file_both_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsMissingError, match=r"silero_vad_16k\.safetensors.*pip install 'silero-vad"):
        vad().identify_weights()


def test_random_weights_are_seeded_and_said_to_be_random() -> None:
    wave = Waveform(np.linspace(-0.5, 0.5, 8000, dtype=np.float32), 16000)
    first, second = (vad(weights="random").load("cpu")(wave).data for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert vad(weights="random").identify_weights().name.startswith("random:0:")
