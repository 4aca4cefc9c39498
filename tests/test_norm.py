"""GroupNorm and SiLU as a compiler gets them: the same functions and gradients as torch's own, and taken only where they should be."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_runs import needs_compiler, some_pictures
from torch import Tensor, nn

from ddpm_course import TrainConfig, UNet, UNetConfig
from ddpm_course.models import norm
from ddpm_course.models.norm import GroupNorm, SiLUWithSlope, rewritten, silu
from ddpm_course.train import Run

SMALL = UNetConfig(image_size=8, channels=1, base_channels=16, multipliers=(1, 2), num_res_blocks=1, attention_sizes=(4,), groups=4)


def normed(layer: GroupNorm, how: str, x: Tensor) -> tuple[Tensor, ...]:
    """The answer and the gradients for x, weight and bias of a fixed sum of it."""
    x = x.clone().requires_grad_()
    y = layer.by_sums(x) if how == "sums" else F.group_norm(x, layer.num_groups, layer.weight, layer.bias, layer.eps)
    mix = torch.linspace(-1, 2, y.numel()).reshape(y.shape).to(y.dtype)
    return y, *torch.autograd.grad((y * mix).double().sum(), (x, layer.weight, layer.bias))


@given(st.integers(1, 3), st.sampled_from([(1, 1), (3, 2), (4, 4)]), st.sampled_from([(1, 3), (4, 4), (5, 2)]), st.integers(0, 10**6))
def test_group_norm_by_sums_is_group_norm(batch: int, groups_and_width: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    groups, width = groups_and_width
    assume(width * size[0] * size[1] >= 6)  # of a handful of numbers the variance may vanish
    torch.manual_seed(seed)
    layer, x = GroupNorm(groups * width, groups), torch.randn(batch, groups * width, *size) * 3 + 1
    nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    for mine, torchs in zip(normed(layer, "sums", x), normed(layer, "torch", x), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("mean", "std"), [(0, 1), (5, 1), (-50, 1), (30, 0.01), (1000, 0.1)])
@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 8), (torch.float32, 20)])
def test_group_norm_by_sums_is_exact_to_the_last_digits(mean: float, std: float, dtype: torch.dtype, bits: int) -> None:
    torch.manual_seed(0)
    x = (torch.randn(4, 8, 16, 16) * std + mean).to(dtype)
    exact = F.group_norm(x.double(), 2, eps=1e-6)
    error = (GroupNorm(8, 2).by_sums(x).double() - exact).abs().max()
    assert error <= 2**-bits * max(exact.abs().max(), 1)  # in bf16: half a unit in the last place of the largest answer


def test_equal_numbers_give_the_bias_and_no_nan() -> None:
    y, *gradients = normed(GroupNorm(4, 2), "sums", torch.full((1, 4, 3, 3), 1000.0))
    assert y.abs().max() < 1 and all(gradient.isfinite().all() for gradient in gradients)


def test_the_members_of_groups_are_not_saved() -> None:
    layer = GroupNorm(6, 2)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer.members.tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]


@given(st.floats(-200, 200, width=32))
def test_silu_with_slope_is_silu(value: float) -> None:
    x = torch.tensor([value], requires_grad=True)
    mine, torchs = SiLUWithSlope.apply(x), F.silu(x)
    torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(y, x)[0] for y in (mine, torchs)), rtol=1e-5, atol=1e-6)


def test_silu_keeps_the_type_of_its_numbers() -> None:
    x = torch.linspace(-8, 8, 99).bfloat16().requires_grad_()
    y = SiLUWithSlope.apply(x)
    assert y.dtype == torch.bfloat16 and torch.autograd.grad(y.sum(), x)[0].dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), F.silu(x.float()), rtol=2**-8, atol=1e-6)


def test_outside_a_compiler_torchs_own_functions_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 4, 3, 3).bfloat16()
    assert not rewritten(x) and torch.equal(silu(x), F.silu(x))
    layer = GroupNorm(4, 2).bfloat16()
    assert torch.equal(layer(x), F.group_norm(x, 2, layer.weight, layer.bias, 1e-6))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert rewritten(x) and rewritten(x.float()) and not rewritten(x.double()) and not rewritten(x.half()) and not rewritten(x.to("meta"))


def test_a_network_as_the_compiler_sees_it_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, x, t = UNet(SMALL), torch.randn(3, 1, 8, 8), torch.tensor([1, 500, 1000])
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    wanted = net(x, t)
    wanted_gradients = torch.autograd.grad(wanted.square().sum(), list(net.parameters()))
    monkeypatch.setattr(norm, "rewritten", lambda x: x.ndim == 4)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # upsampling, 1x1 products
    found = net(x, t)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for a, b in zip(torch.autograd.grad(found.square().sum(), list(net.parameters())), wanted_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max() + 1))


@needs_compiler
@pytest.mark.parametrize(("precision", "allowed"), [("bf16", 0.02), ("fp32", 1e-5)])
def test_a_compiled_run_has_the_gradients_of_the_plain_one(precision: str, allowed: float, monkeypatch: pytest.MonkeyPatch) -> None:
    net = UNetConfig(8, 1, 8, multipliers=(1,), num_res_blocks=1, attention_sizes=(), groups=2, middle_attention=False)
    config = TrainConfig(net=net, prediction="eps", batch_size=16, precision=precision)
    x_t, data = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), some_pictures()
    traced, gradients = [], []
    monkeypatch.setattr(norm, "rewritten", lambda x: traced.append(rewritten(x)) or traced[-1])
    for how in ("default", "off"):
        run = Run(dataclasses.replace(config, compile=how), data)
        assert run.raw.down[0][0].conv_1.weight.is_contiguous(memory_format=torch.channels_last) == (how == "default")  # by itself
        run.forward(x_t, torch.arange(1, 1000, 63)).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in run.raw.parameters()]))
    assert True in traced and False in traced
    compiled, plain = gradients
    assert (compiled - plain).norm() <= allowed * plain.norm()  # in bf16 the plain one is as far from fp32
