"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from ddpm_course.ema import ema_decay, ema_of
from ddpm_course.errors import ConfigError


def test_the_decay_warms_up() -> None:
    assert [ema_decay(n, 0.9) for n in (0, 1, 10, 79, 80, 1000)] == pytest.approx([1 / 10, 2 / 11, 11 / 20, 80 / 89, 0.9, 0.9])
    assert ema_decay(10**6, 0.9999) == 0.9999


def test_the_average_follows_the_recursion() -> None:
    net = nn.Linear(1, 1, bias=False)
    ema, wanted = ema_of(net, 0.6), 0.0
    for n, value in enumerate([3.0, 5.0, -2.0, 7.0, 1.0, 0.5, 9.0]):
        with torch.no_grad():
            net.weight.fill_(value)
        ema.update_parameters(net)
        decay = min(0.6, (1 + n) / (10 + n))
        wanted = value if n == 0 else decay * wanted + (1 - decay) * value  # the first call copies
        assert float(ema.module.weight.detach()) == pytest.approx(wanted, rel=1e-6)


def test_buffers_are_copied_never_averaged() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = ema_of(net, 0.99)
    for _ in range(5):
        net(torch.randn(16, 2) + 10)
        with torch.no_grad():
            net[0].weight.add_(1)
        ema.update_parameters(net)
    assert torch.equal(ema.module[1].running_mean, net[1].running_mean)
    assert int(ema.module[1].num_batches_tracked) == 5
    assert not torch.equal(ema.module[0].weight, net[0].weight)


def test_the_average_is_a_copy_and_needs_no_gradient_of_the_net() -> None:
    net = nn.Linear(1, 1)
    ema = ema_of(net)
    before = ema.module.weight.clone()
    with torch.no_grad():
        net.weight.add_(1)
    assert torch.equal(ema.module.weight, before)


def test_decay_outside_the_unit_interval_is_refused() -> None:
    ema_of(nn.Linear(1, 1), 0.0)
    for decay in (1.0, -0.1, 1.5):
        with pytest.raises(ConfigError, match=r"must lie in \[0, 1\)"):
            ema_of(nn.Linear(1, 1), decay)
