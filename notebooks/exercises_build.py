"""Student and solution notebooks, made from the masters: `python notebooks/build.py exercises [name ...]`.

A chapter's master has a section `## Exercises`: for each exercise a question (`**2.1 ★** ...`), a cell tagged `hint`, the
blank (`exercise`) and the `solution`. The masters in `notebooks/src/exercises` are whole notebooks with the same tags.
"""

from __future__ import annotations

import ast
import builtins
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import build
import jupytext
import nbformat
from build import BuildError
from nbformat import NotebookNode

FOLDER = build.HERE / "exercises"
MASTERS = build.HERE / "src" / "exercises"
QUESTION = re.compile(r"\*\*([0-9A-Z]+\.\d+) (★{1,3})\*\* ")
LEFT_OUT = {"student": "solution", "solution": "exercise"}  # the tag of the cells that a form does without
UNUSED = {"student": "must_pass", "solution": "check"}
ONE_FORM = {"entry_quiz"}  # its answers are explained by the checks, so there is no solution notebook
BACK = "Back to the chapter: [{name}.ipynb](../{name}.ipynb). "
INTRO = {
    "student": 'Replace the three dots and run the cell: it says "right!", or gives the hint that fits your mistake. '
    "Hints are in collapsed cells. ★ takes a minute, ★★ a few, ★★★ needs pen and paper. "
    "Solutions: [{name}_solution.ipynb]({name}_solution.ipynb).",
    "solution": "One way to solve each exercise; others are as good. The blank sheet: [{name}_student.ipynb]({name}_student.ipynb).",
}


@dataclass(frozen=True)
class Item:
    """One exercise of a chapter: its number, its grade 1..3, and its cells in order, the question first."""

    number: str
    grade: int
    cells: list[NotebookNode]

    def tagged(self, tag: str) -> list[NotebookNode]:
        """The cells that bear a tag."""
        return [cell for cell in self.cells if tag in tags(cell)]


# --- reading masters -------------------------------------------------------------------------------------------------


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def is_chapter(name: str) -> bool:
    """Whether a master is a chapter, or else a whole notebook of exercises."""
    return build.master_path(name).exists()


def read_master(name: str) -> list[NotebookNode]:
    """The cells of a master, of either kind."""
    path = build.master_path(name) if is_chapter(name) else MASTERS / f"{name}.py"
    return copy.deepcopy(parsed(path.read_text(encoding="utf-8")))


@lru_cache(maxsize=64)
def parsed(text: str) -> list[NotebookNode]:
    """The cells of a master's text; slow, and each sheet asks several times."""
    return jupytext.reads(text, fmt="py:percent").cells


def section(name: str) -> list[NotebookNode]:
    """The cells under a chapter's heading `## Exercises`, without the heading cell."""
    cells = read_master(name)
    start = [k for k, cell in enumerate(cells) if cell.source.startswith("## Exercises")]
    if len(start) != 1:
        raise BuildError(f"{name}: one markdown cell must start with '## Exercises', {len(start)} do")
    ends = [k for k, cell in enumerate(cells) if k > start[0] and cell.source.startswith("## ")]
    return cells[start[0] + 1 : min(ends, default=len(cells))]


def items(name: str) -> list[Item]:
    """The exercises of a chapter, in order, each with its question, hint, blank and solution."""
    found: list[Item] = []
    for cell in section(name):
        question = QUESTION.match(cell.source) if cell.cell_type == "markdown" else None
        if question:
            found.append(Item(question[1], len(question[2]), [cell]))
        elif found and {"hint", "exercise", "solution"} & set(tags(cell)):
            found[-1].cells.append(cell)
        elif "setup" not in tags(cell):
            raise BuildError(f"{name}: this cell in Exercises has no place; tag it setup, hint, exercise or solution:\n{cell.source}")
    for item in found:
        lacking = [tag for tag in ("hint", "exercise", "solution") if not item.tagged(tag)]
        if lacking:
            raise BuildError(f"{name}: exercise {item.number} has no cell tagged {' or '.join(lacking)}")
    return found


# --- the set-up cell -------------------------------------------------------------------------------------------------


def code_of(cells: list[NotebookNode]) -> ast.Module:
    """All code of some cells, parsed."""
    return ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))


