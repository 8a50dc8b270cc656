"""Context across the edges of windows: what is read and not scored."""

import numpy as np
import pytest
import torch

from aupipe.errors import UsageError
from aupipe.train.context import Context
from aupipe.train.data import fit_scaling, load_examples
from aupipe.train.evaluate import evaluate
from aupipe.train.fit import epoch_windows
from aupipe.train.heads import HEADS, build_head, context_of, reads_times
from aupipe.train.inference import score_recordings
from aupipe.train.loader import InMemory, Streaming
from aupipe.train.predict import predict
from aupipe.train.recipe import load_recipe
from aupipe.train.windows import tile, with_context
from aupipe.types import Window
from tests.train.reference_batch import collate

from .toy_corpus import make_corpus, train_corpus

DIMS, NAMES, K, T = (4, 2), ("face", "sound"), 3, 61

# Heads with a context, by name: those parameters that give them one. Every other head reads whole windows.
STREAMS = [
    {"feature": "face", "kind": "static", "width": 5},
    {"feature": "face", "width": 4, "context": 4},
    {"feature": "sound", "width": 3, "seconds": 0.3},
]
CASES = [
    ("linear", {}),
    ("mlp", {"width": 8}),
    ("tcn", {"channels": [8, 8], "width": 8}),
    ("tcn", {"channels": [8, 8], "width": 8, "causal": True, "kernel_size": 4}),
    ("gru", {"context": 3, "width": 4, "hidden": 8}),
    ("gru", {"streams": STREAMS, "hidden": 8}),
]
every_case = pytest.mark.parametrize(("kind", "params"), CASES)


class Clip:
    """A recording of uneven frame times."""

    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.08, T))

    def __len__(self):
        return T


def make(kind, params, seed=0):
    torch.manual_seed(seed)
    head = build_head(kind, params, sum(DIMS) + len(DIMS), K, DIMS, names=NAMES).double().eval()
    with torch.no_grad():
        for value in head.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return head


def run(head, x, window):
    """The outputs of the scored frames of one window."""
    first, last = window.start - window.before, window.stop + window.after
    mask = torch.ones(1, last - first, dtype=torch.bool)
    scored = torch.zeros_like(mask)
    scored[:, window.before : window.before + len(window)] = True
    batch = {"scored": scored, "times": torch.from_numpy(Clip.times[first:last])[None]}
    out = head(x[:, first:last], mask, **{name: batch[name] for name in getattr(head, "reads", ())})
    return out[0, window.before : window.before + len(window)]


@pytest.mark.parametrize("name", sorted(set(HEADS.names()) - {"trained_tail"}))  # it has that of the head after it
def test_every_head_declares_a_context_or_refuses_a_margin(name):
    """A head that has a context in any configuration has a case here."""
    head = build_head(name, {"channels": [[8]], "width": 8} if name == "gpt2" else {}, 11, K, (4, 2, 2))
    cases = {kind for kind, _ in CASES}
    if getattr(head, "context", None) is None:
        with pytest.raises(UsageError, match="margin = true: each output of this head depends on the whole window"):
            context_of(head, margin=True)
    else:
        assert name in cases
    assert context_of(head, margin=False) == Context()


@every_case
@pytest.mark.parametrize("window", [1, 7, 20])
def test_window_seams_do_not_change_a_head_with_context(kind, params, window):
    head = make(kind, params)
    x = torch.randn(1, T, 8, dtype=torch.double)
    windows = with_context(tile("a", T, window, window), context_of(head, margin=True), Clip())
    with torch.no_grad():
        whole = run(head, x, Window("a", 0, T))
        pieces = torch.cat([run(head, x, one) for one in windows])
    assert float((whole - pieces).abs().max()) < 1e-14


@pytest.mark.parametrize(("kind", "params"), [case for case in CASES if case[0] not in ("linear", "mlp")])
def test_without_a_margin_seams_do_change_it(kind, params):
    head = make(kind, params)
    x = torch.randn(1, T, 8, dtype=torch.double)
    with torch.no_grad():
        pieces = torch.cat([run(head, x, one) for one in tile("a", T, 7, 7)])
        assert float((run(head, x, Window("a", 0, T)) - pieces).abs().max()) > 1e-4


@every_case
def test_a_head_depends_on_no_frame_beyond_its_context(kind, params):
    head, at = make(kind, params), 30
    x = torch.randn(1, T, 8, dtype=torch.double, requires_grad=True)
    run(head, x, Window("a", 0, T))[at].square().sum().backward()
    found = torch.nonzero(x.grad[0].abs().sum(dim=1))[:, 0]
    (read,) = with_context([Window("a", at, at + 1)], head.context, Clip())
    assert (int(found.min()), int(found.max())) == (at - read.before, at + read.after)


