"""Mistakes in DDIM: which noise goes, which alpha is meant, who is Markov, and how many steps are enough."""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ..exact import ExactGaussian
from ..prediction import eps_to_x_0, x_0_to_eps
from ..sampling import ddim_sample, ddim_step, ddim_variance, time_grid
from .base import Mistake
from .tools import BAR, HALF, LINEAR, at, bell, normals, seeded, walk

GRID = time_grid(1000, 100).tolist()
FALLING = GRID[::10]


def ddim_walk(step: Callable[[Tensor, Tensor, int, int], Tensor]) -> Tensor:
    """The states of 1,000 samples of N(0, 0.25) at every tenth of 100 steps, (11, 1000)."""
    return walk(HALF.eps_model(LINEAR), bell(1000), GRID, step)[::10, :, 0]


def wrong_quiet(x_0_hat: Tensor, eps_hat: Tensor, bar_s: float, var: float, z: Tensor) -> Tensor:
    """A DDIM step with its noise switched off; var is sigma^2 of the DDPM step."""
    z = 0 * z
    return bar_s**0.5 * x_0_hat + (1 - bar_s - var) ** 0.5 * eps_hat + var**0.5 * z


def right_quiet(x_0_hat: Tensor, eps_hat: Tensor, bar_s: float, var: float, z: Tensor) -> Tensor:
    """A DDIM step with its noise switched off; var is sigma^2 of the DDPM step."""
    var = 0 * var
    return bar_s**0.5 * x_0_hat + (1 - bar_s - var) ** 0.5 * eps_hat + var**0.5 * z


