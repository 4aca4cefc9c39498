"""Checks of chapter 15, scaling up."""

import math
import struct
from fractions import Fraction

from . import Exercise

_RUNS = ((1000, 40.0, 16, 4), (35, 7.0, 6, 1), (200, 3.0, 12, 12))
_NUMBERS = ((1.0, 7), (3.0, 10), (0.3, 7), (0.06, 3), (100.0, 10))
_DECAYS = ((0.9, 16, 64), (0.5, 32, 96), (0.8, 64, 16), (0.97, 8, 256))
_CHIPS = ((2, 989e12, 3.35e12), (4, 100e9, 12e9), (4, 67e12, 3.35e12), (2, 4e12, 0.2e12), (4, 72e9, 4e9))
_VALLEYS = ((0.01, 10.0), (0.25, 2.0), (0.03, 7.0), (0.004, 31.0))
_PARTS = (([1.0, 2.0, 6.0], [10, 30, 5]), ([0.5, -1.0, 0.25], [4, 4, 8]), ([3.0, 1.0, 1.0], [1, 7, 2]))


def _by_loops() -> int:
    """Every product of every pass, counted one kernel place at a time."""
    return sum(2 * 128 * 256 * 16 * 16 for _ in range(3 * 3) for _ in ("answer", "weights", "input"))


