"""Nothing in core or plugins can run code that a file or a message from a stranger brings along."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

RUNS_CODE = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "shelve", "marshal", "copyreg",
    "yaml", "ruamel", "xmlrpc", "ctypes", "cffi", "code", "codeop", "imp", "runpy", "zipimport", "pkg_resources",
    "builtins.eval", "builtins.exec", "builtins.__builtins__", "types.CodeType", "logging.config", "os.popen",
    "os.system", "multiprocessing.connection", "multiprocessing.managers", "numpy.lib.npyio.load", "sklearn.externals",
    "torch.load", "torch.save", "torch.serialization", "torch.package", "torch.hub", "torch.jit.load",
    "torch.export.load", "torch.distributed.rpc", "torch.distributed.checkpoint", "torch.utils.cpp_extension",
    "torch.utils.model_zoo", "torch.ops.load_library", "torch.classes.load_library",
    "importlib.machinery", "importlib.metadata.entry_points", "importlib.reload", "importlib.util.module_from_spec",
    "importlib.util.spec_from_file_location", "pkgutil.resolve_name", "pydoc.locate", "site.addsitedir",
    "sys.path", "sys.meta_path", "sys.path_hooks",
}  # fmt: skip
METHODS = re.compile(  # whatever they belong to
    r"(\w+_)?(gather|scatter|broadcast|send|recv)_object(_list)?|_tensor_to_object|_object_to_tensor"
    r"|read_pickle|to_pickle|read_hdf|enable_load_extension|load_extension|exec_module|load_module|import_name"
)
OPTIONS = {"allow_pickle", "shell", "trust_remote_code"}  # may be False, and said to be so by the letter
USUAL = {name.split(".")[0]: name.split(".")[0] for name in RUNS_CODE if "." in name}
USUAL |= {"importlib": "importlib", "np": "numpy", "pd": "pandas", "dist": "torch.distributed"}

_PLUGINS, _EXAMPLES = "alcore/plugins/registry.py", "plugins/alcore-testing/alcore_testing/examples.py"
ALLOWED = {
    (_PLUGINS, "import_name", "importlib.import_module(module_name)"): "called by the two functions below only",
    (_PLUGINS, "resolve", "import_name"): "the text is what a hook of an installed plugin offers",
    (
        "alcore/experiment/resolve.py",
        "_user_code",
        "plugins.import_name",
    ): "typed as an option, or a file is given --allow-code",
    (_PLUGINS, "_entry_points", "importlib.metadata.entry_points"): "what is installed is trusted as Python itself is",
    (_PLUGINS, "_load", "entry.load()"): "one of these entry points",
    (
        "alcore/driver/description.py",
        "environment",
        "importlib.metadata.entry_points",
    ): "only names and versions are read",
    (
        "alcore/experiment/resolve.py",
        "_user_code",
        "sys.path",
    ): "is the folder there in which the user typed the command",
    (
        "alcore/experiment/resolve.py",
        "_user_code",
        "sys.path.insert",
    ): "that folder, for code that the user named or allowed",
    (_EXAMPLES, "", "import runpy"): "runs the examples of a README in the tests of its project",
    (_EXAMPLES, "run_examples", "runpy.run_path"): "runs the examples of a README in the tests of its project",
}
"""File, function and text of what may stand there, with the reason why no run directory or message says what is run."""


class Fault(NamedTuple):
    """What must not be there, and the function that it is in."""

    function: str
    what: str


def faults(text: str) -> list[Fault]:
    """List what can run code, by the syntax and not by the words of a message."""
    walk = _Walk(ast.parse(text))
    walk.visit(walk.tree)
    return walk.found


class _Walk(ast.NodeVisitor):
    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.found: list[Fault] = []
        self.functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
        self.origins = dict(USUAL)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                whole = [(one.asname, one.name) if one.asname else (one.name.split(".")[0],) * 2 for one in node.names]
                self.origins |= dict(whole)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self.origins |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}

    def blame(self, what: str) -> None:
        self.found.append(Fault(self.functions[-1].name if self.functions else "", what))

    def origin(self, node: ast.AST) -> str:
        """Return the full name of what an expression stands for, as far as it can be seen."""
        if isinstance(node, ast.Name):
            return self.origins.get(node.id, f"builtins.{node.id}")
        if isinstance(node, ast.Attribute):
            return f"{self.origin(node.value)}.{node.attr}"
        if isinstance(node, ast.Call) and self.origin(node.func) == "builtins.getattr" and len(node.args) > 1:
            name = node.args[1]
            return f"{self.origin(node.args[0])}.{name.value if isinstance(name, ast.Constant) else '?'}"
        return "?"

    def visit_Import(self, node: ast.Import) -> None:
        for one in node.names:
            if _runs_code(one.name):
                self.blame(f"import {one.name}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for one in node.names:
            origin = f"{node.module or ''}.{one.name}"
            if one.name == "*" or (_runs_code(origin) and not node.level) or METHODS.fullmatch(one.name):
                self.blame(f"from {node.module} import {one.name}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.functions.append(node)
        self.generic_visit(node)
        self.functions.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Name(self, node: ast.Name) -> None:
        self._refer(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not self._refer(node):
            self.generic_visit(node)

    def _refer(self, node: ast.expr) -> bool:
        origin = self.origin(node)
        passed_on = origin in ("numpy.load", "importlib.import_module", "builtins.__import__")
        wrong = passed_on or _runs_code(origin) or bool(METHODS.fullmatch(origin.rpartition(".")[2]))
        if wrong:
            self.blame(ast.unparse(node))
        return wrong

    def visit_Call(self, node: ast.Call) -> None:
        called, origin = ast.unparse(node.func), self.origin(node.func)
        if origin in ("importlib.import_module", "builtins.__import__"):
            given = [*node.args, *(one.value for one in node.keywords)]
            if not all(self._is_written_here(one) for one in given):
                self.blame(f"{called}({', '.join(map(ast.unparse, given))})")
        elif origin == "numpy.load":
            if not any(one.arg == "allow_pickle" for one in node.keywords):
                self.blame(f"{called} that doesn't say allow_pickle=False")
        else:
            self.visit(node.func)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if origin == "builtins.compile" or (method == "eval" and node.args):
            self.blame(called)
        if method == "load" and not node.args and not node.keywords:
            self.blame(f"{called}()")  # of an entry point
        if origin == "builtins.getattr":
            self._refer(node)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            self._option(keyword.arg, keyword.value)
            self.visit(keyword.value)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            self._option(key.value if isinstance(key, ast.Constant) else None, value)
        self.generic_visit(node)

    def _option(self, name: object, value: ast.expr) -> None:
        if name == "weights_only" or (name in OPTIONS and ast.unparse(value) != "False"):
            self.blame(f"{name}={ast.unparse(value)}")

    def _is_written_here(self, node: ast.AST, seen: frozenset[str] = frozenset(), *, keys: bool = True) -> bool:
        """Tell whether a text is a constant, or from a table of constants in this file (without `keys`: a value)."""
        match node:
            case ast.Constant(value=value):
                return not _runs_code(str(value))
            case ast.Name(id="__name__" | "__package__"):
                return True
            case ast.Name(id=name):
                sources = [] if name in seen else self._sources(name)
                return bool(sources) and all(self._is_written_here(one, seen | {name}, keys=keys) for one in sources)
            case ast.Call(func=ast.Attribute(value=value, attr=attribute)) if attribute in _READS:
                return self._is_written_here(value, seen)
            case ast.Subscript(value=value):
                return self._is_written_here(value, seen, keys=False)
            case ast.FormattedValue(value=value):
                return self._is_written_here(value, seen)
            case ast.DictComp(value=value):
                return not keys and self._is_written_here(value, seen)
            case ast.Dict():
                parts = [*node.values, *(node.keys if keys or None in node.keys else [])]
                return all(part is not None and self._is_written_here(part, seen) for part in parts)
            case ast.JoinedStr(values=elements) | ast.List(elts=elements) | ast.Tuple(elts=elements):
                return all(self._is_written_here(one, seen) for one in elements)
        return False

    def _sources(self, name: str) -> list[ast.AST]:
        """Return all that a name is bound to in this file; nothing where that can't be followed."""
        sources: list[ast.AST] = []
        bound = 0
        for node in ast.walk(self.tree):
            match node:
                case ast.Assign(targets=targets, value=value):
                    sources += [value for one in targets for each in ast.walk(one) if _is_set(each, name)]
                case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                    sources += [value for each in ast.walk(target) if _is_set(each, name)]
                case ast.Attribute(value=ast.Name(id=other), attr=attribute):
                    bound += other == name and attribute not in _READS
                case ast.Subscript(value=ast.Name(id=other), ctx=ast.Store() | ast.Del()):
                    bound += other == name
                case ast.arg(arg=other) | ast.alias(name=other, asname=None) | ast.alias(asname=other):
                    bound += other == name
                case ast.ExceptHandler(name=other) | ast.MatchAs(name=other) | ast.FunctionDef(name=other):
                    bound += other == name
            bound += _is_set(node, name)
        return sources if bound == len(sources) else []


