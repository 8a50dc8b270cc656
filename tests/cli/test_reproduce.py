"""`aupipe reproduce`: from drawn videos to the table of a paper's rows, resumable, with random weights."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from aupipe.cli import cli
from aupipe.cli.recipe_features import narrow_to_recipe, with_encoders
from aupipe.cli.reproduce_steps import Choices, Step, build_steps, runs_of, write_recipes
from aupipe.cli.signals import last_words
from aupipe.cli.train_request import TrainRequest, write_request
from aupipe.cli.work import Place
from aupipe.config import load_config
from aupipe.demo import draw_corpus
from aupipe.errors import UsageError
from aupipe.store import open_store
from aupipe.tasks import OFFICIAL
from aupipe.train.ensemble_recipe import load_ensemble_recipe
from aupipe.train.reproduction import load_reproduction, reproduction_from
from tests.cli.test_json import check_shapes
from tests.cli.test_recipes import ask

SMALL = ("--cpu", "--weights", "random", "--set", "epochs=1", "--set", "batch=4")
TINY = (*SMALL, "--set", "head.spatial_layers=1", "--set", "head.temporal_layers=1")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn Aff-Wild2 of eight frames per recording."""
    root = tmp_path_factory.mktemp("affwild")
    draw_corpus(root, recordings=5, seconds=1.0, fps=8, seed=5)
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
    return {row["id"]: row for row in json.loads(text[text.index('{\n "message_type"') :])["rows"]}


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
    rows = report("s2", "--rows", "t2.1,t2.9,t2.11", *TINY)
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
    text = ask("reproduce", "s2", "--rows", "t2.1,t2.9,t2.11", *TINY)
    assert "done: aupipe train" in text
    assert "done: aupipe tune" in text
    assert f"{rows['t2.9']['ours']:.3f}" in text
    assert "was begun with" in ask("reproduce", "s2", *TINY, "--set", "epochs=2", code=2)


def test_a_training_that_was_stopped_is_continued_and_choices_are_kept(tmp_path: Path) -> None:
    paper = load_reproduction("s2")
    choices = Choices(("epochs=2",), random=True, place=Place(cpu=True), config=("--store", "f"))
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


def test_a_scheduler_is_for_extraction_and_training_and_the_device_of_its_machines_is_none_of_this_one(
    tmp_path: Path,
) -> None:
    paper = load_reproduction("s4")
    rows = paper.select("expr", ["t1-expr", "t5-expr.2"])
    there = ("--gpu", "all", "--scheduler", "s.json", "--worker-timeout", "60.0", "--tls-ca", "ca.pem")
    place = Place(gpu="all", scheduler="s.json", worker_timeout=60.0, tls_ca=Path("ca.pem"))
    steps = build_steps(paper, rows, tmp_path, Choices(place=place, config=("--store", "f")))
    for step in steps:
        options = step.command[step.command.index("--gpu") :] if "--gpu" in step.command else ()
        assert options == ((*there, "--store", "f") if step.what in ("extract", "train") else ()), step
    assert {step.what for step in steps} > {"extract", "train", "evaluate"}
    train = next(step for step in steps if step.what == "train")
    assert train.makes is not None
    train.makes.mkdir(parents=True)
    (train.makes / "train.json").write_text("{}")
    assert train.arguments == ("train", "--resume", str(train.makes), *there, "--store", "f")
    assert Place(cpu=True, scheduler="s.json").here().arguments() == ("--cpu",)
    assert Place(gpu="0,1").here().arguments() == Place(gpu="0,1").arguments() == ("--gpu", "0,1")


def test_a_resumed_training_without_its_features_names_the_file_of_its_recipe(folder: Path) -> None:
    """The name of that file alone, such as run-vivit, is no recipe."""
    paper = load_reproduction("s2")
    (run,) = runs_of(paper, paper.select(None, ["t2.9"]))
    (recipe,) = write_recipes([run], folder, Choices(random=True))
    file = folder / "recipes" / "run-vivit.toml"
    request = TrainRequest(recipe.to_json(), "au", (), (0,), None, "train", False, False, 1, recipe_file=str(file))
    (folder / "run").mkdir()
    write_request(request, folder / "run")
    assert f"`aupipe extract --recipe {file} --task au`" in ask("train", "--resume", "run", "--cpu", code=10)


def test_an_interrupted_step_names_the_command_of_the_reproduction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aupipe.cli.signals._advice", ["to continue: aupipe train --resume runs/own"])
    group, module = click.Group("aupipe"), sys.modules["aupipe.cli.reproduce"]

    @group.command()
    def train() -> None:
        raise KeyboardInterrupt

    with click.Context(group), pytest.raises(click.Abort):
        module._run(Step("train", ("train",)))
    assert last_words(130) == "aupipe: interrupted; the same command continues"


def test_what_failed_in_extraction_is_tried_again_by_the_same_command(tmp_path: Path) -> None:
    paper = load_reproduction("s2")
    choices = Choices(mask=("--on-missing-audio", "mask"))
    extract, *_ = build_steps(paper, paper.select(None, ["t2.9"]), tmp_path, choices)
    assert extract.command[-3:] == ("--retry-failed", "--on-missing-audio", "mask")


