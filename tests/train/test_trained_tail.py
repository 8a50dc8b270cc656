"""The last blocks of an encoder, trained on cached crops and on cached feature maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from aupipe.config import EncoderConfig
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.encoders import build_encoder
from aupipe.store import create_store
from aupipe.train.data import fit_scaling, load_examples
from aupipe.train.evaluate import evaluate
from aupipe.train.heads import build_head, head_config
from aupipe.train.heads.tail import Tail, TailConfig
from aupipe.train.loader import InMemory, Streaming
from aupipe.train.predict import predict
from aupipe.train.recipe import load_recipe
from aupipe.train.run import load_weights
from aupipe.train.schedule import Optimiser, build_optimiser
from aupipe.train.windows import tile
from aupipe.types import FeatureSpec

from .toy_corpus import make_corpus, train_corpus

SIDE = 32
CROPS = FeatureSpec("crops", "visual", "crops", 2, dtype="uint8")
REGNET = {"network": "torchvision/regnet_y_400mf", "first": "trunk_output.block2"}
LAST = {"network": "torchvision/regnet_y_400mf", "first": "trunk_output.block4"}  # quick to train


def encoder(kind, **params):
    return build_encoder(EncoderConfig(name="e", modality="visual", kind=kind, params=params)).load("cpu")


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)


@pytest.mark.parametrize(("tap", "pool"), [("pooled", True), ("map", False)])
def test_an_untrained_tail_on_the_cached_tap_equals_the_full_network(crops, tap, pool):
    whole = encoder("regnet", weights="random", tap=tap)(crops)
    cached = encoder("regnet", weights="random", tap="block1")(crops)
    tail = Tail(TailConfig(**REGNET, shape=(48, 28, 28), pool=pool), 48 * 28 * 28, True).eval()
    with torch.no_grad():
        found = tail(torch.from_numpy(cached.reshape(5, -1)), torch.zeros(5, dtype=torch.long))
    np.testing.assert_allclose(found, whole.reshape(5, -1), rtol=1e-3, atol=1e-4)


def test_an_untrained_tail_on_cached_crops_equals_the_full_network(crops):
    whole = encoder("regnet", weights="random")(crops)
    cached = encoder("crops")(crops)  # as it is stored
    assert cached.dtype == np.uint8
    assert np.array_equal(cached, crops)
    tail = Tail(TailConfig(**REGNET), 112 * 112 * 3, True).eval()
    with torch.no_grad():
        found = tail(torch.from_numpy(cached.reshape(5, -1)), torch.zeros(5, dtype=torch.long))
        before = tail(torch.from_numpy(cached.reshape(5, -1).astype(np.float16)), torch.zeros(5, dtype=torch.long))
    assert found.dtype == torch.float32
    assert torch.equal(before, found)  # crops that an earlier version stored
    np.testing.assert_allclose(found, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["aud-tgn-tail", "regnet-vivit-tail", "regnet-three-branches-tail"])
def test_the_tail_of_a_paper_s_recipe_begins_as_the_encoder_of_its_frozen_recipe(crops, name):
    recipe = load_recipe(name)
    (frozen,) = (one for one in load_recipe(name.removesuffix("-tail")).encoders if one.modality == "visual")
    whole = encoder(frozen.kind, **{**frozen.params, "weights": "random"})(crops[:2]).reshape(2, -1)
    config = head_config(
        "trained_tail", recipe.head.params | {"tail": recipe.head.params["tail"] | {"weights": "random"}}
    )
    tail = Tail(config.tail, 112 * 112 * 3, True).eval()
    with torch.no_grad():
        found = tail(torch.from_numpy(crops[:2].reshape(2, -1)), torch.zeros(2, dtype=torch.long))
    np.testing.assert_allclose(found, whole, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_tails_of_swin_and_of_an_mae_begin_as_their_encoders():
    for name, kind, side, more in (
        ("usc-multimodal-tail", "swin", 256, {"tap": "tokens"}),
        ("mae-tuning", "mae", 224, {"tap": "fc_norm"}),
    ):
        crops = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
        whole = encoder(kind, weights="random", **more)(crops).reshape(2, -1)
        params = load_recipe(name).head.params
        config = head_config("trained_tail", params | {"tail": params["tail"] | {"weights": "random", "resize_px": 0}})
        tail = Tail(config.tail, side * side * 3, True)
        assert all(value.requires_grad for value in tail.network.parameters()), name  # class token and positions too
        with torch.no_grad():
            found = tail.eval()(torch.from_numpy(crops.reshape(2, -1)), torch.zeros(2, dtype=torch.long))
        np.testing.assert_allclose(found, whole, rtol=1e-2, atol=1e-3)


def test_a_tail_starts_from_the_weights_of_a_file_like_an_encoder(tmp_path, monkeypatch):
    from torchvision.models import regnet_y_400mf

    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    config = TailConfig(**REGNET, weights="regnet_y_400mf-c65dace8.pth")
    with pytest.raises(WeightsMissingError, match=r"no regnet_y_400mf-c65dace8.safetensors in .*weights import"):
        Tail(config, SIDE * SIDE * 3, True)
    torch.manual_seed(4)
    theirs = regnet_y_400mf(weights=None)
    save_file(theirs.state_dict(), tmp_path / "regnet_y_400mf-c65dace8.safetensors")
    ours = dict(Tail(config, SIDE * SIDE * 3, True).network.named_parameters())
    for name, value in theirs.named_parameters():
        assert name.startswith("fc.") or torch.equal(ours[name], value)
    Tail(config, SIDE * SIDE * 3, read_weights=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update({"stem.9.weight": torch.zeros(1)}), "has stem.9.weight, which the network has not"),
        (lambda state: state.update({"stem.0.weight": torch.zeros(8, 3, 3, 3)}), r"stem.0.weight is \[8, 3, 3, 3\]"),
        (lambda state: state.pop("stem.0.weight"), "has no stem.0.weight"),
        (lambda state: state.update({"fc.weight": torch.zeros(12, 440), "fc.bias": torch.zeros(12)}), None),
    ],
)
def test_the_weights_of_another_network_are_refused_and_another_classifier_is_not(tmp_path, change, message):
    from torchvision.models import regnet_y_400mf

    state = regnet_y_400mf(weights=None).state_dict()
    change(state)
    save_file(state, tmp_path / "own.safetensors")
    config = TailConfig(**REGNET, weights=str(tmp_path / "own.safetensors"))
    if message is None:
        Tail(config, SIDE * SIDE * 3, True)
        return
    with pytest.raises(UsageError, match=message + ".*: these are weights of another network"):
        Tail(config, SIDE * SIDE * 3, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "torchvision/regnet_y_400"}, "torchvision has no model 'regnet_y_400'. Did you mean"),
        ({"network": "timm/regnety_00"}, "timm has no model 'regnety_00'"),
        ({"network": "regnet"}, "expected torchvision/NAME, timm/NAME, or module:function"),
        ({"network": "no.such:net"}, "network = 'no.such:net': No module named 'no'"),
        ({"network": "builtins:dict"}, "gives dict, not an nn.Module"),
        ({"first": "trunk_output.block5"}, "no block 'block5'. Did you mean 'block.'.* There are: block1"),
        ({"shape": (3, 3)}, "is no map of"),
        ({"crop_px": SIDE + 1}, "crop_px = 33: the crops of the feature have 32 px"),
        ({"shape": (8, 8, 48)}, r"regnet_y_400mf does not take a map of \[8, 8, 48\] at trunk_output.block2"),
        ({"network": "timm/vit_tiny_patch16_224", "first": "blocks.8"}, "does not take crops .3072 columns.: Input"),
    ],
)
def test_a_tail_that_cannot_be_is_refused_by_name(changes, message):
    with pytest.raises(UsageError, match=message):
        Tail(TailConfig(**REGNET | changes), SIDE * SIDE * 3, True)


def test_class_token_and_positions_of_a_vit_are_frozen_on_crops_and_refused_on_maps():
    vit = {"network": "timm/vit_tiny_patch16_224", "first": "blocks.11"}
    learnt = {n for n, v in Tail(TailConfig(**vit), 224 * 224 * 3, True).network.named_parameters() if v.requires_grad}
    assert {name.partition(".1")[0] for name in learnt} <= {"blocks", "fc_norm.weight", "fc_norm.bias"}
    assert any(name.startswith("blocks.11.") for name in learnt)
    for rows in (196, 197):
        with pytest.raises(UsageError, match=r"adds cls_token, pos_embed before blocks.11, so no map is cut there"):
            Tail(TailConfig(**vit, shape=(rows, 192)), rows * 192, True)
    vit = {"network": "torchvision/vit_b_32", "first": "encoder.layers.encoder_layer_11"}
    with pytest.raises(UsageError, match=r"adds class_token, encoder.pos_embedding before"):
        Tail(TailConfig(**vit, shape=(49, 768)), 49 * 768, True)


def test_settings_of_crops_that_change_nothing_on_a_map_are_said_when_training_begins(caplog):
    config = TailConfig(**LAST, shape=(208, 7, 7), flip=True, colour=0.1)
    Tail(config, 208 * 7 * 7, True)
    assert "so these change nothing: flip, colour" in caplog.text
    caplog.clear()
    Tail(config, 208 * 7 * 7, read_weights=False)
    assert not caplog.text


def test_a_timm_network_is_cut_at_a_named_block_too(crops):
    x = torch.from_numpy(crops.reshape(5, -1).astype(np.float32))
    zeros = torch.zeros(5, dtype=torch.long)
    whole = Tail(TailConfig(network="timm/regnety_002", first="s3"), 112 * 112 * 3, True).eval()
    pixels = (x.unflatten(1, (112, 112, 3)).permute(0, 3, 1, 2) / 255 - whole.mean) / whole.std
    with torch.no_grad():
        tap = whole.network.s2(whole.network.s1(whole.network.stem(pixels)))
        shape = tuple(tap.shape[1:])
        cut = Tail(TailConfig(network="timm/regnety_002", first="s3", shape=shape), tap[0].numel(), True).eval()
        torch.testing.assert_close(cut(tap.flatten(1), zeros), whole(x, zeros))


def make(dims=(SIDE * SIDE * 3, 3), names=("crops", "sound"), **tail):
    torch.manual_seed(0)
    then = {"kind": "tcn", "channels": [8], "width": 8, "dropout": 0.0}
    params = {"feature": "crops", "tail": LAST | tail, "then": then}
    return build_head("trained_tail", params, sum(dims) + len(dims), 2, dims, names=names)


def batch(windows=2, frames=6):
    crops = torch.randint(0, 256, (windows, frames, SIDE * SIDE * 3), dtype=torch.uint8)
    sound = torch.randn(windows, frames, 3)
    x = torch.cat([sound, torch.ones(windows, frames, 2)], dim=-1)  # the crops are no columns of it
    return x, torch.ones(windows, frames, dtype=torch.bool), (crops,)


def test_only_the_blocks_from_the_first_on_are_trained_at_their_own_rate():
    head = make(rate=0.1)
    learnt = {name for name, value in head.named_parameters() if value.requires_grad and name.startswith("tail.")}
    assert learnt
    assert all(name.startswith("tail.network.trunk_output.block4.") for name in learnt)
    groups = build_optimiser(head, Optimiser()).param_groups
    scales = {id(value): group["scale"] for group in groups for value in group["params"]}
    for name, value in head.named_parameters():
        if value.requires_grad:
            assert scales.pop(id(value)) == (0.1 if name.startswith("tail.") else 1.0), name
    assert not scales
    before = {name: value.clone() for name, value in head.named_buffers() if "block1" in name}
    head.train()(*batch())
    assert all(torch.equal(value, dict(head.named_buffers())[name]) for name, value in before.items())


def test_padding_and_absent_frames_change_no_output():
    head = make().eval()
    x, mask, (crops,) = batch()
    alone = head(x, mask, (crops,))
    longer = torch.cat([x, 100 * torch.randn(2, 3, x.shape[2])], dim=1)
    padding = torch.randint(0, 256, (2, 3, crops.shape[2]), dtype=torch.uint8)
    padded = head(longer, torch.arange(9).expand(2, -1) < 6, (torch.cat([crops, padding], dim=1),))
    torch.testing.assert_close(padded[:, :6], alone, rtol=1e-4, atol=1e-5)
    x[:, 2, -2] = 0  # no face
    changed = crops.clone()
    changed[:, 2] = 7
    torch.testing.assert_close(head(x, mask, (changed,)), head(x, mask, (crops,)))


def test_checkpointing_and_passes_of_any_size_change_no_gradient():
    found = []
    for changes in ({}, {"checkpointing": True}):
        head = make(**changes).train()
        head(*batch_of_seed()).square().sum().backward()
        found.append({name: value.grad for name, value in head.named_parameters() if value.grad is not None})
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-4, atol=1e-6)
    found = [make(**changes).eval()(*batch_of_seed()) for changes in ({}, {"at_once": 4})]
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_the_tail_of_a_static_stream_does_not_run_on_context():
    """+-2 s around windows of 32 frames would be four times the work."""
    then = {"kind": "gru", "streams": [{"feature": "crops", "kind": "static"}, {"feature": "sound", "context": 2}]}
    dims = (SIDE * SIDE * 3, 3)
    for stream, frames in (({"kind": "static"}, 4), ({"context": 1}, 6)):
        then["streams"][0] = {"feature": "crops", **stream}
        params = {"feature": "crops", "tail": LAST, "then": then}
        head = build_head("trained_tail", params, sum(dims) + 2, 2, dims, names=("crops", "sound")).eval()
        seen = []
        head.tail.network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(len(inputs[0])))
        x, mask, crops = batch(windows=1)
        head(x, mask, crops, scored=(torch.arange(6) > 0)[None] & (torch.arange(6) < 5)[None])
        assert seen == [frames]


def batch_of_seed():
    torch.manual_seed(3)
    return batch()


def test_augmentation_is_one_for_a_window_and_none_in_prediction():
    torch.manual_seed(0)
    config = TailConfig(**LAST, flip=True, crop_px=24, colour=0.3)
    tail = Tail(config, SIDE * SIDE * 3, True)
    seen = []
    tail.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    crop = torch.randint(0, 256, (1, SIDE * SIDE * 3)).float()
    windows = torch.arange(16).repeat_interleave(2)
    tail.train()(crop.expand(32, -1), windows)
    (drawn,) = seen
    assert drawn.shape == (32, 3, 24, 24)
    assert torch.equal(drawn[0::2], drawn[1::2])
    assert len({tuple(row.flatten()[:50].tolist()) for row in drawn}) > 8
    tail.eval()(crop, windows[:1])
    middle = (crop.unflatten(1, (SIDE, SIDE, 3)).permute(0, 3, 1, 2) / 255)[..., 4:28, 4:28]
    torch.testing.assert_close(seen[-1], (middle - tail.mean) / tail.std)
    plain = Tail(TailConfig(**LAST, flip=True), SIDE * SIDE * 3, True).train()
    plain.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    plain(crop.expand(16, -1), torch.arange(16))
    both = [seen[-1][0], seen[-1][0].flip(2)]
    assert all(any(torch.allclose(one, other, atol=1e-6) for other in both) for one in seen[-1])
    assert not torch.allclose(*both)


@pytest.fixture(scope="module")
def corpus():
    """Crops whose brightness in squares follows the labels, and no face in frames [20, 26)."""
    toy = make_corpus(train=3, validation=1, frames=40)
    store, rng = create_store("crops", "memory"), np.random.default_rng(0)
    for recording in (*toy.train, *toy.validation):
        targets = toy.labels[recording.id].targets
        crops = rng.integers(60, 120, (len(targets), SIDE, SIDE, 3)).astype(np.float32)
        for k in range(12):
            crops[:, 8 * (k // 4) : 8 * (k // 4) + 8, 8 * (k % 4) : 8 * (k % 4) + 8] += (
                120 * targets[:, k, None, None, None]
            )
        crops = np.floor(crops)
        crops[20:26] = np.nan
        store.publish(recording.id, CROPS, crops)
    return replace(toy, store=store, features={"crops": CROPS.id})


@pytest.mark.parametrize("kind", [InMemory, Streaming])
def test_crops_are_whole_numbers_of_one_byte_from_the_store_to_the_head(corpus, kind):
    examples = load_examples(corpus.store, corpus.train, corpus.features, corpus.labels)
    scaling = replace(fit_scaling(examples, 0.5, frozenset({0})), center=0.5)
    windows = [window for one in examples for window in tile(one.recording, len(one), 16, 16)]
    for batch, window in zip(kind(examples, scaling, "cpu").batches([[one] for one in windows]), windows, strict=True):
        (crops,) = batch.raw
        stored = corpus.store.read(window.recording, CROPS.id, window.start, window.stop)
        assert crops.dtype == torch.uint8
        assert np.array_equal(crops[0], stored.reshape(len(stored), -1))
        assert batch.x.shape[-1] == 1  # the presence of the crops, and no column of theirs
        there = (np.arange(window.start, window.stop) < 20) | (np.arange(window.start, window.stop) >= 26)
        assert np.array_equal(batch.x[0, :, 0], there)


def test_a_run_with_a_trained_tail_is_kept_and_predicted_from_the_same_cache(corpus, tmp_path, monkeypatch):
    tail = "{network='torchvision/regnet_y_400mf', first='trunk_output.block3', rate=0.1, flip=true}"
    head = f"head={{kind='trained_tail', feature='crops', tail={tail}, then={{kind='linear'}}}}"
    recipe = load_recipe("tcn", [head, "epochs=2", "window=20", "hop=20", "batch=2"])
    run = train_corpus(corpus, tmp_path / "run", recipe)
    annotated = {item.id: corpus.labels[item.id] for item in corpus.validation}
    assert evaluate(predict(run, corpus.store, corpus.validation), annotated, "au").values == run.scores.values
    weights, scaling = load_weights(run)
    assert scaling.unscaled == {0}
    assert set(scaling.mean) == {0}
    start = Tail(TailConfig(network="torchvision/regnet_y_400mf", first="trunk_output.block3"), SIDE * SIDE * 3, True)
    frozen = ("stem", "trunk_output.block1", "trunk_output.block2")
    for name, value in start.network.named_parameters():
        same = np.array_equal(weights[f"tail.network.{name}"], value.detach())
        assert same == name.startswith(frozen)
