"""`aupipe weights pull`: files come whole or not at all, over cut connections, from the address, a mirror, a proxy."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock

from aupipe.cli import cli
from aupipe.errors import AupipeError
from aupipe.extract.executors.messages import environment_of
from aupipe.extract.weights import KNOWN_WEIGHTS, KnownWeights, download
from aupipe.extract.weights.folder import NOTES
from aupipe.local_models import WeightsConfig, configure_weights, weights_folder
from tests.cli.test_json import check_shapes

CONTENT = bytes(range(256)) * 2000
NC = "det_10g.onnx"  # non-commercial, no digest stated
OTHER_NC = "glintr100.onnx"  # under the same licence
FREE = "mobilenet0.25_Final.pth"  # MIT, no digest stated
KNOWN = "face_detection_yunet_2023mar.onnx"  # size and sha256 are stated


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path. ``cuts``: how many bytes each of the next answers sends before it breaks off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.codes: list[int] = []  # of the next answers, in place of the file
        self.asked: list[tuple[str, str]] = []  # path and range
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append((self.path, asked))
        content = self.server.files.get(self.path)
        if self.server.codes or content is None:
            self.send_error(self.server.codes.pop(0) if self.server.codes else 404)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        if start and (not self.server.ranges or self.headers.get("If-Range") != tag):
            start = 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start : start + cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(download, "WAITS_S", (0.0,) * 4)
    monkeypatch.setenv("AUPIPE_MIRROR", found.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, and what went to stderr, the error included."""
    result = CliRunner().invoke(cli, ["weights", *map(str, arguments)], standalone_mode=False)
    if isinstance(result.exception, AupipeError):
        return result.exception.exit_code, result.stdout, result.stderr + str(result.exception)
    if result.exception is not None:
        raise result.exception
    return result.return_value or 0, result.stdout, result.stderr


def left(folder: Path) -> set[str]:
    """What a pull has left in the folder; locks are not among it."""
    return {path.name for path in folder.iterdir()}


def test_a_licence_is_shown_and_accepted_once(folder: Path, server: Server) -> None:
    server.files = {f"/{NC}": CONTENT, f"/{OTHER_NC}": CONTENT}
    code, _, err = run("pull", NC)
    assert code == 2
    assert "its licence, non-commercial research (insightface), allows no commercial use: --accept-license" in err
    assert (server.asked, left(folder)) == ([], set())
    code, out, err = run("pull", NC, "--accept-license")
    assert (code, out) == (0, f"wrote {folder / NC}\n")
    assert (folder / NC).read_bytes() == CONTENT
    assert "licence non-commercial research (insightface)" in err
    assert "0.5 MB" in err
    assert run("pull", OTHER_NC)[0] == 0
    assert left(folder) == {NC, OTHER_NC, NOTES}


def test_a_digest_that_nobody_states_is_kept_at_the_first_pull_and_compared_from_then_on(
    folder: Path, server: Server
) -> None:
    server.files = {f"/{NC}": CONTENT}
    err = run("pull", NC, "--accept-license")[2]
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert f"the publisher states no sha256; that of this first pull is kept in {NOTES}: {digest}" in err
    assert "as first pulled" in run("verify")[1]
    assert "there already" in run("pull", NC)[2]
    (folder / NC).write_bytes(b"changed")
    assert run("verify")[0] == 12
    (folder / NC).unlink()
    server.files = {f"/{NC}": CONTENT[::-1]}
    code, _, err = run("pull", NC)
    assert code == 12
    assert f"is not what was pulled before as {NC}" in err
    assert left(folder) == {NOTES}


def test_what_is_not_the_published_file_is_refused_and_leaves_nothing(folder: Path, server: Server) -> None:
    for content, words in ((CONTENT, "512,000 bytes, expected 232,589"), (CONTENT[:232_589], "expected 8f2383e4")):
        server.files = {f"/{KNOWN}": content}
        code, out, err = run("pull", KNOWN)
        assert (code, out, left(folder)) == (12, "", set())
        assert f"{server.url}/{KNOWN} is not the published {KNOWN}" in err
        assert words in err


def test_as_a_user_types_it_the_exit_code_is_12_and_the_last_line_says_why(folder: Path, server: Server) -> None:
    server.files = {f"/{KNOWN}": CONTENT}
    command = [sys.executable, "-c", "from aupipe.cli import main; main()", "weights", "pull", KNOWN]
    answer = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (12, "")
    assert answer.stderr.splitlines()[-1].startswith(f"aupipe: {server.url}/{KNOWN} is not the published {KNOWN}: ")
    assert "Traceback" not in answer.stderr


def test_a_cut_connection_goes_on_from_the_last_byte(folder: Path, server: Server) -> None:
    server.files, server.cuts = {f"/{NC}": CONTENT}, [1000, 200_000, 5]
    assert run("pull", NC, "--accept-license")[0] == 0
    assert (folder / NC).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["", "bytes=1000-", "bytes=201000-", "bytes=201005-"]
    assert left(folder) == {NC, NOTES}


