"""Mistakes about Gaussians and the forward process: scaling, adding, and which noise is meant."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .base import Mistake
from .tools import BAR, BETA, bar_by_hand, bell, normals, seeded

TIMES = (1, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)


def wrong_noisy(x_0: float, bar: float, z: Tensor) -> Tensor:
    """x_t from x_0 and z ~ N(0, 1)."""
    eps = (1 - bar) ** 0.5 * z
    return bar**0.5 * x_0 + (1 - bar) ** 0.5 * eps


def right_noisy(x_0: float, bar: float, z: Tensor) -> Tensor:
    """x_t from x_0 and z ~ N(0, 1)."""
    eps = z
    return bar**0.5 * x_0 + (1 - bar) ** 0.5 * eps


M1 = Mistake(
    number=1,
    title="eps is drawn from N(0, 1 - alpha_bar) and then multiplied by sqrt(1 - alpha_bar) as well",
    chapter="02_forward",
    why="The root turns variance 1 into variance 1 - alpha_bar; noise that has this variance already must not be scaled again.",
    wrong=wrong_noisy,
    right=right_noisy,
    observe=lambda noisy: torch.stack([noisy(2.0, float(BAR[t]), bell(2001)).var(correction=0) for t in TIMES]),
    x=TIMES,
    labels=("t", "variance of x_t given x_0"),
    quantity="variance of x_t given x_0 at t = 100",
    truth=lambda: 1 - bar_by_hand(100),
    tolerance=1e-9,
    margin=0.09,
    read=2,
)


def wrong_step(x: Tensor, beta: float, eps: Tensor) -> Tensor:
    """One step of the forward process."""
    return x + beta**0.5 * eps


def right_step(x: Tensor, beta: float, eps: Tensor) -> Tensor:
    """One step of the forward process."""
    return (1 - beta) ** 0.5 * x + beta**0.5 * eps


def _variance_on_the_way(step: Callable[..., Tensor]) -> Tensor:
    x, rng, seen = bell(2000)[:, 0], seeded(2), []
    for t, beta in enumerate(BETA[1:].tolist(), 1):
        x = step(x, beta, normals(rng, 2000))
        if t % 25 == 0:
            seen.append(x.var())
    return torch.stack(seen)


M2 = Mistake(
    number=2,
    title="x_t = x_{t-1} + noise, with nothing scaled",
    chapter="02_forward",
    why="Unscaled, the variance grows by the sum of all beta, about 10, and x_T is not N(0, 1); families that do this on purpose (VE, EDM) "
    "start their samplers from that wider Gaussian.",
    wrong=wrong_step,
    right=right_step,
    observe=_variance_on_the_way,
    x=range(25, 1001, 25),
    labels=("t", "variance of x_t"),
    quantity="variance of x_T, for data of variance 1",
    truth=lambda: 1.0,
    tolerance=0.16,
    margin=9.0,
)


def wrong_target(x_0: Tensor, x_before: Tensor, x_t: Tensor, t: int) -> Tensor:
    """The eps that the network is asked for at x_t; x_before is x_{t-1}."""
    return (x_t - (1 - BETA[t]) ** 0.5 * x_before) / BETA[t] ** 0.5


def right_target(x_0: Tensor, x_before: Tensor, x_t: Tensor, t: int) -> Tensor:
    """The eps that the network is asked for at x_t; x_before is x_{t-1}."""
    return (x_t - BAR[t] ** 0.5 * x_0) / (1 - BAR[t]) ** 0.5


def _correlation_with_the_step(target: Callable[..., Tensor]) -> Tensor:
    rng, found = seeded(16), []
    x_0 = x = normals(rng, 10_000)
    for t in range(1, 201):
        before, step_noise = x, normals(rng, 10_000)
        x = (1 - BETA[t]) ** 0.5 * before + BETA[t] ** 0.5 * step_noise
        if t == 1 or t % 20 == 0:
            found.append(torch.corrcoef(torch.stack([target(x_0, before, x, t), step_noise]))[0, 1])
    return torch.stack(found)


M16 = Mistake(
    number=16,
    title='"eps is the noise that was added in the current step"',
    chapter="06_prediction",
    why="eps is all the noise since x_0; with the noise of the last step it has only the correlation sqrt(beta_t / (1 - alpha_bar_t)).",
    wrong=wrong_target,
    right=right_target,
    observe=_correlation_with_the_step,
    x=(1, *range(20, 201, 20)),
    labels=("t", "correlation with the noise of step t"),
    quantity="correlation of the target with the noise of step 100",
    truth=lambda: ((1 - bar_by_hand(100) / bar_by_hand(99)) / (1 - bar_by_hand(100))) ** 0.5,
    tolerance=0.05,
    margin=0.8,
    read=5,
)


def wrong_scaled(a: float, mean: float, var: float) -> tuple[float, float]:
    """Mean and variance of a x for x ~ N(mean, var)."""
    return a * mean, (a * var) ** 2


def right_scaled(a: float, mean: float, var: float) -> tuple[float, float]:
    """Mean and variance of a x for x ~ N(mean, var)."""
    return a * mean, a**2 * var


def _variance_by_integration(a: float, mean: float, var: float) -> float:
    x = torch.linspace(mean - 12 * var**0.5, mean + 12 * var**0.5, 20_001, dtype=torch.float64)
    density = torch.exp(-((x - mean) ** 2) / (2 * var)) / math.sqrt(2 * math.pi * var)
    first, second = (float(torch.trapezoid((a * x) ** k * density, x)) for k in (1, 2))
    return second - first**2


M19 = Mistake(
    number=19,
    title="a N(mu, sigma) = N(a mu, (a sigma)^2), with sigma where sigma^2 stood",
    chapter="01_gaussians",
    why="The second place of N(mu, sigma^2) holds a variance, and a variance is multiplied by a^2, once.",
    wrong=wrong_scaled,
    right=right_scaled,
    observe=lambda scaled: torch.tensor([scaled(a / 10, 1.0, 4.0)[1] for a in range(11)], dtype=torch.float64),
    x=[a / 10 for a in range(11)],
    labels=("a", "variance of a x"),
    quantity="variance of x / 2 for x ~ N(1, 4)",
    truth=lambda: _variance_by_integration(0.5, 1.0, 4.0),
    tolerance=1e-6,
    margin=2.0,
    read=5,
)


def wrong_noised(x: Tensor, betas: Tensor, rng: torch.Generator) -> Tensor:
    """x after len(betas) forward steps."""
    eps = normals(rng, len(x))
    for beta in betas:
        x = (1 - beta) ** 0.5 * x + beta**0.5 * eps
    return x


def right_noised(x: Tensor, betas: Tensor, rng: torch.Generator) -> Tensor:
    """x after len(betas) forward steps."""
    for beta in betas:
        eps = normals(rng, len(x))
        x = (1 - beta) ** 0.5 * x + beta**0.5 * eps
    return x


STEPS = (1, 2, 5, 10, 20, 40, 60, 80, 100)
M20 = Mistake(
    number=20,
    title="variances are added although one and the same eps is used again",
    chapter="01_gaussians",
    why="Variances add for independent noises only; the same noise again adds standard deviations.",
    wrong=wrong_noised,
    right=right_noised,
    observe=lambda noised: torch.stack([noised(torch.zeros(10_000).double(), BETA[1 : k + 1], seeded(20)).var() for k in STEPS]),
    x=STEPS,
    labels=("steps", "variance, started at x_0 = 0"),
    quantity="variance after 100 steps from x_0 = 0",
    truth=lambda: 1 - bar_by_hand(100),
    tolerance=0.008,
    margin=1.0,
)


def wrong_probability(density: Callable[[Tensor], Tensor], low: float, high: float) -> Tensor:
    """How probable it is that x lies between low and high."""
    x = torch.linspace(low, high, 2001, dtype=torch.float64)
    return density(x).mean()


def right_probability(density: Callable[[Tensor], Tensor], low: float, high: float) -> Tensor:
    """How probable it is that x lies between low and high."""
    x = torch.linspace(low, high, 2001, dtype=torch.float64)
    return density(x).mean() * (high - low)


def _density(std: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.exp(-((x / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))


STDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
M34 = Mistake(
    number=34,
    title='a density is called a probability, and "Gaussian" means N(0, 1) alone',
    chapter="01_gaussians",
    why="A density must be integrated before it is a probability, and may exceed 1; all six curves behind this picture are Gaussian, "
    "only the one with standard deviation 1 is standard normal.",
    wrong=wrong_probability,
    right=right_probability,
    observe=lambda probability: torch.stack([probability(_density(std), -0.1, 0.1) for std in STDS]),
    x=STDS,
    labels=("standard deviation of x", "claimed P(-0.1 < x < 0.1)"),
    quantity="P(-0.1 < x < 0.1) for x ~ N(0, 0.1^2)",
    truth=lambda: math.erf(1 / math.sqrt(2)),
    tolerance=1e-3,
    margin=2.0,
    read=1,
    xscale="log",
)

GROUP = (M1, M2, M16, M19, M20, M34)
