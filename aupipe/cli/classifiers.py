"""What `analyse --classifier` names: encoders, such as an ONNX network with its classes, and trained models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupipe.cli.context import choose_postprocess
from aupipe.config import Config
from aupipe.documents import parse_toml
from aupipe.encoder_tables import EncoderConfig, read_encoders
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.quantities import counted
from aupipe.registry import nearest

if TYPE_CHECKING:
    from aupipe.extract.planning.features import FeatureSet
    from aupipe.report.analysis.columns import Column
    from aupipe.store import Store
    from aupipe.train.model import Model
    from aupipe.train.predictions import Predictions
    from aupipe.types import FeatureSpec, Recording


@dataclass(frozen=True)
class Classifiers:
    """``models`` by their names; ``encoders``: those that were named, and those that the models read.

    ``columns``: of each model, by its name. ``inputs``: names of encoders that only models read.
    """

    encoders: tuple[EncoderConfig, ...] = ()
    models: Mapping[str, Model] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Column]] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()


def choose_classifiers(config: Config, names: Sequence[str]) -> Classifiers:
    """What the values of ``--classifier`` stand for.

    Raises UsageError for a name that is nothing, WeightsMissingError where the weights of an encoder are not here.
    """
    from aupipe.extract.encoders import build_encoder

    encoders: dict[str, EncoderConfig] = {}
    models: dict[str, Model] = {}
    named: set[str] = set()  # encoders that were asked for themselves
    for name in names:
        path = Path(name)
        if path.is_dir():
            from aupipe.train.model import load_model

            model = load_model(path)
            models[_free_name(path.resolve().name, models)] = model
            own = [_encoder_of(spec, config) for run in model.runs for spec in run.specs.values()]
        elif path.suffix == ".toml":
            own = _read_tables(path)
            named |= {one.name for one in own}
        elif name in {one.name for one in config.encoders}:
            own = [config.encoder(name)]
            named.add(name)
        else:
            known = [one.name for one in config.encoders] if config.file else []
            remedy = f" {config.file} has {', '.join(known)}" if known else ""
            raise UsageError(
                f"--classifier {name}: no trained run, no .toml file and no [[encoder]].{nearest(name, known)}{remedy}"
            )
        for one in own:
            other = encoders.setdefault(one.name, one)
            if (other.kind, dict(other.params)) != (one.kind, dict(one.params)):
                raise UsageError(f"--classifier {name}: two different encoders are named {one.name!r}: rename one")
    missing: list[str] = []
    for one in encoders.values():
        try:
            build_encoder(one).identify_weights()
        except WeightsMissingError as error:
            missing += error.lines
    if missing:
        raise WeightsMissingError(*missing)
    columns = {name: _columns_of(name, model) for name, model in models.items()}
    return Classifiers(tuple(encoders.values()), models, columns, frozenset(encoders.keys() - named))


def refuse_other_features(classifiers: Classifiers, features: FeatureSet, recordings: Sequence[Recording]) -> None:
    """Raises UsageError for a model that was trained on other features than ``features`` gives of these recordings."""
    here = {spec.id for spec, _ in features.graph(recordings[0]).encoders}
    for model in classifiers.models.values():
        if other := sorted({name for run in model.runs for name in run.features.values()} - here):
            raise UsageError(
                f"--classifier {model.path}: it was trained on {other[0]}, which is not computed here: another "
                "detector, subject rule or weights? Give the --detector, or the --config of its project"
            )


def guesses_of(
    classifiers: Classifiers, store: Store, recordings: Sequence[Recording], device: str
) -> dict[str, dict[str, Predictions]]:
    """What the models say, after their own post-processing: by model, then by recording, of those with all features."""
    if not classifiers.models:  # then no torch is loaded
        return {}
    from aupipe.train.model_prediction import predict_model
    from aupipe.train.postprocess import apply_postprocess

    found: dict[str, dict[str, Predictions]] = {}
    for name, model in classifiers.models.items():
        wanted = {feature_id for run in model.runs for feature_id in run.features.values()}
        able = [r for r in recordings if all(_has(store, r, feature_id) for feature_id in wanted)]
        scores = predict_model(model, store, able, device=device, allow_missing=True) if able else {}
        post = choose_postprocess(model, "own")
        found[name] = apply_postprocess(post, scores) if post is not None and scores else dict(scores)
    return found


def _has(store: Store, recording: Recording, feature_id: str) -> bool:
    try:
        store.published(recording.key_for(store.spec(feature_id).modality), feature_id)
    except KeyError:
        return False
    return True


def _read_tables(path: Path) -> list[EncoderConfig]:
    """The [[encoder]] tables of a file; weights beside it are found there."""
    try:
        content = parse_toml(path.read_bytes())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is not valid TOML: {error}"
        raise UsageError(f"--classifier {path}: {why}") from None
    if "encoder" not in content:
        raise UsageError(f"--classifier {path}: it has no [[encoder]] table")
    return [_beside(one, path.absolute().parent) for one in read_encoders(content["encoder"], str(path))]


def _beside(one: EncoderConfig, folder: Path) -> EncoderConfig:
    weights = folder / str(one.params.get("weights", ""))
    return replace(one, params={**one.params, "weights": str(weights)}) if weights.is_file() else one


def _encoder_of(spec: FeatureSpec, config: Config) -> EncoderConfig:
    """The encoder that makes a feature of a run: that of the configuration, else as its spec says."""
    from aupipe.extract.encoders import ENCODERS

    own = [one for one in config.encoders if one.name == spec.name and one.kind == spec.kind and config.file]
    if own:
        return own[0]
    kind: Any = ENCODERS.get(spec.kind)
    known = {one.name for one in fields(kind)}
    params = {name: value for name, value in spec.params.items() if name in known}
    if spec.weights is not None and "weights" in known and spec.kind != "vad":
        params["weights"] = spec.weights.name
    if spec.modality not in ("visual", "audio", "text"):
        raise UsageError(f"feature {spec.id} is none of an encoder")
    return EncoderConfig(spec.name, spec.kind, spec.modality, params)


def _columns_of(name: str, model: Model) -> list[Column]:
    from aupipe.report.analysis.columns import Column

    unit = "probability" if model.task.whole else f"{model.task.low:g} to {model.task.high:g}"
    by = f"the trained model {name} ({model.name}, task {model.task})"
    trained_on = f"{counted(len(model.trained_on), 'recording')} of its own data set"
    return [Column(column, unit, "guess", by, trained_on) for column in model.task.names]


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    return next(each for each in (name, *(f"{name}-{number}" for number in range(2, 99))) if each not in taken)
