"""Floors: a module imports from floors below its own, core knows no plugin, and plugins don't know each other."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each module may import those on the lines above its own; a package on a line of its own may also import itself.
FLOORS = """
errors protocols ending
names randomness placement data hookspecs ranking
parameters outputs rows
pools
store.codec store.filenames
ranks wire signs
group evaluation books
distributed
store.files
store.lock store.database
store.checkpoints store.history
store.exports store.retention store.statements
config plugins builtins parallel
candidates loaders lifecycle scoring embedded
store.run store.reading store.answers
store.mirror
store.requests
store.labels
training state description
features
strategies labeling resume doubt opening sharing
midway runlog
session services checks tables
balance
lifetime
driver
experiment
resolving
build exporting forking
cli
__main__
testing
"""
HEIGHT = {name: height for height, line in enumerate(FLOORS.strip().splitlines()) for name in line.split()}


class Runtime(ast.NodeVisitor):
    """Collects what a module imports when it runs; what stands under ``if TYPE_CHECKING`` doesn't."""

    def __init__(self, path: Path) -> None:
        self.found: set[str] = set()
        self.visit(ast.parse(path.read_text(encoding="utf-8")))

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert not node.level, "a relative import"
        self.found |= {f"{node.module}.{alias.name}" for alias in node.names}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "alcore").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def floor_of(name: str) -> str | None:
    """``alcore.codec.dumps`` -> ``store.codec``; None for the package itself and its lazy names."""
    words = name.split(".")[1:]
    for length in range(len(words), 0, -1):
        if (found := ".".join(words[:length])) in HEIGHT:
            return found
    return None


MODULES = {module_of(path): path for path in sorted((ROOT / "alcore").rglob("*.py"))}
PLUGINS = sorted(path for path in (ROOT / "plugins").glob("alcore-*/alcore_*") if path.is_dir())


def test_every_module_has_a_floor() -> None:
    unknown = [name for name in MODULES if name not in ("", "store") and floor_of(f"alcore.{name}") is None]
    assert not unknown, f"say in FLOORS where {unknown} stand"
    gone = [name for name in HEIGHT if not any(one == name or one.startswith(f"{name}.") for one in MODULES)]
    assert not gone, f"FLOORS names {gone}, which are gone"


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_a_module_imports_from_floors_below(name: str) -> None:
    own = floor_of(f"alcore.{name}")
    above = {
        imported
        for imported in Runtime(MODULES[name]).found
        if imported.split(".")[0] == "alcore"
        and (floor := floor_of(imported)) is not None
        and floor != own
        and (own is None or HEIGHT[floor] >= HEIGHT[own])
    }
    assert not above, f"{name} imports {above} from its own floor or one above"


def test_the_parts_of_the_command_import_each_other_in_one_direction() -> None:
    """``cli`` is one floor; inside it there must be no cycle either."""
    imports = {
        name: {f"cli.{one.split('.')[2]}" for one in Runtime(path).found if one.startswith("alcore.cli.")}
        for name, path in MODULES.items()
        if name.startswith("cli.")
    }
    left = dict(imports)
    while ready := [name for name, needs in left.items() if not needs & set(left)]:
        for name in ready:
            del left[name]
    assert not left, f"a cycle among {sorted(left)}"
    assert imports


@pytest.mark.parametrize("name", list(MODULES))
def test_core_imports_no_plugin(name: str) -> None:
    own = {path.name for path in PLUGINS}
    assert own
    assert not {one for one in Runtime(MODULES[name]).found if one.split(".")[0] in own}


@pytest.mark.parametrize("package", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_core_and_no_other_plugin(package: Path) -> None:
    others = {path.name for path in PLUGINS} - {package.name}
    for path in package.rglob("*.py"):
        assert not {one for one in Runtime(path).found if one.split(".")[0] in others}, path
    needed = tomllib.loads((package.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [one for one in needed if one.replace("-", "_").startswith(tuple(others))]
    assert any(one.startswith("alcore>=") for one in needed)


def test_the_walk_sees_what_runs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "from typing import TYPE_CHECKING\nimport a.b\nfrom c import d\n"
        "if TYPE_CHECKING:\n    import not_me\nelse:\n    pass\n"
        "def f():\n    from late import e\ntry:\n    import tried\nexcept ImportError:\n    pass\n"
    )
    assert Runtime(tmp_path / "m.py").found == {"typing.TYPE_CHECKING", "a.b", "c.d", "late.e", "tried"}
    assert floor_of("alcore.codec.dumps") == "store.codec"
    assert floor_of("alcore.cli.show.curve") == "cli"
    assert floor_of("alcore") is floor_of("alcore.TensorPool") is None


# -- what importing costs --------------------------------------------------------------------------------


def loaded_after(statement: str, *names: str) -> Iterator[str]:
    program = f"import sys\n{statement}\nprint(*[name for name in {names!r} if name in sys.modules])"
    yield from subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT / "tests"
    ).stdout.split()


@pytest.mark.parametrize(
    "statement",
    [
        "import alcore",
        "import alcore; alcore.hookimpl, alcore.runhook, alcore.UsageError, alcore.Label; dir(alcore)",
        "import alcore.protocols, alcore.names, alcore.errors",
        "import alcore.plugins",
        "import alcore.cli.main",
        *(f"import {path.name}" for path in PLUGINS),
    ],
)
def test_importing_loads_no_torch(statement: str) -> None:
    assert list(loaded_after(statement, "torch", "sklearn", "pandas", "matplotlib")) == []


def test_importing_core_loads_no_plugin() -> None:
    assert list(loaded_after("import alcore; alcore.Driver", "torch", *(path.name for path in PLUGINS))) == ["torch"]


def test_every_public_name_is_there() -> None:
    program = (
        "import alcore, typing\n"
        "missing = [name for name in alcore.__all__ if getattr(alcore, name, None) is None]\n"
        "assert not missing, missing\n"
        "assert set(alcore.__all__) <= set(dir(alcore))\n"
        "assert alcore.config.DriverConfig\n"
        "try:\n    alcore.Drivr\nexcept AttributeError as error:\n    print(error)"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "module 'alcore' has no attribute 'Drivr'"
