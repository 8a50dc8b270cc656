"""What labels are held against, and what is said to be checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.extract.planning.features import build_feature_set
from aupipe.report.checks.corpus import CorpusReport, HeldOut, check_corpus
from aupipe.store import open_store
from aupipe.tasks import AU_NAMES, Task
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
