"""The networks of our own: keys, shapes and counts of the published checkpoints, and what their parts compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aupipe.extract.nets.dan import DAN
from aupipe.extract.nets.ghfeat import GHFeatEncoder, depth_of, from_tf_variables
from aupipe.extract.nets.iresnet import IResNet, iresnet50, iresnet100
from aupipe.extract.nets.retinaface import RetinaFace
from aupipe.extract.nets.rrdbnet import RRDBNet, SRVGGNetCompact

# What the published files hold: parameters, state-dict entries (repositories in aupipe/extract/nets; None: not known).
COUNTS: dict[str, tuple[Callable[[], nn.Module], int | None, int | None]] = {
    "iresnet50": (iresnet50, 43_590_848, 475),
    "iresnet100": (iresnet100, 65_156_160, 925),
    "dan7": (lambda: DAN(num_class=7), 19_723_733, 275),
    "rrdbnet": (RRDBNet, 16_697_987, 702),
    "compact": (SRVGGNetCompact, None, 2 * 34 + 33),
    "retinaface_mobile": (lambda: RetinaFace("mobile0.25"), None, 300),
}

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):  # counts and shapes need no memory
        return build()


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_published_ones(name: str) -> None:
    build, parameters, entries = COUNTS[name]
    network = on_meta(build)
    if parameters is not None:
        assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == entries


def norm(prefix: str) -> list[str]:
    return [f"{prefix}.{leaf}" for leaf in NORM]


@pytest.mark.parametrize(("build", "blocks"), [(iresnet50, (3, 4, 14, 3)), (iresnet100, (3, 13, 30, 3))])
def test_iresnet_keys_are_those_of_backbone_pth(build: Callable[[], nn.Module], blocks: tuple[int, ...]) -> None:
    expected = ["conv1.weight", *norm("bn1"), "prelu.weight"]
    for stage, count in enumerate(blocks, 1):
        for i in range(count):
            at = f"layer{stage}.{i}"
            expected += [*norm(f"{at}.bn1"), f"{at}.conv1.weight", *norm(f"{at}.bn2"), f"{at}.prelu.weight"]
            expected += [f"{at}.conv2.weight", *norm(f"{at}.bn3")]
            if i == 0:
                expected += [f"{at}.downsample.0.weight", *norm(f"{at}.downsample.1")]
    expected += [*norm("bn2"), "fc.weight", "fc.bias", *norm("features")]
    state = on_meta(build).state_dict()
    assert list(state) == expected
    assert state["fc.weight"].shape == (512, 25088)


def test_dan_keys_are_those_of_the_published_checkpoints() -> None:
    expected = {"features.0.weight", *norm("features.1")}
    for stage in (4, 5, 6, 7):
        for unit in (0, 1):
            for i in (1, 2):
                expected |= {f"features.{stage}.{unit}.conv{i}.weight", *norm(f"features.{stage}.{unit}.bn{i}")}
        if stage > 4:
            expected |= {f"features.{stage}.0.downsample.0.weight", *norm(f"features.{stage}.0.downsample.1")}
    for head in range(4):
        for conv in ("conv1x1", "conv_3x3", "conv_1x3", "conv_3x1"):
            at = f"cat_head{head}.sa.{conv}"
            expected |= {f"{at}.0.weight", f"{at}.0.bias", *norm(f"{at}.1")}
        at = f"cat_head{head}.ca.attention"
        expected |= {f"{at}.0.weight", f"{at}.0.bias", *norm(f"{at}.1"), f"{at}.3.weight", f"{at}.3.bias"}
    expected |= {"fc.weight", "fc.bias", *norm("bn")}
    assert set(on_meta(lambda: DAN(8)).state_dict()) == expected


def test_rrdbnet_keys_are_those_of_the_published_checkpoints() -> None:
    convs = ["conv_first"]
    convs += [f"body.{b}.rdb{d}.conv{c}" for b in range(23) for d in (1, 2, 3) for c in range(1, 6)]
    convs += ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    assert list(on_meta(RRDBNet).state_dict()) == [f"{conv}.{leaf}" for conv in convs for leaf in ("weight", "bias")]
    assert on_meta(lambda: RRDBNet(scale=2)).state_dict()["conv_first.weight"].shape == (64, 12, 3, 3)
    assert len(on_meta(lambda: RRDBNet(num_block=6)).state_dict()) == 2 * (6 * 15 + 6)


def test_compact_keys_are_those_of_realesr_general() -> None:
    state = on_meta(SRVGGNetCompact).state_dict()
    expected = {f"body.{i}.{leaf}" for i in range(0, 67, 2) for leaf in ("weight", "bias")}
    assert set(state) == expected | {f"body.{i}.weight" for i in range(1, 66, 2)}
    assert state["body.66.weight"].shape == (48, 64, 3, 3)


@pytest.mark.parametrize(("backbone", "width"), [("mobile0.25", 64), ("resnet50", 256)])
def test_retinaface_keys_are_those_of_the_published_checkpoints(backbone: Any, width: int) -> None:
    from torchvision.models import resnet50

    def conv(at: str) -> list[str]:
        return [f"{at}.0.weight", *norm(f"{at}.1")]

    if backbone == "resnet50":
        classifier = ("fc.weight", "fc.bias")
        body = [f"body.{key}" for key in on_meta(lambda: resnet50(weights=None)).state_dict() if key not in classifier]
    else:
        body = conv("body.stage1.0")
        for stage, units in (("stage1", range(1, 6)), ("stage2", range(6)), ("stage3", range(2))):
            for at in (f"body.{stage}.{unit}" for unit in units):  # depthwise, then pointwise
                body += [*conv(at), f"{at}.3.weight", *norm(f"{at}.4")]
    expected = [*body, *(key for i in (1, 2, 3) for key in conv(f"fpn.output{i}")), *conv("fpn.merge1")]
    expected += conv("fpn.merge2")
    for i in (1, 2, 3):
        for name in ("conv3X3", "conv5X5_1", "conv5X5_2", "conv7X7_2", "conv7x7_3"):
            expected += conv(f"ssh{i}.{name}")
    for head in ("ClassHead", "BboxHead", "LandmarkHead"):
        expected += [f"{head}.{i}.conv1x1.{leaf}" for i in range(3) for leaf in ("weight", "bias")]
    state = on_meta(lambda: RetinaFace(backbone)).state_dict()
    assert set(state) == set(expected)
    assert state["BboxHead.2.conv1x1.weight"].shape == (8, width, 1, 1)
    assert state["LandmarkHead.0.conv1x1.weight"].shape == (20, width, 1, 1)


def tf_variables(depth: int) -> dict[str, np.ndarray]:
    """Random variables under the published TensorFlow names and layouts, made from the network's own shapes."""
    rng = np.random.default_rng(0)
    leaf = {"running_mean": "moving_mean", "running_var": "moving_variance", "weight": "gamma", "bias": "beta"}
    found = {}
    for key, value in on_meta(lambda: GHFeatEncoder(depth)).state_dict().items():
        scope, _, last = key.rpartition(".")
        if last == "num_batches_tracked":
            continue
        if scope.endswith("batch_norm"):
            last = leaf[last]
        shape = {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim, (0,))
        dims = [value.shape[i] for i in shape]
        # One row, repeated where the whole would be many millions of numbers.
        row = rng.random(dims if value.numel() < 1_000_000 else dims[-1:], dtype=np.float32) * 0.02
        array = np.broadcast_to(row, dims)
        found[f"{scope}.{last}".replace(".", "/")] = array + (1 if last in ("moving_variance", "gamma") else 0)
    return found


