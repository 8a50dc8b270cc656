"""What tests share: the test material, and small real media made on the spot."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from aupipe.demo import DemoCorpus

# Read by libraries when they are imported: no test finds what somebody has downloaded.
for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
    os.environ.pop(_name, None)
os.environ["HF_HOME"] = os.environ["TORCH_HOME"] = str(Path(tempfile.gettempdir()) / "aupipe-tests-without-downloads")

# One thread in each library: as many tests run at a time as there are cores. Processes that tests start inherit it.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
os.environ |= dict.fromkeys(THREADS, "1")

REPOSITORY = Path(__file__).parent.parent

pytest_plugins = ["tests.asset_mark"]

settings.register_profile("aupipe", deadline=None)  # nothing is timed in a test
settings.load_profile("aupipe")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real clips, photos and weights, for tests that carry the mark ``assets``."""
    from tests.asset_mark import FOLDER, no_assets

    if reason := no_assets():
        pytest.fail(reason, pytrace=False)
    return FOLDER


@pytest.fixture(scope="session")
def clips(assets: Path) -> dict[str, int]:
    """Clip name -> decoded frames, as the README of the test material says."""
    return read_clip_table(assets / "README.md")


def read_clip_table(readme: Path) -> dict[str, int]:
    """The "frames" column of the table of videos."""
    frames = {}
    for line in readme.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 8 and re.fullmatch(r"\S+\.(mp4|mkv|avi|mov|webm|wmv|mpg)", cells[1]):
            frames[cells[1]] = int(cells[6].split(",")[0])
    return frames


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    """Three drawn recordings of a second in Aff-Wild2's folders, one of them of two people; not to be written to."""
    from aupipe.demo import draw_corpus

    return draw_corpus(tmp_path_factory.mktemp("corpus"), recordings=3, seconds=1.0, seed=5)


@pytest.fixture(autouse=True)
def _own_environment(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No AUPIPE_ variable of the person running the tests changes what they test, nor does what their aupipe remembers;
    no test reaches for a network."""
    for name in list(os.environ):
        if name.startswith("AUPIPE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def write_video(
    path: Path,
    frames: int = 20,
    size: tuple[int, int] = (64, 48),
    fps: int = 25,
    *,
    tone_hz: float | None = None,
    sample_rate: int = 16000,
    video: bool = True,
) -> Path:
    """A small h264 video, frame k of the grey level (10 + 2k) % 256, with an AAC tone where ``tone_hz`` is given."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if video:
            stream = container.add_stream("h264", rate=fps, options={"threads": "1"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if tone_hz is not None:
            sound = container.add_stream("aac", rate=sample_rate, layout="mono")
        for k in range(frames if video else 0):
            picture = np.full((size[1], size[0], 3), (10 + 2 * k) % 256, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if tone_hz is not None:
            times = np.arange(round(frames / fps * sample_rate)) / sample_rate
            samples = (0.3 * np.sin(2 * np.pi * tone_hz * times)).astype(np.float32)
            for start in range(0, len(samples), 1024):
                block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = sample_rate, start
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
        if video:
            container.mux(stream.encode(None))
    return path
