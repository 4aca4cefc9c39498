"""Mistakes about one step back: what is drawn, from which law, and what the bound says about it."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ..exact import ExactGaussian
from ..gaussian import normal_kl, normal_log_prob
from ..posterior import q_posterior
from ..prediction import eps_to_x_0
from ..schedule import NoiseSchedule, cosine_schedule
from .base import Mistake
from .tools import BAR, LINEAR, PAIR, at, bayes_moments, normals, pair_posterior, seeded

ORACLE = PAIR.eps_model(LINEAR)
POINTS = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]  # x_t


def wrong_law(x_t: Tensor, answer: Tensor, bar_t: float, bar_s: float) -> tuple[Tensor, Tensor | float]:
    """Mean and variance of a step back; `answer` is what the network says."""
    alpha = bar_t / bar_s
    return x_t / alpha**0.5, answer**2


def right_law(x_t: Tensor, answer: Tensor, bar_t: float, bar_s: float) -> tuple[Tensor, Tensor | float]:
    """Mean and variance of a step back; `answer` is what the network says."""
    alpha = bar_t / bar_s
    return (x_t - (1 - alpha) / (1 - bar_t) ** 0.5 * answer) / alpha**0.5, 1 - alpha


M3 = Mistake(
    number=3,
    title='"the network learns the variance"',
    chapter="06_prediction",
    why="The answer belongs into the mean, and there it is exact; the variance comes from a table (only Nichol's "
    "later models learn it too).",
    wrong=wrong_law,
    right=right_law,
    observe=lambda law: law(POINTS, ORACLE(POINTS, at(300, POINTS)), float(BAR[300]), float(BAR[200]))[0][:, 0],
    x=POINTS[:, 0].tolist(),
    labels=("x_t, t = 300", "mean of the step to s = 200"),
    quantity="mean of x_200 given x_300 = 0.5",
    truth=lambda: bayes_moments(0.5, float(BAR[300]), float(BAR[200]))[0],
    tolerance=1e-4,
    margin=0.1,
    read=25,
)


def wrong_draw(x_0: Tensor, x_0_hat: Tensor, x_t: Tensor, t: int, s: int, z: Tensor) -> Tensor:
    """What the sampler draws at time s. x_0 is the truth behind x_t, x_0_hat its conditional mean."""
    mean, var = q_posterior(LINEAR, x_0, x_t, t, s)
    return mean + var**0.5 * z


def right_draw(x_0: Tensor, x_0_hat: Tensor, x_t: Tensor, t: int, s: int, z: Tensor) -> Tensor:
    """What the sampler draws at time s. x_0 is the truth behind x_t, x_0_hat its conditional mean."""
    mean, var = q_posterior(LINEAR, x_0_hat, x_t, t, s)
    return mean + var**0.5 * z


EARLIER = (290, 250, 200, 150, 100, 60)


def _lost_variance(draw: Callable[..., Tensor]) -> Tensor:
    """The true variance of x_s given x_300 = 0, minus that of the draws."""
    rng, n = seeded(5), 20_000
    weights, means, var = pair_posterior(0.0, float(BAR[300]), 1.0)  # x_0 given x_300 = 0
    x_0 = means[torch.multinomial(weights, n, replacement=True, generator=rng)] + var**0.5 * normals(rng, n)
    x_t, z = torch.zeros(n).double(), normals(rng, n)
    x_0_hat = torch.full_like(x_t, float(weights @ means))
    true = [bayes_moments(0.0, float(BAR[300]), float(BAR[s]))[1] for s in EARLIER]
    return torch.tensor([v - float(draw(x_0, x_0_hat, x_t, 300, s, z).var()) for v, s in zip(true, EARLIER, strict=True)])


def _lost_by_formula() -> float:
    """(sqrt(alpha_bar_s) (1 - alpha) / (1 - alpha_bar_t))^2 Var(x_0 | x_t = 0) for t = 300, s = 60."""
    bar_t, bar_s = float(BAR[300]), float(BAR[60])
    weights, means, var = pair_posterior(0.0, bar_t, 1.0)
    unknown = var + float(weights @ means**2) - float(weights @ means) ** 2
    return (bar_s**0.5 * (1 - bar_t / bar_s) / (1 - bar_t)) ** 2 * unknown


M5 = Mistake(
    number=5,
    title='"we sample from q(x_{t-1} | x_t, x_0)"',
    chapter="03_posterior",
    why="x_0 is not known, so x_0_hat stands in its place, and the variance (sqrt(alpha_bar_{t-1}) beta_t / (1 - "
    "alpha_bar_t))^2 Var(x_0 | x_t) "
    "is lost.",
    wrong=wrong_draw,
    right=right_draw,
    observe=_lost_variance,
    x=EARLIER,
    labels=("s, from t = 300", "variance that is missing"),
    quantity="variance that a leap from t = 300 to s = 60 loses, at x_t = 0",
    truth=_lost_by_formula,
    tolerance=0.01,
    margin=0.2,
)


def wrong_mean(x_t: Tensor, eps_hat: Tensor, t: int) -> Tensor:
    """Mean of x_{t-1} given x_t."""
    return x_t - eps_hat


def right_mean(x_t: Tensor, eps_hat: Tensor, t: int) -> Tensor:
    """Mean of x_{t-1} given x_t."""
    return (x_t - LINEAR.beta[t] / (1 - BAR[t]) ** 0.5 * eps_hat) / LINEAR.alpha[t] ** 0.5


M8 = Mistake(
    number=8,
    title='"subtract the predicted noise from the picture"',
    chapter="09_sampling",
    why="eps_hat is the noise of all steps so far, and one step takes back only its share of it, then undoes the shrinking.",
    wrong=wrong_mean,
    right=right_mean,
    observe=lambda mean: mean(POINTS, ORACLE(POINTS, at(300, POINTS)), 300)[:, 0],
    x=POINTS[:, 0].tolist(),
    labels=("x_t, t = 300", "mean of x_299"),
    quantity="mean of x_299 given x_300 = 1.5",
    truth=lambda: bayes_moments(1.5, float(BAR[300]), float(BAR[299]))[0],
    tolerance=1e-4,
    margin=0.5,
    read=35,
)


def wrong_log_density(x_s: Tensor, x_t: float, bar_t: float, bar_s: float) -> Tensor:
    """log of P(x_s | x_t) at the points x_s, up to a constant."""
    alpha = bar_t / bar_s
    return -((x_t - alpha**0.5 * x_s) ** 2) / (2 * (1 - alpha))


def right_log_density(x_s: Tensor, x_t: float, bar_t: float, bar_s: float) -> Tensor:
    """log of P(x_s | x_t) at the points x_s, up to a constant."""
    alpha = bar_t / bar_s
    return -((x_t - alpha**0.5 * x_s) ** 2) / (2 * (1 - alpha)) + PAIR.diffused(bar_s).log_prob(x_s[:, None])


def _kurtosis(log_density: Callable[..., Tensor], T: int) -> float:
    """Excess kurtosis of the step from T/2 to T/2 - 1 at x_t = 0.3, by integration."""
    bars, x = cosine_schedule(T).alpha_bar.tolist(), torch.linspace(-9, 9, 6001, dtype=torch.float64)
    log = log_density(x, 0.3, bars[T // 2], bars[T // 2 - 1])
    p = (log - log.max()).exp()
    p = p / p.sum()
    centred = x - (p * x).sum()
    return float((p * centred**4).sum() / (p * centred**2).sum() ** 2 - 3)


def _kurtosis_in_closed_form(T: int) -> float:
    """The same from the two bells that q(x_s | x_t) consists of."""
    bars = cosine_schedule(T).alpha_bar.tolist()
    weights, means, var = pair_posterior(0.3, bars[T // 2], bars[T // 2 - 1])
    gaps = means - weights @ means
    second, fourth = var + weights @ gaps**2, 3 * var**2 + 6 * var * (weights @ gaps**2) + weights @ gaps**4
    return float(fourth / second**2 - 3)


CHAINS = (4, 8, 16, 32, 64, 128, 256, 512)
M21 = Mistake(
    number=21,
    title='"P(x_{t-1} | x_t) is Gaussian", at any step size',
    chapter="03_posterior",
    why="Bayes multiplies the Gaussian step with the law of x_{t-1}; only in a small step is that law too flat to "
    "matter (or Gaussian itself).",
    wrong=wrong_log_density,
    right=right_log_density,
    observe=lambda log_density: torch.tensor([_kurtosis(log_density, T) for T in CHAINS]),
    x=CHAINS,
    labels=("T", "excess kurtosis, 0 = Gaussian"),
    quantity="excess kurtosis of the middle step of T = 4",
    truth=lambda: _kurtosis_in_closed_form(4),
    tolerance=1e-4,
    margin=0.5,
    read=0,
    xscale="log",
)

EVEN = NoiseSchedule([1 - 1e-4 ** (1 / 40)] * 40)  # equal betas, alpha_bar_T = 1e-4
B = float(EVEN.beta[1])
MeanOf = Callable[[Tensor, int], Tensor]  # (x_t, t) -> mean of p(x_{t-1} | x_t), whose variance is B


def wrong_term(film: Tensor, t: int, mean_of: MeanOf) -> Tensor:
    """The term of step t in the bound, for every film x_0, ..., x_T."""
    return normal_log_prob(film[t], (1 - B) ** 0.5 * film[t - 1], B) - normal_log_prob(film[t], mean_of(film[t + 1], t + 1), B)


def right_term(film: Tensor, t: int, mean_of: MeanOf) -> Tensor:
    """The term of step t in the bound, for every film x_0, ..., x_T."""
    return normal_kl(*q_posterior(EVEN, film[0], film[t], t), mean_of(film[t], t), B)


@cache
def films(n: int = 4000) -> tuple[Tensor, MeanOf]:
    """n films (T+1, n, 1) that start from N(0.4, 0.25), and the means of the best model."""
    data, rng = ExactGaussian(torch.full((1,), 0.4), torch.full((1, 1), 0.25)), seeded(18)
    film, model = [data.sample(n, rng)], data.eps_model(EVEN)
    for _ in range(EVEN.T):
        film.append((1 - B) ** 0.5 * film[-1] + B**0.5 * normals(rng, n, 1))

    def mean_of(x_t: Tensor, t: int) -> Tensor:
        """Ho eq. 7 with the guess of Ho eq. 15."""
        return q_posterior(EVEN, eps_to_x_0(EVEN, x_t, t, model(x_t, at(t, x_t))), x_t, t)[0]

    return torch.stack(film), mean_of


def _spread_by_theory(t: int) -> float:
    """x_0 - x_0_hat ~ N(0, V) makes the KL c^2 V chi^2 / (2 B) plus a constant, and chi^2 has the variance 2."""
    bar_t, bar_s = float(EVEN.alpha_bar[t]), float(EVEN.alpha_bar[t - 1])
    V = 0.25 * (1 - bar_t) / (0.25 * bar_t + 1 - bar_t)
    return bar_s * B**2 / (1 - bar_t) ** 2 * V / (2 * B) * 2**0.5


M18 = Mistake(
    number=18,
    title='the denoising-matching term is called, or computed as, a "consistency term"',
    chapter="05_elbo",
    why="They belong to two decompositions of one bound: the consistency term averages a log ratio and may be "
    "negative, the matching term is a KL, "
    "and its one-sample estimate is far steadier.",
    wrong=wrong_term,
    right=right_term,
    observe=lambda term: torch.stack([term(films()[0], t, films()[1]).std() for t in range(2, 40)]),
    x=range(2, 40),
    labels=("t", "std of the term over films, nats"),
    quantity="standard deviation of the term at t = 20 over films, in nats",
    truth=lambda: _spread_by_theory(20),
    tolerance=1e-4,
    margin=0.5,
    read=18,
)


GROUP = (M3, M5, M8, M18, M21)
