"""Nothing in core or plugins can run code that a file from a stranger brings along."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "alcore").rglob("*.py"), *(ROOT / "plugins").glob("*/alcore_*/**/*.py")])
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml"}
ANY_OBJECT = {"all_gather_object", "broadcast_object_list", "scatter_object_list", "gather_object",
              "send_object_list", "recv_object_list"}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__"}


def faults(text: str) -> list[str]:
    """List what must not be there, by the syntax and not by the words of a message."""
    found = []
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module.split(".")[0]]
            if node.module.split(".")[0] == "torch":
                names += [f"torch.{alias.name}" for alias in node.names if alias.name in {"load", "save"}]
                names += [alias.name for alias in node.names if alias.name in ANY_OBJECT]
        found += [name for name in names if name in MODULES | ANY_OBJECT or name.startswith("torch.")]
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in BUILTINS | ANY_OBJECT:
                found.append(called.id)
            if isinstance(called, ast.Attribute):
                place = ast.unparse(called)
                if place in {"torch.load", "torch.save", "torch.jit.load", "torch.package.PackageImporter"}:
                    found.append(place)
                if called.attr in ANY_OBJECT or place.startswith("builtins."):
                    found.append(place)
            for keyword in node.keywords:
                literal = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not literal:
                    found.append("allow_pickle")
                if keyword.arg == "weights_only":
                    found.append("weights_only")
            if ast.unparse(called) in {"np.load", "numpy.load"} and not any(
                keyword.arg in ("allow_pickle", None) for keyword in node.keywords
            ):
                found.append("numpy.load that doesn't say allow_pickle=False")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_loads_no_code(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_core_and_every_plugin_are_looked_at() -> None:
    packages = {path.relative_to(ROOT).parts[:2] for path in SOURCES}
    assert ("alcore", "driver.py") in packages
    assert {name for _, name in packages if name.startswith("alcore-")} == {
        path.name for path in (ROOT / "plugins").iterdir() if (path / "pyproject.toml").exists()
    }


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "def f():\n    import joblib", "import cloudpickle.x",
        "import yaml",
        "import torch\ntorch.load(p)", "torch.save(a, p)", "from torch import load", "np.load(p)", "import shelve",
        "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=flag)", "x.load(p, allow_pickle=1)", "eval(s)",
        "exec(s)", "builtins.eval(s)", "dist.all_gather_object(a, b)", "broadcast_object_list(a)",
        "from torch.distributed import gather_object", "torch.jit.load(p)", "__import__(s)", "f(weights_only=False)",
    ],
)  # fmt: skip
def test_the_walk_finds(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    ["'import pickle'", "np.load(p, allow_pickle=False)", "model.eval()", "connection.execute(s)", "json.load(f)",
     "re.compile(s)", "from torch.nn import Linear", "with evaluating(m): pass", "tomllib.load(f)"],
)  # fmt: skip
def test_the_walk_leaves_alone(text: str) -> None:
    assert faults(text) == []
