"""An ONNX network is all of its files: tensors kept outside are part of what names a feature."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.encoders.visual.onnx import Onnx
from aupipe.extract.weights import RefusedWeightsError, file_sha256
from aupipe.extract.weights.folder import import_weights
from aupipe.extract.weights.onnx_file import external_files
from aupipe.extract.weights.onnx_session import open_session

onnx = pytest.importorskip("onnx")
SIDE = 8


def build(scale: float = 1.0, inside: str = ""):
    """A network that multiplies a picture by a tensor; the tensor lies in a subgraph where ``inside`` says so."""
    from onnx import TensorProto, helper, numpy_helper

    shape = (1, 3, SIDE, SIDE)
    weight = numpy_helper.from_array(np.full(shape, scale, np.float32), "weight")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    nodes, weights = [helper.make_node("Mul", ["x", "weight"], ["y"])], [weight]
    if inside == "constant":
        nodes, weights = [helper.make_node("Constant", [], ["weight"], value=weight), *nodes], []
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(path: Path, scale: float = 1.0, inside: str = "", location: str = "net.onnx.data") -> Path:
    """Write the network with its tensor in a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(
        build(scale, inside),
        str(path),
        save_as_external_data=True,
        location=location,
        size_threshold=0,
        convert_attribute=bool(inside),
    )
    return path


def relocate(path: Path, location: str) -> None:
    """Say in the file that its tensor lies elsewhere."""
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("inside", ["", "constant"])
def test_other_tensors_outside_are_another_feature(tmp_path: Path, inside: str) -> None:
    path = save(tmp_path / "net.onnx", 1.0, inside)
    before, network = Onnx(str(path), SIDE).identify_weights(), file_sha256(path)
    save(tmp_path / "other" / "net.onnx", 2.0, inside)
    (tmp_path / "other" / "net.onnx.data").replace(tmp_path / "net.onnx.data")
    assert file_sha256(path) == network  # the file itself says the same
    assert Onnx(str(path), SIDE).identify_weights().sha256 != before.sha256
    save(tmp_path / "again" / "net.onnx", 2.0, inside)
    elsewhere = Onnx(str(tmp_path / "again" / "net.onnx"), SIDE).identify_weights()
    assert elsewhere == Onnx(str(path), SIDE).identify_weights()  # the same files, wherever they lie


def test_a_network_in_one_file_keeps_the_identity_it_had(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(build().SerializeToString())
    assert external_files(path) == []
    assert Onnx(str(path), SIDE).identify_weights().sha256 == file_sha256(path)


@pytest.mark.parametrize("location", ["../secret.data", "/etc/passwd", "sub/../../secret.data", "linked.data", ""])
def test_a_location_outside_the_folder_is_refused_with_what_to_do(tmp_path: Path, location: str) -> None:
    path = save(tmp_path / "weights" / "net.onnx")
    (tmp_path / "weights" / "net.onnx.data").replace(tmp_path / "secret.data")
    (tmp_path / "weights" / "linked.data").symlink_to(tmp_path / "secret.data")
    relocate(path, location)
    for ask in (Onnx(str(path), SIDE).identify_weights, lambda: open_session(path, "cpu")):
        with pytest.raises(RefusedWeightsError, match="outside its own folder: save it as one file") as caught:
            ask()
        assert caught.value.exit_code == 12


def test_a_location_behind_a_field_that_onnx_does_not_know_is_seen(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx")
    group = b"\xa3\x06\xa4\x06"  # field 100 as a group, begun and ended: parsers skip it
    path.write_bytes(group + path.read_bytes())
    assert external_files(path) == [("net.onnx.data", tmp_path / "net.onnx.data")]


@pytest.mark.parametrize("content", [b"\x0a\xff", b"weights", bytes(range(256))])
def test_what_is_no_onnx_is_refused_where_tensors_are_looked_for(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(RefusedWeightsError, match=r"net\.onnx does not open as an ONNX network"):
        external_files(tmp_path / "net.onnx")


def test_tensors_that_are_not_beside_the_file_are_missing_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx")
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(WeightsMissingError, match=r"'net.onnx.data', which is not beside it"):
        Onnx(str(path), SIDE).identify_weights()


def test_an_import_brings_every_file_and_replaces_none(tmp_path: Path) -> None:
    source, folder = save(tmp_path / "downloads" / "net.onnx", 3.0), tmp_path / "weights"
    target = import_weights(source, folder=folder)
    assert external_files(target) == [("net.onnx.data", folder / "net.onnx.data")]
    rows = np.ones((1, 3, SIDE, SIDE), np.float32)
    assert open_session(target, "cpu").run(None, {"x": rows})[0].max() == 3
    save(source, 4.0)
    with pytest.raises(UsageError, match=r"net\.onnx\.data exists and holds other weights"):
        import_weights(source, "new.onnx", folder)
    assert not (folder / "new.onnx").exists()
    assert open_session(target, "cpu").run(None, {"x": rows})[0].max() == 3


def test_onnxruntime_reports_no_usage(tmp_path: Path) -> None:
    """Its builds for some systems keep a device id and a queue of events in the cache folder, and send them."""
    save(tmp_path / "net.onnx")
    opened = f"open_session(Path({str(tmp_path / 'net.onnx')!r}))"
    code = f"from pathlib import Path; from aupipe.extract.weights.onnx_session import open_session; {opened}"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list((tmp_path / "cache").rglob("*onnxruntime*"))
