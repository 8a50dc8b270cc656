"""`extract --scheduler` over a real Dask cluster: the same store as a local run, whichever of its processes ends.

Every part is a process of its own, as a user starts them; what ends is killed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import trustme

from aupipe.store import create_store
from aupipe.store.processes import writer_name
from aupipe.store.run_log import read_lines
from tests.cli.conftest import HOG, MFCC, NO_FACES, Answer, Project, install_plugin, workers_of
from tests.cli.mounts import Mounting
from tests.cli.test_worker_failures import PLUGIN
from tests.conftest import write_video
from tests.extract.dask_cluster import Cluster, dask_cluster

CLIPS = 24
CONFIG = NO_FACES + HOG + MFCC
Arrays = Callable[[Path], dict[tuple[str, str], bytes]]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(CLIPS):
        write_video(folder / f"{number:02}.mp4", 40 + 20 * (number % 4), size=(160, 120), tone_hz=300)
    return folder


@pytest.fixture(scope="module")
def expected(videos: Path, tmp_path_factory: pytest.TempPathFactory, arrays: Arrays) -> dict[tuple[str, str], bytes]:
    """The rows of a local run."""
    project = project_of(tmp_path_factory.mktemp("local"), videos)
    answer = project.run("extract", "--cpu")
    assert answer.code == 0, answer.err
    return arrays(project.folder / "features")


def project_of(folder: Path, videos: Path) -> Project:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    (folder / "videos").symlink_to(videos)
    project = Project(folder, environment)
    project.configure(CONFIG)
    return project


@pytest.fixture
def project(tmp_path: Path, videos: Path) -> Project:
    (tmp_path / "project").mkdir()
    return project_of(tmp_path / "project", videos)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "dask").mkdir()
    with dask_cluster(tmp_path / "dask") as started:
        yield started


def extract_on(cluster: Cluster, *more: object) -> list[str]:
    return ["extract", "--cpu", "--workers", "1", "--scheduler", str(cluster.file), *map(str, more)]


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, within_s: float = 90) -> None:
    until_s = time.monotonic() + within_s
    while not what():
        assert process is None or process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.02)


def published(project: Project) -> int:
    journals = (project.folder / "features" / "journal").glob("*.jsonl")
    return sum(file.read_bytes().count(b'"done"') for file in journals)


def end(process: subprocess.Popen[bytes], within_s: float = 120) -> tuple[int, str]:
    _, err = process.communicate(timeout=within_s)
    return process.returncode, err.decode(errors="replace")


def worker_processes(cluster: Cluster) -> list[psutil.Process]:
    """The processes that compute, of all agents of this cluster."""
    return [worker for process in cluster.workers.values() for worker in workers_of(process.pid)]


def test_a_run_on_dask_stores_what_a_local_run_does_and_the_next_finds_nothing_to_do(
    project: Project, cluster: Cluster, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    answer = project.run(*extract_on(cluster))
    assert answer.code == 0, answer.err
    assert arrays(project.folder / "features") == expected
    assert "Dask at tcp://127.0.0.1:" in answer.out
    assert re.search(r"stages busy: .*decode", answer.out), "what the machines measured is told"
    again = project.run(*extract_on(cluster))
    assert (again.code, again.out[:13]) == (0, "nothing to do"), again.err
    (path,) = (project.folder / "features" / "runs").iterdir()  # its log, and nothing else
    joined = [line for line in read_lines(path) if line["kind"] == "machine"]
    assert [line["state"] for line in joined] == ["joined"] * len(joined)
    assert joined


@pytest.mark.slow
def test_a_machine_that_is_killed_costs_nothing(
    project: Project, cluster: Cluster, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    process = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 3, process)
    cluster.kill_worker("worker-0")
    code, err = end(process)
    assert code == 0, err
    assert "is gone" in err
    assert "FAILED" not in err
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow
def test_a_scheduler_that_is_killed_ends_the_run_in_one_line_and_the_next_goes_on(
    project: Project, cluster: Cluster, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    process = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 3, process)
    workers = worker_processes(cluster)
    assert workers
    assert cluster.scheduler is not None
    os.killpg(cluster.scheduler.pid, signal.SIGKILL)
    code, err = end(process, within_s=20)  # Dask tries for half a minute to reach it again
    assert code == 1, err
    last = [line for line in err.splitlines() if line.startswith("aupipe:")][-1]
    assert "the Dask scheduler at tcp://127.0.0.1" in last
    assert "run the same command again" in last
    assert "Traceback" not in err
    wait_for(lambda: not any(worker.is_running() for worker in workers), within_s=60)
    cluster.start_scheduler()
    cluster.start_worker("worker-2")
    answer = project.run(*extract_on(cluster))
    assert answer.code == 0, answer.err
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_process_and_the_next_waits_for_its_turn(
    project: Project, cluster: Cluster, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    process = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 3, process)
    workers = worker_processes(cluster)
    assert workers
    process.kill()
    end(process)
    wait_for(lambda: not any(worker.is_running() for worker in workers), within_s=60)
    answer = project.run(*extract_on(cluster))
    assert answer.code == 0, answer.err
    assert "waiting for another run on this scheduler" in answer.err
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow
def test_two_runs_on_one_scheduler_take_turns_and_compute_nothing_twice(
    project: Project, cluster: Cluster, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    first = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 0, first)
    second = project.run(*extract_on(cluster))
    assert end(first)[0] == 0
    assert second.code == 0, second.err
    assert second.out.startswith("nothing to do")
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_under_way_and_the_next_run_goes_on(
    project: Project, cluster: Cluster, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    process = project.start(*extract_on(cluster))
    wait_for(lambda: published(project) > 0, process)
    process.send_signal(signal.SIGINT)
    code, err = end(process)
    assert code == 130, err
    assert "aupipe: finishing the videos under way" in err
    assert "aupipe: interrupted; published items stay stored" in err
    done = arrays(project.folder / "features")
    assert done.items() <= expected.items()
    assert all(sum(name == video for name, _ in done) == 3 for video, _ in done), "no video is left in part"
    answer = project.run(*extract_on(cluster))
    assert answer.code == 0, answer.err
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow
def test_workers_that_come_late_are_waited_for_and_used(
    project: Project, cluster: Cluster, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    for name in list(cluster.workers):
        cluster.kill_worker(name)
    process = project.start(*extract_on(cluster))
    time.sleep(8)
    assert process.poll() is None
    cluster.start_worker("late")
    assert end(process)[0] == 0
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow
def test_a_machine_with_another_version_of_a_library_takes_no_part_and_is_named_once(
    project: Project, cluster: Cluster, tmp_path: Path, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    other = tmp_path / "other" / "soxr-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: soxr\nVersion: 0.0.1\n")
    package = str(Path(__file__).parents[2])
    cluster.start_worker("other", PYTHONPATH=os.pathsep.join([str(other.parent), package]))
    wait_for(lambda: "Registered to" in cluster.log("other"))
    answer = project.run(*extract_on(cluster))
    assert answer.code == 0, answer.err
    refusals = [line for line in answer.err.splitlines() if "takes no part" in line]
    assert len(refusals) == 1, answer.err
    assert "soxr 0.0.1, not " in refusals[0]
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow
def test_machines_that_do_not_see_the_store_or_the_videos_refuse_by_name(
    project: Project,
    cluster: Cluster,
    videos: Path,
    expected: dict[tuple[str, str], bytes],
    arrays: Arrays,
    mounting: Mounting,
) -> None:
    create_store(project.folder / "features", "zarr").close()
    hidden = {"no-store": project.folder / "features", "no-videos": videos}
    for name, folder in hidden.items():
        mount = f'mount -t tmpfs none {folder} && exec "$@"'
        cluster.start_worker(name, prefix=(*mounting(mount), "sh"))
        wait_for(lambda name=name: "Registered to" in cluster.log(name))  # type: ignore[misc]
    answer = project.run(*extract_on(cluster))
    assert answer.code == 0, answer.err
    refusals = [line for line in answer.err.splitlines() if "takes no part" in line]
    assert any("not the store of this run" in line for line in refusals), answer.err
    assert any("does not see what the run sees" in line and "No such file" in line for line in refusals), answer.err
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow
def test_where_every_machine_refuses_the_run_ends_with_the_reason(project: Project, cluster: Cluster) -> None:
    answer: Answer = project.run(*extract_on(cluster)[:1], "--gpu", "0", *extract_on(cluster)[2:])
    assert answer.code == 2, answer.err
    last = answer.err.strip().splitlines()[-1]
    assert last.startswith("aupipe: no machine takes part: ")
    assert "--gpu 0" in last


@pytest.mark.slow
def test_a_video_that_is_not_there_any_more_fails_by_name_and_no_machine_refuses(
    project: Project, cluster: Cluster, videos: Path, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    (project.folder / "videos").unlink()
    (project.folder / "videos").mkdir()
    for file in videos.iterdir():
        (project.folder / "videos" / file.name).symlink_to(file)
    (project.folder / "videos" / "gone.mp4").symlink_to(project.folder / "gone.mp4")
    answer = project.run(*extract_on(cluster))
    assert answer.code == 3, answer.err
    assert {line.split()[1] for line in answer.out.splitlines() if line.startswith("FAILED")} == {"gone.mp4"}
    assert "takes no part" not in answer.err
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow
@pytest.mark.parametrize("accident", ["SIGKILL", "sleeps"])
def test_videos_that_kill_their_processes_or_hang_fail_by_name_and_nothing_else_does(
    project: Project, tmp_path: Path, cluster: Cluster, accident: str
) -> None:
    plugin = tmp_path / "plugin"
    install_plugin(plugin, "broken", PLUGIN, pictures="FrameChunk")
    own = tmp_path / "own"
    own.mkdir()
    for number in range(12):
        write_video(own / f"{number:02}.mp4", 60 if number in (3, 7) else 20)  # they grow brighter
    (project.folder / "videos").unlink()
    (project.folder / "videos").symlink_to(own)
    project.configure('[faces]\ndetector = "none"\n[[encoder]]\nname = "p"\nmodality = "visual"\nkind = "pictures"\n')
    path = os.pathsep.join([str(plugin), str(Path(__file__).parents[2])])
    for name in list(cluster.workers):
        cluster.kill_worker(name)
    for name in ("one", "two"):
        cluster.start_worker(name, PYTHONPATH=path, FAIL=accident)
    answer = project.run(*extract_on(cluster, "--stall-timeout", 10), PYTHONPATH=path)
    assert answer.code == 3, answer.err
    failed = {line.split()[1] for line in answer.out.splitlines() if line.startswith("FAILED")}
    assert failed == {"03.mp4", "07.mp4"}, answer.out + answer.err
    assert "done 10 " in answer.out


# Plain processes that share a store


SHARE = ("extract", "--cpu", "--workers", "1", "--share")


def made_by(store: Path) -> list[str]:
    """The journal, of which each process has its own, of every item that was published."""
    return [
        file.name for file in (store / "journal").glob("*.jsonl") for _ in range(file.read_bytes().count(b'"done"'))
    ]


def test_runs_that_share_a_store_make_every_item_once(
    project: Project, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    create_store(project.folder / "features", "zarr").close()
    runs = [project.start(*SHARE) for _ in range(2)]
    ended = [end(run) for run in runs]
    assert [code for code, _ in ended] == [0, 0], ended
    store = project.folder / "features"
    assert arrays(store) == expected
    assert len(made_by(store)) == len(expected), "nothing is made twice"
    assert len(set(made_by(store))) > 1, "both have worked"
    assert not list((store / "runs").rglob("*.alive"))
    machine, _, _ = writer_name().split("-")
    (store / "runs" / f"{machine}-{runs[0].pid}-00000000.alive").touch()  # as a run leaves that is killed
    answer = project.run("extract", "--cpu")
    assert answer.out.startswith("nothing to do"), answer.err
    assert not list((store / "runs").rglob("*.alive"))


@pytest.mark.slow
def test_the_work_of_a_shared_run_that_is_killed_is_inherited(
    project: Project, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    create_store(project.folder / "features", "zarr").close()
    first, second = project.start(*SHARE), project.start(*SHARE)
    wait_for(lambda: published(project) > 3, first)
    first.kill()
    end(first)
    code, err = end(second)
    assert code == 0, err
    assert arrays(project.folder / "features") == expected


def certificate_in(folder: Path) -> tuple[Path, Path]:
    """A new certificate for this machine, its authority's with it in one file, and its key."""
    folder.mkdir()
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in (*made.cert_chain_pems, authority.cert_pem))
    (folder / "certificate.pem").write_bytes(chain)
    made.private_key_pem.write_to_path(str(folder / "key.pem"))
    return folder / "certificate.pem", folder / "key.pem"


