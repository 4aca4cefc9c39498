"""q(x_s | x_t, x_0) against Bayes' rule: by precisions with 40 digits, and by brute force on a grid."""

import mpmath as mp
import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm_course import CourseError, linear_schedule, q_posterior, rescale_zero_terminal_snr, reverse_variance
from ddpm_course.errors import ShapeError, TimestepError
from ddpm_course.posterior import VARIANCES
from ddpm_course.schedule import SCHEDULES

each_family = pytest.mark.parametrize("name", reference.NAMES)
ALL = torch.arange(1, 1001)


def wanted(name: str) -> torch.Tensor:
    bars = reference.alpha_bars(name)
    return torch.stack([reference.tensor(reference.posterior(bars[t], bars[t - 1])) for t in range(1, 1001)], 1)


@each_family
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_coefficients_at_every_t(name: str, dtype: torch.dtype, tolerance: float) -> None:
    schedule, one, zero = SCHEDULES[name](), torch.ones(1000, 1, dtype=dtype), torch.zeros(1000, 1, dtype=dtype)
    (of_x_0, var), (of_x_t, _) = q_posterior(schedule, one, zero, ALL), q_posterior(schedule, zero, one, ALL)
    assert of_x_0.dtype == of_x_t.dtype == var.dtype == dtype and var.shape == (1000, 1)
    for got, right in zip((of_x_0, of_x_t, var), wanted(name), strict=True):
        assert reference.relative(got[:, 0], right) < tolerance


@given(st.data(), st.floats(-2, 2), st.floats(-3, 3))
def test_numeric_bayes_on_a_grid(data: st.DataObject, x_0: float, x_t: float) -> None:
    t = data.draw(st.integers(2, 100))
    s = data.draw(st.integers(1, t - 1))
    bars = [float(b) for b in reference.alpha_bars("linear", 100)]
    grid = np.linspace(-12, 12, 40_001)
    alpha = bars[t] / bars[s]
    log_p = -((grid - bars[s] ** 0.5 * x_0) ** 2) / (2 * (1 - bars[s])) - (x_t - alpha**0.5 * grid) ** 2 / (2 * (1 - alpha))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = (p * grid).sum()
    here = [torch.tensor([[x]], dtype=torch.float64) for x in (x_0, x_t)]
    got, var = q_posterior(linear_schedule(100), *here, t, s)
    assert float(got) == pytest.approx(mean, abs=1e-8)
    assert float(var) == pytest.approx((p * (grid - mean) ** 2).sum(), rel=1e-7)


@each_family
def test_x_0_form_equals_eps_form(name: str) -> None:
    schedule, generator = SCHEDULES[name](), torch.Generator().manual_seed(0)
    x_0, eps = torch.rand(1000, 5, generator=generator).double() * 2 - 1, torch.randn(1000, 5, generator=generator).double()
    bars, betas = reference.alpha_bars(name)[1:], reference.tensor(reference.betas(name))[:, None]
    signal, noise = (reference.tensor([mp.sqrt(b) for b in x])[:, None] for x in (bars, [1 - b for b in bars]))
    x_t = signal * x_0 + noise * eps
    eps_form = (x_t - betas / noise * eps) / (1 - betas).sqrt()  # Ho eq. 11
    assert float((q_posterior(schedule, x_0, x_t, ALL)[0] - eps_form).abs().max()) < 1e-9


def test_at_s_0_the_answer_is_known() -> None:
    schedule, x_0, x_t = linear_schedule(), torch.tensor([[0.3, -0.7]]), torch.tensor([[5.0, 9.0]])
    for t in (1, 2, 777, 1000):
        mean, var = q_posterior(schedule, x_0, x_t, t, s=0)
        assert torch.equal(mean, x_0) and var == 0
        mean, var = q_posterior(schedule, x_0, x_t, torch.tensor([t]), torch.tensor([0]))
        assert torch.equal(mean, x_0) and var.shape == (1, 1) and float(var) == 0


def test_int_and_tensor_times_agree() -> None:
    schedule, (x_0, x_t) = linear_schedule(), torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(1)).double()
    t, s = torch.tensor([1, 2, 500, 1000]), torch.tensor([0, 1, 250, 1])
    mean, var = q_posterior(schedule, x_0, x_t, t, s)
    assert var.shape == (4, 1, 1)
    for i in range(4):
        m, v = q_posterior(schedule, x_0[i : i + 1], x_t[i : i + 1], int(t[i]), int(s[i]))
        torch.testing.assert_close(mean[i : i + 1], m, rtol=0, atol=1e-14)
        assert isinstance(v, float) and float(var[i]) == pytest.approx(v, abs=1e-16)


def test_coefficients_take_the_type_of_x_t() -> None:
    schedule, (x_0, x_t) = linear_schedule(), torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([2, 300, 1000])
    mean, var = q_posterior(schedule, x_0, x_t.double(), t)
    wanted, wanted_var = q_posterior(schedule, x_0.double(), x_t.double(), t)
    torch.testing.assert_close(mean, wanted, rtol=0, atol=1e-14)
    assert torch.equal(var, wanted_var)


