"""Any text model of `transformers` over the words around each frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from aupipe.errors import UsageError
from aupipe.extract.contract import WeightFile
from aupipe.extract.encoders.base import AlignRule, Encode, FrameAlignment, ShapedEncode, TimeSeries, WordsInput
from aupipe.extract.encoders.pretrained import find_model, identify_model, load_model
from aupipe.extract.encoders.stand_ins import stand_in_tokenizer
from aupipe.extract.media.transcript import Transcript, Word
from aupipe.tables import NotNegative, Range
from aupipe.types import Modality, Weights

BATCH = 16  # passages


@dataclass(frozen=True)
class Text(FrameAlignment):
    """Last hidden states of a text model such as ``FacebookAI/roberta-large``: a row per token, at its word's middle.

    By default a frame gets the mean over the tokens of all words whose middles lie within 2 s of it
    (``align = "mean"``, ``align_s = 2.0``), and is invalid where nobody speaks. Special tokens take no part.
    Words of one utterance are read together; an utterance longer than the model's limit is read in overlapping
    passages, and each word is taken from the passage whose middle is nearest to it.

    ``model``, ``weights``: as for ``speech``. ``layer``: hidden states after block ``layer``; -1 is the model's output.
    """

    model: WeightFile
    weights: Literal["pretrained", "random"] = "pretrained"
    layer: Annotated[int, Range(-1, 1000)] = -1
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    align: AlignRule = field(default="mean", kw_only=True)
    align_s: NotNegative = field(default=2.0, kw_only=True)

    modality: ClassVar[Modality] = "text"
    requires: ClassVar[tuple[str, ...]] = ("transformers", "tokenizers")
    version: ClassVar[int] = 1

    @property
    def reads(self) -> WordsInput:
        return WordsInput()

    def identify_weights(self) -> Weights:
        return identify_model(self.model, self.weights)

    def load(self, device: str) -> Encode:
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = find_model(self.model, self.weights)
        tokenizer = (
            AutoTokenizer.from_pretrained(folder, local_files_only=True, add_prefix_space=True)
            if folder
            else stand_in_tokenizer()
        )
        if not tokenizer.is_fast:
            raise UsageError(
                f"{self.model}: its tokenizer cannot say which word a token belongs to (no fast tokenizer)"
            )
        network = load_model(AutoModel, self.model, self.weights).to(
            device=device, dtype=getattr(torch, self.precision)
        )
        if self.layer >= 0 and self.layer > network.config.num_hidden_layers:
            raise UsageError(f"layer = {self.layer}: {self.model} has {network.config.num_hidden_layers} blocks")
        limit = token_limit(tokenizer, network.config)

        def states(passages: list[list[str]]) -> list[tuple[Any, list[int | None]]]:
            """Hidden states (tokens, D) of each passage, and the word each token belongs to."""
            batch = tokenizer(passages, is_split_into_words=True, padding=True, return_tensors="pt").to(device)
            with torch.inference_mode():
                out = network(**batch, output_hidden_states=self.layer >= 0)
            hidden = out.hidden_states[self.layer] if self.layer >= 0 else out.last_hidden_state
            found = hidden.float().cpu().numpy()
            return [(found[i], batch.word_ids(i)) for i in range(len(passages))]

        def encode(transcript: Transcript) -> TimeSeries:
            words = list(transcript.words)
            rows: list[Any] = [None] * len(words)
            jobs = passages_of(words, lambda group: word_lengths(tokenizer, group), limit)
            for first in range(0, len(jobs), BATCH):
                group = jobs[first : first + BATCH]
                found = states([[words[i].text for i in job.words] for job in group])
                for job, (hidden, owners) in zip(group, found, strict=True):
                    for position, word in enumerate(job.words):
                        if word in job.kept:
                            rows[word] = hidden[[k for k, owner in enumerate(owners) if owner == position]]
            spoken = [i for i, row in enumerate(rows) if row is not None and len(row)]
            if not spoken:
                return TimeSeries(np.zeros((0, network.config.hidden_size), np.float32), np.zeros(0))
            data = np.concatenate([rows[i] for i in spoken])  # (tokens, D)
            times = np.concatenate([np.full(len(rows[i]), words[i].middle_s) for i in spoken])
            order = np.argsort(times, kind="stable")  # two people may speak at once
            return TimeSeries(data[order], times[order])

        return ShapedEncode(encode, (network.config.hidden_size,))


@dataclass(frozen=True)
class Passage:
    """Words read together, and those of them whose states are taken from this reading; indices into a transcript."""

    words: tuple[int, ...]
    kept: frozenset[int]


def passages_of(words: list[Word], lengths: Any, limit: int) -> list[Passage]:
    """Passages of at most ``limit`` tokens that keep every word once; ``lengths(group)`` counts each word's tokens."""
    utterances: dict[int, list[int]] = {}
    for i, word in enumerate(words):
        utterances.setdefault(word.utterance, []).append(i)
    found: list[Passage] = []
    for members in utterances.values():
        sizes = lengths([words[i].text for i in members])
        spans = _spans(sizes, limit)
        middles = [(span[0] + span[1] - 1) / 2 for span in spans]
        for k, (start, stop) in enumerate(spans):
            # A word in two passages goes to the one whose middle is nearer.
            kept = [
                at
                for at in range(start, stop)
                if min(
                    (j for j, other in enumerate(spans) if other[0] <= at < other[1]),
                    key=lambda j, at=at: abs(middles[j] - at),  # type: ignore[misc]
                )
                == k
            ]
            found.append(Passage(tuple(members[start:stop]), frozenset(members[at] for at in kept)))
    return found


def _spans(sizes: list[int], limit: int) -> list[tuple[int, int]]:
    """Half-open ranges of words of at most ``limit`` tokens each, each beginning half-way through the one before."""
    spans = []
    start = 0
    while True:
        stop, total = start, 0
        while stop < len(sizes) and (total + sizes[stop] <= limit or stop == start):
            total += sizes[stop]
            stop += 1
        spans.append((start, stop))
        if stop >= len(sizes):
            return spans
        start = max(start + 1, (start + stop) // 2)


def word_lengths(tokenizer: Any, words: list[str]) -> list[int]:
    """Tokens of each word; 0 for what the tokenizer drops."""
    counts = [0] * len(words)
    for owner in tokenizer(words, is_split_into_words=True, add_special_tokens=False, verbose=False).word_ids():
        if owner is not None:
            counts[owner] += 1
    return counts


def token_limit(tokenizer: Any, config: Any) -> int:
    """Tokens of text a model takes at once, special ones left out."""
    positions = config.max_position_embeddings
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):  # their positions begin after the padding's number
        positions -= config.pad_token_id + 1
    return min(positions, int(tokenizer.model_max_length)) - tokenizer.num_special_tokens_to_add()
