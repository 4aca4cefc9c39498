"""Checks of chapter 14, evaluation."""

import math
from itertools import combinations, product
from statistics import NormalDist

from . import Exercise

_DIAGONALS = (
    ([0.0, 1.0], [1.0, 4.0], [3.0, 1.0], [4.0, 0.25]),
    ([2.0], [9.0], [-1.0], [2.25]),
    ([0.5, -1.0, 2.0], [0.04, 1, 2], [0, 0, 0], [1, 1, 3]),
)
_LINES = (
    ([0, 1, 3, 10], [-3, -3.1, 6.5, 19.1, 18.9], 2),
    ([0, 1, 3, 10], [-0.9, 5.5, 4.5, 16.5, 17.5, 2.1], 1),
    ([5, 6, 7, 20, 21.5], [0, 3.2, 12, 30, 34.9], 3),
    ([0, 1, 2, 20, 21, 22], [10.0, 0.5, 21.5, -1.5], 1),
)
_SAMPLES = (([1.0, 2.0, 4.0], [0.5, -1.0, 3.0]), ([0.3, -0.2], [1.0, 1.4]), ([2.0, 2.0, -1.0, 0.5], [0.0, 1.0, 1.0, 2.0]))
_HEAPS = ((100, 64, 1.0), (359, 2, 0.25), (50, 10, 4.0))


def _by_quantiles(mean_1: float, std_1: float, mean_2: float, std_2: float, points: int = 4000) -> float:
    """The cost of the plan that keeps the order, by quantiles; the tails' share is put in from the normal's own variance."""
    z = [NormalDist().inv_cdf((i + 0.5) / points) for i in range(points)]
    scale = math.sqrt(points / sum(v * v for v in z))
    return sum((mean_1 + std_1 * scale * v - mean_2 - std_2 * scale * v) ** 2 for v in z) / points


def _diagonal(means_1: list[float], vars_1: list[float], means_2: list[float], vars_2: list[float]) -> float:
    """Axis by axis, each by its order-keeping plan."""
    rows = zip(means_1, vars_1, means_2, vars_2, strict=True)
    return sum(_by_quantiles(m, math.sqrt(v), p, math.sqrt(w), 400) for m, v, p, w in rows)


def _precision(real: list[float], fake: list[float], k: int, neighbours: int = 0) -> float:
    """Counting: a fake is inside if, for some real, fewer than k other reals are nearer to that real than it is."""
    inside = 0
    for f in fake:
        nearer = lambda i: sum(abs(real[i] - y) < abs(real[i] - f) for j, y in enumerate(real) if j != i)  # noqa: B023, E731
        inside += any(nearer(i) < k + neighbours for i in range(len(real)))
    return inside / len(fake)


def _pairs(x: list[float], y: list[float], with_self: bool = False) -> float:
    """All pairs, one by one."""
    n = len(x)
    if with_self:
        within = sum(sum(a * b for a, b in product(s, s)) / n**2 for s in (x, y))
    else:
        within = sum(sum(a * b for a, b in combinations(s, 2)) * 2 / (n * (n - 1)) for s in (x, y))
    return within - 2 * sum(a * b for a, b in product(x, y)) / n**2


def _mean_part(n: int, dim: int, variance: float) -> float:
    """Each of the dim differences of two means has the variance of one mean, twice."""
    return sum(variance / n + variance / n for _ in range(dim))


EXERCISES = {
    "14.1": Exercise(
        answer=_by_quantiles(0.0, 1.0, 3.0, 2.0),
        hint="(mu_1 - mu_2)^2 + (sigma_1 - sigma_2)^2.",
        wrong={
            "You took the variances for the standard deviations: sigma_2 is 2, not 4.": 18.0,
            "The difference of the means is squared, too.": 4.0,
            "That is only the part of the means.": 9.0,
            "That is the root; the score is quoted squared.": math.sqrt(10),
            "(sigma_1 - sigma_2)^2 is not sigma_1^2 - sigma_2^2.": 6.0,
        },
    ),
    "14.2": Exercise(
        answer=_diagonal,
        inputs=_DIAGONALS,
        hint="Sum over the axes: the squared difference of the means plus the squared difference of the standard deviations.",
        wrong={
            "The covariance part compares standard deviations: take the roots of the variances first.": lambda m, v, p, w: sum(
                (a - b) ** 2 + (c - d) ** 2 for a, b, c, d in zip(m, p, v, w, strict=True)
            ),
            "The means' part is missing.": lambda m, v, p, w: sum((math.sqrt(c) - math.sqrt(d)) ** 2 for c, d in zip(v, w, strict=True)),
            "The cross term is missing: variances add up as if the plan paired points at random.": lambda m, v, p, w: sum(
                (a - b) ** 2 + c + d for a, b, c, d in zip(m, p, v, w, strict=True)
            ),
        },
        tolerance=1e-6,
    ),
    "14.3": Exercise(
        answer=(2 * 224 - 400) / math.sqrt(400),
        hint="(accuracy - 1/2) divided by (1/2) / sqrt(n).",
        wrong={
            "That is the distance in standard deviations of one flip; the mean of 400 flips is sqrt(400) times as sure.": 0.12,
            "Under chance the share is 1/2, so its standard error is sqrt(1/4 / n), not that of a share of 0.56.": (
                0.06 / math.sqrt(0.56 * 0.44 / 400)
            ),
            "That is the distance from chance itself; divide it by its standard error.": 0.06,
        },
    ),
    "14.4": Exercise(
        answer=_precision,
        inputs=_LINES,
        hint="For each real point sort its distances to all real points and take entry k (entry 0 is the point itself).",
        wrong={
            "The point itself was counted as its first neighbour: the balls are one neighbour too small.": lambda real, fake, k: _precision(
                real, fake, k, -1
            ),
            "That is the recall: the balls belong to the real points.": lambda real, fake, k: _precision(fake, real, k),
            "The balls are one neighbour too large: entry 0 of the sorted distances is the point itself.": lambda real, fake, k: _precision(
                real, fake, k, 1
            ),
        },
    ),
    "14.5": Exercise(
        answer=_pairs,
        inputs=_SAMPLES,
        hint="Mean of x_i x_j over i != j, the same for y, minus twice the mean of x_i y_j over all pairs.",
        wrong={
            "That is the squared difference of the means: pairs of a point with itself are still in it, so it is biased.": lambda x, y: (
                _pairs(x, y, True)
            ),
            "There are n (n - 1) pairs with i != j, not n^2.": lambda x, y: (
                sum(sum(s) ** 2 - sum(v * v for v in s) for s in (x, y)) / len(x) ** 2 - 2 * sum(x) * sum(y) / len(x) ** 2
            ),
            "Twice the mean over the mixed pairs: x with y, and y with x.": lambda x, y: _pairs(x, y) + sum(x) * sum(y) / len(x) ** 2,
        },
    ),
    "14.6": Exercise(
        answer=_mean_part,
        inputs=_HEAPS,
        hint="D times the result of (14.6).",
        wrong={
            "Both means are noisy, not only one.": lambda n, dim, variance: dim * variance / n,
            "The feature's variance was taken for its standard deviation.": lambda n, dim, variance: 2 * dim * variance**2 / n,
            "That is one feature; there are D.": lambda n, dim, variance: 2 * variance / n,
            "The variance of a mean falls like 1/n, not like 1/n^2.": lambda n, dim, variance: 2 * dim * variance / n**2,
        },
    ),
}
