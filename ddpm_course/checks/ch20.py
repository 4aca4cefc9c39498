"""Checks of chapter 20, series."""

import itertools
import math
from collections.abc import Sequence

from . import Exercise

Numbers = Sequence[float]
_SERIES = (([1.0, 3.0, 2.0, 5.0, 4.0, 6.0], 1), ([0.5, -1.0, 2.0, 0.0, 1.5], 2), ([2.0, 2.5, 1.0, 0.0, 3.0, 1.0, 4.0], 3))
_AXES = ((0.01, 0.99), (0.3, 0.5), (1.0, 0.9))
_FORECASTS = (([1.0, 2.0, 4.0], 2.5), ([0.3, -0.2, 0.9, 0.1], 1.5), ([1.0, 1.0], 0.0))
_SOUNDS = (([0.0, 0.5, -0.25, 1.0, -1.0],), ([1.2, -1.7, 0.1],))


def _lagged(x: Numbers, k: int, centred: bool = True, circular: bool = False, unbiased: bool = False) -> float:
    """Autocorrelation at lag k by pairs of indices, with the mistakes that people make."""
    mean = math.fsum(x) / len(x) if centred else 0.0
    pairs = [(h, (h + k) % len(x)) for h in range(len(x)) if circular or h + k < len(x)]
    top, bottom = math.fsum((x[a] - mean) * (x[b] - mean) for a, b in pairs), math.fsum((v - mean) ** 2 for v in x)
    return top / bottom * (len(x) / (len(x) - k) if unbiased else 1)


def _kept(power: float, bar: float, nodes: int = 4001) -> float:
    """Variance of E[x_0 | x_t] over that of x_0, by summing over x_t on a grid."""
    var = bar * power + 1 - bar
    grid = [(-6 + 12 * k / (nodes - 1)) * math.sqrt(var) for k in range(nodes)]
    weights = [math.exp(-0.5 * x * x / var) for x in grid]
    guess = [math.sqrt(bar) * power / var * x for x in grid]
    return math.fsum(w * g * g for w, g in zip(weights, guess, strict=True)) / math.fsum(weights) / power


def _pairs(draws: Numbers, y: float, share: float = 0.5, with_itself: bool = False) -> float:
    """CRPS by all pairs of draws."""
    pairs = itertools.product(draws, draws) if with_itself else itertools.permutations(draws, 2)
    gaps = [abs(a - b) for a, b in pairs]
    return sum(abs(a - y) for a in draws) / len(draws) - share * sum(gaps) / len(gaps)


def _sixteen_bits(x: Numbers) -> list[int]:
    """By comparison, sample by sample."""
    return [32767 if v > 1 else -32767 if v < -1 else int(math.floor(v * 32767 + 0.5)) for v in x]


EXERCISES = {
    "20.1": Exercise(
        answer=math.exp(24 * math.log(0.9)),
        hint="Each hour multiplies by phi, so 24 hours multiply by phi^24.",
        wrong={
            "Hours do not add up, they multiply: phi^24, not 24 phi.": 24 * 0.9,
            "That is the correlation of one hour.": 0.9,
            "You took phi^2 for each hour; that would be the share of variance that is explained.": 0.9**48,
            "That is what is *not* remembered; the correlation is phi^24 itself.": 1 - 0.9**24,
        },
    ),
    "20.2": Exercise(
        answer=19,
        hint="Lowest and highest: k = 1. Solve (m - 1) / (m + 1) = 0.9.",
        wrong={
            "Nearly: with 20 draws the band covers 19/21. The truth is one more value of the same law, so m + 1 = 20.": 20,
            "Nine draws leave a tenth on *each* side; both sides together may be a tenth.": 9,
            "That leaves out that the truth can fall on either side, and that it is itself one of the m + 1.": 10,
            "That is the band from the second lowest to the second highest, k = 2.": 39,
        },
    ),
    "20.3": Exercise(
        answer=_lagged,
        inputs=_SERIES,
        hint="Take the mean off, sum x_h x_(h+k) over h = 0..L-k-1, divide by the sum of all squares.",
        wrong={
            "Take the mean of the series off first: otherwise a level looks like memory.": lambda x, k: _lagged(x, k, centred=False),
            "Your sum runs round the end: the last hour is not followed by the first.": lambda x, k: _lagged(x, k, circular=True),
            "You divided each sum by its number of pairs. Here all lags have the same denominator.": lambda x, k: _lagged(
                x, k, unbiased=True
            ),
        },
    ),
    "20.4": Exercise(
        answer=_kept,
        inputs=_AXES,
        hint="alpha_bar lambda over alpha_bar lambda + 1 - alpha_bar, equation (20.6).",
        wrong={
            "That is the share that is lost.": lambda power, bar: 1 - _kept(power, bar),
            "That is the share of the standard deviation; the power goes with its square.": lambda power, bar: math.sqrt(_kept(power, bar)),
            "alpha_bar is missing in front of lambda: x_t holds a shrunken x_0.": lambda power, bar: power / (power + 1 - bar),
            "That is the power that is kept, not its share: divide by lambda.": lambda power, bar: power * _kept(power, bar),
        },
        tolerance=1e-3,
    ),
    "20.5": Exercise(
        answer=_pairs,
        inputs=_FORECASTS,
        hint="Mean distance to y, minus half the mean distance between two different draws.",
        wrong={
            "A draw is at distance 0 from itself. Leave these pairs out, or few draws look too narrow.": lambda draws, y: _pairs(
                draws, y, with_itself=True
            ),
            "Only half of the mean distance between draws comes off.": lambda draws, y: _pairs(draws, y, share=1.0),
            "That is the mean absolute error of the draws: it punishes honest spread. Take half the distance between draws off.": lambda draws, y: (
                _pairs(draws, y, share=0.0)
            ),
        },
    ),
    "20.6": Exercise(
        answer=_sixteen_bits,
        inputs=_SOUNDS,
        hint="Hold x in [-1, 1], multiply by 32767, round.",
        wrong={
            "Values beyond 1 have to be held back first: a 16-bit number would wrap round, and that is a loud click.": lambda x: [
                round(32767 * v) for v in x
            ],
            "1.0 becomes 32768, one more than a 16-bit number can hold.": lambda x: [round(32768 * min(1.0, max(-1.0, v))) for v in x],
            "int() cuts towards 0; round.": lambda x: [int(32767 * min(1.0, max(-1.0, v))) for v in x],
            "That is for 8 bits, and for values from 0 to 1.": lambda x: [round(255 * min(1.0, max(-1.0, v))) for v in x],
        },
        tolerance=1e-7,
    ),
}
