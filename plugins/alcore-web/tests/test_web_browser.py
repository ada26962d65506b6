"""Pages in a browser: nothing asked elsewhere, no errors, narrow, dark, readable for all, live."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.browser import chromium, needs_chromium, watched

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


class Served:
    """`alcore dash` on a folder."""

    def __init__(self, root: Path) -> None:
        words = [sys.executable, "-m", "alcore", "dash", str(root), "--no-browser"]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.opened = re.search(r"http://\S+", self._process.stdout.readline()).group()
        self.base = self.opened.partition("/?")[0]

    def end(self) -> str:
        """End it; return what it wrote to stderr."""
        if self._process.poll() is None:
            self._process.terminate()
            self._written = self._process.communicate(timeout=30)[1]
            self.code = self._process.returncode
        return self._written


@pytest.fixture
def served(root):
    server = Served(root)
    yield server
    assert server.end() == "alcore: interrupted; the page has ended, and runs go on.\n"
    assert server.code == 130


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_pages_are_sound(browser, served, width, dark):
    with watched(browser, served.opened, width=width, dark=dark) as seen:
        assert seen.page.url == f"{served.base}/"
        assert seen.page.inner_text("h1") == "Runs"
        for address in (
            "/",
            "/run/moons",
            "/run/reasons",
            "/compare?run=moons&run=bench/uq-0&run=bench/uq-1",
            "/?q=no",
        ):
            seen.page.goto(served.base + address)
            assert seen.serious() == [], address
            assert seen.overflow() == 0, address
        dark_page = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark_page == "rgb(255, 255, 255)") != dark
        assert seen.hosts() == {served.base.removeprefix("http://")}
        assert seen.faults == []


def test_marked_runs_are_compared(browser, served):
    with watched(browser, served.opened) as seen:
        for name in ("bench/uq-0", "moons"):
            seen.page.check(f"input[value='{name}']")
        seen.page.click("text=Compare marked runs")
        assert seen.page.inner_text("h1") == "Comparison"
        assert sorted(seen.page.locator("tbody th").all_inner_texts()) == ["bench/uq-0", "moons"]


def test_a_run_is_seen_to_go_on_and_marks_stay(browser, paced, tmp_path, request):
    served = Served(tmp_path / "root")
    request.addfinalizer(served.end)
    with watched(browser, served.opened) as listed, watched(browser, served.opened) as seen:
        listed.page.check("input[value='live']")
        seen.page.goto(f"{served.base}/run/live")
        assert "step 0, labeling" in seen.page.inner_text(".progress")
        paced.go_on()
        paced.wait()
        seen.page.locator(".progress", has_text="step 1, labeling").wait_for()
        paced.end()
        seen.page.locator("h1", has_text="done").wait_for()
        listed.page.locator("tbody .state", has_text="done").wait_for()
        assert listed.page.is_checked("input[value='live']")
        assert seen.faults == listed.faults == []
        served.end()
        listed.page.wait_for_selector("#lost:not([hidden])")


def test_nothing_runs_without_scripts_but_all_is_shown(browser, served):
    with watched(browser, served.opened, script=False) as seen:
        seen.page.goto(f"{served.base}/run/moons")
        assert seen.page.locator("svg.chart").count() == 5
