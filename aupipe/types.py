"""Data types that all packages share. They need numpy only.

Conventions: times in seconds (`_s`), pixels (`_px`), half-open ranges, one row per decoded frame, NaN and
``valid=False`` where a row has no data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from aupipe.tasks import Task, as_task

if TYPE_CHECKING:  # numpy is most of what `aupipe --help` would load
    import numpy as np
    from numpy.typing import NDArray

Modality = Literal["clock", "detections", "faces", "visual", "audio", "text"]
Subject = Literal["largest", "center", "left", "right"]

# Stored once per video and shared by its recordings; faces and visual features belong to one recording.
PER_VIDEO: frozenset[str] = frozenset({"clock", "detections", "audio", "text"})

FEATURE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class StreamChoice:
    """What is read of a media file with several streams of a kind; numbers count those of a kind, from 0."""

    video: int | None = None  # None: the one a player begins with
    audio: int | None = None
    channels: Literal["mix", "left", "right", "first"] = "mix"


AS_PLAYED = StreamChoice()


@dataclass(frozen=True)
class Recording:
    """One person in one video: the unit of processing and of scoring.

    In Aff-Wild2 this is a track: ``video2_left`` and ``video2_right`` are two recordings of the video ``video2``.
    """

    id: str  # relative path or track name, never a bare stem
    video: Path | None = None  # file of the frames and the clock
    images: Path | None = None  # folder of frames or of aligned crops, named 00001.jpg ... from 1
    aligned: bool = False  # images are aligned face crops: no detection, no second warp
    subject: Subject | None = None  # overrides the subject rule, e.g. for `_left` and `_right` tracks
    split: str | None = None
    video_id: str = ""  # clock, detections, audio and text are stored under it, for all recordings of the video
    group: str = ""  # recordings of one group are in the same fold
    fps: float | None = None  # frame rate of an image folder without a video
    streams: StreamChoice = AS_PLAYED
    columns: tuple[tuple[str, str], ...] = ()  # (column of the data set, value): ("scene", "reaction")

    def __post_init__(self) -> None:
        object.__setattr__(self, "video_id", self.video_id or self.id)
        object.__setattr__(self, "group", self.group or self.video_id)

    def value(self, column: str) -> str:
        """The value in a column of the data set; '' where there is none."""
        return dict(self.columns).get(column, "")

    def key_for(self, modality: str) -> str:
        """The id under which an item of this modality is stored."""
        return self.video_id if modality in PER_VIDEO else self.id


class SourceIdentity(NamedTuple):
    """The identity of the file that a feature was computed from.

    Size and modification time are compared first. If only the time differs (a copied data set), the digest decides; if
    it differs, the folder distinguishes a changed file from another of the same name. A tuple: planning makes many.
    """

    size: int
    mtime_ns: int
    digest: str  # `aupipe.sources.source_identity`
    folder: str = ""  # of the file, absolute, links resolved; empty in records of earlier versions


@dataclass(frozen=True)
class Frames:
    """Decoded frames: ``rgb`` uint8 (T, H, W, 3), ``pts_s`` float64 (T,), ``index`` int64 (T,) their rows, increasing.

    T counts decoded frames; the frame count of the container is not used. Pictures are upright and have square pixels.
    """

    rgb: NDArray[np.uint8]
    pts_s: NDArray[np.float64]
    index: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.rgb.ndim != 4 or self.rgb.shape[-1] != 3 or not len(self.rgb) == len(self.pts_s) == len(self.index):
            raise ValueError(f"{self.rgb.shape = }, {self.pts_s.shape = }: expected (T, H, W, 3) and (T,)")

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def nbytes(self) -> int:
        return self.rgb.nbytes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.rgb.shape[1], self.rgb.shape[2]

    def select(self, keep: NDArray[np.bool_]) -> Frames:
        """The frames where ``keep`` (T,) is set."""
        return self if keep.all() else Frames(self.rgb[keep], self.pts_s[keep], self.index[keep])


@dataclass(frozen=True)
class Waveform:
    """Mono audio on the video's clock: float32 (N,) in [-1, 1]; sample i is at ``start_s + i / sample_rate``.

    ``samples`` of long audio are a read-only memory map of a temporary file.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    start_s: float = 0.0

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class Detections:
    """Every face of one frame: ``box`` (N, 4) xyxy px, ``landmarks`` (N, 5, 2) px, ``score`` (N,); float32.

    Pixels are those of the upright picture with square pixels (`Frames`), whatever the file holds. Landmarks are in the
    order of the ArcFace template: image-left eye, image-right eye, nose, image-left and image-right mouth corner.
    """

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class FaceTrack:
    """The face of one subject: ``box`` (T, 4), ``landmarks`` (T, 5, 2), ``score`` (T,); NaN in frames without it."""

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    score: NDArray[np.float32]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(T,) True where the subject's face was found."""
        import numpy as np

        return ~np.isnan(self.score)

    def __len__(self) -> int:
        return len(self.score)

    def to_rows(self) -> NDArray[np.float32]:
        """(T, 15): box, five landmarks, score; the form in which a face track is stored."""
        import numpy as np

        points = self.landmarks.reshape(len(self), 10)  # (T, 5, 2) -> (T, 10)
        return np.concatenate([self.box, points, self.score[:, None]], axis=1).astype(np.float32)

    @classmethod
    def from_rows(cls, rows: NDArray[Any]) -> FaceTrack:
        """The inverse of `to_rows`."""
        import numpy as np

        rows = np.asarray(rows, dtype=np.float32)
        return cls(box=rows[:, :4], landmarks=rows[:, 4:14].reshape(-1, 5, 2), score=rows[:, 14])


