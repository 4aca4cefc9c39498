"""Exercises in the masters and in the generated notebooks: solutions pass, blanks do not, nothing is missing or stale."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import build
import exercises_build as sheets
import nbformat
import pytest

from ddpm_course import checks
from ddpm_course.checks import bugs, quiz, verdict
from ddpm_course.errors import CourseError

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = build.chapters()
DERIVATIONS = [name for name in CHAPTERS if name[:2] in {"01", "02", "03", "04", "05", "06"}]
FUNCTIONS = {
    "B.1": "noise_like",
    "B.2": "one_step",
    "B.3": "jump",
    "B.4": "draw_times",
    "B.5": "Net",
    "B.6": "step",
    "B.7": "sample",
    "B.8": "true_score",
}
each_chapter = pytest.mark.parametrize("name", CHAPTERS)
each_sheet = pytest.mark.parametrize("path", sheets.everything(), ids=lambda path: path.stem)


def run(cells: list[nbformat.NotebookNode]) -> tuple[dict[str, Any], str]:
    """The names that code cells define, and what they print."""
    space: dict[str, Any] = {"__name__": "cells"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for cell in cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, "cell", "exec"), space)
    return space, printed.getvalue()


def numbers(name: str) -> list[str]:
    """The numbers of a chapter's exercises, as its master has them."""
    return [item.number for item in sheets.items(name)]


# --- the masters and the checks --------------------------------------------------------------------------------------


@each_chapter
def test_every_exercise_has_a_check_and_every_check_an_exercise(name: str) -> None:
    assert numbers(name) == list(checks.exercises(int(name[:2])))


@each_chapter
def test_solutions_pass(name: str) -> None:
    printed = run(sheets.expected(name, "solution").cells)[1]
    assert printed.splitlines() == [f"Exercise {number}: right!" for number in numbers(name)]


@each_chapter
def test_blanks_do_not(name: str) -> None:
    printed = run(sheets.expected(name, "student").cells)[1]
    assert printed.splitlines() == [f"Exercise {number}: still blank" for number in numbers(name)]


@each_chapter
def test_enough_exercises_of_every_grade(name: str) -> None:
    grades = [item.grade for item in sheets.items(name)]
    assert len(grades) >= 5 and 3 in grades
    assert grades.count(3) >= 2 or name not in DERIVATIONS


def test_there_are_at_least_sixty() -> None:
    assert sum(len(numbers(name)) for name in CHAPTERS) >= 60


def test_hints_are_there_and_all_different() -> None:
    items = [item for name in CHAPTERS for item in sheets.items(name)]
    cells = [cell for item in items for cell in item.tagged("hint")]
    texts = [cell.source.split("\n", 1)[1].strip() for cell in cells]
    assert [cell.source.split("\n")[0] for cell in cells] == [f"**Hint {item.number}**" for item in items]
    general = [exercise.hint for item in items for exercise in [checks.exercises(item.number.split(".")[0])[item.number]]]
    assert min(map(len, texts)) > 20 and len(set(texts) | set(general)) == 2 * len(items)


def test_equations_that_exercises_name_exist() -> None:
    calls = r"(?:equation|derive|expectation|inequality|limit|approximation)\(\s*\"|\\tag\{"
    known = {number for name in CHAPTERS for number in re.findall(rf"(?:{calls})(\d+\.\d+)", build.master_path(name).read_text("utf-8"))}
    texts = [cell.source for name in CHAPTERS for item in sheets.items(name) for cell in item.cells if cell.cell_type == "markdown"]
    texts += [path.read_text("utf-8") for path in Path(checks.__file__).parent.glob("ch*.py")]
    cited = {number for text in texts for number in re.findall(r"[ (]\((\d+\.\d+)\)|(?:[Ee]quation|into|as) \(?(\d+\.\d+)\)?", text)}
    cited = {first or second for first, second in cited}
    assert len(cited) > 5 and not cited - known


@each_chapter
def test_chapter_links_to_its_sheets(name: str) -> None:
    head = next(cell.source for cell in sheets.read_master(name) if cell.source.startswith("## Exercises"))
    targets = re.findall(r"\]\((exercises/[^)]+)\)", head)
    assert [(ROOT / "notebooks" / target).resolve() for target in targets][:2] == list(sheets.sheets(name).values())


# --- the generated notebooks -----------------------------------------------------------------------------------------


@each_sheet
def test_sheet_equals_its_master_and_ran_in_order(path: Path) -> None:
    assert sheets.problems(path) == []


@each_sheet
def test_links_of_a_sheet_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#]+\.ipynb)\)", text)
    assert targets and not [target for target in targets if not (path.parent / target).resolve().exists()]


