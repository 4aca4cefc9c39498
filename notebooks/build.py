"""The one notebook tool: `python notebooks/build.py run | check | refresh | times | exercises [chapter ...]`.

Masters (`notebooks/src/NAME.py`, py:percent) are what people edit. Executed notebooks (`notebooks/NAME.ipynb`) are what
people read. Cell metadata follows from fixed rules, so that masters stay clean and pictures are the only big diffs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
MAX_BYTES = 600_000
CELL_TIMEOUT = 300
HIDDEN = {"proof", "hint", "solution"}
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
WIDGET_NOTE = "(An interactive figure: run this cell to move its controls.)"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class BuildError(Exception):
    """Something the author of a chapter has to mend; its text is printed as it is."""


@dataclass(frozen=True)
class Built:
    """One executed notebook, where it belongs, and what it cost."""

    path: Path
    notebook: NotebookNode
    seconds: float
    num_bytes: int


# --- names and paths -------------------------------------------------------------------------------------------------


def chapters() -> list[str]:
    """Names of all chapters that have a master, in reading order."""
    return sorted(path.stem for path in (HERE / "src").glob("[0-9]*.py"))


def known(command: str) -> list[str]:
    """The names that a command may be given."""
    extra = sorted(path.stem for path in (HERE / "src" / "exercises").glob("*.py"))
    return chapters() + (extra if command == "exercises" else [])


def select(names: list[str], allowed: list[str]) -> list[str]:
    """The names asked for, or all that are allowed; raises BuildError on a name without a master."""
    names = [Path(name).stem for name in names]
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise BuildError(f"no master for {', '.join(unknown)}; there are: {', '.join(allowed) or 'none yet'}")
    return names or allowed


def master_path(name: str) -> Path:
    """Where the text master of a chapter lies."""
    return HERE / "src" / f"{name}.py"


def notebook_path(name: str) -> Path:
    """Where the executed notebook of a chapter lies."""
    return HERE / f"{name}.ipynb"


# --- metadata rules --------------------------------------------------------------------------------------------------


def slide_type(cell: NotebookNode, tags: list[str]) -> str:
    """The place of a cell in the lecture, unless the master names one."""
    given = cell.metadata.get("slideshow", {}).get("slide_type")
    if given or HIDDEN & set(tags):
        return given or "skip"
    if cell.cell_type != "markdown":
        return "fragment"
    depth = re.match(r"(#+) ", cell.source.lstrip())
    return {1: "slide", 2: "slide", 3: "subslide"}.get(len(depth.group(1)) if depth else 0, "fragment")


def cell_tags(cell: NotebookNode) -> list[str]:
    """The master's tags, and nbval's ignore tag on cells that show a widget."""
    tags = list(cell.metadata.get("tags", []))
    if cell.cell_type == "code" and re.search(r"\bexplore\(", cell.source) and "nbval-ignore-output" not in tags:
        tags.append("nbval-ignore-output")
    return tags


def folding(tags: list[str]) -> dict[str, bool]:
    """Which parts of a cell start out collapsed."""
    fold = {"source_hidden": True} if HIDDEN & set(tags) else {}
    return fold | ({"outputs_hidden": True} if "solution" in tags else {})


def dress(cell: NotebookNode, position: int) -> None:
    """Give a cell its id and metadata by the rules; both depend on the master alone."""
    tags = cell_tags(cell)
    slide, fold = slide_type(cell, tags), folding(tags)
    cell.id = hashlib.sha1(f"{position}\n{cell.source}".encode()).hexdigest()[:8]
    cell.metadata = nbformat.from_dict({"slideshow": {"slide_type": slide}})
    if tags:
        cell.metadata["tags"] = tags
    if fold:
        cell.metadata["jupyter"] = fold


def dressed(cells: list[NotebookNode]) -> NotebookNode:
    """Cells as an unexecuted notebook with all its metadata."""
    for position, cell in enumerate(cells):
        dress(cell, position)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)


def prepared(name: str) -> NotebookNode:
    """A chapter's master as an unexecuted notebook."""
    return dressed(jupytext.read(master_path(name), fmt="py:percent").cells)


# --- executing -------------------------------------------------------------------------------------------------------


def tidy(notebook: NotebookNode) -> None:
    """Drop what differs from run to run: widget ids and states, time stamps, the kernel's version."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = nbformat.from_dict({"name": "python"})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if WIDGET_MIME in output.get("data", {}):
                output.data = nbformat.from_dict({"text/plain": WIDGET_NOTE})


def report_failure(name: str, notebook: NotebookNode, error: Exception) -> str:
    """The failing cell's source and the end of its traceback, as text."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []):
                tail = "\n".join(ANSI.sub("", "\n".join(output.traceback)).splitlines()[-25:])
                where = f"{name}: cell {cell.get('execution_count')} failed"
                return f"{where}\n--- source\n{cell.source}\n--- traceback\n{tail}"
    return f"{name}: {type(error).__name__}: {ANSI.sub('', str(error))[-3000:]}"


