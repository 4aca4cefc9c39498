"""Checks of chapter 05, the bound with T latents."""

import math

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
        hint="Put tilde-beta = (1 - bar_s) beta / (1 - bar_t) for sigma^2 into (5.8); beta = 1 - bar_t / bar_s. Half the fall of the SNR.",
        wrong={
            "The SNR falls in t: earlier minus later, or the weight is negative.": lambda bar_s, bar_t: -_weight(bar_s, bar_t),
            "The one half is missing.": lambda bar_s, bar_t: 2 * _weight(bar_s, bar_t),
            "You took the fall of alpha_bar; divide each alpha_bar by 1 - alpha_bar first.": lambda bar_s, bar_t: 0.5 * (bar_s - bar_t),
            "You divided by the square of the variance: the KL has sigma^2 once.": lambda bar_s, bar_t: _weight(bar_s, bar_t, 2),
        },
    ),
}
