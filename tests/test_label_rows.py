"""Tables of labels for all recordings, read as rows and fitted to frames, without a store or a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset_model import Dataset
from aupipe.doctor.project import examine_project
from aupipe.errors import UsageError
from aupipe.label_rows import read_label_file
from aupipe.label_tables import add_label_tables, no_clock
from aupipe.project import Project
from aupipe.store import create_store
from aupipe.store.clocks import clock_of
from aupipe.task_tables import read_tasks
from aupipe.tasks import Task
from aupipe.types import FeatureSpec, Recording, StreamChoice

AT_25 = np.arange(25) / 25


def table(folder: Path, text: str, name: str = "x.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def classes(folder: Path, names: Sequence[str], cells: Sequence[str]) -> list[float | None]:
    """The numbers of the classes of cells; None: not annotated."""
    file = table(folder, "recording,frame,mood\n" + "".join(f"a,{k},{cell}\n" for k, cell in enumerate(cells, 1)))
    rows = read_label_file(file, Task("mood", "classes", tuple(names))).rows["a"]
    return [float(value) if valid else None for value, valid in zip(rows.targets[:, 0], rows.valid[:, 0], strict=True)]


def label_set(folder: Path, **fields: object) -> Dataset:
    """A data set of some recordings whose label set ``x`` is the table x.csv."""
    ids, clock = fields.pop("ids", ("a.mp4", "b.mp4")), fields.pop("clock", no_clock)
    held_out = fields.pop("held_out", ())
    one = {"name": "x", "kind": "intensity", "names": ["p"], "high": 5.0, "file": "x.csv"} | fields
    recordings = tuple(Recording(id=name, video=folder / name) for name in ids)
    return add_label_tables(Dataset(recordings), read_tasks([one], "aupipe.toml", folder), held_out, clock)


def first(dataset: Dataset) -> list[float | None]:
    labels = dataset.labels(dataset.recordings[0], "x")
    return [float(v) if valid else None for v, valid in zip(labels.targets[:, 0], labels.valid[:, 0], strict=True)]


@pytest.mark.parametrize("name", ["none", "NA", "null"])
def test_a_class_may_be_called_as_a_cell_without_a_value(tmp_path: Path, name: str) -> None:
    assert classes(tmp_path, ["calm", name], ["calm", name, name.lower(), ""]) == [0, 1, 1, None]


def test_a_cell_is_the_class_of_its_name_in_every_row_of_a_table(tmp_path: Path) -> None:
    assert classes(tmp_path, ["1", "2", "3"], ["1", "2", "3"]) == [0, 1, 2]
    assert classes(tmp_path, ["1", "2", "3"], ["1", "2", "3", "NA"]) == [0, 1, 2, None]
    assert classes(tmp_path, ["low", " High "], ["High", "0", "1.0", "low"]) == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["1", "2", "3"], "the class '1' has the number 0: a cell 1 would mean two classes."),
        (["rest", "2.0"], "the class '2.0' has the number 1"),
        (["Calm", "tense", "calm "], "the class 'calm ' differs from 'Calm' in capitals or blanks only"),
        (["calm", " "], "the class ' ' is blank"),
    ],
)
def test_names_of_classes_that_a_cell_cannot_tell_apart_are_refused(names: list[str], said: str) -> None:
    one = {"name": "mood", "kind": "classes", "names": names}
    with pytest.raises(UsageError) as caught:
        read_tasks([one | {"file": "x.csv"}], "aupipe.toml", Path())
    assert str(caught.value).startswith(f"aupipe.toml: [[task]] mood: {said}")
    assert "\n" not in str(caught.value)
    assert read_tasks([one | {"folder": "moods"}], "aupipe.toml", Path())  # files of numbers, not of names


def test_classes_that_are_called_by_their_own_numbers_are_accepted() -> None:
    one = {"name": "mood", "kind": "classes", "names": ["0", "1", "inf"], "file": "x.csv"}
    ((task, _),) = read_tasks([one], "aupipe.toml", Path())
    assert task.names == ("0", "1", "inf")


def test_classes_are_named_or_numbered_and_others_are_refused(tmp_path: Path) -> None:
    assert classes(tmp_path, ["low", "high"], ["High", "0", ""]) == [1, 0, None]
    with pytest.raises(UsageError, match=r"line 2: mood is 'hi'\. Did you mean 'high'\? Accepted: low, high$"):
        classes(tmp_path, ["low", "high"], ["hi"])


def test_the_clock_of_a_recording_is_that_of_its_frame_rate_and_stream_and_the_newest(tmp_path: Path) -> None:
    images = [Recording(id="pictures", images=tmp_path, fps=fps) for fps in (25.0, 30.0, 50.0)]
    video = [Recording(id="a.mp4", video=tmp_path / "a.mp4", streams=StreamChoice(video=k)) for k in (None, 1)]
    stored = [
        ("pictures", 1, {"source": "images", "fps": 25.0}),
        ("pictures", 1, {"source": "images", "fps": 30.0}),
        ("a.mp4", 2, {"source": "video"}),
        ("a.mp4", 1, {"source": "video"}),
        ("a.mp4", 1, {"source": "video", "video_stream": 1}),
    ]
    with create_store(tmp_path / "features", "zarr") as store:
        for k, (name, version, params) in enumerate(stored):
            spec = FeatureSpec("clock", "clock", "pts", version, params, dtype="float64", columns=("time_s",))
            store.publish(name, spec, np.full((2, 1), float(k)))
        found = [times if times is None else times[0] for times in map(clock_of(store), (*images, *video))]
    assert found == [0, 1, None, 2, 4]


def test_rows_that_no_frame_takes_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "".join(f"a,{k / 100},{k % 5}\n" for k in range(97))  # 100 ratings a second, 25 frames
    table(tmp_path, f"recording,time_s,p\n{rows}")
    assert first(label_set(tmp_path, clock=lambda _: AT_25)) == [4 * k % 5 for k in range(25)]
    assert "x.csv: 72 rows of a.mp4 left out, as no frame within 0.020 s takes them: the first in line 3" in caplog.text


def test_a_recording_without_a_frame_that_takes_a_row_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table(tmp_path, "recording,time_s,p\na,0.015,1\na,0.055,2\na,40000,3\n")
    assert set(first(label_set(tmp_path, clock=lambda _: AT_25, tolerance_s=0.01))) == {None}
    assert "x.csv: no frame of a.mp4 is annotated: its times are 0.015 to 40000.000 s" in caplog.text
    assert "x.csv: 2 rows of a.mp4 left out, as no frame within 0.010 s takes them: the first in line 2" in caplog.text


BOTH = "recording,frame,time_s,p\na,3,0.08,1\na,1,{},2\nb,1,0.5,3\n"


@pytest.mark.parametrize("time", ["0.000", "0.019", ""])
def test_frames_whose_times_are_given_too_are_taken_where_both_agree(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, time: str
) -> None:
    table(tmp_path, BOTH.format(time))
    assert first(label_set(tmp_path, clock=lambda _: AT_25))[:3] == [2, None, 1]
    assert not caplog.records
    table(tmp_path, BOTH.format("1.0"))
    assert first(label_set(tmp_path, clock=lambda _: AT_25, tolerance_s=1.0))[:3] == [2, None, 1]


@pytest.mark.parametrize(("time", "shown"), [("0.04", "0.040"), ("40", "40.000"), ("-0.021", "-0.021"), ("inf", "inf")])
def test_a_frame_and_a_time_that_contradict_each_other_are_refused_by_line(
    tmp_path: Path, time: str, shown: str
) -> None:
    table(tmp_path, BOTH.format(time))
    with pytest.raises(UsageError) as caught:
        first(label_set(tmp_path, clock=lambda _: AT_25))
    said = f"x.csv, line 3: frame 1 of a.mp4 is at 0.000 s, and the time of the row is {shown}: "
    assert said + "leave out the column that is wrong; frames are counted from 1" in str(caught.value)


def test_what_a_table_with_frames_and_times_goes_by_is_said_where_they_cannot_be_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table(tmp_path, BOTH.format("40"))
    assert first(label_set(tmp_path)) == [2, None, 1]
    assert "x.csv: 2 rows of a.mp4 taken by frame, and not compared with their times, as those of its" in caplog.text
    table(tmp_path, "recording,pts_s,time_s,p\na,7,0.0,1\n")
    assert first(label_set(tmp_path, clock=lambda _: AT_25))[0] == 1
    assert "x.csv: rows go by time_s: pts_s is not read" in caplog.text


def test_a_label_may_be_called_as_a_column_of_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table(tmp_path, "recording,frame,time_s\na,1,5\n")
    assert first(label_set(tmp_path, names=["time_s"], clock=lambda _: AT_25))[0] == 5
    assert not caplog.records


@pytest.mark.parametrize(
    ("factor", "rows", "is_hinted"), [(1000, 25, True), (1000, 10, True), (1, 50, False), (25, 25, False)]
)
def test_times_in_milliseconds_are_called_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, factor: float, rows: int, is_hinted: bool
) -> None:
    """Times in seconds that go on after the video, and numbers of frames, are something else."""
    table(tmp_path, "recording,time_s,p\n" + "".join(f"a,{k / 25 * factor:g},1\n" for k in range(rows)))
    first(label_set(tmp_path, clock=lambda _: AT_25))
    assert "outside of its times, 0.000 to 0.960 s" in caplog.text
    assert ("(the times look like milliseconds; time_s is in seconds): the first in" in caplog.text) == is_hinted


def test_times_in_milliseconds_beside_frames_are_called_that(tmp_path: Path) -> None:
    table(tmp_path, "recording,frame,time_s,p\n" + "".join(f"a,{k + 1},{k * 40},1\n" for k in range(25)))
    with pytest.raises(UsageError, match=r"line 3: .*; the times look like milliseconds; time_s is in seconds$"):
        first(label_set(tmp_path, clock=lambda _: AT_25))


def test_times_are_those_of_the_time_stamps_of_a_video_that_begins_late(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table(tmp_path, "recording,time_s,p\na,0.0,1\na,1.4,2\na,1.44,3\n")
    assert first(label_set(tmp_path, clock=lambda _: 1.4 + AT_25))[:3] == [2, 3, None]
    assert "1 row of a.mp4 left out, outside of its times, 1.400 to 2.360 s: the first in line 2" in caplog.text


@pytest.mark.parametrize("split", [",train", ""])
def test_a_recording_that_is_named_exactly_is_not_the_other_of_its_name(tmp_path: Path, split: str) -> None:
    table(tmp_path, f"recording,frame,p{',split' * bool(split)}\na.mp4,1,4{split}\n")
    dataset = label_set(tmp_path, ids=("a.mp4", "a.avi"))
    assert first(dataset) == [4]
    assert dataset.labels(dataset.recordings[1], "x") is None
    assert [one.id for one in dataset.split("x", "train")] == ["a.mp4"]


def test_a_name_that_fits_two_recordings_is_refused(tmp_path: Path) -> None:
    table(tmp_path, "recording,frame,p\nb,1,4\na,1,4\n")
    dataset = label_set(tmp_path, ids=("a.mp4", "a.avi", "b.mp4"))
    with pytest.raises(UsageError, match=r"x\.csv, line 3: recording a fits a\.mp4 and a\.avi: write one of them$"):
        dataset.split("x", "train")


def test_held_out_recordings_may_be_those_that_only_another_table_annotates(tmp_path: Path) -> None:
    table(tmp_path, "recording,frame,p\na,1,4\nb,1,4\n")
    ids = ("a.mp4", "b.mp4", "c.mp4")
    dataset = label_set(tmp_path, ids=ids, held_out=("b.mp4", "c.mp4"))
    assert [one.id for one in dataset.split("x", "validation")] == ["b.mp4"]
    assert [one.id for one in dataset.split("x", "train")] == ["a.mp4"]
    with pytest.raises(UsageError, match=r"\[dataset\] validation: no subject or recording 'd\.mp4'\."):
        label_set(tmp_path, ids=ids, held_out=("d.mp4",)).split("x", "train")


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Project]:
    def make(text: str) -> Project:
        (tmp_path / "videos").mkdir()
        (tmp_path / "videos" / "a.mp4").write_bytes(b"a")
        table(tmp_path, text)
        task = '[[task]]\nname = "x"\nkind = "intensity"\nnames = ["p"]\nhigh = 5\nfile = "x.csv"\n'
        file = table(tmp_path, f'[dataset]\nvideos = "videos"\n[store]\npath = "features"\n{task}', "aupipe.toml")
        return Project(load_config(file, environment={}))

    return make


def test_a_bad_table_is_a_finding_of_doctor(project: Callable[[str], Project]) -> None:
    found = {one.subject: one for one in examine_project(project("recording,frame,p\na,1,9\n").config)}
    assert found["label sets"].state == "FAIL"
    assert "x.csv, line 2: p is 9" in found["label sets"].found
    assert found["store"].state == "PASS"


def test_labels_by_frame_need_no_store(project: Callable[[str], Project]) -> None:
    assert project("recording,frame,p\na,2,3\n").labels("x")["a.mp4"].valid[:, 0].tolist() == [False, True]


def test_a_mistyped_frame_of_a_recording_without_a_clock_is_refused(tmp_path: Path) -> None:
    table(tmp_path, "recording,frame,p\na,1000000000,3\na,1,3\n")
    with pytest.raises(UsageError, match=r"x\.csv, line 2: frame is 1000000000: a recording has at most 10000000$"):
        first(label_set(tmp_path))


def test_a_value_below_the_range_is_refused_where_no_mark_is_declared(tmp_path: Path) -> None:
    table(tmp_path, "recording,frame,p\na,1,-1\na,2,\na,3,-3\n")
    with pytest.raises(UsageError, match=r"line 4: p is -3: expected -2 to 5, or an empty cell where it is not"):
        first(label_set(tmp_path, low=-2.0))
    assert first(label_set(tmp_path, low=-2.0, invalid=-3.0)) == [-1, None, None]


def test_a_table_in_another_encoding_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("recording,frame,p\nmüller,1,2\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"x\.csv: cannot be read: it is no UTF-8 text$"):
        first(label_set(tmp_path))
