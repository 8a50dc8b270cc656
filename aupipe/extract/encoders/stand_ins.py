"""Small models in the place of published ones that are not here, for ``weights = "random"``: tests and dry runs.

A stand-in has the type, the width and the input of the model, and one block instead of all; its numbers are random.
"""

from __future__ import annotations

from typing import Any, Literal

LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 1024}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}

# The models that recipes name: type, and what differs from the defaults of transformers.
STAND_INS: dict[str, tuple[Literal["hubert", "wav2vec2", "roberta"], dict[str, Any]]] = {
    "facebook/hubert-base-ls960": ("hubert", {}),
    "facebook/hubert-xlarge-ll60k": ("hubert", {**LARGE, **STABLE, "hidden_size": 1280}),
    "facebook/wav2vec2-base": ("wav2vec2", {}),
    "facebook/wav2vec2-base-960h": ("wav2vec2", {}),
    "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim": ("wav2vec2", {**LARGE, **STABLE}),
    "FacebookAI/roberta-large": ("roberta", {**LARGE, "vocab_size": 512, "max_position_embeddings": 514}),
}
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # in the order of RoBERTa's numbers


def stand_in_config(model: str) -> Any:
    """The settings of the stand-in of a model."""
    from transformers import AutoConfig

    kind, options = STAND_INS[model]
    return AutoConfig.for_model(kind, **options, num_hidden_layers=1)


def stand_in_tokenizer() -> Any:
    """A fast tokenizer with a token per byte."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *letters))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bos, pad, eos, unknown = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        unk_token=unknown,
        model_max_length=512,
    )
