"""The exact likelihood along the ODE against oracles, the bound above it, and times drawn by importance."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from ddpm_course import CourseError, ExactGaussian, GaussianMixture, cosine_schedule, linear_schedule, time_grid, vlb_terms
from ddpm_course.elbo import vlb_term
from ddpm_course.errors import ShapeError
from ddpm_course.likelihood import ImportanceTimes, angle, density_bits, dequantise, ode_log_prob, sampled_bound
from ddpm_course.schedule import NoiseSchedule
from ddpm_course.variance import optimal_variance

BLOB = ExactGaussian(torch.tensor([0.4, -0.1], dtype=torch.float64), torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64))
PAIR = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.tensor([0.3, 0.4]))
STEPPED = 200


def seeded(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)


# --- along the ODE ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [linear_schedule, cosine_schedule])
@pytest.mark.parametrize("data", [BLOB, PAIR], ids=["gaussian", "mixture"])
def test_within_one_percent_of_the_exact_likelihood(make: object, data: object) -> None:
    schedule, x_0 = make(1000), data.sample(40, seeded(0))
    exact = data.log_prob(x_0)
    found = ode_log_prob(data.eps_model(schedule), schedule, x_0, time_grid(1000, STEPPED))
    assert found.shape == (40,) and found.dtype == torch.float64
    assert abs(float(found.mean() / exact.mean()) - 1) < 0.01
    assert float((found - exact).abs().max()) < 0.05


def test_on_all_times_the_error_is_far_below_one_percent() -> None:
    schedule, x_0 = cosine_schedule(1000), PAIR.sample(8, seeded(1))
    torch.testing.assert_close(ode_log_prob(PAIR.eps_model(schedule), schedule, x_0), PAIR.log_prob(x_0), rtol=0, atol=1e-3)


def test_second_order_in_the_number_of_steps() -> None:
    """Against the finest grid, so that what T itself leaves open (the law at T is not quite N(0, I)) drops out."""
    schedule, x_0 = cosine_schedule(1600), BLOB.sample(10, seeded(2))
    at = lambda n: ode_log_prob(BLOB.eps_model(schedule), schedule, x_0, time_grid(1600, n))  # noqa: E731
    finest, sizes = at(1600), [50, 100, 200]
    errors = [float((at(n) - finest).abs().mean()) for n in sizes]
    assert 1.7 < -np.polyfit(np.log(sizes), np.log(errors), 1)[0] < 2.4


def test_the_estimated_trace_is_right_on_average_and_follows_the_generator() -> None:
    schedule, x_0 = cosine_schedule(100), PAIR.sample(1, seeded(3)).repeat(400, 1)
    model = PAIR.eps_model(schedule)
    exact = ode_log_prob(model, schedule, x_0[:1], time_grid(100, 50))
    one = ode_log_prob(model, schedule, x_0, time_grid(100, 50), probes=1, generator=seeded(4))
    again = ode_log_prob(model, schedule, x_0, time_grid(100, 50), probes=1, generator=seeded(4))
    other = ode_log_prob(model, schedule, x_0, time_grid(100, 50), probes=1, generator=seeded(5))
    many = ode_log_prob(model, schedule, x_0, time_grid(100, 50), probes=8, generator=seeded(4))
    assert torch.equal(one, again) and not torch.equal(one, other)
    for found in (one, many):
        assert abs(float(found.mean() - exact)) < 4 * float(found.std()) / 20
    assert float(one.std()) > 0.01 and 0.2 < float(many.std() / one.std()) < 0.5  # 1 / sqrt(8) = 0.35


def test_trace_of_a_matrix_by_random_signs_is_exact_on_a_diagonal() -> None:
    """Signs square to 1, so a diagonal Jacobian has no estimation error at all."""
    data = ExactGaussian(torch.zeros(3), torch.tensor([1.0, 0.3, 0.1]).diag())
    schedule, x_0 = linear_schedule(100), data.sample(5, seeded(6))
    model, grid = data.eps_model(schedule), time_grid(100, 20)
    torch.testing.assert_close(ode_log_prob(model, schedule, x_0, grid, probes=1), ode_log_prob(model, schedule, x_0, grid))


def test_one_heun_step_by_hand() -> None:
    schedule, x_0 = NoiseSchedule([0.3]), torch.tensor([[0.5, -0.2]], dtype=torch.float64)
    mix = torch.tensor([[0.2, 0.1], [-0.3, 0.4]], dtype=torch.float64)
    h = math.acos(0.7**0.5)
    v = lambda x: (x @ mix + 0.1 * x**2 - 0.3**0.5 * x) / 0.7**0.5  # noqa: E731
    slope = v(x_0)[0]  # the first slope, at t = 0, is 0
    trace = jacobian(lambda x: v(x[None])[0], x_0[0]).trace()
    end = x_0[0] + h * slope / 2
    wanted = -0.5 * (end**2 + math.log(2 * math.pi)).sum() + h * trace / 2
    got = ode_log_prob(lambda x, t: x @ mix + 0.1 * x**2, schedule, x_0)
    assert float(got) == pytest.approx(float(wanted), rel=1e-12)
    assert angle(schedule, 1) == pytest.approx(h, rel=1e-12) and angle(schedule, 0) == 0


def test_any_shape_and_dtype_and_no_gradients_kept() -> None:
    schedule = linear_schedule(10)
    model = lambda x, t: 0.3 * x  # noqa: E731
    pictures = torch.randn(2, 1, 3, 3, generator=seeded(0), requires_grad=True)
    with torch.no_grad():
        found = ode_log_prob(model, schedule, pictures)
    assert found.shape == (2,) and found.dtype == torch.float32 and not found.requires_grad
    flat = ode_log_prob(model, schedule, pictures.detach().flatten(1).double())
    torch.testing.assert_close(found.double(), flat, rtol=1e-4, atol=1e-4)


# --- grey values -----------------------------------------------------------------------------------------------------


def test_bits_of_a_uniform_density_over_the_bins() -> None:
    """All 256 values equally likely and the density flat over the bins: 8 bits, whatever the number of pixels."""
    x_0 = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    flat = torch.full((3,), -4 * math.log(2 + 2 / 255), dtype=torch.float64)
    torch.testing.assert_close(density_bits(flat, x_0), torch.full((3,), 8.0, dtype=torch.float64))
    assert float(density_bits(flat[:1] * 0 - 4 * math.log(2.125), x_0[:1], levels=17)) == pytest.approx(math.log2(17))


def test_dequantised_values_stay_in_their_bins() -> None:
    x_0 = (torch.randint(256, (5000, 2), generator=seeded(0)).double()) / 127.5 - 1
    moved = dequantise(x_0, seeded(1))
    assert torch.equal((moved * 127.5 + 127.5).round(), (x_0 * 127.5 + 127.5).round())
    offset = (moved - x_0) * 127.5
    assert 0.45 < float(offset.max()) <= 0.5 and -0.5 <= float(offset.min()) < -0.45 and abs(float(offset.var()) - 1 / 12) < 0.003


# --- the bound is a bound --------------------------------------------------------------------------------------------


class Linear:
    """eps_hat = a_t x + b_t: with it and any variances the model's own density p_theta(x_0) is a Gaussian that one can compute."""

    def __init__(self, T: int, seed: int) -> None:
        self.a, self.b = torch.rand(T + 1, generator=seeded(seed)).double(), 0.3 * torch.randn(T + 1, generator=seeded(seed + 1)).double()
        self.variance = 0.05 + torch.rand(T + 1, generator=seeded(seed + 2)).double()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.a[t][:, None] * x + self.b[t][:, None]

    def log_prob(self, schedule: NoiseSchedule, x_0: Tensor) -> Tensor:
        """log N(x_0; m, V), following mean and variance from N(0, 1) down the chain in the eps form of the mean."""
        m, V = 0.0, 1.0
        for t in range(schedule.T, 0, -1):
            beta, bar = float(schedule.beta[t]), float(schedule.alpha_bar[t])
            share, root = beta / (1 - bar) ** 0.5, (1 - beta) ** 0.5
            m = (m - share * (float(self.a[t]) * m + float(self.b[t]))) / root
            V = ((1 - share * float(self.a[t])) / root) ** 2 * V + float(self.variance[t])
        return -0.5 * ((x_0[:, 0] - m) ** 2 / V + math.log(2 * math.pi * V))


