"""Checks of chapter 09, sampling."""

import math

from . import Exercise

_JUMPS = ((0.3, 0.8, 0.4, 0.9), (-1.2, 0.1, 0.05, 0.5), (0.7, -0.6, 0.6, 1.0))
_CHAINS = ((0.25, 0.01, 0.4), (1.0, 0.1, 0.7), (2.0, 0.05, 0.5))


def _mean_by_x_0(x_t: float, eps: float, bar_t: float, bar_s: float) -> float:
    """The jump's mean through x_0_hat and the posterior of two Gaussians, by precision weights."""
    x_0_hat, alpha = (x_t - math.sqrt(1 - bar_t) * eps) / math.sqrt(bar_t), bar_t / bar_s
    if bar_s == 1:
        return x_0_hat
    prior, likelihood = 1 / (1 - bar_s), alpha / (1 - alpha)
    return (prior * math.sqrt(bar_s) * x_0_hat + likelihood * x_t / math.sqrt(alpha)) / (prior + likelihood)


def _two_steps(v: float, bar_T: float, bar_s: float, last_noise: bool = False, squared: bool = True, kind: str = "posterior") -> float:
    """Through the eps form: x -> (x - (1-alpha)/sqrt(1-bar) eps)/sqrt(alpha) with eps = sqrt(1-bar) x / (bar v + 1 - bar)."""
    alpha, power = bar_T / bar_s, 2 if squared else 1
    first = (1 - (1 - alpha) / (bar_T * v + 1 - bar_T)) / math.sqrt(alpha)
    second = (1 - (1 - bar_s) / (bar_s * v + 1 - bar_s)) / math.sqrt(bar_s)
    added = (1 - alpha) if kind == "beta" else (1 - alpha) / (1 - bar_T) * (1 - bar_s)
    return second**power * (first**power + added) + (1 - bar_s if last_noise else 0)


def _kept(kappa: float, bar_t: float, bar_s: float) -> float:
    """What a step without noise keeps of the variance: all but the step's own 1 - alpha, over kappa_t."""
    return 1 - (1 - bar_t / bar_s) / (bar_t * kappa + 1 - bar_t)


def _x_0_hat(x_t: float, eps: float, bar_t: float) -> float:
    """The guess of x_0 that goes with eps."""
    return (x_t - math.sqrt(1 - bar_t) * eps) / math.sqrt(bar_t)


def _clip(x: float) -> float:
    """x, held in [-1, 1]."""
    return max(-1.0, min(1.0, x))


def _posterior_mean(x_0: float, x_t: float, bar_t: float, bar_s: float) -> float:
    """The posterior's mean from the precisions of its two witnesses."""
    alpha = bar_t / bar_s
    prior, likelihood = 1 / (1 - bar_s), alpha / (1 - alpha)
    return (prior * math.sqrt(bar_s) * x_0 + likelihood * x_t / math.sqrt(alpha)) / (prior + likelihood)


