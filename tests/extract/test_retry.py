"""What is tried again when workers die, and when that is no video's fault: the policy alone, without processes."""

from __future__ import annotations

import pytest

from aupipe.errors import AupipeError
from aupipe.extract.executors import Attempt
from aupipe.extract.executors.retry import BREAK_AFTER, GivenUp, RetryPolicy, by_modality
from aupipe.extract.planning.plan import Item, Job
from aupipe.store import ItemRecord
from aupipe.types import FeatureSpec

CLOCK, FACES = FeatureSpec("clock", "clock", "pts", 1), FeatureSpec("faces", "faces", "subject", 1)
HOG, MFCC = FeatureSpec("hog", "visual", "hog", 1), FeatureSpec("mfcc", "audio", "mfcc", 1)
WORDS = FeatureSpec("words", "text", "text", 1)
ALL = (CLOCK, FACES, HOG, MFCC, WORDS)


def a_job(name: str, *specs: FeatureSpec) -> Job:
    return Job(name, [], [Item(name, spec, "new") for spec in specs or (CLOCK, HOG)])


def names(job: Job) -> list[str]:
    return [item.spec.name for item in job.items]


def published(name: str, spec: FeatureSpec) -> ItemRecord:
    return ItemRecord(name, spec.id, "done")


def alone(name: str, *specs: FeatureSpec) -> Attempt:
    return Attempt(a_job(name, *specs), alone=True)


def test_every_video_in_flight_is_tried_once_more_alone_when_a_worker_dies() -> None:
    policy = RetryPolicy()
    policy.note_death([Attempt(a_job("a")), Attempt(a_job("b"))], "died")
    suspects = [policy.next_suspect(), policy.next_suspect()]
    assert [(each.job.video_id, each.alone) for each in suspects] == [("a", True), ("b", True)]
    assert not policy.suspects
    assert not policy.held


def test_what_was_published_before_the_death_is_not_made_again() -> None:
    policy = RetryPolicy()
    policy.note_published(published("a", CLOCK))
    policy.note_death([Attempt(a_job("a", *ALL))], "died")
    suspect = policy.next_suspect()
    assert names(suspect.job) == ["faces", "hog", "mfcc", "words"]


def test_a_job_falls_into_pictures_sound_and_words_each_with_the_clock() -> None:
    assert [names(part) for part in by_modality(a_job("a", *ALL))] == [
        ["clock", "faces", "hog"],
        ["clock", "mfcc"],
        ["clock", "words"],
    ]
    assert [names(part) for part in by_modality(a_job("a", CLOCK, MFCC))] == [["clock", "mfcc"]]


def test_one_that_kills_alone_is_tried_by_modality_and_only_the_part_that_kills_is_failed() -> None:
    policy = RetryPolicy()
    policy.note_death(
        [
            alone("a", CLOCK, HOG, MFCC),
        ],
        "died",
    )
    pictures = policy.next_suspect()
    assert names(pictures.job) == ["clock", "hog"]
    policy.note_published(published("a", CLOCK))
    policy.note_published(published("a", HOG))
    policy.note_success(pictures)
    sound = policy.next_suspect()
    assert names(sound.job) == ["mfcc"]
    assert sound.alone
    policy.note_death([sound], "died again")
    assert not policy.held, "the first time may be chance"
    last = policy.next_suspect()
    policy.note_death([last], "died again")
    assert policy.held == [GivenUp(last, "died again")]
    assert policy.is_open("a")
    policy.settle()
    assert [each.attempt for each in policy.settled] == [last]


def test_a_video_whose_lone_process_is_killed_from_outside_is_not_failed() -> None:
    policy = RetryPolicy()
    policy.note_death([Attempt(a_job("a")), Attempt(a_job("b"))], "died")
    policy.note_death([policy.next_suspect()], "died on SIGKILL")
    other, again = policy.next_suspect(), policy.next_suspect()
    assert [other.job.video_id, again.job.video_id] == ["b", "a"], "it comes last"
    policy.note_published(published("a", HOG))
    policy.note_success(again)
    policy.settle()
    assert not policy.settled


def test_a_video_that_hangs_is_known_and_need_not_be_tried_alone_first() -> None:
    policy = RetryPolicy()
    policy.note_hang(Attempt(a_job("a", CLOCK, MFCC)), "no progress")
    assert [each.reason for each in policy.held] == ["no progress"]
    assert not policy.suspects


def test_workers_that_keep_dying_on_different_videos_stop_the_run_and_fail_nobody() -> None:
    policy = RetryPolicy()
    for name in "abc"[: BREAK_AFTER - 1]:
        policy.note_death([alone(name)], "died on SIGKILL")
    with pytest.raises(AupipeError, match=r"SIGKILL.*different videos \(a, b, c\).*none is marked failed") as error:
        policy.note_death([alone("c")], "died on SIGKILL")
    assert error.value.exit_code == 1
    assert not policy.settled


def test_workers_with_many_videos_that_die_in_a_row_stop_the_run_too() -> None:
    policy = RetryPolicy()
    for number in range(BREAK_AFTER - 1):
        policy.note_death([Attempt(a_job(f"{number}-{k}")) for k in range(4)], "died")
    with pytest.raises(AupipeError, match="none is marked failed"):
        policy.note_death([Attempt(a_job("x")), Attempt(a_job("y"))], "died")


def test_a_video_that_succeeds_in_between_settles_the_guilt_of_those_before() -> None:
    policy = RetryPolicy()
    for round_ in range(3 * BREAK_AFTER):
        for _ in range(2):
            policy.note_death([policy.next_suspect() if policy.suspects else alone(str(round_))], "died")
        policy.note_published(published("good", HOG))
        policy.note_success(Attempt(a_job("good")))
    assert len(policy.settled) == 3 * BREAK_AFTER


def test_one_video_that_kills_by_picture_and_by_sound_is_one_video() -> None:
    policy = RetryPolicy()
    policy.note_death([alone("a", CLOCK, HOG, MFCC, WORDS)], "died")
    for _ in range(6):
        part = policy.next_suspect()
        policy.note_death([part], "died")
    assert len(policy.held) == 3


def test_after_one_that_failed_alone_the_next_is_taken_from_the_other_end() -> None:
    policy = RetryPolicy()
    policy.note_death([Attempt(a_job(name)) for name in "abcd"], "died")
    first = policy.next_suspect()
    policy.note_death([first], "died")
    second = policy.next_suspect()
    assert [first.job.video_id, second.job.video_id] == ["a", "d"]


def test_sound_that_succeeds_does_not_excuse_a_network_for_pictures_that_kills_every_process() -> None:
    policy = RetryPolicy()
    died: list[str] = []

    def run() -> None:
        for name in "abc":
            policy.suspects.append(alone(name, CLOCK, HOG, MFCC))
            while policy.suspects:
                attempt = policy.next_suspect()
                if any(item.spec.modality == "visual" for item in attempt.job.items):
                    died.append(name)
                    policy.note_death([attempt], "died on SIGKILL")
                else:
                    policy.note_published(published(name, MFCC))
                    policy.note_success(attempt)

    with pytest.raises(AupipeError, match="none is marked failed"):
        run()
    assert "".join(died) == "aaabbbc"
    assert not policy.settled
