"""What stands around the package agrees with it: README tree, environment.yml, constraints.txt, the files one expects.

`python tests/test_ground.py` rewrites the tree in the README.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ddpm_course"
README = ROOT / "README.md"
TREE = re.compile(r"(<!-- tree:begin -->\n```text\n)(.*?)(```\n<!-- tree:end -->)", re.DOTALL)
ASSETS = {".safetensors": "weights", ".md": "model card", ".json": "what the weights need to be read"}
HABITS = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CITATION.cff",
    "LICENSE",
    "LICENSE-TEXT",
    "Makefile",
    "pyproject.toml",
    "environment.yml",
    "constraints.txt",
    ".gitignore",
    ".pre-commit-config.yaml",
    ".ci/run",
    ".github/workflows/ci.yml",
    "docs/LOG.md",
    "notebooks/build.py",
    "notebooks/sanitize.cfg",
]


def project() -> dict:
    """The [project] table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def canonical(name: str) -> str:
    """A requirement's package name, as the registries compare names."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


# --- the tree in the README ------------------------------------------------------------------------------------------


def package_files() -> list[Path]:
    """Files of the package in reading order: the front door, modules, folders."""
    kept = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted((path for path in kept if not path.name.startswith(".")), key=lambda path: (len(path.parts), path))


def describe(path: Path) -> str:
    """One line on a file: the first sentence of its docstring, or what kind of asset it is."""
    if path.suffix != ".py":
        return ASSETS.get(path.suffix, "")
    lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
    return re.split(r"(?<=[^.A-Z]{2})\. |\.$| {2,}", lines[0])[0] if lines else ""


def tree() -> str:
    """The package, one line a file."""
    files = {path.relative_to(PACKAGE).as_posix(): describe(path) for path in package_files()}
    width = max(map(len, files)) + 2
    return "ddpm_course/\n" + "".join(f"  {name:<{width}}{text}".rstrip() + "\n" for name, text in files.items())


def test_readme_tree_equals_the_files() -> None:
    shown = TREE.search(README.read_text(encoding="utf-8"))
    assert shown, "README.md has no tree between its markers"
    assert shown[2] == tree(), "run: make tree"


# --- dependencies ----------------------------------------------------------------------------------------------------


def environment() -> dict:
    """environment.yml, read."""
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_environment_installs_the_project_through_pip() -> None:
    entries = environment()["dependencies"]
    pip_part = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    assert "pip" in entries and "-c constraints.txt" in pip_part
    own = [entry for entry in pip_part if not entry.startswith("-c")]
    assert len(own) == 1, "dependencies belong in pyproject.toml; environment.yml only installs the project"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", own[0])[1].split(",")
    assert set(extras) == {"course", "test"} <= set(project()["optional-dependencies"])


def test_environment_agrees_on_name_and_python() -> None:
    entries = [entry for entry in environment()["dependencies"] if isinstance(entry, str)]
    assert environment()["name"] == project()["name"]
    assert f"python{project()['requires-python']}" in entries
    assert set(map(canonical, entries)) == {"python", "pip"}


def pins() -> dict[str, str]:
    """Package name -> exact version, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonical(line): line.partition("==")[2] for line in lines}


def test_constraints_are_exact_and_portable() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    wrong = [line for line in text.splitlines() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert not wrong, "one NAME==VERSION a line; no paths, hosts or build tags"
    assert "ddpm-course" not in pins() and pins()["torch"] == "2.13.0"


@pytest.mark.parametrize("extra", ["", "course", "test"])
def test_constraints_pin_every_direct_dependency(extra: str) -> None:
    needed = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    assert {canonical(name) for name in needed} <= set(pins())


def test_ranges_are_open() -> None:
    extras = project()["optional-dependencies"]
    everything = [*project()["dependencies"], *(name for names in extras.values() for name in names)]
    assert set(extras) == {"course", "test", "docs", "hub", "inception", "tensorboard", "bench"}
    assert not [name for name in everything if re.search(r"==|<|~=|@", name)]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HABITS)
def test_expected_file_is_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


def test_ci_runs_the_command_of_the_readme() -> None:
    assert "make test" in README.read_text(encoding="utf-8")
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1] == "make test"
    assert "bash .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")


def test_every_module_has_its_test_file() -> None:
    modules = [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    missing = [name for name in modules if not (ROOT / "tests" / f"test_{name}.py").exists()]
    assert not missing


if __name__ == "__main__":
    README.write_text(TREE.sub(lambda m: m[1] + tree() + m[3], README.read_text(encoding="utf-8")), encoding="utf-8")
