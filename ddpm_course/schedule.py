"""The noise schedule: how much of the picture is left after t steps. Time is the paper's, t = 1..T; index 0 is clean data."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import ScheduleError, TimestepError

Coefficient = float | Tensor  # a Python float when t is an int, else a float64 tensor shaped (B, 1, ...)
Time = int | Tensor  # an int, or a LongTensor (B,)


def cast(coefficient: Coefficient, x: Tensor) -> Coefficient:
    """The last step of every formula: a float64 coefficient goes to the dtype and device of x."""
    return coefficient if isinstance(coefficient, float) else coefficient.to(x)


class NoiseSchedule:
    """Tables beta, alpha, alpha_bar, each (T+1,) float64 with alpha_bar[0] = 1, from betas (T,) in (0, 1).   Ho eq. 2, 4."""

    def __init__(self, betas: Sequence[float] | Tensor) -> None:
        betas = torch.as_tensor(betas, dtype=torch.float64).detach().clone()
        if betas.ndim != 1 or len(betas) == 0:
            raise ScheduleError(f"betas must be a vector of T >= 1 numbers, got shape {tuple(betas.shape)}")
        if not bool(((betas > 0) & (betas < 1)).all()):
            bad = int((~((betas > 0) & (betas < 1))).nonzero()[0]) + 1
            raise ScheduleError(f"beta_{bad} = {float(betas[bad - 1]):.6g} is outside (0, 1); lower beta_T or use more steps T")
        self.T = len(betas)
        self.beta = torch.cat([betas.new_zeros(1), betas])
        self.alpha = 1 - self.beta
        self.alpha_bar = self.alpha.cumprod(0)
        if not bool((self.alpha_bar[1:] < self.alpha_bar[:-1]).all()):
            raise ScheduleError("alpha_bar does not fall: some beta is below float64's resolution (about 1e-16); raise it")
        if float(self.alpha_bar[-1]) <= 0:
            raise ScheduleError("alpha_bar_T underflows to 0: lower the betas or use fewer steps")
        self._alpha_bar = self.alpha_bar.tolist()  # Python floats for int times: no tensor work in sampling loops
        self._copies: dict[torch.device, Tensor] = {}  # of alpha_bar, one for each device that has asked: copied once

    def __repr__(self) -> str:
        return f"NoiseSchedule(T={self.T}, alpha_bar_T={self._alpha_bar[-1]:.3g})"

    def check(self, t: Time, low: int = 1) -> None:
        """Raise TimestepError unless t is an int or a LongTensor in low..T. CUDA values are not read (that would wait for the GPU)."""
        if isinstance(t, Tensor):
            if t.dtype != torch.int64 or t.ndim > 1:
                raise TimestepError(f"t must be a LongTensor (B,) or an int, got {t.dtype} of shape {tuple(t.shape)}; use t.long()")
            inside = t.device.type != "cpu" or t.numel() == 0 or (int(t.min()) >= low and int(t.max()) <= self.T)
        elif isinstance(t, int) and not isinstance(t, bool):
            inside = low <= t <= self.T
        else:
            raise TimestepError(f"t must be an int or a LongTensor (B,), got {type(t).__name__}; times are the integers 1..{self.T}")
        if not inside:
            raise TimestepError(f"t = {t.tolist() if isinstance(t, Tensor) else t} is outside {low}..{self.T}; time is the paper's, 1..T")

    def at(self, t: Time, ndim: int = 1, low: int = 0) -> Coefficient:
        """alpha_bar_t, a float for an int t, else float64 shaped (B, 1, ...) with `ndim` axes. Refuses t outside low..T."""
        self.check(t, low)
        if isinstance(t, int):
            return self._alpha_bar[t]
        table = self._table(t.device)
        return table.index_select(0, t.reshape(-1).to(table.device)).reshape(-1, *[1] * (ndim - 1))

    def _table(self, device: torch.device) -> Tensor:
        """alpha_bar where t lies, copied there once; on the CPU for a device that has no float64."""
        if self.alpha_bar.device == device or device.type == "mps":
            return self.alpha_bar
        if device not in self._copies:
            self._copies[device] = self.alpha_bar.to(device)
        return self._copies[device]

    def pair(self, t: Time, s: Time | None, ndim: int = 1) -> tuple[Coefficient, Coefficient]:
        """(alpha_bar_t, alpha_bar_s) for a step between s < t; s defaults to t - 1."""
        bar_t = self.at(t, ndim, low=1)
        s = t - 1 if s is None else s
        late = s >= t
        if bool(late.any()) if isinstance(late, Tensor) and late.device.type == "cpu" else late is True:
            raise TimestepError(f"s = {s} must be smaller than t = {t}: a step goes between an earlier s and a later t")
        return bar_t, self.at(s, ndim)

    def snr(self, t: Time) -> Coefficient:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), falling in t.   VDM section 3."""
        bar = self.at(t, low=1)
        return bar / (1 - bar)

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """The same schedule with its tables on `device`; they stay on the CPU where a device has no float64 (Apple MPS)."""
        moved = object.__new__(NoiseSchedule)
        moved.__dict__.update(self.__dict__, _copies={})
        if torch.device(device).type != "mps":
            moved.beta, moved.alpha, moved.alpha_bar = (x.to(device) for x in (self.beta, self.alpha, self.alpha_bar))
        return moved


