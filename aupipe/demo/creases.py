"""Wrinkles, folds and bulges: where each action unit makes the skin of a demo face darker or lighter."""

from __future__ import annotations

import numpy as np

from aupipe.demo.look import HEIGHT_PX, LEFT, PX, TOP, WIDTH_PX, Look, canvas_grid
from aupipe.demo.motion import AUS

Points = tuple[tuple[float, float], ...]


def paint_creases(look: Look) -> np.ndarray:
    """Change of relative brightness per action unit at intensity 1: (12, H/2, W/2) float32, in the order of AUS."""
    import cv2

    grid_x, grid_y = canvas_grid()
    side = np.abs(grid_x)
    brow, nose, mouth, chin, wide = (
        look.brow_y,
        look.nose_y,
        look.mouth_y,
        look.face_length,
        look.mouth_width,
    )

    def bulge(level: float, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
        return level * np.exp(-(((side - cx) / sx) ** 2) - ((grid_y - cy) / sy) ** 2)

    def folds(level: float, *lines: Points, width_px: int = 2, blur_px: float = 1.6) -> np.ndarray:
        """Dark lines on both sides of the face with a lighter edge below."""
        ink: np.ndarray = np.zeros((HEIGHT_PX, WIDTH_PX), np.float32)
        for line in lines:
            for sign in (-1, 1):
                points = (np.array(line) * (sign, 1) + (LEFT, TOP)) * PX
                cv2.polylines(ink, [np.round(points * 16).astype(np.int32)], False, 1.0, width_px, cv2.LINE_AA, 4)
        ink = cv2.GaussianBlur(ink, (0, 0), blur_px)
        return -level * look.wrinkles * (ink - 0.4 * np.roll(ink, 4, axis=0))

    def arcs(heights: tuple[float, ...], start: float, stop: float, sag: float) -> list[Points]:
        x = np.linspace(start, stop, 7)
        u = np.linspace(-1, 1, 7)
        return [tuple(zip(x.tolist(), (brow - h + sag * (u**2)).tolist(), strict=True)) for h in heights]

    nothing = np.zeros((HEIGHT_PX, WIDTH_PX))
    crow_feet = (((0.80, 0.0), (0.95, -0.08)), ((0.81, 0.06), (0.98, 0.06)), ((0.80, 0.12), (0.95, 0.2)))
    under_eye = ((0.26, 0.19), (0.42, 0.27), (0.6, 0.27), (0.76, 0.2))
    sneer = ((0.2, nose - 0.02), (0.3, nose + 0.12), (0.4, nose + 0.34))
    nose_folds = (((0.06, 0.12), (0.14, 0.18)), ((0.05, 0.2), (0.14, 0.27)))
    laugh = ((0.25, nose + 0.02), (0.44, nose + 0.26), (wide + 0.16, mouth - 0.06), (wide + 0.17, mouth + 0.08))
    purse = (
        ((0.1, mouth - 0.18), (0.09, mouth - 0.1)),
        ((0.24, mouth - 0.17), (0.22, mouth - 0.1)),
        ((0.1, mouth + 0.12), (0.12, mouth + 0.2)),
    )
    maps = {
        "AU1": folds(0.42, *arcs((0.26, 0.37, 0.48), 0.0, 0.42, 0.03)) + bulge(0.06, 0.2, brow - 0.12, 0.2, 0.06),
        "AU2": folds(0.5, *arcs((0.22, 0.32), 0.45, 0.8, 0.04)) + bulge(0.05, 0.62, brow - 0.1, 0.18, 0.06),
        "AU4": folds(0.6, ((0.075, brow - 0.1), (0.06, brow + 0.1)), ((0.0, brow + 0.24), (0.1, brow + 0.22)))
        + bulge(-0.14, 0.0, brow + 0.04, 0.16, 0.14)
        + bulge(-0.1, 0.3, brow + 0.15, 0.16, 0.06),
        "AU6": folds(0.36, *crow_feet, under_eye) + bulge(0.07, 0.58, 0.42, 0.22, 0.12),
        "AU7": folds(0.34, ((0.26, 0.13), (0.42, 0.185), (0.6, 0.185), (0.74, 0.12)))
        + bulge(0.09, 0.5, 0.13, 0.2, 0.035)
        + bulge(-0.06, 0.5, -0.16, 0.24, 0.04),
        "AU10": folds(0.32, sneer, width_px=3)
        + folds(0.22, *nose_folds)
        + bulge(0.08, 0.34, nose - 0.05, 0.1, 0.12)
        + bulge(-0.07, 0.0, mouth - 0.2, 0.18, 0.06),
        "AU12": folds(0.32, laugh, width_px=3)
        + bulge(0.06, 0.62, nose + 0.02, 0.2, 0.16)
        + bulge(-0.07, wide + 0.15, mouth - 0.1, 0.05, 0.07),
        "AU15": folds(0.36, ((wide + 0.02, mouth + 0.12), (wide + 0.08, mouth + 0.3)), width_px=3)
        + bulge(-0.10, 0.18, mouth + 0.3, 0.14, 0.07)
        + bulge(0.07, 0.0, chin - 0.3, 0.18, 0.1),
        "AU23": folds(0.3, *purse)
        + bulge(-0.2, 0.0, mouth - 0.17, 0.34, 0.05)
        + bulge(-0.2, 0.0, mouth + 0.19, 0.3, 0.05),
        "AU24": bulge(0.18, 0.0, mouth - 0.13, 0.32, 0.045)
        + bulge(0.18, 0.0, mouth + 0.13, 0.3, 0.045)
        + bulge(-0.3, wide + 0.08, mouth, 0.05, 0.09)
        + bulge(-0.12, 0.0, chin - 0.34, 0.2, 0.06),
        "AU26": bulge(-0.06, 0.66, 0.95, 0.16, 0.25) + bulge(-0.07, 0.0, mouth + 0.24, 0.24, 0.06),
    }
    half = (WIDTH_PX // 2, HEIGHT_PX // 2)
    layers = [maps.get(au, nothing) for au in AUS]
    return np.stack([cv2.resize(m.astype(np.float32), half, interpolation=cv2.INTER_AREA) for m in layers])
