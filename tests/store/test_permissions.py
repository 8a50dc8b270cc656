"""Who may read what a store and an export create."""

import os
import stat
import subprocess
import sys

import pytest

from aupipe.errors import UsageError
from aupipe.store import create_store, open_store
from aupipe.store.maintenance.export import export
from aupipe.store.maintenance.repair import repair_damage
from aupipe.store.maintenance.verify import check

from .contract import SPEC, random_rows

MODES = {"owner": (0o700, 0o600), "group": (0o750, 0o640), "all": (0o755, 0o644)}


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(path):
    """{(folder mode, ...)}, {(file mode, ...)} of a folder and everything in it."""
    found = [path, *path.rglob("*")] if path.is_dir() else [path]
    folders = {stat.S_IMODE(entry.stat().st_mode) for entry in found if entry.is_dir()}
    return folders, {stat.S_IMODE(entry.stat().st_mode) for entry in found if entry.is_file()}


def use(store):
    """Everything that makes files: publication, failure, damage, quarantine, compaction."""
    for name in ("a", "b"):
        store.publish(name, SPEC, random_rows(300, 3, invalid=[2]))
    store.fail("c", SPEC, "no face")
    file = store.format.data_file(store.item_path(store.published("a", SPEC.id)), store.published("a", SPEC.id))
    with open(file, "r+b") as stream:
        stream.seek(4100)
        stream.truncate()
    report = check(store)
    repair_damage(store, report)
    assert report.quarantined
    store.compact()
    store.close()


@pytest.mark.parametrize("readable_by", ["owner", "group", "all"])
@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_all_that_a_store_makes_is_readable_by_those_who_may(tmp_path, backend, readable_by, umask):
    store = create_store(tmp_path / "s", backend, readable_by)
    use(store)
    assert modes(tmp_path / "s") == ({MODES[readable_by][0]}, {MODES[readable_by][1]})


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_a_folder_that_is_open_is_named_and_what_is_made_in_it_is_not(tmp_path, backend, caplog):
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o755)
    use(create_store(tmp_path / "s", backend))
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"{tmp_path / 's'} is open to others (mode 0755)" in message
    assert "chmod 700" in message
    assert "--readable-by" in message
    folders, files = modes(tmp_path / "s")
    assert folders == {0o755, 0o700}
    assert files == {0o600}


def test_a_folder_that_was_opened_on_purpose_is_not_named(tmp_path, caplog):
    create_store(tmp_path / "s", readable_by="all").close()
    create_store(tmp_path / "s", readable_by="all").close()
    open_store(tmp_path / "s").close()
    assert not caplog.records


@pytest.mark.parametrize(("readable_by", "who"), [("group", "g"), ("all", "go")])
def test_asking_for_more_readers_of_a_store_that_exists_says_that_its_mode_stays(tmp_path, caplog, readable_by, who):
    path = tmp_path / "s"
    create_store(path).close()
    create_store(path, readable_by=readable_by).close()
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"{path} was made for fewer readers (mode 0700) than --readable-by {readable_by} says" in message
    assert f"`chmod -R {who}+rX {path}`" in message
    assert modes(path) == ({0o700}, {0o600})
    caplog.clear()
    subprocess.run(["chmod", "-R", f"{who}+rX", path], check=True)
    use(create_store(path, readable_by=readable_by))
    assert modes(path) == ({MODES[readable_by][0]}, {MODES[readable_by][1]})
    assert not caplog.records


def test_a_store_that_its_owner_made_read_only_is_not_said_to_have_too_few_readers(tmp_path, caplog):
    path = tmp_path / "s"
    create_store(path).close()
    path.chmod(0o500)
    create_store(path).close()
    assert not caplog.records
    create_store(path, readable_by="group").close()
    path.chmod(0o700)
    assert "made for fewer readers (mode 0500) than --readable-by group says" in caplog.text


@pytest.mark.parametrize("form", ["npz", "hdf5", "parquet"])
@pytest.mark.parametrize("readable_by", ["owner", "group", "all"])
def test_exports_are_readable_by_those_who_may(tmp_path, form, readable_by, umask):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    store = create_store(tmp_path / "s")
    store.publish("a", SPEC, random_rows(30, 3))
    export(store, tmp_path / "out", form, readable_by=readable_by)
    folders, files = modes(tmp_path / "out")
    assert folders <= {MODES[readable_by][0]}
    assert files == {MODES[readable_by][1]}


def test_another_word_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"'everyone'.*owner, group, all"):
        create_store(tmp_path / "s", readable_by="everyone")
    assert not (tmp_path / "s").exists()


def test_the_command_line_says_who_may_read(tmp_path):
    store = create_store(tmp_path / "features", "hdf5")
    store.publish("a", SPEC, random_rows(30, 3))
    store.close()
    command = [sys.executable, "-c", "from aupipe.cli import main; main()", "store", "export", "--format", "hdf5"]
    for name, more in (("mine.h5", []), ("ours.h5", ["--readable-by", "group"])):
        answer = subprocess.run([*command, name, *more], cwd=tmp_path, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("mine.h5", "ours.h5")] == [0o600, 0o640]
