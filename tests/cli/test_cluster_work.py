"""train, transcribe, reproduce and store verify with --scheduler: what a local run gives, whatever is killed meanwhile.

A real Dask cluster in processes, as in `test_cluster.py`. The machinery itself is tested in `test_executors.py`.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from aupipe.cli import store_verify
from aupipe.cli.work import Place
from aupipe.demo import draw_corpus
from aupipe.extract.executors.work import Died
from aupipe.store import create_store, open_store
from aupipe.store.maintenance.verify import check
from aupipe.types import FeatureSpec
from tests.cli.conftest import Project
from tests.cli.mounts import Mounting
from tests.cli.test_cluster import end, wait_for
from tests.cli.test_train import SMALL, fill
from tests.cli.test_transcribe import CONFIG as TALKS
from tests.extract.dask_cluster import Cluster, dask_cluster
from tests.extract.test_transcript import save_tiny_whisper
from tests.made import write_talking

Arrays = Callable[[Path], dict[tuple[str, str], bytes]]
FAST = ("--recipe", "baseline", "--feature", "hog", *SMALL, "--set", "predict_hop=32")
SEARCH = ("train", *FAST, "--sweep", "lr=0.01,0.1", "--folds", "3")
BLOCK = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8").partition("## More than")[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as started:
        yield started


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    fill(folder)
    return Project(folder, {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")})


def weights(folder: Path) -> dict[str, dict[str, bytes]]:
    """The weights of every run below a folder, as bytes."""
    return {
        str(path.parent.relative_to(folder)): {name: value.tobytes() for name, value in load_file(path).items()}
        for path in sorted(folder.rglob("head.safetensors"))
    }


def result_of(folder: Path) -> dict:
    return json.loads((folder / "sweep.json").read_text())


def work_processes(cluster: Cluster, name: str = "") -> list[psutil.Process]:
    """The processes that work, of all agents of this cluster, or of one."""
    pids = [process.pid for worker, process in cluster.workers.items() if not name or worker == name]
    found = [child for pid in pids if psutil.pid_exists(pid) for child in psutil.Process(pid).children()]
    return [child for child in found if "aupipe.extract.executors.work_process" in child.cmdline()]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_chunks_of_a_store_that_are_checked_elsewhere_give_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickled as for another process; a chunk that kills its process is divided, and the item that does is named."""
    spec = FeatureSpec("hog", "visual", "hog", 1, {"cell_px": 14})
    store = create_store(tmp_path / "features")
    for number in range(6):
        store.publish(f"{number}.mp4", spec, np.zeros((2, 8), np.float32))
    flip(max(Path(store.item_path(store.published("1.mp4", spec.id))).rglob("c.*"), key=lambda p: p.stat().st_size))
    killer: list[str] = []

    def run(place: Place, work: object, chunks: list, **more: object) -> Iterator[tuple[object, object]]:
        for chunk in reversed(chunks):
            if any(record.recording in killer for record, _ in chunk.items):
                yield chunk, Died("killed")
            else:
                yield chunk, pickle.loads(pickle.dumps(work))(pickle.loads(pickle.dumps(chunk)))

    monkeypatch.setattr(store_verify, "run_on_scheduler", run)
    monkeypatch.setattr(store_verify, "CHUNK", 2)
    elsewhere = partial(store_verify._on_scheduler, Place(cpu=True, scheduler="s"), store)
    report = check(store)
    assert [damage.recording for damage in report.damage] == ["1.mp4"]
    assert check(store, run=elsewhere) == report
    killer.append("4.mp4")
    assert [damage.recording for damage in check(store, run=elsewhere).damage] == ["1.mp4", "4.mp4"]


