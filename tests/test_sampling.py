"""Grids, steps, and the samplers built from them."""

import mpmath as mp
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ddpm_course import (
    CourseError,
    ddim_sample,
    ddim_step,
    ddpm_sample,
    ddpm_step,
    linear_schedule,
    q_posterior,
    time_grid,
    trajectory,
)
from ddpm_course.errors import ShapeError, TimestepError
from ddpm_course.sampling import SPACINGS, check_grid, ddim_stepper, ddim_variance, ddpm_stepper
from ddpm_course.schedule import SCHEDULES

each_family = pytest.mark.parametrize("name", reference.NAMES)


def seed(n: int) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def model(x_t: Tensor, t: Tensor) -> Tensor:
    """Some nonlinear eps_model for any shape."""
    return (0.9 * x_t + 0.3).sin() + t.reshape(-1, *[1] * (x_t.ndim - 1)).to(x_t) / 2000


def probes(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.randn(3, *shape, generator=seed(0), dtype=dtype))


# --- grids -----------------------------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from(sorted(SPACINGS)))
def test_grids_fall_strictly_from_at_most_T_to_0(data: st.DataObject, spacing: str) -> None:
    T = data.draw(st.integers(1, 1200))
    S = data.draw(st.integers(1, T))
    grid = time_grid(T, S, spacing)
    assert grid.dtype == torch.int64 and grid.shape == (S + 1,) and int(grid[-1]) == 0
    assert bool((grid[1:] < grid[:-1]).all()) and int(grid[-2]) >= 1 and int(grid[0]) <= T
    assert spacing == "leading" or int(grid[0]) == T


@given(st.data())
def test_grids_equal_their_formulas(data: st.DataObject) -> None:
    T = data.draw(st.integers(2, 1000))
    S = data.draw(st.integers(2, T))
    ks = [mp.mpf(k) for k in range(S, 0, -1)]
    exact = {
        "trailing": [k * T / S for k in ks],
        "linspace": [T - mp.mpf(i) * (T - 1) / (S - 1) for i in range(S)],
        "quadratic": [max(k, T * (k / S) ** 2) for k in ks],
    }
    for spacing, wanted in exact.items():
        assert all(abs(a - b) <= 0.5 + 1e-9 for a, b in zip(time_grid(T, S, spacing).tolist(), wanted, strict=False))
    assert time_grid(T, S, "leading").tolist() == [1 + int(mp.floor((k - 1) * T / S)) for k in ks] + [0]


def test_small_grids_by_hand() -> None:
    assert time_grid(10, 5).tolist() == [10, 8, 6, 4, 2, 0]
    assert time_grid(10, 4, "trailing").tolist() == [10, 8, 5, 2, 0]
    assert time_grid(10, 3, "leading").tolist() == [7, 4, 1, 0]
    assert time_grid(10, 4, "linspace").tolist() == [10, 7, 4, 1, 0]
    assert time_grid(16, 4, "quadratic").tolist() == [16, 9, 4, 1, 0]
    assert time_grid(10, 5, "quadratic").tolist() == [10, 6, 4, 2, 1, 0]
    for spacing in SPACINGS:
        assert time_grid(1, 1, spacing).tolist() == [1, 0]
        assert time_grid(6, 6, spacing).tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert time_grid(9, 1, "linspace").tolist() == [9, 0]


def test_a_grid_is_checked_once() -> None:
    schedule = linear_schedule(10)
    assert check_grid(schedule, torch.tensor([10, 4, 0])) == [10, 4, 0] == check_grid(schedule, (10, 4, 0))
    assert check_grid(schedule, [1, 0]) == [1, 0]
    for bad in ([0], [], [5, 5, 0], [4, 5, 0], [11, 0], [5, 1], [5, 2.0, 0], [3, 0, -1], torch.tensor([5.0, 0.0])):
        with pytest.raises(TimestepError, match="falls strictly"):
            check_grid(schedule, bad)


