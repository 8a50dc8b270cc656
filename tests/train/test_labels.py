"""Annotations are matched to features row by row."""

import logging
import re

import numpy as np
import pytest

from aupipe.errors import UsageError
from aupipe.tasks import AU_NAMES, EXPR_NAMES, OFFICIAL, VA_NAMES
from aupipe.train.evaluate import evaluate, trivial_baseline
from aupipe.train.intervals import group_sums
from aupipe.train.labels import (
    check_labels,
    match,
    positive_rates,
    scored_rows,
)
from aupipe.train.postprocess import DEFAULTS, fit_postprocess
from aupipe.train.predictions import Predictions
from aupipe.train.recipe_tasks import check_task
from aupipe.types import Labels


def au(targets, valid=None):
    targets = np.asarray(targets, dtype=np.float32)
    return Labels("au", AU_NAMES, targets, np.ones(targets.shape, bool) if valid is None else np.asarray(valid))


def test_rows_after_the_last_label_are_invalid_and_nothing_is_shifted():
    labels = au(np.tile(np.arange(5)[:, None] % 2, 12))
    matched, surplus = match(labels, 7, "a")
    assert (len(matched), surplus) == (7, -2)
    np.testing.assert_array_equal(matched.targets[:5], labels.targets)
    assert matched.valid[:5].all()
    assert not matched.valid[5:].any()


def test_labels_after_the_last_frame_are_cut_off():
    matched, surplus = match(au(np.ones((5, 12))), 3, "a")
    assert (len(matched), surplus) == (3, 2)


@pytest.mark.parametrize(("frames", "warned"), [(10, False), (9, False), (11, False), (8, True), (12, True)])
def test_a_difference_of_more_than_one_row_is_a_warning_naming_the_recording(frames, warned, caplog):
    with caplog.at_level(logging.WARNING):
        match(au(np.ones((10, 12))), frames, "some/track")
    assert ("some/track: 10 label rows" in caplog.text) == warned


def test_a_partly_annotated_row_counts_in_the_loss_but_not_in_the_official_score():
    valid = np.ones((3, 12), bool)
    valid[1, 4] = False
    labels = au(np.ones((3, 12)), valid)
    assert scored_rows(labels).tolist() == [True, False, True]
    assert labels.valid[1].sum() == 11


def test_rates_are_over_valid_entries():
    valid = np.ones((4, 12), bool)
    valid[2:, 0] = False
    targets = np.zeros((4, 12))
    targets[[0, 2, 3], 0] = 1
    assert positive_rates([au(targets, valid)], "au")[0] == 0.5
    expr = Labels("expr", EXPR_NAMES, np.array([[1], [1], [7], [0]], np.float32), np.array([[1], [1], [1], [0]], bool))
    np.testing.assert_allclose(positive_rates([expr], "expr"), [0, 2 / 3, 0, 0, 0, 0, 0, 1 / 3])
    va = Labels("va", VA_NAMES, np.ones((4, 2), np.float32), np.ones((4, 2), bool))
    assert positive_rates([va], "va").tolist() == [1, 1]  # means


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'expr'"):
        check_task("exp")


def test_labels_of_another_task_other_columns_or_an_unknown_class_are_refused():
    labels = au(np.ones((3, 12)))
    check_labels(labels, "au", "a")
    with pytest.raises(UsageError, match="a: labels for 'au', asked for 'va'"):
        check_labels(labels, "va", "a")
    swapped = Labels("au", (*AU_NAMES[1:], "AU1"), labels.targets, labels.valid)
    with pytest.raises(UsageError, match=r"a: columns AU2, .*: expected AU1, "):
        check_labels(swapped, "au", "a")


@pytest.mark.parametrize(
    ("task", "value", "said"),
    [
        ("au", -1, "AU6 is -1, not within 0 to 1"),
        ("au", 2, "AU6 is 2, not within 0 to 1"),
        ("au", np.nan, "AU6 is nan, not within 0 to 1"),
        ("expr", -1, "class is -1, not within 0 to 7"),
        ("expr", 8, "class is 8, not within 0 to 7"),
        ("expr", 1.5, "class is 1.5, not within 0 to 7"),
        ("va", -5, "arousal is -5, not within -1 to 1"),
        ("va", 1.25, "arousal is 1.25, not within -1 to 1"),
    ],
)
def test_a_value_out_of_range_that_is_marked_valid_is_refused_by_name_and_frame(task, value, said):
    names = {"au": AU_NAMES, "expr": EXPR_NAMES, "va": VA_NAMES}[task]
    column = {"au": 3, "expr": 0, "va": 1}[task]
    targets = np.zeros((10, 1 if task == "expr" else len(names)), np.float32)
    targets[6, column] = value
    valid = np.ones(targets.shape, bool)
    labels, predicted = Labels(task, names, targets, valid), np.zeros((10, len(names)), np.float32)
    found = Predictions("a", task, names, predicted, np.ones(10, bool), np.zeros(10))
    for check in (
        lambda: check_labels(labels, task, "a"),
        lambda: evaluate({"a": found}, {"a": labels}, task),
        lambda: trivial_baseline({"a": labels}, task),
        lambda: group_sums({"a": found}, {"a": labels}, task),
        lambda: fit_postprocess({"a": found}, {"a": labels}, task, DEFAULTS[OFFICIAL[task].kind]),
    ):
        with pytest.raises(UsageError, match=rf"a, frame 7: {re.escape(said)} \(1 such values\): mark frames"):
            check()
    valid[6, column] = False
    check_labels(labels, task, "a")


def test_rates_ignore_what_stands_at_invalid_entries():
    targets, valid = np.ones((4, 12), np.float32), np.ones((4, 12), bool)
    targets[1], valid[1] = np.nan, False
    assert positive_rates([au(targets, valid)], "au").tolist() == [1.0] * 12
