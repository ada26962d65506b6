"""Pages in a headless Chromium: what it logs and asks for, how wide a page is, and what axe-core finds."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="the system program chromium is missing")


class Watched:
    """A page, and what went wrong on it.

    Parameters
    ----------
    page
        A new page, which nothing was loaded into.

    Attributes
    ----------
    page
        The page.
    faults : list of str
        What the console logged as an error or a warning, and what was raised.
    urls : list of str
        What the page asked for.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        self.urls: list[str] = []
        page.on("console", lambda one: self.faults.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.urls.append(request.url))

    def hosts(self) -> set[str]:
        """Return the hosts that the page asked, with their ports; a file or data URL has none."""
        return {urlsplit(url).netloc for url in self.urls} - {""}

    def overflow(self) -> int:
        """Return by how many CSS pixels the page is wider than its window; 0 where it needs no horizontal scrolling."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def serious(self) -> list[str]:
        """Return what axe-core finds that is serious or critical: the rule, and where."""
        package = importlib.util.find_spec("axe_playwright_python")
        assert package is not None
        assert package.origin is not None
        # through the debugger, since the page's own policy allows no script of others
        self.page.evaluate(Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
        report: dict[str, Any] = self.page.evaluate("axe.run()")
        return [
            f"{violation['id']}: {[node['target'] for node in violation['nodes']][:3]}"
            for violation in report["violations"]
            if violation["impact"] in ("serious", "critical")
        ]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start a headless Chromium, and end it."""
    assert CHROMIUM is not None
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=[*quiet, "--disable-sync"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def watched(
    browser: Browser, url: str, *, width: int = 1280, dark: bool = False, script: bool = True
) -> Iterator[Watched]:
    """Open a page in a window of its own.

    Parameters
    ----------
    browser
        From `chromium`.
    url
        What is opened.
    width
        Of the window, in CSS pixels.
    dark
        Whether the user prefers dark colors.
    script
        Whether scripts may run.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
    )
    try:
        window = Watched(context.new_page())
        window.page.goto(url)
        yield window
    finally:
        context.close()
