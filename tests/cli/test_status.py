"""`aupipe status` and `aupipe inspect`: what is stored, what failed, what to do next."""

from __future__ import annotations

from tests.cli.conftest import Project


def test_status_says_each_reason_once_and_what_to_do_next(project: Project) -> None:
    (project.folder / "videos" / "text.mp4").write_text("no video")
    project.configure("")
    assert project.run("status").code == 10
    assert project.run("extract", "--cpu").code == 3
    short = project.run("status")
    assert (short.code, short.out.splitlines()[-1]) == (3, "retry: aupipe extract --retry-failed")
    failed = [line for line in project.run("status", "--failed").out.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert failed[0].startswith("FAILED  text.mp4  hog, geometry, mfcc: ")


def test_inspect_names_the_nearest_recording(project: Project) -> None:
    (project.folder / "videos" / "text.mp4").write_text("no video")
    project.configure("")
    project.run("extract", "--cpu")
    assert "is text" in project.run("inspect", "text.mp4").out
    answer = project.run("inspect", "test.mp4")
    assert (answer.code, "Did you mean 'text.mp4'?" in answer.err) == (2, True)
