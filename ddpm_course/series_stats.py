"""What a set of series is like, whether another set is like it (autocorrelation, spectrum, marginals, bands), and how good a forecast is.

Series are (N, L) or (N, 1, L). Whatever is compared is a mean of rows, one row a series, so that one bootstrap serves all.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .errors import ShapeError, ValueCourseError


def flat(x: Tensor) -> Tensor:
    """(N, L) or (N, 1, L) -> (N, L), float64."""
    x = x.squeeze(1) if x.ndim == 3 and x.shape[1] == 1 else x
    if x.ndim != 2:
        raise ShapeError(f"series are (N, L) or (N, 1, L), got {tuple(x.shape)}")
    return x.double()


def autocorrelation(x: Tensor, lags: int) -> Tensor:
    """Each series' own autocorrelation at lags 0..lags, (N, lags + 1): the sum of x_h x_(h+k) over that of x_h^2."""
    x = flat(x)
    if not 0 < lags < x.shape[1]:
        raise ValueCourseError(f"lags = {lags} must lie in 1..{x.shape[1] - 1} for series of {x.shape[1]} steps")
    x = x - x.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(x, n=2 * x.shape[1]).abs().square()  # padded with zeros: nothing wraps round
    covariance = torch.fft.irfft(spectrum, n=2 * x.shape[1])[:, : lags + 1]
    return covariance / covariance[:, :1]


def power(x: Tensor) -> Tensor:
    """|DFT|^2 of each series at frequencies 0..L/2, orthonormal, (N, L // 2 + 1)."""
    return torch.fft.rfft(flat(x), norm="ortho").abs().square()


def shares_below(x: Tensor, levels: Tensor) -> Tensor:
    """Which share of each series lies at or below each level, (N, K): at the data's quantiles the mean says where a sample's lie."""
    return (flat(x)[:, :, None] <= levels).double().mean(1)


class Band(NamedTuple):
    """Where the mean of a second set of rows should lie if both sets have one law: low and high (K,), around centre (K,)."""

    centre: Tensor
    low: Tensor
    high: Tensor

    def share_inside(self, rows: Tensor) -> float:
        """Share of the K means of rows (n, K) that lie inside."""
        mean = rows.double().mean(0)
        return float(((mean >= self.low) & (mean <= self.high)).double().mean())


def _resampled_means(rows: Tensor, n: int, draws: int, generator: torch.Generator | None) -> Tensor:
    """Means (draws, K) of n rows drawn with replacement."""
    chosen = torch.randint(len(rows), (draws, n), generator=generator)
    counts = torch.zeros(draws, len(rows), dtype=torch.float64).scatter_add_(1, chosen, torch.ones(draws, n, dtype=torch.float64))
    return counts @ rows.double() / n


def bootstrap_band(
    rows: Tensor, n: int, coverage: float = 0.95, together: bool = False, draws: int = 1000, generator: torch.Generator | None = None
) -> Band:
    """Band for the mean of n new rows, from the rows (N, K) of the data: both means are uncertain, so both are resampled.

    Each of the K numbers lies inside with probability `coverage`; with `together`, all of them at once do.
    """
    if not 0 < coverage < 1 or n < 1 or rows.ndim != 2 or len(rows) < 2:
        raise ValueCourseError(
            f"coverage = {coverage} must lie in (0, 1), n = {n} be at least 1, and rows (N > 1, K), got {tuple(rows.shape)}"
        )
    gap = _resampled_means(rows, n, draws, generator) - _resampled_means(rows, len(rows), draws, generator)
    centre, tail = rows.double().mean(0), (1 - coverage) / 2
    if not together:
        return Band(centre, centre + gap.quantile(tail, dim=0), centre + gap.quantile(1 - tail, dim=0))
    spread = gap.std(0)
    worst = (gap.abs() / spread.clamp(min=1e-12)).amax(1).quantile(coverage)
    return Band(centre, centre - worst * spread, centre + worst * spread)


def spectral_distance(a: Tensor, b: Tensor) -> float:
    """Root mean square over frequencies of the difference of the mean powers of two sets, in decibels."""
    return float((10 * (power(a).mean(0) / power(b).mean(0)).log10()).square().mean().sqrt())


def crps(draws: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score of m draws (m, ...) for a truth (...): E|X - y| - E|X - X'| / 2, unbiased. Less is better."""
    if draws.shape[1:] != truth.shape or len(draws) < 2:
        raise ShapeError(f"draws must be (m > 1, {', '.join(map(str, truth.shape))}), got {tuple(draws.shape)}")
    m, ordered = len(draws), draws.double().sort(dim=0).values
    weight = (2 * torch.arange(1, m + 1, dtype=torch.float64, device=draws.device) - m - 1).reshape(-1, *[1] * truth.ndim)
    return (draws.double() - truth).abs().mean(0) - (weight * ordered).sum(0) / (m * (m - 1))


def order_band(draws: Tensor, coverage: float = 0.8) -> tuple[Tensor, Tensor]:
    """The k-th smallest and k-th largest of m draws (m, ...), k = (m + 1)(1 - coverage) / 2, which must be whole.

    An (m+1)-th draw of the same law lies between them with probability `coverage`, whatever the law (without ties): m = 19, k = 2 for 0.8.
    """
    k = (len(draws) + 1) * (1 - coverage) / 2
    if abs(k - round(k)) > 1e-9 or round(k) < 1:
        raise ValueCourseError(
            f"{len(draws)} draws make no exact band of {coverage}: (m + 1)(1 - coverage) / 2 = {k:.3g}; 19 draws fit 0.8"
        )
    ordered = draws.sort(dim=0).values
    return ordered[round(k) - 1], ordered[len(draws) - round(k)]


def _check_known(known: Tensor, mask: Tensor) -> None:
    """Refuse a mask (L,) that does not fit or that knows nothing."""
    if mask.dtype != torch.bool or mask.shape != known.shape[-1:] or not bool(mask.any()):
        raise ShapeError(
            f"mask must be boolean ({known.shape[-1]},), True where known and somewhere True; got {mask.dtype} {tuple(mask.shape)}"
        )


def straight_lines(known: Tensor, mask: Tensor) -> Tensor:
    """known (..., L) with what is unknown (mask (L,) False) put on the straight line between known neighbours, or held level at an end."""
    _check_known(known, mask)
    at, here = mask.nonzero().flatten(), torch.arange(len(mask), device=mask.device)
    right = torch.searchsorted(at, here).clamp(max=len(at) - 1)
    left = (torch.searchsorted(at, here, right=True) - 1).clamp(min=0)
    a, b = at[left], at[right]
    share = ((here - a) / (b - a).clamp(min=1)).to(known.dtype)
    return torch.where(mask, known, known[..., a] * (1 - share) + known[..., b] * share)


def seasonal_naive(known: Tensor, mask: Tensor, period: int) -> Tensor:
    """known (..., L) with each unknown step copied from one period before (itself a copy, if need be); the first period must be known."""
    _check_known(known, mask)
    if not 0 < period < len(mask) or not bool(mask[:period].all()):
        raise ValueCourseError(f"period = {period} must be shorter than the series, and its first {period} steps known")
    out = known.clone()
    for step in (~mask).nonzero().flatten().tolist():
        out[..., step] = out[..., step - period]
    return out
