"""train --sweep as a user types it: the search of docs/training.md, its refusals, its kill and its processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import psutil
import pytest

from aupipe.cli.train_sweep import repeat_option
from aupipe.extract.executors.work import visible
from aupipe.report.search_plot import _ticks
from aupipe.train.folder_lock import REQUEST_FILE, lock_folder, refuse_running
from aupipe.train.model import load_model
from tests.cli.test_json import check_shapes
from tests.cli.test_train import SMALL, Folder, fill

ROOT = Path(__file__).parents[2]
AUPIPE = [sys.executable, "-c", "from aupipe.cli import main; main()"]
FAST = ("--feature", "hog", *SMALL, "--set", "predict_hop=32")
SEARCH = ("train", "--recipe", "baseline", "--sweep", "lr=0.01,0.1", "--folds", "3", *FAST)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("project")
    fill(root)
    return Folder(root)


@pytest.fixture(scope="module")
def searched(project: Folder) -> str:
    return project.ask(*SEARCH, "--out", "search")


def result_of(folder: Folder, out: str) -> dict:
    return json.loads((folder.path / out / "sweep.json").read_text())


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_sweep_takes_all_words_up_to_the_next_option() -> None:
    typed = shlex.split("--recipe tcn --sweep lr=1e-4,3e-4 head.width=32,64 --folds 5 --sweep=a=1 b=2 -v")
    assert repeat_option(typed, "--sweep") == shlex.split(
        "--recipe tcn --sweep lr=1e-4,3e-4 --sweep head.width=32,64 --folds 5 --sweep=a=1 --sweep b=2 -v"
    )
    assert repeat_option(["--recipe", "tcn", "stray"], "--sweep") == ["--recipe", "tcn", "stray"]


def test_a_search_prints_its_points_and_says_which_score_to_report(project: Folder, searched: str) -> None:
    result = result_of(project, "search")
    nested, naive = (result[key]["scores"]["mean"] for key in ("nested", "naive"))
    assert "18 runs: 2 points, each on all 3 folds and without each of them" in searched
    assert re.findall(r"^(\d+)/18 runs  ", searched, re.MULTILINE) == ["3", "6", "8", "10", "12", "14", "16", "18"]
    assert load_model(project.path / "search").name == "mean of 3 baseline"
    assert re.search(r"^optimiser.lr=0.01 +0\.\d{3} +0\.\d{3} \+- 0\.\d{3}", searched, re.MULTILINE)
    assert f"nested F1 {nested:.3f} [" in searched
    assert f"naive F1 {naive:.3f} [" in searched
    assert f"optimism {naive - nested:.3f} [" in searched
    assert "naive minus nested; it also contains training on fewer people" in searched
    assert "AU12" in searched
    assert "so it is too narrow" in searched
    assert "next: aupipe evaluate search" in searched
    assert len(list((project.path / "search" / "points").glob("*/*/*/run.json"))) == 18 == result["runs"]
    assert [point["label"] for point in result["points"]] == ["optimiser.lr=0.01", "optimiser.lr=0.1"]


def test_the_plot_is_svg_with_a_row_per_point(project: Folder, searched: str) -> None:
    picture = ET.fromstring((project.path / "search" / "sweep.svg").read_text())
    texts = [node.text for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"optimiser.lr=0.01", "optimiser.lr=0.1"} <= set(texts)
    assert f"nested {result_of(project, 'search')['nested']['scores']['mean']:.3f}" in texts
    assert {"naive: do not report", "95% interval of it"} <= set(texts)
    assert [text for _, text in _ticks(0.513, 0.742)] == ["0.55", "0.60", "0.65", "0.70"]
    assert [text for _, text in _ticks(-0.03, 0.021)] == ["-0.03", "-0.02", "-0.01", "0.00", "0.01", "0.02"]


def test_the_winner_is_evaluated_on_the_validation_split_and_the_same_command_reports_it_again(
    project: Folder, searched: str
) -> None:
    before = content(project.path / "search")
    assert project.json("evaluate", "search", "--cpu", "--draws", "0")["recordings"] == 3
    assert len(load_model(project.path / "search").runs) == 3
    again = project.ask(*SEARCH, "--out", "search")
    assert "search is trained already" in again
    assert searched[searched.index("point ") :] in again
    (found,) = check_shapes("train", project.out("train", "--resume", "search", "--cpu", "--json"))
    assert found["model"] == "search"
    assert found["optimism"] == result_of(project, "search")["optimism"]
    assert content(project.path / "search") == before


def test_the_recordings_that_chose_a_point_do_not_score_it_without_saying_so(project: Folder, searched: str) -> None:
    nested = result_of(project, "search")["nested"]["scores"]["mean"]
    said = f"of these recordings CHOSE THIS POINT of a search, so it is optimistic: the nested score, {nested:.3f} F1"
    held_out = ("--split", "train", "--held-out", "--cpu", "--draws", "0")
    assert said in project.ask("evaluate", "search", *held_out)
    winner = f"search/points/{result_of(project, 'search')['winner']}/all"
    for model in ("search", winner):
        assert sum(said in caveat for caveat in project.json("evaluate", model, *held_out)["caveats"]) == 1
    assert not project.json("evaluate", "search", "--cpu", "--draws", "0")["caveats"]  # other recordings


def test_two_processes_do_not_work_on_one_search(
    project: Folder, searched: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is refused before it writes anything; the first holds the lock as long as it trains."""
    begun = project.path / "begun"
    begun.mkdir()
    (begun / REQUEST_FILE).write_bytes((project.path / "search" / REQUEST_FILE).read_bytes())
    said = "begun: another training is running there: wait for it, or choose another folder"
    with lock_folder(begun):
        assert said in project.ask("train", "--resume", "begun", "--cpu", code=2)
        assert said in project.ask(*SEARCH, "--out", "begun", code=2)
        assert {path.name for path in begun.iterdir()} == {REQUEST_FILE, ".lock"}
    for command in ("evaluate", "predict", ("report", "run")):
        asked = (command,) if isinstance(command, str) else command
        assert "begun: unfinished: `aupipe train --resume begun`" in project.ask(*asked, "begun", "--cpu", code=2)
    monkeypatch.setattr(sys.modules["aupipe.cli.training"], "run_sweep", lambda *_: refuse_running(begun))
    assert said in project.ask("train", "--resume", "begun", "--cpu", code=2)


