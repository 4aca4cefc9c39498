"""What may be shown, and what must never be: false, empty or unsupported equations are refused."""

import math

import pytest
import sympy as sp
import torch

from ddpm_course import linear_schedule, proofs
from ddpm_course.errors import CourseError
from ddpm_course.proofs import (
    Expect,
    ProofError,
    agrees,
    alpha_t,
    approximation,
    bar_s,
    bar_t,
    beta_t,
    derive,
    eps,
    equation,
    expectation,
    inequality,
    is_zero,
    limit,
    mu,
    number,
    prove,
    sigma,
    table_values,
    unit,
    x_0,
    x_t,
    z,
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "RECORDS", {})


# --- identities ------------------------------------------------------------------------------------------------------

TRUE = [
    ((1 - beta_t) ** 2 + 2 * beta_t, 1 + beta_t**2),
    (sp.sqrt((1 - bar_t) * (1 - bar_s)), sp.sqrt(1 - bar_t) * sp.sqrt(1 - bar_s)),
    (1 / sp.sqrt(1 - bar_t) - sp.sqrt(1 - bar_t), bar_t / sp.sqrt(1 - bar_t)),
    (sp.log(bar_t * bar_s), sp.log(bar_t) + sp.log(bar_s)),
    ((x_0 + x_t) ** 2, x_0**2 + 2 * x_0 * x_t + x_t**2),
    (sp.sqrt(bar_t / (1 - bar_t)), sp.sqrt(bar_t) / sp.sqrt(1 - bar_t)),
]
FALSE = [
    ((1 - beta_t) + beta_t, sp.Integer(2)),
    (sp.sqrt(alpha_t + bar_s), sp.sqrt(alpha_t) + sp.sqrt(bar_s)),
    (sp.sqrt(1 - bar_t), 1 - bar_t),
    (sp.log(bar_t + bar_s), sp.log(bar_t) + sp.log(bar_s)),
    ((x_0 - x_t) ** 2, x_0**2 + x_t**2),
    (sp.sqrt(x_0**2), x_0),
    (alpha_t * bar_s, alpha_t * bar_s + sp.Rational(1, 10**6)),
]


@pytest.mark.parametrize(("lhs", "rhs"), TRUE, ids=str)
def test_true_identities_are_proved(lhs: sp.Expr, rhs: sp.Expr) -> None:
    prove(lhs, rhs)
    with pytest.raises(ProofError):
        prove(lhs, rhs * sp.Rational(1001, 1000))


@pytest.mark.parametrize(("lhs", "rhs"), FALSE, ids=str)
def test_false_identities_are_refused(lhs: sp.Expr, rhs: sp.Expr) -> None:
    assert not is_zero(lhs - rhs)
    with pytest.raises(ProofError, match="not an identity"):
        prove(lhs, rhs)


def test_a_tautology_is_refused() -> None:
    for same in (x_0 + 1, sp.sqrt(bar_t)):
        with pytest.raises(ProofError, match="nothing to prove"):
            prove(same, same)


def test_definitions_are_put_in() -> None:
    prove(sp.sqrt(alpha_t) * sp.sqrt(bar_s), sp.sqrt(bar_t), {bar_t: alpha_t * bar_s})
    with pytest.raises(ProofError):
        prove(sp.sqrt(alpha_t) * sp.sqrt(bar_s), sp.sqrt(bar_t))
    with pytest.raises(ProofError):
        prove(sp.sqrt(alpha_t) * sp.sqrt(bar_s), sp.sqrt(bar_t), {bar_t: alpha_t + bar_s})


def test_the_posterior_mean_in_both_forms() -> None:
    noise = sp.sqrt(1 - bar_t)
    x_0_of = (x_t - noise * eps) / sp.sqrt(bar_t)
    mean = (sp.sqrt(bar_s) * (1 - alpha_t) * x_0_of + sp.sqrt(alpha_t) * (1 - bar_s) * x_t) / (1 - bar_t)
    wanted = (x_t - (1 - alpha_t) / noise * eps) / sp.sqrt(alpha_t)
    prove(mean, wanted, {bar_t: alpha_t * bar_s})
    for wrong in ((x_t + (1 - alpha_t) / noise * eps) / sp.sqrt(alpha_t), (x_t - (1 - alpha_t) * eps) / sp.sqrt(alpha_t)):
        with pytest.raises(ProofError):
            prove(mean, wrong, {bar_t: alpha_t * bar_s})


