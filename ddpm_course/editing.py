"""Editing while sampling: what changes the state is an edit (x_s, s) -> x_s; a pair (t, s) with s > t goes back up in time."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .data import Split
from .errors import ShapeError, ValueCourseError, check_tensors
from .forward import draw, q_sample, q_step
from .pictures import to_float
from .posterior import Variance
from .prediction import EpsModel
from .sampling import Edit, Step, ddim_sample, ddim_stepper, ddpm_stepper, last, time_grid, trajectory
from .schedule import NoiseSchedule
from .solvers import ddim_invert


def noisy_version(schedule: NoiseSchedule, x_0: Tensor, s: int, generator: torch.Generator | None) -> Tensor:
    """A draw from q(x_s | x_0); x_0 itself at s = 0.   Ho eq. 4."""
    return x_0 if s == 0 else q_sample(schedule, x_0, s, draw(x_0.shape, x_0, generator))


def keep_known(schedule: NoiseSchedule, known: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Edit:
    """The edit that puts the known pixels, with noise of time s, where mask is True. Exact at s = 0.   RePaint eq. 8.

    known (B, ...) or (1, ...), mask boolean and broadcastable to it.
    """
    if mask.dtype != torch.bool:
        raise ValueCourseError(f"mask must be boolean (True where the pixel is known), got {mask.dtype}; use mask > 0.5")

    def edit(x_s: Tensor, s: int) -> Tensor:
        """x_s with its known part replaced."""
        return torch.where(mask, noisy_version(schedule, known.expand_as(x_s), s, generator), x_s)

    return edit


def repaint_times(times: Sequence[int], resamplings: int = 10, jump: int = 1) -> list[int]:
    """The times RePaint visits: each stretch of `jump` steps is walked `resamplings` times, going back up between.   RePaint Algorithm 1.

    times fall to 0; the last stretch, which ends in 0, is walked once: nothing is noised again after the end.
    """
    if resamplings < 1 or jump < 1:
        raise ValueCourseError(f"resamplings = {resamplings} and jump = {jump} must be at least 1")
    plan = [times[0]]
    for start in range(0, len(times) - 1, jump):
        stretch = list(times[start + 1 : start + 1 + jump])
        for again in range(resamplings if stretch[-1] > 0 else 1):
            plan += ([times[start]] if again else []) + stretch
    return plan


def both_ways(step: Step, schedule: NoiseSchedule, edit: Edit, generator: torch.Generator | None = None) -> Step:
    """The same step followed by the edit, and for a pair with s > t the way back up: a draw from q(x_s | x_t), unedited.   Ho eq. 2."""

    def either(x_t: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
        """(x_t, t, s) -> (x_s, x_0_hat); on the way up x_t stands in for x_0_hat."""
        if s < t:
            x_s, x_0_hat = step(x_t, t, s)
            return edit(x_s, s), x_0_hat
        return q_step(schedule, x_t, s, draw(x_t.shape, x_t, generator), s=t), x_t

    return either


def walk(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    edit: Edit,
    like: Tensor,
    times: list[int],
    variance: Variance,
    generator: torch.Generator | None,
) -> Tensor:
    """DDPM along these times, up and down, from fresh noise of the shape of `like`, with the edit after every step down."""
    step = both_ways(ddpm_stepper(eps_model, schedule, variance, generator), schedule, edit, generator)
    return last(trajectory(step, draw(like.shape, like, generator), times))


def inpaint(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    known: Tensor,
    mask: Tensor,
    num_steps: int = 250,
    resamplings: int = 10,
    jump: int = 5,
    variance: Variance = "posterior",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill in the pixels of known (B, ...) where mask is False, with any unconditional model. RePaint; known pixels come back exactly.

    Only near a draw from p(unknown | known): the bias falls with resamplings, and does not vanish.   RePaint Algorithm 1.
    """
    check_tensors(known=known)
    times = repaint_times(time_grid(schedule.T, num_steps).tolist(), resamplings, jump)
    return walk(eps_model, schedule, keep_known(schedule, known, mask, generator), known, times, variance, generator)


