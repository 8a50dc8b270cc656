"""`aupipe reproduce`: from drawn videos to the table of a paper's rows, resumable, with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from aupipe.cli.recipe_features import narrow_to_recipe, with_encoders
from aupipe.cli.reproduce_steps import Choices, build_steps, runs_of, write_recipes
from aupipe.config import load_config
from aupipe.demo import draw_corpus
from aupipe.errors import UsageError
from aupipe.store import open_store
from aupipe.train.reproduction import load_reproduction, reproduction_from
from tests.cli.test_recipes import ask

SMALL = ("--cpu", "--weights", "random", "--set", "epochs=1", "--set", "batch=4")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn Aff-Wild2 of a second per recording."""
    root = tmp_path_factory.mktemp("affwild")
    draw_corpus(root, recordings=5, seconds=1.0, seed=5)
    return root


@pytest.fixture
def folder(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it with its aupipe.toml, in which commands run."""
    root = shutil.copytree(drawn, tmp_path / "affwild")
    monkeypatch.chdir(root)
    ask("init")
    return root


def report(*arguments: object) -> dict[str, dict]:
    """The rows of the report by id."""
    text = ask("reproduce", *arguments, "--json")
    return {row["id"]: row for row in json.loads(text[text.index('{\n "paper"') :])["rows"]}


def check_submissions(folder: Path, names: list[str]) -> None:
    """Every submission has a row per frame of the validation split."""
    store = open_store(folder / "features")
    for name in names:
        lines = (folder / "runs" / name).read_text().splitlines()[1:]
        frames = sum(
            len(store.read(record.recording, record.feature))
            for record in store.records()
            if record.feature.startswith("clock@") and record.recording in {line.partition("/")[0] for line in lines}
        )
        assert len(lines) == len(set(lines)) >= frames > 0
    store.close()


def test_the_netease_ensemble_is_of_each_fold_and_a_model_of_all_data_with_the_smoothing_of_the_folds() -> None:
    paper = load_reproduction("s5")
    for task, rule in (("au", ["--rule", "vote"]), ("expr", ["--rule", "vote"]), ("va", [])):
        rows = [row for row in paper.rows if row.id == f"ensemble-{task}.1"]
        steps = {step.what: list(step.command) for step in build_steps(paper, rows, Path("o"), Choices())}
        members = [*(f"o/runs/{task}-folds/fold{number}" for number in range(1, 6)), f"o/runs/{task}-whole"]
        assert steps["join"] == ["ensemble", *members, *rule, "--out", f"o/runs/{task}-general"]
        assert steps["tune"] == ["tune", f"o/runs/{task}-whole", "--from", f"o/runs/{task}-folds"]
    tables = {"cite": "", "title": "", "tasks": ["au"]}
    run = {"name": "a", "recipe": "tcn", "task": "au", "post_from": "b"}
    with pytest.raises(UsageError, match="run a: post_from 'b': unknown"):
        reproduction_from({**tables, "run": [run]}, "mine")


def test_a_paper_s_rows_are_reproduced_from_videos_and_continue_where_they_stopped(folder: Path) -> None:
    said = ask("reproduce", "s2", "--rows", "t2", *SMALL, "--dry-run")
    assert "aupipe extract --recipe" in said
    assert "aupipe tune" in said
    assert not (folder / "features").exists()
    rows = report("s2", "--rows", "t2.1,t2.9,t2.11", *SMALL)
    assert rows["t2.1"]["why"] == "the organisers' model"
    for name in ("t2.9", "t2.11"):
        assert 0 <= rows[name]["ours"] <= 1
        assert rows[name]["why"] == ""
        assert "the weights of encoders are random" in rows[name]["differs"]
        assert any(text.startswith("regnet_map: frozen") for text in rows[name]["differs"])
    assert rows["t2.11"]["paper"] == 0.5351
    assert any("chose the epoch" in text for text in rows["t2.11"]["differs"])
    check_submissions(folder, ["s2/submissions/t2.11.txt"])

    (folder / "runs" / "s2" / "scores" / "vivit-none.json").unlink()
    text = ask("reproduce", "s2", "--rows", "t2.1,t2.9,t2.11", *SMALL)
    assert "done: aupipe train" in text
    assert "done: aupipe tune" in text
    assert f"{rows['t2.9']['ours']:.3f}" in text
    assert "was begun with" in ask("reproduce", "s2", *SMALL, "--set", "epochs=2", code=2)


def test_a_training_that_was_stopped_is_continued_and_choices_are_kept(tmp_path: Path) -> None:
    paper = load_reproduction("s2")
    choices = Choices(("epochs=2",), random=True, device=("--cpu",), config=("--store", "f"))
    train, *_ = (
        step for step in build_steps(paper, paper.select(None, ["t2.9"]), tmp_path, choices) if step.what == "train"
    )
    recipe = str(tmp_path / "recipes" / "run-vivit.toml")
    assert train.arguments[:5] == ("train", "--recipe", recipe, "--task", "au")
    assert train.arguments[5:7] == ("--set", "epochs=2")
    assert not train.done
    folder = tmp_path / "runs" / "vivit"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text("{}")
    assert train.arguments == ("train", "--resume", str(folder), "--cpu", "--store", "f")
    assert not train.done


def test_what_failed_in_extraction_is_tried_again_by_the_same_command(tmp_path: Path) -> None:
    paper = load_reproduction("s2")
    choices = Choices(mask=("--on-missing-audio", "mask"))
    extract, *_ = build_steps(paper, paper.select(None, ["t2.9"]), tmp_path, choices)
    assert extract.command[-3:] == ("--retry-failed", "--on-missing-audio", "mask")


def test_missing_weights_are_all_named_before_anything_is_computed(folder: Path) -> None:
    said = ask("reproduce", "s4", "--rows", "t8", "--cpu", code=12)
    for name in ("enet_b2_8.pt", "affecnet8_", "rafdb_", "backbone.pth", "audeering/wav2vec2"):
        assert name in said
    assert not (folder / "features").exists()


def test_random_weights_stand_in_the_recipe_files_that_every_step_reads(folder: Path) -> None:
    """Whatever weights are on the machine, and whatever tables of these names aupipe.toml has."""
    table = '\n[[encoder]]\nname = "{}"\nmodality = "visual"\nkind = "regnet"\nweights = "x.pth"\n'
    with (folder / "aupipe.toml").open("a") as file:
        file.write(table.format("regnet_map") + table.format("mine"))
    config, paper = load_config(folder / "aupipe.toml"), load_reproduction("s2")
    (run,) = runs_of(paper, paper.select(None, ["t2.9"]))
    choices = Choices(('features=["regnet_map", "mine"]',), random=True)
    (recipe,) = write_recipes([run], folder, choices, config)
    assert [one.params["weights"] for one in recipe.encoders] == ["random", "random:x.pth"]
    extracted, names = narrow_to_recipe(config, str(folder / "recipes" / "features.toml"), "au", [])
    trained = with_encoders(config, recipe.encoders)
    assert names == ["regnet_map", "mine"]
    for name, encoder in zip(names, recipe.encoders, strict=True):
        assert extracted.encoder(name) == trained.encoder(name) == encoder


def test_features_of_aupipe_toml_that_set_names_are_extracted_too(folder: Path) -> None:
    paper = load_reproduction("s1")
    (run,) = runs_of(paper, paper.select(None, ["t1.6"]))
    for given, wanted in (["hog"], ["hog"]), (["iresnet50", "hog"], ["iresnet50", "hog"]):
        write_recipes([run], folder, Choices((f"features={json.dumps(given)}", "head.channels=[[8]]")))
        config = load_config(folder / "aupipe.toml")
        assert narrow_to_recipe(config, str(folder / "recipes" / "features.toml"), "au", [])[1] == wanted


@pytest.mark.slow
def test_s1_is_reproduced_with_its_own_head(folder: Path) -> None:
    rows = report("s1", "--rows", "t1", *SMALL)
    assert {name for name, row in rows.items() if row["ours"] is not None} == {"t1.2", "t1.4", "t1.6", "t1.7"}
    check_submissions(folder, ["s1/submissions/t1.7.txt"])


@pytest.mark.slow
def test_s3_is_reproduced_with_super_resolution_and_words(folder: Path) -> None:
    rows = report("s3", "--rows", "t3,t5.2", *SMALL, "--on-missing-text", "mask")
    assert {name for name, row in rows.items() if row["ours"] is not None} == {"t3.3", "t3.4", "t3.5", "t3.6", "t5.2"}
    check_submissions(folder, ["s3/submissions/t3.6.txt"])


@pytest.mark.slow
def test_s2_is_reproduced_with_its_second_model_and_the_ensemble(folder: Path) -> None:
    rows = report("s2", "--rows", "t2.8,t2.12", *SMALL)
    assert all(row["ours"] is not None for row in rows.values())
    check_submissions(folder, ["s2/submissions/t2.12.txt"])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_s4_is_reproduced_with_the_features_of_each_task_and_its_folds(folder: Path, task: str) -> None:
    rows = report("s4", "--task", task, "--rows", f"t1-{task},t5-{task}.2", *SMALL)
    assert all(row["ours"] is not None for row in rows.values())
    check_submissions(folder, [f"s4/submissions/t1-{task}.1.txt"])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_s5_is_reproduced_with_its_folds_and_their_ensemble(folder: Path, task: str) -> None:
    features = [f"mae_aff2_{task}", *(["vggish"] if task != "au" else [])]  # of the published ones: MAEs take minutes
    rows = report("s5", "--task", task, "--rows", f"ensemble-{task}", *SMALL, "--set", f"features={features}")
    row, routed = rows.values()
    assert row["ours"] is not None
    assert any("TRAINED ON THESE RECORDINGS" in text for text in row["differs"])
    assert routed["why"] == "the data set has no column scene"
    store = open_store(folder / "features")
    assert [spec.name for spec in store.features() if spec.name.startswith("mae_")] == [f"mae_aff2_{task}"]
    store.close()
    check_submissions(folder, [f"s5/submissions/ensemble-{task}.1.txt"])
