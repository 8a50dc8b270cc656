"""What is wrong with an item's media stays in its record, through journals, index files and copies."""

import os

import pytest

from aupipe.store import STORES, ItemRecord, create_store, open_store
from aupipe.store.log.line import decode_line, encode_line
from aupipe.store.maintenance.migrate import migrate
from aupipe.store.maintenance.repair import rebuild

from .contract import SPEC, random_rows

BACKENDS = STORES.names()
DAMAGE, MEDIA = "video: 3 frames of 20 missing", {"video": {"frames": 17, "missing": 3, "messages": ["h264: \u00fc"]}}


@pytest.fixture(params=BACKENDS)
def store(request, tmp_path):
    """A store with a whole item, a damaged one, and one made anew from a repaired file."""
    made = create_store(tmp_path / "s", request.param)
    made.publish("whole", SPEC, random_rows(5, 3))
    for name in ("damaged", "repaired"):
        with made.writer(name, SPEC, frames=17, row_shape=(3,)) as item:
            item.append(random_rows(17, 3))
            item.commit(damage=DAMAGE, media=MEDIA)
    made.publish("repaired", SPEC, random_rows(20, 3))
    made.fail("damaged", SPEC, "a later run failed")
    return made


def damage_of(store):
    return [(record.recording, record.damage, record.media) for record in store.damaged()]


def test_the_damage_of_what_can_be_read_is_listed(store):
    expected = [("damaged", DAMAGE, MEDIA)]
    assert damage_of(store) == expected
    assert damage_of(open_store(store.path)) == expected
    store.compact()
    again = open_store(store.path)
    assert damage_of(again) == expected
    assert again.published("whole", SPEC.id).media == {}
    with again.writer("later", SPEC, frames=1, row_shape=(3,)) as item:  # after the index file
        item.append(random_rows(1, 3))
        item.commit(damage="x")
    assert [record.recording for record in again.damaged()] == ["damaged", "later"]


def test_the_damage_goes_with_an_item_into_a_copy(store, tmp_path):
    list(migrate(store, tmp_path / "copy", store.backend))
    assert damage_of(open_store(tmp_path / "copy")) == [("damaged", DAMAGE, MEDIA)]


def test_the_damage_is_in_the_item_itself(store):
    store.compact()
    store.close()
    for folder in ("journal", "index"):
        for name in os.listdir(os.path.join(store.root, folder)):
            os.remove(os.path.join(store.root, folder, name))
    again = open_store(store.path)
    assert rebuild(again) == 3
    assert ("damaged", DAMAGE, MEDIA) in damage_of(again)


def test_lines_of_an_older_aupipe_have_no_damage():
    line = encode_line(7, ItemRecord("a", "hog@0123456789ab", "done"))
    assert b"damage" not in line
    assert b"media" not in line
    record = decode_line(line[:-1], "j").record
    assert (record.damage, record.media) == ("", {})
