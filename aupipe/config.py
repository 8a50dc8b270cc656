"""The configuration: command line, environment, `aupipe.toml` and defaults as frozen dataclasses."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from aupipe.config_values import coerce
from aupipe.documents import parse_toml
from aupipe.encoder_tables import EncoderConfig, as_written, read_encoders, right_form
from aupipe.errors import UsageError
from aupipe.local_models import WeightsConfig
from aupipe.registry import nearest
from aupipe.tables import Count, Range, Share, check_range
from aupipe.task_tables import LabelSource, read_tasks
from aupipe.tasks import Task
from aupipe.types import StreamChoice

FILE_NAME = "aupipe.toml"
NO_DETECTOR = "none"  # the value of [faces] detector with which whole frames are encoded
IMPORTED = "imported"  # the kind of features that another program has computed: no [[encoder]] makes them
RESERVED_ENVIRONMENT = {"AUPIPE_WEIGHTS", "AUPIPE_MIRROR", "AUPIPE_TEST_ASSETS"}


@dataclass(frozen=True)
class DatasetConfig:
    """The data set. Relative paths are relative to the folder of `aupipe.toml`."""

    layout: Literal["folder", "images", "affwild2", "disfa", "bp4d", "joint"] = "folder"
    root: Path = Path(".")  # of Aff-Wild2, DISFA, BP4D; folder that relative `parts` are in
    parts: tuple[str, ...] = ()  # layout joint: configurations, or their folders, whose data sets are one here
    # Layouts disfa, bp4d: subjects of that split; recordings, of a [[task]] with a file; empty: every third one.
    validation: tuple[str, ...] = ()
    videos: Path = Path("videos")  # layout folder: video files; images: one folder of numbered images per recording
    annotations: Path | None = None  # folder of AU_Detection_Challenge/...; searched for in an Aff-Wild2 tree
    columns: Path | None = None  # CSV recording,<column>,...: values, such as a scene, for --where and routes
    frames: Literal["video", "cropped_aligned"] = "video"  # source of the frames of an Aff-Wild2 track
    fps: Annotated[float, Range(0, 1e6, open="both")] | None = None  # of image folders, which have no timestamps
    tasks: tuple[tuple[Task, LabelSource], ...] = ()  # further label sets, and where their labels are: [[task]]
    video_stream: Annotated[int, Range(0, 999)] | None = None  # counted from 0, as FFmpeg's v:0; None: as players do
    audio_stream: Annotated[int, Range(0, 999)] | None = None
    audio_channels: Literal["mix", "left", "right", "first"] = "mix"  # the mean of all, or one
    # Of `aupipe extract`: without sound or words, rows are all invalid (mask), or the features fail; of a damaged file
    # the rows that can be decoded are stored (keep), or it fails.
    on_missing_audio: Literal["fail", "mask"] = "fail"
    on_missing_text: Literal["fail", "mask"] = "fail"
    on_damage: Literal["fail", "keep"] = "keep"

    @property
    def streams(self) -> StreamChoice:
        return StreamChoice(self.video_stream, self.audio_stream, self.audio_channels)


@dataclass(frozen=True)
class StoreConfig:
    """The feature store."""

    path: Path = Path("features")
    backend: str = "zarr"
    readable_by: Literal["owner", "group", "all"] = "owner"  # who may read a new store and exports


@dataclass(frozen=True)
class FacesConfig:
    """Detection of faces, and the choice of the subject."""

    detector: str = "mtcnn"  # "none": whole frames are encoded; short for [detector] kind
    subject: Literal["largest", "center", "left", "right"] = "largest"
    # Frames are shrunk by the smallest integer factor that makes the long side at most this long.
    detect_px: Annotated[int, Range(32, 65536)] = 640
    max_faces: Count = 8  # stored per frame, largest first
    min_score: Share | None = None  # None: the detector's default; short for [detector] min_score
    detect_every: Count = 1  # frames; faces are interpolated between them, never across a cut


@dataclass(frozen=True)
class TrainConfig:
    """Defaults of `aupipe train`."""

    recipe: str = "tcn"
    task: str = "au"  # a label set of the data set
    features: tuple[str, ...] = ()  # names; empty: the recipe's own, else every encoder of this file


@dataclass(frozen=True)
class Config:
    """All sections of the configuration. ``origin`` maps ``section.key`` to the source of the value.

    ``detector``: the parameters of the detector that ``faces.detector`` names, from the [detector] table.
    """

    dataset: DatasetConfig = DatasetConfig()
    store: StoreConfig = StoreConfig()
    faces: FacesConfig = FacesConfig()
    detector: Mapping[str, Any] = field(default_factory=dict)
    encoders: tuple[EncoderConfig, ...] = ()
    train: TrainConfig = TrainConfig()
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    file: Path | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """12 hex digits of a sha256 over all values, wherever they were given, but where weights lie."""
        values = asdict(replace(self, file=None, origin={}, weights=WeightsConfig()))
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]

    def encoder(self, name: str) -> EncoderConfig:
        """The encoder of this name. Raises UsageError with the nearest known name."""
        names = [encoder.name for encoder in self.encoders]
        if name not in names:
            where = f" in {self.file}" if self.file else ""
            raise UsageError(
                f"no [[encoder]] is named {name!r}{where}.{nearest(name, names)} Named: {', '.join(names)}"
            )
        return self.encoders[names.index(name)]


SECTIONS: dict[str, type] = {
    "dataset": DatasetConfig,
    "store": StoreConfig,
    "faces": FacesConfig,
    "train": TrainConfig,
    "weights": WeightsConfig,
}

DEFAULT_ENCODERS = (  # they need no weights
    EncoderConfig("hog", "hog", "visual"),
    EncoderConfig("geometry", "geometry", "visual"),
    EncoderConfig("mfcc", "mfcc", "audio"),
)


def find_config(start: Path) -> Path | None:
    """The nearest `aupipe.toml` in ``start`` or above, or None."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


