"""The visual encoders: taps, preprocessing, published checkpoints, and real weights on real faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aupipe.config import EncoderConfig
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.encoders import ENCODERS, build_encoder
from aupipe.extract.encoders.image_base import IMAGENET
from aupipe.extract.encoders.visual import blendshapes
from aupipe.extract.faces import DETECTORS, landmarks
from aupipe.extract.imaging.templates import (
    ARCFACE_112,
    ArcFaceCropTemplate,
    BoxCropTemplate,
    CropTemplate,
    FfhqCropTemplate,
    crop,
    ffhq_square,
    shrink,
    shrink_factor,
    warp,
)
from aupipe.extract.media.images import read_image
from aupipe.extract.weights import RefusedWeightsError
from aupipe.types import Detections
from tests.extract.conftest import Lit
from tests.made import talking
from tests.made_bundle import FILE as MADE_BUNDLE
from tests.made_checkpoint import save_checkpoint

DATA = Path(__file__).parent / "data"
BUNDLE = "face_landmarker_v2_with_blendshapes.task"


def build(kind: str, **params: Any):
    return build_encoder(EncoderConfig("x", kind, "visual", params))


def crops(encoder, n: int = 2) -> np.ndarray:
    size = encoder.reads.size_px
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    return tmp_path


TAPS = [
    ("arcface", {"model": "r50", "tap": "map7"}, 112, (512, 7, 7)),
    ("dan", {"tap": "fused"}, 224, (512,)),
    ("dan", {"tap": "heads"}, 224, (4, 512)),
    ("dan", {"tap": "logits"}, 224, (8,)),
    ("hsemotion", {"model": "b2"}, 260, (1408,)),
    ("hsemotion", {"model": "b0", "tap": "logits"}, 224, (8,)),
    ("regnet", {}, 112, (440,)),
    ("regnet", {"tap": "map"}, 112, (440, 4, 4)),
    ("regnet", {"tap": "map", "size_px": 224}, 224, (440, 7, 7)),
    ("swin", {"tap": "tokens"}, 256, (49, 768)),
]


@pytest.mark.parametrize(("kind", "params", "size", "shape"), TAPS)
def test_taps_have_the_shapes_of_the_spec(kind: str, params: dict[str, Any], size: int, shape: tuple[int, ...]) -> None:
    encoder = build(kind, weights="random", **params)
    assert encoder.reads.size_px == size
    assert encoder.identify_weights().name.startswith("random:0:")
    encode = encoder.load("cpu")
    assert encode(crops(encoder, 1)).shape == (1, *shape)
    assert encode(crops(encoder, 0)).shape == (0, *shape)


@pytest.mark.parametrize("kind", ["arcface", "dan", "hsemotion", "mae", "regnet", "swin", "ghfeat", "blendshapes"])
def test_without_its_file_an_encoder_says_which_and_how_and_builds_nothing(kind: str, weights: Path) -> None:
    encoder = build(kind)
    with pytest.raises(WeightsMissingError, match=r"download|README") as error:
        encoder.identify_weights()
    assert encoder.weights in str(error.value)


@pytest.mark.parametrize(("kind", "params"), [("onnx", {"size_px": 32}), ("blendshapes", {})])
def test_a_file_that_is_the_network_cannot_be_random_and_says_so(kind: str, params: dict[str, Any]) -> None:
    with pytest.raises(WeightsMissingError, match="the file is the network"):
        build(kind, weights="random", **params).identify_weights()


def test_pixels_reach_the_network_normalised_channel_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    from aupipe.extract.encoders.image_base import image_encoder

    class Corner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return x[:, :, 1, 2]

    network = Corner()
    picture = np.zeros((2, 4, 4, 3), np.uint8)
    picture[:, 1, 2] = [[255, 0, 51], [10, 20, 30]]
    rows = image_encoder(network, "cpu", IMAGENET, network)(picture)
    np.testing.assert_allclose(rows, (picture[:, 1, 2] / 255 - IMAGENET[0]) / IMAGENET[1], rtol=1e-5)


def test_a_published_checkpoint_gives_the_networks_numbers(weights: Path) -> None:
    from aupipe.extract.nets.dan import DAN

    torch.manual_seed(5)
    network = DAN(num_class=7).eval()
    save_checkpoint({"iter": 1, "model_state_dict": network.state_dict()}, weights / "rafdb.pth")
    encoder = build("dan", weights="rafdb.pth", tap="logits")
    picture = crops(encoder)
    pixels = torch.from_numpy(picture).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(IMAGENET[0]).view(1, 3, 1, 1)) / torch.tensor(IMAGENET[1]).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = network(pixels)[0].numpy()
    found = encoder.load("cpu")(picture)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    state = network.state_dict()
    state["cat_head1.sa.renamed"] = state.pop("cat_head1.sa.conv1x1.0.weight")
    save_checkpoint({"model_state_dict": state}, weights / "rafdb.pth")
    with pytest.raises(RefusedWeightsError, match=r"missing: cat_head1\.sa\.conv1x1\.0\.weight; unexpected: .*renamed"):
        encoder.load("cpu")


def test_hsemotion_reads_the_pickled_module_with_its_wrapped_classifier(weights: Path) -> None:
    import timm

    torch.manual_seed(2)
    module = timm.create_model("tf_efficientnet_b0", num_classes=8).eval()
    module.classifier = nn.Sequential(module.classifier)
    save_checkpoint(module, weights / "enet_b0_8_best_vgaf.pt")
    encoder = build("hsemotion", model="b0", weights="enet_b0_8_best_vgaf.pt", tap="logits")
    picture = crops(encoder, 1)
    pixels = torch.from_numpy(picture).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(IMAGENET[0]).view(1, 3, 1, 1)) / torch.tensor(IMAGENET[1]).view(1, 3, 1, 1)
    with torch.inference_mode():
        np.testing.assert_allclose(encoder.load("cpu")(picture), module(pixels), rtol=1e-3, atol=1e-5)
    with pytest.raises(RefusedWeightsError, match="does not fit"):
        build("hsemotion", model="b2", weights="enet_b0_8_best_vgaf.pt").load("cpu")


def test_mae_drops_the_decoder_of_pretraining_and_nothing_else(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    from aupipe.extract.encoders.visual import mae

    monkeypatch.setitem(mae.MODELS, "base", "vit_tiny_patch16_224")  # the same keys, a fifteenth of the time
    torch.manual_seed(1)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, weight_init="skip").eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(0, 0.1)
    state = vit.state_dict()
    extra = {"mask_token": torch.zeros(1, 1, 512), "decoder_embed.weight": torch.zeros(512, 192)}
    save_checkpoint({"model": state | extra}, weights / "mae_pretrain_vit_base.pth")
    encoder = build("mae")
    picture = crops(encoder, 1)
    pixels = torch.from_numpy(picture).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(IMAGENET[0]).view(1, 3, 1, 1)) / torch.tensor(IMAGENET[1]).view(1, 3, 1, 1)
    with torch.inference_mode():
        tokens = vit.forward_features(pixels)
    np.testing.assert_allclose(encoder.load("cpu")(picture), tokens[:, 0], rtol=1e-3, atol=1e-4)
    with pytest.raises(RefusedWeightsError, match="has no fc_norm, and tap is 'fc_norm': set tap = 'cls', 'mean' or"):
        build("mae", tap="fc_norm").load("cpu")  # only fine-tuned checkpoints have that norm
    renamed = {key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: state[key] for key in state}
    save_checkpoint({"model": renamed}, weights / "mine.pth")
    with pytest.raises(RefusedWeightsError, match="was fine-tuned, and tap is 'cls': set tap = 'fc_norm'"):
        build("mae", weights="mine.pth").load("cpu")
    assert build("mae", weights="mine.pth", tap="fc_norm").load("cpu")(picture).shape == (1, 192)


def test_swin_reads_microsofts_names_and_its_index_buffers(weights: Path) -> None:
    import timm

    torch.manual_seed(1)
    network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0).eval()
    state = {"head.weight": torch.zeros(1000, 768), "head.bias": torch.zeros(1000)}
    for key, value in network.state_dict().items():
        if ".downsample." in key:  # Microsoft merges at the end of the stage before
            stage = int(key.split(".")[1])
            key = key.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        state[key] = value
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    save_checkpoint({"model": state}, weights / "swin_tiny_patch4_window7_224.pth")
    encoder = build("swin", tap="tokens")
    picture = crops(encoder, 1)
    pixels = torch.from_numpy(picture[:, 16:240, 16:240]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        expected = network.forward_features(pixels)[0].reshape(49, 768)
    np.testing.assert_allclose(encoder.load("cpu")(picture)[0], expected, rtol=1e-3, atol=1e-4)


def test_regnet_reads_torchvisions_file(weights: Path) -> None:
    from torchvision.models import regnet_y_400mf

    torch.manual_seed(4)
    network = regnet_y_400mf(weights=None).eval()
    assert sum(p.numel() for p in network.parameters()) == 4_344_144
    save_checkpoint(network.state_dict(), weights / "mine.pth")
    encoder = build("regnet", weights="mine.pth")
    network.fc = nn.Identity()
    picture = crops(encoder)
    pixels = torch.from_numpy(picture).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(IMAGENET[0]).view(1, 3, 1, 1)) / torch.tensor(IMAGENET[1]).view(1, 3, 1, 1)
    with torch.inference_mode():
        np.testing.assert_allclose(encoder.load("cpu")(picture), network(pixels), rtol=1e-3, atol=1e-5)


def test_super_resolution_is_part_of_what_a_feature_is(weights: Path) -> None:
    plain = build("ghfeat", weights="random", depth=18)
    enlarged = build("ghfeat", weights="random", depth=18, super_resolution="random")
    assert plain.identify_weights().sha256 != enlarged.identify_weights().sha256
    assert (plain.reads, enlarged.reads) == (FfhqCropTemplate(256), FfhqCropTemplate(128))


@pytest.mark.parametrize("compact", [False, True])
def test_the_enlarger_is_built_from_what_its_file_holds(weights: Path, compact: bool) -> None:
    from aupipe.extract.encoders.visual.ghfeat import _enlarger
    from aupipe.extract.nets.rrdbnet import RRDBNet, SRVGGNetCompact

    network = SRVGGNetCompact(num_conv=3) if compact else RRDBNet(scale=2, num_block=2)
    name = "params" if compact else "params_ema"
    save_checkpoint({name: network.state_dict()}, weights / "enlarger.pth")
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        np.testing.assert_array_equal(_enlarger("enlarger.pth")(x), network(x))


def test_a_transformers_folder_gives_what_the_model_gives(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    network = ViTModel(ViTConfig.from_pretrained(DATA / "tiny_vit")).eval()
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"height": 64, "width": 64}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}'
    )
    picture = crops(build("transformers", model=str(tmp_path)))
    assert picture.shape[1:3] == (64, 64)
    pixels = torch.from_numpy(picture).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1)
    with torch.inference_mode():
        found = network(pixels)
    tokens = found.last_hidden_state
    expected = {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1), "tokens": tokens, "pooled": found.pooler_output}
    for tap, rows in expected.items():
        encoder = build("transformers", model=str(tmp_path), tap=tap)
        np.testing.assert_allclose(encoder.load("cpu")(picture), rows, rtol=1e-3, atol=1e-5)
    before = encoder.identify_weights().sha256
    (tmp_path / "preprocessor_config.json").write_text('{"size": 64}')
    assert build("transformers", model=str(tmp_path)).identify_weights().sha256 != before


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        ("CLIPConfig", 1),
        ("DeiTConfig", 2),
        ("Dinov2WithRegistersConfig", 3),
        ("SiglipConfig", 0),
        ("SwinConfig", 0),
        ("ConvNextConfig", 0),
    ],
)
def test_the_mean_of_any_transformers_model_is_of_its_patches_alone(tmp_path: Path, config: str, prefix: int) -> None:
    import transformers

    small: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64}
    small |= {"intermediate_size": 64, "patch_size": 16}
    if config == "Dinov2WithRegistersConfig":
        small |= {"num_register_tokens": 2}
    elif config == "SwinConfig":
        small = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "image_size": 64, "window_size": 4}
    elif config == "ConvNextConfig":
        small = {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}
    elif config in ("CLIPConfig", "SiglipConfig"):
        text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        small = {"vision_config": small, "text_config": text | {"vocab_size": 64}}
    getattr(transformers, config)(**small).save_pretrained(tmp_path)
    params = {"model": str(tmp_path), "weights": "random", "size_px": 64}
    picture = crops(build("transformers", **params), 2)
    tokens = build("transformers", **params, tap="tokens").load("cpu")(picture)
    mean = build("transformers", **params, tap="mean").load("cpu")(picture)
    if config not in ("SwinConfig", "ConvNextConfig"):
        assert tokens.shape == (2, prefix + 16, 32)
    np.testing.assert_allclose(mean, tokens[:, prefix:].mean(axis=1), rtol=1e-3, atol=1e-5)


def test_a_transformers_model_that_masks_patches_or_is_not_there_is_refused(tmp_path: Path) -> None:
    from transformers import ViTMAEConfig

    ViTMAEConfig().save_pretrained(tmp_path)
    with pytest.raises(RefusedWeightsError, match="use kind 'mae'"):
        build("transformers", model=str(tmp_path), weights="random").load("cpu")
    with pytest.raises(WeightsMissingError, match="hf download google/vit-base"):
        build("transformers", model="google/vit-base").identify_weights()


def test_onnx_takes_pixels_as_told_and_gives_any_tensor() -> None:
    params = {"weights": str(DATA / "mean_colour.onnx"), "size_px": 16}
    picture = np.zeros((3, 16, 16, 3), np.uint8) + np.array([255, 0, 51], np.uint8)
    inside = build("onnx", **params, output="features", mean=[0.5, 0.5, 0.5], std=[0.5, 0.25, 0.5])
    np.testing.assert_allclose(inside.load("cpu")(picture), [[1, -2, -0.6]] * 3, rtol=1e-5)
    swapped = build("onnx", **params, output="before-classifier", channels="bgr", mean=[0.0], std=[1.0])
    np.testing.assert_allclose(swapped.load("cpu")(picture), [[0.2, 0, 1]] * 3, rtol=1e-5, atol=1e-7)
    assert build("onnx", **params).load("cpu")(picture[:0]).shape == (0, 5)
    with pytest.raises(UsageError, match=r"no tensor 'feature'; its outputs: logits"):
        build("onnx", **params, output="feature").load("cpu")
    with pytest.raises(UsageError, match="std not 0"):
        build("onnx", **params, std=[0.0])


def faces(assets: Path, name: str) -> tuple[np.ndarray, Detections]:
    """A photo as the pipeline shows it to a detector, and RetinaFace's faces in it, best first."""
    picture = read_image(assets / "images" / name)
    small = shrink(picture[None], shrink_factor(*picture.shape[:2], 640))
    return small, DETECTORS.get("retinaface")().load("cpu")(small)[0]