@pytest.mark.parametrize("T", [1, 2, 10])
@pytest.mark.parametrize("seed", range(6))
def test_for_every_x_0_the_expected_bound_is_above_the_models_own_likelihood(T: int, seed: int) -> None:
    schedule, model = (cosine_schedule if seed % 2 else lambda T: linear_schedule(T, 0.01, 0.5))(T), Linear(T, 10 * seed)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)  # every term is a square in eps: exact
    for x in (-2.0, -0.3, 0.0, 1.1):
        eps = torch.tensor(nodes)[:, None]
        total = vlb_terms(model, schedule, torch.full_like(eps, x), model.variance, eps=eps).total()
        bound = float(torch.tensor(weights / weights.sum()) @ total)
        assert bound > -float(model.log_prob(schedule, torch.tensor([[x]], dtype=torch.float64))) - 1e-10


@pytest.mark.parametrize("make", [lambda T: linear_schedule(T, 1e-3, 0.2), cosine_schedule], ids=["linear", "cosine"])
@pytest.mark.parametrize("T", [2, 20, 100])
@pytest.mark.parametrize("kind", ["beta", "posterior_clipped", "optimal"])
def test_the_expected_bound_is_above_the_entropy_of_a_mixture(make: object, T: int, kind: str) -> None:
    """By quadrature over x_0 and eps, with the oracle and with an eps_model that is wrong; the oracle's is lower."""
    weights, means, stds = torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([0.3, 0.4]).double()
    data, schedule = GaussianMixture(weights, means, stds), make(T)
    nodes, w = np.polynomial.hermite_e.hermegauss(24)
    law = torch.tensor(w / w.sum())
    x = means + stds[:, None] * torch.tensor(nodes)  # (2, 24)
    share = weights[:, None, None] / weights.sum() * law[:, None] * law  # component, node of x_0, node of eps
    points, eps = x[:, :, None].expand_as(share).reshape(-1, 1), torch.tensor(nodes).expand_as(share).reshape(-1, 1)
    entropy = -float((weights[:, None] / weights.sum() * law * data.log_prob(x.reshape(-1, 1)).reshape(2, -1)).sum())
    variance, bounds = kind, []
    if kind == "optimal":
        variance = torch.ones(T + 1, dtype=torch.float64)
        for t in range(1, T + 1):
            bar = float(schedule.alpha_bar[t])
            x_t = bar**0.5 * points + (1 - bar) ** 0.5 * eps
            error = (data.eps_model(schedule)(x_t, torch.full((len(x_t),), t)) - eps).square()[:, 0]
            variance[t] = float(share.flatten() @ error)
        variance = optimal_variance(schedule, variance)
    for model in (data.eps_model(schedule), lambda x_t, t: 0.8 * data.eps_model(schedule)(x_t, t)):
        total = vlb_terms(model, schedule, points, variance, eps=eps).total()
        bounds.append(float(share.flatten() @ total))
    assert entropy < bounds[0] < bounds[1]


