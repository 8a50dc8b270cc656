"""Speech models: the rows are the model's own, at their times, whatever the length of the sound."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aupipe.config import EncoderConfig
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.contract import params_of
from aupipe.extract.encoders import build_encoder
from aupipe.extract.encoders.audio.sliding import moments, slices
from aupipe.types import FeatureSpec, Waveform

torch.set_num_threads(1)

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 16, 16, 16, 16, 24),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
FAMILIES = [
    ("hubert", "group"),
    ("hubert", "layer"),
    ("wav2vec2", "group"),
    ("wav2vec2", "layer"),
    ("wavlm", "group"),
    ("wavlm", "layer"),
]


def speech_like(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose loudness and colour change from second to second: chunks differ in their statistics."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(round(seconds * 16000))
    envelope = np.interp(
        np.arange(len(samples)) / 16000,
        np.arange(0, seconds + 1, 0.5),
        rng.uniform(0.01, 0.4, 400)[: len(np.arange(0, seconds + 1, 0.5))],
    )
    return (samples * envelope + 0.05).astype(np.float32)


def save(folder: Path, kind: str, norm: str, *, attention: bool = True, **preprocessor):
    """A tiny random model of a real class, saved as users have it; without attention every row hears a bounded time."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind, **SMALL, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer")
    torch.manual_seed(1)
    model = AutoModel.from_config(config).eval()
    if not attention:
        for layer in model.encoder.layers:
            torch.nn.init.zeros_(layer.attention.out_proj.weight)
            torch.nn.init.zeros_(layer.attention.out_proj.bias)
    model.save_pretrained(folder)
    content = {"do_normalize": True, "sampling_rate": 16000} | preprocessor
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return model


def speech(folder: Path, **params):
    return build_encoder(EncoderConfig("s", "speech", "audio", {"model": str(folder)} | params))


@pytest.mark.parametrize(("kind", "norm"), FAMILIES)
def test_a_clip_gives_what_the_model_gives_on_the_normalised_clip(tmp_path: Path, kind: str, norm: str) -> None:
    model = save(tmp_path, kind, norm)
    sound = speech_like(2.1)
    values = torch.from_numpy((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7))[None]
    with torch.inference_mode():
        expected = model(values).last_hidden_state[0]
    track = speech(tmp_path).load("cpu")(Waveform(sound, 16000, 0.5))
    np.testing.assert_allclose(track.data, expected, atol=1e-4)
    assert len(track.data) == 1 + (len(sound) - 400) // 320
    np.testing.assert_allclose(track.times_s, 0.5 + 0.0125 + 0.02 * np.arange(len(track.data)))


@pytest.mark.parametrize(("kind", "norm"), FAMILIES)
@pytest.mark.parametrize("tap", ["extract_features", "last_hidden"])
def test_chunks_leave_no_seam(tmp_path: Path, kind: str, norm: str, tap: str) -> None:
    """Convolutional features, and any model whose rows hear a bounded time, are the same whole and in chunks."""
    save(tmp_path, kind, norm, attention=False)
    wave = Waveform(speech_like(7.3), 16000)
    whole = speech(tmp_path, tap=tap).load("cpu")(wave)
    chunked = speech(tmp_path, tap=tap, chunk_s=2.0, context_s=0.5).load("cpu")(wave)
    np.testing.assert_allclose(chunked.data, whole.data, atol=1e-3)
    np.testing.assert_array_equal(chunked.times_s, whole.times_s)


def test_a_seam_would_show_without_context(tmp_path: Path) -> None:
    save(tmp_path, "hubert", "layer", attention=False)
    wave = Waveform(speech_like(7.3), 16000)
    whole = speech(tmp_path).load("cpu")(wave).data
    naive = speech(tmp_path, chunk_s=2.0, context_s=0.0).load("cpu")(wave).data
    assert np.abs(naive - whole).max() > 1e-2


