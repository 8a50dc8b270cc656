"""Every command of docs/cluster.md is run as it stands there; the batch scripts by a real Slurm, where it can start."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
import yaml

from aupipe.cli import cli
from tests.cli.conftest import Project
from tests.cli.test_cluster import CONFIG
from tests.cli.test_cluster import project_of as _project_of
from tests.conftest import write_video

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
SCRIPTS = [block for block in BLOCKS if "cluster script" in block]
RUNS = [block for block in BLOCKS if "cluster script" not in block and "aupipe extract" in block]
(MANIFEST,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
MENTIONED = re.findall(r"`[^`\n]*(aupipe [a-z][^`\n]*)`", PAGE)  # in the text
SLURM = ("slurmctld", "slurmd", "munged", "sbatch")
Arrays = Callable[[Path], dict[tuple[str, str], bytes]]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    videos = tmp_path / "films"
    for number in range(8):
        write_video(videos / f"{number}.mp4", 30 + number, tone_hz=300)
    (tmp_path / "project").mkdir()
    project = _project_of(tmp_path / "project", videos)
    commands = tmp_path / "bin"  # `aupipe` and `dask` of this environment, whatever lies in PATH
    commands.mkdir()
    mains = {"aupipe": "aupipe.cli", "dask": "dask.cli"}
    for name, module in mains.items():
        entry = "main" if name == "aupipe" else "run_cli"
        text = f"#!/bin/sh\nexec {sys.executable} -c 'from {module} import {entry}; {entry}()' \"$@\"\n"
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    path = os.pathsep.join([str(commands), os.environ["PATH"]])
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return Project(project.folder, project.environment | {"PATH": path, "PYTHONPATH": python_path})


def shell(project: Project, block: str, **environment: str) -> tuple[int, str]:
    """What a block says and how it ends, run as typed; what it leaves in the background is ended."""
    log = project.folder.parent / "shell.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-c", block],
            cwd=project.folder,
            env=project.environment | environment,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        code = process.wait(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    return code, log.read_text(errors="replace")


def test_the_page_has_commands_of_each_kind() -> None:
    assert len(SCRIPTS) >= 3
    assert len(RUNS) == 3
    assert len(MENTIONED) > 8


def parsed(words: list[str]) -> None:
    """Have click read a command of aupipe or Dask, and run nothing. Raises what it finds wrong."""
    from distributed.cli import dask_scheduler, dask_worker

    program, name, *arguments = words
    of_dask = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    command = of_dask[name] if program == "dask" else cli.commands[name]
    while isinstance(command, click.Group) and arguments:
        command, *arguments = command.commands[arguments[0]], *arguments[1:]
    if not isinstance(command, click.Group):
        command.make_context(name, arguments)


@pytest.mark.parametrize("command", MENTIONED)
def test_a_command_in_the_text_is_one_that_the_command_line_takes(command: str) -> None:
    words = shlex.split(command)
    if words == ["aupipe", "cluster", "script"]:
        return  # of which system stands elsewhere
    parsed(words)


def test_the_manifest_for_kubernetes_is_whole_and_its_commands_are_real() -> None:
    documents = list(yaml.safe_load_all(MANIFEST))
    kinds = [document["kind"] for document in documents]
    assert sorted(kinds) == ["Deployment", "Deployment", "Job", "NetworkPolicy", "Service"]
    (service,) = [document for document in documents if document["kind"] == "Service"]
    port = service["spec"]["ports"][0]["port"]
    address = f"tcp://{service['metadata']['name']}:{port}"
    parts = {}
    for document in documents:
        if document["kind"] not in ("Deployment", "Job"):
            continue
        template = document["spec"]["template"]
        (container,) = template["spec"]["containers"]
        parts[template["metadata"]["labels"]["part"]] = container["command"]
        parsed(container["command"])
        if document["kind"] == "Deployment":
            assert document["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        volumes = [volume["name"] for volume in template["spec"].get("volumes", [])]
        assert [mount["name"] for mount in container.get("volumeMounts", [])] == volumes
        assert {mount["mountPath"] for mount in container.get("volumeMounts", [])} <= {"/data"}, "one path on all"
    assert service["spec"]["selector"] == {"app": "aupipe", "part": "scheduler"}
    assert parts["scheduler"][parts["scheduler"].index("--port") + 1] == str(port)
    assert address in parts["worker"]
    assert parts["run"][parts["run"].index("--scheduler") + 1] == address


@pytest.mark.slow
@pytest.mark.parametrize("block", RUNS)
def test_a_run_on_the_page_makes_every_item(project: Project, block: str, arrays: Arrays) -> None:
    code, said = shell(project, block)
    assert code == 0, said
    assert len(arrays(project.folder / "features")) == 8 * 3, said


@pytest.mark.parametrize("block", SCRIPTS)
def test_a_script_of_the_page_is_one_that_bash_reads(project: Project, block: str) -> None:
    code, said = shell(project, block)
    assert code == 0, said
    written = list(project.folder.glob("*.sbatch"))
    text = written[0].read_text() if written else said
    assert "#SBATCH --cpus-per-task=8" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_an_allocation_whose_scheduler_does_not_start_ends_and_names_its_log(project: Project) -> None:
    answer = project.run("cluster", "script", "slurm", "--way", "allocation", "--out", "job.sbatch")
    assert answer.out == "wrote job.sbatch; next: sbatch job.sbatch\n"
    for name in ("dask", "srun", "aupipe"):
        (project.folder / name).write_text("#!/bin/sh\necho no port\nexit 1\n")
        (project.folder / name).chmod(0o755)
    environment = {"PATH": f"{project.folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    ended = subprocess.run(
        ["bash", "job.sbatch"], cwd=project.folder, env=environment, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stderr) == (1, "the Dask scheduler did not start: see dask-7.log\n")
    assert (project.folder / "dask-7.log").read_text() == "no port\n"


@pytest.mark.parametrize("system", ["pbs", "lsf"])
def test_scripts_for_other_systems_hold_the_same_run(project: Project, system: str) -> None:
    answer = project.run("cluster", "script", system, "--tasks", 3, "--gpus", 2, "--", "--modality", "audio")
    assert answer.code == 0, answer.err
    assert "exec aupipe extract --gpu all --modality audio --share" in answer.out
    assert "1-3" in answer.out


def test_a_script_that_cannot_be_is_refused_in_one_line(project: Project) -> None:
    answer = project.run("cluster", "script", "pbs", "--way", "allocation")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    answer = project.run("cluster", "script", "slurm", "--time", "8 hours")
    assert (answer.code, answer.err.count("\n")) == (2, 1)


# Slurm


def slurm_configuration(folder: Path) -> str:
    """Two nodes of one core each on this machine."""
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    nodes = "".join(
        f"NodeName=n{number} NodeHostname=localhost NodeAddr=127.0.0.1 Port={17200 + number} CPUs=1 RealMemory=1000\n"
        for number in (1, 2)
    )
    return (
        "ClusterName=test\nSlurmctldHost=localhost\nSlurmctldPort=17200\nAuthType=auth/munge\nCredType=cred/munge\n"
        f"SlurmUser={user}\nSlurmdUser={user}\nAuthInfo=socket={folder}/munge.sock\nMpiDefault=none\n"
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\n"
        "SelectTypeParameters=CR_CPU\nSchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0\n"
        f"ReturnToService=2\nKillWait=5\nStateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool/%n\n"
        f"SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.%n.pid\n"
        f"SlurmctldLogFile={folder}/slurmctld.log\nSlurmdLogFile={folder}/slurmd.%n.log\n"
        "AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\n"
        f"{nodes}PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
    )


@pytest.fixture
def slurm(tmp_path: Path, project: Project) -> Iterator[Project]:
    """A project in whose environment `sbatch` is that of a real Slurm, started for this test."""
    folder = tmp_path / "slurm"
    environment = project.environment | {"SLURM_CONF": str(folder / "slurm.conf")}
    try:
        if reason := reason_against_slurm(folder, environment):
            pytest.skip(
                "the scripts are submitted to a real Slurm, which the test starts on this machine from Debian's "
                "packages (apt-get install slurmctld slurmd slurm-client munge); that bash reads them is tested "
                "everywhere. Here: "
                f"{reason}"
            )
        yield Project(project.folder, environment)
    finally:
        for file in folder.glob("*.pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGTERM)
            except (OSError, ValueError):
                continue


def reason_against_slurm(folder: Path, environment: dict[str, str]) -> str:
    """Start a Slurm of two nodes in a folder; why that cannot be here, or nothing."""
    if missing := [name for name in SLURM if shutil.which(name) is None]:
        return f"{', '.join(missing)} not installed"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    (folder / "slurm.conf").write_text(slurm_configuration(folder))
    files = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "seed", "log")]
    munge = ["munged", "--force", *files, f"--socket={folder}/munge.sock", f"--pid-file={folder}/munged.pid"]
    for command in (munge, ["slurmctld"], ["slurmd", "-N", "n1"], ["slurmd", "-N", "n2"]):
        started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if started.returncode:
            return f"{command[0]} does not start: {started.stderr.strip()}"
    until_s = time.monotonic() + 30
    while _slurm(environment, "sinfo", "-h", "-t", "idle", "-o", "%D").strip() != "2":
        if time.monotonic() > until_s:
            return f"its nodes do not answer: {_slurm(environment, 'sinfo').strip()}"
        time.sleep(0.2)
    return ""


def _slurm(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def submit(slurm: Project, *options: object) -> str:
    """Submit a script of `aupipe cluster script slurm`; the number of the job."""
    answer = slurm.run("cluster", "script", "slurm", "--cpus", 1, "--time", "00:20:00", *options)
    assert answer.code == 0, answer.err
    (slurm.folder / "job.sbatch").write_text(answer.out)
    said = subprocess.run(
        ["sbatch", "--parsable", "job.sbatch"], cwd=slurm.folder, env=slurm.environment, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def wait_for_jobs(slurm: Project, within_s: float = 240) -> str:
    """Wait until Slurm has no job left; what the jobs have said."""
    until_s = time.monotonic() + within_s
    while _slurm(slurm.environment, "squeue", "-h").strip():
        assert time.monotonic() < until_s, _slurm(slurm.environment, "squeue")
        time.sleep(0.5)
    return "\n".join(file.read_text(errors="replace") for file in slurm.folder.glob("*.log"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["share", "allocation"])
def test_slurm_runs_the_script_and_the_store_is_that_of_a_local_run(slurm: Project, way: str, arrays: Arrays) -> None:
    local = slurm.run("extract", "--cpu", "--store", "local")
    assert local.code == 0, local.err
    submit(slurm, "--way", way, "--tasks", 2)
    said = wait_for_jobs(slurm)
    again = slurm.run("extract", "--cpu")
    assert again.code == 0, said + again.err
    assert again.out.startswith("nothing to do"), said
    assert arrays(slurm.folder / "features") == arrays(slurm.folder / "local")


@pytest.mark.slow
def test_workers_of_slurm_that_are_cancelled_and_requeued_cost_nothing(slurm: Project, arrays: Arrays) -> None:
    assert "hog" in CONFIG
    for number in range(8, 24):
        write_video(slurm.folder.parent / "films" / f"{number}.mp4", 120, size=(160, 120), tone_hz=300)
    local = slurm.run("extract", "--cpu", "--store", "local")
    assert local.code == 0, local.err
    file = slurm.folder / "scheduler.json"
    command = [
        "dask",
        "scheduler",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--scheduler-file",
        str(file),
    ]
    scheduler = subprocess.Popen(
        command, cwd=slurm.folder, env=slurm.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        number = submit(slurm, "--way", "workers", "--tasks", 2)
        run = slurm.start("extract", "--cpu", "--workers", "1", "--scheduler", str(file))
        until_s = time.monotonic() + 120
        journal = slurm.folder / "features" / "journal"
        while sum(each.read_bytes().count(b'"done"') for each in journal.glob("*.jsonl")) < 6:
            assert run.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.1)
        assert _slurm(slurm.environment, "scontrol", "requeue", f"{number}_1") == ""
        time.sleep(2)
        _slurm(slurm.environment, "scancel", f"{number}_2")
        _, err = run.communicate(timeout=240)
        assert run.returncode == 0, err.decode()
    finally:
        _slurm(slurm.environment, "scancel", "--name=aupipe")
        scheduler.terminate()
        scheduler.wait(timeout=30)
    assert arrays(slurm.folder / "features") == arrays(slurm.folder / "local")
