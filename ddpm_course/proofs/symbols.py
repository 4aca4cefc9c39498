"""The course's symbols for SymPy, expectations that know the moments of a standard normal, and a test for zero."""

import math
import random
from collections.abc import Mapping

import numpy as np
import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.precedence import PRECEDENCE

from ..errors import CourseError


class _Printer(LatexPrinter):
    """SymPy's LaTeX, except that a sum begins with a positive term if it has one, and that derivatives of products have brackets."""

    def _as_ordered_terms(self, expr: sp.Expr, order: str | None = None) -> list[sp.Expr]:
        terms = list(super()._as_ordered_terms(expr, order))
        first = next((k for k, term in enumerate(terms) if not term.could_extract_minus_sign()), 0)
        return [terms[first], *terms[:first], *terms[first + 1 :]]

    def _print_Derivative(self, expr: sp.Derivative) -> str:
        """With brackets around a product (a fraction needs none): without them one would read the derivative of its first factor."""
        text, body = super()._print_Derivative(expr), self.parenthesize(expr.expr, PRECEDENCE["Mul"], is_neg=False, strict=True)
        product = expr.expr.is_Mul and sp.fraction(expr.expr)[1] == 1 and text.endswith(body)
        return rf"{text[: -len(body)]}\left({body}\right)" if product else text


def latex(expr: sp.Expr) -> str:
    """LaTeX of an expression in the course's order of terms."""
    return _Printer().doprint(sp.sympify(expr))


class ProofError(CourseError, AssertionError):
    """An equation that is false, empty (both sides the same before any work) or without evidence."""


# The course's symbols. Those in (0, 1) are proved for all of (0, 1): see _open_interval.
_unit = lambda name: sp.Symbol(name, positive=True)  # noqa: E731
alpha_t, beta_t = _unit(r"\alpha_t"), _unit(r"\beta_t")
bar_t, bar_s = _unit(r"\bar{\alpha}_t"), _unit(r"\bar{\alpha}_{t-1}")
UNIT = {alpha_t, beta_t, bar_t, bar_s}
x_0, x_s, x_t = sp.symbols("x_0 x_{t-1} x_t", real=True)
eps, eps_hat, z, v = sp.symbols(r"\varepsilon \hat{\varepsilon} z v", real=True)
x_0_hat, mu = sp.symbols(r"\hat{x}_0 \mu", real=True)
sigma = sp.Symbol(r"\sigma", positive=True)
NORMAL = {eps, z}


def unit(name: str) -> sp.Symbol:
    """A symbol that lies strictly between 0 and 1, such as another alpha."""
    symbol = _unit(name)
    UNIT.add(symbol)
    return symbol


def normal(name: str) -> sp.Symbol:
    """A random symbol with law N(0, 1), independent of all others: Expect knows its moments."""
    symbol = sp.Symbol(name, real=True)
    NORMAL.add(symbol)
    return symbol


class Expect(sp.Expr):
    """E over the given random symbols. Linear; for standard normals (eps, z, normal(...)) polynomials are integrated exactly."""

    def __new__(cls, inside: sp.Expr, *over: sp.Symbol) -> "Expect":
        return sp.Expr.__new__(cls, sp.sympify(inside), *over)

    def _latex(self, printer: LatexPrinter) -> str:
        subscript = ", ".join(printer.doprint(symbol) for symbol in self.args[1:])
        return rf"\mathbb{{E}}_{{{subscript}}}\left[{printer.doprint(self.args[0])}\right]"

    def doit(self, **hints: bool) -> sp.Expr:
        """Take constants out, split sums, and integrate powers of standard normals."""
        inside, over = sp.expand(sp.expand_log(self.args[0].doit(**hints), force=True)), set(self.args[1:])
        for symbol in over & NORMAL:
            inside = _moments(inside, symbol)
        rest = tuple(symbol for symbol in self.args[1:] if symbol not in NORMAL)
        return sp.Add(*(_linear(term, rest) for term in sp.Add.make_args(sp.expand(inside))))


