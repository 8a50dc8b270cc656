"""The Netease ensemble, by the commands of docs/training.md: folds and all data, per scene, combined, routed."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.extract.planning.features import build_feature_set, feature_ids
from aupipe.sources import source_identity
from aupipe.store import open_store
from aupipe.tasks import OFFICIAL
from aupipe.train.run import load_postprocess, load_run
from tests.cli.test_train import CONFIG, FRAMES, Folder, fill

SCENES = {"reaction": ("clip0", "clip1", "clip2", "v0", "v1", "t0"), "talk": ("clip3", "clip4", "duo", "v2", "t1")}
SMALL = (
    "--feature hog --set epochs=1 --set head.width=16 --set head.encoder_width=16 --set head.layers=1 --set window=32"
)
SMALL += " --set hop=32 --set head.feedforward=16 --set head.hidden=8"
FOLDERS = {"expr": "EXPR_Recognition_Challenge", "va": "VA_Estimation_Challenge"}
LISTS = {"au": "Action_Unit_Detection", "expr": "Expression_Recognition", "va": "Valence_Arousal_Estimation"}


def documented() -> list[list[str]]:
    """The commands of the section, as words."""
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    block = text.partition("### The Netease ensemble, as published")[2].split("```")[1]
    return [shlex.split(line)[1:] for line in block.removeprefix("bash").strip().splitlines()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The corpus of `fill`, with labels of all three tasks, a test set of two videos, and scenes."""
    root = tmp_path_factory.mktemp("project")
    fill(root)
    rng = np.random.default_rng(1)
    for split in ("Train_Set", "Validation_Set"):
        for file in (root / "annotations" / "AU_Detection_Challenge" / split).iterdir():
            for task, folder in FOLDERS.items():
                values = rng.integers(0, 8, (FRAMES, 1)) if task == "expr" else rng.uniform(-1, 1, (FRAMES, 2))
                rows = [",".join(f"{value:g}" for value in row) for row in values]
                path = root / "annotations" / folder / split / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join([",".join(OFFICIAL[task].names), *rows]) + "\n")
    (root / "names_of_videos_in_each_test_set").mkdir()
    for name in LISTS.values():
        (root / "names_of_videos_in_each_test_set" / f"{name}_Challenge_test_set_release.txt").write_text("t0\nt1\n")
    for name in ("t0", "t1"):
        (root / "videos" / f"{name}.mp4").write_bytes(name.encode() * 10)
    (root / "aupipe.toml").write_text(CONFIG.replace("[dataset]", '[dataset]\ncolumns = "scenes.csv"'))
    rows = [f"{name},{scene}" for scene, names in SCENES.items() for name in names]
    (root / "scenes.csv").write_text("\n".join(["recording,scene", *rows]) + "\n")
    config = load_config(root / "aupipe.toml")
    recordings = open_dataset(config.dataset).recordings
    parts = build_feature_set(config)
    ids = feature_ids(parts, recordings)
    spec = {spec.id: spec for spec, _ in parts.graph(recordings[0]).encoders}[ids["hog"]]
    with open_store(root / "features") as store:
        for recording in recordings:
            if recording.id in ("t0", "t1"):
                shown = rng.normal(size=(FRAMES, 20)).astype(np.float16)
                store.publish(recording.id, spec, shown, source=source_identity(recording.video))
    return Folder(root)


def scores_of(folder: Folder, model: str, out: str) -> dict[str, np.ndarray]:
    """Recording -> scores (T, K) of the test set, after the model's own post-processing."""
    folder.ask("predict", model, "--split", "test", "--out", out, "--overwrite", "--cpu")
    found: dict[str, list[list[float]]] = {}
    for line in (folder.path / out).read_text().splitlines()[1:]:
        cells = line.split(",")
        found.setdefault(cells[0], []).append([float(cell) for cell in cells[3:-1]])
    return {name: np.array(rows) for name, rows in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_the_published_ensemble_is_built_by_the_commands_of_the_documentation(project: Folder, task: str) -> None:
    names = OFFICIAL[task].names
    rows = [f"{name}/{frame:05d}.jpg," for name in ("t0", "t1") for frame in range(1, FRAMES + 1)]
    (project.path / "sample.txt").write_text("\n".join(["image_location," + ",".join(names), *rows]) + "\n")
    runs = f"runs-{task}"
    for words in documented():
        words = [word.replace("runs/", f"{runs}/").replace("s5.txt", f"{task}.txt") for word in words]
        if task == "va":
            words = [word.replace("vote", "mean") for word in words]
        if words[0] == "train":
            words = [*words, *SMALL.split()]
            words[words.index("--task") + 1] = task
        words = [one for word in words for one in (sorted(project.path.glob(word)) if "?" in word else [word])]
        said = project.ask(*words, "--cpu")
    assert "its rows are those of sample.txt" in said
    lines = (project.path / f"{task}.txt").read_text().splitlines()
    assert [line.partition(",")[0] + "," for line in lines[1:]] == rows

    routed, general, reaction = (
        scores_of(project, f"{runs}/{name}", "p.csv") for name in ("s5", "general", "reaction")
    )
    np.testing.assert_array_equal(routed["t0"], reaction["t0"])
    np.testing.assert_array_equal(routed["t1"], general["t1"])
    assert np.abs(reaction["t0"] - general["t0"]).max() > 0

    members = [*(f"{runs}/reaction-folds/fold{i}" for i in range(1, 6)), f"{runs}/reaction-all"]
    assert [len(load_run(project.path / member).train) for member in members] == [4] * 5 + [5]
    each = np.stack([scores_of(project, member, "m.csv")["t0"] for member in members])
    posts = [load_postprocess(load_run(project.path / member)) for member in members]
    assert posts[-1] is not None
    if task == "va":
        expected = each.mean(axis=0)
        np.testing.assert_allclose(routed["t0"], expected, atol=2e-6)
        return
    if task == "expr":
        votes = (each.argmax(axis=2)[..., None] == np.arange(8)).sum(axis=0)  # (T, 8)
        assert (votes[np.arange(FRAMES), routed["t0"].argmax(axis=1)] == votes.max(axis=1)).all()
        return
    limits = np.stack([post.threshold if post and post.threshold else (0.5,) * 12 for post in posts])[:, None]
    margin = 2 * (each >= limits).sum(axis=0) - len(members)
    clear = (margin != 0) & (np.abs(each - limits) > 1e-5).all(axis=0)  # scores in files are rounded
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(routed["t0"][clear], (margin > 0)[clear])
