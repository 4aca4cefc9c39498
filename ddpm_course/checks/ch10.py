"""Checks of chapter 10, DDIM."""

import math

from . import Exercise

_TRIPLES = ((0.2, 0.6, 1.0), (0.5, 0.9, 0.5), (0.01, 0.3, 0.2))
_STEPS = ((0.7, -0.3, 0.2, 0.6), (-1.1, 0.8, 0.5, 0.9))

EXERCISES = {
    "10.1": Exercise(
        answer=0.6,
        hint="At eta = 0 sigma is 0, so the factor is sqrt(1 - alpha_bar_s).",
        wrong={
            "That is 1 - alpha_bar_s, a variance; the step multiplies by its square root.": 0.36,
            "That is sqrt(alpha_bar_s), the factor of x_0_hat.": 0.8,
        },
    ),
    "10.2": Exercise(
        answer=lambda bar_t, bar_s, eta: eta * math.sqrt((1 - bar_s) * (bar_s - bar_t) / (bar_s * (1 - bar_t))),
        inputs=_TRIPLES,
        hint="At eta = 1 sigma^2 is the posterior variance (1 - alpha_bar_s)/(1 - alpha_bar_t) (1 - alpha_bar_t/alpha_bar_s).",
        wrong={
            "That is the variance; sigma is its square root.": lambda bar_t, bar_s, eta: (
                eta**2 * (1 - bar_s) * (bar_s - bar_t) / (bar_s * (1 - bar_t))
            ),
            "The factor (1 - alpha_bar_s)/(1 - alpha_bar_t) is missing: that is the variance of the forward step.": lambda bar_t, bar_s, eta: (
                eta * math.sqrt(1 - bar_t / bar_s)
            ),
            "The fraction stands on its head: less noise is left at s than at t, so the ratio is below 1.": lambda bar_t, bar_s, eta: (
                eta * math.sqrt((1 - bar_t) / (1 - bar_s) * (1 - bar_t / bar_s))
            ),
        },
    ),
    "10.3": Exercise(
        answer=lambda x_s, eps, bar_t, bar_s: (
            math.sqrt(bar_t / bar_s) * x_s + (math.sqrt(1 - bar_t) - math.sqrt(bar_t * (1 - bar_s) / bar_s)) * eps
        ),
        inputs=_STEPS,
        hint="x_0 = (x_s - sqrt(1 - alpha_bar_s) eps) / sqrt(alpha_bar_s); then use the closed form at t with the same eps.",
        wrong={
            "That adds fresh noise by the forward step; here the same eps is carried along.": lambda x_s, eps, bar_t, bar_s: (
                math.sqrt(bar_t / bar_s) * x_s + math.sqrt(1 - bar_t / bar_s) * eps
            ),
            "x_s was taken for x_0: remove its noise first.": lambda x_s, eps, bar_t, bar_s: (
                math.sqrt(bar_t) * x_s + math.sqrt(1 - bar_t) * eps
            ),
        },
    ),
}
