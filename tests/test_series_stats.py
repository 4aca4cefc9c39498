"""Statistics of series against plain loops, closed forms and their own promises."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_course.errors import ShapeError, ValueCourseError
from ddpm_course.series import ar_1
from ddpm_course.series_stats import (
    autocorrelation,
    bootstrap_band,
    crps,
    order_band,
    power,
    seasonal_naive,
    shares_below,
    spectral_distance,
    straight_lines,
)


def seeded(k: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def test_autocorrelation_is_the_plain_sum() -> None:
    x = torch.randn(3, 1, 12, generator=seeded())
    got = autocorrelation(x, 5)
    for row, series in zip(got, x[:, 0].double(), strict=True):
        centred = series - series.mean()
        wanted = [float((centred[: 12 - k] * centred[k:]).sum() / centred.square().sum()) for k in range(6)]
        assert row.tolist() == pytest.approx(wanted, abs=1e-9)
    long = autocorrelation(ar_1(50, 2000, 0.8, 1.0, seeded(1)), 4).mean(0)
    assert long.tolist() == pytest.approx([0.8**k for k in range(5)], abs=0.03)
    with pytest.raises(ValueCourseError, match="lags"):
        autocorrelation(x, 12)
    with pytest.raises(ShapeError, match="series are"):
        autocorrelation(torch.zeros(3, 2, 12), 2)


def test_power_finds_the_wave_and_keeps_the_energy() -> None:
    time = torch.arange(32)
    x = torch.cos(2 * math.pi * 5 * time / 32)[None]
    got = power(x)[0]
    assert int(got.argmax()) == 5 and float(got[5]) == pytest.approx(32 / 4) and float(got.sum()) == pytest.approx(8)
    z = torch.randn(1, 31, generator=seeded(2)).double()
    both_sides = torch.cat([power(z)[:, :1], 2 * power(z)[:, 1:]], dim=1)
    assert float(both_sides.sum()) == pytest.approx(float(z.square().sum()))


def test_spectral_distance_is_in_decibels() -> None:
    x = torch.randn(40, 16, generator=seeded(3))
    assert spectral_distance(x, x) == 0 and spectral_distance(10**0.5 * x, x) == pytest.approx(10, rel=1e-5)
    assert spectral_distance(x, 2 * x) == pytest.approx(20 * math.log10(2), rel=1e-5)


def test_shares_below() -> None:
    assert shares_below(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([0.0, 2.0, 2.5, 9.0])).tolist() == [[0, 0.5, 0.5, 1]]


def test_a_band_holds_what_it_promises() -> None:
    """Over 200 pairs of sets of one law: each number is inside 95 of 100 times, and so are all at once with `together`."""
    inside, at_once, generator = [], [], seeded(4)
    for _ in range(200):
        rows, other = (torch.randn(n, 6, generator=generator).cumsum(1) for n in (80, 40))
        inside.append(bootstrap_band(rows, 40, draws=200, generator=generator).share_inside(other))
        at_once.append(bootstrap_band(rows, 40, together=True, draws=200, generator=generator).share_inside(other) == 1)
    assert sum(inside) / 200 == pytest.approx(0.95, abs=0.03)
    assert sum(at_once) / 200 == pytest.approx(0.95, abs=0.045)


def test_a_band_for_all_is_as_wide_as_each_number_scatters() -> None:
    rows = torch.randn(400, 4, generator=seeded(8)) * torch.tensor([1.0, 100.0, 0.01, 0.0])  # the last is the same in all rows
    band = bootstrap_band(rows, 100, together=True, generator=seeded(9))
    half = (band.high - band.centre)[:3] / rows.double().std(0)[:3]
    exact = (1 / 100 + 1 / 400) ** 0.5  # equation (20.9); all three inside 95 times of 100: 2.39 standard deviations
    torch.testing.assert_close(half, torch.full((3,), 2.39 * exact).double(), rtol=0.1, atol=0)
    torch.testing.assert_close(band.centre - band.low, band.high - band.centre)
    assert float(band.low[3]) == float(band.high[3]) == 0
    alone = bootstrap_band(rows, 100, draws=4000, generator=seeded(10))
    half = (alone.high - alone.low)[:3] / 2 / rows.double().std(0)[:3]
    torch.testing.assert_close(half, torch.full((3,), 1.96 * exact).double(), rtol=0.05, atol=0)


def test_a_band_notices_a_shift_and_refuses_nonsense() -> None:
    rows = torch.randn(300, 4, generator=seeded(5))
    other = torch.randn(200, 4, generator=seeded(6)) + torch.tensor([0.0, 0.0, 0.5, -0.5])
    band = bootstrap_band(rows, 200, 0.99, generator=seeded(7))
    assert band.share_inside(other) == 0.5 and bool((band.low < band.centre).all() and (band.centre < band.high).all())
    narrow = bootstrap_band(rows, 200, 0.5, generator=seeded(7))
    assert bool((narrow.high - narrow.low < band.high - band.low).all())
    for bad in ({"coverage": 1.0}, {"n": 0}):
        with pytest.raises(ValueCourseError, match="coverage ="):
            bootstrap_band(rows, **({"n": 10} | bad))


def test_crps_of_normal_draws_is_the_closed_form() -> None:
    """CRPS of N(0, 1) at y: y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi)."""
    y = torch.tensor([0.0, 0.5, -2.0], dtype=torch.float64)
    draws = torch.randn(20, 3, 4000, generator=seeded(8), dtype=torch.float64)
    got = crps(draws, y[:, None].expand(3, 4000)).mean(1)
    phi = torch.exp(-(y**2) / 2) / (2 * math.pi) ** 0.5
    wanted = y * torch.erf(y / 2**0.5) + 2 * phi - math.pi**-0.5
    torch.testing.assert_close(got, wanted, atol=0.02, rtol=0)
    with pytest.raises(ShapeError, match="draws"):
        crps(torch.zeros(1, 3), torch.zeros(3))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(0, 99))
def test_crps_is_the_sum_over_pairs(m: int, seed: int) -> None:
    draws, y = torch.randn(m, 2, generator=seeded(seed)), torch.randn(2, generator=seeded(seed + 1))
    pairs = sum((draws[i] - draws[j]).abs() for i in range(m) for j in range(m)) / (m * (m - 1))
    torch.testing.assert_close(crps(draws, y), ((draws - y).abs().mean(0) - pairs / 2).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("m", [9, 19, 39])
def test_the_order_band_covers_what_it_says(m: int) -> None:
    z = torch.rand(m + 1, 40_000, generator=seeded(m)) ** 3  # any law
    low, high = order_band(z[:m], 0.8)
    assert float(((z[m] >= low) & (z[m] <= high)).float().mean()) == pytest.approx(0.8, abs=0.01)
    assert torch.equal(order_band(torch.arange(19.0)[:, None])[0], torch.tensor([1.0]))
    with pytest.raises(ValueCourseError, match="19 draws fit"):
        order_band(torch.zeros(20, 3))


def test_straight_lines_meet_their_neighbours() -> None:
    known = torch.tensor([[9.0, 2.0, 0.0, 0.0, 8.0, 0.0]])
    mask = torch.tensor([False, True, False, False, True, False])
    assert straight_lines(known, mask).tolist() == [[2.0, 2.0, 4.0, 6.0, 8.0, 8.0]]
    x = torch.arange(10.0).expand(2, 1, 10)
    hole = torch.ones(10, dtype=torch.bool)
    hole[3:7] = False
    torch.testing.assert_close(straight_lines(torch.where(hole, x, -5.0), hole), x)
    with pytest.raises(ShapeError, match="mask"):
        straight_lines(x, torch.zeros(10, dtype=torch.bool))


def test_the_naive_forecast_repeats_the_last_period() -> None:
    known, mask = torch.tensor([1.0, 2, 3, 0, 0, 0, 0]), torch.tensor([True] * 3 + [False] * 4)
    assert seasonal_naive(known, mask, 3).tolist() == [1, 2, 3, 1, 2, 3, 1]
    with pytest.raises(ValueCourseError, match="period"):
        seasonal_naive(known, mask, 4)
