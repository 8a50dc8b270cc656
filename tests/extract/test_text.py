"""Words are read in their context and reach the frames within two seconds of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aupipe.config import EncoderConfig
from aupipe.errors import UsageError
from aupipe.extract.encoders import build_encoder
from aupipe.extract.encoders.frame_alignment import resample_to_frames
from aupipe.extract.encoders.text.text import passages_of
from aupipe.extract.media.transcript import Transcript, Word, read_transcript

torch.set_num_threads(1)

TINY = str(Path(__file__).parent / "models" / "tiny-roberta")


def text(**params):
    return build_encoder(EncoderConfig("t", "text", "text", {"model": TINY, "weights": "random"} | params))


def words(*texts: str, step_s: float = 0.5, utterance: int = 0) -> tuple[Word, ...]:
    return tuple(Word(word, i * step_s, (i + 1) * step_s, utterance) for i, word in enumerate(texts))


def states(*texts: str) -> np.ndarray:
    """The model's own hidden states of a sentence, without the special tokens."""
    from transformers import AutoTokenizer

    from aupipe.extract.encoders.pretrained import load_model

    tokenizer = AutoTokenizer.from_pretrained(TINY, local_files_only=True)
    from transformers import AutoModel

    model = load_model(AutoModel, TINY, "random")
    with torch.inference_mode():
        return model(**tokenizer(" ".join(texts), return_tensors="pt")).last_hidden_state[0, 1:-1].numpy()


def test_rows_are_the_models_tokens_at_their_words_times() -> None:
    series = text().load("cpu")(Transcript(words("set", "white", "zebra")))
    np.testing.assert_allclose(series.data, states("set", "white", "zebra"), atol=1e-5)
    assert len(series.data) > 3  # "zebra" is several tokens of this vocabulary
    np.testing.assert_allclose(np.unique(series.times_s), [0.25, 0.75, 1.25])


def test_utterances_are_read_apart() -> None:
    both = text().load("cpu")(Transcript((*words("set", "white"), *words("two", "soon", utterance=1))))
    expected = {0.25: ("set", "two"), 0.75: ("white", "soon")}
    assert len(both.data) == 4
    np.testing.assert_array_equal(both.times_s, np.repeat(list(expected), 2))
    apart = np.concatenate([states("set", "white"), states("two", "soon")])
    np.testing.assert_allclose(np.sort(both.data, axis=0), np.sort(apart, axis=0), atol=1e-5)


def test_frames_get_the_words_within_two_seconds_and_nothing_where_nobody_speaks(tmp_path: Path) -> None:
    times = [0, 12250, 19250, 26000, 33000, 47000, 55250, 74500]
    said = ["sil", "set", "white", "with", "sp", "two", "soon"]
    lines = [f"{start} {end} {word}\n" for start, end, word in zip(times, times[1:], said, strict=False)]
    (tmp_path / "a.align").write_text("".join(lines))
    spoken = read_transcript(tmp_path / "a.align")
    encoder = text()
    series = encoder.load("cpu")(spoken)
    pts = np.arange(200) / 25 + 0.01
    rows = resample_to_frames(series, pts, encoder)
    middles = np.array([word.middle_s for word in spoken.words])
    near = np.abs(middles[None] - pts[:, None]) <= 2
    np.testing.assert_array_equal(~np.isnan(rows[:, 0]), near.any(axis=1))
    frame = int(np.argmax(near.sum(axis=1) == 2))  # a frame that only the last two words reach
    last_two = series.times_s >= middles[-2]
    np.testing.assert_allclose(rows[frame], series.data[last_two].mean(axis=0), atol=1e-5)


def test_no_words_at_all_are_no_valid_frames() -> None:
    encoder = text()
    rows = resample_to_frames(encoder.load("cpu")(Transcript()), np.arange(5) / 25, encoder)
    assert rows.shape == (5, 32)
    assert np.isnan(rows).all()


def test_long_speech_is_read_in_passages_and_every_word_is_kept() -> None:
    texts = ["set", "white", "with", "two", "soon", "now", "bin", "blue"] * 20
    series = text().load("cpu")(Transcript(words(*texts)))
    assert len(np.unique(series.times_s)) == len(texts)
    assert np.isfinite(series.data).all()
    short = text().load("cpu")(Transcript(words(*texts[:3])))
    np.testing.assert_allclose(short.data, states(*texts[:3]), atol=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=80), st.integers(3, 30))
def test_passages_keep_every_word_once_and_fit(sizes: list[int], limit: int) -> None:
    spoken = [Word(str(i), i, i + 1) for i in range(len(sizes))]
    found = passages_of(spoken, lambda group: [sizes[int(word)] for word in group], limit)
    assert sorted(i for passage in found for i in passage.kept) == list(range(len(sizes)))
    for passage in found:
        assert passage.kept <= set(passage.words)
        assert sum(sizes[i] for i in passage.words) <= limit or len(passage.words) == 1


def test_a_layer_beyond_the_last_is_refused() -> None:
    with pytest.raises(UsageError, match="has 2 blocks"):
        text(layer=3).load("cpu")
