"""`aupipe check` on a corpus made here: planted faults are flagged, a clean corpus is not, and `train` says so."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.extract.planning.features import build_feature_set
from aupipe.report.checks import judge
from aupipe.sources import source_identity
from aupipe.store import create_store, open_store
from aupipe.store.run_log import run_logs
from aupipe.tasks import AU_NAMES
from tests.cli.conftest import HOG, MFCC, Project

FRAMES, COLUMNS = 400, 40
CONFIG = '[dataset]\nlayout = "affwild2"\nroot = "."\n' + HOG + MFCC
NAMES = (*(f"v{number}" for number in range(10)), "pair_left", "pair_right")
Change = Callable[[str, dict], None]


def events(rng: np.random.Generator) -> np.ndarray:
    """(FRAMES, 12) AUs that begin and end at random."""
    found = np.zeros((FRAMES, len(AU_NAMES)))
    for column in range(len(AU_NAMES)):
        for _ in range(5):
            start = rng.integers(0, FRAMES - 30)
            found[start : start + rng.integers(8, 30), column] = 1
    return found


def fill(root: Path, change: Change = lambda name, content: None) -> None:
    """A corpus of ten single recordings and a pair, with the features that extraction would store.

    ``change`` may alter the content of a recording before it is written.
    """
    rng = np.random.default_rng(3)
    (root / "aupipe.toml").write_text(CONFIG)
    splits = {name: "Validation_Set" if name in ("v7", "v8") else "Train_Set" for name in NAMES}
    for name in ("videos", *(f"annotations/AU_Detection_Challenge/{split}" for split in set(splits.values()))):
        (root / name).mkdir(parents=True)
    for name in {name.removesuffix("_left").removesuffix("_right") for name in NAMES}:
        (root / "videos" / f"{name}.mp4").write_bytes(name.encode())
    view = rng.normal(size=(len(AU_NAMES), COLUMNS))
    contents = {}
    for name in NAMES:
        labels = events(rng)
        x = 340 if name.endswith("_right") else 100
        content = {"labels": labels, "box": np.tile([x, 80.0, x + 120, 220], (FRAMES, 1)), "others": 0}
        content |= {"hog": labels @ view + 0.4 * rng.normal(size=(FRAMES, COLUMNS)), "media": {}, "sound": FRAMES}
        content["times"], content["damage"] = np.arange(FRAMES) / 25, ""
        contents[name] = content
    for name in NAMES:
        change(name, contents)
    for name, content in contents.items():
        lines = [",".join(AU_NAMES), *(",".join(f"{value:.0f}" for value in row) for row in content["labels"])]
        path = root / "annotations" / "AU_Detection_Challenge" / splits[name] / f"{name}.txt"
        path.write_text("\n".join(lines) + "\n")
    publish(root, contents)


def publish(root: Path, contents: dict) -> None:
    config = load_config(root / "aupipe.toml")
    recordings = open_dataset(config.dataset).recordings
    parts = build_feature_set(config)
    store = create_store(root / "features")
    done = set()
    for recording in recordings:
        content, graph = contents[recording.id], parts.graph(recording)
        source = source_identity(recording.video)
        face = np.full((FRAMES, 15), np.nan, np.float32)
        face[:, :4], face[:, 4:] = content["box"], 0.9
        face[np.isnan(content["box"][:, 0])] = np.nan
        dense = np.zeros((FRAMES, 8, 17), np.float32)
        boxes = [np.concatenate([face[:, :15], np.tile([360, 480], (FRAMES, 1))], axis=1)]
        boxes += [boxes[0] * 0 + np.array([500, 10, 560, 80, *[0] * 10, 0.8, 360, 480])] * content["others"]
        for place, rows in enumerate(boxes):
            dense[:, place] = np.nan_to_num(rows)
        if content["others"]:
            dense[:, 1] = np.array([500, 10, 560, 80, *[0] * 10, 0.8, 360, 480])
        dense[(dense[:, :, 14] == 0).all(axis=1)] = np.nan
        mfcc = np.ones((FRAMES, 3), np.float32)
        mfcc[content["sound"] :] = np.nan
        rows = {"clock": content["times"], "detections": dense, "faces": face, "hog": content["hog"], "mfcc": mfcc}
        for spec in (graph.clock, graph.detections, graph.faces, *(spec for spec, _ in graph.encoders)):
            key = recording.key_for(spec.modality)
            if (key, spec.id) in done:
                continue
            done.add((key, spec.id))
            data = rows[spec.name].astype(spec.dtype)
            options = {"frames": len(data), "row_shape": data.shape[1:], "source": source}
            with store.writer(key, spec, **options, video_id=recording.video_id) as item:
                item.append(data)
                media = {"audio": content["media"]} if spec.modality == "audio" and content["media"] else {}
                item.commit(damage=content["damage"], media=media)
    store.close()


def findings(project: Project, *arguments: str) -> dict[str, set[str]]:
    """Recording -> its faults."""
    answer = project.run("check", "--json", *arguments)
    assert answer.code == 0, answer.err
    found: dict[str, set[str]] = {}
    for one in json.loads(answer.out)["findings"]:
        found.setdefault(one["recording"], set()).add(one["fault"])
    return found


def late(labels: np.ndarray, frames: int) -> np.ndarray:
    out = np.full_like(labels, -1)
    if frames > 0:
        out[frames:] = labels[:-frames]
    else:
        out[:frames] = labels[-frames:]
    return out


def test_a_clean_corpus_has_no_finding_and_strict_is_content(project: Project) -> None:
    (project.folder / "videos").rmdir()
    fill(project.folder)
    answer = project.run("check", "--strict")
    assert answer.code == 0, answer.out + answer.err
    assert "0 of 12 recordings flagged, 0 findings" in answer.out
    assert "checked: au labels against the face, by a regression on hog, held out" in answer.out


def test_planted_faults_are_flagged_and_nothing_else(project: Project) -> None:
    def plant(name: str, contents: dict) -> None:
        one = contents[name]
        match name:
            case "v0":
                one["labels"] = late(one["labels"], 10)
            case "v1":
                one["labels"] = late(one["labels"], -3)
            case "v2":
                one["media"] = {"silent": True}
            case "v3":
                one["box"][:200] = np.nan
                one["others"] = 1
            case "v4":
                one["box"][200:] += [300, 0, 300, 0]
            case "v5":
                one["labels"] = one["labels"][:-7]
            case "v6":
                one["sound"] = 300
            case "v7":
                one["times"] = np.cumsum(np.where(np.arange(FRAMES) % 3, 0.02, 0.06))
            case "v8":
                one["damage"] = "3 packets not decodable"
            case "v9":
                one["box"] = np.tile([100.0, 80, 130, 110], (FRAMES, 1))
            case "pair_left":
                other = contents["pair_right"]
                one["labels"], other["labels"] = other["labels"], one["labels"]

    (project.folder / "videos").rmdir()
    fill(project.folder, plant)
    assert findings(project) == {
        "v0": {"labels late"},
        "v1": {"labels early"},
        "v2": {"silent sound"},
        "v3": {"other faces only"},
        "v4": {"subject jumps"},
        "v5": {"rows against labels"},
        "v6": {"sound missing in part"},
        "v7": {"variable frame rate"},
        "v8": {"damaged media"},
        "v9": {"tiny face"},
        "pair_left": {"labels of its sibling"},
        "pair_right": {"labels of its sibling"},
    }
    answer = project.run("check", "--strict")
    lines = answer.out.splitlines()
    assert answer.code == 14
    assert lines[1].split()[0].startswith("pair_")  # the worst first
    assert next(line for line in lines if line.startswith("v0")).split()[3] == "+10"
    assert project.run("check", "v0", "--strict").out.splitlines()[-2].startswith("checked")
    assert len(run_logs(project.folder / "features")) == 3
    small = ("--set", "epochs=1", "--recipe", "baseline", "--feature", "hog", "--cpu")
    said = project.run("train", *small).err
    assert "12 of 12 recordings flagged by aupipe check of" in said
    assert said.count("flagged") == 1
    assert project.run("store", "purge", "v0", "--yes").code == 0
    assert not any(b'"v0"' in Path(path).read_bytes() for path in run_logs(project.folder / "features"))


@pytest.mark.parametrize("fault", ["same person as its sibling", "on its sibling's side"])
def test_a_box_on_the_sibling_is_the_worst_finding(project: Project, fault: str) -> None:
    def plant(name: str, contents: dict) -> None:
        if name == "pair_left":
            left, right = contents["pair_left"], contents["pair_right"]
            left["box"], right["box"] = right["box"], right["box"] if "same" in fault else left["box"]

    (project.folder / "videos").rmdir()
    fill(project.folder, plant)
    found = findings(project)
    assert found.keys() == {"pair_left", "pair_right"}
    assert all(fault in faults for faults in found.values())


def test_what_cannot_be_checked_is_said(project: Project) -> None:
    (project.folder / "videos").rmdir()
    fill(project.folder)
    text = CONFIG.replace(
        'name = "hog"\nmodality = "visual"\nkind = "hog"', 'name = "g"\nmodality = "visual"\nkind = "geometry"'
    )
    project.configure(text)
    said = project.run("check").out
    assert "not checked: au labels against the face: no visual feature of 32 to 2048 columns" in said


def test_predictions_of_a_run_are_taken_where_it_was_not_trained(project: Project) -> None:
    def plant(name: str, contents: dict) -> None:
        if name in ("v0", "v7"):
            contents[name]["labels"] = late(contents[name]["labels"], 10)

    (project.folder / "videos").rmdir()
    fill(project.folder, plant)
    small = ("--set", "epochs=30", "--recipe", "baseline", "--feature", "hog", "--cpu")
    assert project.run("train", *small, "--out", "runs/a").code == 0
    answer = project.run("check", "--json", "--run", "runs/a", "--cpu")
    found = json.loads(answer.out)
    assert found["checked"][0].endswith("by held-out predictions of 2, else by a regression on hog, held out")
    assert [(one["recording"], one["value"]) for one in found["findings"]] == [("v0", 10.0), ("v7", 10.0)]
    answer = project.run("report", "data", "v0", "v7", "--run", "runs/a", "--cpu")
    assert answer.code == 0, answer.err
    for name, said in (("v7", "Predictions of a: held out"), ("v0", "Predictions of a: it was TRAINED on this")):
        text = next(project.folder.glob(f"reports/data/rec/{name}-*/index.html")).read_text(encoding="utf-8")
        assert said in text
        assert "labels late: +10 frames" in text
        assert "AU1 labelled active, not predicted" in text


def test_one_bad_file_is_a_finding_and_the_others_are_checked(project: Project) -> None:
    def plant(name: str, contents: dict) -> None:
        if name == "v0":
            contents[name]["labels"] = late(contents[name]["labels"], 10)

    (project.folder / "videos").rmdir()
    fill(project.folder, plant)
    labels = project.folder / "annotations" / "AU_Detection_Challenge" / "Train_Set" / "v3.txt"
    labels.write_text(labels.read_text().replace("\n0,", "\n7,", 1))
    store = open_store(project.folder / "features")
    (spec,) = [spec for spec in store.features() if spec.name == "faces"]
    for file in Path(store.item_path(store.published("v5", spec.id))).rglob("*"):
        if file.is_file() and file.stat().st_size > 20_000:
            file.write_bytes(file.read_bytes()[:1000])
    found = findings(project)
    assert found == {"v0": {"labels late"}, "v3": {"unreadable labels"}, "v5": {"damaged rows"}}
    assert "v3.txt, line 2: AU1 is 7: expected a whole number of 0 to 1" in project.run("check").out
    answer = project.run("report", "data", "v3", "v5")
    assert answer.code == 0, answer.err
    assert "aupipe: v5: no page: " in answer.err
    text = next(project.folder.glob("reports/data/rec/v3-*/index.html")).read_text(encoding="utf-8")
    assert "au labels (annotations/AU_Detection_Challenge/Train_Set/v3.txt, line 2: AU1 is 7" in text
    assert "damaged rows" in (project.folder / "reports" / "data" / "index.html").read_text(encoding="utf-8")


def test_a_store_that_may_not_be_written_is_checked_all_the_same(project: Project) -> None:
    (project.folder / "videos").rmdir()
    fill(project.folder)
    (project.folder / "features" / "runs").write_text("in the way")
    answer = project.run("check", "--strict")
    assert answer.code == 0
    assert "cannot be written" in answer.err


def test_every_command_of_the_page_works_as_it_stands(project: Project) -> None:
    (project.folder / "videos").rmdir()
    fill(project.folder)
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    checks = [shlex.split(line, comments=True) for line in commands if line.startswith("aupipe check")]
    assert len(checks) >= 3
    for words in checks:
        words = words[1 : words.index("||")] if "||" in words else words[1:]
        answer = project.run(*words)
        assert answer.code == 0, answer.err


def test_the_page_names_every_fault() -> None:
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    source = (Path(judge.__file__)).read_text(encoding="utf-8")
    faults = {check.fault for check in judge.CHECKS} | set(re.findall(r'add\("?[\w:{}]+"?, "([a-z ]+)"', source))
    assert {"labels of its sibling", "tiny face", "odd frame rate"} <= faults
    assert {fault for fault in faults if fault not in page} == set()
