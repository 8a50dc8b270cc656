"""`aupipe overlay` and `aupipe preview`: each row's own picture, time and state, and faces hidden as asked."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.extract.faces.face_table import FaceTable
from aupipe.extract.planning.features import build_feature_set
from aupipe.report.drawing import COLOURS, STRIP_PX, draw_row, hidden
from aupipe.report.faces import RecordingFaces, State
from aupipe.report.frames import pictures, stored_faces
from aupipe.report.sheet import choose_rows
from aupipe.sources import source_identity
from aupipe.store import create_store, open_store
from aupipe.types import FaceTrack
from tests.cli.conftest import Project
from tests.conftest import write_video

FRAMES = 40
LOST, ALONE = range(10, 20), range(30, 40)  # rows with another face only, with nobody


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a grey video whose faces are as if they had been found."""
    root = tmp_path_factory.mktemp("look")
    write_video(root / "videos" / "clips" / "a.mp4", FRAMES, (320, 240), tone_hz=440)
    (root / "aupipe.toml").write_text('[dataset]\nvideos = "videos"\n')
    (recording,) = open_dataset(load_config(root / "aupipe.toml").dataset).recordings
    graph = build_feature_set(load_config(root / "aupipe.toml")).graph(recording)
    face = np.full((FRAMES, 15), np.nan, np.float32)
    seen = [row for row in range(FRAMES) if row not in (*LOST, *ALONE)]
    face[seen] = [100, 60, 160, 130, *[110, 80] * 5, 0.9]
    dense = np.zeros((FRAMES, 8, 17), np.float32)
    dense[seen, 0] = [*face[seen[0]], 240, 320]
    dense[LOST, 0] = [220, 60, 280, 130, *[230, 80] * 5, 0.8, 240, 320]
    dense[list(ALONE)] = np.nan
    times = np.arange(FRAMES) / 25
    times[20:] += 0.4  # a clock that is not regular
    store, source = create_store(root / "features"), source_identity(recording.video)
    for spec, rows in ((graph.clock, times), (graph.detections, dense), (graph.faces, face)):
        store.publish(recording.id, spec, rows.astype(spec.dtype), source=source)
    store.close()
    return root


@pytest.fixture
def run(looked: Path, project: Project, tmp_path: Path):
    own = Project(tmp_path, project.environment)

    def call(*arguments: object, code: int = 0) -> str:
        answer = own.run(*arguments, "--config", looked / "aupipe.toml")
        assert answer.code == code, answer.err
        return answer.out + answer.err

    return call


def faces_of(root: Path) -> RecordingFaces:
    config = load_config(root / "aupipe.toml")
    (recording,) = open_dataset(config.dataset).recordings
    return stored_faces(open_store(root / "features"), build_feature_set(config), recording)


def test_the_frames_of_an_overlay_are_the_rows_at_their_own_times(run, tmp_path: Path, looked: Path) -> None:
    said = run("overlay", "clips/a.mp4")
    assert ": 40 frames, 2.0 s; subject 50.0%, other faces only 25.0%, nobody 25.0%; 0 jumps" in said
    assert "clips_a.mp4-overlay.mp4 is there already" in run("overlay", "clips/a.mp4", code=2)
    path = tmp_path / "clips_a.mp4-overlay.mp4"
    assert path.stat().st_mode & 0o077 == 0
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio
    assert np.abs(np.array([time for time, _ in frames]) - faces_of(looked).times_s).max() < 1e-3
    for row, (_, picture) in enumerate(frames):  # frame k of the source has the grey level 10 + 2 k
        assert abs(float(picture[200:220, 20:60].mean()) - (10 + 2 * row)) < 4
    for row, state in ((5, State.SUBJECT), (15, State.OTHERS), (35, State.NOBODY)):
        mark = frames[row][1][2:8, 0:3].reshape(-1, 3).mean(axis=0)
        assert np.abs(mark - COLOURS[state]).max() < 40, (row, state)


def test_a_preview_shows_where_the_subject_is_lost(run, tmp_path: Path, looked: Path) -> None:
    said = run("preview", "clips/a.mp4", "--tiles", "9", "--out", "sheet.png")
    assert "9 pictures; 40 frames" in said
    rows = choose_rows(faces_of(looked), 9)
    assert {LOST[0], ALONE[0], 0, 39} <= set(rows)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] > 1000
    assert "is a .jpg or .png" in run("preview", "clips/a.mp4", "--out", "sheet.gif", code=2)


def test_without_faces_there_is_no_picture_and_no_sound(run, tmp_path: Path, looked: Path) -> None:
    run("overlay", "clips/a.mp4", "--out", "none.mp4", "--faces", "none", "--height", "120")
    with av.open(str(tmp_path / "none.mp4")) as container:
        assert not container.streams.audio
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert frames[0].shape == (120, 160, 3)
    levels = [float(frame[100:110, 10:30].mean()) for frame in frames]
    assert max(levels) - min(levels) < 3  # the source gets lighter with every row


def test_a_changed_video_is_refused_and_so_are_names_that_are_none(run, looked: Path) -> None:
    video = looked / "videos" / "clips" / "a.mp4"
    content = video.read_bytes()
    try:
        write_video(video, 30, (320, 240))
        assert "has changed since its faces were found" in run("preview", "clips/a.mp4", code=2)
    finally:
        video.write_bytes(content)
    assert "Did you mean 'clips/a.mp4'" in run("overlay", "clip/a.mp4", code=2)