@each_sheet
def test_sheet_writes_nothing_to_stderr_and_hints_are_collapsed(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not [output for cell in cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
    assert all(cell.metadata.jupyter.source_hidden for cell in cells if "hint" in cell.metadata.get("tags", []))


def test_student_sheets_show_no_solution() -> None:
    for name, form in sheets.forms():
        hidden = {"student": {"solution", "answer"}, "solution": {"exercise"}}[form]
        shown = {tag for cell in sheets.expected(name, form).cells for tag in sheets.tags(cell)}
        assert not shown & hidden
        assert form == "solution" or "must_pass" not in "".join(cell.source for cell in sheets.expected(name, form).cells)


def test_cell_ids_do_not_change() -> None:
    first, again = (sheets.expected("02_forward", "student").cells for _ in range(2))
    assert [cell.id for cell in first] == [cell.id for cell in again] and len({cell.id for cell in first}) == len(first)


# --- what an author does wrong ---------------------------------------------------------------------------------------

GOOD = "# # 97 · T: u\n\n# %%\nimport math\n\n# %% [markdown]\n# ## Exercises\n\n"
QUESTION = "# %% [markdown]\n# **97.1 ★** Why?\n\n"
HINT = '# %% [markdown] tags=["hint"]\n# **Hint 97.1**\n#\n# Think.\n\n'
BLANK = '# %% tags=["exercise"]\nanswer = ...\n\n'
SOLUTION = '# %% tags=["solution"]\nanswer = math.pi\n\n'


@pytest.fixture
def master(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Writes a master 97_t of which only the section Exercises matters."""
    (tmp_path / "src").mkdir()
    monkeypatch.setattr(build, "HERE", tmp_path)
    return lambda text: (tmp_path / "src" / "97_t.py").write_text("# %% [markdown]\n" + text, encoding="utf-8")


def test_imports_are_those_that_the_exercises_use(master) -> None:
    master(GOOD + QUESTION + HINT + BLANK + SOLUTION)
    assert sheets.expected("97_t", "student").cells[1].source == "import math"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + QUESTION + BLANK + SOLUTION, "exercise 97.1 has no cell tagged hint"),
        (GOOD + QUESTION + HINT + SOLUTION, "exercise 97.1 has no cell tagged exercise"),
        (GOOD + QUESTION + HINT + BLANK, "exercise 97.1 has no cell tagged solution"),
        (GOOD + "# %%\nx = 1\n\n" + QUESTION + HINT + BLANK + SOLUTION, "has no place"),
        (GOOD.replace("## Exercises", "## Something"), "'## Exercises', 0 do"),
        (GOOD.replace("import math", "x = 1") + QUESTION + HINT + BLANK + SOLUTION, "use math, which no import brings"),
    ],
)
def test_an_incomplete_section_is_refused(master, text: str, message: str) -> None:
    master(text)
    with pytest.raises(build.BuildError, match=message):
        sheets.expected("97_t", "student")


def test_stray_and_missing_notebooks_are_named() -> None:
    stray, lost = sheets.FOLDER / "97_t_student.ipynb", sheets.FOLDER / "02_forward_student.ipynb"
    assert sheets.problems(stray) == ["97_t_student.ipynb has no master; delete it"]
    assert sheets.problems(lost.with_name("nowhere") / lost.name) == [f"{lost.name} has no master; delete it"]
    with pytest.raises(build.BuildError, match="no master for 97_t"):
        build.select(["97_t"], build.known("exercises"))
    assert build.main(["exercises", "97_t"]) == 1


def test_a_kernel_that_dies_is_a_build_error(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("import os\n\nos._exit(1)")
    with pytest.raises(build.BuildError, match="x_student: DeadKernelError"):
        build.build(build.dressed([cell]), tmp_path / "x_student.ipynb")
    assert not list(tmp_path.iterdir())


# --- find the planted bugs -------------------------------------------------------------------------------------------


def program(form: str) -> dict[str, Any]:
    """The functions of the small DDPM, before its first training; only definitions are run."""
    cells = sheets.expected("find_the_bugs", form).cells
    stop = next(k for k, cell in enumerate(cells) if cell.source.startswith("net, losses = train()"))
    return run(cells[:stop])[0]


def definition(form: str, name: str) -> str:
    """The source of one function of the program."""
    cells = sheets.expected("find_the_bugs", form).cells
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    return next(ast.unparse(node) for tree in trees for node in tree.body if getattr(node, "name", "") == name)


def found(space: dict[str, Any]) -> list[str]:
    """The bugs that the checks find in a program."""
    return [number for number, name in FUNCTIONS.items() if verdict(number, space[name])]


def test_the_mended_program_passes_and_the_planted_one_has_all_eight() -> None:
    assert found(program("solution")) == []
    assert found(program("student")) == list(FUNCTIONS)


@pytest.mark.parametrize("number", FUNCTIONS)
def test_each_bug_alone_is_caught_by_its_own_check_and_no_other(number: str) -> None:
    space, name = program("solution"), FUNCTIONS[number]
    exec(definition("student", name), space)
    assert found(space) == [number]
    hint = next(iter(bugs.EXERCISES[number].wrong))  # the first wrong answer is the planted one
    assert verdict(number, space[name]) == f"not yet. {hint}"
    answers = {key: space[value] for key, value in FUNCTIONS.items()}
    assert bugs.remaining(answers) == f"still to mend: {number}"


@pytest.mark.parametrize("number", FUNCTIONS)
def test_each_mended_function_passes_among_the_other_seven_bugs(number: str) -> None:
    space = program("student")
    exec(definition("solution", FUNCTIONS[number]), space)
    assert found(space) == [other for other in FUNCTIONS if other != number]


def test_bugs_answer_general_hints_and_remember_what_is_blank() -> None:
    assert bugs.remaining({}) == f"still to mend: {', '.join(FUNCTIONS)}"
    assert verdict("B.1", lambda x: 3 * x.new_ones(x.shape)).startswith(f"not yet. {bugs.EXERCISES['B.1'].hint}")
    assert verdict("B.7", lambda net, n: net(bugs._X, bugs._TIMES)).startswith(f"not yet. {bugs.EXERCISES['B.7'].hint}")


def test_symptoms_are_there_before_and_gone_after() -> None:
    for form, value in (("student", "False"), ("solution", "True")):
        stored = nbformat.read(sheets.sheets("find_the_bugs")[form], as_version=4)
        shown = next(cell.outputs[0].text for cell in stored.cells if cell.source.startswith("good = {"))
        assert [line.split()[0] for line in shown.splitlines()] == [value] * 5


def test_the_program_has_sixty_lines() -> None:
    cells = sheets.expected("find_the_bugs", "student").cells
    stop = next(k for k, cell in enumerate(cells) if cell.source.startswith("net, losses = train()"))
    code = [line for cell in cells[:stop] if cell.cell_type == "code" for line in cell.source.splitlines() if line.strip()]
    assert 50 <= len(code) <= 90


# --- the entry quiz --------------------------------------------------------------------------------------------------


def test_quiz_solutions_pass() -> None:
    cells = [cell for cell in sheets.read_master("entry_quiz") if "exercise" not in sheets.tags(cell)]
    lines = run(cells)[1].splitlines()
    assert lines[:10] == [f"Exercise Q.{k}: right!" for k in range(1, 11)] and lines[10] == "10 of 10 right."


def test_quiz_sections_exist() -> None:
    for chapter, title in quiz.SECTIONS.values():
        headings = re.findall(r"^# #+ (.+)$", build.master_path(chapter).read_text(encoding="utf-8"), re.MULTILINE)
        assert title in [heading.replace("$", "") for heading in headings], f"{chapter} has no section {title}"


def test_quiz_names_the_section_in_every_hint() -> None:
    assert set(quiz.SECTIONS) == set(quiz.EXERCISES)
    for number, exercise in quiz.EXERCISES.items():
        chapter, title = quiz.SECTIONS[number]
        assert all(hint.endswith(f'To read: chapter {chapter[:2]}, "{title}".') for hint in (exercise.hint, *exercise.wrong))


def test_quiz_recommends_a_way_by_what_is_missing() -> None:
    right = {number: exercise.answer for number, exercise in quiz.EXERCISES.items()}
    ways = [quiz.recommend({**right, **dict.fromkeys(blank)}) for blank in ((), ("Q.9",), ("Q.8",), ("Q.1",), ("Q.1", "Q.2", "Q.5"))]
    assert len({way.splitlines()[-1] for way in ways}) == 5
    assert "code-first path" in ways[0] and "code-first path" in ways[1] and all("straight path" in way for way in ways[2:])
    assert "9 of 10 right.\n  Q.9: chapter 00, Destroy\n" in ways[1]
    assert quiz.recommend({}).startswith("0 of 10 right.")


def test_quiz_takes_letters() -> None:
    assert verdict("Q.5", " A ") == ""
    assert "one letter in quotes" in verdict("Q.5", 3) and "one letter in quotes" in verdict("Q.5", "z")
    with pytest.raises(CourseError):
        verdict("Q.11", "a")


def test_quiz_is_linked_from_the_map_and_the_readme() -> None:
    assert "(exercises/entry_quiz.ipynb)" in build.master_path("00_tour").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(notebooks/exercises/entry_quiz.ipynb)" in readme and "(notebooks/exercises/find_the_bugs_student.ipynb)" in readme
