"""Faults of single machines of a cluster: the run goes on with the others, and stores what a local run does."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client

from aupipe.extract.executors.cluster.executor import LOST_WITH
from tests.cli.conftest import Project, install_plugin, workers_of
from tests.cli.mounts import Mounting
from tests.cli.test_cluster import (
    Arrays,
    cluster,
    end,
    expected,
    extract_on,
    made_by,
    project,
    published,
    videos,
    wait_for,
    worker_processes,
)
from tests.cli.test_worker_failures import PLUGIN
from tests.conftest import write_video
from tests.extract.dask_cluster import Cluster, dask_cluster

pytestmark = pytest.mark.slow
__all__ = ["cluster", "expected", "project", "videos"]  # fixtures
Rows = dict[tuple[str, str], bytes]


def confirm(project: Project, process: subprocess.Popen[bytes], expected: Rows, arrays: Arrays) -> str:
    """The run ends well and has stored what a local run does, none of it twice; returns what it said."""
    code, err = end(process, within_s=400)
    assert code == 0, err
    assert "FAILED" not in err
    assert arrays(project.folder / "features") == expected
    return err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_process_that_is_killed_costs_nothing(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays, number: signal.Signals
) -> None:
    run = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 3, run)
    worker_processes(cluster)[0].send_signal(number)
    confirm(project, run, expected, arrays)


def test_a_worker_process_that_stands_still_is_replaced_and_its_videos_are_made(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays
) -> None:
    run = project.start(*extract_on(cluster, "--stall-timeout", 10))
    wait_for(lambda: published(project) > 3, run)
    worker_processes(cluster)[0].send_signal(signal.SIGSTOP)
    confirm(project, run, expected, arrays)
    assert any("stood still" in cluster.log(name) for name in cluster.workers)


def test_a_machine_that_is_killed_with_its_nanny_costs_nothing(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays
) -> None:
    cluster.kill_worker("worker-1")
    cluster.start_worker("kept", nanny=True)
    run = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 3, run)
    cluster.kill_worker("kept")
    assert "is gone" in confirm(project, run, expected, arrays)


def test_videos_that_were_lost_with_three_machines_are_tried_alone(
    project: Project, tmp_path: Path, expected: Rows, arrays: Arrays
) -> None:
    (tmp_path / "lost").mkdir()
    with dask_cluster(tmp_path / "lost", workers=0) as cluster:
        run = project.start(*extract_on(cluster))
        for number in range(LOST_WITH):
            cluster.start_worker(f"lost-{number}")
            process = cluster.workers[f"lost-{number}"]
            wait_for(lambda: workers_of(process.pid) != [], run)  # noqa: B023 - called in this round
            cluster.kill_worker(f"lost-{number}")
        cluster.start_worker("kept")
        err = confirm(project, run, expected, arrays)
    assert err.count("it is tried once more, alone") > 0, err


def test_where_no_machine_is_fit_the_run_ends_with_the_host_and_what_it_lacks(
    project: Project, videos: Path, tmp_path: Path, mounting: Mounting
) -> None:
    other = tmp_path / "other" / "soxr-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: soxr\nVersion: 0.0.1\n")
    (tmp_path / "unfit").mkdir()
    with dask_cluster(tmp_path / "unfit", workers=0) as cluster:
        mount = f'mount -t tmpfs none {videos} && exec "$@"'
        cluster.start_worker("no-videos", prefix=(*mounting(mount), "sh"))
        path = os.pathsep.join([str(other.parent), str(Path(__file__).parents[2])])
        cluster.start_worker("other-version", PYTHONPATH=path)
        answer = project.run(*extract_on(cluster))
    assert answer.code == 1, answer.err
    refusals = "\n".join(line for line in answer.err.splitlines() if "takes no part" in line)
    assert (
        f"does not see what the run sees: {videos.resolve()}" in refusals or str(project.folder / "videos") in refusals
    )
    assert "soxr 0.0.1, not " in refusals
    last = answer.err.strip().splitlines()[-1]
    assert last.startswith(f"aupipe: no machine takes part: {os.uname().nodename}: ")
    assert "Traceback" not in answer.err


def test_a_dask_worker_whose_nanny_starts_it_again_takes_part_again(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays
) -> None:
    cluster.kill_worker("worker-1")
    cluster.kill_worker("worker-0")
    cluster.start_worker("kept", nanny=True)
    run = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 3, run)
    (worker,) = [
        child
        for child in psutil.Process(cluster.workers["kept"].pid).children(recursive=True)
        if workers_of(child.pid) and child.pid != cluster.workers["kept"].pid
    ][:1]
    worker.kill()
    assert "is gone" in confirm(project, run, expected, arrays)


def test_where_all_dask_workers_die_the_run_waits_for_new_ones(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays
) -> None:
    run = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 3, run)
    for name in list(cluster.workers):
        cluster.kill_worker(name)
    time.sleep(6)
    assert run.poll() is None
    cluster.start_worker("new")
    confirm(project, run, expected, arrays)


def test_a_run_without_any_dask_worker_ends_in_one_line_when_its_time_is_over(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with dask_cluster(tmp_path / "empty", workers=0) as cluster:
        answer = project.run(*extract_on(cluster, "--worker-timeout", 5))
    assert answer.code == 1, answer.err
    last = answer.err.strip().splitlines()[-1]
    assert last.startswith("aupipe: no Dask worker has taken part for 5 s (--worker-timeout): ")
    assert "Traceback" not in answer.err


def test_a_local_run_beside_one_on_the_cluster_leaves_one_whole_store(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays
) -> None:
    run = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 3, run)
    answer = project.run("extract", "--cpu")
    assert answer.code == 0, answer.err
    confirm(project, run, expected, arrays)


def test_a_machine_that_cannot_write_takes_no_part_and_is_named(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays
) -> None:
    limited = ("sh", "-c", 'ulimit -f 20 && exec "$@" > /dev/null 2>&1', "sh")  # files of at most 10 kB
    cluster.start_worker("full", prefix=limited)
    answer = project.run(*extract_on(cluster))
    assert answer.code == 0, answer.err
    refusals = [line for line in answer.err.splitlines() if "takes no part" in line]
    assert len(refusals) == 1, answer.err
    assert "File too large" in refusals[0]
    assert arrays(project.folder / "features") == expected


def test_a_machine_on_which_every_worker_process_dies_is_closed_and_no_video_is_failed(
    project: Project, tmp_path: Path, arrays: Arrays
) -> None:
    plugin = tmp_path / "plugin"
    install_plugin(plugin, "broken", PLUGIN, pictures="FrameChunk")
    own = tmp_path / "own"
    own.mkdir()
    for number in range(16):
        write_video(own / f"{number:02}.mp4", 60)  # all grow bright enough to kill where FAIL says so
    (project.folder / "videos").unlink()
    (project.folder / "videos").symlink_to(own)
    project.configure('[faces]\ndetector = "none"\n[[encoder]]\nname = "p"\nmodality = "visual"\nkind = "pictures"\n')
    path = os.pathsep.join([str(plugin), str(Path(__file__).parents[2])])
    (tmp_path / "own-dask").mkdir()
    with dask_cluster(tmp_path / "own-dask", workers=0) as cluster:
        cluster.start_worker("bad", PYTHONPATH=path, FAIL="SIGKILL")
        cluster.start_worker("good", PYTHONPATH=path)
        answer = project.run(*extract_on(cluster), PYTHONPATH=path)
    assert answer.code == 0, answer.err + answer.out
    assert "FAILED" not in answer.out
    assert "done 16 " in answer.out


def test_a_dask_worker_that_is_frozen_is_lost_and_its_videos_go_to_the_others(
    project: Project, tmp_path: Path, expected: Rows, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "10s")
    (tmp_path / "frozen").mkdir()
    with dask_cluster(tmp_path / "frozen") as cluster:
        run = project.start(*extract_on(cluster))
        wait_for(lambda: published(project) > 3, run)
        cluster.kill_worker("worker-0", signal.SIGSTOP)  # with its worker processes, which are of its group
        assert "is gone" in confirm(project, run, expected, arrays)


def test_a_dask_worker_that_is_retired_in_mid_run_makes_no_video_suspect(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays
) -> None:
    run = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 3, run)
    with Client(scheduler_file=str(cluster.file), set_as_default=False) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        (address,) = [address for address, known in workers.items() if known["name"] == "worker-0"]
        client.retire_workers([address])
    assert "alone" not in confirm(project, run, expected, arrays)


def test_a_dask_worker_with_a_lifetime_ends_in_mid_run_and_costs_nothing(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays
) -> None:
    cluster.kill_worker("worker-0")
    cluster.start_worker("short", "--lifetime", "12s")
    run = project.start(*extract_on(cluster))
    assert "alone" not in confirm(project, run, expected, arrays)
    assert cluster.workers["short"].wait(timeout=60) is not None


def test_ctrl_c_twice_stops_at_once_and_the_next_run_goes_on(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays
) -> None:
    run = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 0, run)
    run.send_signal(signal.SIGINT)
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    began_s = time.monotonic()
    code, err = end(run)
    assert code == 130, err
    assert time.monotonic() - began_s < 10
    assert "Traceback" not in err
    assert arrays(project.folder / "features").items() <= expected.items()
    wait_for(lambda: not worker_processes(cluster), within_s=60)
    answer = project.run(*extract_on(cluster))
    assert answer.code == 0, answer.err
    assert arrays(project.folder / "features") == expected


@pytest.fixture
def slowed() -> Iterator[Callable[[int], None]]:
    """Lets the worker processes of a process run for a tenth of the time."""
    over, threads = threading.Event(), list[threading.Thread]()

    def slow(pid: int) -> None:
        while not over.is_set():
            children = workers_of(pid)
            for number, for_s in ((signal.SIGSTOP, 0.45), (signal.SIGCONT, 0.05)):
                for child in children:
                    if child.is_running():
                        child.send_signal(number)
                over.wait(for_s)

    def start(pid: int) -> None:
        threads.append(threading.Thread(target=slow, args=(pid,)))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


def test_a_machine_of_a_tenth_of_the_speed_gets_less_work_and_changes_nothing(
    project: Project, cluster: Cluster, expected: Rows, arrays: Arrays, slowed: Callable[[int], None]
) -> None:
    slowed(cluster.workers["worker-0"].pid)
    run = project.start(*extract_on(cluster))
    confirm(project, run, expected, arrays)
    made = made_by(project.folder / "features")
    counts = sorted(made.count(journal) for journal in set(made))
    assert sum(counts) == len(expected), "nothing is made twice"
    assert counts[0] < counts[-1] / 2, counts
