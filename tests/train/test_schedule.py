"""The learning rate over a run, averaged weights, and a run that is killed and resumed."""

from contextlib import nullcontext, suppress
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from aupipe import files
from aupipe.errors import DamageError, UsageError
from aupipe.train.data import load_examples
from aupipe.train.ema import averaged_model
from aupipe.train.evaluate import evaluate
from aupipe.train.fit import epoch_windows
from aupipe.train.predict import predict
from aupipe.train.recipe import load_recipe
from aupipe.train.run import load_postprocess, load_run, load_weights
from aupipe.train.schedule import Optimiser, Plateau, build_optimiser, lr_factor
from aupipe.types import Labels

from .toy_corpus import FACE, make_corpus, train_corpus

SMALL = ("window=48", "hop=24", "batch=4", "head.width=16", "head.channels=[16]", "epochs=4", "patience=9")


def curve(epochs=20, steps=10, **options):
    return [lr_factor(step / steps, steps, epochs, Optimiser(**options)) for step in range(epochs * steps)]


def test_warm_up_rises_linearly_for_so_many_epochs_or_steps():
    epochs, steps = curve(warmup_epochs=2.0, schedule="constant"), curve(warmup_steps=20, schedule="constant")
    assert epochs == steps
    assert np.diff(epochs[:20]) == pytest.approx(np.diff(epochs[:20])[0])
    assert epochs[0] < 0.01
    assert set(epochs[20:]) == {1.0}


def test_a_cosine_falls_to_the_final_rate_once_and_restarts_again_and_again():
    once = curve(warmup_epochs=0.0, final_lr=0.1)
    assert once[0] == 1.0
    assert once[-1] == pytest.approx(0.1, abs=0.01)
    assert (np.diff(once) < 0).all()
    again = curve(warmup_epochs=0.0, schedule="restarts", restart_epochs=4.0, final_lr=0.1)
    assert [i for i in range(200) if again[i] == 1.0] == [0, 40, 80, 120, 160]
    bounce = curve(warmup_epochs=0.0, schedule="bounce", restart_epochs=4.0, final_lr=0.1)
    assert bounce[20] == pytest.approx(0.1)
    assert bounce[40] == pytest.approx(1.0)
    assert bounce[21] == pytest.approx(bounce[19])


def test_a_drop_lowers_whatever_the_schedule_says():
    plain, dropped = (curve(schedule="restarts", **extra) for extra in ({}, {"drop_epoch": 16, "drop_factor": 0.1}))
    assert plain[:160] == dropped[:160]
    assert dropped[160:] == pytest.approx([0.1 * value for value in plain[160:]])


def test_a_plateau_lowers_the_rate_after_so_many_epochs_without_a_better_score():
    options, plateau, factors = Optimiser(schedule="plateau", plateau_patience=2, plateau_factor=0.5), Plateau(), []
    for score in (0.1, 0.2, 0.2, 0.1, 0.2, 0.3, 0.3):
        plateau.update(score, options)
        factors.append(plateau.factor)
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5]
    plateau.update(0.0, Optimiser())
    assert plateau.bad == 1  # other schedules do not count


def test_an_unknown_schedule_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown schedule 'cosin'. Did you mean 'cosine'"):
        Optimiser(schedule="cosin")


def test_the_average_at_step_n_keeps_at_most_n_over_n_plus_9_and_the_head_its_own_weights():
    layer = nn.Linear(3, 2)
    average = averaged_model(layer, 0.5)
    expected = layer.weight.detach().clone()
    for step in range(1, 20):
        with torch.no_grad():
            layer.weight.normal_()
        average.update_parameters(layer)
        expected.lerp_(layer.weight.detach(), 1 - min(0.5, step / (step + 9)))
        assert torch.equal(average.module.weight, expected), step
    assert not torch.equal(layer.weight, expected)


def test_sgd_is_nesterovs():
    weight = nn.Parameter(torch.zeros(2, 2))
    holder = nn.Module()
    holder.register_parameter("weight", weight)
    optimiser = build_optimiser(holder, Optimiser(kind="sgd", lr=1.0, momentum=0.9, weight_decay=0.0))
    seen = []
    for _ in range(2):
        weight.grad = torch.ones(2, 2)
        optimiser.step()
        seen.append(weight[0, 0].item())
    assert seen == pytest.approx([-1.9, -1.9 - (1 + 0.9 * 1.9)])  # step = gradient + momentum * velocity


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(train=5, frames=120)


class Killed(BaseException):
    """As SIGKILL would, between two epochs."""


def train(corpus, out, overrides=(), progress=None, recipe="tcn", small=SMALL, **options):
    return train_corpus(corpus, out, load_recipe(recipe, (*small, *overrides)), progress=progress, **options)