def test_own_unit_symbols_lie_between_0_and_1() -> None:
    a = unit(r"a_{test}")
    prove(sp.sqrt((1 - a) ** 2), 1 - a)


# --- expectations -----------------------------------------------------------------------------------------------------


SQUARE, AT = Expect((mu + sigma * z) ** 2, z), {mu: 0.3, sigma: 2.0}
DRAWS = {z: torch.randn(20_000, generator=torch.Generator().manual_seed(0))}


def test_monte_carlo_accepts_the_right_and_rejects_the_wrong() -> None:
    right = mu**2 + sigma**2
    expectation("t.1", SQUARE, right, draws=DRAWS, values=AT, wrong=mu**2)
    assert "wrong variant (\\mu**2) is rejected" in proofs.RECORDS["t.1"].evidence
    with pytest.raises(ProofError, match="standard errors off"):
        expectation("t.2", SQUARE, mu**2 + sigma, draws=DRAWS, values=AT, wrong=mu**2)
    with pytest.raises(ProofError, match="standard errors off"):  # what is displayed on the left is what is averaged
        expectation("t.3", Expect((mu - sigma**2 * z) ** 2, z), right, draws=DRAWS, values=AT, wrong=mu**2)
    with pytest.raises(ProofError, match="wrong variant"):
        expectation("t.4", SQUARE, right, draws=DRAWS, values=AT, wrong=right + sp.Rational(1, 1000))
    with pytest.raises(ProofError, match=r"neither draws nor values for z"):
        expectation("t.5", SQUARE, right, draws={eps: DRAWS[z]}, values=AT, wrong=mu**2)
    assert set(proofs.RECORDS) == {"t.1"}


def test_monte_carlo_draws_may_be_densities() -> None:
    p, q = sp.Function("p")(z), sp.Function("q")(z)
    log_q, log_p = -(DRAWS[z].double() ** 2) / 2, -((DRAWS[z].double() - 0.5) ** 2) / 2
    densities = {q: log_q.exp(), p: log_p.exp()}
    expectation("t.1", Expect(sp.log(q / p), z), mu**2 / 2, draws=densities, values={mu: 0.5}, wrong=mu**2)
    with pytest.raises(ProofError, match="standard errors off"):
        expectation("t.2", Expect(sp.log(p / q), z), mu**2 / 2, draws=densities, values={mu: 0.5}, wrong=mu**2)


# --- showing ---------------------------------------------------------------------------------------------------------


def test_an_equation_is_shown_with_its_number_and_kind(capsys: pytest.CaptureFixture[str]) -> None:
    equation("9.1", sp.sqrt(bar_t / (1 - bar_t)), sp.sqrt(bar_t) / sp.sqrt(1 - bar_t), source="Ho eq. 4")
    assert "(9.1) identity. Proved by SymPy. Source: Ho eq. 4." in capsys.readouterr().out
    assert proofs.RECORDS["9.1"] == ("9.1", "identity", "Ho eq. 4", "Proved by SymPy.")
    equation("9.2", alpha_t, 1 - beta_t, "definition")
    assert "Nothing to prove" in capsys.readouterr().out


def test_what_is_false_is_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for bad in (
        lambda: equation("9.3", alpha_t, beta_t),
        lambda: derive("9.4", (x_0 + 1) ** 2, (x_0**2 + 1, "wrong")),
        lambda: inequality("9.5", x_0, x_0 + 1, cases=[{x_0: 1.0}], equality={x_0: 1.0}),
        lambda: limit("9.6", x_0, x_t, sizes=[1, 2, 4], measured=[1, 1, 1], values={x_t: 0.0}, order=1),
        lambda: approximation("9.7", x_0, x_t, cases=[{x_0: 1.0, x_t: 2.0}], within=0.1),
        lambda: equation("9.8", alpha_t, 1 - beta_t, "theorem", given={beta_t: 1 - alpha_t}),
    ):
        with pytest.raises(CourseError):
            bad()
    assert capsys.readouterr().out == "" and not proofs.RECORDS


