"""Weights: found, checked before anything parses them, read without running anything, and fitted key by key."""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import pickle
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import aupipe
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.weights import (
    KNOWN_WEIGHTS,
    RefusedWeightsError,
    file_sha256,
    find_weights,
    identify,
    known_weights,
)
from aupipe.extract.weights.checkpoint import load_into, read_state_dict
from aupipe.extract.weights.folder import import_weights, list_weights, verify_weights
from aupipe.extract.weights.pickled_checkpoint import read_checkpoint, unwrap
from aupipe.extract.weights.pickles import read_pickle


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "weights"
    path.mkdir()
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(path))
    return path


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("old_form", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, where=None), "epoch": 3},
        lambda state: {"iter": 5, "model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"params": {"wrong": torch.zeros(1)}, "params_ema": state},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict_backbone": state, "counts": collections.defaultdict(int, a=1)},
    ],
)
def test_checkpoints_of_every_wrapping_are_read(tmp_path: Path, wrap, old_form: bool) -> None:
    state = net().state_dict()
    path = tmp_path / "x.pth"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=not old_form)
    found = read_checkpoint(path)
    assert list(found) == list(state)
    for key in state:
        torch.testing.assert_close(found[key], state[key], rtol=0, atol=0)


@pytest.mark.parametrize("old_form", [False, True])
def test_a_pickled_module_is_read_tensor_by_tensor_and_never_built(tmp_path: Path, old_form: bool) -> None:
    import timm

    module = timm.create_model("test_efficientnet", num_classes=5)
    path = tmp_path / "whole.pt"
    torch.save(module, path, _use_new_zipfile_serialization=not old_form)
    found = read_checkpoint(path)
    expected = module.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


class Hostile:
    """What an attacker would put into a checkpoint."""

    def __init__(self, call, *args: object) -> None:
        self.call = call, args

    def __reduce__(self):
        return self.call


def hostile(marker: Path) -> list[object]:
    command = f"touch {marker}"
    return [
        Hostile(os.system, command),
        Hostile(eval, f"__import__('os').system({command!r})"),
        Hostile(exec, f"import os; os.system({command!r})"),
        Hostile(subprocess.Popen, ["touch", str(marker)]),
        Hostile(getattr, os, "system"),
        Hostile(torch.load, str(marker)),
        Hostile(torch.storage._load_from_bytes, pickle.dumps(Hostile(os.system, command))),
        Hostile(types.FunctionType, None, {}),
        Hostile(np.load, str(marker)),
    ]


@pytest.mark.parametrize("form", ["zip", "old", "plain"])
@pytest.mark.parametrize("which", range(9))
def test_a_malicious_pickle_is_refused_and_nothing_of_it_runs(tmp_path: Path, which: int, form: str) -> None:
    marker = tmp_path / "ran"
    content = {"state_dict": {"a": torch.zeros(1) if form != "plain" else 0, "b": hostile(marker)[which]}}
    path = tmp_path / "evil.pth"
    try:
        if form == "plain":
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    except (TypeError, pickle.PicklingError):  # what cannot be pickled cannot attack
        path.write_bytes(b"cposix\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    with pytest.raises(RefusedWeightsError, match=r"evil\.pth"):
        read_checkpoint(path)
    assert not marker.exists()


def test_a_pickle_cannot_change_the_reader(tmp_path: Path) -> None:
    for target in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctimm.models\nNet\n", b"cnumpy\nndarray\n"):
        path = tmp_path / "sly.pkl"
        path.write_bytes(target + b"}S'__setstate__'\nI1\ns" + b"b.")
        with pytest.raises(RefusedWeightsError):
            unwrap(read_pickle(path))
    plain = tmp_path / "after.pth"
    torch.save({"a": torch.ones(2)}, plain)
    assert read_checkpoint(plain)["a"].tolist() == [1, 1]


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(4.0)}, buffer)
    content = buffer.getvalue()
    assert content.count(b"K\x04\x85") == 1  # the shape (4,)
    path = tmp_path / "long.pth"
    path.write_bytes(content.replace(b"K\x04\x85", b"K\xff\x85"))
    with pytest.raises(RefusedWeightsError, match=r"beyond its storage|Bad CRC"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"hello", pickle.dumps([1, 2]), pickle.dumps({"a": 1})])
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(RefusedWeightsError, match=r"x\.pth"):
        read_checkpoint(path)


def test_what_only_looks_like_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for content in ({1: torch.zeros(1)}, {"state_dict": {"a": torch.zeros(1), "b": 3}}, nn.ReLU(), torch.zeros(3)):
        torch.save(content, path)
        with pytest.raises(RefusedWeightsError, match=r"x\.pth"):
            read_checkpoint(path)
    module = net()
    module._parameters = [torch.zeros(1)]  # type: ignore[assignment]
    torch.save(module, path)
    with pytest.raises(RefusedWeightsError, match=r"x\.pth holds no state dict"):
        read_checkpoint(path)


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(net().eval(), torch.zeros(1, 3, 3, 3)), str(path))
    with pytest.raises(RefusedWeightsError, match="TorchScript"):
        read_checkpoint(path)


