"""The features a recording gets under a configuration, each with what makes it; no torch is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from aupipe.config import IMPORTED, NO_DETECTOR, Config, EncoderConfig, FacesConfig
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.contract import as_stored, params_of, without_locations
from aupipe.extract.encoders import ENCODERS, Encoder, build_encoder, column_names_of, stored_dtype_of
from aupipe.extract.faces import DETECTORS, Detector, build_detector
from aupipe.extract.faces.tracking import VERSION as TRACK_VERSION
from aupipe.extract.faces.tracking import TrackParams
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.registry import nearest
from aupipe.tables import build
from aupipe.types import FeatureSpec, Modality, Recording, StreamChoice

# Of `aupipe.types.FaceTrack.to_rows`; left and right are those of the picture.
FACE_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
FACE_COLUMNS = (
    *("x1_px", "y1_px", "x2_px", "y2_px"),
    *(f"{point}_{axis}_px" for point in FACE_POINTS for axis in "xy"),
    "score",
)
DECODE_VERSION = 1  # raised when decoding gives other rows: order, stream choice, time base


@dataclass(frozen=True)
class FeatureGraph:
    """The features of one kind of recording, each with what makes it: the clock, the faces, the encoders.

    Names of the configuration that are the same numbers have one feature between them: it is computed once. ``named``:
    name in the configuration -> its feature; and the imported features of the store, which nothing makes.
    """

    clock: FeatureSpec
    detections: FeatureSpec | None
    faces: FeatureSpec | None
    encoders: tuple[tuple[FeatureSpec, Encoder], ...]
    named: Mapping[str, FeatureSpec]

    @cached_property
    def groups(self) -> tuple[ModalityGroup, ...]:
        """The encoders' features by modality."""
        modalities = dict.fromkeys(spec.modality for spec, _ in self.encoders)
        return tuple(
            ModalityGroup(modality, tuple(spec for spec, _ in self.encoders if spec.modality == modality))
            for modality in modalities
        )


@dataclass(frozen=True)
class ModalityGroup:
    """Features of one modality: they are computed from the same files and stored under the same key."""

    modality: Modality
    specs: tuple[FeatureSpec, ...]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(spec.id for spec in self.specs)


