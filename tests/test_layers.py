"""Imports go one way, files stay small, and the core stays free of plots: read from the source with `ast`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ddpm_course"
# Lowest first. A module may import from its own row and from those before it.
LAYERS = [
    ["errors"],
    ["schedule", "gaussian", "models", "metrics", "images", "memory", "pictures", "captions", "strokes", "series_stats"],
    ["forward", "data"],
    ["scores", "canvas"],
    ["posterior"],
    ["prediction"],
    ["elbo", "losses", "exact", "sampling", "conventions"],
    ["solvers", "variance", "likelihood"],
    ["guidance", "editing"],
    ["checkpoint", "ema", "series"],
    ["interop", "unet2d", "config", "latent"],
    ["feed", "side_by_side"],
    ["runs"],
    ["train"],
    ["cli_train"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
LEAVES = {"plots", "widgets", "proofs", "mistakes", "checks"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def room(path: Path) -> str:
    """The part of the package that a file belongs to: its own name, or its folder's."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def absolute(node: ast.ImportFrom, path: Path) -> str:
    """The full name of the module that a `from ... import` reads."""
    if not node.level:
        return node.module or ""
    here = ["ddpm_course", *path.relative_to(PACKAGE).parent.parts]
    base = here[: len(here) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def imported(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node, path)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def siblings(path: Path) -> set[str]:
    """The other parts of the package that a file imports."""
    names = {name.split(".")[1] for name in imported(path) if name.startswith("ddpm_course.")}
    return names - {room(path)}


def edges() -> dict[str, set[str]]:
    """Part of the package -> the parts that it imports, without the package's front door."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        if room(path) != "__init__":
            graph.setdefault(room(path), set()).update(siblings(path))
    return graph


def test_every_module_has_a_place() -> None:
    unknown = set(edges()) - set(RANK) - LEAVES
    assert not unknown, f"say in LAYERS where {sorted(unknown)} belong"


def test_imports_never_climb() -> None:
    upward = [f"{a} -> {b}" for a, bs in edges().items() for b in bs if RANK.get(b, 0) > RANK.get(a, len(LAYERS))]
    assert not upward


def test_no_cycles() -> None:
    try:
        TopologicalSorter(edges()).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_core_never_imports_the_leaves() -> None:
    wrong = [f"{a} -> {b}" for a, bs in edges().items() if a not in LEAVES for b in bs & LEAVES]
    assert not wrong


def test_models_import_no_sibling_but_errors() -> None:
    assert edges().get("models", set()) <= {"errors"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_plotting_libraries_have_one_home() -> None:
    only_leaves = {"matplotlib", "ipywidgets", "sympy"}
    core = [path for path in FILES if room(path) not in LEAVES]
    wrong = [f"{path.name}: {name}" for path in core for name in imported(path) if name.split(".")[0] in only_leaves]
    assert not wrong


def test_importing_the_package_loads_no_plotting_library() -> None:
    heavy = {"matplotlib", "ipywidgets", "sympy", "IPython", "sklearn", "mlxtend"}
    # torch itself may load sympy: what counts is what we add to it.
    code = "import sys, torch; before = set(sys.modules); import ddpm_course; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert not heavy & set(done.stdout.split())
