"""Encoders through torch.compile; on the processor here, which takes the same way through torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.errors import UsageError
from aupipe.extract.encoders.image_base import TensorEncode
from aupipe.extract.encoders.torch_compile import compiled
from aupipe.extract.encoders.visual.ghfeat import GhFeat
from aupipe.extract.encoders.visual.hog import Hog
from aupipe.extract.encoders.visual.timm import Timm
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import create_store
from aupipe.types import Recording
from tests.conftest import write_video
from tests.extract.running import run_jobs

BATCH = 8


@pytest.mark.slow  # the compiler runs for half a minute
@pytest.mark.parametrize("encoder", [Hog(), Timm(model="test_vit.r160_in1k", weights="random", size_px=160)])
def test_a_compiled_encoder_gives_the_same_rows(encoder: Any) -> None:
    size = encoder.reads.size_px
    crops = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    plain = encoder.load("cpu")
    made = compiled(plain, size, BATCH)
    assert made.forward is not plain.forward
    np.testing.assert_allclose(made(crops), plain(crops), rtol=1e-4, atol=1e-5)


def test_it_is_compiled_once_for_the_batch_it_is_going_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def compile_(forward: Any, dynamic: bool) -> Any:
        assert not dynamic
        return lambda crops: (seen.append(tuple(crops.shape)), forward(crops))[1]

    monkeypatch.setattr(torch, "compile", compile_)
    plain = Hog().load("cpu")
    compiled(plain, 112, BATCH)
    assert seen == [(BATCH, 112, 112, 3)]


def test_what_is_not_one_graph_of_torch_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    looped = GhFeat(depth=18, weights="random", super_resolution="random").load("cpu")
    assert isinstance(looped, TensorEncode)
    assert compiled(looped, 128, BATCH) is looped

    def arrays(crops: Any) -> Any:
        return crops.mean(axis=(1, 2))

    assert compiled(arrays, 112, BATCH) is arrays


def test_a_compiler_that_cannot_stops_the_run_and_blames_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(forward: Any, dynamic: bool) -> Any:
        def fail(crops: Any) -> Any:
            raise RuntimeError("Python.h: no such file\nand a page more")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    config = Config(faces=FacesConfig(detector="none"), encoders=(EncoderConfig("hog", "hog", "visual"),))
    parts = build_feature_set(config)
    store = create_store(tmp_path / "store", "zarr")
    plan = make_plan([Recording("a.mp4", video=write_video(tmp_path / "a.mp4", 5))], parts, store)
    with pytest.raises(UsageError, match=r"^--compile: Python\.h: no such file; run without it$"):
        run_jobs(plan.jobs, store, parts, compiled=True)
    assert not [record for record in store.records() if record.state == "failed"]


def test_records_of_compiled_encoders_say_so_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward, dynamic: forward)
    config = Config(faces=FacesConfig(detector="none"), encoders=(EncoderConfig("hog", "hog", "visual"),))
    parts = build_feature_set(config)
    recording = Recording("a.mp4", video=write_video(tmp_path / "a.mp4", 5))
    for yes in (True, False):
        store = create_store(tmp_path / f"store-{yes}", "zarr")
        (outcome,) = run_jobs(make_plan([recording], parts, store).jobs, store, parts, compiled=yes)
        named = {record.feature.partition("@")[0]: "torch.compile" in record.versions for record in outcome.published}
        assert named == {"clock": False, "hog": yes}