@dataclass(frozen=True)
class FeatureSet:
    """A configuration's detector and encoders, built; the same for every recording.

    ``known``: the features of a store; what was stored under an older key is found under that (`as_stored`).
    ``reads_only``: nothing is made. Where weights are not on this machine, the one known feature that differs in
    nothing else says which they were.
    """

    detector: Detector | None  # None: whole pictures are encoded
    track: TrackParams
    faces: FacesConfig
    encoders: tuple[tuple[EncoderConfig, Encoder], ...]
    mask_missing_audio: bool = False  # a video without sound gets rows that are all invalid, and does not fail
    mask_missing_text: bool = False  # nor does a video without a transcript
    fail_on_damage: bool = False  # what can be decoded of a damaged file is not taken for it
    known: tuple[FeatureSpec, ...] = ()
    reads_only: bool = False

    @cached_property
    def _graphs(self) -> dict[tuple[bool, bool, float | None, StreamChoice], FeatureGraph]:
        return {}

    def graph(self, recording: Recording) -> FeatureGraph:
        """The features this recording gets. Recordings from a video, from images and from aligned crops differ."""
        fps = None if recording.video else recording.fps
        kind = (recording.video is not None, recording.aligned, fps, recording.streams)
        graph = self._graphs.get(kind)
        if graph is None:
            graph = self._graphs[kind] = self._build_graph(*kind)
        return graph

    def _build_graph(self, has_video: bool, aligned: bool, fps: float | None, streams: StreamChoice) -> FeatureGraph:
        source: dict[str, Any] = {"source": "video"} if has_video else {"source": "images", "fps": fps}
        if has_video and streams.video is not None:
            source["video_stream"] = streams.video
        clock = FeatureSpec("clock", "clock", "pts", DECODE_VERSION, source, dtype="float64", columns=("time_s",))
        from_clock = {"clock": clock.id}
        detections = faces = None
        missing: list[WeightsMissingError] = []  # all are named in one message
        visual = any(encoder.modality == "visual" for _, encoder in self.encoders)
        if not aligned and self.detector is not None and visual:
            params = params_of(self.detector) | {"detect_px": self.faces.detect_px, "max_faces": self.faces.max_faces}
            if self.faces.detect_every > 1:
                params["detect_every"] = self.faces.detect_every
            version = self.detector.version
            bare = FeatureSpec(
                *("detections", "detections", self.faces.detector, version, params, None, "float32", from_clock),
                columns=(*FACE_COLUMNS, "frame_height_px", "frame_width_px"),
            )
            with DETECTORS.plugin_errors(self.faces.detector):
                detections = self._or_missing(bare, self.detector, missing)
            inputs = from_clock | {"detections": detections.id}
            track = params_of(self.track)
            faces = FeatureSpec(
                "faces", "faces", "subject", TRACK_VERSION, track, None, "float32", inputs, FACE_COLUMNS
            )
        made: dict[str, tuple[FeatureSpec, Encoder]] = {}  # by key
        named: dict[str, FeatureSpec] = {}
        for config, encoder in self.encoders:
            with ENCODERS.plugin_errors(config.kind):
                bare = self._encoder_spec(config, encoder, from_clock, faces, aligned, streams)
                spec = self._or_missing(bare, encoder, missing)
            named[config.name] = made.setdefault(spec.key, (spec, encoder))[0]
        if missing:
            raise WeightsMissingError(*(line for error in missing for line in error.lines))
        for spec in imported_features(self.known):
            if spec.inputs.get("clock") == clock.id:
                named.setdefault(spec.name, spec)
        return FeatureGraph(clock, detections, faces, tuple(made.values()), named)

    def _encoder_spec(
        self,
        config: EncoderConfig,
        encoder: Encoder,
        inputs: dict[str, str],
        faces: FeatureSpec | None,
        aligned: bool,
        streams: StreamChoice,
    ) -> FeatureSpec:
        params = params_of(encoder)
        if encoder.modality in ("audio", "text") and streams.audio is not None:  # words are timed by the sound's start
            params["audio_stream"] = streams.audio
        if encoder.modality == "audio" and streams.channels != "mix":
            params["audio_channels"] = streams.channels
        if encoder.modality == "visual":
            if isinstance(encoder.reads, CropTemplate):
                params["template"] = {"kind": type(encoder.reads).__name__} | asdict(encoder.reads)
            if faces is not None:
                inputs = inputs | {"faces": faces.id}
            else:
                params["crops"] = "given" if aligned else "whole"  # cut beforehand; the middle of the picture
        try:
            columns = column_names_of(encoder)
        except UsageError:  # the library that names them is not installed; said where it is needed
            columns = ()
        about = (config.name, encoder.modality, config.kind, encoder.version)
        return FeatureSpec(*about, params, None, stored_dtype_of(encoder), inputs, columns)

    def _or_missing(
        self, bare: FeatureSpec, part: Detector | Encoder, missing: list[WeightsMissingError]
    ) -> FeatureSpec:
        """`_with_weights`; where they are missing, the spec as it is, and the error is added to ``missing``."""
        try:
            return self._with_weights(bare, part)
        except WeightsMissingError as error:
            missing.append(error)
            return bare

    def _with_weights(self, bare: FeatureSpec, part: Detector | Encoder) -> FeatureSpec:
        """The spec with the weights that are here, or that of the stored feature which is the same (`as_stored`).

        A feature that is stored under another name alone is the same too. Columns have the names they have now.
        """
        try:
            weights = part.identify_weights()
        except WeightsMissingError:
            wanted = without_locations(bare, part).id
            same = (spec for spec in self.known if spec.kind == bare.kind)
            same = (spec for spec in same if without_locations(replace(spec, weights=None), part).id == wanted)
            stored = {spec.weights.sha256 if spec.weights else "": spec.weights for spec in same}
            if not self.reads_only or len(stored) != 1:
                raise
            (weights,) = stored.values()
        found = as_stored(replace(bare, weights=weights), part, self.known)
        alike = [spec for spec in self.known if (spec.modality, spec.key) == (found.modality, found.key)]
        found = alike[0] if alike and found.id not in {spec.id for spec in alike} else found
        return replace(found, columns=bare.columns or found.columns)


