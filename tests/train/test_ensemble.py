"""Ensemble recipes: how members are changed, what is trained, and how members are weighted."""

import json

import numpy as np
import pytest

from aupipe.errors import UsageError
from aupipe.store import create_store
from aupipe.train.crossval import Fold, group_folds
from aupipe.train.ensemble import train_ensemble
from aupipe.train.ensemble_recipe import ensemble_recipe_from_json, expand_members, load_ensemble_recipe
from aupipe.train.evaluate import evaluate
from aupipe.train.labels import NAMES
from aupipe.train.member_weights import choose_weights
from aupipe.train.model import load_model
from aupipe.train.model_prediction import predict_held_out, predict_model
from aupipe.train.predictions import Predictions
from aupipe.train.recipe import load_recipe, recipe_names
from aupipe.types import Labels

from .toy_corpus import make_corpus

RECIPE_FILE = """
[member.one]
recipe = "baseline"
per_feature = true
epochs = 2
[member.two]
recipe = "tcn"
epochs = 2
window = 64
head.width = 8
head.channels = [8]
[postprocess.au]
threshold = "tune"
"""


@pytest.fixture
def recipe_file(tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE_FILE)
    return tmp_path / "mine.toml"


def options(corpus):
    return {"labels": corpus.labels, "features": corpus.features, "task": corpus.task}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_as_an_ensemble_recipe_and_survives_json(name):
    recipe = load_ensemble_recipe(name)
    assert ensemble_recipe_from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_an_ensemble_recipe_that_a_former_version_wrote_is_read(recipe_file):
    recipe = load_ensemble_recipe(recipe_file)
    content = json.loads(json.dumps(recipe.to_json()))
    for member in content["members"]:  # the names in train.json of aupipe 0.1.0
        member["apart"] = member.pop("per_feature")
        member["recipe"]["also"] = member["recipe"].pop("aux_tasks")
    assert ensemble_recipe_from_json(content) == recipe
    recipe_file.write_text(RECIPE_FILE.replace("per_feature", "apart"))
    assert load_ensemble_recipe(recipe_file) == recipe


def test_a_recipe_of_several_members_is_not_read_as_one_head():
    with pytest.raises(UsageError, match="'best' is an ensemble of field, tcn, linear"):
        load_recipe("best")


def test_a_member_is_its_recipe_with_the_changes_of_its_table_and_of_the_file(recipe_file):
    one, two = load_ensemble_recipe(recipe_file).members
    assert (one.name, one.per_feature, one.recipe.name, one.recipe.epochs) == ("one", True, "baseline", 2)
    assert one.recipe.optimiser == load_recipe("baseline").optimiser
    assert two.recipe.head.params["channels"] == (8,)
    assert two.recipe.head.params["dropout"] == load_recipe("tcn").head.params["dropout"]
    assert one.recipe.postprocess == two.recipe.postprocess
    assert two.recipe.postprocess["au"].threshold == "tune"


def test_a_change_is_for_the_member_it_names_or_for_all(recipe_file):
    one, two = load_ensemble_recipe(recipe_file, ["two.epochs=7", "batch=3", "two.head.width=4"]).members
    assert (one.recipe.epochs, two.recipe.epochs) == (2, 7)
    assert one.recipe.batch == two.recipe.batch == 3
    assert two.recipe.head.params["width"] == 4
    with pytest.raises(UsageError, match="unknown key 'three'"):
        load_ensemble_recipe(recipe_file, ["three.epochs=7"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("member = 3", "expected a table per member"),
        ("[member]\none = 3", "expected a table per member"),
        ("[member.one]\nepochs = 3", r"\[member.one\]: the key 'recipe' is missing"),
        ("[member.one]\nrecipe = 'best'", "'best' has members itself"),
        ("[member.one]\nrecipe = 'tcm'", "unknown recipe 'tcm'. Did you mean 'tcn'"),
        ("[member.one]\nrecipe = 'tcn'\nper_feature = 1", "per_feature = 1: expected true or false"),
        ("[member.one]\nrecipe = 'tcn'\nepoch = 1", "unknown key 'epoch'"),
    ],
)
def test_a_broken_ensemble_recipe_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_ensemble_recipe(tmp_path / "mine.toml")
    assert "\n" not in str(caught.value)


def test_a_member_per_feature_is_trained_once_per_feature(recipe_file):
    features = {"face": "f", "sound": "s"}
    found = expand_members(load_ensemble_recipe(recipe_file), features)
    assert [(member.name, list(member.features)) for member in found] == [
        ("one-face", ["face"]),
        ("one-sound", ["sound"]),
        ("two", ["face", "sound"]),
    ]
    assert [member.name for member in expand_members(load_ensemble_recipe("tcn"), features)] == [""]
    assert [member.name for member in expand_members(load_ensemble_recipe("tcn", per_feature=True), features)] == [
        "face",
        "sound",
    ]
    with pytest.raises(UsageError, match="needs feature 'eff'"):
        expand_members(load_ensemble_recipe("tcn-transformer"), features)