def test_a_download_that_was_stopped_goes_on_in_the_next_call(folder: Path, server: Server) -> None:
    server.files, server.cuts = {f"/{NC}": CONTENT}, [1000, *[0] * 10]
    code, _, err = run("pull", NC, "--accept-license")
    assert code == 12
    assert "1,000 bytes are kept, the same command goes on from there" in err
    assert not (folder / NC).exists()
    assert "unknown" not in run("verify")[1]  # a part is no file of weights
    server.cuts.clear()
    server.asked.clear()
    assert run("pull", NC)[0] == 0
    assert (folder / NC).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["bytes=1000-"]


def test_a_part_of_another_version_is_not_gone_on_with(folder: Path, server: Server) -> None:
    server.files, server.cuts = {f"/{NC}": CONTENT}, [1000, *[0] * 10]
    assert run("pull", NC, "--accept-license")[0] == 12
    server.files, server.cuts = {f"/{NC}": CONTENT[::-1]}, []
    assert run("pull", NC)[0] == 0
    assert (folder / NC).read_bytes() == CONTENT[::-1]


def test_a_part_that_is_whole_already_is_only_checked(folder: Path, server: Server) -> None:
    server.files, server.cuts = {f"/{NC}": CONTENT}, [1000, *[0] * 10]
    assert run("pull", NC, "--accept-license")[0] == 12
    (folder / f"{NC}.part").write_bytes(CONTENT)
    server.cuts = []
    assert run("pull", NC)[0] == 0
    assert (folder / NC).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(folder: Path, server: Server) -> None:
    server.files, server.cuts, server.ranges = {f"/{NC}": CONTENT}, [1000], False
    assert run("pull", NC, "--accept-license")[0] == 0
    assert (folder / NC).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_refusal_is_one_line(folder: Path, server: Server) -> None:
    server.files, server.codes = {f"/{NC}": CONTENT}, [503, 429]
    assert run("pull", NC, "--accept-license")[0] == 0
    code, _, err = run("pull", OTHER_NC)
    assert code == 12
    assert err.splitlines()[-1] == f"{server.url}/{OTHER_NC}: the server answered 404 Not Found"
    server.codes = [503] * 10
    assert "503 Service Unavailable" in run("pull", OTHER_NC)[2]
    assert len(server.codes) == 10 - download.TRIES