def test_ghfeat_has_the_published_variables() -> None:
    state = on_meta(GHFeatEncoder).state_dict()
    variables = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(variables) == 372
    assert sum(value.numel() for value in variables.values()) == 151_850_304  # "151.9 M"
    conv, norms = ("weight", "bias"), ("moving_mean", "moving_variance", "gamma", "beta")

    def scope(name: str, leaves: tuple[str, ...] = conv, *, normed: bool = True) -> set[str]:
        own = {f"{name}/{leaf}" for leaf in leaves}
        return own | {f"{name}/batch_norm/{leaf}" for leaf in norms} if normed else own

    units = [f"stage{s}_unit{u}" for s, n in enumerate((3, 4, 6, 3), 1) for u in range(1, n + 1)]
    expected = scope("Conv0", ("weight",))
    for unit in (*units, "stage5"):
        expected |= set().union(*(scope(f"{unit}/{name}") for name in ("Conva", "Convb", "Convc")))
        if unit == "stage5" or unit.endswith("unit1"):
            expected |= scope(f"{unit}/Shortcut", ("weight",))
    for name in ("lconv_3", "lconv_4", "lconv_5", "fconv_0", "fconv_1", "fconv_2"):
        expected |= scope(f"fpn/{name}", normed=False)
    for i in range(3):
        expected |= scope(f"fuse_conv_{i}", normed=False)
    for head in ("HighLevel", "MidLevel", "LowLevel"):
        expected |= scope(head)
    assert set(tf_variables(50)) == expected


def test_ghfeat_takes_tensorflow_variables_and_gives_fourteen_codes() -> None:
    variables = tf_variables(18)
    state = from_tf_variables(variables)
    assert depth_of(state) == 18
    network = on_meta(lambda: GHFeatEncoder(18)).eval()
    network.load_state_dict(state, strict=True, assign=True)
    kernel = variables["stage2_unit1/Conva/weight"]  # (height, width, in, out)
    np.testing.assert_array_equal(network.state_dict()["stage2_unit1.Conva.weight"][5, 7], kernel[:, :, 7, 5])
    np.testing.assert_array_equal(state["MidLevel.weight"], variables["MidLevel/weight"].T)
    with torch.inference_mode():
        codes = network(torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)))
    assert codes.shape == (1, 14, 1024)
    for row, width in ((8, 512), (10, 256), (12, 128)):
        np.testing.assert_array_equal(codes[0, row, :width], codes[0, row, width : 2 * width])
        assert codes[0, row, :width].unique().numel() > width // 2


