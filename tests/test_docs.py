"""The pages say what is so: tests that they name exist, links lead somewhere, the README's code runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED_TESTS = sorted(
    {name for page in PAGES for name in re.findall(r"`([\w./-]+\.py::\w+)`", page.read_text(encoding="utf-8"))}
)


def test_the_specification_names_tests() -> None:
    assert len(NAMED_TESTS) > 30


@pytest.mark.parametrize("name", NAMED_TESTS)
def test_each_test_that_is_named_exists(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert function.startswith("test_")
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "row", re.findall(r"^\| .+? \| (.+?) \| `", (ROOT / "docs" / "specification.md").read_text(), re.MULTILINE)
)
def test_places_that_the_specification_names_exist(row: str) -> None:
    for place in re.findall(r"`(alcore\w*(?:/[\w/]+)?(?:\.py)?)`", row):
        plugin = place.split("/")[0].replace("_", "-")
        homes = [ROOT / place, ROOT / "plugins" / plugin / place]
        assert any(home.exists() for home in homes), place
