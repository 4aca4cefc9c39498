"""Checks of chapter 12, likelihood."""

import itertools
import math

from . import Exercise

_JUMPS = ((0.3, 0.5, 0.4), (0.8, 0.85, 0.9), (0.05, 0.6, 0.1))
_WIDTHS = ((0.25, 0.1), (0.04, 0.001), (2.0, 0.3))
_MATRICES = (([[1.0, 2.0], [0.5, -1.0]],), ([[0.3, 0.0, 1.0], [2.0, 1.0, -1.0], [0.5, 0.2, 0.1]],), ([[2.0, 0.0], [0.0, 3.0]],))
_PAIRS = ((1.0, 4.0), (0.1, 0.2), (0.5, 0.5))


def _bits(log_density: float, D: int, n: int) -> float:
    """Bits of the probability (density times bin width to the power D)."""
    return -(log_density + D * math.log(2 / (n - 1))) / math.log(2) / D


def _best(bar_t: float, bar_s: float, u: float) -> float:
    """Through precisions: the posterior's variance, and its weight of x_0 times the spread of x_0."""
    alpha = bar_t / bar_s
    tilde = 1 / (alpha / (1 - alpha) + 1 / (1 - bar_s))
    return tilde + (tilde * math.sqrt(bar_s) / (1 - bar_s)) ** 2 * u * (1 / bar_t - 1)


def _trace(kappa: float, bar: float, power: int = 2) -> float:
    """Midpoint rule on kappa' / (2 kappa) over the angle."""
    end, n = math.acos(math.sqrt(bar)), 20_000
    at = [(k + 0.5) * end / n for k in range(n)]
    slope = [math.sin(a) * math.cos(a) * (1 - kappa) / (math.cos(a) ** 2 * kappa + math.sin(a) ** 2) for a in at]
    return sum(slope) * end / n * (power / 2)


def _spread(A: list[list[float]]) -> float:
    """The variance of e.A e over all sign vectors, by listing them."""
    D = len(A)
    values = [sum(A[i][j] * e[i] * e[j] for i in range(D) for j in range(D)) for e in itertools.product((-1, 1), repeat=D)]
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)


def _price(a: float, b: float) -> float:
    """The lowest cost over sigma^2, by ternary search in the logarithm."""
    cost = lambda s: sum(0.5 * (v / s - 1 - math.log(v / s)) for v in (a, b))  # noqa: E731
    low, high = math.log(1e-4), math.log(1e3)
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if cost(math.exp(left)) < cost(math.exp(right)) else (left, high)
    return cost(math.exp(low))


EXERCISES = {
    "12.1": Exercise(
        answer=_bits,
        inputs=((-120.0, 64, 256), (300.0, 10, 17), (0.0, 3, 2)),
        hint="Probability = density times width^D; take -log2 and divide by D.",
        wrong={
            "The width of the bin is missing: that is a density in bits, not a probability.": lambda ell, D, n: -ell / D / math.log(2),
            "The width has the wrong sign: a narrow bin has a small probability, so it costs more bits.": lambda ell, D, n: (
                -ell / D / math.log(2) + math.log2(2 / (n - 1))
            ),
            "Those are nats; a bit is log 2 nats.": lambda ell, D, n: -ell / D - math.log(2 / (n - 1)),
            "n levels have n - 1 distances: the width is 2 / (n - 1).": lambda ell, D, n: -ell / D / math.log(2) - math.log2(2 / n),
        },
    ),
    "12.2": Exercise(
        answer=_best,
        inputs=_JUMPS,
        hint="beta~ + c_0^2 (1 - alpha_bar_t) / alpha_bar_t u, with 1 - alpha in the place of beta.",
        wrong={
            "That is beta~, right for u = 0 only.": lambda bar_t, bar_s, u: _best(bar_t, bar_s, 0.0),
            "c_0 enters squared: it multiplies a difference, and the difference is squared.": lambda bar_t, bar_s, u: (
                _best(bar_t, bar_s, 0.0) + math.sqrt(bar_s) * (1 - bar_t / bar_s) / (1 - bar_t) * (1 / bar_t - 1) * u
            ),
            "u is an error of eps. One unit of it is (1 - alpha_bar_t) / alpha_bar_t units of error of x_0.": lambda bar_t, bar_s, u: _best(
                bar_t, bar_s, u / (1 / bar_t - 1)
            ),
            "You left beta~ out: the posterior has a variance of its own.": lambda bar_t, bar_s, u: (
                _best(bar_t, bar_s, u) - _best(bar_t, bar_s, 0.0)
            ),
        },
    ),
    "12.3": Exercise(
        answer=_trace,
        inputs=_WIDTHS,
        hint="The derivative of v_hat is kappa' / (2 kappa): half the derivative of log kappa. Take it at both ends.",
        wrong={
            "The factor 1/2 is missing: x grows as the standard deviation does, not as the variance.": lambda kappa, bar: _trace(
                kappa, bar, 4
            ),
            "Upside down: from narrow data to noise the space is stretched, and the integral positive.": lambda kappa, bar: (
                -_trace(kappa, bar)
            ),
            "The path starts at the variance kappa of the data, not at 1.": lambda kappa, bar: 0.5 * math.log(bar * kappa + 1 - bar),
        },
    ),
    "12.4": Exercise(
        answer=[8 / 11, 2 / 11, 1 / 11],
        hint="Roots 4, 1, 0.5; divide by their sum.",
        wrong={
            "Proportional to the roots of the mean squares, not to the mean squares.": [16 / 17.25, 1 / 17.25, 0.25 / 17.25],
            "Those are the roots; probabilities add up to 1.": [4.0, 1.0, 0.5],
            "Uniform is unbiased, but noisier.": [1 / 3, 1 / 3, 1 / 3],
        },
    ),
    "12.5": Exercise(
        answer=_spread,
        inputs=_MATRICES,
        hint="Sum over i < j of (A_ij + A_ji)^2.",
        wrong={
            "That holds for normal numbers; with signs the diagonal makes no noise.": lambda A: (
                _spread(A) + 2 * sum(A[i][i] ** 2 for i in range(len(A)))
            ),
            "e_i e_j occurs twice, with A_ij and with A_ji. Add them before you square.": lambda A: sum(
                A[i][j] ** 2 for i in range(len(A)) for j in range(len(A)) if i != j
            ),
            "That is the standard deviation.": lambda A: math.sqrt(_spread(A)),
        },
    ),
    "12.6": Exercise(
        answer=_price,
        inputs=_PAIRS,
        hint="The best sigma^2 is the mean of a and b. The fractions then cancel the ones, and two logarithms stay.",
        wrong={
            "That is one number; there are two.": lambda a, b: _price(a, b) / 2,
            "You took the geometric mean as sigma^2; it is not the best one.": lambda a, b: (a + b) / (2 * math.sqrt(a * b)) - 1,
            "The cost is in the variances themselves: their arithmetic mean over their geometric mean, in logarithms.": lambda a, b: (
                (a + b) / 2 - math.sqrt(a * b)
            ),
        },
    ),
}