def killed_after(epochs):
    lines = []

    def progress(line):
        lines.append(line)
        if len(lines) == epochs:
            raise Killed

    return progress


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("ema=0.9", "optimiser.schedule=plateau", "optimiser.plateau_patience=0"),
        ("optimiser.kind=sgd", "optimiser.lr=0.01", "optimiser.schedule=restarts", "steps=3"),
    ],
    ids=["adamw", "ema-plateau", "sgd-restarts"],
)
def test_a_killed_run_resumes_to_exactly_the_weights_of_an_uninterrupted_one(corpus, tmp_path, overrides):
    whole = train(corpus, tmp_path / "whole", overrides)
    with pytest.raises(Killed):
        train(corpus, tmp_path / "cut", overrides, progress=killed_after(2))
    assert not load_run(tmp_path / "cut").finished
    cut = train(corpus, tmp_path / "cut", overrides, resume=True)
    assert [(e.loss, e.score, e.lr) for e in cut.history] == [(e.loss, e.score, e.lr) for e in whole.history]
    weights = [load_weights(run)[0] for run in (whole, cut)]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert cut.finished
    assert not [name for name in load_file(cut.path / "head.safetensors") if name.startswith("state.")]


def test_resume_returns_a_finished_run_and_starts_one_where_there_is_none(corpus, tmp_path):
    first = train(corpus, tmp_path / "run", ("epochs=1",), resume=True)  # no run there: starts one
    assert first.finished
    assert train(corpus, tmp_path / "run", ("epochs=1",), resume=True) == first
    with pytest.raises(UsageError, match=r"run is a run of another recipe, seed: give the same, or another folder"):
        train(corpus, tmp_path / "run", ("epochs=2",), resume=True, seed=1)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"overrides": ("batch=8",)}, "another recipe"),
        ({"seed": 3}, "another seed"),
        ({"train": "shorter"}, "another train recordings"),
        ({"labels": "other"}, "another annotations"),
        ({"aux_labels": "more"}, "another annotations"),
    ],
)
@pytest.mark.parametrize("epochs", [1, 4], ids=["killed", "finished"])
def test_a_run_is_resumed_with_the_same_arguments_and_labels_only(corpus, tmp_path, change, what, epochs):
    with pytest.raises(Killed) if epochs == 1 else nullcontext():
        train(corpus, tmp_path / "run", progress=killed_after(epochs) if epochs == 1 else None)
    first = corpus.train[0].id
    item = corpus.labels[first]
    flipped = replace(item, targets=np.where(item.valid, 1 - item.targets, 0).astype(np.float32))
    va = Labels("va", ("valence", "arousal"), item.targets[:, :2], item.valid[:, :2])
    other = {"train": corpus.train[1:], "labels": corpus.labels | {first: flipped}, "aux_labels": {"va": {first: va}}}
    change = {name: other.get(name, value) for name, value in change.items()}
    with pytest.raises(UsageError, match=what):
        train(corpus, tmp_path / "run", resume=True, **change)


def test_a_run_is_not_resumed_on_other_rows_of_its_features(tmp_path):
    corpus = make_corpus(train=3, frames=60)
    with pytest.raises(Killed):
        train(corpus, tmp_path / "run", progress=killed_after(1))
    name = corpus.train[2].id
    rows = np.array(corpus.store.read(name, FACE.id))
    corpus.store.publish(name, FACE, rows + 1)
    with pytest.raises(UsageError, match="another stored rows"):
        train(corpus, tmp_path / "run", resume=True)


def test_a_killed_run_has_the_score_of_its_weights_whenever_it_is_killed(corpus, tmp_path, monkeypatch):
    """Killed before each renaming of a file in turn, as a full disk or a signal would stop it."""
    annotated = {item.id: corpus.labels[item.id] for item in corpus.validation}
    rename, kill_at = files._rename, 1
    loaded = []
    while True:
        count = 0

        def stop(*arguments, kill_at=kill_at):
            nonlocal count
            count += 1
            if count == kill_at:
                raise Killed
            rename(*arguments)

        monkeypatch.setattr(files, "_rename", stop)
        out = tmp_path / str(kill_at)
        with suppress(Killed):
            train(corpus, out, ("epochs=3", "optimiser.lr=0.003"))
        if count < kill_at:
            break
        if count > 1:
            run = load_run(out)
            assert evaluate(predict(run, corpus.store, corpus.validation), annotated, "au") == run.scores, kill_at
            loaded.append(run.best_epoch)
        kill_at += 1
    assert len(set(loaded)) > 1  # better epochs were among them


def test_a_damaged_run_is_not_resumed(corpus, tmp_path):
    with pytest.raises(Killed):
        train(corpus, tmp_path / "run", progress=killed_after(1))
    file = tmp_path / "run" / "head.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DamageError, match=r"head.safetensors: .*its content differs from its checksum"):
        train(corpus, tmp_path / "run", resume=True)


