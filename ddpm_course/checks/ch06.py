"""Checks of chapter 06, what the network predicts."""

import math

from . import Exercise

_LEVELS = ((0.9,), (0.5,), (0.2,))


def _mean_v(x_t: float, bar: float) -> float:
    """E[v | x_t] for the data -1 and 1: each point's own v, weighed with the height of its bell at x_t."""
    signal, noise = math.sqrt(bar), math.sqrt(1 - bar)
    eps = {point: (x_t - signal * point) / noise for point in (-1, 1)}
    weight = {point: math.exp(-(eps[point] ** 2) / 2) for point in eps}
    return sum(weight[point] * (signal * eps[point] - noise * point) for point in eps) / sum(weight.values())


EXERCISES = {
    "6.1": Exercise(
        answer=11 / 8,
        hint="Solve x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps for x_0.",
        wrong={
            "You subtracted the noise as it is; in x_t it has the factor sqrt(1 - alpha_bar) = 0.6, and the picture the factor 0.8.": 1.5,
            "The noise is gone now, but what is left is sqrt(alpha_bar) x_0: divide by 0.8.": 1.1,
            "Square roots: the factors are sqrt(alpha_bar) = 0.8 and sqrt(1 - alpha_bar) = 0.6, not 0.64 and 0.36.": 0.86 / 0.64,
            "Mind the sign: subtracting a negative noise adds.": -0.125,
        },
    ),
    "6.2": Exercise(
        answer=lambda c, bar: 1 / (1 + (1 - bar) / (bar * c**2)),
        inputs=((1.0, 0.5), (0.3, 0.9), (2.0, 0.2)),
        hint="Var(eps) = 1, Cov(eps, x_t) = sqrt(1 - alpha_bar), Var(x_t) = alpha_bar c^2 + 1 - alpha_bar.",
        wrong={
            "That is the share which x_t explains; the loss keeps what it does not explain.": lambda c, bar: (
                (1 - bar) / (bar * c**2 + 1 - bar)
            ),
            "That is the variance of x_0 given x_t; the question asks for eps.": lambda c, bar: c**2 * (1 - bar) / (bar * c**2 + 1 - bar),
            "Only a single data point (c = 0) lets the loss reach 0.": lambda c, bar: 0.0,
            "The covariance is squared: it contributes 1 - alpha_bar, not its root.": lambda c, bar: (
                1 - (1 - bar) ** 0.5 / (bar * c**2 + 1 - bar)
            ),
        },
    ),
    "6.3": Exercise(
        answer=lambda bar: 1 / bar - 1,
        inputs=_LEVELS,
        hint="Write x_0 - x_0_hat in terms of eps - eps_hat, at the same x_t; then square.",
        wrong={
            "Upside down: that is the SNR, the weight on x_0 that belongs to an unweighted eps loss.": lambda bar: bar / (1 - bar),
            "Errors are squared, and so are the factors: drop the square root.": lambda bar: ((1 - bar) / bar) ** 0.5,
            "That is the rate from eps to v; x_0 has one more factor 1 - alpha_bar.": lambda bar: 1 / bar,
            "An unweighted loss in one language is a weighted one in another.": lambda bar: 1.0,
        },
    ),
    "6.4": Exercise(
        answer=lambda bar_s, bar_t: 0.5 * (bar_s - bar_t) / (1 - bar_s),
        inputs=((0.9, 0.8), (0.5, 0.3), (0.2, 0.19)),
        hint="|x_0 - x_0_hat|^2 = (1 - alpha_bar_t) |v - v_hat|^2, because x_0 = sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v.",
        wrong={
            "That is the weight of x_0; multiply by the exchange rate 1 - alpha_bar_t.": lambda bar_s, bar_t: (
                0.5 * (bar_s / (1 - bar_s) - bar_t / (1 - bar_t))
            ),
            "That is the weight of eps: its exchange rate is 1/SNR, that of v is 1 - alpha_bar_t.": lambda bar_s, bar_t: (
                0.5 * (bar_s / (1 - bar_s) - bar_t / (1 - bar_t)) * (1 - bar_t) / bar_t
            ),
            "The one half is missing: it comes from 1 / (2 sigma^2).": lambda bar_s, bar_t: (bar_s - bar_t) / (1 - bar_s),
            "You divided by the exchange rate; an error of 1 in v is an error of sqrt(1 - alpha_bar_t) in x_0.": lambda bar_s, bar_t: (
                0.5 * (bar_s / (1 - bar_s) - bar_t / (1 - bar_t)) / (1 - bar_t)
            ),
        },
    ),
    "6.5": Exercise(
        answer=lambda x, score, bar: (x + (1 - bar) * score) / math.sqrt(bar),
        inputs=((0.5, -1.0, 0.64), (-0.2, 0.7, 0.3), (1.1, 0.4, 0.9)),
        hint="score = -eps / sqrt(1 - alpha_bar), and x_0_hat = (x_t - sqrt(1 - alpha_bar) eps_hat) / sqrt(alpha_bar).",
        wrong={
            "The sign: the score points towards the data, the noise away from it.": lambda x, score, bar: (
                (x - (1 - bar) * score) / math.sqrt(bar)
            ),
            "You took the score for the noise; they differ by the factor -sqrt(1 - alpha_bar).": lambda x, score, bar: (
                (x - math.sqrt(1 - bar) * score) / math.sqrt(bar)
            ),
            "One factor sqrt(1 - alpha_bar) turns the score into the noise, a second one belongs to the noise in x_t.": lambda x, score, bar: (
                (x + math.sqrt(1 - bar) * score) / math.sqrt(bar)
            ),
            "What is left is sqrt(alpha_bar) x_0: divide by sqrt(alpha_bar).": lambda x, score, bar: x + (1 - bar) * score,
        },
    ),
    "6.6": Exercise(
        answer=lambda beta, bar_k, bar_t: math.sqrt((1 / bar_k - (1 - beta) / bar_k) / (1 / bar_t - 1)),  # shares of 1 / SNR
        inputs=((0.1, 0.6, 0.3), (0.02, 0.9, 0.85), (0.3, 0.3, 0.1)),
        hint="The noise of step k arrives with the factor sqrt(beta_k alpha_bar_t / alpha_bar_k); the total has sqrt(1 - alpha_bar_t).",
        wrong={
            "That holds for the last step, k = t. The noise of earlier steps is shrunk by all steps after k.": lambda beta, bar_k, bar_t: (
                math.sqrt(beta / (1 - bar_t))
            ),
            "That is its share in the variance; the correlation is the root of it.": lambda beta, bar_k, bar_t: (
                bar_t / bar_k * beta / (1 - bar_t)
            ),
            "That is the correlation with the total noise at time k; the question asks about time t.": lambda beta, bar_k, bar_t: math.sqrt(
                beta / (1 - bar_k)
            ),
            "The total noise is not the noise of one step: it is made of all of them.": lambda beta, bar_k, bar_t: 1.0,
        },
    ),
    "6.7": Exercise(
        answer=_mean_v,
        inputs=((0.3, 0.5), (-0.8, 0.2), (0.9, 0.7)),
        hint="v = (sqrt(alpha_bar) x_t - x_0) / sqrt(1 - alpha_bar); put the mean of x_0 in.",
        wrong={
            "You took the more probable of the two points; a squared error asks for the mean.": lambda x, bar: (
                (math.sqrt(bar) * x - math.copysign(1, x)) / math.sqrt(1 - bar)
            ),
            "That is the answer in the language eps.": lambda x, bar: (
                (x - math.sqrt(bar) * math.tanh(math.sqrt(bar) * x / (1 - bar))) / math.sqrt(1 - bar)
            ),
            "That is x_0_hat; v is a mixture of eps_hat and x_0_hat.": lambda x, bar: math.tanh(math.sqrt(bar) * x / (1 - bar)),
            "The sign: v is minus the picture plus the noise, so x_0_hat has a minus.": lambda x, bar: -_mean_v(x, bar),
        },
    ),
}
