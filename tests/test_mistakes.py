"""Each of the 38 mistakes is really wrong, its right version really right, and no test could pass with the two exchanged."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import pytest
import torch
from torch import Tensor

from ddpm_course import reverse_variance
from ddpm_course.errors import CourseError
from ddpm_course.mistakes import (
    EVERY,
    GROUPS,
    MISTAKES,
    Mistake,
    MistakeError,
    conditions,
    gap,
    reverse,
    source,
    tables,
    tools,
    verify,
    versions,
    wrong_letter,
)

SOURCES = Path(__file__).resolve().parents[1] / "notebooks" / "src"


def remembered(mistake: Mistake) -> Mistake:
    """The same mistake, observing each version only once: the observations do not depend on when they are made."""
    return replace(mistake, observe=cache(mistake.observe))


ALL = {name: remembered(mistake) for name, mistake in EVERY.items()}
each = pytest.mark.parametrize("mistake", ALL.values(), ids=ALL)


# --- the registry ----------------------------------------------------------------------------------------------------


def test_there_are_exactly_38() -> None:
    assert sorted(MISTAKES) == list(range(1, 39))
    assert all(mistake.number == number and not mistake.form for number, mistake in MISTAKES.items())
    assert sum(len(group) for group in GROUPS.values()) == len(EVERY) == 38 + sum(bool(m.form) for m in EVERY.values())


def test_letters_are_mixed() -> None:
    letters = "".join(wrong_letter(mistake) for mistake in MISTAKES.values())
    assert 15 <= letters.count("A") <= 23 and "AAA" not in letters and "BBB" not in letters
    for mistake in EVERY.values():
        assert versions(mistake)[wrong_letter(mistake)] is mistake.wrong
        assert set(versions(mistake).values()) == {mistake.wrong, mistake.right}


@each
def test_text_is_complete(mistake: Mistake) -> None:
    assert (SOURCES / f"{mistake.chapter}.py").exists()
    assert all((mistake.title, mistake.quantity, *mistake.labels)) and mistake.why.endswith(".")


# --- wrong is wrong, right is right -----------------------------------------------------------------------------------


@each
def test_verify_passes(mistake: Mistake) -> None:
    found = verify(mistake)
    assert found == gap(mistake)
    assert abs(found.right - found.truth) <= mistake.tolerance < mistake.margin <= abs(found.wrong - found.truth)


@each
def test_the_wrong_line_made_right_is_noticed(mistake: Mistake) -> None:
    with pytest.raises(MistakeError, match=f"{mistake.name}, .*the wrong version gives"):
        verify(replace(mistake, wrong=mistake.right))


@each
def test_the_right_line_made_wrong_is_noticed(mistake: Mistake) -> None:
    with pytest.raises(MistakeError, match=f"{mistake.name}, .*the right version gives"):
        verify(replace(mistake, right=mistake.wrong))


@each
def test_the_truth_runs_neither_version(mistake: Mistake) -> None:
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, arg: object) -> None:
        seen.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        mistake.truth()
    finally:
        sys.setprofile(before)
    assert mistake.truth.__code__ in seen
    assert not seen & {mistake.wrong.__code__, mistake.right.__code__}


@each
def test_observations_run_the_version_they_are_given(mistake: Mistake) -> None:
    def touched(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("touched")

    with pytest.raises(ZeroDivisionError, match="touched"):
        mistake.observe(touched)


@each
def test_curves_fit_their_axis(mistake: Mistake) -> None:
    for version in (mistake.wrong, mistake.right):
        curve = mistake.observe(version)
        assert curve.shape == (len(mistake.x),) and bool(curve.isfinite().all())


@pytest.mark.parametrize("name", ["M1", "M16", "M28", "M30"])
def test_observing_again_gives_the_same(name: str) -> None:
    mistake = EVERY[name]
    assert all(torch.equal(mistake.observe(version), mistake.observe(version)) for version in (mistake.wrong, mistake.right))


def test_a_margin_within_the_tolerance_is_refused() -> None:
    with pytest.raises(CourseError, match="M1, .*margin 0.1 must exceed tolerance 0.2"):
        verify(replace(ALL["M1"], tolerance=0.2, margin=0.1))


def test_nan_is_neither_right_nor_wrong() -> None:
    nothing = lambda *_: torch.full((), torch.nan)  # noqa: E731
    for side in ("wrong", "right"):
        with pytest.raises(MistakeError, match=f"the {side} version gives nan"):
            verify(replace(ALL["M1"], **{side: nothing}))


# --- what is shown ----------------------------------------------------------------------------------------------------


def changed_lines(mistake: Mistake) -> list[str]:
    """The lines that differ, as `-` and `+` lines of a comparison."""
    lines = difflib.ndiff(source(mistake.wrong).splitlines(), source(mistake.right).splitlines())
    return [line for line in lines if line[0] in "-+"]


@each
def test_the_two_versions_differ_in_a_line_or_two(mistake: Mistake) -> None:
    changed = changed_lines(mistake)
    assert 2 <= len(changed) <= 4
    assert "def " not in "".join(changed), "their signatures must not tell them apart"


@each
def test_what_is_shown_is_what_runs_and_gives_nothing_away(mistake: Mistake) -> None:
    for version in (mistake.wrong, mistake.right):
        shown = source(version)
        assert "wrong" not in shown and "right" not in shown and "#" not in shown
        assert len(shown.splitlines()) <= 8 and version.__doc__
        name = shown.split("(")[0].removeprefix("def ")
        assert name in version.__name__
        body = inspect.getsource(version).split("(", 1)[1].rstrip()
        assert shown == f"def {name}({body}"


# --- the rows' own claims ---------------------------------------------------------------------------------------------


def curves(name: str) -> tuple[Tensor, Tensor]:
    """Both curves of a mistake, wrong and right."""
    return ALL[name].observe(ALL[name].wrong), ALL[name].observe(ALL[name].right)


def test_m2_grows_by_the_sum_of_all_beta() -> None:
    assert float(curves("M2")[0][-1]) == pytest.approx(1 + float(tools.BETA.sum()), rel=0.16)


def test_m4_all_four_conventions_at_t_1() -> None:
    beta, tilde, clipped, fixed_large = curves("M4")[1].tolist()
    unit = float(tools.BETA[1])
    assert beta * unit == pytest.approx(reverse_variance(tools.LINEAR, 1, 0, "beta"), rel=1e-9)
    assert tilde == reverse_variance(tools.LINEAR, 1, 0, "posterior") == 0
    assert clipped * unit == pytest.approx(reverse_variance(tools.LINEAR, 1, 0, "posterior_clipped"), rel=1e-9)
    assert fixed_large * unit == pytest.approx(reverse_variance(tools.LINEAR, 2, 1, "posterior"), rel=1e-9)
    assert tables.right_variance("fixed large", 2) == tools.BETA[2] and tables.right_variance("clipped", 2) == tables.TILDE[2]


def test_m7_gaussians_keep_their_mean_and_mixtures_lose_their_weights() -> None:
    wrong, right = curves("M7")
    assert abs(float(wrong[0]) - 0.6) < 0.02 and float(wrong[1]) < 0.05
    assert float(wrong[2]) == 0 and float(wrong[3]) < 0.05
    assert bool(((right - torch.tensor([0.6, 0.5, 0.3, 0.2])).abs() < 0.05).all())


def test_m11_fresh_noise_is_the_other_end_of_the_family() -> None:
    x_0, eps, z = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)
    bar = 0.6
    var = 1 - bar  # the largest admissible sigma^2: nothing is left for eps
    member = bar**0.5 * x_0 + (1 - bar - var) ** 0.5 * eps + var**0.5 * z
    assert float(ALL["M11"].wrong(x_0, eps, bar, z)) == pytest.approx(float(member), abs=1e-12)


def test_m13_even_the_inference_process_is_a_chain_at_eta_1() -> None:
    wrong, right = curves("M13")
    assert abs(float(wrong[-1])) < 0.035 and float(wrong[0]) < -0.7
    assert bool((right.abs() < 0.035).all())


def test_m15_hides_in_samples_and_not_in_coefficients() -> None:
    samples = (tables.slip_samples(version, 500) for version in (tables.wrong_coefficients, tables.right_coefficients))
    wrong, right = map(tables.statistics, samples)
    mean, std, share, width = right.tolist()
    errors = torch.tensor([std, std / 2**0.5, (share * (1 - share)) ** 0.5, width / 2**0.5]) / 500**0.5
    assert bool(((wrong - right).abs() < errors).all()), "less than a standard error: nobody sees that"
    assert float(wrong.sub(right).abs().max()) > 0, "yet the two networks differ"
    assert tables.wrong_coefficients(1)[1] == 0 < tables.right_coefficients(1)[1]


def test_m16_correlation_at_every_time() -> None:
    times = torch.tensor(ALL["M16"].x)
    theory = (tools.BETA[times] / (1 - tools.BAR[times])) ** 0.5
    assert bool(((curves("M16")[1] - theory).abs() < 0.05).all())


def test_m18_consistency_terms_can_be_negative_and_matching_terms_cannot() -> None:
    film, mean_of = reverse.films()
    matching = ALL["M18"].right(film, 2, mean_of)
    first = ALL["M18"].wrong(film, 1, mean_of)
    assert float(first.mean()) < -6 * float(first.std()) / len(first) ** 0.5
    ratio = torch.div(*curves("M18"))
    assert float(matching.min()) >= 0 and float(ratio.min()) > 5 and float(ratio.median()) > 100


def test_m21_kurtosis_vanishes_as_the_steps_get_small() -> None:
    right = curves("M21")[1]
    assert float(right[0]) < -0.5 and abs(float(right[-1])) < 0.05
    for T, value in zip(ALL["M21"].x, right.tolist(), strict=True):
        assert value == pytest.approx(reverse._kurtosis_in_closed_form(T), abs=1e-4)


def test_m22_negligible_at_1000() -> None:
    assert 0 < float(curves("M22")[1][-1]) < 1e-4


def test_m23_refuses_up_to_20() -> None:
    handed_out = dict(zip(ALL["M23"].x, curves("M23")[1].tolist(), strict=True))
    assert handed_out == {T: float(T > 20) for T in ALL["M23"].x}
    assert bool((tables.wrong_short_table(10) < 0).any()), "without a refusal alpha_bar goes below 0"


@pytest.mark.parametrize(("dtype", "last"), [(torch.bfloat16, 10), (torch.float16, 2)])
def test_m24_first_steps_without_noise(dtype: torch.dtype, last: int) -> None:
    wrong, right = (version(tools.BAR[1:], dtype) for version in (tables.wrong_noise_factor, tables.right_noise_factor))
    assert (wrong == 0).nonzero().flatten().tolist() == list(range(last))
    assert bool((right > 0).all())


def test_m29_keeps_37_percent() -> None:
    assert float(curves("M29")[0][-1]) == pytest.approx(0.37, abs=0.005)


def test_m33_three_approximations_differ_and_the_first_is_silent_at_t_1() -> None:
    (at_x_t, eps_form), (at_mean, _) = curves("M33"), curves("M33b")
    assert len({round(float(curve[2]), 2) for curve in (at_x_t, at_mean, eps_form)}) == 3
    unguided = conditions.reverse_mean(conditions.HERE, tools.PAIR.eps_model(conditions.COARSE)(conditions.HERE, torch.tensor([1])), 1)
    assert float(at_x_t[0]) == pytest.approx(float(unguided), abs=1e-12)


def test_m37_the_loss_on_pictures_prefers_a_collapsed_generator() -> None:
    x_0 = tools.normals(tools.seeded(1), 4000, 1) / 2
    eps = tools.normals(tools.seeded(2), 4000, 1)
    loss: Callable[..., Tensor] = ALL["M37"].wrong
    perfect = loss(tools.HALF.eps_model(tools.LINEAR), x_0, 500, eps)
    collapsed = loss(lambda x, t: x / (1 - tools.LINEAR.at(t, 2)) ** 0.5, x_0, 500, eps)  # whose x_0_hat is always the mean
    assert float(collapsed) < 0.7 * float(perfect)
