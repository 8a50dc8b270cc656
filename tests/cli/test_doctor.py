"""`aupipe doctor` finds what does not work before a run does, says what to do, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe.doctor import folders
from aupipe.doctor.folders import examine_folder, file_system_of
from aupipe.store import create_store
from aupipe.types import FeatureSpec
from tests.cli.conftest import HOG, NO_FACES, Project
from tests.cli.test_json import check_shapes
from tests.conftest import write_video

CONFIG = NO_FACES + HOG


def findings(project: Project, *arguments: str, code: int = 0, **environment: str) -> dict[str, dict[str, str]]:
    """What `doctor` says, by subject."""
    answer = project.run("doctor", "--json", *arguments, **environment)
    assert answer.code == code, answer.out + answer.err
    return {found["subject"]: found for found in check_shapes("doctor", answer.out)[0]["findings"]}


def test_a_sound_installation_and_project_pass_and_nothing_is_left_in_the_folder(project: Project) -> None:
    write_video(project.folder / "videos" / "a.mp4", frames=3)
    project.configure(CONFIG)
    before = sorted(project.folder.rglob("*"))
    answer = project.run("doctor")
    assert answer.code == 0, answer.out + answer.err
    assert "FAIL" not in answer.out.replace("failed", "")
    assert "PASS  data set: 1 recording of 1 video" in answer.out
    assert "PASS  [[encoder]] hog: hog, no weights needed" in answer.out
    assert "none yet at" in answer.out
    assert sorted(project.folder.rglob("*")) == before


def test_missing_weights_a_failed_item_and_a_library_that_does_not_load_are_named_with_what_to_do(
    project: Project,
) -> None:
    write_video(project.folder / "videos" / "a.mp4", frames=3)
    project.configure(CONFIG + '[[encoder]]\nname = "net"\nmodality = "visual"\nkind = "dan"\nweights = "none.pth"\n')
    hog = FeatureSpec("hog", "visual", "hog", 1, {})
    with create_store(project.folder / "features") as store:
        store.publish("a.mp4", hog, np.ones((3, 8), np.float16))
        store.fail("b.mp4", hog, "no such video")
    broken = project.folder / "broken"
    broken.mkdir()
    (broken / "timm.py").write_text("raise ImportError('libnothing.so is missing')")
    (broken / "opencv_python-1.dist-info").mkdir()
    (broken / "opencv_python-1.dist-info" / "METADATA").write_text("Name: opencv-python\nVersion: 1\n")
    (broken / "opencv_python-1.dist-info" / "top_level.txt").write_text("cv2\n")
    path = ":".join([str(broken), str(Path(__file__).parents[2])])
    said = findings(project, code=2, PYTHONPATH=path)
    assert said["timm"]["state"] == "FAIL"
    assert "libnothing.so is missing" in said["timm"]["found"]
    assert said["owner of cv2"]["state"] == "FAIL"
    assert said["owner of cv2"]["found"] == "comes from 2 packages: opencv-python, opencv-python-headless"
    assert "pip uninstall opencv-python opencv-python-headless" in said["owner of cv2"]["remedy"]
    assert said["[[encoder]] net"]["state"] == "FAIL"
    assert "none.pth" in said["[[encoder]] net"]["found"]
    assert said["store"]["state"] == "WARN"
    assert "1 item, 1 failed" in said["store"]["found"]
    assert said["store"]["remedy"] == "aupipe status --failed"


def test_a_broken_configuration_is_a_finding_and_the_rest_is_looked_at(project: Project) -> None:
    project.configure("[faces]\ndetector = 3 4\n")
    said = findings(project, code=2)
    assert said["configuration"]["state"] == "FAIL"
    assert said["torch"]["state"] == "PASS"


def test_a_folder_that_cannot_be_written_fails() -> None:
    """The folder of open descriptors takes no files, not even from root."""
    found = list(examine_folder(Path("/dev/fd")))
    assert [finding.state for finding in found if finding.subject.startswith("folder")] == ["FAIL"]


def test_the_file_system_is_that_of_the_nearest_mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/a rw\n"
        "30 21 0:40 / /data rw shared:1 - nfs4 server:/x rw\n"
        "31 21 0:41 / /data\\040two rw - fuse.sshfs host: rw\n"
        "32 21 0:42 / /Données rw - nfs host:/x rw\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(folders, "MOUNTS", mounts)
    assert file_system_of(Path("/data/store/x")) == "nfs4"
    assert file_system_of(Path("/data two/x")) == "fuse.sshfs"
    assert file_system_of(Path("/database")) == "ext4"
    assert file_system_of(Path("/Données/a")) == "nfs"


@pytest.mark.parametrize("call", ["rename", "link"])
def test_a_file_system_that_lacks_a_call_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A store needs no hard links: it renames where there are none."""

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(f"os.{call}", refuse)
    states = [finding.state for finding in examine_folder(tmp_path) if finding.subject.startswith("folder")]
    assert states == (["FAIL"] if call == "rename" else ["PASS"])
    assert not list(tmp_path.iterdir())
