"""Samplers: one step is a formula, a sampler is a trajectory over such steps.   eps_model: (x_t, t (B,)) -> eps."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .errors import ShapeError, TimestepError, ValueCourseError, check_tensors, one_of
from .forward import draw
from .posterior import Variance, reverse_variance
from .prediction import EpsModel, eps_to_x_0
from .schedule import Coefficient, NoiseSchedule, Time, cast

Step = Callable[[Tensor, int, int], tuple[Tensor, Tensor]]  # (x_t, t, s) -> (x_s, x_0_hat)
Edit = Callable[[Tensor, int], Tensor]  # (x_s, s) -> x_s

SPACINGS: dict[str, Callable[[int, int, int], int]] = {  # (k, T, S) -> the k-th time from the end, k = 1..S
    "trailing": lambda k, T, S: round(k * T / S),
    "leading": lambda k, T, S: 1 + (k - 1) * T // S,
    "linspace": lambda k, T, S: round(1 + (k - 1) * (T - 1) / (S - 1)) if S > 1 else T,
    "quadratic": lambda k, T, S: max(k, round(T * (k / S) ** 2)),
}


def time_grid(T: int, num_steps: int, spacing: str = "trailing") -> Tensor:
    """The times a sampler visits: LongTensor (num_steps + 1,), strictly falling, ending in 0. Only "leading" does not start at T."""
    one_of("spacing", spacing, SPACINGS)
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or not 1 <= num_steps <= T:
        raise TimestepError(f"num_steps = {num_steps!r} must be an integer in 1..T = 1..{T}")
    times = [SPACINGS[spacing](k, T, num_steps) for k in range(num_steps, 0, -1)]
    return torch.tensor([*times, 0])


def _noise_to_add(x_t: Tensor, var: Coefficient, z: Tensor | None) -> Tensor | float:
    """sqrt(var) z; the standard deviation, not the variance. Where var is 0, z may be None."""
    if z is None:
        if not isinstance(var, float) or var > 0:
            raise ValueCourseError("this step adds noise (variance > 0): pass z ~ N(0, I) of x_t's shape")
        return 0.0
    check_tensors(x_t=x_t, z=z)
    return cast(var**0.5, x_t) * z


def ddpm_step(
    schedule: NoiseSchedule, x_t: Tensor, eps: Tensor, t: Time, s: Time, z: Tensor | None, variance: Variance = "posterior"
) -> Tensor:
    """One ancestral step t -> s: (x_t - (1-alpha)/sqrt(1-alpha_bar) eps) / sqrt(alpha) + sqrt(variance) z.   Ho eq. 11, Algorithm 2.

    x_t, eps, z: (B, ...); t, s: (B,) or int, s < t; alpha = alpha_bar_t / alpha_bar_s. At s = 0 no noise is added and z is ignored.
    """
    check_tensors(x_t=x_t, eps=eps)
    bar_t, bar_s = schedule.pair(t, s, x_t.ndim)
    alpha = bar_t / bar_s
    mean = (x_t - cast((1 - alpha) / (1 - bar_t) ** 0.5, x_t) * eps) / cast(alpha**0.5, x_t)
    if isinstance(s, int):
        return mean if s == 0 else mean + _noise_to_add(x_t, reverse_variance(schedule, t, s, variance, x_t.ndim), z)
    var = reverse_variance(schedule, t, s, variance, x_t.ndim) * (s > 0).reshape(-1, *[1] * (x_t.ndim - 1))
    return mean + _noise_to_add(x_t, var, z)


def ddim_variance(schedule: NoiseSchedule, t: Time, s: Time, eta: float, ndim: int = 1) -> Coefficient:
    """sigma^2 = eta^2 (1-alpha_bar_s)/(1-alpha_bar_t) (1 - alpha_bar_t/alpha_bar_s): 0 at eta = 0, beta~ at eta = 1.   DDIM eq. 16."""
    if not 0 <= eta <= 1:
        raise ValueCourseError(f"eta = {eta} must lie in [0, 1]: 0 is deterministic DDIM, 1 is DDPM with the posterior variance")
    bar_t, bar_s = schedule.pair(t, s, ndim)
    return eta**2 * (1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s)


def ddim_step(schedule: NoiseSchedule, x_t: Tensor, eps: Tensor, t: Time, s: Time, z: Tensor | None = None, eta: float = 0.0) -> Tensor:
    """One step t -> s: sqrt(alpha_bar_s) x_0_hat + sqrt(1 - alpha_bar_s - sigma^2) eps + sigma z.   DDIM eq. 12.

    x_t, eps, z: (B, ...); t, s: (B,) or int, s < t. z is not needed at eta = 0 or s = 0.
    """
    check_tensors(x_t=x_t, eps=eps)
    x_0_hat = eps_to_x_0(schedule, x_t, t, eps)
    return _from_x_0_hat(schedule, x_t, x_0_hat, eps, t, s, z, eta)


def _from_x_0_hat(
    schedule: NoiseSchedule, x_t: Tensor, x_0_hat: Tensor, eps: Tensor, t: Time, s: Time, z: Tensor | None, eta: float
) -> Tensor:
    """ddim_step for those who know x_0_hat already."""
    _, bar_s = schedule.pair(t, s, x_t.ndim)
    var = ddim_variance(schedule, t, s, float(eta), x_t.ndim)
    along_eps = (1 - bar_s - var) ** 0.5  # >= 0 for eta <= 1, and exactly 0 at s = 0
    x_s = cast(bar_s**0.5, x_t) * x_0_hat + cast(along_eps, x_t) * eps
    return x_s if eta == 0 or (isinstance(s, int) and s == 0) else x_s + _noise_to_add(x_t, var, z)


def check_grid(schedule: NoiseSchedule, grid: Tensor | Sequence[int]) -> list[int]:
    """The grid as a list of ints, once it is known to fall strictly from at most T down to 0."""
    times = grid.tolist() if isinstance(grid, Tensor) else list(grid)
    falling = len(times) >= 2 and all(isinstance(t, int) for t in times) and all(t > s for t, s in zip(times, times[1:], strict=False))
    if not falling or times[-1] != 0 or times[0] > schedule.T:
        raise TimestepError(f"a time grid falls strictly from at most T = {schedule.T} to 0 in integers, got {times[:4]}...; see time_grid")
    return times


@torch.no_grad()
def trajectory(step: Step, x_T: Tensor, grid: Tensor | Sequence[int], edit: Edit | None = None) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Walk down the grid, yielding (t, x_t, x_0_hat) at every time: x_T first, (0, x_0, x_0) last. `edit` sees every new x_s."""
    times = grid.tolist() if isinstance(grid, Tensor) else list(grid)
    x_t = x_T
    for t, s in zip(times, times[1:], strict=False):
        x_s, x_0_hat = step(x_t, t, s)
        yield t, x_t, x_0_hat
        x_t = x_s if edit is None else edit(x_s, s)
    yield times[-1], x_t, x_t


