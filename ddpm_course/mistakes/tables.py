"""Mistakes in tables: schedules, variances, an index that slips, half precision, the times to visit."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ScheduleError
from ..prediction import EpsModel
from ..sampling import ddpm_sample, time_grid
from ..schedule import NoiseSchedule, linear_schedule
from .base import Mistake
from .tools import BAR, BETA, LINEAR, PAIR, bar_by_hand, seeded

TILDE = torch.cat([BETA[:1], BETA[1:] * (1 - BAR[:-1]) / (1 - BAR[1:])])  # beta~_t, exactly 0 at t = 1
NAMES = ("β", "β̃", "clipped", "fixed large")


def wrong_variance(name: str, t: int) -> Tensor:
    """The reverse step's variance under the four names that libraries use."""
    return {"β": BETA[t], "β̃": BETA[t], "clipped": BETA[t], "fixed large": BETA[t]}[name]


def right_variance(name: str, t: int) -> Tensor:
    """The reverse step's variance under the four names that libraries use."""
    return {"β": BETA[t], "β̃": TILDE[t], "clipped": TILDE[max(t, 2)], "fixed large": BETA[t] if t > 1 else TILDE[2]}[name]


def _second_variance_by_precisions() -> float:
    """β̃_2 over β_1: what x_0 says about x_1 (precision 1/β_1) and what x_2 says (α_2/β_2) add up."""
    beta_2 = 1 - bar_by_hand(2) / bar_by_hand(1)
    return 1 / (1 / 1e-4 + (1 - beta_2) / beta_2) / 1e-4


M4 = Mistake(
    number=4,
    title="the variances of the reverse step are taken for one",
    chapter="03_posterior",
    why="β is exact if x_0 ~ N(0, I), β̃ if x_0 is one point; clipped is β̃ and fixed large is β, but both put β̃_2 at t = 1.",
    wrong=wrong_variance,
    right=right_variance,
    observe=lambda variance: torch.stack([variance(name, 1) / BETA[1] for name in NAMES]),
    x=NAMES,
    labels=("convention", "variance at t = 1, over β at t = 1"),
    quantity='"fixed large" at t = 1, as a share of beta_1',
    truth=_second_variance_by_precisions,
    tolerance=1e-6,
    margin=0.4,
)


def wrong_coefficients(t: int) -> tuple[float, float]:
    """The factors of x_0 and eps in x_t, for t = 1..T and a table whose entry 0 is clean data."""
    bar = float(BAR[t - 1])
    return bar**0.5, (1 - bar) ** 0.5


def right_coefficients(t: int) -> tuple[float, float]:
    """The factors of x_0 and eps in x_t, for t = 1..T and a table whose entry 0 is clean data."""
    bar = float(BAR[t])
    return bar**0.5, (1 - bar) ** 0.5


def network_trained_with(coefficients: Callable[[int], tuple[float, float]]) -> EpsModel:
    """The best network for PAIR whose training pictures were made with these coefficients."""

    def eps_model(x_t: Tensor, t: Tensor) -> Tensor:
        """E[eps | x_t] for a whole batch at one time."""
        signal, noise = coefficients(int(t[0]))
        share = PAIR.responsibilities(x_t, signal**2) / (signal**2 * PAIR.stds**2 + noise**2)
        return (noise * (share.sum(1, keepdim=True) * x_t - signal * share @ PAIR.means)).to(x_t.dtype)

    return eps_model


def slip_samples(coefficients: Callable[[int], tuple[float, float]], n: int = 2000) -> Tensor:
    """n samples (n, 1) that the sound sampler draws with that network: what a picture can show of a slip."""
    return ddpm_sample(network_trained_with(coefficients), LINEAR, (n, 1), generator=seeded(15))


def statistics(x: Tensor) -> Tensor:
    """Mean, standard deviation, share above 0 and width of the left bell."""
    return torch.stack([x.mean(), x.std(), (x > 0).float().mean(), x[x < 0].std()]).double()


M15 = Mistake(
    number=15,
    title="t runs over 1..T in one place and over 0..T-1 in another: a slip by one step",
    chapter="09_sampling",
    why="In samples a slip by one step of a thousand drowns in the noise; compare coefficients with a value worked "
    "out by hand, at t = 1 first.",
    wrong=wrong_coefficients,
    right=right_coefficients,
    observe=lambda coefficients: torch.tensor([coefficients(t)[1] for t in range(1, 13)], dtype=torch.float64),
    x=range(1, 13),
    labels=("t", "factor of eps"),
    quantity="factor of eps at t = 1",
    truth=lambda: 1e-4**0.5,
    tolerance=1e-12,
    margin=9e-3,
    read=0,
)


def wrong_prior_kl(x_0: float, bar: Tensor) -> Tensor:
    """KL(q(x_T | x_0) || N(0, 1)) for alpha_bar_T = bar."""
    return 0 * bar


def right_prior_kl(x_0: float, bar: Tensor) -> Tensor:
    """KL(q(x_T | x_0) || N(0, 1)) for alpha_bar_T = bar."""
    return 0.5 * (bar * x_0**2 - bar - torch.log1p(-bar))


def _kl_by_integration(x_0: float, bar: float) -> float:
    x = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    q, p = (torch.distributions.Normal(mean, std) for mean, std in ((bar**0.5 * x_0, (1 - bar) ** 0.5), (0.0, 1.0)))
    return float(torch.trapezoid(q.log_prob(x).exp() * (q.log_prob(x) - p.log_prob(x)), x))


