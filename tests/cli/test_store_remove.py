"""`aupipe store rm` and `store gc`: old versions go, what is named stays, and what would go is said before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from aupipe.cli import cli
from aupipe.config import read_encoders
from aupipe.documents import parse_toml
from aupipe.errors import AupipeError
from aupipe.project import load_project
from aupipe.quantities import describe_bytes
from aupipe.store import create_store, open_store
from aupipe.store.maintenance.inventory import size_on_disk
from aupipe.store.maintenance.verify import check
from aupipe.types import FeatureSpec
from tests.cli.conftest import HOG, NO_FACES
from tests.conftest import write_video

ROWS = np.random.default_rng(0).random((400, 8), dtype=np.float32)


class Stored:
    """A project with one video. Its store holds the feature, an older version of it, and a recording that is gone."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.folder = folder
        (folder / "aupipe.toml").write_text(NO_FACES + HOG)
        write_video(folder / "videos" / "a.mp4", frames=2)
        project = load_project(folder)
        graph = build(project).graph(project.recordings[0])
        self.clock, self.now = graph.clock, graph.named["hog"]
        self.old = replace(self.now, version=self.now.version + 1, inputs={"clock": "clock@0123456789ab"})
        self.store = create_store(folder / "features", backend)
        for spec in (self.now, self.old):
            self.store.publish("a.mp4", spec, ROWS)
        self.store.publish("gone.mp4", self.now, ROWS)
        self.store.fail("gone.mp4", self.old, "no video stream")
        self.store.publish("a.mp4", self.clock, np.arange(400.0))
        self.store.close()

    def run(self, *arguments: object, answer: str | None = None) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["store", *map(str, arguments)], input=answer)
        if isinstance(result.exception, AupipeError):
            return result.exception.exit_code, str(result.exception)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    def ids(self) -> set[str]:
        return {spec.id for spec in open_store(self.folder / "features").features()}

    def items(self) -> set[tuple[str, str]]:
        return {(one.recording, one.feature) for one in open_store(self.folder / "features").records()}


def build(project):
    from aupipe.extract.planning.features import build_feature_set

    return build_feature_set(project.config)


