"""Simulated series: their parts add up, their laws are the ones that are promised, and gaps are filled as the oracle says."""

import math

import pytest
import torch

from ddpm_course import cosine_schedule
from ddpm_course.errors import DataError, ValueCourseError
from ddpm_course.series import (
    PITCHES,
    RATE,
    ar_1,
    held_out_weeks,
    impute,
    load_strings,
    load_weeks,
    plucked,
    seasonal_ar,
    toeplitz,
    weakest_morning,
    weeks,
)


def seeded(k: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def test_the_parts_of_a_week_add_up_and_the_season_has_no_level() -> None:
    drawn = weeks(300, seeded())
    torch.testing.assert_close(drawn.curves[:, 0], drawn.trend + drawn.season + drawn.weather + drawn.noise)
    assert drawn.curves.shape == (300, 1, 168) and drawn.curves.dtype == torch.float32
    assert float(drawn.season.mean(1).abs().max()) < 1e-5
    assert 0.3 < float(drawn.curves.std()) < 0.45 and float((drawn.curves.abs() > 1).float().mean()) < 0.01
    bend = drawn.trend.diff(n=3, dim=1).abs().max()  # a polynomial of degree 2
    assert float(bend) < 1e-5


def test_free_days_are_lower_and_two_weeks_in_five_have_a_holiday() -> None:
    drawn = weeks(2000, seeded(1))
    daily = drawn.season.unflatten(1, (7, 24)).mean(2)
    assert bool((daily[:, 5:].mean(0) < daily[drawn.holiday == 0][:, :5].mean(0).min() - 0.1).all())
    assert float((drawn.holiday > 0).float().mean()) == pytest.approx(0.4, abs=0.04)
    for day in range(1, 5):
        free = daily[drawn.holiday == day]
        assert float(free[:, day - 1].mean()) == pytest.approx(float(free[:, 5:].mean()), abs=0.05)
        assert drawn.holiday.bincount(minlength=6)[day].item() == pytest.approx(160, abs=45)


def test_a_holiday_is_seen_by_its_weak_morning() -> None:
    drawn = weeks(2000, seeded(7))
    right = (weakest_morning(drawn.curves) > 1.6) == (drawn.holiday > 0)
    assert float(right.double().mean()) > 0.95


def test_the_weather_is_ar_1_in_its_stationary_law() -> None:
    path = ar_1(4000, 40, 0.9, 0.5, seeded(2)).double()
    assert path.shape == (4000, 40)
    covariance = path.T @ path / len(path)
    lag = (torch.arange(40)[:, None] - torch.arange(40)).abs()
    torch.testing.assert_close(covariance, 0.25 * 0.9 ** lag.double(), atol=0.025, rtol=0)
    with pytest.raises(ValueCourseError, match="stationary"):
        ar_1(2, 5, 1.0, 1.0)


def test_the_three_parts_of_the_data_share_nothing_and_return() -> None:
    a, b = load_weeks(3, (40, 10, 20)), load_weeks(3, (60, 10, 20))
    assert torch.equal(a.val.images, b.val.images) and torch.equal(a.test.images, held_out_weeks(3, 20).curves)
    parts = [part.images[:10] for part in a]
    assert not any(torch.allclose(parts[i], parts[j], atol=0.05) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert not torch.equal(a.val.images, load_weeks(4, (40, 10, 20)).val.images)
    strings = load_strings(0, (12, 6, 6))
    assert strings.train.images.shape == (12, 1, 512) and int(strings.train.labels.max()) < len(PITCHES)
    with pytest.raises(DataError, match="at least one"):
        weeks(0)


def test_a_string_sounds_at_its_pitch_and_dies_away() -> None:
    x, note = plucked(64, seeded(3))
    time = torch.arange(512) / RATE
    for pitch in PITCHES:  # most of the energy lies near multiples of the string's own pitch, not of the others'
        assert pitch * 2 < RATE / 2
    window = torch.hann_window(512)
    own = torch.tensor([PITCHES[k] for k in note])
    at = lambda f: ((x[:, 0] * window * torch.exp(-2j * math.pi * f[:, None] * time)).sum(1)).abs()  # noqa: E731
    loud = sum(at(k * own) ** 2 for k in range(1, 5))
    between = sum(at((k + 0.5) * own) ** 2 for k in range(1, 5))
    assert bool((loud > 30 * between).all())
    assert bool((x[:, 0, :128].square().mean(1) > 1.5 * x[:, 0, 384:].square().mean(1)).all())
    assert float(x.abs().max()) < 1.6


def test_the_oracle_has_the_covariance_that_its_samples_have() -> None:
    law = seasonal_ar(20, 5, 0.6, 0.3, 0.2, 0.05)
    assert law.event == (1, 20) and float(law.cov[0, 0]) == pytest.approx(0.55)
    assert float(law.cov[3, 7]) == pytest.approx(0.3 * math.cos(8 * math.pi / 5) + 0.2 * 0.6**4)
    x = law.sample(20_000, seeded(4))[:, 0]
    torch.testing.assert_close(x.T @ x / len(x), law.cov, atol=0.02, rtol=0)
    assert toeplitz(torch.tensor([3.0, 2.0, 1.0])).tolist() == [[3, 2, 1], [2, 3, 2], [1, 2, 3]]
    with pytest.raises(ValueCourseError, match="variances"):
        seasonal_ar(noise=-0.1)


def test_gaps_are_filled_as_the_exact_conditional_says() -> None:
    law, schedule = seasonal_ar(24, 8), cosine_schedule(1000)
    mask = torch.ones(24, dtype=torch.bool)
    mask[10:14] = False
    truth = law.sample(1, seeded(5))[0]
    known = truth.expand(300, 1, 24)
    filled = impute(law.eps_model(schedule), schedule, known, mask, num_steps=30, resamplings=8, jump=3, generator=seeded(6))
    assert torch.equal(filled[..., mask], known[..., mask])
    exact = law.given(mask[None], truth)
    spread = exact.cov.diagonal()[~mask].sqrt()
    gap = filled[:, 0, ~mask]
    assert bool(((gap.mean(0) - exact.mean[0, ~mask]).abs() < 0.3 * spread).all())
    assert bool(((gap.std(0) / spread - 1).abs() < 0.2).all())
