"""The weights that a recipe's encoders and detector lack on this machine, fetched one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aupipe.cli.recipe_features import recipe_encoders, recipe_tasks, task_of
from aupipe.config import NO_DETECTOR, load_config
from aupipe.errors import WeightsMissingError
from aupipe.extract.weights import KNOWN_WEIGHTS, MissingFileError


def pull_recipe(recipe: str, task: str | None, fetch: Callable[[str], None]) -> list[str]:
    """Call ``fetch`` for each file that a recipe needs and that is not here; what else is missing, in lines.

    The detector is that of the recipe, else that of the configuration. Raises UsageError for an unknown recipe or task,
    and for one without features, and what ``fetch`` raises.
    """
    from aupipe.extract.encoders import build_encoder
    from aupipe.extract.faces import build_detector
    from aupipe.train.ensemble_recipe import load_ensemble_recipe

    config = load_config()
    tasks = recipe_tasks(recipe, task_of(config, task) if task else None)
    parts: list[Any] = [build_encoder(encoder) for encoder in recipe_encoders(recipe, tasks, config)]
    own: Mapping[str, Any] = {"kind": config.faces.detector, **config.detector}
    tables = (load_ensemble_recipe(recipe, task=one).detector for one in tasks)
    params = dict(next(filter(None, tables), own))
    if (kind := str(params.pop("kind", config.faces.detector))) != NO_DETECTOR:
        parts.append(build_detector(kind, params))
    return _pull_missing(parts, fetch)


def _pull_missing(parts: Iterable[Any], fetch: Callable[[str], None]) -> list[str]:
    from aupipe.extract.weights.pull import has_address

    lines: list[str] = []
    fetched = set()
    for part in parts:
        while True:
            try:
                part.identify_weights()
            except MissingFileError as error:
                known = KNOWN_WEIGHTS.get(error.name)
                if error.name not in fetched and known is not None and has_address(known):
                    fetched.add(error.name)
                    fetch(error.name)
                    continue
                lines += error.lines
            except WeightsMissingError as error:  # a model of the hub, or a file that must be imported
                lines += error.lines
            break
    return list(dict.fromkeys(lines))
