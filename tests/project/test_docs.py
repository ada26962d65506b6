"""The pages say what is so: tests that they name exist, links lead somewhere, the README's code runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alcore import Driver
from alcore.store.reading import Run

ROOT = Path(__file__).parents[2]
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


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = [block for block in blocks("python") if "Driver(" in block]
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    pool, driver = names["pool"], names["driver"]
    assert len(pool) == 20 + 50  # type: ignore[arg-type]
    assert "5 steps" in driver.stop_reason  # type: ignore[attr-defined]


@pytest.mark.parametrize("columns", [1, 3])
def test_the_readmes_strategy_works(build: Callable[..., Driver], columns: int) -> None:
    (strategy,) = [block for block in blocks("python") if "PointwiseQuery" in block]
    names: dict[str, Any] = {}
    exec(compile(strategy, "README.md", "exec"), names)
    torch.manual_seed(0)
    driver = build(
        query_strategies=[names["Margin"](4)], learner=torch.nn.Linear(2, columns), max_active_learning_steps=1
    )
    driver.run()
    asked = [request["sample"] for request in Run(driver.log_dir).requests()]
    outputs = driver.infer(driver.train_datapool.inputs(torch.arange(8, 40)))
    if columns == 1:
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    best = torch.softmax(outputs, dim=1).sort(dim=1).values
    assert sorted(asked) == sorted((best[:, -1] - best[:, -2]).argsort()[:4].add(8).tolist())


def test_the_readmes_figures_are_those_of_its_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) ± [\d.]+ \| ([\d.]+) ± [\d.]+ \|$", text, re.MULTILINE)
    assert len(rows) == 8
    assert all(float(uncertain) >= float(random) for _, uncertain, random in rows)