@each_family
def test_variance_conventions(name: str) -> None:
    schedule, bars = SCHEDULES[name](), reference.alpha_bars(name)
    beta = [1 - bars[t] / bars[t - 1] for t in range(1, 1001)]
    tilde = [reference.posterior(bars[t], bars[t - 1])[2] for t in range(1, 1001)]
    expected = {"beta": beta, "posterior": tilde, "posterior_clipped": [tilde[1], *tilde[1:]]}
    for kind, right in expected.items():
        got = reverse_variance(schedule, ALL, ALL - 1, kind)
        assert got.dtype == torch.float64 and got.shape == (1000,)
        assert reference.relative(got, reference.tensor(right)) < 1e-9
        for t in (1, 2, 999, 1000):
            value = reverse_variance(schedule, t, t - 1, kind)
            assert isinstance(value, float) and value == pytest.approx(float(right[t - 1]), rel=1e-9)


@pytest.mark.parametrize("kind", ["beta", "posterior", "posterior_clipped"])
def test_variances_of_longer_steps(kind: str) -> None:
    schedule, bars = linear_schedule(100), reference.alpha_bars("linear", 100)
    for t, s in [(100, 50), (37, 5), (80, 79)]:
        right = 1 - bars[t] / bars[s] if kind == "beta" else reference.posterior(bars[t], bars[s])[2]
        assert reverse_variance(schedule, t, s, kind) == pytest.approx(float(right), rel=1e-10)
    assert VARIANCES[kind](schedule, torch.tensor([100, 37]), torch.tensor([50, 5])).shape == (2,)
    column = reverse_variance(schedule, torch.tensor([100, 37]), torch.tensor([50, 5]), kind, ndim=4)
    assert column.shape == (2, 1, 1, 1)


def test_clipping_takes_the_next_pair() -> None:
    schedule, bars = linear_schedule(100), reference.alpha_bars("linear", 100)
    for t, after in [(10, 20), (1, 2), (50, 100), (60, 100)]:
        right = float(reference.posterior(bars[after], bars[t])[2])
        assert reverse_variance(schedule, t, 0, "posterior_clipped") == pytest.approx(right, rel=1e-10)
    assert reverse_variance(schedule, 100, 0, "posterior_clipped") == pytest.approx(float(1 - bars[100]), rel=1e-12)
    assert reverse_variance(linear_schedule(1), 1, 0, "posterior_clipped") == pytest.approx(1e-4, rel=1e-9)
    mixed = reverse_variance(schedule, torch.tensor([10, 10]), torch.tensor([0, 9]), "posterior_clipped")
    both = [reference.posterior(bars[20], bars[10])[2], reference.posterior(bars[10], bars[9])[2]]
    assert mixed.tolist() == pytest.approx([float(b) for b in both], rel=1e-10)
    from_t = [reference.posterior(bars[2 * t], bars[t])[2] for t in (10, 20)]
    to_zero = reverse_variance(schedule, torch.tensor([10, 20]), 0, "posterior_clipped")
    assert to_zero.tolist() == pytest.approx([float(v) for v in from_t], rel=1e-10)
    from_10 = reverse_variance(schedule, 10, torch.tensor([0, 9]), "posterior_clipped")
    assert from_10.tolist() == pytest.approx([float(b) for b in both], rel=1e-10)
    one_s = reverse_variance(schedule, torch.tensor([10, 20]), 5, "posterior_clipped")
    assert one_s.tolist() == pytest.approx([float(reference.posterior(bars[t], bars[5])[2]) for t in (10, 20)], rel=1e-10)


@given(st.data())
def test_posterior_is_below_beta_and_both_below_one(data: st.DataObject) -> None:
    schedule = rescale_zero_terminal_snr(linear_schedule(300))
    t = data.draw(st.integers(2, 300))
    s = data.draw(st.integers(1, t - 1))
    assert 0 < reverse_variance(schedule, t, s, "posterior") < reverse_variance(schedule, t, s, "beta") < 1


def test_your_own_variance_is_asked() -> None:
    assert reverse_variance(linear_schedule(10), 7, 3, lambda t, s: t * 100.0 + s) == 703.0


def test_refusals() -> None:
    schedule, x = linear_schedule(10), torch.zeros(1, 2)
    with pytest.raises(CourseError, match="unknown variance 'big'; known: beta, posterior"):
        reverse_variance(schedule, 5, 4, "big")
    with pytest.raises(ShapeError):
        q_posterior(schedule, x, x[:, :1], 5)
    for kind in ("beta", "posterior", "posterior_clipped"):
        for t, s in [(5, 5), (5, 6), (0, 0), (11, 3), (5, -1)]:
            with pytest.raises(TimestepError):
                reverse_variance(schedule, t, s, kind)
