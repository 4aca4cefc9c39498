"""Checks of chapter 13, score and ODE."""

import math
from collections.abc import Callable

from . import Exercise

_FLOWS = ((0.7, -0.4, 0.3, 2.0), (-1.2, 0.9, 0.8, 5.0))


def _bent(y: float, sigma: float) -> float:
    """A slope field that depends on both."""
    return y / (1 + sigma) + sigma**2


def _turning(y: float, sigma: float) -> float:
    """Another one."""
    return math.sin(y) - 0.3 * sigma


_WALKS = ((0.5, 2.0, 1.2, _bent), (-1.0, 0.9, 0.2, _turning))
_EXACT = ((1.5, 0.4, 2.0, 0.5), (-0.3, -0.8, 1.0, 0.9))
_MEMORIES = ((0.5, 0.2, 8.0, 3.0, 1.0), (-0.4, 0.1, 2.0, 1.5, 0.2))
_PATHS = ((0.8, 0.25, 0.1, 0.6), (-1.1, 2.0, 0.4, 0.9))


def _heun_by_midline(y: float, sigma_t: float, sigma_s: float, slope: Callable[[float, float], float]) -> float:
    """The mean of where the two Euler steps end, one with each slope."""
    end = y - (sigma_t - sigma_s) * slope(y, sigma_t)
    return (end + y - (sigma_t - sigma_s) * slope(end, sigma_s)) / 2


def _through_two_points(guess: float, before: float, sigma_before: float, sigma_t: float, sigma_s: float) -> float:
    """Lagrange's line through (-log sigma_before, before) and (-log sigma_t, guess), in the middle of the step."""
    old, new, middle = -math.log(sigma_before), -math.log(sigma_t), -math.log(math.sqrt(sigma_t * sigma_s))
    return before * (middle - new) / (old - new) + guess * (middle - old) / (new - old)


