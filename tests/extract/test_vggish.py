"""VGGish is the published front end and the published network."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from aupipe.config import EncoderConfig
from aupipe.errors import WeightsMissingError
from aupipe.extract.encoders import build_encoder
from aupipe.extract.nets.vggish import (
    VGGish,
    VGGishPCA,
    adapt_state_dict,
    cut_examples,
    log_mel_blocks,
    mel_matrix,
)
from aupipe.extract.nets.vggish import random_vggish as build_random
from aupipe.extract.weights.folder import import_weights
from aupipe.types import Waveform
from tests.made_checkpoint import save_checkpoint

torch.set_num_threads(1)

random_vggish = functools.cache(build_random)

KEYS = [f"features.{i}.{kind}" for i in (0, 3, 6, 8, 11, 13) for kind in ("weight", "bias")]
KEYS += [f"embeddings.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")]


@pytest.fixture(autouse=True)
def _built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """72 million random numbers take a second: the same network serves every test that asks for the same."""
    monkeypatch.setattr("aupipe.extract.nets.vggish.random_vggish", random_vggish)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(round(seconds * 16000)) * 0.1).astype(np.float32)


def log_mel_frames(sound: np.ndarray) -> torch.Tensor:
    """(n, 64) of sound (N,)."""
    samples = torch.as_tensor(sound)
    return torch.cat(list(log_mel_blocks(lambda start, stop: samples[start:stop], len(samples))))


def log_mel_examples(sound: np.ndarray) -> torch.Tensor:
    """(N, 1, 96, 64) of sound."""
    return cut_examples(log_mel_frames(sound))


def encoder(**params):
    return build_encoder(EncoderConfig("v", "vggish", "audio", {"weights": "random"} | params))


def test_three_and_a_half_seconds_are_348_frames_and_3_examples() -> None:
    sound = noise(3.5)
    assert log_mel_frames(sound).shape == (348, 64)
    examples = log_mel_examples(sound)
    assert examples.shape == (3, 1, 96, 64)
    assert examples.dtype == torch.float32
    torch.testing.assert_close(examples[1, 0], log_mel_frames(sound)[96:192])
    assert len(log_mel_examples(noise(1)[:15600])) == 1
    assert len(log_mel_examples(noise(1)[:15599])) == 0


def test_a_frame_is_the_spectrum_the_paper_says() -> None:
    sound = noise(0.2, seed=3)
    k = np.arange(400)
    cut = sound[160 * 5 : 160 * 5 + 400].astype(np.float64) * (0.5 - 0.5 * np.cos(2 * np.pi * k / 400))
    # The transform written out, and the filters band by band.
    angles = -2j * np.pi * np.outer(np.arange(257), k) / 512
    magnitude = np.abs(np.exp(angles) @ cut)
    mel = 1127 * np.log(1 + np.linspace(0, 8000, 257) / 700)
    edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    expected = []
    for band in range(64):
        triangle = np.interp(mel, edges[band : band + 3], [0, 1, 0], left=0, right=0)
        expected.append(np.log(triangle[1:] @ magnitude[1:] + 0.01))
    np.testing.assert_allclose(log_mel_frames(sound)[5], expected, atol=1e-6)


@pytest.mark.assets
def test_the_spectrum_of_speech_is_googles_own(assets: Path) -> None:
    """YAMNet's front end is VGGish's but for a floor of 0.001; its reference patch is shifted by a constant."""
    sound = np.fromfile(assets / "labels" / "yamnet_test_audio_16k_int16.bin", np.int16) / np.float32(32768)
    patch = np.fromfile(assets / "labels" / "yamnet_test_spectra_96x64_float32.bin", np.float32).reshape(96, 64)
    found = log_mel_frames(sound).numpy().astype(np.float64)
    difference = np.log(np.exp(found) - 0.01 + 0.001) - patch
    assert difference.mean() == pytest.approx(-1.412, abs=0.001)
    assert difference.std() < 0.02  # librosa's triangles, straight in Hz, give 0.32


def test_silence_is_the_floor_and_bands_peak_at_most_at_one() -> None:
    np.testing.assert_allclose(log_mel_frames(np.zeros(800, np.float32)), np.log(0.01), atol=1e-6)
    matrix = mel_matrix()
    assert matrix.shape == (257, 64)
    assert matrix[0].sum() == 0
    assert 0 <= float(matrix.min()) < float(matrix.max()) <= 1


def test_the_network_has_the_published_keys_and_size() -> None:
    with torch.device("meta"):
        network = VGGish()
    assert list(network.state_dict()) == KEYS
    assert sum(parameter.numel() for parameter in network.parameters()) == 72_141_184


def test_the_map_is_flattened_channels_last() -> None:
    network = random_vggish(0)
    seen = {}
    network.embeddings[0].register_forward_hook(lambda module, inputs, output: seen.update(flat=inputs[0]))
    with torch.inference_mode():
        examples = log_mel_examples(noise(1.0))
        found = network(examples)
        maps = network.features(examples)
    assert found.shape == (1, 128)
    for time, mel, channel in ((0, 0, 7), (5, 3, 511), (2, 1, 100)):
        assert seen["flat"][0, (time * 4 + mel) * 512 + channel] == maps[0, channel, time, mel]


def test_the_last_relu_is_an_option() -> None:
    with torch.inference_mode():
        examples = log_mel_examples(noise(1.0))
        raw, cut = random_vggish(0, "none")(examples), random_vggish(0)(examples)
    assert (raw < 0).any()
    torch.testing.assert_close(cut, raw.clamp(min=0))


def test_the_whitening_is_the_published_formula() -> None:
    rng = np.random.default_rng(0)
    vectors, means = rng.standard_normal((128, 128)).astype(np.float32) * 0.1, rng.standard_normal(128).astype("f4")
    pca, cut = VGGishPCA(), VGGishPCA("truncate")
    state = {"pca_eigen_vectors": torch.from_numpy(vectors), "pca_means": torch.from_numpy(means)}
    for module in (pca, cut):
        module.load_state_dict(state)
    x = rng.standard_normal((3, 128)).astype(np.float32)
    expected = (np.clip((vectors @ (x - means).T).T, -2, 2) + 2) * 255 / 4
    np.testing.assert_allclose(pca(torch.from_numpy(x)), np.round(expected), atol=1.001)
    assert (np.abs(pca(torch.from_numpy(x)).numpy() - expected) <= 0.501).all()
    np.testing.assert_array_equal(cut(torch.from_numpy(x)), np.floor(expected))
    assert pca(torch.from_numpy(x[:1])).shape == (1, 128)


def test_rows_are_timed_at_the_middle_of_what_they_hear_and_the_last_ends_with_the_sound() -> None:
    wave = Waveform(noise(3.5), 16000, 2.0)
    dropped, kept = encoder(tail="drop").load("cpu")(wave), encoder().load("cpu")(wave)
    np.testing.assert_allclose(dropped.times_s, 2.4875 + 0.96 * np.arange(3))
    np.testing.assert_allclose(kept.times_s, [*dropped.times_s, 2 + (348 - 96) * 0.01 + 0.4875])
    np.testing.assert_allclose(kept.data[:3], dropped.data, atol=1e-5)
    assert not np.allclose(kept.data[3], kept.data[2])
    short_hop = encoder(hop_s=0.05).load("cpu")(Waveform(noise(1.5), 16000))
    np.testing.assert_allclose(np.diff(short_hop.times_s)[:-1], 0.05)


def test_weights_come_from_a_file_under_either_ports_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    state = random_vggish(5).state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    wave = Waveform(noise(1.0), 16000)
    first = encoder(weights="mine.safetensors")
    theirs = {key.replace("embeddings.", "fc."): value for key, value in state.items()}
    assert list(theirs) != list(state)
    assert list(adapt_state_dict(theirs)) == list(adapt_state_dict(state)) == list(state)
    with torch.inference_mode():
        expected = random_vggish(5)(log_mel_examples(wave.samples))
    np.testing.assert_allclose(first.load("cpu")(wave).data[:1], expected, rtol=1e-4, atol=1e-5)
    assert first.identify_weights().name == "mine.safetensors"
    save_file({"features.0.weight": state["features.0.weight"]}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsMissingError, match=r"missing: features\.0\.bias"):
        encoder(weights="part.safetensors").load("cpu")


def test_missing_and_damaged_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissingError, match=r"vggish-10086976\.pth.*torchvggish"):
        build_encoder(EncoderConfig("v", "vggish", "audio")).identify_weights()
    (tmp_path / "vggish-10086976.pth").write_bytes(b"half a download")
    with pytest.raises(WeightsMissingError, match="expected 10086976"):
        build_encoder(EncoderConfig("v", "vggish", "audio")).identify_weights()


@pytest.mark.parametrize("kind", ["npz", "pth"])
def test_the_whitening_file_is_read_without_running_pickles(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    arrays = {"pca_eigen_vectors": np.eye(128) * 0.5, "pca_means": rng.standard_normal((128, 1))}
    path = tmp_path / f"pca.{kind}"
    np.savez(path, **arrays) if kind == "npz" else save_checkpoint(arrays, path)
    rows = encoder(pca=str(path)).load("cpu")(Waveform(noise(1.0), 16000)).data
    raw = encoder().load("cpu")(Waveform(noise(1.0), 16000)).data
    expected = (np.clip((raw - arrays["pca_means"][:, 0]) * 0.5, -2, 2) + 2) * 255 / 4
    np.testing.assert_allclose(rows, expected, atol=0.51)
    assert encoder(pca=str(path)).identify_weights() != encoder().identify_weights()
    torch.save({"pca_means": np.zeros(1), "code": os.getcwd}, tmp_path / "evil.pth")
    for attempt in (lambda path: encoder(pca=str(path)).load("cpu"), import_weights):
        with pytest.raises(WeightsMissingError, match=r"evil\.pth"):
            attempt(tmp_path / "evil.pth")


@pytest.mark.slow
def test_known_answers_where_the_published_weights_are_at_hand(tmp_path: Path) -> None:
    folder = os.environ.get("AUPIPE_TEST_WEIGHTS")
    if not folder:  # random weights have no known answers; what the network computes is tested without them above
        pytest.skip(
            "only the published weights give these answers: 288 MB of somebody else's, which are no part of the "
            "project and which no test downloads. Put vggish-10086976.pth into a folder and set AUPIPE_TEST_WEIGHTS to "
            "it; the spectrum, the order of the map and the whitening are tested without them above, everywhere"
        )
    assert (Path(folder) / "vggish-10086976.pth").is_file(), f"{folder}, which AUPIPE_TEST_WEIGHTS names, has them not"
    imported = import_weights(Path(folder) / "vggish-10086976.pth", folder=tmp_path)
    sine = np.sin(2 * np.pi * 1000 * np.arange(48000) / 16000).astype(np.float32)
    for activation, mean, std in (("none", 0.000657, 0.343), ("relu", 0.131, 0.238)):
        config = {"weights": str(imported), "activation": activation, "tail": "drop"}
        rows = encoder(**config).load("cpu")(Waveform(sine, 16000)).data
        assert (rows.mean(), rows.std()) == (pytest.approx(mean, abs=0.002), pytest.approx(std, abs=0.002))