@pytest.mark.parametrize("T", [1, 5, 40])
@pytest.mark.parametrize("make", [lambda T: linear_schedule(T, 1e-3, 0.2), cosine_schedule], ids=["linear", "cosine"])
def test_with_the_optimal_covariance_only_the_prior_is_left(T: int, make: object) -> None:
    """For correlated Gaussian data, seen in its eigenbasis: bound - entropy = KL(q(x_T) || N(0, I)), and more without it."""
    schedule, data = make(T), BLOB.in_eigenbasis()
    nodes, w = np.polynomial.hermite_e.hermegauss(3)
    law = torch.tensor(np.outer(w, w).ravel() / w.sum() ** 2)
    z, eps = (torch.tensor(a.ravel())[:, None] for a in np.meshgrid(nodes, nodes, indexing="ij"))
    excess = {}
    for name, kind in {
        "own": data.variance(schedule),
        "scalar": optimal_variance(schedule, data.unexplained(schedule)),
        "beta": "beta",
    }.items():
        total = vlb_terms(data.eps_model(schedule), schedule, data.mean + data.eigenvalues.sqrt() * z, kind, eps=eps.expand(9, 2)).total()
        excess[name] = float(law @ total) - data.entropy()
    end = data.diffused(float(schedule.alpha_bar[T]))
    floor = 0.5 * float((end.eigenvalues + end.mean**2 - 1 - end.eigenvalues.log()).sum())
    assert excess["own"] == pytest.approx(floor, abs=1e-8) and excess["own"] >= -1e-8
    assert excess["own"] < excess["scalar"] - 1e-6 and excess["scalar"] <= excess["beta"]


