"""One table with the labels of all recordings: read as labels, refused by line, trained on, scored and predicted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.extract.planning.features import build_feature_set, feature_ids
from aupipe.sources import source_identity
from aupipe.store import create_store
from tests.cli.test_label_sets import SMALL, predicted
from tests.cli.test_train import Folder
from tests.docs.blocks import ROOT, blocks_of

FRAMES = 60
FPS = 30.0
CLIPS = ("a.mp4", "b.mp4", "c.mp4", "d.mp4", "day2/e.mp4", "day2/f.mp4")
TASKS = """
[dataset]
videos = "videos"
[store]
path = "features"
[[encoder]]
kind = "hog"

[[task]]
name = "face"
kind = "multi_label"
names = ["AU1", "AU44"]
file = "labels.csv"

[[task]]
name = "mood"
kind = "classes"
names = ["calm", "tense", "happy"]
file = "moods.parquet"

[[task]]
name = "effort"
kind = "regression"
names = ["load"]
low = -2
high = 2
file = "labels.csv"
"""


def write_csv(path: Path, header: str, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def make_project(root: Path) -> dict[str, np.ndarray]:
    """Videos that are none, and what their frames show: (T, 4) two AUs, a class, and a number."""
    rng = np.random.default_rng(3)
    truth = {}
    for name in CLIPS:
        (root / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "videos" / name).write_bytes(name.encode())
        states = np.repeat(rng.integers(0, 2, (FRAMES // 10, 3)), 10, axis=0)
        truth[name] = np.column_stack([states[:, :2], states.sum(axis=1) % 3, states @ [1.0, -1.5, 0.5]])
    (root / "aupipe.toml").write_text(TASKS)
    return truth


def fill_store(root: Path, truth: dict[str, np.ndarray]) -> None:
    """Publish clocks, and features that show the truth, as extraction would."""
    config = load_config(root / "aupipe.toml")
    recordings = open_dataset(config.dataset).recordings
    parts = build_feature_set(config)
    ids = feature_ids(parts, recordings)
    graph = parts.graph(recordings[0])
    (hog,) = [spec for spec, _ in graph.encoders if spec.id == ids["hog"]]
    mixing = np.random.default_rng(1).normal(size=(6, 24))
    with create_store(root / "features", "zarr") as store:
        for recording in recordings:
            own = truth[recording.id]
            shown = np.column_stack([own[:, :2], own[:, 2:3] == np.arange(3), own[:, 3]]).astype(float)
            source = source_identity(recording.video)
            store.publish(recording.id, graph.clock, np.arange(FRAMES)[:, None] / FPS, source=source)
            store.publish(recording.id, hog, (shown @ mixing).astype(np.float16), source=source)


def dataset_of(root: Path, **options: Any) -> Any:
    return open_dataset(load_config(root / "aupipe.toml", environment={}).dataset, **options)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root = tmp_path_factory.mktemp("tables")
    truth = make_project(root)
    fill_store(root, truth)
    by_frame = []
    for name, rows in truth.items():
        for frame, (one, two, _, load) in enumerate(rows, 1):
            split = "validation" if name in ("c.mp4", "day2/f.mp4") else "train"
            by_frame.append((name, frame, split, int(one), "" if frame == 7 else int(two), load, "a note"))
    write_csv(root / "labels.csv", "recording,frame,split,AU1,AU44,load,remark", by_frame)
    moods = {
        "recording": [name for name in truth for _ in range(FRAMES)],
        "time_s": [k / FPS for _ in truth for k in range(FRAMES)],
        "mood": [("calm", "tense", "happy")[int(row[2])] for own in truth.values() for row in own],
    }
    parquet.write_table(pyarrow.table(moods), root / "moods.parquet")
    return Folder(root)


@pytest.mark.parametrize(
    ("task", "metric", "held_out"),
    [("face", "F1", ("c.mp4", "day2/f.mp4")), ("mood", "F1", ("c.mp4", "day2/f.mp4")), ("effort", "CCC", None)],
)
def test_a_table_of_labels_trains_evaluates_and_predicts(
    project: Folder, task: str, metric: str, held_out: tuple[str, ...] | None
) -> None:
    project.ask("train", "--recipe", "baseline", "--task", task, *SMALL, "--out", task)
    scores = project.json("evaluate", task, "--cpu")
    assert (scores["task"]["metric"], scores["recordings"], scores["frames"]) == (metric, 2, 2 * FRAMES)
    assert scores["mean"] > 0.5
    names, rows = predicted(project, task, "day2/f.mp4")
    assert names == list(scores["names"])
    assert len(rows) == FRAMES


def test_the_rows_of_a_table_are_the_labels_of_their_frames_and_empty_cells_are_none(project: Folder) -> None:
    dataset = dataset_of(project.path)
    with (project.path / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["recording"] == "day2/e.mp4"]
    labels = dataset.labels(dataset.select(["day2/e.mp4"])[0], "face")
    assert labels.targets[:, 0].tolist() == [float(row["AU1"]) for row in rows]
    assert labels.valid.sum(axis=0).tolist() == [FRAMES, FRAMES - 1]
    assert not labels.valid[6, 1]
    assert [one.id for one in dataset.split("face", "validation")] == ["c.mp4", "day2/f.mp4"]
    assert [one.id for one in dataset.split("mood", "validation")] == ["c.mp4", "day2/f.mp4"]  # every third one
    assert dataset.task("effort").invalid == -3  # below its range, so that -1 is a value


def small(root: Path, header: str, rows: Sequence[Sequence[Any]], **about: Any) -> Path:
    """A project of two videos whose label set ``x`` is in one file."""
    (root / "videos").mkdir(exist_ok=True)
    for name in ("a.mp4", "b.mp4"):
        (root / "videos" / name).write_bytes(name.encode())
    options = {"kind": "intensity", "names": '["p", "q"]', "file": "x.csv", "high": "5"} | about
    lines = [f"{key} = {value if value[:1] in '[0123456789' else repr(value)}" for key, value in options.items()]
    (root / "aupipe.toml").write_text("\n".join(["[[task]]", 'name = "x"', *lines]))
    if rows or header:
        write_csv(root / options["file"], header, rows)
    return root


def test_labels_with_times_go_to_the_frames_that_are_near_enough(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("a", t, v, v) for t, v in ((0.0, 1), (0.1, 2), (0.2, 3), (9.9, 4), (-3, 5))]
    root = small(tmp_path, "recording,time_s,p,q", rows)
    times = np.array([0.0, 0.04, 0.08, 0.12, 0.16, 0.20])
    dataset = dataset_of(root, clock=lambda recording: times if recording.id == "a.mp4" else None)
    labels = dataset.labels(dataset.recordings[0], "x")
    assert labels.targets[:, 0].tolist() == [1, 0, 2, 2, 0, 3]  # half a frame: 0.02 s
    assert labels.valid[:, 0].tolist() == [True, False, True, True, False, True]
    assert "x.csv: 2 rows of a.mp4 left out, outside of its times, 0.000 to 0.200 s: the first in line 5" in caplog.text
    wide = dataset_of(small(tmp_path, "recording,time_s,p,q", rows[:3], tolerance_s="0.05"), clock=lambda _: times)
    assert wide.labels(wide.recordings[0], "x").targets[:, 1].tolist() == [1, 1, 2, 2, 3, 3]
    caplog.clear()
    unknown = dataset_of(small(tmp_path, "recording,time_s,p,q", rows))
    assert len(unknown.labels(unknown.recordings[0], "x")) == 0
    assert "5 rows of a.mp4 left out, as the times of its frames are not stored (`aupipe extract`)" in caplog.text


def test_rows_that_fit_nothing_are_counted_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("a.mp4", frame, 1, "NA") for frame in (1, 2, 5, 6)] + [("bb.mp4", 1, 0, 0), ("z", 1, 0, 0)]
    dataset = dataset_of(small(tmp_path, "recording,frame,p,q", rows), clock=lambda _: np.arange(4) / 25)
    labels = dataset.labels(dataset.recordings[0], "x")
    assert labels.valid.tolist() == [[True, False], [True, False], [False, False], [False, False]]
    assert dataset.labels(dataset.recordings[1], "x") is None
    assert [record.getMessage().partition("x.csv: ")[2] for record in caplog.records] == [
        "2 rows left out: no recording of this data set is bb.mp4, z. Did you mean 'b.mp4'?",
        "2 rows of a.mp4 left out, for frames after its last, 4: the first in line 4",
    ]


REFUSED = [
    ("recording,frame,p", [("a", 1, 0)], "line 1: no column q. It has recording, frame, p; [[task]] x reads recording, "
     "frame or time_s, and p, q"),
    ("video,frame,p,q", [("a", 1, 0, 0)], "line 1: no column recording. It has video, frame, p, q; [[task]] x reads "
     "recording, frame or time_s, and p, q"),
    ("recording,when,p,q", [("a", 1, 0, 0)], "line 1: no column frame or time_s. It has recording, when, p, q; "
     "[[task]] x reads recording, frame or time_s, and p, q"),
    ("recording,frame,p,P,q", [("a", 1, 0, 0, 0)], "line 1: two columns p"),
    ("recording,frame,p,q", [], "no row below the header"),
    ("recording,frame,p,q", [("a", 1, 0, 0), ("b", 0, 0, 0)], "line 3: frame is 0: frames are counted from 1"),
    ("recording,frame,p,q", [("a", 1.5, 0, 0)], "line 2: frame is 1.5: frames are counted from 1"),
    ("recording,time_s,p,q", [("a", "", 0, 0)], "line 2: no time"),
    ("recording,frame,p,q", [("a", 1, 0, 0), ("b", 1, 0, 0), ("a", 1, 0, 1)], "line 4: frame 1 of a is also in line 2: "
     "leave one of them"),
    ("recording,frame,p,q", [("a", 1, 0, 6)], "line 2: q is 6: expected 0 to 5, or -1 where it is not annotated"),
    ("recording,frame,p,q", [("a", 1, 0, "lots")], "line 2: q is 'lots': expected a number"),
    ("recording,frame,p,q", [("a", 1, 0)], "line 2: 3 cells, and 4 in the header"),
    ("recording,frame,p,q", [("", 1, 0, 0)], "line 2: no recording"),
    ("recording,frame,p,q", [("c", 1, 0, 0)], "none of its rows is used: no recording of this data set is c."),
    ("recording,frame,p,q", [("a", 1, 0, 0), ("a.mp4", 2, 0, 0)], "line 3: line 2 has another name of a.mp4"),
    ("recording,frame,split,p,q", [("a", 1, "trian", 0, 0)], "line 2: split is 'trian'. Did you mean 'train'? "
     "Accepted: train, validation, test"),
    ("recording,frame,split,p,q", [("a", 1, "train", 0, 0), ("a", 2, "test", 0, 0)], "line 3: split of a is test, "
     "and train above"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "rows", "said"), REFUSED)
def test_a_table_that_is_none_is_refused_by_line_in_one_line(
    tmp_path: Path, header: str, rows: Sequence[Sequence[Any]], said: str
) -> None:
    dataset = dataset_of(small(tmp_path, header, rows))  # it is not read for the recordings
    with pytest.raises(UsageError) as caught:
        dataset.labels(dataset.recordings[0], "x")
    assert str(caught.value) in (f"{tmp_path / 'x.csv'}, {said}", f"{tmp_path / 'x.csv'}: {said}")


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"file": "y.csv"}, "y.csv: cannot be read: No such file or directory"),
        ({"file": "y.txt"}, "y.txt: expected a table named .csv, .parquet, .xlsx"),
        ({"folder": "x"}, 'give file = "labels.csv", one table for all recordings, or the folder of a file for each'),
        ({"kind": "classes", "high": "1", "column": "mood"}, "no column mood."),
    ],
)
def test_a_label_set_without_its_table_is_refused(tmp_path: Path, about: dict[str, str], said: str) -> None:
    small(tmp_path, "", [], **about)
    write_csv(tmp_path / "x.csv", "recording,frame,p", [("a", 1, 0)])
    with pytest.raises(UsageError) as caught:
        dataset_of(tmp_path).split("x", "train")
    assert said in str(caught.value)


def test_semicolons_workbooks_and_parquet_hold_the_same_labels(tmp_path: Path) -> None:
    openpyxl, parquet = pytest.importorskip("openpyxl"), pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    small(tmp_path, "", [])
    rows = [("recording", "frame", "p", "q"), ("a", 1, 0.5, None), ("a", 3, 2, 4)]
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "x.xlsx")
    columns = dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))
    parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_text("recording;frame;p;q\na;1;0.5;\na;3;2;4\n\n")
    found = []
    for suffix in ("csv", "xlsx", "parquet"):
        dataset = dataset_of(small(tmp_path, "", [], file=f"x.{suffix}"))
        labels = dataset.labels(dataset.recordings[0], "x")
        found.append((labels.targets.tolist(), labels.valid.tolist()))
    whole = ([[0.5, 0], [0, 0], [2, 4]], [[True, False], [False, False], [True, True]])
    assert found == [whole] * 3


def test_tables_of_several_data_sets_are_joined_by_name_with_masks(tmp_path: Path) -> None:
    for name, columns in (("one", "p,q"), ("two", "q,r")):
        (tmp_path / name).mkdir()
        names = str(columns.split(",")).replace("'", '"')
        small(tmp_path / name, f"recording,time_s,{columns}", [("a", 0.0, 1, 2), ("b", 0.0, 3, 4)], names=names)
    joint = tmp_path / "aupipe.toml"
    joint.write_text('[dataset]\nlayout = "joint"\nparts = ["one", "two"]\n')
    times = {f"{name}/{clip}.mp4": np.zeros(1) for name in ("one", "two") for clip in "ab"}
    dataset = dataset_of(tmp_path, clock=lambda recording: times[recording.id])
    assert dataset.task("x").names == ("p", "q", "r")
    labels = dataset.labels(dataset.select(["two/b.mp4"])[0], "x")
    assert (labels.targets.tolist(), labels.valid.tolist()) == ([[0, 3, 4]], [[False, True, True]])


def test_the_table_of_the_how_to_is_read_as_it_stands(tmp_path: Path) -> None:
    blocks = {block.language: block.text for block in blocks_of(ROOT / "docs" / "howto" / "own-data.md")}
    (tmp_path / "labels.csv").write_text(blocks["text"])
    (tmp_path / "aupipe.toml").write_text(blocks["toml"])
    for name in ("a", "b"):
        (tmp_path / "videos" / "day1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / "day1" / f"{name}.mp4").write_bytes(b"x")
    times = np.arange(5) / 25
    dataset = dataset_of(tmp_path, clock=lambda _: times)
    first, second = (dataset.labels(one, "mood") for one in dataset.recordings)
    np.testing.assert_allclose(first.targets[:, 0], [0.3, 0.3, 0.4, 0.4, 0], rtol=1e-6)  # 0, 40, ... 160 ms
    assert first.valid[:, 0].tolist() == [True, True, True, True, False]
    assert second.valid.tolist() == [[False, True]] * 2 + [[False, False]] * 3
