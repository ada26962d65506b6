"""Write docs/api.md and docs/protocols.md anew: ``python tests/project/api_page.py``.

The tables are made of docstrings; what stands above the first of them is kept. `test_api.py` compares the names on the
pages with the code.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.source import ROOT, WORDS, core, public_names

API, PROTOCOLS = ROOT / "docs" / "api.md", ROOT / "docs" / "protocols.md"


def api_sections() -> str:
    """Return the sections of the page of public names."""
    modules = ["alcore", *(f"alcore.{word}" for word in WORDS)]
    return "".join(section(module) for module in modules)


def section(module: str) -> str:
    """Return the section of a module."""
    about = sentence(inspect.getdoc(importlib.import_module(module)) or "")
    names = sorted(public_names(module), key=lambda name: (name.lower(), name))
    rows = [f"| `{name}` | {summary(module, name)} |" for name in names]
    return "\n".join([f"\n## {module}\n", f"{about}\n", "| name | what it is |", "|---|---|", *rows, ""])


def summary(module: str, name: str) -> str:
    """Return what the docstring of a name says first."""
    return sentence(written_below(name) or inspect.getdoc(getattr(importlib.import_module(module), name)) or "")


def written_below(name: str) -> str:
    """Return the text that stands below the assignment of a constant or a type."""
    for source in core():
        for node, after in zip(source.tree.body, source.tree.body[1:], strict=False):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if name in [target.id for target in targets if isinstance(target, ast.Name)] and isinstance(
                after, ast.Expr
            ):
                return inspect.cleandoc(str(ast.literal_eval(after.value)))
    return ""


def protocols_sections() -> str:
    """Return the sections of the page of protocols."""
    (source,) = [source_file for source_file in core() if source_file.module == "alcore.protocols"]
    classes = [node for node in source.tree.body if isinstance(node, ast.ClassDef)]
    protocols = [class_ for class_ in classes if any(ast.unparse(base).startswith("Protocol") for base in class_.bases)]
    return "".join(protocol_section(node) for node in protocols)


def protocol_section(protocol: ast.ClassDef) -> str:
    """Return the section of a protocol: its docstring, and its members with theirs."""
    rows = []
    for member, after in zip(protocol.body, [*protocol.body[1:], None], strict=True):
        if isinstance(member, ast.FunctionDef) and member.name != "__class_getitem__":
            is_property = any(ast.unparse(decorator) == "property" for decorator in member.decorator_list)
            text = member.name if is_property else f"{member.name}({arguments_of(member)})"
            rows.append((text, ast.get_docstring(member) or ""))
        elif isinstance(member, ast.AnnAssign):
            below = str(ast.literal_eval(after.value)) if isinstance(after, ast.Expr) else ""
            rows.append((ast.unparse(member.target), below))
    table = [f"| `{name}` | {markdown(text)} |" for name, text in rows]
    about = "\n\n".join(markdown(part) for part in (ast.get_docstring(protocol) or "").split("\n\n"))
    return "\n".join([f"\n## {protocol.name}\n", f"{about}\n", "| member | what it is |", "|---|---|", *table, ""])


def arguments_of(function: ast.FunctionDef) -> str:
    """Return the arguments of a method as a reader calls it: without `self`, types and the marks of their kinds."""
    function.args.posonlyargs = [argument for argument in function.args.posonlyargs if argument.arg != "self"]
    function.args.args = [argument for argument in function.args.args if argument.arg != "self"]
    for node in ast.walk(function.args):
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(function.args).replace(", /", "").removesuffix("/")


def markdown(text: str) -> str:
    """Return a docstring as Markdown on one line."""
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|")


def sentence(text: str) -> str:
    """Return the first sentence of a docstring as Markdown."""
    return markdown(re.split(r"\.\s|\n\n", text.strip() + " ", maxsplit=1)[0]).rstrip(".:")


if __name__ == "__main__":
    for path, sections in ((API, api_sections()), (PROTOCOLS, protocols_sections())):
        head = path.read_text(encoding="utf-8").partition("\n## ")[0]
        path.write_text(head + sections, encoding="utf-8")
