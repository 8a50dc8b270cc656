"""Training end to end on a small toy corpus, and the properties of a saved run."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from aupipe.errors import AupipeError, DamageError, UsageError
from aupipe.store import create_store
from aupipe.train.data import fit_scaling, load_examples
from aupipe.train.evaluate import evaluate, trivial_baseline
from aupipe.train.heads import build_head
from aupipe.train.predict import predict
from aupipe.train.recipe import load_recipe
from aupipe.train.run import load_run, load_weights
from aupipe.train.schedule import Optimiser, build_optimiser
from aupipe.types import Labels, Recording, Window
from tests.train.reference_batch import collate

from .toy_corpus import FACE, SOUND, Corpus, make_corpus, train_corpus

SMALL = ("window=48", "hop=24", "batch=4", "head.width=24", "head.channels=[24, 24]", "head.input_dropout=0.2")


def train(corpus: Corpus, out, recipe="tcn", overrides=SMALL, **options):
    return train_corpus(corpus, out, load_recipe(recipe, overrides), **options)


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(train=8, frames=200, noise=2.5)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A TCN trained for a few epochs on the noisy corpus, and the lines it reported."""
    lines = []
    out = tmp_path_factory.mktemp("runs") / "tcn"
    return train(corpus, out, overrides=(*SMALL, "epochs=12"), progress=lines.append), lines


def test_a_temporal_head_beats_the_frame_wise_one_which_beats_the_trivial_baseline(corpus, trained, tmp_path):
    linear = train(corpus, tmp_path / "linear", "baseline", ())
    trivial = trivial_baseline({item.id: corpus.labels[item.id] for item in corpus.validation}, "au")
    assert linear.scores.mean > trivial.mean + 0.05
    assert trained[0].scores.mean > linear.scores.mean + 0.05


@pytest.mark.parametrize("task", ["expr", "va"])
@pytest.mark.parametrize("recipe", ["baseline", "tcn"])
def test_every_task_is_learnt(task, recipe, tmp_path):
    corpus = make_corpus(task, noise=0.5)
    run = train(corpus, tmp_path / "run", recipe, (*SMALL, "epochs=8") if recipe == "tcn" else ())
    trivial = trivial_baseline({item.id: corpus.labels[item.id] for item in corpus.validation}, task)
    assert run.scores.metric == ("CCC" if task == "va" else "F1")
    assert run.scores.mean > trivial.mean + 0.3


def test_the_baseline_is_logistic_regression(corpus, tmp_path):
    run = train(corpus, tmp_path / "run", "baseline", ("epochs=60", "patience=60", "loss.au.pos_weight=none"))
    examples = load_examples(corpus.store, corpus.train, corpus.features, corpus.labels)
    whole = [Window(item.recording, 0, len(item)) for item in examples]
    batch = collate({item.recording: item for item in examples}, whole, fit_scaling(examples))
    x, y = torch.from_numpy(batch.x[batch.valid[..., 0]]), torch.from_numpy(batch.targets[batch.valid[..., 0]])
    x = x * (1000 / x.shape[1]) ** 0.5
    weight, bias = torch.zeros(12, x.shape[1], requires_grad=True), torch.zeros(12, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def objective():
        solver.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight.T + bias, y)
        loss = loss + run.recipe.optimiser.weight_decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(objective)
    best = float(objective().detach())
    trained = torch.from_numpy(load_weights(run)[0]["out.weight"]), torch.from_numpy(load_weights(run)[0]["out.bias"])
    with torch.no_grad():
        weight.copy_(trained[0])
        bias.copy_(trained[1])
    assert float(objective().detach()) == pytest.approx(best, rel=0.01)


def test_progress_is_a_line_per_epoch(trained):
    run, lines = trained
    assert len(lines) == len(run.history) == 12
    assert lines[0].startswith("epoch 1/12  loss ")
    assert f"best {run.scores.mean:.3f} (epoch {run.best_epoch})" in lines[-1]


def test_the_best_epoch_is_kept_and_predicts_its_own_score(corpus, trained):
    run = load_run(trained[0].path)
    assert run == trained[0]
    assert run.finished
    assert run.best_epoch == 1 + int(np.argmax([epoch.score for epoch in run.history]))
    assert run.scores.mean == max(epoch.score for epoch in run.history)
    annotated = {item.id: corpus.labels[item.id] for item in corpus.validation}
    assert evaluate(predict(run, corpus.store, corpus.validation), annotated, "au") == run.scores


