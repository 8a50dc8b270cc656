"""Nothing is written, moved or removed through a link inside a store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aupipe.errors import DamageError
from aupipe.store import create_store, open_store
from aupipe.store.maintenance.gc import collect
from aupipe.store.maintenance.purge import purge
from aupipe.store.maintenance.repair import rebuild
from aupipe.store.maintenance.verify import check
from aupipe.types import FeatureSpec

from .contract import check_and_repair

SPEC = FeatureSpec("hog", "visual", "hog", 1, {"cell_px": 14})
ROWS = np.random.default_rng(0).random((40, 8), dtype=np.float32)


def fill(path: Path, backend: str, rows: np.ndarray = ROWS) -> Path:
    with create_store(path, backend) as store:
        for name in ("a.mp4", "b.mp4"):
            store.publish(name, SPEC, rows)
    return path


@pytest.fixture(params=["zarr", "hdf5"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Another store of the same recordings."""
    return fill(tmp_path / "theirs", request.param)


def link(mine: Path, theirs: Path, level: str) -> Path:
    """Replace a path in the store `mine` by a link to the same path in the store `theirs`."""
    fill(mine, open_store(theirs).backend)
    store = open_store(mine)
    item = Path(store.item_path(store.published("a.mp4", SPEC.id)))  # type: ignore[attr-defined]
    store.close()
    place = {
        "feature": mine / SPEC.id,
        "items": mine / SPEC.id / "items",
        "shard": item.parent,
        "item": item,
        "journal": mine / "journal",
    }[level]
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(theirs / place.relative_to(mine))
    return place


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


LEVELS = ["feature", "items", "shard", "item", "journal"]


@pytest.mark.parametrize("level", LEVELS)
def test_purge_refuses_a_link_at_any_level_and_erases_nothing(theirs: Path, tmp_path: Path, level: str) -> None:
    place = link(tmp_path / "mine", theirs, level)
    before, own = content(theirs), content(tmp_path / "mine")
    with pytest.raises(DamageError, match=r"is a symlink in the store .*not followed") as caught:
        purge(open_store(tmp_path / "mine"), "a.mp4")
    assert str(place) in str(caught.value)
    assert content(theirs) == before
    assert content(tmp_path / "mine") == own
    place.unlink()
    if level != "journal":
        purge(open_store(tmp_path / "mine"), "a.mp4")
        assert content(theirs) == before


def test_purge_from_the_command_line_ends_with_13(tmp_path: Path) -> None:
    theirs = fill(tmp_path / "theirs", "hdf5")  # one backend: both refuse by the same lines, see above
    link(tmp_path / "mine", theirs, "feature")
    before = content(theirs)
    command = [sys.executable, "-c", "from aupipe.cli import main; main()", "store"]
    (tmp_path / "aupipe.toml").write_text('[store]\npath = "mine"\n')
    for more in (["purge", "a.mp4", "--yes"], ["verify"], ["verify", "--repair"]):
        answer = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True)
        assert answer.returncode == 13, answer.stderr
        assert "is a symlink" in answer.stdout + answer.stderr
    assert content(theirs) == before
    assert (tmp_path / "mine" / SPEC.id).is_symlink()


@pytest.mark.parametrize("level", ["feature", "items", "shard", "item"])
def test_neither_deleting_nor_publishing_goes_through_a_link(theirs: Path, tmp_path: Path, level: str) -> None:
    link(tmp_path / "mine", theirs, level)
    before = content(theirs)
    with open_store(tmp_path / "mine") as store:
        with pytest.raises(DamageError, match="symlink"):
            store.delete("a.mp4", SPEC.id)
        assert store.record("a.mp4", SPEC.id).state == "done"  # no record of what was not done
        if level != "item":  # a link in the place of an item is damage, which a new publication makes way for
            with pytest.raises(DamageError, match="symlink"):
                store.publish("a.mp4", SPEC, ROWS + 1)
        else:
            store.publish("a.mp4", SPEC, ROWS + 1)
    assert content(theirs) == before


def test_repair_moves_nothing_out_of_another_store(theirs: Path, tmp_path: Path) -> None:
    """Items of one's own that are damaged by the link: behind it lie other rows."""
    other = fill(tmp_path / "other", open_store(theirs).backend, ROWS + 1)
    mine = tmp_path / "mine"
    link(mine, theirs, "feature").unlink()
    (mine / SPEC.id).symlink_to(other / SPEC.id)
    before = content(other)
    store = open_store(mine)
    kinds = {damage.kind for damage in check(store).damage}
    assert "link" in kinds
    for change in (lambda: check_and_repair(store), lambda: rebuild(store)):
        with pytest.raises(DamageError, match="symlink"):
            change()
    assert content(other) == before


@pytest.mark.parametrize("level", ["feature", "items", "shard", "journal"])
def test_a_collector_refuses_a_link_at_any_level_and_changes_nothing(theirs: Path, tmp_path: Path, level: str) -> None:
    link(tmp_path / "mine", theirs, level)
    before, own = content(theirs), content(tmp_path / "mine")
    with pytest.raises(DamageError, match="symlink"):
        collect(open_store(tmp_path / "mine"), 0)
    assert content(theirs) == before
    assert content(tmp_path / "mine") == own


def test_compaction_writes_and_removes_no_index_of_another_store(theirs: Path, tmp_path: Path) -> None:
    fill(tmp_path / "mine", open_store(theirs).backend)
    with open_store(theirs) as store:
        store.compact()
    before = content(theirs)
    (tmp_path / "mine" / "index").rmdir()
    (tmp_path / "mine" / "index").symlink_to(theirs / "index")
    for change in (lambda store: store.compact(), lambda store: collect(store, 0)):
        with pytest.raises(DamageError, match="symlink"):
            change(open_store(tmp_path / "mine"))
    assert content(theirs) == before


def test_a_store_whose_own_path_is_a_link_works_as_any(theirs: Path, tmp_path: Path) -> None:
    os.symlink(theirs, tmp_path / "alias")
    with open_store(tmp_path / "alias") as store:
        store.publish("c.mp4", SPEC, ROWS)
        store.delete("a.mp4", SPEC.id)
        assert purge(store, "b.mp4") == 1
        assert check(store).damage == []
