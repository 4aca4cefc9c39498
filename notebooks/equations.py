"""The one equation tool: `python notebooks/equations.py table | mutants [--chapters 02,05]`.

Runs only the cells that show or test an equation, and what they need. `table` writes docs/equations.md and the counts in README.md.
`mutants` breaks every displayed expression (a sign, a root, t for t-1, alpha for alpha bar) and asks its evidence to notice.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import build
import sympy as sp

from ddpm_course import proofs
from ddpm_course.errors import CourseError
from ddpm_course.proofs.symbols import NORMAL, UNIT, is_zero, latex

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "equations.md"
SHOWN = ("equation", "derive", "expectation", "inequality", "limit", "approximation")
CITATION = re.compile(r"\b(Ho|DDIM|Nichol|Dhariwal|Luo|CFG|VAE|ZTSNR|v-pred|SDE|EDM)\b (?:eqs?\. ?\d|section)[^.;)]*")
TYPED = re.compile(r"\$\$((?:(?!\$\$).)+?)\\tag\{(\d+\.\d+), definition\}", re.DOTALL)
EVIDENCE = {
    "identity": r"Proved by SymPy\.|Each of the \d+ lines proved",
    "expectation": r"Monte Carlo|by quadrature",
    "inequality": r"never violated",
    "limit": r"Measured: the error falls with order",
    "approximation": r"Largest difference over",
    "definition": r"",
}


@dataclass
class Equation:
    """One displayed equation and what stands behind it."""

    tag: str
    kind: str
    source: str = ""
    evidence: str = ""
    latex: str = ""
    functions: set[str] = field(default_factory=set)
    num_mutants: int = 0
    same: list[str] = field(default_factory=list)  # mutants with the value of the original
    survivors: list[str] = field(default_factory=list)


# --- which cells -----------------------------------------------------------------------------------------------------


def bound(tree: ast.AST) -> set[str]:
    """Names that a piece of code binds: assigned, defined, imported, and the parameters of its functions."""
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return found | {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}


def free(tree: ast.Module) -> set[str]:
    """Names that a cell takes from earlier cells."""
    found, known = set(), set()
    for statement in tree.body:
        simple = isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign)
        inside = bound(statement.value) if simple and statement.value else set() if simple else bound(statement)
        loads = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            loads.add(statement.target.id)
        found |= loads - known - inside
        known |= bound(statement)
    return found


def called(tree: ast.AST) -> set[str]:
    """Names of the functions that a cell calls."""
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def slice_of(sources: list[str]) -> list[str]:
    """The cells that show or test equations, and all earlier cells that bind a name which these need."""
    trees, wanted, needed = [ast.parse(source) for source in sources], [], set()
    for position in reversed(range(len(trees))):
        tree = trees[position]
        if called(tree) & {*SHOWN, "agrees"} or bound(tree) & needed:
            wanted.append(sources[position])
            needed = needed - bound(tree) | free(tree)
    return wanted[::-1]


# --- mutants of a displayed expression -------------------------------------------------------------------------------

SWAPS = [(proofs.bar_t, proofs.bar_s), (proofs.bar_t, proofs.alpha_t), (proofs.x_t, proofs.x_s), (proofs.x_0, proofs.x_0_hat)]
SWAPS += [(proofs.eps, proofs.eps_hat), (proofs.alpha_t, proofs.beta_t)]
OTHER = {a: b for pair in SWAPS for a, b in (pair, pair[::-1])}
BOUND = (sp.Sum, sp.Product, sp.Integral, sp.Derivative, proofs.Expect)


def changed(node: sp.Basic) -> Iterator[sp.Basic]:
    """What a slip of the pen makes of one node: a lost sign, a lost root or square, a neighbouring symbol."""
    if isinstance(node, sp.Add):
        for term in node.args:
            yield sp.Add(*(-other if other is term else other for other in node.args))
    if isinstance(node, sp.Pow) and node.exp in (sp.Rational(1, 2), -sp.Rational(1, 2)):
        yield node.base ** (2 * node.exp)
    if isinstance(node, sp.Pow) and node.exp in (2, -2):
        yield node.base ** (node.exp / 2)
    if isinstance(node, sp.exp | sp.log):
        yield type(node)(-node.args[0]) if isinstance(node, sp.exp) else type(node)(1 / node.args[0])
    if isinstance(node, sp.Symbol):
        yield from (b for a, b in [*SWAPS, *(pair[::-1] for pair in SWAPS)] if a == node)


def mutants(expr: sp.Basic, top: bool = True) -> Iterator[sp.Basic]:
    """Every expression that differs from expr by one slip; the variables of sums and expectations are left alone."""
    if top and isinstance(expr, sp.Expr):
        yield expr + 1 if expr == 0 else -expr
    yield from changed(expr)
    open_args = 1 if isinstance(expr, BOUND) else len(expr.args)
    for position, arg in enumerate(expr.args[:open_args]):
        for slip in mutants(arg, top=False):
            with contextlib.suppress(TypeError, ValueError):
                yield expr.func(*expr.args[:position], slip, *expr.args[position + 1 :])


def noticed(attempt: Callable[[], Any]) -> bool:
    """Whether the evidence refuses: any CourseError does, and any mathematical error on the way."""
    try:
        attempt()
    except (CourseError, ZeroDivisionError, OverflowError, TypeError, ValueError, sp.PolynomialError):
        return True
    return False


def same_value(slip: sp.Expr, expr: sp.Expr, given: dict | None) -> bool:
    """Whether a mutant says the same as the original, as the sign of a term that is 0 does."""
    difference = (slip - expr).doit().subs(given or {}).subs(given or {})
    return is_zero(difference)


class Examiner:
    """Stands in for the functions of `proofs` that show equations: shows each one, records it, and tries its mutants if asked."""

    def __init__(self, try_mutants: bool) -> None:
        self.try_mutants, self.found = try_mutants, {}
        self.real = {name: getattr(proofs, name) for name in SHOWN}

    def stand_in(self, name: str) -> Callable[..., None]:
        def show(tag: str, lhs: sp.Expr, *args: Any, **kwargs: Any) -> None:
            self.real[name](tag, lhs, *args, **kwargs)
            record = proofs.RECORDS[tag]
            self.found[tag] = Equation(tag, record.kind, record.source, record.evidence, in_a_line(name, lhs, args, kwargs))
            if self.try_mutants and record.kind != "definition":
                self.examine(self.found[tag], name, lhs, args, kwargs)

        return show

    def examine(self, row: Equation, name: str, lhs: sp.Expr, args: tuple, kwargs: dict) -> None:
        """Put each mutant of each displayed expression in its place, and ask the same evidence again."""
        for place, expr, attempt in self.places(name, lhs, args, kwargs):
            for slip in dict.fromkeys(mutants(expr)):
                if slip == expr:
                    continue
                row.num_mutants += 1
                if noticed(lambda: attempt(slip)):  # noqa: B023
                    continue
                same = same_value(slip, expr, kwargs.get("given"))
                (row.same if same else row.survivors).append(f"{place}: {sp.sstr(expr)} -> {sp.sstr(slip)}")

    def places(self, name: str, lhs: sp.Expr, args: tuple, kwargs: dict) -> Iterator[tuple[str, sp.Expr, Callable]]:
        """Each displayed expression: where it stands, what it is, and how its evidence is asked about another one."""
        if name in ("derive", "equation"):
            chain = [sp.sympify(e) for e in [lhs, *((line[0] for line in args) if name == "derive" else args[:1])]]
            for k, expr in enumerate(chain):
                neighbours = chain[max(k - 1, 0) : k] + chain[k + 1 : k + 2]
                prove_both = lambda slip, near=neighbours: [proofs.prove(other, slip, kwargs.get("given")) for other in near]  # noqa: E731
                yield ("left" if k == 0 else f"line {k}" if name == "derive" else "right"), expr, prove_both
            return
        quiet = lambda *a: self.real[name]("mutant", *a, **kwargs)  # noqa: E731
        if not (name == "limit" and kwargs.get("measured")):  # there the left side is a name for what was measured
            yield "left", lhs, lambda slip: quiet(slip, *args)
        yield "right", args[0], lambda slip: quiet(lhs, slip, *args[1:])


# --- running a chapter -----------------------------------------------------------------------------------------------


def examine_chapter(name: str, try_mutants: bool) -> dict[str, Equation]:
    """Run the chapter's slice and return its equations by tag, typed definitions included."""
    import matplotlib

    matplotlib.use("Agg")
    cells = build.prepared(name).cells
    taught = [cell for cell in cells if cell.cell_type == "code" and not {"exercise", "solution"} & set(cell.metadata.get("tags", []))]
    sources = [cell.source for cell in taught]
    examiner, space = Examiner(try_mutants), {"__name__": "__main__"}
    with contextlib.ExitStack() as stack:
        for shown in SHOWN:
            stack.enter_context(mock.patch.object(proofs, shown, examiner.stand_in(shown)))
        stack.enter_context(mock.patch.object(proofs, "display", lambda *a, **k: None))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.chdir(ROOT / "notebooks"))  # where a chapter runs
        stack.callback(UNIT.intersection_update, set(UNIT))  # a chapter's own letters stay its own
        stack.callback(NORMAL.intersection_update, set(NORMAL))
        for source in slice_of(sources):
            exec(compile(source, f"{name}", "exec"), space)  # noqa: S102
            sys.modules["matplotlib.pyplot"].close("all") if "matplotlib.pyplot" in sys.modules else None
    found = examiner.found
    for cell in cells:
        for body, tag in TYPED.findall(cell.source) if cell.cell_type == "markdown" else []:
            found[tag] = Equation(
                tag, "definition", source=cited_near(cell.source, tag), latex=" ".join(body.split()).replace("|", r"\mid ")
            )
    for tag, functions in implementations(sources, found).items():
        found[tag].functions |= functions
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def in_a_line(name: str, lhs: sp.Expr, args: tuple, kwargs: dict) -> str:
    """What is displayed, in one line: the two ends of a derivation."""
    relation = {"inequality": kwargs.get("relation", r"\ge"), "limit": r"\longrightarrow", "approximation": r"\approx"}.get(name, "=")
    rhs = args[-1][0] if name == "derive" else args[0]
    return f"{latex(lhs)} {relation} {latex(rhs)}".replace("|", r"\mid ")