@pytest.mark.parametrize(("size", "kernel", "stride"), [(9, 3, 2), (8, 3, 2), (256, 7, 2), (5, 1, 2), (6, 3, 1)])
def test_ghfeat_pads_as_tensorflow_does(size: int, kernel: int, stride: int) -> None:
    from aupipe.extract.nets.ghfeat import Conv

    conv = Conv(1, 1, kernel, stride, bias=False, norm=False)
    nn.init.ones_(conv.weight)
    with torch.inference_mode():
        found = conv(torch.arange(size, dtype=torch.float32).reshape(1, 1, 1, size).expand(1, 1, size, size))
    outputs = -(-size // stride)  # "SAME" gives as many as strides fit, whatever the kernel
    before = max((outputs - 1) * stride + kernel - size, 0) // 2  # the odd zero comes after
    middle = outputs // 2
    seen = [range(o * stride - before, o * stride - before + kernel) for o in range(outputs)]
    expected = [sum(x for x in columns if 0 <= x < size) for columns in seen]
    assert found.shape == (1, 1, outputs, outputs)
    rows = sum(0 <= y < size for y in seen[middle])
    np.testing.assert_allclose(found[0, 0, middle], np.array(expected, np.float32) * rows)


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (lambda: IResNet((1, 1, 1, 1)), 112),
        (lambda: DAN(7), 224),
        (lambda: RRDBNet(num_block=1), 16),
        (lambda: SRVGGNetCompact(num_conv=2), 16),
        (lambda: RetinaFace("mobile0.25"), 96),
        (lambda: GHFeatEncoder(18), 256),
    ],
)
def test_outputs_do_not_depend_on_the_batch_and_repeat_exactly(network: Callable[[], nn.Module], size: int) -> None:
    torch.manual_seed(0)
    net = network().eval()
    batch = torch.rand(3, 3, size, size)

    def run(x: torch.Tensor) -> list[torch.Tensor]:
        with torch.inference_mode():
            found = net(x)
        return list(found) if isinstance(found, tuple) else [found]

    for together, again, alone in zip(run(batch), run(batch), run(batch[1:2]), strict=True):
        np.testing.assert_array_equal(together, again)
        scale = float(together.abs().max())
        np.testing.assert_allclose(together[1], alone[0], rtol=1e-4, atol=1e-5 * scale)


def test_iresnet_gives_a_map_and_an_embedding_of_raw_length() -> None:
    torch.manual_seed(0)
    net = IResNet((1, 1, 1, 1)).eval()
    x = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.inference_mode():
        feature_map, rows = net.feature_map(x), net(x)
        np.testing.assert_allclose(rows, net.features(net.fc(feature_map.flatten(1))), rtol=1e-4, atol=1e-5)
    assert feature_map.shape == (2, 512, 7, 7)
    assert (rows.norm(dim=1) - 1).abs().min() > 1e-2


def test_dan_returns_logits_of_the_sum_of_log_softmaxed_heads() -> None:
    torch.manual_seed(0)
    net = DAN(num_class=7).eval()
    with torch.inference_mode():
        logits, feature_map, heads = net(torch.rand(2, 3, 224, 224))
        np.testing.assert_allclose(heads.exp().sum(dim=1), 1, rtol=1e-4)
        np.testing.assert_allclose(logits, net.bn(net.fc(heads.sum(dim=1))), rtol=1e-5, atol=1e-5)
    assert feature_map.shape == (2, 512, 7, 7)
    assert float(heads.sum(dim=1).max()) <= -4 * np.log(4) + 1e-4


def test_rrdbnet_of_silenced_layers_hands_the_skips_through() -> None:
    net = RRDBNet(num_block=2).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for i in range(3):  # conv_first, and all after the body, hand three channels through
            for conv in (net.conv_first, net.conv_up1, net.conv_up2, net.conv_hr, net.conv_last):
                conv.weight[i, i, 1, 1] = 1
    x = torch.rand(1, 3, 5, 6)
    np.testing.assert_allclose(net(x).detach(), F.interpolate(x, scale_factor=4, mode="nearest"), rtol=1e-5)
    assert RRDBNet(scale=2, num_block=1)(torch.rand(1, 3, 4, 6)).shape == (1, 3, 8, 12)


def test_a_network_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="accepted are 18, 34, 50"):
        GHFeatEncoder(101)
    with pytest.raises(ValueError, match="accepted are"):
        RRDBNet(scale=3)
    with pytest.raises(ValueError, match=r"'resnet50', 'mobile0\.25'"):
        RetinaFace("resnet18")  # type: ignore[arg-type]
