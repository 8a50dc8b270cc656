"""What every registered head promises, plug-ins included; and the published TCN."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from aupipe.errors import UsageError
from aupipe.train.heads import HEADS, build_head
from aupipe.train.heads.tcn import TemporalConvNet

D, K = 11, 5
every_head = pytest.mark.parametrize("name", HEADS.names())


def make(name, **params):
    torch.manual_seed(0)
    head = build_head(name, params, D, K)
    with torch.no_grad():
        for parameter in head.parameters():  # no zeros: what is not connected must show
            parameter.add_(0.05 * torch.randn_like(parameter))
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
    idle = [key for key, value in head.named_parameters() if value.grad is None or not value.grad.any()]
    assert idle == []


@every_head
def test_an_unknown_parameter_is_refused_by_name(name):
    with pytest.raises(UsageError, match=f"head '{name}': unknown key 'drop_out'. Did you mean 'dropout'"):
        build_head(name, {"drop_out": 0.1}, D, K)


def reach(head, at=40, frames=81):
    """The input frames that frame ``at`` of the output depends on."""
    x = torch.randn(1, frames, D, requires_grad=True)
    head.eval()(x, torch.ones(1, frames, dtype=torch.bool))[0, at].square().sum().backward()
    return torch.nonzero(x.grad[0].abs().sum(dim=1))[:, 0].tolist()


def test_a_linear_head_sees_one_frame():
    assert reach(make("linear")) == [40]


def test_a_causal_tcn_sees_only_the_past_and_the_other_both_sides_alike():
    params = {"channels": (8, 8), "kernel_size": 3}
    assert reach(make("tcn", causal=True, **params)) == list(range(40 - 12, 41))
    assert reach(make("tcn", causal=False, **params)) == list(range(40 - 6, 40 + 7))


def test_trap_12_an_even_kernel_that_would_shift_by_half_a_frame_is_refused():
    with pytest.raises(UsageError, match="kernel_size = 4 must be odd"):
        make("tcn", kernel_size=4)
    make("tcn", kernel_size=4, causal=True)


def published_tcn(sizes, kernel_size):
    """Bai, Kolter and Koltun's network as its authors wrote it down, on torch's weight_norm."""

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
    torch.testing.assert_close(ours(x), theirs.network(x))
