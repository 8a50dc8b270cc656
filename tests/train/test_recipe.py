"""Recipes: every key and value is checked, and errors name it."""

import json
import subprocess
import sys

import pytest

from aupipe.errors import UsageError
from aupipe.train.labels import NAMES
from aupipe.train.recipe import load_recipe, recipe_from, recipe_names


@pytest.mark.parametrize("name", sorted(set(recipe_names()) - {"best"}))
def test_every_recipe_that_comes_with_aupipe_loads_and_survives_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert set(recipe.loss) <= set(NAMES)
    assert recipe_from(json.loads(json.dumps(recipe.to_json())), name) == recipe


def test_the_default_recipes_train_every_task():
    assert {"baseline", "tcn"} <= set(recipe_names())
    assert set(load_recipe("baseline").loss) == set(load_recipe("tcn").loss) == set(NAMES)


def test_overrides_reach_every_level_and_keep_their_type():
    recipe = load_recipe(
        "tcn", ["epochs=3", "head.channels=[8, 8]", "optimiser.lr=1", "loss.au.pos_weight=none", "features=['hog']"]
    )
    assert recipe.epochs == 3
    assert recipe.head.params["channels"] == (8, 8)
    assert recipe.optimiser.lr == 1.0
    assert isinstance(recipe.optimiser.lr, float)
    assert recipe.loss["au"].params["pos_weight"] == "none"
    assert recipe.features == ("hog",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "unknown key 'epoch'. Did you mean 'epochs'"),
        ("head.widht=3", "head 'tcn': unknown key 'widht'. Did you mean 'width'"),
        ("optimiser.learning_rate=1", "unknown key 'learning_rate'.*Known: .*lr"),
        ("optimiser.kind=adam", "unknown optimiser 'adam'. Did you mean 'adamw'"),
        ("loss.au.posweight=1", "loss 'bce': unknown key 'posweight'. Did you mean 'pos_weight'"),
        ("loss.aus.kind=bce", "unknown task 'aus'. Did you mean 'au'"),
        ("head.kind=tnc", "unknown head 'tnc'. Did you mean 'tcn'"),
        ("loss.au.kind=ccc", "loss 'ccc' is for regression, intensity, not for a task of kind multi_label"),
        ("epochs=many", "epochs = 'many': expected a whole number"),
        ("epochs=0", "epochs = 0: expected 1 or more"),
        ("head.channels=[8, 'x']", "channels = 'x': expected a whole number"),
        ("head.causal=1", "causal = 1: expected true or false"),
        ("center=2", "center = 2.0: expected 0"),
        ("hop=500", "hop = 500 exceeds window"),
        ("optimiser=3", r"expected a table, \[optimiser\]"),
        ("epochs", "expected key=value"),
        ("epochs.x=1", "'epochs' is a value, not a table"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(override, message):
    with pytest.raises(UsageError, match=message):
        load_recipe("tcn", [override])


def test_a_recipe_that_a_former_version_wrote_is_read():
    recipe = load_recipe("tcn", ["aux_tasks.va=0.5"])
    tables = recipe.to_json()
    tables["also"] = tables.pop("aux_tasks")  # the name in runs of aupipe 0.1.0
    assert recipe_from(tables, "tcn") == recipe == load_recipe("tcn", ["also.va=0.5"])
    with pytest.raises(UsageError, match="'also' is the former name of 'aux_tasks': give only 'aux_tasks'"):
        load_recipe("tcn", ["also.va=0.5", "aux_tasks.expr=1"])


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown recipe 'tcm'. Did you mean 'tcn'"):
        load_recipe("tcm")


def test_a_file_is_a_recipe_too(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 2\n[head]\nkind = 'linear'\n[loss.au]\nkind = 'bce'\n")
    recipe = load_recipe(file)
    assert (recipe.name, recipe.epochs, list(recipe.loss)) == ("mine", 2, ["au"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "recipe .*mine.toml"),
        ("[loss.au]\nkind = 'bce'", r"\[head\]: the key 'kind' is missing"),
        ("[head]\nkind = 'linear'", r"no \[loss.<task>\] table"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(tmp_path / "mine.toml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such recipe file"):
        load_recipe(tmp_path / "no.toml")


def test_importing_what_the_help_needs_imports_neither_torch_nor_opencv():
    light = ("recipe", "metrics", "evaluate", "predictions", "labels", "windows", "data", "run")
    modules = ", ".join(f"aupipe.train.{name}" for name in light)
    code = f"import sys, {modules}; print(*({{'torch', 'cv2', 'aupipe.extract'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
