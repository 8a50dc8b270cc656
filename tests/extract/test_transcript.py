"""Words come from the files people have, at the times those files say."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.errors import RecordingError, UsageError
from aupipe.extract.encoders.text.recognize import Whisper, pieces, recognize_spans, transcribe
from aupipe.extract.media.transcript import (
    Transcript,
    Word,
    find_transcript,
    read_transcript,
    spoken_words,
    write_transcript,
)
from aupipe.types import Waveform
from tests.made import read_audio, spoken_s, talking, write_media, write_talking

WHISPER = {"text": " Hi there. You", "segments": [
    {"start": 0.5, "end": 1.5, "text": " Hi there.", "words": [
        {"word": " Hi", "start": 0.5, "end": 0.75, "probability": 0.9},
        {"word": " there.", "start": 0.75, "end": 1.5, "probability": 0.8}]},
    {"start": 2.0, "end": 2.5, "text": " You"}]}  # fmt: skip
TRANSFORMERS = {"text": " Hi there. You", "chunks": [
    {"text": " Hi", "timestamp": [0.5, 0.75]},
    {"text": " there.", "timestamp": [0.75, 1.5]},
    {"text": " You", "timestamp": [2.0, None]}]}  # fmt: skip
VTT = """WEBVTT

NOTE a comment

1
00:00.500 --> 00:01.500 align:start
<v Ann>Hi<00:00:00.750><c> there.</c>