def test_an_unfinished_run_of_aupipe_0_1_0_is_not_resumed(corpus, tmp_path):
    with pytest.raises(Killed):
        train(corpus, tmp_path / "run", progress=killed_after(1))
    (tmp_path / "run" / "resume.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"run: begun by an earlier aupipe, .*: train into another folder"):
        train(corpus, tmp_path / "run", resume=True)


def test_two_trainings_do_not_write_into_one_folder(corpus, tmp_path):
    refused = []

    def second():
        try:
            train(corpus, tmp_path / "run", ("epochs=2",), resume=True)
        except UsageError as error:
            refused.append(str(error))

    def progress(line):
        other = Thread(target=second)
        other.start()
        other.join()

    train(corpus, tmp_path / "run", ("epochs=2",), progress=progress)
    assert (
        refused == [f"{tmp_path / 'run'}: another training is running there: wait for it, or choose another folder"] * 2
    )
    assert sorted(item.name for item in (tmp_path / "run").iterdir()) == ["head.safetensors", "run.json"]


def test_a_cosine_reaches_its_floor_at_the_end_where_recordings_are_as_long_as_a_window(corpus, tmp_path):
    """A shifted window cuts such a recording in two, so an epoch has twice the steps of unshifted windows."""
    whole = ("window=200", "hop=200", "batch=1", "epochs=8", "optimiser.final_lr=0.0", "optimiser.warmup_epochs=0.0")
    run = train(corpus, tmp_path / "run", (*whole, "optimiser.lr=1e-3"))
    expected = [1e-3 * 0.5 * (1 + np.cos(np.pi * epoch / 8)) for epoch in range(1, 9)]
    assert [epoch.lr for epoch in run.history] == pytest.approx(expected, abs=5e-5)


def test_the_phase_of_windows_is_drawn_for_each_recording_and_epoch(corpus):
    recipe = load_recipe("tcn", ("window=48", "hop=24"))
    examples = load_examples(corpus.store, corpus.train, corpus.features, corpus.labels)
    rng = np.random.default_rng(0)
    phases = []
    for _ in range(60):
        windows = epoch_windows(examples, recipe, rng)
        first = {example.recording: 48 for example in examples}
        for window in windows:
            first[window.recording] = min(first[window.recording], window.stop)
        phases.append([48 - stop for stop in first.values()])
        assert [window.start for window in windows] != sorted(window.start for window in windows)
    assert set(np.ravel(phases)) == set(range(24))
    assert len({tuple(row) for row in phases}) == 60
    assert all(len(set(row)) > 1 for row in phases)


def test_norm_clipping_bounds_the_length_of_the_gradient(corpus, tmp_path):
    """Plain SGD from the same weights: one step moves them by the learning rate times the limit."""
    sgd = ("optimiser.kind=sgd", "optimiser.momentum=0.0", "optimiser.weight_decay=0.0")
    still = ("epochs=1", "steps=1", "optimiser.warmup_epochs=0.0", *sgd)
    start, moved = (
        load_weights(train(corpus, tmp_path / name, (*still, *extra)))[0]
        for name, extra in (
            ("a", ("optimiser.lr=1e-12",)),
            ("b", ("optimiser.lr=1.0", "optimiser.clip_norm=0.01")),
        )
    )
    moves = np.concatenate([(moved[name] - start[name]).ravel() for name in start])
    assert np.linalg.norm(moves) == pytest.approx(0.01, rel=1e-2)


def test_bfloat16_trains_and_predicts_nearly_the_same(corpus, tmp_path):
    full, half = (train(corpus, tmp_path / name, (f"amp={name}",)) for name in ("false", "true"))
    assert half.scores.mean == pytest.approx(full.scores.mean, abs=0.05)
    assert [e.loss for e in half.history] != [e.loss for e in full.history]


def test_value_clipping_bounds_each_number_of_the_gradient(corpus, tmp_path):
    """Plain SGD from the same weights: one step changes no weight by more than the learning rate times the limit."""
    sgd = ("optimiser.kind=sgd", "optimiser.momentum=0.0", "optimiser.weight_decay=0.0", "optimiser.clip_norm=0.0")
    still = ("epochs=1", "steps=1", "optimiser.warmup_epochs=0.0", *sgd)
    start, moved = (
        load_weights(train(corpus, tmp_path / name, (*still, *extra)))[0]
        for name, extra in (
            ("a", ("optimiser.lr=1e-12",)),
            ("b", ("optimiser.lr=1.0", "optimiser.clip_value=1e-3")),
        )
    )
    furthest = max(float(np.abs(start[name] - moved[name]).max()) for name in start)
    assert furthest == pytest.approx(1e-3, rel=1e-2)


def test_a_recipe_s_post_processing_is_fitted_on_validation_and_kept_with_the_run(corpus, tmp_path):
    run = train(corpus, tmp_path / "run", ("epochs=1", "postprocess.au.threshold=tune"))
    post = load_postprocess(run)
    assert post.tuned_on == tuple(sorted(run.validation))
    assert len(post.threshold) == 12
    assert load_postprocess(train(corpus, tmp_path / "plain", ("epochs=1",))) is None
    (tmp_path / "run" / "postprocess.json").write_text("{}")
    with pytest.raises(DamageError, match=r"postprocess.json: not readable"):
        load_postprocess(run)
