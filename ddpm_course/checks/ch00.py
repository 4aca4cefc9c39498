"""Checks of chapter 00, the tour."""

import math

from . import Exercise

EXERCISES = {
    "0.1": Exercise(
        answer=0.2,
        hint="Multiply the pixel by sqrt(alpha_bar) and the noise by sqrt(1 - alpha_bar), then add.",
        wrong={
            "The factors are square roots: 0.6 and 0.8, not 0.36 and 0.64.": 0.04,
            "Mind the sign: the noise is negative.": 1.0,
            "The noise has a factor, too: sqrt(1 - alpha_bar) = 0.8.": 0.1,
            "0.6 comes out if the picture lacks its factor sqrt(alpha_bar) = 0.6, or if the noise is left out.": 0.6,
        },
    ),
    "0.2": Exercise(
        answer=0.6,
        hint="The oracle's guess is the mean: each possibility times its probability, summed.",
        wrong={
            "That is the most probable pixel; the smallest squared error belongs to the mean.": 1.0,
            "Weigh the two possibilities: white is four times as probable as black.": 0.0,
            "That is the probability of white; the question asks for the mean of the pixel, where black counts as -1.": 0.8,
        },
    ),
    "0.3": Exercise(
        answer=25,
        hint="One call looks at the whole batch. How many calls does one step need?",
        wrong={
            "A batch goes through the network in one call, so the 16 does not count.": 400,
            "One pass is one denoising step, not one generation.": 1,
            "That is the length T of the clock; this sampler takes 25 larger steps.": 1000,
            "That is the number of pictures.": 16,
        },
    ),
    "0.4": Exercise(
        answer=lambda x_t, bar: 0.5 * (1 + math.tanh(x_t * bar**0.5 / (1 - bar))),
        inputs=((0.2, 0.5), (-1.0, 0.3), (0.7, 0.05)),
        hint="The needed noises are (x_t -+ sqrt(alpha_bar)) / sqrt(1 - alpha_bar); compare exp(-eps^2 / 2).",
        wrong={
            "That is the probability of black.": lambda x_t, bar: 0.5 * (1 - math.tanh(x_t * bar**0.5 / (1 - bar))),
            "The needed noise is divided by sqrt(1 - alpha_bar), so its square is divided by 1 - alpha_bar.": lambda x_t, bar: (
                0.5 * (1 + math.tanh(x_t * bar**0.5))
            ),
            "The clean pixel is shrunk by sqrt(alpha_bar), not by alpha_bar.": lambda x_t, bar: (
                0.5 * (1 + math.tanh(x_t * bar / (1 - bar)))
            ),
            "The exponent is -eps^2 / 2; the one half is missing.": lambda x_t, bar: 0.5 * (1 + math.tanh(2 * x_t * bar**0.5 / (1 - bar))),
        },
    ),
    "0.5": Exercise(
        answer=512_000 // 200,
        hint="Examples in all: 2,000 steps of 256 points. They are spread evenly over 200 times.",
        wrong={
            "That is the number of examples in all. Each has one time, so they are spread over 200 times.": 512_000,
            "A step does not walk through all times: each of its 256 points gets one time of its own.": 2000,
            "You forgot the batch: every step has 256 points, each with its own time.": 10,
        },
    ),
}
