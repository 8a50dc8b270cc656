"""No command replaces what it was not told to replace, nor writes two recordings to one file."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from aupipe.cli import cli
from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.extract.media.transcript import Transcript, write_transcript
from aupipe.extract.planning.features import build_feature_set, feature_ids
from aupipe.files import staged_file, write_file
from aupipe.sources import source_identity
from aupipe.store import create_store, open_store
from aupipe.types import FeatureSpec
from tests.cli.test_train import FRAMES, SMALL, Folder, fill

PRECIOUS = b"precious"
MAIN = [sys.executable, "-c", "from aupipe.cli import main; main()"]
SPEC = FeatureSpec("hog", "visual", "hog", 1, {"cell_px": 14})


def run(folder: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MAIN, *arguments], cwd=folder, capture_output=True, text=True, **options)  # type: ignore


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A run, and a second configuration whose folder holds recordings that differ in their suffix or their case."""
    root = tmp_path_factory.mktemp("project")
    fill(root)
    folder = Folder(root)
    folder.ask("train", "--recipe", "tcn", "--feature", "hog", *SMALL, "--out", "run")
    text = (root / "aupipe.toml").read_text().replace('layout = "affwild2"', 'layout = "folder"\nvideos = "pairs"')
    (root / "pairs.toml").write_text(text)
    (root / "pairs").mkdir()
    for name in ("a.mp4", "a.mkv", "b.mp4", "B.mp4"):
        (root / "pairs" / name).write_bytes(name.encode())
    config = load_config(root / "pairs.toml")
    recordings = open_dataset(config.dataset).recordings
    parts = build_feature_set(config)
    spec = next(s for s, _ in parts.graph(recordings[0]).encoders if s.id == feature_ids(parts, recordings)["hog"])
    with open_store(root / "features") as store:
        for seed, recording in enumerate(recordings):
            rows = np.random.default_rng(seed).normal(size=(FRAMES, 20)).astype(np.float16)
            store.publish(recording.id, spec, rows, source=source_identity(recording.video))
    return folder


