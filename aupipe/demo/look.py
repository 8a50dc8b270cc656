"""Proportions and colours of a demo face, and the still part of its picture (skin, nose, hair).

Face coordinates are in inter-ocular distances: x to the image right, y down, the point between the eyes at (0, 0). The
skin is shaded once as a height field under one lamp, which gives nose, eye sockets and cheeks soft shadows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PX = 88.0  # canvas pixels per inter-ocular distance: about 1.7 times the picture's
LEFT, TOP = 1.6, 1.85  # face coordinates of the canvas corner, negated
WIDTH_PX, HEIGHT_PX = 282, 356

SKINS = (
    (244, 208, 182),
    (232, 188, 156),
    (222, 172, 136),
    (200, 150, 112),
    (168, 118, 84),
    (134, 90, 64),
    (112, 76, 56),
)
HAIRS = ((28, 22, 20), (52, 36, 26), (84, 56, 34), (128, 88, 50), (176, 138, 84), (118, 112, 108), (96, 46, 26))
IRISES = ((70, 46, 28), (96, 66, 36), (72, 100, 120), (84, 108, 72), (52, 36, 26))


@dataclass(frozen=True)
class Look:
    """One person: proportions in inter-ocular distances, colours as RGB 0..255."""

    skin: np.ndarray  # (3,)
    lip: np.ndarray  # (3,)
    hair: np.ndarray  # (3,)
    brow: np.ndarray  # (3,)
    iris: np.ndarray  # (3,)
    face_width: float
    face_length: float
    jaw: float  # how much the face narrows towards the chin
    nose_width: float
    nose_y: float
    mouth_y: float
    mouth_width: float
    lip_height: float
    brow_y: float
    brow_height: float
    eye_height: float
    eye_slant: float
    hairline_y: float
    hair_length: float  # y to which the hair at the sides reaches; the ears show above 0.6
    hair_volume: float
    beard: float
    wrinkles: float
    lamp: np.ndarray  # (3,) direction, z towards the viewer
    ambient: float
    gain: np.ndarray  # (12,) of each action unit
    rest: np.ndarray  # (12,) resting offset of each action unit
    texture_seed: int


def sample_look(rng: np.random.Generator, tone: float) -> Look:
    """A random person; `tone` in [0, 1) selects the skin tone, so that a corpus can cover all of them."""
    skins = np.array(SKINS, float)
    at = tone * (len(skins) - 1)
    skin = skins[int(at)] + (at % 1) * (skins[min(int(at) + 1, len(skins) - 1)] - skins[int(at)])
    dark = skin.mean() < 140
    hair = np.array(HAIRS[int(rng.integers(2 if dark else len(HAIRS)))], float)
    azimuth, height = rng.uniform(-0.6, 0.6), rng.uniform(0.2, 0.7)
    lamp = np.array([np.sin(azimuth) * np.cos(height), -np.sin(height), np.cos(azimuth) * np.cos(height)])
    long_hair = rng.uniform() < 0.45
    rest = rng.uniform(-0.05, 0.08, 12) * (1, 1, 1, 1, 1, 0.6, 1, 1, 1, 0.8, 0.0, 0.0)
    return Look(
        skin=skin * rng.uniform(0.95, 1.03, 3),
        lip=skin * (0.84, 0.60, 0.60) + rng.uniform(-8, 12, 3),
        hair=hair,
        brow=0.75 * hair + 0.1 * skin,
        iris=np.array(IRISES[int(rng.integers(2 if dark else len(IRISES)))], float),
        face_width=rng.uniform(1.04, 1.13),
        face_length=rng.uniform(1.84, 2.0),
        jaw=rng.uniform(0.14, 0.28),
        nose_width=rng.uniform(0.95, 1.18),
        nose_y=rng.uniform(0.56, 0.62),
        mouth_y=rng.uniform(1.10, 1.16),
        mouth_width=rng.uniform(0.40, 0.44),
        lip_height=rng.uniform(0.9, 1.15),
        brow_y=rng.uniform(-0.385, -0.35),
        brow_height=rng.uniform(0.08, 0.11),
        eye_height=rng.uniform(0.93, 1.08),
        eye_slant=rng.uniform(-0.01, 0.02),
        hairline_y=rng.uniform(-1.12, -0.94),
        hair_length=rng.uniform(1.2, 1.9) if long_hair else rng.uniform(0.0, 0.35),
        hair_volume=rng.uniform(0.1, 0.24) + 0.06 * long_hair,
        beard=0.0 if long_hair else max(0.0, rng.uniform(-0.4, 0.4)),
        wrinkles=rng.uniform(0.75, 1.2),
        lamp=lamp,
        ambient=rng.uniform(0.5, 0.64),
        gain=rng.uniform(0.8, 1.15, 12),
        rest=rest,
        texture_seed=int(rng.integers(2**31)),
    )


def canvas_grid() -> tuple[np.ndarray, np.ndarray]:
    """Face coordinates x and y of every canvas pixel: two (H, W)."""
    x = (np.arange(WIDTH_PX) + 0.5) / PX - LEFT
    y = (np.arange(HEIGHT_PX) + 0.5) / PX - TOP
    return np.broadcast_to(x, (HEIGHT_PX, WIDTH_PX)), np.broadcast_to(y[:, None], (HEIGHT_PX, WIDTH_PX))


def head_radius(look: Look, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance of points from the middle of the head: below 1 inside its outline, 1 on it."""
    middle, half = (look.face_length - 1.55) / 2, (look.face_length + 1.55) / 2
    v = (y - middle) / half
    below = np.clip(v, 0.0, 1.2)
    return (np.abs(x) / (look.face_width * (1.0 - look.jaw * below**1.6))) ** 2.3 + np.abs(v) ** 2.6