def test_nobody_there_is_one_line(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUPIPE_MIRROR", "http://127.0.0.1:9")
    code, _, err = run("pull", NC, "--accept-license")
    assert code == 12
    assert "Connection refused" in err.splitlines()[-1]


def test_the_proxy_of_the_environment_is_asked(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("AUPIPE_MIRROR", "http://mirror.invalid/weights/")
    server.files = {f"http://mirror.invalid/weights/{NC}": CONTENT}
    assert run("pull", NC, "--accept-license")[0] == 0
    assert (folder / NC).read_bytes() == CONTENT


def test_a_file_of_a_pack_is_taken_out_of_it(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUPIPE_MIRROR")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("pack/other.onnx", b"other")
        archive.writestr(f"pack/{NC}", CONTENT)
    server.files = {"/pack.zip": packed.getvalue(), "/empty.zip": b"no zip"}
    for name, archive in ((NC, "pack.zip"), (OTHER_NC, "pack.zip"), (KNOWN, "empty.zip")):
        monkeypatch.setitem(KNOWN_WEIGHTS, name, KnownWeights("", "MIT", "x", True, "", f"{server.url}/{archive}"))
    assert run("pull", NC)[0] == 0
    assert (folder / NC).read_bytes() == CONTENT
    assert f"the archive holds no {OTHER_NC}" in run("pull", OTHER_NC)[2]
    assert "gave no archive" in run("pull", KNOWN)[2]
    assert left(folder) == {NC, NOTES}


def checkpoint() -> bytes:
    import torch

    content = io.BytesIO()
    torch.save({"layer.weight": torch.ones(2, 3)}, content)
    return content.getvalue()


def test_a_pickle_is_imported_and_only_what_was_imported_stays(folder: Path, server: Server) -> None:
    server.files = {f"/{FREE}": checkpoint(), "/Resnet50_Final.pth": b"no checkpoint"}
    code, out, _ = run("pull", FREE)
    assert (code, out) == (0, f"wrote {folder / 'mobilenet0.25_Final.safetensors'}\n")
    assert left(folder) == {"mobilenet0.25_Final.safetensors", NOTES}
    listed = {row["name"]: row for row in json.loads(run("list", "--json")[1])["weights"]}
    assert listed[FREE]["here"]
    assert run("pull", "Resnet50_Final.pth")[0] == 12
    assert left(folder) == {"mobilenet0.25_Final.safetensors", NOTES}  # nothing of it, and no digest to compare with
    server.files["/Resnet50_Final.pth"] = checkpoint()
    code, out, _ = run("pull", "Resnet50_Final.pth", "--json")
    assert (code, check_shapes("weights pull", out)[-1]["fetched"]) == (0, 1)


def test_a_pickle_that_lies_in_the_folder_is_checked_and_imported(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put there by hand, or left by a call that was killed after the download."""
    (folder / FREE).write_bytes(b"no checkpoint")
    assert run("pull", FREE)[0] == 12
    content = checkpoint()
    (folder / FREE).write_bytes(content)
    with monkeypatch.context() as other:
        other.setitem(KNOWN_WEIGHTS, FREE, KnownWeights("0" * 64, "MIT", "x", True))
        code, _, err = run("pull", FREE)
        assert code == 12
        assert f"{folder / FREE} is not the published {FREE}: sha256 " in err
    assert run("pull", FREE)[:2] == (0, f"wrote {folder / 'mobilenet0.25_Final.safetensors'}\n")
    assert left(folder) == {FREE, "mobilenet0.25_Final.safetensors"}
    assert "there already" in run("pull", FREE)[2]
    assert not server.asked


def test_a_full_disk_is_no_fault_of_the_network(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails names no file."""
    server.files = {f"/{NC}": CONTENT}

    class Full(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "open", lambda path, mode: Full(), raising=False)
    with pytest.raises(OSError, match="No space left on device") as found:
        run("pull", NC, "--accept-license")
    assert found.value.filename == str(folder / f"{NC}.part")
    assert len(server.asked) == 1


def test_a_recipe_says_what_is_pulled_and_what_has_to_come_by_hand(folder: Path, server: Server) -> None:
    recipe = folder.parent / "mine.toml"
    tables = [("emotion", "hsemotion", ""), ("id", "arcface", ""), ("speech", "speech", 'model = "facebook/x"\n')]
    text = "".join(
        f'[[encoder]]\nname = "{name}"\nmodality = "{"audio" if more else "visual"}"\nkind = "{kind}"\n{more}'
        for name, kind, more in tables
    )
    recipe.write_text(
        f'features = ["emotion", "id", "speech"]\n[head]\nkind = "linear"\n[loss.au]\nkind = "bce"\n{text}'
    )
    names = ["enet_b2_8.pt", "glint360k_cosface_r100_fp16_0.1/backbone.pth"]
    server.files = {f"/{name}": checkpoint() for name in names}
    code, out, err = run("pull", "--recipe", recipe, "--task", "au", "--accept-license")
    assert [path.name for path in folder.glob("*.safetensors")], (out, err)
    assert len(out.splitlines()) == 2
    assert code == 12
    assert "not fetched: model 'facebook/x' is not on this machine: `hf download facebook/x`" in err


def test_a_file_without_an_address_says_how_it_comes(folder: Path) -> None:
    code, _, err = run("pull", "ghfeat-encoder-ffhq-256.pkl")
    assert code == 12
    assert "has no address that a program can fetch: follow the link in the README of genforce/ghfeat" in err
    assert "Did you mean 'enet_b2_8.pt'" in run("pull", "enet_b2_8.pth")[2]
    assert run("pull")[0] == 2


def test_two_processes_do_not_fetch_one_file(folder: Path, server: Server) -> None:
    server.files = {f"/{NC}": CONTENT}
    with FileLock(str(folder / f"{NC}.lock")):
        code, _, err = run("pull", NC, "--accept-license")
        assert f"{NC}.lock" in left(folder)  # it is that of the other
    assert (code, server.asked) == (15, [])
    assert "another process fetches it" in err


HOLD = """
import sys, time
from pathlib import Path
from aupipe.extract.weights.pull import _locked
inside = Path(sys.argv[1] + ".inside")
for _ in range(40):
    with _locked(Path(sys.argv[1])):
        inside.touch(exist_ok=False)  # fails where another process holds the lock too
        time.sleep(0.001)
        inside.unlink()
"""


def test_of_processes_that_wait_for_a_lock_one_holds_it_and_none_leaves_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "x")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in running] == [("", 0)] * 3
    assert left(tmp_path) == set()


def test_every_address_of_the_table_says_whether_it_was_tried_and_what_is_known(folder: Path) -> None:
    for name, known in KNOWN_WEIGHTS.items():
        assert known.url.startswith("https://") or not known.url, name
        assert not known.tried, name  # change the docs with it
    text = run("list")[1]
    assert text.count("address not tried") == sum(bool(known.url) for known in KNOWN_WEIGHTS.values())


def test_the_folder_of_weights_is_configured_and_the_environment_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aupipe.toml").write_text('[weights]\npath = "here"\n')
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / NC).write_bytes(CONTENT)
    assert NC in run("verify")[1]
    assert environment_of()["AUPIPE_WEIGHTS"] == str(tmp_path / "here")  # what worker processes are started with
    configure_weights(WeightsConfig())
    assert weights_folder() is None
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    configure_weights(WeightsConfig(tmp_path / "here"))
    assert weights_folder() == tmp_path
