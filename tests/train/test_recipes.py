"""The recipes of the package: their heads and features, that each trains, and the error where features are missing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aupipe.errors import UsageError
from aupipe.extract.encoders import build_encoder
from aupipe.store import create_store
from aupipe.tasks import OFFICIAL
from aupipe.train.crossval import Fold
from aupipe.train.data import columns
from aupipe.train.ensemble import train_ensemble
from aupipe.train.ensemble_recipe import load_ensemble_recipe
from aupipe.train.heads import HEADS, build_head
from aupipe.train.model_prediction import predict_model
from aupipe.train.predict import predict
from aupipe.train.recipe import describe_missing, load_recipe, recipe_names, unscaled_numbers
from aupipe.types import FeatureSpec

from .recipe_shapes import row_shapes, specs
from .toy_corpus import CLOCK, make_corpus, make_labels, train_corpus

MAES = ("mae_affn_va", "mae_affn_expr", "mae_raf_expr")
FUSED = (*MAES, "mae_bp4d_au", "hubert_base", "vggish")
# recipe -> head, window, and the published features of each task.
PAPERS = {
    "aud-tgn": ("gpt2", 200, {"au": ("iresnet50", "vggish", "mfcc")}),
    "aud-tgn-code": ("tcn_transformer", 200, {"au": ("iresnet50",)}),
    "regnet-vivit": ("vivit", 256, {"au": ("regnet_map",)}),
    "regnet-vivit-sgd": ("vivit", 256, {"au": ("regnet_map",)}),
    "regnet-vivit-adamw": ("vivit", 256, {"au": ("regnet_map",)}),
    "regnet-three-branches": ("three_branches", 256, {"au": ("regnet",)}),
    "usc-multimodal": ("gru", 32, {"au": ("swin_t", "ghfeat", "hubert", "roberta")}),
    "tcn-transformer": (
        "tcn_transformer",
        300,
        {
            "au": ("eff", "rafdb", "affectnet8"),
            "expr": ("eff", "affectnet8"),
            "va": ("eff", "rafdb", "affectnet8", "wav2vec2_emotion"),
        },
    ),
    "tcn-transformer-code": (
        "tcn_transformer",
        300,
        {
            "au": ("eff", "affectnet8"),
            "expr": ("eff", "rafdb", "affectnet8"),
            "va": ("eff", "affectnet8", "rafdb", "arcface", "wav2vec2", "wav2vec2_emotion"),
        },
    ),
    "tmf-ensemble": (
        "tmf",
        100,
        {"au": ("mae_aff2_au", *MAES), "expr": ("mae_aff2_expr", *FUSED), "va": ("mae_aff2_va", *FUSED)},
    ),
}
PAPERS["tmf-ensemble-code"] = PAPERS["tmf-ensemble"]
PAPERS |= {
    "aud-tgn-tail": ("trained_tail", 200, {"au": ("crops", "vggish", "mfcc")}),
    "regnet-vivit-tail": ("trained_tail", 256, {"au": ("crops",)}),
    "regnet-three-branches-tail": ("trained_tail", 256, {"au": ("crops",)}),
    "usc-multimodal-tail": ("trained_tail", 32, {"au": ("crops", "ghfeat", "hubert", "roberta")}),
    "mae-tuning": ("trained_tail", 8, {"au": ("faces224",)}),
}
TAILS = [name for name, (head, *_) in PAPERS.items() if head == "trained_tail"]


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_s_recipe_has_its_head_window_and_the_features_of_each_task(name):
    head, window, features = PAPERS[name]
    for task in OFFICIAL.values():
        recipe = load_recipe(name, task=task)
        assert (recipe.head.kind, recipe.window) == (head, window)
        assert recipe.features == features.get(task.name, features["au"])
        assert {encoder.name for encoder in recipe.encoders} == set(recipe.features)
        assert set(recipe.loss) == {"au", "expr", "va"}
    assert load_recipe(name).features == features["au"]


def test_every_recipe_is_listed_here():
    assert set(recipe_names()) == set(PAPERS) | {"baseline", "tcn", "field", "best"}


@pytest.mark.parametrize("name", PAPERS)
def test_what_a_recipe_s_tables_make_has_distinct_keys_and_fits_its_head_for_every_task(name):
    for task in OFFICIAL.values():
        recipe = load_recipe(name, task=task)
        keys = [spec.key for spec in specs(recipe).values()]
        assert len(set(keys)) == len(keys) == len(recipe.features)
        shapes = row_shapes(recipe)
        dims = tuple(int(np.prod(shape)) for shape in shapes.values())
        inputs = sum(dims) + len(dims)
        targets = len(task.names)
        kind, params = recipe.head.kind, recipe.head.params
        head = build_head(kind, params, inputs, targets, dims, task.kind, recipe.features, read_weights=False).eval()
        raw = unscaled_numbers(recipe, recipe.features)
        beside = {"scored": torch.ones(1, 3, dtype=torch.bool), "times": torch.arange(3.0)[None]}
        beside["raw"] = tuple(torch.zeros(1, 3, dims[i], dtype=torch.uint8) for i in raw)
        with torch.inference_mode():
            read = {name: beside[name] for name in getattr(head, "reads", ())}
            out = head(torch.ones(1, 3, columns(dims, raw)), torch.ones(1, 3, dtype=torch.bool), **read)
        assert out.shape == (1, 3, targets)


@pytest.mark.parametrize("name", PAPERS)
def test_the_faults_of_the_former_tables_are_gone(name):
    """ArcFace's r100 for iResNet-50, a pooled map, one DAN and one MAE under several names, a tap without weights."""
    for task in OFFICIAL.values():
        made = {one.name: build_encoder(one) for one in load_recipe(name, task=task).encoders}
        assert len(set(made.values())) == len(made)
        for feature, encoder in made.items():
            assert feature != "iresnet50" or encoder.model == "r50"
            assert feature != "regnet_map" or encoder.row_shape == (440, 4, 4)
            assert feature != "swin_t" or encoder.row_shape == (49, 768)
            assert not feature.startswith("mae_") or encoder.tap == "fc_norm"


