"""What commands for a store have in common: the store, its features by name, and which of them are still named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from aupipe.cli.options import existing_store
from aupipe.cli.recipe_features import task_of, with_encoders
from aupipe.config import Config, load_config
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.registry import nearest

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.store.local import LocalStore


def folder_store(config: Config) -> LocalStore:
    """The store of a configuration, which is in a folder. Errors as `existing_store`."""
    from aupipe.extract.planning.named import meant_feature

    opened = cast("LocalStore", existing_store(config))
    opened.prefer = partial(meant_feature, config, lambda: open_dataset(config.dataset).recordings)
    return opened


def feature_ids(store: Store, feature: str | None) -> set[str]:
    """The ids of the features of this name or id; of all for None. Raises UsageError where there is none.

    Where no stored feature has the name, it is that of an encoder which has been renamed since.
    """
    known = {spec.id: spec.name for spec in store.features()}
    if feature is None:
        return set(known)
    found = {feature_id for feature_id, name in known.items() if feature in (feature_id, name)}
    if not found and store.prefer is not None and (renamed := store.prefer(feature, store.features())):
        found = {renamed}
    if not found:
        close = nearest(feature, {*known, *known.values()})
        raise UsageError(f"no feature {feature!r} in {store.path}.{close} Stored: {', '.join(known) or 'nothing'}")
    return found


def find_named(config: Config, store: Store, keep: Iterable[str] = ()) -> dict[str, str]:
    """Id of each stored feature that is still named -> by what, in words.

    Named is what the configuration gives its recordings, what the recipe of its [train] table does, what the trained
    runs in ``runs`` beside the configuration were trained on, every imported feature, and what these are computed from.
    ``keep`` names more: features, other configuration files, folders of runs. Raises UsageError for what cannot be
    read: then it is not known what is named.
    """
    from aupipe.extract.planning.features import imported_features

    stored = store.features()
    found: dict[str, str] = {}
    if config.file is not None:
        _note(found, store, _by_config(config, store), str(config.file))
        _note(found, store, _by_runs(config.file.parent / "runs"), f"a run in {config.file.parent / 'runs'}")
    _note(found, store, [spec.id for spec in imported_features(stored)], "its import: it cannot be computed again")
    if config.file is not None and any(spec.id not in found for spec in stored):  # reading a recipe imports torch
        _note(found, store, _by_recipe(config, store), f"recipe {config.train.recipe} of {config.file}")
    for name in keep:
        path = Path(name)
        if path.is_dir():
            ids = _by_runs(path)
            if not ids:
                raise UsageError(f"--keep {name}: no trained run in this folder")
            _note(found, store, ids, f"a run in {name}")
        elif path.is_file():
            other = load_config(path)
            _note(found, store, _by_config(other, store) | _by_recipe(other, store), name)
        else:
            _note(found, store, feature_ids(store, name), f"--keep {name}")
    known = {spec.id for spec in stored}
    return {feature: by for feature, by in found.items() if feature in known}


def _note(found: dict[str, str], store: Store, ids: Iterable[str], by: str) -> None:
    from aupipe.extract.planning.named import with_inputs

    for feature in with_inputs(ids, store.features()):
        found.setdefault(feature, by)


def _by_config(config: Config, store: Store) -> set[str]:
    from aupipe.extract.planning.named import named_features

    return named_features(config, open_dataset(config.dataset).recordings, store.features())


def _by_recipe(config: Config, store: Store) -> set[str]:
    from aupipe.train.ensemble_recipe import load_ensemble_recipe

    recipe = load_ensemble_recipe(config.train.recipe, task=task_of(config, config.train.task))
    return _by_config(with_encoders(config, recipe.encoders, warn=False), store)


def _by_runs(folder: Path) -> set[str]:
    """The features that the runs in a folder, and in those below it, were trained on."""
    from aupipe.train.run import holds_run, load_run

    folders: Sequence[Path] = [Path(path) for path, _, _ in os.walk(folder)]
    return {feature for each in folders if holds_run(each) for feature in load_run(each).features.values()}