def _spread_of_quiet(quiet: Callable[..., Tensor]) -> Tensor:
    rng = seeded(9)

    def step(x: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        """One step of either version."""
        x_0_hat, var = eps_to_x_0(LINEAR, x, t, eps), ddim_variance(LINEAR, t, s, 1.0)
        return quiet(x_0_hat, eps, float(BAR[s]), var, normals(rng, *x.shape))

    return ddim_walk(step).std(1)


M9 = Mistake(
    number=9,
    title='"DDIM is DDPM with z = 0"',
    chapter="10_ddim",
    why="DDIM sets sigma = 0, which gives the variance to the direction term; z = 0 only throws it away.",
    wrong=wrong_quiet,
    right=right_quiet,
    observe=_spread_of_quiet,
    x=FALLING,
    labels=("t, falling to 0", "standard deviation of x_t"),
    quantity="standard deviation of the samples, data have 0.5",
    truth=lambda: 0.5,
    tolerance=0.03,
    margin=0.4,
)


def wrong_ddim(x_t: Tensor, eps_hat: Tensor, t: int, s: int) -> Tensor:
    """A DDIM step (eta = 0), as the DDIM paper writes it with its letter alpha."""
    a_t, a_s = LINEAR.alpha[t], LINEAR.alpha[s]
    return a_s**0.5 * (x_t - (1 - a_t) ** 0.5 * eps_hat) / a_t**0.5 + (1 - a_s) ** 0.5 * eps_hat


def right_ddim(x_t: Tensor, eps_hat: Tensor, t: int, s: int) -> Tensor:
    """A DDIM step (eta = 0), as the DDIM paper writes it with its letter alpha."""
    a_t, a_s = LINEAR.alpha_bar[t], LINEAR.alpha_bar[s]
    return a_s**0.5 * (x_t - (1 - a_t) ** 0.5 * eps_hat) / a_t**0.5 + (1 - a_s) ** 0.5 * eps_hat


M10 = Mistake(
    number=10,
    title="the alpha of the DDIM paper is taken for the alpha of the DDPM paper",
    chapter="10_ddim",
    why="DDIM's own alpha is what DDPM calls alpha_bar; with the table of single steps the noise is hardly taken out.",
    wrong=wrong_ddim,
    right=right_ddim,
    observe=lambda ddim: ddim_walk(ddim).std(1),
    x=FALLING,
    labels=("t, falling to 0", "standard deviation of x_t"),
    quantity="standard deviation of the samples, data have 0.5",
    truth=lambda: 0.5,
    tolerance=0.03,
    margin=0.15,
)


def wrong_last(x_0_hat: Tensor, eps_hat: Tensor, bar_s: float, z: Tensor) -> Tensor:
    """The last line of a deterministic DDIM step; z ~ N(0, 1) is fresh."""
    return bar_s**0.5 * x_0_hat + (1 - bar_s) ** 0.5 * z


def right_last(x_0_hat: Tensor, eps_hat: Tensor, bar_s: float, z: Tensor) -> Tensor:
    """The last line of a deterministic DDIM step; z ~ N(0, 1) is fresh."""
    return bar_s**0.5 * x_0_hat + (1 - bar_s) ** 0.5 * eps_hat


def _correlation_with_start(last: Callable[..., Tensor]) -> Tensor:
    rng = seeded(11)

    def step(x: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        """One step of either version."""
        return last(eps_to_x_0(LINEAR, x, t, eps), eps, float(BAR[s]), normals(rng, *x.shape))

    states = ddim_walk(step)
    return torch.corrcoef(states)[0]


M11 = Mistake(
    number=11,
    title="fresh noise in deterministic DDIM",
    chapter="10_ddim",
    why="The direction term takes the predicted eps_hat; fresh noise is the other end of the family, sigma^2 = 1 - "
    "alpha_bar_{t-1}, and forgets x_T.",
    wrong=wrong_last,
    right=right_last,
    observe=_correlation_with_start,
    x=FALLING,
    labels=("t, falling to 0", "correlation of x_t with x_T"),
    quantity="correlation of x_0 with x_T: a straight, rising line for Gaussian data",
    truth=lambda: 1.0,
    tolerance=1e-6,
    margin=0.8,
)


def wrong_next(x_t: Tensor, x_0: Tensor, x_0_hat: Tensor, t: int, s: int, eta: float, z: Tensor) -> Tensor:
    """The next state when DDIM generates. x_0 is the clean point, x_0_hat the guess of it from x_t."""
    return ddim_step(LINEAR, x_t, x_0_to_eps(LINEAR, x_t, t, x_0), t, s, z, eta)


def right_next(x_t: Tensor, x_0: Tensor, x_0_hat: Tensor, t: int, s: int, eta: float, z: Tensor) -> Tensor:
    """The next state when DDIM generates. x_0 is the clean point, x_0_hat the guess of it from x_t."""
    return ddim_step(LINEAR, x_t, x_0_to_eps(LINEAR, x_t, t, x_0_hat), t, s, z, eta)


ETAS = (0.2, 0.4, 0.6, 0.8, 1.0)


def _what_the_past_adds(following: Callable[..., Tensor]) -> Tensor:
    """Correlation of x_100 with x_500 once x_300 is known: 0 in a chain."""
    model, found = HALF.eps_model(LINEAR), []
    for eta in ETAS:
        rng = seeded(13)
        x_0, eps, z_1, z_2 = normals(rng, 4, 20_000, 1)
        states = [BAR[500] ** 0.5 * 0.5 * x_0 + (1 - BAR[500]) ** 0.5 * eps]
        for t, s, z in ((500, 300, z_1), (300, 100, z_2)):
            x_0_hat = eps_to_x_0(LINEAR, states[-1], t, model(states[-1], at(t, eps)))
            states.append(following(states[-1], 0.5 * x_0, x_0_hat, t, s, eta, z))
        before, now, after = (x[:, 0] - x.mean() for x in states)
        rest = [x - (x @ now) / (now @ now) * now for x in (before, after)]
        found.append(torch.corrcoef(torch.stack(rest))[0, 1])
    return torch.stack(found)


M13 = Mistake(
    number=13,
    title='"the reverse process of DDIM is non-Markov"',
    chapter="10_ddim",
    why="Its inference process is: that one is told x_0; generation knows x_t alone, and is a chain at every eta.",
    wrong=wrong_next,
    right=right_next,
    observe=_what_the_past_adds,
    x=ETAS,
    labels=("eta", "what x_500 adds to x_300 about x_100"),
    quantity="correlation of x_100 with x_500 given x_300, eta = 0.4",
    truth=lambda: 0.0,
    tolerance=0.035,
    margin=0.3,
    read=1,
)


def wrong_report(spread_after: Callable[[int], float], num_steps: int) -> float:
    """The spread of the samples that a paper reports for num_steps steps."""
    return spread_after(200)


def right_report(spread_after: Callable[[int], float], num_steps: int) -> float:
    """The spread of the samples that a paper reports for num_steps steps."""
    return spread_after(num_steps)


BUDGETS = (2, 5, 10, 20, 50, 100)


def _reports(report: Callable[..., float]) -> Tensor:
    narrow = ExactGaussian(torch.zeros(1), torch.full((1, 1), 0.01)).eps_model(LINEAR)

    @cache
    def spread_after(num_steps: int) -> float:
        """Standard deviation of DDIM samples, with the perfect denoiser of N(0, 0.01)."""
        return float(ddim_sample(narrow, LINEAR, x_T=bell(400), num_steps=num_steps).std())

    return torch.tensor([report(spread_after, S) for S in BUDGETS], dtype=torch.float64)


def _spread_by_product(S: int) -> float:
    """DDIM on N(0, 0.01) multiplies by one factor a step: E[x_s x_t] / E[x_t^2] for the same x_0 and eps."""
    bars = [bar for bar in (float(BAR[t]) for t in time_grid(1000, S).tolist())]
    pairs = zip(bars, bars[1:], strict=False)
    factors = (((a * b) ** 0.5 * 0.01 + ((1 - a) * (1 - b)) ** 0.5) / (a * 0.01 + 1 - a) for a, b in pairs)
    return math.prod(factors)


M14 = Mistake(
    number=14,
    title='"fewer steps without loss of quality"',
    chapter="10_ddim",
    why="It depends on S: with the perfect denoiser a few steps lose much of the spread and a hundred little, so "
    "measure at the S that you use.",
    wrong=wrong_report,
    right=right_report,
    observe=_reports,
    x=BUDGETS,
    labels=("steps S", "standard deviation, data 0.1"),
    quantity="standard deviation of the samples with S = 5, data have 0.1",
    truth=lambda: _spread_by_product(5),
    tolerance=1e-3,
    margin=0.02,
    read=1,
    xscale="log",
)


GROUP = (M9, M10, M11, M13, M14)
