"""Break one formula at a time and see who notices.

    python tests/faults/mutate.py                             every mutant against the unit tests of its module
    python tests/faults/mutate.py --notebooks --formulas      every mutant of a formula against the chapters that explain its module
    python tests/faults/mutate.py --files forward,elbo --list show the mutants only

Each mutant lives in a temporary copy of the package; the working tree is never touched. torch is imported once: every mutant
runs in a fork. Results go to runs/mutants-tests.json or runs/mutants-notebooks.json; survivors are printed.
"""

import argparse
import ast
import contextlib
import gc
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, TESTS, MASTERS, RUNS = ROOT / "ddpm_course", ROOT / "tests", ROOT / "notebooks" / "src", ROOT / "runs"
SNAPSHOT = Path(tempfile.mkdtemp(prefix="mutants-")) / "ddpm_course"  # the package as it was when this run began
FILES: dict[str, tuple[str, ...]] = {  # file -> the functions to break; empty: all
    "schedule": (),
    "forward": (),
    "posterior": (),
    "prediction": (),
    "gaussian": (),
    "elbo": (),
    "losses": (),
    "sampling": ("", "time_grid", "_noise_to_add", "ddpm_step", "ddim_variance", "ddim_step", "_from_x_0_hat", "check_grid", "trajectory"),
    "exact": (),
    "guidance": (),
    "editing": (),
    "series_stats": (),
    "strokes": (),
}
CHAPTERS = {
    "schedule": ("02", "09", "06"),
    "forward": ("02", "03", "08"),
    "posterior": ("03", "09", "05"),
    "prediction": ("06", "09", "10"),
    "gaussian": ("01", "05", "04"),
    "elbo": ("05", "04"),
    "losses": ("08", "06", "05"),
    "sampling": ("10", "09"),
    "exact": ("00", "09", "06", "03"),
    "guidance": ("16", "17"),
    "editing": ("19",),
    "series_stats": ("20",),
    "strokes": ("19",),
}
ALSO = {  # tests of a module's functions that stand beside those who use them
    "posterior": ("test_variance.py",),
    "elbo": ("test_likelihood.py",),
    "exact": ("test_variance.py", "test_editing.py"),
}
# Mutants that compute the same, or change only what no test on a CPU can see:
# (file, part of the line before or after the change, original, mutated, why).
EQUIVALENT: list[tuple[str, str, str, str, str]] = [
    *((file, "ndim: int = 1", "1", "0", "ndim = 0 and ndim = 1 both give a vector") for file in ("schedule", "posterior", "sampling")),
    ("schedule", "self.alpha_bar.device == device", "self.alpha_bar", "self.alpha", "its device is read, which is the same"),
    ("posterior", "schedule.pair(t, s, x_t.ndim)", "x_t", "x_0", "x_0 and x_t have one shape"),
    ("posterior", "torch.broadcast_tensors(", "True", "False", "broadcast tensors are equally long"),
    *(
        ("gaussian", "torch.where(x ", *change, "the 256 values are 2/255 apart: every limit between the last two picks the same")
        for change in [("x > 1 - 1 / 255", "(x >= 1 - 1 / 255)"), ("x < -1 + 1 / 255", "(x <= -1 + 1 / 255)")]
    ),
    *(
        ("gaussian", "flip = lower > 0", *change, "the flip is exact everywhere; it is needed only far out")
        for change in [("lower > 0", "(lower >= 0)"), ("lower", "upper"), ("0", "1")]
    ),
    ("elbo", "cast(var_of(t), x_0)", "x_0", "x_t", "x_t has the type of x_0"),
    ("elbo", "term, var = x_0.new_zeros(len(x_0))", "x_0", "x_t", "x_t has the type, place and shape of x_0"),
    ("elbo", "_variance_of(schedule, variance, x_0.ndim)(t), x_0)", "x_0", "x_t", "x_t has the type and axes of x_0"),
    ("elbo", "if bool(first.any()) else 0.0", "0.0", "1.5", "it is written to no place at all"),
    ("posterior", "one_each = isinstance(value, Tensor)", "t", "s", "a tensor t comes with a tensor s"),
    ("exact", "torch.broadcast_tensors(", "True", "False", "broadcast tensors are equally long"),
    ("exact", "torch.allclose(self.cov, self.cov.T", "1e-9", "1.5000000000000002e-09", "the limit is a choice, above rounding"),
    ("elbo", "x_0.new_zeros(len(x_0), 0)", "x_0", "x_t", "x_t has the type and length of x_0"),
    *(
        ("exact", "float(self.eigenvalues[0]) < -1e-12", *change, "the limit is a choice, above rounding and below any mistake")
        for change in [("float(self.eigenvalues[0]) < -1e-12", "(float(self.eigenvalues[0]) <= -1e-12)"), ("1e-12", "1.5e-12")]
    ),
    (
        "exact",
        "return (self.mean.flatten() + z @",
        "self.mean.flatten() + z @ root.T",
        "(self.mean.flatten() - z @ root.T)",
        "z and -z have one law",
    ),
    *(
        ("exact", "if bool((self.weights < 0)", *change, "the limit is a choice, above rounding and below any mistake")
        for change in [("abs(float(self.weights.sum()) - 1) > 1e-6", "(abs(float(self.weights.sum()) - 1) >= 1e-6)"), ("1e-6", "1.5e-06")]
    ),
    ("exact", "return self.weights.log()", "square.clamp(min=0)", "(square)", "a distance is below 0 by rounding only"),
    (
        "exact",
        "return self.means[k] + self.stds[k]",
        "self.means[k] + self.stds[k].reshape(-1, *[1] * len(self.event)) * z",
        "(self.means[k] - self.stds[k].reshape(-1, *[1] * len(self.event)) * z)",
        "z and -z have one law",
    ),
    *(
        ("losses", "prediction.float() if", *change, "float32 is float32 already")
        for change in [("prediction.dtype.itemsize < 4", "(prediction.dtype.itemsize <= 4)"), ("4", "5")]
    ),
    *(
        ("sampling", part, "x_t", "eps", "eps has the shape of x_t, and with an int s the variance is a Python float")
        for part in (
            "schedule.pair(t, s, x_t.ndim)",
            "return mean if s == 0",
            "var = reverse_variance(",
            "var = ddim_variance(",
            "return mean + _noise_to_add(x_t, var, z)",
            "else x_s + _noise_to_add(x_t, var, z)",
            "return _from_x_0_hat(schedule, x_t, x_0_hat",
        )
    ),
    *(
        ("guidance", part, "x_t", "eps", "eps has the shape and the type of x_t")
        for part in (
            "noise = (1 - schedule.at(t, eps.ndim",
            "torch.zeros_like(eps)",
            "variance, eps.ndim)",
            "cast(scale * var, eps)",
            "batch_time(eps, s)",
            "cast(var**0.5, eps)",
            "draw(eps.shape",
            "draw(x_t.shape, eps",
        )
    ),
    ("guidance", "var = reverse_variance(", "s", "t", "at s = 0 the variance is not used"),
    ("guidance", "x_s = mean if s == 0", "s", "t", "at s = 0 the variance is 0, so that the noise left in is 0 too"),
    (
        "strokes",
        "columns = columns - (share",
        "columns - (share * columns).sum((1, 2), keepdim=True)",
        "(columns + (share * columns).sum((1, 2), keepdim=True))",
        "rows are counted from their centre: a shift of the columns is lost",
    ),
    ("sampling", "return x_s if eta == 0", "s", "t", "at s = 0 the variance is 0, so that the noise left in is 0 too"),
]

PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:nbval", "-p", "no:xdist", f"--rootdir={ROOT}"]
SWAPS = [("bar_t", "bar_s"), ("t", "s"), ("signal", "noise"), ("x_0", "x_t"), ("eps", "x_t"), ("eps", "z"), ("mean_1", "mean_2"),
         ("var_1", "var_2"), ("upper", "lower"), ("of_x_0", "of_x_t"), ("mean", "mean_hat"), ("var", "var_hat"), ("alpha", "bar_t"),
         ("low", "high"), ("x_0_hat", "eps"), ("capped", "snr"), ("S", "T"), ("k", "S")]  # fmt: skip
DROPPED = {"sqrt", "log", "exp", "cos", "square", "sigmoid", "abs", "detach", "clamp", "all", "any"}
RENAMED = {"alpha_bar": "alpha", "alpha": "alpha_bar", "beta": "alpha", "cumprod": "cumsum", "min": "max", "max": "min",
           "any": "all", "all": "any", "log": "exp", "exp": "log"}  # fmt: skip
FLIPPED: dict[type, tuple[str, str]] = {ast.Lt: ("<=", ">"), ast.LtE: ("<", ">"), ast.Gt: (">=", "<"), ast.GtE: (">", "<"),
                                        ast.Eq: ("!=",) * 2, ast.NotEq: ("==",) * 2, ast.Is: ("is not",) * 2, ast.IsNot: ("is",) * 2,
                                        ast.In: ("not in",) * 2, ast.NotIn: ("in",) * 2}  # fmt: skip


