"""Nothing of a recording is left in a store after a purge, and nothing of others is lost."""

import os
import subprocess
import sys
import uuid

import pytest

from aupipe.errors import AupipeError, DamageError
from aupipe.store import create_store, open_store
from aupipe.store.keys import recording_key
from aupipe.store.maintenance.purge import purge
from aupipe.store.maintenance.verify import check
from aupipe.store.processes import writer_name
from aupipe.store.run_log import RunLog, read_lines

from .contract import SPEC, WIDE, check_and_repair, random_rows, same

NAME, OTHER = "clips/Jane Doe.mp4", "clips/John.mp4"
ROWS = random_rows(700, 3, invalid=[5])


@pytest.fixture(params=["zarr", "hdf5"])
def store(request, tmp_path):
    store = create_store(tmp_path / "s", request.param)
    for name in (NAME, OTHER):
        store.publish(name, SPEC, ROWS if name == NAME else random_rows(700, 3, seed=1))
        store.fail(name, WIDE, f"cannot decode {name}")
    return store


def left(store):
    """Every path below the store that shows the recording: by its name, its key, its bytes, or parts of its rows."""
    marks = [NAME.encode(), b"Jan", recording_key(NAME).encode(), ROWS.tobytes()[60:100], ROWS.tobytes()[-50:]]
    found = []
    for path in store.path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if any(mark in content or mark.decode("latin1") in str(path.relative_to(store.path)) for mark in marks):
            found.append(path)
    return found


def stage(store, name):
    """An item in ``tmp/`` as the process ``name`` had left it, killed before it gave it its metadata."""
    with store.writer(NAME, SPEC, frames=700, row_shape=(3,)) as item:
        item.append(ROWS)
        os.rename(item._sink.path, store.path / "tmp" / (name + store.format.suffix))
        item._sink.close()
        item._sink = None


def test_a_purge_leaves_no_byte_and_no_name_anywhere(store):
    stage(store, f"00000000-1-{uuid.uuid4().hex[:8]}")  # of another machine, a moment ago
    (store.path / "tmp" / f"00000000-1-aaaaaaaa.{recording_key(NAME)}.12345678").touch()
    with RunLog.in_store(store.path, command="extract") as log:
        log.write("video", video=OTHER, notes=["odd"])
        log.write("video", video="clips/Jane", failed=[{"recording": NAME, "reason": f"cannot read '/data/{NAME}'"}])
        log.write("error", text="ValueError: Jane")
        log.write("machine", host="n1", state="joined", reason="", worker_processes=2)
        log.write("machine", host="n2", state="refused", reason="does not see what the run sees: /data/Jane.mkv")
    with open(log.path, "ab") as file:
        file.write(b'{"kind":"video","video":"clips/Jan')  # of a run that was killed
    store.compact()
    store.close()
    journal = next((store.path / "journal").iterdir())
    lines = journal.read_bytes()
    at = lines.index(b"Jane") + 1
    journal.write_bytes(lines[:at] + b"#" + lines[at + 1 :])  # the name itself is damaged
    snapshot = next(file for name in ("index", "catalogue") for file in (store.path / name).glob("*-*"))
    content = bytearray(snapshot.read_bytes())
    content[-1] ^= 1
    snapshot.write_bytes(content)
    store = open_store(store.path)
    with pytest.raises(DamageError, match=r"line 1 is damaged.*repair.*purge again"):
        purge(store, NAME)
    check_and_repair(store)
    assert list((store.path / "quarantine").iterdir())
    assert left(store)
    purge(store, NAME)
    assert left(store) == []
    assert {record.recording for record in store.records()} == {OTHER}
    assert same(open_store(store.path).read(OTHER, SPEC.id), random_rows(700, 3, seed=1))
    assert check(store).damage == []
    assert [line["kind"] for line in read_lines(log.path)] == ["run", "video", "machine", "end"]


def test_a_purge_waits_for_no_writer_but_refuses_beside_one(store):
    code = "from aupipe.store.processes import writer_name; print(writer_name(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        stage(store, writer.stdout.readline().strip())
        before = left(store)
        with pytest.raises(AupipeError, match=f"process {writer.pid} is writing"):
            purge(store, NAME)
        assert left(store) == before
        writer.communicate("\n")
    purge(store, NAME)
    assert left(store) == []


def test_a_purge_refuses_beside_a_running_extraction(store):
    code = (
        "import sys; from aupipe.store.run_log import RunLog; log = RunLog.in_store(sys.argv[1]);"
        "print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        writer.stdout.readline()
        with pytest.raises(AupipeError, match=f"process {writer.pid} is writing"):
            purge(store, NAME)
        writer.communicate("\n")
    purge(store, NAME)
    assert left(store) == []


def test_what_this_process_has_left_behind_is_purged_too(store):
    stage(store, writer_name())
    purge(store, NAME)
    assert left(store) == []


@pytest.mark.parametrize("store", ["zarr"], indirect=True)  # whose items are folders
def test_a_purge_refuses_a_link_in_the_place_of_a_folder_of_an_item(store, tmp_path):
    data = os.path.join(store.item_path(store.published(NAME, SPEC.id)), "data")
    os.rename(data, tmp_path / "data")
    os.symlink(tmp_path / "data", data)
    with pytest.raises(DamageError, match="is a symlink in the store"):
        purge(open_store(store.path), NAME)
    assert os.listdir(tmp_path / "data")


def test_a_purge_through_a_linked_feature_leaves_the_other_store_whole(store, tmp_path):
    other = create_store(tmp_path / "other", store.backend)
    other.publish(NAME, WIDE, random_rows(20, 4, dtype="float32"))
    os.rename(store.path / WIDE.id, tmp_path / "own")
    (store.path / WIDE.id).symlink_to(other.path / WIDE.id)
    with pytest.raises(DamageError, match="is a symlink in the store"):
        purge(open_store(store.path), NAME)
    assert same(other.read(NAME, WIDE.id), random_rows(20, 4, dtype="float32"))
    assert check(other).damage == []
    assert same(store.read(NAME, SPEC.id), ROWS)
