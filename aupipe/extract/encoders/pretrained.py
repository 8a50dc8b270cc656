"""Model folders of the `transformers` library: found on this machine, identified by what is in them, never fetched."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from aupipe.documents import read_json
from aupipe.errors import WeightsMissingError
from aupipe.extract.encoders.stand_ins import STAND_INS, stand_in_config
from aupipe.extract.weights import RANDOM, RANDOM_SEED, RefusedWeightsError, file_sha256, random_weights
from aupipe.local_models import model_folder
from aupipe.types import Weights

# What changes the numbers besides the weights. Tokenizers come in many files; all of them count.
SETTINGS = ("config.json", "preprocessor_config.json", "generation_config.json")
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip


def find_model(model: str, weights: str) -> Path | None:
    """`model_folder`; None where random weights are asked for of a model that is not here and has a stand-in."""
    try:
        return model_folder(model)
    except WeightsMissingError:
        if weights != RANDOM or model not in STAND_INS:
            raise
        return None


def weight_files(folder: Path) -> list[Path]:
    """The weight files `from_pretrained` would read: safetensors before pickles, all shards.

    Raises WeightsMissingError where there are none.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(settings(folder, index.name)["weight_map"].values()))
            except (KeyError, TypeError, AttributeError) as error:
                raise RefusedWeightsError(f"{index}: it names no shards ({error!r})") from error
            missing = [shard for shard in shards if not (folder / shard).is_file()]
            if missing:
                raise WeightsMissingError(f"{folder}: {index.name} names {', '.join(missing)}, which is not there")
            return [folder / shard for shard in shards]
    raise WeightsMissingError(f"{folder}: neither model.safetensors nor pytorch_model.bin is there")


def identify_model(model: str, weights: str) -> Weights:
    """Which numbers a model is made of: a digest over its settings, tokenizer and weight files.

    ``weights = "random"``: over the settings and the seed. Raises WeightsMissingError.
    """
    folder = find_model(model, weights)
    if folder is None:
        return random_weights(f"stand-in:{model}")
    files = [folder / name for name in (*SETTINGS, *TOKENIZERS) if (folder / name).is_file()]
    if weights != RANDOM:
        files += weight_files(folder)
    lines = [f"{path.name} {file_sha256(path)}" for path in files]
    if weights == RANDOM:
        lines.append(f"random {RANDOM_SEED}")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if weights == RANDOM:
        return Weights(f"random:{RANDOM_SEED}:{folder.name}", digest, "none: random numbers")
    return Weights(model if not Path(model).is_absolute() else folder.name, digest, licence_of(folder))


def licence_of(folder: Path) -> str:
    """The licence a model card declares in its first lines, or ``unknown``."""
    card = folder / "README.md"
    if card.is_file():
        said = re.match(r"---\n(?:.*\n)*?license:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace"))
        if said:
            return said[1]
    return "unknown"


def settings(folder: Path | None, name: str) -> dict[str, Any]:
    """A JSON file of a model folder; empty where there is none. Raises RefusedWeightsError for one that is no table."""
    if folder is None:
        return {}
    path = folder / name
    try:
        content = read_json(path) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise RefusedWeightsError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise RefusedWeightsError(f"{path} holds no table of settings")
    return content


def load_model(kind: Any, model: str, weights: str, **options: Any) -> Any:
    """An instance of the transformers class ``kind``, in float32 and eval mode, from local files alone.

    Raises WeightsMissingError when the files do not hold what the class needs: random numbers would be silent nonsense.
    """
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # only the command line draws bars
    folder = find_model(model, weights)
    if folder is None or weights == RANDOM:
        config = AutoConfig.from_pretrained(folder, local_files_only=True) if folder else stand_in_config(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            build = getattr(kind, "from_config", None) or kind
            return build(config, **options).float().eval()
    weight_files(folder)
    network, report = kind.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **options
    )
    # The mask vector is used in training only, and checkpoints without it are common.
    missing = sorted(name for name in report["missing_keys"] if not name.endswith("masked_spec_embed"))
    wrong = sorted(str(name) for name in report.get("mismatched_keys", ()))
    if missing or wrong:
        raise WeightsMissingError(f"{folder} lacks weights of {kind.__name__}: {', '.join([*missing, *wrong][:5])}")
    return network.eval()
