"""The data types that all packages share. numpy only.

Conventions: times in seconds (`_s`), pixels (`_px`), half-open ranges, one row per decoded frame, NaN and
``valid=False`` where a row carries nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:  # numpy is most of what `aupipe --help` would load
    import numpy as np
    from numpy.typing import NDArray

Modality = Literal["clock", "detections", "faces", "visual", "audio", "text"]
Task = Literal["au", "expr", "va"]
TASKS: tuple[Task, ...] = get_args(Task)
Subject = Literal["largest", "center", "left", "right"]

# A video's clock, its detections, its sound and its words are the same for everybody in it; a face is one person's.
PER_VIDEO: frozenset[str] = frozenset({"clock", "detections", "audio", "text"})

FEATURE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Recording:
    """One person in one video: the unit of processing and of scoring.

    In Aff-Wild2 this is a track: ``video2_left`` and ``video2_right`` are two recordings of the video ``video2``.
    """

    id: str  # relative path or track name, never a bare stem
    video: Path | None = None  # file the frames and the clock come from
    images: Path | None = None  # folder of frames or of aligned crops, named 00001.jpg ... from 1
    aligned: bool = False  # images are aligned face crops: no detection, no second warp
    subject: Subject | None = None  # overrides the subject rule, e.g. for `_left` and `_right` tracks
    split: str | None = None
    video_id: str = ""  # what siblings share: clock, detections, sound and words are stored under it
    group: str = ""  # what folds must not split
    fps: float | None = None  # frame rate of an image folder without a video

    def __post_init__(self) -> None:
        object.__setattr__(self, "video_id", self.video_id or self.id)
        object.__setattr__(self, "group", self.group or self.video_id)

    def key_for(self, modality: str) -> str:
        """The id an item of this modality is stored under."""
        return self.video_id if modality in PER_VIDEO else self.id


class SourceIdentity(NamedTuple):
    """Which file, exactly, a feature was computed from.

    Size and modification time answer quickly; the digest decides when only the time differs (a copied data set). Where
    the digest differs, the folder tells a file that has changed from another file of the same name. A tuple, because
    planning makes and compares one for every file of a corpus.
    """

    size: int
    mtime_ns: int
    digest: str  # `aupipe.sources.source_identity`
    folder: str = ""  # absolute, links resolved, that it lay in; empty where that was not written down


@dataclass(frozen=True)
class Frames:
    """Decoded frames: ``rgb`` uint8 (T, H, W, 3), ``pts_s`` float64 (T,), ``index`` int64 (T,) their rows, rising.

    T counts decoded frames, never what a container claims.
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
        """Height and width of the pictures."""
        height, width = self.rgb.shape[1:3]
        return height, width

    def select(self, keep: NDArray[np.bool_]) -> Frames:
        """The frames where ``keep`` (T,) is set."""
        return self if keep.all() else Frames(self.rgb[keep], self.pts_s[keep], self.index[keep])


@dataclass(frozen=True)
class Waveform:
    """Mono sound on the video's clock: float32 (N,) in [-1, 1]; sample i sounds at ``start_s + i / sample_rate``.

    ``samples`` of long sound are a read-only memory map of a temporary file.
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

    Landmark order is the ArcFace template's: image-left eye, image-right eye, nose, image-left and image-right mouth
    corner.
    """

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class FaceTrack:
    """One subject through a recording: ``box`` (T, 4), ``landmarks`` (T, 5, 2), ``score`` (T,); NaN where unseen."""

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
        """(T, 15): box, the five points, score; the form a face track is stored in."""
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
    """Which weights made a feature: a file name, its sha256, and the licence it came under."""

    name: str
    sha256: str
    licence: str = "unknown"


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that changes a feature's numbers, and nothing else; two equal specs are one feature.

    Batch size, device and worker counts are not in it. ``inputs`` names the stored features this one was computed
    from, so a new face track makes new visual features.
    """

    name: str
    modality: Modality
    kind: str
    version: int
    params: Mapping[str, Any] = field(default_factory=dict)  # JSON values
    weights: Weights | None = None
    dtype: str = "float16"
    inputs: Mapping[str, str] = field(default_factory=dict)  # role -> feature id

    def __post_init__(self) -> None:
        if not FEATURE_NAME.fullmatch(self.name):
            raise ValueError(f"feature name {self.name!r}: use a-z, 0-9, '_', '.', '-', at most 64 characters")

    @cached_property
    def key(self) -> str:
        """12 hex digits of the sha256 of what changes the numbers. The name and the licence are not part of it."""
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
        """``<name>@<key>``: the folder this feature lives in."""
        return f"{self.name}@{self.key}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal spec."""
        return asdict(self) | {"params": dict(self.params), "inputs": dict(self.inputs), "key": self.key}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FeatureSpec:
        """The spec in a `spec.json`; unknown fields (of a later version) are ignored."""
        known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        if known.get("weights"):
            known["weights"] = Weights(**known["weights"])
        return cls(**known)


@dataclass(frozen=True)
class Features:
    """Rows of one feature of one recording: ``data`` (T, ...), ``pts_s`` (T,), ``valid`` (T,).

    Rows where ``valid`` is False are NaN in ``data``.
    """

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
    """Annotations of one recording, row k for decoded frame k: ``targets`` (T, K) float32, ``valid`` (T, K).

    AU: 0 or 1 per unit. EXPR: (T, 1), the class number. VA: valence and arousal in [-1, 1].
    """

    task: Task
    names: tuple[str, ...]  # the K columns; for EXPR the classes, while K is 1
    targets: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Window:
    """Frames [start, stop) of one recording."""

    recording: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start
