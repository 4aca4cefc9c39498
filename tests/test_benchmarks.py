"""The benchmarks compare like with like: one architecture, one amount of work, and the switches that a GPU gets."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course import UNet

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import bench  # noqa: E402
import ceiling  # noqa: E402
import peers  # noqa: E402


def test_diffusers_gets_our_architecture() -> None:
    for config in peers.NETWORKS.values():
        mine, theirs = UNet(config), peers.diffusers_network(config)
        assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_compiler_is_given_to_both_sides_or_to_none(device: str) -> None:
    assert {"ours bf16 compile", "diffusers bf16 compile"} <= set(peers.contenders(device))
    assert not any("compile" in name for name in peers.contenders(device, compiled=False))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 0), (1, 1, 0)])
def test_flops_of_a_convolution_are_those_that_torch_counts(kernel: int, stride: int, padding: int) -> None:
    shape = ceiling.Shape((4, 9, 7), 6, kernel, stride, padding)
    layer, x = torch.nn.Conv2d(4, 6, kernel, stride, padding), torch.randn(1, 4, 9, 7, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == shape.flops()


def test_every_convolution_is_found() -> None:
    net = UNet(peers.SMALL)
    found = ceiling.convolutions(net, torch.zeros(1, 3, 32, 32))
    assert isinstance(found, Counter) and sum(found.values()) == sum(isinstance(m, torch.nn.Conv2d) for m in net.modules())


def test_the_table_names_what_could_not_run() -> None:
    row = {"name": "ours bf16", "train": [2.0, 4.0, 3.0], "sample": [], "memory_mib": 10.0, "parameters": 7, "flop_per_image": 1e9}
    failed = {"name": "absent", "train": [], "sample": [], "memory_mib": None}
    result = {"size": "small", "batch": 4, "rows": [row, failed], "problems": {"absent": "no such package"}}
    result["ceiling"] = {"convolution bf16 best": 6e9}
    bench.fill(result)
    text = bench.table(result)
    assert "3 [2, 4]" in text and "50 %" in text and "no such package" in text


def test_one_training_step_of_ours() -> None:
    contender = peers.ours(peers.Setting("small", 2))
    before = next(contender.net.parameters()).detach().clone()
    contender.step()
    assert not torch.equal(before, next(contender.net.parameters()))
    assert contender.sample(2, 2).shape == (2, 3, 32, 32)
