"""Losses use valid entries only, and apply their weights as documented."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aupipe.errors import UsageError
from aupipe.tasks import OFFICIAL
from aupipe.train import losses
from aupipe.train.labels import NAMES
from aupipe.train.losses import LOSSES, smooth_targets
from aupipe.train.metrics import ccc
from aupipe.train.recipe import load_recipe

CASES = [(name, task) for name in LOSSES.names() for task in OFFICIAL if OFFICIAL[task].kind in LOSSES.get(name).kinds]


def batch(task, seed=0, shape=(3, 40)):
    """Outputs (B, T, K), targets and valid (B, T, K'), a fifth invalid."""
    rng = np.random.default_rng(seed)
    wide = len(NAMES[task])
    outputs = torch.from_numpy(rng.normal(size=(*shape, wide)).astype(np.float32))
    if task == "expr":
        targets = rng.integers(0, 8, (*shape, 1))
    else:
        targets = rng.random((*shape, wide)).round(0 if task == "au" else 3)
    valid = torch.from_numpy(np.repeat(rng.random((*shape, 1)) < 0.8, targets.shape[-1], axis=-1))
    return outputs, torch.from_numpy(targets.astype(np.float32)), valid


def build_loss(name, params, task, rates):
    return losses.build_loss(name, params, OFFICIAL[task], rates)


def rates(task):
    return torch.linspace(0.05, 0.6, len(NAMES[task]))


@pytest.mark.parametrize(("name", "task"), CASES)
def test_the_values_at_invalid_entries_change_neither_loss_nor_gradient(name, task):
    loss = build_loss(name, {}, task, rates(task))
    outputs, targets, valid = batch(task)
    first = loss(outputs.requires_grad_(), targets, valid)
    (gradient,) = torch.autograd.grad(first, outputs)
    off = ~valid if task != "expr" else ~valid.expand_as(outputs)
    assert (gradient[off] == 0).all()
    changed = outputs.detach().clone()
    changed[off] = 50.0
    for value in (1.0, -5.0, float("nan")):
        other = targets.clone()
        other[~valid] = value
        again = loss(changed.requires_grad_(), other, valid)
        torch.testing.assert_close(again.detach(), first.detach())
        assert torch.equal(torch.autograd.grad(again, changed)[0], gradient)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_batch_without_a_valid_entry_costs_nothing(name, task):
    outputs, targets, valid = batch(task)
    loss = build_loss(name, {}, task, rates(task))(outputs.requires_grad_(), targets, torch.zeros_like(valid))
    loss.backward()
    assert float(loss.detach()) == 0
    assert (outputs.grad == 0).all()


@pytest.mark.parametrize(("name", "task"), CASES)
def test_no_constant_output_is_better_than_the_start(name, task):
    outputs, targets, valid = batch(task, shape=(8, 200))
    wide = outputs.shape[-1]
    kept = targets[..., :1][valid[..., :1]].long() if task == "expr" else targets[valid[..., 0]]
    share = torch.bincount(kept, minlength=wide) / len(kept) if task == "expr" else kept.mean(dim=0)
    loss = build_loss(name, {"pos_weight": "balanced"} if name == "bce" else {}, task, share)
    start = float(loss(loss.start.expand_as(outputs), targets, valid))
    for k in range(wide):
        for step in (-0.2, 0.2):
            moved = loss.start.clone()
            moved[k] += step
            assert float(loss(moved.expand_as(outputs), targets, valid)) >= start - 1e-6


def test_trap_14_weight_scales_an_au_and_pos_weight_only_its_positives():
    outputs, targets, valid = batch("au")
    factors = tuple(float(k + 1) for k in range(12))
    each = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    scale = torch.tensor(factors)
    whole = build_loss("bce", {"weight": factors}, "au", rates("au"))(outputs, targets, valid)
    torch.testing.assert_close(whole, (each * scale)[valid].mean())
    positives = build_loss("bce", {"pos_weight": factors}, "au", rates("au"))(outputs, targets, valid)
    torch.testing.assert_close(positives, (each * torch.where(targets == 1, scale, 1.0))[valid].mean())


def test_trap_14_balanced_means_the_published_weights_or_the_negatives_per_positive():
    p = rates("au")
    assert build_loss("bce", {"weight": "balanced"}, "au", p).weight.allclose(p.max() / p)
    balanced = build_loss("bce", {"pos_weight": "balanced", "pos_weight_range": (0.3, 8.0)}, "au", p).pos_weight
    assert balanced.allclose(((1 - p) / p).clamp(0.3, 8.0))


def test_class_weights_are_those_of_weighted_cross_entropy():
    outputs, targets, valid = batch("expr")
    p = rates("expr")
    loss = build_loss("ce", {"weight": "balanced", "weight_range": (1.0, 20.0)}, "expr", p)(outputs, targets, valid)
    kept = valid[..., 0]
    torch.testing.assert_close(loss, F.cross_entropy(outputs[kept], targets[kept][:, 0].long(), weight=p.max() / p))


def test_trap_06_the_ccc_loss_is_one_number_per_target_over_the_flattened_batch():
    outputs, targets, valid = batch("va")
    loss = build_loss("ccc", {}, "va", rates("va"))
    kept = valid[..., 0]
    expected = (1 - ccc(targets[kept].numpy(), outputs[kept].numpy())).sum()
    assert float(loss(outputs, targets, valid)) == pytest.approx(expected, abs=1e-5)
    windows = [float(loss(outputs[i : i + 1], targets[i : i + 1], valid[i : i + 1])) for i in range(3)]
    assert np.mean(windows) != pytest.approx(expected, abs=1e-3)


def test_a_loss_of_another_task_is_refused():
    with pytest.raises(UsageError, match="loss 'ccc' is for regression, intensity, not for a task of kind multi_label"):
        build_loss("ccc", {}, "au", rates("au"))


@pytest.mark.parametrize("value", ["balansed", (1.0, 2.0)])
def test_weights_that_do_not_fit_the_targets_are_refused(value):
    with pytest.raises(UsageError, match=r"pos_weight = .*: expected 'none', 'balanced' or 12 numbers"):
        build_loss("bce", {"pos_weight": value}, "au", rates("au"))


def focal(logit, target, alpha, gamma):
    probability = 1 / (1 + np.exp(-logit))
    hit = probability if target else 1 - probability
    return (alpha if target else 1 - alpha) * (1 - hit) ** gamma * -np.log(hit)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (0.25, 0.0)])