@dataclass
class Mutant:
    """One change: which bytes of which file become what, and what became of it."""

    file: str
    function: str
    line: int
    original: str
    mutated: str
    start: int
    end: int
    source_line: str
    broken_line: str
    killed_by: str = ""
    seconds: float = 0.0


# --- making mutants --------------------------------------------------------------------------------------------------


def bracketed(node: ast.AST, tight: bool, on_the_right: bool) -> bool:
    """Whether an operand needs its brackets back when the operator beside it changes between + - and * /."""
    if not isinstance(node, ast.BinOp):
        return False
    loose = isinstance(node.op, ast.Add | ast.Sub)
    return (tight and loose) or (on_the_right and (loose or tight and isinstance(node.op, ast.Mult | ast.Div)))


def replacements(node: ast.AST, text: Callable[[ast.AST], str], names: set[str]) -> Iterator[str]:
    """Everything that a node may be replaced by."""
    if isinstance(node, ast.BinOp):
        tight = not isinstance(node.op, ast.Add | ast.Sub)  # operands that stand in brackets keep them
        left, right = (f"({text(n)})" if bracketed(n, tight, n is node.right) else text(n) for n in (node.left, node.right))
        swap = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*"}.get(type(node.op))
        if swap:
            yield f"({left} {swap} {right})"
        if isinstance(node.op, ast.Pow | ast.FloorDiv) or (isinstance(node.op, ast.Sub | ast.Add) and right == "1"):
            yield f"({left})"
        if isinstance(node.op, ast.Sub) and left == "1":
            yield f"({right})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield f"({text(node.operand)})"
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield repr(node.value + 1 if isinstance(node.value, int) else node.value * 1.5 or 1.5)
        if node.value == 1:
            yield "0"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield repr(not node.value)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for pair in SWAPS:
            if node.id in pair and names >= set(pair):
                yield pair[1 - pair.index(node.id)]
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for op in dict.fromkeys(FLIPPED[type(node.ops[0])]):
            yield f"({text(node.left)} {op} {text(node.comparators[0])})"
    elif isinstance(node, ast.Compare):
        yield f"({text(node.left)} {FLIPPED[type(node.ops[0])][0]} {text(node.comparators[0])})"
    elif isinstance(node, ast.BoolOp):
        yield "(" + f" {'or' if isinstance(node.op, ast.And) else 'and'} ".join(f"({text(v)})" for v in node.values) + ")"
    elif isinstance(node, ast.IfExp):
        yield f"({text(node.orelse)} if {text(node.test)} else {text(node.body)})"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        module = isinstance(node.func.value, ast.Name) and node.func.value.id in ("torch", "math")
        if node.func.attr in DROPPED and not module:
            yield f"({text(node.func.value)})"
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in RENAMED:
        yield f"{text(node.value)}.{RENAMED[node.attr]}"


