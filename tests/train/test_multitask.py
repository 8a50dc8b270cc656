"""Auxiliary tasks: each has its own loss and its own annotated frames, and only the main task is predicted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aupipe.errors import UsageError
from aupipe.train.labels import NAMES
from aupipe.train.losses import JointLoss
from aupipe.train.predict import predict
from aupipe.train.recipe import load_recipe, recipe_from
from aupipe.train.run import load_run, load_weights
from aupipe.types import Labels

from .test_losses import batch, build_loss, rates
from .toy_corpus import make_corpus, train_corpus

SMALL = ("window=48", "hop=24", "batch=4", "head.width=24", "head.channels=[24]", "epochs=4")


def train(corpus, aux_labels, out, *overrides, **options):
    recipe = options.pop("recipe", None) or load_recipe("tcn", [*SMALL, *overrides])
    return train_corpus(corpus, out, recipe, aux_labels=aux_labels or {}, **options)


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(train=6, frames=120)


@pytest.fixture(scope="module")
def aux_labels(corpus):
    """Expression classes and VA that follow from the AUs; one recording has no VA, another none of either."""
    names = list(corpus.labels)
    expr = {
        name: Labels("expr", NAMES["expr"], item.targets[:, :1] + 2 * item.targets[:, 3:4], item.valid[:, :1])
        for name, item in corpus.labels.items()
        if name != names[1]
    }
    va = {
        name: Labels("va", NAMES["va"], item.targets[:, 4:6] - 0.5, item.valid[:, :2])
        for name, item in corpus.labels.items()
        if name not in names[:2]
    }
    return {"expr": expr, "va": va}


def test_the_joint_loss_is_the_weighted_sum_each_over_its_own_columns_and_frames():
    losses = {
        task: build_loss(kind, {}, task, rates(task)) for task, kind in (("au", "bce"), ("expr", "ce"), ("va", "ccc"))
    }
    parts = {task: batch(task, seed) for seed, task in enumerate(losses)}
    outputs, targets, valid = (torch.cat([part[i] for part in parts.values()], dim=-1) for i in range(3))
    joint = JointLoss([(losses["au"], 1.0, 12, 12), (losses["expr"], 0.3, 8, 1), (losses["va"], 0.5, 2, 2)])
    each = {task: loss(*parts[task]) for task, loss in losses.items()}
    torch.testing.assert_close(joint(outputs, targets, valid), each["au"] + 0.3 * each["expr"] + 0.5 * each["va"])
    assert joint.start.shape == (22,)
    valid[..., 12:] = False  # no other task is annotated: only the task's own loss is left
    torch.testing.assert_close(joint(outputs, targets, valid), each["au"])


def test_only_the_task_itself_is_scored_and_predicted_and_the_run_comes_back(corpus, aux_labels, tmp_path):
    run = train(corpus, aux_labels, tmp_path / "run", "aux_tasks={expr=0.5, va=0.5}")
    found = predict(load_run(run.path), corpus.store, corpus.validation)
    assert all(item.scores.shape == (len(corpus.labels[name]), 12) for name, item in found.items())
    assert run.scores.task.name == "au"
    assert load_weights(run)[0]["out.bias"].shape == (22,)
    assert run.recipe.aux_tasks_for("va") == {"expr": 0.5}
    assert recipe_from(run.recipe.to_json(), "tcn") == run.recipe


def test_auxiliary_tasks_change_the_weights_and_a_weight_of_0_does_not(corpus, aux_labels, tmp_path):
    alone, silent, joint = (
        load_weights(train(corpus, labels, tmp_path / name, override))[0]
        for name, labels, override in (
            ("alone", None, "epochs=2"),
            ("silent", aux_labels, "aux_tasks={expr=0, va=0.0}"),
            ("joint", aux_labels, "aux_tasks={expr=1}"),
        )
    )
    silent_run = train(corpus, aux_labels, tmp_path / "silent2", "aux_tasks={expr=0}", "epochs=2")
    again = load_weights(silent_run)[0]
    assert all(np.array_equal(alone[name], again[name]) for name in alone)
    assert silent["out.bias"].shape == (12,)
    assert joint["out.bias"].shape == (20,)
    assert any(not np.array_equal(silent[n], joint[n]) for n in silent if silent[n].shape == joint[n].shape)


def test_a_killed_multi_task_run_resumes_to_the_same_weights(corpus, aux_labels, tmp_path):
    class Killed(BaseException):
        pass

    def stop(line):
        if "epoch 2/" in line:
            raise Killed

    whole = train(corpus, aux_labels, tmp_path / "whole", "aux_tasks={va=1.0}")
    with pytest.raises(Killed):
        train(corpus, aux_labels, tmp_path / "killed", "aux_tasks={va=1.0}", progress=stop)
    killed = train(corpus, aux_labels, tmp_path / "killed", "aux_tasks={va=1.0}", resume=True)
    first, second = load_weights(whole)[0], load_weights(killed)[0]
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_streamed_and_in_memory_targets_of_all_tasks_are_the_same(corpus, aux_labels, tmp_path):
    first, second = (
        load_weights(
            train(
                corpus,
                aux_labels,
                tmp_path / str(memory_limit),
                "aux_tasks={va=1.0}",
                "epochs=2",
                memory_limit=memory_limit,
            )
        )[0]
        for memory_limit in (None, 0)
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["aux_tasks.va=-1"], "aux_tasks.va = -1: expected a weight"),
        (["aux_tasks.va=true"], "aux_tasks.va = True: expected a weight"),
        (["aux_tasks=3"], r"expected a table, \[aux_tasks\]"),
    ],
)
def test_a_wrong_weight_is_refused_by_name(overrides, message):
    with pytest.raises(UsageError, match=message):
        load_recipe("tcn", overrides)


def test_missing_labels_and_a_head_of_one_task_are_refused(corpus, aux_labels, tmp_path):
    with pytest.raises(UsageError, match="trains va too, but no training recording has labels"):
        train(corpus, {}, tmp_path / "run", "aux_tasks.va=1")
    recipe = replace(load_recipe("field"), aux_tasks={"va": 1.0})
    with pytest.raises(
        UsageError, match=r"head 'chain' is initialised from the labels of one task: leave out aux_tasks\.va"
    ):
        train(corpus, aux_labels, tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run").exists()
