"""Training on a CUDA device (``pytest -m gpu``), compared with training on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aupipe.train.data import fit_scaling, load_examples
from aupipe.train.loader import InMemory, Streaming
from aupipe.train.predict import predict
from aupipe.train.run import load_run, load_weights
from aupipe.train.windows import tile
from tests.train.reference_batch import collate

from .test_heads import D, every_head, in_training_without_dropout
from .test_schedule import Killed, killed_after, train
from .toy_corpus import Corpus, make_corpus

pytestmark = [pytest.mark.gpu]

CUDA = "cuda:0"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(train=4, validation=2, frames=90)


@pytest.mark.parametrize("kind", [InMemory, Streaming])
def test_a_loader_gives_what_collate_makes(corpus, kind):
    examples = load_examples(corpus.store, corpus.train, corpus.features, corpus.labels)
    scaling = fit_scaling(examples)
    windows = [window for item in examples for window in tile(item.recording, len(item), 40, 25, 7)]
    chunks = [windows[at : at + 3] for at in range(0, len(windows), 3)]
    by_id = {item.recording: item for item in examples}
    for batch, chunk in zip(kind(examples, scaling, CUDA).batches(chunks), chunks, strict=True):
        wanted = collate(by_id, chunk, scaling)
        for name in ("x", "mask", "targets", "valid"):
            assert getattr(batch, name).is_cuda
            np.testing.assert_array_equal(getattr(batch, name).cpu().numpy(), getattr(wanted, name), err_msg=name)


@every_head
def test_a_head_gives_the_same_scores_and_gradients_as_on_a_cpu(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    found = []
    for device in ("cpu", CUDA):
        head = in_training_without_dropout(name).to(device)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(3, 20, D, generator=generator).to(device)
        mask = (torch.arange(20) < torch.tensor([[20], [11], [5]])).to(device)
        out = head(x, mask) * mask[..., None]
        out.square().sum().backward()
        found.append([out.detach(), *(value.grad for value in head.parameters() if value.grad is not None)])
    # A gradient that is rounding error only (of a bias before a norm) is small relative to the largest gradient.
    largest = max(float(ours.abs().max()) for ours in found[0])
    for ours, theirs in zip(*found, strict=True):
        scale = max(float(ours.abs().max()), 1e-3 * largest)
        torch.testing.assert_close(theirs.cpu(), ours, rtol=0, atol=2e-3 * scale)


@pytest.mark.parametrize("how", [{}, {"recipe": "baseline", "small": ("epochs=3",)}], ids=["tcn", "baseline"])
def test_training_ends_near_that_of_a_cpu_and_the_run_is_read_on_both(corpus, tmp_path, how):
    here, there = (train(corpus, tmp_path / device[:3], device=device, **how) for device in ("cpu", CUDA))
    assert there.scores.mean == pytest.approx(here.scores.mean, abs=0.05)
    run = load_run(there.path)
    scores = [predict(run, corpus.store, corpus.validation, device=device) for device in ("cpu", CUDA)]
    for recording in corpus.validation:
        on_cpu, on_gpu = (each[recording.id].scores for each in scores)
        np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-2)


def test_a_killed_deterministic_run_resumes_to_exactly_the_weights_of_an_uninterrupted_one(corpus, tmp_path):
    how = {"device": CUDA, "deterministic": True}
    whole = train(corpus, tmp_path / "whole", **how)
    with pytest.raises(Killed):
        train(corpus, tmp_path / "cut", progress=killed_after(2), **how)
    cut = train(corpus, tmp_path / "cut", resume=True, **how)
    weights = [load_weights(run)[0] for run in (whole, cut)]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("options", [{"overrides": ("amp=true",)}, {"compiled": True}, {"memory_limit": 0}])
def test_half_precision_compilation_and_streaming_train_to_nearly_the_same_score(corpus, tmp_path, options):
    plain = train(corpus, tmp_path / "plain", device=CUDA)
    other = train(corpus, tmp_path / "other", device=CUDA, **options)
    assert other.scores.mean == pytest.approx(plain.scores.mean, abs=0.05)
