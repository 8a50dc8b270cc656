"""`aupipe report data` without a browser: what its files hold, and what they do not."""

from __future__ import annotations

import base64
import csv
import json
import re
import shlex
import shutil
import stat
from pathlib import Path

import av
import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.report.report_folder import replaced_folder
from aupipe.video_folders import walk_videos
from tests.report.made_report import FOLDER, Made, make, project_in, regular, row_of, variable

COUNT = 120
RECORDINGS = {
    "even": Made(regular(COUNT), others=range(10, 40), nobody=range(60, 100), labels=np.tile([1, 0] * 6, (COUNT, 1))),
    "uneven": Made(variable(COUNT), sound_from=1.0),
    "late": Made(regular(COUNT, 0.852), sound_from=None),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made report"), RECORDINGS)


@pytest.fixture(scope="module")
def reported(made: Path) -> tuple[Path, str]:
    """The report with all pages, and what the command said."""
    answer = project_in(made).run("report", "data", "--pages", "all")
    assert answer.code == 0, answer.err
    return made / "reports" / "data", answer.out + answer.err


def test_a_report_among_the_videos_is_no_part_of_the_data_set(reported: tuple[Path, str], made: Path) -> None:
    videos, others = walk_videos(made)
    assert sorted(videos) == sorted(f"videos/{name}.mp4" for name in RECORDINGS)
    assert not [path for path in others if path.is_relative_to(reported[0])]
    (made / "frames.toml").write_text('[dataset]\nlayout = "images"\nvideos = "."\nfps = 25\n')
    with pytest.raises(UsageError, match="no folders of images"):
        open_dataset(load_config(made / "frames.toml").dataset)


def page_of(report: Path, name: str) -> Path:
    (found,) = report.glob(f"rec/{name}-*/index.html")
    return found


def data_of(page: Path) -> dict:
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_frames_of_a_video_are_the_rows_at_their_own_times(reported: tuple[Path, str]) -> None:
    report, said = reported
    assert "3 recordings, 2 flagged; 3 pages, faces show, sound keep" in said
    for name, one in RECORDINGS.items():
        page = page_of(report, name)
        with av.open(str(page.parent / "video.mp4")) as container:
            frames = [(frame.time, row_of(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]
            assert bool(container.streams.audio) == (one.sound_from is not None)
        assert [row for _, row in frames] == list(range(COUNT)), name
        times = np.array([time for time, _ in frames])
        assert np.abs(times - (one.times - one.times[0])).max() < 1e-3, name
        stored = np.frombuffer(base64.b64decode(data_of(page)["pts"]), "<f8")
        assert np.abs(stored - one.times).max() < 1e-6, name


def test_sound_that_begins_late_is_late_in_the_video_and_missing_in_its_panel(reported: tuple[Path, str]) -> None:
    page = page_of(reported[0], "uneven")
    (panel,) = [one for one in data_of(page)["panels"] if one["name"] == "sound, dB"]
    level = np.frombuffer(base64.b64decode(panel["values"]), "<u2")
    before = RECORDINGS["uneven"].times + 0.3 < 1.0
    assert (level[before] == 65535).all()
    assert (level[40:-1] < 65535).all()
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"#row=(\d+)[^ ]+</td><td>([\d:.]+)</td>[^>]*>no sound<", text) == [("0", "0:00.96")]
    with av.open(str(page.parent / "video.mp4")) as container:
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    loud = np.flatnonzero(np.abs(samples) > 0.05)[0] / 48_000
    assert abs(loud - 1.0) < 0.05


def test_a_page_lists_where_to_look_and_works_in_words_without_scripts(reported: tuple[Path, str]) -> None:
    report, _ = reported
    text = page_of(report, "even").read_text(encoding="utf-8")
    shown = re.findall(r'<a href="#row=(\d+)">([\d:.]+)</a></td><td>([\d:.]+)</td><td class="wrap">([^<]+)<', text)
    assert shown == [
        ("10", "0:00.40", "0:01.60", "other faces only, not the subject&#39;s"),
        ("60", "0:02.40", "0:04.00", "nobody in the picture"),
    ]
    assert "subject 41.7%, other faces only 25.0%, nobody 33.3%" in text
    index = (report / "index.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr><td><a href="rec/[^"]*">(\w+)</a></td><td class="wrap">([^<]*)</td>', index)
    assert rows[0] == ("even", "nobody in the picture")
    assert sorted(name for name, _ in rows) == sorted(RECORDINGS)


def test_checks_csv_and_json_have_every_recording_and_measurement(reported: tuple[Path, str]) -> None:
    report, _ = reported
    with open(report / "checks.csv", newline="", encoding="utf-8") as file:
        rows = {row["recording"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(RECORDINGS)
    assert float(rows["even"]["nobody"]) == pytest.approx(40 / COUNT, abs=1e-4)
    content = json.loads((report / "checks.json").read_text())
    assert content["recordings"]["even"]["others_only"] == pytest.approx(0.25)
    assert content["findings"][0]["recording"] == "even"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_reports_have_equal_bytes_and_nothing_of_an_older_one_is_left(
    reported: tuple[Path, str], made: Path, tmp_path: Path
) -> None:
    first = contents(reported[0])
    again = tmp_path / "again"
    shutil.copytree(reported[0], again)
    listed = json.loads((again / "report.json").read_text())
    assert set(listed["files"]) == set(first)
    (again / "rec" / "gone").mkdir()
    (again / "rec" / "gone" / "video.mp4").write_bytes(b"a face")  # of an older report
    listed["files"].append("rec/gone/video.mp4")
    (again / "report.json").write_text(json.dumps(listed))
    assert project_in(made).run("report", "data", "--pages", "all", "--out", again).code == 0
    assert contents(again) == first
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_without_faces_there_is_no_picture_video_or_sound_and_no_path_of_this_machine(
    made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "none"
    answer = project_in(made).run("report", "data", "--pages", "all", "--faces", "none", "--out", out)
    assert answer.code == 0, answer.err
    files = contents(out)
    assert {Path(name).suffix for name in files} == {".html", ".csv", ".json"}
    for name, content in files.items():
        text = content.decode()
        assert "<video" not in text, name
        assert "<img" not in text, name
        for folder in (made, Path.home(), made.parent):
            assert f"{folder}/" not in text, name
        if name.endswith("html"):
            assert "Faces: none. No picture, video or sound." in text
            assert "media-src" in text
    assert "Sound: none." in files[str(page_of(out, "even").relative_to(out))].decode()
    for path in (out, *out.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_missing_is_said_on_the_page_and_on_stderr(made: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    one = Made(regular(COUNT), extra={"blendshapes": None})
    make(own, {"a": one, "b": one})
    (own / "videos" / "b.mp4").write_bytes((own / "videos" / "b.mp4").read_bytes()[:3000])
    answer = project_in(own).run("report", "data")
    assert answer.code == 0, answer.err
    assert "aupipe: b: no video on its page" in answer.err
    assert "has changed since its faces were found" in answer.err
    page = page_of(own / "reports" / "data", "b").read_text(encoding="utf-8")
    assert "No video: b: b.mp4 has changed since its faces were found" in page
    assert "Sound: none." in page
    assert "Faces: none. No picture, video or sound." in page
    assert "blendshapes (blendshapes is not stored: aupipe extract)" in page
    assert not list(page_of(own / "reports" / "data", "b").parent.glob("*.mp4"))


def test_errors_are_one_line_that_says_what_to_do(tmp_path: Path, made: Path) -> None:
    (tmp_path / "aupipe.toml").write_text('[dataset]\nvideos = "videos"\n')
    (tmp_path / "videos").mkdir()
    answer = project_in(tmp_path).run("report", "data")
    assert (answer.code, answer.err.count("\n")) == (10, 1)
    assert "`aupipe extract` creates it" in answer.err


@pytest.mark.parametrize("name", ["thesis.tex", "rec/take1.wav", "index.html", "checks.csv", "report.json"])
def test_a_folder_with_a_file_of_somebody_else_is_refused_and_stays_as_it_was(tmp_path: Path, name: str) -> None:
    own = tmp_path / "mine" / name
    own.parent.mkdir(parents=True)
    own.write_text('{"files": ["report.json"]}')
    with (
        pytest.raises(UsageError, match=f"holds '{name}', which no report has written"),
        replaced_folder(tmp_path / "mine"),
    ):
        pytest.fail("begun")
    assert contents(tmp_path) == {f"mine/{name}": own.read_bytes()}


def test_a_report_that_cannot_be_put_in_its_place_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("first", "second"):
        with replaced_folder(tmp_path / "mine") as folder:
            (folder / "index.html").write_text(text)
    before, rename = contents(tmp_path), Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError("the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="the disk is gone"), replaced_folder(tmp_path / "mine"):
        pass
    assert contents(tmp_path) == before


def test_a_file_that_somebody_has_put_into_a_report_is_not_deleted_by_the_next_one(
    reported: tuple[Path, str], made: Path, tmp_path: Path
) -> None:
    shutil.copytree(reported[0], tmp_path / "mine")
    note = page_of(tmp_path / "mine", "even").parent / "note.txt"
    note.write_text("years")
    before = contents(tmp_path)
    answer = project_in(made).run("report", "data", "--pages", "none", "--out", tmp_path / "mine")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"holds '{note.relative_to(tmp_path / 'mine')}', which no report has written" in answer.err
    assert contents(tmp_path) == before


def test_every_command_of_the_page_works_as_it_stands(tmp_path: Path) -> None:
    make(tmp_path, {"clips/a": Made(regular(30)), "clips/b": Made(regular(30), nobody=range(20))}, FOLDER)
    page = (Path(__file__).parents[2] / "docs" / "report-data.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(lines) == 4
    for line in lines:
        answer = project_in(tmp_path).run(*shlex.split(line, comments=True)[1:])
        assert answer.code == 0, (line, answer.err)
    assert len(list(tmp_path.glob("one/rec/clips_a.mp4-*/video.mp4"))) == 1
    with av.open(str(next(tmp_path.glob("shared/rec/clips_b*/video.mp4")))) as container:
        assert not container.streams.audio
    assert not (tmp_path / "numbers" / "rec").exists()
    text = (tmp_path / "numbers" / "index.html").read_text()
    assert "Sound: none." in text
    assert "Faces: none. No picture, video or sound." in text
    text = (tmp_path / "one" / "index.html").read_text()
    assert "1 recording, 30 frames; 0 flagged, 0 findings" in text
    assert "30 frames, 1.2 s;" in next(tmp_path.glob("one/rec/*/index.html")).read_text()
    assert '<td class="number">30</td><td class="number">1.2</td>' in text
