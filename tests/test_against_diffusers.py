"""Step for step and weight for weight against the most used library; and where it errs, that we do not."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel  # noqa: E402

from ddpm_course import (  # noqa: E402
    NoiseSchedule,
    UNet,
    UNetConfig,
    cosine_schedule,
    ddim_step,
    ddpm_step,
    linear_schedule,
    q_sample,
    reverse_variance,
    time_grid,
)
from ddpm_course.unet2d import weights_from_diffusers  # noqa: E402

OURS = {"linear": linear_schedule, "cosine": cosine_schedule}
THEIRS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
VARIANCE = {"fixed_small": "posterior", "fixed_large": "beta"}
Scheduler = DDPMScheduler | DDIMScheduler


def scheduler(kind: type, name: str, S: int, exact: bool, spacing: str = "trailing", **more: object) -> Scheduler:
    """Their scheduler on a grid of S times; `exact` puts our float64 tables into it."""
    built = kind(beta_start=1e-4, beta_end=0.02, beta_schedule=THEIRS[name], clip_sample=False, timestep_spacing=spacing, **more)
    built.set_timesteps(S)
    if exact:
        ours = OURS[name]()
        built.betas, built.alphas, built.alphas_cumprod = ours.beta[1:], ours.alpha[1:], ours.alpha_bar[1:]
        built.one = built.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return built


def probes() -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, 2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def noise(seed: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)


def difference(a: Tensor, b: Tensor) -> float:
    """Relative to the size of the step's result, where that exceeds 1."""
    return float((a - b).abs().max() / max(1.0, float(b.abs().max())))


def pairs(S: int) -> list[tuple[int, int]]:
    grid = time_grid(1000, S).tolist()
    return list(zip(grid[:-2], grid[1:-1], strict=True))  # steps with s > 0


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("kind", VARIANCE)
@pytest.mark.parametrize("S", [1000, 50])
def test_every_ddpm_step_with_exact_tables(name: str, kind: str, S: int) -> None:
    theirs, ours, (x_t, eps) = scheduler(DDPMScheduler, name, S, True, variance_type=kind), OURS[name](), probes()
    assert (theirs.timesteps + 1).tolist() == time_grid(1000, S).tolist()[:-1]
    for t, s in pairs(S):
        wanted = theirs.step(eps, t - 1, x_t, generator=torch.Generator().manual_seed(t)).prev_sample
        assert wanted.dtype == torch.float64
        got = ddpm_step(ours, x_t, eps, t, s, noise(t, x_t), VARIANCE[kind])
        assert difference(got, wanted) < 1e-12, (t, s)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("S", [1000, 50])
def test_every_ddim_step_with_exact_tables(name: str, eta: float, S: int) -> None:
    theirs, ours, (x_t, eps) = scheduler(DDIMScheduler, name, S, True), OURS[name](), probes()
    for t, s in pairs(S):
        wanted = theirs.step(eps, t - 1, x_t, eta=eta, variance_noise=noise(t, x_t) if eta else None).prev_sample
        got = ddim_step(ours, x_t, eps, t, s, noise(t, x_t), eta)
        assert difference(got, wanted) < 1e-12, (t, s)


@pytest.mark.parametrize("S", [500, 100])
def test_every_step_as_shipped_on_the_linear_schedule(S: int) -> None:
    ours, (x_t, eps) = linear_schedule(), probes()
    ddim = scheduler(DDIMScheduler, "linear", S, False)
    by_kind = {kind: scheduler(DDPMScheduler, "linear", S, False, variance_type=kind) for kind in VARIANCE}
    for t, s in pairs(S):
        for kind, ddpm in by_kind.items():
            wanted = ddpm.step(eps, t - 1, x_t, generator=torch.Generator().manual_seed(t)).prev_sample
            got = ddpm_step(ours, x_t, eps, t, s, noise(t, x_t), VARIANCE[kind])
            assert float((got - wanted).norm() / got.norm()) < 2e-4
        wanted = ddim.step(eps, t - 1, x_t, eta=1.0, variance_noise=noise(t, x_t)).prev_sample
        assert float((ddim_step(ours, x_t, eps, t, s, noise(t, x_t), 1.0) - wanted).norm() / wanted.norm()) < 2e-4


def test_add_noise_with_exact_tables() -> None:
    theirs, (x_0, eps) = scheduler(DDPMScheduler, "cosine", 1000, True), probes()
    for t in (1, 2, 500, 1000):
        wanted = theirs.add_noise(x_0, eps, torch.tensor([t - 1, t - 1]))
        assert difference(q_sample(cosine_schedule(), x_0, t, eps), wanted) < 1e-12


# --- known faults of theirs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "off"), [("linear", 1e-4), ("cosine", 4e-4)])
def test_float32_tables_lose_the_first_noise_level_and_ours_do_not(name: str, off: float) -> None:
    exact = 1 - float(OURS[name]().alpha_bar[1])
    theirs = 1 - float(scheduler(DDPMScheduler, name, 1000, False).alphas_cumprod[0])
    ours = float(q_sample(OURS[name](), torch.zeros(1, 1), 1, torch.ones(1, 1))) ** 2
    assert abs(theirs / exact - 1) > off
    assert abs(ours / exact - 1) < 1e-6