def skipped(node: ast.AST) -> bool:
    """What is not a formula: messages, names of types, imports, text."""
    return isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) or getattr(node, "name", "") == "__repr__"


def is_guard(node: ast.AST) -> bool:
    """What refuses bad input or minds types and devices: an `if` that only raises, checks, isinstance, to, detach. The chapters need not
    try every one. (Of its arguments `_signal_noise` reads t, which has no neighbour there, and shapes and types.)"""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        return name in ("isinstance", "check_tensors", "one_of", "_flat", "to", "broadcast_tensors", "_signal_noise")
    if isinstance(node, ast.FunctionDef):
        return node.name in ("draw", "start_noise", "batch_time", "check", "__init__")
    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "device":
        return True
    return (isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise) and not node.orelse) or getattr(node, "attr", "") == "detach"


def mutants(file: str, formulas: bool = False) -> list[Mutant]:
    """All mutants of one file of the package, or those of its formulas alone: signs, roots, fractions and neighbouring names."""
    source = (SNAPSHOT / f"{file}.py").read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    place = lambda row, column: starts[row - 1] + column  # noqa: E731
    text = lambda n: source[place(n.lineno, n.col_offset) : place(n.end_lineno, n.end_col_offset)].decode()  # noqa: E731
    found: list[Mutant] = []

    def visit(node: ast.AST, function: str, names: set[str]) -> None:
        if skipped(node) or (formulas and is_guard(node)):
            return
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            function = getattr(node, "name", function)
            inside = list(ast.walk(node))
            names = names | {n.id for n in inside if isinstance(n, ast.Name)} | {n.arg for n in inside if isinstance(n, ast.arg)}
        if hasattr(node, "lineno") and (not FILES[file] or function in FILES[file]):
            start, end = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
            logic = isinstance(node, ast.Constant | ast.Compare | ast.BoolOp | ast.IfExp)
            for new in () if formulas and logic else replacements(node, text, names):
                line = source.splitlines()[node.lineno - 1].decode().strip()
                broken = (source[:start] + new.encode() + source[end:]).splitlines()[node.lineno - 1].decode().strip()
                found.append(Mutant(file, function, node.lineno, source[start:end].decode(), new, start, end, line, broken))
        if formulas and isinstance(node, ast.Call) and getattr(node.func, "id", "") == "cast":
            return visit(node.args[0], function, names)  # the second argument only lends its type
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list") or (formulas and field in ("defaults", "kw_defaults")):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, function, names)

    visit(ast.parse(source), "", set())
    return found


def reason(mutant: Mutant) -> str:
    """Why the mutant is equivalent, if it is listed."""
    key, lines = (mutant.file, mutant.original, mutant.mutated), f"{mutant.source_line}\n{mutant.broken_line}"
    return next((why for file, part, *change, why in EQUIVALENT if (file, *change) == key and part in lines), "")