@pytest.mark.slow
def test_a_cluster_with_tls_is_used_with_its_certificate_and_refuses_a_run_without(
    project: Project, tmp_path: Path, expected: dict[tuple[str, str], bytes], arrays: Arrays
) -> None:
    certificate, key = certificate_in(tmp_path / "own")
    files = ["--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key]
    (tmp_path / "dask").mkdir()
    cluster = Cluster(tmp_path / "dask")
    try:
        cluster.start_scheduler("--protocol", "tls", *map(str, files))
        cluster.start_worker("worker", *map(str, files))
        refused = project.run(*extract_on(cluster))
        assert refused.code == 2, refused.err
        assert "is reached by TLS: give --tls-ca" in refused.err.strip().splitlines()[-1]
        own = ["--tls-ca", certificate, "--tls-cert", certificate, "--tls-key", key]
        partial = project.run(*extract_on(cluster, *own[:2]))
        assert (partial.code, "--tls-cert is missing" in partial.err) == (2, True), partial.err
        foreign, its_key = certificate_in(tmp_path / "foreign")
        wrong = project.run(*extract_on(cluster, "--tls-ca", foreign, "--tls-cert", foreign, "--tls-key", its_key))
        assert (wrong.code, wrong.err.count("\n")) == (1, 1), wrong.err
        answer = project.run(*extract_on(cluster, *own))
        assert answer.code == 0, answer.err
        assert "no TLS" not in answer.err
    finally:
        cluster.stop()
    assert arrays(project.folder / "features") == expected


@pytest.mark.slow  # half a minute of waiting
def test_a_scheduler_that_is_not_there_is_named_in_one_line(project: Project) -> None:
    answer = project.run("extract", "--cpu", "--scheduler", "tcp://127.0.0.1:9")
    assert (answer.code, answer.err.count("\n")) == (1, 1), answer.err
    assert "aupipe: the Dask scheduler at tcp://127.0.0.1:9 cannot be reached: " in answer.err
    answer = project.run("extract", "--cpu", "--scheduler", "no/such/folder.json")
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