def test_derive_names_the_line_that_fails() -> None:
    start, good, bad = (x_0 + 1) ** 2, x_0**2 + 2 * x_0 + 1, x_0**2 + 2 * x_0 + 2
    derive("9.1", start, (good, "expand"))
    with pytest.raises(ProofError, match=r"line 2 \(slip\): not an identity"):
        derive("9.2", start, (good, "expand"), (bad, "slip"), (bad + 0 * x_0, "more"))
    with pytest.raises(ProofError, match=r"line 1 \(same\): nothing to prove"):
        derive("9.3", start, (start, "same"))
    assert proofs.RECORDS["9.1"].evidence == "Proved by SymPy."


def test_inequalities_hold_everywhere_are_strict_somewhere_and_tight_where_said() -> None:
    cases, same = [{x_0: a, x_t: b} for a, b in [(1.0, 1.0), (2.0, -1.0), (0.0, 3.0)]], {x_0: 2.0, x_t: 2.0}
    inequality("9.1", x_0**2 + x_t**2, 2 * x_0 * x_t, cases=cases, equality=same)
    inequality("9.2", 2 * x_0 * x_t, x_0**2 + x_t**2, cases=cases, equality=same, relation=r"\le")
    for bad in (
        lambda: inequality("9.3", 2 * x_0 * x_t, x_0**2 + x_t**2, cases=cases, equality=same),
        lambda: inequality("9.4", x_0**2 + x_t**2, 2 * x_0 * x_t, cases=cases[:1], equality=same),
        lambda: inequality("9.5", x_0**2 + x_t**2, 2 * x_0 * x_t, cases=[], equality=same),
        lambda: inequality("9.6", x_0**2 + x_t**2, 2 * x_0 * x_t, cases=cases, equality=cases[1]),
        lambda: inequality("9.7", x_0**2 + x_t**2 + 1, 2 * x_0 * x_t, cases=cases, equality=same),
        lambda: inequality("9.8", sp.nan * x_0, x_0, cases=cases, equality=same),
    ):
        with pytest.raises(ProofError):
            bad()
    with pytest.raises(CourseError, match="unknown relation"):
        inequality("9.9", x_0**2 + x_t**2, 2 * x_0 * x_t, cases=cases, equality=same, relation=">")


def test_limits_measure_their_order() -> None:
    sizes, at = [10, 20, 40, 80], {x_t: 0.7}
    limit("9.1", x_0, x_t, sizes=sizes, measured=[0.7 + 3 / n for n in sizes], values=at, order=1)
    limit("9.2", x_0, x_t, sizes=sizes, measured=[0.7 - 2 / n**2 for n in sizes], values=at, order=2)
    for errors in ([3 / n**0.5 for n in sizes], [3 / n**2 for n in sizes], [0.0] * 4, [1.0] * 4, [float("nan")] * 4):
        with pytest.raises(ProofError, match="measured order"):
            limit("9.3", x_0, x_t, sizes=sizes, measured=[0.7 + error for error in errors], values=at, order=1)


def test_limits_of_a_formula_are_computed_from_it() -> None:
    n, sizes = sp.Symbol("n", positive=True), [10, 100, 1000]
    limit("9.1", (1 - 1 / n) ** n, sp.exp(-1), sizes=sizes, order=1)
    for lhs, rhs in (((1 + 1 / n) ** n, sp.exp(-1)), ((1 - 1 / n) ** n, sp.exp(1)), ((1 - 1 / n**2) ** n, sp.exp(-1))):
        with pytest.raises(ProofError, match="measured order"):
            limit("9.2", lhs, rhs, sizes=sizes, order=1)
    with pytest.raises(ProofError, match="give its measured values"):
        limit("9.3", x_0 / n, x_t, sizes=sizes, order=1)


