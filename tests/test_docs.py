"""The pages in docs/ agree with the package and the chapters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTATION = (ROOT / "docs/notation.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
MODULES = [path for path in (ROOT / "ddpm_course").glob("*.py") if path.stem not in ("proofs", "symbols")]
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
TERMS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in GLOSSARY.splitlines() if line.startswith("| ")][1:]


def in_code(text: str) -> list[str]:
    """What stands in code type on a page."""
    return re.findall(r"`([^`]+)`", text)


def plain(text: str) -> str:
    """Lower case, with spaces for hyphens and underscores."""
    return re.sub(r"[-_–\s]+", " ", text).lower()


def test_every_function_of_the_notation_page_exists() -> None:
    called = {name for code in in_code(NOTATION) for name in re.findall(r"(\w+)\(", code)}
    defined = set(re.findall(r"^ *def (\w+)\(", SOURCE, re.MULTILINE))
    assert len(called) > 25 and not called - defined


def test_every_name_of_the_notation_page_exists() -> None:
    names = {name for code in in_code(NOTATION) if not code.endswith(".py") for name in re.findall(r"[A-Za-z_]\w*", code)}
    used = set(re.findall(r"[A-Za-z_]\w*", SOURCE))
    assert not names - used
    assert all((ROOT / "ddpm_course" / code).exists() for code in in_code(NOTATION) if code.endswith(".py"))


def test_the_notation_page_names_every_converter() -> None:
    converters = re.findall(r"^def ([a-z]\w+)\(", (ROOT / "ddpm_course/conventions.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(converters) >= 10 and not set(converters) - {name for code in in_code(NOTATION) for name in re.findall(r"(\w+)\(", code)}


@pytest.mark.parametrize("text", [NOTATION, GLOSSARY], ids=["notation", "glossary"])
def test_tables_are_whole(text: str) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1, block[:80]


def test_the_glossary_is_long_sorted_and_bilingual() -> None:
    english = [term[0].replace("é", "e").lower() for term in TERMS]
    assert len(english) >= 60 and english == sorted(set(english))
    assert all(re.search(r"[\u4e00-\u9fff]", term[1]) and len(term) == 4 and term[2] for term in TERMS)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term[0])
def test_the_chapter_of_a_term_exists_and_uses_it(term: list[str]) -> None:
    if term[3] == "–":
        chapters = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks/src").glob("[0-9]*.py"))
        assert f"**{term[0]}**" not in chapters, "a chapter has it now: name it"
        return
    link = re.fullmatch(r"\[(\w+)\]\(\.\./notebooks/(\w+)\.ipynb\)", term[3])
    assert link and link[1] == link[2]
    master = ROOT / "notebooks/src" / f"{link[1]}.py"
    assert master.exists() and plain(term[0]) in plain(master.read_text(encoding="utf-8"))


def test_further_reading_has_every_paper_that_the_package_cites() -> None:
    text = (ROOT / "docs/further_reading.md").read_text(encoding="utf-8")
    tags = {line.split("|")[1].strip() for line in text.split("## Text to image")[0].splitlines() if "](https://arxiv.org" in line}
    cited = set(re.findall(r"\b([A-Z][\w&+-]*|v-pred|min-SNR)[ ](?:eqs?\.|section|appendix|Algorithm|Theorem) ?[\dA-Z]", SOURCE))
    assert len(tags) >= 20 and not cited - tags
    assert all(re.fullmatch(r"https://\S+", link) for link in re.findall(r"\]\(([^)]*)\)", text))


@pytest.mark.parametrize("page", ["notation.md", "glossary.md", "further_reading.md"])
def test_the_readme_links_the_page(page: str) -> None:
    assert f"(docs/{page})" in (ROOT / "README.md").read_text(encoding="utf-8")
