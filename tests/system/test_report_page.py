"""The page of `alcore report` in a browser: no errors, no requests, readable on a phone, in the dark and in print."""

import pytest
from alcore_testing import run_command
from helpers.browser import chromium, needs_chromium, watched

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """The page of a run, and that of a folder of runs, as addresses of files."""
    folder = tmp_path_factory.mktemp("pages")
    flags = ["--set", "data.moons.samples=120", "--steps", "4", "--metrology", "f1"]
    for words in (
        ["run", "--run-id", "moons-with-a-rather-long-name-of-a-run", *flags],
        ["report", "moons-with-a-rather-long-name-of-a-run", "--output", "run.html", "--no-png"],
        ["report", "active_learning_logs", "--output", "folder.html", "--no-png"],
    ):
        done = run_command(folder, *words)
        assert done.code == 0, done.err
    return [f"{(folder / name).as_uri()}" for name in ("run.html", "folder.html")]


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.mark.parametrize("page", [0, 1], ids=["run", "folder"])
@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True)], ids=["phone", "dark"])
def test_a_page_has_no_fault_in_a_browser(browser, addresses, page, width, dark):
    with watched(browser, addresses[page], width=width, dark=dark) as found:
        found.page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert found.faults == []
        assert [url for url in found.urls if not url.startswith(("file:", "data:"))] == []
        assert found.overflow() == 0
        assert found.serious() == []
        ground = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = found.page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
        light = [sum(int(channel) for channel in text.strip("rgb()").split(",")) for text in (ground, ink)]
        assert (light[0] < light[1]) == dark


def test_print_is_dark_on_white_also_in_dark_mode(browser, addresses):
    with watched(browser, addresses[0], dark=True) as found:
        found.page.emulate_media(media="print")
        assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert found.page.evaluate("getComputedStyle(document.querySelector('svg text')).fill") == "rgb(28, 32, 36)"