def test_approximations_are_close_but_not_equal() -> None:
    cases = [{x_0: a} for a in (0.01, 0.02)]
    approximation("9.1", sp.exp(x_0), 1 + x_0, cases=cases, within=1e-3)
    with pytest.raises(ProofError, match="largest difference"):
        approximation("9.2", sp.exp(x_0), 1 + x_0, cases=cases, within=1e-5)
    with pytest.raises(ProofError):
        approximation("9.3", x_0 + x_0, 2 * x_0, cases=cases, within=1e-3)
    with pytest.raises(ProofError):
        approximation("9.4", sp.exp(x_0), 1 + x_0, cases=[], within=1)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_number_wants_every_symbol() -> None:
    assert number(sp.sqrt(bar_t) * x_0, {bar_t: 0.25, x_0: 3.0}) == pytest.approx(1.5)
    assert number(Expect((x_0 + eps) ** 2, eps), {x_0: 2.0}) == pytest.approx(5)
    with pytest.raises(ProofError, match="no value given for x_0"):
        number(x_0 + x_t, {x_t: 1.0})


def test_table_values_are_the_schedules() -> None:
    schedule = linear_schedule(100)
    values = table_values(schedule, 40, x_0=0.5)
    product = math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / 99) for i in range(40))
    assert values[bar_t] == pytest.approx(product, rel=1e-12) and values[x_0] == 0.5
    assert values[bar_s] * values[alpha_t] == pytest.approx(product, rel=1e-12)
    assert values[alpha_t] + values[beta_t] == pytest.approx(1)


def test_agrees_compares_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    values = {bar_t: 0.25, x_0: 3.0}
    agrees(sp.sqrt(bar_t) * x_0, values, torch.tensor(1.5))
    assert "the same number: True" in capsys.readouterr().out
    for wrong in (1.5001, -1.5, float("nan")):
        with pytest.raises(ProofError, match="the equation gives 1.5"):
            agrees(sp.sqrt(bar_t) * x_0, values, wrong)


# --- quadrature -------------------------------------------------------------------------------------------------------


def test_an_expectation_over_normals_is_also_summed() -> None:
    equation("9.1", Expect((x_0 + eps) ** 2, eps), x_0**2 + 1)
    derive("9.2", Expect((x_0 + eps) ** 2, eps), (x_0**2 + Expect(eps**2, eps), "expand"), (x_0**2 + 1, "variance 1"))
    equation("9.3", Expect(2 * x_0, x_0), 2 * Expect(x_0, x_0))
    kinds = {tag: (record.kind, "quadrature" in record.evidence) for tag, record in proofs.RECORDS.items()}
    assert kinds == {"9.1": ("expectation", True), "9.2": ("expectation", True), "9.3": ("identity", False)}


def test_quadrature_catches_what_algebra_would_let_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "prove", lambda *args: None)
    with pytest.raises(ProofError, match="by quadrature the two sides are"):
        equation("9.1", Expect((x_0 + eps) ** 2, eps), x_0**2 + 2)


def test_monte_carlo_minds_what_stands_before_the_expectation() -> None:
    right = mu**2 + sigma**2
    expectation("t.1", -SQUARE, -right, draws=DRAWS, values=AT, wrong=mu**2)
    with pytest.raises(ProofError, match="standard errors off"):
        expectation("t.2", -SQUARE, right, draws=DRAWS, values=AT, wrong=mu**2)
    with pytest.raises(ProofError, match="0 expectations"):
        expectation("t.3", right, right, draws=DRAWS, values=AT, wrong=mu**2)


def test_an_expectation_without_anything_random_is_refused() -> None:
    with pytest.raises(ProofError, match="nothing random is left"):
        expectation("9.1", Expect(eps * (x_0 - x_0), eps), sp.Integer(0), draws={eps: torch.ones(3)}, values={}, wrong=sp.Integer(1))
