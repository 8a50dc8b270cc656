"""Data sets with label sets of their own, in their published layouts, and several of them as one."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.extract.planning.features import build_feature_set, feature_ids
from aupipe.facs_datasets import BP4D_AUS, DISFA_AUS
from aupipe.sources import source_identity
from aupipe.store import create_store
from aupipe.tasks import AU_NAMES
from aupipe.train.run import load_run
from tests.cli.test_train import Folder, write_annotations

FRAMES = 60
SMALL = ("--set", "epochs=15", "--set", "window=30", "--set", "hop=30", "--set", "batch=2", "--cpu")
ENCODER = '[store]\npath = "features"\n[[encoder]]\nname = "hog"\nmodality = "visual"\nkind = "hog"\n'
LARGEST = [*AU_NAMES, *(name for name in (*DISFA_AUS, *BP4D_AUS) if name not in AU_NAMES)]
MIXING = np.random.default_rng(1).normal(size=(len(set(LARGEST)), 24))
NAMES = list(dict.fromkeys(LARGEST))


def draw_aus(rng: np.random.Generator, frames: int = FRAMES) -> np.ndarray:
    """(T, all AUs) intensities from 0 to 5 that last for ten frames."""
    steps = rng.integers(1, 6, (frames // 10, len(NAMES))) * (rng.random((frames // 10, len(NAMES))) < 0.45)
    return np.repeat(steps, 10, axis=0)


def columns(names: tuple[str, ...]) -> list[int]:
    return [NAMES.index(name) for name in names]


def make_disfa(root: Path, seed: int = 0) -> dict[str, np.ndarray]:
    rng, truth = np.random.default_rng(seed), {}
    (root / "Video_LeftCamera").mkdir(parents=True)
    for number in range(1, 10):
        name = f"SN{number:03d}"
        truth[name] = draw_aus(rng)
        (root / "Video_LeftCamera" / f"LeftVideo{name}_comp.avi").write_bytes(name.encode())
        folder = root / "ActionUnit_Labels" / name
        folder.mkdir(parents=True)
        for au in DISFA_AUS:
            rows = truth[name][:, NAMES.index(au)]
            lines = [f"{frame},{value}" for frame, value in enumerate(rows, 1)]
            (folder / f"{name}_{au.lower()}.txt").write_text("\n".join(lines) + "\n")
    (root / "aupipe.toml").write_text('[dataset]\nlayout = "disfa"\n' + ENCODER)
    return truth


def make_bp4d(root: Path, seed: int = 10, as_videos: bool = False) -> dict[str, np.ndarray]:
    """Two sessions of six subjects; frames 11 to 50 are coded, AU14 of the first session not at all."""
    rng, truth = np.random.default_rng(seed), {}
    (root / "AUCoding" / "AU_OCC").mkdir(parents=True)
    for subject in ("F001", "F002", "F003", "M001", "M002", "M003"):
        for session in ("T1", "T2"):
            name = f"{subject}_{session}"
            truth[name] = draw_aus(rng)
            folder = root / "2D+3D" / subject / session
            folder.mkdir(parents=True)
            if as_videos:
                (root / "videos").mkdir(exist_ok=True)
                (root / "videos" / f"{name}.mp4").write_bytes(name.encode())
            for frame in range(1, FRAMES + 1):
                (folder / f"{frame:04d}.jpg").write_bytes(b"x")
            shown = (truth[name] >= 2).astype(int)[:, columns(BP4D_AUS)]
            if session == "T1":
                shown[:, BP4D_AUS.index("AU14")] = 9
            # As published, with columns of further AUs, which are not used.
            lines = [",".join(["0", *(au.removeprefix("AU") for au in BP4D_AUS), "33"])]
            lines += [",".join(map(str, [frame, *shown[frame - 1], 9])) for frame in range(11, 51)]
            (root / "AUCoding" / "AU_OCC" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (root / "aupipe.toml").write_text('[dataset]\nlayout = "bp4d"\n' + ENCODER)
    return truth


def make_affwild(root: Path, seed: int = 20) -> dict[str, np.ndarray]:
    rng, truth = np.random.default_rng(seed), {}
    (root / "videos").mkdir(parents=True)
    for split, names in (("Train_Set", ["a", "b", "c", "d"]), ("Validation_Set", ["v", "w"])):
        for name in names:
            truth[name] = draw_aus(rng)
            (root / "videos" / f"{name}.mp4").write_bytes(name.encode())
            write_annotations(root, split, name, (truth[name] >= 2)[:, columns(AU_NAMES)].astype(float))
    (root / "aupipe.toml").write_text('[dataset]\nlayout = "affwild2"\n' + ENCODER)
    return truth


def fill_store(root: Path, truth: dict[str, np.ndarray]) -> Folder:
    """Publish features that show the AUs, as extraction would."""
    config = load_config(root / "aupipe.toml")
    recordings = open_dataset(config.dataset).recordings
    parts = build_feature_set(config)
    ids = feature_ids(parts, recordings)
    specs = {spec.id: spec for spec, _ in parts.graph(recordings[0]).encoders}
    rng = np.random.default_rng(5)
    with create_store(root / "features", "zarr") as store:
        for recording in recordings:
            rows = truth[recording.id] @ MIXING + rng.normal(size=(FRAMES, 24))
            source = source_identity(recording.video or recording.images)
            store.publish(recording.id, specs[ids["hog"]], rows.astype(np.float16), source=source)
    return Folder(root)


def predicted(folder: Folder, run: str, name: str) -> tuple[list[str], np.ndarray]:
    """Columns and rows of the table of predictions of one recording."""
    folder.ask("predict", run, name, "--out", f"{run}.csv", "--overwrite", "--cpu")
    header, *rows = (folder.path / f"{run}.csv").read_text().splitlines()
    return header.split(",")[3:-1], np.array([row.split(",")[3:-1] for row in rows], float)


@pytest.fixture(scope="module")
def disfa(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("sets") / "disfa"
    return fill_store(root, make_disfa(root))


def test_disfa_trains_evaluates_and_predicts_its_own_aus(disfa: Folder) -> None:
    said = disfa.ask("train", "--recipe", "baseline", "--task", "au", *SMALL, "--out", "au")
    assert [line.split()[0] for line in said.splitlines() if line.startswith("AU")] == list(DISFA_AUS)
    assert "the 95% interval is from 3 groups only, so it is too narrow" in said
    run = load_run(disfa.path / "au")
    assert run.validation == ("SN003", "SN006", "SN009")
    scores = disfa.json("evaluate", "au", "--cpu")
    assert scores["mean"] > 0.6
    assert (scores["task"]["official"], scores["names"]) == (False, list(DISFA_AUS))
    assert set(scores["others"]) == {"event F1 @.25", "event F1 @.50", "event F1 @.75"}
    names, rows = predicted(disfa, "au", "SN003")
    assert names == list(DISFA_AUS)
    assert ((rows > 0) & (rows < 1)).all()
    assert "no submission for this task 'au'" in disfa.ask(
        "predict", "au", "SN003", "--format", "abaw", "--out", "no.txt", "--cpu", code=2
    )
    disfa.ask("predict", "au", "SN003", "--format", "tracks", "--out", "tracks", "--cpu")
    assert (disfa.path / "tracks" / "SN003.txt").read_text().splitlines()[0] == ",".join(DISFA_AUS)


def test_init_recognises_a_published_layout(tmp_path: Path) -> None:
    for name, make in (("disfa", make_disfa), ("bp4d", make_bp4d)):
        make(tmp_path / name)
        (tmp_path / name / "aupipe.toml").unlink()
        Folder(tmp_path / name).ask("init")
        dataset = open_dataset(load_config(tmp_path / name / "aupipe.toml").dataset)
        assert len(dataset.recordings) == {"disfa": 9, "bp4d": 12}[name]


@pytest.mark.parametrize("recipe", ["baseline", "tcn"])
def test_intensities_of_disfa_are_scored_by_icc_pcc_and_mae(disfa: Folder, recipe: str) -> None:
    disfa.ask("train", "--recipe", recipe, "--task", "intensity", *SMALL, "--out", f"i-{recipe}")
    scores = disfa.json("evaluate", f"i-{recipe}", "--cpu")
    assert scores["task"]["metric"] == "ICC"
    assert scores["mean"] > 0.3
    assert set(scores["others"]) == {"PCC", "MAE"}
    low, high = scores["spread"]["interval"]
    assert low <= scores["mean"] <= high
    said = disfa.ask("evaluate", f"i-{recipe}", "--cpu")
    assert said.splitlines()[0].split()[-2:] == ["PCC", "MAE"]
    names, rows = predicted(disfa, f"i-{recipe}", "SN003")
    assert names == list(DISFA_AUS)
    assert rows.min() >= 0
    assert 1.5 < rows.max() <= 5


def test_bp4d_trains_on_what_was_coded_and_scores_each_au_where_it_was(tmp_path: Path) -> None:
    root = tmp_path / "bp4d"
    folder = fill_store(root, make_bp4d(root))
    dataset = open_dataset(load_config(root / "aupipe.toml").dataset)
    labels = dataset.labels(dataset.select(["F001_T1"])[0], "au")
    assert labels.valid.sum(axis=0).tolist() == [40 * (name != "AU14") for name in BP4D_AUS]
    assert not labels.valid[:10].any()
    folder.ask("train", "--recipe", "baseline", *SMALL, "--folds", "2", "--out", "run")
    held = [load_run(path).validation for path in sorted((root / "run").glob("fold*"))]
    assert all({name[:4] for name in one}.isdisjoint(name[:4] for name in two) for one, two in (held, held[::-1]))
    scores = folder.json("evaluate", "run", "--cpu")
    assert scores["frames"] == 4 * 40  # F003 and M003, two sessions each
    assert scores["spread"]["groups"] == 2
    assert scores["mean"] > 0.5
    assert predicted(folder, "run", "F003_T1")[0] == list(BP4D_AUS)


def test_three_data_sets_are_trained_jointly_by_name_and_mask(tmp_path: Path) -> None:
    truth = {}
    for name, make in (("affwild", make_affwild), ("disfa", make_disfa), ("bp4d", partial(make_bp4d, as_videos=True))):
        truth |= {f"{name}/{key}": rows for key, rows in make(tmp_path / name).items()}
    root = tmp_path / "joint"
    root.mkdir()
    parts = '[dataset]\nlayout = "joint"\nparts = ["../affwild", "../disfa/aupipe.toml", "../bp4d"]\n'
    (root / "aupipe.toml").write_text(parts + ENCODER)
    folder = fill_store(root, truth)
    dataset = open_dataset(load_config(root / "aupipe.toml").dataset)
    task = dataset.task("au")
    assert (set(task.names), task.official) == (set(NAMES), False)
    for name, own in (("affwild/a", AU_NAMES), ("disfa/SN001", DISFA_AUS), ("bp4d/F001_T2", BP4D_AUS)):
        labels = dataset.labels(dataset.select([name])[0], "au")
        assert {task.names[k] for k in np.flatnonzero(labels.valid.any(axis=0))} == set(own)
        shown = (truth[name] >= 2)[:, [NAMES.index(one) for one in task.names]]
        np.testing.assert_array_equal(labels.targets[labels.valid], shown[: len(labels)][labels.valid])
    folder.ask("train", "--recipe", "baseline", *SMALL, "--out", "run")
    scores = folder.json("evaluate", "run", "--cpu")
    assert scores["names"] == list(task.names)
    assert scores["frames"] == 2 * FRAMES + 3 * FRAMES + 4 * 40
    assert scores["mean"] > 0.5
    assert predicted(folder, "run", "disfa/SN003")[0] == list(task.names)
    said = folder.ask("train", "--recipe", "field", *SMALL, "--set", "predict_hop=30", "--out", "no", code=2)
    assert "head 'chain' needs frames in which all of its" in said


def test_a_label_set_of_ones_own_is_a_table_of_the_configuration(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    truth = make_affwild(root)
    table = '[[task]]\nname = "{0}"\nkind = "{1}"\nnames = {2}\nfolder = "{0}_labels"\n{3}'
    tables = [
        ("mood", "regression", ["calm", "bright", "tense"], "invalid = -9\nlow = -2\nhigh = 2\n"),
        ("basic", "classes", ["one", "two", "three"], ""),
    ]
    (root / "aupipe.toml").write_text(
        '[dataset]\nlayout = "affwild2"\n'
        + ENCODER
        + "".join(table.format(*row[:2], json.dumps(row[2]), row[3]) for row in tables)
    )
    for name, rows in truth.items():
        split = "Train_Set" if name in "abcd" else "Validation_Set"
        mood = rows[:, :3] * 0.8 - 2
        mood[5] = -9
        basic = np.argmax(rows[:, :3], axis=1)
        for task, header, lines in (
            ("mood", "calm,bright,tense", [",".join(f"{value:g}" for value in row) for row in mood]),
            ("basic", "one,two,three", list(map(str, basic))),
        ):
            file = root / "annotations" / f"{task}_labels" / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join([header, *lines]) + "\n")
    folder = fill_store(root, truth)
    for task, metric in (("mood", "CCC"), ("basic", "F1")):
        said = folder.ask("train", "--recipe", "baseline", "--task", task, *SMALL, "--out", task)
        assert said.splitlines()[-1].startswith("next: aupipe predict")
        scores = folder.json("evaluate", task, "--cpu")
        assert scores["task"]["metric"] == metric
        assert scores["mean"] > 0.4
    for task, other in (("mood", "basic"), ("au", "mood")):  # auxiliary, by the losses of their kinds
        joint = ("--set", f"aux_tasks.{other}=0.5", *SMALL, "--out", f"with-{other}")
        folder.ask("train", "--recipe", "baseline", "--task", task, *joint)
        run = load_run(root / f"with-{other}")
        assert [aux.name for aux in run.aux_tasks] == [other]
        assert run.outputs == len(run.task.names) + 3
        assert folder.json("evaluate", f"with-{other}", "--cpu")["mean"] > 0.3
    answer = folder.ask("train", "--recipe", "baseline", "--set", "aux_tasks.mod=1", "--out", "no", code=2)
    assert "unknown task 'mod'. Did you mean 'mood'?" in answer
    names, rows = predicted(folder, "mood", "v")
    assert names == ["calm", "bright", "tense"]
    assert rows.min() < -1
    assert "unknown task 'mod'. Did you mean 'mood'? This data set has au, expr, va, mood, basic" in folder.ask(
        "train", "--task", "mod", "--out", "no", code=2
    )
    said = folder.ask("train", "--recipe", "baseline", "--task", "expr", "--out", "no", code=2)
    assert said.endswith("; --task or [train] task names another label set: mood, basic")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "disfa/ActionUnit_Labels/SN001/SN001_au4.txt",
            "1,0\n2,7\n",
            "frame 2: AU4 is 7: expected 0 to 5",
        ),
        (
            "disfa/ActionUnit_Labels/SN001/SN001_au4.txt",
            "1,0\n1,1\n",
            "SN001_au4.txt, line 2: '1,1': expected a new frame",
        ),
        ("bp4d/AUCoding/AU_OCC/F001_T1.csv", "0,1,2,4\n", "F001_T1.csv, line 1: no column for AU6"),
        (
            "bp4d/AUCoding/AU_OCC/F001_T1.csv",
            "0,1,2,4,6,7,10,12,14,15,17,23,24\n1,0,0,0,0,0,0,0,0,0,0,0,0\n2,0,0,3,0,0,0,0,0,0,0,0,0\n",
            "F001_T1.csv, line 3: AU4 is 3: expected 0, 1 or 9",
        ),
    ],
)
def test_a_malformed_label_file_is_named_by_file_and_line(tmp_path: Path, file: str, text: str, said: str) -> None:
    name = file.partition("/")[0]
    {"disfa": make_disfa, "bp4d": make_bp4d}[name](tmp_path / name)
    (tmp_path / file).write_text(text)
    dataset = open_dataset(load_config(tmp_path / name / "aupipe.toml").dataset)
    with pytest.raises(UsageError) as caught:
        dataset.labels(dataset.recordings[0], "au")
    assert said in str(caught.value)