def depth(look: Look, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the head towards the viewer, for the sideways motion of a turning head; 0 at the outline."""
    # Unlike `relief`, its slope is finite at the outline; else the skin there would fold over when the head turns.
    inside = np.clip(1.0 - head_radius(look, x, y), -0.6, 1.0)
    bowl = 0.80 * (1.0 - (1.0 - np.maximum(inside, 0.0)) ** 1.7) + 0.25 * np.minimum(inside, 0.0)
    nose = 0.26 * np.exp(-((x / 0.2) ** 2) - ((y - look.nose_y + 0.1) / 0.3) ** 2)
    return bowl + nose


def _hump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def relief(look: Look, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The whole height field of the face at rest: (H, W) in inter-ocular distances."""
    side = np.abs(x)
    w, tip = look.nose_width, look.nose_y
    z = 0.95 * np.sqrt(np.clip(1.0 - head_radius(look, x, y), 0.0, 1.0))
    along = np.clip((y + 0.2) / (tip + 0.2), 0.0, 1.0)
    ridge = along * np.clip((tip + 0.10 - y) / 0.14, 0.0, 1.0)
    z += 0.20 * ridge * np.exp(-((x / (0.10 + 0.05 * along * w)) ** 2))
    z += 0.13 * _hump(x, y, 0.0, tip, 0.12 * w, 0.11) + 0.09 * _hump(side, y, 0.155 * w, tip + 0.05, 0.07, 0.075)
    z += 0.07 * _hump(side, y, 0.46, look.brow_y + 0.05, 0.34, 0.12) - 0.13 * _hump(side, y, 0.47, 0.0, 0.27, 0.17)
    z += 0.06 * _hump(side, y, 0.62, 0.48, 0.26, 0.24) - 0.05 * _hump(side, y, 0.66, 1.0, 0.2, 0.3)
    z += 0.08 * _hump(x, y, 0.0, look.mouth_y, 0.34, 0.17) - 0.05 * _hump(x, y, 0.0, look.mouth_y + 0.24, 0.24, 0.07)
    z += 0.10 * _hump(x, y, 0.0, look.face_length - 0.28, 0.24, 0.2)
    z -= 0.025 * _hump(x, y, 0.0, (tip + 0.12 + look.mouth_y - 0.1) / 2, 0.045, 0.1)
    return z


def lambert(look: Look, z: np.ndarray) -> np.ndarray:
    """Brightness of a height field under the lamp: (H, W), about 1 on a lit face."""
    dy, dx = np.gradient(z, 1.0 / PX)
    normal = np.stack([-dx, -dy, np.ones_like(z)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    lit = np.clip(normal @ look.lamp, 0.0, 1.0)
    half = look.lamp + np.array([0.0, 0.0, 1.0])
    shine = np.clip(normal @ (half / np.linalg.norm(half)), 0.0, 1.0) ** 30
    return look.ambient + (1.12 - look.ambient) * lit + 0.07 * shine


def paint_head(look: Look) -> np.ndarray:
    """The still picture of a head without brows, eyes and lips: (H, W, 4) uint8 RGBA on the canvas."""
    import cv2

    x, y = canvas_grid()
    side = np.abs(x)
    rng = np.random.default_rng(look.texture_seed)
    radius = head_radius(look, x, y)
    z = cv2.GaussianBlur(relief(look, x, y), (0, 0), 1.6)
    rgb = look.skin * np.ones((*x.shape, 1))
    fine, coarse = (cv2.GaussianBlur(rng.normal(size=x.shape), (0, 0), size_px) for size_px in (1.2, 6.0))
    rgb *= 1.0 + 0.02 * (fine + 2 * coarse)[..., None]
    blush = _hump(side, y, 0.62, 0.55, 0.3, 0.26) + 0.6 * _hump(x, y, 0.0, look.nose_y, 0.16, 0.12)
    rgb *= 1.0 - blush[..., None] * (0.0, 0.09, 0.08)
    shadow_jaw = np.clip((y - look.mouth_y - 0.02) / 0.3, 0, 1) + 0.8 * _hump(x, y, 0, look.mouth_y - 0.17, 0.3, 0.06)
    stubble = np.clip(shadow_jaw + np.clip((side - 0.72) / 0.2, 0, 1) * np.clip((y - 0.55) / 0.3, 0, 1), 0, 1)
    stubble = (look.beard * stubble * (1 + 0.25 * rng.normal(size=x.shape)))[..., None]
    rgb = rgb * (1 - 0.75 * stubble) + 0.75 * stubble * look.hair
    # Dark places that a smooth height field does not have: eye sockets, nostrils, under the nose and the lip.
    tip, w = look.nose_y, look.nose_width
    dark = 0.16 * _hump(side, y, 0.24, -0.06, 0.12, 0.17) + 0.10 * _hump(side, y, 0.5, 0.2, 0.3, 0.05)
    dark += 0.18 * _hump(x, y, 0, tip + 0.15, 0.2 * w, 0.05)
    dark += 0.75 * _hump(side, y, 0.085 * w, tip + 0.105, 0.048, 0.026)
    dark += 0.25 * _hump(side, y, 0.225 * w, tip + 0.055, 0.025, 0.07)
    dark += 0.14 * _hump(x, y, 0, look.mouth_y + 0.22, 0.2, 0.05)
    rgb *= (lambert(look, z) * (1.0 - 0.5 * np.clip(radius - 0.72, 0, 0.4)) * (1 - np.clip(dark, 0, 0.8)))[..., None]
    alpha = np.clip((1.0 - radius) * 12.0, 0.0, 1.0)

    ear_radius = ((side - look.face_width * 0.985) / 0.13) ** 2 + ((y - 0.22 + 0.3 * (side - 1.0)) / 0.30) ** 2
    ear = np.clip((1.0 - ear_radius) * 4.0, 0.0, 1.0) * (1 - alpha)
    ear_rgb = look.skin * 0.78 * (1.0 - 0.35 * np.exp(-(((ear_radius - 0.35) / 0.25) ** 2)))[..., None]
    rgb = rgb * (1 - ear[..., None]) + ear_rgb * ear[..., None]
    alpha = np.maximum(alpha, ear)

    hair = _hair_mask(look, x, y, rng)[..., None]
    rgb = rgb * (1 - hair) + _hair_colour(look, x, y, rng) * hair
    alpha = 1 - (1 - alpha) * (1 - hair[..., 0])
    return np.dstack([np.clip(rgb, 0, 255), 255 * alpha]).astype(np.uint8)


def _hair_mask(look: Look, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    volume = look.hair_volume
    wave = 0.03 * np.sin(7 * x + rng.uniform(0, 6)) + 0.02 * np.sin(17 * x + rng.uniform(0, 6))
    outer = (np.abs(x) / (look.face_width + volume)) ** 2.4 + (np.maximum(0.1 - y, 0) / (1.62 + volume)) ** 2.4
    inside = np.clip((1.0 - outer) * 8.0, 0.0, 1.0)
    part = rng.uniform(-0.22, 0.22)
    line = look.hairline_y + wave + 0.5 * np.clip(np.abs(x - part) / 0.98, 0.0, 1.2) ** 3.6
    above = np.clip((line - y) * 9.0, 0.0, 1.0)
    temple = look.face_width * (0.99 - 0.1 * np.clip(y, 0, 2))
    beside = np.clip((np.abs(x) - temple + 0.04) * 12.0, 0, 1) * np.clip((look.hair_length + 3 * wave - y) * 5.0, 0, 1)
    if look.hair_length > 0.6:  # long hair also hangs behind the cheeks, clear of the neck
        behind = np.clip((head_radius(look, x, y) - 0.88) * 14.0, 0, 1) * np.clip((np.abs(x) - 0.64) * 9.0, 0, 1)
        beside = np.maximum(beside, behind * np.clip((look.hair_length + 3 * wave - y) * 5.0, 0, 1))
    return inside * np.maximum(above, beside)


def _hair_colour(look: Look, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import cv2

    strands = cv2.GaussianBlur(rng.normal(size=x.shape), (0, 0), sigmaX=0.9, sigmaY=9.0)
    strands = strands / strands.std()
    sheen = np.exp(-(((np.hypot(x - 0.5 * look.lamp[0], y + 0.1) - 1.25) / 0.2) ** 2)) * np.clip(-y, 0, 1)
    light = 0.75 + 0.16 * strands + 0.5 * sheen - 0.2 * np.clip(y, 0, 1)
    return look.hair * np.clip(light, 0.25, 2.0)[..., None]