# --- one step --------------------------------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ddpm_step_coefficients_at_every_t(name: str, variance: str) -> None:
    schedule, bars = SCHEDULES[name](), reference.alpha_bars(name)
    for t, s in [*((t, t - 1) for t in (2, 3, 10, 500, 999, 1000)), (1000, 900), (600, 1), (37, 20)]:
        alpha, one, zero = bars[t] / bars[s], torch.ones(1, 1).double(), torch.zeros(1, 1).double()
        var = 1 - alpha if variance == "beta" else reference.posterior(bars[t], bars[s])[2]
        of_x = float(ddpm_step(schedule, one, zero, t, s, zero, variance))
        of_eps = float(ddpm_step(schedule, zero, one, t, s, zero, variance))
        of_z = float(ddpm_step(schedule, zero, zero, t, s, one, variance))
        assert of_x == pytest.approx(float(1 / mp.sqrt(alpha)), rel=1e-10)
        assert of_eps == pytest.approx(float(-(1 - alpha) / mp.sqrt(1 - bars[t]) / mp.sqrt(alpha)), rel=1e-9)
        assert of_z == pytest.approx(float(mp.sqrt(var)), rel=1e-9)


@each_family
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_step_coefficients(name: str, eta: float) -> None:
    schedule, bars = SCHEDULES[name](), reference.alpha_bars(name)
    for t, s in [(2, 1), (1000, 999), (1000, 980), (600, 1), (37, 20), (500, 0), (1, 0)]:
        one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
        var = mp.mpf(eta) ** 2 * (1 - bars[s]) / (1 - bars[t]) * (1 - bars[t] / bars[s])
        of_x = float(ddim_step(schedule, one, zero, t, s, zero, eta))
        of_eps = float(ddim_step(schedule, zero, one, t, s, zero, eta))
        of_z = float(ddim_step(schedule, zero, zero, t, s, one, eta))
        ratio = mp.sqrt(bars[s] / bars[t])
        assert of_x == pytest.approx(float(ratio), rel=1e-9)
        assert of_eps == pytest.approx(float(mp.sqrt(1 - bars[s] - var) - ratio * mp.sqrt(1 - bars[t])), rel=1e-8, abs=1e-10)
        assert of_z == pytest.approx(float(mp.sqrt(var)), rel=1e-9)
        assert ddim_variance(schedule, t, s, eta) == pytest.approx(float(var), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ddpm_mean_is_the_posterior_mean_at_x_0_hat(dtype: torch.dtype) -> None:
    schedule, (x_t, eps, _) = linear_schedule(), probes(4, dtype=dtype)
    for t, s in [(1, 0), (2, 1), (1000, 999), (700, 300), (900, 0)]:
        bar = float(reference.alpha_bars("linear")[t])
        x_0_hat = (x_t - (1 - bar) ** 0.5 * eps) / bar**0.5
        wanted = q_posterior(schedule, x_0_hat, x_t, t, s)[0]
        got = ddpm_step(schedule, x_t, eps, t, s, torch.zeros_like(x_t))
        tolerance = 1e-4 if dtype == torch.float32 else 1e-9
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@each_family
def test_ddim_with_eta_1_is_ddpm_on_the_full_grid(name: str) -> None:
    schedule, (x_t, eps, z) = SCHEDULES[name](), probes(8)
    for t in range(1, 1001):
        by_ddpm = ddpm_step(schedule, x_t[:1], eps[:1], t, t - 1, z[:1], "posterior")
        by_ddim = ddim_step(schedule, x_t[:1], eps[:1], t, t - 1, z[:1], eta=1)
        scale = max(1.0, schedule.at(t - 1) ** 0.5 / schedule.at(t) ** 0.5)
        assert float((by_ddpm - by_ddim).abs().max()) < 1e-9 * scale


def test_ddim_with_eta_1_walks_with_ddpm_over_a_whole_chain() -> None:
    schedule, x_T = linear_schedule(), torch.randn(4, 3, generator=seed(1), dtype=torch.float64)
    by_ddpm = ddpm_sample(model, schedule, x_T=x_T, generator=seed(2))
    by_ddim = ddim_sample(model, schedule, x_T=x_T, num_steps=1000, eta=1.0, generator=seed(2))
    assert float((by_ddpm - by_ddim).abs().max()) < 1e-9 * float(by_ddpm.abs().max().clamp(min=1))


@pytest.mark.parametrize("shape", [(5,), (2, 6), (1, 4, 4)])
def test_tensor_times_equal_int_times(shape: tuple[int, ...]) -> None:
    schedule, (x_t, eps, z) = linear_schedule(), torch.randn(3, 4, *shape, generator=seed(3)).double()
    t, s = torch.tensor([1, 2, 500, 1000]), torch.tensor([0, 1, 480, 0])
    for step in (
        lambda t, s: ddpm_step(schedule, x_t, eps, t, s, z, "beta"),
        lambda t, s: ddpm_step(schedule, x_t, eps, t, s, z, "posterior"),
        lambda t, s: ddpm_step(schedule, x_t, eps, t, s, z, "posterior_clipped"),
        lambda t, s: ddim_step(schedule, x_t, eps, t, s, z, 0.7),
        lambda t, s: ddim_step(schedule, x_t, eps, t, s, z),
    ):
        together = step(t, s)
        for i in range(4):
            torch.testing.assert_close(together[i], step(int(t[i]), int(s[i]))[i], rtol=1e-10, atol=1e-10)


def test_one_time_may_be_an_int_and_the_other_a_tensor() -> None:
    schedule, (x_t, eps, z) = linear_schedule(), probes(3, 4)
    t, s = torch.full((3,), 50), torch.full((3,), 20)
    for step in (
        lambda t, s: ddpm_step(schedule, x_t, eps, t, s, z, "beta"),
        lambda t, s: ddim_step(schedule, x_t, eps, t, s, z, 0.5),
    ):
        for pair in [(t, 20), (50, s)]:
            torch.testing.assert_close(step(*pair), step(50, 20), rtol=1e-12, atol=1e-12)
        for pair in [(t, 0), (50, 0 * s)]:
            torch.testing.assert_close(step(*pair), step(50, 0), rtol=1e-12, atol=1e-12)


def test_coefficients_take_the_type_of_x_t() -> None:
    schedule, (x_t, eps, z) = linear_schedule(), probes(3, 4, dtype=torch.float32)
    t, s = torch.tensor([2, 300, 1000]), torch.tensor([1, 280, 900])
    for step in (
        lambda *x: ddpm_step(schedule, x[0], x[1], t, s, x[2], "beta"),
        lambda *x: ddim_step(schedule, x[0], x[1], t, s, x[2], 0.5),
    ):
        torch.testing.assert_close(step(x_t.double(), eps, z), step(x_t.double(), eps.double(), z.double()), rtol=0, atol=1e-14)


def test_no_noise_at_the_end() -> None:
    schedule, (x_t, eps, z) = linear_schedule(), probes(3)
    for t in (1, 20):
        for variance in ("posterior", "beta", "posterior_clipped", lambda t, s: 9.0):
            assert torch.equal(ddpm_step(schedule, x_t, eps, t, 0, z, variance), ddpm_step(schedule, x_t, eps, t, 0, None, variance))
        assert torch.equal(ddim_step(schedule, x_t, eps, t, 0, z, 1.0), ddim_step(schedule, x_t, eps, t, 0, None, 0.0))
    nonsense = torch.full_like(x_t, float("nan"))  # z is not even read
    assert (
        ddpm_step(schedule, x_t, eps, 1, 0, nonsense).isfinite().all()
        and ddim_step(schedule, x_t, eps, 1, 0, nonsense, 1.0).isfinite().all()
    )
    clean = (x_t - (1 - schedule.at(20)) ** 0.5 * eps) / schedule.at(20) ** 0.5
    torch.testing.assert_close(ddpm_step(schedule, x_t, eps, 20, 0, None), clean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ddim_step(schedule, x_t, eps, 20, 0), clean, rtol=1e-10, atol=1e-10)


def test_your_own_variance_is_used() -> None:
    schedule, zero, one = linear_schedule(), torch.zeros(1, 2), torch.ones(1, 2)
    assert torch.allclose(ddpm_step(schedule, zero, zero, 7, 5, one, lambda t, s: t + s / 10), one * 7.5**0.5)
    assert torch.equal(ddpm_step(schedule, zero, zero, 7, 5, None, lambda t, s: 0.0), zero)


def test_eta_defaults_to_zero_and_needs_no_noise() -> None:
    schedule, (x_t, eps, z) = linear_schedule(), probes(3)
    assert torch.equal(ddim_step(schedule, x_t, eps, 9, 5), ddim_step(schedule, x_t, eps, 9, 5, z, 0.0))
    late, early, nonsense = torch.full((3,), 9), torch.full((3,), 5), torch.full_like(x_t, float("nan"))
    assert torch.equal(ddim_step(schedule, x_t, eps, late, early), ddim_step(schedule, x_t, eps, late, early, z, 0.0))
    assert torch.equal(ddim_step(schedule, x_t, eps, 9, 5), ddim_step(schedule, x_t, eps, 9, 5, nonsense, 0.0))  # z is not read
    assert ddim_variance(schedule, 9, 5, 0.0) == 0
    assert ddim_variance(schedule, torch.tensor([9, 10]), torch.tensor([5, 5]), 0.5).shape == (2,)
    column = ddim_variance(schedule, torch.tensor([9, 10]), torch.tensor([5, 5]), 0.5, ndim=3)
    assert column.shape == (2, 1, 1)


def test_steps_refuse() -> None:
    schedule, (x, eps, z) = linear_schedule(10), probes(3)
    for step in (ddpm_step, ddim_step):
        for t, s in [(5, 5), (5, 6), (0, 0), (11, 1), (5, -1)]:
            with pytest.raises(TimestepError):
                step(schedule, x, eps, t, s, z)
        with pytest.raises(ShapeError, match="eps has shape"):
            step(schedule, x, eps[:1], 5, 4, z)
    for bad in (lambda: ddpm_step(schedule, x, eps, 5, 4, None), lambda: ddim_step(schedule, x, eps, 5, 4, None, 0.5)):
        with pytest.raises(CourseError, match="pass z"):
            bad()
    with pytest.raises(CourseError, match="pass z"):
        ddpm_step(schedule, x, eps, torch.full((3,), 5), torch.full((3,), 4), None)
    for bad in (lambda: ddpm_step(schedule, x, eps, 5, 4, z[:1]), lambda: ddim_step(schedule, x, eps, 5, 4, z[:1], 0.5)):
        with pytest.raises(ShapeError, match="z has shape"):
            bad()
    for eta in (-0.1, 1.1):
        with pytest.raises(CourseError, match=r"eta = .* must lie in \[0, 1\]"):
            ddim_step(schedule, x, eps, 5, 4, z, eta)


# --- samplers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 5), (2, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_shape_and_type(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    schedule, x_T = linear_schedule(20), torch.randn(shape, generator=seed(0), dtype=dtype)
    for x in (ddpm_sample(model, schedule, x_T=x_T), ddim_sample(model, schedule, x_T=x_T, num_steps=5, eta=0.5)):
        assert x.shape == shape and x.dtype == dtype and bool(torch.isfinite(x).all())
    assert ddpm_sample(model, schedule, shape, num_steps=4).dtype == torch.float32


@pytest.mark.parametrize("sample", [ddpm_sample, lambda *a, **k: ddim_sample(*a, num_steps=10, eta=0.8, **k)], ids=["ddpm", "ddim"])
def test_same_generator_same_samples(sample: object) -> None:
    schedule = linear_schedule(30)
    first, again, other = (sample(model, schedule, (4, 2), generator=seed(n)) for n in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    state = torch.random.get_rng_state()
    sample(model, schedule, (4, 2), generator=seed(5))
    assert torch.equal(state, torch.random.get_rng_state())


def test_eta_0_twice_is_equal_and_draws_nothing() -> None:
    schedule, x_T, generator = linear_schedule(), torch.randn(4, 2, generator=seed(0)), seed(1)
    before = generator.get_state()
    first = ddim_sample(model, schedule, x_T=x_T, generator=generator)
    assert torch.equal(before, generator.get_state())
    assert torch.equal(first, ddim_sample(model, schedule, x_T=x_T))


def test_ddpm_sample_is_the_loop_one_would_write() -> None:
    schedule, x = linear_schedule(25), torch.randn(3, 2, generator=seed(0), dtype=torch.float64)
    got, generator = ddpm_sample(model, schedule, x_T=x, variance="beta", generator=seed(9)), seed(9)
    bars = [float(b) for b in linear_schedule(25).alpha_bar]
    for t in range(25, 0, -1):
        beta = 1 - bars[t] / bars[t - 1]
        x = (x - beta / (1 - bars[t]) ** 0.5 * model(x, torch.full((3,), t))) / (1 - beta) ** 0.5
        if t > 1:
            x = x + beta**0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


def test_ddim_sample_is_the_loop_one_would_write() -> None:
    schedule, x = linear_schedule(25), torch.randn(3, 2, generator=seed(0), dtype=torch.float64)
    got = ddim_sample(model, schedule, x_T=x, num_steps=5)
    bars = [float(b) for b in linear_schedule(25).alpha_bar]
    for t in (25, 20, 15, 10, 5):
        eps = model(x, torch.full((3,), t))
        x = bars[t - 5] ** 0.5 * (x - (1 - bars[t]) ** 0.5 * eps) / bars[t] ** 0.5 + (1 - bars[t - 5]) ** 0.5 * eps
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


def test_grids_of_the_samplers() -> None:
    schedule, seen = linear_schedule(60), []

    def spy(x_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (2,) and t.dtype == torch.int64
        seen.append(int(t[0]))
        return x_t

    ddpm_sample(spy, schedule, (2, 2))
    assert seen == list(range(60, 0, -1))
    seen.clear()
    ddim_sample(spy, schedule, (2, 2))
    assert seen == time_grid(60, 50).tolist()[:-1]
    for sample in (ddpm_sample, ddim_sample):
        seen.clear()
        sample(spy, schedule, (2, 2), num_steps=4)
        sample(spy, schedule, (2, 2), grid=torch.tensor([50, 7, 0]))
        assert seen == [60, 45, 30, 15, 50, 7]


def test_trajectory_yields_every_time_once_more_than_steps() -> None:
    schedule, x_T = linear_schedule(12), torch.randn(2, 3, generator=seed(0))
    triples = list(trajectory(ddpm_stepper(model, schedule, generator=seed(1)), x_T, time_grid(12, 6)))
    assert [t for t, _, _ in triples] == [12, 10, 8, 6, 4, 2, 0]
    assert torch.equal(triples[0][1], x_T) and triples[-1][1] is triples[-1][2]
    assert torch.equal(triples[-1][1], ddpm_sample(model, schedule, x_T=x_T, num_steps=6, generator=seed(1)))
    for t, x_t, x_0_hat in triples[:-1]:
        bar = schedule.at(t)
        torch.testing.assert_close(x_0_hat, (x_t - (1 - bar) ** 0.5 * model(x_t, torch.full((2,), t))) / bar**0.5)
    by_ddim = list(trajectory(ddim_stepper(model, schedule), x_T, [12, 5, 0]))
    bar = schedule.at(12)
    torch.testing.assert_close(by_ddim[0][2], (x_T - (1 - bar) ** 0.5 * model(x_T, torch.full((2,), 12))) / bar**0.5)
    assert len(by_ddim) == 3


@pytest.mark.parametrize("sample", [ddpm_sample, ddim_sample])
def test_edit_sees_every_new_state_and_changes_it(sample: object) -> None:
    seen = []

    def edit(x_s: Tensor, s: int) -> Tensor:
        seen.append(s)
        return torch.full_like(x_s, float(s))

    schedule, asked = linear_schedule(10), []
    x = sample(lambda x, t: asked.append(float(x[0, 0])) or x, schedule, (2, 2), num_steps=5, edit=edit)
    assert seen == [8, 6, 4, 2, 0] and asked[1:] == [8.0, 6.0, 4.0, 2.0] and torch.equal(x, torch.zeros(2, 2))


def test_no_gradients_but_they_can_be_switched_on_inside() -> None:
    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        assert not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            return torch.autograd.grad((x**2).sum(), x)[0] / 2

    x_T = torch.ones(1, 2, requires_grad=True)
    for sample in (ddpm_sample, ddim_sample):
        assert not sample(guided, linear_schedule(5), x_T=x_T, num_steps=3).requires_grad


@pytest.mark.parametrize("sample", [ddpm_sample, ddim_sample])
def test_samplers_refuse(sample: object) -> None:
    schedule = linear_schedule(10)
    for arguments in ({}, {"shape": (1, 2), "x_T": torch.zeros(1, 2)}):
        with pytest.raises(ShapeError, match="either shape .* or x_T"):
            sample(model, schedule, num_steps=5, **arguments)
    with pytest.raises(ShapeError, match="x_T must be a floating-point"):
        sample(model, schedule, x_T=torch.zeros(1, 2, dtype=torch.uint8), num_steps=5)
    for num_steps in (0, 11, -1, 2.5):
        with pytest.raises(TimestepError, match=r"must be an integer in 1\.\.T"):
            sample(model, schedule, (1, 2), num_steps=num_steps)
    with pytest.raises(TimestepError, match="falls strictly"):
        sample(model, schedule, (1, 2), grid=torch.tensor([11, 0]))
