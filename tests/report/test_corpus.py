"""What labels are held against, and what is said to be checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.extract.faces.face_table import FaceTable
from aupipe.extract.planning.features import build_feature_set
from aupipe.report.checks import corpus
from aupipe.report.checks.corpus import CorpusReport, HeldOut, check_corpus
from aupipe.report.checks.facts import Facts, _compare_places
from aupipe.report.checks.signals import LabelSignals
from aupipe.report.faces import RecordingFaces
from aupipe.store import open_store
from aupipe.tasks import AU_NAMES, Task
from aupipe.types import FaceTrack, Recording
from tests.cli import test_check as made


def check_made(root: Path, held_out: HeldOut | None = None) -> CorpusReport:
    """The report on a corpus that `made.fill` has made."""
    config = load_config(root / "aupipe.toml")
    dataset, store = open_dataset(config.dataset), open_store(root / "features")
    return check_corpus(dataset, dataset.recordings, build_feature_set(config), store, held_out)


def test_columns_of_held_out_predictions_go_by_name_and_others_are_not_checked(tmp_path: Path) -> None:
    labels: dict[str, np.ndarray] = {}

    def plant(name: str, contents: dict) -> None:
        labels[name] = contents[name]["labels"]
        if name == "v0":
            contents[name]["labels"] = made.late(labels[name], 10)

    made.fill(tmp_path, plant)

    def check(names: tuple[str, ...], columns: list[int], task: str = "au") -> CorpusReport:
        scores = {name: labels[name][:, columns] for name in made.NAMES}
        return check_made(tmp_path, HeldOut(Task(task, "multi_label", names), scores))

    backwards = check((*AU_NAMES[::-1], "AU45"), [*range(11, -1, -1), 3])
    assert [(one.recording, one.value) for one in backwards.findings] == [("v0", 10.0)]
    fewer = check(AU_NAMES[:8], list(range(8)))
    assert fewer.not_checked[0].startswith("au labels against the face: the held-out predictions have no AU23, AU24, ")
    assert fewer.findings == ()
    other = check(("pain",), [0], "pain")
    assert other.not_checked == ("held-out predictions of pain: the data set has no labels of it",)


@pytest.mark.parametrize("told", [0, 2])
def test_labels_that_nothing_can_be_told_of_are_not_said_to_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    signals: dict[str, np.ndarray] = {}

    def plant(name: str, contents: dict) -> None:
        events = contents[name]["labels"]
        signals[name] = events + np.random.default_rng(0).random(events.shape)
        if name not in made.NAMES[:told]:
            contents[name]["labels"] = np.zeros_like(events)  # nothing happens

    measured = LabelSignals(lambda recording: signals[recording.id], "blendshapes", learned=False)
    monkeypatch.setattr(corpus, "choose_signals", lambda *_: measured)
    made.fill(tmp_path, plant)
    report = check_made(tmp_path)
    assert report.findings == ()
    assert ("au labels against the face, by blendshapes" in report.checked) == bool(told)
    untold = len(made.NAMES) - told
    assert f"au labels of {untold} against the face: nothing can be told of them by blendshapes" in report.not_checked


def test_the_worst_of_several_siblings_is_what_counts() -> None:
    facts = Facts("v_left")
    own, right_of_it, left_of_it = (one_face(x) for x in (200.0, 400.0, 0.0))
    for other in (right_of_it, left_of_it, right_of_it):
        _compare_places(facts, Recording("v_left", subject="left"), own, other)
    assert facts.values == {"sibling_overlap": 0.0, "wrong_side": 1.0}


def one_face(x: float) -> RecordingFaces:
    """Ten rows with one face, that of the subject."""
    rows = np.tile(np.array([x, 50, x + 100, 150, *[0] * 10, 0.9, 240, 320], np.float32), (10, 1))
    return RecordingFaces(np.arange(10) / 25, FaceTrack.from_rows(rows[:, :15]), FaceTable.from_dense(rows[:, None]))
