"""Expectations that know the moments of a normal, quadrature that knows nothing, and a printer that keeps x - mu in order."""

import math

import pytest
import sympy as sp

from ddpm_course.proofs.symbols import Expect, ProofError, bar_t, eps, is_zero, latex, mu, normal, quadrature, sigma, unit, x_0, x_t, z

# --- expectations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("power", "moment"), [(1, 0), (2, 1), (3, 0), (4, 3), (5, 0), (6, 15), (8, 105)])
def test_moments_of_a_standard_normal(power: int, moment: int) -> None:
    assert Expect(eps**power, eps).doit() == moment


def test_expectation_is_linear_and_takes_constants_out() -> None:
    assert sp.simplify(Expect((mu + sigma * z) ** 2, z).doit() - mu**2 - sigma**2) == 0
    assert Expect(eps * z, eps, z).doit() == 0 and Expect(eps**2 * z**2, eps, z).doit() == 1
    e = normal("e_{test}")
    assert sp.expand(Expect((eps + 2 * e) ** 2, eps, e).doit()) == 5
    assert Expect(sp.Integer(7), eps).doit() == 7
    kept = Expect(3 * x_0 + 2 * bar_t * x_0**2, x_0).doit()
    assert sp.expand(kept - 3 * Expect(x_0, x_0) - 2 * bar_t * Expect(x_0**2, x_0)) == 0


def test_what_is_no_polynomial_asks_for_numbers() -> None:
    with pytest.raises(ProofError, match="no polynomial"):
        Expect(sp.exp(eps), eps).doit()


def test_expect_prints_as_mathematics() -> None:
    assert sp.latex(Expect(x_0**2, x_0, eps)) == r"\mathbb{E}_{x_{0}, \varepsilon}\left[x_{0}^{2}\right]"


# --- quadrature ------------------------------------------------------------------------------------------------------


def test_quadrature_needs_no_algebra() -> None:
    e = normal("e_{test}")
    assert quadrature(Expect((mu + sigma * z) ** 4, z), {mu: 0.5, sigma: 1.5}) == pytest.approx(0.5**4 + 6 * 0.25 * 2.25 + 3 * 1.5**4)
    assert quadrature(1 + Expect(eps**2 * e**2, eps, e), {}) == pytest.approx(2)
    assert quadrature(Expect(sp.exp(z), z), {}) == pytest.approx(math.exp(0.5))
    assert math.isnan(quadrature(Expect(sp.sqrt(mu - 1) * z**2, z), {mu: 0.5}))


# --- zero and printing ----------------------------------------------------------------------------------------------


def test_zero_is_found_and_nothing_else_is() -> None:
    a = unit("a_{zero}")
    assert is_zero(sp.sqrt(a * (1 - a)) - sp.sqrt(a) * sp.sqrt(1 - a)) and is_zero(sp.log(a**2) - 2 * sp.log(a))
    for expr in (sp.sqrt(a) - a, a - sp.Rational(1, 10**9) - a, sp.sqrt(x_0**2) - x_0):
        assert not is_zero(expr)


@pytest.mark.parametrize(
    ("expr", "wanted"),
    [
        (x_t - mu, r"x_{t} - \mu"),
        ((x_t - mu) ** 2 / (2 * sigma**2), r"\frac{\left(x_{t} - \mu\right)^{2}}{2 \sigma^{2}}"),
        (sp.sqrt(1 - bar_t), r"\sqrt{1 - \bar{\alpha}_t}"),
        (-mu - x_t, r"- \mu - x_{t}"),
        (Expect(x_t - mu, x_t), r"\mathbb{E}_{x_{t}}\left[x_{t} - \mu\right]"),
    ],
)
def test_a_sum_does_not_begin_with_a_minus(expr: sp.Expr, wanted: str) -> None:
    assert latex(expr) == wanted


def test_derivatives_of_products_have_brackets() -> None:
    """d/dx f g reads as f' g; a fraction and a single function need none."""
    x = sp.Symbol("x")
    f, g = sp.Function("f")(x), sp.Function("g")(x)
    assert latex(sp.Derivative(f * g, x)).endswith(r"\left(f{\left(x \right)} g{\left(x \right)}\right)")
    assert latex(sp.Derivative(f, x)) == r"\frac{d}{d x} f{\left(x \right)}"
    assert latex(sp.Derivative(f / g, x)) == r"\frac{d}{d x} \frac{f{\left(x \right)}}{g{\left(x \right)}}"
