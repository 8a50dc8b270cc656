"""Creating, opening and sharing a store on disk."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from aupipe.errors import DamageError, NoStoreError, StoreVersionError, UsageError
from aupipe.store import STORES, create_store, open_store
from aupipe.store.documents import spec_document
from aupipe.store.maintenance.gc import collect
from aupipe.store.maintenance.verify import check

from .contract import SPEC, random_rows, same, without_revisions

BACKENDS = STORES.names()


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features"


def test_a_created_store_opens_with_its_backend(path, backend):
    create_store(path, backend).publish("a", SPEC, random_rows(5, 3))
    store = open_store(path)
    assert store.backend == backend
    assert same(store.read("a", SPEC.id), random_rows(5, 3))
    assert store.spec(SPEC.id) == SPEC


def test_creating_an_existing_store_opens_it(path, backend):
    create_store(path, backend).publish("a", SPEC, random_rows(5, 3))
    assert create_store(path, backend).record("a", SPEC.id).state == "done"


def test_a_store_of_another_backend_is_refused_by_name(path):
    create_store(path, "zarr")
    with pytest.raises(UsageError, match="zarr store, hdf5 was asked for"):
        create_store(path, "hdf5")


def test_no_store_is_said_with_the_path_and_the_command(path):
    with pytest.raises(NoStoreError, match=r"features.*`aupipe extract`"):
        open_store(path)
    path.mkdir()
    with pytest.raises(NoStoreError):
        open_store(path)


def test_a_file_or_a_foreign_folder_is_refused_and_left_alone(path):
    path.mkdir()
    (path / "thesis.tex").write_text("precious")
    for target in (path, path / "thesis.tex"):
        for attempt in (create_store, open_store):
            with pytest.raises(UsageError):
                attempt(target)
    assert [file.name for file in path.iterdir()] == ["thesis.tex"]
    assert (path / "thesis.tex").read_text() == "precious"


def test_a_newer_store_is_refused_with_what_to_do(path):
    create_store(path)
    document = json.loads((path / "store.json").read_text()) | {"version": 99}
    (path / "store.json").write_text(json.dumps(document))
    with pytest.raises(StoreVersionError, match=r"version 99.*newer aupipe") as error:
        open_store(path)
    assert error.value.exit_code == 11


@pytest.mark.parametrize("content", ["", "[]", '{"format": "aupipe-store"}'])
def test_an_unreadable_store_file_is_damage(path, content):
    create_store(path)
    (path / "store.json").write_text(content)
    with pytest.raises(DamageError, match=r"store\.json"):
        open_store(path)


def test_a_store_of_an_unknown_backend_names_the_known_ones(path):
    create_store(path)
    document = json.loads((path / "store.json").read_text()) | {"backend": "zar"}
    (path / "store.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="Did you mean 'zarr'"):
        open_store(path)


def test_a_store_is_private_to_its_owner_until_opened_up(path):
    create_store(path)
    assert path.stat().st_mode & 0o777 == 0o700


def test_another_process_is_seen_after_refresh(path, backend):
    reader = create_store(path, backend)
    writer = open_store(path)
    writer.publish("a", SPEC, random_rows(5, 3))
    assert reader.record("a", SPEC.id) is None
    reader.refresh()
    assert same(reader.read("a", SPEC.id), random_rows(5, 3))
    writer.publish("a", SPEC, random_rows(6, 3, seed=1))
    reader.refresh()
    assert same(reader.read("a", SPEC.id), random_rows(6, 3, seed=1))


def test_a_reader_that_has_not_looked_again_finds_what_replaced_a_removed_revision(path, backend):
    create_store(path, backend).publish("a", SPEC, random_rows(5, 3))
    reader, writer = open_store(path), open_store(path)
    writer.publish("a", SPEC, random_rows(6, 3, seed=1))
    assert collect(writer, 0).items == 1
    assert same(reader.read("a", SPEC.id), random_rows(6, 3, seed=1))
    writer.delete("a", SPEC.id)
    assert collect(writer, 0).items == 1
    reader.close()
    with pytest.raises(KeyError):
        reader.read("a", SPEC.id)


def test_the_later_of_two_writers_wins_whatever_it_has_seen(path, backend):
    first, second = create_store(path, backend), open_store(path)
    for seed in range(4):
        (first, second)[seed % 2].publish("a", SPEC, random_rows(5, 3, seed=seed))
    assert same(open_store(path).read("a", SPEC.id), random_rows(5, 3, seed=3))
    assert check(open_store(path)).damage == []


def test_the_same_rows_are_the_same_files(tmp_path, backend):
    def files(folder):
        store = create_store(folder, backend)
        store.publish("a", SPEC, random_rows(700, 3), versions={"numpy": "2"})
        return without_revisions(folder)

    first = files(tmp_path / "one")
    assert first == files(tmp_path / "two")
    assert len([name for name in first if "/items/" in name]) <= 7


def test_what_two_stores_published_is_one_item_and_one_file_after_collecting(path, backend):
    first, second = create_store(path, backend), open_store(path)
    first.publish("a", SPEC, random_rows(5, 3))
    second.publish("a", SPEC, random_rows(5, 3))
    assert len(list(second.all_published())) == 1
    assert collect(first, 0).items == 1
    assert same(first.read("a", SPEC.id), random_rows(5, 3))
    folder = path / SPEC.id / "items"
    assert len([item for shard in folder.iterdir() if shard.is_dir() for item in shard.glob("a-*")]) == 1
    assert not list((path / "tmp").iterdir())


NAMED = replace(SPEC, columns=("yaw", "pitch", "roll"))


def test_names_of_columns_are_added_to_a_stored_spec_and_nothing_else_of_it_is_changed(path, backend):
    with create_store(path, backend) as store:
        store.publish("a", SPEC, random_rows(5, 3))
    file = path / SPEC.id / "spec.json"
    content = json.loads(file.read_bytes()) | {"of_a_later_version": 1}
    file.write_bytes(spec_document(content))
    reader = open_store(path)
    assert reader.features() == [SPEC]
    with open_store(path) as store:
        store.publish("b", NAMED, random_rows(5, 3))
    after = json.loads(file.read_bytes())
    assert after.pop("columns") == list(NAMED.columns)
    assert {**after, "crc32c": 0} == {**content, "crc32c": 0}
    assert open_store(path).spec(SPEC.id).columns == NAMED.columns
    assert reader.spec(SPEC.id).columns == ()
    reader.refresh()
    assert reader.spec(SPEC.id).columns == NAMED.columns
    before = file.stat()
    with open_store(path) as store:
        store.publish("a", NAMED, random_rows(5, 3))
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with open_store(path) as store:
        store.publish("a", replace(SPEC, columns=("x", "y", "z")), random_rows(5, 3))
    renamed = json.loads(file.read_bytes())
    assert renamed.pop("columns") == ["x", "y", "z"]
    assert {**renamed, "crc32c": 0} == {**content, "crc32c": 0}
    assert check(store).damage == []


@pytest.mark.parametrize("obstacle", ["damaged", "link", "not ours"])
def test_no_item_is_lost_where_the_names_of_columns_cannot_be_stored(path, backend, obstacle, tmp_path, monkeypatch):
    with create_store(path, backend) as store:
        store.publish("a", SPEC, random_rows(5, 3))
    file = path / SPEC.id / "spec.json"
    if obstacle == "damaged":
        file.write_bytes(file.read_bytes().replace(b"hog", b"hug"))
    elif obstacle == "link":
        file.rename(tmp_path / "spec.json")
        file.symlink_to(tmp_path / "spec.json")
    else:
        rename = os.rename

        def refuse(source, target):
            if target == str(file):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
            rename(source, target)

        monkeypatch.setattr(os, "rename", refuse)
    before = file.read_bytes()
    store = open_store(path)
    for name in ("b", "c"):
        store.publish(name, NAMED, random_rows(5, 3))
    assert same(open_store(path).read("c", SPEC.id), random_rows(5, 3))
    assert (file.read_bytes(), file.is_symlink()) == (before, obstacle == "link")
    assert not list((path / "tmp").iterdir())


def test_a_link_in_place_of_an_item_is_not_followed(path, backend, tmp_path):
    store = create_store(path, backend)
    item = store.item_path(store.publish("a", SPEC, random_rows(5, 3)))
    (tmp_path / "outside").symlink_to(item)
    os.rename(item, tmp_path / "moved")
    os.symlink(tmp_path / "moved", item)
    with pytest.raises(DamageError, match="link"):
        open_store(path).read("a", SPEC.id)
    assert any("link" in str(damage) for damage in check(open_store(path), quick=True).damage)


def test_memory_stays_bounded_while_an_hour_long_item_is_appended(path, backend):
    program = """
