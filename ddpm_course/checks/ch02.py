"""Checks of chapter 02, the forward process."""

import math

from . import Exercise

_PAIRS = ((1.0, 0.5), (0.9, 0.3), (0.5, 0.49))


def _running_product(betas: list[float]) -> list[float]:
    """1 and the products of the first t factors 1 - beta."""
    return [math.prod(1 - beta for beta in betas[:t]) for t in range(len(betas) + 1)]


EXERCISES = {
    "2.1": Exercise(
        answer=0.72,
        hint="alpha_bar is a product of alphas, and alpha = 1 - beta.",
        wrong={
            "You multiplied the betas; alpha_bar multiplies alpha = 1 - beta.": 0.02,
            "That is alpha_2 alone; alpha_bar_2 is the product of alpha_1 and alpha_2.": 0.8,
            "You subtracted the sum of the betas. Close, but shares multiply: what is left is 0.9 of 0.8.": 0.7,
        },
    ),
    "2.2": Exercise(
        answer=lambda bar_s, bar_t: (bar_s - bar_t) / bar_s,
        inputs=_PAIRS,
        hint="A jump from s to t is one step with alpha = alpha_bar_t / alpha_bar_s; its noise has variance 1 - alpha.",
        wrong={
            "That is the variance of a jump from 0; here the chain starts at s, so the factors up to s cancel.": lambda bar_s, bar_t: (
                1 - bar_t
            ),
            "That is the standard deviation; the question asks for the variance.": lambda bar_s, bar_t: (1 - bar_t / bar_s) ** 0.5,
            "Variances of independent noises add only after scaling: the old noise is shrunk on the way.": lambda bar_s, bar_t: (
                bar_s - bar_t
            ),
        },
    ),
    "2.3": Exercise(
        answer=math.cos(math.pi / 8) ** 2 / (1 - math.cos(math.pi / 8) ** 2),
        hint="SNR = alpha_bar / (1 - alpha_bar) with alpha_bar = cos^2(pi/8).",
        wrong={
            "That is alpha_bar; divide it by 1 - alpha_bar.": math.cos(math.pi / 8) ** 2,
            "That is the square root of the ratio: SNR compares variances, so cos and sin are squared.": 1 / math.tan(math.pi / 8),
        },
    ),
    "2.4": Exercise(
        answer=(4 - 1.5) / 5,
        hint="x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) eps = 0.8 * 1 + 0.6 * (-0.5).",
        wrong={
            "The roots are missing: 0.36 is a variance, and noise is multiplied by its standard deviation.": 0.46,
            "The old value is shrunk, too, by sqrt(1 - beta); otherwise the variance grows step by step.": 0.7,
            "The noise has a factor, sqrt(beta) = 0.6.": 0.3,
            "Mind the sign: the noise is negative.": 1.1,
        },
    ),
    "2.5": Exercise(
        answer=lambda betas: [math.exp(sum(math.log1p(-beta) for beta in betas[:t])) for t in range(len(betas) + 1)],
        inputs=(([0.1, 0.2, 0.5],), ([0.02, 0.3],)),
        hint="T + 1 numbers. The first is 1, and each next one is the last times 1 - beta.",
        wrong={
            "The entry for t = 0 is missing, so every index is off by one: alpha_bar_0 = 1.": lambda betas: _running_product(betas)[1:],
            "You multiplied the betas; alpha_bar multiplies alpha = 1 - beta.": lambda betas: _running_product([1 - b for b in betas]),
            "Shares multiply: after 0.1 and 0.2 there is 0.9 * 0.8 left, not 1 - 0.3.": lambda betas: [
                1 - sum(betas[:t]) for t in range(len(betas) + 1)
            ],
            "Those are the alphas one by one; alpha_bar is their running product.": lambda betas: [1.0, *(1 - b for b in betas)],
        },
    ),
    "2.6": Exercise(
        answer=lambda bar_s, bar_t: math.sqrt(bar_s * bar_t) * (1 / bar_s - 1),
        inputs=((0.9, 0.5), (0.6, 0.2), (0.3, 0.25)),
        hint="x_t = sqrt(bar_t / bar_s) x_s + noise that does not depend on x_s. What is the variance of x_s given x_0?",
        wrong={
            "They are not independent: the noise of x_s is still there in x_t, shrunk.": lambda bar_s, bar_t: 0.0,
            "That would be one and the same noise at both times. x_t has fresh noise as well.": lambda bar_s, bar_t: math.sqrt(
                (1 - bar_s) * (1 - bar_t)
            ),
            "On the way from s to t, x_s is shrunk.": lambda bar_s, bar_t: 1 - bar_s,
            "The factor on x_s is a root. A covariance takes the factor once, so it is not squared.": lambda bar_s, bar_t: (
                bar_t / bar_s * (1 - bar_s)
            ),
        },
    ),
    "2.7": Exercise(
        answer=lambda snr_s, snr_t: (snr_s - snr_t) / (snr_s * (1 + snr_t)),
        inputs=((9.0, 4.0), (1.0, 0.25), (100.0, 90.0)),
        hint="alpha_bar = SNR / (1 + SNR) at both times; beta_t = 1 - alpha_bar_t / alpha_bar_s.",
        wrong={
            "You divided the SNRs; alpha_t is the quotient of the alpha_bars.": lambda snr_s, snr_t: 1 - snr_t / snr_s,
            "You subtracted the alpha_bars; divide them, since shares multiply.": lambda snr_s, snr_t: (
                snr_s / (1 + snr_s) - snr_t / (1 + snr_t)
            ),
            "That is alpha_t; beta_t is 1 minus it.": lambda snr_s, snr_t: snr_t * (1 + snr_s) / (snr_s * (1 + snr_t)),
            "That is the standard deviation of the step's noise; beta_t is its square.": lambda snr_s, snr_t: math.sqrt(
                (snr_s - snr_t) / (snr_s * (1 + snr_t))
            ),
        },
    ),
}
