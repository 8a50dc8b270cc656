"""The recipes of the package: their heads and features, that each trains, and the error where features are missing."""

from dataclasses import replace

import numpy as np
import pytest

from aupipe.errors import UsageError
from aupipe.store import create_store
from aupipe.train.crossval import Fold
from aupipe.train.ensemble import train_ensemble
from aupipe.train.ensemble_recipe import load_ensemble_recipe
from aupipe.train.heads import HEADS
from aupipe.train.model_prediction import predict_model
from aupipe.train.predict import predict
from aupipe.train.recipe import describe_missing, load_recipe, recipe_names
from aupipe.types import FeatureSpec

from .toy_corpus import CLOCK, make_corpus, make_labels, train_corpus

PAPERS = {
    "aud-tgn": ("gpt2", ("iresnet50", "vggish", "mfcc"), 200),
    "aud-tgn-code": ("tcn_transformer", ("iresnet50",), 200),
    "regnet-vivit": ("vivit", ("regnet_map",), 256),
    "regnet-vivit-sgd": ("vivit", ("regnet_map",), 256),
    "regnet-three-branches": ("three_branches", ("regnet",), 256),
    "usc-multimodal": ("gru", ("swin_t", "ghfeat", "hubert", "roberta"), 32),
    "tcn-transformer": ("tcn_transformer", ("eff", "rafdb", "affectnet8"), 300),
    "tcn-transformer-code": ("tcn_transformer", ("eff", "affectnet8"), 300),
    "tmf-ensemble": ("tmf", ("mae_aff2_au", "mae_affn_va", "mae_affn_expr", "mae_raf_expr"), 100),
    "tmf-ensemble-code": ("tmf", ("mae_aff2_au", "mae_affn_va", "mae_affn_expr", "mae_raf_expr"), 100),
}
# (columns, modality) of the published features.
DIMS = {
    "iresnet50": (512, "visual"),
    "vggish": (128, "audio"),
    "mfcc": (39, "audio"),
    "regnet_map": (7040, "visual"),
    "regnet": (440, "visual"),
    "swin_t": (768, "visual"),
    "ghfeat": (1024, "visual"),
    "hubert": (1280, "audio"),
    "roberta": (1024, "text"),
    "eff": (1280, "visual"),
    "rafdb": (512, "visual"),
    "affectnet8": (512, "visual"),
} | {f"mae_{name}": (768, "visual") for name in ("aff2_au", "affn_va", "affn_expr", "raf_expr")}


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_s_recipe_has_its_head_features_and_window(name):
    recipe = load_recipe(name)
    assert (recipe.head.kind, recipe.features, recipe.window) == PAPERS[name]
    assert set(recipe.needs) == set(recipe.features)
    assert set(recipe.loss) == {"au", "expr", "va"}


def test_every_recipe_is_listed_here():
    assert set(recipe_names()) == set(PAPERS) | {"baseline", "tcn", "field", "best"}


def test_every_head_that_a_recipe_names_is_registered():
    members = [member for name in recipe_names() for member in load_ensemble_recipe(name).members]
    assert {member.recipe.head.kind for member in members} <= set(HEADS.names())


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_without_its_features_names_the_commands_that_compute_them(name, tmp_path):
    corpus = make_corpus(frames=40)
    with pytest.raises(UsageError) as caught:
        train_corpus(corpus, tmp_path / "run", load_recipe(name))
    for feature in PAPERS[name][1]:
        assert f"aupipe extract --feature {feature}" in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert describe_missing(load_recipe(name), PAPERS[name][1]) == ""


def published_corpus(names, task, frames=60):
    """Random features of the published widths."""
    rng = np.random.default_rng(0)
    corpus = make_corpus(task, train=3, validation=1, frames=frames)
    store = create_store("published", "memory")
    features = {}
    for video in {r.key_for("clock"): r for r in (*corpus.train, *corpus.validation)}:
        store.publish(video, CLOCK, np.array(corpus.store.read(video, CLOCK.id)))
    for number, name in enumerate(names or ("hog",)):
        dim, modality = DIMS.get(name, (20, "visual"))
        shape = (440, 4, 4) if name == "regnet_map" else (dim,)
        clock = {"clock": CLOCK.id}
        spec = FeatureSpec(name, modality, "random", 1 + number, dtype="float32", inputs=clock)  # none is another's
        for key in {r.key_for(modality): r for r in (*corpus.train, *corpus.validation)}.items():
            rows = rng.normal(size=(len(corpus.labels[key[1].id]), *shape))
            store.publish(key[0], spec, rows.astype(np.float32))
        features[name] = spec.id
    return replace(corpus, store=store, features=features)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["au", "expr", "va"])
@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains_at_its_published_size_and_predicts_every_frame(name, task, tmp_path):
    random = ["head.weights=random"] if name == "aud-tgn" else []
    recipe = load_ensemble_recipe(name, ["epochs=1", "batch=2", *random])
    corpus = published_corpus(recipe.features, task)
    fold = Fold("official", tuple(corpus.train), tuple(corpus.validation))
    model = train_ensemble(
        corpus.store,
        recipe,
        [(fold, 0)],
        labels=corpus.labels,
        features=corpus.features,
        task=task,
        out=tmp_path / "run",
    )
    assert all(np.isfinite(run.history[0].loss) and run.finished for run in model.runs)
    found = predict_model(model, corpus.store, corpus.validation)
    assert all(np.isfinite(item.scores).all() for item in found.values())


@pytest.mark.parametrize("name", ["tmf-ensemble", "usc-multimodal", "field"])
@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_batch_normalised_and_crf_runs_are_read_back_unchanged(name, task, tmp_path):
    small = {
        "tmf-ensemble": ("head.width=16", "head.encoder_width=16", "head.layers=1"),
        "usc-multimodal": ("head={kind='gru', width=8, layers=1, hidden=16}", "margin=false", "window=60", "batch=4"),
        "field": (),
    }[name]
    corpus = make_corpus(task, train=4, validation=2, frames=60)
    run = train_corpus(corpus, tmp_path / "run", load_recipe(name, ["features=[]", "epochs=3", *small]))
    from aupipe.train.evaluate import evaluate

    annotated = {item.id: corpus.labels[item.id] for item in corpus.validation}
    assert evaluate(predict(run, corpus.store, corpus.validation), annotated, task).values == run.scores.values


def test_the_labels_of_a_toy_corpus_have_every_class_somewhere():
    """Otherwise the tests above would train on constants."""
    labels = make_labels(np.random.default_rng(0), 400, "expr")
    assert len(np.unique(labels.targets)) == 8