def test_every_fold_trains_every_member_and_the_same_call_resumes(recipe_file, tmp_path):
    corpus = make_corpus(train=6, validation=2, frames=60)
    folds = [(fold, 0) for fold in group_folds(corpus.train, 2)]
    said = []
    model = train_ensemble(
        corpus.store,
        load_ensemble_recipe(recipe_file),
        folds,
        out=tmp_path / "run",
        progress=said.append,
        **options(corpus),
    )
    names = [f"fold{number}-{member}" for member in ("one-face", "one-sound", "two") for number in (1, 2)]
    assert [run.path.name for run in model.runs] == names
    assert model.weights[0::2] == model.weights[1::2]  # a member has one weight in all folds
    assert sum(model.weights) > 0
    found = predict_held_out(model, corpus.store, [*corpus.train, *corpus.validation])
    assert found.keys() == {r.id for r in corpus.train}  # each by runs that were not trained on it
    assert set(model.weighed_on) == model.tuned_on == {r.id for r in corpus.train}
    again = train_ensemble(
        corpus.store, load_ensemble_recipe(recipe_file), folds, out=tmp_path / "run", **options(corpus)
    )
    assert again == model == load_model(tmp_path / "run")
    assert len([line for line in said if "held out" in line]) == len(names)


def test_a_member_of_weight_0_is_not_run(recipe_file, tmp_path, monkeypatch):
    """The store need not hold its features either."""
    corpus = make_corpus(train=5, validation=2, frames=60)
    folds = [(Fold("official", tuple(corpus.train), tuple(corpus.validation)), 0)]
    model = train_ensemble(
        corpus.store, load_ensemble_recipe(recipe_file), folds, out=tmp_path / "run", **options(corpus)
    )
    assert model.weights[1] == 0  # the audio feature is noise
    asked = []
    from aupipe.train import model_prediction as module

    real = module.predict
    monkeypatch.setattr(module, "predict", lambda run, *rest, **more: (asked.append(run), real(run, *rest, **more))[1])
    predict_model(model, corpus.store, corpus.validation)
    assert [run.path for run in asked] == [
        run.path for run, weight in zip(model.runs, model.weights, strict=True) if weight
    ]


def predictions_right_in(labels: Labels, share: float, seed: int) -> dict[str, Predictions]:
    """Scores that are right in about ``share`` of all frames."""
    rng = np.random.default_rng(seed)
    right = rng.random(labels.targets.shape) < share
    scores = np.where(right, labels.targets, 1 - labels.targets) * 0.6 + 0.2 + 0.1 * rng.random(right.shape)
    frames = len(scores)
    return {
        "a": Predictions("a", "au", NAMES["au"], scores.astype(np.float32), np.ones(frames, bool), np.zeros(frames))
    }


def test_good_members_get_weights_and_a_random_one_gets_none():
    rng = np.random.default_rng(0)
    targets = (rng.random((3000, 12)) < 0.3).astype(np.float32)
    labels = Labels("au", NAMES["au"], targets, np.ones(targets.shape, bool))
    good, other, random_member = (
        predictions_right_in(labels, share, seed) for seed, share in enumerate((0.8, 0.8, 0.5))
    )
    weights = choose_weights([random_member, good, other], {"a": labels}, "au")
    assert weights[0] == 0
    assert weights[1] > 0
    assert weights[2] > 0
    assert choose_weights([random_member, predictions_right_in(labels, 1.0, 9), good], {"a": labels}, "au") == (0, 1, 0)


@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_best_trains_every_task_and_is_not_worse_than_its_worst_member(task, tmp_path):
    corpus = make_corpus(task, train=6, validation=3, frames=120)
    folds = [(Fold("official", tuple(corpus.train), tuple(corpus.validation)), 0)]
    small = ["epochs=3", "window=50", "hop=50", "predict_hop=50"]
    model = train_ensemble(
        corpus.store, load_ensemble_recipe("best", small), folds, out=tmp_path / "run", **options(corpus)
    )
    labels = {item.id: corpus.labels[item.id] for item in corpus.validation}
    whole = evaluate(predict_model(model, corpus.store, corpus.validation), labels, task).mean
    assert whole >= min(run.scores.mean for run in model.runs)
    assert len(model.runs) == 4


def test_weights_are_not_fitted_on_a_recording_that_one_member_lacks(recipe_file, tmp_path):
    corpus = make_corpus(train=6, validation=2, frames=60)
    left_out = corpus.train[2]
    store = create_store("lacking", "memory")
    for spec in corpus.store.features():
        for record in corpus.store.records(spec.id):
            if (record.recording, spec.name) != (left_out.video_id, "sound"):
                store.publish(record.recording, spec, corpus.store.read(record.recording, spec.id))
    folds = [(fold, 0) for fold in group_folds(corpus.train, 2)]
    model = train_ensemble(
        store, load_ensemble_recipe(recipe_file), folds, out=tmp_path / "run", allow_missing=True, **options(corpus)
    )
    assert left_out.id in {
        name for run in model.runs for name in run.train
    }  # by the member that uses the face feature only
    assert left_out.id not in model.weighed_on
    assert len(model.weighed_on) == len(corpus.train) - 1