@pytest.fixture(params=["zarr", "hdf5"])
def stored(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    monkeypatch.chdir(tmp_path)
    return Stored(tmp_path, request.param)


def test_an_old_version_goes_with_all_its_bytes_after_a_question(stored: Stored) -> None:
    nbytes = size_on_disk(str(stored.folder / "features" / stored.old.id))
    code, text = stored.run("rm", stored.old.id, answer="n\n")
    assert (code, text.splitlines()[-1]) == (0, "nothing removed")
    assert f"{stored.old.id:32}      2 items" in text
    assert stored.run("rm", stored.old.id, "--dry-run")[1].endswith("nothing was removed (--dry-run)\n")
    assert stored.old.id in stored.ids()
    code, text = stored.run("rm", stored.old.id, "--yes", "--json")
    assert (code, json.loads(text)["bytes_freed"]) == (0, nbytes)
    assert stored.ids() == {stored.now.id, stored.clock.id}
    assert not (stored.folder / "features" / stored.old.id).exists()
    assert check(open_store(stored.folder / "features")).damage == []
    assert stored.run("gc", "--grace", "0s")[0] == 0
    assert check(open_store(stored.folder / "features")).damage == []
    again = open_store(stored.folder / "features")
    again.publish("a.mp4", stored.old, ROWS)  # what was removed can be made again
    assert check(open_store(stored.folder / "features")).damage == []


def test_what_the_configuration_or_a_run_names_is_refused_and_so_is_what_it_is_computed_from(stored: Stored) -> None:
    for feature in (stored.now.id, stored.clock.id):
        code, text = stored.run("rm", feature, "--yes")
        assert code == 2
        assert f"{feature} is named by {stored.folder / 'aupipe.toml'}: --force" in text
    code, text = stored.run("rm", "hog", "--yes")
    assert code == 2
    assert text.startswith("2 features are named 'hog': name one by its id")
    assert "Did you mean 'hog'" in stored.run("rm", "hogg", "--yes")[1]
    assert stored.run("rm", stored.old.id, "--keep", stored.old.id, "--yes")[0] == 2
    assert stored.run("rm", stored.now.id, "--force", "--yes")[0] == 0
    assert stored.now.id not in stored.ids()


def test_as_a_user_types_it_a_refusal_is_one_line_and_a_removal_ends_with_0(tmp_path: Path) -> None:
    stored = Stored(tmp_path, "zarr")

    def typed(feature: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from aupipe.cli import main; main()", "store", "rm", feature, "--yes"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    refused, done = typed(stored.now.id), typed(stored.old.id)
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith("B freed")
    assert stored.ids() == {stored.now.id, stored.clock.id}


def test_what_a_trained_run_reads_stays(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    from aupipe.train import run

    (stored.folder / "runs" / "one").mkdir(parents=True)
    (stored.folder / "runs" / "one" / run.RUN_FILE).touch()
    monkeypatch.setattr(run, "load_run", lambda folder: SimpleNamespace(features={"hog": stored.old.id}))
    code, text = stored.run("rm", stored.old.id, "--yes")
    assert code == 2
    assert f"named by a run in {stored.folder / 'runs'}" in text
    assert stored.run("gc", "--unused", "--yes")[0] == 0
    assert stored.old.id in stored.ids()


def test_what_the_recipe_of_the_configuration_computes_stays(stored: Stored) -> None:
    table = '[[encoder]]\nname = "hog_of_recipe"\nmodality = "visual"\nkind = "hog"\ncell_px = 28\n'
    loss = '[loss.au]\nkind = "bce"\n'
    recipe = f'features = ["hog_of_recipe"]\n[head]\nkind = "linear"\n{loss}{table}'
    (stored.folder / "mine.toml").write_text(recipe)
    with (stored.folder / "aupipe.toml").open("a") as file:
        file.write('[train]\nrecipe = "mine.toml"\n')
    other = load_project(stored.folder)
    config = replace(other.config, encoders=read_encoders([*parse_toml(table.encode())["encoder"]], ""))
    spec = build(replace(other, config=config)).graph(other.recordings[0]).named["hog_of_recipe"]
    open_store(stored.folder / "features").publish("a.mp4", spec, ROWS)
    code, text = stored.run("rm", spec.id, "--yes")
    assert code == 2
    assert "named by recipe mine.toml of" in text


def test_a_run_that_cannot_be_read_stops_the_removal(stored: Stored) -> None:
    (stored.folder / "runs" / "one").mkdir(parents=True)
    (stored.folder / "runs" / "one" / "run.json").write_text("{")
    code, text = stored.run("gc", "--unused", "--yes")
    assert code != 0
    assert "runs/one" in text
    assert stored.old.id in stored.ids()


def test_gc_says_what_would_go_and_how_many_bytes_and_then_removes_just_that(stored: Stored) -> None:
    before = stored.items()
    code, text = stored.run("gc", "--unused", "--vanished", "--dry-run")
    lines = text.splitlines()
    assert code == 0
    assert [line.split()[-1] for line in lines[:-1]] == [stored.old.id, "gone.mp4"]
    assert "nothing was removed" in lines[-1]
    assert stored.items() == before
    planned = json.loads(stored.run("gc", "--unused", "--vanished", "--dry-run", "--json")[1])
    sizes = [row["bytes"] for row in planned["removed"]]
    assert sizes[0] == size_on_disk(str(stored.folder / "features" / stored.old.id))
    assert all(size > ROWS.nbytes / 2 for size in sizes)
    code, text = stored.run("gc", "--unused", "--vanished", answer="y\n")
    assert code == 0, text
    assert f"removed {describe_bytes(sum(sizes))} for good" in text
    assert stored.items() == {("a.mp4", stored.now.id), ("a.mp4", stored.clock.id)}
    assert check(open_store(stored.folder / "features")).damage == []
    assert stored.run("gc", "--unused", "--vanished", "--yes")[0] == 0


def test_gc_alone_removes_no_feature_and_no_recording(stored: Stored) -> None:
    before = stored.items()
    assert stored.run("gc", "--grace", "0s")[0] == 0
    assert stored.items() == before


def test_a_data_set_that_is_not_there_makes_nothing_vanish(stored: Stored) -> None:
    (stored.folder / "videos").rename(stored.folder / "elsewhere")
    for option in ("--vanished", "--unused"):
        assert stored.run("gc", option, "--yes")[0] == 2
    assert stored.run("rm", stored.old.id, "--yes")[0] == 2
    assert len(stored.items()) == 5


def test_quarantine_goes_by_age(stored: Stored) -> None:
    folder = stored.folder / "features" / "quarantine"
    folder.mkdir(exist_ok=True)
    (folder / "item.h5").write_bytes(b"12345")
    os.utime(folder / "item.h5", (0, 0))  # when the item was written says nothing of when it was moved
    assert "item.h5" not in stored.run("gc", "--quarantine", "1d", "--dry-run")[1]
    assert "item.h5" in stored.run("gc", "--quarantine", "0s", "--dry-run")[1]
    assert (folder / "item.h5").exists()
    assert stored.run("gc", "--quarantine", "0s", "--yes")[0] == 0
    assert not (folder / "item.h5").exists()


def test_beside_a_process_that_writes_nothing_is_removed(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    from aupipe.store.maintenance import inventory

    with open_store(stored.folder / "features").writer("b.mp4", stored.now, frames=2, row_shape=(8,)) as item:
        item.append(np.zeros((1, 8), np.float32))
        monkeypatch.setattr(inventory, "writer_runs", lambda name: 4711)
        code, text = stored.run("rm", stored.old.id, "--yes")
    assert (code, text) == (15, f"process 4711 is writing to {stored.folder / 'features'}: stop it, then try again")
    assert stored.old.id in stored.ids()


def test_ls_lists_orphans_and_says_what_nothing_names(stored: Stored) -> None:
    store = open_store(stored.folder / "features")
    lost = replace(stored.now, version=9)
    store.publish("lost.mp4", lost, ROWS)
    path = Path(store.item_path(store.published("lost.mp4", lost.id)))  # type: ignore[attr-defined]
    other = path.with_name(path.name.replace(".1-", ".2-"))
    path.rename(other)
    assert '"orphan"' not in CliRunner().invoke(cli, ["store", "ls", "--json"]).stdout
    result = CliRunner().invoke(cli, ["store", "ls", "--json", "--orphans"])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    (orphan,) = [row for row in rows if row.get("state") == "orphan"]
    assert (orphan["feature"], orphan["recording"], orphan["path"]) == (lost.id, "lost.mp4", str(other))
    listed = CliRunner().invoke(cli, ["store", "ls", "--orphans", stored.old.id])
    assert "ORPHAN" not in listed.stdout
    assert f"nothing names {stored.old.id}: `aupipe store rm {stored.old.id}`" in listed.stderr
    assert stored.now.id not in listed.stderr
    assert "ORPHAN" in CliRunner().invoke(cli, ["store", "ls", "--orphans", lost.id]).stdout


def test_what_is_published_while_the_disk_is_listed_is_no_orphan(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aupipe.store.maintenance import inventory

    opened, other = open_store(stored.folder / "features"), open_store(stored.folder / "features")
    other.publish("b.mp4", stored.now, ROWS)  # before the listing, and not seen by the first one yet
    assert inventory.find_unpublished(opened)[0] == []  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", ["", '[[encoder]]\nname = "id"\nkind = "arcface"\nmodality = "visual"\n'])
def test_imported_features_and_clocks_stay_without_weights_and_without_encoders(
    stored: Stored, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aupipe.cli import stored as named

    store = open_store(stored.folder / "features")
    elsewhere = replace(stored.clock, version=9)
    other = FeatureSpec("openface", "visual", "imported", 1, inputs={"clock": elsewhere.id})
    for spec in (elsewhere, other):
        store.publish("a.mp4", spec, ROWS if spec is other else np.arange(400.0))
    config = load_project(stored.folder).config
    encoders = read_encoders(parse_toml(encoder.encode()).get("encoder", []), "") if encoder else ()
    monkeypatch.setattr(named, "_by_recipe", lambda config, store: set())
    found = named.find_named(replace(config, encoders=encoders), store)
    assert found.keys() == {stored.clock.id, other.id, elsewhere.id}
    code, text = stored.run("rm", other.id, "--yes")
    assert code == 2
    assert f"{other.id} is named by its import: it cannot be computed again: --force" in text
    assert stored.run("rm", other.id, "--yes", "--force")[0] == 0
    assert other.id not in stored.ids()


def test_a_removal_shows_that_it_still_runs_at_each_file(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    from aupipe.store.maintenance import lease, remove

    beats: list[None] = []
    monkeypatch.setattr(lease.Lease, "beat", lambda self: beats.append(None))
    files = sum(len(names) for _, _, names in os.walk(stored.folder / "features" / stored.now.id))
    remove.remove_feature(open_store(stored.folder / "features"), stored.now.id)  # type: ignore[arg-type]
    assert len(beats) > files


def test_a_feature_that_others_are_computed_from_is_named_by_them(stored: Stored) -> None:
    used = FeatureSpec("faces", "faces", "subject", 1, dtype="float32")
    user = replace(stored.now, version=7, inputs={"faces": used.id})
    store = open_store(stored.folder / "features")
    for spec in (used, user):
        store.publish("a.mp4", spec, ROWS)
    code, text = stored.run("gc", "--unused", "--keep", user.id, "--dry-run")
    assert code == 0
    gone = {line.split()[-1] for line in text.splitlines()[:-1]}
    assert gone == {stored.old.id}
