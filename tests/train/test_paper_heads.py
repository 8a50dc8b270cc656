"""Heads and options as the papers have them: streams by name, GPT-2, branches with own losses, absent frames."""

import shutil

import numpy as np
import pytest
import torch

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.store import create_store
from aupipe.train.data import Scaling, fit_scaling, load_examples
from aupipe.train.fit import epoch_windows
from aupipe.train.heads import build_head
from aupipe.train.predict import predict
from aupipe.train.recipe import load_recipe, recipe_names
from aupipe.train.run import load_weights
from aupipe.train.schedule import Optimiser, build_optimiser
from aupipe.types import FeatureSpec, Recording, Window
from tests.train.reference_batch import collate

from .toy_corpus import make_corpus, train_corpus

# The optimiser of regnet-vivit-adamw is ours.
PAPERS = sorted(set(recipe_names()) - {"baseline", "best", "tcn", "field", "regnet-vivit-adamw"})
SMALL_GPT2 = ("features=[]", "head.channels=[[8,8]]", "head.width=8", "head.layers=2", "head.heads=4", "epochs=1")


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(train=4, validation=2, frames=90)


def outputs(kind, params, dims, names, task_kind="multi_label", targets=2):
    """The outputs of a new head for the same columns of each name, in any order of the features."""
    torch.manual_seed(0)
    head = build_head(
        kind, params, sum(dims.values()) + len(dims), targets, tuple(dims[n] for n in names), task_kind, names
    )
    with torch.no_grad():
        for value in head.parameters():
            value.fill_(0.01)
    rows = {name: torch.randn(1, 9, dim, generator=torch.Generator().manual_seed(dim)) for name, dim in dims.items()}
    x = torch.cat([*(rows[name] for name in names), torch.ones(1, 9, len(names))], dim=-1)
    return head.eval()(x, torch.ones(1, 9, dtype=torch.bool))


STREAMS = [{"feature": "b", "kind": "static", "width": 5}, {"feature": "a", "width": 4}, {"feature": "b", "width": 3}]


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("gru", {"streams": STREAMS, "hidden": 8}),
        ("gru", {"static": ["b"], "static_width": 7, "width": 4, "hidden": 8}),
        ("tcn_transformer", {"channels": {"a": [8, 4], "b": [6]}, "width": 8, "layers": 1, "hidden": 8}),
        ("gpt2", {"channels": {"a": [8, 4], "b": [6]}, "width": 8, "layers": 1, "heads": 2, "embedding": 8}),
    ],
)
def test_streams_and_channels_follow_the_name_of_a_feature_and_not_its_position(kind, params):
    dims = {"a": 4, "b": 6}
    torch.testing.assert_close(*(outputs(kind, params, dims, names) for names in (("a", "b"), ("b", "a"))))


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("gru", {"streams": STREAMS[:1]}, "no stream reads feature 'a'"),
        ("gru", {"static": ["c"]}, "static = 'c' is no feature of a, b"),
        ("gru", {"streams": STREAMS, "context": 3}, "static and context are of heads without"),
        ("gru", {"streams": [{"feature": "b", "kind": "still"}]}, "kind is 'still'.*Accepted: static, temporal"),
        ("tcn_transformer", {"channels": {"a": [8]}}, "channels has no row for feature 'b', only for a"),
        ("tcn_transformer", {"channels": {"a": ["x"]}}, "channels"),
    ],
)
def test_a_stream_that_fits_no_feature_is_refused_by_name(kind, params, message):
    with pytest.raises(UsageError, match=message):
        outputs(kind, params, {"a": 4, "b": 6}, ("a", "b"))


def test_streams_of_features_that_are_not_given_are_left_out():
    """So an ablation changes `features` alone."""
    streams = {"streams": STREAMS, "hidden": 8}
    assert outputs("gru", streams, {"b": 6}, ("b",)).shape == (1, 9, 2)


def test_the_usc_recipe_has_a_static_and_a_temporal_branch_of_gh_feat_and_1024_columns():
    recipe = load_recipe("usc-multimodal")
    dims, names = (37632, 14336, 1280, 1024), ("swin_t", "ghfeat", "hubert", "roberta")
    head = build_head("gru", recipe.head.params, sum(dims) + 4, 12, dims, names=names)
    assert head.hidden.in_features == 1024
    assert [(one.feature, one.kind, one.context, one.seconds) for one in head.parts] == [
        ("swin_t", "static", 0, 0),
        ("ghfeat", "static", 0, 0),
        ("ghfeat", "temporal", 4, 0),
        ("hubert", "temporal", 0, 2),
        ("roberta", "temporal", 0, 2),
    ]
    assert recipe.margin
    assert recipe.window * recipe.batch == 256


