"""Curves that are simulated, not measured: weeks of hourly load, plucked strings, and Gaussian series whose law is known exactly.

Each generator of a data set draws its own part: train, val and test share no random number.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .data import Split, Splits
from .editing import keep_known, repaint_times, walk
from .errors import DataError, ValueCourseError
from .exact import ExactGaussian
from .prediction import EpsModel
from .sampling import time_grid
from .schedule import NoiseSchedule

HOURS, DAY, RATE = 168, 24, 4000  # a week, a day; samples of sound in a second
PITCHES = tuple(220.0 * 2 ** (k / 12) for k in (0, 4, 7, 12))  # four notes, a major chord on A, in Hz


class Weeks(NamedTuple):
    """What n simulated weeks are made of, each part (n, 168); holiday (n,): 0 for none, 1..5 for Monday..Friday."""

    trend: Tensor
    season: Tensor
    weather: Tensor
    noise: Tensor
    holiday: Tensor

    @property
    def curves(self) -> Tensor:
        """The sum of the parts, (n, 1, 168), within about [-1, 1]."""
        return (self.trend + self.season + self.weather + self.noise)[:, None]


def ar_1(n: int, length: int, phi: float, std: float, generator: torch.Generator | None = None) -> Tensor:
    """n draws (n, length) of x_h = phi x_(h-1) + sqrt(1 - phi^2) std z, begun in its stationary law N(0, std^2)."""
    if not -1 < phi < 1:
        raise ValueCourseError(f"phi = {phi} must lie in (-1, 1): beyond it the series has no stationary law")
    z = std * torch.randn(length, n, generator=generator)
    path = [z[0]]
    for shock in z[1:]:
        path.append(phi * path[-1] + (1 - phi**2) ** 0.5 * shock)
    return torch.stack(path, dim=1)


def _bumps(centre: Tensor, height: Tensor, width: float) -> Tensor:
    """Bells of centre and height (n, 7), in hours of the week, added up: (n, 168)."""
    hours = torch.arange(HOURS, dtype=torch.float32)
    return (height[..., None] * torch.exp(-0.5 * ((hours - centre[..., None]) / width) ** 2)).sum(1)


def _free_days(n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Which days are free (n, 7), and the holiday (n,): two weeks in five have one."""
    has_one = torch.rand(n, generator=generator) < 0.4
    holiday = torch.where(has_one, torch.randint(1, 6, (n,), generator=generator), 0)
    days = torch.arange(1, 8)
    return (days > 5) | (days == holiday[:, None]), holiday


