"""The tables against products with 40 digits."""

import math
from fractions import Fraction

import mpmath as mp
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm_course import (
    NoiseSchedule,
    cosine_schedule,
    linear_schedule,
    quadratic_schedule,
    rescale_zero_terminal_snr,
    sigmoid_schedule,
)
from ddpm_course.errors import ScheduleError, TimestepError
from ddpm_course.schedule import SCHEDULES, cast

FAMILIES = {"linear": linear_schedule, "quadratic": quadratic_schedule, "sigmoid": sigmoid_schedule}
FAMILIES |= {"cosine": cosine_schedule}
each_family = pytest.mark.parametrize("name", reference.NAMES)


def test_registry_has_every_family() -> None:
    assert SCHEDULES == FAMILIES


@each_family
@pytest.mark.parametrize("T", [1, 2, 10, 1000])
def test_tables_agree_with_exact_products(name: str, T: int) -> None:
    schedule, bars = FAMILIES[name](T), reference.alpha_bars(name, T)
    wanted = reference.tensor(bars)
    assert schedule.T == T and schedule.alpha_bar.dtype == schedule.beta.dtype == torch.float64
    assert float((schedule.alpha_bar - wanted).abs().max()) < 1e-12
    assert float((schedule.beta[1:] - reference.tensor(reference.betas(name, T))).abs().max()) < 1e-12
    assert reference.relative(schedule.alpha_bar, wanted) < 1e-11


@each_family
def test_default_is_a_thousand_steps(name: str) -> None:
    assert FAMILIES[name]().T == 1000
    assert torch.equal(FAMILIES[name]().beta, FAMILIES[name](1000).beta)


@pytest.mark.parametrize("make", list(FAMILIES.values())[:2], ids=["linear", "quadratic"])
def test_ends_are_the_ones_asked_for(make: object) -> None:
    schedule = make(7, 0.01, 0.3)
    assert math.isclose(float(schedule.beta[1]), 0.01) and math.isclose(float(schedule.beta[-1]), 0.3)


def test_sigmoid_ends_and_middle() -> None:
    beta, edge = sigmoid_schedule(3, 0.1, 0.5).beta, float(1 / (1 + mp.exp(6)))
    assert beta[1:].tolist() == pytest.approx([0.1 + 0.4 * edge, 0.3, 0.5 - 0.4 * edge], abs=1e-14)


def test_cosine_is_capped_and_takes_its_offset() -> None:
    schedule = cosine_schedule(50, s=0.1, beta_max=0.2)
    assert float(schedule.beta.max()) == 0.2
    f = [mp.cos((mp.mpf(t) / 50 + mp.mpf(0.1)) / mp.mpf(1.1) * mp.pi / 2) ** 2 for t in range(3)]
    assert float(schedule.alpha_bar[2]) == pytest.approx(float(f[2] / f[0]), abs=1e-14)


@each_family
def test_index_0_is_clean_data(name: str) -> None:
    schedule = FAMILIES[name](20)
    assert float(schedule.alpha_bar[0]) == 1 and float(schedule.beta[0]) == 0 and float(schedule.alpha[0]) == 1
    assert len(schedule.beta) == len(schedule.alpha) == len(schedule.alpha_bar) == 21


@given(st.lists(st.floats(1e-6, 0.9), min_size=1, max_size=12))
def test_any_betas_agree_with_fractions(values: list[float]) -> None:
    schedule, product = NoiseSchedule(values), Fraction(1)
    for t, beta in enumerate(values, 1):
        product *= 1 - Fraction(beta)
        assert float(schedule.alpha_bar[t]) == pytest.approx(float(product), rel=1e-13)
        assert float(schedule.alpha[t]) == pytest.approx(float(1 - Fraction(beta)), rel=1e-15)
        assert schedule.at(t) == float(schedule.alpha_bar[t])


def test_the_tables_are_a_copy() -> None:
    betas = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
    schedule = NoiseSchedule(betas)
    with torch.no_grad():
        betas[0] = 0.5
    assert float(schedule.beta[1]) == 0.1 and not schedule.alpha_bar.requires_grad


def test_at_gives_a_float_or_a_column() -> None:
    schedule = linear_schedule(10)
    assert isinstance(schedule.at(3), float) and schedule.at(0) == 1.0
    column = schedule.at(torch.tensor([0, 3, 10]), ndim=4)
    assert column.shape == (3, 1, 1, 1) and column.dtype == torch.float64
    assert column.flatten().tolist() == [schedule.at(t) for t in (0, 3, 10)]
    assert schedule.at(torch.tensor([2])).shape == (1,)
    assert schedule.at(torch.tensor(4), ndim=2).shape == (1, 1)
    assert schedule.at(torch.tensor([4], device="meta"), ndim=2).device.type == "meta"  # the table follows t


def test_pair_defaults_to_one_step() -> None:
    schedule = linear_schedule(10)
    assert schedule.pair(5, None) == (schedule.at(5), schedule.at(4))
    assert schedule.pair(5, 2) == (schedule.at(5), schedule.at(2))
    assert schedule.pair(1, 0) == (schedule.at(1), 1.0)
    bar_t, bar_s = schedule.pair(torch.tensor([1, 10]), None, 3)
    assert bar_t.flatten().tolist() == [schedule.at(1), schedule.at(10)] and bar_s.shape == (2, 1, 1)
    assert bar_s.flatten().tolist() == [1.0, schedule.at(9)]
    mixed_t, mixed_s = schedule.pair(torch.tensor([4, 5]), 3)
    assert mixed_t.tolist() == [schedule.at(4), schedule.at(5)] and mixed_s == schedule.at(3)