def test_a_context_in_seconds_follows_the_times_of_the_frames_and_ends_with_the_recording():
    context = Context(before=1, after=1, seconds=0.5)
    for window in with_context(tile("a", T, 10, 10), context, Clip()):
        first, last = window.start - window.before, window.stop + window.after - 1
        inside = np.flatnonzero(
            (Clip.times >= Clip.times[window.start] - 0.5) & (Clip.times <= Clip.times[window.stop - 1] + 0.5)
        )
        assert (first, last) == (inside[0], inside[-1])


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(train=4, validation=2, frames=90)


@pytest.mark.parametrize("kind", [InMemory, Streaming])
def test_loaders_read_context_that_is_not_valid_and_give_times(corpus, kind):
    examples = load_examples(corpus.store, corpus.train, corpus.features, corpus.labels)
    scaling, context = fit_scaling(examples), Context(before=5, after=2, seconds=0.3)
    windows = [one for item in examples for one in with_context(tile(item.recording, len(item), 20, 20), context, item)]
    chunks = [windows[at : at + 3] for at in range(0, len(windows), 3)]
    by_id = {item.recording: item for item in examples}
    for batch, chunk in zip(kind(examples, scaling, "cpu", timed=True).batches(chunks), chunks, strict=True):
        wanted = collate(by_id, chunk, scaling, timed=True)
        for name in ("x", "mask", "targets", "valid", "scored", "times"):
            assert np.array_equal(getattr(batch, name).numpy(), getattr(wanted, name)), name
        assert not (wanted.valid & ~wanted.scored[..., None]).any()
        for row, window in enumerate(chunk):
            assert wanted.scored[row].sum() == len(window)
            assert wanted.mask[row].sum() == window.before + len(window) + window.after
            assert wanted.times[row, window.before] == window.start / 25


SMALL = ("features=['face','sound']", "epochs=2", "head.layers=1", "head.hidden=16", "batch=4", "steps=0")
ENTRIES = (
    "head.static=[]",
    "head.streams=[{feature='face', kind='static', width=8}, {feature='face', width=8, context=4}, "
    "{feature='sound', width=4, seconds=0.2}]",
    "margin=true",
    "hop=12",
    "window=12",
)


def test_a_run_with_margin_scores_the_same_in_windows_of_any_length(corpus, tmp_path):
    recipe = load_recipe("usc-multimodal", [*SMALL, *ENTRIES])
    trained = train_corpus(corpus, tmp_path / "run", recipe)
    annotated = {item.id: corpus.labels[item.id] for item in corpus.validation}
    assert evaluate(predict(trained, corpus.store, corpus.validation), annotated, "au").values == trained.scores.values
    examples = load_examples(corpus.store, corpus.validation, corpus.features)
    head = build_head("gru", recipe.head.params, 21, 12, (16, 3), names=("face", "sound")).eval()
    loader = InMemory(examples, fit_scaling(examples), "cpu", reads_times(head))
    found = [
        score_recordings(head, examples, loader, load_recipe("usc-multimodal", [*SMALL, *ENTRIES, *more]), trained.task)
        for more in ((), ("predict_window=5", "predict_hop=5"), ("predict_window=500",))
    ]
    for name, scores in found[0].items():
        for other in found[1:]:
            np.testing.assert_allclose(scores, other[name], rtol=0, atol=1e-6)


def test_a_margin_of_a_head_that_reads_whole_windows_is_refused(corpus, tmp_path):
    with pytest.raises(UsageError, match="margin = true: each output of this head depends on the whole window"):
        train_corpus(corpus, tmp_path / "run", load_recipe("tmf-ensemble", ["features=[]", "margin=true"]))


def test_context_in_seconds_without_a_stored_clock_is_refused_by_name(tmp_path):
    corpus = make_corpus(train=4, validation=2, frames=90)
    clock = corpus.store.spec(corpus.features["face"]).inputs["clock"]
    for video in {item.key_for("clock") for item in (*corpus.train, *corpus.validation)}:
        corpus.store.delete(video, clock)
    with pytest.raises(UsageError, match="video0_left: no clock is stored for its features"):
        train_corpus(corpus, tmp_path / "run", load_recipe("usc-multimodal", [*SMALL, *ENTRIES]))


def test_epochs_read_windows_with_context_and_score_each_frame_once(corpus):
    examples = load_examples(corpus.store, corpus.train, corpus.features, corpus.labels)
    recipe = load_recipe("tcn", ["window=16", "hop=16"])
    windows = epoch_windows(examples, recipe, np.random.default_rng(0), Context(3, 3))
    assert sum(map(len, windows)) == sum(map(len, examples))
    assert {window.before for window in windows} == {0, 3}