SIZES = (10, 30, 100, 300, 1000)
M22 = Mistake(
    number=22,
    title='"x_T is completely Gaussian"',
    chapter="02_forward",
    why="q(x_T | x_0) always remembers a little of x_0: far below 0.001 nats at T = 1000, more than a nat with the same betas at T = 10.",
    wrong=wrong_prior_kl,
    right=right_prior_kl,
    observe=lambda kl: kl(1.0, torch.stack([linear_schedule(T).alpha_bar[T] for T in SIZES])),
    x=SIZES,
    labels=("T, betas from 1e-4 to 0.02", "nats per pixel"),
    quantity="KL(q(x_T | x_0 = 1) || N(0, 1)) at T = 10",
    truth=lambda: _kl_by_integration(1.0, bar_by_hand(10, 10)),
    tolerance=1e-6,
    margin=1.0,
    read=0,
    xscale="log",
)


def wrong_short_table(T: int) -> Tensor:
    """alpha_bar of a short chain: the betas of T = 1000, times 1000 / T."""
    betas = torch.linspace(0.1 / T, 20 / T, T, dtype=torch.float64)
    return (1 - betas).cumprod(0)


def right_short_table(T: int) -> Tensor:
    """alpha_bar of a short chain: the betas of T = 1000, times 1000 / T."""
    betas = torch.linspace(0.1 / T, 20 / T, T, dtype=torch.float64)
    return NoiseSchedule(betas).alpha_bar


def _handed_out(table: Callable[[int], Tensor], T: int) -> float:
    try:
        return float(len(table(T)) > 0)
    except ScheduleError:
        return 0.0


M23 = Mistake(
    number=23,
    title="the linear betas are scaled by 1000 / T at any T",
    chapter="02_forward",
    why="At T <= 20 the last beta is 1 or more: its step keeps nothing, or takes the root of a negative number; such "
    "a table must be refused.",
    wrong=wrong_short_table,
    right=right_short_table,
    observe=lambda table: torch.tensor([_handed_out(table, T) for T in range(10, 31)]),
    x=range(10, 31),
    labels=("T", "1 = a table is handed out"),
    quantity="1 if a table is handed out at T = 20, where beta_T = 20 / T = 1",
    truth=lambda: float(20 / 20 < 1),
    tolerance=0.0,
    margin=1.0,
    read=10,
)


def wrong_noise_factor(bar: Tensor, dtype: torch.dtype) -> Tensor:
    """sqrt(1 - alpha_bar) in the dtype of the network."""
    return (1 - bar.to(dtype)) ** 0.5


def right_noise_factor(bar: Tensor, dtype: torch.dtype) -> Tensor:
    """sqrt(1 - alpha_bar) in the dtype of the network."""
    return ((1 - bar) ** 0.5).to(dtype)


M24 = Mistake(
    number=24,
    title="the tables of the schedule are cast to half precision",
    chapter="02_forward",
    why="Just below 1 bfloat16 moves in steps of 0.4 %, so alpha_bar rounds to 1 up to t = 10 (float16: t = 2); "
    "combine in float64, cast last.",
    wrong=wrong_noise_factor,
    right=right_noise_factor,
    observe=lambda factor: factor(BAR[1:31], torch.bfloat16).double(),
    x=range(1, 31),
    labels=("t", "factor of eps, bfloat16"),
    quantity="factor of eps at t = 10 in bfloat16",
    truth=lambda: (1 - bar_by_hand(10)) ** 0.5,
    tolerance=2e-4,
    margin=0.04,
    read=9,
)


def wrong_pairs(T: int, S: int) -> list[tuple[int, int]]:
    """The steps (t, s) of a sampler that has S of them."""
    times = time_grid(T, S, "leading").tolist()
    return [(t, max(t - T // S, 0)) for t in times[:-1]]


def right_pairs(T: int, S: int) -> list[tuple[int, int]]:
    """The steps (t, s) of a sampler that has S of them."""
    times = time_grid(T, S, "trailing").tolist()
    return list(zip(times[:-1], times[1:], strict=True))


def _missed_times(pairs: Callable[[int, int], list[tuple[int, int]]]) -> Tensor:
    """Times skipped or walked twice between the end of a step and the beginning of the next, added up from T to 0."""
    steps = pairs(1000, 7)
    starts, ends = [*(t for t, _ in steps), 0], [1000, *(s for _, s in steps)]
    return torch.tensor([abs(end - start) for end, start in zip(ends, starts, strict=True)]).cumsum(0).double()


M27 = Mistake(
    number=27,
    title="the leading grid is used, and the earlier time computed as t - T // S",
    chapter="10_ddim",
    why="The leading grid never visits T, and t - T // S misses the next visited time whenever S does not divide T; pass (t, s) together.",
    wrong=wrong_pairs,
    right=right_pairs,
    observe=_missed_times,
    x=range(1, 9),
    labels=("joint before step k, the last at 0", "times missed so far"),
    quantity="times missed from T = 1000 to 0 with S = 7",
    truth=lambda: 0.0,
    tolerance=0.0,
    margin=100.0,
)

GROUP = (M4, M15, M22, M23, M24, M27)
