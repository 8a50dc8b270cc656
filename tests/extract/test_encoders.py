"""The contract of every registered encoder, and what each of the first set computes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.config import EncoderConfig
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.contract import params_of, requires_of
from aupipe.extract.encoders import (
    ENCODERS,
    AudioInput,
    WordsInput,
    build_encoder,
    column_names_of,
    is_shareable,
    row_shape_of,
    stored_dtype_of,
)
from aupipe.extract.encoders.visual.geometry import geometry
from aupipe.extract.imaging.templates import ARCFACE_112, CropTemplate
from aupipe.extract.media.transcript import Transcript, Word
from aupipe.extract.versions import versions_of
from aupipe.types import FeatureSpec, Waveform
from tests.extract.conftest import Lit
from tests.made_bundle import FILE as BUNDLE

# What an encoder needs to be built here, where it has a parameter without default.
MODELS = Path(__file__).parent / "models"
DATA = Path(__file__).parent / "data"
PARAMS = {
    "arcface": {"weights": "random", "model": "r50"},
    "blendshapes": {"weights": BUNDLE},
    "dan": {"weights": "random", "tap": "gap"},  # random heads give thousands
    "ghfeat": {"weights": "random", "depth": 18},
    "hsemotion": {"weights": "random", "model": "b0"},
    "mae": {"weights": "random"},
    "onnx": {"weights": str(DATA / "mean_colour.onnx"), "size_px": 32},
    "regnet": {"weights": "random"},
    "swin": {"weights": "random"},
    "transformers": {"model": str(DATA / "tiny_vit"), "weights": "random", "size_px": 64},
    "timm": {"model": "regnety_002", "weights": "random", "size_px": 64},
    "vggish": {"weights": "random"},
    "speech": {"model": str(MODELS / "tiny-hubert"), "weights": "random"},
    "text": {"model": str(MODELS / "tiny-roberta"), "weights": "random"},
}


AUDIO = [name for name in ENCODERS.names() if ENCODERS.get(name).modality == "audio"]
VISUAL = [name for name in ENCODERS.names() if ENCODERS.get(name).modality == "visual"]


@pytest.fixture(params=ENCODERS.names(), scope="module")
def encoder(request: pytest.FixtureRequest, lit: Lit):
    """Every registered encoder, of random weights or of a network made by code."""
    kind = ENCODERS.get(request.param)
    with pytest.MonkeyPatch.context() as monkeypatch:
        lit.use(monkeypatch)
        yield build_encoder(EncoderConfig("x", request.param, kind.modality, PARAMS.get(request.param, {})))


@pytest.fixture(scope="module")
def encode(encoder):
    """The same, loaded."""
    return encoder.load("cpu")


def batch_for(encoder, n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    reads = encoder.reads
    if isinstance(reads, CropTemplate):
        return rng.integers(0, 256, (n, reads.size_px, reads.size_px, 3), dtype=np.uint8)
    if reads == "landmarks":
        return (ARCFACE_112 + rng.normal(0, 3, (n, 5, 2))).astype(np.float32)
    if isinstance(reads, WordsInput):
        return Transcript(tuple(Word(str(seed + i), 1.5 + i, 2.0 + i) for i in range(n)))
    return Waveform((rng.standard_normal(n * 1600) * 0.1).astype(np.float32), reads.sample_rate, 1.5)


def test_one_finite_row_per_input_float32_or_of_the_whole_numbers_it_stores(encoder, encode) -> None:
    found = encode(batch_for(encoder, 3))
    if isinstance(encoder.reads, AudioInput | WordsInput):
        assert found.times_s[0] >= 1.5
        assert (np.diff(found.times_s) >= 0).all()
        assert len(found.data) == len(found.times_s)
        found = found.data
    else:
        assert len(found) == 3
    stored = np.dtype(stored_dtype_of(encoder))
    assert found.dtype == (stored if stored.kind == "u" else np.float32)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 65504  # what float16 holds


@pytest.mark.parametrize("encoder", VISUAL, indirect=True, scope="module")
def test_a_row_does_not_depend_on_its_batch(encoder, encode) -> None:
    batch = batch_for(encoder, 3)
    together = encode(batch)
    alone = np.concatenate([encode(batch[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", VISUAL, indirect=True, scope="module")
def test_no_faces_give_no_rows_of_the_right_shape(encoder, encode) -> None:
    assert encode(batch_for(encoder, 0)).shape == (0, *encode(batch_for(encoder, 1)).shape[1:])


def test_the_shape_of_a_row_and_the_names_of_its_columns_are_what_the_encoder_declares(encoder, encode) -> None:
    found = encode(batch_for(encoder, 2))
    shape = getattr(found, "data", found).shape[1:]
    assert row_shape_of(encoder, encode) in (shape, None)
    names = column_names_of(encoder)
    assert names == () or ((len(names),) == shape and len(set(names)) == len(names))


def test_an_encoder_keeps_nothing_from_one_call_to_the_next(encoder, encode) -> None:
    first, between, again = (encode(batch_for(encoder, n, seed)) for n, seed in ((2, 0), (3, 1), (2, 0)))
    assert len(getattr(between, "data", between)) >= 1
    np.testing.assert_array_equal(getattr(first, "data", first), getattr(again, "data", again))


def test_several_threads_may_call_a_shareable_encoder_at_once(encoder, encode) -> None:
    if not is_shareable(encoder, encode):
        return  # one thread at a time calls it
    batches = [batch_for(encoder, 1 + seed, seed) for seed in range(2)]
    expected = [encode(batch) for batch in batches]
    with ThreadPoolExecutor(len(batches)) as pool:
        for found, alone in zip(pool.map(encode, batches), expected, strict=True):
            np.testing.assert_array_equal(getattr(found, "data", found), getattr(alone, "data", alone))


@pytest.mark.parametrize("name", ENCODERS.names())
def test_the_packages_an_encoder_requires_are_in_the_provenance_of_its_items(name: str) -> None:
    kind = ENCODERS.get(name)
    found = versions_of(build_encoder(EncoderConfig("x", name, kind.modality, PARAMS.get(name, {}))))
    assert set(found) <= set(requires_of(kind))
    assert found or not requires_of(kind)


def test_loading_twice_gives_the_same_numbers(encoder, encode, lit_yunet: Lit) -> None:
    first, second = encode(batch_for(encoder, 2)), encoder.load("cpu")(batch_for(encoder, 2))
    np.testing.assert_array_equal(getattr(first, "data", first), getattr(second, "data", second))


@pytest.mark.parametrize("encoder", AUDIO, indirect=True)
def test_sound_shorter_than_one_window_is_one_row_or_more(encoder) -> None:
    for samples in (0, 1, 100):
        found = encoder.load("cpu")(Waveform(np.zeros(samples, np.float32), encoder.reads.sample_rate))
        assert len(found.data) >= 1
        assert np.isfinite(found.data).all()


def test_its_parameters_make_a_spec_and_any_change_another(encoder) -> None:
    params = params_of(encoder)

    def spec(**changed) -> FeatureSpec:
        return FeatureSpec("x", encoder.modality, "kind", encoder.version, params | changed)

    assert spec().key == spec().key
    for name in params:
        assert spec(**{name: "changed"}).key != spec().key
    assert FeatureSpec.from_json(spec().to_json()) == spec()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EncoderConfig("a", "hogg", "visual"), "unknown encoder 'hogg'. Did you mean 'hog'"),
        (EncoderConfig("a", "hog", "visual", {"cel_px": 8}), "unknown .*'cel_px'. Did you mean 'cell_px'"),
        (EncoderConfig("a", "hog", "visual", {"cell_px": "8"}), "cell_px"),
        (EncoderConfig("a", "hog", "visual", {"cell_px": 9}), "must be a multiple"),
        (EncoderConfig("a", "hog", "audio"), "hog is visual"),
        (EncoderConfig("a", "timm", "visual"), "'model'"),
        (EncoderConfig("a", "timm", "visual", {"model": "x", "output": "all"}), "'all'"),
        (EncoderConfig("a", "mfcc", "audio", {"align": "stretch"}), "stretch"),
        (EncoderConfig("a", "mfcc", "audio", {"delta_width": 4}), "delta_width = 4: an odd width"),
        (EncoderConfig("a", "logmel", "audio", {"deltas": -1}), "deltas = -1"),
    ],
)
def test_a_wrong_encoder_table_is_refused_by_name(config: EncoderConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_encoder(config)


def test_hog_of_a_straight_edge_votes_for_its_direction_alone() -> None:
    import torch

    from aupipe.extract.encoders.visual.hog import hog

    grey = torch.zeros(1, 112, 112)
    grey[:, :, 56:] = 1  # the gradient points along x: direction 0, shared by the first and the last bin
    blocks = hog(grey, 14, 9).reshape(7, 7, 4, 9)
    np.testing.assert_allclose(blocks[:, 3].sum(dim=(0, 1))[1:8], 0, atol=1e-5)
    assert blocks[:, 3, :, [0, 8]].sum() > 0
    assert (blocks.norm(dim=(-1, -2)) <= 1 + 1e-4).all()


@given(st.floats(-3, 3), st.floats(0.2, 5), st.floats(-100, 100), st.floats(-100, 100))
def test_geometry_knows_no_place_no_size_and_only_one_roll(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    level = geometry(ARCFACE_112[None])[0]
    moved = geometry((ARCFACE_112 @ turn.T + [x, y])[None])[0]
    np.testing.assert_allclose(moved[:20], level[:20], atol=1e-4)
    difference = (moved[20] - level[20] - angle + np.pi) % (2 * np.pi) - np.pi
    assert abs(difference) < 1e-4


def test_mfcc_and_logmel_are_librosas() -> None:
    import librosa

    sound = (np.random.default_rng(0).standard_normal(16000) * 0.1).astype(np.float32)
    waveform = Waveform(sound, 16000, 0.25)
    mfcc = build_encoder(EncoderConfig("m", "mfcc", "audio")).load("cpu")(waveform)
    base = librosa.feature.mfcc(y=sound, sr=16000, n_mfcc=13, n_fft=512, win_length=400, hop_length=160, n_mels=40)
    np.testing.assert_allclose(mfcc.data[:, :13], base.T, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(mfcc.data[10:-10, 13:26], librosa.feature.delta(base).T[10:-10], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mfcc.times_s, 0.25 + np.arange(101) * 0.01)
    logmel = build_encoder(EncoderConfig("l", "logmel", "audio")).load("cpu")(waveform)
    power = librosa.feature.melspectrogram(
        y=sound, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=64, fmax=8000
    )
    decibels = librosa.power_to_db(power, amin=1e-10, top_db=None)
    np.testing.assert_allclose(logmel.data, decibels.T, rtol=1e-5, atol=1e-4)
    sloped = build_encoder(EncoderConfig("l", "logmel", "audio", {"deltas": 2})).load("cpu")(waveform).data
    slopes = [librosa.feature.delta(decibels, order=order, mode="nearest").T for order in (1, 2)]
    np.testing.assert_allclose(sloped, np.concatenate([decibels.T, *slopes], axis=1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "output", "shape"),
    [
        ("regnety_002", "pooled", (368,)),
        ("regnety_002", "features", (368, 2, 2)),
        ("test_vit", "pooled", (64,)),
    ],
)
def test_timm_gives_pooled_rows_or_feature_maps(model: str, output: str, shape: tuple[int, ...]) -> None:
    params = {"model": model, "weights": "random", "output": output, "size_px": 64}
    encoder = build_encoder(EncoderConfig("t", "timm", "visual", params))
    rows = encoder.load("cpu")(batch_for(encoder, 2))
    assert rows.shape == (2, *shape)
    assert encoder.identify_weights().name.startswith("random:")


def test_timm_reads_a_local_file_and_gives_what_the_model_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    torch.manual_seed(1)
    model = timm.create_model("test_vit", pretrained=False).eval()
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    encoder = build_encoder(EncoderConfig("t", "timm", "visual", {"model": "test_vit", "weights": "mine.safetensors"}))
    crops = batch_for(encoder, 2)
    config = timm.get_pretrained_cfg("test_vit")
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(config.mean).view(1, 3, 1, 1)) / torch.tensor(config.std).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
    np.testing.assert_allclose(encoder.load("cpu")(crops), expected, rtol=1e-4, atol=1e-4)
    assert encoder.identify_weights().name == "mine.safetensors"


def test_what_timm_knows_of_a_model_is_asked_once_so_that_plans_load_neither_timm_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from aupipe.extract.encoders.visual.timm import Timm\n"
        "size_px = Timm(model='test_resnet.r160_in1k', weights='random').reads.size_px\n"
        "print(size_px, {'timm', 'torch'} & {*sys.modules} == set())"
    )

    def said() -> str:
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout

    assert [said(), said()] == ["160 False\n", "160 True\n"]
    kept = tmp_path / "aupipe" / "timm_models.json"
    kept.write_text(kept.read_text().replace("160", '"many"'))
    assert [said(), said()] == ["160 False\n", "160 True\n"]


def test_timm_without_weights_stops_with_the_command_that_gets_them(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    encoder = build_encoder(EncoderConfig("t", "timm", "visual", {"model": "swin_tiny_patch4_window7_224.ms_in1k"}))
    with pytest.raises(WeightsMissingError, match=r"hf download timm/swin_tiny_patch4_window7_224\.ms_in1k"):
        encoder.identify_weights()
    with pytest.raises(UsageError, match="timm has no model 'swin_tony_patch4'"):
        build_encoder(EncoderConfig("t", "timm", "visual", {"model": "swin_tony_patch4"})).identify_weights()
    missing = build_encoder(EncoderConfig("t", "timm", "visual", {"model": "test_vit", "weights": "no.safetensors"}))
    with pytest.raises(WeightsMissingError, match=r"no\.safetensors"):
        missing.identify_weights()
