"""Checks of chapter 10, DDIM."""

import math

from . import Exercise

_TRIPLES = ((0.2, 0.6, 1.0), (0.5, 0.9, 0.5), (0.01, 0.3, 0.2))
_STEPS = ((0.7, -0.3, 0.2, 0.6), (-1.1, 0.8, 0.5, 0.9))


def _path_factor(kappa: float, bar_t: float, bar_s: float) -> float:
    """Take the noise out, stretch by sqrt(bar_s / bar_t), put the noise of time s back: for x_t = 1."""
    eps = math.sqrt(1 - bar_t) / (bar_t * kappa + 1 - bar_t)
    return math.sqrt(bar_s / bar_t) * (1 - math.sqrt(1 - bar_t) * eps) + math.sqrt(1 - bar_s) * eps


def _x_0_hat(x_t: float, eps: float, bar_t: float) -> float:
    """The guess of x_0 that goes with eps."""
    return (x_t - math.sqrt(1 - bar_t) * eps) / math.sqrt(bar_t)


def _clip(x: float) -> float:
    """x, held in [-1, 1]."""
    return max(-1.0, min(1.0, x))


def _clipped_by_angles(x_t: float, eps: float, bar_t: float, bar_s: float) -> float:
    """x_t at angle phi_t from the clipped x_0_hat is turned back to phi_s, in the plane of picture and noise."""
    phi_t, phi_s = (math.acos(math.sqrt(bar)) for bar in (bar_t, bar_s))
    x_0 = _clip(_x_0_hat(x_t, eps, bar_t))
    return (math.sin(phi_s) * x_t + math.sin(phi_t - phi_s) * x_0) / math.sin(phi_t)


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
    "10.4": Exercise(
        answer=lambda T, S: [(2 * k * T + S) // (2 * S) for k in range(S, 0, -1)] + [0],
        inputs=((10, 3), (7, 5), (1000, 300)),
        hint="S + 1 numbers, from T down to 0; the k-th is k T / S, rounded to the nearest integer.",
        wrong={
            "A fixed stride T // S is right only if S divides T; otherwise the last step is a leap.": lambda T, S: (
                [T - j * (T // S) for j in range(S)] + [0]
            ),
            "That is the leading grid: it never visits T, so the sampler's first question is about the wrong noise level.": lambda T, S: (
                [1 + (k - 1) * T // S for k in range(S, 0, -1)] + [0]
            ),
            "The end is missing: the last step goes to 0, where the clean data are.": lambda T, S: [
                round(k * T / S) for k in range(S, 0, -1)
            ],
            "Round to the nearest integer; you cut the fraction off.": lambda T, S: [k * T // S for k in range(S, 0, -1)] + [0],
        },
        tolerance=1e-9,
    ),
    "10.5": Exercise(
        answer=_path_factor,
        inputs=((0.25, 0.1, 0.4), (1.0, 0.3, 0.7), (2.0, 0.5, 0.9)),
        hint="sqrt(alpha_bar_s) x_0_hat + sqrt(1 - alpha_bar_s) eps_hat, with both written as a number times x_t.",
        wrong={
            "That is the mean of the DDPM step; at eta = 0 the whole of sqrt(1 - alpha_bar_s) goes along eps_hat.": lambda kappa, bar_t, bar_s: (
                math.sqrt(bar_t / bar_s) * (bar_s * kappa + 1 - bar_s) / (bar_t * kappa + 1 - bar_t)
            ),
            "That is the exact factor, for infinitely many small steps; one large step misses it.": lambda kappa, bar_t, bar_s: math.sqrt(
                (bar_s * kappa + 1 - bar_s) / (bar_t * kappa + 1 - bar_t)
            ),
            "The direction of eps_hat is missing: its variance was set to 0 together with sigma.": lambda kappa, bar_t, bar_s: (
                math.sqrt(bar_s * bar_t) * kappa / (bar_t * kappa + 1 - bar_t)
            ),
            "That is the way up; the question is about the step from t down to s.": lambda kappa, bar_t, bar_s: _path_factor(
                kappa, bar_s, bar_t
            ),
        },
    ),
    "10.6": Exercise(
        answer=_clipped_by_angles,
        inputs=((1.5, -1.0, 0.3, 0.6), (0.2, 0.1, 0.8, 0.9), (-2.0, 0.5, 0.2, 0.5)),
        hint="eps_hat must be (x_t - sqrt(alpha_bar_t) x_0_hat) / sqrt(1 - alpha_bar_t), with the clipped x_0_hat.",
        wrong={
            "You clipped x_0_hat and kept the old eps_hat: together they no longer make x_t.": lambda x, eps, bar_t, bar_s: (
                math.sqrt(bar_s) * _clip(_x_0_hat(x, eps, bar_t)) + math.sqrt(1 - bar_s) * eps
            ),
            "Nothing was clipped.": lambda x, eps, bar_t, bar_s: math.sqrt(bar_s) * _x_0_hat(x, eps, bar_t) + math.sqrt(1 - bar_s) * eps,
            "You clipped the result. x_s is noisy and may leave [-1, 1]; only x_0_hat is clipped.": lambda x, eps, bar_t, bar_s: _clip(
                math.sqrt(bar_s) * _x_0_hat(x, eps, bar_t) + math.sqrt(1 - bar_s) * eps
            ),
        },
    ),
}