@given(st.integers(1, 500), st.integers(1, 60), st.integers(0, 29))
def test_windows_keep_every_row_once_with_its_company(rows: int, length: int, context: int) -> None:
    if length <= 2 * context:
        with pytest.raises(ValueError, match="leaves nothing"):
            slices(rows, length, context)
        return
    windows = slices(rows, length, context)
    assert [row for w in windows for row in range(w.keep, w.keep_stop)] == list(range(rows))
    for window in windows:
        stop = min(window.start + length, rows)
        assert window.start >= 0
        assert window.keep - window.start >= (context if window.start > 0 else 0)
        assert stop - window.keep_stop >= (context if stop < rows else 0)


def test_taps_are_the_blocks_outputs(tmp_path: Path) -> None:
    model = save(tmp_path, "hubert", "layer")
    wave = Waveform(speech_like(1.0), 16000)
    states = []
    for layer in model.encoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: states.append(output))
    values = torch.from_numpy((wave.samples - wave.samples.mean()) / np.sqrt(wave.samples.var() + 1e-7))[None]
    with torch.inference_mode():
        hidden = model(values, output_hidden_states=True)
    states = [state[0] if isinstance(state, tuple) else state for state in states]
    for i in (1, 2, 3):
        found = speech(tmp_path, tap="layer", layer=i).load("cpu")(wave).data
        np.testing.assert_allclose(found, states[i - 1][0], atol=1e-4)
    np.testing.assert_allclose(
        speech(tmp_path, tap="layer", layer=0).load("cpu")(wave).data, hidden.hidden_states[0][0], atol=1e-4
    )
    np.testing.assert_allclose(
        speech(tmp_path, tap="mean").load("cpu")(wave).data, torch.stack(states).mean(dim=0)[0], atol=1e-4
    )
    # The last block's output is not the model's: a final norm follows in stable-norm models.
    last = speech(tmp_path).load("cpu")(wave).data
    with torch.inference_mode():
        normed = model.encoder.layer_norm(states[-1])[0]
    np.testing.assert_allclose(last, normed, atol=1e-4)
    with pytest.raises(UsageError, match="3 blocks"):
        speech(tmp_path, tap="layer", layer=4).load("cpu")


def test_extract_features_are_wav2vec2s_own(tmp_path: Path) -> None:
    model = save(tmp_path, "wav2vec2", "layer", do_normalize=False)
    wave = Waveform(speech_like(1.0), 16000)
    with torch.inference_mode():
        expected = model(torch.from_numpy(wave.samples)[None]).extract_features[0]
    found = speech(tmp_path, tap="extract_features").load("cpu")(wave).data
    assert found.shape == (49, 24)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_checkpoint_says_whether_sound_is_normalised(tmp_path: Path) -> None:
    save(tmp_path / "no", "wav2vec2", "layer", do_normalize=False)
    save(tmp_path / "yes", "wav2vec2", "layer", do_normalize=True)
    wave = Waveform(speech_like(1.0), 16000)
    rows = {name: speech(tmp_path / name).load("cpu")(wave).data for name in ("no", "yes")}
    assert np.abs(rows["no"] - rows["yes"]).max() > 1e-3
    forced = speech(tmp_path / "no", normalize="yes").load("cpu")(wave).data
    np.testing.assert_array_equal(forced, rows["yes"])
    save(tmp_path / "8k", "wav2vec2", "layer", sampling_rate=8000)
    with pytest.raises(UsageError, match="8000 Hz"):
        speech(tmp_path / "8k").load("cpu")


def test_statistics_of_long_sound_are_numpys() -> None:
    sound = speech_like(9.0) + 0.3
    assert moments(sound, 1000) == (pytest.approx(sound.mean(dtype="f8")), pytest.approx(sound.var(dtype="f8")))


