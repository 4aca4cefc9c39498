"""Checks of chapter 05, the bound with T latents."""

import math
from collections.abc import Callable

from . import Exercise

_LISTS = (([-1.0, -0.3, 0.4, -2.0],), ([0.5, 0.1],), ([-0.2, 3.0, -1.5],))
_PAIRS = ((0.9, 0.5), (0.6, 0.55), (0.3, 0.02))


def _tilde_over_beta(bar_s: float, bar_t: float) -> float:
    """Variance of the posterior over beta, from precisions: 1 / tilde = alpha / beta + 1 / (1 - bar_s)."""
    beta = 1 - bar_t / bar_s
    return 1 / ((1 - beta) / beta + 1 / (1 - bar_s)) / beta


def _weight(bar_s: float, bar_t: float, power: int = 1) -> float:
    """(weight of x_0 in the posterior mean)^2 / (2 tilde^power)."""
    beta = 1 - bar_t / bar_s
    return (math.sqrt(bar_s) * beta / (1 - bar_t)) ** 2 / (2 * (_tilde_over_beta(bar_s, bar_t) * beta) ** power)


def _cheapest(price: Callable[[float], float]) -> tuple[float, float]:
    """Where a price is lowest on 1e-4..1e2, and how low: ternary search in the logarithm."""
    low, high = math.log(1e-4), math.log(1e2)
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if price(math.exp(left)) < price(math.exp(right)) else (left, high)
    return math.exp(low), price(math.exp(low))


def _mean_prior_term(c: float, bar: float) -> float:
    """E over x_0 ~ N(0, c) of KL(N(sqrt(bar) x_0, 1 - bar) || N(0, 1))."""
    return 0.5 * (bar * c + (1 - bar) - 1 - math.log(1 - bar))


def _marginal_kl(c: float, bar: float) -> float:
    """KL(N(0, bar c + 1 - bar) || N(0, 1))."""
    return 0.5 * (bar * c + 1 - bar - 1 - math.log(bar * c + 1 - bar))