def quadrature(expr: sp.Expr, values: Mapping[sp.Symbol, float], nodes: int = 20) -> float:
    """The value of expr with every Expect over standard normals summed by Gauss-Hermite quadrature; nan if it is not real."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)

    def integrate(expectation: Expect) -> sp.Float:
        inside, over = expectation.args[0].subs(values), expectation.args[1:]
        grids = np.meshgrid(*[points] * len(over), indexing="ij")
        law = np.prod(np.meshgrid(*[weights / weights.sum()] * len(over), indexing="ij"), axis=0)
        total = (sp.lambdify(over, inside, "numpy")(*grids) * law).sum()
        return sp.Float(math.nan if np.iscomplexobj(total) else float(total))

    value = expr.replace(lambda e: isinstance(e, Expect), integrate).subs(values).doit()
    return float(value) if value.is_real else math.nan


def _linear(term: sp.Expr, over: tuple[sp.Symbol, ...]) -> sp.Expr:
    outside, inside = term.as_independent(*over, as_Add=False) if over else (term, sp.S.One)
    return outside if inside == 1 else outside * sp.Expr.__new__(Expect, inside, *over)


def _moments(inside: sp.Expr, symbol: sp.Symbol) -> sp.Expr:
    """Replace symbol^n by E[symbol^n] = (n-1)!! for even n, 0 for odd n."""
    if symbol not in inside.free_symbols:
        return inside
    if not inside.is_polynomial(symbol):
        raise ProofError(f"{inside} is no polynomial in {symbol}: use expectation() with quadrature or Monte Carlo")
    terms = sp.Poly(inside, symbol).terms()
    return sp.Add(*(c * sp.factorial2(n - 1) for (n,), c in terms if n % 2 == 0))


def _open_interval(expr: sp.Expr) -> sp.Expr:
    """Write each a in (0, 1) as p/(1+p), p > 0, so that SymPy may split square roots of a and of 1 - a."""
    return expr.subs({a: (p := sp.Dummy(positive=True)) / (1 + p) for a in sorted(UNIT & expr.free_symbols, key=str)})


def _split_roots(expr: sp.Expr) -> sp.Expr:
    """Bring what is under a root to one factored fraction, and give each factor its own root (all are positive here)."""
    root = lambda e: e.is_Pow and not e.exp.is_integer  # noqa: E731
    return expr.replace(root, lambda e: sp.expand_power_base(sp.factor(sp.together(e.base)) ** e.exp, force=True))


def _numerator(expr: sp.Expr) -> sp.Expr:
    """The numerator of expr with every square root r of b reduced by r^2 = b: 0 if and only if expr is, for algebraic expr."""
    half = lambda e: e.is_Pow and e.exp.is_Rational and e.exp.q == 2  # noqa: E731
    roots = {base: sp.Dummy(positive=True) for base in {e.base for e in expr.atoms(sp.Pow) if half(e)}}
    rational = expr.replace(half, lambda e: roots[e.base] ** (2 * e.exp) if e.base in roots else e)
    top = sp.expand(sp.fraction(sp.together(rational))[0])
    for base, root in roots.items():
        top = sp.expand(sp.rem(top, root**2 - base, root))
    return top


def is_zero(expr: sp.Expr) -> bool:
    """True only if SymPy reduces expr to 0; a numeric spot check first makes false statements fail fast."""
    expr = _split_roots(_open_interval(sp.sympify(expr).doit()))
    rng, points = random.Random(0), sorted(expr.free_symbols, key=str)
    number = sp.N(expr.subs({s: sp.Rational(rng.randint(20, 300), 100) for s in points}), 30)
    if number.is_number and number.is_finite and abs(number) > 1e-12:
        return False
    return any(step(expr) == 0 for step in (sp.expand, _numerator, lambda e: sp.simplify(sp.expand_log(e, force=True)), sp.simplify))