@pytest.mark.slow
def test_a_store_is_verified_on_machines_with_the_same_report(
    project: Project, cluster: Cluster, tmp_path: Path
) -> None:
    """Here and there: an item that is damaged, one that is missing, and all others."""
    store = tmp_path / "features"
    subprocess.run(["cp", "-r", project.folder / "features", store], check=True)
    with open_store(store) as opened:
        first, second = [Path(opened.item_path(record)) for record in opened.all_published()][:2]
    flip(max((path for path in first.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size))
    subprocess.run(["rm", "-r", second], check=True)
    here = project.run("store", "verify", "--store", store, "--json")
    there = project.run("store", "verify", "--store", store, "--json", "--scheduler", cluster.file)
    assert (here.code, there.code) == (13, 13), there.err
    assert json.loads(there.out) == json.loads(here.out)
    assert len(json.loads(there.out)["damage"]) == 2
    assert not list(store.glob("runs/*.mark"))


@pytest.mark.slow
def test_a_search_on_machines_is_that_of_one_process_whatever_is_killed(
    project: Project, cluster: Cluster, tmp_path: Path
) -> None:
    """The run, then on the resumed one a process and a Dask worker; no finished run is trained again."""
    on_machines = ("--scheduler", cluster.file, "--jobs", "2")
    answer = project.run(*SEARCH, "--out", tmp_path / "local")
    assert answer.code == 0, answer.err
    out = tmp_path / "machines"
    running = project.start(*SEARCH, "--out", out, *on_machines)
    wait_for(lambda: len(list(out.glob("points/*/*/scores.json"))) >= 2, running)
    workers = work_processes(cluster)
    assert workers
    running.kill()
    end(running)
    wait_for(lambda: not any(worker.is_running() for worker in workers), within_s=60)
    done = {path.parent: path.read_bytes() for path in out.glob("points/*/*/scores.json")}
    assert 2 <= len(done) < 8
    cluster.start_worker("another")
    running = project.start("train", "--resume", out, "--cpu", *on_machines)
    wait_for(lambda: bool(work_processes(cluster, "worker-0")), running)
    os.kill(work_processes(cluster, "worker-0")[0].pid, signal.SIGKILL)
    cluster.kill_worker("worker-1")
    code, err = end(running)
    assert code == 0, err
    assert {
        path.parent: path.read_bytes() for path in out.glob("points/*/*/scores.json") if path.parent in done
    } == done
    assert result_of(out) == result_of(tmp_path / "local")
    assert weights(out) == weights(tmp_path / "local")
    assert not list(out.glob("*.work")), "that of the killed run is removed too"


@pytest.mark.slow
@pytest.mark.parametrize("several", ["--folds 3", "--seed 0,1"])
def test_folds_and_seeds_on_machines_are_those_of_one_process(
    project: Project, cluster: Cluster, tmp_path: Path, several: str
) -> None:
    command = ("train", *FAST, *several.split())
    for place, more in (("local", ()), ("jobs", ("--jobs", "2")), ("there", ("--scheduler", cluster.file))):
        answer = project.run(*command, "--out", tmp_path / place, "--json", *more)
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        if place == "local":
            local = found
        assert weights(tmp_path / place) == weights(tmp_path / "local")
        assert found["scores"] == local["scores"]
        assert found["spread"] == local["spread"]
    assert re.search(r"^2/\d runs  ", answer.err, re.MULTILINE), answer.err


@pytest.mark.slow
def test_a_machine_that_cannot_write_the_results_takes_no_part_and_is_named(
    project: Project, cluster: Cluster, tmp_path: Path, mounting: Mounting
) -> None:
    hide = f'mount -t tmpfs none {tmp_path} && exec "$@"'
    cluster.start_worker("blind", prefix=(*mounting(hide), "sh"))
    wait_for(lambda: "Registered to" in cluster.log("blind"))
    answer = project.run("train", *FAST, "--folds", "3", "--out", tmp_path / "out", "--scheduler", cluster.file)
    cluster.kill_worker("blind")
    assert answer.code == 0, answer.err
    assert f"takes no part: {tmp_path / 'out'}: not the folder that the run writes" in answer.err


@pytest.mark.slow
def test_a_scheduler_that_is_killed_ends_a_training_with_the_line_that_goes_on(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "dask").mkdir()
    out = tmp_path / "out"
    with dask_cluster(tmp_path / "dask", workers=1) as cluster:
        running = project.start(*SEARCH, "--out", out, "--scheduler", cluster.file)
        wait_for(lambda: len(list(out.glob("points/*/*/scores.json"))) >= 1, running)
        assert cluster.scheduler is not None
        os.killpg(cluster.scheduler.pid, signal.SIGKILL)
        code, err = end(running, within_s=60)
    assert code == 1, err
    assert f"start it, then `aupipe train --resume {out}`: what is trained is kept" in err.splitlines()[-1]
    assert project.run("train", "--resume", out, "--cpu").code == 0


@pytest.mark.slow
def test_videos_are_transcribed_on_machines_as_here(cluster: Cluster, tmp_path: Path) -> None:
    written = {}
    for place, more in (("here", ()), ("there", ("--scheduler", cluster.file))):
        folder = tmp_path / place
        (folder / "videos").mkdir(parents=True)
        project = Project(folder, dict(os.environ))
        project.configure(TALKS)
        save_tiny_whisper(folder / "whisper")
        for number in range(3):
            write_talking(folder / "videos" / f"{number}.mpg", frames=60 + 20 * number)
        write_talking(folder / "videos" / "silent.mp4", silent=True)
        answer = project.run("transcribe", "--cpu", "--model", folder / "whisper", *more)
        assert answer.code == 3, answer.err
        assert "silent.mp4: no audio stream" in answer.out
        assert "done 3   failed 1" in answer.out
        written[place] = {path.name: path.read_bytes() for path in (folder / "videos").glob("*.json")}
    assert written["here"] == written["there"]
    assert len(written["there"]) == 3


@pytest.mark.slow
def test_ctrl_c_finishes_the_videos_under_way(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    project = Project(tmp_path, dict(os.environ))
    project.configure(TALKS)
    save_tiny_whisper(tmp_path / "whisper")
    for number in range(8):
        write_talking(tmp_path / "videos" / f"{number}.mpg", frames=200)
    command = ("transcribe", "--cpu", "--model", tmp_path / "whisper", "--scheduler", cluster.file)
    running = project.start(*command)
    wait_for(lambda: bool(list(tmp_path.glob("videos/*.json"))), running)
    running.send_signal(signal.SIGINT)
    code, err = end(running)
    assert code == 130, err
    assert "finishing the videos under way" in err
    assert 1 <= len(list(tmp_path.glob("videos/*.json"))) < 8
    assert project.run(*command).code == 0
    assert len(list(tmp_path.glob("videos/*.json"))) == 8


@pytest.mark.slow
def test_a_paper_is_reproduced_on_machines_as_here(cluster: Cluster, tmp_path: Path, arrays: Arrays) -> None:
    """One run and folds: the features, weights, rows and submissions."""
    draw_corpus(tmp_path / "here", recordings=5, seconds=1.0, fps=8, seed=5)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    command = ["reproduce", "s4", "--task", "expr", "--rows", "t1-expr,t5-expr.2", "--cpu", "--json"]
    command += [
        "--weights",
        "random",
        "--set",
        "epochs=1",
        "--set",
        "batch=4",
        "--set",
        'features=["affectnet8"]',
        "--set",
        "head.layers=1",
    ]
    rows, files = {}, {}
    for place, more in (("here", ()), ("there", ("--scheduler", cluster.file))):
        project = Project(tmp_path / place, dict(os.environ))
        assert project.run("init").code == 0
        answer = project.run(*command, *more)
        assert answer.code == 0, answer.err
        rows[place] = json.loads(answer.out)["rows"]
        assert all(row["ours"] is not None for row in rows[place])
        out = project.folder / "runs" / "s4"
        submissions = {path.name: path.read_bytes() for path in out.glob("submissions/*")}
        files[place] = weights(out), submissions, arrays(project.folder / "features")
        assert all(files[place])
    assert files["here"] == files["there"]
    assert rows["here"] == rows["there"]
    assert re.search(r"^1/1 runs  \S+: epoch 1", answer.err, re.MULTILINE), answer.err
    assert re.search(r"^(\d)/\1 runs  fold\d: epoch 1", answer.err, re.MULTILINE), answer.err


@pytest.mark.slow
def test_the_commands_of_the_page_run(project: Project, cluster: Cluster, tmp_path: Path) -> None:
    save_tiny_whisper(project.folder / "whisper")
    write_talking(tmp_path / "more" / "talk.mpg")
    for line in BLOCK.split("```")[1].removeprefix("bash").strip().splitlines():
        words = shlex.split(line, comments=True)[1:]
        words = [str(cluster.file) if word == "scheduler.json" else word for word in words]
        words = [str(project.folder / "whisper") if word.startswith("openai/") else word for word in words]
        more = [*FAST[2:], "--out", str(tmp_path / words[3])] if words[0] == "train" else []
        if words[0] == "transcribe":
            words.append(str(tmp_path / "more"))
        answer = project.run(*words, *more)
        assert answer.code == 0, (line, answer.err)
    assert (tmp_path / "more" / "talk.json").is_file()
