"""Whatever is killed, whenever: the store ends as an undisturbed run leaves it, and only what kills is failed.

Twenty rounds each over a real Dask cluster and with `--share`. A round is reproducible by its number.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from aupipe.store import create_store, open_store
from tests.cli.conftest import Project, install_plugin, workers_of
from tests.cli.test_cluster import end
from tests.cli.test_worker_failures import PLUGIN
from tests.conftest import write_video
from tests.extract.dask_cluster import Cluster, dask_cluster

pytestmark = pytest.mark.slow
CLIPS, ROUNDS, KILLS = 200, 20, 4
POISON = {"031.mp4", "144.mp4"}  # they grow brighter, and the encoder kills its process
CONFIG = """
[faces]
detector = "none"
[[encoder]]
name = "p"
modality = "visual"
kind = "pictures"
[[encoder]]
name = "mfcc"
modality = "audio"
kind = "mfcc"
"""
Rows = dict[tuple[str, str], bytes]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, arrays: Callable[[Path], Rows]) -> tuple[Project, Rows]:
    """A project with the encoder that kills, and the rows of a local run in which it does not."""
    folder = tmp_path_factory.mktemp("kills")
    plugin = folder / "plugin"
    install_plugin(plugin, "broken", PLUGIN, pictures="FrameChunk")
    (folder / "videos").mkdir()
    for number in range(CLIPS):
        name = f"{number:03}.mp4"
        write_video(folder / "videos" / name, 60 if name in POISON else 10 + number % 30, tone_hz=300)
    path = os.pathsep.join([str(plugin), str(Path(__file__).parents[2])])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    project = Project(folder, environment | {"PYTHONPATH": path})
    project.configure(CONFIG)
    answer = project.run("extract", "--cpu")
    assert answer.code == 0, answer.err
    rows = arrays(folder / "features")
    return project, {key: value for key, value in rows.items() if not (key[0] in POISON and key[1].startswith("p@"))}


def new_project(prepared: tuple[Project, Rows], folder: Path) -> Project:
    """The same project with an empty store, in which the encoder kills."""
    (folder / "videos").symlink_to(prepared[0].folder / "videos")
    project = Project(folder, prepared[0].environment | {"FAIL": "SIGKILL"})
    project.configure(CONFIG)
    create_store(folder / "features", "zarr").close()
    return project


def confirm(project: Project, expected: Rows, arrays: Callable[[Path], Rows]) -> None:
    store = open_store(project.folder / "features")
    failed = {(record.recording, record.feature[:2]) for record in store.records() if record.state == "failed"}
    assert failed == {(name, "p@") for name in POISON}
    assert arrays(project.folder / "features") == expected


def children(*pids: int) -> list[psutil.Process]:
    """The worker processes of those of these processes that live."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found += workers_of(pid)
    return found


def kill_one(processes: list[psutil.Process], chance: random.Random) -> None:
    if processes:
        with suppress(psutil.NoSuchProcess):
            chance.choice(processes).kill()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_run_on_dask_whose_processes_are_killed_at_random_ends_as_an_undisturbed_one(
    prepared: tuple[Project, Rows], tmp_path: Path, arrays: Callable[[Path], Rows], number: int
) -> None:
    chance = random.Random(number)
    project = new_project(prepared, tmp_path)
    more = {"PYTHONPATH": project.environment["PYTHONPATH"], "FAIL": "SIGKILL"}
    (tmp_path / "dask").mkdir()
    with dask_cluster(tmp_path / "dask", workers=0) as cluster:
        for name in ("a", "b"):
            cluster.start_worker(name, **more)
        command = ["extract", "--cpu", "--workers", "1", "--scheduler", str(cluster.file)]
        run = project.start(*command)
        killed = []
        for kill in range(KILLS):
            time.sleep(chance.uniform(1.0, 8.0))
            what = chance.choice(["child", "child", "machine", "scheduler", "run"])
            killed.append(what)
            strike(what, cluster, run, chance, f"{kill}", more)
            if what in ("scheduler", "run"):
                end(run, within_s=300)
            if run.poll() is not None:
                run = project.start(*command)
        code, err = end(run, within_s=300)
        if code not in (0, 3):  # the run was ended by the last kill, or by too many in a row: the same command again
            code, err = end(project.start(*command), within_s=300)
    assert code in (0, 3), f"{killed}: {err}"
    confirm(project, prepared[1], arrays)


def strike(
    what: str, cluster: Cluster, run: subprocess.Popen[bytes], chance: random.Random, name: str, more: dict[str, str]
) -> None:
    """Kill one process, and start again what a batch system would."""
    if what == "child":
        kill_one(children(*(process.pid for process in cluster.workers.values())), chance)
    elif what == "machine":
        alive = [known for known, process in cluster.workers.items() if process.poll() is None]
        cluster.kill_worker(chance.choice(alive))
        cluster.start_worker(f"again-{name}", **more)
    elif what == "scheduler":
        assert cluster.scheduler is not None
        os.killpg(cluster.scheduler.pid, signal.SIGKILL)
        for known, process in cluster.workers.items():
            if process.poll() is None:
                cluster.kill_worker(known)
        cluster.start_scheduler()
        for machine in ("c", "d"):
            cluster.start_worker(f"{machine}-{name}", **more)
    elif what == "run":
        run.kill()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_runs_that_share_a_store_and_are_killed_at_random_leave_what_one_undisturbed_run_does(
    prepared: tuple[Project, Rows], tmp_path: Path, arrays: Callable[[Path], Rows], number: int
) -> None:
    chance = random.Random(1000 + number)
    project = new_project(prepared, tmp_path)
    share = ("extract", "--cpu", "--workers", "1", "--share")
    runs = [project.start(*share) for _ in range(4)]
    for _ in range(KILLS):
        time.sleep(chance.uniform(1.0, 8.0))
        victim = chance.choice(runs)
        if chance.random() < 0.5:
            kill_one(children(victim.pid), chance)
        elif victim.poll() is None:
            victim.kill()
            runs.append(project.start(*share))
    for run in runs:
        end(run, within_s=300)
    answer = project.run("extract", "--cpu")  # what the last ones that were killed held
    assert answer.code in (0, 3), answer.err
    confirm(project, prepared[1], arrays)
    assert not list((project.folder / "features" / "runs").rglob("*.alive"))