def test_bound_above_the_ode_likelihood_for_the_oracle() -> None:
    schedule, x_0 = cosine_schedule(40), PAIR.sample(4000, seeded(7))
    bound = vlb_terms(PAIR.eps_model(schedule), schedule, x_0, "beta", generator=seeded(8)).total()
    exact = -ode_log_prob(PAIR.eps_model(schedule), schedule, x_0)
    gap = bound - exact
    assert float(gap.mean()) > 4 * float(gap.std()) / 4000**0.5 and float(gap.mean()) < 0.6


# --- times by importance ---------------------------------------------------------------------------------------------


def test_probabilities_follow_the_root_of_the_second_moment_of_the_newest() -> None:
    times = ImportanceTimes(3, history=2, uniform=0.1)
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    times.update(torch.tensor([1, 1, 2, 2, 3]), torch.tensor([9.0, 9.0, 3.0, 4.0, 1.0]))
    assert torch.equal(times.probabilities(), even)  # t = 3 was seen once only
    times.update(torch.tensor([3, 1, 1, 1]), torch.tensor([7.0, 9.0, 1.0, 1.0]))  # the nines are forgotten
    root = torch.tensor([1.0, 12.5**0.5, 5.0]).double()
    torch.testing.assert_close(times.probabilities(), 0.9 * root / root.sum() + 0.1 * even)
    t, weight = times.draw(50_000, seeded(0))
    share = torch.bincount(t, minlength=4)[1:] / 50_000
    torch.testing.assert_close(share.double(), times.probabilities(), rtol=0, atol=0.01)
    torch.testing.assert_close(weight, 1 / times.probabilities()[t - 1])
    assert t.dtype == torch.int64 and torch.equal(t, times.draw(50_000, seeded(0))[0])


def test_sampled_bound_is_unbiased_and_less_noisy_than_uniform_times() -> None:
    schedule, n = cosine_schedule(50), 4000
    x_0, model = BLOB.sample(1, seeded(1)).repeat(n, 1), BLOB.eps_model(schedule)
    wanted = vlb_terms(model, schedule, x_0, "posterior_clipped", generator=seeded(2)).total()
    times = ImportanceTimes(50)
    uniform = sampled_bound(model, schedule, x_0, times, "posterior_clipped", generator=seeded(3))
    chosen = sampled_bound(model, schedule, x_0, times, "posterior_clipped", generator=seeded(4))
    for found in (uniform, chosen):
        assert abs(float(found.mean() - wanted.mean())) < 4 * float(found.var() / n + wanted.var() / n) ** 0.5
    assert float(chosen.var()) < 0.5 * float(uniform.var())
    assert not torch.equal(times.probabilities(), torch.full((50,), 0.02, dtype=torch.float64))


def test_one_term_for_each_example_equals_the_whole_bound() -> None:
    schedule, x_0 = cosine_schedule(6), BLOB.sample(6, seeded(5))
    eps = torch.randn(6, 2, generator=seeded(6), dtype=torch.float64)
    model, t = BLOB.eps_model(schedule), torch.arange(1, 7)
    for kind in ("beta", "posterior_clipped", torch.linspace(0.1, 0.7, 7).double(), BLOB.variance(schedule)):
        whole = vlb_terms(model, schedule, x_0, kind, eps=eps)
        each = torch.cat([whole.reconstruction[:, None], whole.matching], 1).diagonal()
        torch.testing.assert_close(vlb_term(model, schedule, x_0, t, eps, kind), each, rtol=1e-10, atol=1e-12)


def test_refusals() -> None:
    schedule = linear_schedule(3)
    with pytest.raises(CourseError, match="costs 300 backward passes a step here; estimate it: probes=1"):
        ode_log_prob(lambda x, t: x, schedule, torch.zeros(1, 300))
    with pytest.raises(CourseError, match="a time grid falls strictly"):
        ode_log_prob(lambda x, t: x, schedule, torch.zeros(1, 2), [1, 2, 0])
    with pytest.raises(ShapeError, match="these times run to 5, the schedule to 3; build ImportanceTimes\\(3\\)"):
        sampled_bound(lambda x, t: x, schedule, torch.zeros(1, 2), ImportanceTimes(5))
    for bad in ({"T": 0}, {"T": 3, "history": 0}, {"T": 3, "uniform": 0.0}):
        with pytest.raises(CourseError, match="uniform = .* in"):
            ImportanceTimes(**bad)
    with pytest.raises(CourseError, match="unknown decoder"):
        vlb_term(lambda x, t: x, schedule, torch.zeros(1, 2), 1, torch.zeros(1, 2), decoder="bits")
