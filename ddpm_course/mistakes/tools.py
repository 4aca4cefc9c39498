"""What the mistakes are tried on: small data with known laws, exact draws, and walks down a time grid."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..exact import ExactGaussian, GaussianMixture
from ..prediction import EpsModel
from ..schedule import linear_schedule

LINEAR = linear_schedule(1000)
BAR, BETA = LINEAR.alpha_bar, LINEAR.beta
PAIR = GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([0.7, 0.3], [[-1.0], [1.0]], [0.2, 0.2])))  # two bells
HALF = ExactGaussian(torch.zeros(1), torch.full((1, 1), 0.25))  # N(0, 0.25): standard deviation 0.5


def seeded(k: int) -> torch.Generator:
    """A source of randomness that always starts at the same place."""
    return torch.Generator().manual_seed(k)


def normals(rng: torch.Generator, *shape: int) -> Tensor:
    """Draws from N(0, 1), float64."""
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def bell(n: int) -> Tensor:
    """n evenly spread quantiles of N(0, 1), scaled to variance exactly 1, (n, 1): draws without luck."""
    x = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    return (x / x.std(correction=0))[:, None]


def bar_by_hand(t: int, T: int = 1000) -> float:
    """alpha_bar_t of the linear schedule by a plain product, without any table of the package."""
    return math.prod(1 - (1e-4 + (0.02 - 1e-4) * k / (T - 1)) for k in range(t))


def at(t: int, x: Tensor) -> Tensor:
    """The time t for every example of x."""
    return torch.full((len(x),), t)


def walk(model: EpsModel, x: Tensor, grid: Sequence[int], step: Callable[[Tensor, Tensor, int, int], Tensor]) -> Tensor:
    """All states (len(grid), *x.shape) of a walk down the grid; step(x_t, eps_hat, t, s) -> x_s."""
    states = [x]
    for t, s in zip(grid, grid[1:], strict=False):
        states.append(step(states[-1], model(states[-1], at(t, x)), t, s))
    return torch.stack(states)


def pair_quantile(p: float) -> float:
    """The point below which PAIR has the probability p, by bisection of its distribution function."""
    low, high = -3.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(w * 0.5 * (1 + math.erf((middle - m) / (0.2 * 2**0.5))) for w, m in ((0.7, -1.0), (0.3, 1.0)))
        low, high = (middle, high) if below < p else (low, middle)
    return low


def bayes(x_t: float, bar_t: float, bar_s: float, data: GaussianMixture = PAIR) -> tuple[Tensor, Tensor]:
    """Points x_s and the density q(x_s | x_t) there, by Bayes' rule on a fine grid."""
    alpha = bar_t / bar_s
    x_s = torch.linspace(-8, 8, 16_001, dtype=torch.float64)
    log = data.diffused(bar_s).log_prob(x_s[:, None]) - (x_t - alpha**0.5 * x_s) ** 2 / (2 * (1 - alpha))
    density = (log - log.max()).exp()
    return x_s, density / torch.trapezoid(density, x_s)


def bayes_moments(x_t: float, bar_t: float, bar_s: float) -> tuple[float, float]:
    """Mean and variance of q(x_s | x_t) for PAIR, by integration."""
    x_s, density = bayes(x_t, bar_t, bar_s)
    mean = float(torch.trapezoid(x_s * density, x_s))
    return mean, float(torch.trapezoid((x_s - mean) ** 2 * density, x_s))


def pair_posterior(x_t: float, bar_t: float, bar_s: float) -> tuple[Tensor, Tensor, float]:
    """q(x_s | x_t) for PAIR in closed form, again two bells: weights (2,), means (2,), common variance. Precisions add."""
    alpha, spread = bar_t / bar_s, bar_s * 0.04 + 1 - bar_s
    centres = bar_s**0.5 * PAIR.means[:, 0]
    var = 1 / (1 / spread + alpha / (1 - alpha))
    means = var * (centres / spread + alpha**0.5 * x_t / (1 - alpha))
    log = PAIR.weights.log() - (x_t - alpha**0.5 * centres) ** 2 / (2 * (alpha * spread + 1 - alpha))
    return log.softmax(0), means, var