def test_the_style_network_pickle_gives_the_encoders_arrays_and_runs_no_source(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    package, module = types.ModuleType("dnnlib.tflib.network"), types.ModuleType("dnnlib.util")
    source = f"open({str(marker)!r}, 'w')"
    network = type("Network", (), {"__module__": package.__name__, "__qualname__": "Network"})
    easy = type("EasyDict", (dict,), {"__module__": module.__name__, "__qualname__": "EasyDict"})
    networks = []
    rng = np.random.default_rng(0)
    for _ in range(4):
        one = network()
        kernel = rng.standard_normal((7, 7, 3, 64)).astype(np.float32)
        variables = [("Conv0/weight", kernel), ("Conv0/batch_norm/gamma", np.asfortranarray(np.ones((64,), ">f4")))]
        one.__dict__ |= {"version": 3, "build_module_src": source, "static_kwargs": easy(depth=50)}
        one.variables = variables
        networks.append(one)
    parents = {name: types.ModuleType(name) for name in ("dnnlib", "dnnlib.tflib")}
    stand_ins = parents | {package.__name__: package, module.__name__: module}
    sys.modules |= stand_ins
    package.Network, module.EasyDict = network, easy  # type: ignore[attr-defined]
    try:
        path = tmp_path / "ghfeat.pkl"
        path.write_bytes(pickle.dumps(tuple(networks), protocol=2))
    finally:
        for name in stand_ins:
            del sys.modules[name]
    found = read_checkpoint(path)
    assert set(found) == {"Conv0.weight", "Conv0.batch_norm.weight"}
    np.testing.assert_array_equal(found["Conv0.weight"], networks[0].variables[0][1].transpose(3, 2, 0, 1))
    assert found["Conv0.batch_norm.weight"].dtype == torch.float32
    assert not marker.exists()


def test_a_checkpoint_with_one_renamed_key_names_that_key() -> None:
    state = net().state_dict()
    state["1.gamma"] = state.pop("1.weight")
    state["3.weight"] = torch.zeros(2, 5)
    with pytest.raises(RefusedWeightsError) as error:
        load_into(net(), state, "mine.pth")
    assert "missing: 1.weight" in str(error.value)
    assert "unexpected: 1.gamma" in str(error.value)
    assert "3.weight (2, 5) for (2, 4)" in str(error.value)
    assert str(error.value).startswith("mine.pth does not fit Sequential")


def test_a_wrong_digest_is_refused_before_parsing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aupipe.extract.weights.pickled_checkpoint.read_pickle", lambda path: pytest.fail("parsed"))
    path = folder / "regnet_y_400mf-c65dace8.pth"
    path.write_bytes(pickle.dumps(Hostile(os.system, "true")))
    for attempt in (find_weights, identify, lambda name: import_weights(folder / name)):
        with pytest.raises(RefusedWeightsError, match="expected c65dace8"):
            attempt(path.name)


def test_extraction_reads_no_pickle_and_says_the_command_that_does(folder: Path) -> None:
    torch.save(net().state_dict(), folder / "a b.pth")
    for read in (find_weights, identify, lambda name: read_state_dict(folder / name)):
        with pytest.raises(RefusedWeightsError, match="a pickle") as caught:
            read("a b.pth")
        assert caught.value.exit_code == 12
        assert f"`aupipe weights import '{folder}/a b.pth'`" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsMissingError, match=r"dan\.pth' not found .* and `aupipe weights import` it"):
        find_weights("dan.pth")


@pytest.mark.parametrize("name", ["x.pth", "run/backbone.pth"])
def test_an_imported_pickle_keeps_its_name_and_identity_with_the_original_and_without(folder: Path, name: str) -> None:
    original = folder / name
    original.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": net().state_dict()}, original)
    before = file_sha256(original)
    made = import_weights(original)
    for _ in range(2):
        assert find_weights(name) == made
        assert (identify(name).name, identify(name).sha256) == (original.name, before)
        assert all(torch.equal(read_state_dict(made)[key], value) for key, value in net().state_dict().items())
        original.unlink(missing_ok=True)
    assert identify(made.name).sha256 == file_sha256(made)  # by its own name it is what it was before, too
    torch.save({"other": torch.zeros(1)}, original)
    with pytest.raises(RefusedWeightsError, match=r"was imported from another .*\.pth: remove it, and import again"):
        find_weights(name)


def test_a_pickle_of_the_same_name_elsewhere_is_another(folder: Path, tmp_path: Path) -> None:
    for number, place in enumerate(("a", "b")):
        (tmp_path / place).mkdir()
        torch.save({"w": torch.full((2,), float(number))}, tmp_path / place / "x.pth")
    one, other = (tmp_path / place / "x.pth" for place in "ab")
    assert import_weights(one) == find_weights(str(one)) == folder / "x.safetensors"
    with pytest.raises(RefusedWeightsError, match="imported from another"):
        find_weights(str(other))
    made = import_weights(other, folder=other.parent)
    assert find_weights(str(other)) == made
    made.unlink()
    other.unlink()
    with pytest.raises(WeightsMissingError, match="not found"):  # not silently the other of this name
        find_weights(str(other))


