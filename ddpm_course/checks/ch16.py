"""Checks of chapter 16, classifier guidance."""

import math

from . import Exercise

_STEPS = (
    (0.9, 0.4, 0.5, lambda x: 2 * x, 3.0),
    (-1.2, -0.7, 0.3, lambda x: 1 - x * x, 1.0),
    (0.1, 0.6, 2.0, lambda x: math.cos(x), 2.0),
)
_PLACES = ((0.0, 0.3), (-0.8, 0.5), (1.1, 0.9), (0.4, 0.05))
_LABELS = ((1.0, 0.5, 0.4), (3.0, 0.8, 0.6), (2.0, 0.3, 0.9), (8.0, 0.6, 0.2))


def _top(x_t: float, mu: float, std: float, gradient: object, scale: float) -> float:
    """The highest point of parabola plus straight line, by the vertex through three points."""
    slope = gradient(mu)  # type: ignore[operator]
    height = lambda x: -((x - mu) ** 2) / (2 * std**2) + scale * slope * (x - mu)  # noqa: E731
    left, middle, right = height(mu - 1), height(mu), height(mu + 1)
    return mu + (right - left) / (2 * (2 * middle - left - right))


def _log_plus(x: float, bar: float) -> float:
    """log p(y = +1 | x_t = x) from the two bells."""
    bells = [math.exp(-((x - sign * math.sqrt(bar)) ** 2) / (2 * (1 - bar))) for sign in (1, -1)]
    return math.log(bells[0] / sum(bells))


def _pull(x: float, bar: float, h: float = 1e-5) -> float:
    """Its slope, by a central difference."""
    return (_log_plus(x + h, bar) - _log_plus(x - h, bar)) / (2 * h)


def _variance(scale: float, c: float, bar: float) -> float:
    """By summing q(x_t) p(y | x_t)^scale on a grid: p is the ratio of two normal densities."""
    of_class, total, square = bar * (1 - c) + 1 - bar, 0.0, 0.0
    for k in range(-4000, 4001):
        x = k * 0.002
        weight = math.exp(-(x * x) / 2 + scale * (-(x * x) / (2 * of_class) + x * x / 2))
        total, square = total + weight, square + weight * x * x
    return square / total


EXERCISES = {
    "16.1": Exercise(
        answer=-0.6 * (-0.5 / 0.6 + 2 * 0.25),  # the scores, added, then back to noise
        hint="eps_hat - s sqrt(1 - alpha_bar) g.",
        wrong={
            "The sign: the noise points away from where the score points.": 0.5 + 2 * 0.6 * 0.25,
            "The factor is the standard deviation of the noise, not its variance: take the root of 1 - alpha_bar.": 0.5 - 2 * 0.36 * 0.25,
            "The scale is missing.": 0.5 - 0.6 * 0.25,
            "You took the share of the signal, sqrt(alpha_bar); the noise has sqrt(1 - alpha_bar).": 0.5 - 2 * 0.8 * 0.25,
        },
    ),
    "16.2": Exercise(
        answer=_top,
        inputs=_STEPS,
        hint="mu + scale * variance * gradient at mu.",
        wrong={
            "The shift is the variance times the gradient; you were given the standard deviation.": lambda x, m, d, g, s: m + s * d * g(m),
            "The gradient belongs at mu: that is where the straight line touches.": lambda x, m, d, g, s: m + s * d * d * g(x),
            "The scale is missing.": lambda x, m, d, g, s: m + d * d * g(m),
            "The sign: the mean moves up the slope of log p.": lambda x, m, d, g, s: m - s * d * d * g(m),
        },
    ),
    "16.3": Exercise(
        answer=_pull,
        inputs=_PLACES,
        hint="log p = -log(1 + exp(-a x)) with a = 2 sqrt(bar) / (1 - bar); its slope is a (1 - p).",
        wrong={
            "That is the slope of log q(x_t | y) alone; the slope of log q(x_t) has to be subtracted.": lambda x, bar: (
                (math.sqrt(bar) - x) / (1 - bar)
            ),
            "That is the slope of p itself, not of its logarithm.": lambda x, bar: _pull(x, bar) * math.exp(_log_plus(x, bar)),
            "The bells stand at +- sqrt(bar), not at +- bar.": lambda x, bar: 2 * bar / (1 - bar) / (1 + math.exp(2 * bar * x / (1 - bar))),
            "The bells have the variance 1 - bar, not 1.": lambda x, bar: 2 * math.sqrt(bar) / (1 + math.exp(2 * math.sqrt(bar) * x)),
        },
    ),
    "16.4": Exercise(
        answer=_variance,
        inputs=_LABELS,
        hint="1 / (1 + s (1 / (1 - bar c) - 1)).",
        wrong={
            "You sharpened at t = 0 and then added noise; the guided model sharpens at t.": lambda s, c, bar: (
                bar / (1 + s * c / (1 - c)) + 1 - bar
            ),
            "That is the variance of the class at t, which is right for scale 1 only.": lambda s, c, bar: 1 - bar * c,
            "The scale multiplies only the precision that the label adds, not all of it.": lambda s, c, bar: (1 - bar * c) / s,
            "That is the law at t = 0; at t the class has the variance 1 - bar c.": lambda s, c, bar: 1 / (1 + s * c / (1 - c)),
        },
    ),
    "16.5": Exercise(
        answer=-0.2 / 0.6 - (-0.5 / 0.6),  # a difference of scores
        hint="g = (eps of all - eps of the class) / sqrt(1 - alpha_bar).",
        wrong={
            "The sign: a score is minus the noise.": -0.5,
            "That is the difference of the noises; a score is the noise divided by its standard deviation.": 0.3,
            "You divided by the variance; the standard deviation of the noise is sqrt(1 - alpha_bar).": 0.3 / 0.36,
            "You divided by sqrt(alpha_bar), the share of the signal.": 0.3 / 0.8,
        },
    ),
}
