"""Four users' days, as they would type them: a folder of theirs, a script, and what the terminal and the files show.

`student.sh`, `participant.sh`, `scientist.sh` and `engineer.sh` are run by bash in the folder that `material.py` makes.
Each `.out` is the transcript, with times, sizes and what differs by machine replaced. AUPIPE_REWRITE_JOURNEYS=1 writes
it anew: read the difference before you keep it.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aupipe.extract.encoders.visual.blendshapes import NAMES
from aupipe.store import open_store
from tests.docs.blocks import ROOT
from tests.journeys import material

HERE = Path(__file__).parent
REWRITE = bool(os.environ.get("AUPIPE_REWRITE_JOURNEYS"))  # read now: tests see no such variable
BIN = Path(sys.executable).parent
# What differs from one run to the next, or by machine, and what stands for it.
REPLACED = [
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"@[0-9a-f]{12}(?![0-9a-f])", "@KEY"),
    (r"(-[0-9a-f]{8}\.\d+)-[0-9a-f]+-\d+-[0-9a-f]{8}(\.[0-9a-f]{8})?", r"\1-REVISION"),
    (r"crc32c [0-9a-f]{8}, [0-9a-f]{8}", "crc32c CRC, CRC"),
    (r"-[0-9a-f]{8}\.sqlite", "-CRC.sqlite"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\dZ)?", "DATE"),
    (r"\bpid \d+", "pid PID"),
    (r"line \d+: +\d+ Killed", "line N: PID Killed"),
    (r"(, |in )\d+(\.\d+)? (s|min)$", r"\1TIME"),
    (r"  \d+\.\d s$", "  TIME"),
    (r"\(epoch \d+\)", "(epoch N)"),
    (r"of media in \S+ s \(.*", "of media in TIME (RATES)"),
    (r"^stages busy: .*", "stages busy: RATES"),
    (r"\b[\d.]+ kB\b", "SIZE"),
    # A job may be killed within an item, or between it and its line in the journal.
    (r"^(orphan|adopt the complete orphans|\d+ replaced items?,).*\n", ""),
    (r"removed \d+ replaced items \(\S+ \w+\)", "removed ITEMS"),
    (r"\b[01]\.\d{3,4}\b", "#.###"),  # scores: `test_a_participant...` computes them again
]


@dataclass(frozen=True)
class Day:
    """The folder in which a user has typed a script, and what the terminal showed."""

    folder: Path
    transcript: str


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of somebody who has just installed aupipe."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def live(home: Path, tmp_path: Path) -> Callable[..., Day]:
    """Run a user's script in a folder of theirs, and compare what it shows with the stored transcript."""

    def live(name: str, prepare: Callable[[Path], None], out: str = "", **variables: str) -> Day:
        folder = tmp_path / "my work"
        folder.mkdir()
        prepare(folder)
        done = subprocess.run(
            ["bash", "-v", str(HERE / f"{name}.sh")],
            cwd=folder,
            env=environment(home) | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=550,
            check=False,
        )
        shown = normalised(done.stdout, tmp_path, home)
        stored = HERE / f"{out or name}.out"
        if REWRITE:
            stored.write_text(shown)
        assert done.returncode == 0, done.stdout[-3000:]
        both = stored.read_text().splitlines(), shown.splitlines()
        assert both[0] == both[1], "\n".join(difflib.unified_diff(*both, "stored", "shown", n=1))
        return Day(folder, done.stdout)

    return live


