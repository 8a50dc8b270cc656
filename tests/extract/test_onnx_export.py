"""Convolutional networks through onnxruntime: torch's rows, the same bytes in any company; where it fails, torch."""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aupipe.config import EncoderConfig
from aupipe.extract.encoders import build_encoder, onnx_export
from aupipe.extract.encoders.image_base import IMAGENET, image_encoder
from aupipe.extract.encoders.onnx_export import AT_ONCE, exported

SIZE_PX = 64


def network(kind: str = "timm", **params):
    """An encoder with random weights, and eleven crops for it."""
    encoder = build_encoder(EncoderConfig("x", kind, "visual", {"weights": "random", **params}))
    size = encoder.reads.size_px
    return encoder, np.random.default_rng(1).integers(0, 256, (11, size, size, 3), dtype=np.uint8)


def convolutions() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


NETWORKS = [
    ("timm", {"model": "regnety_002", "size_px": SIZE_PX}),
    ("timm", {"model": "efficientnet_b0", "output": "features", "size_px": SIZE_PX}),
    ("regnet", {"tap": "map"}),
    ("hsemotion", {"model": "b0", "tap": "logits"}),
]


@pytest.mark.parametrize(("kind", "params"), NETWORKS)
def test_the_rows_are_torchs_and_the_same_bytes_whatever_the_batch_and_the_threads(
    kind: str, params: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, crops = network(kind, **params)
    encode = encoder.load("cpu")
    rows = encode(crops)
    for step in (1, 3, AT_ONCE, 7):
        again = [encode(crops[start : start + step]) for start in range(0, len(crops), step)]
        np.testing.assert_array_equal(np.concatenate(again), rows)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(encode, [crops] * 8):
            np.testing.assert_array_equal(found, rows)
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    in_torch = encoder.load("cpu")(crops)
    assert not np.array_equal(in_torch, rows)  # so it was another route
    assert np.linalg.norm(rows - in_torch) <= 1e-5 * np.linalg.norm(in_torch)


def test_what_onnxruntime_is_not_there_for_stays_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = convolutions()
    assert exported(layers, layers, 32) is not None
    transformer = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2), nn.LayerNorm(36))
    assert exported(transformer, transformer, 8) is None
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    assert exported(layers, layers, 32) is None


def no_graph(x: Tensor) -> Tensor:
    raise RuntimeError("no graph\nof this")


def another_when_traced(x: Tensor) -> Tensor:
    """Whatever a trace gets wrong: a branch it has not seen, a number it takes for a constant."""
    return x.mean(dim=(2, 3)) * (1.0 if torch.jit.is_tracing() else 1.001)


@pytest.mark.parametrize(("forward", "words"), [(no_graph, "no graph"), (another_when_traced, "rows are")])
def test_a_network_whose_export_fails_or_gives_other_rows_stays_in_torch_and_says_so(
    forward, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=onnx_export.log.name):
        assert exported(convolutions(), forward, 32) is None
    (record,) = caplog.records
    assert words in record.message
    assert "stays in torch" in record.message
    assert "\n" not in record.message


@pytest.mark.parametrize(("size_px", "precision"), [(0, "float32"), (32, "bfloat16")])
def test_only_float32_of_a_known_size_leaves_torch(size_px: int, precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "exported", lambda *_: pytest.fail("exported"))
    layers = convolutions()
    encode = image_encoder(layers, "cpu", IMAGENET, layers, precision, size_px)
    assert encode(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 8)


def test_nothing_the_exporter_has_to_say_reaches_the_user(capfd: pytest.CaptureFixture[str]) -> None:
    encoder, crops = network("timm", model="regnety_002", size_px=SIZE_PX)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.load("cpu")(crops)
    assert capfd.readouterr() == ("", "")
