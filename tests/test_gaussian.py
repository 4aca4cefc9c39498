"""KL and log-likelihoods against quadrature, SciPy and 40 digits."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ddpm_course import CourseError, discretized_log_prob, normal_kl, normal_log_prob

number, positive = st.floats(-3, 3), st.floats(0.05, 5)
BINS = torch.linspace(-1, 1, 256, dtype=torch.float64)


def scalar(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def bin_probability(x: float, mean: float, std: float) -> mp.mpf:
    """Mass of the bin of x, 40 digits, in the tail that keeps them."""
    low = -mp.inf if x <= -1 else (mp.mpf(x) - mp.mpf(1) / 255 - mp.mpf(mean)) / mp.mpf(std)
    high = mp.inf if x >= 1 else (mp.mpf(x) + mp.mpf(1) / 255 - mp.mpf(mean)) / mp.mpf(std)
    if low > 0:
        low, high = -high, -low
    cdf = lambda z: mp.mpf(0) if z == -mp.inf else mp.erfc(-z / mp.sqrt(2)) / 2  # noqa: E731
    with mp.workdps(60):
        return cdf(high) - cdf(low)


@given(number, positive, number, positive)
def test_kl_equals_quadrature(m_1: float, v_1: float, m_2: float, v_2: float) -> None:
    nodes, weights = (torch.as_tensor(x) for x in np.polynomial.hermite_e.hermegauss(8))
    x = m_1 + v_1**0.5 * nodes
    log_ratio = stats.norm.logpdf(x, m_1, v_1**0.5) - stats.norm.logpdf(x, m_2, v_2**0.5)
    wanted = float((weights / weights.sum() * torch.as_tensor(log_ratio)).sum())
    got = float(normal_kl(scalar(m_1), v_1, m_2, v_2))
    assert got == pytest.approx(wanted, abs=1e-9, rel=1e-9)


@given(number, positive, number, positive)
def test_kl_is_not_negative(m_1: float, v_1: float, m_2: float, v_2: float) -> None:
    assert float(normal_kl(scalar(m_1), v_1, m_2, v_2)) >= -1e-14


@given(number, positive)
def test_kl_is_zero_only_for_equals(m: float, v: float) -> None:
    assert float(normal_kl(scalar(m), v, m, v)) == 0
    assert float(normal_kl(scalar(m), v, m + 0.1, v)) == pytest.approx(0.005 / v, rel=1e-9)
    assert float(normal_kl(scalar(m), v, m, 2 * v)) == pytest.approx((math.log(2) - 0.5) / 2, rel=1e-9)


def test_kl_is_elementwise_and_broadcasts() -> None:
    got = normal_kl(torch.zeros(2, 3), torch.ones(2, 1), torch.ones(3), 4.0)
    assert got.shape == (2, 3) and got.dtype == torch.float32
    assert float(got[0, 0]) == pytest.approx(0.5 * (0.25 - 1 + math.log(4) + 0.25), rel=1e-6)


@given(number, number, positive)
def test_log_density_equals_scipy(x: float, mean: float, var: float) -> None:
    got = float(normal_log_prob(scalar(x), scalar(mean), var))
    assert got == pytest.approx(stats.norm.logpdf(x, mean, var**0.5), abs=1e-10, rel=1e-10)


@given(st.floats(-1.5, 1.5), st.floats(-6, 6))
def test_256_bins_sum_to_one(mean: float, log10_std: float) -> None:
    log_p = discretized_log_prob(BINS, torch.full_like(BINS, mean), 10.0 ** (2 * log10_std))
    assert bool(torch.isfinite(log_p).all()) and float(log_p.max()) <= 0
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("mean", [-40.0, -1.0, 0.0, 0.3, 1.0, 40.0])
@pytest.mark.parametrize("std", [1e-6, 1e-3, 0.05, 1.0, 1e3, 1e6])
def test_extreme_bins_have_finite_logs_in_float32(mean: float, std: float) -> None:
    bins = BINS.float()
    log_p = discretized_log_prob(bins, torch.full_like(bins, mean), std**2)
    assert log_p.dtype == torch.float32 and bool(torch.isfinite(log_p).all())
    assert float(log_p.double().exp().sum()) == pytest.approx(1, abs=1e-3)


@given(st.integers(0, 255), st.floats(-1.2, 1.2), st.floats(-3, 1))
def test_each_bin_against_40_digits(k: int, mean: float, log10_std: float) -> None:
    x, std = float(BINS[k]), 10.0**log10_std
    x = -1.0 if k == 0 else 1.0 if k == 255 else x
    wanted = float(mp.log(bin_probability(x, mean, std)))
    got = float(discretized_log_prob(scalar(x), scalar(mean), std**2))
    assert got == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_the_outer_bins_reach_to_infinity() -> None:
    for end in (-1.0, 1.0):
        got = float(discretized_log_prob(scalar(end), scalar(end * 30), 0.01))
        assert got == pytest.approx(0, abs=1e-12)
    near = float(discretized_log_prob(scalar(1 - 2 / 255), scalar(30.0), 0.01))
    assert near < -1000


def test_the_outer_bins_begin_half_a_bin_from_the_ends() -> None:
    for side in (-1, 1):
        inner, outer = (float(discretized_log_prob(scalar(side * (1 - 1 / width)), scalar(side * 5.0), 0.01)) for width in (170, 255.5))
        assert inner < -100 and outer > -1e-9


def test_a_tensor_of_variances_and_the_middle_bin() -> None:
    x = torch.zeros(2, dtype=torch.float64)
    got = discretized_log_prob(x, x, torch.tensor([1.0, 1e-8], dtype=torch.float64))
    middle = math.log(math.erf(1 / 255 / math.sqrt(2)))
    assert got.tolist() == pytest.approx([middle, 0.0], abs=1e-12)


@pytest.mark.parametrize("bad", [1.01, -1.01, 255.0])
def test_the_discrete_decoder_wants_the_unit_range(bad: float) -> None:
    with pytest.raises(CourseError, match=r"needs x in \[-1, 1\].*127\.5"):
        discretized_log_prob(torch.tensor([0.0, bad]), torch.zeros(2), 1.0)