EXERCISES = {
    "9.1": Exercise(
        answer=1000,
        hint="Count x_T, and then one z for every step that adds noise. Which step adds none?",
        wrong={
            "You counted a z for the last step, too; it is noise-free.": 1001,
            "You counted only the z's; x_T is drawn as well.": 999,
        },
    ),
    "9.2": Exercise(
        answer=1 / 6,
        hint="beta~_t = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) * beta_t, with alpha_bar_t = alpha_t * alpha_bar_{t-1}.",
        wrong={
            "That is beta_t; the posterior's variance is smaller by (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t).": 0.2,
            "The fraction is upside down: beta~ must be smaller than beta.": 0.24,
            "That is the standard deviation; the question asks for the variance.": math.sqrt(1 / 6),
            "You put alpha_t where alpha_bar_t belongs: 1 - alpha_bar_t is 1 - 0.8 * 0.5.": 0.5,
        },
    ),
    "9.3": Exercise(
        answer=_mean_by_x_0,
        inputs=_JUMPS,
        hint="Ho eq. 11 with alpha = alpha_bar_t / alpha_bar_s in the place of alpha_t and 1 - alpha in the place of beta_t.",
        wrong={
            "You subtracted the whole guessed noise; only a share (1 - alpha) / sqrt(1 - alpha_bar_t) of it is taken back.": lambda x, e, bar_t, bar_s: (
                x - e
            ),
            "The share of the noise is right; what is missing is the division by sqrt(alpha), which undoes the shrinking.": lambda x, e, bar_t, bar_s: (
                x - (1 - bar_t / bar_s) / math.sqrt(1 - bar_t) * e
            ),
            "Divide by sqrt(1 - alpha_bar_t), not by 1 - alpha_bar_t.": lambda x, e, bar_t, bar_s: (
                (x - (1 - bar_t / bar_s) / (1 - bar_t) * e) / math.sqrt(bar_t / bar_s)
            ),
            "That is x_0_hat, the end of the chain; a jump stops at s.": lambda x, e, bar_t, bar_s: (
                (x - math.sqrt(1 - bar_t) * e) / math.sqrt(bar_t)
            ),
        },
    ),
    "9.4": Exercise(
        answer=_two_steps,
        inputs=_CHAINS,
        hint="V_s = a^2 * 1 + beta~ with a = sqrt(alpha) kappa_s / kappa_T, kappa_t = alpha_bar_t kappa + 1 - alpha_bar_t; the last step: times (sqrt(alpha_bar_s) kappa / kappa_s)^2.",
        wrong={
            "You added noise at the last step; it is noise-free.": lambda v, T, s: _two_steps(v, T, s, last_noise=True),
            "Variances are multiplied by the square of the factor.": lambda v, T, s: _two_steps(v, T, s, squared=False),
            "You used beta at the first step; the question asks for beta~.": lambda v, T, s: _two_steps(v, T, s, kind="beta"),
            "That is the data's variance, what a perfect sampler would give; this one loses some of it.": lambda v, T, s: v,
        },
    ),
    "9.5": Exercise(
        answer=lambda kappa, bar_t, bar_s: 1 - (1 - bar_t / bar_s) / (bar_t * kappa + 1 - bar_t),
        inputs=((0.25, 0.1, 0.4), (1.0, 0.3, 0.7), (2.0, 0.5, 0.55)),
        hint="factor^2 kappa_t / kappa_s with factor = sqrt(alpha) kappa_s / kappa_t and alpha = alpha_bar_t / alpha_bar_s.",
        wrong={
            "The mean stays right without z, the variance does not.": lambda kappa, bar_t, bar_s: 1.0,
            "That is the fraction of the standard deviation.": lambda kappa, bar_t, bar_s: math.sqrt(_kept(kappa, bar_t, bar_s)),
            "The shrinking is missing: the step's factor has sqrt(alpha), so the variance has alpha.": lambda kappa, bar_t, bar_s: (
                _kept(kappa, bar_t, bar_s) * bar_s / bar_t
            ),
            "Upside down: a fraction kept is at most 1.": lambda kappa, bar_t, bar_s: 1 / _kept(kappa, bar_t, bar_s),
        },
    ),
    "9.6": Exercise(
        answer=lambda x, eps, bar_t, bar_s: _posterior_mean(_clip(_x_0_hat(x, eps, bar_t)), x, bar_t, bar_s),
        inputs=((1.5, -1.0, 0.3, 0.6), (0.2, 0.1, 0.8, 0.9), (-2.0, 0.5, 0.2, 0.5)),
        hint="Clip x_0_hat and put it into the posterior mean, the form with x_0 and x_t.",
        wrong={
            "Nothing was clipped: the form with eps_hat does not see the clipped x_0_hat.": lambda x, eps, bar_t, bar_s: _posterior_mean(
                _x_0_hat(x, eps, bar_t), x, bar_t, bar_s
            ),
            "You clipped the mean. x_s is noisy and may leave [-1, 1]; only x_0_hat is clipped.": lambda x, eps, bar_t, bar_s: _clip(
                _posterior_mean(_x_0_hat(x, eps, bar_t), x, bar_t, bar_s)
            ),
            "That is the clipped x_0_hat, the end of the chain; the step stops at s.": lambda x, eps, bar_t, bar_s: _clip(
                _x_0_hat(x, eps, bar_t)
            ),
            "That is a deterministic step with the old eps_hat, not the mean of the DDPM step.": lambda x, eps, bar_t, bar_s: (
                math.sqrt(bar_s) * _clip(_x_0_hat(x, eps, bar_t)) + math.sqrt(1 - bar_s) * eps
            ),
        },
    ),
}
