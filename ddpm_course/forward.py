"""The forward process q: from data to noise, one step at a time or in one jump."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import check_tensors
from .schedule import NoiseSchedule, Time, cast


def draw(shape: Sequence[int], like: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """N(0, I) in the dtype and on the device of `like` (fp32, CPU without it); made on the generator's device if there is one."""
    device = generator.device if generator else like.device if like is not None else None
    z = torch.randn(tuple(shape), generator=generator, device=device, dtype=torch.float32 if like is None else like.dtype)
    return z if like is None else z.to(like.device)


def q_step(schedule: NoiseSchedule, x_s: Tensor, t: Time, eps: Tensor, s: Time | None = None) -> Tensor:
    """One draw from q(x_t | x_s), s = t-1 unless given: sqrt(alpha) x_s + sqrt(1 - alpha) eps.   Ho eq. 2.

    alpha = alpha_bar_t / alpha_bar_s; x_s, eps: (B, ...); t, s: (B,) or int; eps ~ N(0, I), fresh for each step.
    """
    check_tensors(x_s=x_s, eps=eps)
    bar_t, bar_s = schedule.pair(t, s, x_s.ndim)
    alpha = bar_t / bar_s
    return cast(alpha**0.5, x_s) * x_s + cast((1 - alpha) ** 0.5, x_s) * eps


def q_sample(schedule: NoiseSchedule, x_0: Tensor, t: Time, eps: Tensor) -> Tensor:
    """One draw from q(x_t | x_0): sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps.   Ho eq. 4.

    x_0, eps: (B, ...); t: (B,) or int in 1..T; eps ~ N(0, I).
    """
    check_tensors(x_0=x_0, eps=eps)
    bar = schedule.at(t, x_0.ndim, low=1)
    return cast(bar**0.5, x_0) * x_0 + cast((1 - bar) ** 0.5, x_0) * eps