def encoded(encoder, assets: Path, name: str) -> np.ndarray:
    frames, found = faces(assets, name)
    repeated = np.repeat(frames, len(found), axis=0)
    return encoder.load("cpu")(crop(repeated, found.box, found.landmarks, encoder.reads))


@pytest.mark.assets
def test_expressions_of_real_faces_through_onnx(
    assets: Path, asset_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(asset_weights))
    classes = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    params = {"weights": "fer2013_mini_xception.onnx", "size_px": 64, "channels": "grey", "crop": "square"}
    encoder = build("onnx", **params)
    for name, stated in (("obama_portrait", "happy"), ("biden_portrait", "neutral"), ("smiling_man", "happy")):
        row = encoded(encoder, assets, f"{name}.jpg")[0]
        assert classes[int(row.argmax())] == stated, (name, row)
    group = encoded(encoder, assets, "group_five_faces.jpg")
    assert (group.argmax(axis=1) == classes.index("happy")).sum() >= 4
    features = build("onnx", **params, output="embedding")
    assert encoded(features, assets, "obama_portrait.jpg").shape == (1, 128)


@pytest.mark.assets
def test_blendshapes_of_real_faces(assets: Path, asset_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(asset_weights))
    encoder = build("blendshapes")

    def scores(name: str) -> dict[str, float]:
        return dict(zip(blendshapes.NAMES, encoded(encoder, assets, name)[0], strict=True))

    obama, biden, sideways = (scores(f"{n}.jpg") for n in ("obama_portrait", "biden_portrait", "man_looking_sideways"))
    assert min(obama["mouthSmileLeft"], obama["mouthSmileRight"]) > 0.9
    assert max(biden["mouthSmileLeft"], biden["mouthSmileRight"]) < 0.4
    assert sideways["eyeLookOutLeft"] > 0.7
    presence = build("blendshapes", tap="presence")
    assert encoded(presence, assets, "group_five_faces.jpg").min() > 5
    assert presence.load("cpu")(np.zeros((1, 256, 256, 3), np.uint8))[0, 0] < 0


