"""The published checkpoints aupipe knows by file name: their sha256, their licence, and how one gets them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownWeights:
    """A published file.

    ``sha256``: as much of it as is known, from its beginning; "" where the publisher states none and nobody here has
    seen the file. ``commercial``: whether the licence stated with the weights allows commercial use; None where
    nothing is stated. The data a network was trained on may carry terms of its own. ``hub``: repository and file on
    the Hugging Face hub, where it lies there.
    """

    sha256: str
    licence: str
    how: str
    commercial: bool | None = None
    used_by: str = ""  # encoder or detector
    hub: tuple[str, str] | None = None


_INSIGHTFACE = "non-commercial research (insightface)"
_HSEMOTION = "download models/affectnet_emotions/{} of av-savchenko/face-emotion-recognition"
_ARCFACE = "download {} from the links of insightface recognition/arcface_torch (model zoo) and keep the folder's name"
_DAN = "download it from the links in the README of yaoing/DAN"
_ESRGAN = "download it from the releases of xinntao/Real-ESRGAN"
_RETINAFACE = "download it from the links in the README of biubug6/Pytorch_Retinaface"
_SCRFD = "take it out of {}.zip, a model pack of the insightface releases"
_MAE = "download https://dl.fbaipublicfiles.com/mae/{}"


def _arcface(folder: str) -> dict[str, KnownWeights]:
    how = _ARCFACE.format(folder)
    return {f"{folder}/backbone.pth": KnownWeights("", _INSIGHTFACE, how, False, "arcface")}


def _hsemotion(name: str) -> dict[str, KnownWeights]:
    return {name: KnownWeights("", "Apache-2.0", _HSEMOTION.format(name), True, "hsemotion")}


def _mae(name: str) -> dict[str, KnownWeights]:
    folder = "pretrain" if "pretrain" in name else "finetune"
    return {name: KnownWeights("", "CC BY-NC 4.0", _MAE.format(f"{folder}/{name}"), False, "mae")}


KNOWN_WEIGHTS: dict[str, KnownWeights] = {
    "face_detection_yunet_2023mar.onnx": KnownWeights(
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        "MIT",
        "download models/face_detection_yunet/face_detection_yunet_2023mar.onnx of the OpenCV Zoo",
        True,
        "yunet",
        ("opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx"),
    ),
    "retinaface_mobilenet025_1mb.pth": KnownWeights(
        "ed6fa7d45a5179f03cb5ce82c73b0c6711372968e53782e88395acee88d319e1",
        "MIT",
        "download weights/mobilenet0.25_Final.pth of biubug6/Face-Detector-1MB-with-landmark and give it this name",
        True,
        "retinaface",
    ),
    "mobilenet0.25_Final.pth": KnownWeights("", "MIT", _RETINAFACE, True, "retinaface"),
    "Resnet50_Final.pth": KnownWeights("", "MIT", _RETINAFACE, True, "retinaface"),
    "det_10g.onnx": KnownWeights("", _INSIGHTFACE, _SCRFD.format("buffalo_l"), False, "scrfd"),
    "scrfd_10g_bnkps.onnx": KnownWeights("", _INSIGHTFACE, _SCRFD.format("antelopev2"), False, "scrfd"),
    "w600k_r50.onnx": KnownWeights("", _INSIGHTFACE, _SCRFD.format("buffalo_l"), False, "onnx"),
    "glintr100.onnx": KnownWeights("", _INSIGHTFACE, _SCRFD.format("antelopev2"), False, "onnx"),
    **_arcface("glint360k_cosface_r50_fp16_0.1"),
    **_arcface("glint360k_cosface_r100_fp16_0.1"),
    **_arcface("ms1mv3_arcface_r50_fp16"),
    **_arcface("ms1mv3_arcface_r100_fp16"),
    "affecnet8_epoch5_acc0.6209.pth": KnownWeights("", "MIT", _DAN, True, "dan"),
    "affecnet7_epoch6_acc0.6569.pth": KnownWeights("", "MIT", _DAN, True, "dan"),
    "rafdb_epoch21_acc0.897_bacc0.8275.pth": KnownWeights("", "MIT", _DAN, True, "dan"),
    **_hsemotion("enet_b2_8.pt"),
    **_hsemotion("enet_b2_8_best.pt"),
    **_hsemotion("enet_b2_7.pt"),
    **_hsemotion("enet_b0_8_best_vgaf.pt"),
    **_hsemotion("enet_b0_8_best_afew.pt"),
    **_hsemotion("enet_b0_8_va_mtl.pt"),
    **_hsemotion("enet_b0_7.pt"),
    **_mae("mae_pretrain_vit_base.pth"),
    **_mae("mae_pretrain_vit_large.pth"),
    **_mae("mae_pretrain_vit_huge.pth"),
    **_mae("mae_finetuned_vit_base.pth"),
    **_mae("mae_finetuned_vit_large.pth"),
    **_mae("mae_finetuned_vit_huge.pth"),
    # torchvision puts the first eight digits of the sha256 into the name.
    "regnet_y_400mf-c65dace8.pth": KnownWeights(
        "c65dace8",
        "BSD-3-Clause",
        "download https://download.pytorch.org/models/regnet_y_400mf-c65dace8.pth",
        True,
        "regnet",
    ),
    "regnet_y_400mf-e6988f5f.pth": KnownWeights(
        "e6988f5f",
        "BSD-3-Clause",
        "download https://download.pytorch.org/models/regnet_y_400mf-e6988f5f.pth",
        True,
        "regnet",
    ),
    "swin_tiny_patch4_window7_224.pth": KnownWeights(
        "", "MIT", "download it from release v1.0.0 of SwinTransformer/storage", True, "swin"
    ),
    "ghfeat-encoder-ffhq-256.pkl": KnownWeights(
        "",
        "not stated (StyleGAN code: CC BY-NC 4.0)",
        "follow the link in the README of genforce/ghfeat",
        None,
        "ghfeat",
    ),
    "RealESRGAN_x4plus.pth": KnownWeights("", "BSD-3-Clause", _ESRGAN, True, "super-resolution"),
    "RealESRGAN_x2plus.pth": KnownWeights("", "BSD-3-Clause", _ESRGAN, True, "super-resolution"),
    "RealESRGAN_x4plus_anime_6B.pth": KnownWeights("", "BSD-3-Clause", _ESRGAN, True, "super-resolution"),
    "realesr-general-x4v3.pth": KnownWeights("", "BSD-3-Clause", _ESRGAN, True, "super-resolution"),
    "realesr-animevideov3.pth": KnownWeights("", "BSD-3-Clause", _ESRGAN, True, "super-resolution"),
    "fer2013_mini_xception.onnx": KnownWeights(
        "4f7f81977889603a49535bde1cea0fa7442f82eb32cc24f348cc673ab01ebb2e",
        "MIT",
        "convert fer2013_mini_XCEPTION.102-0.66.hdf5 of oarriaga/face_classification",
        True,
        "onnx",
    ),
    "face_landmarker_v2_with_blendshapes.task": KnownWeights(
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        "Apache-2.0",
        "download Google's MediaPipe face landmarker bundle (float16, version 1) and give it this name",
        True,
        "blendshapes",
    ),
    # ... and torch.hub does as torchvision does.
    "vggish-10086976.pth": KnownWeights(
        "10086976", "Apache-2.0", "download it from release v0.1 of harritaylor/torchvggish", True, "vggish"
    ),
    "vggish_pca_params-970ea276.pth": KnownWeights(
        "970ea276", "Apache-2.0", "download it from release v0.1 of harritaylor/torchvggish", True, "vggish"
    ),
}


def known_weights(name: str) -> KnownWeights | None:
    """What is known of a file by its name, with its folder or without."""
    parts = name.replace("\\", "/").split("/")
    return KNOWN_WEIGHTS.get("/".join(parts[-2:])) or KNOWN_WEIGHTS.get(parts[-1])