def load_config(
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The configuration. Precedence: ``overrides``, environment, file, defaults.

    ``path``: the file; None: the nearest one in the current folder or above, if any.
    ``overrides``: ``section.key`` -> value, from the command line; None values are left out.
    Raises UsageError for a missing file, broken TOML, unknown sections or keys (with the nearest known one), and
    values of the wrong type.
    """
    file = path if path is not None else find_config(Path.cwd())
    if path is not None and not path.is_file():
        raise UsageError(f"no config file at {path}: write one with `aupipe init`")
    content = _read_toml(file) if file else {}
    where = str(file) if file else ""
    if "encoders" in content:
        raise UsageError(f"{where}: {right_form('encoders', content['encoders'])}")
    if "detectors" in content:
        raise UsageError(f"{where}: {_right_detector('detectors', content['detectors'])}")
    _refuse_unknown(content, [*SECTIONS, "detector", "encoder", "task"], "section", where)
    base = file.resolve().parent if file else Path.cwd()
    origin: dict[str, str] = {}
    sections: dict[str, Any] = {}
    env = _from_environment(os.environ if environment is None else environment)
    flags = {key: value for key, value in (overrides or {}).items() if value is not None}
    for name, section in SECTIONS.items():
        table = content.get(name, {})
        if not isinstance(table, dict):
            raise UsageError(f"{where}: [{name}] must be a table, not {table!r}")
        keys = [f for f in fields(section) if f.name != "tasks"]
        _refuse_unknown(table, [f.name for f in keys], f"key in [{name}]", where)
        hints, ranges = get_type_hints(section), get_type_hints(section, include_extras=True)
        values: dict[str, Any] = {}
        for f in keys:
            dotted = f"{name}.{f.name}"
            if dotted in flags:
                raw, origin[dotted], folder = flags[dotted], "command line", Path.cwd()
            elif dotted in env:
                raw, origin[dotted], folder = env[dotted][1], env[dotted][0], Path.cwd()
            elif f.name in table:
                raw, origin[dotted], folder = table[f.name], where, base
            else:
                raw, origin[dotted], folder = f.default, "default", base
                if raw is MISSING:
                    raise UsageError(f"{where}: [{name}] needs {f.name}")
            what = f"{dotted} ({origin[dotted]})"
            values[f.name] = coerce(raw, hints[f.name], folder, what)
            check_range(values[f.name], ranges[f.name], what)
        sections[name] = section(**values)
    sections["dataset"] = replace(sections["dataset"], tasks=read_tasks(content.get("task", []), where, base))
    sections["faces"], detector = _detector(content, sections["faces"], origin, where)
    encoders = read_encoders(content["encoder"], where) if "encoder" in content else DEFAULT_ENCODERS
    origin["encoder"] = where if "encoder" in content else "default"
    return Config(**sections, detector=detector, encoders=encoders, file=file, origin=origin)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return parse_toml(file.read_bytes())
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from error


def _refuse_unknown(table: Mapping[str, Any], known: list[str], noun: str, where: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{where}: unknown {noun} {key!r}.{nearest(key, known)} Known: {', '.join(known)}")


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """``section.key`` -> (variable, value) for every AUPIPE_<SECTION>_<KEY>; unknown keys of a section are refused."""
    found = {}
    for variable, value in environment.items():
        if not variable.startswith("AUPIPE_") or variable in RESERVED_ENVIRONMENT:
            continue
        section, _, key = variable.removeprefix("AUPIPE_").lower().partition("_")
        if section == "detector":
            raise UsageError(
                f"environment variable {variable}: [detector] is read from {FILE_NAME} alone; AUPIPE_FACES_DETECTOR "
                "and AUPIPE_FACES_MIN_SCORE set the detector and its score"
            )
        if section not in SECTIONS:
            continue  # a variable that is not for aupipe, such as AUPIPE_HOME
        known = [f.name for f in fields(SECTIONS[section])]
        if key not in known:
            raise UsageError(f"environment variable {variable}: [{section}] has no key {key!r}.{nearest(key, known)}")
        found[f"{section}.{key}"] = (variable, value)
    return found


def _detector(
    content: Mapping[str, Any], faces: FacesConfig, origin: dict[str, str], where: str
) -> tuple[FacesConfig, dict[str, Any]]:
    """The faces' settings with ``kind`` of the [detector] table, and its other keys, the detector's parameters.

    `[faces] detector` and `min_score` are short forms: in one file with the table they must say the same. From the
    environment or the command line they go before the file; another detector then has none of the table's parameters.
    Raises UsageError for settings that contradict each other, and for what is no table.
    """
    table = content.get("detector", {})
    if not isinstance(table, dict) or "name" in table or any(isinstance(value, dict) for value in table.values()):
        raise UsageError(f"{where}: {_right_detector('detector', table)}")
    for key, short in (("kind", "detector"), ("min_score", "min_score")):
        said = content.get("faces", {}).get(short, table.get(key))
        if key in table and said != table[key]:
            raise UsageError(
                f"{where}: [faces] {short} = {said!r} contradicts [detector] {key} = {table[key]!r}: leave one out"
            )
    kind = table.get("kind", content.get("faces", {}).get("detector", FacesConfig.detector))
    if not isinstance(kind, str):
        raise UsageError(f"{where}: [detector] kind is {kind!r}: expected a name")
    params = {key: value for key, value in table.items() if key != "kind"}
    if kind == NO_DETECTOR and params:
        raise UsageError(f"{where}: [detector] {next(iter(params))}: no detector is configured that could take it")
    if origin["faces.detector"] == "default" and "kind" in table:
        faces, origin["faces.detector"] = replace(faces, detector=kind), where
    elif faces.detector != kind:  # said outside of the file
        return faces, {}
    origin.update({f"detector.{key}": where for key in params})
    return faces, params


def _right_detector(key: str, given: Any) -> str:
    """What to write in place of ``given``, which stands under ``key`` and is no [detector] table."""
    heading, _, kind = as_written(key, given)
    if isinstance(given, Mapping) and "name" in given:
        heading, kind = f"{heading} name", kind or given["name"]
    kind = kind if isinstance(kind, str) and kind else "yunet"
    return f'{heading}: there is one detector: write [detector], and below it kind = "{kind}"'
