"""Other papers' letters: round trips, 40 digits, their own steps against DDIM's, and the score of the exact oracle."""

import mpmath as mp
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ddpm_course import CourseError, FiniteData, GaussianMixture, NoiseSchedule, cosine_schedule, ddim_step, eps_to_score, linear_schedule
from ddpm_course import conventions as conv
from ddpm_course.errors import ScheduleError, ShapeError, ValueCourseError

NAMES = ("alpha_bar", "sigma", "log_snr", "tau")
SCHEDULE = cosine_schedule(1000)
each_schedule = pytest.mark.parametrize("schedule", [linear_schedule(1000), SCHEDULE], ids=["linear", "cosine"])
log_snrs = st.floats(-20, 20)
numbers = st.floats(-3, 3)
MIXTURE = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), torch.tensor([0.3, 0.6]))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- levels ----------------------------------------------------------------------------------------------------------


@given(log_snrs, st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_levels_come_back(log_snr: float, there: str, further: str) -> None:
    value = conv.convert_level(conv.convert_level(log_snr, "log_snr", there), there, further)
    # alpha_bar near 1 and tau near 1 have few digits of their own: 1e-16 of them is 1e-16 e^10 of sigma.
    assert conv.convert_level(value, further, "log_snr") == pytest.approx(log_snr, abs=1e-6)


@given(log_snrs)
def test_levels_against_forty_digits(log_snr: float) -> None:
    with mp.workdps(40):
        bar = 1 / (1 + mp.exp(-mp.mpf(log_snr)))
        signal, noise = mp.sqrt(bar), mp.sqrt(1 - bar)
        wanted = {"alpha_bar": bar, "sigma": noise / signal, "tau": noise / (signal + noise), "log_snr": mp.log(bar / (1 - bar))}
    for name in NAMES:
        assert conv.convert_level(log_snr, "log_snr", name) == pytest.approx(float(wanted[name]), rel=1e-13, abs=1e-13)


@given(st.tuples(log_snrs, log_snrs).filter(lambda pair: abs(pair[0] - pair[1]) > 1e-3))
def test_more_noise_is_more_noise_everywhere(pair: tuple[float, float]) -> None:
    clean, noisy = max(pair), min(pair)
    for name, sign in (("alpha_bar", -1), ("sigma", 1), ("tau", 1)):
        assert sign * (conv.convert_level(noisy, "log_snr", name) - conv.convert_level(clean, "log_snr", name)) > 0


def test_levels_at_special_places() -> None:
    assert conv.convert_level(1.0, "alpha_bar", "sigma") == conv.convert_level(1.0, "alpha_bar", "tau") == 0
    assert conv.convert_level(0.5, "alpha_bar", "sigma") == 1 and conv.convert_level(0.5, "alpha_bar", "tau") == 0.5
    assert conv.convert_level(0.5, "alpha_bar", "log_snr") == 0
    many = conv.convert_level(SCHEDULE.alpha_bar[1:], "alpha_bar", "log_snr")
    torch.testing.assert_close(many, SCHEDULE.snr(torch.arange(1, 1001)).log(), rtol=0, atol=1e-11)
    assert type(conv.convert_level(0.3, "tau", "sigma")) is float and many.dtype == torch.float64


@pytest.mark.parametrize(
    ("value", "source", "to"),
    [(0.0, "alpha_bar", "sigma"), (1.1, "alpha_bar", "tau"), (-0.1, "sigma", "tau"), (1.0, "tau", "sigma"), (-0.1, "tau", "sigma"),
     (float("inf"), "sigma", "tau"), (float("nan"), "log_snr", "tau"), (1.0, "alpha_bar", "log_snr"), (-3000.0, "log_snr", "sigma"),
     (torch.tensor([0.5, 0.0]), "alpha_bar", "sigma"),
     (0.0, "alpha_bar", "alpha_bar"), (1.1, "alpha_bar", "alpha_bar"), (1.0, "tau", "tau"), (1.5, "tau", "tau"),
     (0.5, "alpha", "sigma"), (0.5, "sigma", "gamma")],
)  # fmt: skip
def test_levels_that_are_none_are_refused(value: float | Tensor, source: str, to: str) -> None:
    with pytest.raises(ValueCourseError, match="alpha_bar"):
        conv.convert_level(value, source, to)


# --- triples: level, picture, prediction -----------------------------------------------------------------------------


@given(st.floats(0.001, 0.999), numbers, numbers)
def test_triples_mean_the_same_picture(bar: float, start: float, noise: float) -> None:
    x_0, eps = column(start), column(noise)
    x_t = bar**0.5 * x_0 + (1 - bar) ** 0.5 * eps
    sigma, x, denoised = conv.to_edm(bar, x_t, eps)
    torch.testing.assert_close((x, denoised), (x_0 + sigma * eps, x_0), rtol=0, atol=1e-11)
    tau, flow, velocity = conv.to_flow(bar, x_t, eps)
    torch.testing.assert_close((flow, velocity), ((1 - tau) * x_0 + tau * eps, eps - x_0), rtol=0, atol=1e-11)
    for back in (conv.from_edm(sigma, x, denoised), conv.from_flow(tau, flow, velocity)):
        assert back[0] == pytest.approx(bar, rel=1e-12)
        torch.testing.assert_close(back[1:], (x_t, eps), rtol=0, atol=1e-10)


def test_clean_data_have_a_flow_but_no_score() -> None:
    x, velocity = draw(0, 3, 2), draw(1, 3, 2)
    bar, x_t, eps = conv.from_flow(0.0, x, velocity)
    assert bar == 1
    torch.testing.assert_close((x_t, eps), (x, x + velocity))
    for refused in (lambda: conv.from_edm(0.0, x, x), lambda: conv.edm_score(0.0, x, x), lambda: conv.flow_score(0.0, x, velocity)):
        with pytest.raises(ValueCourseError, match="without noise"):
            refused()
    with pytest.raises(ValueCourseError, match="without noise"):
        conv.edm_score(column(1.0, 0.0, 2.0), x, x)  # one row is enough


@pytest.mark.parametrize("function", [conv.to_edm, conv.from_edm, conv.edm_score, conv.to_flow, conv.from_flow, conv.flow_score])
def test_shapes_and_types(function) -> None:  # noqa: ANN001
    with pytest.raises(ShapeError):
        function(0.5, torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(CourseError):
        function(-0.5, torch.zeros(2, 3), torch.zeros(2, 3))
    made = function(torch.full((2, 1), 0.5, dtype=torch.float64), torch.ones(2, 3), torch.ones(2, 3))
    tensors = [made] if isinstance(made, Tensor) else list(made[1:])
    assert all(x.dtype == torch.float32 and x.shape == (2, 3) for x in tensors)


# --- their steps are DDIM's ------------------------------------------------------------------------------------------


@each_schedule
@pytest.mark.parametrize(("t", "s"), [(1000, 500), (700, 699), (500, 20), (60, 0), (1, 0)])
def test_one_euler_step_is_one_ddim_step(schedule: NoiseSchedule, t: int, s: int) -> None:
    x_t, eps = draw(2, 8, 3), draw(3, 8, 3)
    bar_t, bar_s = schedule.at(t), schedule.at(s)
    wanted = ddim_step(schedule, x_t, eps, t, s, eta=0.0)
    scale = 1 + (x_t.abs() + eps.abs()) / bar_t**0.5  # at t = T the linear x_0_hat is 150 times as large as x_T

    sigma, x, denoised = conv.to_edm(bar_t, x_t, eps)
    x = x + (conv.convert_level(bar_s, "alpha_bar", "sigma") - sigma) * (x - denoised) / sigma  # dx/dsigma = (x - D) / sigma
    assert float(((x * bar_s**0.5 - wanted).abs() / scale).max()) < 1e-12

    tau, x, velocity = conv.to_flow(bar_t, x_t, eps)
    tau_s = conv.convert_level(bar_s, "alpha_bar", "tau")
    x = x + (tau_s - tau) * velocity
    assert float(((x * (bar_s**0.5 / (1 - tau_s)) - wanted).abs() / scale).max()) < 1e-12


def test_rows_may_have_their_own_times() -> None:
    t = torch.tensor([3, 400, 1000])
    x_t, eps = draw(4, 3, 2), draw(5, 3, 2)
    for to, back in ((conv.to_edm, conv.from_edm), (conv.to_flow, conv.from_flow)):
        together = to(SCHEDULE.at(t, 2), x_t, eps)
        for row, level in enumerate(t.tolist()):
            alone = to(SCHEDULE.at(level), x_t[row : row + 1], eps[row : row + 1])
            assert float(together[0][row]) == pytest.approx(alone[0], rel=1e-14)
            torch.testing.assert_close(together[2][row : row + 1], alone[2], rtol=1e-13, atol=0)
        torch.testing.assert_close(back(*together), (SCHEDULE.at(t, 2), x_t, eps), rtol=1e-8, atol=1e-12)


# --- the score -------------------------------------------------------------------------------------------------------


def gradient(log_density, x: Tensor) -> Tensor:  # noqa: ANN001
    """Autograd's gradient of a log density (B,) at x (B, D)."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(log_density(x).sum(), x)[0]


@pytest.mark.parametrize("t", [1, 30, 500, 900])
def test_the_oracles_score_is_the_gradient_in_each_convention(t: int) -> None:
    bar, x_t = SCHEDULE.at(t), draw(6, 5, 2)
    noisy = MIXTURE.diffused(bar)
    eps = MIXTURE.eps_model(SCHEDULE)(x_t, torch.full((5,), t))
    ours = eps_to_score(SCHEDULE, x_t, t, eps)
    torch.testing.assert_close(ours, gradient(noisy.log_prob, x_t), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(conv.score_to_eps(bar, ours), eps, rtol=1e-12, atol=1e-12)

    sigma, x, denoised = conv.to_edm(bar, x_t, eps)  # EDM's density: data plus noise of std sigma, nothing shrunk
    spread = GaussianMixture(MIXTURE.weights, MIXTURE.means, (MIXTURE.stds**2 + sigma**2) ** 0.5)
    torch.testing.assert_close(conv.edm_score(sigma, x, denoised), gradient(spread.log_prob, x), rtol=1e-8, atol=1e-8)

    tau, x, velocity = conv.to_flow(bar, x_t, eps)
    line = GaussianMixture(MIXTURE.weights, (1 - tau) * MIXTURE.means, ((1 - tau) ** 2 * MIXTURE.stds**2 + tau**2) ** 0.5)
    torch.testing.assert_close(conv.flow_score(tau, x, velocity), gradient(line.log_prob, x), rtol=1e-8, atol=1e-8)


def test_the_denoiser_of_finite_data_is_a_weighted_mean_of_the_points() -> None:
    points, x_t, t = draw(7, 4, 2), draw(8, 6, 2), 600
    eps = FiniteData(points).eps_model(SCHEDULE)(x_t, torch.full((6,), t))
    sigma, x, denoised = conv.to_edm(SCHEDULE.at(t), x_t, eps)
    shares = torch.softmax(-(torch.cdist(x, points) ** 2) / (2 * sigma**2), 1)
    torch.testing.assert_close(denoised, shares @ points, rtol=0, atol=1e-10)


# --- schedules -------------------------------------------------------------------------------------------------------


@each_schedule
def test_ddims_alpha_is_our_alpha_bar(schedule: NoiseSchedule) -> None:
    alphas = conv.ddim_alphas(schedule)
    assert torch.equal(alphas, schedule.alpha_bar[1:]) and alphas.data_ptr() != schedule.alpha_bar[1:].data_ptr()
    back = conv.from_ddim_alphas(alphas)
    torch.testing.assert_close(back.alpha_bar, schedule.alpha_bar, rtol=1e-12, atol=0)
    torch.testing.assert_close(back.beta, schedule.beta, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [([], "vector"), ([[0.9]], "vector"), ([0.9, 0.0], "running products"), ([0.9, 0.95], "outside"), ([1.0, 0.5], "outside")],
)
def test_what_is_no_row_of_ddim_alphas(wrong: object, why: str) -> None:
    with pytest.raises(ScheduleError, match=why):
        conv.from_ddim_alphas(wrong)


@each_schedule
def test_continuous_beta_comes_back(schedule: NoiseSchedule) -> None:
    rates = conv.beta_rates(schedule)
    back = conv.from_beta_rates(rates)
    torch.testing.assert_close(back.beta, schedule.beta, rtol=1e-12, atol=1e-15)
    integral = rates.cumsum(0) / schedule.T
    torch.testing.assert_close((-integral).exp(), schedule.alpha_bar[1:], rtol=1e-10, atol=0)


def test_a_schedule_may_have_one_step() -> None:
    one = NoiseSchedule([0.3])
    for back in (conv.from_ddim_alphas(conv.ddim_alphas(one)), conv.from_beta_rates(conv.beta_rates(one)), conv.from_ddim_alphas([0.7])):
        torch.testing.assert_close(back.beta, one.beta)


def test_single_precision_pictures_meet_float64_levels() -> None:
    level, x, noise = SCHEDULE.at(torch.tensor([300]), 2), draw(9, 1, 4), draw(10, 1, 4)
    for function in (conv.to_edm, conv.to_flow, conv.from_flow):
        exact, made = function(level, x, noise), function(level, x.float(), noise.float())
        assert made[0].dtype == torch.float64 and made[1].dtype == made[2].dtype == torch.float32
        torch.testing.assert_close([m.double() for m in made[1:]], list(exact[1:]), rtol=1e-5, atol=1e-6)


def test_continuous_beta_against_the_sdes_formula() -> None:
    u, T = torch.arange(1, 1001, dtype=torch.float64) / 1000, 1000
    middles = 0.1 + (u - 0.5 / T) * 19.9  # beta(u) on a straight line from 0.1 to 20: a midpoint sum is its exact integral
    exact = (-(0.1 * u + 19.9 * u**2 / 2)).exp()
    torch.testing.assert_close(conv.from_beta_rates(middles).alpha_bar[1:], exact, rtol=1e-10, atol=0)
    difference = (conv.beta_rates(linear_schedule()) - 1000 * linear_schedule().beta[1:]).abs()
    assert 0 < float(difference.max()) < 0.21  # beta^2 T / 2: the two betas nearly agree, and only nearly


@pytest.mark.parametrize("wrong", [[], 1.0, [1.0, 0.0], [1.0, -1.0], [float("nan")], [[1.0]]])
def test_what_is_no_continuous_beta(wrong: object) -> None:
    with pytest.raises(ScheduleError):
        conv.from_beta_rates(wrong)
