"""Words have the times that their file gives them, whichever program wrote it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupipe.errors import RecordingError
from aupipe.extract.media.transcript import NoTranscriptError, find_transcript, read_transcript, spoken_words
from aupipe.extract.media.transcripts.word_times import words_in
from tests.made import talking, write_media

Timed = list[tuple[str, float, float]]

HELLO: Timed = [("hello", 0.2, 0.6), ("world", 0.6, 1.0)]
TWO_LINES: Timed = [*HELLO, ("second", 1.2, 1.68), ("line", 1.68, 2.0)]

WHISPER_TSV = "start\tend\ttext\n200\t1000\thello world\n1200\t2000\tsecond line\n"
CPP_CSV = 'start,end,text\n200,1000," hello world"\n1200,2000," second line"\n'
CPP_JSON = {"transcription": [
    {"timestamps": {"from": "00:00:00,200", "to": "00:00:01,000"}, "offsets": {"from": 200, "to": 1000},
     "text": " hello world"},
    {"timestamps": {"from": "00:00:01,200", "to": "00:00:02,000"}, "offsets": {"from": 1200, "to": 2000},
     "text": " second line"}]}  # fmt: skip
LINES_JSON = [
    {"text": "hello world", "start": 0.2, "duration": 0.8}, {"text": "second line", "start": 1.2, "duration": 0.8}
]  # fmt: skip
YOUTUBE = {"events": [
    {"tStartMs": 0, "dDurationMs": 3000, "id": 1},
    {"tStartMs": 200, "dDurationMs": 800, "segs": [{"utf8": "hello world"}]},
    {"tStartMs": 1200, "dDurationMs": 800, "segs": [{"utf8": "second line"}]}]}  # fmt: skip
AUTOMATIC = {"events": [{"tStartMs": 200, "dDurationMs": 800, "segs": [
    {"utf8": "hello"}, {"utf8": " world", "tOffsetMs": 400}]}]}  # fmt: skip
ELAN = "Begin Time - ss.msec\tEnd Time - ss.msec\tDuration - ss.msec\tspeaker A\n"
ELAN += "0.200\t1.000\t0.800\thello world\n1.200\t2.000\t0.800\tsecond line\n"
ELAN_MS = "Begin Time - msec\tEnd Time - msec\tspeaker A\n200\t1000\thello world\n1200\t2000\tsecond line\n"
ELAN_BARE = "A\t\t00:00:00.200\t00:00:01.000\t00:00:00.800\thello world\n"
ELAN_BARE += "A\t\t00:00:01.200\t00:00:02.000\t00:00:00.800\tsecond line\n"
ELAN_UNITS = "A\t\t00:00:00.200\t0.2\t00:00:01.000\t1.0\t00:00:00.800\t0.8\thello world\n"
ELAN_UNITS += "A\t\t00:00:01.200\t1.2\t00:00:02.000\t2.0\t00:00:00.800\t0.8\tsecond line\n"

LINES: dict[str, str] = {
    "whisper.tsv": WHISPER_TSV,
    "whisper_cpp.csv": CPP_CSV,
    "whisper_cpp.json": json.dumps(CPP_JSON),
    "lines.json": json.dumps(LINES_JSON),
    "youtube.json": json.dumps(YOUTUBE),
    "lines.csv": "text,start,end\nhello world,0.2,1.0\nsecond line,1.2,2.0\n",
    "durations.csv": 'start;duration;text\n0.2;0.8;"hello world"\n1.2;0.8;second line\n',
    "elan.tsv": ELAN,
    "elan_ms.tsv": ELAN_MS,
    "elan_bare.tsv": ELAN_BARE,
    "elan_units.tsv": ELAN_UNITS,
    "labels.tsv": "0.2\t1.0\thello world\n1.2\t2.0\tsecond line\n",  # Audacity's
    "praat.csv": "tmin,tier,text,tmax\n0.2,words,hello world,1.0\n1.2,words,second line,2.0\n",
    "no_blank.srt": "1\n00:00:00,200 --> 00:00:01,000\nhello world\n2\n00:00:01,200 --> 00:00:02,000\nsecond line\n",
    "blank.vtt": "WEBVTT\n\n00:00.200 --> 00:01.000\n\nhello world\n\n00:01.200 --> 00:02.000\nsecond line\n",
    "names.vtt": "WEBVTT\n\nNOTE\nby hand\n\nintro\n00:00.200 --> 00:01.000\nhello world\n\n"
    "the end\n00:01.200 --> 00:02.000\nsecond line\n\nNOTE done\n",
}

ASSEMBLY = {"text": "hello world", "words": [
    {"text": "hello", "start": 200, "end": 600, "confidence": 0.9},
    {"text": "world", "start": 600, "end": 1000}]}  # fmt: skip
WORDS = [{"word": "hello", "start": 0.2, "end": 0.6}, {"word": "world", "start": 0.6, "end": 1.0}]
AWS = {"results": {"transcripts": [{"transcript": "hello world"}], "items": [
    {"type": "pronunciation", "start_time": "0.2", "end_time": "0.6", "alternatives": [{"content": "hello"}]},
    {"type": "pronunciation", "start_time": "0.6", "end_time": "1.0", "alternatives": [{"content": "world"}]},
    {"type": "punctuation", "alternatives": [{"content": "."}]}]}}  # fmt: skip
GOOGLE = {"results": [{"alternatives": [{"transcript": "hello world", "words": [
    {"startTime": "0.200s", "endTime": "0.600s", "word": "hello"},
    {"startOffset": {"seconds": 0, "nanos": 600_000_000}, "endOffset": "1s", "word": "world"}]},
    {"transcript": "yellow", "words": [{"startTime": "0.2s", "endTime": "0.6s", "word": "yellow"}]}]}]}  # fmt: skip
AZURE = {"recognizedPhrases": [{"nBest": [{"words": [
    {"word": "hello", "offset": "PT0.2S", "offsetInTicks": 2e6, "duration": "PT0.4S", "durationInTicks": 4e6},
    {"word": "world", "offset": 6_000_000, "duration": 4_000_000}]}]}]}  # fmt: skip
REV = {"monologues": [{"speaker": 0, "elements": [
    {"type": "text", "value": "hello", "ts": 0.2, "end_ts": 0.6}, {"type": "punct", "value": " "},
    {"type": "text", "value": "world", "ts": 0.6, "end_ts": 1.0}]}]}  # fmt: skip
OF_WORDS: dict[str, Any] = {
    "assemblyai": ASSEMBLY,
    "openai": {"text": "hello world", "segments": [{"start": 0.2, "end": 1.0, "text": "hello world"}], "words": WORDS},
    "deepgram": {"results": {"channels": [{"alternatives": [{"words": WORDS}]}, {"alternatives": [{"words": []}]}]}},
    "vosk": {"result": WORDS, "text": "hello world"},
    "aws": AWS,
    "google": GOOGLE,
    "azure": AZURE,
    "rev": REV,
    "youtube": AUTOMATIC,
}


def timed(path: Path) -> Timed:
    return [(word.text, word.start_s, word.end_s) for word in read_transcript(path).words]


def assert_words(found: Timed, expected: Timed) -> None:
    assert [text for text, _, _ in found] == [text for text, _, _ in expected]
    np.testing.assert_allclose([times for _, *times in found], [times for _, *times in expected], atol=1e-6)


@pytest.mark.parametrize("name", LINES)
def test_lines_share_their_times_among_their_words_in_every_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(LINES[name])
    assert_words(timed(path), TWO_LINES)
    utterances = [word.utterance for word in read_transcript(path).words]
    assert utterances[0] == utterances[1] != utterances[2] == utterances[3]


@pytest.mark.parametrize("name", OF_WORDS)
def test_words_of_every_recogniser_are_at_their_times(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(OF_WORDS[name]))
    expected = [HELLO[0], ("world.", 0.6, 1.0)] if name == "aws" else HELLO
    assert_words(timed(path), expected)


def test_words_without_times_stand_between_their_neighbours(tmp_path: Path) -> None:
    said = [{"word": "2016"}, {"word": "in", "start": 0.8, "end": 0.9}, {"word": "13"}, {"word": "7"},
            {"word": "cars", "start": 1.2, "end": 1.5}, {"word": "99"}]  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"segments": [{"start": 0.2, "end": 2.0, "text": "", "words": said}]}))
    assert_words(timed(path), [
        ("2016", 0.2, 0.7), ("in", 0.8, 0.9), ("13", 0.9, 1.1), ("7", 1.1, 1.2), ("cars", 1.2, 1.5), ("99", 1.5, 2.0),
    ])  # fmt: skip
    path.write_text(json.dumps({"words": said}))  # nothing says when they began and ended
    found = timed(path)
    assert_words(found[1:5], [("in", 0.8, 0.9), ("13", 0.9, 1.1), ("7", 1.1, 1.2), ("cars", 1.2, 1.5)])
    assert 0 <= found[0][1] < found[0][2] == 0.8
    assert found[-1][1:] == (1.5, 2.0)


def test_a_segment_whose_list_of_words_is_empty_is_read_as_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    segments = [{"start": 0.2, "end": 1.0, "text": " hello world", "words": words} for words in ([], None)]
    path.write_text(json.dumps({"text": "", "segments": segments[:1], "words": []}))
    assert_words(timed(path), HELLO)
    path.write_text(json.dumps({"text": "", "segments": segments[1:]}))
    assert_words(timed(path), HELLO)
    path.write_text(json.dumps({"text": "", "segments": [{"start": 0.2, "end": 1.0, "text": None}]}))
    assert timed(path) == []
    path.write_text(json.dumps({"text": "", "segments": []}))  # nobody speaks
    assert timed(path) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["no_blank.srt", "whisper.tsv", "lines.json"])
def test_unicode_of_every_kind_is_read(tmp_path: Path, name: str, encoding: str) -> None:
    path = tmp_path / name
    path.write_text(LINES[name].replace("hello", "déjà"), encoding=encoding)
    assert [text for text, _, _ in timed(path)] == ["déjà", "world", "second", "line"]


def test_a_file_in_which_no_word_has_a_time_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"chunks": [{"timestamp": [None, None], "text": " hello world"}]}))
    with pytest.raises(RecordingError, match=r"a\.json: not a transcript: none of its words has a time.*hello world"):
        read_transcript(path)


def test_a_line_that_ends_before_it_begins_keeps_the_order_of_its_words(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:00,200\nhello world again\n")
    found = timed(path)
    assert [text for text, _, _ in found] == ["hello", "world", "again"]
    assert [start for _, start, _ in found] == sorted(start for _, start, _ in found)
    assert found[0][1] == 1.0


ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.200 --> 00:00:00.990 align:start position:0%
{}
hello<00:00:00.600><c> world</c>

00:00:00.990 --> 00:00:01.000 align:start position:0%
hello world
{}

00:00:01.000 --> 00:00:01.790 align:start position:0%
hello world
second<00:00:01.400><c> line</c>

00:00:01.790 --> 00:00:01.800 align:start position:0%
second line
{}
"""