@pytest.mark.assets
def test_blendshapes_are_googles_own_on_googles_landmarks(assets: Path) -> None:
    import re

    text = (assets / "labels" / "mediapipe_blendshapes_in_landmarks.prototxt").read_text()
    points = np.array(re.findall(r"x: (\S+)\s+y: (\S+)", text), np.float32)  # (478, 2) in parts of the picture
    expected = re.findall(r"score: (\S+)", (assets / "labels" / "mediapipe_blendshapes_expected.prototxt").read_text())
    network = landmarks.open_member(assets / "weights" / BUNDLE, "face_blendshapes.tflite")
    network.setInput(np.ascontiguousarray((points * [820, 1024]).astype(np.float32)[None, blendshapes.SEEN]))
    np.testing.assert_allclose(network.forward().ravel(), np.array(expected, np.float32), atol=1e-4)


def test_the_ffhq_square_is_the_formula_of_the_data_set() -> None:
    rng = np.random.default_rng(1)
    template = FfhqCropTemplate(256)
    for _ in range(20):
        eye_l, eye_r, _, mouth_l, mouth_r = points = rng.uniform(50, 200, (5, 2))
        across, down = eye_r - eye_l, (mouth_l + mouth_r) / 2 - (eye_l + eye_r) / 2
        x = across + np.array([down[1], -down[0]])
        x *= max(2 * np.hypot(*across), 1.8 * np.hypot(*down)) / np.hypot(*x)
        y = np.array([-x[1], x[0]])
        c = (eye_l + eye_r) / 2 + 0.1 * down
        matrix = template.matrices(points[None])[0]
        corners = np.array([c - x - y, c - x + y, c + x + y, c + x - y]) @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(corners, [[-0.5, -0.5], [-0.5, 255.5], [255.5, 255.5], [255.5, -0.5]], atol=1e-6)
        centre, half = ffhq_square(*(np.array([p[0] + 1j * p[1]]) for p in (eye_l, eye_r, mouth_l, mouth_r)))
        np.testing.assert_allclose([centre[0].real, centre[0].imag, abs(half[0])], [*c, np.hypot(*x)])


