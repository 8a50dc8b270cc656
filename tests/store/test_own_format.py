"""A file format from outside of aupipe, as in `docs/store.md`: only the format is new."""

import json
import os
import shutil
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest

from aupipe.store import STORES, create_store, open_store
from aupipe.store.formats.mapping import map_file
from aupipe.store.formats.protocol import PlainRows, check_size
from aupipe.store.local import LocalStore
from aupipe.store.maintenance.gc import collect
from aupipe.store.maintenance.repair import rebuild
from aupipe.store.maintenance.verify import check

from .contract import SPEC, check_and_repair, damage_in, random_rows, same


class RawSink:
    """The array's bytes, then the metadata as JSON."""

    offset = 0

    def __init__(self, path, layout):
        self.path, self.layout, self.file = path, layout, open(path, "xb")  # noqa: SIM115

    def write(self, rows):
        self.file.write(rows.tobytes())

    def finish(self, item, metadata, beside):
        text = json.dumps({"frames": item.frames, "item": metadata}).encode()
        self.nbytes = self.layout.nbytes + len(text)
        self.file.write(text)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.close()
        return google_crc32c.value(text)

    def close(self):
        self.file.close()


class Raw:
    suffix = ".raw"
    documents = ()
    open_sink = RawSink

    def data_file(self, path, record):
        return path

    def item_files(self, path, record):
        return [path]

    def map_rows(self, path, record):
        content = map_file(path)
        check_size(content, path, record)
        return PlainRows(np.ndarray(record.shape, record.dtype, content.data))

    def read_beside(self, path, record, name):
        return None

    def checksums(self, path, record):
        content = map_file(path)
        check_size(content, path, record)
        end = int(np.prod(record.shape)) * np.dtype(record.dtype).itemsize
        return google_crc32c.value(content[:end]), google_crc32c.value(content[end:])

    def measure(self, path, record):
        return replace(record, nbytes=os.path.getsize(path))

    def read_metadata(self, path):
        content = map_file(path).tobytes()
        return json.loads(content[content.rindex(b'{"frames"') :])["item"]


class RawStore(LocalStore):
    backend = "raw"
    format = Raw()


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setitem(STORES.table, "raw", f"{__name__}:RawStore")
    return tmp_path / "s"


def test_a_format_of_ones_own_is_published_verified_repaired_and_rebuilt(path):
    with create_store(path, "raw") as store:
        for name in ("a", "b", "c"):
            store.publish(name, SPEC, random_rows(300, 3, invalid=[7]))
        store.publish("b", SPEC, random_rows(20, 3))
        store.delete("c", SPEC.id)
    store = open_store(path)
    assert store.backend == "raw"
    assert same(store.read("a", SPEC.id), random_rows(300, 3, invalid=[7]))
    assert same(store["hog"]["b"][5:9], random_rows(20, 3)[5:9])
    assert damage_in(store) == []

    assert collect(store, 0).items == 2
    for file in (path / "journal").iterdir():
        file.unlink()
    shutil.rmtree(path / "index")
    store = open_store(path)
    assert rebuild(store) == 2
    assert check(store).damage == []

    item = store.item_path(store.published("a", SPEC.id))
    with open(item, "r+b") as file:
        file.write(b"\1\2\3")
    assert check_and_repair(store).requeued == [("a", SPEC.id)]
    assert check(store).damage == []
