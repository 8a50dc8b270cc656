"""How commands end when they are asked to, what they do when nobody reads them, and what names do to a terminal."""

from __future__ import annotations

import ast
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aupipe.logs import LineFormatter, printable
from aupipe.store import create_store, open_store
from aupipe.store.maintenance.verify import check
from aupipe.types import FeatureSpec
from tests.cli.conftest import HOG, NO_FACES, workers_of
from tests.cli.test_train import fill
from tests.conftest import write_video

AUPIPE = [sys.executable, "-c", "from aupipe.cli import main; main()"]
SPEC = FeatureSpec("hog", "visual", "hog", 1)
EVIL = "evil\x1b[31m\x1b]0;owned\x07\nFORGED \u202e\udcff.mp4"
CONFIG = NO_FACES + HOG
LAST_WORDS = {
    143: "aupipe: terminated; published items stay stored, run the same command to continue",
    130: "aupipe: interrupted; published items stay stored, run the same command to continue",
}


def start(
    folder: Path, *arguments: object, ignored: tuple[signal.Signals, ...] = (), **streams: int
) -> subprocess.Popen:
    """A command in a process of its own; signals do there what they do by default."""

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | streams
    return subprocess.Popen(
        [*AUPIPE, *map(str, arguments)], cwd=folder, text=True, errors="surrogateescape", preexec_fn=prepare, **given
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 600 failures, more than a pipe holds when they are listed."""
    folder = tmp_path_factory.mktemp("stored")
    with create_store(folder / "features", "zarr") as store:
        store.publish("a.mp4", SPEC, np.zeros((2, 3)))
        store.publish(EVIL, SPEC, np.zeros((2, 3)))
        for i in range(600):
            store.fail(f"{i:04}.mp4", SPEC, f"{i:04}.mp4: no video in it, or none that is known: {'x' * 200}")
    (folder / "aupipe.toml").write_text(CONFIG)
    write_video(folder / "videos" / "a.mp4")
    return folder


@pytest.fixture
def asking(stored: Path) -> Iterator[subprocess.Popen]:
    """A command that waits for an answer, and has said so."""
    process = start(stored, "store", "purge", "a.mp4", stdin=subprocess.PIPE)
    wait_for_question(process)
    yield process
    process.kill()
    process.communicate()


def wait_for_question(process: subprocess.Popen) -> None:
    assert process.stderr is not None
    said = ""
    while "for good?" not in said:
        sign = process.stderr.read(1)
        assert sign, said
        said += sign


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGUSR1, 143), (signal.SIGUSR2, 143), (signal.SIGINT, 130)],
)
def test_signals_that_ask_a_command_to_end_end_it_with_one_line(
    asking: subprocess.Popen, number: signal.Signals, code: int
) -> None:
    asking.send_signal(number)
    _, err = asking.communicate(timeout=30)
    assert asking.returncode == code, err
    assert [line for line in err.splitlines() if line.startswith("aupipe")] == [LAST_WORDS[code]]
    assert "Traceback" not in err


def test_signals_that_were_ignored_at_the_start_stay_ignored(stored: Path) -> None:
    ignored = (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)
    process = start(stored, "store", "purge", "a.mp4", stdin=subprocess.PIPE, ignored=ignored)
    wait_for_question(process)
    for number in ignored:
        process.send_signal(number)
    out, err = process.communicate("n\n", timeout=30)
    assert (process.returncode, out) == (0, "nothing erased\n"), err


def test_a_second_signal_ends_a_command_that_is_putting_things_in_order(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom aupipe.cli import signals\nsignals.catch_signals()\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "finally:\n    print('cleaning', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 143
    process.stdout.close()


def test_a_signal_that_a_library_loses_still_ends_the_command(tmp_path: Path) -> None:
    code = (
        "import time\nfrom aupipe.cli import signals\nsignals.GRACE_S = 0.2\nsignals.catch_signals()\n"
        "while True:\n    try:\n        print('ready', flush=True)\n        time.sleep(60)\n"
        "    except BaseException:\n        pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    process.stdout.close()


def test_a_warning_of_slurm_ends_extraction_with_its_workers_and_nothing_half_published(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    made = write_video(tmp_path / "made.mp4", frames=800)
    for i in range(16):  # more than the worker process holds
        shutil.copy(made, tmp_path / "videos" / f"{i:02}.mp4")
    (tmp_path / "aupipe.toml").write_text(CONFIG)
    process = start(tmp_path, "extract", "--cpu", "--workers", "1")
    deadline = time.monotonic() + 100
    while not any(b'"done"' in file.read_bytes() for file in tmp_path.glob("features/journal/*.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = workers_of(process.pid)
    assert workers
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert LAST_WORDS[143] in err.splitlines()
    assert not any(worker.is_running() for worker in workers)
    store = open_store(tmp_path / "features")
    assert check(store).damage == []  # type: ignore[arg-type]
    done = {record.recording for record in store.records() if record.state == "done"}
    assert done
    assert not [record for record in store.records() if record.state == "failed"]


# Training


TRAIN = ("train", "--recipe", "tcn", "--feature", "hog", "--cpu", "--set", "epochs=4000", "--set", "patience=4000")


@pytest.fixture(scope="module")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trainable")
    fill(root)
    return root


def end_training(folder: Path, moment_s: float, number: signal.Signals, run: str) -> None:
    """Train, send a signal some time after the first epoch (or the start, below 0), and look at what is left."""
    process = start(folder, *TRAIN, "--out", run)
    if moment_s >= 0:
        while not (folder / run / "head.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.01)
    time.sleep(abs(moment_s))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    code = 130 if number == signal.SIGINT else 143
    if moment_s < 0 and process.returncode == -number:
        return  # before Python had come to aupipe
    assert process.returncode == code, (moment_s, err[-2000:])
    word = LAST_WORDS[code].partition(";")[0]
    assert any(line.startswith(word) for line in err.splitlines()), err[-2000:]
    assert "Traceback" not in err
    assert not re.search("terminate called|core dumped|Exception ignored", err), err[-2000:]
    if (folder / run / "head.safetensors").exists():
        from aupipe.train.checkpoint import load_checkpoint
        from aupipe.train.run import load_run, load_weights

        checkpoint = load_checkpoint(folder / run)
        assert checkpoint is not None
        assert checkpoint.run.history
        assert not load_run(folder / run).finished
        load_weights(load_run(folder / run))
        assert f"{word}; to continue: aupipe train --resume {run}" in err.splitlines()


@pytest.mark.parametrize(("moment_s", "number"), [(0.05, signal.SIGTERM), (0.3, signal.SIGINT)])
def test_training_that_is_told_to_end_ends_whole(trainable: Path, moment_s: float, number: signal.Signals) -> None:
    end_training(trainable, moment_s, number, f"runs/{moment_s}")


@pytest.mark.slow
def test_training_ends_whole_whenever_it_is_told_to(trainable: Path) -> None:
    rng = np.random.default_rng(5)
    moments = [*-rng.uniform(0.8, 4, 8), *rng.uniform(0, 2, 16)]  # while it loads, and while it trains
    for i, moment_s in enumerate(moments):
        end_training(trainable, float(moment_s), signal.SIGTERM, f"runs/slow{i}")
    name = next(path.parent for path in sorted((trainable / "runs").glob("slow*/head.safetensors")))
    before = json.loads((name / "run.json").read_text())
    process = start(trainable, "train", "--resume", name.relative_to(trainable), "--cpu")
    while json.loads((name / "run.json").read_text())["history"] == before["history"]:
        if process.poll() is not None:
            pytest.fail(process.communicate()[1])
        time.sleep(0.1)
    process.kill()
    process.communicate()


# Streams

QUIET = [
    ("store", "ls"),
    ("store", "ls", "--json"),
    ("status", "--failed"),
    ("inspect", "--json"),
    ("weights", "list"),
    ("--help",),
    ("nosuch",),
]
CODES = {("nosuch",): 2, ("status", "--failed"): 0}


def run_all(folder: Path, redirect: str) -> dict[tuple[str, ...], tuple[int, str, str]]:
    """Every command with a redirection as a shell knows it: exit code, stdout, stderr."""
    line = f'"$@" {redirect}'
    running = {
        command: subprocess.Popen(
            ["bash", "-c", line, "bash", *AUPIPE, *command],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        for command in QUIET
    }
    found = {}
    for command, process in running.items():
        out, err = process.communicate(timeout=120)
        found[command] = process.returncode, out, err
    return found


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_change_no_exit_code_and_give_no_traceback(stored: Path, redirect: str) -> None:
    for command, (code, out, err) in run_all(stored, redirect).items():
        assert code == CODES.get(command, 0), (command, err)
        assert "Traceback" not in out + err
        assert "rror" not in err or command == ("nosuch",), err


def test_a_reader_that_goes_away_changes_no_exit_code_and_gives_no_traceback(stored: Path) -> None:
    for command, (code, out, err) in run_all(stored, '| head -1; exit "${PIPESTATUS[0]}"').items():
        assert code == CODES.get(command, 0), (command, err)
        assert "Traceback" not in out + err
        assert "rror" not in err or command == ("nosuch",), err
        assert len(out.splitlines()) <= 1


def test_output_that_a_full_disk_does_not_take_is_an_error_of_one_line(stored: Path) -> None:
    for command, (code, _, err) in run_all(stored, ">/dev/full").items():
        if command != ("nosuch",):
            assert code == 1, command
            assert err.splitlines()[-1].startswith("aupipe: ") and "No space left" in err  # noqa: PT018
            assert "Traceback" not in err


# Names


def check_escaped(*texts: str) -> None:
    for text in texts:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", text), text
        assert not any(line.startswith("FORGED") for line in text.splitlines()), text


def test_hostile_names_are_escaped_wherever_they_are_printed(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "plain.mp4").rename(tmp_path / "videos" / EVIL)
    (tmp_path / "videos" / f"broken{EVIL}").write_bytes(b"\x1aE\xdf\xa3" + b"no video" * 100)
    (tmp_path / "aupipe.toml").write_text(CONFIG)
    making = (
        (("extract", "--dry-run"), 0),
        (("-v", "extract", "--cpu"), 3),
    )
    showing = (
        (("extract", "--cpu"), 3),
        (("status", "--failed"), 3),
        (("inspect", EVIL), 0),
        (("inspect", f"no{EVIL}"), 2),
        (("store", "ls"), 0),
        (("status", "--store", EVIL), 10),
        (("status", "--config", EVIL), 2),
        (("predict", EVIL), 2),
        (("weights", "import", EVIL), 2),
        ((EVIL,), 2),
    )
    said = {}
    for together in (*((one,) for one in making), showing, ((("store", "purge", "--yes", EVIL), 0),)):
        for process, command, code in [(start(tmp_path, *command), command, code) for command, code in together]:
            out, err = process.communicate(timeout=120)
            assert process.returncode == code, (command, err)
            check_escaped(out, err)
            assert "Traceback" not in err
            said[command] = out + err
    for command in (("extract", "--dry-run"), ("status", "--failed"), ("store", "ls"), ("inspect", EVIL)):
        assert r"\x1b[31m" in said[command]
        assert r"\udcff" in said[command]


def test_listings_for_scripts_are_json_whatever_the_names(stored: Path) -> None:
    out, err = start(stored, "store", "ls", "--json").communicate(timeout=60)
    rows = [json.loads(line) for line in out.splitlines()]
    assert EVIL in {row.get("recording") for row in rows}
    assert err == ""


def test_log_lines_stay_lines() -> None:
    formatter = LineFormatter("%(levelname)s %(message)s")
    record = logging.LogRecord("aupipe", logging.WARNING, "", 0, "%s: cut short\n", (EVIL,), None)
    assert formatter.format(record) == f"WARNING {printable(EVIL)}: cut short"
    try:
        raise ValueError(EVIL)
    except ValueError:
        record.exc_info = sys.exc_info()
    check_escaped(formatter.format(record))
    formatter.format(record).encode()


def test_only_one_module_prints() -> None:
    package = Path(__file__).parent.parent.parent / "aupipe"
    found = []
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts == ("cli", "output.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"):
                    found.append(f"{path.relative_to(package)}:{node.lineno}: {name}")
    assert found == []


def test_every_process_logs_in_the_same_form() -> None:
    package = Path(__file__).parent.parent.parent / "aupipe"
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if "basicConfig(" in path.read_text()}
    assert found == {"logs.py"}
    assert "log_to_stderr(" in (package / "extract" / "executors" / "worker.py").read_text()
