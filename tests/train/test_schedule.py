"""The learning rate over a run, averaged weights, and a run that is killed and resumed."""

import numpy as np
import pytest
import torch
from torch import nn

from aupipe.errors import DamageError, UsageError
from aupipe.train.ema import EMA
from aupipe.train.fit import fit
from aupipe.train.recipe import load_recipe
from aupipe.train.run import load_postprocess, load_run, load_weights
from aupipe.train.schedule import Optimiser, Plateau, lr_factor

from .toy_corpus import make_corpus

SMALL = ("window=48", "hop=24", "batch=4", "head.width=16", "head.channels=[16]", "epochs=4", "patience=9")


def curve(epochs=20, steps=10, **options):
    return [lr_factor(step, steps, epochs, Optimiser(**options)) for step in range(epochs * steps)]


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


def test_the_ema_forgets_the_initial_weights_and_restores_the_heads_own():
    layer = nn.Linear(1, 1)
    ema = EMA(layer, 0.5)
    with torch.no_grad():
        for value in (1.0, 3.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0):
            layer.weight.fill_(value)
            ema.update(layer)
    layer.weight.data.fill_(7.0)
    with ema.applied_to(layer):
        assert 4.5 < layer.weight.item() < 5.0
    assert layer.weight.item() == 7.0
    assert EMA(layer, 0.0).values == {}


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(train=5, frames=120)


class Killed(BaseException):
    """As SIGKILL would, between two epochs."""


def train(corpus, out, overrides=(), progress=None, recipe="tcn", small=SMALL, **options):
    return fit(
        corpus.store,
        train=corpus.train,
        validation=corpus.validation,
        labels=corpus.labels,
        features=corpus.features,
        recipe=load_recipe(recipe, (*small, *overrides)),
        task="au",
        out=out,
        progress=progress,
        **options,
    )


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
    assert not (tmp_path / "cut" / "resume.safetensors").exists()


def test_resume_refuses_a_finished_run_and_starts_one_where_there_is_none(corpus, tmp_path):
    first = train(corpus, tmp_path / "run", ("epochs=1",), resume=True)  # no run there: starts one
    assert first.finished
    with pytest.raises(UsageError, match="already holds a run"):
        train(corpus, tmp_path / "run", ("epochs=1",), resume=True)


@pytest.mark.parametrize(
    ("change", "what"), [({"overrides": ("batch=8",)}, "another recipe"), ({"seed": 3}, "another seed")]
)
def test_a_run_is_resumed_with_the_same_arguments_only(corpus, tmp_path, change, what):
    with pytest.raises(Killed):
        train(corpus, tmp_path / "run", progress=killed_after(1))
    with pytest.raises(UsageError, match=what):
        train(corpus, tmp_path / "run", resume=True, **change)


def test_a_damaged_checkpoint_is_named(corpus, tmp_path):
    with pytest.raises(Killed):
        train(corpus, tmp_path / "run", progress=killed_after(1))
    file = tmp_path / "run" / "resume.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DamageError, match=r"resume.safetensors: not readable .*: remove it to start this run again"):
        train(corpus, tmp_path / "run", resume=True)


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
