"""Checks of chapter 02, the forward process."""

import math

from . import Exercise

_PAIRS = ((1.0, 0.5), (0.9, 0.3), (0.5, 0.49))

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
}
