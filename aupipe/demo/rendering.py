"""Frames of a demo recording: backgrounds, bodies and heads, and the blur and noise of a cheap camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aupipe.demo.face import FacePainter
from aupipe.demo.look import LEFT, PX, TOP, Look
from aupipe.demo.motion import FaceMotion

MIDDLE_GREY = 140.0  # brightness at which sensor noise has its stated size
PATCH_PX = 1.6  # size of the patches in sensor noise


@dataclass(frozen=True)
class Camera:
    """Camera and background of one recording; brightness in grey levels."""

    width_px: int
    height_px: int
    scale_px: float  # inter-ocular distance in the picture
    centres_px: tuple[tuple[float, float], ...]  # of the point between the eyes, per face
    noise: float  # typical sensor noise
    shake_px: float
    blur_px: float  # typical loss of focus
    flicker: float
    background_seed: int


def sample_camera(rng: np.random.Generator, faces: int) -> Camera:
    """A random camera for a recording with one or two faces."""
    height_px = 256
    width_px = 480 if faces == 2 else int(rng.choice((256, 288, 320)))
    scale_px = rng.uniform(43, 47) if faces == 2 else rng.uniform(44, 54)
    middle_y = 0.42 * height_px + rng.uniform(-6, 6)
    shares = (0.26, 0.74) if faces == 2 else (0.5,)
    return Camera(
        width_px=width_px,
        height_px=height_px,
        scale_px=scale_px,
        centres_px=tuple((width_px * share + rng.uniform(-8, 8), middle_y + rng.uniform(-4, 4)) for share in shares),
        noise=rng.uniform(4.5, 8.5),
        shake_px=rng.uniform(0.2, 0.8),
        blur_px=rng.uniform(0.5, 1.1),
        flicker=rng.uniform(0.01, 0.04),
        background_seed=int(rng.integers(2**31)),
    )


def paint_background(camera: Camera) -> np.ndarray:
    """A wall of one colour with a gradient, and blotches or rectangles: (H, W, 3) float32 RGB."""
    import cv2

    rng = np.random.default_rng(camera.background_seed)
    height_px, width_px = camera.height_px, camera.width_px
    base = rng.uniform(60, 200) * rng.uniform(0.85, 1.12, 3)
    wall = np.ones((height_px, width_px, 3), np.float32) * base
    x, y = np.meshgrid(np.linspace(-1, 1, width_px), np.linspace(-1, 1, height_px))
    wall *= (1.0 + rng.uniform(-0.25, 0.25) * x + rng.uniform(-0.25, 0.25) * y)[..., None]
    kind = rng.integers(3)
    if kind == 1:
        blotch = cv2.GaussianBlur(rng.normal(size=(height_px, width_px)), (0, 0), rng.uniform(6, 20))
        wall *= (1.0 + 0.12 * blotch / blotch.std())[..., None]
    if kind == 2:
        for _ in range(6):
            corner = rng.uniform((-0.1, -0.1), (0.9, 0.8)) * (width_px, height_px)
            size = rng.uniform(0.1, 0.4, 2) * (width_px, height_px)
            colour = (base * rng.uniform(0.5, 1.4)).tolist()
            cv2.rectangle(wall, corner.astype(int).tolist(), (corner + size).astype(int).tolist(), colour, -1)
        wall = np.asarray(cv2.GaussianBlur(wall, (0, 0), 5.0))
    return np.clip(wall, 0, 255).astype(np.float32)


def paint_body(look: Look, scale_px: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Neck and shoulders: (h, w, 4) float32 RGBA at picture scale, and the pixel below the point between the eyes."""
    import cv2

    rng = np.random.default_rng(look.texture_seed + 1)
    half, top, bottom = 2.5, 0.8, 4.2
    x, y = np.meshgrid(np.arange(-half, half, 1 / scale_px), np.arange(top, bottom, 1 / scale_px))
    side, chin = np.abs(x), look.face_length
    neck_width = 0.50 * look.face_width + 0.25 * np.clip(y - chin - 0.25, 0, 1) ** 2
    neck = np.clip((neck_width - side) * scale_px, 0, 1)
    shoulder_y = chin + 0.42 + 0.34 * side**1.6 / 1.6 + 0.25 * np.clip(side - 1.4, 0, 2) ** 2
    collar_y = chin + 0.62 - 0.35 * np.clip(side / 0.7, 0, 1.2) ** 2
    cloth = np.clip((y - np.maximum(shoulder_y, collar_y)) * scale_px, 0, 1)
    round_neck = np.sqrt(np.clip(1 - (side / 0.8) ** 2, 0.1, 1))
    shadow = 1 - 0.38 * np.clip((chin + 0.5 - y) / 0.5, 0, 1)
    rgb = look.skin * ((0.6 + 0.36 * round_neck) * (1 + 0.1 * look.lamp[0] * x) * shadow)[..., None]
    shirt = rng.uniform(30, 200) * rng.uniform(0.6, 1.2, 3)
    fold = cv2.GaussianBlur(rng.normal(size=x.shape), (0, 0), sigmaX=4, sigmaY=9)
    shirt_rgb = shirt * (0.85 + 0.08 * fold / fold.std() + 0.12 * look.lamp[0] * x)[..., None]
    rgb = rgb * (1 - cloth[..., None]) + shirt_rgb * cloth[..., None]
    alpha = 255 * np.maximum(neck, cloth)
    return np.dstack([np.clip(rgb, 0, 255), alpha]).astype(np.float32), (half * scale_px, -top * scale_px)