00:02.000 --> 00:02.500
You
"""
FILES = {
    "whisper.json": json.dumps(WHISPER),
    "transformers.json": json.dumps(TRANSFORMERS),
    "list.json": json.dumps([{"word": "Hi", "start": 0.5, "end": 0.75}, {"word": "there.", "start": 0.75, "end": 1.5},
                             {"word": "You", "start": 2, "end": 2.5}]),
    "a.vtt": VTT,
    "a.csv": "word,start,end\nHi,0.5,0.75\nthere.,0.75,1.5\nYou,2.0,\n",
    "a.tsv": "Start\tEnd\tWord\n2.0\t2.5\tYou\n0.5\t0.75\tHi\n0.75\t1.5\tthere.\n",
    "a.align": "0 12500 sil\n12500 18750 Hi\n18750 37500 there.\n37500 50000 sp\n50000 62500 You\n62500 74500 sil\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_words_at_the_same_times(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    found = read_transcript(tmp_path / name)
    assert [word.text for word in found.words] == ["Hi", "there.", "You"]
    np.testing.assert_allclose([word.start_s for word in found.words], [0.5, 0.75, 2.0])
    np.testing.assert_allclose([word.end_s for word in found.words], [0.75, 1.5, 2.5])
    assert found.clock == ("player" if name == "a.vtt" else "sound")


def test_words_of_a_subtitle_share_its_time_by_their_letters(tmp_path: Path) -> None:
    srt = "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>We</i> were\r\nhere\r\n\r\n"
    srt += "2\r\n01:00:00,500 --> 01:00:01,500\r\nLater\r\n"
    (tmp_path / "a.srt").write_bytes(srt.encode("utf-8-sig"))
    found = read_transcript(tmp_path / "a.srt").words
    assert [(word.text, word.utterance) for word in found] == [("We", 0), ("were", 0), ("here", 0), ("Later", 1)]
    np.testing.assert_allclose([word.start_s for word in found], [1.0, 1.2, 1.6, 3600.5])
    np.testing.assert_allclose([word.end_s for word in found], [1.2, 1.6, 2.0, 3601.5])


@pytest.mark.assets
def test_grids_alignment_is_read_in_its_own_unit(assets: Path) -> None:
    found = read_transcript(assets / "labels" / "grid_swwp2s.align").words
    assert [word.text for word in found] == ["set", "white", "with", "p", "two", "soon"]
    assert (found[0].start_s, found[-1].end_s) == (pytest.approx(0.49), pytest.approx(2.21))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    words = Transcript((Word("déjà", 0.5, 0.75, 3), Word("vu", 0.75, 1.0, 4)))
    write_transcript(tmp_path / "deep" / "a.json", words)
    assert read_transcript(tmp_path / "deep" / "a.json") == words
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.json"]


def test_words_are_brought_to_the_videos_clock() -> None:
    word = Word("x", 1.0, 2.0)
    starts = {
        clock: Transcript((word,), clock).on_video_clock(player_start_s=0.008, sound_start_s=2.43).words[0].start_s
        for clock in ("video", "player", "sound")
    }
    assert starts == {"video": 1.0, "player": pytest.approx(1.008), "sound": pytest.approx(3.43)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "wort,start\nHi,1\n", "no column 'word' among 'wort', 'start'"),
        ("a.csv", "word,start\nHi,soon\n", "soon"),
        ("a.json", "{", "not a transcript"),
        ("a.json", '{"words": 3}', "not a transcript"),
        ("a.srt", "nothing here", "00:00:01,000 -->"),
        ("a.align", "0 1\n", "not a transcript"),
        ("a.doc", "x", "'.doc'; known: .json"),
    ],
)
def test_a_file_that_is_no_transcript_is_said_to_be_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RecordingError, match=message):
        read_transcript(tmp_path / name)


def test_a_transcript_lies_beside_its_video(tmp_path: Path) -> None:
    assert find_transcript(tmp_path / "talk.mp4") is None
    (tmp_path / "talk.srt").write_text("")
    (tmp_path / "talk.json").write_text("[]")
    assert find_transcript(tmp_path / "talk.mp4") == tmp_path / "talk.json"


def late_sound(path: Path) -> Path:
    """A clip whose sound begins at 0.4 s: a recogniser that was given the sound alone calls that 0."""
    pictures, sound = talking()
    return write_media(path, pictures, sound, sound_start_s=0.4)


def test_a_videos_words_are_on_its_own_clock(tmp_path: Path) -> None:
    video = late_sound(tmp_path / "clip.mkv")
    with pytest.raises(RecordingError, match=r"no transcript beside it; expected clip \+ \.json"):
        spoken_words(video)
    (tmp_path / "clip.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHi\n")
    assert spoken_words(video).words[0].start_s == pytest.approx(1.0)
    (tmp_path / "clip.csv").write_text("word,start\nHi,1.0\n")
    (tmp_path / "clip.srt").unlink()
    assert spoken_words(video).words[0].start_s == pytest.approx(1.4, abs=2e-3)


def test_recognised_words_are_found_again_under_the_videos_id(tmp_path: Path) -> None:
    video = late_sound(tmp_path / "videos" / "clip.mkv")
    video.parent.chmod(0o500)  # transcripts go elsewhere, as where one cannot write
    said = Transcript((Word("Hi", 0.9, 1.2),))
    heard = []
    transcribe(video, tmp_path / "train" / "clip.json", lambda wave: heard.append(wave) or said)
    assert heard[0].start_s == pytest.approx(0.4, abs=2e-3)
    assert spoken_words(video, tmp_path, "train/clip.mkv") == said  # on the video's clock already
    assert find_transcript(video, tmp_path, "train/other.mkv") is None


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0.01, 60)), max_size=20), st.floats(1, 30))
def test_pieces_cover_all_speech_and_none_is_too_long(gaps: list[tuple[float, float]], longest: float) -> None:
    spans, at = [], 0.0
    for pause, spoken in gaps:
        spans.append((at + pause, at + pause + spoken))
        at = spans[-1][1]
    found = list(pieces(np.array(spans).reshape(-1, 2), longest))
    assert all(end - start <= longest + 1e-6 for start, end in found)
    assert all(first[1] <= second[0] + 1e-9 for first, second in pairwise(found))
    for start, end in spans:
        covered = sum(max(0.0, min(end, stop) - max(start, begin)) for begin, stop in found)
        assert covered == pytest.approx(end - start)


def test_recognised_words_are_on_the_videos_clock_and_only_speech_is_heard() -> None:
    wave = Waveform(np.arange(16000 * 60, dtype=np.float32), 16000, 2.0)
    heard = []

    def words(samples):
        heard.append((samples[0] / 16000, len(samples) / 16000))
        return [{"text": " one", "timestamp": (0.5, 0.75)}, {"text": " two", "timestamp": (0.75, None)}]

    found = recognize_spans(wave, np.array([[3.0, 5.0], [40.0, 41.0]]), words)
    assert heard == [(1.0, 2.0), (38.0, 1.0)]
    assert [(word.text, word.start_s, word.end_s, word.utterance) for word in found.words] == [
        ("one", 3.5, 3.75, 0), ("two", 3.75, 5.0, 0), ("one", 40.5, 40.75, 1), ("two", 40.75, 41.0, 1),
    ]  # fmt: skip
    assert len(recognize_spans(wave, np.zeros((0, 2)), words)) == 0


def save_tiny_whisper(folder: Path) -> None:
    """A Whisper of random numbers with a byte vocabulary: its words are nonsense, their times are its attention's."""
    import torch
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizerFast,
    )

    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizerFast(vocab=vocabulary | {"<|endoftext|>": len(vocabulary)}, merges=[])
    names = ["startoftranscript", "en", "translate", "transcribe", "startoflm", "startofprev", "nospeech"]
    special = [f"<|{name}|>" for name in [*names, "notimestamps"]]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>", special=False) for i in range(1501)])
    end, start, silent = (
        tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("endoftext", "startoftranscript", "notimestamps")
    )
    ends = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    torch.manual_seed(0)
    small = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32, max_target_positions=64,
        **small, **ends,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    GenerationConfig(
        alignment_heads=[[1, 0]], no_timestamps_token_id=silent, is_multilingual=False, max_length=40, **ends
    ).save_pretrained(folder)


def test_whisper_through_transformers_times_words_within_the_speech(tmp_path: Path) -> None:
    pytest.importorskip("silero_vad")
    save_tiny_whisper(tmp_path)
    video = write_talking(tmp_path / "a.mpg", frames=100)
    wave = read_audio(video, 16000)
    start_s, end_s = spoken_s(video)
    later = Waveform(wave.samples, 16000, wave.start_s + 10)
    recognize = Whisper(str(tmp_path)).load("cpu")
    here, there = recognize(wave).words, recognize(later).words
    assert here
    assert all(start_s <= word.start_s <= word.end_s <= end_s + 0.1 for word in here)
    np.testing.assert_allclose([w.start_s - 10 for w in there], [w.start_s for w in here], atol=1e-6)
    assert not recognize(Waveform(np.zeros(32000, np.float32), 16000)).words  # silence is not even heard
    settings = tmp_path / "generation_config.json"
    settings.write_text(settings.read_text().replace("alignment_heads", "no_heads"))
    with pytest.raises(UsageError, match="alignment_heads"):
        Whisper(str(tmp_path)).load("cpu")