import resource, sys
import numpy as np
from aupipe.store import create_store
from aupipe.types import FeatureSpec
spec = FeatureSpec("x", "visual", "x", 1)
store = create_store(sys.argv[1], sys.argv[2])
rows = np.ones((1000, 1024), np.float16)
store.publish("warm up", spec, rows)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with store.writer("long", spec, frames=90_000, row_shape=(1024,)) as item:
    for _ in range(90):
        item.append(rows)
    item.commit()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, path, backend], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40  # MiB; the item has 176
    assert open_store(path).read("long", SPEC_X).shape == (90_000, 1024)


SPEC_X = type(SPEC)("x", "visual", "x", 1).id


def test_importing_and_planning_load_no_heavy_library(path):
    create_store(path, "zarr").publish("a", SPEC, random_rows(5, 3))
    program = """
import sys
import aupipe.store
assert not {"zarr", "h5py", "torch", "dask"} & set(sys.modules), sys.modules.keys()
store = aupipe.store.open_store(sys.argv[1])
assert len(list(store.records())) == 1 and store.read("a", store.features()[0].id).shape == (5, 3)
assert not {"zarr", "h5py", "torch", "dask"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, path], check=True)


def test_a_forked_child_reads_and_writes_for_itself(path, backend):
    store = create_store(path, backend)
    store.publish("a", SPEC, random_rows(700, 3))
    store.read("a", SPEC.id)
    child = os.fork()
    if child == 0:
        ok = same(store.read("a", SPEC.id), random_rows(700, 3))
        store.publish("child", SPEC, random_rows(2, 3))
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    store.publish("parent", SPEC, random_rows(2, 3))
    store.refresh()
    assert {record.recording for record in store.records()} == {"a", "child", "parent"}
    assert np.array_equal(store.read("child", SPEC.id), random_rows(2, 3))
    assert check(store).damage == []