def start_noise(shape: Sequence[int] | None, x_T: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """x_T if it is given, else fresh N(0, I) of `shape` in fp32; exactly one of the two must be given."""
    if (shape is None) == (x_T is None):
        raise ShapeError("give either shape (fresh noise is drawn) or x_T (your own), not both and not neither")
    if x_T is not None:
        check_tensors(x_T=x_T)
        return x_T
    return draw(shape, None, generator)


def _grid(schedule: NoiseSchedule, num_steps: int | None, grid: Tensor | Sequence[int] | None) -> list[int]:
    return check_grid(schedule, time_grid(schedule.T, schedule.T if num_steps is None else num_steps) if grid is None else grid)


def batch_time(x_t: Tensor, t: int) -> Tensor:
    """The time t once for each example: LongTensor (B,) on x_t's device."""
    return torch.full((len(x_t),), t, device=x_t.device)


def ddpm_stepper(
    eps_model: EpsModel, schedule: NoiseSchedule, variance: Variance = "posterior", generator: torch.Generator | None = None
) -> Step:
    """The step of `trajectory` for DDPM: asks the model, draws z at every s > 0."""

    def step(x_t: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
        """(x_t, t, s) -> (x_s, x_0_hat)."""
        eps = eps_model(x_t, batch_time(x_t, t))
        z = draw(x_t.shape, x_t, generator) if s > 0 else None
        return ddpm_step(schedule, x_t, eps, t, s, z, variance), eps_to_x_0(schedule, x_t, t, eps)

    return step


def ddim_stepper(eps_model: EpsModel, schedule: NoiseSchedule, eta: float = 0.0, generator: torch.Generator | None = None) -> Step:
    """The step of `trajectory` for DDIM: asks the model, draws z at every s > 0 when eta > 0."""

    def step(x_t: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
        """(x_t, t, s) -> (x_s, x_0_hat)."""
        eps = eps_model(x_t, batch_time(x_t, t))
        z = draw(x_t.shape, x_t, generator) if s > 0 and eta > 0 else None
        x_0_hat = eps_to_x_0(schedule, x_t, t, eps)
        return _from_x_0_hat(schedule, x_t, x_0_hat, eps, t, s, z, eta), x_0_hat

    return step


def last(steps: Iterator[tuple[int, Tensor, Tensor]]) -> Tensor:
    """Walk a trajectory to its end and keep only the end."""
    for _, x, _ in steps:  # noqa: B007 - only the last one is wanted
        pass
    return x


def ddpm_sample(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    shape: Sequence[int] | None = None,
    x_T: Tensor | None = None,
    num_steps: int | None = None,
    grid: Tensor | None = None,
    variance: Variance = "posterior",
    generator: torch.Generator | None = None,
    edit: Edit | None = None,
) -> Tensor:
    """x_0 by ancestral sampling over the full grid, `num_steps` trailing times, or your own grid.   Ho Algorithm 2."""
    step = ddpm_stepper(eps_model, schedule, variance, generator)
    return last(trajectory(step, start_noise(shape, x_T, generator), _grid(schedule, num_steps, grid), edit))


def ddim_sample(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    shape: Sequence[int] | None = None,
    x_T: Tensor | None = None,
    num_steps: int | None = 50,
    grid: Tensor | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    edit: Edit | None = None,
) -> Tensor:
    """x_0 by DDIM in `num_steps` trailing steps or over your own grid; eta = 0 is deterministic given x_T.   DDIM eq. 12."""
    step = ddim_stepper(eps_model, schedule, eta, generator)
    return last(trajectory(step, start_noise(shape, x_T, generator), _grid(schedule, num_steps, grid), edit))
