"""Each chapter is fresh, executed, numbered, and complete. Whether its outputs can be had again is nbval's question."""

from __future__ import annotations

import re
from pathlib import Path

import build
import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(set(build.chapters()) | {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")})
PAPERS = "Ho|DDIM|Nichol|Dhariwal|Luo|CFG|VAE|ZTSNR|v-pred"
CITATION = re.compile(rf"\b({PAPERS}) (eqs?)\. ?(\d+(?:(?:[-–]|, | and )\d+)*)")
RENDERED = re.compile(r"\b(?:equation|derive|expectation|inequality|limit|approximation)\(\s*[rf]?[\"'](\d+\.\d+)[\"']")
DISPLAY = re.compile(r"\$\$.+?\$\$|\\begin\{(?:align|equation|gather)\*?\}.+?\\end", re.DOTALL)
KINDS = "definition|identity|expectation|inequality|limit|approximation"
HEADINGS = ["Common mistakes", "Exercises", "What comes next"]

each_chapter = pytest.mark.parametrize("name", CHAPTERS)


def read(name: str) -> NotebookNode:
    """A chapter as it is stored."""
    return nbformat.read(build.notebook_path(name), as_version=4)


def sources(name: str, kind: str) -> list[str]:
    """The sources of a chapter's cells of one kind."""
    return [cell.source for cell in read(name).cells if cell.cell_type == kind]


def shown(cell: NotebookNode) -> str:
    """All text that a code cell shows, equations included."""
    data = [value for output in cell.outputs for value in output.get("data", {}).values() if isinstance(value, str)]
    return "\n".join([*data, *(output.get("text", "") for output in cell.outputs)])


def typed_tags(name: str) -> list[str]:
    """What stands in the \\tag{...} of the chapter's markdown."""
    return [tag for source in sources(name, "markdown") for tag in re.findall(r"\\tag\{([^}]*)\}", source)]


def rendered_tags(name: str) -> list[str]:
    """The numbers of the equations that the chapter's code renders."""
    return [number for source in sources(name, "code") for number in RENDERED.findall(source)]


def cited(text: str) -> set[tuple[str, int]]:
    """The (paper, equation) pairs that a text cites; `eqs. 6-7` are two."""
    found = set()
    for paper, word, numbers in CITATION.findall(text):
        for part in re.split(r", | and ", numbers)[: None if word == "eqs" else 1]:
            ends = [int(number) for number in re.split(r"[-–]", part)]
            found |= {(paper, number) for number in range(ends[0], ends[-1] + 1)}
    return found


# --- freshness -------------------------------------------------------------------------------------------------------


@each_chapter
def test_notebook_equals_its_master_and_ran_in_order(name: str) -> None:
    assert build.problems(build.notebook_path(name)) == []


@each_chapter
def test_cells_have_slide_types(name: str) -> None:
    allowed = {"slide", "subslide", "fragment", "skip", "notes", "-"}
    assert {cell.metadata.get("slideshow", {}).get("slide_type") for cell in read(name).cells} <= allowed


@each_chapter
def test_nothing_is_written_to_stderr(name: str) -> None:
    outputs = [output for cell in read(name).cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


# --- equations -------------------------------------------------------------------------------------------------------


@each_chapter
def test_only_definitions_are_typed_by_hand(name: str) -> None:
    assert not [tag for tag in typed_tags(name) if not re.fullmatch(r"\d+\.\d+, definition", tag)]


@each_chapter
def test_every_display_without_a_number_is_proved_right_below(name: str) -> None:
    cells = read(name).cells
    for position, cell in enumerate(cells):
        displays = DISPLAY.findall(cell.source) if cell.cell_type == "markdown" else []
        if any("\\tag{" not in display for display in displays):
            below = next((c for c in cells[position:] if c.cell_type == "code"), None)
            assert below and "proof" in below.metadata.get("tags", []), cell.source[:200]


@each_chapter
def test_rendered_equations_show_number_and_kind(name: str) -> None:
    for cell in (cell for cell in read(name).cells if cell.cell_type == "code"):
        for number in RENDERED.findall(cell.source):
            assert re.search(rf"\\tag\{{{re.escape(number)}, ({KINDS})\}}", shown(cell)), f"{number} is not shown"


@each_chapter
def test_equation_numbers_are_unique_and_the_chapters_own(name: str) -> None:
    numbers = [tag.split(",")[0] for tag in typed_tags(name)] + rendered_tags(name)
    assert len(numbers) == len(set(numbers))
    assert {number.split(".")[0] for number in numbers} <= {str(int(name[:2]))}


@each_chapter
def test_cited_equations_exist_in_the_package(name: str) -> None:
    files = (ROOT / "ddpm_course").rglob("*.py")
    known = set().union(*(cited(path.read_text(encoding="utf-8")) for path in files))
    text = "\n".join([*sources(name, "markdown"), *sources(name, "code")])
    assert not cited(text) - known


def test_citations_are_read_as_people_write_them() -> None:
    text = "Ho eq. 4, and DDIM eqs. 12, 16; v-pred eq. 2; Ho eqs. 6-7 and Ho eq. 12, 100 samples"
    expected = {("Ho", 4), ("DDIM", 12), ("DDIM", 16), ("v-pred", 2), ("Ho", 6), ("Ho", 7), ("Ho", 12)}
    assert cited(text) == expected


# --- completeness ----------------------------------------------------------------------------------------------------


def test_readme_maps_every_chapter() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\(notebooks/(\w+)\.ipynb\)", text) == CHAPTERS


@each_chapter
def test_chapter_has_pictures_and_an_interactive(name: str) -> None:
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3
    assert any("explore(" in cell.source for cell in code)


@each_chapter
@pytest.mark.parametrize("heading", HEADINGS)
def test_chapter_has_its_closing_sections(name: str, heading: str) -> None:
    assert re.search(rf"^#+ .*{heading}", "\n".join(sources(name, "markdown")), re.MULTILINE | re.IGNORECASE)


@each_chapter
def test_chapter_has_two_checked_exercises(name: str) -> None:
    called = re.findall(rf"\bcheck\(\s*[\"']({int(name[:2])}\.\d+)", "\n".join(sources(name, "code")))
    assert len(set(called)) >= 2


@each_chapter
def test_code_cells_are_short(name: str) -> None:
    assert max(len(source.splitlines()) for source in sources(name, "code")) <= 30
