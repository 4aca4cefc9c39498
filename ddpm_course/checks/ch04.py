"""Checks of chapter 04, one latent."""

import math

import numpy as np

from . import Exercise

_JOINT = (0.05, 0.18, 0.06)
_POSTERIOR = tuple(p / sum(_JOINT) for p in _JOINT)
_MEANS_AND_VARS = ((0.0, 1.0), (0.5, 1.0), (0.0, 0.3), (-1.2, 2.5))
_X = ((0.0,), (1.0,), (-2.5,))
_X_AND_BETA = ((0.0, 0.5), (1.0, 0.3), (-0.7, 0.9))


def _normal_kl(mean_1: float, std_1: float, mean_2: float, std_2: float) -> float:
    """KL of two Gaussians from their standard deviations: log ratio plus moments."""
    return math.log(std_2 / std_1) + (std_1**2 + (mean_1 - mean_2) ** 2) / (2 * std_2**2) - 0.5


def _ratio_by_quadrature(m: float, s: float) -> float:
    """Variance of z^2 eps / s over that of 2 z, z = m + s eps, each by Gauss-Hermite quadrature."""
    eps, weight = np.polynomial.hermite_e.hermegauss(12)
    weight, z = weight / weight.sum(), m + s * eps
    variance = lambda g: float(weight @ g**2 - (weight @ g) ** 2)  # noqa: E731
    return variance(z**2 * eps / s) / variance(2 * z)


