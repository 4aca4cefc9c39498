"""Checks of chapter 08, training."""

import math
import statistics

import torch

from . import Exercise

_TRIPLES = ((1.0, 0.0, 0.64), (0.0, 1.0, 0.64), (0.5, -1.2, 0.1), (-0.7, 0.4, 0.99))
_GRADIENTS = ((torch.tensor([3.0, -4.0]), 1.0), (torch.tensor([0.3, 0.4]), 1.0), (torch.tensor([6.0, 0.0, 8.0]), 2.0))
_FLOORS = ((0.5, 1.0), (0.9, 0.5), (0.1, 2.0), (0.5, 0.2))


def _v(x_0: float, eps: float, alpha_bar: float) -> float:
    """v by its angle: x_t = cos(phi) x_0 + sin(phi) eps turned on by 90 degrees."""
    phi = math.acos(math.sqrt(alpha_bar))
    return math.cos(phi) * eps - math.sin(phi) * x_0


def _clip(g: torch.Tensor, c: float) -> torch.Tensor:
    """The same direction, length min(|g|, c)."""
    length = math.sqrt(sum(x * x for x in g.tolist()))
    return torch.tensor([x / length * min(length, c) for x in g.tolist()])


def _floor(alpha_bar: float, s: float) -> float:
    """Var(v) - Cov(v, x_t)^2 / Var(x_t) for x_0 ~ N(0, s^2), eps ~ N(0, 1)."""
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    covariance = signal * noise * (1 - s**2)
    return alpha_bar + (1 - alpha_bar) * s**2 - covariance**2 / (alpha_bar * s**2 + 1 - alpha_bar)


def _variance_by_steps(d: float, n: int) -> float:
    """The EMA's variance, step by step: independent parts, so squares of factors."""
    variance = 0.0
    for _ in range(n):
        variance = d * d * variance + (1 - d) ** 2
    return variance


EXERCISES = {
    "8.1": Exercise(
        answer=math.ceil(math.log(0.01) / math.log(0.999)),
        hint="After n steps the start has the share 0.999^n. For which n is it 0.01? Take logarithms.",
        wrong={
            "That is for d = 0.9999.": math.ceil(math.log(0.01) / math.log(0.9999)),
            "After 1 / (1 - d) steps 37 % are left, not 1 %.": 1000,
            "That is the number for 10 %; the question asks for 1 %.": math.ceil(math.log(0.1) / math.log(0.999)),
            "The share does not fall on a straight line by 0.001 a step: each step takes a thousandth of what is left.": 990,
        },
        tolerance=1e-5,
    ),
    "8.2": Exercise(
        answer=_v,
        inputs=_TRIPLES,
        hint="v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0.",
        wrong={
            "That is x_t; v has the roots exchanged and a minus.": lambda x_0, eps, a: a**0.5 * x_0 + (1 - a) ** 0.5 * eps,
            "The sign is wrong: v minus, not plus, the picture.": lambda x_0, eps, a: a**0.5 * eps + (1 - a) ** 0.5 * x_0,
            "The roots are missing: alpha_bar is a share of variance, its root multiplies.": lambda x_0, eps, a: a * eps - (1 - a) * x_0,
            "The two roots are exchanged.": lambda x_0, eps, a: (1 - a) ** 0.5 * eps - a**0.5 * x_0,
        },
    ),
    "8.3": Exercise(
        answer=_clip,
        inputs=_GRADIENTS,
        hint="Multiply the whole gradient by min(1, c / length); length is the root of the sum of squares.",
        wrong={
            "You cut each entry by itself; that changes the direction.": lambda g, c: g.clamp(-c, c),
            "Short gradients must stay as they are: you lengthened the second one.": lambda g, c: g * c / g.norm(),
            "The length is the root of the sum of squares, not the sum of sizes.": lambda g, c: g * min(1.0, c / float(g.abs().sum())),
            "The length is the root of the sum of squares, not the largest entry.": lambda g, c: g * min(1.0, c / float(g.abs().max())),
        },
    ),
    "8.4": Exercise(
        answer=_floor,
        inputs=_FLOORS,
        hint="v = (sqrt(alpha_bar) x_t - x_0) / sqrt(1 - alpha_bar), so given x_t only x_0 is random. Var(x_0 | x_t) is in chapter 03.",
        wrong={
            "That is the variance of x_0 given x_t; v is x_0 divided by sqrt(1 - alpha_bar), so its variance is divided by 1 - alpha_bar.": lambda a, s: (
                s**2 * (1 - a) / (a * s**2 + 1 - a)
            ),
            "That is the variance of v without knowing x_t; knowing x_t makes it smaller.": lambda a, s: a + (1 - a) * s**2,
            "That is the floor for eps; divide by alpha_bar (8.2).": lambda a, s: a * s**2 / (a * s**2 + 1 - a),
        },
    ),
    "8.5": Exercise(
        answer=lambda losses, sizes: statistics.fmean([loss for loss, n in zip(losses, sizes, strict=True) for _ in range(n)]),
        inputs=(([1.0, 2.0], [64, 16]), ([0.5, 0.1, 0.3], [8, 8, 2])),
        hint="Weigh each part's mean loss with its number of pictures, and divide by the number of all pictures.",
        wrong={
            "A mean of means counts a small part as much as a large one.": lambda losses, sizes: sum(losses) / len(losses),
            "That is the sum over all pictures; divide by their number.": lambda losses, sizes: sum(
                loss * n for loss, n in zip(losses, sizes, strict=True)
            ),
            "The parts' losses are means already; adding them up makes the gradient grow with the number of parts.": lambda losses, sizes: (
                sum(losses)
            ),
        },
    ),
    "8.6": Exercise(
        answer=_variance_by_steps,
        inputs=((0.9, 5), (0.5, 3), (0.99, 100)),
        hint="One step: variance <- d^2 variance + (1 - d)^2. Do it n times, from 0.",
        wrong={
            "A factor enters a variance squared: the new weight comes in with (1 - d)^2.": lambda d, n: (1 - d ** (2 * n)) / (1 + d),
            "That is the sum of the shares, not of their squares.": lambda d, n: 1 - d**n,
            "That is the limit for many steps; after n steps the factor 1 - d^(2n) remains.": lambda d, n: (1 - d) / (1 + d),
            "The shares are not all 1 - d: a weight from j steps ago has (1 - d) d^j.": lambda d, n: n * (1 - d) ** 2,
        },
        tolerance=1e-6,
    ),
}
