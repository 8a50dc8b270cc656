"""Draw one frame of a demo face: a still head, warped by jaw and rotation, with eyes, brows and mouth."""

from __future__ import annotations

import numpy as np

from aupipe.demo.creases import paint_creases
from aupipe.demo.look import HEIGHT_PX, LEFT, PX, TOP, WIDTH_PX, Look, depth, paint_head
from aupipe.demo.motion import INDEX, FaceMotion

CORNER = np.array([LEFT, TOP])
GRID_PX = 8  # cell of the grid on which the warp of the head is computed
ALONG = np.linspace(-1.0, 1.0, 15)  # points along a lip or a lid, corner to corner
ARCH = 1.0 - ALONG**2


class FacePainter:
    """Draws frames of one person; holds the still picture and the creases of a look."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.head = paint_head(look)  # (H, W, 4) uint8
        self.creases = paint_creases(look).reshape(12, -1)  # (12, H/2 * W/2) relative brightness
        rows, cols = np.arange(0, HEIGHT_PX + GRID_PX, GRID_PX), np.arange(0, WIDTH_PX + GRID_PX, GRID_PX)
        x, y = np.meshgrid(cols / PX - LEFT, rows / PX - TOP)
        self._grid = np.stack([x, y], axis=-1)  # (h, w, 2) face coordinates
        self._still = np.stack(np.meshgrid(np.arange(WIDTH_PX), np.arange(HEIGHT_PX)), axis=-1).astype(np.float32)
        at = (
            slice(int((TOP + look.mouth_y - 0.12) * PX), int((TOP + look.mouth_y + 0.12) * PX)),
            slice(int((LEFT - 0.3) * PX), int((LEFT + 0.3) * PX)),
        )
        self._turn, self._jaw = np.zeros(2), 0.0  # of the present frame
        self._light = float(np.clip(self.head[at][..., :3].mean() / look.skin.mean(), 0.5, 1.1))
        hair = np.random.default_rng(look.texture_seed).normal(size=(HEIGHT_PX, WIDTH_PX))
        hair = (hair + np.roll(hair, 1, axis=1) + np.roll(hair, (1, 1), axis=(0, 1))) / 1.7
        self._brow_hair = np.clip(0.8 + 0.13 * hair, 0.3, 1.0).astype(np.float32)

    def paint(self, motion: FaceMotion, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw one frame: RGBA canvas (H, W, 4) uint8, and its five landmarks (5, 2) in face coordinates."""
        import cv2

        drive = {au: float(motion.intensity[frame, k]) for au, k in INDEX.items()}
        _, yaw, pitch = motion.angle[frame]  # the camera rolls the picture
        self._turn = np.array([np.sin(yaw), np.sin(pitch)])
        self._jaw = 0.20 * max(drive["AU26"], 0.0)
        head = self._crease(motion.intensity[frame])
        shift = self._shift(self._grid.reshape(-1, 2)).reshape(self._grid.shape)
        shift = self._shift((self._grid - shift).reshape(-1, 2)).reshape(self._grid.shape)  # inverse, one step
        full = cv2.resize(shift.astype(np.float32), None, fx=GRID_PX, fy=GRID_PX, interpolation=cv2.INTER_LINEAR)
        # resize takes samples at cell centres, so the first node of the grid is half a cell from the border
        offset = GRID_PX // 2
        source = self._still - PX * full[offset : offset + HEIGHT_PX, offset : offset + WIDTH_PX]
        canvas = cv2.remap(head, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        for side in (-1, 1):
            self._eye(canvas, side, drive, float(motion.blink[frame]), motion.gaze[frame])
        self._brows(canvas, drive)
        drive["AU24"] = max(drive["AU24"], 0.8 * float(motion.meet[frame]))
        corners = self._mouth(canvas, drive, float(motion.stretch[frame]))
        still = np.array([[-0.5, 0.0], [0.5, 0.0], [0.0, self.look.nose_y + 0.02]])
        return canvas, np.concatenate([still + self._shift(still), corners])

    def _crease(self, intensity: np.ndarray) -> np.ndarray:
        import cv2

        light = (1.0 + np.clip(intensity, 0, None).astype(np.float32) @ self.creases).reshape(HEIGHT_PX // 2, -1)
        light = cv2.resize(light, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_LINEAR)
        gain = cv2.merge([light, light, light, np.ones_like(light)])
        return cv2.multiply(self.head, gain, dtype=cv2.CV_8U)

    def _shift(self, points: np.ndarray) -> np.ndarray:
        """Displacement of skin points (N, 2) by head turn and jaw: (N, 2)."""
        x, y = points[:, 0], points[:, 1]
        fall = np.clip((y - self.look.mouth_y + 0.35 * x * x) / 0.42, 0.0, 1.0)
        moved = (depth(self.look, x, y) - 0.45)[:, None] * self._turn
        moved[:, 1] += self._jaw * fall * fall * (3 - 2 * fall)
        return moved

    def _px(self, points: np.ndarray) -> np.ndarray:
        """Face coordinates (N, 2) to the fixed-point canvas pixels that OpenCV draws with."""
        return np.round(((points + CORNER) * PX - 0.5) * 16).astype(np.int32)

    def _fill(self, image: np.ndarray, points: np.ndarray, colour: np.ndarray | float) -> None:
        import cv2

        tone = (*np.clip(colour, 0, 255).tolist(), 255.0) if isinstance(colour, np.ndarray) else colour
        cv2.fillPoly(image, [self._px(points)], tone, cv2.LINE_AA, 4)

    def _line(self, image: np.ndarray, points: np.ndarray, colour: np.ndarray, width_px: int) -> None:
        import cv2

        tone = (*np.clip(colour, 0, 255).tolist(), 255.0)
        cv2.polylines(image, [self._px(points)], False, tone, width_px, cv2.LINE_AA, 4)

    def _eye(self, canvas: np.ndarray, side: int, drive: dict[str, float], blink: float, gaze: np.ndarray) -> None:
        import cv2

        look = self.look
        squint, cheek, raised = drive["AU7"], drive["AU6"], max(drive["AU1"], drive["AU2"])
        upper = 0.122 * look.eye_height * (1 + 0.2 * raised - 0.30 * squint - 0.12 * cheek - 0.12 * drive["AU4"])
        lower = 0.062 * look.eye_height * (1 - 0.75 * squint - 0.6 * cheek)
        centre = np.array([[0.5 * side, 0.0]])
        moved = (centre + self._shift(centre))[0]
        x = 0.265 * ALONG * (1 - 0.12 * abs(self._turn[0]))
        tilt = -look.eye_slant * ALONG * side
        low = tilt + lower * ARCH
        high = tilt - upper * ARCH**0.75 * (1 - 0.12 * ALONG * side)
        high += blink * (low - high)
        lid = np.stack([x, high], axis=1) + moved
        rim = np.stack([x, low], axis=1) + moved
        # The eyeball is drawn on a copy and shown through the opening of the lids.
        x0, y0 = (int(v) for v in (moved + CORNER - (0.36, 0.24)) * PX)
        box = (slice(max(y0, 0), y0 + int(0.48 * PX)), slice(max(x0, 0), x0 + int(0.72 * PX)))
        tone = self._light
        self._line(canvas, lid - (0, 0.055 + 0.02 * raised), look.skin * 0.62 * tone, 2)  # fold above the lid
        self._line(canvas, rim - (0, -0.035), look.skin * (0.74 - 0.12 * max(squint, 0)) * tone, 1)
        ball = canvas[box].copy()
        mask = np.zeros(ball.shape[:2], np.uint8)
        origin = np.array([box[1].start / PX, box[0].start / PX])
        ball[:] = (*(np.array([226, 222, 216]) * tone), 255)
        look_at = moved - origin + gaze * (0.07, 0.035) + (0.075 * self._turn[0], -0.012)
        middle = tuple(int(v) for v in np.round(((look_at + CORNER) * PX - 0.5) * 16))
        for radius, colour in (
            (0.102, look.iris * 0.45),
            (0.087, look.iris),
            (0.043, np.array([14.0, 12.0, 12.0])),
        ):
            cv2.circle(ball, middle, int(radius * PX * 16), (*(colour * tone).tolist(), 255), -1, cv2.LINE_AA, 4)
        glint = (middle[0] + int(40 * self.look.lamp[0] * 1.2), middle[1] - 40)
        cv2.circle(ball, glint, 20, (250, 250, 250, 255), -1, cv2.LINE_AA, 4)
        shadow = np.concatenate([lid - origin, (lid - origin + (0, 0.03))[::-1]])
        self._fill(ball, shadow, np.array([120.0, 104.0, 100.0]) * tone)
        self._fill(mask, np.concatenate([lid - origin, (rim - origin)[::-1]]), 255)
        weight = mask[..., None].astype(np.float32) / 255
        canvas[box] = (canvas[box] * (1 - weight) + ball * weight).astype(np.uint8)
        self._line(canvas, lid, look.skin * 0.2, 2)
        self._line(canvas, rim, look.skin * 0.55 * tone, 1)

    def _brows(self, canvas: np.ndarray, drive: dict[str, float]) -> None:
        import cv2

        look = self.look
        s = np.linspace(0.0, 1.0, 9)  # inner to outer end
        lift = 0.15 * drive["AU1"] * (1 - s) ** 1.5 + 0.23 * drive["AU2"] * s - 0.12 * drive["AU4"] * (1 - 0.5 * s)
        y = look.brow_y - 0.09 * np.sin(np.pi * s**1.3 * 0.85) + 0.05 * s**3 - lift
        height = look.brow_height * np.array([0.75, 1, 1, 1, 0.95, 0.85, 0.7, 0.5, 0.2])
        x = 0.19 + 0.64 * s - 0.07 * drive["AU4"] * (1 - s) ** 2
        top, bottom = int((TOP + y.min() - 0.35) * PX), int((TOP + y.max() + 0.35) * PX)
        mask = np.zeros((bottom - top, canvas.shape[1]), np.uint8)
        for side in (-1, 1):
            line = np.stack([side * x, y], axis=1)
            line = line + self._shift(line) - (0, top / PX)
            half = np.stack([np.zeros_like(height), height / 2], axis=1)
            self._fill(mask, np.concatenate([line - half, (line + half)[::-1]]), 255)
        box = slice(top, bottom)
        weight = (cv2.GaussianBlur(mask, (0, 0), 1.5) * self._brow_hair[box])[..., None] / np.float32(255)
        colour = (look.brow * self._light).astype(np.float32)
        canvas[box, :, :3] = (canvas[box, :, :3] + weight * (colour - canvas[box, :, :3])).astype(np.uint8)

    def _mouth(self, canvas: np.ndarray, drive: dict[str, float], stretch: float) -> np.ndarray:
        """Draw the mouth; its two corners (2, 2) in face coordinates."""
        import cv2

        look = self.look
        smile, frown, raised = drive["AU12"], drive["AU15"], drive["AU10"]
        tight, press, part, jaw = drive["AU23"], drive["AU24"], max(drive["AU25"], 0.0), self._jaw
        half = look.mouth_width + 0.08 * smile + 0.06 * stretch - 0.08 * tight + 0.02 * press - 0.25 * jaw
        corner = -0.085 * smile + 0.075 * frown - 0.03 * stretch + 0.35 * jaw
        gap_up = 0.030 * part + 0.038 * max(raised, 0.0) * min(1.0, 3 * part)
        gap_down = 0.085 * part + 0.85 * jaw * min(1.0, 0.25 + 2 * part)
        thin = (1 - 0.5 * max(tight, 0)) * (1 - 0.7 * max(press, 0)) * (1 - 0.12 * max(smile, 0)) * look.lip_height
        seam = corner * ALONG**2 - 0.45 * corner * (smile > frown) * ARCH * 0.2
        lift = 0.05 * raised * np.exp(-(((np.abs(ALONG) - 0.35) / 0.4) ** 2))
        bow = 1 - 0.22 * np.exp(-((ALONG / 0.14) ** 2))
        up = seam - gap_up * ARCH**0.8 - lift * 0.8
        down = seam + gap_down * ARCH**0.8
        up_edge = up - 0.115 * thin * bow * (1 - np.abs(ALONG) ** 1.7) - 0.2 * lift
        down_edge = down + 0.135 * thin * (1 - np.abs(ALONG) ** 2.4)
        centre = np.array([[0.0, look.mouth_y]])
        x = half * ALONG
        skin_points = np.stack([x, np.full_like(x, look.mouth_y)], axis=1)
        base = skin_points + self._shift(skin_points)
        rows = [base + np.stack([np.zeros_like(x), v], axis=1) for v in (up_edge, up, down, down_edge)]
        tone = look.lip * self._light
        self._fill(canvas, np.concatenate([rows[0], rows[3][::-1]]), tone)
        self._fill(canvas, np.concatenate([rows[0], rows[1][::-1]]), tone * 0.86)
        plump = (rows[2] * 0.55 + rows[3] * 0.45)[3:-3]
        self._line(canvas, plump, tone * 1.13 + 6, max(1, int(5 * thin)))
        if (rows[2] - rows[1])[:, 1].max() > 0.012:
            self._inside(canvas, rows[1], rows[2], base)
        self._line(canvas, rows[1], tone * (0.42 - 0.12 * max(press, tight, 0)), 2)
        if part > 0.1:
            self._line(canvas, rows[2], tone * 0.6, 1)
        for end in (0, -1):  # the corners are small pits
            pit = base[[end, end]] + np.array([[0, seam[end]], [0.03 * np.sign(x[end]), seam[end] + 0.012]])
            self._line(canvas, pit, look.skin * 0.5 * self._light, 3)
        x0, y0 = (int(v) for v in (centre[0] + (LEFT - 0.75, TOP - 0.4)) * PX)
        box = (slice(y0, y0 + int(1.0 * PX)), slice(max(x0, 0), x0 + int(1.5 * PX)))
        canvas[box] = cv2.GaussianBlur(canvas[box], (0, 0), 0.9)
        return np.stack([rows[1][0], rows[1][-1]])

    def _inside(self, canvas: np.ndarray, up: np.ndarray, down: np.ndarray, base: np.ndarray) -> None:
        """Teeth and tongue between the inner edges of the lips, each (15, 2)."""
        dark = np.array([52.0, 20.0, 22.0]) * self._light
        self._fill(canvas, np.concatenate([up, down[::-1]]), dark)
        # Teeth are at a fixed height of the skull; the lips cover what is above and below.
        edge = np.minimum(np.maximum(base[:, 1] + 0.012, up[:, 1] + 0.01), down[:, 1])
        teeth = np.stack([up[:, 0], edge], axis=1)
        inner = slice(2, -2)
        white, red = np.array([224.0, 216.0, 204.0]) * self._light, np.array([168.0, 84.0, 84.0]) * self._light
        self._fill(canvas, np.concatenate([up[inner], teeth[inner][::-1]]), white)
        tongue = np.stack([down[:, 0], np.maximum(down[:, 1] - 0.45 * (down[:, 1] - up[:, 1]) + 0.03, edge)], axis=1)
        if self._jaw > 0.04:
            self._fill(canvas, np.concatenate([tongue[4:-4], down[4:-4][::-1]]), red)
