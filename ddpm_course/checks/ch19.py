"""Checks of chapter 19, editing."""

import math
from collections.abc import Sequence

from . import Exercise

_TIMES = (([10, 6, 3, 0], 3), ([4, 2, 0], 2), ([8, 5, 0], 1))


def _walked(rho: float, steps: int = 20_000) -> float:
    """The share of the pull, by walking the mean's equation in alpha_bar with the midpoint rule from its start, m = rho alpha_bar^1.5 / 2."""
    a = 1e-6
    h, m = (1 - a) / steps, rho * a**1.5 / 2
    slope = lambda a, m: (m / 2 - (m - rho * a**1.5) / (1 - a * a * rho * rho)) / a  # noqa: E731
    for _ in range(steps):
        if a < 0.01:  # too steep for so long a step: the solution is known there
            a, m = a + h, rho * (a + h) ** 1.5 / 2 * (1 + rho**2 * (a + h) ** 2 / 4)
        else:
            m, a = m + h * slope(a + h / 2, m + h / 2 * slope(a, m)), a + h
    return m / rho


def _by_stack(times: Sequence[int], visits: int) -> list[int]:
    """The plan from its end: what is left to do lies on a stack."""
    left = [(t, s, visits if s > 0 else 1) for t, s in zip(times[-2::-1], times[:0:-1], strict=True)]
    walk = [times[0]]
    while left:
        t, s, times_left = left.pop()
        if walk[-1] != t:
            walk.append(t)
        walk.append(s)
        if times_left > 1:
            left.append((t, s, times_left - 1))
    return walk


def _everywhere(times: Sequence[int], visits: int) -> list[int]:
    """Wrong: the last step is repeated, too."""
    walk = [times[0]]
    for t, s in zip(times, times[1:], strict=False):
        walk += [s] + [t, s] * (visits - 1)
    return walk


def _one_more(times: Sequence[int], visits: int) -> list[int]:
    """Wrong: `visits` further walks after the first."""
    walk = [times[0]]
    for t, s in zip(times, times[1:], strict=False):
        walk += [s] + [t, s] * (visits if s > 0 else 0)
    return walk


def _standing(times: Sequence[int], visits: int) -> list[int]:
    """Wrong: steps down again without having gone up."""
    walk = [times[0]]
    for s in times[1:]:
        walk += [s] * (visits if s > 0 else 1)
    return walk


EXERCISES = {
    "19.1": Exercise(
        answer=[0.4, 0.36],
        hint="Mean sqrt(alpha_bar_s) times the pixel, variance 1 - alpha_bar_s.",
        wrong={
            "That is the standard deviation; asked is the variance.": [0.4, 0.6],
            "The mean shrinks with sqrt(alpha_bar), not with alpha_bar.": [0.32, 0.36],
            "The pixel is pasted with the noise of its time: its mean shrinks, too.": [0.5, 0.36],
            "Without noise it is pasted at the very end only.": [0.5, 0.0],
        },
    ),
    "19.2": Exercise(
        answer=_walked,
        inputs=((0.3,), (0.6,), (0.8,)),
        hint="(1 - sqrt(1 - rho^2)) / rho^2.",
        wrong={
            "That is the mean itself, for a known value of 1. Divide it by the exact mean, rho.": lambda rho: (
                (1 - math.sqrt(1 - rho**2)) / rho
            ),
            "Asked is what pasting reaches over the exact mean, which is less than 1.": lambda rho: rho**2 / (1 - math.sqrt(1 - rho**2)),
            "One half is the limit for weak correlations. It grows with rho.": lambda rho: 0.5,
            "That is the factor of the variance.": lambda rho: math.atanh(rho) / rho,
            "You put 1 - rho where 1 - rho^2 belongs.": lambda rho: (1 - math.sqrt(1 - rho)) / rho**2,
        },
        tolerance=1e-3,
    ),
    "19.3": Exercise(
        answer=_by_stack,
        inputs=_TIMES,
        hint="walk = [times[0]]; for each (t, s): s, and then (t, s) again visits - 1 times unless s = 0.",
        wrong={
            "The step to 0 is walked once: what has been noised again after the end is not finished.": _everywhere,
            "`visits` counts all walks of a step, the first one included.": _one_more,
            "Between two walks of a step the plan must go back up to t.": _standing,
            "Each step was walked once only: that is pasting without resampling.": lambda times, visits: list(times),
        },
    ),
    "19.4": Exercise(
        answer=lambda n: 10 * math.log10(2 * n) - 10 * math.log10(n + 1),
        inputs=((2,), (4,), (16,)),
        hint="10 log10 of the ratio of the square errors, 2 / (1 + 1/n).",
        wrong={
            "3 dB is the gain of the exact mean, n = infinity.": lambda n: 10 * math.log10(2),
            "Not the whole error falls like 1/n: the truth is a draw, too, and its spread stays.": lambda n: 10 * math.log10(n),
            "A ratio of square errors has the factor 10; 20 belongs to amplitudes.": lambda n: 20 * math.log10(2 / (1 + 1 / n)),
            "The sign: a lower error is a higher PSNR.": lambda n: -10 * math.log10(2 / (1 + 1 / n)),
        },
    ),
    "19.5": Exercise(
        answer=lambda d, nats: 1 / (1 + d * d / (2 * nats)),
        inputs=((13.0, 1.0), (5.0, 0.5), (2.0, 3.0)),
        hint="alpha_bar d^2 / (2 (1 - alpha_bar)) = nats.",
        wrong={
            "That is the signal-to-noise ratio, alpha_bar / (1 - alpha_bar). Solve it for alpha_bar.": lambda d, nats: 2 * nats / d**2,
            "The half in (19.13) is missing.": lambda d, nats: nats / (d**2 + nats),
            "That is 1 - alpha_bar, the share of the noise.": lambda d, nats: d**2 / (d**2 + 2 * nats),
            "The distance enters with its square.": lambda d, nats: 2 * nats / (d + 2 * nats),
        },
    ),
}
