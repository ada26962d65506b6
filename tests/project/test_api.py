"""docs/api.md lists the public names, and docs/protocols.md every member that parts have or may have.

A public name that is added, renamed or removed fails here until the page says so: ``python tests/project/api_page.py``
writes it anew, and the difference belongs into the changelog.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys

import pytest
from helpers.source import ROOT, WORDS, public_names

from alcore import protocols

MODULES = ["alcore", *(f"alcore.{word}" for word in WORDS)]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
PROTOCOLS = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert match, f"there is no section {title}"
    return match[1]


def rows(text: str) -> dict[str, str]:
    """Return the rows of a table by the name in their first column."""
    return dict(re.findall(r"^\| `(\w+)[^`]*` \| (.*) \|$", text, re.MULTILINE))


def test_page_has_the_public_modules() -> None:
    assert re.findall(r"^## (.*)$", API, re.MULTILINE) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_page_lists_the_public_names(module: str) -> None:
    listed = rows(section(API, module))
    assert set(listed) == set(public_names(module))
    assert not [name for name, text in listed.items() if not text.strip()], "say in a line what it is"
    loaded = importlib.import_module(module)
    assert not [name for name in listed if not hasattr(loaded, name)]


def test_unknown_names_are_attribute_errors() -> None:
    program = "import alcore\ntry:\n    alcore.Drivr\nexcept AttributeError as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "module 'alcore' has no attribute 'Drivr'"


# -- protocols ------------------------------------------------------------------------------------------

CLASSES = [
    member
    for member in vars(protocols).values()
    if inspect.isclass(member) and member.__module__ == "alcore.protocols" and getattr(member, "_is_protocol", False)
]


def members_of(protocol: type) -> set[str]:
    names = {*vars(protocol), *vars(protocol).get("__annotations__", {})}
    return {name for name in names if not name.startswith("_") or name in ("__call__", "__len__", "__getitem__")}


@pytest.mark.parametrize("protocol", CLASSES, ids=lambda one: one.__name__)
def test_page_lists_the_members_of_each_protocol(protocol: type) -> None:
    assert set(rows(section(PROTOCOLS, protocol.__name__))) == members_of(protocol)


def test_page_has_no_other_protocols() -> None:
    assert set(re.findall(r"^## (\w+)$", PROTOCOLS, re.MULTILINE)) == {cls.__name__ for cls in CLASSES}
