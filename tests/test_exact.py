"""The oracle against autograd, brute force and SciPy; then the samplers against the oracle."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ddpm_course import (
    CourseError,
    ExactGaussian,
    FiniteData,
    GaussianMixture,
    cosine_schedule,
    ddim_step,
    ddpm_sample,
    ddpm_step,
    linear_schedule,
)
from ddpm_course.data import digits
from ddpm_course.errors import ShapeError, TimestepError

MEAN = torch.tensor([0.4, -0.3], dtype=torch.float64)
COV = torch.tensor([[0.5, 0.3], [0.3, 0.25]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 0.5], [0.3, 0.3], [1.2, -0.8]], dtype=torch.float64)
STDS = torch.tensor([0.1, 0.5, 0.3], dtype=torch.float64)
MIXTURE, GAUSSIAN = GaussianMixture(WEIGHTS, MEANS, STDS), ExactGaussian(MEAN, COV)
TIMES = torch.tensor([1, 2, 50, 400, 1000])
X_T = torch.tensor([[0.3, -0.9], [-1.1, 0.4], [0.0, 0.1], [2.0, 1.0], [-0.5, -2.5]], dtype=torch.float64)


def log_q_gaussian(x: Tensor, bar: float) -> Tensor:
    """log density of x_t by an explicit inverse and determinant."""
    cov = bar * COV + (1 - bar) * torch.eye(2, dtype=torch.float64)
    off = x - bar**0.5 * MEAN
    return -0.5 * (off @ torch.inverse(cov) @ off + torch.log(torch.det(cov)) + 2 * math.log(2 * math.pi))


def log_q_mixture(x: Tensor, bar: float) -> Tensor:
    """log of a sum of densities, term by term."""
    total = 0.0
    for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True):
        var = bar * s**2 + 1 - bar
        total = total + w * torch.exp(-((x - bar**0.5 * m) ** 2).sum() / (2 * var)) / (2 * math.pi * var)
    return torch.log(total)


@pytest.mark.parametrize(("data", "log_q"), [(GAUSSIAN, log_q_gaussian), (MIXTURE, log_q_mixture)], ids=["gaussian", "mixture"])
def test_eps_is_minus_the_root_times_the_score(data: ExactGaussian, log_q: object) -> None:
    eps = data.eps_model(linear_schedule())(X_T, TIMES)
    for i, t in enumerate(TIMES.tolist()):
        bar = float(reference.alpha_bars("linear")[t])
        x = X_T[i].clone().requires_grad_() if t > 1 else (bar**0.5 * MEANS[0] + 0.02).requires_grad_()
        (score,) = torch.autograd.grad(log_q(x, bar), x)
        got = eps[i] if t > 1 else data.eps_model(linear_schedule())(x.detach()[None], TIMES[:1])[0]
        torch.testing.assert_close(got, -((1 - bar) ** 0.5) * score, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("data", "log_q"), [(GAUSSIAN, log_q_gaussian), (MIXTURE, log_q_mixture)], ids=["gaussian", "mixture"])
def test_densities_of_clean_and_noisy_data(data: ExactGaussian, log_q: object) -> None:
    for bar in (1.0, 0.7, 0.01):
        got = (data if bar == 1 else data.diffused(bar)).log_prob(X_T)
        wanted = torch.stack([log_q(x, bar) for x in X_T])
        keep = torch.isfinite(wanted)
        torch.testing.assert_close(got[keep], wanted[keep], rtol=1e-10, atol=1e-10)
    assert isinstance(data.diffused(0.5), type(data))


def test_gaussian_log_prob_and_entropy_equal_scipy() -> None:
    law = stats.multivariate_normal(MEAN.numpy(), COV.numpy())
    np.testing.assert_allclose(GAUSSIAN.log_prob(X_T), law.logpdf(X_T.numpy()), rtol=1e-10)
    assert GAUSSIAN.entropy() == pytest.approx(law.entropy(), rel=1e-12)


def test_mixture_components_and_responsibilities() -> None:
    for bar in (1.0, 0.6):
        joint = np.array(
            [
                [
                    float(w) * np.prod(stats.norm.pdf(x, bar**0.5 * m.numpy(), math.sqrt(bar * float(s) ** 2 + 1 - bar)))
                    for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True)
                ]
                for x in X_T.numpy()
            ]
        )
        np.testing.assert_allclose(MIXTURE.component_log_prob(X_T, bar).exp(), joint, rtol=1e-9, atol=1e-300)
        np.testing.assert_allclose(MIXTURE.responsibilities(X_T, bar), joint / joint.sum(1, keepdims=True), rtol=1e-9, atol=1e-15)
    assert torch.equal(MIXTURE.responsibilities(X_T), MIXTURE.responsibilities(X_T, 1.0))
    column = torch.tensor([[1.0], [0.6], [0.6], [1.0], [0.6]], dtype=torch.float64)
    by_row = torch.cat([MIXTURE.component_log_prob(X_T[i : i + 1], float(column[i])) for i in range(5)])
    torch.testing.assert_close(MIXTURE.component_log_prob(X_T, column), by_row, rtol=1e-12, atol=1e-12)


@given(st.integers(1, 1000), st.integers(0, 10_000))
def test_finite_data_equals_a_brute_force_softmax(t: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(7, 1, 2, 3, generator=generator, dtype=torch.float64) * 2 - 1
    x_t = torch.randn(2, 1, 2, 3, generator=generator, dtype=torch.float64)
    bar = float(reference.alpha_bars("cosine")[t])
    wanted = np.zeros((2, 6))
    for i, x in enumerate(x_t.reshape(2, 6).numpy()):
        scores = [-((x - bar**0.5 * p) ** 2).sum() / (2 * (1 - bar)) for p in points.reshape(7, 6).numpy()]
        shares = np.exp(np.array(scores) - max(scores))
        x_0_hat = (shares[:, None] * points.reshape(7, 6).numpy()).sum(0) / shares.sum()
        wanted[i] = (x - bar**0.5 * x_0_hat) / (1 - bar) ** 0.5
    got = FiniteData(points).eps_model(cosine_schedule())(x_t, torch.tensor([t, t]))
    assert got.shape == x_t.shape
    np.testing.assert_allclose(got.reshape(2, 6), wanted, rtol=1e-6, atol=1e-6)


def test_answers_come_in_the_type_and_shape_of_the_question() -> None:
    schedule = linear_schedule(10)
    for data in (ExactGaussian(torch.zeros(1, 2, 2), torch.eye(4)), FiniteData(torch.zeros(3, 1, 2, 2))):
        for dtype in (torch.float32, torch.float64):
            eps = data.eps_model(schedule)(torch.zeros(5, 1, 2, 2, dtype=dtype), torch.full((5,), 3))
            assert eps.shape == (5, 1, 2, 2) and eps.dtype == dtype
        assert data.sample(4).shape == (4, 1, 2, 2) and data.sample(4).dtype == torch.float64
        with pytest.raises(ShapeError, match=r"points of shape \(1, 2, 2\)"):
            data.eps_model(schedule)(torch.zeros(5, 4), torch.full((5,), 3))
        with pytest.raises(TimestepError):
            data.eps_model(schedule)(torch.zeros(1, 1, 2, 2), torch.tensor([0]))


def test_draws_have_the_right_moments_and_follow_the_generator() -> None:
    n = 40_000
    mean = (WEIGHTS[:, None] * MEANS).sum(0)
    second = (WEIGHTS[:, None, None] * (MEANS[:, :, None] * MEANS[:, None, :] + STDS[:, None, None] ** 2 * torch.eye(2))).sum(0)
    for data, m, c in [(GAUSSIAN, MEAN, COV), (MIXTURE, mean, second - torch.outer(mean, mean))]:
        x = data.sample(n, torch.Generator().manual_seed(0))
        assert torch.equal(x, data.sample(n, torch.Generator().manual_seed(0)))
        assert float((x.mean(0) - m).abs().max()) < 4 * (float(c.diagonal().max()) / n) ** 0.5
        assert float((x.T.cov() - c).abs().max()) < 6 * float(c.max()) / n**0.5
    picks = FiniteData(torch.arange(3.0)[:, None]).sample(3000, torch.Generator().manual_seed(1))
    assert stats.chisquare(torch.bincount(picks[:, 0].long()).numpy()).pvalue > 0.05


def test_singular_covariance_is_data_on_a_line() -> None:
    flat = ExactGaussian(torch.zeros(2), torch.ones(2, 2))
    x = flat.sample(100, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x[:, 0], x[:, 1], rtol=0, atol=1e-7)
    rounded = ExactGaussian(torch.zeros(2), torch.diag(torch.tensor([1.0, -1e-13], dtype=torch.float64)))
    assert bool(torch.isfinite(rounded.sample(3)).all())


def chain_moments(T: int, variance: str, ddim: bool = False) -> tuple[float, float]:
    """Mean and variance of the whole sampling chain for N(0.4, 0.25), exactly: every step is affine, so two probes and z = 1 tell all."""
    schedule = linear_schedule(T, 0.1 / T, 20 / T)
    eps_model = ExactGaussian(torch.tensor([0.4]), torch.tensor([[0.25]])).eps_model(schedule)
    probes, mean, var = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64), 0.0, 1.0
    z = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    for t in range(T, 0, -1):
        eps = eps_model(probes, torch.full((3,), t))
        x_s = ddim_step(schedule, probes, eps, t, t - 1) if ddim else ddpm_step(schedule, probes, eps, t, t - 1, z, variance)
        offset, slope, noise = float(x_s[0]), float(x_s[1] - x_s[0]), float(x_s[2] - x_s[0])
        mean, var = slope * mean + offset, slope**2 * var + noise**2
    return mean, var


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_ddpm_recovers_a_gaussian_with_an_error_of_one_over_T(variance: str) -> None:
    errors = [abs(chain_moments(T, variance)[1] - 0.25) for T in (100, 200, 400)]
    assert errors[-1] < 0.25 * 20 / 400
    slack = 0.1 if variance == "beta" else 0.3  # beta~ = 0 at t = 1 costs a logarithm of T
    assert all(abs(math.log2(a / b) - 1) < slack for a, b in zip(errors, errors[1:], strict=False))
    assert abs(chain_moments(400, variance)[0] - 0.4) < 0.01


def test_ddim_recovers_a_gaussian_with_an_error_of_one_over_T() -> None:
    errors = [abs(chain_moments(T, "", ddim=True)[1] - 0.25) for T in (100, 200, 400)]
    assert errors[-1] < 0.25 * 10 / 400 and errors[0] > 1.7 * errors[1] > 2.9 * errors[2]


def test_ddpm_recovers_mean_and_covariance_by_sampling() -> None:
    schedule, n = linear_schedule(100, 0.1 / 100, 20 / 100), 10_000
    x_T = torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = ddpm_sample(GAUSSIAN.eps_model(schedule), schedule, x_T=x_T, variance="beta", generator=torch.Generator().manual_seed(2))
    bias = 10 / 100 * COV.diagonal()  # a few over T, relative
    assert bool(((x.mean(0) - MEAN).abs() < 4 * (COV.diagonal() / n) ** 0.5 + 0.03).all())
    assert bool(((x.var(0) - COV.diagonal()).abs() < 4 * COV.diagonal() * (2 / n) ** 0.5 + bias).all())
    assert abs(float(x.T.cov()[0, 1]) - 0.3) < 0.04


def test_finite_data_every_sample_lands_on_a_digit_and_classes_are_even() -> None:
    images, labels = digits().train
    chosen = torch.cat([(labels == k).nonzero()[:2, 0] for k in range(10)])
    points, schedule = images[chosen], linear_schedule()
    x = ddpm_sample(FiniteData(points).eps_model(schedule), schedule, (500, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    distance, nearest = torch.cdist(x.flatten(1), points.flatten(1)).min(1)
    assert float(distance.max()) < 1e-3
    assert stats.chisquare(torch.bincount(labels[chosen][nearest], minlength=10).numpy()).pvalue > 0.05
    assert len(nearest.unique()) == 20


def test_a_component_may_have_weight_0_and_a_set_one_point() -> None:
    schedule, x_t, t = linear_schedule(20), torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double(), torch.full((4,), 9)
    with_ghost = GaussianMixture(torch.tensor([1.0, 0.0]), torch.tensor([[0.3, -1.0], [5.0, 5.0]]), torch.tensor([0.5, 0.1]))
    alone = ExactGaussian(torch.tensor([0.3, -1.0]), 0.25 * torch.eye(2))
    torch.testing.assert_close(with_ghost.eps_model(schedule)(x_t, t), alone.eps_model(schedule)(x_t, t))
    point = torch.tensor([[0.3, -1.0]])
    bar = schedule.alpha_bar[9]
    wanted = (x_t - bar**0.5 * point) / (1 - bar) ** 0.5
    torch.testing.assert_close(FiniteData(point).eps_model(schedule)(x_t, t), wanted, rtol=1e-6, atol=1e-6)
    assert FiniteData(point).sample(2).tolist() == point.double().repeat(2, 1).tolist()


def test_refusals() -> None:
    with pytest.raises(ShapeError, match=r"cov must be \(2, 2\)"):
        ExactGaussian(torch.zeros(2), torch.eye(3))
    with pytest.raises(CourseError, match="positive semi-definite"):
        ExactGaussian(torch.zeros(2), torch.diag(torch.tensor([1.0, -0.1])))
    with pytest.raises(CourseError, match="must be symmetric"):
        ExactGaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ShapeError, match="equally many"):
        GaussianMixture(torch.ones(1), torch.zeros(2, 2), torch.ones(2))
    for weights in ([0.5, 0.6], [1.5, -0.5]):
        with pytest.raises(CourseError, match="sum to 1"):
            GaussianMixture(torch.tensor(weights), torch.zeros(2, 2), torch.ones(2))
    with pytest.raises(CourseError, match="stds must be >= 0"):
        GaussianMixture(torch.tensor([0.5, 0.5]), torch.zeros(2, 2), torch.tensor([1.0, -1.0]))
    with pytest.raises(CourseError, match="no density"):
        FiniteData(torch.zeros(2, 2)).log_prob(torch.zeros(1, 2))
    with pytest.raises(CourseError):
        FiniteData(torch.zeros(0, 2))


def test_the_best_variance_at_a_time_for_all_and_a_time_for_each() -> None:
    law, schedule = ExactGaussian(torch.tensor([0.4, -0.2]), torch.tensor([[0.3, 0.1], [0.1, 0.5]])), linear_schedule(20)
    variance = law.variance(schedule)
    each = torch.tensor([3, 7])
    torch.testing.assert_close(variance(9, each), torch.stack([variance(9, 3), variance(9, 7)]))
    torch.testing.assert_close(variance(torch.tensor([9, 12]), 7), torch.stack([variance(9, 7), variance(12, 7)]))
    torch.testing.assert_close(variance(9, 3), law.reverse_cov(schedule, 9, 3).diagonal())
