"""Equations that are shown only after they were proved: what is displayed is printed from the object that was checked.

The only home of SymPy in the package. Every function takes a tag "chapter.number" first and shows the equation with its kind.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import sympy as sp
import torch
from IPython.display import display

from ..errors import ValueCourseError
from ..schedule import NoiseSchedule
from .symbols import (
    NORMAL,
    Expect,
    ProofError,
    alpha_t,
    bar_s,
    bar_t,
    beta_t,
    eps,
    eps_hat,
    is_zero,
    latex,
    mu,
    normal,
    quadrature,
    sigma,
    unit,
    v,
    x_0,
    x_0_hat,
    x_s,
    x_t,
    z,
)

KINDS = ("definition", "identity", "expectation", "inequality", "limit", "approximation")
Values = Mapping[sp.Symbol, float]


__all__ = [
    "Expect", "ProofError", "agrees", "alpha_t", "approximation", "bar_s", "bar_t", "beta_t", "derive", "eps", "eps_hat", "equation",
    "expectation", "inequality", "is_zero", "limit", "mu", "normal", "number", "prove", "quadrature", "sigma", "table_values", "unit", "v",
    "x_0", "x_0_hat", "x_s", "x_t", "z",
]  # fmt: skip


class Record(NamedTuple):
    """One equation that was shown: its tag, kind, source and the evidence in words."""

    tag: str
    kind: str
    source: str
    evidence: str


RECORDS: dict[str, Record] = {}


def prove(lhs: sp.Expr, rhs: sp.Expr, given: Values | None = None) -> None:
    """Raise ProofError unless lhs = rhs for all values of their symbols, once the definitions `given` are put in."""
    lhs, rhs = sp.sympify(lhs), sp.sympify(rhs)
    if lhs == rhs:
        raise ProofError(f"nothing to prove: both sides are {lhs} before any work")
    difference = (lhs - rhs).doit().subs(given or {})
    if not is_zero(difference.subs(given or {})):
        raise ProofError(f"not an identity: the two sides of {latex(lhs)} = {latex(rhs)} differ")


def _by_quadrature(lhs: sp.Expr, rhs: sp.Expr, given: Values | None) -> bool:
    """Whether the equation is about expectations over standard normals; if so, both sides must agree by quadrature, too."""
    sides = [sp.sympify(side).subs(given or {}).subs(given or {}) for side in (lhs, rhs)]
    found = [e for side in sides for e in side.atoms(Expect)]
    if not found or not {symbol for e in found for symbol in e.args[1:]} <= NORMAL:
        return False
    rng, free = random.Random(1), sorted(set().union(*(side.free_symbols for side in sides)) - NORMAL, key=str)
    tried = 0
    for low in (0.15, 0.15, 1.2, 1.2):  # some formulas need 1 - a > 0, others n - 1 > 0
        values = {symbol: rng.uniform(low, low + 0.7) for symbol in free}
        left, right = (quadrature(side, values) for side in sides)
        if abs(left - right) > 1e-8 * max(1.0, abs(left)):
            raise ProofError(f"by quadrature the two sides are {left:.9g} and {right:.9g}")
        tried += not math.isnan(left + right)
    return tried > 1


def _show(tag: str, kind: str, body: str, evidence: str, source: str) -> None:
    if kind not in KINDS:
        raise ValueCourseError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    RECORDS[tag] = Record(tag, kind, source, evidence)
    latex, note = rf"{body} \tag{{{tag}, {kind}}}", f"({tag}) {kind}. {evidence}" + (f" Source: {source}." if source else "")
    display({"text/latex": f"$$ {latex} $$", "text/plain": latex}, raw=True)
    print(note)


def _eq(lhs: sp.Expr, rhs: sp.Expr, relation: str = "=") -> str:
    return f"{latex(lhs)} {relation} {latex(rhs)}"


def equation(tag: str, lhs: sp.Expr, rhs: sp.Expr, kind: str = "identity", *, given: Values | None = None, source: str = "") -> None:
    """Prove lhs = rhs by SymPy (with the definitions `given` put in) and show it. Kind "definition" is shown without proof."""
    evidence = "Nothing to prove."
    if kind != "definition":
        prove(lhs, rhs, given)
        evidence = "Proved by SymPy."
    if kind == "identity" and _by_quadrature(lhs, rhs, given):
        kind, evidence = "expectation", "Proved by SymPy, and by quadrature."
    _show(tag, kind, _eq(lhs, rhs), evidence, source)


def derive(
    tag: str, lhs: sp.Expr, *lines: tuple[sp.Expr, str], given: Values | None = None, kind: str = "identity", source: str = ""
) -> None:
    """A derivation: each line is (expression, reason) and is proved equal to the line before it. Shown aligned, reasons beside."""
    first = before = sp.sympify(lhs)
    for number, (expr, reason) in enumerate(lines, 1):
        try:
            prove(before, expr, given)
        except ProofError as error:
            raise ProofError(f"line {number} ({reason}): {error}") from error
        before = expr
    rows = r" \\ ".join(rf"&= {latex(expr)} && \text{{{reason}}}" for expr, reason in lines)
    evidence = "Proved by SymPy." if len(lines) == 1 else f"Each of the {len(lines)} lines proved equal to the one before by SymPy."
    if kind == "identity" and _by_quadrature(first, before, given):
        kind, evidence = "expectation", f"{evidence[:-1]}, and the ends by quadrature."
    body = rf"\begin{{aligned}} {latex(lhs)} {rows} \end{{aligned}}"
    _show(tag, kind, body, evidence, source)


def number(expr: sp.Expr, values: Values) -> float:
    """The value of an expression once every symbol has a number."""
    result = sp.sympify(expr).doit().subs(values).doit()
    if result.free_symbols:
        raise ProofError(f"no value given for {', '.join(sorted(map(str, result.free_symbols)))}")
    return float(result)


def expectation(
    tag: str, lhs: sp.Expr, rhs: sp.Expr, *, draws: Mapping[sp.Expr, torch.Tensor], values: Values, wrong: sp.Expr, source: str = ""
) -> None:
    """Show E[...] = rhs after Monte Carlo: `draws` gives N draws for each random symbol (or density) inside the expectation.

    The mean of what stands inside must be within 4 standard errors of rhs, and over 6 from `wrong`.
    """
    names = {symbol: sp.Dummy(real=True) for symbol in draws}
    found = lhs.atoms(Expect)
    if len(found) != 1:
        raise ProofError(f"({tag}) the left side has {len(found)} expectations; it must be a constant times one")
    inside = lhs.subs({e: e.args[0] for e in found}).subs(names).subs(values)
    if lost := inside.free_symbols - set(names.values()):
        raise ProofError(f"({tag}) neither draws nor values for {', '.join(sorted(map(str, lost)))}")
    if not inside.free_symbols:
        raise ProofError(f"({tag}) nothing random is left inside the expectation")
    drawn = sp.lambdify(list(names.values()), inside, "numpy")(*(column.double().numpy() for column in draws.values()))
    mean, error = float(drawn.mean()), float(drawn.std()) / len(drawn) ** 0.5
    off, wrong_off = abs(mean - number(rhs, values)) / error, abs(mean - number(wrong, values)) / error
    if not (off <= 4 and wrong_off >= 6):
        raise ProofError(f"({tag}) {off:.1f} standard errors off; the wrong variant {wrong_off:.1f} (must be under 4 and over 6)")
    evidence = f"Monte Carlo, n = {len(drawn):,}: within 4 standard errors; a wrong variant ({sp.sstr(wrong)}) is rejected."
    _show(tag, "expectation", _eq(lhs, rhs), evidence, source)


def inequality(
    tag: str, lhs: sp.Expr, rhs: sp.Expr, *, cases: Iterable[Values], equality: Values, relation: str = r"\ge", source: str = ""
) -> None:
    """Show lhs >= rhs (or relation r"\\le") after trying every case; one must be strict, and at `equality` both sides meet."""
    if relation not in (r"\ge", r"\le"):
        raise ValueCourseError(f"unknown relation {relation!r}; known: \\ge, \\le")
    sign = 1 if relation == r"\ge" else -1
    symbols = sorted((lhs - rhs).free_symbols, key=str)
    difference = sp.lambdify(symbols, sign * (lhs - rhs).doit(), "math")
    gap = lambda case: float(difference(*(case[symbol] for symbol in symbols)))  # noqa: E731
    gaps = [gap(case) for case in cases]
    if not gaps or not min(gaps) >= -1e-9 or not max(gaps) > 1e-6:
        raise ProofError(f"({tag}) fails, or is an equality, on the {len(gaps)} cases tried")
    if not abs(gap(equality)) <= 1e-9:
        raise ProofError(f"({tag}) the two sides do not meet where they should: they differ by {gap(equality):.3g}")
    evidence = f"Tried on {len(gaps)} cases: never violated, strict in some; the sides meet where they should."
    _show(tag, "inequality", _eq(lhs, rhs, relation), evidence, source)


def limit(
    tag: str,
    lhs: sp.Expr,
    rhs: sp.Expr,
    *,
    sizes: Sequence[float],
    order: float,
    measured: Sequence[float] = (),
    values: Values | None = None,
    tolerance: float = 0.15,
    source: str = "",
) -> None:
    """Show lhs -> rhs after |lhs - rhs| at growing `sizes` was found to fall like size^-order (least squares on logarithms).

    lhs is computed at each size if it is a formula in one symbol; otherwise `measured` has its values.
    """
    known, free = dict(values or {}), sorted(lhs.free_symbols - set(values or {}), key=str)
    if not len(measured) and len(free) != 1:
        raise ProofError(f"({tag}) the left side is no formula in one symbol: give its measured values")
    left = list(measured) if len(measured) else [number(lhs, known | {free[0]: size}) for size in sizes]
    x, y = torch.tensor(sizes).double().log(), (torch.tensor(left).double() - number(rhs, known)).abs().log()
    slope = -float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    if not abs(slope - order) <= tolerance:
        raise ProofError(f"({tag}) the measured order is {slope:.3f}, not {order} +- {tolerance}")
    _show(tag, "limit", _eq(lhs, rhs, r"\longrightarrow"), f"Measured: the error falls with order {order:g} +- {tolerance:g}.", source)


def approximation(tag: str, lhs: sp.Expr, rhs: sp.Expr, *, cases: Iterable[Values], within: float, source: str = "") -> None:
    """Show lhs ~ rhs after the largest difference over the cases was found below `within`, and not zero everywhere."""
    errors = [abs(number(lhs, case) - number(rhs, case)) for case in cases]
    if not errors or not 0 < max(errors) <= within:
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