EXERCISES = {
    "4.1": Exercise(
        answer=0.5 * math.log(0.5 / _POSTERIOR[0]) + 0.5 * math.log(0.5 / _POSTERIOR[1]),
        hint="The gap is KL(q || posterior): sum q log(q / posterior) where q > 0; the posterior is the joint divided by 0.29.",
        wrong={
            "That is -ELBO. The gap is log p(x) - ELBO, with p(x) = 0.29.": 0.5 * math.log(0.5 / 0.05) + 0.5 * math.log(0.5 / 0.18),
            "That is log p(x) itself. Compute the ELBO of the guess as well and take the difference.": math.log(0.29),
            "The sign is turned: a gap is never negative.": -(0.5 * math.log(0.5 / _POSTERIOR[0]) + 0.5 * math.log(0.5 / _POSTERIOR[1])),
            "You compared the guess with the prior (0.5, 0.3, 0.2): that is the prior term. The gap compares it with the posterior.": 0.5
            * math.log(0.5 / 0.5)
            + 0.5 * math.log(0.5 / 0.3),
        },
    ),
    "4.2": Exercise(
        answer=lambda mean, var: _normal_kl(mean, math.sqrt(var), 0.0, 1.0),
        inputs=_MEANS_AND_VARS,
        hint="Put m_2 = 0 and v_2 = 1 into (4.10). Three parts come from the variance, one from the mean.",
        wrong={
            "You took var for a standard deviation: it is already the square.": lambda mean, var: _normal_kl(mean, var, 0.0, 1.0),
            "The two Gaussians are in the wrong order: the guess comes first, the prior second.": lambda mean, var: _normal_kl(
                0.0, 1.0, mean, math.sqrt(var)
            ),
            "The factor one half is missing.": lambda mean, var: 2 * _normal_kl(mean, math.sqrt(var), 0.0, 1.0),
            "The logarithm has the wrong sign: a tiny variance must cost much, not little.": lambda mean, var: (
                0.5 * (mean**2 + var - 1 + math.log(var))
            ),
        },
    ),
    "4.3": Exercise(
        answer=lambda x: _normal_kl(0.0, 1.0, x / 2, math.sqrt(0.5)),
        inputs=_X,
        hint="With w = s = 1 the posterior is N(x/2, 1/2). The gap is KL(q || posterior), with q = N(0, 1) in the first place.",
        wrong={
            "That is KL(posterior || q). In the gap the guess comes first.": lambda x: _normal_kl(x / 2, math.sqrt(0.5), 0.0, 1.0),
            "The posterior's variance is 1/2; you used 1/2 as its standard deviation.": lambda x: _normal_kl(0.0, 1.0, x / 2, 0.5),
            "The posterior's mean is x/2, not x: the prior pulls half of the way back.": lambda x: _normal_kl(0.0, 1.0, x, math.sqrt(0.5)),
        },
    ),
    "4.4": Exercise(
        answer=lambda x_0, beta_1: _normal_kl(math.sqrt(1 - beta_1) * x_0, math.sqrt(beta_1), 0.0, 1.0),
        inputs=_X_AND_BETA,
        hint="q(x_1 | x_0) has mean sqrt(1 - beta_1) x_0 and variance beta_1. Put both into your answer to 4.2.",
        wrong={
            "The mean is sqrt(1 - beta_1) x_0; you forgot that the step shrinks the pixel.": lambda x_0, beta_1: _normal_kl(
                x_0, math.sqrt(beta_1), 0.0, 1.0
            ),
            "The mean enters squared: (1 - beta_1) x_0^2, not (1 - beta_1)^2 x_0^2.": lambda x_0, beta_1: _normal_kl(
                (1 - beta_1) * x_0, math.sqrt(beta_1), 0.0, 1.0
            ),
            "The variance is beta_1 itself; beta_1^2 would be the square of the variance.": lambda x_0, beta_1: _normal_kl(
                math.sqrt(1 - beta_1) * x_0, beta_1, 0.0, 1.0
            ),
        },
    ),
    "4.5": Exercise(
        answer=-2.5,
        hint="log p(x) = ELBO + gap, and the gap is the KL divergence from the guess to the posterior.",
        wrong={
            "The bound lies below log p(x): the gap is added, not taken off.": -3.9,
            "That is the bound itself; log p(x) is higher, by the gap.": -3.2,
            "That is -log p(x), the price in nats; the question asks for log p(x).": 2.5,
        },
    ),
    "4.6": Exercise(
        answer=0.25 * math.log(0.1 * 0.36) + 0.5 * math.log(0.23),
        hint="The pairs (0.1, 0.1), (0.1, 0.36), (0.36, 0.1), (0.36, 0.36), 1/4 each: average the two weights, then the logarithm, then the mean.",
        wrong={
            "That is the ELBO, with one draw: average the two weights *before* you take the logarithm.": 0.5 * math.log(0.1 * 0.36),
            "You averaged everything before the logarithm. Only the two weights of a pair are averaged inside.": math.log(0.23),
            "The mixed pair comes in two orders, so it counts twice.": (math.log(0.1) + math.log(0.36) + math.log(0.23)) / 3,
            "That is log p(x). With this guess no number of draws reaches it: the mean weight is 0.23.": math.log(0.29),
        },
    ),
    "4.7": Exercise(
        answer=_ratio_by_quadrature,
        inputs=((1.0, 0.5), (0.3, 0.8), (2.0, 1.5)),
        hint="E[z^4 eps^2] = m^4 + 18 m^2 s^2 + 15 s^4. Divide by s^2, subtract (2m)^2, and divide by 4 s^2.",
        wrong={
            "That is the second moment; a variance has the square of the mean, (2m)^2, taken off.": lambda m, s: (
                (m**4 + 18 * m**2 * s**2 + 15 * s**4) / s**2 / (4 * s**2)
            ),
            "Upside down: the question is how many times larger the second is.": lambda m, s: 1 / _ratio_by_quadrature(m, s),
            "The variance of 2z is 4 s^2: a factor enters squared.": lambda m, s: 2 * _ratio_by_quadrature(m, s),
            "The log density's slope is (z - m) / s^2 = eps / s; the division by s is missing.": lambda m, s: (
                (m**4 + 18 * m**2 * s**2 + 15 * s**4 - (2 * m * s) ** 2) / (4 * s**2)
            ),
        },
    ),
}