def test_a_value_that_no_recording_has_and_a_sample_of_other_tasks_are_said_before_anything(folder: Path) -> None:
    with (folder / "aupipe.toml").open("a") as file:
        file.write("\n[train]\n" if "[train]" not in (folder / "aupipe.toml").read_text() else "")
    text = (folder / "aupipe.toml").read_text()
    (folder / "aupipe.toml").write_text(text.replace("[dataset]", '[dataset]\ncolumns = "scenes.csv"', 1))
    (folder / "scenes.csv").write_text("recording,scene\ndemo-001,talk\n")
    run = CliRunner().invoke(cli, ["reproduce", "s5", "--task", "au", "--dry-run", "--json", "--weights", "random"])
    (found,) = check_shapes("reproduce", run.stdout)
    rows = {row["id"]: row for row in found["rows"]}  # the commands stand on stderr
    assert rows["ensemble-au.2"]["why"] == "no recording has scene = 'reaction'"
    assert "[1/" in run.stderr
    (folder / "va.txt").write_text("image_location,valence,arousal\n")
    assert "is of one task" in ask("reproduce", "s4", "--sample", "va.txt", code=2)
    assert "sample of another task" in ask("reproduce", "s4", "--task", "au", "--sample", "va.txt", code=2)
    assert "va.txt is a file: choose another folder" in ask("reproduce", "s4", "--out", "va.txt", code=2)
    assert not (folder / "runs").exists() or not list((folder / "runs").rglob("train.json"))


def test_folds_without_their_post_processing_are_continued(tmp_path: Path) -> None:
    recipe = load_ensemble_recipe("tmf-ensemble", task=OFFICIAL["au"])
    write_request(TrainRequest(recipe.to_json(), "au", (), (0,), 5, "train", False, False, 1), tmp_path)
    (tmp_path / "ensemble.json").write_text("{}")
    step = Step("train", ("train", "--out", str(tmp_path)), tmp_path)
    assert recipe.members[0].recipe.postprocess_for(OFFICIAL["au"]) is not None
    assert not step.done
    assert step.arguments == ("train", "--resume", str(tmp_path))
    (tmp_path / "postprocess.json").write_text("{}")
    assert step.done


def test_the_report_names_a_random_head_and_features_that_aupipe_toml_makes_in_another_way(folder: Path) -> None:
    def report_of(*more: str) -> list[str]:
        run = CliRunner().invoke(cli, ["reproduce", "s1", "--rows", "t1.6", "--dry-run", "--json", *more])
        (row,) = json.loads(run.stdout)["rows"]
        return row["differs"]

    assert "the weights of the head gpt2 are random" in report_of("--weights", "random")
    with (folder / "aupipe.toml").open("a") as file:
        file.write('\n[[encoder]]\nname = "vggish"\nmodality = "audio"\nkind = "vggish"\nweights = "mine.pth"\n')
    differs = report_of()
    assert not any("are random" in text for text in differs)
    assert any(text.startswith("feature 'vggish' is that of ") and "'mine.pth'" in text for text in differs)


def test_another_store_and_other_data_are_refused_and_samples_are_read_anew(folder: Path) -> None:
    """Whatever was scored in the folder of a reproduction would stand there as today's."""
    paper = load_reproduction("s2")
    steps = build_steps(paper, paper.select(None, ["t2.11"]), folder, Choices())
    assert [(step.done, "--overwrite" in step.command) for step in steps if step.what == "predict"] == [(False, True)]
    command = ("reproduce", "s2", "--rows", "t2.9", "--cpu")  # ends at missing weights
    ask(*command, code=12)
    assert not (folder / "runs").exists()
    (folder / "runs" / "s2").mkdir(parents=True)  # of a reproduction that was begun before
    ask(*command, code=12)
    ask(*command, code=12)
    assert "was begun with" in ask(*command, "--store", "other", code=2)
    labels = next(one for one in folder.rglob("*.txt") if "AU" in str(one.parent.parent))
    labels.write_text(labels.read_text().replace("\n0", "\n1", 1))
    ask(*command, code=12)  # nothing is trained yet, so a video that failed may be replaced
    (folder / "runs" / "s2" / "runs").mkdir()
    labels.write_text(labels.read_text().replace("\n1", "\n0", 1))
    assert "begun on other videos or annotations" in ask(*command, code=2)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paper", "ids"),
    [
        ("s1", "t1-tail"),
        ("s2", "t2-tail.1,t2-tail.2,t2-tail.5"),
        ("s3", "t3-tail"),
        *(("s5", f"t5-tail-{task}") for task in ("au", "expr", "va")),
    ],
)
def test_rows_with_a_trained_encoder_are_reproduced_from_cached_crops(folder: Path, paper: str, ids: str) -> None:
    rows = report(paper, "--rows", ids, *SMALL, "--on-missing-text", "mask")
    for row in rows.values():
        assert row["ours"] is not None, row["why"]
        assert not any("frozen" in text for text in row["differs"])
        assert any(text == "the weights of the trained encoder are random" for text in row["differs"])
    store = open_store(folder / "features")
    name = "faces224" if paper == "s5" else "crops"
    assert {str(item.dtype) for item in store[name].values()} == {"uint8"}
    store.close()