def build_feature_set(
    config: Config,
    modalities: Sequence[str] = (),
    names: Sequence[str] = (),
    known: Sequence[FeatureSpec] = (),
) -> FeatureSet:
    """The detector and the encoders of a configuration, those of ``modalities`` and ``names`` only where given.

    ``known``: the features of a store (`FeatureSet`), for who reads them without having the weights.

    Raises UsageError for unknown detectors, encoders, parameters and names, WeightsMissingError when a plan is made.
    """
    try:
        features = _build_feature_set(config, modalities, names, {spec.name for spec in imported_features(known)})
        return replace(features, known=tuple(known), reads_only=bool(known))
    except UsageError as error:
        if config.file is None or str(config.file) in str(error):
            raise
        raise UsageError(f"{config.file}: {error}") from error


def imported_features(known: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    """Those that another program has computed (`aupipe import`)."""
    return [spec for spec in known if spec.kind == IMPORTED]


def _build_feature_set(
    config: Config, modalities: Sequence[str], names: Sequence[str], imported: Collection[str]
) -> FeatureSet:
    for name in names:
        if name not in imported:
            config.encoder(name)
    chosen = [
        encoder
        for encoder in config.encoders
        if (not modalities or encoder.modality in modalities) and (not names or encoder.name in names)
    ]
    score = {} if config.faces.min_score is None else {"min_score": config.faces.min_score}
    detector = None
    if config.faces.detector != NO_DETECTOR:
        detector = build_detector(config.faces.detector, {**config.detector, **score})
    return FeatureSet(
        detector,
        TrackParams(subject=config.faces.subject),
        config.faces,
        tuple((encoder, build_encoder(encoder)) for encoder in chosen),
    )


def feature_ids(parts: FeatureSet, recordings: Sequence[Recording], names: Sequence[str] = ()) -> dict[str, str]:
    """Feature name -> id under the present configuration, for the heads; of imported features those in ``names`` alone.

    Raises UsageError for a name the configuration does not have, and when recordings of different kinds (from video,
    from aligned crops) would give one name two specs.
    """
    ids: dict[str, str] = {}
    for recording in recordings:
        for name, spec in parts.graph(recording).named.items():
            if ids.setdefault(name, spec.id) != spec.id:
                raise UsageError(
                    f"feature {name!r} would be {ids[name]} for some recordings and {spec.id} for "
                    f"{recording.id!r}: images and videos do not mix in one training run"
                )
    for name in names:
        if name not in ids:
            raise UsageError(f"no feature {name!r} in the configuration.{nearest(name, ids)} Known: {', '.join(ids)}")
    configured = {config.name for config, _ in parts.encoders}
    return {name: ids[name] for name in names or [name for name in ids if name in configured]}


def column_names(spec: FeatureSpec) -> tuple[str, ...]:
    """What the columns of a feature's rows are called, by its spec, else by the encoder that made it.

    None for an embedding, and for features of before whose encoder is not installed.
    """
    if spec.columns or spec.modality not in ("visual", "audio", "text") or spec.kind not in ENCODERS:
        return spec.columns
    kind = ENCODERS.get(spec.kind)
    try:
        known = {field.name for field in fields(kind)}
        params = {name: value for name, value in spec.params.items() if name in known}
        return column_names_of(build(kind, params, spec.id))
    except UsageError:  # a parameter that says where weights lie is not in the spec, or a library is not installed
        return ()
