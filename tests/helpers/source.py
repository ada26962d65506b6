"""What stands in the repository's Python code and pages: shared by the tests of this folder."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path for path in (ROOT / "plugins").glob("alcore-*/alcore_*") if path.is_dir())
PAGES = sorted(
    [
        *(page for page in ROOT.glob("*.md") if page.name != "CHANGELOG.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("plugins/*/README.md"),
        *ROOT.glob("examples/**/README.md"),
    ]
)
"""The pages that say what is so now."""
WORDS = (
    "config", "errors", "hookspecs", "protocols", "strategies", "pools", "outputs", "inference", "training",
    "randomness", "distributed", "plugins", "store", "experiment", "commands", "lazy",
)  # fmt: skip
"""What is public of core beside the root: the modules and packages ``alcore.<word>``."""


class Import(NamedTuple):
    """A module that is imported, the name that is taken from it (empty for the module itself), and the line."""

    module: str
    name: str
    line: int


class Source:
    """A Python file of core, of a plugin, of the examples or of the benchmarks.

    Attributes
    ----------
    module
        The name that it is imported by, such as ``alcore.store.files``.
    package
        The part of core that it belongs to (``store``; ``config`` for a module; empty for the root), else its plugin.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        words = [*path.relative_to(ROOT).parts[:-1], path.stem]
        words = words[2:] if words[0] == "plugins" else words
        self.module = ".".join(word for word in words if word != "__init__")
        core = self.module.split(".")[1:] if words[0] == "alcore" else [words[0]]
        self.package = core[0] if core else ""

    def at(self, line: int) -> str:
        """Return a place in the file."""
        return f"{self.path.relative_to(ROOT)}:{line}"

    @functools.cached_property
    def imports(self) -> list[Import]:
        """All imports, also those in functions and under ``if TYPE_CHECKING``."""
        return imports_of(self.tree)

    @functools.cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the syntax tree."""
        return list(ast.walk(self.tree))


def imports_of(tree: ast.AST) -> list[Import]:
    """List all imports of a syntax tree."""
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [Import(alias.name, "", node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            imports += [Import(module, alias.name, node.lineno) for alias in node.names]
    return imports


@functools.cache
def sources(folder: Path) -> list[Source]:
    """List the Python files of a folder and of the folders in it."""
    return [Source(path) for path in sorted(folder.rglob("*.py"))]


def core() -> list[Source]:
    """List the files of core."""
    return sources(ROOT / "alcore")


def plugins() -> list[Source]:
    """List the files of all plugins, without their tests."""
    return [source for package in PLUGINS for source in sources(package)]


def plugin_tests() -> list[Source]:
    """List the test files of all plugins."""
    return [source for package in PLUGINS for source in sources(package.parent / "tests")]


def code_blocks(page: Path) -> Iterator[ast.Module]:
    """Yield the Python code of a page, block by block."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield ast.parse(block)


@functools.cache
def public_names(module: str) -> frozenset[str]:
    """Return the public names of a module: its ``__all__``, or what it defines without a leading underscore."""
    loaded: Any = importlib.import_module(module)
    if hasattr(loaded, "__all__"):
        return frozenset(loaded.__all__)
    names = set()
    for node in ast.parse(Path(loaded.__file__).read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if "TypeVar" not in ast.unparse(value):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return frozenset(name for name in names if not name.startswith("_"))