@dataclass(frozen=True)
class Weights:
    """The weights of a feature: file name, sha256 and licence."""

    name: str
    sha256: str
    licence: str = "unknown"


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that changes a feature's numbers, and nothing else; two equal specs are the same feature.

    Batch size, device and number of workers are not part of it. ``inputs`` names the stored features that this one is
    computed from, so that visual features of another face track have another key.
    """

    name: str
    modality: Modality
    kind: str
    version: int
    params: Mapping[str, Any] = field(default_factory=dict)  # JSON values
    weights: Weights | None = None
    dtype: str = "float16"
    inputs: Mapping[str, str] = field(default_factory=dict)  # role -> feature id
    columns: tuple[str, ...] = field(default=(), compare=False)  # of the last axis of a row; none for an embedding

    def __post_init__(self) -> None:
        if not FEATURE_NAME.fullmatch(self.name):
            raise ValueError(f"feature name {self.name!r}: use a-z, 0-9, '_', '.', '-', at most 64 characters")

    @cached_property
    def key(self) -> str:
        """12 hex digits of a sha256 over all fields except the name and the licence."""
        content = {
            "modality": self.modality,
            "kind": self.kind,
            "version": self.version,
            "params": dict(self.params),
            "weights": self.weights.sha256 if self.weights else None,
            "dtype": self.dtype,
            "inputs": {role: feature_id.rpartition("@")[2] for role, feature_id in self.inputs.items()},
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def id(self) -> str:
        """``<name>@<key>``: the folder of this feature in the store."""
        return f"{self.name}@{self.key}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal spec."""
        content = asdict(self) | {"params": dict(self.params), "inputs": dict(self.inputs), "key": self.key}
        return content if content["columns"] else {name: content[name] for name in content if name != "columns"}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FeatureSpec:
        """The spec of a `spec.json`; unknown fields, as of a later version, are ignored."""
        known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        if known.get("weights"):
            known["weights"] = Weights(**known["weights"])
        return cls(**known | {"columns": tuple(known.get("columns", ()))})


@dataclass(frozen=True)
class Features:
    """The rows of one feature of one recording: ``data`` (T, ...), NaN where not ``valid`` (T,), and ``pts_s`` (T,)."""

    data: NDArray[Any]
    pts_s: NDArray[np.float64]
    valid: NDArray[np.bool_]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.data) == len(self.pts_s) == len(self.valid):
            raise ValueError(f"{self.data.shape = }, {self.pts_s.shape = }, {self.valid.shape = }: lengths differ")

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Labels:
    """Annotations of one recording, row k of decoded frame k: ``targets`` (T, K) float32, ``valid`` (T, K).

    Of a task of classes K is 1, the number of the class; of any other a column for each of its names.
    """

    task: Task  # the name of an official task is taken for the task
    names: tuple[str, ...]  # of the K columns; for EXPR of the classes, where K is 1
    targets: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", as_task(self.task))

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Window:
    """Frames [start, stop) of one recording. ``before`` and ``after``: frames beyond them that are read as context."""

    recording: str
    start: int
    stop: int
    before: int = 0
    after: int = 0

    def __len__(self) -> int:
        return self.stop - self.start
