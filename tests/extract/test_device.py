"""FrameChunk as tensors: equal to swscale, OpenCV and `aupipe.extract.imaging.templates` on real frames."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter

from aupipe.extract.gpu.warp import normalize, shrink, warp_yuv
from aupipe.extract.gpu.yuv import Colour, colour_of, covers, to_rgb
from aupipe.extract.imaging import templates as align
from tests.made import CODECS, talking, write_talking

REFORMATTER = VideoReformatter()


def plane(frame: av.VideoFrame, number: int) -> torch.Tensor:
    """(1, h, w) one plane of a frame, without its padding."""
    source = frame.planes[number]
    rows = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)[: source.height, : source.width]
    return torch.from_numpy(rows.copy())[None]


def planes_of(frame: av.VideoFrame) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return plane(frame, 0), plane(frame, 1), plane(frame, 2)


def swscale(frame: av.VideoFrame) -> np.ndarray:
    return REFORMATTER.reformat(frame, format="rgb24", threads=1).to_ndarray()


def frame_of(y: np.ndarray, u: np.ndarray, v: np.ndarray, space: int, full: bool) -> av.VideoFrame:
    frame = av.VideoFrame(y.shape[1], y.shape[0], "yuv420p")
    for target, values in zip(frame.planes, (y, u, v), strict=True):
        rows = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)
        rows[: values.shape[0], : values.shape[1]] = values
    frame.colorspace, frame.color_range = space, 2 if full else 1
    return frame


def some_frames(path: Path, most: int, every: int) -> list[av.VideoFrame]:
    found = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % every == 0:
                found.append(frame)
            if len(found) == most:
                break
    return found


@pytest.mark.parametrize("suffix", CODECS)
def test_rgb_of_every_container_is_swscales(tmp_path: Path, suffix: str) -> None:
    path = write_talking(tmp_path / f"a{suffix}", frames=6)
    for frame in some_frames(path, most=3, every=2):
        name, space, span = frame.format.name, int(frame.colorspace), int(frame.color_range)
        assert covers(name, frame.height, space)
        rgb = to_rgb(*planes_of(frame), colour_of(name, space, span))
        np.testing.assert_array_equal(rgb[0].permute(1, 2, 0).numpy(), swscale(frame))


@pytest.mark.assets
def test_rgb_of_every_clip_is_swscales(assets: Path, clips: dict[str, int]) -> None:
    for clip in clips:
        for frame in some_frames(assets / "videos" / clip, most=3, every=20):
            name, space, span = frame.format.name, int(frame.colorspace), int(frame.color_range)
            assert covers(name, frame.height, space), clip
            rgb = to_rgb(*planes_of(frame), colour_of(name, space, span))
            np.testing.assert_array_equal(rgb[0].permute(1, 2, 0).numpy(), swscale(frame), err_msg=clip)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("space", [1, 2, 5, 6])
@pytest.mark.parametrize("size", [(64, 64), (48, 854), (62, 63), (50, 49), (2, 2)])
def test_rgb_of_any_planes_is_swscales(size: tuple[int, int], space: int, full: bool) -> None:
    random = np.random.default_rng(size[1])
    half = -(-size[0] // 2), -(-size[1] // 2)
    y, u, v = (random.integers(0, 256, shape, dtype=np.uint8) for shape in (size, half, half))
    frame = frame_of(y, u, v, space, full)
    assert covers("yuv420p", size[0], space)
    rgb = to_rgb(*planes_of(frame), colour_of("yuv420p", space, int(frame.color_range)))
    np.testing.assert_array_equal(rgb[0].permute(1, 2, 0).numpy(), swscale(frame))


def test_what_swscale_does_otherwise_is_not_covered() -> None:
    assert not covers("yuv420p", 63, 1)
    assert not covers("yuv420p10le", 64, 1)
    assert not covers("yuv444p", 64, 1)
    assert not covers("yuv420p", 64, 9)  # BT.2020
    assert not covers("nv12", 64, 1)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 6])
def test_shrinking_is_opencvs(factor: int) -> None:
    for number in range(3):
        picture = talking(number)[0][:1]
        picture = picture[:, : picture.shape[1] // factor * factor - (factor > 2)]  # also rows left over
        found = shrink(torch.tensor(picture).permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(found, align.shrink(picture, factor))


def some_landmarks(count: int, height: int, width: int, side: float = 0.4) -> np.ndarray:
    """(count, 5, 2) turned, scaled and shifted faces; some reach beyond the picture."""
    random = np.random.default_rng(3)
    points = align.ARCFACE_112 - align.ARCFACE_112.mean(axis=0)
    angle, scale = random.uniform(-1, 1, count), random.uniform(0.1, side, count) * min(height, width) / 60
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    centre = random.uniform(0, 1, (count, 1, 2)) * (width, height)
    turned = np.einsum("kij,nj->kni", turn, points) * scale[:, None, None] + centre
    return (turned + random.normal(0, 1, turned.shape)).astype(np.float32)


@pytest.mark.parametrize("template", [align.CropTemplate(112), align.CropTemplate(128), align.ArcFaceCropTemplate(224)])
def test_warps_of_planes_are_opencvs_within_one_grey_level(template: align.CropTemplate, tmp_path: Path) -> None:
    assert cv2.__version__.startswith("5"), "OpenCV 4 warps with 5-bit weights: up to 4 grey levels from OpenCV 5"
    for number in (0, 2):
        frames = some_frames(write_talking(tmp_path / f"{number}.mp4", number), most=2, every=20)
        rgb = np.stack([swscale(frame) for frame in frames])
        landmarks = some_landmarks(12, *rgb.shape[1:3])
        where = np.arange(12) % 2
        expected = align.warp(rgb[where], landmarks, template).astype(int)
        matrices = torch.from_numpy(template.matrices(landmarks))
        planes = tuple(torch.cat(each) for each in zip(*map(planes_of, frames), strict=True))
        first = frames[0]
        colour = colour_of(first.format.name, int(first.colorspace), int(first.color_range))
        crops = warp_yuv(planes, torch.from_numpy(where), matrices, template.size_px, colour)  # type: ignore[arg-type]
        difference = np.abs(crops.permute(0, 2, 3, 1).numpy() - expected)
        assert expected.any(axis=(1, 2, 3)).all()
        assert difference.max() <= 1
        assert difference.mean() < 1e-3


def test_a_face_that_cannot_be_aligned_gives_a_black_crop() -> None:
    planes = tuple(torch.full((1, side, side), 200, dtype=torch.uint8) for side in (32, 16, 16))
    matrices = torch.zeros(2, 2, 3, dtype=torch.float64)
    matrices[1] = float("nan")
    assert not warp_yuv(planes, torch.zeros(2, dtype=torch.int64), matrices, 16, Colour()).any()  # type: ignore[arg-type]


def test_normalising_is_the_encoders_own_in_channels_last() -> None:
    crops = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).to(torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (crops.float() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    found = normalize(crops, mean, std)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    half = normalize(crops, mean, std, torch.float16)
    assert torch.equal(half, expected.half())
    assert half.is_contiguous(memory_format=torch.channels_last)
