"""How much of core a plain run needs: ``python tests/project/statements.py``.

It runs two steps of the two-moons problem in Python, resumes the run for a third one, and prints a JSON line for each
package of core: its ``statements`` in function bodies, how many of them ran (``ran``), and their ``share``. What is
outside of functions runs at the import, and is left out; so are docstrings.
"""

from __future__ import annotations

import ast
import json
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ways import driver_of

import alcore

CORE = Path(alcore.__file__).parent


def statements_of(file: Path) -> set[int]:
    """Return the first lines of the statements in function bodies of a file."""
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {statement.lineno for function in functions for statement in _statements(function)}


def _statements(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.stmt]:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    for outer in body:
        yield from (node for node in ast.walk(outer) if isinstance(node, ast.stmt))


def lines_of_a_run() -> dict[str, set[int]]:
    """Return the lines of core that a run of two steps and its resumption by a third one execute, by file."""
    lines: dict[str, set[int]] = defaultdict(set)

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(str(CORE)):
            return None
        if event == "line":
            lines[frame.f_code.co_filename].add(frame.f_lineno)
        return trace

    with tempfile.TemporaryDirectory() as root:
        threading.settrace(trace)
        sys.settrace(trace)
        try:
            driver_of(root, 3).run()
            driver = driver_of(root, 3, steps=3)
            driver.restore()
            driver.run()
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
    return lines


def main() -> None:
    """Print the figures."""
    executed = lines_of_a_run()
    packages: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file in sorted(CORE.rglob("*.py")):
        statements = statements_of(file)
        ran = len(statements & executed.get(str(file), set()))
        inside = file.relative_to(CORE).parts
        for package in (inside[0] if len(inside) > 1 else "(modules)", "alcore"):
            packages[package][0] += len(statements)
            packages[package][1] += ran
    for package, (total, ran) in sorted(packages.items(), key=lambda item: -item[1][0]):
        print(json.dumps({"package": package, "statements": total, "ran": ran, "share": round(ran / max(total, 1), 2)}))


if __name__ == "__main__":
    main()
