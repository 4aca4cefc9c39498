"""Dropout: the share of zeros, the size of the rest, masks without a pattern, drawn or hashed; and a compiled run."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import needs_compiler, some_pictures
from torch import Tensor

from ddpm_course import TrainConfig, UNetConfig
from ddpm_course.models.dropout import Dropout, hashed, kept_by_hash
from ddpm_course.train import Run

SEEDS = torch.tensor([123456789, -987654321], dtype=torch.int32)


@pytest.fixture(params=["drawn", "hashed"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param == "hashed")
    return request.param


@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_p_is_zero_and_the_rest_grows(how: str, p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(8, 32, 32, 32, dtype=dtype)
    y = Dropout(p)(x)
    n = y.numel()
    assert y.dtype == dtype and y.shape == x.shape
    assert abs(int((y == 0).sum()) - n * p) < 4 * (n * p * (1 - p)) ** 0.5
    torch.testing.assert_close(
        y[y != 0].float().unique(), torch.tensor([1 / (1 - p)]), rtol=2**-8 if dtype == torch.bfloat16 else 1e-6, atol=0
    )


def test_a_gradient_passes_where_the_number_passed(how: str) -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    y = Dropout(0.4)(x)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0] * x, y)


def test_masks_follow_the_seed_and_differ_from_layer_to_layer(how: str) -> None:
    x, layers = torch.ones(2, 4, 8, 8), [Dropout(0.5), Dropout(0.5)]
    masks = []
    for _ in range(2):
        torch.manual_seed(7)
        masks.append([layer(x) for layer in layers])
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True)) and not torch.equal(*masks[0])


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_everything_are_torchs_own(how: str, p: float) -> None:
    x = torch.randn(2, 3)
    assert torch.equal(Dropout(p)(x), F.dropout(x, p))
    assert torch.equal(Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 7), (2, 3, 4, 5)])
def test_any_shape_counts_with_the_channels_last(shape: tuple[int, ...]) -> None:
    mask = kept_by_hash(torch.Size(shape), 0.25, SEEDS)
    flat = kept_by_hash(torch.Size((1, mask.numel())), 0.25, SEEDS)
    assert mask.shape == shape and torch.equal(mask.movedim(1, -1).flatten(), flat[0])


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_the_hash_is_murmurs_by_hand(place: int, seed: int) -> None:
    h = (place ^ seed) % 2**32
    h = ((h ^ h >> 16) * 0x85EBCA6B % 2**32) ^ (seed + 1) % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    wanted = h ^ h >> 16
    seeds = torch.tensor([seed, (seed + 1 + 2**31) % 2**32 - 2**31], dtype=torch.int32)
    assert int(hashed(torch.tensor([place], dtype=torch.int32), seeds)) % 2**32 == wanted


def numbers(seeds: Tensor, n: int = 2**18) -> Tensor:
    """Hashes of 0..n-1, scaled to a standard deviation of 1."""
    return hashed(torch.arange(n, dtype=torch.int32), seeds).double() / 2**32 * 12**0.5


@pytest.mark.parametrize("lag", [1, 2, 3, 32, 64, 128, 1024, 4096, 65536])
def test_neighbours_layers_and_steps_have_nothing_in_common(lag: int) -> None:
    generator = torch.Generator().manual_seed(lag)
    a, b = (numbers(torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32, generator=generator)) for _ in range(2))
    assert abs(float(a.mean())) < 4 * len(a) ** -0.5
    for one, other in ((a[:-lag], a[lag:]), (a[:-lag].abs(), a[lag:].abs()), (a, b)):
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 4.5 * len(one) ** -0.5


def test_eight_neighbours_make_every_pattern_equally_often() -> None:
    bits = (hashed(torch.arange(2**21, dtype=torch.int32), SEEDS) >= 0).reshape(-1, 8).long()
    counts = torch.bincount((bits * 2 ** torch.arange(8)).sum(1), minlength=256).double()
    chi_square = float(((counts - counts.mean()).square() / counts.mean()).sum())
    assert abs(chi_square - 255) < 4 * (2 * 255) ** 0.5


@needs_compiler
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (4, 32, 8, 8)])
def test_the_compilers_mask_is_the_plain_one(shape: tuple[int, ...]) -> None:
    """Products overflow 32 bits, in registers of sixteen numbers and in the rest that fills none."""
    mask = torch.compile(lambda seeds: kept_by_hash(torch.Size(shape), 0.3, seeds))(SEEDS)
    assert torch.equal(mask, kept_by_hash(torch.Size(shape), 0.3, SEEDS))


@needs_compiler
def test_a_compiled_run_draws_new_masks_at_every_step_and_the_same_ones_again() -> None:
    """With checkpointing, too, which computes the forward pass twice: a second mask would give other gradients."""
    net = UNetConfig(8, 1, 16, (1,), 1, (), groups=2, middle_attention=False, dropout=0.5)
    config, x_t, t = TrainConfig(net=net, batch_size=16, compile="default"), torch.randn(16, 1, 8, 8), torch.arange(1, 1000, 63)
    gradients = []
    for checkpointing in (False, True):
        run = Run(dataclasses.replace(config, net=dataclasses.replace(net, checkpointing=checkpointing)), some_pictures())
        run.raw.train()
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            run.raw.zero_grad()
            run.forward(x_t, t).square().mean().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in run.raw.parameters()]))
    first, again, other, *checkpointed = gradients
    assert torch.equal(first, again) and (first - other).norm() > 0.1 * first.norm()
    for plain, twice in zip(gradients[:3], checkpointed, strict=True):
        assert (plain - twice).norm() < 1e-5 * plain.norm()
