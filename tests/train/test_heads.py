"""The contract of every registered head, plug-ins included; and the published TCN."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch import nn

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.tasks import OFFICIAL
from aupipe.train.heads import HEADS, build_head, require_weights
from aupipe.train.heads.tcn import TemporalConvNet
from aupipe.train.loader import DeviceBatch

D, K = 11, 5
# A trained tail reads crops or maps, which these columns are not: test_trained_tail.py has its contract.
every_head = pytest.mark.parametrize("name", sorted(set(HEADS.names()) - {"trained_tail"}))


# The published widths would make the suite slow; all other heads have their default parameters.
SMALL = {
    "tcn_transformer": {"channels": [[8, 8]], "width": 16, "layers": 2, "feedforward": 16, "hidden": 8},
    "gpt2": {"channels": [[8, 8]], "width": 16, "layers": 2, "heads": 4, "embedding": 16},
    "vivit": {"tokens": 2, "width": 16, "spatial_layers": 1, "temporal_layers": 2, "feedforward": 16},
    "chain": {"channels": [8], "width": 8},
    "three_branches": {"width": 16, "heads": 4, "layers": 1, "feedforward": 16},
}


def make(name, dims=None, **params):
    torch.manual_seed(0)
    head = build_head(name, SMALL.get(name, {}) | params, D, K, dims)
    with torch.no_grad():
        for parameter in head.parameters():  # zeros would hide parameters that are not connected
            parameter.add_(0.05 * torch.randn_like(parameter))
    return head


def in_training_without_dropout(name):
    head = make(name).train()
    for module in head.modules():
        if isinstance(module, nn.Dropout | nn.GRU | nn.MultiheadAttention):
            setattr(module, "p" if isinstance(module, nn.Dropout) else "dropout", 0.0)
    return head


@every_head
def test_a_head_maps_every_frame_to_its_targets(name):
    head = make(name).eval()
    for frames in (1, 2, 37):
        out = head(torch.randn(3, frames, D), torch.ones(3, frames, dtype=torch.bool))
        assert out.shape == (3, frames, K)
        assert out.dtype == torch.float32


@every_head
@pytest.mark.parametrize("padding", [1, 7, 64])
def test_trap_05_padding_changes_no_valid_output(name, padding):
    head = make(name).eval()
    x = torch.randn(2, 30, D)
    alone = head(x, torch.ones(2, 30, dtype=torch.bool))
    longer = torch.cat([x, 100 * torch.randn(2, padding, D)], dim=1)  # (B, T + padding, D)
    mask = torch.arange(30 + padding).expand(2, -1) < 30
    torch.testing.assert_close(head(longer, mask)[:, :30], alone, rtol=1e-4, atol=1e-5)


@every_head
def test_a_recording_does_not_depend_on_what_it_is_batched_with(name):
    head = make(name).eval()
    x, mask = torch.randn(4, 20, D), torch.ones(4, 20, dtype=torch.bool)
    torch.testing.assert_close(head(x, mask)[2:3], head(x[2:3], mask[2:3]), rtol=1e-4, atol=1e-5)


@every_head
def test_every_parameter_is_trained(name):
    head = make(name)
    head(torch.randn(3, 20, D), torch.ones(3, 20, dtype=torch.bool)).square().sum().backward()
    learnt = {key: value for key, value in head.named_parameters() if value.requires_grad}
    assert [key for key, value in learnt.items() if value.grad is None or not value.grad.any()] == []


@every_head
def test_separate_or_joint_features_make_no_difference_to_the_shapes(name):
    head = make(name, dims=(4, 2, 2)).eval()
    assert head(torch.randn(2, 9, D), torch.ones(2, 9, dtype=torch.bool)).shape == (2, 9, K)


@every_head
def test_trap_05_padding_moves_no_gradient_either(name):
    """In training too, batch statistics included, padding has no effect."""
    found = []
    for padding in (0, 9):
        head = in_training_without_dropout(name)
        torch.manual_seed(1)
        x = torch.cat([torch.randn(2, 12, D), 50 * torch.ones(2, padding, D)], dim=1)
        mask = torch.arange(12 + padding).expand(2, -1) < 12
        out = head(x, mask)
        (out[:, :12] * torch.linspace(-1, 1, 2 * 12 * K).reshape(2, 12, K)).sum().backward()
        found.append([value.grad for value in head.parameters() if value.grad is not None])
    assert len(found[0]) == len(found[1])
    for plain, padded in zip(*found, strict=True):
        torch.testing.assert_close(plain, padded, rtol=2e-3, atol=2e-4)


@every_head
def test_the_same_seed_makes_the_same_head(name):
    first, second = make(name).state_dict(), make(name).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_head
def test_an_unknown_parameter_is_refused_by_name(name):
    with pytest.raises(UsageError, match=f"head '{name}': unknown key 'drop_out'. Did you mean 'dropout'"):
        build_head(name, {"drop_out": 0.1}, D, K)


def reach(head, at=40, frames=81):
    """The input frames that frame ``at`` of the output depends on."""
    x = torch.randn(1, frames, D, requires_grad=True)
    head.eval()(x, torch.ones(1, frames, dtype=torch.bool))[0, at].square().sum().backward()
    return torch.nonzero(x.grad[0].abs().sum(dim=1))[:, 0].tolist()


def test_a_linear_head_reads_one_frame():
    assert reach(make("linear")) == [40]


def test_a_causal_tcn_reads_past_frames_only_and_a_centred_one_both_sides_equally():
    params = {"channels": (8, 8), "kernel_size": 3}
    assert reach(make("tcn", causal=True, **params)) == list(range(40 - 12, 41))
    assert reach(make("tcn", causal=False, **params)) == list(range(40 - 6, 40 + 7))


def test_trap_12_an_even_kernel_that_is_not_centred_is_refused():
    with pytest.raises(UsageError, match="kernel_size = 4 must be odd"):
        make("tcn", kernel_size=4)
    make("tcn", kernel_size=4, causal=True)


def published_tcn(sizes, kernel_size):
    """Bai, Kolter and Koltun's network as its authors published it, with torch's weight_norm."""

    class Block(nn.Module):
        def __init__(self, inputs, outputs, dilation):
            super().__init__()
            reach = (kernel_size - 1) * dilation

            def conv(a):
                return nn.utils.weight_norm(nn.Conv1d(a, outputs, kernel_size, padding=reach, dilation=dilation))

            self.conv1, self.conv2 = conv(inputs), conv(outputs)
            half = [nn.Identity(), nn.ReLU(), nn.Dropout(0.2)]
            self.net = nn.Sequential(self.conv1, *half, self.conv2, *half)
            self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

        def forward(self, x):
            frames = x.shape[-1]
            out = torch.relu(self.conv1(x)[..., :frames])
            out = torch.relu(self.conv2(out)[..., :frames])
            return torch.relu(out + (x if self.downsample is None else self.downsample(x)))

    model = nn.Module()
    model.network = nn.Sequential(*[Block(a, b, 2**i) for i, (a, b) in enumerate(pairwise(sizes))])
    return model.eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_a_published_checkpoint_loads_strictly_and_computes_the_same():
    torch.manual_seed(0)
    theirs = published_tcn([6, 8, 8, 4], kernel_size=3)
    ours = TemporalConvNet(6, [8, 8, 4], kernel_size=3, dropout=0.2).eval()
    ours.load_state_dict(theirs.state_dict())
    assert "network.0.net.4.weight_g" in ours.state_dict()
    x = torch.randn(2, 6, 50)
    torch.testing.assert_close(ours(x, torch.ones(2, 50, dtype=torch.bool)), theirs.network(x))


def test_only_norms_and_positions_of_gpt2_are_trained():
    head = make("gpt2")
    learnt = {name for name, value in head.gpt2.named_parameters() if value.requires_grad}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in learnt} == {"ln_1", "ln_2", "ln_f", "wpe"}
    assert reach(head) == list(range(41))  # its attention is causal


def test_gpt2_weights_are_found_like_those_of_an_encoder(tmp_path, monkeypatch, caplog):
    from transformers import GPT2Config, GPT2Model

    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissingError, match="`hf download gpt2-tiny` puts it into the hub's cache"):
        make("gpt2", weights="gpt2-tiny")
    (tmp_path / "gpt2-tiny").mkdir()
    (tmp_path / "gpt2-tiny" / "config.json").write_text("{}")
    with pytest.raises(WeightsMissingError, match=r"no model\.safetensors in .*gpt2-tiny"):
        require_weights("gpt2", {"weights": "gpt2-tiny"})
    torch.manual_seed(5)
    theirs = GPT2Model(GPT2Config(vocab_size=3, n_positions=64, n_embd=16, n_layer=3, n_head=4))
    theirs.save_pretrained(tmp_path / "gpt2-tiny")
    params = SMALL["gpt2"] | {"weights": "gpt2-tiny"}
    with pytest.raises(UsageError, match=r"has another size than the recipe: --set head\.positions=64"):
        build_head("gpt2", params, D, K)
    head = build_head("gpt2", params | {"positions": 64, "dropout": 0.3}, D, K)
    assert len(head.gpt2.h) == 2
    assert {part.p for part in head.gpt2.modules() if isinstance(part, torch.nn.Dropout)} == {0.3}
    torch.testing.assert_close(head.gpt2.h[1].mlp.c_fc.weight, theirs.h[1].mlp.c_fc.weight)
    assert "random weights" not in caplog.text


def test_random_gpt2_blocks_are_named_once_when_training_begins(caplog):
    make("gpt2", weights="random")
    assert "its frozen blocks have random weights, not those of GPT-2" in caplog.text


@pytest.mark.parametrize("name", ["gpt2", "vivit"])
def test_a_window_longer_than_the_positions_is_refused(name):
    with pytest.raises(UsageError, match="a window of 9 frames, positions = 8"):
        make(name, positions=8)(torch.randn(1, 9, D), torch.ones(1, 9, dtype=torch.bool))


def test_a_map_of_other_size_is_refused():
    with pytest.raises(UsageError, match="10 columns is no map of 16 tokens"):
        make("vivit", tokens=16)


def test_tmf_ignores_the_order_of_frames_and_a_tcn_before_the_encoder_does_not():
    x, mask = torch.randn(1, 12, D), torch.ones(1, 12, dtype=torch.bool)
    order = torch.randperm(12)
    for name, ignores_order in (("tmf", True), ("tcn_transformer", False)):
        head = make(name).eval()
        same = torch.allclose(head(x[:, order], mask), head(x, mask)[:, order], atol=1e-5)
        assert same == ignores_order


def test_a_gru_around_each_frame_reads_its_context_and_no_more():
    assert reach(make("gru", context=3)) == list(range(37, 44))


def test_the_posterior_of_the_crf_is_that_of_all_state_sequences():
    """Compared with the sum over all state sequences of a short window."""
    head = make("chain", states=3, channels=[]).eval().double()
    fit = torch.randn(1, 4, 3, dtype=torch.double)
    transitions = head.transitions()
    total = torch.zeros(4, 3, dtype=torch.double)
    for path in product(range(3), repeat=4):
        log = head.first[path[0]] + sum(fit[0, t, s] for t, s in enumerate(path))
        log = log + sum(transitions[a, b] for a, b in pairwise(path))
        for t, s in enumerate(path):
            total[t, s] += log.exp()
    expected = total / total.sum(dim=1, keepdim=True)
    torch.testing.assert_close(head.posterior(fit, torch.ones(1, 4, dtype=torch.bool))[0], expected)


def test_the_crf_is_initialised_with_the_most_frequent_configurations():
    targets = torch.zeros(40, 12)
    targets[:12, 5] = 1
    targets[12:16, [1, 2]] = 1
    head = build_head("chain", {"states": 4}, D, 12)
    head.start_from(lambda: [batch_of(targets)], OFFICIAL["au"])
    assert head.known.tolist() == [1, 1, 1, 0]
    assert head.table[:3].nonzero().tolist() == [[1, 5], [2, 1], [2, 2]]
    assert (head.stay[:3] > 2).all()  # two changes in 40 frames


@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_the_crf_predicts_from_its_closed_form_initialisation(task):
    """Features are linear in the targets, plus noise that is correlated over time; nothing is trained."""
    rng = torch.Generator().manual_seed(0)
    columns, frames = {"au": 12, "expr": 8, "va": 2}[task], 3000
    state = torch.randint(6, (frames // 10,), generator=rng).repeat_interleave(10)
    table = (
        torch.rand(6, 12, generator=rng).round() if task == "au" else torch.randint(-4, 5, (6, 2), generator=rng) / 5
    )
    targets = state[:, None].float() if task == "expr" else table[state]
    shown = torch.eye(8)[state] if task == "expr" else targets
    noise = torch.zeros(frames, D - 1)
    for t in range(1, frames):
        noise[t] = 0.8 * noise[t - 1] + 0.6 * torch.randn(D - 1, generator=rng)
    x = shown @ torch.randn(columns, D - 1, generator=rng) + 0.3 * noise
    head = build_head("chain", {}, D, columns).eval()
    head.start_from(lambda: [batch_of(targets, x)], OFFICIAL[task])
    with torch.no_grad():
        out = head(torch.cat([x, torch.ones(frames, 1)], dim=1)[None], torch.ones(1, frames, dtype=torch.bool))[0]
    if task == "au":
        assert ((out > 0) == (targets > 0.5)).float().mean() > 0.95
    elif task == "expr":
        assert (out.argmax(dim=1) == state).float().mean() > 0.9
    else:
        assert np.corrcoef(out.flatten(), targets.flatten())[0, 1] > 0.9


def batch_of(targets, x=None):
    """One recording of one feature, present in all frames."""
    frames = len(targets)
    x = torch.randn(frames, D - 1) if x is None else x
    there = torch.ones(1, frames, dtype=torch.bool)
    return DeviceBatch(
        torch.cat([x, torch.ones(frames, 1)], dim=1)[None],
        there,
        targets[None],
        there[..., None].expand(1, frames, targets.shape[1]),
    )