def cited_near(text: str, tag: str) -> str:
    """The last citation that a paragraph makes before or in the display with this tag."""
    before = text[: text.index(f"\\tag{{{tag},")].split("\n\n")
    cites = [match.group(0).strip() for match in CITATION.finditer(before[-1])]
    return cites[-1] if cites else ""


# --- who implements it -----------------------------------------------------------------------------------------------


def pairs(text: str) -> set[tuple[str, str]]:
    """(paper, equation) pairs that a text cites; ranges are spelt out."""
    found = set()
    for paper, numbers in re.findall(r"\b([A-Z][\w-]+|v-pred) eqs?\. ?(\d+(?:(?:[-–]|, | and )\d+)*)", text):
        for part in re.split(r", | and ", numbers):
            ends = [int(n) for n in re.split(r"[-–]", part)]
            found |= {(paper, str(n)) for n in range(ends[0], ends[-1] + 1)}
    return found


def documented() -> dict[tuple[str, str], set[str]]:
    """Which public functions cite which equation in their docstring."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in sorted((ROOT / "ddpm_course").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                for pair in pairs(ast.get_docstring(node) or ""):
                    found.setdefault(pair, set()).add(f"{path.stem}.{node.name}")
    return found


def implementations(sources: list[str], found: dict[str, Equation]) -> dict[str, set[str]]:
    """For each tag the package functions that were compared with it by agrees(), or that cite the same equation."""
    trees, homes, shown = [ast.parse(source) for source in sources], package_names(sources), {}
    result: dict[str, set[str]] = {tag: set() for tag in found}
    cites = documented()
    for tag, row in found.items():
        result[tag] |= {name for pair in pairs(row.source) for name in cites.get(pair, ())}
    for tree in trees:
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            if call.func.id in SHOWN and call.args and isinstance(call.args[0], ast.Constant):
                for name in {n.id for arg in call.args[1:] for n in ast.walk(arg) if isinstance(n, ast.Name)}:
                    shown.setdefault(name, set()).add(call.args[0].value)
            if call.func.id == "agrees" and len(call.args) > 2:
                about = {n.id for n in ast.walk(call.args[0]) if isinstance(n, ast.Name)}
                used = {homes[n.id] for n in ast.walk(call.args[2]) if isinstance(n, ast.Name) and n.id in homes}
                for tag in set().union(*(shown.get(name, set()) for name in about if name not in SYMBOLS)):
                    result.get(tag, set()).update(used)
    return result


SYMBOLS = {"sp", *(name for name in proofs.__all__ if isinstance(getattr(proofs, name), sp.Basic))}


def package_names(sources: list[str]) -> dict[str, str]:
    """Names that a chapter imports from the package, with their module: {"q_sample": "forward.q_sample"}."""
    import ddpm_course

    homes = {}
    for node in (n for source in sources for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)):
        if (node.module or "").startswith("ddpm_course"):
            for alias in node.names:
                target = getattr(ddpm_course, alias.name, None) if node.module == "ddpm_course" else None
                module = (getattr(target, "__module__", None) or node.module).removeprefix("ddpm_course").lstrip(".")
                if module.split(".")[0] not in ("proofs", "plots", "widgets", "checks", ""):
                    homes[alias.asname or alias.name] = f"{module}.{alias.name}"
    return homes


# --- output ----------------------------------------------------------------------------------------------------------


def without_evidence(rows: list[Equation]) -> list[str]:
    """Tags of equations that are no definition and lack evidence of the right sort."""
    return [row.tag for row in rows if not re.search(EVIDENCE[row.kind], row.evidence)]


HEAD = """# Every equation and its evidence

