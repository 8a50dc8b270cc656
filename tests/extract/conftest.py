"""Clips of discs of light, and a YuNet that takes them for faces: what the stages do needs no real ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.made import write_media


@dataclass(frozen=True)
class Lit:
    """A folder with `FRAMES` and the network's file.

    `made_bundle.FILE` is a face landmarker. ``one.mpg`` and ``other.mp4`` show one disc, ``pair.wmv`` two in pictures
    twice as large. All have sound.
    """

    folder: Path

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Let ``yunet`` be the made network, published under the sha256 it has."""
        from aupipe.extract.weights import file_sha256
        from aupipe.extract.weights.known import KNOWN_WEIGHTS
        from tests.made_yunet import FILE

        digest = file_sha256(self.folder / FILE)
        patch.setitem(KNOWN_WEIGHTS, FILE, replace(KNOWN_WEIGHTS[FILE], sha256=digest))
        patch.setenv("AUPIPE_WEIGHTS", str(self.folder))


FRAMES = {"one.mpg": 75, "other.mp4": 72, "pair.wmv": 90}


@pytest.fixture
def asset_weights(assets: Path, tmp_path: Path) -> Path:
    """The real weights in a folder of the test's own, RetinaFace's imported, since extraction reads no pickles."""
    from aupipe.extract.weights.folder import import_weights

    folder = tmp_path / "weights"
    folder.mkdir()
    for path in (assets / "weights").iterdir():
        (folder / path.name).symlink_to(path)
    import_weights(folder / "retinaface_mobilenet025_1mb.pth", folder=folder)
    return folder


@pytest.fixture(scope="session")
def lit(tmp_path_factory: pytest.TempPathFactory) -> Lit:
    from tests.made_bundle import FILE as BUNDLE
    from tests.made_bundle import write_bundle
    from tests.made_yunet import FILE, bright_for_face, discs, write_yunet

    folder = tmp_path_factory.mktemp("lit")
    write_yunet(folder / FILE, bright_for_face())
    write_bundle(folder / BUNDLE)
    rng = np.random.default_rng(0)
    for name, places in zip(FRAMES, ([(60, 80)], [(150, 90)], [(60, 80), (160, 70)]), strict=True):
        frames = FRAMES[name]
        pictures = discs(*places, frames=frames, seed=frames)
        if len(places) > 1:
            pictures = pictures.repeat(2, axis=1).repeat(2, axis=2)
        time_s = np.arange(frames * 640) / 16000
        sound = 0.2 * np.sin(2 * np.pi * 220 * time_s) + 0.05 * rng.standard_normal(len(time_s))
        write_media(folder / name, pictures, sound.astype(np.float32))
    return Lit(folder)


# File -> whether its codec defines every sample, so that all decoders give the same.
CODED = {
    "a.mp4": True,
    "full_range.mkv": True,
    "a.mov": True,
    "turned.mp4": True,  # by a display matrix
    "a.webm": True,
    "a.avi": False,  # MPEG-4 part 2: its standard lets decoders round
    "a.wmv": False,
    "a.mpg": False,
}


@pytest.fixture(scope="session")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of `CODED`, 48 frames each, one face in all of them as the made network sees it."""
    from benchmarks.extract_clips import turn_clip
    from tests.made_yunet import discs

    folder = tmp_path_factory.mktemp("coded")
    pictures = discs((60, 80), frames=48, seed=3)
    for name in CODED:
        pixels = "yuvj420p" if name.startswith("full_range") else "yuv420p"
        if name.startswith("turned"):
            turn_clip(folder / "a.mp4", folder / name, 90)
        else:
            write_media(folder / name, pictures, pixels=pixels)
    return folder


@pytest.fixture
def lit_yunet(lit: Lit, monkeypatch: pytest.MonkeyPatch) -> Lit:
    """`lit`, with the made network as this test's ``yunet``."""
    lit.use(monkeypatch)
    return lit
