"""`aupipe store`: what is in it, is it whole, copy it, erase from it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from aupipe.store import create_store, open_store
from aupipe.store.maintenance.lease import hold_lease
from aupipe.types import FeatureSpec
from tests.cli.conftest import Project

SPEC = FeatureSpec("hog", "visual", "hog", 1, {"cell_px": 14})


@pytest.fixture(params=["zarr", "hdf5"])
def stored(request: pytest.FixtureRequest, project: Project) -> Project:
    """A project whose store holds two recordings of one feature and one failure."""
    store = create_store(project.folder / "features", request.param)
    rows = np.random.default_rng(0).random((400, 8), dtype=np.float32)
    for name in ("a.mp4", "b c.mp4"):
        store.publish(name, SPEC, rows)
    store.fail("broken.mp4", SPEC, "no video stream")
    store.close()
    project.configure("")
    return project


def test_ls_and_info_show_every_item(stored: Project) -> None:
    listed = stored.run("store", "ls", "hog")
    assert listed.code == 0, listed.err
    assert [line.split()[1] for line in listed.out.splitlines()] == ["400x8", "400x8", "FAILED"]
    assert "no video stream" in listed.out
    assert "Did you mean 'hog'" in stored.run("store", "ls", "hogg").err
    rows = json.loads(stored.run("store", "info", "--json").out)["features"]
    assert (rows[0]["recordings"], rows[0]["failed"], rows[0]["frames"]) == (2, 1, 800)


def test_verify_names_a_flipped_byte_and_repair_queues_the_item_again(stored: Project) -> None:
    assert stored.run("store", "verify").code == 0
    store = open_store(stored.folder / "features")
    path = Path(store.item_path(store.published("a.mp4", SPEC.id)))  # type: ignore[attr-defined]
    file = path / "data" / "c.0.0" if path.is_dir() else path
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    answer = stored.run("store", "verify")
    assert answer.code == 13
    assert "'a.mp4'" in answer.out
    assert SPEC.id in answer.out
    assert "b c.mp4" not in answer.out
    assert stored.run("store", "verify", "--quick").code == 0  # the size is the same
    repaired = stored.run("store", "verify", "--repair")
    assert (repaired.code, repaired.out.splitlines()[-1]) == (0, "repaired: 1 of 1")
    assert "to be computed again: 1 item " in repaired.out
    assert stored.run("store", "verify").code == 0
    assert list((stored.folder / "features" / "quarantine").iterdir())


def test_damage_that_repair_cannot_undo_ends_with_13_and_says_what_to_do(stored: Project) -> None:
    spec = next((stored.folder / "features").glob(f"{SPEC.name}@*/spec.json"))
    spec.write_text("{}")
    repaired = stored.run("store", "verify", "--repair", "--json")
    assert (repaired.code, [one["kind"] for one in json.loads(repaired.out)["remaining"]]) == (13, ["spec"])
    again = stored.run("store", "verify", "--repair")
    assert again.code == stored.run("store", "verify").code == 13
    assert again.out.splitlines()[-2] == "repaired: 0 of 1"
    assert again.out.splitlines()[-1].startswith(f"not yet repaired: {spec}: `aupipe extract` writes it with the next ")


def test_items_whose_journal_is_lost_are_named_as_orphans_and_won_back_by_one_command(stored: Project) -> None:
    store = open_store(stored.folder / "features")
    for number in range(20):
        store.publish(f"{number}.mp4", SPEC, np.zeros((2, 8), np.float32))
    store.close()
    shutil.rmtree(stored.folder / "features" / "journal")
    lines = stored.run("store", "verify").out.splitlines()
    assert [line.startswith("orphan") for line in lines] == [True] * 10 + [False] * 3
    assert lines[10:12] == [
        "... and 12 more orphans: was a journal lost?",
        "adopt the complete orphans: aupipe store verify --rebuild",
    ]
    answer = stored.run("store", "verify", "--rebuild")
    assert (answer.code, answer.out) == (0, "22 items, checksums of 22 compared: no damage\n")


def test_gc_removes_what_was_replaced_and_verify_only_says_so(stored: Project) -> None:
    store = open_store(stored.folder / "features")
    store.publish("a.mp4", SPEC, np.ones((2, 8), np.float32))
    store.close()

    def state() -> dict[Path, tuple[int, int]]:
        files = (stored.folder / "features").rglob("*")
        return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}

    before = state()
    lines = stored.run("store", "verify").out.splitlines()
    assert lines[1] == "1 replaced item, 0 unfinished files: removed by aupipe store gc"
    assert state() == before
    assert "removed 0 replaced items" in stored.run("store", "gc").out  # the grace period: an hour
    answer = stored.run("store", "gc", "--grace", "0s", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["items"] == 1
    assert stored.run("store", "verify").out.splitlines() == ["2 items, checksums of 2 compared: no damage"]
    for grace in ("1", "h", "-1h", "1.5h", "forever"):
        assert stored.run("store", "gc", "--grace", grace).code == 2
    with hold_lease(open_store(stored.folder / "features")):
        answer = stored.run("store", "gc")
        assert (answer.code, "another process is running `aupipe store gc`" in answer.err) == (15, True)


def test_nothing_is_copied_to_a_backend_that_keeps_nothing(stored: Project) -> None:
    answer = stored.run("store", "migrate", "copy", "--backend", "memory")
    assert (answer.code, answer.out) == (2, "")
    assert "unknown backend 'memory'." in answer.err
    assert answer.err.endswith("Available: hdf5, zarr\n")
    assert "memory" not in stored.run("plugins").out.partition("backends")[2]
    for setting in ("memory", "zar"):
        answer = stored.run("extract", "--dry-run", AUPIPE_STORE_BACKEND=setting)
        assert answer.code == 2
        assert answer.err.startswith(f"aupipe: store.backend (AUPIPE_STORE_BACKEND) is {setting!r}.")
        assert answer.err.endswith("Accepted: hdf5, zarr\n")


def test_a_copy_into_a_store_of_another_backend_is_refused_with_what_to_do(stored: Project) -> None:
    answer = stored.run("store", "migrate", "copy", "--backend", "zarr")
    assert answer.code == 0, answer.err
    answer = stored.run("store", "migrate", "copy", "--backend", "hdf5")
    assert (answer.code, answer.out) == (2, "")
    assert "copy is a zarr store: migrate to a new folder, or to the backend zarr" in answer.err


def test_readable_by_for_a_store_that_exists_says_what_happens(stored: Project) -> None:
    (stored.folder / "videos" / "a.mp4").touch()
    answer = stored.run("extract", "--dry-run", "--readable-by", "group")
    assert answer.code == 0, answer.err
    assert "was made for fewer readers (mode 0700) than --readable-by group says, and stays so: `chmod" in answer.err
    assert "fewer readers" not in stored.run("extract", "--dry-run").err


def test_a_name_that_would_break_the_line_or_steer_the_terminal_is_escaped(stored: Project) -> None:
    store = open_store(stored.folder / "features")
    store.publish("a\nb\x1b[2J\udcff.mp4", SPEC, np.zeros((2, 8), np.float32))
    store.fail("c\nd.mp4", SPEC, "no \x1b[2J video")
    store.close()
    lines = stored.run("store", "ls").out.splitlines()
    assert len(lines) == 5
    assert lines[0].endswith(r" a\nb\x1b[2J\udcff.mp4")
    assert lines[-1].endswith(r"c\nd.mp4  no \x1b[2J video")


def test_migrate_and_back_is_the_same_bytes(stored: Project, arrays) -> None:
    other = "hdf5" if open_store(stored.folder / "features").backend == "zarr" else "zarr"
    answer = stored.run("store", "migrate", "copy", "--backend", other)
    assert (answer.code, answer.out.startswith("2 items, ")) == (0, True)
    assert "and 1 failure copied to copy" in answer.out
    assert open_store(stored.folder / "copy").backend == other
    assert arrays(stored.folder / "copy") == arrays(stored.folder / "features")
    back = open_store(stored.folder / "features").backend
    assert stored.run("store", "migrate", "again", "--backend", back, "--store", "copy").code == 0
    assert arrays(stored.folder / "again") == arrays(stored.folder / "features")


@pytest.mark.parametrize("form", ["npz", "hdf5", "parquet"])
def test_export_writes_what_other_tools_read(stored: Project, form: str) -> None:
    answer = stored.run("store", "export", "out", "--format", form, "--feature", "hog")
    assert answer.code == 0, answer.err
    assert (stored.folder / "out").exists()
    assert stored.run("store", "export", "out", "--format", form).code == 2  # never over something
    assert "make it first" in stored.run("store", "export", "no/where", "--format", form).err


def test_export_of_a_name_that_two_features_have_names_their_ids(stored: Project) -> None:
    other = FeatureSpec("hog", "visual", "hog", 1, {"cell_px": 28})
    with open_store(stored.folder / "features") as store:
        store.publish("a.mp4", other, np.zeros((5, 4), np.float32))
    answer = stored.run("store", "export", "out", "--feature", "hog")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert SPEC.id in answer.err
    assert other.id in answer.err
    assert stored.run("store", "export", "out", "--feature", other.id).code == 0


def test_purge_leaves_no_trace_of_the_recording(stored: Project) -> None:
    assert stored.run("store", "purge", "a.mp3", "--yes").code == 2
    answer = stored.run("store", "purge", "b c.mp4", "--yes")
    assert answer.code == 0, answer.err
    for path in (stored.folder / "features").rglob("*"):
        assert "b_c" not in path.name
        if path.is_file():
            assert b"b c.mp4" not in path.read_bytes()
    assert stored.run("store", "verify").code == 0
    assert "a.mp4" in stored.run("store", "ls").out


def test_purge_beside_a_process_that_writes_erases_nothing_and_ends_with_exit_code_15(stored: Project) -> None:
    before = stored.run("store", "ls").out
    with open_store(stored.folder / "features").writer("a.mp4", SPEC, frames=2, row_shape=(8,)) as item:
        item.append(np.zeros((1, 8), np.float32))
        answer = stored.run("store", "purge", "a.mp4", "--yes")
    assert answer.code == 15
    at = stored.folder / "features"
    assert answer.err == f"aupipe: process {os.getpid()} is writing to {at}: stop it, then purge again\n"
    assert stored.run("store", "ls").out == before


def test_without_a_store_the_exit_code_is_10(project: Project) -> None:
    project.configure("")
    for command in (["ls"], ["info"], ["verify"], ["purge", "x", "--yes"]):
        assert project.run("store", *command).code == 10


def test_a_question_without_an_answer_erases_nothing(stored: Project) -> None:
    before = stored.run("store", "ls").out
    answer = stored.run("store", "purge", "a.mp4")
    assert answer.code == 1
    assert answer.err.endswith("aupipe: no answer on stdin: nothing was done\n")
    assert stored.run("store", "ls").out == before
