"""Hostile checkpoints of a few bytes end at once with one line, whatever they ask for."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from aupipe.extract.weights import RefusedWeightsError, identify, safetensors_metadata
from aupipe.extract.weights.checkpoint import read_state_dict
from aupipe.extract.weights.pickled_checkpoint import read_checkpoint

pytestmark = pytest.mark.timeout(60)

SELF = b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."  # a = {"model": a}
DOUBLED = b"\x80\x02]q\x00(h\x00h\x00e" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
SIZE = b"ctorch\nSize\n"
ORDERED = b"ccollections\nOrderedDict\n"
OUT_OF_LISTS = b"\x80\x02)q\x00" + b"".join(b"%b(h%ch%cl\x85Rq%c" % (SIZE, n, n, n + 1) for n in range(60))

HOSTILE = {
    "holds itself": SELF,
    "holds itself as a pair": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00sX\x05\x00\x00\x00modelh\x00s.",
    "pairs of pairs of lists": DOUBLED + b".",
    "pairs of pairs as a key": b"\x80\x02)q\x00"
    + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
    + b"}h\x3cK\x01s.",
    "pairs of pairs in 62 bytes": b"\x80\x02)" + b"2\x86" * 27 + b"}q\x01" + b"0.",
    "pairs made by a call": OUT_OF_LISTS + b"}h\x3cK\x01s.",
    "pairs of pairs as a device": b"\x80\x02)q\x00"
    + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(60))
    + b"ctorch\ndevice\nh\x3c\x85R.",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * 200_000 + b"}q\x000.",
    "lists in lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "lists copied": b"\x80\x02](" + b"N" * 50_000 + b"eq\x00" + b"cbuiltins\nlist\nh\x00\x85R" * 20_000 + b".",
    "a memo of 4 billion": b"\x80\x02Nr\xf0\xff\xff\xff.",
    "text of 2 GB": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "bytes of an exabyte": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",
    "a byte array of 64 GB": b"\x80\x05\x96" + struct.pack("<Q", 64 << 30) + b"abc.",
    "a frame of 64 GB": b"\x80\x04\x95" + struct.pack("<Q", 64 << 30) + b"N.",
    "a number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pickle_of_a_few_bytes_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(RefusedWeightsError, match=r"x\.pth") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_a_module_that_holds_another_twice_again_and_again_is_refused(tmp_path: Path) -> None:
    from aupipe.extract.weights.pickled_checkpoint import unwrap
    from aupipe.extract.weights.pickled_objects import Inert

    def module(children: dict[str, Inert]) -> Inert:
        made = Inert()
        made.state = {"_parameters": {}, "_buffers": {}, "_modules": children}
        return made

    top = module({})
    for _ in range(40):
        top = module({"a": top, "b": top})
    with pytest.raises(RefusedWeightsError, match="a module of more than"):
        unwrap(top)


def saved(tensor: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": tensor}, buffer)
    return buffer.getvalue()


def test_one_number_expanded_to_billions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(saved(torch.zeros(1).expand(2_000_000_000)))
    with pytest.raises(RefusedWeightsError, match="more elements than its storage"):
        read_checkpoint(path)


def test_one_storage_viewed_under_many_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    tensor = torch.zeros(1000)
    torch.save({f"w{i}": tensor for i in range(50)}, path)
    with pytest.raises(RefusedWeightsError, match="many times their storage"):
        read_checkpoint(path)
    torch.save({"a": tensor, "b": tensor}, path)  # tied weights are common
    assert set(read_checkpoint(path)) == {"a", "b"}


def test_an_archive_that_unpacks_to_many_times_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    source = zipfile.ZipFile(io.BytesIO(saved(torch.zeros(10_000_000))))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    assert path.stat().st_size < 100_000
    with pytest.raises(RefusedWeightsError, match="many times its size"):
        read_checkpoint(path)


@pytest.mark.parametrize("old_form", [False, True])
def test_a_checkpoint_cut_anywhere_is_refused(tmp_path: Path, old_form: bool) -> None:
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save({"w": torch.arange(100.0)}, whole, _use_new_zipfile_serialization=not old_form)
    content = whole.read_bytes()
    assert read_checkpoint(whole)["w"].tolist() == list(range(100))
    for keep in (*range(0, 64, 7), *range(64, len(content) - 1, 61)):
        cut.write_bytes(content[:keep])
        with pytest.raises(RefusedWeightsError, match=r"cut\.pth"):
            read_checkpoint(cut)


def safetensors(header: bytes, declared: int | None = None, numbers: bytes = b"\0" * 8) -> bytes:
    return struct.pack("<Q", len(header) if declared is None else declared) + header + numbers


TENSOR = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def header(imported: object) -> bytes:
    return json.dumps({"__metadata__": imported, **TENSOR}).encode()


ODD = {
    "empty": b"",
    "a length and nothing else": struct.pack("<Q", 1 << 62),
    "a header longer than the file": safetensors(header({}), declared=1 << 40),
    "a header shorter than it is": safetensors(header({}), declared=11),
    "no JSON": safetensors(b"{" * 100),
    "JSON in JSON": safetensors(b'{"a":' * 100_000),
    "metadata of numbers": safetensors(header({"aupipe": 3})),
    "metadata that is no JSON": safetensors(header({"aupipe": "licence"})),
    "metadata that is a list": safetensors(header({"aupipe": "[1]"})),
    "metadata that nests": safetensors(header({"aupipe": "[" * 100_000})),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_odd_safetensors_are_refused_with_one_line(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    for read in (safetensors_metadata, lambda path: identify(path.name)):
        with pytest.raises(RefusedWeightsError, match=r"x\.safetensors") as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1


def test_safetensors_with_a_value_missing_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    (tmp_path / "x.safetensors").write_bytes(safetensors(header({"aupipe": '{"source": "y.pth"}'})))
    assert identify("x.safetensors").licence == "unknown"
    assert np.array_equal(read_state_dict(tmp_path / "x.safetensors")["w"].numpy(), [0, 0])


def test_importing_a_hostile_checkpoint_ends_with_one_line_and_exit_code_12(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "x.pth").write_bytes(SELF)
    answer = subprocess.run(
        [sys.executable, "-c", "from aupipe.cli import main; main()", "weights", "import", "x.pth"],
        cwd=tmp_path,
        env=os.environ | {"AUPIPE_WEIGHTS": str(tmp_path / "w")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 12, answer.stderr
    assert answer.stderr.startswith("aupipe: ")
    assert len(answer.stderr.splitlines()) == 1
    assert list((tmp_path / "w").iterdir()) == []