def test_valence_and_arousal_have_a_head_each_where_the_recipe_separates_them():
    params = {"channels": [[8]], "width": 8, "layers": 1, "hidden": 4, "separate": True}
    dims = {"a": 4}
    for kind, separate in (("regression", True), ("multi_label", False)):
        head = build_head("tcn_transformer", params, 5, 2, (4,), kind, ("a",)).eval()
        assert (head.outputs is not None) == separate
        assert outputs("tcn_transformer", params, dims, ("a",), kind).shape == (1, 9, 2)
    head = build_head("tcn_transformer", params, 5, 2, (4,), "regression", ("a",)).eval()
    x, mask = torch.randn(1, 9, 5), torch.ones(1, 9, dtype=torch.bool)
    before = head(x, mask)
    torch.nn.init.zeros_(head.outputs[1].hidden.weight)
    after = head(x, mask)
    assert torch.equal(before[..., 0], after[..., 0])
    assert not torch.equal(before[..., 1], after[..., 1])


def test_the_loss_of_three_branches_is_the_mean_of_the_loss_of_the_output_and_of_each_branch(
    corpus, tmp_path, monkeypatch
):
    import aupipe.train.fit as fitting

    seen = []
    built = fitting.build_loss

    def watched(*args):
        loss = built(*args)

        class Watched(type(loss)):
            def __call__(self, outputs, targets, valid):
                value = super().__call__(outputs, targets, valid)
                seen.append(float(value.detach()))
                return value

        loss.__class__ = Watched
        return loss

    monkeypatch.setattr(fitting, "build_loss", watched)
    small = ("features=[]", "head.width=16", "head.heads=4", "head.layers=1", "epochs=1", "steps=1", "batch=4")
    run = train_corpus(corpus, tmp_path / "run", load_recipe("regnet-three-branches", small))
    assert len(seen) == 4
    assert run.history[0].loss == pytest.approx(np.mean(seen), rel=1e-6)


def test_three_branches_give_their_outputs_in_training_only_where_they_are_asked_for():
    head = build_head("three_branches", {"width": 16, "heads": 4, "layers": 1}, 7, 3).eval()
    x, mask = torch.randn(2, 9, 7), torch.ones(2, 9, dtype=torch.bool)
    every = head(x, mask, branches=True)
    assert every.shape == (4, 2, 9, 3)
    torch.testing.assert_close(every[0], head(x, mask))


def test_gpt2_is_required_before_training_and_never_read_again_after_it(corpus, tmp_path, monkeypatch, caplog):
    from transformers import GPT2Config, GPT2Model

    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path / "weights"))
    sizes = ("head.embedding=16", "head.positions=200", "head.weights=tiny-gpt2")
    recipe = load_recipe("aud-tgn", [*SMALL_GPT2, *sizes])
    with pytest.raises(WeightsMissingError, match="`hf download tiny-gpt2`"):
        train_corpus(corpus, tmp_path / "run", recipe)
    assert not (tmp_path / "run").exists()
    theirs = GPT2Model(GPT2Config(vocab_size=3, n_positions=200, n_embd=16, n_layer=2, n_head=4))
    theirs.save_pretrained(tmp_path / "weights" / "tiny-gpt2")
    run = train_corpus(corpus, tmp_path / "run", recipe)
    weights = load_weights(run)[0]
    assert np.array_equal(weights["gpt2.h.1.mlp.c_fc.weight"], theirs.h[1].mlp.c_fc.weight.detach().numpy())
    before = predict(run, corpus.store, corpus.validation)
    shutil.rmtree(tmp_path / "weights")
    after = predict(run, corpus.store, corpus.validation)
    assert all(np.array_equal(after[name].scores, item.scores) for name, item in before.items())
    assert "random weights" not in caplog.text


def test_the_recipe_of_aud_tgn_asks_for_gpt2_and_does_not_train_on_random_blocks_by_itself(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("AUPIPE_WEIGHTS", raising=False)
    with pytest.raises(WeightsMissingError, match="model 'gpt2' is not on this machine: `hf download gpt2`"):
        train_corpus(corpus, tmp_path / "run", load_recipe("aud-tgn", SMALL_GPT2))


SPEC = FeatureSpec("face", "visual", "toy", 1, dtype="float32")


def nearest_example(rows):
    store = create_store("gaps", "memory")
    store.publish("a", SPEC, np.array(rows, np.float32)[:, None])
    (example,) = load_examples(store, [Recording("a")], {"face": SPEC.id})
    return example


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (2, 5), (7, 9), (0, 2)])
def test_an_absent_frame_is_the_nearest_valid_one_also_beyond_the_window(start, stop):
    """Its presence stays 0; of two that are as near the earlier is taken."""
    nan = np.nan
    example = nearest_example([nan, 1, nan, nan, 4, nan, 6, nan, nan])
    scaling = Scaling(np.zeros(1, np.float32), np.ones(1, np.float32), absent="nearest")
    batch = collate({"a": example}, [Window("a", start, stop)], scaling)
    assert batch.x[0, :, 0].tolist() == [1, 1, 1, 4, 4, 4, 6, 6, 6][start:stop]
    assert batch.x[0, :, 1].tolist() == [0, 1, 0, 0, 1, 0, 1, 0, 0][start:stop]