_READS = ("items", "values", "keys", "partition")


def _is_set(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)


def _runs_code(origin: str) -> bool:
    parts = origin.split(".")
    return any(".".join(parts[:end]) in RUNS_CODE for end in range(1, len(parts) + 1))


def sources(root: Path) -> list[Path]:
    """Return the code of core and of every plugin, less its tests."""
    plugins = [path for path in root.glob("plugins/*/**/*.py") if path.relative_to(root).parts[2] != "tests"]
    return sorted([*root.glob("alcore/**/*.py"), *plugins])


@pytest.mark.parametrize("path", sources(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_runs_no_code_of_strangers(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = faults(path.read_text(encoding="utf-8"))
    assert [fault for fault in found if (name, *fault) not in ALLOWED] == []


def test_what_is_allowed_is_there() -> None:
    """A permission that nobody uses any more is taken back."""
    found = {(path, *fault) for path, _, _ in ALLOWED for fault in faults((ROOT / path).read_text(encoding="utf-8"))}
    assert set(ALLOWED) - found == set()


def test_core_and_every_plugin_are_looked_at() -> None:
    packages = {path.relative_to(ROOT).parts[:2] for path in sources(ROOT)}
    assert ("alcore", "driver.py") in packages
    assert {name for folder, name in packages if folder == "plugins"} == {
        path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")
    }


def test_a_plugin_is_looked_at_however_it_is_laid_out(tmp_path: Path) -> None:
    names = ["alcore/store/a.py", "plugins/alcore-new/alcore_new/deep/b.py", "plugins/alcore-new/src/alcore_new/c.py",
             "plugins/alcore-new/alcore_new.py", "plugins/alcore-new/tests/test_d.py", "benchmarks/e.py"]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {path.relative_to(tmp_path).as_posix() for path in sources(tmp_path)} == set(names[:4])


@pytest.mark.parametrize(
    "text",
    [
        # what runs code when it reads
        "import pickle", "from pickle import loads", "def f():\n    import joblib", "import cloudpickle.x",
        "import yaml", "from yaml import safe_load", "import shelve", "import a, dill as d",
        "torch.load(p)", "torch.save(a, p)", "from torch import load as read", "import torch.hub",
        "import torch as t; t.load(p)", "read = torch.load", "getattr(torch, 'load')(p)", "torch.serialization.load(p)",
        "torch.jit.load(p)", "from torch.jit import load", "from torch import package", "f(weights_only=False)",
        "torch.load(p, weights_only=True)", "torch.distributed.checkpoint.load(s)", "torch.ops.load_library(p)",
        "np.load(p)", "from numpy import load; load(p)", "np.load(p, allow_pickle=True)", "np.load(p, **options)",
        "np.load(p, allow_pickle=flag)", "map(np.load, paths)", "x.load(p, allow_pickle=1)", "{'allow_pickle': True}",
        "pd.read_pickle(p)", "frame.to_pickle(p)", "frame.eval(s)", "import logging.config", "types.CodeType(1)",
        "Model.of(s, trust_remote_code=True)", "connection.enable_load_extension(True)", "import ctypes",
        # what runs text
        "eval(s)", "exec(s)", "compile(s, 'x', 'exec')", "builtins.eval(s)", "from builtins import eval as calculate",
        "map(eval, texts)", "run = exec", "__builtins__['eval'](s)", "os.system(s)", "Popen(s, shell=True)",
        # messages that hold any object
        "dist.all_gather_object(a, b)", "broadcast_object_list(a)", "from torch.distributed import gather_object",
        "group.scatter_object_list(a)", "f = dist.recv_object_list", "getattr(dist, 'broadcast_object_list')(a)",
        # imports by names that come from data
        "__import__(s)", "importlib.import_module(s)", "from importlib import import_module as i; i(s)",
        "list(map(importlib.import_module, names))", "import importlib as l; l.import_module(f'a.{s}')",
        "T = {}; T['a'] = s; importlib.import_module(T['a'])", "T = {'a': s}; importlib.import_module(T['a'])",
        "T = {'a': 'b'}; T.update(s); importlib.import_module(T['a'])", "from x import *", "entry.load()",
        "def f(home):\n    for home in ('a',): importlib.import_module(home)",
        "try: home = 'a'\nexcept E as home: importlib.import_module(home)", "importlib.metadata.entry_points()",
        "importlib.import_module({'a': 'b', **more}['a'])", "importlib.import_module('.a', package=s)",
        "alcore.plugins.import_name(s)", "from importlib.util import module_from_spec", "spec.loader.exec_module(m)",
        "sys.path.append(s)", "from sys import path", "pkgutil.resolve_name(s)", "import runpy", "__import__('pickle')",
    ],
)  # fmt: skip
def test_the_walk_finds(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    ["'import pickle'", "np.load(p, allow_pickle=False)", "model.eval()", "connection.execute(s)", "json.load(f)",
     "re.compile(s)", "from torch import compile; compile(f)", "from torch.nn import Linear",
     "tomllib.load(f)", "model.load_state_dict(s)", "safetensors.torch.load_file(p)", "sys.modules", "f(shell=False)",
     "dist.all_gather(a, b)", "dist.all_gather_into_tensor(a, b)", "importlib.import_module('alcore.plugins.builtins')",
     "T = {'A': 'a'}\ndef f(name): importlib.import_module(f'{__name__}.{T[name]}')",
     "T = {'a': ['A']}; U = {n: k for k, v in T.items() for n in v}; importlib.import_module(U[s])",
     "T = {'a': 'b:A'}\nfor v in T.values():\n    m, _, n = v.partition(':'); importlib.import_module(m)"],
)  # fmt: skip
def test_the_walk_leaves_alone(text: str) -> None:
    assert faults(text) == []