def execute(notebook: NotebookNode, path: Path) -> Built:
    """Run a notebook in a fresh kernel in the folder where it belongs; raises BuildError when a cell fails."""
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT, kernel_name="python3", record_timing=False, extra_arguments=["--log-level=40"],
        resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip
    start = time.perf_counter()
    try:
        client.execute(env={**os.environ, "CI": "1"})
    except (CellExecutionError, CellTimeoutError, DeadKernelError, AssertionError) as error:
        # After a kernel died nbclient's own cleaning up may fail an assertion; what happened is its context then.
        cause = error.__context__ if isinstance(error, AssertionError) and error.__context__ else error
        raise BuildError(report_failure(path.stem, notebook, cause)) from error
    seconds = time.perf_counter() - start
    tidy(notebook)
    return Built(path, notebook, seconds, len(nbformat.writes(notebook).encode()))


def write(built: Built) -> None:
    """Put the executed notebook under its name, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=built.path.parent, prefix=".build-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(nbformat.writes(built.notebook).rstrip("\n") + "\n")
        os.chmod(temporary, 0o644)  # mkstemp makes private files
        os.replace(temporary, built.path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def stderr_warnings(built: Built) -> Iterator[str]:
    """One line for each cell that wrote to stderr: readers would see it as a fault."""
    for cell in built.notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                yield f"  WARNING cell {cell.execution_count} writes to stderr: {output.text.strip()[:200]}"


def build(notebook: NotebookNode, path: Path) -> Built:
    """Execute one notebook, write it, and say what it took."""
    built = execute(notebook, path)
    write(built)
    print(f"{path.stem:<24} {built.seconds:6.1f} s {built.num_bytes / 1000:6.0f} kB", flush=True)
    print("".join(f"{line}\n" for line in stderr_warnings(built)), end="")
    if built.num_bytes > MAX_BYTES:
        print(f"  WARNING larger than {MAX_BYTES // 1000} kB")
    return built


def build_chapter(name: str) -> Built:
    """Execute and write one chapter."""
    return build(prepared(name), notebook_path(name))


# --- checking --------------------------------------------------------------------------------------------------------


def face(cell: NotebookNode) -> tuple[str, str, tuple[str, ...], str]:
    """What must be equal in a master's cell and a notebook's: type, source, tags, slide type."""
    meta = cell.metadata
    return cell.cell_type, cell.source, tuple(meta.get("tags", [])), meta.get("slideshow", {}).get("slide_type", "")


def pair_problems(expected: NotebookNode, stored: NotebookNode) -> Iterator[str]:
    """Where a notebook differs from its master, cell by cell."""
    if len(expected.cells) != len(stored.cells):
        yield f"the master has {len(expected.cells)} cells, the notebook {len(stored.cells)}"
    for i, (want, have) in enumerate(zip(expected.cells, stored.cells, strict=False)):
        parts = zip(("type", "source", "tags", "slide type"), face(want), face(have), strict=True)
        for part in [part for part, a, b in parts if a != b]:
            yield f"cell {i} ({want.source[:40]!r}): {part} differs from the master"


def run_problems(stored: NotebookNode) -> Iterator[str]:
    """Where a notebook was not executed from top to bottom, or keeps an error."""
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "code cells are not executed in order 1..n"
    for cell in code:
        if cell.source.rstrip().endswith(";"):
            yield f"cell [{cell.execution_count}] ends in a semicolon, which nbval's kernel ignores; end it with plt.show()"
        if "raises-exception" not in cell.metadata.get("tags", []):
            names = [output.ename for output in cell.outputs if output.output_type == "error"]
            yield from (f"cell [{cell.execution_count}] stores the error {name}" for name in names)


def problems(path: Path | str) -> list[str]:
    """Everything wrong with one executed chapter; an empty list means that it is fresh and complete."""
    path = Path(path)
    if not path.exists():
        return [f"{path.name} is missing; build it with: make chapter NAME={path.stem}"]
    if not master_path(path.stem).exists():
        return [f"{path.name} has no master in notebooks/src"]
    return stored_problems(path, prepared(path.stem))


def stored_problems(path: Path, expected: NotebookNode) -> list[str]:
    """Where a stored notebook differs from the one expected, was not executed, or is too large."""
    stored = nbformat.read(path, as_version=4)
    found = [*pair_problems(expected, stored), *run_problems(stored)]
    if path.stat().st_size > MAX_BYTES:
        found.append(f"{path.stat().st_size / 1000:.0f} kB is above {MAX_BYTES // 1000} kB")
    return [f"{path.name}: {line}" for line in found]


# --- comparing two executions ----------------------------------------------------------------------------------------


def output_text(cell: NotebookNode) -> str:
    """All text that a cell shows."""
    shown = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        shown.append(output.get("text") or data.get("text/latex") or data.get("text/plain", ""))
    return "\n".join(shown).strip()


def output_pictures(cell: NotebookNode) -> list[str]:
    """A short hash of each picture that a cell shows."""
    pictures = [output.get("data", {}).get("image/png") for output in cell.get("outputs", [])]
    return [hashlib.sha1(picture.encode()).hexdigest()[:8] for picture in pictures if picture]


def first_difference(old: str, new: str) -> str:
    """The first pair of lines in which two texts differ."""
    a, b = old.splitlines(), new.splitlines()
    k = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    left, right = (lines[k][:120] if k < len(lines) else "(nothing)" for lines in (a, b))
    return f"- {left}\n      + {right}"


def changes(old: NotebookNode, new: NotebookNode) -> Iterator[str]:
    """What a reader would see change between two executions of a chapter."""
    before = {cell.source: cell for cell in old.cells if cell.cell_type == "code"}
    for cell in (cell for cell in new.cells if cell.cell_type == "code"):
        was = before.get(cell.source)
        if was is None:
            yield f"  cell {cell.execution_count}: new or edited"
            continue
        old_text, new_text = output_text(was), output_text(cell)
        if old_text != new_text:
            yield f"  cell {cell.execution_count}: text changed\n      {first_difference(old_text, new_text)}"
        if output_pictures(was) != output_pictures(cell):
            yield f"  cell {cell.execution_count}: picture changed"


# --- commands --------------------------------------------------------------------------------------------------------


def command_run(names: list[str]) -> int:
    """Execute chapters from their masters."""
    for name in names:
        build_chapter(name)
    return 0


def command_check(names: list[str]) -> int:
    """Compare notebooks with their masters, without executing anything."""
    import exercises_build

    orphans = sorted({path.stem for path in HERE.glob("[0-9]*.ipynb")} - set(chapters()))
    found = [line for name in [*names, *orphans] for line in problems(notebook_path(name))]
    found += [line for path in exercises_build.everything(names) for line in exercises_build.problems(path)]
    print("\n".join(found) or f"{len(names)} chapters and their exercises agree with their masters")
    return 1 if found else 0


def command_refresh(names: list[str]) -> int:
    """Execute chapters again and show which outputs changed."""
    for name in names:
        old = nbformat.read(notebook_path(name), as_version=4) if notebook_path(name).exists() else None
        built = build_chapter(name)
        lines = list(changes(old, built.notebook)) if old else ["  first execution"]
        print("\n".join(lines) or "  no output changed")
    return 0


def command_times(names: list[str]) -> int:
    """Measure chapters on this machine and rewrite their rows of the README's table."""
    text = README.read_text(encoding="utf-8")
    old = {row.split("|")[1].strip(): row for row in re.findall(r"^\| \d\d_\w+ \| \d+ \| \d+ \|$", text, re.MULTILINE)}
    new = {b.path.stem: f"| {b.path.stem} | {b.seconds:.0f} | {b.num_bytes / 1000:.0f} |" for b in map(build_chapter, names)}
    rows = [row for name, row in sorted((old | new).items()) if name in chapters()]
    table = "\n".join(["| chapter | seconds | kB |", "|---|---:|---:|", *rows])
    marked = re.compile(r"(<!-- times:begin -->\n).*?(<!-- times:end -->)", re.DOTALL)
    if not marked.search(text):
        raise BuildError("README.md has no lines <!-- times:begin --> and <!-- times:end -->")
    README.write_text(marked.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text), encoding="utf-8")
    return 0


def command_exercises(names: list[str]) -> int:
    """Write student and solution notebooks from the exercises of the masters."""
    import exercises_build

    for name in names:
        exercises_build.build_sheets(name)
    return 0


COMMANDS = {
    "run": command_run,
    "check": command_check,
    "refresh": command_refresh,
    "times": command_times,
    "exercises": command_exercises,
}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line; 0 when all is well, 1 when a chapter needs its author."""
    parser = argparse.ArgumentParser(description="Build and check the chapters.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__).add_argument("names", nargs="*", metavar="chapter")
    parsed = parser.parse_args(arguments)
    try:
        return COMMANDS[parsed.command](select(parsed.names, known(parsed.command)))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    import build as tool  # under its own name, so that exercises_build raises the same BuildError that main catches

    sys.exit(tool.main())
