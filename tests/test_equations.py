"""The page of equations is fresh, every equation has its evidence, and the tool that breaks equations can tell good evidence from bad."""

import re

import build
import equations
import nbformat
import pytest
import sympy as sp
from equations import Equation, Examiner

from ddpm_course import proofs
from ddpm_course.proofs import Expect, bar_s, bar_t, eps, x_0

PAGE = equations.PAGE.read_text(encoding="utf-8")
ROWS = {m[1]: (m[2], m[3]) for m in re.finditer(r"^\| (\d+\.\d+) \| \$.*\$ \| (\w+) \| [^|]* \| (.*?) \| [^|]* \|$", PAGE, re.MULTILINE)}
OUTPUT = re.compile(rf"^\((\d+\.\d+)\) ({'|'.join(proofs.KINDS)})\. (.+?)\.?(?: Source: .*)?$", re.MULTILINE)


def shown(name: str) -> dict[str, tuple[str, str]]:
    """Tag -> (kind, evidence) as an executed chapter shows them."""
    notebook = nbformat.read(build.notebook_path(name), as_version=4)
    printed = [out.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    found = {tag: (kind, evidence) for text in printed for tag, kind, evidence in OUTPUT.findall(text)}
    typed = [tag for cell in notebook.cells if cell.cell_type == "markdown" for _, tag in equations.TYPED.findall(cell.source)]
    return found | {tag: ("definition", "") for tag in typed}


@pytest.mark.parametrize("name", build.chapters())
def test_the_page_lists_what_the_chapter_shows(name: str) -> None:
    wanted = {tag: (kind, "" if kind == "definition" else evidence) for tag, (kind, evidence) in shown(name).items()}
    listed = {
        tag: (kind, evidence.replace(r"\|", "|")) for tag, (kind, evidence) in ROWS.items() if int(tag.split(".")[0]) == int(name[:2])
    }
    assert wanted or name == "11_common_mistakes"  # which derives nothing
    assert listed == wanted, "run `make equations`"


def test_every_equation_but_a_definition_has_evidence_of_its_sort() -> None:
    rows = [Equation(tag, kind, evidence=evidence + ".") for tag, (kind, evidence) in ROWS.items()]
    assert equations.without_evidence(rows) == []
    lame = [
        Equation("9.1", "identity"),
        Equation("9.2", "limit", evidence="Proved by SymPy."),
        Equation("9.3", "expectation", evidence="Seen."),
    ]
    assert equations.without_evidence(lame) == ["9.1", "9.2", "9.3"]


def test_readme_states_the_counts() -> None:
    summary = re.search(r"^\d+ display equations: .*$", PAGE, re.MULTILINE)
    assert summary and summary[0] in build.README.read_text(encoding="utf-8")
    assert int(summary[0].split()[0]) == len(ROWS)
    assert "Without evidence of the right sort: 0." in summary[0]


# --- the tool itself -------------------------------------------------------------------------------------------------


def test_a_slice_has_what_the_equations_need_and_no_more() -> None:
    cells = ["a = 1", "a = heavy()", "b = 2", "a = 3\nfor i in range(3):\n    print(i)", "plot(b)", "equation('1.1', a, a)"]
    assert equations.slice_of(cells) == [cells[3], cells[5]]
    cells = ["x = []", "x += [y]", "equation('1.1', x, x)"]
    assert equations.slice_of(["y = 1", *cells]) == ["y = 1", *cells]


def test_slips_of_the_pen() -> None:
    made = set(equations.mutants(sp.sqrt(bar_t) * x_0 + eps))
    for slip in (bar_t * x_0 + eps, sp.sqrt(bar_s) * x_0 + eps, -sp.sqrt(bar_t) * x_0 + eps, sp.sqrt(proofs.alpha_t) * x_0 + eps):
        assert slip in made
    assert sp.Integer(1) in set(equations.mutants(sp.Integer(0))) and sp.Integer(-3) in set(equations.mutants(sp.Integer(3)))
    inside = set(equations.mutants(Expect((x_0 + eps) ** 2, eps)))
    assert Expect((x_0 - eps) ** 2, eps) in inside and all(m.args[1:] == (eps,) for m in inside if isinstance(m, Expect))


def examine(name: str, *args: object, **kwargs: object) -> Equation:
    examiner = Examiner(try_mutants=True)
    examiner.stand_in(name)("9.1", *args, **kwargs)
    return examiner.found["9.1"]


def test_good_evidence_leaves_no_survivor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "RECORDS", {})
    u, n = sp.Symbol("u", positive=True), sp.Symbol("n", positive=True)
    rows = [
        examine("equation", Expect((x_0 + sp.sqrt(bar_t) * eps) ** 2, eps), x_0**2 + bar_t),
        examine("derive", (x_0 + eps) ** 2, (x_0**2 + 2 * x_0 * eps + eps**2, "expand")),
        examine("inequality", sp.log(u), u - 1, cases=[{u: k / 5} for k in range(1, 20)], equality={u: 1}, relation=r"\le"),
        examine("limit", (1 - 1 / n) ** n, sp.exp(-1), sizes=[10, 100, 1000], order=1),
        examine("approximation", sp.exp(u), 1 + u, cases=[{u: k / 1000} for k in (-9, 3, 9)], within=1e-4),
    ]
    assert all(row.num_mutants >= 3 and not row.survivors for row in rows), [row.survivors for row in rows]
    assert len(rows[0].same) == 2  # the sign of a noise makes no difference to a mean square


def test_blind_evidence_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "RECORDS", {})
    monkeypatch.setattr(proofs, "prove", lambda *args: None)
    assert examine("equation", bar_t + x_0, bar_t - x_0).survivors
    u = sp.Symbol("u", positive=True)
    loose = examine("approximation", sp.exp(u), 1 + u, cases=[{u: 0.01}], within=5.0)
    assert any("right" in text for text in loose.survivors)


def test_a_whole_chapter_under_fire() -> None:
    rows = equations.examine_chapter("02_forward", try_mutants=True)
    assert sum(row.num_mutants for row in rows.values()) > 100
    assert not [text for row in rows.values() for text in row.survivors]
    assert "forward.q_sample" in set().union(*(row.functions for row in rows.values()))