def swept(values: str) -> list[str]:
    """The command of the search over other values."""
    return [word if word != "lr=0.01,0.1" else values for word in SEARCH]


def test_a_finished_search_gets_further_points_and_trains_only_those(project: Folder, searched: str) -> None:
    """The result is that of a search over all of them."""
    shutil.copytree(project.path / "search", project.path / "extended")
    before = content(project.path / "extended" / "points")
    said = project.ask(*swept("lr=0.2"), "--out", "extended", "--extend")
    after = content(project.path / "extended" / "points")
    assert {path: after[path] for path in before} == before
    assert len([path for path in after if path.endswith("run.json")]) == 27
    whole = swept("lr=0.2,0.01,0.1")
    project.ask(*whole, "--out", "whole")
    assert result_of(project, "extended") == result_of(project, "whole")
    assert load_model(project.path / "extended").name == "mean of 3 baseline"
    assert "next: aupipe evaluate extended" in said
    assert "is trained already" in project.ask(*whole, "--out", "extended")
    assert "is trained already" in project.ask(*swept("lr=0.2"), "--out", "extended", "--extend")
    decay = "optimiser.weight_decay"
    for words, reason in (
        ([*SEARCH, "--out", "nothing"], "--extend adds values of --sweep to a finished search, which --out names"),
        (
            [*swept("lr=1"), "--set", f"{decay}=0.5", "--out", "extended"],
            "other settings (optimiser.weight-decay 0.05, not 0.5)",
        ),
        ([*swept("weight_decay=0.5"), "--out", "extended"], f"{decay}=0.5 is of other settings"),
    ):
        assert reason in project.ask(*words, "--extend", code=2)
    assert content(project.path / "extended" / "points") == after