EXERCISES = {
    "13.1": Exercise(
        answer=-0.5,
        hint="The score is minus eps_hat, divided by the standard deviation sqrt(1 - alpha_bar).",
        wrong={
            "The sign: the noise leads away from the data, the score leads back.": 0.5,
            "You divided by the variance 1 - alpha_bar; the score has the standard deviation below.": -0.3 / 0.36,
            "You divided by sqrt(alpha_bar), the share of the picture; it is the share of the noise that counts.": -0.375,
        },
    ),
    "13.2": Exercise(
        answer=2.0,
        hint="sigma = sqrt((1 - alpha_bar) / alpha_bar): the noise, once x_t is divided by sqrt(alpha_bar).",
        wrong={
            "That is the square, a variance.": 4.0,
            "That is the noise in x_t itself; divide by the factor sqrt(alpha_bar) that shrank the picture.": math.sqrt(0.8),
            "That is the fraction upside down, the signal over the noise.": 0.5,
        },
    ),
    "13.3": Exercise(
        answer=lambda x, eps, bar, b: b * (eps - math.sqrt(1 - bar) * x) / math.sqrt(4 * (1 - bar)),
        inputs=_FLOWS,
        hint="-b x / 2 - (b / 2) score, with score = -eps_hat / sqrt(1 - alpha_bar).",
        wrong={
            "That is the drift of the reverse SDE with time running forwards: for the ODE the score has the factor 1/2.": lambda x, eps, bar, b: (
                -b * x / 2 + b * eps / math.sqrt(1 - bar)
            ),
            "The sign of eps_hat: minus the score is plus the noise.": lambda x, eps, bar, b: -b * x / 2 - b * eps / 2 / math.sqrt(1 - bar),
            "eps_hat is not the score: divide it by sqrt(1 - alpha_bar).": lambda x, eps, bar, b: -b * x / 2 + b * eps / 2,
            "That is the way down, for backward time; dx/dtau goes from data to noise.": lambda x, eps, bar, b: (
                b * x / 2 - b * eps / 2 / math.sqrt(1 - bar)
            ),
        },
    ),
    "13.4": Exercise(
        answer=_heun_by_midline,
        inputs=_WALKS,
        hint="Euler to the end, ask there, then start again at y with the mean of both slopes.",
        wrong={
            "That is Euler's step: only the first slope is used.": lambda y, a, b, slope: y + (b - a) * slope(y, a),
            "The second slope was asked at the old y. Ask where Euler's step has led to.": lambda y, a, b, slope: (
                y + (b - a) * (slope(y, a) + slope(y, b)) / 2
            ),
            "The second slope was asked at the old noise level; at the end it is sigma_s.": lambda y, a, b, slope: (
                y + (b - a) * (slope(y, a) + slope(y + (b - a) * slope(y, a), a)) / 2
            ),
            "The mean of the slopes belongs to one step: divide their sum by 2.": lambda y, a, b, slope: (
                y + (b - a) * (slope(y, a) + slope(y + (b - a) * slope(y, a), b))
            ),
        },
    ),
    "13.5": Exercise(
        answer=lambda y, x_0, a, b: (b * y + (a - b) * x_0) / a,
        inputs=_EXACT,
        hint="(y - x_0_hat) / sigma is eps_hat, and it stays: y_s = x_0_hat + sigma_s eps_hat.",
        wrong={
            "The ratio stands on its head: the distance to x_0_hat shrinks with the noise.": lambda y, x_0, a, b: x_0 + a / b * (y - x_0),
            "You shrank the whole of y. Only its distance from x_0_hat shrinks.": lambda y, x_0, a, b: b / a * y,
            "sigma is a standard deviation: the distance shrinks with it, not with its square.": lambda y, x_0, a, b: (
                x_0 + (b / a) ** 2 * (y - x_0)
            ),
        },
    ),
    "13.6": Exercise(
        answer=_through_two_points,
        inputs=_MEMORIES,
        hint="guess + h / (2 h_before) (guess - before), with h = log(sigma_t / sigma_s) and h_before = log(sigma_before / sigma_t).",
        wrong={
            "That is the line at the end of the step; 2M reads it in the middle, at half the length.": lambda g, o, a, t, s: (
                g + math.log(t / s) / math.log(a / t) * (g - o)
            ),
            "The line runs over log sigma, not over sigma itself.": lambda g, o, a, t, s: g + (t - s) / (2 * (a - t)) * (g - o),
            "That assumes that both steps are equally long.": lambda g, o, a, t, s: g + (g - o) / 2,
            "The ratio of the lengths stands on its head: a long step ahead needs more of the slope.": lambda g, o, a, t, s: (
                g + math.log(a / t) / (2 * math.log(t / s)) * (g - o)
            ),
            "The line was continued backwards, towards the old guess.": lambda g, o, a, t, s: (
                g - math.log(t / s) / (2 * math.log(a / t)) * (g - o)
            ),
        },
    ),
    "13.7": Exercise(
        answer=lambda x, kappa, bar_t, bar_s: x * math.sqrt(1 + bar_s * (kappa - 1)) / math.sqrt(1 + bar_t * (kappa - 1)),
        inputs=_PATHS,
        hint="x over its standard deviation stays: the variance at alpha_bar is alpha_bar kappa + 1 - alpha_bar.",
        wrong={
            "That is the ratio of the variances; a distance goes with its square root.": lambda x, kappa, bar_t, bar_s: (
                x * (1 + bar_s * (kappa - 1)) / (1 + bar_t * (kappa - 1))
            ),
            "The ratio stands on its head.": lambda x, kappa, bar_t, bar_s: (
                x * math.sqrt((1 + bar_t * (kappa - 1)) / (1 + bar_s * (kappa - 1)))
            ),
            "The picture's part scales like that, but the noise does not: the whole variance counts.": lambda x, kappa, bar_t, bar_s: (
                x * math.sqrt(bar_s / bar_t)
            ),
        },
    ),
}
