"""Mistakes in the sampling loop: the noise z, the last step, and clipping."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..exact import ExactGaussian, FiniteData
from ..posterior import q_posterior, reverse_variance
from ..prediction import EpsModel, eps_to_x_0, x_0_to_eps
from ..sampling import time_grid
from ..schedule import NoiseSchedule, cosine_schedule
from .base import Mistake
from .tools import BAR, HALF, LINEAR, PAIR, bell, normals, seeded, walk

SHORT = cosine_schedule(200)
Draw = Callable[..., Tensor]  # (mean, var, z, s) -> x_s


def ancestral(draw: Draw, model: EpsModel, schedule: NoiseSchedule, x_T: Tensor, grid: list[int], kind: str = "posterior") -> Tensor:
    """All states of Algorithm 2 down the grid, with `draw` as its last line."""
    rng = seeded(6)

    def step(x_t: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        """Mean and variance as in chapter 09, then draw."""
        mean = q_posterior(schedule, eps_to_x_0(schedule, x_t, t, eps), x_t, t, s)[0]
        return draw(mean, reverse_variance(schedule, t, s, kind), normals(rng, *x_t.shape), s)

    return walk(model, x_T, grid, step)


def every(T: int) -> list[int]:
    """T, T-1, ..., 0."""
    return list(range(T, -1, -1))


def wrong_drawn(mean: Tensor, var: float, z: Tensor, s: int) -> Tensor:
    """The last line of a reverse step from t to s; z ~ N(0, 1)."""
    return mean + var * z if s > 0 else mean


def right_drawn(mean: Tensor, var: float, z: Tensor, s: int) -> Tensor:
    """The last line of a reverse step from t to s; z ~ N(0, 1)."""
    return mean + var**0.5 * z if s > 0 else mean


M6 = Mistake(
    number=6,
    title="mean + var * z",
    chapter="09_sampling",
    why="The law is written with the variance, the code multiplies by its root; var * z is nearly no noise, and the spread is gone.",
    wrong=wrong_drawn,
    right=right_drawn,
    observe=lambda drawn: ancestral(drawn, HALF.eps_model(SHORT), SHORT, bell(1000), every(200))[:, :, 0].std(1)[::10],
    x=range(200, -1, -10),
    labels=("t, falling to 0", "standard deviation of x_t"),
    quantity="standard deviation of the samples, data have 0.5",
    truth=lambda: 0.5,
    tolerance=0.05,
    margin=0.3,
)


def wrong_sampled(mean: Tensor, var: float, z: Tensor, s: int) -> Tensor:
    """The last line of a reverse step from t to s; z ~ N(0, 1)."""
    return mean


def right_sampled(mean: Tensor, var: float, z: Tensor, s: int) -> Tensor:
    """The last line of a reverse step from t to s; z ~ N(0, 1)."""
    return mean + var**0.5 * z if s > 0 else mean


def _what_z_is_for(sampled: Draw) -> Tensor:
    """Mean and std for N(0.6, 0.25); then the two bells: share of the right one, width of the left one."""
    one = ExactGaussian(torch.full((1,), 0.6), torch.full((1, 1), 0.25))
    x, y = (ancestral(sampled, data.eps_model(SHORT), SHORT, bell(2000), every(200))[-1] for data in (one, PAIR))
    return torch.stack([x.mean(), x.std(), (y > 0).double().mean(), y[y < 0].std()])


M7 = Mistake(
    number=7,
    title='"z is optional in DDPM"',
    chapter="09_sampling",
    why="Without z the variance collapses; for Gaussian data at least the mean stays right, for mixtures the weights go too.",
    wrong=wrong_sampled,
    right=right_sampled,
    observe=_what_z_is_for,
    x=("mean 0.6", "std 0.5", "share 0.3", "width 0.2"),
    labels=("one bell, two bells", "four numbers of the samples, and what the data have"),
    quantity="share of the right-hand bell, data have 0.3",
    truth=lambda: 0.3,
    tolerance=0.05,
    margin=0.25,
    read=2,
)


def wrong_ended(mean: Tensor, var: float, z: Tensor, s: int) -> Tensor:
    """The last line of a reverse step from t to s; z ~ N(0, 1)."""
    return mean + var**0.5 * z


def right_ended(mean: Tensor, var: float, z: Tensor, s: int) -> Tensor:
    """The last line of a reverse step from t to s; z ~ N(0, 1)."""
    return mean + var**0.5 * z if s > 0 else mean


ANGLES = torch.arange(8, dtype=torch.float64) * math.pi / 4
RING = FiniteData(1.4 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1))  # eight points


def _distance_to_the_data(ended: Draw) -> Tensor:
    """Mean distance to the nearest of the eight points, over the last ten of 50 steps."""
    grid = time_grid(1000, 50).tolist()
    states = ancestral(ended, RING.eps_model(LINEAR), LINEAR, normals(seeded(25), 300, 2), grid, "beta")
    return torch.stack([(x[:, None] - RING.means).norm(dim=2).min(1).values.mean() for x in states[-11:]])


M25 = Mistake(
    number=25,
    title="noise is added at the last step, too",
    chapter="09_sampling",
    why="The last mean is already the picture; noise on top of it is grain, small with T = 1000 and plain to see with 50 steps.",
    wrong=wrong_ended,
    right=right_ended,
    observe=_distance_to_the_data,
    x=range(200, -1, -20),
    labels=("t, falling to 0", "distance to the data"),
    quantity="distance of the samples to a finite data set",
    truth=lambda: 0.0,
    tolerance=1e-3,
    margin=0.05,
)

COIN = FiniteData(torch.tensor([[-1.0], [1.0]]))  # variance 1, so that x_t has variance 1 at every t


def overshooting(x_t: Tensor, t: Tensor) -> Tensor:
    """A network for COIN whose answers are 10 % too large, so that x_0_hat leaves [-1, 1]."""
    return 1.1 * COIN.eps_model(LINEAR)(x_t, t)


def wrong_ddim(x_t: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
    """A DDIM step (eta = 0) from t to s with x_0_hat clipped to [-1, 1]."""
    x_0 = eps_to_x_0(LINEAR, x_t, t, eps).clamp(-1, 1)
    return BAR[s] ** 0.5 * x_0 + (1 - BAR[s]) ** 0.5 * eps


def right_ddim(x_t: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
    """A DDIM step (eta = 0) from t to s with x_0_hat clipped to [-1, 1]."""
    x_0 = eps_to_x_0(LINEAR, x_t, t, eps).clamp(-1, 1)
    return BAR[s] ** 0.5 * x_0 + (1 - BAR[s]) ** 0.5 * x_0_to_eps(LINEAR, x_t, t, x_0)


M26 = Mistake(
    number=26,
    title="x_0_hat is clipped and the old eps_hat kept",
    chapter="09_sampling",
    why="x_0_hat and eps_hat explain one x_t together; clip the one, and the other must be derived again.",
    wrong=wrong_ddim,
    right=right_ddim,
    observe=lambda ddim: walk(overshooting, bell(500), time_grid(1000, 50).tolist(), ddim)[:, :, 0].std(1)[:31],
    x=range(1000, 399, -20),
    labels=("t, falling", "standard deviation of x_t"),
    quantity="standard deviation of x_t at t = 700, forward process 1",
    truth=lambda: 1.0,
    tolerance=0.15,
    margin=0.5,
    read=15,
)


def wrong_clipped_mean(x_t: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
    """The mean of a DDPM step from t to s, with clipping to [-1, 1]."""
    x_0 = eps_to_x_0(LINEAR, x_t, t, eps)
    return q_posterior(LINEAR, x_0, x_t, t, s)[0].clamp(-1, 1)


def right_clipped_mean(x_t: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
    """The mean of a DDPM step from t to s, with clipping to [-1, 1]."""
    x_0 = eps_to_x_0(LINEAR, x_t, t, eps)
    return q_posterior(LINEAR, x_0.clamp(-1, 1), x_t, t, s)[0]


def _spread_of_ddpm(clipped_mean: Callable[..., Tensor]) -> Tensor:
    rng = seeded(26)

    def step(x_t: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        """The mean, plus noise of the posterior's variance."""
        return clipped_mean(x_t, eps, t, s) + reverse_variance(LINEAR, t, s) ** 0.5 * normals(rng, *x_t.shape)

    return walk(overshooting, bell(1000), list(range(1000, 399, -4)), step)[::5, :, 0].std(1)


M26B = Mistake(
    number=26,
    form="b",
    title="the mean is computed first and clipped afterwards",
    chapter="09_sampling",
    why="Only x_0 lies in [-1, 1]; x_t leaves that range in a third of all cases, and must.",
    wrong=wrong_clipped_mean,
    right=right_clipped_mean,
    observe=_spread_of_ddpm,
    x=range(1000, 399, -20),
    labels=("t, falling", "standard deviation of x_t"),
    quantity="standard deviation of x_t at t = 700, forward process 1",
    truth=lambda: 1.0,
    tolerance=0.1,
    margin=0.25,
    read=15,
)

GROUP = (M6, M7, M25, M26, M26B)