def low_pass(x: Tensor, factor: int) -> Tensor:
    """Average over factor x factor pixels: (B, C, H, W) -> (B, C, H/factor, W/factor)."""
    if x.ndim != 4 or x.shape[2] % factor or x.shape[3] % factor:
        raise ShapeError(f"low_pass takes (B, C, H, W) with H and W multiples of {factor}, got {tuple(x.shape)}")
    return F.avg_pool2d(x, factor)


def enlarge(x: Tensor, factor: int, mode: str = "nearest") -> Tensor:
    """(B, C, h, w) -> (B, C, h factor, w factor), by repetition or "bicubic"."""
    return F.interpolate(x, scale_factor=float(factor), mode=mode)


def small_picture_condition(factor: int, mode: str = "nearest") -> Callable[[Split, Tensor, torch.Generator | None], dict[str, Tensor]]:
    """The condition= of train() for super-resolution: beside x_t the network sees the picture shrunk by `factor` and enlarged again.

    It asks for a UNetConfig with condition_channels = channels. To sample, give enlarge(low, factor, mode) as condition=.   SR3 section 2.
    """

    def condition(split: Split, index: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        """condition (B, C, H, W) for the pictures at these indices; nothing is drawn."""
        return {"condition": enlarge(low_pass(to_float(split.images[index]), factor), factor, mode)}

    return condition


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures in [-1, 1], in decibels, one number a picture (B,): 10 log10(2^2 / mean square error)."""
    if x.shape != truth.shape:
        raise ShapeError(f"psnr compares pictures of one shape, got {tuple(x.shape)} and {tuple(truth.shape)}")
    return 10 * (4 / (x - truth).square().flatten(1).mean(1)).log10()


def keep_low_frequencies(schedule: NoiseSchedule, low: Tensor, factor: int, generator: torch.Generator | None = None) -> Edit:
    """The edit that gives x_s the block averages of a noisy version of the small picture `low` (B, C, h, w).

    The noise is that of averages of factor x factor pixels: enlarged to full size, drawn there, and averaged.
    """
    large = enlarge(low, factor)

    def edit(x_s: Tensor, s: int) -> Tensor:
        """x_s with its block averages replaced; its detail stays."""
        wanted = low_pass(noisy_version(schedule, large.expand_as(x_s), s, generator), factor)
        return x_s + enlarge(wanted - low_pass(x_s, factor), factor)

    return edit


def super_resolve(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    low: Tensor,
    factor: int,
    num_steps: int = 100,
    resamplings: int = 1,
    variance: Variance = "posterior",
    generator: torch.Generator | None = None,
) -> Tensor:
    """A large picture (B, C, h factor, w factor) whose block averages are `low`, with any unconditional model: no training.

    A network trained on (large, small) pairs does better: see small_picture_condition.
    """
    times = repaint_times(time_grid(schedule.T, num_steps).tolist(), resamplings)
    edit = keep_low_frequencies(schedule, low, factor, generator)
    return walk(eps_model, schedule, edit, enlarge(low, factor), times, variance, generator)


def times_from(schedule: NoiseSchedule, strength: float, num_steps: int) -> list[int]:
    """num_steps trailing times from strength T down to 0."""
    if not 0 < strength <= 1:
        raise ValueCourseError(f"strength = {strength} must lie in (0, 1]: how far up in time the picture goes, as a share of T")
    start = max(1, round(strength * schedule.T))
    return time_grid(start, min(num_steps, start)).tolist()


def image_to_image(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    x_0: Tensor,
    strength: float = 0.5,
    num_steps: int = 50,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x_0 (B, ...) noised up to time strength T and sampled down again, by any model. More strength, less of x_0.   SDEdit section 3."""
    times = times_from(schedule, strength, num_steps)
    x_t = noisy_version(schedule, x_0, times[0], generator)
    return last(trajectory(ddim_stepper(eps_model, schedule, eta, generator), x_t, times))


def translate(source: EpsModel, target: EpsModel, schedule: NoiseSchedule, x_0: Tensor, num_steps: int = 100) -> Tensor:
    """x_0 (B, ...) up to x_T with one model and down with another, without noise: DDIM inversion, then DDIM.   DDIM section 4.3."""
    return ddim_sample(target, schedule, x_T=ddim_invert(source, schedule, x_0, num_steps), num_steps=num_steps)
