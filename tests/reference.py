"""Formulas written a second time, with 40 digits and plain loops, for the tests to compare with. Imports nothing of the package."""

from functools import lru_cache

import mpmath as mp
import torch
from torch import Tensor

mp.mp.dps = 40
BETA_1, BETA_T = mp.mpf(1e-4), mp.mpf(0.02)
NAMES = ("linear", "quadratic", "sigmoid", "cosine")


def _line(low: mp.mpf, high: mp.mpf, T: int) -> list[mp.mpf]:
    return [low + (high - low) * i / max(1, T - 1) for i in range(T)]


def _cosine(T: int) -> list[mp.mpf]:
    f = [mp.cos((mp.mpf(t) / T + mp.mpf(0.008)) / (1 + mp.mpf(0.008)) * mp.pi / 2) ** 2 for t in range(T + 1)]
    return [min(mp.mpf(0.999), 1 - f[t] / f[t - 1]) for t in range(1, T + 1)]


@lru_cache
def betas(name: str, T: int = 1000) -> tuple[mp.mpf, ...]:
    """beta_1..beta_T of a family with its default ends."""
    if name == "linear":
        return tuple(_line(BETA_1, BETA_T, T))
    if name == "quadratic":
        return tuple(b**2 for b in _line(mp.sqrt(BETA_1), mp.sqrt(BETA_T), T))
    if name == "sigmoid":
        return tuple(BETA_1 + (BETA_T - BETA_1) / (1 + mp.exp(-x)) for x in _line(mp.mpf(-6), mp.mpf(6), T))
    return tuple(_cosine(T))


@lru_cache
def alpha_bars(name: str, T: int = 1000) -> tuple[mp.mpf, ...]:
    """alpha_bar_0 = 1, ..., alpha_bar_T by multiplying."""
    bars = [mp.mpf(1)]
    for beta in betas(name, T):
        bars.append(bars[-1] * (1 - beta))
    return tuple(bars)


def tensor(numbers: "list[mp.mpf] | tuple[mp.mpf, ...]") -> Tensor:
    """Numbers of 40 digits, rounded once to float64."""
    return torch.tensor([float(x) for x in numbers], dtype=torch.float64)


def posterior(bar_t: mp.mpf, bar_s: mp.mpf) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    """(factor of x_0, factor of x_t, variance) of q(x_s | x_t, x_0) by adding precisions, as in Bayes' rule for Gaussians."""
    alpha = bar_t / bar_s
    if bar_s == 1:
        return mp.mpf(1), mp.mpf(0), mp.mpf(0)
    likelihood, prior = alpha / (1 - alpha), 1 / (1 - bar_s)  # precisions of x_s seen from x_t, and from x_0
    var = 1 / (likelihood + prior)
    return var * prior * mp.sqrt(bar_s), var * mp.sqrt(alpha) / (1 - alpha), var


def relative(got: Tensor, wanted: Tensor) -> float:
    """The largest relative difference; where the wanted value is 0, the largest value."""
    scale = torch.where(wanted == 0, torch.ones_like(wanted), wanted.abs())
    return float(((got.double() - wanted).abs() / scale).max())
