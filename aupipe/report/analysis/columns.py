"""The columns of an analysis: their names and units, what says them, and whether that measures or guesses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

from aupipe.config import EncoderConfig
from aupipe.quantities import first_of

Kind = Literal["measurement", "guess"]

FEATURES = (  # of every analysis, where they can be computed
    EncoderConfig("geometry", "geometry", "visual"),
    EncoderConfig("blendshapes", "blendshapes", "visual"),
    EncoderConfig("vad", "vad", "audio"),
    EncoderConfig("level", "level", "audio"),
)

# What networks were trained on, as their publishers say it.
DETECTORS = {
    "mtcnn": "faces of WIDER FACE and CelebA (Zhang et al. 2016)",
    "yunet": "faces of WIDER FACE (Wu et al. 2023)",
    "retinaface": "faces of WIDER FACE (Deng et al. 2020)",
    "scrfd": "faces of WIDER FACE (Guo et al. 2022)",
}
MEDIAPIPE = "Google's own pictures, not published (MediaPipe face landmarker)"
WEIGHTS = {  # file, or kind of encoder where none is named -> training data
    "blendshapes": MEDIAPIPE,
    "face_landmarker_v2_with_blendshapes.task": MEDIAPIPE,
    "vad": "speech in many languages, not published (Silero)",
    "fer2013_mini_xception.onnx": "FER-2013: 35,887 grey 48 px faces of a web search (Goodfellow et al. 2013)",
}
UNKNOWN = "not known here: ask who published it"
SIDES = "left and right in the picture: eye_left is the person's right eye"  # of geometry; not of blendshapes
FORMULAS = {"level": "a formula on the samples of the sound"}
UNITS = {"time_s": "s", "frame": "counted from 1", "level_dbfs": "dB of full scale", "speech": "0 to 1"}


@dataclass(frozen=True)
class Column:
    """``by``: what gives the values. ``trained_on``: of a guess, what that was trained on.

    A measurement is computed from the file by a formula; a guess is what a trained network says, or computed from that.
    """

    name: str
    unit: str
    kind: Kind
    by: str
    trained_on: str = ""
    whole: bool = False  # are its values whole numbers?

    def row(self) -> tuple[str, ...]:
        return (self.name, self.unit, self.kind, self.by, self.trained_on)


def clock_columns() -> list[Column]:
    """The columns that every row has."""
    return [
        Column("recording", "", "measurement", "the name of the file"),
        Column("frame", UNITS["frame"], "measurement", "the decoder, one row per decoded frame", whole=True),
        Column("time_s", UNITS["time_s"], "measurement", "the time stamp of the frame in the file"),
    ]


def face_columns(detector: str, subject: str) -> list[Column]:
    """Of the faces: how many there are, and the box and score of the subject, who is chosen by the rule ``subject``."""
    trained_on = DETECTORS.get(detector, UNKNOWN)
    about = ("guess", f"detector {detector}", trained_on)
    chosen = ("guess", f"detector {detector}, subject: {subject}", trained_on)
    boxes = [Column(f"face_{side}_px", "px", *chosen) for side in ("x1", "y1", "x2", "y2")]  # type: ignore[arg-type]
    return [
        Column("face_count", "faces in the picture", *about, whole=True),  # type: ignore[arg-type]
        Column("face_subject", "1: the subject's face was found", *chosen, whole=True),  # type: ignore[arg-type]
        *boxes,
        Column("face_score", "0 to 1", *chosen),  # type: ignore[arg-type]
    ]


def encoder_columns(config: EncoderConfig, names: Sequence[str], detector: str) -> list[Column]:
    """Of an encoder whose rows have columns called ``names``."""
    if config.kind in FORMULAS:
        return [Column(name, UNITS.get(name, ""), "measurement", FORMULAS[config.kind]) for name in names]
    if config.kind == "geometry":
        by = f"a formula on five points of detector {detector} ({SIDES})"
        trained_on = DETECTORS.get(detector, UNKNOWN)
        return [Column(n, "rad" if n == "roll_rad" else "eye distances", "guess", by, trained_on) for n in names]
    weights = PurePath(str(config.params.get("weights", ""))).name
    by = f"{config.kind} {weights}".strip()
    trained_on = WEIGHTS.get(weights or config.kind, UNKNOWN)
    unit = "0 to 1" if config.kind in ("blendshapes", "vad") else ""
    return [Column(name, unit, "guess", by, trained_on) for name in names]


def distinct(groups: Iterable[tuple[str, Sequence[Column]]]) -> list[list[Column]]:
    """Columns by group, a name that several have with the name of its group before it: ``fer_happy``."""
    groups = list(groups)
    names = [column.name for _, columns in groups for column in columns]
    twice = {name for name in names if names.count(name) > 1}
    return [
        [replace(one, name=f"{group}_{one.name}") if group and one.name in twice else one for one in columns]
        for group, columns in groups
    ]


def in_words(columns: Sequence[Column]) -> list[str]:
    """Which columns are measurements and which are guesses, by what and of what training, a line each."""
    lines = [_measurements(columns)]
    guesses: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        if column.kind == "guess":
            guesses.setdefault((column.by, column.trained_on), []).append(column.name)
    for (by, trained_on), names in guesses.items():
        lines.append(f"guesses of {by}: {first_of(names, 4)}; trained on {trained_on}")
    return lines


def in_short(columns: Sequence[Column], chosen: Sequence[Column], where: str) -> list[str]:
    """The same in two lines, and one for each classifier that was asked for, whose columns are ``chosen``.

    ``where``: what says the same of every column.
    """
    guesses = sum(column.kind == "guess" for column in columns)
    others = f"guesses of networks: the other {guesses}: {where} says of which, trained on what"
    return [_measurements(columns), *([others] if guesses else []), *(in_words(chosen)[1:])]


def _measurements(columns: Sequence[Column]) -> str:
    return f"measurements: {', '.join(column.name for column in columns if column.kind == 'measurement')}"
