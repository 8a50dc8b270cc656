"""cluster script: batch scripts that run `aupipe extract` on many machines, filled in for the user to edit."""

from __future__ import annotations

import shlex
from pathlib import Path
from string import Template

import click

from aupipe.cli.extract import extract
from aupipe.cli.output import echo
from aupipe.cli.overwrite import overwrite_option
from aupipe.errors import UsageError
from aupipe.files import as_argument, write_file

# What a batch system calls: its comment, an array of jobs, one job, the number of a job in its array.
HEADS = {
    "slurm": """#!/bin/bash
#SBATCH --job-name=aupipe
#SBATCH --$array
#SBATCH --cpus-per-task=$cpus
$gpu#SBATCH --gres=gpu:$gpus
#SBATCH --time=$time
#SBATCH --requeue                 # after a preemption or a lost node
#SBATCH --open-mode=append
$warning#SBATCH --signal=B:USR1@300       # five minutes before the end: the videos under way are finished
#SBATCH --output=aupipe-$log.log
""",
    "pbs": """#!/bin/bash
#PBS -N aupipe
#PBS $array
#PBS -l select=$nodes:ncpus=$cpus$gpu_ngpus
#PBS -l walltime=$time
#PBS -r y
#PBS -j oe
""",
    "lsf": """#!/bin/bash
#BSUB -J $array
#BSUB -n $cpus
#BSUB -R span[hosts=1]
$gpu#BSUB -gpu num=$gpus
#BSUB -W $minutes
#BSUB -r
#BSUB -o aupipe-%J_%I.log
""",
}
ARRAYS = {"slurm": "array=1-$tasks", "pbs": "-J 1-$tasks", "lsf": '"aupipe[1-$tasks]"'}
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub <"}
SINGLE = {"slurm": "nodes=$tasks --ntasks-per-node=1", "pbs": "-q workq", "lsf": "aupipe"}
SETUP = """
# What your site needs goes here: module load ..., source .../bin/activate
cd $folder || exit 1
"""
BODIES = {
    "share": """
# Every job takes videos that no other has taken, until none is left. Submit as often as you like.
exec aupipe extract $options --share
""",
    "workers": """
# Workers for a run elsewhere, such as on the login node:
#   dask scheduler --no-dashboard --port 0 --scheduler-file $file & scheduler=$$!
#   aupipe extract $options --scheduler $file
#   kill $$scheduler              # then these jobs end, too
exec dask worker --scheduler-file $file --no-dashboard --no-nanny --nthreads 1 --death-timeout 600
""",
    "allocation": """
# Scheduler, workers and run in one allocation; all end with it.
rm -f $file
log=dask-$$SLURM_JOB_ID.log
dask scheduler --no-dashboard --port 0 --scheduler-file $file >> $$log 2>&1 & scheduler=$$!
until [ -e $file ]; do
    kill -0 $$scheduler 2> /dev/null || { echo "the Dask scheduler did not start: see $$log" >&2; exit 1; }
    sleep 1
done
srun dask worker --scheduler-file $file --no-dashboard --no-nanny --nthreads 1 --death-timeout 600 >> $$log 2>&1 &
workers=$$!
trap 'kill -USR1 $$run' USR1
aupipe extract $options --scheduler $file & run=$$!
wait $$run || wait $$run; code=$$?
kill $$workers $$scheduler
exit $$code
""",
}


@click.group()
def cluster() -> None:
    """Run on many machines (docs/cluster.md)."""


@cluster.command(context_settings={"ignore_unknown_options": True})
@click.argument("system", type=click.Choice(list(HEADS)))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--way",
    type=click.Choice(list(BODIES)),
    default="share",
    show_default=True,
    help="share: jobs that divide the videos among them. workers: Dask workers for a run elsewhere. "
    "allocation: all in one job (Slurm).",
)
@click.option("--tasks", type=click.IntRange(min=1), default=4, show_default=True, help="Jobs, or nodes of one job.")
@click.option("--cpus", type=click.IntRange(min=1), default=8, show_default=True, help="Cores of each.")
@click.option("--gpus", type=click.IntRange(min=0), default=0, show_default=True, help="GPUs of each.")
@click.option("--time", "time_limit", default="08:00:00", show_default=True, help="Time limit, HH:MM:SS.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write FILE instead of printing.")
@overwrite_option("FILE")
def script(
    system: str,
    options: tuple[str, ...],
    way: str,
    tasks: int,
    cpus: int,
    gpus: int,
    time_limit: str,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Print a batch script that runs `aupipe extract OPTIONS` in this folder.

    \b
    Examples:
      aupipe cluster script slurm --tasks 8 --gpus 1 > extract.sbatch
      aupipe cluster script slurm --way workers --tasks 8 -- --modality visual
      aupipe cluster script pbs --cpus 16 -- --modality audio
    """
    if way == "allocation" and system != "slurm":
        raise UsageError("--way allocation starts workers by srun, which is Slurm's: use share or workers")
    # What the jobs would refuse is refused now.
    extract.make_context("extract", list(options), parent=click.get_current_context().find_root())
    text = script_of(system, way, options, tasks, cpus, gpus, time_limit)
    if out is not None:
        write_file(out, text, overwrite)
        echo(f"wrote {out}; next: {SUBMIT[system]} {as_argument(out)}")
    else:
        echo(*text.rstrip("\n").split("\n"))


def script_of(
    system: str, way: str, options: tuple[str, ...], tasks: int, cpus: int, gpus: int, time_limit: str
) -> str:
    """The text of a batch script. Raises UsageError for a time limit that is none."""
    parts = time_limit.split(":")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise UsageError(f"--time {time_limit}: expected hours, minutes and seconds such as 08:00:00")
    array = (SINGLE if way == "allocation" else ARRAYS)[system]
    device = ["--gpu", "all"] if gpus else ["--cpu"]
    given = [] if {"--gpu", "--cpu"} & set(options) else device
    values = {
        "array": Template(array).substitute(tasks=tasks),
        "tasks": tasks,
        "nodes": 1,
        "log": "%j" if way == "allocation" else "%A_%a",
        "cpus": cpus,
        "gpus": gpus,
        "gpu": "" if gpus else "#",
        "warning": "",
        "gpu_ngpus": f":ngpus={gpus}" if gpus else "",
        "time": time_limit,
        "minutes": int(parts[0]) * 60 + int(parts[1]),
        "folder": shlex.quote(str(Path.cwd())),
        "file": shlex.quote(str(Path.cwd() / "scheduler.json")),
        "options": shlex.join([*given, *options]),
    }
    if way == "workers":  # a Dask worker ends at a signal: its videos go to the others
        values["warning"] = "#"
    lines = Template(HEADS[system] + SETUP + BODIES[way]).substitute(values).splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("##"))  # what no GPU needs
