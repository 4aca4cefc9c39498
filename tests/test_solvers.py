"""Fast solvers: orders of convergence on an exact oracle, agreement with hand-written steps, inversion."""

import math

import pytest
import torch

from ddpm_course import ddim_sample, linear_schedule, quadratic_schedule, rescale_zero_terminal_snr, time_grid, trajectory
from ddpm_course.errors import CourseError, ShapeError, TimestepError
from ddpm_course.exact import ExactGaussian, GaussianMixture
from ddpm_course.prediction import as_eps_model, eps_to_v
from ddpm_course.sampling import ddim_stepper, last
from ddpm_course.solvers import (
    ddim_invert,
    dpm_solver_sample,
    dpm_solver_stepper,
    heun_sample,
    heun_stepper,
    sigma_grid,
    sigma_of,
    slerp,
)

SCHEDULE = linear_schedule()
SMOOTH = GaussianMixture(torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.3], [0.8, -0.2]]), torch.tensor([0.3, 0.35]))
MODEL = SMOOTH.eps_model(SCHEDULE)
STEPPERS = {"ddim": ddim_stepper, "heun": heun_stepper, "dpm": dpm_solver_stepper}


def seed(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def start(n: int = 16) -> torch.Tensor:
    return torch.randn(n, 2, generator=seed(0), dtype=torch.float64)


def rk4(x: torch.Tensor, first: int, end: int) -> torch.Tensor:
    """The probability-flow ODE dy/dsigma = eps, integrated from t = first to t = end with two timesteps a step."""
    y = x / SCHEDULE.at(first) ** 0.5
    slope = lambda y, t: MODEL(y * SCHEDULE.at(t) ** 0.5, torch.full((len(y),), t))  # noqa: E731
    for t in range(first, end, -2):
        a, m, b = (sigma_of(SCHEDULE, k) for k in (t, t - 1, t - 2))
        h, share = b - a, (m - a) / (b - a)  # the middle time is not the middle sigma: fit a parabola through the three slopes
        k_1 = slope(y, t)
        k_2 = slope(y + share * h * k_1, t - 1)
        k_3 = slope(y + share * h * (k_1 + k_2) / 2, t - 1)
        w_m = (0.5 - 0.0) / 1.0 if share == 0.5 else (1 / 6) / (share * (1 - share))
        w_b = 0.5 - w_m * share
        k_4 = slope(y + h * ((1 - w_m - w_b) * k_1 + w_m * k_3 + w_b * k_3), t - 2)
        y = y + h * ((1 - w_m - w_b) * k_1 + w_m * k_3 + w_b * k_4)
    return y * SCHEDULE.at(end) ** 0.5


def order(errors: dict[int, float]) -> float:
    x, y = torch.tensor(list(errors)).double().log(), torch.tensor(list(errors.values())).double().log()
    return -float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return rk4(start(), 1000, 100)


@pytest.mark.parametrize(("name", "wanted", "tolerance"), [("ddim", 1.0, 0.15), ("heun", 2.0, 0.3), ("dpm", 2.0, 0.3)])
def test_orders_of_convergence_on_a_mixture(name: str, wanted: float, tolerance: float, truth: torch.Tensor) -> None:
    errors = {}
    for S in (8, 10, 20, 40, 80, 160):
        nodes = [round(1000 - 900 * k / S) for k in range(S + 1)]
        x = last(trajectory(STEPPERS[name](MODEL, SCHEDULE), start(), nodes))
        errors[S] = float((x - truth).norm(dim=1).mean())
    assert abs(order(errors) - wanted) < tolerance, errors


def test_the_reference_is_finer_than_what_it_judges(truth: torch.Tensor) -> None:
    nodes = list(range(1000, 99, -1))
    best = last(trajectory(heun_stepper(MODEL, SCHEDULE), start(), nodes))
    assert float((best - truth).norm(dim=1).mean()) < 2e-5


def test_ddim_is_eulers_step_in_sigma() -> None:
    x, t, s = start(), 700, 300
    eps = MODEL(x, torch.full((len(x),), t))
    y = x / SCHEDULE.at(t) ** 0.5 + (sigma_of(SCHEDULE, s) - sigma_of(SCHEDULE, t)) * eps
    x_s, _ = ddim_stepper(MODEL, SCHEDULE)(x, t, s)
    torch.testing.assert_close(x_s, y * SCHEDULE.at(s) ** 0.5, rtol=0, atol=1e-12)


def test_heun_by_hand() -> None:
    x, t, s = start(), 700, 300
    asked = []

    def counted(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(int(t[0]))
        return MODEL(x_t, t)

    a, b = sigma_of(SCHEDULE, t), sigma_of(SCHEDULE, s)
    y = x / SCHEDULE.at(t) ** 0.5
    first = MODEL(x, torch.full((len(x),), t))
    second = MODEL((y + (b - a) * first) * SCHEDULE.at(s) ** 0.5, torch.full((len(x),), s))
    wanted = (y + (b - a) * (first + second) / 2) * SCHEDULE.at(s) ** 0.5
    torch.testing.assert_close(heun_stepper(counted, SCHEDULE)(x, t, s)[0], wanted, rtol=0, atol=1e-12)
    heun_stepper(counted, SCHEDULE)(x, 3, 0)
    assert asked == [700, 300, 3]  # nobody is asked at t = 0


def test_dpm_solver_by_hand_and_its_memory() -> None:
    step, x, fresh = dpm_solver_stepper(MODEL, SCHEDULE), start(), dpm_solver_stepper(MODEL, SCHEDULE)
    lam = lambda t: 0.5 * math.log(SCHEDULE.at(t) / (1 - SCHEDULE.at(t)))  # noqa: E731
    x_1, d_0 = step(x, 900, 600)
    h = lam(600) - lam(900)
    spread = lambda t: (1 - SCHEDULE.at(t)) ** 0.5  # noqa: E731
    wanted = spread(600) / spread(900) * x - SCHEDULE.at(600) ** 0.5 * (math.exp(-h) - 1) * d_0
    torch.testing.assert_close(x_1, wanted, rtol=0, atol=1e-12)
    x_2, d_1 = step(x_1, 600, 400)
    h_2 = lam(400) - lam(600)
    r = h / h_2
    mixed = (1 + 1 / (2 * r)) * d_1 - 1 / (2 * r) * d_0
    wanted = spread(400) / spread(600) * x_1 - SCHEDULE.at(400) ** 0.5 * (math.exp(-h_2) - 1) * mixed
    torch.testing.assert_close(x_2, wanted, rtol=0, atol=1e-12)
    assert not torch.equal(step(x_1, 600, 400)[0], x_2)  # its last step ended at 400: this one does not follow, so it is of first order
    torch.testing.assert_close(fresh(x_1, 600, 400)[0], step(x_1, 600, 400)[0])
    x_0, d_2 = step(x_2, 400, 0)
    torch.testing.assert_close(x_0, d_2, rtol=0, atol=1e-12)


def test_the_memory_is_not_the_callers_to_change() -> None:
    kept, spoilt = dpm_solver_stepper(MODEL, SCHEDULE), dpm_solver_stepper(MODEL, SCHEDULE)
    x_1, _ = kept(start(), 900, 600)
    spoilt(start(), 900, 600)[1].zero_()
    torch.testing.assert_close(spoilt(x_1, 600, 300)[0], kept(x_1, 600, 300)[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", STEPPERS)
def test_a_step_goes_down(name: str) -> None:
    for t, s in ((500, 500), (500, 600), (0, 0), (1001, 500)):
        with pytest.raises(TimestepError):
            STEPPERS[name](MODEL, SCHEDULE)(start(), t, s)


def test_samplers_land_on_the_data() -> None:
    for sample, calls in ((heun_sample, 24), (dpm_solver_sample, 40)):
        x = sample(MODEL, SCHEDULE, (4000, 2), num_steps=calls, generator=seed(1)).double()
        wanted = SMOOTH.sample(4000, seed(2))
        assert float((x.mean(0) - wanted.mean(0)).abs().max()) < 0.08
        assert float((x.T.cov() - wanted.T.cov()).abs().max()) < 0.08


@pytest.mark.parametrize("sample", [heun_sample, dpm_solver_sample])
@pytest.mark.parametrize(("shape", "dtype"), [((3, 5), torch.float32), ((2, 3, 7), torch.float64), ((2, 3, 4, 6), torch.float32)])
def test_any_shape_and_type_and_the_same_generator(sample: object, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    model = lambda x_t, t: 0.3 * x_t  # noqa: E731
    x_T = torch.randn(shape, generator=seed(3)).to(dtype)
    assert sample(model, SCHEDULE, x_T=x_T, num_steps=4).dtype == dtype
    one, two = (sample(model, SCHEDULE, shape, num_steps=4, generator=seed(4)) for _ in range(2))
    assert torch.equal(one, two) and one.shape == shape
    assert float(sample(model, SCHEDULE, shape, num_steps=4, edit=lambda x, s: 0 * x).abs().max()) == 0


def test_two_runs_of_one_solver_do_not_remember_each_other() -> None:
    model = ExactGaussian(torch.zeros(2), torch.eye(2) * 0.3).eps_model(SCHEDULE)
    step, grid = dpm_solver_stepper(model, SCHEDULE), time_grid(1000, 5)
    one, two = (last(trajectory(step, start(), grid)) for _ in range(2))
    assert torch.equal(one, two)


def test_edms_grid_in_integers() -> None:
    sigmas = [sigma_of(SCHEDULE, t) for t in range(1001)]
    for S in (1, 2, 5, 18, 100, 800):
        grid = sigma_grid(SCHEDULE, S).tolist()
        assert len(grid) == S + 1 and grid[-1] == 0 and all(t > s for t, s in zip(grid, grid[1:], strict=False))
        assert sigmas[grid[0]] <= 80 and (grid[0] == 1000 or sigmas[grid[0] + 1] > 80)
        assert S == 1 or grid[-2] == 1
    grid = sigma_grid(SCHEDULE, 6, sigma_max=50).tolist()
    first, end = sigmas[grid[0]] ** (1 / 7), sigmas[1] ** (1 / 7)
    for k, t in enumerate(grid[:-1]):
        wanted = (first + k / 5 * (end - first)) ** 7
        assert min(range(1, 1001), key=lambda u: abs(math.log(sigmas[u] / wanted))) == t  # noqa: B023
    for bad in (0, 1001, 2.5, True, None):
        with pytest.raises(TimestepError, match="num_steps"):
            sigma_grid(SCHEDULE, bad)
    for sigma_max, rho in ((0.001, 7.0), (math.nan, 7.0), (80.0, 0.0), (80.0, math.nan)):
        with pytest.raises(CourseError, match="sigma_max"):
            sigma_grid(SCHEDULE, 5, sigma_max, rho)


def test_a_schedule_that_ends_in_almost_no_signal() -> None:
    flat = rescale_zero_terminal_snr(linear_schedule(), 1e-6)
    assert sigma_of(flat, 1000) > 80 and sigma_of(flat, int(sigma_grid(flat, 10)[0])) <= 80
    model = SMOOTH.eps_model(flat)
    x = heun_sample(model, flat, (2000, 2), num_steps=12, generator=seed(1)).double()
    assert x.isfinite().all() and float((x.mean(0) - SMOOTH.sample(2000, seed(2)).mean(0)).abs().max()) < 0.1


def test_with_almost_no_signal_at_the_end_v_forgives_what_eps_does_not() -> None:
    """Both networks are wrong by 0.01 everywhere. At T that moves x_0_hat by 10 or by 0.01; ten steps do not repair the former."""
    flat = rescale_zero_terminal_snr(quadratic_schedule(1000, 0.00085, 0.012), 1e-6)
    perfect = ExactGaussian(torch.ones(1), torch.full((1, 1), 0.25)).eps_model(flat)
    x_T = torch.randn(2000, 1, generator=seed(3), dtype=torch.float64)
    mean = lambda model: float(ddim_sample(model, flat, x_T=x_T, num_steps=10).mean())  # noqa: E731
    by_eps = mean(as_eps_model(lambda x, t: perfect(x, t) + 0.01, flat, "eps"))
    by_v = mean(as_eps_model(lambda x, t: eps_to_v(flat, x, t, perfect(x, t)) + 0.01, flat, "v"))
    exact = mean(perfect)
    assert abs(by_v - exact) < 0.02 and exact - by_eps > 0.15


# --- inversion -------------------------------------------------------------------------------------------------------


def round_trip(S: int, iterations: int) -> float:
    x_0 = SMOOTH.sample(100, seed(5))
    x_T = ddim_invert(MODEL, SCHEDULE, x_0, S, iterations=iterations)
    return float((ddim_sample(MODEL, SCHEDULE, x_T=x_T, num_steps=S) - x_0).abs().max())


def test_inversion_error_falls_like_one_over_steps() -> None:
    errors = {S: round_trip(S, 1) for S in (125, 250, 500, 1000)}
    assert abs(order(errors) - 1) < 0.3, errors


@pytest.mark.parametrize("S", [50, 70])
def test_fixed_point_inversion_is_exact(S: int) -> None:
    assert round_trip(S, 60) < 1e-9
    assert round_trip(S, 1) > 1e-3


def test_inversion_ends_in_noise_and_refuses() -> None:
    x_T = ddim_invert(MODEL, SCHEDULE, SMOOTH.sample(4000, seed(6)), 100)
    assert abs(float(x_T.std()) - 1) < 0.05 and float(x_T.mean(0).abs().max()) < 0.06
    for bad in (0, 1.5, True):
        with pytest.raises(CourseError, match="iterations"):
            ddim_invert(MODEL, SCHEDULE, start(), 10, iterations=bad)


# --- arcs ------------------------------------------------------------------------------------------------------------


def test_slerp_keeps_the_length_of_noise() -> None:
    a, b = torch.randn(2, 5, 3, 8, 8, generator=seed(7)).double()
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    half = slerp(a, b, 0.5).flatten(1).norm(dim=1)
    assert float((half / a.flatten(1).norm(dim=1) - 1).abs().max()) < 0.2
    assert float((((a + b) / 2).flatten(1).norm(dim=1) / half).max()) < 0.8
    unit_x, unit_y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(slerp(unit_x, unit_y, 1 / 3), torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]]))
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    for bad in (b[:2], b.long()):
        with pytest.raises(ShapeError, match="must be"):
            slerp(a, bad, 0.5)
    with pytest.raises(ShapeError, match="batch"):
        slerp(a[0, 0, 0, 0], b[0, 0, 0, 0], 0.5)
    for weight in (-0.1, 1.5, math.nan):
        with pytest.raises(CourseError, match="weight"):
            slerp(a, b, weight)
