"""Fast deterministic samplers on the same eps_model: Heun and DPM-Solver++(2M) on the probability-flow ODE, and DDIM backwards.

In y = x_t / sqrt(alpha_bar_t) and sigma = sqrt((1 - alpha_bar) / alpha_bar) the ODE is dy/dsigma = eps(x_t, t); DDIM is its Euler step.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import ShapeError, TimestepError, ValueCourseError, check_tensors
from .prediction import EpsModel, eps_to_x_0
from .sampling import Edit, Step, batch_time, check_grid, ddim_step, last, start_noise, time_grid, trajectory
from .schedule import NoiseSchedule


def sigma_of(schedule: NoiseSchedule, t: int) -> float:
    """EDM's noise level sqrt((1 - alpha_bar_t) / alpha_bar_t): 0 at t = 0.   EDM section 2."""
    bar = schedule.at(t)
    return ((1 - bar) / bar) ** 0.5


def sigma_grid(schedule: NoiseSchedule, num_steps: int, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """EDM's time steps rounded to integer t, strictly falling, from the largest t with sigma_t <= sigma_max to 0: (num_steps + 1,).

    sigma_i^(1/rho) is evenly spaced; the last step above 0 is t = 1. Where two steps would meet, the earlier one moves up.   EDM eq. 5.
    """
    sigmas = ((1 - schedule.alpha_bar) / schedule.alpha_bar).cpu() ** 0.5
    if not (sigma_max >= float(sigmas[1]) and rho > 0):
        raise ValueCourseError(f"sigma_max = {sigma_max} must be at least sigma_1 = {float(sigmas[1]):.3g}, and rho = {rho} above 0")
    first = int((sigmas <= sigma_max).nonzero().max())
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or not 1 <= num_steps <= first:
        raise TimestepError(f"num_steps = {num_steps!r} must be an integer in 1..{first}, the times with sigma_t <= {sigma_max:g}")
    ends = sigmas[first] ** (1 / rho), sigmas[1] ** (1 / rho)
    wanted = torch.linspace(float(ends[0]), float(ends[1]), num_steps, dtype=torch.float64) ** rho if num_steps > 1 else sigmas[[first]]
    nearest = (sigmas[1:, None].log() - wanted[None].log()).abs().argmin(0).add(1).tolist()
    times = [0]
    for k, t in enumerate(reversed(nearest)):
        times.append(min(max(t, times[-1] + 1), first - (num_steps - 1 - k)))
    return torch.tensor(times[::-1])


def heun_stepper(eps_model: EpsModel, schedule: NoiseSchedule) -> Step:
    """The step of `trajectory` for Heun's method: the mean of the slopes at both ends. Two calls of the model; one (Euler) at s = 0.

    EDM Algorithm 1 without churn.
    """

    def step(x_t: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
        """(x_t, t, s) -> (x_s, x_0_hat)."""
        eps = eps_model(x_t, batch_time(x_t, t))
        x_s, x_0_hat = ddim_step(schedule, x_t, eps, t, s), eps_to_x_0(schedule, x_t, t, eps)
        if s > 0:
            x_s = ddim_step(schedule, x_t, (eps + eps_model(x_s, batch_time(x_s, s))) / 2, t, s)
        return x_s, x_0_hat

    return step


def dpm_solver_stepper(eps_model: EpsModel, schedule: NoiseSchedule) -> Step:
    """The step of `trajectory` for DPM-Solver++(2M): one call of the model, a straight line through the last two x_0_hat in log-SNR.

    Its memory is this closure; it forgets when a step does not follow the one before. First order at the first step and at s = 0.
    DPM++ Algorithm 2.
    """
    memory: dict[str, tuple[int, int, Tensor]] = {}

    def step(x_t: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
        """(x_t, t, s) -> (x_s, x_0_hat)."""
        x_0_hat = eps_to_x_0(schedule, x_t, t, eps_model(x_t, batch_time(x_t, t)))
        bar_t, bar_s = schedule.pair(t, s)
        before, denoised = memory.get("last"), x_0_hat
        if before and before[1] == t and s > 0 and before[2].shape == x_t.shape:
            h, h_before = _log_snr_gain(schedule, t, s), _log_snr_gain(schedule, before[0], t)
            denoised = x_0_hat + h / (2 * h_before) * (x_0_hat - before[2])
        memory["last"] = (t, s, x_0_hat.clone())  # the caller may change what it gets
        shrink = ((1 - bar_s) / (1 - bar_t)) ** 0.5
        return shrink * x_t + (bar_s**0.5 - shrink * bar_t**0.5) * denoised, x_0_hat

    return step


def _log_snr_gain(schedule: NoiseSchedule, t: int, s: int) -> float:
    """h = lambda_s - lambda_t with lambda = log(sqrt(alpha_bar) / sqrt(1 - alpha_bar)), s > 0."""
    return math.log(sigma_of(schedule, t) / sigma_of(schedule, s))


def heun_sample(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    shape: Sequence[int] | None = None,
    x_T: Tensor | None = None,
    num_steps: int = 18,
    grid: Tensor | None = None,
    generator: torch.Generator | None = None,
    edit: Edit | None = None,
) -> Tensor:
    """x_0 by Heun's method in `num_steps` of EDM's steps (2 num_steps - 1 model calls) or over your own grid; given x_T, deterministic.

    x_T is the state at the grid's first time, N(0, I) by default.   EDM Algorithm 1 without churn.
    """
    times = check_grid(schedule, sigma_grid(schedule, num_steps) if grid is None else grid)
    return last(trajectory(heun_stepper(eps_model, schedule), start_noise(shape, x_T, generator), times, edit))


def dpm_solver_sample(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    shape: Sequence[int] | None = None,
    x_T: Tensor | None = None,
    num_steps: int = 20,
    grid: Tensor | None = None,
    generator: torch.Generator | None = None,
    edit: Edit | None = None,
) -> Tensor:
    """x_0 by DPM-Solver++(2M) in `num_steps` trailing steps or over your own grid; given x_T, deterministic.   DPM++ Algorithm 2."""
    times = check_grid(schedule, time_grid(schedule.T, num_steps) if grid is None else grid)
    return last(trajectory(dpm_solver_stepper(eps_model, schedule), start_noise(shape, x_T, generator), times, edit))


@torch.no_grad()
def ddim_invert(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    x_0: Tensor,
    num_steps: int = 50,
    grid: Tensor | None = None,
    iterations: int = 1,
) -> Tensor:
    """x_T from which `ddim_sample` (eta = 0, same grid) comes back to x_0: its steps taken upwards, s -> t.   DDIM section 4.3.

    A step up needs eps at x_t, which is not known yet. iterations = 1 asks at x_s instead: the error falls like 1 / num_steps. More
    iterations ask again at the x_t just found, until the step down returns to x_s; on sharp data some examples never settle, so check.
    """
    check_tensors(x_0=x_0)
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise ValueCourseError(f"iterations = {iterations!r} must be an integer of at least 1")
    times, x = check_grid(schedule, time_grid(schedule.T, num_steps) if grid is None else grid)[::-1], x_0
    for s, t in zip(times, times[1:], strict=False):
        bar_s, bar_t = schedule.at(s), schedule.at(t)
        guess, stretch = x, (bar_t / bar_s) ** 0.5
        for _ in range(iterations):
            eps = eps_model(guess, batch_time(x, t))
            guess = stretch * x + ((1 - bar_t) ** 0.5 - stretch * (1 - bar_s) ** 0.5) * eps
        x = guess
    return x


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """The point at `weight` in [0, 1] on the great arc from a to b (B, ...), example by example: noise stays as long as noise is.

    Where a and b are parallel the arc is their straight line.   DDIM section 5.3.
    """
    check_tensors(a=a, b=b)
    if a.ndim < 2:
        raise ShapeError(f"slerp needs a batch (B, ...) of points, got shape {tuple(a.shape)}; add the batch axis: a[None]")
    if not 0 <= weight <= 1:
        raise ValueCourseError(f"weight = {weight} must lie in [0, 1]: 0 is a, 1 is b")
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=1).clamp(-1, 1)
    angle = cosine.acos().reshape(-1, *[1] * (a.ndim - 1))
    straight = angle.sin().abs() < 1e-4
    of_a = torch.where(straight, 1 - weight, ((1 - weight) * angle).sin() / angle.sin())
    of_b = torch.where(straight, weight, (weight * angle).sin() / angle.sin())
    return of_a * a + of_b * b
