"""q in one step and in one jump: coefficients against 40 digits, laws against each other."""

import mpmath as mp
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm_course import linear_schedule, q_sample, q_step
from ddpm_course.errors import ShapeError, TimestepError
from ddpm_course.forward import draw
from ddpm_course.schedule import SCHEDULES

each_family = pytest.mark.parametrize("name", reference.NAMES)
ALL = torch.arange(1, 1001)


def seeded(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def on_off(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(1000, 1, dtype=dtype), torch.zeros(1000, 1, dtype=dtype)


@each_family
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_q_sample_coefficients_at_every_t(name: str, dtype: torch.dtype, tolerance: float) -> None:
    schedule, (one, zero) = SCHEDULES[name](), on_off(dtype)
    bars = reference.alpha_bars(name)[1:]
    signal, noise = q_sample(schedule, one, ALL, zero), q_sample(schedule, zero, ALL, one)
    assert signal.dtype == noise.dtype == dtype
    assert reference.relative(signal[:, 0], reference.tensor([mp.sqrt(b) for b in bars])) < tolerance
    assert reference.relative(noise[:, 0], reference.tensor([mp.sqrt(1 - b) for b in bars])) < tolerance


@each_family
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_q_step_coefficients_at_every_t(name: str, dtype: torch.dtype, tolerance: float) -> None:
    schedule, (one, zero), betas = SCHEDULES[name](), on_off(dtype), reference.betas(name)
    signal, noise = q_step(schedule, one, ALL, zero), q_step(schedule, zero, ALL, one)
    assert reference.relative(signal[:, 0], reference.tensor([mp.sqrt(1 - b) for b in betas])) < tolerance
    assert reference.relative(noise[:, 0], reference.tensor([mp.sqrt(b) for b in betas])) < tolerance


@given(st.data())
def test_a_jump_from_s_to_t(data: st.DataObject) -> None:
    t = data.draw(st.integers(1, 1000))
    s = data.draw(st.integers(0, t - 1))
    bars, one, zero = reference.alpha_bars("cosine"), torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    schedule, alpha = SCHEDULES["cosine"](), bars[t] / bars[s]
    assert float(q_step(schedule, one, t, zero, s)) == pytest.approx(float(mp.sqrt(alpha)), rel=1e-9)
    assert float(q_step(schedule, zero, t, one, s)) == pytest.approx(float(mp.sqrt(1 - alpha)), rel=1e-9)


@given(st.data())
def test_walking_and_jumping_have_the_same_law(data: st.DataObject) -> None:
    u, s, t = sorted(data.draw(st.lists(st.integers(0, 200), min_size=3, max_size=3, unique=True)))
    schedule, one, zero = linear_schedule(200), torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    mean = float(q_step(schedule, q_step(schedule, one, s, zero, u), t, zero, s))
    old_noise = float(q_step(schedule, q_step(schedule, zero, s, one, u), t, zero, s))
    new_noise = float(q_step(schedule, zero, t, one, s))
    assert mean == pytest.approx(float(q_step(schedule, one, t, zero, u)), abs=1e-12)
    assert old_noise**2 + new_noise**2 == pytest.approx(float(q_step(schedule, zero, t, one, u)) ** 2, abs=1e-12)


def test_q_step_from_clean_data_is_q_sample() -> None:
    schedule, (x, eps) = linear_schedule(50), torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(q_step(schedule, x, 30, eps, s=0), q_sample(schedule, x, 30, eps))
    assert torch.equal(q_step(schedule, x, 1, eps), q_sample(schedule, x, 1, eps))


@pytest.mark.parametrize("shape", [(3, 2), (3, 4, 5), (3, 1, 8, 8)])
def test_one_time_for_each_example(shape: tuple[int, ...]) -> None:
    schedule, (x, eps) = linear_schedule(), torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([1, 500, 1000])
    apart = torch.cat([q_sample(schedule, x[i : i + 1], int(t[i]), eps[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(q_sample(schedule, x, t, eps), apart, rtol=1e-6, atol=1e-7)
    s = torch.tensor([0, 100, 998])
    apart = torch.cat([q_step(schedule, x[i : i + 1], int(t[i]), eps[i : i + 1], int(s[i])) for i in range(3)])
    torch.testing.assert_close(q_step(schedule, x, t, eps, s), apart, rtol=1e-6, atol=1e-7)


def test_inputs_are_left_alone_and_gradients_flow() -> None:
    x, eps = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2)
    q_sample(linear_schedule(10), x, 5, eps).sum().backward()
    assert float(x.grad[0, 0]) == pytest.approx(float(linear_schedule(10).alpha_bar[5]) ** 0.5, rel=1e-6)
    assert torch.equal(x.detach(), torch.ones(2, 2)) and torch.equal(eps, torch.ones(2, 2))


def test_time_0_and_unequal_shapes_are_refused() -> None:
    schedule, x = linear_schedule(10), torch.zeros(2, 3)
    for bad in (lambda: q_sample(schedule, x, 0, x), lambda: q_step(schedule, x, 0, x), lambda: q_step(schedule, x, 3, x, 3)):
        with pytest.raises(TimestepError):
            bad()
    for bad in (lambda: q_sample(schedule, x, 1, x[:1]), lambda: q_step(schedule, x, 1, x.T)):
        with pytest.raises(ShapeError, match="eps has shape"):
            bad()


def test_draw_takes_type_and_device() -> None:
    assert draw((2, 3)).dtype == torch.float32 and draw((2,), torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    assert torch.equal(draw((3,), None, seeded(1)), torch.randn(3, generator=seeded(1)))
    assert draw((2,), torch.zeros(1, device="meta")).device.type == "meta"
    assert draw((2,), torch.zeros(1, device="meta"), seeded(0)).device.type == "meta"