@pytest.mark.parametrize("blank", [" ", ""])
def test_lines_that_captions_carry_over_are_said_once(tmp_path: Path, blank: str) -> None:
    path = tmp_path / "a.vtt"
    path.write_text(ROLLING.format(blank, blank, blank))
    expected = [("hello", 0.2, 0.6), ("world", 0.6, 0.99), ("second", 1.0, 1.4), ("line", 1.4, 1.79)]
    assert_words(timed(path), expected)
    path.write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nno\n\n00:02.000 --> 00:03.000\nno\n")  # said twice
    assert_words(timed(path), [("no", 1.0, 2.0), ("no", 2.0, 3.0)])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hello --> world 1 < 2 and 3 > 2", "hello --> world 1 < 2 and 3 > 2"),
        ("<i>We</i> <b>were</b> <font color='red'>here</font>", "We were here"),
        (r"{\an8}up there {laughs}", "up there {laughs}"),
        ("<v Ann>AT&amp;T", "AT&T"),
        ("&gt;&gt; rock &amp; roll&nbsp;music", ">> rock & roll music"),
        ("&lt;i&gt;", "<i>"),
    ],
)
def test_text_that_is_no_markup_is_kept(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "a.srt"
    path.write_text(f"1\n00:00:00,200 --> 00:00:01,000\n{line}\n")
    assert [text for text, _, _ in timed(path)] == words.split()


def test_an_empty_line_ends_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text("00:00:00,200 --> 00:00:01,000\nhello\n\nworld\n00:00:01,200 --> 00:00:02,000\nsecond\n\n2016\n")
    assert [text for text, _, _ in timed(path)] == ["hello", "world", "second", "2016"]


@pytest.mark.parametrize("text", ["WEBVTT", "WEBVTT\nKind: captions\nLanguage: en\n\n", "WEBVTT - a title\n\nNOTE x\n"])
def test_a_header_alone_is_a_transcript_without_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.vtt"
    path.write_text(text)
    assert timed(path) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("你好世界", ["你", "好", "世", "界"]),
        ("你好，世界。", ["你", "好，", "世", "界。"]),
        ("「こんにちは」 GPT4は", ["「こ", "ん", "に", "ち", "は」", "GPT4", "は"]),
        ("ดีมั้ย", ["ดี", "มั้", "ย"]),
        ("안녕 세계 don't", ["안녕", "세계", "don't"]),
    ],
)
def test_signs_of_scripts_without_spaces_are_words(line: str, words: list[str]) -> None:
    assert words_in(line) == words