@contextlib.contextmanager
def broken_package(mutant: Mutant | None) -> Iterator[Path]:
    """A folder with a copy of the package in which the mutant lives; weights are linked, not copied."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "ddpm_course"
        shutil.copytree(SNAPSHOT, copy)
        (copy / "assets").symlink_to(PACKAGE / "assets")
        if mutant:
            path = copy / f"{mutant.file}.py"
            source = path.read_bytes()
            path.write_bytes(source[: mutant.start] + mutant.mutated.encode() + source[mutant.end :])
        yield Path(folder)


# --- running them ----------------------------------------------------------------------------------------------------


class Fork:
    """One piece of work in a process of its own, forked from here; its answer is a text."""

    def __init__(self, work: Callable[[], str], folder: Path, limit: float) -> None:
        self.file, self.deadline, self.answer = folder / "answer", time.monotonic() + limit, ""
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            with contextlib.suppress(BaseException):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 1), os.dup2(null, 2)
                try:
                    answer = work()
                except BaseException as error:  # noqa: BLE001 - a mutant may raise anything, SystemExit included
                    answer = f"{type(error).__name__}: {error}"
                self.file.write_text(answer)
            os._exit(0)

    def finished(self) -> bool:
        """True once there is an answer; "timeout" if it never came, "crash" if the process died."""
        if os.waitpid(self.pid, os.WNOHANG)[0]:
            self.answer = self.file.read_text() if self.file.exists() else "crash"
            return True
        if time.monotonic() > self.deadline:
            os.killpg(self.pid, signal.SIGKILL), os.waitpid(self.pid, 0)
            self.answer = "timeout"
            return True
        return False


def in_fork(work: Callable[[], str], folder: Path, limit: float) -> str:
    """What work() returns, computed in a fork."""
    fork = Fork(work, folder, limit)
    while not fork.finished():
        time.sleep(0.05)
    return fork.answer


def use_package(folder: Path) -> None:
    """Make `import ddpm_course` find the copy in this folder."""
    sys.path.insert(0, str(folder))
    os.environ |= {"CI": "1", "DDPM_COURSE_HYPOTHESIS": "mutants"}
    import torch

    torch.set_num_threads(1)
    import ddpm_course

    assert Path(ddpm_course.__file__).is_relative_to(folder), "the mutant is not what would be tested"


def ask_tests(folder: Path, file: str, first: list[str]) -> str:
    """Empty if the unit tests of this module pass, else the first test that fails. Those in `first` run first."""
    import pytest

    use_package(folder)
    failed: list[str] = []

    class Ear:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            rank = {name: i for i, name in enumerate(first)}
            items.sort(key=lambda item: rank.get(item.nodeid.split("::", 1)[1], len(rank)))

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.append(report.nodeid.split("::", 1)[1])

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                failed.append("while collecting")

    for name in (f"test_{file}.py", *ALSO.get(file, ()), "test_bad_input.py"):
        code = pytest.main([*PYTEST, str(TESTS / name)], plugins=[Ear()])
        if code:
            return failed[0] if failed else f"pytest exit code {int(code)}"
    return ""


def cells(chapter: str) -> list[tuple[str, str]]:
    """(name, source) of a chapter's code cells; outputs of cells tagged nbval-ignore-output do not count."""
    import jupytext

    path = next(MASTERS.glob(f"{chapter}_*.py"))
    code = [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    mark = lambda cell: "!" if "nbval-ignore-output" in cell.metadata.get("tags", []) else ""  # noqa: E731
    return [(f"{path.stem} cell {i}{mark(cell)}", cell.source) for i, cell in enumerate(code, 1)]


def play(chapter: str, skip: set[str], limit: float) -> Iterator[tuple[str, str, str, float]]:
    """Run a chapter cell by cell: (cell, what it printed, its error, its seconds). Skipped cells are left out."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import torch

    namespace: dict[str, object] = {"__name__": "__main__"}
    torch.manual_seed(0)
    for name, source in cells(chapter):
        if name in skip:
            continue
        out, error, start = io.StringIO(), "", time.process_time()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            try:
                exec(compile(source, name, "exec"), namespace)  # noqa: S102
            except Exception as problem:  # noqa: BLE001
                error = f"{type(problem).__name__}: {problem}"[:300]
        plt.close("all")
        yield name, out.getvalue(), error, time.process_time() - start


def rehearse(folder: Path, chapter: str, heavy: float) -> str:
    """JSON of the unbroken chapter: cells to skip (heavy, or in need of a heavy one), and what the others print."""
    use_package(folder)
    os.chdir(MASTERS.parent)
    runs = [(name, out, error, seconds) for name, out, error, seconds in play(chapter, set(), heavy)]
    skip = {name for name, _, error, seconds in runs if seconds > heavy or error}
    second = list(play(chapter, skip, heavy))
    skip |= {name for name, _, error, _ in second if error}
    third = {name: out for name, out, _, _ in play(chapter, skip, heavy)}
    steady = {name: out for name, out, error, _ in second if third.get(name) == out and not name.endswith("!")}
    return json.dumps(
        {
            "skip": sorted(skip),
            "prints": steady,
            "seconds": sum(r[3] for r in second),
            "errors": {name: error for name, _, error, _ in runs if error},
        }
    )


def ask_chapters(folder: Path, plans: dict[str, dict]) -> str:
    """Empty if all chapters run and print what they should, else the cell that does not."""
    use_package(folder)
    os.chdir(MASTERS.parent)
    for chapter, plan in plans.items():
        for name, out, error, _ in play(chapter, set(plan["skip"]), 0):
            if error:
                return f"{name}: {error}"
            if name in plan["prints"] and out != plan["prints"][name]:
                return f"{name}: prints something else"
    return ""


def run(todo: list[Mutant], ask_for: Callable[[Mutant], Callable[[Path], str]], limit: float, workers: int) -> list[Mutant]:
    """Try all mutants, `workers` at a time. No threads: a fork of a process with threads may hang."""
    waiting, active, done = list(reversed(todo)), [], []
    while waiting or active:
        while waiting and len(active) < workers:
            mutant, stack = waiting.pop(), contextlib.ExitStack()
            folder, ask = stack.enter_context(broken_package(mutant)), ask_for(mutant)
            active.append((mutant, stack, time.monotonic(), Fork(lambda ask=ask, folder=folder: ask(folder), folder, limit)))
        for entry in [entry for entry in active if entry[3].finished()]:
            mutant, stack, start, fork = entry
            active.remove(entry), stack.close(), done.append(mutant)
            mutant.killed_by, mutant.seconds = fork.answer, round(time.monotonic() - start, 2)
            if fork.answer in ("", "timeout", "crash"):
                print(
                    f"\n{fork.answer or 'SURVIVED'}: {mutant.file}.py:{mutant.line} {mutant.function}: "
                    f"{mutant.original} -> {mutant.mutated}\n    {mutant.source_line}",
                    flush=True,
                )
            elif len(done) % 25 == 0:
                print(f"{len(done)}/{len(todo)}", end=" ", flush=True)
        time.sleep(0.02)
    return done


def preload() -> None:
    """Import everything heavy once, before the forks; nothing may run in torch's threads before them."""
    sys.path.insert(0, str(TESTS))
    import hypothesis, jupytext, matplotlib, mpmath, numpy, pytest, scipy.stats, sklearn.datasets, sympy, torch, torch.optim.swa_utils  # noqa: E401, F401, I001
    import ipywidgets, IPython.display, safetensors.torch, tqdm, matplotlib.pyplot  # noqa: E401, F401, I001
    import reference  # its tables of 40 digits are computed once, here

    for name in reference.NAMES:
        for T in (1, 2, 7, 10, 60, 100, 1000):
            reference.alpha_bars(name, T)
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*PYTEST, "--co", str(TESTS / "conftest.py")])  # loads pytest's plugins
    with contextlib.suppress(Exception):  # hypothesis looks through all modules once: better here than in every fork
        hypothesis.internal.conjecture.providers._get_local_constants()
    gc.freeze()  # and the collector need not look at them again in every fork
    assert "ddpm_course" not in sys.modules


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", default=",".join(FILES), help="modules, separated by commas")
    parser.add_argument("--notebooks", action="store_true", help="ask the chapters instead of the unit tests")
    parser.add_argument(
        "--formulas", action="store_true", help="only signs, roots, fractions and neighbouring names; no refusals, no types"
    )
    parser.add_argument("--chapters", default="", help="only these chapters, such as 02,03")
    parser.add_argument("--heavy", type=float, default=15, help="leave out cells that take longer, in CPU seconds")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one mutant")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--survivors", action="store_true", help="only those that survived the last run")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    options = parser.parse_args()

    shutil.copytree(PACKAGE, SNAPSHOT, ignore=shutil.ignore_patterns("assets"))
    kind = "notebooks" if options.notebooks else "tests"
    record = RUNS / f"mutants-{kind}.json"
    todo = [mutant for file in options.files.split(",") for mutant in mutants(file, options.formulas) if not reason(mutant)]
    if options.survivors:
        last = {(m["file"], m["function"], m["original"], m["mutated"]) for m in json.loads(record.read_text()) if not m["killed_by"]}
        todo = [m for m in todo if (m.file, m.function, m.original, m.mutated) in last]
    if options.list:
        for m in todo:
            print(f"{m.file}.py:{m.line} {m.function}: {m.original} -> {m.mutated}")
        print(f"{len(todo)} mutants")
        return 0

    preload()
    plans: dict[str, dict] = {}
    if options.notebooks:
        present = {path.stem[:2] for path in MASTERS.glob("[0-9]*.py")} & {c for f in options.files.split(",") for c in CHAPTERS[f]}
        for chapter in sorted(present & set(options.chapters.split(",")) if options.chapters else present):
            with broken_package(None) as folder:
                answer = in_fork(lambda: rehearse(folder, chapter, options.heavy), folder, 1800)  # noqa: B023
            plans[chapter] = json.loads(answer)
            plan = plans[chapter]
            print(
                f"chapter {chapter}: {plan['seconds']:.1f} s, {len(plan['prints'])} cells compared, "
                f"left out: {plan['skip'] or 'nothing'} {plan['errors'] or ''}",
                flush=True,
            )
    else:
        with broken_package(None) as folder:
            for file in dict.fromkeys(m.file for m in todo):
                answer = in_fork(lambda: ask_tests(folder, file, []), folder, options.limit)  # noqa: B023
                if answer:
                    print(f"the unbroken package fails test_{file}.py: {answer}")
                    return 2

    def ask_for(mutant: Mutant) -> Callable[[Path], str]:
        mine = {c: plans[c] for c in CHAPTERS[mutant.file] if c in plans}
        return (
            (lambda folder: ask_chapters(folder, mine))
            if options.notebooks
            else (lambda folder: ask_tests(folder, mutant.file, best(mutant)))
        )

    def best(mutant: Mutant) -> list[str]:
        """The tests that noticed other mutants of this function, then of this file, most successful first."""
        kin = [(m.killed_by, m.function == mutant.function) for m in todo if m.file == mutant.file and m.killed_by]
        return sorted({name for name, _ in kin}, key=lambda name: -sum(1 + 100 * close for other, close in kin if other == name))

    start = time.monotonic()
    done = run(todo, ask_for, options.limit, options.workers)
    RUNS.mkdir(exist_ok=True)
    tried = {(m.file, m.function, m.original, m.mutated) if options.survivors else m.file for m in done}
    old = json.loads(record.read_text()) if record.exists() else []
    name = lambda m: (m["file"], m["function"], m["original"], m["mutated"]) if options.survivors else m["file"]  # noqa: E731
    kept = [m for m in old if name(m) not in tried]
    record.write_text(json.dumps(kept + [asdict(m) for m in done], indent=1, ensure_ascii=False) + "\n")
    print()
    for file in dict.fromkeys(m.file for m in done):
        mine = [m for m in done if m.file == file]
        print(f"{file:11s} {len(mine):4d} mutants, {sum(bool(m.killed_by) for m in mine):4d} noticed")
    left = [m for m in done if not m.killed_by]
    print(
        f"{len(done)} mutants by {kind} in {time.monotonic() - start:.0f} s: {len(done) - len(left)} noticed, {len(left)} survive, "
        f"{len(EQUIVALENT)} kinds listed as equivalent; see {record.relative_to(ROOT)}"
    )
    return bool(left)


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(SNAPSHOT.parent)