def environment(home: Path) -> dict[str, str]:
    """That of somebody with a clone, a home folder and one core: no weights, no downloads, no GPU, nobody's settings.

    `pip` installs into a folder there, from what is given to it alone.
    """
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    site = home / "site-packages"
    path = os.pathsep.join([str(BIN), "/usr/local/bin", "/usr/bin", "/bin"])
    own = {"HOME": str(home), "PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "CUDA_VISIBLE_DEVICES": ""}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    yes = ("NO_INDEX", "NO_DEPS", "DISABLE_PIP_VERSION_CHECK")
    pip = {f"PIP_{name}": "1" for name in yes} | {"PIP_TARGET": str(site), "PIP_NO_BUILD_ISOLATION": "0"}  # "0": yes
    return kept | own | threads | pip | {"MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}


def normalised(text: str, folder: Path, home: Path) -> str:
    """A transcript without what differs from one run, machine or folder to the next."""
    for path, word in ((folder, "FOLDER"), (home, "HOME"), (ROOT, "CLONE"), (Path(sys.prefix), "VENV")):
        text = text.replace(str(path), word)
    text = text.replace(socket.gethostname(), "HOST")
    for pattern, word in REPLACED:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return re.sub(r"(^\[\d+/\d+\] .*\n(    .*\n)*)+", in_order, text, flags=re.MULTILINE)


def in_order(lines: re.Match[str]) -> str:
    """Lines ``[3/8] clip.mp4 ...``, which come as videos are ready, by the names of the videos."""
    ended = re.findall(r"^\[\d+(/\d+\] .*\n(?:    .*\n)*)", lines[0], re.MULTILINE)
    return "".join(f"[N{line}" for line in sorted(ended))


def decoded(video: Path) -> np.ndarray:
    """(T,) s: the time stamp of each frame that FFmpeg decodes, up to where the file is broken."""
    times = []
    with av.open(str(video)) as container, suppress(av.FFmpegError):
        times.extend(float(frame.pts * frame.time_base) for frame in container.decode(video=0))
    return np.array(times)


def test_aupipe_of_these_days_is_this_clone(home: Path) -> None:
    code = "import aupipe; print(aupipe.__file__)"
    said = subprocess.run(["python", "-c", code], env=environment(home), cwd=home, capture_output=True, text=True)
    assert Path(said.stdout.strip()).is_relative_to(ROOT), said
    assert (BIN / "aupipe").is_file()


def test_a_student_gets_tables_and_pictures_of_odd_videos(live: Callable[..., Day]) -> None:
    folder = live("student", material.student).folder
    videos = {path.name: decoded(path) for path in sorted((folder / "videos").iterdir())}
    assert videos["download.mkv"].shape == (material.CUT,)
    for feature in ("geometry", "mfcc"):
        table = pd.read_csv(folder / "tables" / f"{feature}.csv")
        assert list(table["recording"].unique()) == list(videos)
        for name, rows in table.groupby("recording"):
            assert rows["frame"].tolist() == list(range(len(videos[name])))
            np.testing.assert_allclose(rows["time_s"], videos[name], atol=1e-6)
            assert (rows.iloc[:, 4:].notna().all(axis=1) == (rows["valid"] == 1)).all()
    table = table.set_index("recording")
    assert (
        list(table.loc["late sound.mp4", "valid"]) == [0] * 9 + [1] * 11
    )  # half of the clip; its window begins before
    with av.open(str(folder / "phone_upright.mov-overlay.mp4")) as overlay:
        stream = overlay.streams.video[0]
        assert stream.height > stream.width
        assert len(list(overlay.decode(video=0))) == material.FRAMES
    with Image.open(folder / "phone_upright.mov-preview.jpg") as sheet:
        assert sheet.width > 3 * sheet.height


def test_a_scientist_gets_a_table_and_tiers(live: Callable[..., Day]) -> None:
    check_tables(live("scientist", material.scientist).folder)


@pytest.mark.assets
def test_a_scientist_with_weights_gets_blendshapes_of_real_faces(live: Callable[..., Day], assets: Path) -> None:
    def prepare(folder: Path) -> None:
        (folder / "interviews").mkdir()
        shutil.copy(assets / "videos" / "single_face_smile_mp3.mp4", folder / "interviews" / "Anna Müller.mp4")
        shutil.copy(assets / "videos" / "grid_swwp2s_speech.mpg", folder / "interviews" / "Bernd.mpg")

    weights = {"AUPIPE_WEIGHTS": str(assets / "weights")}
    folder = live("scientist", prepare, out="scientist_with_weights", **weights).folder
    table = check_tables(folder)
    assert set(NAMES) < set(table.columns)
    shapes = table[table["face_subject"] == 1][list(NAMES)]
    assert ((shapes >= 0) & (shapes <= 1)).all(axis=None)
    smiles = table.groupby("recording")["mouthSmileLeft"].max()
    assert smiles["Anna Müller.mp4"] > 0.3


def check_tables(folder: Path) -> pd.DataFrame:
    """The table of `scientist.sh`, whose rows are the frames of the videos, as are those of the files beside it."""
    table = pd.read_csv(folder / "table.csv")
    about = pd.read_csv(folder / "table.columns.csv")
    assert list(about["column"]) == list(table.columns)
    assert set(about["kind"]) == {"measurement", "guess"}
    pd.testing.assert_frame_equal(table, pd.read_excel(folder / "table.xlsx"))
    for name, rows in table.groupby("recording"):
        times = decoded(folder / "interviews" / name)
        assert rows["frame"].tolist() == list(range(1, len(times) + 1))
        np.testing.assert_allclose(rows["time_s"], times, atol=1e-6)
        faces = faces_of(folder / f"tiers-{Path(name).stem.replace(' ', '_')}.eaf")
        ends = [times[0], 2 * times[-1] - times[-2]]  # a face is in the first and in the last frame
        np.testing.assert_allclose([faces[0][0], faces[-1][1]], np.array(ends) * 1000, atol=25)
        with Image.open(folder / f"table-{Path(name).stem.replace(' ', '_')}.png") as picture:
            assert picture.height > 500
    return table


def faces_of(file: Path) -> list[tuple[int, int]]:
    """From when to when a face is seen (ms), as ELAN's own reader has it."""
    import pympi

    return [interval[:2] for interval in pympi.Elan.Eaf(file).get_annotation_data_for_tier("face")]


def test_a_participant_gets_a_submission_and_the_score_of_the_predictions(live: Callable[..., Day]) -> None:
    day = live("participant", material.participant)
    table = pd.read_csv(day.folder / "predictions.csv")
    np.testing.assert_allclose(table["pts_s"], decoded(day.folder / "videos" / "demo-003.mp4"), atol=1e-6)
    labels = pd.read_csv(day.folder / "annotations" / "AU_Detection_Challenge" / "Validation_Set" / "demo-003.txt")
    counts = (labels != -1).all(axis=1).to_numpy()
    scores = []
    for unit in labels:
        said, true = table[unit].to_numpy()[counts] > 0.5, labels[unit].to_numpy()[counts] == 1
        scores.append(2 * (said & true).sum() / max(said.sum() + true.sum(), 1))
    evaluated = day.transcript.partition("aupipe evaluate")[2].partition("aupipe predict")[0]
    shown = re.findall(r"^(AU\d+|mean) +(\d\.\d+)", evaluated, re.MULTILINE)
    expected = [*zip(labels, scores, strict=True), ("mean", np.mean(scores))]
    assert shown == [(name, f"{score:.3f}") for name, score in expected]
    submission, sample = (pd.read_csv(day.folder / name) for name in ("submission.txt", "sample.txt"))
    assert list(submission.columns) == list(sample.columns)
    assert submission["image_location"].tolist() == sample["image_location"].tolist()
    assert set(np.unique(submission.iloc[:, 1:])) <= {0, 1}
    page = (day.folder / "runs" / "folds" / "report" / "index.html").read_text()
    assert "demo-003" in page


def test_an_engineer_fills_a_store_by_many_jobs_and_keeps_it_whole(live: Callable[..., Day]) -> None:
    folder = live("engineer", material.engineer).folder
    here, there = (open_store(path / "features") for path in (folder, folder.parent / "elsewhere"))
    assert {spec.name for spec in there.features()} - {spec.name for spec in here.features()} == {"zones"}
    recordings = {f"s{number}.mp4" for number in range(4)}
    for name in ("hog", "geometry", "mfcc", "openface"):
        assert set(here[name]) == recordings
        for recording in recordings:
            item = here[name][recording]
            assert len(item) == len(decoded(folder / "videos" / recording))
            assert item.to_numpy().tobytes() == there[name][recording].to_numpy().tobytes()
    openface = here["openface"]["s0.mp4"]
    assert list(openface.columns) == ["pose_Rx", "AU12_r"]
    np.testing.assert_allclose(openface.to_numpy()[[0, 1, 3], 1], [0.1, 0.2, 0.4], rtol=1e-3)
    assert np.flatnonzero(~openface.valid).tolist() == [2]  # success 0
    assert there["zones"]["s0.mp4"].shape == (material.FRAMES, 12)