def test_bfloat16_pictures_get_no_noise_there_but_do_here() -> None:
    theirs, x_0 = DDPMScheduler(), torch.full((1, 1, 2, 2), 0.5, dtype=torch.bfloat16)
    eps = torch.ones_like(x_0)
    assert torch.equal(theirs.add_noise(x_0, eps, torch.tensor([0])), x_0)
    assert not torch.equal(q_sample(linear_schedule(), x_0, 1, eps), x_0)


@pytest.mark.parametrize(("spacing", "S"), [("linspace", 50), ("trailing", 30)])
def test_their_ddim_misses_its_own_grid_and_ours_lands_on_it(spacing: str, S: int) -> None:
    theirs, ours, (x_t, eps) = scheduler(DDIMScheduler, "linear", S, True, spacing), linear_schedule(), probes()
    grid, misses = [*(theirs.timesteps + 1).tolist(), 0], 0
    for t, s in zip(grid[:-2], grid[1:-1], strict=True):
        wanted = theirs.step(eps, t - 1, x_t).prev_sample
        right, wrong = ddim_step(ours, x_t, eps, t, s), ddim_step(ours, x_t, eps, t, t - 1000 // S)
        assert difference(wrong, wanted) < 1e-12
        misses += difference(right, wanted) > 1e-6
    assert misses >= S // 3


def test_their_fixed_large_still_adds_noise_at_the_end_and_ours_does_not() -> None:
    theirs, (x_t, eps) = scheduler(DDPMScheduler, "linear", 50, True, variance_type="fixed_large"), probes()
    first, again = (theirs.step(eps, 19, x_t, generator=torch.Generator().manual_seed(n)).prev_sample for n in (1, 2))
    assert not torch.allclose(first, again)
    ends = [ddpm_step(linear_schedule(), x_t, eps, 20, 0, noise(n, x_t), "beta") for n in (1, 2)]
    assert torch.equal(*ends)


def test_their_fixed_large_log_is_nan_and_our_beta_is_not() -> None:
    theirs, (x_t, eps) = scheduler(DDPMScheduler, "linear", 1000, True, variance_type="fixed_large_log"), probes()
    assert bool(theirs.step(eps, 499, x_t).prev_sample.isnan().any())
    assert reverse_variance(linear_schedule(), 500, 499, "beta") > 0


def test_four_conventions_at_t_1_are_told_apart() -> None:
    ours, (x_t, eps) = linear_schedule(), probes()
    theirs = scheduler(DDPMScheduler, "linear", 1000, True)
    assert float(theirs._get_variance(0)) == pytest.approx(1e-20)
    values = [reverse_variance(ours, 1, 0, kind) for kind in ("posterior", "beta", "posterior_clipped")]
    assert values[0] == 0 and values[1] == pytest.approx(1e-4) and values[2] == pytest.approx(float(theirs._get_variance(1)), rel=1e-9)
    assert torch.equal(ddpm_step(ours, x_t, eps, 1, 0, noise(0, x_t)), ddpm_step(ours, x_t, eps, 1, 0, None))


def test_their_leading_grid_and_ours() -> None:
    theirs = scheduler(DDPMScheduler, "linear", 300, False, "leading")
    assert (int(theirs.timesteps[0]) + 1, int(time_grid(1000, 300, "leading")[0])) == (898, 997)


# --- the U-Net, weights copied ---------------------------------------------------------------------------------------


def copied(theirs: nn.Module, config: UNetConfig) -> UNet:
    """Our U-Net with their weights; tests/test_interop.py has the folders."""
    net = UNet(config)
    weights_from_diffusers(theirs.state_dict(), net)
    return net.eval()


def their_unet(config: UNetConfig) -> UNet2DModel:
    """UNet2DModel as google/ddpm-cifar10-32 configures it, at another size; weights are random, GroupNorms included."""
    attends = [size in config.attention_sizes for size in config.level_sizes()]
    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=config.image_size, in_channels=config.channels, out_channels=config.channels,
        block_out_channels=config.level_channels(), layers_per_block=config.num_res_blocks,
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        norm_num_groups=config.groups, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        attention_head_dim=None, dropout=config.dropout,
    )  # fmt: skip
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.GroupNorm):
                module.weight.uniform_(0.5, 1.5), module.bias.uniform_(-0.5, 0.5)
    return net.eval()


SMALL = UNetConfig(16, 3, 32, (1, 2, 2, 2), 2, (8,), groups=16, dropout=0.1)


@torch.no_grad()
@pytest.mark.parametrize("config", [SMALL, UNetConfig.cifar10()], ids=["small", "cifar10"])
def test_unet_with_their_weights_gives_their_answer(config: UNetConfig) -> None:
    theirs = their_unet(config)
    ours = copied(theirs, config)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    x = torch.randn(1, config.channels, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1))
    times = (1, 2, 500, 1000) if config is SMALL else (500,)
    for t in times:
        wanted, got = theirs(x, t - 1).sample, ours(x, torch.tensor([t]))
        assert float((got - wanted).norm() / wanted.norm()) < 1e-5, t
    assert float((ours(x, torch.tensor([times[0] + 1])) - theirs(x, times[0] - 1).sample).norm()) > 1e-4  # t matters


def test_the_same_schedule_from_their_betas() -> None:
    theirs = np.asarray(DDPMScheduler(beta_schedule="linear").betas, dtype=np.float64)
    ours = NoiseSchedule(torch.tensor(theirs))
    np.testing.assert_allclose(ours.alpha_bar, linear_schedule().alpha_bar, rtol=1e-4)
