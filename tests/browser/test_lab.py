"""A reader's session: JupyterLab runs a chapter, a slider moves (or a choice is made), its figure follows, nothing leaves the machine.

Run by `make browser-test`. BROWSER_NOTEBOOK names another notebook, BROWSER_SHOTS a folder for the screenshot.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[test]")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = Path(os.environ.get("BROWSER_NOTEBOOK", ROOT / "notebooks" / "02_forward.ipynb"))
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
RUN_MS, STEP_MS = 300_000, 60_000
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
LOCAL = {"127.0.0.1", "localhost"}
ERROR = '[data-mime-type="application/vnd.jupyter.error"]'

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.skipif(not NOTEBOOK.exists(), reason=f"{NOTEBOOK} does not exist"),
]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fresh_environment(folder: Path) -> dict[str, str]:
    """The environment of a first visit: no settings, workspaces or kernels of this user."""
    kinds = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR"]
    own = {kind: str(folder / kind.lower()) for kind in [*kinds, "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"]}
    # Cells outside the window stay in the page, so that each can be looked at; and no question about news.
    for name, value in SETTINGS.items():
        file = folder / "jupyterlab_settings_dir" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    return {**os.environ, **own, "CI": "1"}


def wait_for_server(address: str, server: subprocess.Popen, seconds: float = 60) -> None:
    """Return when the server answers; fail when it ends or stays silent."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail("JupyterLab did not start")


def without_outputs(source: Path, target: Path) -> int:
    """Copy a notebook as a reader meets it after clearing; the number of its code cells."""
    notebook = nbformat.read(source, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
        cell.metadata.pop("jupyter", None)  # unfold, so that everything shows
    nbformat.write(notebook, target)
    return len(code)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[str, Path, int]]:
    """A running JupyterLab: its address, the copied chapter, the number of its code cells."""
    course = tmp_path / "course"  # folders as in the repository: chapters read measurements from ../benchmarks/results
    work = course / "notebooks"
    work.mkdir(parents=True)
    shutil.copytree(ROOT / "benchmarks" / "results", course / "benchmarks" / "results")
    num_cells = without_outputs(NOTEBOOK, work / NOTEBOOK.name)
    port = free_port()
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={course}"),
        *("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"),
    ]
    with (tmp_path / "lab.log").open("w") as log:
        environment = fresh_environment(tmp_path)
        server = subprocess.Popen(command, cwd=course, env=environment, stdout=log, stderr=log)
        try:
            wait_for_server(f"http://127.0.0.1:{port}", server)
            yield f"http://127.0.0.1:{port}", work / NOTEBOOK.name, num_cells
        finally:
            server.terminate()  # the server ends its kernels itself
            server.wait(timeout=30)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[sync_api.Page]:
    """A page of a fresh Chromium, and a screenshot of how it ended."""
    shots = Path(os.environ.get("BROWSER_SHOTS", tmp_path))
    shots.mkdir(parents=True, exist_ok=True)
    with sync_api.sync_playwright() as playwright:
        # Chromium's own services would phone home; only the page's requests are the question here.
        quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        yield page
        page.screenshot(path=shots / f"{NOTEBOOK.stem}.png")
        browser.close()


def record_hosts(page: sync_api.Page) -> set[str]:
    """A set that fills with the host of every request and socket that the page opens."""
    hosts: set[str] = set()
    page.context.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
    page.on("websocket", lambda socket: hosts.add(urlsplit(socket.url).hostname or ""))
    return hosts


def wait_idle(page: sync_api.Page, timeout: float = STEP_MS) -> None:
    """Wait until the status bar says that the kernel has nothing to do."""
    sync_api.expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=timeout)


def menu(page: sync_api.Page, name: str, item: str) -> None:
    """Choose an item of the menu bar."""
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{name}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$")).click()


def run_all(page: sync_api.Page, num_cells: int) -> None:
    """Run all cells and wait until the last one has its number; a cell that fails ends the wait."""
    menu(page, "Run", "Run All Cells")
    done = page.locator(".jp-CodeCell .jp-InputPrompt", has_text=f"[{num_cells}]:")
    failed = page.locator(ERROR)
    sync_api.expect(done.or_(failed).first).to_be_visible(timeout=RUN_MS)
    assert failed.count() == 0, failed.first.inner_text()
    wait_idle(page)


def assert_no_errors(page: sync_api.Page, notebook: Path) -> None:
    """Neither the page nor the saved file shows an error."""
    assert page.locator(ERROR).count() == 0
    menu(page, "File", "Save Notebook")
    sync_api.expect(page.locator(".jp-mod-dirty")).to_have_count(0, timeout=STEP_MS)
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]


def drag_slider(page: sync_api.Page, handle: sync_api.Locator) -> None:
    """Drag a slider with the mouse, towards the far end, wherever its handle starts."""
    box, track = handle.bounding_box(), page.locator(".widget-slider .noUi-base").first.bounding_box()
    assert box and track, "the slider is not on the screen"
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + (60 if x < track["x"] + track["width"] / 2 else -60), y, steps=5)
    page.mouse.up()


def moved_picture(page: sync_api.Page) -> tuple[str, str]:
    """Move the first slider, or choose from the first list where there is none; the picture before and after."""
    handle, choice = page.locator(".widget-slider .noUi-handle"), page.locator(".widget-dropdown select")
    handle.or_(choice).first.wait_for(timeout=STEP_MS)
    control = (handle if handle.count() else choice).first
    picture = page.locator(".widget-output img").first
    control.scroll_into_view_if_needed()
    picture.wait_for(timeout=STEP_MS)
    before = picture.get_attribute("src") or ""
    if handle.count():
        drag_slider(page, control)
    else:
        control.select_option(index=1)
    page.wait_for_function(
        "old => { const img = document.querySelector('.widget-output img'); return img && img.src !== old; }",
        arg=before,
        timeout=STEP_MS,
    )
    wait_idle(page)
    return before, picture.get_attribute("src") or ""


def test_chapter_runs_and_its_control_moves_the_figure(lab: tuple[str, Path, int], page: sync_api.Page) -> None:
    address, notebook, num_cells = lab
    hosts = record_hosts(page)
    page.goto(f"{address}/lab/tree/notebooks/{notebook.name}")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=STEP_MS)
    wait_idle(page)
    run_all(page, num_cells)
    assert_no_errors(page, notebook)
    before, after = moved_picture(page)
    assert before.startswith("data:image/png") and after.startswith("data:image/png") and before != after
    assert hosts and hosts - {""} <= LOCAL, f"requests left the machine: {sorted(hosts - LOCAL)}"
