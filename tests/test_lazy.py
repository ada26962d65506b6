"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    folder = tmp_path / "lazy_example"
    folder.mkdir()
    homes = '{"sums": ["add"], "whole": []}'
    text = f"from alcore.lazy import lazy_names\n__getattr__ = lazy_names(__name__, {homes})\nHERE = 1\n"
    (folder / "__init__.py").write_text(text)
    (folder / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (folder / "whole.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("lazy_example")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazy_example"]:
        del sys.modules[name]


def test_name_is_imported_when_it_is_first_used(package: ModuleType) -> None:
    assert "lazy_example.sums" not in sys.modules
    assert package.add(1, 2) == 3
    assert "lazy_example.sums" in sys.modules
    assert vars(package)["add"] is package.add, "the second use is that of any other name"


def test_module_without_names_is_a_name_itself(package: ModuleType) -> None:
    assert package.whole is importlib.import_module("lazy_example.whole")


def test_looking_through_the_members_of_a_package_imports_nothing(package: ModuleType) -> None:
    assert [getattr(package, name) for name in dir(package) if not name.startswith("__")]
    assert not {"lazy_example.sums", "lazy_example.whole"} & sys.modules.keys()


def test_other_names_are_attribute_errors(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="module 'lazy_example' has no attribute 'ad'"):
        _ = package.ad