def test_check_limits() -> None:
    schedule = linear_schedule(10)
    schedule.check(1), schedule.check(10), schedule.check(torch.tensor([1, 10])), schedule.check(0, low=0)
    schedule.check(torch.zeros(0, dtype=torch.long))
    for bad in (0, 11, -1, torch.tensor([1, 0]), torch.tensor([10, 11])):
        with pytest.raises(TimestepError, match=r"outside 1\.\.10"):
            schedule.check(bad)
    with pytest.raises(TimestepError, match=r"outside 0\.\.10"):
        schedule.at(-1)


@each_family
def test_snr_is_the_ratio_of_the_shares(name: str) -> None:
    schedule, bars = FAMILIES[name](), reference.alpha_bars(name)
    wanted = reference.tensor([bar / (1 - bar) for bar in bars[1:]])
    assert reference.relative(schedule.snr(torch.arange(1, 1001)), wanted) < 1e-9
    assert schedule.snr(7) == pytest.approx(float(wanted[6]), rel=1e-9)
    with pytest.raises(TimestepError):
        schedule.snr(0)


def test_zero_terminal_snr_keeps_the_first_and_moves_the_last() -> None:
    before, after = linear_schedule(), rescale_zero_terminal_snr(linear_schedule(), 1e-5)
    roots = [mp.sqrt(bar) for bar in reference.alpha_bars("linear")[1:]]
    end = mp.sqrt(mp.mpf(1e-5))
    wanted = [(end + (r - roots[-1]) / (roots[0] - roots[-1]) * (roots[0] - end)) ** 2 for r in roots]
    assert float((after.alpha_bar[1:] - reference.tensor(wanted)).abs().max()) < 1e-12
    assert float(after.alpha_bar[-1]) == pytest.approx(1e-5, rel=1e-9)
    assert float(after.alpha_bar[1]) == pytest.approx(float(before.alpha_bar[1]), abs=1e-15)


def test_zero_terminal_snr_defaults_to_a_millionth_and_refuses_nonsense() -> None:
    assert float(rescale_zero_terminal_snr(linear_schedule()).alpha_bar[-1]) == pytest.approx(1e-6, rel=1e-9)
    assert float(rescale_zero_terminal_snr(linear_schedule(), 0.99988).alpha_bar[-1]) == pytest.approx(0.99988, rel=1e-9)
    for end in (0.0, -1.0, float(linear_schedule().alpha_bar[1]), 2.0):
        with pytest.raises(ScheduleError, match="alpha_bar_T = "):
            rescale_zero_terminal_snr(linear_schedule(), end)


def test_moving_keeps_float64_and_stays_where_there_is_none() -> None:
    schedule = linear_schedule(5)
    moved, apple = schedule.to("cpu"), schedule.to("mps")  # "mps" is only a name here: its tables stay
    assert moved is not schedule and moved.T == 5
    assert all(torch.equal(getattr(moved, name), getattr(schedule, name)) for name in ("beta", "alpha", "alpha_bar"))
    assert apple.alpha_bar.device.type == "cpu" and apple.at(3) == schedule.at(3)
    elsewhere = schedule.to("meta")
    assert elsewhere.beta.device.type == elsewhere.alpha.device.type == elsewhere.alpha_bar.device.type == "meta"
    assert elsewhere.alpha_bar.dtype == torch.float64 and schedule.alpha_bar.device.type == "cpu"


def test_cast_is_the_last_step() -> None:
    assert cast(0.1, torch.zeros(1)) == 0.1
    assert cast(torch.tensor([0.1], dtype=torch.float64), torch.zeros(1)).dtype == torch.float32


def test_repr_is_short() -> None:
    assert repr(linear_schedule()) == "NoiseSchedule(T=1000, alpha_bar_T=4.04e-05)"


def test_alpha_bar_must_fall_and_stay_above_zero() -> None:
    with pytest.raises(ScheduleError, match="does not fall"):
        NoiseSchedule([0.1, 1e-17])
    with pytest.raises(ScheduleError, match="does not fall"):
        NoiseSchedule([0.1, 0.1, 1e-17])
    with pytest.raises(ScheduleError, match="underflows"):
        NoiseSchedule([1 - 1e-16] * 21)
    with pytest.raises(ScheduleError, match=r"beta_2 = 1 is outside"):
        NoiseSchedule([0.5, 1.0, 0.0])
    with pytest.raises(ScheduleError, match=r"beta_1 = 0 is outside"):
        NoiseSchedule([0.0, 0.5])
    with pytest.raises(ScheduleError, match="vector"):
        NoiseSchedule([[0.1, 0.2]])


def test_a_copy_for_another_device_is_made_once_and_is_alpha_bar() -> None:
    schedule, elsewhere = linear_schedule(20), torch.device("cpu", 0)  # not equal to torch.device("cpu"), so it counts as another one
    copy = schedule._table(elsewhere)
    assert torch.equal(copy, schedule.alpha_bar) and schedule._table(elsewhere) is copy
    assert schedule._table(torch.device("cpu")) is schedule.alpha_bar
    assert schedule._table(torch.device("mps")) is schedule.alpha_bar  # no float64 there
    assert schedule.to("cpu")._copies == {}
