"""Checks of chapter 03, the posterior."""

import math
from collections.abc import Callable

import torch

from . import Exercise

_JUMPS = ((0.7, -0.4, 0.9, 0.3), (-1.2, 0.8, 0.5, 0.45), (0.2, 1.5, 0.99, 0.6))
_SPREADS = ((0.5, 0.9, 0.7), (0.1, 0.6, 0.3), (2.0, 0.8, 0.75))


def _mean_by_precision(x_0: float, x_t: float, bar_s: float, bar_t: float) -> float:
    """Two witnesses about x_s: one knows x_0, the other knows x_t; each counts with its precision."""
    alpha = bar_t / bar_s
    prior, likelihood = 1 / (1 - bar_s), alpha / (1 - alpha)
    return (prior * math.sqrt(bar_s) * x_0 + likelihood * x_t / math.sqrt(alpha)) / (prior + likelihood)


def _kept_by_total_variance(c: float, bar_s: float, bar_t: float) -> float:
    """beta~ / (beta~ + weight^2 Var(x_0 | x_t)), the law of total variance."""
    alpha = bar_t / bar_s
    tilde = 1 / (1 / (1 - bar_s) + alpha / (1 - alpha))
    weight = tilde * math.sqrt(bar_s) / (1 - bar_s)
    return tilde / (tilde + weight**2 / (1 / c + bar_t / (1 - bar_t)))


def _vertex(f: Callable[[float], float]) -> tuple[float, float, float]:
    """Place, 1 / curvature and height of a parabola's lowest point, from three of its values."""
    low, middle, high = f(-1.0), f(0.0), f(1.0)
    bend = (low + high) / 2 - middle
    place = (low - high) / (4 * bend)
    return place, 1 / bend, f(place)


def _variance_on_a_grid(x_t: float, bar_s: float, bar_t: float) -> float:
    """Var(x_s | x_t) for the data -1 and 1: prior times likelihood at 20,001 places, no posterior formula."""
    alpha, x = bar_t / bar_s, torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    prior = sum(torch.exp(-((x - math.sqrt(bar_s) * point) ** 2) / (2 * (1 - bar_s))) for point in (-1, 1))
    p = prior * torch.exp(-((x_t - math.sqrt(alpha) * x) ** 2) / (2 * (1 - alpha)))
    p = p / p.sum()
    return float((p * x**2).sum() - (p * x).sum() ** 2)


def _tilde_and_weight(bar_s: float, bar_t: float) -> tuple[float, float]:
    """tilde-beta from precisions, and the weight of x_0 in the posterior mean."""
    alpha = bar_t / bar_s
    tilde = 1 / (1 / (1 - bar_s) + alpha / (1 - alpha))
    return tilde, tilde * math.sqrt(bar_s) / (1 - bar_s)


def _spread(x_t: float, bar_t: float) -> float:
    """Var(x_0 | x_t) for the data -1 and 1."""
    return 1 / math.cosh(math.sqrt(bar_t) * x_t / (1 - bar_t)) ** 2