@pytest.mark.parametrize("form", ["abaw", "tracks"])
def test_recordings_that_would_be_written_as_one_are_refused_before_predicting(
    project: Folder, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aupipe.cli.context import Context

    monkeypatch.setattr(Context, "predict", lambda *_: pytest.fail("predicted"))
    ask = ("predict", "run", "--config", "pairs.toml", "--format", form, "--cpu")
    said = project.ask(*ask, "a.mp4", "a.mkv", "--out", "pair", code=2)
    assert said.startswith("a.mp4 and a.mkv would both be written as 'a': ")
    assert "--format csv" in said
    assert not (project.path / "pair").exists()


def test_tracks_that_differ_only_in_case_are_not_handed_over_in_one_folder(project: Folder) -> None:
    ask = ("predict", "run", "--config", "pairs.toml", "--cpu", "--post", "none")
    said = project.ask(*ask, "b.mp4", "B.mp4", "--format", "tracks", "--out", "cases", code=2)
    assert said.startswith("b.mp4 and B.mp4 would be written to one file on a case-insensitive file system")
    assert not (project.path / "cases").exists()
    project.ask(*ask, "b.mp4", "B.mp4", "a.mp4", "a.mkv", "--out", "all.csv")
    names = [line.split(",")[0] for line in (project.path / "all.csv").read_text().splitlines()[1:]]
    assert {name: names.count(name) for name in names} == dict.fromkeys(("b.mp4", "B.mp4", "a.mp4", "a.mkv"), FRAMES)


def test_an_annotation_is_not_taken_for_two_recordings(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "videos" / "clip0.mkv").write_bytes(b"another")
    text = (tmp_path / "aupipe.toml").read_text()
    (tmp_path / "aupipe.toml").write_text(
        text.replace('"affwild2"', '"folder"\nvideos = "videos"\nannotations = "annotations"')
    )
    said = Folder(tmp_path).ask("train", "--feature", "hog", "--out", "run", "--allow-missing", "--cpu", code=2)
    assert "clip0.txt fits clip0.mkv and clip0.mp4" in said


@pytest.mark.parametrize(
    ("form", "name"),
    [("csv", "p.csv"), ("parquet", "p.parquet"), ("abaw", "p.txt"), ("tracks", "tracks/v0.txt")],
)
def test_predictions_replace_a_file_only_when_told_to(project: Folder, form: str, name: str) -> None:
    file = project.path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(PRECIOUS)
    beside = file.with_name("beside.txt")
    beside.write_bytes(PRECIOUS)
    out = name if form != "tracks" else "tracks"
    ask = ("predict", "run", "v0", "--format", form, "--out", out, "--cpu")
    said = "tracks is not empty" if form == "tracks" else f"{name} is there already: choose another name"
    refused = project.ask(*ask, code=2)
    assert said in refused
    assert "--overwrite" in refused
    assert file.read_bytes() == PRECIOUS
    project.ask(*ask, "--overwrite")
    assert file.read_bytes() != PRECIOUS
    assert beside.read_bytes() == PRECIOUS
    assert not list(project.path.rglob("*.part"))


def test_predictions_in_the_folder_of_the_run_are_kept_too(project: Folder) -> None:
    project.ask("predict", "run", "v0", "--cpu")
    first = (project.path / "run" / "predictions.csv").read_bytes()
    assert "run/predictions.csv is there already" in project.ask("predict", "run", "v1", "--cpu", code=2)
    assert (project.path / "run" / "predictions.csv").read_bytes() == first


def test_what_was_fitted_is_replaced_only_when_told_to(project: Folder) -> None:
    ask = ("tune", "run", "--set", "threshold=tune", "--cpu")
    for out, more in (
        (project.path / "post.json", ("--out", "post.json")),
        (project.path / "run/postprocess.json", ()),
    ):
        out.write_bytes(PRECIOUS)
        assert f"{out.name} is there already" in project.ask(*ask, *more, code=2)
        assert out.read_bytes() == PRECIOUS
        project.ask(*ask, *more, "--overwrite")
        assert b'"threshold"' in out.read_bytes()
        out.unlink()


def test_an_export_replaces_a_file_when_told_to_and_a_folder_never(tmp_path: Path) -> None:
    with create_store(tmp_path / "features", "zarr") as store:
        store.publish("a.mp4", SPEC, np.ones((4, 3), np.float32))
    folder = Folder(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(PRECIOUS)
    (tmp_path / "out.h5").write_bytes(PRECIOUS)
    assert "is there already" in folder.ask("store", "export", "out.h5", "--format", "hdf5", code=2)
    assert (tmp_path / "out.h5").read_bytes() == PRECIOUS
    for form in ("npz", "hdf5", "parquet"):
        folder.ask("store", "export", "out", "--format", form, "--overwrite", code=2)
    assert (tmp_path / "out" / "mine").read_bytes() == PRECIOUS
    folder.ask("store", "export", "out.h5", "--format", "hdf5", "--overwrite")
    assert (tmp_path / "out.h5").read_bytes()[1:4] == b"HDF"


def test_a_store_is_not_migrated_over_rows_of_another(tmp_path: Path) -> None:
    for name, value in (("features", 1.0), ("other", 2.0)):
        with create_store(tmp_path / name, "zarr" if name == "features" else "hdf5") as store:
            store.publish("b.mp4", SPEC, np.full((4, 3), value, np.float32))
            store.publish(f"only-{name}.mp4", SPEC, np.ones((4, 3), np.float32))
    said = Folder(tmp_path).ask("store", "migrate", "other", "--backend", "hdf5", code=2)
    assert "other holds other rows of hog@" in said
    assert "'b.mp4': migrate to a new folder" in said
    store = open_store(tmp_path / "other")
    assert store.read("b.mp4", SPEC.id).max() == 2
    assert store.record("only-features.mp4", SPEC.id) is None


def test_a_trace_is_refused_before_the_run_and_not_after_it(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_bytes(PRECIOUS)
    answer = run(tmp_path, "extract", "--profile", "trace.json", "--cpu")
    assert answer.returncode == 2
    assert "trace.json is there already" in answer.stderr
    assert (tmp_path / "trace.json").read_bytes() == PRECIOUS


def test_two_videos_never_share_a_transcript_that_was_written_for_one(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "a.mkv"):
        (tmp_path / "videos" / name).write_bytes(b"")
    (tmp_path / "aupipe.toml").write_text("")
    said = Folder(tmp_path).ask("transcribe", "--model", "any", "--cpu", code=2)
    assert "videos/a.mkv and a.mp4 would share the transcript a.json: rename one of them" in said
    (tmp_path / "a.json").write_bytes(PRECIOUS)
    with pytest.raises(UsageError, match=r"a\.json is there already"):
        write_transcript(tmp_path / "a.json", Transcript())
    assert (tmp_path / "a.json").read_bytes() == PRECIOUS


def test_an_ensemble_begins_in_a_folder_of_its_own(project: Folder) -> None:
    (project.path / "taken").mkdir()
    (project.path / "taken" / "train.json").write_bytes(PRECIOUS)  # where a training was stopped
    assert "taken is not empty" in project.ask("ensemble", "run", "run", "--out", "taken", code=2)
    assert [path.name for path in (project.path / "taken").iterdir()] == ["train.json"]


def test_a_run_that_is_stopped_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    """The file size a process may write is limited, as a full disk limits it, to less than a configuration."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"")
    (tmp_path / "aupipe.toml").write_bytes(PRECIOUS)
    full = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))}
    answer = run(tmp_path, "init", "--overwrite", **full)
    assert answer.returncode == 1, answer.stderr
    assert (tmp_path / "aupipe.toml").read_bytes() == PRECIOUS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aupipe.toml", "videos"]
    answer = run(tmp_path, "init")
    assert answer.returncode == 2
    assert "aupipe.toml is there already: edit it, or give --overwrite to replace it" in answer.stderr
    assert run(tmp_path, "init", "--force").returncode == 0  # as it was called before
    assert b"[dataset]" in (tmp_path / "aupipe.toml").read_bytes()


def test_who_was_faster_keeps_the_file(tmp_path: Path) -> None:
    def be_slower() -> None:
        with staged_file(tmp_path / "a") as staged:
            staged.write_text("mine")
            (tmp_path / "a").write_bytes(PRECIOUS)

    with pytest.raises(UsageError, match="is there already"):
        be_slower()
    assert (tmp_path / "a").read_bytes() == PRECIOUS
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is there already"):
        write_file(tmp_path / "link", "mine")
    with pytest.raises(UsageError, match="is a folder: name a file"):
        write_file(tmp_path, "mine", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]


NEW_FOLDERS = {
    "train",
    "ensemble",
    "store migrate",
    "reproduce",
    "report data",
}  # which begin in a new folder, or go on with their own
OUTPUTS = {"out", "outs", "profile", "target"}


def commands(group: click.Group, lead: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found |= commands(command, f"{lead}{name} ") if isinstance(command, click.Group) else {f"{lead}{name}": command}
    return found


def test_every_command_that_writes_a_named_file_has_the_same_option() -> None:
    writing = {name for name, command in commands(cli).items() if OUTPUTS & {p.name for p in command.params}}
    assert writing > NEW_FOLDERS
    told = {name for name, command in commands(cli).items() if "overwrite" in {p.name for p in command.params}}
    assert told == (writing - NEW_FOLDERS) | {"init"}