def test_a_run_states_what_it_was_trained_on(corpus, trained):
    content = json.loads((trained[0].path / "run.json").read_text())
    assert content["features"] == corpus.features
    assert content["specs"]["face"]["key"] == FACE.key
    assert content["train"] == [item.id for item in corpus.train]
    assert content["recipe"]["head"]["channels"] == [24, 24]
    assert set(content["versions"]) == {"python", "aupipe", "torch", "numpy"}
    assert sorted(item.name for item in trained[0].path.iterdir()) == ["head.safetensors", "run.json"]


def test_trap_09_validation_recordings_do_not_move_the_standardisation(corpus, trained, tmp_path):
    other = train(corpus, tmp_path / "run", overrides=(*SMALL, "epochs=1"), validation=corpus.validation[:1])
    np.testing.assert_array_equal(load_weights(other)[1].mean, load_weights(trained[0])[1].mean)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(corpus, tmp_path):
    scores = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)  # earlier random numbers must not matter
        run = train(corpus, tmp_path / name, overrides=(*SMALL, "epochs=2"), seed=seed)
        scores.append(predict(run, corpus.store, corpus.validation[:1])[corpus.validation[0].id].scores)
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_training_leaves_torch_as_it_was(corpus, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    before = 2, torch.are_deterministic_algorithms_enabled()
    train(corpus, tmp_path / "run", overrides=(*SMALL, "epochs=1"), threads=1)
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(usual)
    assert after == before
    torch.testing.assert_close(torch.rand(3), expected)


def test_labels_and_features_at_invalid_frames_change_nothing(corpus, tmp_path):
    """Permuting what is masked moves no loss and no score."""
    labels = {}
    rng = np.random.default_rng(0)
    for name, item in corpus.labels.items():
        targets = item.targets.copy()
        targets[~item.valid] = rng.choice([0, 1, -5, np.nan], int((~item.valid).sum()))
        labels[name] = Labels("au", item.names, targets, item.valid)
    first = train(corpus, tmp_path / "a", overrides=(*SMALL, "epochs=2"))
    second = train(corpus, tmp_path / "b", overrides=(*SMALL, "epochs=2"), labels=labels)
    assert [epoch.loss for epoch in first.history] == [epoch.loss for epoch in second.history]
    assert first.scores == second.scores


def test_training_stops_when_the_score_no_longer_rises(corpus, tmp_path):
    run = train(corpus, tmp_path / "run", overrides=(*SMALL, "optimiser.lr=1e-12", "epochs=9", "patience=2"))
    assert len(run.history) == 3
    assert run.best_epoch == 1


def test_a_diverging_loss_is_an_error_that_names_the_epoch(corpus, tmp_path):
    overrides = ("optimiser.kind=sgd", "optimiser.lr=1e6", "optimiser.clip_norm=0", "optimiser.warmup_epochs=0")
    with pytest.raises(AupipeError, match=r"epoch \d+: (loss|weights are not finite).*; lower optimiser.lr"):
        train(corpus, tmp_path / "run", "baseline", overrides)


def test_a_run_is_never_overwritten(corpus, trained):
    with pytest.raises(UsageError, match="already holds a run"):
        train(corpus, trained[0].path)


def test_trap_08_a_recording_in_both_splits_is_refused_and_a_shared_group_is_a_warning(corpus, tmp_path, caplog):
    with pytest.raises(UsageError, match=r"in training and validation: 1 recording, e.g. 'video0_left'"):
        train(corpus, tmp_path / "run", validation=corpus.train[:1])
    with caplog.at_level(logging.WARNING):
        train(
            corpus,
            tmp_path / "run",
            overrides=(*SMALL, "epochs=1"),
            train=corpus.train[1:],
            validation=corpus.train[:1],
        )
    assert "in training and validation: 1 group (e.g. 'video0')" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": []}, "no training recordings given"),
        ({"overrides": (*SMALL, "features=['fase']")}, "needs feature 'fase'. Did you mean 'face'"),
    ],
)
def test_a_request_that_cannot_work_is_refused_before_anything_is_written(corpus, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        train(corpus, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_recordings_without_a_label_or_a_face_are_named_and_counted(tmp_path, caplog):
    corpus = make_corpus(train=4, validation=2, frames=60)
    blank, faceless = corpus.train[1].id, corpus.train[3].id
    item = corpus.labels[blank]
    labels = corpus.labels | {blank: replace(item, valid=np.zeros_like(item.valid))}
    rows = np.full((len(corpus.labels[faceless]), 16), np.nan, np.float32)
    corpus.store.publish(faceless, FACE, rows)
    with caplog.at_level("INFO", logger="aupipe"):
        run = train(replace(corpus, labels=labels), tmp_path / "run", overrides=(*SMALL, "epochs=1"))
    assert f"1 of 4 training recordings have no valid au label: {blank}" in caplog.text
    assert f"1 of 4 training recordings have no frame with a face: {faceless}" in caplog.text
    frames = sum(len(corpus.labels[r.id]) for r in corpus.train)
    with_face = frames - 4 * 6 - len(rows) + 6
    assert (
        f"training: {frames} frames of 4 recordings, {frames - 3 * 5 - len(item)} annotated, {with_face} with a face"
        in caplog.text
    )
    assert np.isfinite(run.history[0].loss)


def test_no_valid_label_at_all_is_refused(corpus, tmp_path):
    blank = {n: replace(item, valid=np.zeros_like(item.valid)) for n, item in corpus.labels.items()}
    with pytest.raises(UsageError, match="no valid au label in 8 training recordings"):
        train(corpus, tmp_path / "run", labels=blank)


def test_a_recipe_can_choose_among_the_features(corpus, tmp_path):
    run = train(corpus, tmp_path / "run", overrides=(*SMALL, "epochs=1", "features=['sound']"))
    assert run.features == {"sound": SOUND.id}
    assert run.dims == (3,)


def test_recordings_left_out_lower_the_coverage(corpus, tmp_path):
    extra = Recording("nowhere")
    labels = corpus.labels | {"nowhere": corpus.labels["video2"]}
    with pytest.raises(UsageError, match=r"nowhere \(face, sound\)"):
        train(corpus, tmp_path / "run", validation=[*corpus.validation, extra], labels=labels)
    run = train(
        corpus,
        tmp_path / "run",
        overrides=(*SMALL, "epochs=1"),
        validation=[*corpus.validation, extra],
        labels=labels,
        allow_missing=True,
    )
    assert run.scores.missing == ("nowhere",)
    assert run.scores.coverage < 1


def test_biases_and_gains_are_not_decayed():
    head = build_head("tcn", {}, 19, 12)
    matrices, others = build_optimiser(head, Optimiser(weight_decay=0.3)).param_groups
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.3, 0)
    names = {id(value): name for name, value in head.named_parameters()}
    assert {names[id(value)].rpartition(".")[2] for value in others["params"]} == {"bias", "weight_g"}
    assert {names[id(value)].rpartition(".")[2] for value in matrices["params"]} == {"weight", "weight_v"}


def test_every_frame_gets_one_score_its_time_and_whether_the_face_was_found(corpus, trained):
    predictions = predict(trained[0].path, corpus.store, [*corpus.validation, *corpus.train[:2]])
    for recording in (*corpus.validation, *corpus.train[:2]):
        item = predictions[recording.id]
        assert item.scores.shape == (len(corpus.labels[recording.id]), 12)
        assert item.scores.dtype == np.float32
        assert ((item.scores > 0) & (item.scores < 1)).all()
        np.testing.assert_allclose(item.pts_s, np.arange(len(item)) / 25)
        assert np.flatnonzero(~item.face_found).tolist() == list(range(20, 26))


def test_trap_04_a_recording_shorter_than_a_window_is_predicted_whole(trained):
    store = create_store("short", "memory")
    store.publish("a", FACE, np.ones((5, 16), np.float32))
    store.publish("a", SOUND, np.ones((5, 3), np.float32))
    item = predict(trained[0], store, [Recording("a")])["a"]
    assert len(item) == 5
    assert np.isnan(item.pts_s).all()  # no clock in this store


def test_a_recording_without_a_single_face_is_predicted_and_flagged(trained):
    store = create_store("no-face", "memory")
    store.publish("a", FACE, np.full((60, 16), np.nan, np.float32))
    store.publish("a", SOUND, np.ones((60, 3), np.float32))
    item = predict(trained[0], store, [Recording("a")])["a"]
    assert np.isfinite(item.scores).all()
    assert not item.face_found.any()


def test_features_of_another_key_are_not_taken_for_those_of_the_run(corpus, trained):
    store = create_store("other", "memory")
    store.publish("video2", replace(FACE, version=2), np.ones((60, 16), np.float32))
    store.publish("video2", SOUND, np.ones((60, 3), np.float32))
    with pytest.raises(UsageError, match=rf"feature 'face' \({FACE.id}\) is not in the store"):
        predict(trained[0], store, [Recording("video2")])
    with pytest.raises(UsageError, match=r"incomplete recordings, 1 of 2: unknown \(face, sound\)"):
        predict(trained[0], corpus.store, [corpus.train[0], Recording("unknown")])


@pytest.fixture
def copied(trained, tmp_path):
    """The trained run in a folder of its own."""
    for file in trained[0].path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def make_former(folder):
    """Turn the files of a run into those that aupipe 0.1.0 wrote: two files, without a checksum."""
    from safetensors.numpy import load_file, save_file

    file = folder / "head.safetensors"
    content = json.loads((folder / "run.json").read_text())
    save_file(load_file(file), file, metadata={"run": content["id"]})
    del content["data"]
    (folder / "run.json").write_text(json.dumps(content | {"format": 1}))
    return content


def test_a_run_of_aupipe_0_1_0_is_read_and_its_weights_must_be_its_own(corpus, trained, copied):
    content = make_former(copied)
    assert replace(load_run(copied), path=trained[0].path, data=trained[0].data) == trained[0]
    former, present = (predict(run, corpus.store, corpus.validation) for run in (copied, trained[0]))
    assert all(np.array_equal(former[name].scores, present[name].scores) for name in present)
    assert train(corpus, copied, overrides=(*SMALL, "epochs=12"), resume=True) == load_run(copied)
    (copied / "run.json").write_text(json.dumps(content | {"id": "other"}))
    with pytest.raises(DamageError, match="these weights belong to run"):
        predict(copied, corpus.store, corpus.validation)


def test_run_json_is_a_copy_and_a_run_without_it_is_whole(corpus, trained, copied):
    assert json.loads((copied / "run.json").read_text()) == json.loads(json.dumps(trained[0].to_json()))
    (copied / "run.json").unlink()
    assert replace(load_run(copied), path=trained[0].path) == trained[0]
    assert predict(copied, corpus.store, corpus.validation).keys() == {r.id for r in corpus.validation}
    with pytest.raises(UsageError, match="already holds a run"):
        train(corpus, copied)


@pytest.mark.parametrize("part", ["weights", "document"])
def test_one_changed_byte_of_a_run_is_noticed(corpus, trained, copied, part):
    file = copied / "head.safetensors"
    content = bytearray(file.read_bytes())
    at = len(content) - 100 if part == "weights" else content.index(b'\\"seed\\": 0') + 10
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamageError, match=r"head.safetensors: .*its content differs from its checksum"):
        predict(copied, corpus.store, corpus.validation)


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_truncated_weights_are_refused(corpus, copied, keep):
    whole = (copied / "head.safetensors").read_bytes()
    (copied / "head.safetensors").write_bytes(whole[:keep])
    with pytest.raises(DamageError, match=r"head.safetensors: not readable"):
        predict(copied, corpus.store, corpus.validation)


def test_a_broken_or_missing_run_is_refused(copied, tmp_path):
    (copied / "head.safetensors").unlink()
    (copied / "run.json").write_text("{")
    with pytest.raises(DamageError, match=r"run.json: not readable"):
        load_run(copied)
    with pytest.raises(UsageError, match=r"no run.json there"):
        load_run(tmp_path / "nothing")


def test_a_run_of_a_later_format_is_refused(copied):
    (copied / "head.safetensors").unlink()
    content = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(content | {"format": 4}))
    with pytest.raises(UsageError, match="newer than 3: update aupipe"):
        load_run(copied)
