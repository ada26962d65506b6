"""The pages say what is so: tests that they name exist, links lead somewhere, the README's code runs."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.source import PAGES, ROOT, WORDS, public_names

from alcore import Driver
from alcore.store import Run

SPECIFICATION = ROOT / "docs" / "specification.md"
NAME_INTERNALS = ("architecture.md", "CONTRIBUTING.md")

PLAIN_PAGES = [
    page for page in PAGES if page.name not in ("architecture.md", "CONTRIBUTING.md")
]  # those name internals


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def none(faults: Iterable[str]) -> None:
    """Fail with everything that was found."""
    faults_found = list(faults)
    assert not faults_found, "\n".join(["", *faults_found])


@functools.cache
def functions_in(path: str) -> set[str]:
    """Return the test functions of a file, those of its classes as ``Class::test``."""
    tree = ast.parse(text_of(ROOT / path)) if (ROOT / path).is_file() else ast.Module([], [])
    classes = [(f"{node.name}::", node.body) for node in tree.body if isinstance(node, ast.ClassDef)]
    return {
        f"{owner}{node.name}"
        for owner, body in [("", tree.body), *classes]
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_tests_that_pages_name_exist() -> None:
    named = [(page, *found) for page in PAGES for found in re.findall(r"`([\w./-]+\.py)::([\w:]+)`", text_of(page))]
    none(f"{page.name}: {path}::{test}" for page, path, test in named if test not in functions_in(path))


def test_each_statement_of_the_specification_has_a_place_and_a_test() -> None:
    rows = [line.strip("| ").split(" | ") for line in text_of(SPECIFICATION).splitlines() if line.startswith("| ")]
    tables = [row for row in rows if row[0] not in ("statement", "the specification")]
    none(row[0] for row in tables if len(row) != 3 or not row[1].strip() or "::test_" not in row[2])


def test_files_that_pages_name_exist() -> None:
    for page in [*PAGES, ROOT / "benchmarks" / "README.md"]:
        named = re.findall(
            r"`((?:alcore|plugins|tests|docs|examples|benchmarks|\.ci)(?:/[\w.-]+)+)/?[^`/]*`", text_of(page)
        )
        none(f"{page.name}: {path}" for path in named if not (ROOT / path).exists())
        inside = re.findall(r"`(alcore_\w+)((?:/[\w.]+)*)`", text_of(page))
        inside = [(name, rest) for name, rest in inside if rest or page == SPECIFICATION]
        homes = [(name + rest, ROOT / "plugins" / name.replace("_", "-") / (name + rest)) for name, rest in inside]
        none(f"{page.name}: {name}" for name, path in homes if not path.exists() and "nearzero" not in name)


def test_names_of_core_on_pages_are_public() -> None:
    for page in (page for page in PAGES if page.name not in NAME_INTERNALS):
        for name in re.findall(r"`(alcore(?:\.\w+)+)", text_of(page)):
            module, _, last = name.rpartition(".")
            words = module.split(".")[1:]
            assert last in (*public_names(module), *(WORDS if not words else ())), f"{page.name}: {name}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(page)):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


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