def _season(n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """The shape of the seven days (n, 168): a morning bell, a working day, an evening bell, all smaller or later on free days."""
    normal = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
    free, holiday = _free_days(n, generator)
    start = DAY * torch.arange(7.0)
    morning = start + 7.5 + 0.5 * normal(n, 1) + 0.3 * normal(n, 7) + 2.0 * free
    evening = start + 19 + 0.7 * normal(n, 1) + 0.3 * normal(n, 7)
    heights = torch.exp(torch.tensor([0.25, 0.2, 0.2]) * normal(n, 3))[:, :, None] * torch.exp(0.1 * normal(n, 3, 7))
    tall = torch.where(free[:, None], torch.tensor([0.25, 0.15, 0.55])[:, None], torch.tensor([0.55, 0.45, 0.75])[:, None]) * heights
    return _bumps(morning, tall[:, 0], 1.5) + _bumps(start + 13 + 0 * free, tall[:, 1], 3.5) + _bumps(evening, tall[:, 2], 2.2), holiday


def weeks(n: int, generator: torch.Generator | None = None) -> Weeks:
    """n simulated weeks from Monday 0:00, by the hour: a slow trend, the shape of the days, weather (AR(1), phi 0.95), noise of a meter."""
    if n < 1:
        raise DataError(f"n = {n}: ask for at least one week")
    u, scale = torch.linspace(-1, 1, HOURS), 1.2
    season, holiday = _season(n, generator)
    level, slope, bend = (torch.tensor([0.06, 0.12, 0.06]) * torch.randn(n, 3, generator=generator)).split(1, dim=1)
    mean = season.mean(1, keepdim=True)
    trend = mean - 0.38 + level + slope * u + bend * (3 * u**2 - 1) / 2
    weather, noise = ar_1(n, HOURS, 0.95, 0.08, generator), 0.02 * torch.randn(n, HOURS, generator=generator)
    return Weeks(scale * trend, scale * (season - mean), scale * weather, scale * noise, holiday)


def weakest_morning(curves: Tensor) -> Tensor:
    """The median rise from night to morning of Monday..Friday over the weakest of the five, (N,), for curves (N, 1, 168).

    Above 1.6 means: there is a holiday. That is right for 97 simulated weeks of 100.
    """
    days = curves[:, 0].double().unflatten(1, (7, DAY))[:, :5]
    rise = days[:, :, 6:11].mean(2) - days[:, :, :5].mean(2)
    return rise.median(1).values / rise.amin(1).clamp(min=1e-3)


def plucked(n: int, generator: torch.Generator | None = None, length: int = 512) -> tuple[Tensor, Tensor]:
    """n simulated plucked strings (n, 1, length) at 4 kHz, and which of PITCHES each has (n,).

    Harmonic k of a string plucked at a share p of its length has amplitude sin(pi k p) / k, and dies sooner the higher it is.
    """
    uniform = lambda low, high: low + (high - low) * torch.rand(n, 1, generator=generator)  # noqa: E731
    note = torch.randint(len(PITCHES), (n,), generator=generator)
    pitch, place, shift = torch.tensor(PITCHES)[note, None], uniform(0.1, 0.45), uniform(0, 1)
    life, loud, time = uniform(0.05, 0.15), uniform(0.6, 1.2), torch.arange(length) / RATE
    wave = 0.01 * torch.randn(n, length, generator=generator)
    for k in range(1, int(1800 / PITCHES[0]) + 1):
        strength = loud * torch.sin(math.pi * k * place) / k * (k * pitch < 1800)
        wave += 0.6 * strength * torch.cos(2 * math.pi * k * (pitch * time + shift)) * torch.exp(-time * (0.7 + 0.3 * k) / life)
    return wave[:, None], note


def _generator(seed: int, kind: int, part: int) -> torch.Generator:
    """The generator of one part (0 train, 1 val, 2 test) of one kind of data."""
    return torch.Generator().manual_seed(1_000 * seed + 10 * kind + part)


def held_out_weeks(seed: int = 0, n: int = 2_000) -> Weeks:
    """The weeks of load_weeks' test part with what they are made of: the truth that a decomposition is compared with."""
    return weeks(n, _generator(seed, 1, 2))


@lru_cache(maxsize=2)
def load_weeks(seed: int = 0, sizes: tuple[int, int, int] = (65_536, 1_000, 2_000)) -> Splits:
    """Simulated weeks (N, 1, 168) in three parts, each from a generator of its own; the labels are the holidays, 0..5."""
    drawn = [weeks(n, _generator(seed, 1, part)) for part, n in enumerate(sizes)]
    return Splits(*(Split(part.curves, part.holiday) for part in drawn))


@lru_cache(maxsize=2)
def load_strings(seed: int = 0, sizes: tuple[int, int, int] = (32_768, 1_000, 2_000)) -> Splits:
    """Simulated plucked strings (N, 1, 512) in three parts, each from a generator of its own; the labels are the pitches, 0..3."""
    return Splits(*(Split(*plucked(n, _generator(seed, 2, part))) for part, n in enumerate(sizes)))


def toeplitz(autocovariance: Tensor) -> Tensor:
    """The covariance (L, L) of a stationary series: entry (h, k) is autocovariance[|h - k|]."""
    lag = torch.arange(len(autocovariance))
    return autocovariance[(lag[:, None] - lag).abs()]


def seasonal_ar(
    length: int = 48, period: int = 12, phi: float = 0.8, season: float = 0.3, wander: float = 0.15, noise: float = 0.01
) -> ExactGaussian:
    """A wave of random size and phase + AR(1) + noise, of these variances: the oracle on points (1, length), with a Toeplitz covariance.

    autocovariance(k) = season cos(2 pi k / period) + wander phi^k + noise [k = 0].
    """
    if not -1 < phi < 1 or min(season, wander, noise) < 0:
        raise ValueCourseError(f"phi = {phi} must lie in (-1, 1), and the variances {season}, {wander}, {noise} must be >= 0")
    k = torch.arange(length, dtype=torch.float64)
    autocovariance = season * torch.cos(2 * math.pi * k / period) + wander * phi**k + noise * (k == 0)
    return ExactGaussian(torch.zeros(1, length), toeplitz(autocovariance))


def impute(
    eps_model: EpsModel,
    schedule: NoiseSchedule,
    known: Tensor,
    mask: Tensor,
    num_steps: int = 30,
    resamplings: int = 8,
    jump: int = 4,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One draw for each of known (B, C, L): what is unknown (mask (L,) False) is filled in. inpaint() on times that are dense near 0.

    Series have less noise than pictures: evenly spaced times would not resolve it.   RePaint Algorithm 1.
    """
    times = repaint_times(time_grid(schedule.T, num_steps, "quadratic").tolist(), resamplings, jump)
    return walk(eps_model, schedule, keep_known(schedule, known, mask, generator), known, times, "posterior", generator)
