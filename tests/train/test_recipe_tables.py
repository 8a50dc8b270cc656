"""Recipes that extend others, tables for one task, encoder tables, and departures from a paper."""

import json
from dataclasses import replace

import pytest

from aupipe.errors import UsageError
from aupipe.tasks import OFFICIAL, Task
from aupipe.train.ensemble_recipe import ensemble_recipe_from_json, load_ensemble_recipe
from aupipe.train.recipe import Component, load_recipe, recipe_from, recipe_names
from aupipe.train.recipe_paper import departures, read_paper
from aupipe.train.recipe_tables import read_tables

TAILS = [name for name in recipe_names() if name.endswith(("-tail", "-tuning"))]
OWN = """
extends = "tcn-transformer"
epochs = 7

[task.va]
epochs = 9
features = ["eff"]
loss = {kind = "mse"}

[task.va.head]
channels = [[8, 8]]

[task.multi_label]
postprocess = {threshold = 0.3}

[[encoder]]
name = "eff"
modality = "visual"
kind = "hsemotion"
model = "b0"
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.toml").write_text(OWN)
    return tmp_path / "own.toml"


def test_a_task_s_table_overrides_features_epochs_head_loss_and_postprocessing_of_that_task_alone(own):
    va = load_recipe(own, task=OFFICIAL["va"])
    assert (va.epochs, va.features, va.head.params["channels"]) == (9, ("eff",), ((8, 8),))
    assert (va.loss["va"].kind, va.loss["au"].kind) == ("mse", "bce")
    au = load_recipe(own, task=OFFICIAL["au"])
    assert (au.epochs, au.features) == (7, ("eff", "rafdb", "affectnet8"))
    assert au.postprocess_for(OFFICIAL["au"]).threshold == 0.3
    assert load_recipe(own, ["epochs=3"], OFFICIAL["va"]).epochs == 3  # --set comes last


def test_a_label_set_of_one_s_own_gets_the_table_of_its_kind(own):
    pain = Task("pain", "multi_label", ("pain",))
    assert load_recipe(own, task=pain).postprocess_for(pain).threshold == 0.3
    assert load_recipe(own, task=Task("mood", "regression", ("calm",), metric="CCC")).features == ("eff",)


def test_a_recipe_that_extends_another_has_its_tables_and_encoders_with_its_own_laid_over_them(own):
    recipe, base = load_recipe(own), load_recipe("tcn-transformer")
    assert recipe.optimiser == base.optimiser
    assert {one.name: one.params.get("model") for one in recipe.encoders}["eff"] == "b0"
    assert {one.name for one in recipe.encoders} == {one.name for one in base.encoders}


def test_a_file_extends_one_beside_it_and_a_circle_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "sub/b.toml"\nepochs = 1')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.toml").write_text('extends = "c.toml"\nbatch = 2')
    (tmp_path / "sub" / "c.toml").write_text('extends = "tcn"\nbatch = 3\nepochs = 3')
    recipe = load_recipe(tmp_path / "a.toml")
    assert (recipe.epochs, recipe.batch, recipe.head.kind) == (1, 2, "tcn")
    (tmp_path / "sub" / "c.toml").write_text('extends = "../a.toml"')
    with pytest.raises(UsageError, match="extends itself"):
        load_recipe(tmp_path / "a.toml")


def test_members_of_an_ensemble_recipe_are_resolved_for_the_task(tmp_path):
    (tmp_path / "two.toml").write_text(
        '[member.a]\nrecipe = "tcn-transformer"\n[member.b]\nrecipe = "tcn"\n[member.b.task.va]\nepochs = 2\n'
    )
    one, two = load_ensemble_recipe(tmp_path / "two.toml", task=OFFICIAL["va"]).members
    assert (one.recipe.epochs, two.recipe.epochs) == (40, 2)
    assert "wav2vec2_emotion" in {encoder.name for encoder in one.recipe.encoders}


def test_a_change_of_one_member_leaves_the_tables_that_others_share_with_it(tmp_path):
    (tmp_path / "two.toml").write_text(
        "[postprocess.au]\nsmooth = 'gaussian'\n[member.a]\nrecipe = 'tcn'\n[member.b]\nrecipe = 'tcn'\n"
    )
    one, two = load_ensemble_recipe(tmp_path / "two.toml", ["a.postprocess.au.smooth=none"]).members
    assert (one.recipe.postprocess["au"].smooth, two.recipe.postprocess["au"].smooth) == ("none", "gaussian")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[task.vau]\nepochs = 1", "unknown task 'vau'. Did you mean 'va'"),
        ("task = 1", r"expected a table per task, \[task.au\]"),
        ("extends = 1", "expected the name of a recipe"),
        ("extends = 'tcm'", "unknown recipe 'tcm'. Did you mean 'tcn'"),
        ("[[encoder]]\nname = 'a'", r"recipe 'bad': \[\[encoder\]\] number 1 has no kind"),
        (
            "[[encoder]]\nname = 'a'\nkind = 'hog'\nmodality = 'visual'\n"
            "[[encoder]]\nname = 'b'\nkind = 'hog'\nmodality = 'visual'",
            "'a' and 'b' differ in nothing but their names",
        ),
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path, text, message):
    extends = "" if text.startswith("extends") else "extends = 'tcn'\n"
    (tmp_path / "bad.toml").write_text(extends + text)
    with pytest.raises(UsageError, match=message):
        load_recipe(tmp_path / "bad.toml", task=OFFICIAL["va"])


@pytest.mark.parametrize("task", OFFICIAL.values(), ids=str)
@pytest.mark.parametrize("name", recipe_names())
def test_a_resolved_recipe_survives_json_with_its_encoders(name, task):
    recipe = load_ensemble_recipe(name, task=task)
    assert ensemble_recipe_from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_the_recipe_of_a_run_of_a_former_version_is_read():
    tables = load_recipe("tcn").to_json()
    del tables["encoder"], tables["detector"]
    assert recipe_from({**tables, "needs": {"hog": "aupipe extract"}}, "tcn") == load_recipe("tcn")


def test_a_recipe_file_with_the_former_needs_table_is_read_and_says_so(tmp_path, caplog):
    (tmp_path / "old.toml").write_text("extends = 'tcn'\n[needs]\nhog = 'aupipe extract --feature hog'")
    assert load_recipe(tmp_path / "old.toml").head == load_recipe("tcn").head
    assert "[needs] is no longer read: write the features as [[encoder]] tables" in caplog.text


@pytest.mark.parametrize("name", recipe_names())
def test_every_key_that_a_recipe_s_paper_table_names_is_one_of_the_recipe(name):
    for task in OFFICIAL.values():
        paper = read_paper(name, task)
        if paper is None:
            assert name in ("baseline", "best", "field", "tcn")
            return
        assert departures(load_recipe(name, task=task), paper, task.name)
        members = read_tables(name)[1].get("member", {}).values()
        losses = [read_tables(one)[1]["loss"] for one in (name, *(member["recipe"] for member in members))]
        assert set(paper.tasks) <= {loss for each in losses for loss in each}


def test_departures_from_the_paper_follow_from_the_recipe():
    au = OFFICIAL["au"]
    paper = read_paper("tcn-transformer", au)
    plain = departures(load_recipe("tcn-transformer", task=au), paper, "au")
    assert not any("the paper has" in line for line in plain)
    changed = departures(load_recipe("tcn-transformer", ["optimiser.lr=1e-3"], au), paper, "au")
    assert [line for line in changed if line not in plain] == ["optimiser.lr = 0.001: the paper has 3e-05"]
    code = departures(load_recipe("tcn-transformer-code", task=au), read_paper("tcn-transformer-code", au), "au")
    assert "features = [eff, affectnet8]: the paper has [eff, rafdb, affectnet8]" in code
    assert "optimiser.warmup_epochs = 2: the paper has 1" in code


def test_the_members_of_s2_differ_in_training_as_the_recipe_of_the_second_says():
    au = OFFICIAL["au"]
    first, second = (load_recipe(name, task=au) for name in ("regnet-vivit", "regnet-three-branches"))
    assert (first.optimiser, first.window, first.epochs) == (second.optimiser, second.window, second.epochs)
    losses = [recipe.loss["au"].params for recipe in (first, second)]
    assert {key for key in losses[0] if losses[0][key] != losses[1].get(key)} == {"robin_hood"}
    assert (first.postprocess_for(au).smooth, second.postprocess_for(au)) == ("gaussian", None)
    lines = departures(second, read_paper("regnet-three-branches", au), "au")
    assert any("as regnet-vivit, without its robin_hood and its Gaussian filter" in line for line in lines)


def test_a_task_that_is_not_in_the_paper_and_a_frozen_encoder_are_departures():
    va = OFFICIAL["va"]
    lines = departures(load_recipe("aud-tgn", task=va), read_paper("aud-tgn", va), "va")
    assert lines[0].startswith("task va: not in the paper")
    assert any(line.startswith("iresnet50: frozen") for line in lines)
    tail = Component("trained_tail", {"feature": "iresnet50"})
    lines = departures(replace(load_recipe("aud-tgn", task=va), head=tail), read_paper("aud-tgn", va), "va")
    assert not any("frozen" in line for line in lines)


@pytest.mark.parametrize("name", TAILS)
def test_what_a_paper_says_of_a_head_is_of_the_head_after_a_trained_tail(name):
    recipe, paper = load_recipe(name), read_paper(name, OFFICIAL["au"])
    lines = departures(recipe, paper, "au")
    assert not [
        line for line in lines if "the paper has" in line and line.startswith(("head.", "encoder.", "features"))
    ]
    assert not [line for line in lines if line.startswith(("crops: frozen", "faces224: frozen"))]
    assert any(line.startswith("head.tail.rate = ") for line in lines) or paper.says["head.tail.rate"] == 0.1
    other = replace(recipe, head=replace(recipe.head, params=recipe.head.params | {"then": {"kind": "mlp"}}))
    assert any(line.startswith("head.then.kind = mlp: the paper has") for line in departures(other, paper, "au"))


@pytest.mark.parametrize("name", recipe_names())
def test_a_departure_is_a_line_that_can_be_read(name):
    paper = read_paper(name, OFFICIAL["au"])
    for line in departures(load_recipe(name), paper, "au") if paper else ():
        assert len(line) < 200
        assert "{" not in line


def test_a_paper_table_with_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "p.toml").write_text("extends = 'tcn'\n[paper]\ncite = 'x'\n[paper.says]\nepoch = 3")
    with pytest.raises(UsageError, match=r"unknown key 'epoch'. Did you mean 'epochs'"):
        departures(load_recipe(tmp_path / "p.toml"), read_paper(tmp_path / "p.toml"), "au")