def test_focal_is_the_published_formula(alpha, gamma):
    loss = build_loss("focal", {"alpha": alpha, "gamma": gamma}, "au", rates("au"))
    outputs, targets, valid = batch("au")
    values = [focal(float(o), bool(t), alpha, gamma) for o, t in zip(outputs[valid], targets[valid], strict=True)]
    assert float(loss(outputs, targets, valid)) == pytest.approx(np.mean(values), rel=1e-4)


def test_focal_without_gamma_and_alpha_is_bce():
    outputs, targets, valid = batch("au")
    plain, focal_loss = (
        build_loss(name, params, "au", rates("au"))(outputs, targets, valid)
        for name, params in (("bce", {}), ("focal", {"alpha": -1.0, "gamma": 0.0}))
    )
    torch.testing.assert_close(plain, focal_loss)


def test_soft_margin_is_torchs_and_both_losses_of_usc_are_one_weighted_bce():
    outputs, targets, valid = batch("au")
    everything = torch.ones_like(valid)
    w1, w2 = torch.tensor([1.0, 2, 1, 1, 1, 1, 1, 6, 6, 5, 1, 5]), torch.tensor([1.0, 2, 1, 1, 1, 1, 1, 6, 6, 6, 1, 2])
    published = F.binary_cross_entropy_with_logits(outputs, targets, pos_weight=w1) + F.multilabel_soft_margin_loss(
        outputs.flatten(0, 1), targets.flatten(0, 1), weight=w2
    )
    recipe = load_recipe("usc-multimodal").loss["au"]
    ours = build_loss(recipe.kind, recipe.params, "au", rates("au"))(outputs, targets, everything)
    torch.testing.assert_close(ours, published, rtol=1e-5, atol=1e-6)
    alone = build_loss("soft_margin", {"weight": tuple(w2.tolist())}, "au", rates("au"))(outputs, targets, everything)
    torch.testing.assert_close(
        alone, F.multilabel_soft_margin_loss(outputs.flatten(0, 1), targets.flatten(0, 1), weight=w2)
    )


@pytest.mark.parametrize("rate", [0.026, 0.2, 0.5, 0.627, 0.9])
def test_robin_hood_smooths_the_majority_only_and_balances_at_full_strength(rate):
    shares, truth = torch.tensor([rate]), torch.tensor([[1.0], [0.0]])
    positive, negative = smooth_targets(truth, shares, 1.0)[:, 0].tolist()
    assert rate * positive + (1 - rate) * negative == pytest.approx(0.5, abs=1e-6)
    assert (positive == 1.0) if rate <= 0.5 else (negative == 0.0)
    gentle = smooth_targets(truth, shares, 0.1)
    torch.testing.assert_close(gentle, truth + 0.1 * (smooth_targets(truth, shares, 1.0) - truth))
    if rate == 0.026:
        assert negative == pytest.approx(0.487, abs=0.001)  # (1 - 2f) / (1 - f) / 2


def test_uniform_smoothing_moves_both_classes_equally():
    truth = torch.tensor([[1.0], [0.0]])
    assert smooth_targets(truth, torch.tensor([0.1]), 0.0, 0.2)[:, 0].tolist() == pytest.approx([0.9, 0.1])