def test_another_sweep_does_not_mix_with_a_finished_one(project: Folder, searched: str) -> None:
    before = content(project.path / "search")
    words = [word if word != "lr=0.01,0.1" else "lr=0.01,0.1,0.2" for word in SEARCH]
    said = project.ask(*words, "--out", "search", code=2)
    assert "(sweep optimiser.lr=0.01,0.1, not optimiser.lr=0.01,0.1,0.2): choose another --out" in said
    assert "leave out --sweep" in project.ask("train", "--resume", "search", "--sweep", "lr=1", code=2)
    assert content(project.path / "search") == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--sweep lr=0.01,fast --folds 3", "lr = 'fast': expected a number"),
        ("--sweep lrr=0.01 --folds 3", "unknown key 'lrr'"),
        ("--sweep lr=0.01", "--sweep needs --folds, of which it holds out each: give --folds 5"),
        ("--sweep lr=0.01 --folds 2", "a search needs 3 folds or more, not 2"),
        ("--sweep lr=0.01 --folds 3 --fold fold1", "--sweep holds out each of the --folds: leave out --fold"),
        ("--sweep learning=1,2 --folds 3", "Did you mean 'optimiser.lr'?"),
        ("--sweep momentum=0.1,0.2 --set lr=0.1 --folds 3", "unknown key 'lr'. Did you mean 'optimiser.lr'?"),
        ("--sweep lr --folds 3", "expected key=value,value"),
        ('--sweep features=["hog"],["swin"] --folds 3', "'swin'"),
        ("--jobs 2", "--jobs is for several runs: --sweep, --folds, several --seed or members"),
        ("--folds 3 --scheduler nowhere", "expected an address such as tcp://host:8786, or the file"),
        ("--folds 9 --sweep lr=1", "9 folds of 6 groups"),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_one_line_and_leaves_no_folder(
    project: Folder, words: str, said: str
) -> None:
    answer = project.ask(
        "train", "--recipe", "baseline", *FAST, *shlex.split(words, posix=False), "--out", "no", code=2
    )
    assert said in answer.splitlines()[-1]
    assert not (project.path / "no").exists()


def documented() -> list[list[str]]:
    """The commands of the section of the documentation, as words."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    block = text.partition("## Search\n")[2].split("```")[1]
    return [shlex.split(line, comments=True)[1:] for line in block.removeprefix("bash").strip().splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_documentation_search_and_score(project: Folder) -> None:
    small = {"train": [*FAST, "--set", "epochs=1"], "evaluate": ["--cpu"], "predict": ["--cpu", "--out", "p.csv"]}
    for words in documented():
        words = [word if word not in ("32,64", "5") else "3" for word in words]
        more = ["--cpu"] if "--resume" in words else small[words[0]]
        said = project.ask(*words, *more)
    assert "F1" in said


def test_features_that_are_swept_replace_those_of_the_command(tmp_path: Path) -> None:
    fill(tmp_path, also=("geometry",))
    project = Folder(tmp_path)
    ask = ("--sweep", 'features=["hog"],["geometry"]', "--folds", "3", *FAST, "--set", "epochs=1", "--out", "both")
    project.ask("train", "--recipe", "baseline", *ask)
    folders = (tmp_path / "both").rglob("run.json")
    assert {tuple(json.loads(path.read_text())["features"]) for path in folders} == {("hog",), ("geometry",)}


def test_each_process_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible("cpu") == {}
    assert visible("cuda:1") == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert visible("cuda:1") == {"CUDA_VISIBLE_DEVICES": "7"}


@pytest.mark.slow
def test_a_search_in_processes_survives_kills_and_ends_with_the_numbers_of_one_process(
    project: Folder, searched: str
) -> None:
    """The run is killed, then one of its processes; no finished run is trained again."""
    out = project.path / "killed"
    begin = [*AUPIPE, *SEARCH, "--jobs", "2", "--out", "killed"]
    running = subprocess.Popen(begin, cwd=project.path, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL)
    while len(list(out.glob("points/*/*/scores.json"))) < 2:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.02)
    workers = workers_of(running.pid)
    running.kill()
    running.communicate()
    psutil.wait_procs(workers, timeout=10)
    done = {path.parent: content(path.parent) for path in out.glob("points/*/*/scores.json")}
    assert len(done) < 8
    refused = subprocess.run(begin, cwd=project.path, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "killed holds a run that is not finished: `aupipe train --resume killed`" in refused.stderr

    resume = [*AUPIPE, "train", "--resume", "killed", "--jobs", "2", "--cpu", "--json"]
    running = subprocess.Popen(resume, cwd=project.path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not (workers := workers_of(running.pid)):
        assert running.poll() is None
        time.sleep(0.02)
    os.kill(workers[0].pid, signal.SIGKILL)
    stdout, stderr = running.communicate(timeout=300)
    assert running.returncode == 0, stderr
    assert "its process was killed by signal 9; tried again" in stderr
    assert {folder: content(folder) for folder in done} == done
    assert json.loads(stdout) == {"model": "killed", **result_of(project, "search")}


def workers_of(pid: int) -> list[psutil.Process]:
    return [
        child for child in psutil.Process(pid).children() if "aupipe.extract.executors.work_process" in child.cmdline()
    ]