def _memory(N: float, a: float, B: int, parts: int) -> float:
    """Five fp32 numbers a parameter, and the pictures that are inside the network at one time."""
    return sum(struct.calcsize("f") * N for _ in ("weight", "gradient", "moment 1", "moment 2", "EMA")) + a * (B // parts)


def _gap(x: float, M: int) -> float:
    """Halve or double until x lies in [1, 2); the gap there is 2^-M."""
    gap = Fraction(1, 2**M)
    while x >= 2:
        x, gap = x / 2, gap * 2
    while x < 1:
        x, gap = x * 2, gap / 2
    return float(gap)


def _decay(d: float, old: int, new: int) -> float:
    """Equal half-lives in pictures, solved for the decay."""
    return math.exp(new * math.log(0.5) / (old * math.log(0.5) / math.log(d)))


def _width(b: float, P: float, rate: float) -> int:
    """Wider by one channel until the arithmetic takes as long as the memory."""
    C = 1
    while 2 * C * b / rate > 2 * 9 * C * C / P:
        C += 1
    return C


def _factor(eta: float, h: float) -> int:
    """One more as long as the next still ends nearer."""
    k = 1
    while abs(Fraction(1) - (k + 1) * Fraction(str(eta)) * Fraction(str(h))) < 1:
        k += 1
    return k


def _combined(gradients: list[float], sizes: list[int]) -> float:
    """The mean over a list in which every picture stands by itself."""
    every = [g for g, n in zip(gradients, sizes, strict=True) for _ in range(n)]
    return sum(every) / len(every)


EXERCISES = {
    "15.1": Exercise(
        answer=_by_loops(),
        hint="2 k^2 C_in C_out H W for the forward pass, and three times that in all.",
        wrong={
            "That is the forward pass; a training step costs three times as much.": 2 * 9 * 128 * 256 * 256,
            "A product and its addition are two operations.": 3 * 9 * 128 * 256 * 256,
            "Backward costs two forward passes more, not one: gradients for the weights and for the input.": 2 * 2 * 9 * 128 * 256 * 256,
            "Those are the weights' uses at one place; the kernel visits 16 x 16 of them.": 3 * 2 * 9 * 128 * 256,
        },
        tolerance=1e-6,
    ),
    "15.2": Exercise(
        answer=_memory,
        inputs=_RUNS,
        hint="(4 + 4 + 8 + 4) N, and the activations of the pictures of one part.",
        wrong={
            "Adam keeps two numbers for each parameter: 8 bytes.": lambda N, a, B, parts: 16 * N + a * B / parts,
            "The gradients lie in memory, too, and the average: 20 bytes in all.": lambda N, a, B, parts: 12 * N + a * B / parts,
            "Only one part is inside the network at a time.": lambda N, a, B, parts: 20 * N + a * B,
            "The parameters do not become fewer by cutting the batch.": lambda N, a, B, parts: (20 * N + a * B) / parts,
        },
    ),
    "15.3": Exercise(
        answer=_gap,
        inputs=_NUMBERS,
        hint="2^(e - M), where e is the whole part of log2(x).",
        wrong={
            "That is the gap between 1 and 2; each power of two scales it.": lambda x, M: 2.0**-M,
            "The gap does not grow with x itself, but with the power of two below it.": lambda x, M: x * 2.0**-M,
            "That is half the gap: the largest rounding error.": lambda x, M: 2.0 ** (math.floor(math.log2(x)) - M - 1),
            "Round the logarithm down, not towards 0: for x = 0.3 the power below it is 1/4.": lambda x, M: 2.0 ** (int(math.log2(x)) - M),
        },
        tolerance=1e-9,
    ),
    "15.4": Exercise(
        answer=_decay,
        inputs=_DECAYS,
        hint="d to the power new / old.",
        wrong={
            "The decay is per step: with another batch the same d remembers another number of pictures.": lambda d, old, new: d,
            "The other way round: a larger batch means fewer steps, each of which has to forget more.": lambda d, old, new: (
                d ** (old / new)
            ),
            "k (1 - d) is the first term only; it is wrong once k (1 - d) is not small.": lambda d, old, new: 1 - new / old * (1 - d),
            "Powers, not products: k steps multiply the share by d, k times.": lambda d, old, new: d * old / new,
        },
    ),
    "15.5": Exercise(
        answer=_width,
        inputs=_CHIPS,
        hint="9 C / b must reach P / rate; round up.",
        wrong={
            "Each number is read and written, but it also takes part in two operations a tap: the factors 2 cancel.": (
                lambda b, P, rate: math.ceil(P / rate * b / 18)
            ),
            "The bytes of a number are missing.": lambda b, P, rate: math.ceil(P / rate / 9),
            "The kernel has nine taps.": lambda b, P, rate: math.ceil(P / rate * b / 3),
            "Exactly on the ridge the layer is not memory-bound any more.": lambda b, P, rate: math.floor(P / rate * b / 9) + 1,
            "Round up: one channel fewer is still memory-bound.": lambda b, P, rate: math.floor(P / rate * b / 9),
        },
        tolerance=1e-9,
    ),
    "15.6": Exercise(
        answer=_factor,
        inputs=_VALLEYS,
        hint="|1 - k eta h| < 1 means k < 2 / (eta h), strictly.",
        wrong={
            "At 1 / (eta h) it lands on the floor; it may overshoot, as long as it ends nearer than it started.": lambda eta, h: (
                math.ceil(round(1 / (eta * h), 9)) - 1
            ),
            "At exactly 2 / (eta h) it ends as far away as it started, on the other side: that one does not count.": lambda eta, h: (
                math.floor(round(2 / (eta * h), 9))
            ),
            "The limit depends on the curvature, too.": lambda eta, h: math.ceil(round(2 / eta, 9)) - 1,
        },
        tolerance=1e-9,
    ),
    "15.7": Exercise(
        answer=_combined,
        inputs=_PARTS,
        hint="Weight each mean gradient by its number of pictures, and divide by the number of all pictures.",
        wrong={
            "That is the plain mean: a picture in a small part would count more than one in a large part.": (
                lambda gradients, sizes: sum(gradients) / len(gradients)
            ),
            "Divide by the number of all pictures, not by that of the processes.": (
                lambda gradients, sizes: sum(g * n for g, n in zip(gradients, sizes, strict=True)) / len(sizes)
            ),
            "That is the sum of the gradients; the mean is wanted.": lambda gradients, sizes: sum(
                g * n for g, n in zip(gradients, sizes, strict=True)
            ),
            "Without weights and without a division: that is what code does which forgets both.": lambda gradients, sizes: sum(gradients),
        },
    ),
}