@pytest.mark.assets
def test_the_ffhq_square_through_contours_does_not_follow_the_detectors_errors(
    assets: Path, asset_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eyes and mouth corners as 68 points have them are found again where the detector's five are off."""
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(asset_weights))
    network = landmarks.open_mesh(assets / "weights" / BUNDLE)
    template = landmarks.WideFfhqCropTemplate(512)
    rng = np.random.default_rng(0)
    for name in ("obama_portrait.jpg", "biden_portrait.jpg", "smiling_man.jpg"):
        frames, found = faces(assets, name)
        five = found.landmarks[0].astype(np.float64)
        eye_distance = np.hypot(*(five[1] - five[0]))
        squares, moved = [], []
        for off in (np.zeros((5, 2)), *rng.normal(0, 0.04 * eye_distance, (3, 5, 2))):
            matrix = template.matrices((five + off)[None])[0]
            points = landmarks.ffhq_points(network, warp(frames, (five + off)[None], template)[0], template.square)
            assert points is not None
            in_frame = (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
            assert np.nanmax(np.hypot(*(in_frame - five).T)) < 0.25 * eye_distance, name  # the same eyes and mouth
            for into, z in ((squares, in_frame @ [1, 1j]), (moved, (five + off) @ [1, 1j])):
                centre, half = ffhq_square(*(z[i : i + 1] for i in (0, 1, 3, 4)))
                into.append([centre[0] + half[0], centre[0] - half[0]])
        spread, detectors = (np.abs(np.array(s[1:]) - s[0]).mean() for s in (squares, moved))
        assert spread < 0.6 * detectors, name


def test_ghfeat_through_contours_gives_codes_of_faces_and_nothing_where_none_is_seen(
    lit: Lit,
) -> None:
    """Of a made face landmarker, which sees a face in whatever is not dark."""
    bundle = lit[MADE_BUNDLE]
    plain = build("ghfeat", weights="random", depth=18)
    encoder = build("ghfeat", weights="random", depth=18, landmarks=str(bundle))
    assert encoder.identify_weights().sha256 != plain.identify_weights().sha256
    frames = talking(frames=1)[0]
    found = DETECTORS.get("mtcnn")().load("cpu")(frames)[0]
    wide = crop(frames, found.box, found.landmarks, encoder.reads)
    rows = encoder.load("cpu")(np.concatenate([wide, np.zeros_like(wide)]))
    assert rows.shape == (2, 14, 1024)
    assert np.isnan(rows[1]).all()
    network = landmarks.open_mesh(bundle)
    (face,), _ = landmarks.ffhq_crops(network, wide, encoder.reads, 256)
    np.testing.assert_allclose(rows[0], plain.load("cpu")(face[None])[0], rtol=1e-3, atol=1e-3)


def test_the_ffhq_crop_of_a_large_face_is_averaged_not_sampled() -> None:
    checks = np.indices((1600, 1600)).sum(axis=0) % 2 * 255  # one-pixel checks: sampling would keep black and white
    frame = np.repeat(checks[..., None], 3, axis=-1).astype(np.uint8)
    face = warp(frame[None], (ARCFACE_112 * 6 + 400)[None], FfhqCropTemplate(64))[0]
    assert face.shape == (64, 64, 3)
    assert np.abs(face.astype(float) - 127.5).max() < 30


def test_box_crops_stretch_the_box_or_keep_its_shape() -> None:
    frame = np.zeros((1, 100, 200, 3), np.uint8)
    frame[0, 20:60, 30:50] = 255
    landmarks = np.full((1, 5, 2), np.nan)
    box = np.array([[30, 20, 50, 60]])
    assert (crop(frame, box, landmarks, BoxCropTemplate(32)) == 255).all()
    square = crop(frame, box, landmarks, BoxCropTemplate(40, square=True))[0]
    np.testing.assert_array_equal(square[:, :, 0].max(axis=0) == 255, [False] * 10 + [True] * 20 + [False] * 10)
    wide = crop(frame, box, landmarks, BoxCropTemplate(80, margin=0.5))[0, :, :, 0]  # half of it is the face
    assert abs((wide > 127).mean() - 0.25) < 0.02
    edge = crop(np.full_like(frame, 255), np.array([[-20, 0, 20, 40]]), landmarks, BoxCropTemplate(40, square=True))
    np.testing.assert_array_equal(edge[0, :, :20], 0)
    np.testing.assert_array_equal(edge[0, :, 20:], 255)
    assert not crop(np.full_like(frame, 255), np.array([[300, 10, 340, 50]]), landmarks, BoxCropTemplate(16)).any()
    with pytest.raises(UsageError, match="cut from boxes"):
        warp(frame, ARCFACE_112[None], BoxCropTemplate(16))


def test_equal_templates_are_equal_and_different_ones_are_not() -> None:
    templates = [CropTemplate(256), ArcFaceCropTemplate(256), FfhqCropTemplate(256), BoxCropTemplate(256)]
    assert len(set(templates)) == 4
    assert ArcFaceCropTemplate(256) == ArcFaceCropTemplate(256)
    np.testing.assert_allclose(ArcFaceCropTemplate(256).points(), ARCFACE_112 * 256 / 112)


def test_every_visual_encoder_plans_without_torch() -> None:
    import subprocess
    import sys

    names = [name for name in ENCODERS.names() if ENCODERS.origin(name) == "aupipe"]
    code = f"import sys; from aupipe.extract.encoders import ENCODERS; [ENCODERS.get(n) for n in {names}]"
    code += "; print(sorted({'torch', 'cv2', 'timm', 'transformers', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