def _steps(T: int) -> int:
    if not isinstance(T, int) or isinstance(T, bool) or T < 1:
        raise ScheduleError(f"T = {T!r}: the number of steps must be an integer >= 1")
    return T


def linear_schedule(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> NoiseSchedule:
    """beta rises on a straight line from beta_1 to beta_T.   Ho section 4."""
    return NoiseSchedule(torch.linspace(beta_1, beta_T, _steps(T), dtype=torch.float64))


def quadratic_schedule(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> NoiseSchedule:
    """sqrt(beta) rises on a straight line: gentler at the start than the linear one."""
    return NoiseSchedule(torch.linspace(beta_1**0.5, beta_T**0.5, _steps(T), dtype=torch.float64) ** 2)


def sigmoid_schedule(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> NoiseSchedule:
    """beta follows a logistic curve over -6..6 between beta_1 and beta_T: flat at both ends."""
    curve = torch.linspace(-6, 6, _steps(T), dtype=torch.float64).sigmoid()
    return NoiseSchedule(beta_1 + (beta_T - beta_1) * curve)


def cosine_schedule(T: int = 1000, s: float = 0.008, beta_max: float = 0.999) -> NoiseSchedule:
    """alpha_bar follows cos^2; beta is capped at beta_max so that the last step stays regular.   Nichol eq. 17."""
    angle = (torch.arange(_steps(T) + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2
    bar = angle.cos() ** 2
    return NoiseSchedule((1 - bar[1:] / bar[:-1]).clamp(max=beta_max))


def rescale_zero_terminal_snr(schedule: NoiseSchedule, alpha_bar_T: float = 1e-6) -> NoiseSchedule:
    """Shift and scale sqrt(alpha_bar) so that it ends at sqrt(alpha_bar_T); its first value is kept.   ZTSNR section 3.1."""
    root = schedule.alpha_bar[1:].cpu().sqrt()
    if schedule.T == 1:
        raise ScheduleError("a schedule with T = 1 has no second value to shift: build NoiseSchedule([1 - alpha_bar_T]) instead")
    if not 0 < alpha_bar_T < float(root[0] ** 2):
        raise ScheduleError(
            f"alpha_bar_T = {alpha_bar_T} must lie in (0, alpha_bar_1): at exactly 0, x_T carries no x_0 and the eps form "
            "cannot recover it; take a tiny value such as 1e-6 and predict v"
        )
    end = alpha_bar_T**0.5
    bar = (end + (root - root[-1]) * (root[0] - end) / (root[0] - root[-1])) ** 2
    return NoiseSchedule(1 - bar / torch.cat([bar.new_ones(1), bar[:-1]]))


SCHEDULES = {"linear": linear_schedule, "quadratic": quadratic_schedule, "sigmoid": sigmoid_schedule, "cosine": cosine_schedule}
