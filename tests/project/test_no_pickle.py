"""Nothing in core or plugins can run code that a file or a message from a stranger brings along.

Most of it is ruff's to see: its rules S and the banned names in pyproject.toml. Here is what escapes it.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest
from helpers.source import ROOT, core, plugins

BANNED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["flake8-tidy-imports"][
    "banned-api"
]
HOLDS_ANY_OBJECT = re.compile(r"\w*_object(_list)?|_?tensor_to_object|read_pickle|to_pickle|(enable_)?load_extension")
RUNS_TEXT = {"eval", "exec", "compile", "__import__", "__builtins__"}
MAY_BE_FALSE = {"allow_pickle", "trust_remote_code", "weights_only"}
IMPORTS_BY_NAME = {
    "alcore.plugins.registry._load": "an entry point of what is installed",
    "alcore.plugins.discovery.load": "the same",
    "alcore_testing.command.run_command": "the console script of alcore",
    "alcore.plugins.registry.import_name": "what a hook of an installed plugin offers, or what a user typed or allowed",
}
"""Functions that import by a name, and where the name comes from; a package's lazy ``__getattr__`` has a table."""


def faults(
    tree: ast.AST, module: str = "", function: str = "", parameters: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield what can run code, and is not written as the import or the name that ruff looks for."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module" and is_ours(node.args[0]):
            continue
        by_name = function == "__getattr__" or f"{module}.{function}" in IMPORTS_BY_NAME
        match node:
            case ast.Name(id=name) if name in RUNS_TEXT - parameters:  # a parameter `compile` is a value
                yield name
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) if HOLDS_ANY_OBJECT.fullmatch(
                name
            ):
                yield name
            case ast.keyword(arg=name, value=value) if name in MAY_BE_FALSE and ast.unparse(value) != "False":
                yield f"{name}={ast.unparse(value)}"
            case ast.Dict(keys=keys) if MAY_BE_FALSE & {key.value for key in keys if isinstance(key, ast.Constant)}:
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name)), *_]):
                if HOLDS_ANY_OBJECT.fullmatch(name) or f"{ast.unparse(owner)}.{name}" in BANNED:
                    yield ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr="load"), args=[], keywords=[]) if not by_name:
                yield ast.unparse(node)  # of an entry point
            case ast.Attribute(attr="import_module") | ast.Name(id="import_module") if not by_name:
                yield "import_module"
        inside, names = function, parameters
        if isinstance(node, ast.FunctionDef):
            inside, names = node.name, frozenset(argument.arg for argument in (*node.args.args, *node.args.kwonlyargs))
        yield from faults(node, module, inside, names)


def is_ours(name: ast.expr) -> bool:
    return isinstance(name, ast.Constant) and str(name.value).startswith("alcore")


def test_no_source_can_run_code_of_strangers() -> None:
    faults_found = [
        f"{source.module}: {fault}" for source in [*core(), *plugins()] for fault in faults(source.tree, source.module)
    ]
    assert not faults_found, "\n".join(faults_found)


@pytest.mark.parametrize(
    "text",
    ["np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=flag)", "f(**{'allow_pickle': True})",
     "Model.of(s, trust_remote_code=True)", "f(weights_only=True)", "dist.broadcast_object_list(a)",
     "from torch.distributed import all_gather_object", "f = dist.recv_object_list", "getattr(d, 'gather_object')(a)",
     "getattr(torch, 'load')(p)", "pd.read_pickle(p)", "frame.to_pickle(p)", "db.enable_load_extension(True)",
     "importlib.import_module(s)", "import_module('pickle')", "list(map(importlib.import_module, names))",
     "__import__(s)", "entry.load()", "map(eval, texts)", "run = exec", "compile(s, 'x', 'exec')",
     "__builtins__['eval'](s)"],
)  # fmt: skip
def test_what_runs_code_is_found(text: str) -> None:
    assert list(faults(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    ["np.load(p, allow_pickle=False)", "model.eval()", "re.compile(s)", "json.load(f)", "dist.all_gather(a, b)",
     "getattr(torch, name)", "getattr(pool, 'digest')", "model.load_state_dict(s)", "sys.modules",
     "importlib.import_module('alcore.plugins.builtins')", "def f(*, compile): g(compile)",
     "def __getattr__(name): return importlib.import_module(HOMES[name])"],
)  # fmt: skip
def test_what_runs_no_code_is_left_alone(text: str) -> None:
    assert list(faults(ast.parse(text))) == []


@pytest.mark.parametrize(
    "name", ["pickle", "joblib", "yaml", "torch.load", "torch.hub", "runpy", "sys.path", "os.system"]
)
def test_names_that_ruff_looks_for_are_banned(name: str) -> None:
    assert name in BANNED