def test_every_command_of_the_page_works_as_it_stands(looked: Path, project: Project) -> None:
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    looks = [words for words in commands if words[0] in ("overlay", "preview")]
    assert len(looks) >= 3
    for words in looks:
        answer = Project(looked, project.environment).run(*words)
        assert answer.code == 0, answer.err


def noise(height: int = 240, width: int = 320) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def detail(picture: np.ndarray) -> float:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)
    return float((cv2.Laplacian(grey, cv2.CV_64F) ** 2).mean())


def test_blurred_faces_have_no_detail_left_also_shortly_before_and_after_and_where_one_may_be_missed(
    looked: Path,
) -> None:
    faces, picture = faces_of(looked), noise()
    face = np.s_[60:131, 100:161]
    for row in range(FRAMES):
        blurred = hidden(picture, faces, row, "blur")
        assert detail(blurred[face]) < 0.05 * detail(picture[face]), row
        if row in (*LOST, *ALONE):
            assert detail(blurred) < 0.05 * detail(picture), row
    seen = hidden(picture, faces, 25, "blur")
    assert np.array_equal(seen[:, 250:], picture[:, 250:])  # what is no face stays
    before = hidden(picture, faces, 5, "blur")  # within half a second another face is seen
    assert detail(before[60:131, 220:281]) < 0.05 * detail(picture[60:131, 220:281])


def test_a_large_face_among_small_ones_is_hidden_by_cells_of_its_own_size() -> None:
    sizes = {8: range(0, 160, 20), 160: range(140, 141)}  # height in px -> the left edges
    boxes = np.array([[left, 30, left + size, 30 + size] for size, edges in sizes.items() for left in edges], float)
    track = np.full((1, 15), 0.9, np.float32)
    track[0, :4] = boxes[-1]
    every = FaceTable(np.array([len(boxes)]), np.concatenate([boxes, np.zeros((len(boxes), 13))], 1).astype(np.float32))
    soft = cv2.GaussianBlur(noise().astype(np.float32), (0, 0), 4)  # spots of a tenth of the large face, as eyes are
    soft = np.clip((soft - soft.mean()) / soft.std() * 50 + 128, 0, 255).astype(np.uint8)
    stored = RecordingFaces(np.zeros(1), FaceTrack.from_rows(track), every)
    blurred = hidden(noise(), stored, 0, "blur")
    for left, top, right, bottom in boxes.astype(int):
        face = np.s_[top : bottom + 1, left : right + 1]
        assert detail(blurred[face]) < 0.05 * detail(noise()[face]), (left, right)
    large = np.s_[30:190, 140:300]
    before, after = (cv2.resize(each[large], (20, 20)) for each in (soft, hidden(soft, stored, 0, "blur")))
    assert detail(after) < 0.05 * detail(before)
    assert np.array_equal(blurred[:20, :70], noise()[:20, :70])


def test_the_strip_is_in_time_and_not_in_rows(looked: Path) -> None:
    faces = faces_of(looked)
    strip = draw_row(noise(), faces, 0, "none")[240 - STRIP_PX :, 4:]
    is_lost = (strip == np.array(COLOURS[State.OTHERS])).all(axis=(0, 2))
    span = faces.times_s[-1] - faces.times_s[0]
    expected = (faces.times_s[20] - faces.times_s[10]) / span * 320  # the gap of 0.4 s belongs to the row before it
    assert abs(int(is_lost.sum()) - expected) <= 2


@pytest.mark.assets
def test_every_visible_face_of_a_real_clip_is_blurred(assets: Path, project: Project) -> None:
    """Of the clip in which a face leaves and returns: also in the frames in which the detector misses it."""
    name = "derived_face_leaves_and_returns.avi"
    (project.folder / "videos" / name).symlink_to(assets / "videos" / name)
    encoder = '[[encoder]]\nname = "geometry"\nmodality = "visual"\nkind = "geometry"\n'
    project.configure(f'[dataset]\nvideos = "videos"\n[faces]\ndetector = "yunet"\n{encoder}')
    assert project.run("extract", "--cpu", AUPIPE_WEIGHTS=str(assets / "weights")).code == 0
    config = load_config(project.folder / "aupipe.toml")
    (recording,) = open_dataset(config.dataset).recordings
    store = open_store(project.folder / "features")
    faces = stored_faces(store, build_feature_set(config, known=store.features()), recording)
    truth = np.genfromtxt(assets / "labels" / f"{Path(name).stem}.csv", delimiter=",", names=True)
    shown, undetected = 0, 0
    for row, picture in pictures(recording, faces):
        x, y, width, height = (truth[column][row] for column in ("face_x", "face_y", "face_w", "face_h"))
        face = np.s_[max(0, int(y)) : int(y + height), max(0, int(x)) : max(0, int(x + width))]
        if truth["visible_fraction_of_face_width"][row] > 0 and picture[face].shape[1] > 2:
            shown += 1
            undetected += not faces.every.counts[row]
            assert detail(hidden(picture, faces, row, "blur")[face]) < 0.05 * detail(picture[face]), row
    assert shown > 300
    assert undetected > 20
