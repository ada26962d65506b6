"""docs/architecture.md names every package and module of core, and the components of the Driver where they are."""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

from alcore.driver.lifecycle import RunState

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
COMPONENTS = dict(re.findall(r"^\| `([A-Z]\w+)` \| [^|]+ \| `([\w.]+)` \|$", PAGE, re.MULTILINE))
"""The module of each, below ``alcore.driver`` unless a package is named."""


@pytest.mark.parametrize(("component", "file"), COMPONENTS.items())
def test_component_is_in_the_file_that_the_page_names(component: str, file: str) -> None:
    module = importlib.import_module(f"alcore.{file}" if "." in file else f"alcore.driver.{file}")
    made = vars(module).get(component)
    assert isinstance(made, type)
    assert made.__module__ == module.__name__


@pytest.mark.parametrize("module", ["driver", "parts", "lifecycle"])
def test_page_lists_every_component_that_the_driver_is_composed_of(module: str) -> None:
    made = importlib.import_module(f"alcore.driver.{module}")
    source = inspect.getsource(made)
    classes = {
        name
        for name, value in vars(made).items()
        if isinstance(value, type) and value.__module__.startswith(("alcore.driver", "alcore.training"))
        if re.search(rf"(?<!def )\b{name}\(", source) and not issubclass(value, tuple | enum.Enum)
    }
    assert classes - COMPONENTS.keys() - {"RunParts"} == set()


def test_page_lists_the_states_of_a_run() -> None:
    table = PAGE[PAGE.index("`lifecycle.RunState`:") : PAGE.index("The other files hold functions")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(RunState.__members__)


def test_page_names_every_package_and_module_of_core() -> None:
    top = {module.name for module in pkgutil.iter_modules([str(ROOT / "alcore")])} - {"__main__"}
    table = PAGE[PAGE.index("| package or module |") : PAGE.index("A plugin is a distribution")]
    rows = [row.split("|")[1] for row in table.splitlines()[2:] if row.startswith("|")]
    named = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert named == top


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", PAGE))))
def test_link_leads_to_a_file(path: str) -> None:
    assert (ROOT / "docs" / path).exists()