EXERCISES = {
    "5.1": Exercise(
        answer=64 * (math.log(1 / math.sqrt(0.99)) + (0.99 + 0.1**2) / 2 - 0.5),
        hint="Each pixel is N(sqrt(0.01) * (-1), 0.99) at the end. Put that into (4.10) against N(0, 1) and add up 64 pixels.",
        wrong={
            "That is one pixel. The pixels are independent, so their KLs add: 64 of them.": math.log(1 / math.sqrt(0.99))
            + (0.99 + 0.1**2) / 2
            - 0.5,
            "The mean is sqrt(alpha_bar) x_0 = -0.1, so its square is 0.01, not 0.0001.": 64
            * (-math.log(0.99) / 2 + (0.99 + 0.01**2) / 2 - 0.5),
            "The variance of x_T is 1 - alpha_bar_T = 0.99, not alpha_bar_T.": 64 * (-math.log(0.01) / 2 + (0.01 + 0.1**2) / 2 - 0.5),
            "The mean was forgotten: a white page still shows in x_T.": 64 * (-math.log(0.99) / 2 + 0.99 / 2 - 0.5),
        },
    ),
    "5.2": Exercise(
        answer=lambda log_q: sum(now - before for before, now in zip(log_q, log_q[1:], strict=False)),
        inputs=_LISTS,
        hint="The logarithm of a fraction is a difference, and in a sum of neighbouring differences all but two numbers cancel.",
        wrong={
            "Upside down: the last density stands above, the first below.": lambda log_q: log_q[0] - log_q[-1],
            "These are logarithms: a fraction becomes a difference, not a quotient.": lambda log_q: log_q[-1] / log_q[0],
            "The first density does not cancel here; it stays below the line.": lambda log_q: log_q[-1],
        },
    ),
    "5.3": Exercise(
        answer=lambda bar_s, bar_t: 0.5 * (_tilde_over_beta(bar_s, bar_t) - 1 - math.log(_tilde_over_beta(bar_s, bar_t))),
        inputs=_PAIRS,
        hint="With equal means the KL is (r - 1 - log r) / 2, r = the first variance over the second, the posterior's over the model's.",
        wrong={
            "Upside down: the posterior stands first in the KL, so r = tilde-beta / beta, which is below 1.": lambda bar_s, bar_t: (
                0.5 * (1 / _tilde_over_beta(bar_s, bar_t) - 1 + math.log(_tilde_over_beta(bar_s, bar_t)))
            ),
            "The factor one half is missing.": lambda bar_s, bar_t: (
                _tilde_over_beta(bar_s, bar_t) - 1 - math.log(_tilde_over_beta(bar_s, bar_t))
            ),
            "A perfect guess makes the means equal, but the variances still differ: the term is not 0.": lambda bar_s, bar_t: 0.0,
        },
    ),
    "5.4": Exercise(
        answer=_weight,
        inputs=_PAIRS,
        hint="Put tilde-beta = (1 - bar_s) beta / (1 - bar_t) for sigma^2 into (5.10); beta = 1 - bar_t / bar_s. Half the fall of the SNR.",
        wrong={
            "The SNR falls in t: earlier minus later, or the weight is negative.": lambda bar_s, bar_t: -_weight(bar_s, bar_t),
            "The one half is missing.": lambda bar_s, bar_t: 2 * _weight(bar_s, bar_t),
            "You took the fall of alpha_bar; divide each alpha_bar by 1 - alpha_bar first.": lambda bar_s, bar_t: 0.5 * (bar_s - bar_t),
            "You divided by the square of the variance: the KL has sigma^2 once.": lambda bar_s, bar_t: _weight(bar_s, bar_t, 2),
        },
    ),
    "5.5": Exercise(
        answer=999,
        hint="The bound has one prior term, the matching terms for t = 2..T, and one reconstruction term.",
        wrong={
            "At t = 1 nothing is matched: that term is the reconstruction, a log-likelihood.": 1000,
            "You counted the prior and the reconstruction, too; they have names of their own.": 1001,
            "Count again from 2 to T, both included.": 998,
        },
    ),
    "5.6": Exercise(
        answer=300 * math.log2(math.e) / 64,
        hint="Nats / log 2 are bits; divide by the 64 dimensions.",
        wrong={
            "Those are nats per dimension; a nat is more than a bit.": 300 / 64,
            "Upside down: a nat is 1 / log 2 = 1.44 bits, so the number grows.": 300 * math.log(2) / 64,
            "Those are the bits of the whole picture; divide by its 64 dimensions.": 300 / math.log(2),
            "The picture has 8 * 8 dimensions, not 8.": 300 / math.log(2) / 8,
        },
    ),
    "5.7": Exercise(
        answer=lambda tilde, m: _cheapest(lambda var: 0.5 * (tilde / var - 1 - math.log(tilde / var) + m / var)),
        inputs=((0.1, 0.05), (0.02, 0.3), (1.0, 0.5)),
        hint="With u = 1 / sigma^2 the term is ((tilde + m) u - 1 - log(tilde u)) / 2. Its slope in u is 0 at u = 1 / (tilde + m).",
        wrong={
            "That is best only for a perfect mean. If the mean is off, a wider bell is cheaper.": lambda tilde, m: (tilde, m / (2 * tilde)),
            "The width is right. In the price the one half is missing.": lambda tilde, m: (tilde + m, math.log((tilde + m) / tilde)),
            "The width is right. At this width the two fractions add up to 1 and cancel the -1; only the logarithm is left.": lambda tilde, m: (
                tilde + m,
                0.5 * math.log((tilde + m) / tilde) + 0.5 * m / (tilde + m),
            ),
            "You returned the standard deviation; the question asks for the variance.": lambda tilde, m: (
                math.sqrt(tilde + m),
                0.5 * math.log((tilde + m) / tilde),
            ),
        },
    ),
    "5.8": Exercise(
        answer=lambda c, bar: _mean_prior_term(c, bar) - _marginal_kl(c, bar),
        inputs=((0.5, 0.5), (2.0, 0.1), (0.1, 0.9)),
        hint="The difference is log((alpha_bar c + 1 - alpha_bar) / (1 - alpha_bar)) / 2.",
        wrong={
            "That is the averaged prior term; the KL of the law of all x_T still has to be taken off.": lambda c, bar: _mean_prior_term(
                c, bar
            ),
            "That is the KL of the law of all x_T; the question asks by how much the averaged prior term is larger.": lambda c, bar: (
                _marginal_kl(c, bar)
            ),
            "The one half is missing.": lambda c, bar: math.log(1 + c * bar / (1 - bar)),
            "The signal has the variance c, not 1.": lambda c, bar: 0.5 * math.log(1 + bar / (1 - bar)),
        },
    ),
}