def bound_by(node: ast.AST) -> list[str]:
    """The names that a piece of syntax binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.arg):
        return [node.arg]
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []


def free_names(cells: list[NotebookNode]) -> set[str]:
    """The names that cells use and nowhere bind."""
    nodes = list(ast.walk(code_of(cells)))
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return used - {name for node in nodes for name in bound_by(node)} - set(dir(builtins))


def import_lines(name: str, wanted: set[str]) -> list[str]:
    """The chapter's own imports of the wanted names: standard library and torch first, then the course."""
    plain, modules, found = set(), {}, set()
    for node in code_of(read_master(name)).body:
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else []:
            bound = alias.asname or alias.name
            if bound not in wanted - found:
                continue
            found.add(bound)
            text = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
            if isinstance(node, ast.Import):
                plain.add(f"import {text}")
            else:
                modules.setdefault(node.module, set()).add(text)
    if wanted - found:
        lost = ", ".join(sorted(wanted - found))
        raise BuildError(f"{name}: exercises use {lost}, which no import brings; define it in an Exercises cell tagged setup")
    lines = [f"from {module} import {', '.join(sorted(names))}" for module, names in modules.items()]
    return sorted(plain) + sorted(lines, key=lambda line: (line.startswith("from ddpm_course"), line))


# --- the notebooks ---------------------------------------------------------------------------------------------------


def kept(cells: list[NotebookNode], form: str) -> list[NotebookNode]:
    """The cells of one form. In the solution notebook an answer is open, so it loses the tag that would collapse it."""
    chosen = [copy.deepcopy(cell) for cell in cells if LEFT_OUT[form] not in tags(cell)]
    for cell in chosen:
        if "solution" in tags(cell):
            cell.metadata["tags"] = ["answer"]
    return chosen


def title(name: str) -> str:
    """A chapter's first heading, up to its colon."""
    return read_master(name)[0].source.splitlines()[0].split(":")[0]


def chapter_sheet(name: str, form: str) -> list[NotebookNode]:
    """Title with the way back, imports, the chapter's set-up cells, and the exercises."""
    word = "exercises" if form == "student" else "solutions"
    head = nbformat.v4.new_markdown_cell(f"{title(name)}: {word}\n\n" + (BACK + INTRO[form]).format(name=name))
    setup = [cell for cell in section(name) if "setup" in tags(cell)]
    everything = setup + [cell for item in items(name) for cell in item.cells]
    lines = import_lines(name, free_names(everything) - {UNUSED[form]})
    body = kept([cell for item in items(name) for cell in item.cells], form)
    return [head, nbformat.v4.new_code_cell("\n".join(lines)), *setup, *body]


def expected(name: str, form: str) -> NotebookNode:
    """The student or solution notebook of a master, unexecuted."""
    return build.dressed(chapter_sheet(name, form) if is_chapter(name) else kept(read_master(name), form))


def sheets(name: str) -> dict[str, Path]:
    """The notebooks that a master gives: form -> path."""
    if name in ONE_FORM:
        return {"student": FOLDER / f"{name}.ipynb"}
    return {form: FOLDER / f"{name}_{form}.ipynb" for form in LEFT_OUT}


def all_masters() -> list[str]:
    """Names of all masters that have exercises."""
    return build.known("exercises")


def everything(names: list[str] | None = None) -> list[Path]:
    """Each notebook that should be there (for all masters, unless some chapters are named), and each that is."""
    wanted = all_masters() if not names or set(names) == set(build.chapters()) else names
    stray = set(FOLDER.glob("*.ipynb")) if wanted == all_masters() else set()
    return sorted(stray.union(*(sheets(name).values() for name in wanted)))


def build_sheets(name: str) -> None:
    """Execute and write the notebooks of one master."""
    FOLDER.mkdir(exist_ok=True)
    for form, path in sheets(name).items():
        build.build(expected(name, form), path)


def problems(path: Path) -> list[str]:
    """Everything wrong with one notebook of exercises; an empty list means that it is fresh and complete."""
    for name, form in forms():
        if sheets(name)[form] == path:
            lost = [f"{path.name} is missing; build it with: make exercises NAME={name}"]
            return build.stored_problems(path, expected(name, form)) if path.exists() else lost
    return [f"{path.name} has no master; delete it"]


def forms() -> Iterator[tuple[str, str]]:
    """Every (master, form)."""
    for name in all_masters():
        yield from ((name, form) for form in sheets(name))
