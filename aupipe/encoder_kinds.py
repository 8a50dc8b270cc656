"""The kinds of encoders, and their modalities. Nothing is imported to list those of aupipe."""

from __future__ import annotations

from typing import Literal, cast, get_args

from aupipe.errors import UsageError
from aupipe.registry import Registry

EncoderModality = Literal["visual", "audio", "text"]
PACKAGE = "aupipe.extract.encoders"  # the modules of a modality are in its sub-package of that name

ENCODERS = Registry(
    "encoder",
    {
        "hog": f"{PACKAGE}.visual.hog:Hog",
        "geometry": f"{PACKAGE}.visual.geometry:Geometry",
        "timm": f"{PACKAGE}.visual.timm:Timm",
        "arcface": f"{PACKAGE}.visual.arcface:ArcFace",
        "blendshapes": f"{PACKAGE}.visual.blendshapes:Blendshapes",
        "crops": f"{PACKAGE}.visual.crops:Crops",
        "dan": f"{PACKAGE}.visual.dan:Dan",
        "ghfeat": f"{PACKAGE}.visual.ghfeat:GhFeat",
        "hsemotion": f"{PACKAGE}.visual.hsemotion:HsEmotion",
        "mae": f"{PACKAGE}.visual.mae:Mae",
        "onnx": f"{PACKAGE}.visual.onnx:Onnx",
        "regnet": f"{PACKAGE}.visual.regnet:RegNet",
        "swin": f"{PACKAGE}.visual.swin:Swin",
        "transformers": f"{PACKAGE}.visual.transformers:Transformers",
        "mfcc": f"{PACKAGE}.audio.mfcc:Mfcc",
        "logmel": f"{PACKAGE}.audio.logmel:LogMel",
        "vggish": f"{PACKAGE}.audio.vggish:Vggish",
        "speech": f"{PACKAGE}.audio.speech:Speech",
        "level": f"{PACKAGE}.audio.level:Level",
        "egemaps": f"{PACKAGE}.audio.egemaps:Egemaps",
        "vad": f"{PACKAGE}.audio.vad:Vad",
        "text": f"{PACKAGE}.text.text:Text",
    },
)


def modality_of(kind: str) -> EncoderModality:
    """The modality of the encoders of this kind. A kind of another package is imported for it.

    Raises UsageError for an unknown kind, with the nearest known one, and for one that has no modality.
    """
    module = ENCODERS.table.get(kind, "").partition(":")[0]
    found = module.removeprefix(f"{PACKAGE}.").partition(".")[0]
    if found not in get_args(EncoderModality):
        found = getattr(ENCODERS.get(kind), "modality", "")
    if found not in get_args(EncoderModality):
        raise UsageError(f'{ENCODERS.describe(kind)} states no modality: give one, such as modality = "visual"')
    return cast(EncoderModality, found)