def test_every_head_that_a_recipe_names_is_registered():
    members = [member for name in recipe_names() for member in load_ensemble_recipe(name).members]
    assert {member.recipe.head.kind for member in members} <= set(HEADS.names())


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_without_its_features_names_the_one_command_that_makes_them(name, tmp_path):
    corpus = make_corpus(frames=40)
    with pytest.raises(UsageError) as caught:
        train_corpus(corpus, tmp_path / "run", load_recipe(name))
    assert f"`aupipe extract --recipe {name}` computes" in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert describe_missing(load_recipe(name), load_recipe(name).features) == ""


def published_corpus(recipe, task, frames=60):
    """Random features of the shapes that the recipe's encoders make."""
    rng = np.random.default_rng(0)
    corpus = make_corpus(task, train=3, validation=1, frames=frames)
    store = create_store("published", "memory")
    features = {}
    shapes, made = row_shapes(recipe), specs(recipe)
    for video in {r.key_for("clock"): r for r in (*corpus.train, *corpus.validation)}:
        store.publish(video, CLOCK, np.array(corpus.store.read(video, CLOCK.id)))
    for name in recipe.features or ("hog",):
        known = made.get(name) or FeatureSpec(name, "visual", "random", 1)
        dtype = "uint8" if known.dtype == "uint8" else "float32"
        spec = replace(known, dtype=dtype, inputs={"clock": CLOCK.id})
        for key in {r.key_for(spec.modality): r for r in (*corpus.train, *corpus.validation)}.items():
            rows = rng.normal(size=(len(corpus.labels[key[1].id]), *shapes.get(name, (20,))))
            store.publish(key[0], spec, rows.astype(np.float32) if known.dtype != "uint8" else np.zeros_like(rows))
        features[name] = spec.id
    return replace(corpus, store=store, features=features)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["au", "expr", "va"])
@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains_at_its_published_size_and_predicts_every_frame(name, task, tmp_path):
    random = ["head.weights=random"] if name == "aud-tgn" else []
    random += ["head.tail.weights=random"] if name in TAILS else []
    random += ["head.then.weights=random"] if name == "aud-tgn-tail" else []
    recipe = load_ensemble_recipe(name, ["epochs=1", "batch=2", *random], task=OFFICIAL[task])
    corpus = published_corpus(recipe, task, frames=60 if name not in TAILS else 8)
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
