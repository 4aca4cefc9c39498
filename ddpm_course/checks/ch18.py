"""Checks of chapter 18, text to image."""

import math
from collections.abc import Sequence

from . import Exercise

Numbers = Sequence[float]
_LOOKS = (
    ([1.0, -0.5], [[0.3, 1.0], [2.0, 0.1], [-1.0, 0.4]], [1.0, -2.0, 0.5]),
    ([0.7, 0.2, -1.1, 0.4], [[1.0, 0.5, -0.3, 0.2], [0.1, -1.0, 0.9, 0.6]], [0.8, 3.0]),
)
_MASKS = (([0.5, 2.0, -1.0, 0.0], [True, True, True, False]), ([1.2, 0.3, -0.4], [True, False, False]))
_RATES = ((0.98, 0.93, 0.97, 0.99), (0.9, 0.8, 0.95, 0.85))


def _by_ratios(s: Numbers) -> list[float]:
    """Softmax without dividing by a sum of exponentials: 1 / sum of ratios."""
    return [1 / sum(math.exp(other - own) for other in s) for own in s]


def _mixed(weights: Numbers, v: Numbers) -> float:
    """Sum of weight times message."""
    return sum(a * b for a, b in zip(weights, v, strict=True))


def _scores(q: Numbers, k: Sequence[Numbers], power: float = 0.5) -> list[float]:
    """q . k_j / d^power."""
    return [_mixed(q, row) / len(q) ** power for row in k]


def _masked(s: Numbers, mask: Sequence[bool]) -> list[float]:
    """Weights of the real words among themselves, and 0 for padding."""
    weights = iter(_by_ratios([score for score, real in zip(s, mask, strict=True) if real]))
    return [next(weights) if real else 0.0 for real in mask]


def _all_right(layout: float, digit: float, colour: float, size: float, pictures: int = 1000) -> float:
    """Counted over pictures, half of them with two things."""
    thing = digit * colour * size
    one, two = pictures / 2 * layout * thing, pictures / 2 * layout * thing * thing
    return (one + two) / pictures


EXERCISES = {
    "18.1": Exercise(
        answer=0.5,
        hint="e^s of the word, over the sum of all e^s: 2 / (1 + 1 + 2).",
        wrong={
            "Shares of the scores themselves; the scores go through e^s first.": 1.0,
            "That is the weight if all scores are equal.": 1 / 3,
            "That is the weight of one of the two other words.": 0.25,
            "2 is e^s of this word; divide by the sum of all three.": 2.0,
        },
    ),
    "18.2": Exercise(
        answer=0.125,
        hint="Two sizes, two colours, two digits: each pair can be given to the two things in two ways.",
        wrong={
            "That holds if colours alone can be exchanged. Sizes and digits can be, too.": 0.5,
            "Two pairs can be exchanged in 4 ways; here there are three pairs.": 0.25,
            "The three choices are made independently: multiply, 2 x 2 x 2, do not add.": 1 / 6,
            "The bag has the words of one sentence: which word goes to which thing is open.": 1.0,
        },
    ),
    "18.3": Exercise(
        answer=lambda q, k, v: _mixed(_by_ratios(_scores(q, k)), v),
        inputs=_LOOKS,
        hint="Scores q.k_j / sqrt(d); weights e^s over their sum; then the mean of the messages with these weights.",
        wrong={
            "The scores are not divided by sqrt(d).": lambda q, k, v: _mixed(_by_ratios(_scores(q, k, 0)), v),
            "Divide by sqrt(d), not by d: the variance of q.k is d, its standard deviation sqrt(d).": lambda q, k, v: _mixed(
                _by_ratios(_scores(q, k, 1)), v
            ),
            "The weights do not add up to 1: divide by the sum of all e^s.": lambda q, k, v: _mixed(
                [math.exp(s) for s in _scores(q, k)], v
            ),
            "Those are shares of the scores; take e^s first.": lambda q, k, v: _mixed([s / sum(_scores(q, k)) for s in _scores(q, k)], v),
            "Only the best word was heard. The answer is a blend of all.": lambda q, k, v: max(zip(_scores(q, k), v, strict=True))[1],
            "That is the mean without questions: all words weigh the same.": lambda q, k, v: sum(v) / len(v),
        },
    ),
    "18.4": Exercise(
        answer=_masked,
        inputs=_MASKS,
        hint="Leave padding out of the sum, too: the weights of the real words add up to 1.",
        wrong={
            "Padding is heard as well.": lambda s, mask: _by_ratios(s),
            "Padding was set to 0 after the softmax: the rest no longer adds up to 1.": lambda s, mask: [
                a * m for a, m in zip(_by_ratios(s), mask, strict=True)
            ],
            "A score of 0 is not silence: e^0 = 1. Minus infinity is.": lambda s, mask: _by_ratios(
                [score if m else 0.0 for score, m in zip(s, mask, strict=True)]
            ),
        },
    ),
    "18.5": Exercise(
        answer=_all_right,
        inputs=_RATES,
        hint="layout x thing for one thing, layout x thing x thing for two; half of the pictures each.",
        wrong={
            "That is for pictures of one thing.": lambda layout, digit, colour, size: layout * digit * colour * size,
            "That is for pictures of two things.": lambda layout, digit, colour, size: layout * (digit * colour * size) ** 2,
            "Average the two shares, not the number of things: x^1.5 is not the mean of x and x^2.": lambda layout, digit, colour, size: (
                layout * (digit * colour * size) ** 1.5
            ),
            "The layout has to be right as well.": lambda layout, digit, colour, size: _all_right(1, digit, colour, size),
            "Right once, and right in all four: multiply, do not average.": lambda layout, digit, colour, size: (
                (layout + digit + colour + size) / 4
            ),
        },
    ),
}
