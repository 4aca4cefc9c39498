"""Checks of chapter 21, latent diffusion."""

import math
import statistics
from collections.abc import Sequence

from . import Exercise

_SCALES = ((5.5,), (0.4,), (2.0,))
_CHANNELS = (([0.0, 2.0, -1.0, 0.5], [0.25, 0.5, 0.1, 0.3]), ([3.0, 1.0], [4.0, 2.0]), ([-1.0, -1.5, 2.0], [0.01, 0.2, 0.05]))
_COSTS = ((50, 614.0, 4, 156.0), (10, 741.0, 8, 347.0), (1, 100.0, 2, 300.0))
_LAWS = ((0.5, 0.7, 0.1), (0.0, 2.0, 0.3), (-1.0, 1.0, 0.5))
Numbers = Sequence[float]


def _by_moments(means: Numbers, variances: Numbers) -> tuple[float, float]:
    """Mean, and the root of the second moment minus the squared mean."""
    second = statistics.fmean(m * m + v for m, v in zip(means, variances, strict=True))
    centre = statistics.fmean(means)
    return centre, math.sqrt(second - centre * centre)


def _by_counting(S: float, C: float, f: float, D: float) -> float:
    """The inverse of the share of arithmetic that is left."""
    return 1 / (1 / (f * f) + D / (S * C))


def _summed(m: float, tau: float, v: float, width: float = 12.0, cells: int = 20_000) -> float:
    """E[log q(z) - log N(z; 0, 1)] over z ~ q = N(m, tau^2), on a grid."""
    total, step = 0.0, 2 * width * tau / cells
    for k in range(cells):
        z = m - width * tau + (k + 0.5) * step
        log_q = -((z - m) ** 2) / (2 * tau * tau) - math.log(tau)
        total += math.exp(log_q) / math.sqrt(2 * math.pi) * (log_q + z * z / 2) * step
    return total


EXERCISES = {
    "21.1": Exercise(
        answer=48.0,
        hint="786,432 numbers against 4 x 64 x 64.",
        wrong={
            "That is the ratio of the sides squared, f^2. The picture has 3 channels and the latent 4.": 64.0,
            "That is f, across only. It counts in both directions.": 8.0,
            "The channels the wrong way round: 3 in the picture, 4 in the latent.": 256 / 3,
            "The picture has three numbers a pixel.": 16.0,
        },
    ),
    "21.2": Exercise(
        answer=lambda a: (math.exp(2 * math.log(a)), math.exp(-math.log(a))),
        inputs=_SCALES,
        hint="A ratio of variances grows with a^2; a latent is a number, and is divided by a.",
        wrong={
            "The signal-to-noise ratio is one of variances, not of standard deviations.": lambda a: (a, 1 / a),
            "The latents are multiplied so that a becomes 1: by 1 / a.": lambda a: (a**2, a),
            "Dividing by the variance makes the spread 1 / a.": lambda a: (a**2, 1 / a**2),
            "Larger latents survive longer: the ratio goes up with a.": lambda a: (1 / a**2, 1 / a),
        },
    ),
    "21.3": Exercise(
        answer=_by_moments,
        inputs=_CHANNELS,
        hint="The variance of a draw is the variance of the means plus the mean of the variances; then the root.",
        wrong={
            "That is the spread of the means alone. A draw also has the width of q.": lambda m, v: (
                statistics.fmean(m),
                statistics.pstdev(m),
            ),
            "That is the mean width of q. The pictures differ, too.": lambda m, v: (statistics.fmean(m), math.sqrt(statistics.fmean(v))),
            "That is the variance; take the root.": lambda m, v: (statistics.fmean(m), _by_moments(m, v)[1] ** 2),
            "Divide by n, not by n - 1: these pictures are all there are.": lambda m, v: (
                statistics.fmean(m),
                math.sqrt(statistics.variance(m) + statistics.fmean(v)),
            ),
            "Standard deviations do not add up, variances do.": lambda m, v: (
                statistics.fmean(m),
                statistics.pstdev(m) + math.sqrt(statistics.fmean(v)),
            ),
        },
    ),
    "21.4": Exercise(
        answer=_by_counting,
        inputs=_COSTS,
        hint="S C against S C / f^2 + D.",
        wrong={
            "The decoder was left out.": lambda S, C, f, D: float(f**2),
            "The decoder runs once, after all steps, and not at every step.": lambda S, C, f, D: S * C / (S * (C / f**2 + D)),
            "Both directions become f times smaller: f squared.": lambda S, C, f, D: S * C / (S * C / f + D),
            "That is the other way round: the share that is left.": lambda S, C, f, D: (S * C / f**2 + D) / (S * C),
        },
    ),
    "21.5": Exercise(
        answer=_summed,
        inputs=_LAWS,
        hint="KL(N(m, tau^2) || N(0, 1)): the law of z over all pictures against the prior.",
        tolerance=1e-3,
        wrong={
            "That is the whole rate, not the part that a better prior can save.": lambda m, tau, v: (tau**2 - 1 - math.log(v) + m**2) / 2,
            "That is one guess around the mean m. The pictures differ, too.": lambda m, tau, v: (v - 1 - math.log(v) + m**2) / 2,
            "tau is already the spread of the draws over all pictures; v is inside it.": lambda m, tau, v: (
                (tau**2 + v - 1 - math.log(tau**2 + v) + m**2) / 2
            ),
            "The mean counts, too: m^2 / 2.": lambda m, tau, v: (tau**2 - 1 - math.log(tau**2)) / 2,
            "log of the variance, not of the standard deviation.": lambda m, tau, v: (tau**2 - 1 - math.log(tau) + m**2) / 2,
        },
    ),
}
