"""The published checkpoints aupipe knows by file name: their sha256, their licence, and how one gets them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownWeights:
    """A published file.

    ``sha256``: as much of it as is known, from its beginning; "" where the publisher states none and nobody here has
    seen the file. ``commercial``: whether the licence stated with the weights allows commercial use; None where
    nothing is stated. The data a network was trained on may carry terms of its own. ``url``: the address that
    `aupipe weights pull` fetches, "" where the publisher has none that a program can follow; of a ``.zip`` the file of
    this name is taken out. ``size``: in bytes, 0 where it is not known. ``tried``: whether the address was tried when
    this table was written.
    """

    sha256: str
    licence: str
    how: str
    commercial: bool | None = None
    used_by: str = ""  # encoder or detector
    url: str = ""
    size: int = 0
    tried: bool = False  # of none of them so far: the table was written on a machine without a network


_INSIGHTFACE = "non-commercial research (insightface)"
_HSEMOTION = "download models/affectnet_emotions/{} of av-savchenko/face-emotion-recognition"
_ARCFACE = "download {} from the links of insightface recognition/arcface_torch (model zoo) and keep the folder's name"
_DAN = "download it from the links in the README of yaoing/DAN"
_ESRGAN = "download it from the releases of xinntao/Real-ESRGAN"
_RETINAFACE = "download it from the links in the README of biubug6/Pytorch_Retinaface"
_SCRFD = "take it out of {}.zip, a model pack of the insightface releases"
_PACK = "https://github.com/deepinsight/insightface/releases/download/v0.7/{}.zip"
_MAE = "https://dl.fbaipublicfiles.com/mae/{}"
_HSEMOTION_FILE = "https://github.com/av-savchenko/face-emotion-recognition/raw/main/models/affectnet_emotions/{}"
_ESRGAN_FILE = "https://github.com/xinntao/Real-ESRGAN/releases/download/{}/{}"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_{}"  # copies of the authors' files
_TORCHVISION = "https://download.pytorch.org/models/{}"
_VGGISH = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/{}"


def _arcface(folder: str) -> dict[str, KnownWeights]:
    how = _ARCFACE.format(folder)
    return {f"{folder}/backbone.pth": KnownWeights("", _INSIGHTFACE, how, False, "arcface")}


def _hsemotion(name: str) -> dict[str, KnownWeights]:
    url = _HSEMOTION_FILE.format(name)
    return {name: KnownWeights("", "Apache-2.0", _HSEMOTION.format(name), True, "hsemotion", url)}


def _mae(name: str) -> dict[str, KnownWeights]:
    folder = "pretrain" if "pretrain" in name else "finetune"
    url = _MAE.format(f"{folder}/{name}")
    return {name: KnownWeights("", "CC BY-NC 4.0", f"download {url}", False, "mae", url)}


def _insightface(name: str, pack: str, used_by: str) -> dict[str, KnownWeights]:
    url = _PACK.format(pack)
    return {name: KnownWeights("", _INSIGHTFACE, _SCRFD.format(pack), False, used_by, url)}


def _retinaface(name: str) -> dict[str, KnownWeights]:
    return {name: KnownWeights("", "MIT", _RETINAFACE, True, "retinaface", _FACEXLIB.format(name))}


def _esrgan(name: str, release: str) -> dict[str, KnownWeights]:
    url = _ESRGAN_FILE.format(release, name)
    return {name: KnownWeights("", "BSD-3-Clause", _ESRGAN, True, "super-resolution", url)}


def _with_digest(name: str, licence: str, used_by: str, address: str) -> dict[str, KnownWeights]:
    """torchvision and torch.hub put the first eight digits of the sha256 into the name."""
    url, digest = address.format(name), name.rpartition("-")[2].partition(".")[0]
    return {name: KnownWeights(digest, licence, f"download {url}", True, used_by, url)}


KNOWN_WEIGHTS: dict[str, KnownWeights] = {
    "face_detection_yunet_2023mar.onnx": KnownWeights(
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        "MIT",
        "download models/face_detection_yunet/face_detection_yunet_2023mar.onnx of the OpenCV Zoo",
        True,
        "yunet",
        "https://huggingface.co/opencv/face_detection_yunet/resolve/main/face_detection_yunet_2023mar.onnx",
        232_589,
    ),
    "retinaface_mobilenet025_1mb.pth": KnownWeights(
        "ed6fa7d45a5179f03cb5ce82c73b0c6711372968e53782e88395acee88d319e1",
        "MIT",
        "download weights/mobilenet0.25_Final.pth of biubug6/Face-Detector-1MB-with-landmark and give it this name",
        True,
        "retinaface",
        "https://github.com/biubug6/Face-Detector-1MB-with-landmark/raw/master/weights/mobilenet0.25_Final.pth",
        1_789_735,
    ),
    **_retinaface("mobilenet0.25_Final.pth"),
    **_retinaface("Resnet50_Final.pth"),
    **_insightface("det_10g.onnx", "buffalo_l", "scrfd"),
    **_insightface("scrfd_10g_bnkps.onnx", "antelopev2", "scrfd"),
    **_insightface("w600k_r50.onnx", "buffalo_l", "onnx"),
    **_insightface("glintr100.onnx", "antelopev2", "onnx"),
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
    **_with_digest("regnet_y_400mf-c65dace8.pth", "BSD-3-Clause", "regnet", _TORCHVISION),
    **_with_digest("regnet_y_400mf-e6988f5f.pth", "BSD-3-Clause", "regnet", _TORCHVISION),
    "swin_tiny_patch4_window7_224.pth": KnownWeights(
        "",
        "MIT",
        "download it from release v1.0.0 of SwinTransformer/storage",
        True,
        "swin",
        "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth",
    ),
    "ghfeat-encoder-ffhq-256.pkl": KnownWeights(
        "",
        "not stated (StyleGAN code: CC BY-NC 4.0)",
        "follow the link in the README of genforce/ghfeat",
        None,
        "ghfeat",
    ),
    **_esrgan("RealESRGAN_x4plus.pth", "v0.1.0"),
    **_esrgan("RealESRGAN_x2plus.pth", "v0.2.1"),
    **_esrgan("RealESRGAN_x4plus_anime_6B.pth", "v0.2.2.4"),
    **_esrgan("realesr-general-x4v3.pth", "v0.2.5.0"),
    **_esrgan("realesr-animevideov3.pth", "v0.2.5.0"),
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
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        3_758_596,
    ),
    **_with_digest("vggish-10086976.pth", "Apache-2.0", "vggish", _VGGISH),
    **_with_digest("vggish_pca_params-970ea276.pth", "Apache-2.0", "vggish", _VGGISH),
}


def known_weights(name: str) -> KnownWeights | None:
    """What is known of a file by its name, with its folder or without."""
    parts = name.replace("\\", "/").split("/")
    return KNOWN_WEIGHTS.get("/".join(parts[-2:])) or KNOWN_WEIGHTS.get(parts[-1])
