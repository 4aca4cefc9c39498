"""Checks of chapter 17, classifier-free guidance."""

import math
from collections.abc import Sequence

from . import Exercise

_ANSWERS = ((0.5, 0.2, 0.64), (-0.3, 0.4, 0.1))
_LABELS = (([3, 1, 4, 0, 5], [0.9, 0.05, 0.3, 0.15, 0.6], 0.2), ([7, 10, 2, 2], [0.12, 0.8, 0.4, 0.95], 0.5))
_READINGS = ((1.0, 3.0), (0.5, 2.0), (2.0, 1.5))
_COINS = (([0.5, 0.3, 0.2], [0.1, 0.4, 0.2], [1.0, -0.5, 0.3]), ([0.9, 0.1], [0.05, 0.6], [0.2, 1.4]))
Numbers = Sequence[float]


def _walked(r: float, s: float, steps: int = 4000) -> float:
    """Variance at the end of the guided ODE for data N(0, 1), walked in alpha_bar by the midpoint rule, over that of p(x) p(y|x)^s."""
    log_var = 0.0
    for k in range(steps):
        bar = (k + 0.5) / steps
        given = 1 - bar / (1 + r)  # variance of x_t given y
        pull = (1 - s) + s / given
        log_var += (1 - pull) / bar / steps
    return math.exp(log_var) * (1 + s / r)  # precision of the tilted law


def _counted(p: Numbers, hidden: Numbers, answers: Numbers, pictures: int = 10_000) -> float:
    """Mean over the pictures that arrive with a hidden label, class by class."""
    arrive = [pictures * a * b for a, b in zip(p, hidden, strict=True)]
    return sum(n / sum(arrive) * e for n, e in zip(arrive, answers, strict=True))


def _mean(weights: Numbers, answers: Numbers) -> float:
    """Weighted mean."""
    return sum(w * e for w, e in zip(weights, answers, strict=True)) / sum(weights)


def _hidden(y: Sequence[int], dice: Numbers, share: float) -> list[int]:
    """By sorting: the labels whose die lies among the lowest `share`."""
    out = list(y)
    for k in sorted(range(len(y)), key=lambda k: dice[k]):
        if dice[k] - share >= 0:
            break
        out[k] = 10
    return out


EXERCISES = {
    "17.1": Exercise(
        answer=2.5,
        hint="s = 1 + w.",
        wrong={
            "That is w itself: at s = 1.5 you get half a unit of guidance instead of one and a half.": 1.5,
            "The other way round: s is the larger one, since no guidance is s = 1 and w = 0.": 0.5,
        },
    ),
    "17.2": Exercise(
        answer=1.1,
        hint="eps(x) + s (eps(x, y) - eps(x)).",
        wrong={
            "That takes 3 for w: (1 + 3) * 0.5 - 3 * 0.2. Here s = 3, so w = 2.": 1.4,
            "The difference was taken the other way round: you walk away from the label.": 0.2 + 3 * (0.2 - 0.5),
            "Only the answer with the label was scaled; the other one has to be taken off.": 1.5,
            "You exchanged the two answers.": 0.5 + 3 * (0.2 - 0.5),
        },
    ),
    "17.3": Exercise(
        answer=lambda e, o, bar: (o - e) / math.sqrt(1 - bar),
        inputs=_ANSWERS,
        hint="Score with label minus score without; score = -eps / sqrt(1 - alpha_bar).",
        wrong={
            "The sign: eps points away from the data, the score towards them.": lambda e, o, bar: (e - o) / math.sqrt(1 - bar),
            "You divided by the variance; the score has the standard deviation sqrt(1 - alpha_bar) below.": lambda e, o, bar: (
                (o - e) / (1 - bar)
            ),
            "eps is not a score yet: divide by sqrt(1 - alpha_bar).": lambda e, o, bar: o - e,
            "Divide by the share of the noise, sqrt(1 - alpha_bar), not by that of the picture.": lambda e, o, bar: (
                (o - e) / math.sqrt(bar)
            ),
        },
    ),
    "17.4": Exercise(
        answer=_hidden,
        inputs=_LABELS,
        hint="10 where the picture's own die is below `share`, else its label.",
        wrong={
            "One throw for the whole batch: that is mistake M28.": lambda y, dice, share: [10] * len(y) if dice[0] < share else list(y),
            "The comparison is turned round: you hide all but `share`.": lambda y, dice, share: [
                10 if d >= share else k for k, d in zip(y, dice, strict=True)
            ],
            "0 is a digit. The label that means none is 10.": lambda y, dice, share: [
                0 if d < share else k for k, d in zip(y, dice, strict=True)
            ],
        },
    ),
    "17.5": Exercise(
        answer=_walked,
        inputs=_READINGS,
        hint="(r / (1 + r))^s divided by r / (r + s).",
        wrong={
            "That is the ratio upside down: the promised variance over DDIM's.": lambda r, s: 1 / _walked(r, s),
            "That is DDIM's variance; divide it by the promised one.": lambda r, s: _walked(r, s) / (1 + s / r),
            "You took the gap of two particles for the variance: the variance goes with its square.": lambda r, s: (
                (r / (1 + r)) ** (s / 2) * (r + s) / r
            ),
            "You divided by the variance of p(x | y), the case s = 1.": lambda r, s: (r / (1 + r)) ** (s - 1),
            "That is DDPM's variance over the promised one.": lambda r, s: (
                (r - (1 + r) * (r / (1 + r)) ** (2 * s)) / (2 * s - 1) * (r + s) / r
            ),
        },
        tolerance=1e-3,
    ),
    "17.6": Exercise(
        answer=_counted,
        inputs=_COINS,
        hint="Weights p[k] hidden[k], divided by their sum.",
        wrong={
            "That holds for a blind coin. Here classes that are hidden more often weigh more.": lambda p, hidden, answers: _mean(
                p, answers
            ),
            "The weights have to sum to 1: divide by the probability of being hidden.": lambda p, hidden, answers: sum(
                a * b * c for a, b, c in zip(p, hidden, answers, strict=True)
            ),
            "The classes are not equally probable at this x_t: p[k] is missing.": lambda p, hidden, answers: _mean(hidden, answers),
            "Those are the pictures whose label is *seen*.": lambda p, hidden, answers: _mean(
                [a * (1 - b) for a, b in zip(p, hidden, strict=True)], answers
            ),
        },
    ),
}
