"""Any single flipped byte is found, by name; what is damaged is set aside and made again; what is erased is gone."""

import os
import shutil

import numpy as np
import pytest

from aupipe.errors import AupipeError, DamageError
from aupipe.store import STORES, create_store, open_store
from aupipe.store.keys import recording_key
from aupipe.store.maintenance.purge import purge
from aupipe.store.maintenance.repair import repair_damage
from aupipe.store.maintenance.verify import Damage, check

from .contract import CLOCK, SOURCE, SPEC, check_and_repair, random_rows, same

BACKENDS = STORES.names()
NAMES = ["a.mp4", "b/c d.mp4", "bad\udcff.avi"]


@pytest.fixture(params=BACKENDS)
def store(request, tmp_path):
    store = create_store(tmp_path / "s", request.param)
    for number, name in enumerate(NAMES):
        rows = random_rows(700, 3, seed=number, invalid=[5])
        store.publish(name, SPEC, rows, source=SOURCE, versions={"numpy": "2"})
        store.publish(name, CLOCK, random_rows(700, dtype="float64"))
    store.compact()
    return store


def files_of(store):
    return sorted(file for file in store.path.rglob("*") if file.is_file())


def flip(file, place, mask=1):
    with open(file, "r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ mask]))


def damage_of(store):
    """What `verify` finds in a store opened anew; that it cannot be opened is a finding too."""
    try:
        with open_store(store.path) as opened:
            return check(opened).damage
    except AupipeError as error:  # only a flipped store.json may do that
        return [error]


def flips(store, per_file, seed):
    random = np.random.default_rng(seed)
    for file in files_of(store):
        size = file.stat().st_size
        places = range(size) if size <= per_file else random.choice(size, per_file, replace=False)
        for place in places:
            mask = 1 << int(random.integers(8))
            flip(file, int(place), mask)
            found = damage_of(store)
            assert len(found) == 1, (file, place, mask, found)
            assert isinstance(found[0], Damage) or file.name == "store.json"
            if "items" in file.parts and file.name != "zarr.json":
                owner = next(
                    record for record in store.all_published() if str(file).startswith(store.item_path(record))
                )
                assert (found[0].recording, found[0].feature) == (owner.recording, owner.feature)
                assert repr(owner.recording) in str(found[0])
            flip(file, int(place), mask)
    assert damage_of(store) == []


def test_a_flipped_byte_in_any_file_is_found_and_named(store):
    flips(store, per_file=6, seed=1)


@pytest.mark.slow
def test_a_flipped_byte_anywhere_is_found_and_named(store):
    flips(store, per_file=150, seed=2)


@pytest.mark.parametrize("lose", [os.remove, lambda file: os.truncate(file, 0)], ids=["missing", "cut"])
def test_a_lost_journal_is_found_and_nothing_is_lost_with_it(store, lose):
    (journal,) = (store.path / "journal").iterdir()
    store.close()
    lose(journal)
    store = open_store(store.path)
    items = list(store.all_published())
    (found,) = check(store).damage
    assert (found.kind, found.path) == ("lost journal", str(journal))
    with pytest.raises(DamageError, match="verify --repair"):
        purge(store, NAMES[0])
    check_and_repair(store)
    assert damage_of(store) == []
    again = open_store(store.path)
    assert [(r.recording, r.crc32c, r.source) for r in again.all_published()] == [
        (r.recording, r.crc32c, r.source) for r in items
    ]
    assert purge(again, NAMES[0]) == 2
    assert {record.recording for record in open_store(store.path).all_published()} == {*NAMES[1:]}


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("cut", [0, 1, -1])
def test_a_file_of_another_length_is_found_even_quickly_and_not_read(store, quick, cut):
    record = store.published(NAMES[1], SPEC.id)
    file = store.format.data_file(store.item_path(record), record)
    with open(file, "r+b") as stream:
        stream.truncate(0 if cut == 0 else record.nbytes + cut)
    fresh = open_store(store.path)
    found = check(fresh, quick=quick).damage
    assert [(damage.recording, damage.feature) for damage in found] == [(NAMES[1], SPEC.id)]
    with pytest.raises(DamageError, match=r"hog@.*b/c d\.mp4.*bytes"):
        fresh.read(NAMES[1], SPEC.id)


@pytest.mark.parametrize("quick", [True, False])
def test_every_missing_file_of_an_item_is_found_even_quickly(store, quick):
    record = store.published(NAMES[0], SPEC.id)
    for file in store.format.item_files(store.item_path(record), record):
        shutil.copy(file, f"{store.path}/../kept")
        os.remove(file)
        fresh = open_store(store.path)
        assert [damage.recording for damage in check(fresh, quick=quick).damage] == [NAMES[0]]
        shutil.copy(f"{store.path}/../kept", file)
    assert check(open_store(store.path)).damage == []


def test_a_missing_item_is_damage_when_read(store):
    item = store.item_path(store.published(NAMES[0], SPEC.id))
    os.rename(item, f"{item}.moved")
    with pytest.raises(DamageError, match="missing"):
        open_store(store.path).read(NAMES[0], SPEC.id)


def test_a_sample_looks_closely_at_that_share_only(store):
    for share, count in ((0.0, 0), (0.5, 3), (1.0, 6)):
        assert check(store, sample=share, seed=1).summed == count
    with pytest.raises(ValueError, match="fraction"):
        check(store, sample=5)


def test_repair_sets_damage_aside_and_requeues(store):
    record = store.published(NAMES[0], SPEC.id)
    flip(store.format.data_file(store.item_path(record), record), 300)
    damaged = [file.read_bytes() for file in files_of(store) if str(file).startswith(store.item_path(record))]
    report = check_and_repair(store)
    assert report.requeued == [(NAMES[0], SPEC.id)]
    assert store.record(NAMES[0], SPEC.id).state == "deleted"
    assert "quarantined" in store.record(NAMES[0], SPEC.id).reason
    kept = [file.read_bytes() for file in (store.path / "quarantine").rglob("*") if file.is_file()]
    assert sorted(kept) == sorted(damaged)
    assert check(open_store(store.path)).damage == []
    store.publish(NAMES[0], SPEC, random_rows(700, 3, invalid=[5]), source=SOURCE)
    assert same(open_store(store.path).read(NAMES[0], SPEC.id), random_rows(700, 3, invalid=[5]))
    assert check(store).damage == []


def test_any_damage_can_be_repaired_and_only_the_damaged_item_is_made_again(store):
    for file in files_of(store):
        if file.name == "store.json" or not file.exists():
            continue
        flip(file, file.stat().st_size // 2)
        with open_store(store.path) as opened:
            report = check_and_repair(opened)
            assert len(report.damage) == 1
            for recording, feature in report.requeued:
                spec = SPEC if feature == SPEC.id else CLOCK
                shape = (700, 3) if spec is SPEC else (700,)
                opened.publish(recording, spec, random_rows(*shape, dtype=spec.dtype))
            if report.damage[0].kind == "spec":
                spec, shape = (SPEC, (2, 3)) if SPEC.id in str(file) else (CLOCK, (2,))
                opened.publish("again", spec, random_rows(*shape))
            assert check(opened).damage == [], file
            assert {record.recording for record in opened.records()} >= set(NAMES)
            opened.compact()


def test_what_repair_leaves_is_what_is_found_afterwards(store):
    for file in files_of(store):
        if file.name == "store.json" or not file.exists():
            continue
        content = file.read_bytes()
        flip(file, len(content) // 2)
        with open_store(store.path) as opened:
            remaining = repair_damage(opened, check(opened))
            assert {damage.kind for damage in remaining} <= {"spec"}
            assert [damage.path for damage in check(opened).damage] == [damage.path for damage in remaining], file
            if remaining:
                file.write_bytes(content)


def test_a_lost_journal_line_is_won_back_from_the_item(store):
    journal = next((store.path / "journal").iterdir())
    shutil.rmtree(store.path / "index")
    flip(journal, 100)
    fresh = open_store(store.path)
    assert len(list(fresh.all_published())) == 5
    report = check_and_repair(fresh)
    assert [damage.kind for damage in report.damage] == ["journal"]
    assert len(list(open_store(store.path).all_published())) == 6
    assert check(open_store(store.path)).damage == []


def test_repair_of_a_sound_store_changes_nothing(store):
    before = {file: file.read_bytes() for file in files_of(store)}
    report = check_and_repair(store)
    assert (report.damage, report.quarantined, report.requeued) == ([], [], [])
    assert {file: file.read_bytes() for file in files_of(store)} == before


def traces(store, recording):
    """Files with bytes of a recording's name, key or rows in them."""
    rows = random_rows(700, 3, seed=NAMES.index(recording), invalid=[5]).tobytes()
    marks = [
        recording.encode("utf-8", "surrogateescape"),
        recording.encode("ascii", "backslashreplace"),
        rows[30:60],
        rows[-40:],
    ]
    found = []
    for file in files_of(store):
        content = file.read_bytes()
        if any(mark in content for mark in marks) or recording_key(recording) in str(file):
            found.append(file)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_purge_leaves_no_byte_of_a_recording_anywhere(store, name):
    store.publish(name, SPEC, random_rows(700, 3, seed=NAMES.index(name), invalid=[5]))  # another revision
    record = store.published(name, CLOCK.id)
    flip(store.format.data_file(store.item_path(record), record), 5000)
    check_and_repair(store)
    store.fail(name, CLOCK, f"cannot decode {name}")
    store.compact()
    assert traces(store, name)
    others = {key: store.read(key, SPEC.id) for key in NAMES if key != name}
    assert purge(store, name) == 2
    assert traces(store, name) == []
    for opened in (store, open_store(store.path)):
        assert opened.record(name, SPEC.id) is None
        assert all(same(opened.read(key, SPEC.id), rows) for key, rows in others.items())
        assert check(opened).damage == []
    store.publish(name, SPEC, random_rows(2, 3))
    assert same(open_store(store.path).read(name, SPEC.id), random_rows(2, 3))


def test_a_process_that_slept_through_a_purge_does_not_bring_it_back(store):
    sleeper = open_store(store.path)
    sleeper.read(NAMES[0], SPEC.id)
    purge(store, NAMES[0])
    sleeper.publish("new", SPEC, random_rows(2, 3))
    sleeper.compact()
    assert traces(store, NAMES[0]) == []
    assert open_store(store.path).record(NAMES[0], SPEC.id) is None


def test_purging_what_is_not_there_removes_nothing(store):
    before = {file: file.read_bytes() for file in files_of(store) if "items" in file.parts}
    assert purge(store, "unknown") == 0
    assert {file: file.read_bytes() for file in files_of(store) if "items" in file.parts} == before