class FrameRenderer:
    """Draws the frames of one recording in order; holds its painters, background, bodies and sensor noise."""

    def __init__(self, camera: Camera, painters: list[FacePainter], motions: list[FaceMotion], seed: int) -> None:
        import cv2

        self.camera = camera
        self._painters, self._plays = painters, motions
        self._rng = np.random.default_rng(seed)
        self._background = paint_background(camera)
        self._bodies = [paint_body(p.look, camera.scale_px) for p in painters]
        size = (2 * camera.height_px, 2 * camera.width_px, 3)
        # In poor light the denoiser of a webcam leaves patches, which hide more of a face than fine noise does.
        fine, patchy = (0.5 * n + 0.85 * n[..., :1] for n in self._rng.standard_normal((2, *size), np.float32))
        same_sd = np.float32(2 * np.sqrt(np.pi) * PATCH_PX)  # restores the deviation after the blur
        self._noise = 0.7 * (fine + same_sd * cv2.GaussianBlur(patchy, (0, 0), PATCH_PX))
        self._noise_level, self._blur_level = 1.0, 1.0
        self._lag = [motion.shift[0].copy() for motion in motions]

    def render(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """One picture (H, W, 3) uint8 RGB, and true eyes, nose and mouth corners of each face (F, 5, 2) px."""
        import cv2

        camera, rng = self.camera, self._rng
        size = (camera.width_px, camera.height_px)
        picture = self._background.copy()
        shake = rng.normal(0, camera.shake_px, 2)
        landmarks_px = []
        for n, (painter, motion) in enumerate(zip(self._painters, self._plays, strict=True)):
            away = np.array([motion.leave[number] * 1.05 * camera.width_px, 0.0])
            centre_px = np.array(camera.centres_px[n]) + shake + away
            self._lag[n] += 0.15 * (motion.shift[number] - self._lag[n])  # the body follows the head with a delay
            body, under = self._bodies[n]
            at = centre_px + 0.6 * camera.scale_px * self._lag[n] - under
            _blend(picture, cv2.warpAffine(body, np.array([[1, 0, at[0]], [0, 1, at[1]]]), size))
            canvas, landmarks = painter.paint(motion, number)
            roll = motion.angle[number, 0]
            turn = camera.scale_px * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
            pivot = np.array([0.0, 1.2])  # the head rolls about the neck
            offset = centre_px + camera.scale_px * (pivot + motion.shift[number]) - turn @ pivot
            placed = np.column_stack([turn / PX, offset - turn @ np.array([LEFT, TOP])])
            _blend(picture, cv2.warpAffine(canvas, placed, size, flags=cv2.INTER_AREA))
            landmarks_px.append(landmarks @ turn.T + offset)
            if motion.cover[number] > 0:
                self._cover(picture, centre_px, motion.cover[number])
        return self._expose(picture), np.stack(landmarks_px)

    def _cover(self, picture: np.ndarray, centre_px: np.ndarray, amount: float) -> None:
        import cv2

        scale_px = self.camera.scale_px
        low = centre_px[1] + scale_px * (2.9 - 3.6 * amount)  # a dark board pushed up from below
        corner = (int(centre_px[0] - 1.6 * scale_px), int(low))
        cv2.rectangle(picture, corner, (int(centre_px[0] + 1.6 * scale_px), self.camera.height_px), (52, 58, 66), -1)

    def _expose(self, picture: np.ndarray) -> np.ndarray:
        """Add blur, motion blur, changes of exposure, and sensor noise; all differ from frame to frame."""
        import cv2

        camera, rng = self.camera, self._rng
        self._noise_level += 0.7 * (rng.gamma(2.0, 0.5) - self._noise_level)
        self._blur_level += 0.7 * (rng.gamma(1.2, 0.83) - self._blur_level)
        blur_px = camera.blur_px * self._blur_level
        if rng.uniform() < 0.3:  # the autofocus searches
            blur_px += rng.uniform(1.0, 2.7)
        if blur_px > 0.25:
            picture = cv2.GaussianBlur(picture, (0, 0), blur_px)
        if rng.uniform() < 0.25:  # motion during the exposure
            reach = int(rng.integers(2, 6))
            kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
            dx, dy = np.round(reach * rng.uniform(-1, 1, 2)).astype(int)
            cv2.line(kernel, (reach - int(dx), reach - int(dy)), (reach + int(dx), reach + int(dy)), 1.0)
            picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
        level = 1.0 + camera.flicker * rng.normal()
        y, x = (int(v) for v in rng.integers(0, (camera.height_px, camera.width_px)))
        grain = self._noise[y : y + camera.height_px, x : x + camera.width_px]
        # Photon noise grows with the square root of the brightness.
        grain = cv2.multiply(grain, cv2.sqrt(np.maximum(picture, 4.0)))
        strength = camera.noise * min(self._noise_level, 2.0) / np.sqrt(MIDDLE_GREY)
        noisy = cv2.addWeighted(picture, level, grain, strength, 0.0)
        return cv2.convertScaleAbs(np.maximum(noisy, 0.0))


def _blend(picture: np.ndarray, layer: np.ndarray) -> None:
    """Blend an RGBA layer (H, W, 4) over a float picture (H, W, 3), in place."""
    alpha = layer[..., 3]
    rows, cols = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not len(rows):
        return
    box = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
    weight = alpha[box].astype(np.float32)[..., None] / 255
    picture[box] += weight * (layer[box][..., :3] - picture[box])