# Beside a video -------------------------------------------------------------------------------------------------------

OPENFACE = "frame, face_id, timestamp, confidence, success, AU01_r\n1, 0, 0.000, 0.98, 1, 0.12\n"
OPENPOSE = {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": [1.0, 2.0]}]}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two seconds of picture and sound."""
    pictures, sound = talking(frames=50)
    return write_media(tmp_path / "talk.mp4", pictures, sound)


def test_a_table_of_another_program_is_no_transcript_and_the_next_file_is_taken(video: Path) -> None:
    video.with_suffix(".csv").write_text(OPENFACE)
    video.with_suffix(".json").write_text(json.dumps(OPENPOSE))
    assert find_transcript(video) is None
    with pytest.raises(
        NoTranscriptError, match=r"no transcript beside it; .*talk\.json is none.*--on-missing-text mask"
    ):
        spoken_words(video)
    video.with_suffix(".tsv").write_text(WHISPER_TSV)
    assert find_transcript(video) == video.with_suffix(".tsv")
    assert len(spoken_words(video)) == 4


@pytest.mark.parametrize(
    "content", [[1, 2], [[[]]], {"results": []}, {"items": [{"id": 3}]}, {"annotations": [{"text": "x"}]}, 3, {"a": 1}]
)
def test_json_of_another_kind_is_no_transcript(video: Path, content: Any) -> None:
    video.with_suffix(".json").write_text(json.dumps(content))
    assert (find_transcript(video) is None) == (content != [[[]]])  # lists of no words are a silent video's


def test_a_broken_transcript_is_not_passed_over(video: Path) -> None:
    for suffix, content in ((".csv", "word,start\nhello,soon\n"), (".json", "{"), (".vtt", "hello")):
        path = video.with_suffix(suffix)
        path.write_text(content)
        assert find_transcript(video) == path
        with pytest.raises(RecordingError, match=f"talk{suffix}: not a transcript"):
            spoken_words(video)
        path.unlink()


def test_a_transcript_that_lies_beyond_the_sound_is_refused_by_name(video: Path) -> None:
    said = [{"word": f"w{k}", "start": 150.5 * k, "end": 150.5 * k + 99.7} for k in range(12)]  # with fractions
    video.with_suffix(".json").write_text(json.dumps({"words": said}))
    reason = r"talk\.json: 11 of 12 words lie after the end of the sound, 2\.\d s, the last at 1656 s: in milliseconds"
    with pytest.raises(RecordingError, match=reason):
        spoken_words(video)
    video.with_suffix(".json").write_text(json.dumps({"words": said[:2]}))
    assert len(spoken_words(video)) == 2  # half of them


def test_a_last_line_without_an_end_ends_with_the_sound(video: Path) -> None:
    chunks = [
        {"timestamp": [0.2, 1.0], "text": " hello world"},
        {"timestamp": [1.2, None], "text": " second line of four"},
    ]
    video.with_suffix(".json").write_text(json.dumps({"chunks": chunks}))
    words = spoken_words(video).words
    assert [word.text for word in words] == ["hello", "world", "second", "line", "of", "four"]
    assert words[-1].end_s == pytest.approx(2.0, abs=0.05)
    assert words[2].start_s == pytest.approx(1.2)


# What public bug reports describe -------------------------------------------------------------------------------------

REPORTED: dict[str, list[tuple[str, float]]] = {
    "tsv_whisper.tsv": [("hello", 0.2), ("world", 0.6), ("second", 1.2), ("line", 1.68)],
    "js_ms.json": [("hello", 0.2), ("world", 0.6)],
    "vtt_rolling.vtt": [("hello", 0.2), ("world", 0.6), ("second", 1.0), ("line", 1.4)],
    "js_whisperx.json": [("in", 0.2), ("2016", 0.4), ("they", 0.9), ("had", 1.1), ("13", 1.3), ("cars", 1.7)],
    "js_tf_none.json": [("hello", 0.2), ("world", 0.6), ("second", 1.2), ("line", 1.5), ("of", 1.7), ("four", 1.8)],
    "srt_no_blank.srt": [("hello", 0.2), ("world", 0.6), ("second", 1.2), ("line", 1.68)],
    "srt_inverted.srt": [("hello", 1.0), ("world", 1.5)],
    "vtt_entities.vtt": [(">>", 0.2), ("rock", 0.3), ("&", 0.5), ("roll", 0.55), ("music", 0.75)],
    "vtt_kind_empty.vtt": [],
    "js_yt_api.json": [("hello", 0.2), ("world", 0.6), ("second", 1.2), ("line", 1.68)],
    "csv_line.csv": [("hello", 0.2), ("world", 0.6)],
    "cjk_srt.srt": [("你", 0.2), ("好", 0.4), ("世", 0.6), ("界", 0.8)],
}


@pytest.fixture
def reported(assets: Path, tmp_path: Path) -> Path:
    """The reported transcripts, a video of two seconds beside each."""
    folder = assets / "reported" / "transcripts"
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
        shutil.copy(folder / "VIDEO_for_all.mp4", tmp_path / f"{path.stem}.mp4")
    return tmp_path


@pytest.mark.assets
@pytest.mark.parametrize("name", REPORTED)
def test_words_of_reported_files_are_at_their_times(reported: Path, assets: Path, name: str) -> None:
    words = spoken_words((reported / name).with_suffix(".mp4")).words
    assert [word.text for word in words] == [text for text, _ in REPORTED[name]]
    np.testing.assert_allclose([word.start_s for word in words], [start for _, start in REPORTED[name]], atol=0.01)
    assert all(word.start_s <= word.end_s <= 2.01 for word in words)


@pytest.mark.assets
def test_reported_files_that_hold_no_timed_words_say_so(reported: Path, assets: Path) -> None:
    with pytest.raises(RecordingError, match="none of its words has a time"):
        spoken_words(reported / "js_tf_null_start.mp4")
    table = reported / "openface_output_talk.mp4"
    with pytest.raises(NoTranscriptError, match=r"openface_output_talk\.csv is none"):
        spoken_words(table)
    shutil.copy(reported / "tsv_whisper.tsv", table.with_suffix(".tsv"))
    assert len(spoken_words(table)) == 4
    arrows = spoken_words(reported / "srt_arrow_text.mp4").words
    assert " ".join(word.text for word in arrows) == "hello --> world 1 < 2 and 3 > 2"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no JSON|empty"),
        (b'{"segments": [{"start":0.5,', "no JSON from line 1 on: write it again"),
        ('{"text": "caf\u00e9"}'.encode("latin-1"), "no UTF-8 at byte 13: save it as UTF-8"),
    ],
)
def test_a_broken_file_is_named_with_what_to_do(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=rf"a\.json: not a transcript: .*({words})"):
        read_transcript(path)


def test_signs_that_compare_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:01,000\nif a<b and c>d then <i>yes</i>\n")
    assert [word.text for word in read_transcript(path).words] == ["if", "a<b", "and", "c>d", "then", "yes"]