EXERCISES = {
    "3.1": Exercise(
        answer=1 / (0.8 / 0.2 + 1 / 0.1),
        hint="beta~_2 = (1 - alpha_bar_1) / (1 - alpha_bar_2) beta_2, with alpha_bar_1 = 0.9 and alpha_bar_2 = 0.72.",
        wrong={
            "That is beta_2; knowing x_0 as well makes the bell narrower.": 0.2,
            "The fraction is upside down: the earlier time, with less noise, is in the numerator.": 0.28 / 0.1 * 0.2,
            "You used alpha_bar where 1 - alpha_bar belongs.": 0.9 / 0.72 * 0.2,
            "The denominator 1 - alpha_bar_2 is missing.": 0.1 * 0.2,
        },
    ),
    "3.2": Exercise(
        answer=1.0,
        hint="x_t = 0.6 x_0 + 0.8 eps: solve for x_0.",
        wrong={
            "Roots are missing: signal and noise enter with sqrt(alpha_bar) and sqrt(1 - alpha_bar).": (1 - 0.64 * 0.5) / 0.36,
            "You subtracted the noise but did not undo the shrinking: divide by sqrt(alpha_bar).": 0.6,
            "The noise is scaled by sqrt(1 - alpha_bar) = 0.8 before it is subtracted.": 0.5 / 0.6,
        },
    ),
    "3.3": Exercise(
        answer=_mean_by_precision,
        inputs=_JUMPS,
        hint="Two witnesses: sqrt(bar_s) x_0 with variance 1 - bar_s, and x_t / sqrt(alpha) with variance (1 - alpha) / alpha; "
        "alpha = bar_t / bar_s.",
        wrong={
            "The weights are exchanged: the weight of x_t has the factor 1 - bar_s.": lambda x_0, x_t, bar_s, bar_t: _mean_by_precision(
                x_t, x_0, bar_s, bar_t
            ),
            "The jump's alpha is bar_t / bar_s, not bar_t.": lambda x_0, x_t, bar_s, bar_t: (
                (bar_s**0.5 * (1 - bar_t) * x_0 + bar_t**0.5 * (1 - bar_s) * x_t) / (1 - bar_t)
            ),
            "The roots are missing: sqrt(bar_s) goes with x_0, sqrt(alpha) with x_t.": lambda x_0, x_t, bar_s, bar_t: (
                (bar_s * (1 - bar_t / bar_s) * x_0 + bar_t / bar_s * (1 - bar_s) * x_t) / (1 - bar_t)
            ),
            "That is the prior's mean; it ignores x_t.": lambda x_0, x_t, bar_s, bar_t: bar_s**0.5 * x_0,
        },
    ),
    "3.4": Exercise(
        answer=_kept_by_total_variance,
        inputs=_SPREADS,
        hint="True variance: beta v_s / v_t with v = alpha_bar c + 1 - alpha_bar. Yours: beta (1 - bar_s) / (1 - bar_t). Divide.",
        wrong={
            "That is beta~ / beta: right for c = 1 only.": lambda c, bar_s, bar_t: (1 - bar_s) / (1 - bar_t),
            "You compared with the spread of x_t or x_s, not with the variance of the step.": lambda c, bar_s, bar_t: (
                (bar_t * c + 1 - bar_t) / (bar_s * c + 1 - bar_s)
            ),
            "Upside down: a fraction kept is at most 1.": lambda c, bar_s, bar_t: (
                (1 - bar_t) / (1 - bar_s) * (bar_s * c + 1 - bar_s) / (bar_t * c + 1 - bar_t)
            ),
        },
    ),
    "3.5": Exercise(
        answer=(0.1 / 0.9 * 0.8 / 0.2) / (1 + 0.1 / 0.9 * 0.8 / 0.2),  # by odds
        hint="Flip and stay: 0.1 * 0.8. Stay and flip: 0.9 * 0.2. The first, over the sum of both.",
        wrong={
            "That is the prior, before you saw x_2.": 0.1,
            "That is the probability of x_1 = 1 and x_2 = 1 together; divide by the probability of x_2 = 1.": 0.08,
            "That is the likelihood, the other way round: x_2 = 1 given x_1 = 1.": 0.8,
            "That is the probability that x_1 was 0.": 9 / 13,
        },
    ),
    "3.6": Exercise(
        answer=lambda A, B, C: _vertex(lambda x: A * x**2 - 2 * B * x + C),
        inputs=((2.0, 1.0, 3.0), (0.5, -1.2, 0.4), (3.0, 0.6, -1.0)),
        hint="(x - m)^2 / v = x^2 / v - 2 m x / v + m^2 / v. So 1 / v = A, m / v = B, and m^2 / v + R = C.",
        wrong={
            "The factor 2 is already in front of B: m / v = B.": lambda A, B, C: (2 * B / A, 1 / A, C - B**2 / A),
            "Here the square is divided by v, not by 2v, so v = 1 / A.": lambda A, B, C: (B / A, 1 / (2 * A), C - B**2 / A),
            "The square brings a constant of its own, B^2 / A, that must be taken off C.": lambda A, B, C: (B / A, 1 / A, C),
            "The sign of the rest: what the square brings too much is subtracted.": lambda A, B, C: (B / A, 1 / A, C + B**2 / A),
        },
    ),
    "3.7": Exercise(
        answer=_variance_on_a_grid,
        inputs=((0.0, 0.9, 0.5), (0.4, 0.6, 0.3), (-1.0, 0.5, 0.45)),
        hint="tilde-beta + weight^2 * Var(x_0 | x_t), and Var(x_0 | x_t) = 1 - tanh^2, because x_0^2 = 1.",
        wrong={
            "That is tilde-beta, for somebody who knows x_0. Not knowing it adds the weight of x_0, squared, times Var(x_0 | x_t).": lambda x, bar_s, bar_t: (
                _tilde_and_weight(bar_s, bar_t)[0]
            ),
            "A factor enters a variance squared: the weight of x_0 is missing a square.": lambda x, bar_s, bar_t: (
                _tilde_and_weight(bar_s, bar_t)[0] + _tilde_and_weight(bar_s, bar_t)[1] * _spread(x, bar_t)
            ),
            "Before x_t is seen x_0 has variance 1; x_t makes it smaller: 1 - tanh^2.": lambda x, bar_s, bar_t: (
                _tilde_and_weight(bar_s, bar_t)[0] + _tilde_and_weight(bar_s, bar_t)[1] ** 2
            ),
            "That is beta, right for data N(0, 1); these data are two points.": lambda x, bar_s, bar_t: 1 - bar_t / bar_s,
        },
    ),
}