Written by `make equations`. Of a derivation, the two ends are shown; the chapter has every line. A definition needs no evidence.
*Function*: what was compared with the equation by `agrees(...)` in its chapter, or cites the same equation of a paper.
"""


def page(rows: dict[str, list[Equation]]) -> str:
    """docs/equations.md."""
    lines = [HEAD, counts(rows), ""]
    for chapter, found in rows.items():
        lines += [f"## {chapter}", "", "| number | equation | kind | source | evidence | function |", "|---|---|---|---|---|---|"]
        for row in found:
            functions = ", ".join(f"`{name}`" for name in sorted(row.functions))
            evidence = row.evidence.removesuffix(".").replace("|", r"\|") if row.kind != "definition" else ""
            lines.append(f"| {row.tag} | ${row.latex}$ | {row.kind} | {row.source} | {evidence} | {functions} |")
        lines.append("")
    return "\n".join(lines)


def counts(rows: dict[str, list[Equation]]) -> str:
    """The one-line summary."""
    every = [row for found in rows.values() for row in found]
    kinds = Counter(row.kind for row in every)
    told = ", ".join(f"{kinds[kind]} {kind}" for kind in proofs.KINDS if kinds[kind])
    lost = without_evidence(every)
    return f"{len(every)} display equations: {told}. Without evidence of the right sort: {len(lost)}{' ' + str(lost) if lost else ''}."


def columns(rows: list[Equation]) -> tuple[int, int, int]:
    """Mutants tried, those that say the same, and those that survive."""
    return sum(row.num_mutants for row in rows), sum(len(row.same) for row in rows), sum(len(row.survivors) for row in rows)


def write_counts(text: str) -> None:
    """Put the summary between the markers in README.md."""
    readme = build.README.read_text(encoding="utf-8")
    new = re.sub(r"(<!-- equations:begin -->\n).*?(<!-- equations:end -->)", lambda m: f"{m[1]}{text}\n{m[2]}", readme, flags=re.DOTALL)
    build.README.write_text(new, encoding="utf-8")


def main() -> int:
    """Command line; 0 when every equation has its evidence and every mutant was noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["table", "mutants"])
    parser.add_argument("--chapters", default="", help="two-digit numbers, separated by commas")
    parser.add_argument("--verbose", action="store_true", help="list the mutants that say the same, too")
    options = parser.parse_args()
    chosen = [name for name in build.chapters() if not options.chapters or name[:2] in options.chapters.split(",")]
    rows, start = {}, time.monotonic()
    for name in chosen:
        before = time.monotonic()
        rows[name] = list(examine_chapter(name, options.command == "mutants").values())
        mutants, same, left = columns(rows[name])
        note = f", {mutants} mutants, {same} say the same, {left} survive" if mutants else ""
        print(f"{name:20s} {len(rows[name]):3d} equations{note}  ({time.monotonic() - before:.1f} s)", flush=True)
        for row in rows[name]:
            for text in row.survivors + [f"says the same: {text}" for text in row.same if options.verbose]:
                print(f"    ({row.tag}) {text}")
    print(counts(rows), "Tautologies: 0 (they are refused when run).", f"{time.monotonic() - start:.0f} s")
    if options.command == "table" and not options.chapters:
        PAGE.write_text(page(rows), encoding="utf-8")
        write_counts(counts(rows))
    every = [row for found in rows.values() for row in found]
    return bool(without_evidence(every) or any(row.survivors for row in every))


if __name__ == "__main__":
    sys.exit(main())
