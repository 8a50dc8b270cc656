"""The labels of a demo face, computed from its motion by thresholds and rules."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from aupipe.demo.motion import AUS, INDEX, FaceMotion

EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
THRESHOLD = 0.35  # least intensity of an action unit that is present


def au_labels(motion: FaceMotion) -> np.ndarray:
    """Presence of the twelve action units: (T, 12) int 0/1, -1 where the face cannot be seen."""
    labels = (motion.intensity >= THRESHOLD).astype(np.int64)
    labels[~motion.visible] = -1
    return labels


def expression_labels(motion: FaceMotion, fps: int) -> np.ndarray:
    """Expression class from the action units, by rule: (T,) int 0..7, -1 where the face cannot be seen."""
    on = {au: motion.intensity[:, k] >= THRESHOLD for au, k in INDEX.items()}
    level = {au: motion.intensity[:, k] for au, k in INDEX.items()}
    rules = (  # the first rule that holds decides
        ("Fear", on["AU1"] & on["AU2"] & on["AU4"] & on["AU25"]),
        ("Surprise", on["AU1"] & on["AU2"] & ~on["AU4"] & (on["AU25"] | on["AU26"])),
        ("Sadness", (on["AU15"] | (on["AU1"] & on["AU4"] & ~on["AU2"])) & ~on["AU12"]),
        ("Disgust", on["AU10"] & on["AU4"] & ~on["AU12"]),
        ("Anger", on["AU4"] & (on["AU23"] | on["AU24"] | (on["AU7"] & (level["AU4"] > 0.5))) & ~on["AU12"]),
        ("Happiness", on["AU12"] & (on["AU6"] | (level["AU12"] > 0.5))),
        ("Neutral", ~np.any([on[au] for au in AUS if au not in ("AU25", "AU26")], axis=0)),
    )
    index = {name: k for k, name in enumerate(EXPRESSIONS)}
    classes = np.select([rule for _, rule in rules], [index[name] for name, _ in rules], index["Other"])
    shortest = max(1, round(0.2 * fps))
    edges = np.flatnonzero(np.diff(classes, prepend=-9, append=-9))
    for start, stop in pairwise(edges):  # very short runs get the class before them
        if start and stop - start < shortest:
            classes[start:stop] = classes[start - 1]
    classes[~motion.visible] = -1
    return classes


def affect_labels(motion: FaceMotion, fps: int) -> np.ndarray:
    """Valence and arousal from the action units and the voice: (T, 2) in [-1, 1], -5 where the face cannot be seen."""
    level = {au: motion.intensity[:, k] for au, k in INDEX.items()}
    loud, jaw = _smooth(motion.voice, 0.3 * fps), _smooth(level["AU26"], 0.15 * fps)
    pleasant = 0.62 * level["AU12"] + 0.25 * level["AU12"] * level["AU6"] + 0.12 * level["AU2"] * (1 - level["AU4"])
    unpleasant = 0.42 * level["AU4"] + 0.62 * level["AU15"] + 0.45 * level["AU10"] * (1 - level["AU12"])
    unpleasant += 0.20 * level["AU23"] + 0.25 * level["AU24"]
    valence = np.tanh(1.15 * (0.05 + pleasant - unpleasant))
    brows = 0.38 * np.maximum(level["AU1"], level["AU2"]) + 0.30 * level["AU4"] + 0.12 * level["AU7"]
    mouth = 0.20 * level["AU10"] + 0.28 * level["AU12"] - 0.15 * level["AU15"]
    arousal = np.tanh(1.1 * (-0.28 + 0.60 * loud + 0.40 * jaw + brows + mouth))
    affect = np.stack([_smooth(valence, 0.12 * fps), _smooth(arousal, 0.12 * fps)], axis=1)
    affect[~motion.visible] = -5.0
    return affect


def _smooth(values: np.ndarray, sd: float) -> np.ndarray:
    reach = max(1, int(3 * sd))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sd, 1e-3)) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), mode="valid")
