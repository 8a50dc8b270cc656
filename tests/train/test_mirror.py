"""Rows that are the same for a picture and its mirror image, in training as in prediction."""

from pathlib import Path

import numpy as np
import pytest
import torch

from aupipe.extract.encoders.visual.blendshapes import NAMES
from aupipe.extract.encoders.visual.hog import Hog, hog
from aupipe.store import create_store
from aupipe.train.data import load_examples, read_rows
from aupipe.train.fit import fit
from aupipe.train.fit_config import FitConfig, FitData
from aupipe.train.labels import NAMES as NAMES_OF
from aupipe.train.mirror import mirror_order
from aupipe.train.predict import predict
from aupipe.train.recipe import load_recipe
from aupipe.train.run import load_run
from aupipe.types import FeatureSpec, Labels, Recording


def hog_spec(size_px: int, cell_px: int, bins: int) -> FeatureSpec:
    return FeatureSpec(
        "hog", "visual", "hog", 1, {"size_px": size_px, "cell_px": cell_px, "bins": bins}, dtype="float32"
    )


@pytest.mark.parametrize(("size_px", "cell_px", "bins"), [(112, 14, 9), (48, 16, 8), (32, 16, 1)])
def test_the_order_of_hog_gives_the_row_of_the_mirrored_picture(size_px, cell_px, bins):
    grey = torch.rand(2, size_px, size_px, generator=torch.Generator().manual_seed(0))
    row, mirrored = hog(grey, cell_px, bins).numpy(), hog(grey.flip(2), cell_px, bins).numpy()
    order = mirror_order(hog_spec(size_px, cell_px, bins), row.shape)
    assert len(order) == Hog(size_px, cell_px, bins).row_shape[0]
    np.testing.assert_allclose(row[:, order], mirrored, atol=1e-5)


def test_the_order_of_blendshapes_changes_left_and_right_and_nothing_else():
    order = mirror_order(FeatureSpec("b", "visual", "blendshapes", 1, columns=tuple(NAMES)), (1, len(NAMES)))
    for name, other in zip(NAMES, np.array(NAMES)[order], strict=True):
        swapped = {"Left": "Right", "Right": "Left"}.get(next((s for s in ("Left", "Right") if s in name), ""), "")
        assert (swapped in other and len(other) in (len(name) - 1, len(name) + 1)) if swapped else other == name


@pytest.mark.parametrize("columns", [(), ("a", "b"), ("mouthLeft",)])
def test_a_feature_whose_mirror_image_is_not_known_is_taken_as_stored(columns):
    assert mirror_order(FeatureSpec("f", "visual", "toy", 1, columns=columns), (1, len(columns))) is None
    assert mirror_order(hog_spec(112, 14, 9), (1, 20)) is None, "imported rows of another layout"


def mirrored_corpus(folder: Path, names: str, turned: str = ""):
    """HOG-like rows of recordings, those in ``turned`` as of mirrored pictures, and labels that the rows tell."""
    spec, rng = hog_spec(32, 16, 9), np.random.default_rng(0)  # 36 columns
    store, labels = create_store(folder, "zarr"), {}
    order = mirror_order(spec, (60, 36))
    for name in names:
        targets = (rng.random((60, 12)) < 0.4).astype(np.float32)
        rows = (targets @ np.random.default_rng(1).normal(size=(12, 36)) + rng.normal(size=(60, 36))).astype(np.float32)
        store.publish(name, spec, rows[:, order] if name in turned else rows)
        labels[name] = Labels("au", NAMES_OF["au"], targets, np.ones(targets.shape, bool))
    return store, spec, labels


def test_a_symmetric_recipe_scores_a_picture_and_its_mirror_image_alike_after_it_was_saved(tmp_path):
    recipe = load_recipe("baseline", ["epochs=1", "symmetric=true", "center=1.0", "head={kind='mlp'}"])
    store, spec, labels = mirrored_corpus(tmp_path / "store", "abcd")
    other, _, _ = mirrored_corpus(tmp_path / "turned", "abcd", turned="d")
    data = FitData([*map(Recording, "ab")], [Recording("c")], labels, {"hog": spec.id})
    fit(store, data, FitConfig(recipe, "au"), tmp_path / "run")
    run = load_run(tmp_path / "run")  # the weights of its MLP are not symmetric: what it reads is
    assert run.recipe.symmetric
    scores, turned = (predict(run, where, [Recording("d")])["d"].scores for where in (store, other))
    np.testing.assert_allclose(scores, turned, atol=1e-6)


def test_rows_are_made_symmetric_only_where_it_is_asked_for(tmp_path):
    store, spec, labels = mirrored_corpus(tmp_path / "store", "a")
    (plain,) = load_examples(store, [Recording("a")], {"hog": spec.id}, labels)
    (symmetric,) = load_examples(store, [Recording("a")], {"hog": spec.id}, labels, symmetric=True)
    rows = read_rows(plain, 0, 0, 60)
    np.testing.assert_array_equal(rows, store.read("a", spec.id))
    order = mirror_order(spec, rows.shape)
    np.testing.assert_allclose(read_rows(symmetric, 0, 0, 60), (rows + rows[:, order]) / 2, atol=1e-6)
