"""The posterior q(x_s | x_t, x_0): where the chain was one step ago, for somebody who knows where it started."""

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import ValueCourseError, check_tensors
from .schedule import Coefficient, NoiseSchedule, Time, cast

Variance = str | Callable[[Time, Time], Coefficient]  # a name below, or (t, s) -> variance


def q_posterior(schedule: NoiseSchedule, x_0: Tensor, x_t: Tensor, t: Time, s: Time | None = None) -> tuple[Tensor, Coefficient]:
    """Mean and variance of q(x_s | x_t, x_0), s = t-1 unless given.   Ho eqs. 6-7.   x_0, x_t: (B, ...); t, s: (B,) or int."""
    check_tensors(x_0=x_0, x_t=x_t)
    bar_t, bar_s = schedule.pair(t, s, x_t.ndim)
    alpha = bar_t / bar_s  # alpha_t when s = t-1
    of_x_0, of_x_t = bar_s**0.5 * (1 - alpha) / (1 - bar_t), alpha**0.5 * (1 - bar_s) / (1 - bar_t)
    var = (1 - alpha) * (1 - bar_s) / (1 - bar_t)  # at s = 0: mean x_0, variance 0, no special case
    return cast(of_x_0, x_t) * x_0 + cast(of_x_t, x_t) * x_t, cast(var, x_t)


def posterior_variance(schedule: NoiseSchedule, t: Time, s: Time, ndim: int = 1) -> Coefficient:
    """beta~: the variance of q(x_s | x_t, x_0), exact if the data are one point.   Ho eq. 7."""
    bar_t, bar_s = schedule.pair(t, s, ndim)
    return (1 - bar_t / bar_s) * (1 - bar_s) / (1 - bar_t)


def beta_variance(schedule: NoiseSchedule, t: Time, s: Time, ndim: int = 1) -> Coefficient:
    """The variance of q(x_t | x_s), optimal for the reverse step if x_0 ~ N(0, I).   Ho section 3.2."""
    bar_t, bar_s = schedule.pair(t, s, ndim)
    return 1 - bar_t / bar_s


def clipped_posterior_variance(schedule: NoiseSchedule, t: Time, s: Time, ndim: int = 1) -> Coefficient:
    """beta~, but never 0: where s = 0 it is beta~ of the next pair (2t, t), so beta~_2 at t = 1.   Nichol section 3.1."""
    schedule.pair(t, s, ndim)
    if isinstance(t, int) and isinstance(s, int):
        if s > 0:
            return posterior_variance(schedule, t, s, ndim)
        after = min(2 * t, schedule.T)
        return posterior_variance(schedule, after, t, ndim) if after > t else beta_variance(schedule, t, s, ndim)
    pairs = zip(*torch.broadcast_tensors(torch.as_tensor(t), torch.as_tensor(s)), strict=True)
    values = [clipped_posterior_variance(schedule, int(a), int(b)) for a, b in pairs]
    device = t.device if isinstance(t, Tensor) else s.device
    return torch.tensor(values, dtype=torch.float64, device=device).reshape(-1, *[1] * (ndim - 1))


VARIANCES = {"beta": beta_variance, "posterior": posterior_variance, "posterior_clipped": clipped_posterior_variance}


def reverse_variance(schedule: NoiseSchedule, t: Time, s: Time, kind: Variance = "posterior", ndim: int = 1) -> Coefficient:
    """Variance of the reverse step t -> s, float64: "beta", "posterior", "posterior_clipped", or (t, s) -> variance.   Ho section 3.2."""
    if callable(kind):
        value = kind(t, s)
        one_each = isinstance(value, Tensor) and value.ndim == 1 and isinstance(t, Tensor)  # (B,): spread over x_t's axes
        return value.reshape(-1, *[1] * (ndim - 1)) if one_each else value
    if kind not in VARIANCES:
        raise ValueCourseError(f"unknown variance {kind!r}; known: {', '.join(VARIANCES)}, or a function (t, s) -> variance")
    return VARIANCES[kind](schedule, t, s, ndim)
