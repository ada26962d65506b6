"""docs/architecture.md names every package, module and component of the Driver, with what each part is given."""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import alcore.driver
from alcore.driver.lifecycle import RunState

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
COMPONENTS = re.findall(r"^\| `(\w+)` \| [^|]+ \| (?:`([\w, ]+)`)? ?\| `[\w.]+` \|$", PAGE, re.MULTILINE)
ELSEWHERE = {
    "Trainer": "alcore.training.trainer",
    "LoaderFactory": "alcore.training.loader",
    "ClassBalance": "alcore.training.class_balance",
    "Listeners": "alcore.plugins.listeners",
}


def class_of(component: str) -> type:
    """Return the class of a component, wherever it is."""
    modules = [f"alcore.driver.{module.name}" for module in pkgutil.iter_modules(alcore.driver.__path__)]
    for name in [ELSEWHERE[component]] if component in ELSEWHERE else modules:
        value = vars(importlib.import_module(name)).get(component)
        if isinstance(value, type) and value.__module__ == name:
            return value
    raise AssertionError(f"docs/architecture.md names {component}, and there is no such class")


@pytest.mark.parametrize(("component", "given"), COMPONENTS)
def test_component_is_given_what_the_page_says(component: str, given: str) -> None:
    parameters = list(inspect.signature(class_of(component)).parameters)
    assert parameters == [parameter.strip() for parameter in given.split(",") if parameter.strip()]


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
    assert classes - {name for name, _ in COMPONENTS} - {"RunParts"} == set()


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