def test_whisper_rows_are_its_encoders_and_long_sound_slides(tmp_path: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=48, decoder_ffn_dim=48, max_source_positions=100, num_mel_bins=80, vocab_size=50,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(1)
    model = WhisperModel(config).eval()
    model.save_pretrained(tmp_path)
    sound = speech_like(2.0)
    mel = WhisperFeatureExtractor(chunk_length=2)(sound, sampling_rate=16000, return_tensors="pt").input_features
    with torch.inference_mode():
        expected = model.encoder(mel).last_hidden_state[0]
    encode = speech(tmp_path, context_s=0.5).load("cpu")
    track = encode(Waveform(sound, 16000, 1.0))
    np.testing.assert_allclose(track.data, expected, atol=1e-4)
    np.testing.assert_allclose(track.times_s, 1.0 + 0.02 * np.arange(100))
    long = encode(Waveform(speech_like(5.13), 16000))
    assert long.data.shape == (257, 32)
    assert np.isfinite(long.data).all()
    with pytest.raises(UsageError, match="extract_features"):
        speech(tmp_path, tap="extract_features", context_s=0.5).load("cpu")


def test_missing_models_and_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsMissingError, match="hf download facebook/hubert-xlarge-ll60k"):
        speech(Path("facebook/hubert-xlarge-ll60k")).identify_weights()
    save(tmp_path / "m", "hubert", "group")
    first = speech(tmp_path / "m").identify_weights()
    (tmp_path / "m" / "README.md").write_text("---\nlanguage: en\nlicense: cc-by-nc-sa-4.0\n---\n# card\n")
    second = speech(tmp_path / "m").identify_weights()
    assert (second.sha256, second.licence) == (first.sha256, "cc-by-nc-sa-4.0")
    (tmp_path / "m" / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert speech(tmp_path / "m").identify_weights().sha256 != first.sha256
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(WeightsMissingError, match=r"neither model\.safetensors"):
        speech(tmp_path / "m").identify_weights()


def test_the_same_model_in_another_folder_is_the_same_feature(tmp_path: Path) -> None:
    def spec(folder: str) -> FeatureSpec:
        encoder = speech(tmp_path / folder)
        return FeatureSpec("s", "audio", "speech", 1, params_of(encoder), encoder.identify_weights())

    save(tmp_path / "here", "hubert", "group")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    save(tmp_path / "other", "hubert", "layer")
    assert spec("here").key == spec("there").key != spec("other").key


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(tmp_path, "hubert", "layer")
    state = load_file(tmp_path / "model.safetensors")
    state.pop("encoder.layers.1.final_layer_norm.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsMissingError, match=r"layers\.1\.final_layer_norm"):
        speech(tmp_path).load("cpu")


@pytest.mark.parametrize(
    "params",
    [{"tap": "layer"}, {"layer": 3}, {"chunk_s": 5.0, "context_s": 2.5}, {"align": "window"}, {"align_s": 1.0}],
)
def test_parameters_that_contradict_each_other_are_refused(params: dict) -> None:
    with pytest.raises(UsageError):
        speech(Path("/nowhere"), **params)


LONG = """
import resource, sys, numpy as np, torch
torch.set_num_threads(1)
from aupipe.config import EncoderConfig
from aupipe.extract.encoders import build_encoder
from aupipe.types import Waveform
table = {"model": sys.argv[1], "chunk_s": 20.0}
encode = build_encoder(EncoderConfig("s", "speech", "audio", table)).load("cpu")
samples = np.random.default_rng(0).standard_normal(16000 * int(sys.argv[2]), dtype=np.float32)
track = encode(Waveform(samples, 16000))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(len(track.data), peak - (samples.nbytes + track.data.nbytes) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)  # two minutes of computing, on a machine that may be busy
def test_two_hours_take_no_more_memory_than_five_minutes(tmp_path: Path) -> None:
    """Sound and rows aside; the statistics of the whole clip are gathered block by block."""
    save(tmp_path, "hubert", "group")
    found = {}
    for seconds in (300, 7200):
        command = [sys.executable, "-c", LONG, str(tmp_path), str(seconds)]
        rows, mib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(rows) == 1 + (16000 * seconds - 400) // 320
        found[seconds] = float(mib)
    print(f"peak memory without sound and rows: {found} MiB")
    assert found[7200] < found[300] + 150