def test_without_a_folder_a_pickle_is_imported_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUPIPE_WEIGHTS", raising=False)
    torch.save(net().state_dict(), tmp_path / "x.pth")
    assert import_weights(tmp_path / "x.pth") == tmp_path / "x.safetensors" == find_weights(str(tmp_path / "x.pth"))


def test_what_was_imported_from_another_file_than_the_published_one_is_refused(folder: Path) -> None:
    name = "regnet_y_400mf-c65dace8.pth"
    origin = json.dumps({"source": name, "source_sha256": "0" * 64})
    save_file({"a": torch.zeros(1)}, folder / "regnet_y_400mf-c65dace8.safetensors", {"aupipe": origin})
    for attempt in (find_weights, identify):
        with pytest.raises(RefusedWeightsError, match="expected c65dace8"):
            attempt(name)


def test_only_the_import_can_reach_the_reader_of_pickles() -> None:
    package = Path(aupipe.__file__).parent
    readers = {"pickles", "pickled_objects", "pickled_checkpoint", "bounded"}
    asks = re.compile(rf"weights\.({'|'.join(readers)}) import|torch\.load\(")
    reaching = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if asks.search(path.read_text())}
    assert reaching == {f"extract/weights/{name}.py" for name in ("folder", *readers - {"bounded"})}


@pytest.mark.assets
def test_the_real_asset_files_are_the_known_ones(assets: Path) -> None:
    names = [name for name in KNOWN_WEIGHTS if (assets / "weights" / name).is_file()]
    assert len(names) >= 4
    checks = {checked.path.name: checked.check for checked in verify_weights(assets / "weights")}
    assert all(checks[name] == "as published" for name in names)
    assert "not the published file" not in checks.values()


def test_known_weights_say_what_one_must_know() -> None:
    for name, known in KNOWN_WEIGHTS.items():
        assert known.licence, name
        assert known.how, name
        assert known.used_by, name
        assert set(known.sha256) <= set("0123456789abcdef"), name
        assert not (known.commercial and "non-commercial" in known.licence), name
    r50 = "glint360k_cosface_r50_fp16_0.1/backbone.pth"
    assert known_weights(f"/somewhere/{r50}") is KNOWN_WEIGHTS[r50]
    assert known_weights("backbone.pth") is None  # says nothing without its folder


def test_importing_writes_safetensors_that_know_where_they_come_from(folder: Path, tmp_path: Path) -> None:
    state = net().state_dict()
    source = tmp_path / "glint360k_cosface_r50_fp16_0.1" / "backbone.pth"
    source.parent.mkdir()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, source)
    target = import_weights(source)
    assert target == folder / "glint360k_cosface_r50_fp16_0.1-backbone.safetensors"
    found = load_file(target)
    assert all(torch.equal(found[key], state[key]) for key in state)
    weights = identify(target.name)
    assert weights.sha256 == file_sha256(target)
    assert "non-commercial" in weights.licence
    assert import_weights(source) == target  # again: the same content is no conflict
    state["3.bias"] += 1
    torch.save(state, source)
    with pytest.raises(UsageError, match="holds other weights"):
        import_weights(source)
    assert import_weights(source, "mine.safetensors") == folder / "mine.safetensors"
    assert not list(folder.glob("*.part"))


def test_importing_onnx_copies_and_a_hostile_file_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    onnx = tmp_path / "x.onnx"
    onnx.write_bytes(b"a network")
    assert import_weights(onnx).read_bytes() == b"a network"
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps(Hostile(os.system, f"touch {tmp_path / 'ran'}")))
    with pytest.raises(RefusedWeightsError, match="nothing of it was run"):
        import_weights(evil)
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        import_weights(evil, "evil.pth")
    assert sorted(path.name for path in folder.iterdir()) == ["x.onnx"]
    assert not (tmp_path / "ran").exists()


def test_the_list_shows_what_is_there_and_verify_what_it_is(folder: Path) -> None:
    name = "face_detection_yunet_2023mar.onnx"
    (folder / name).write_bytes(b"another file")
    save_file({"a": torch.zeros(1)}, folder / "own.safetensors", {"licence": "MIT"})
    (folder / "broken.safetensors").write_bytes(b"x")
    there = {line.name for line in list_weights() if line.path}
    assert there == {name}
    assert len(list_weights()) == len(KNOWN_WEIGHTS)
    checked = {found.path.name: (found.check, found.licence) for found in verify_weights()}
    assert checked == {
        name: ("not the published file", "MIT"),
        "own.safetensors": ("unknown", "MIT"),
        "broken.safetensors": ("unreadable", "unknown"),
    }
