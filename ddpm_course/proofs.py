"""Equations that are shown only after they were proved: what is displayed is printed from the object that was checked.

The only home of SymPy in the package. Every function takes a tag "chapter.number" first and shows the equation with its kind.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import sympy as sp
import torch
from IPython.display import display
from sympy.printing.latex import LatexPrinter

from .errors import CourseError, ValueCourseError
from .schedule import NoiseSchedule

KINDS = ("definition", "identity", "expectation", "inequality", "limit", "approximation")
Values = Mapping[sp.Symbol, float]


class ProofError(CourseError, AssertionError):
    """An equation that is false, empty (both sides the same before any work) or without evidence."""


class Record(NamedTuple):
    """One equation that was shown: its tag, kind, source and the evidence in words."""

    tag: str
    kind: str
    source: str
    evidence: str


RECORDS: dict[str, Record] = {}

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


def prove(lhs: sp.Expr, rhs: sp.Expr, given: Values | None = None) -> None:
    """Raise ProofError unless lhs = rhs for all values of their symbols, once the definitions `given` are put in."""
    lhs, rhs = sp.sympify(lhs), sp.sympify(rhs)
    if lhs == rhs:
        raise ProofError(f"nothing to prove: both sides are {lhs} before any work")
    difference = (lhs - rhs).doit().subs(given or {})
    if not is_zero(difference.subs(given or {})):
        raise ProofError(f"not an identity: the two sides of {sp.latex(lhs)} = {sp.latex(rhs)} differ")


def _show(tag: str, kind: str, body: str, evidence: str, source: str) -> None:
    if kind not in KINDS:
        raise ValueCourseError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    RECORDS[tag] = Record(tag, kind, source, evidence)
    latex, note = rf"{body} \tag{{{tag}, {kind}}}", f"({tag}) {kind}. {evidence}" + (f" Source: {source}." if source else "")
    display({"text/latex": f"$$ {latex} $$", "text/plain": latex}, raw=True)
    print(note)


def _eq(lhs: sp.Expr, rhs: sp.Expr, relation: str = "=") -> str:
    return f"{sp.latex(lhs)} {relation} {sp.latex(rhs)}"


def equation(tag: str, lhs: sp.Expr, rhs: sp.Expr, kind: str = "identity", *, given: Values | None = None, source: str = "") -> None:
    """Prove lhs = rhs by SymPy (with the definitions `given` put in) and show it. Kind "definition" is shown without proof."""
    if kind != "definition":
        prove(lhs, rhs, given)
    _show(tag, kind, _eq(lhs, rhs), "Nothing to prove." if kind == "definition" else "Proved by SymPy.", source)


def derive(
    tag: str, lhs: sp.Expr, *lines: tuple[sp.Expr, str], given: Values | None = None, kind: str = "identity", source: str = ""
) -> None:
    """A derivation: each line is (expression, reason) and is proved equal to the line before it. Shown aligned, reasons beside."""
    before = lhs
    for number, (expr, reason) in enumerate(lines, 1):
        try:
            prove(before, expr, given)
        except ProofError as error:
            raise ProofError(f"line {number} ({reason}): {error}") from error
        before = expr
    rows = r" \\ ".join(rf"&= {sp.latex(expr)} && \text{{{reason}}}" for expr, reason in lines)
    body = rf"\begin{{aligned}} {sp.latex(lhs)} {rows} \end{{aligned}}"
    _show(tag, kind, body, f"Each of the {len(lines)} lines proved equal to the one before by SymPy.", source)


def number(expr: sp.Expr, values: Values) -> float:
    """The value of an expression once every symbol has a number."""
    result = sp.sympify(expr).doit().subs(values).doit()
    if result.free_symbols:
        raise ProofError(f"no value given for {', '.join(sorted(map(str, result.free_symbols)))}")
    return float(result)


def expectation(tag: str, lhs: sp.Expr, rhs: sp.Expr, *, draws: torch.Tensor, values: Values, wrong: sp.Expr, source: str = "") -> None:
    """Show E[...] = rhs after Monte Carlo: the mean of `draws` (N,) is within 4 standard errors of rhs, and over 6 from `wrong`."""
    mean, error = float(draws.double().mean()), float(draws.double().std()) / len(draws) ** 0.5
    off, wrong_off = abs(mean - number(rhs, values)) / error, abs(mean - number(wrong, values)) / error
    if off > 4 or wrong_off < 6:
        raise ProofError(f"({tag}) {off:.1f} standard errors off; the wrong variant {wrong_off:.1f} (must be under 4 and over 6)")
    evidence = f"Monte Carlo, n = {len(draws):,}: within 4 standard errors; a wrong variant ({sp.sstr(wrong)}) is rejected."
    _show(tag, "expectation", _eq(lhs, rhs), evidence, source)


def inequality(tag: str, lhs: sp.Expr, rhs: sp.Expr, *, cases: Iterable[Values], relation: str = r"\ge", source: str = "") -> None:
    """Show lhs >= rhs (or relation r"\\le") after trying every case; at least one must be strict."""
    sign = {r"\ge": 1, r"\le": -1}[relation]
    gaps = [sign * (number(lhs, case) - number(rhs, case)) for case in cases]
    if not gaps or min(gaps) < -1e-9 or max(gaps) < 1e-6:
        raise ProofError(f"({tag}) fails, or is an equality, on the {len(gaps)} cases tried")
    _show(tag, "inequality", _eq(lhs, rhs, relation), f"Tried on {len(gaps)} cases; never violated, and strict in some.", source)


def limit(
    tag: str,
    lhs: sp.Expr,
    rhs: sp.Expr,
    *,
    sizes: Sequence[float],
    errors: Sequence[float],
    order: float,
    tolerance: float = 0.15,
    source: str = "",
) -> None:
    """Show lhs -> rhs after the measured |errors| at growing `sizes` fall like size^-order (least squares on logarithms)."""
    x, y = torch.tensor(sizes).double().log(), torch.tensor(errors).double().abs().log()
    measured = -float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    if not abs(measured - order) <= tolerance:
        raise ProofError(f"({tag}) the measured order is {measured:.3f}, not {order} +- {tolerance}")
    _show(tag, "limit", _eq(lhs, rhs, r"\longrightarrow"), f"Measured: the error falls with order {order:g} +- {tolerance:g}.", source)


def approximation(tag: str, lhs: sp.Expr, rhs: sp.Expr, *, cases: Iterable[Values], within: float, source: str = "") -> None:
    """Show lhs ~ rhs after the largest difference over the cases was found below `within`, and not zero everywhere."""
    errors = [abs(number(lhs, case) - number(rhs, case)) for case in cases]
    if not errors or max(errors) > within or max(errors) == 0:
        raise ProofError(f"({tag}) the largest difference is {max(errors, default=0):.3g}; it must be in (0, {within:g}]")
    _show(tag, "approximation", _eq(lhs, rhs, r"\approx"), f"Largest difference over {len(errors)} cases: below {within:g}.", source)


def table_values(schedule: NoiseSchedule, t: int, **more: float) -> dict[sp.Symbol, float]:
    """The course's symbols at time t of a schedule, for agrees() and the numeric evidence."""
    return {
        alpha_t: float(schedule.alpha[t]),
        beta_t: float(schedule.beta[t]),
        bar_t: float(schedule.alpha_bar[t]),
        bar_s: float(schedule.alpha_bar[t - 1]),
    } | {globals()[name]: value for name, value in more.items()}


def agrees(expr: sp.Expr, values: Values, package: float | torch.Tensor, tolerance: float = 1e-9) -> None:
    """Raise ProofError unless the displayed expression and the package give the same number."""
    mine, theirs = number(expr, values), float(package)
    if not abs(mine - theirs) <= tolerance * max(1.0, abs(mine)):
        raise ProofError(f"the equation gives {mine:.12g}, the package {theirs:.12g}")
    print("the package computes the same number: True")