def test_a_feature_without_any_valid_frame_stays_zero():
    example = nearest_example([np.nan, np.nan])
    scaling = Scaling(np.ones(1, np.float32), np.ones(1, np.float32), absent="nearest")
    assert collate({"a": example}, [Window("a", 0, 2)], scaling).x.tolist() == [[[0, 0], [0, 0]]]


def test_a_run_of_a_recipe_with_nearest_frames_is_predicted_as_it_was_validated(corpus, tmp_path):
    from aupipe.train.evaluate import evaluate

    found = []
    for absent in ("zero", "nearest"):
        run = train_corpus(corpus, tmp_path / absent, load_recipe("tcn", ["epochs=1", f"absent={absent}"]))
        annotated = {item.id: corpus.labels[item.id] for item in corpus.validation}
        assert evaluate(predict(run, corpus.store, corpus.validation), annotated, "au").values == run.scores.values
        found.append(load_weights(run)[0]["out.weight"])
    assert not np.array_equal(*found)


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_s_recipe_has_the_paper_s_options_and_ours_have_ours(name):
    recipe = load_recipe(name)
    assert (recipe.shift, recipe.bias_at_rates, recipe.clip, recipe.optimiser.decay_biases) == (False, False, 0, True)
    assert recipe.predict_window == 0
    if recipe.optimiser.kind == "sgd":
        assert not recipe.optimiser.nesterov
    for ours in (load_recipe("tcn"), load_recipe("baseline"), load_recipe("field")):
        assert (ours.shift, ours.bias_at_rates, ours.clip, ours.optimiser.decay_biases) == (True, True, 10, False)
        assert ours.optimiser.nesterov


def test_prediction_windows_follow_the_window_of_the_recipe():
    assert load_recipe("tcn-transformer").predict_windows == (300, 300)
    assert load_recipe("tcn-transformer", ["window=600"]).predict_windows == (600, 300)


def test_windows_that_are_not_shifted_start_at_the_first_frame_in_every_epoch(corpus):
    examples = load_examples(corpus.store, corpus.train, corpus.features, corpus.labels)
    recipe, rng = load_recipe("tcn", ["window=32", "hop=32", "shift=false"]), np.random.default_rng(0)
    for _ in range(3):
        assert {window.start % 32 for window in epoch_windows(examples, recipe, rng)} == {0}


def test_the_clip_of_a_recipe_bounds_standardised_columns_and_0_bounds_none(corpus):
    examples = load_examples(corpus.store, corpus.train, corpus.features)
    by_id, windows = {item.recording: item for item in examples}, [Window(examples[0].recording, 0, 90)]
    found = {}
    for clip in (0.0, 1.0):
        scaling = fit_scaling(examples)
        scaling = Scaling(scaling.mean, scaling.std, clip=clip)
        found[clip] = collate(by_id, windows, scaling).x[..., :-2]
    assert abs(found[0.0]).max() > 2
    np.testing.assert_array_equal(found[1.0], np.clip(found[0.0], -1, 1))


def test_biases_start_as_torch_starts_them_where_the_recipe_says_so(corpus, tmp_path):
    still = ("epochs=1", "steps=1", "optimiser.lr=1e-12", "loss.au.pos_weight=none")
    rates, torch_s = (
        load_weights(
            train_corpus(corpus, tmp_path / str(on), load_recipe("baseline", [*still, f"bias_at_rates={on}"]))
        )[0]
        for on in ("true", "false")
    )
    np.testing.assert_allclose(rates["out.weight"], torch_s["out.weight"], atol=1e-12)
    assert abs(rates["out.bias"]).max() > 0.5
    assert abs(torch_s["out.bias"]).max() <= 1 / np.sqrt(16 + 3 + 2)


def test_biases_are_decayed_and_momentum_is_plain_where_the_recipe_says_so():
    head = build_head("tcn", {}, 19, 12)
    optimiser = build_optimiser(head, Optimiser(kind="sgd", decay_biases=True, nesterov=False))
    decayed = {id(value) for group in optimiser.param_groups if group["weight_decay"] for value in group["params"]}
    assert decayed == {id(value) for value in head.parameters()}
    assert not any(group["nesterov"] for group in optimiser.param_groups)
    assert all(group["nesterov"] for group in build_optimiser(head, Optimiser(kind="sgd")).param_groups)


def test_former_recipes_name_static_features_by_position():
    by_position = outputs(
        "gru", {"static": [1], "static_width": 6, "width": 4, "hidden": 8}, {"a": 4, "b": 6}, ("a", "b")
    )
    by_name = outputs(
        "gru", {"static": ["b"], "static_width": 6, "width": 4, "hidden": 8}, {"a": 4, "b": 6}, ("a", "b")
    )
    assert torch.equal(by_position, by_name)
