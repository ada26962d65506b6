"""What import-linter can't see of the architecture: imports of the root, who may name what, what is public.

The direction of the packages and the absence of circles, in plugins too, are contracts of import-linter, in
pyproject.toml.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from helpers.source import (
    PAGES,
    PLUGINS,
    ROOT,
    WORDS,
    Source,
    code_blocks,
    core,
    imports_of,
    plugin_tests,
    plugins,
    public_names,
    sources,
)

import alcore
from alcore import protocols
from alcore.hookspecs import Registration
from alcore.inference import InferenceContext

OWN = {path.name for path in PLUGINS}


def none(faults: Iterable[str]) -> None:
    """Fail with everything that was found."""
    faults_found = list(faults)
    assert not faults_found, "\n".join(["", *faults_found])


# -- who imports what -----------------------------------------------------------------------------------


def importers(files: list[Source], *forbidden: str) -> list[str]:
    """List the places where a module, or something below it, is imported."""
    return [
        f"{source.at(statement.line)} imports {statement.module} {statement.name}"
        for source in files
        for statement in source.imports
        if any(f"{statement.module}.{statement.name}.".startswith(f"{name}.") for name in forbidden)
    ]


def test_core_does_not_import_its_root() -> None:
    """A circle through the root escapes import-linter, which looks at siblings; write the module's full name."""
    others = [source for source in core() if source.module != "alcore"]
    none(
        source.at(statement.line)
        for source in others
        for statement in source.imports
        if statement.module == "alcore" or statement.module.startswith(".")
    )


def test_no_module_imports_the_package_that_it_is_in() -> None:
    """That is a circle through a package's ``__init__``, which is the parent of its modules and not a sibling."""
    none(
        source.at(statement.line)
        for source in core()
        for statement in source.imports
        if source.path.name != "__init__.py"
        and statement.module == source.module.rpartition(".")[0] != "alcore"
        and not (source.path.parent / f"{statement.name}.py").exists()
    )


def test_only_root_experiment_commands_and_cli_import_the_driver() -> None:
    others = [source for source in core() if source.package not in ("", "driver", "experiment", "commands", "cli")]
    none(importers(others, "alcore.driver"))
    none(
        source.module
        for source in others
        if any(re.fullmatch(r"alcore\.driver[\w.:]*", text) for text in texts(source))
    )


def test_user_interface_libraries_stay_in_their_packages() -> None:
    others = [
        source for source in core() if source.package not in ("cli", "commands", "experiment", "plugins", "hookspecs")
    ]
    none(importers(others, "typer", "click", "rich", "pydantic", "pydantic_core"))


def test_core_imports_no_plugin() -> None:
    assert len(OWN) > 10
    none(importers(core(), *OWN))


@pytest.mark.parametrize("package", PLUGINS, ids=lambda path: path.name)
def test_plugin_imports_and_needs_no_other_plugin(package: Path) -> None:
    others = OWN - {package.name}
    none(importers(sources(package), *others))
    needed = tomllib.loads((package.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [requirement for requirement in needed if requirement.replace("-", "_").startswith(tuple(others))]
    assert any(requirement.startswith("alcore>=") for requirement in needed)


def test_contract_against_circles_covers_each_plugin() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (acyclic,) = (contract for contract in settings["contracts"] if contract["type"] == "acyclic_siblings")
    assert set(settings["root_packages"]) == set(acyclic["ancestors"]) == {"alcore", *OWN}


def texts(source: Source) -> list[str]:
    """List the constants of a file that are text."""
    return [node.value for node in source.nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


# -- one Driver, and what its parts and plugins see of it -----------------------------------------------


def test_driver_is_one_class_in_one_file() -> None:
    assert alcore.Driver.__bases__ == (object,)
    functions = [function for function in vars(alcore.Driver).values() if inspect.isfunction(function)]
    assert {function.__module__ for function in functions} == {"alcore.driver.driver"}


def test_no_part_of_the_driver_is_given_the_driver() -> None:
    """Each is given what it uses. What is called `driver` or `context` elsewhere is the RunContext of plugins."""
    parts = [
        source
        for source in core()
        if source.package == "driver" and source.path.name not in ("driver.py", "__init__.py")
    ]
    assert parts
    arguments = [
        (source.at(node.lineno), node.arg) for source in parts for node in source.nodes if isinstance(node, ast.arg)
    ]
    none(place for place, name in arguments if name in ("driver", "_driver", "context"))
    none(source.module for source in parts if "Driver" in names_in(source))


def test_run_context_is_named_only_where_plugins_are_called() -> None:
    allowed = ("protocols", "hookspecs", "strategies", "inference")
    parts = ("alcore.plugins.listeners", "alcore.training.fitting")  # the second is a training loop
    others = [source for source in core() if source.package not in allowed and source.module not in parts]
    none(other.module for other in others if {"RunContext", "InferenceContext"} & names_in(other))


def test_no_bound_is_pythons_recursion_limit() -> None:
    """What is nested too deeply is told by a number of our own: that limit is another in each process."""
    none(
        f"{source.path}: {name.lineno}"
        for source in [*core(), *plugins()]
        for name in ast.walk(source.tree)
        if isinstance(name, ast.Name)
        and name.id == "RecursionError"
        and source.path.name != "constraints.py"  # what Python's parser itself refuses is deeper than the bound there
    )


def names_in(source: Source) -> set[str]:
    """Return the names that are used, imported, or written as text in an annotation or a cast."""
    used = {node.id for node in source.nodes if isinstance(node, ast.Name)} | {
        statement.name for statement in source.imports
    }
    types = [text for text in texts(source) if re.fullmatch(r"[\w.]+(\[.*\])?( \| .*)?", text)]
    return used | {word for text in types for word in re.findall(r"\w+", text)}


def members_of(protocol: type) -> set[str]:
    return {name for name in (*vars(protocol), *protocol.__annotations__) if not name.startswith("_")}


CONTEXT = members_of(protocols.RunContext)


def test_no_other_protocol_mirrors_the_run_context() -> None:
    for source in core():
        for node in source.nodes:
            if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
                own = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
                own |= {ast.unparse(member.target) for member in node.body if isinstance(member, ast.AnnAssign)}
                assert node.name == "RunContext" or len(own & CONTEXT) <= 3, f"{node.name}, {source.at(node.lineno)}"


def test_inference_context_adds_at_most_five_members() -> None:
    assert protocols.RunContext in InferenceContext.__mro__
    assert 0 < len(members_of(InferenceContext) - CONTEXT) <= 5


USED_BY = {
    "active_learning_step_idx": "alcore.strategies",
    "candidates": "alcore_random",
    "choice_pool": "alcore_diversity",
    "costs": "alcore.strategies",
    "device": "docs/specification.md",
    "dtype": "docs/specification.md",
    "generator": "alcore.strategies",
    "infer": "alcore.strategies",
    "info": "alcore_f1",
    "learner": "docs/specification.md",
    "log_dir": "alcore.strategies",
    "logger": "alcore.strategies",
    "measures": "alcore_stopping",
    "metrology_strategies": "alcore_stopping",
    "ordered_batches": "alcore_sklearn",
    "pending": "alcore.strategies",
    "probe": "alcore_f1",
    "run_id": "docs/specification.md",
    "safe_point": "alcore_bayes",
    "spent": "alcore_stopping",
    "strategy_name": "alcore.strategies",
    "train_datapool": "docs/specification.md",
    "training_pool": "docs/from-physicsnemo.md",
    "trains": "alcore_diversity",
    "unlabeled_datapool": "docs/specification.md",
    "unlabeled_pool": "docs/from-physicsnemo.md",
    "val_datapool": "docs/specification.md",
    "validation_pool": "docs/from-physicsnemo.md",
    "wanted": "alcore.strategies",
}
"""Who uses each member of `RunContext`: a plugin, the base classes (`alcore.strategies`), or one of two pages."""


def test_each_member_of_run_context_has_a_user() -> None:
    assert set(USED_BY) == CONTEXT
    none(f"{member} by {user}" for member, user in USED_BY.items() if user not in users_of(member))


def users_of(member: str) -> list[str]:
    """List who reads a member of what is called driver or context, and the pages that name it."""
    homes = {"alcore.strategies": [source for source in core() if source.package == "strategies"]}
    homes |= {path.name: sources(path) for path in PLUGINS}
    users = []
    for home, files in homes.items():
        reads = (node for source in files for node in source.nodes if isinstance(node, ast.Attribute))
        if any(node.attr == member and re.search(r"(driver|context)$", ast.unparse(node.value)) for node in reads):
            users.append(home)
    for page in ("docs/specification.md", "docs/from-physicsnemo.md"):
        text = (ROOT / page).read_text(encoding="utf-8") if (ROOT / page).exists() else ""
        users += [page] if re.search(rf"`[^`\n]*\b{member}\b[^`\n]*`", text) else []
    return users


# -- optional members -----------------------------------------------------------------------------------

OF_OTHER_OBJECTS = {
    "__annotations__", "__del__", "__func__", "__globals__", "__module__", "__name__", "__notes__",  # Python's
    "__qualname__",
    "_fields", "_is_protocol", "_path", "alcore_impl", "base", "dtype", "shape", "sqlite_errorcode",  # others
    "target_transform", "targets", "to", "tolist",
}  # fmt: skip
"""What core looks for by name in objects that aren't parts of a run."""


def test_optional_members_are_written_in_the_protocols() -> None:
    """What core looks for by name, and does without where it is missing, stands in `alcore.protocols`."""
    classes = [
        member
        for member in vars(protocols).values()
        if inspect.isclass(member) and member.__module__ == "alcore.protocols"
    ]
    written = {name for class_ in classes for name in (*vars(class_), *vars(class_).get("__annotations__", {}))}
    none(
        f"{source.at(line)} {name}"
        for source in core()
        for line, name in looked_for(source.tree)
        if name not in written | OF_OTHER_OBJECTS
    )


def test_what_pools_offer_is_looked_for_in_one_place() -> None:
    """Everybody else calls the functions of `alcore.pools`, which say what holds where a member is missing."""
    classes = {name: one for name, one in vars(protocols).items() if getattr(one, "_is_protocol", False)}
    options = set().union(*(members_of(one) for name, one in classes.items() if name.startswith("Pool")))
    others = set().union(*(members_of(one) for name, one in classes.items() if not name.startswith("Pool")))
    none(
        f"{source.at(line)} {name}"
        for source in [*core(), *plugins()]
        if source.package not in ("pools", "alcore_testing")
        for line, name in looked_for(source.tree)
        if name in options - others
    )


def test_what_label_strategies_offer_is_looked_for_in_one_place() -> None:
    """Everybody else calls the functions of `alcore.strategies`, which say what holds where a member is missing."""
    classes = {name: one for name, one in vars(protocols).items() if getattr(one, "_is_protocol", False)}
    options = set().union(
        *(members_of(one) for name, one in classes.items() if re.search("Label(Strategy)?Options$", name))
    )
    assert {"cost", "labels_by_id", "idempotent", "poll"} <= options
    homes = ("alcore.strategies.label_options", "alcore.pools.offers")  # pools have `cost` and `costs_of`, too
    none(
        f"{source.at(line)} {name}"
        for source in [*core(), *plugins()]
        if source.module not in homes and source.package != "alcore_testing"
        for line, name in looked_for(source.tree)
        if name in options
    )


def looked_for(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]):
                yield node.lineno, name


# -- public and private ---------------------------------------------------------------------------------

PUBLIC_ALL_THE_SAME = {
    "_fields", "_asdict", "_replace",  # of a NamedTuple
    "_training_phase", "_metrology_phase", "_query_phase", "_labeling_phase",  # the specification's
}  # fmt: skip
OF_LIBRARIES = {
    "cli": r"_exit",
    "commands": r"_exit",
    "distributed": r"_get_default_store|_exit",
    "inference": r"_version",  # how often a tensor was written to
    "alcore_testing": r"_version|_cdata|_(forward|backward)(_pre)?_hooks",
    "alcore_torchloop": r"_foreach_\w+",
}
"""Private names of Python and torch that a package can't do without."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC_ALL_THE_SAME


@functools.cache
def defined_in(package: str) -> set[str]:
    """Return the names with a leading underscore that a package defines."""
    names = set()
    for source in [*core(), *plugins()]:
        for node in source.nodes if source.package == package else ():
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
    return names


def test_private_names_stay_in_their_package() -> None:
    faults = []
    for source in [*core(), *plugins()]:
        home = [source.package] if source.package in OWN else ["alcore", source.package]
        imports = (statement for statement in source.imports if statement.module.split(".")[: len(home)] != home)
        faults += [
            f"{source.at(statement.line)} {statement.name}" for statement in imports if is_private(statement.name)
        ]
        reads = [node for node in source.nodes if isinstance(node, ast.Attribute) and is_private(node.attr)]
        foreign = [node for node in reads if node.attr not in defined_in(source.package)]
        of_library = re.compile(OF_LIBRARIES.get(source.package, "(?!)"))
        faults += [f"{source.at(node.lineno)} {node.attr}" for node in foreign if not of_library.fullmatch(node.attr)]
    none(faults)


def not_public(tree: ast.AST) -> list[tuple[int, str]]:
    """List what is imported of core, or read as ``alcore.<name>``, and is not public."""
    uses = []
    root = {*public_names("alcore"), *WORDS, "__version__"}
    for statement in imports_of(tree):
        words = statement.module.split(".")
        if words[0] != "alcore":
            continue
        if len(words) > 2 or (len(words) == 2 and words[1] not in WORDS):
            uses.append((statement.line, statement.module))
        elif statement.name and statement.name not in (root if len(words) == 1 else public_names(statement.module)):
            uses.append((statement.line, f"{statement.module}.{statement.name}"))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="alcore"), attr=name) if name not in root:
                uses.append((node.lineno, f"alcore.{name}"))
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="alcore"), attr=word), attr=name):
                if word in WORDS and name not in public_names(f"alcore.{word}"):
                    uses.append((node.lineno, f"alcore.{word}.{name}"))
    return uses


def test_plugins_and_examples_use_what_is_public() -> None:
    users = [*plugins(), *plugin_tests(), *sources(ROOT / "examples")]
    none(f"{source.at(line)} {name}" for source in users for line, name in not_public(source.tree))


def test_benchmarks_use_what_is_public() -> None:
    users = [
        source for source in sources(ROOT / "benchmarks") if source.path.name != "clock.py"
    ]  # it times the store itself
    none(f"{source.at(line)} {name}" for source in users for line, name in not_public(source.tree))


def test_pages_use_what_is_public() -> None:
    none(
        f"{page.relative_to(ROOT)} {name}"
        for page in PAGES
        for block in code_blocks(page)
        for _, name in not_public(block)
    )


# -- what importing costs -------------------------------------------------------------------------------

HOOKS = [hook for hook in vars(Registration) if hook.startswith("alcore_") and hook != "alcore_commands"]
TORCH_FREE = ("errors", "hookspecs", "protocols", "plugins", "store", "commands")
STATEMENTS = [
    "import alcore",
    "import alcore; alcore.hookimpl, alcore.runhook, alcore.UsageError, alcore.Label; dir(alcore)",
    *(f"import alcore.{word}; dir(alcore.{word})" for word in TORCH_FREE),
    "import alcore.cli.main",
    *(
        f"import {name} as p; dir(p); [getattr(p, hook)() for hook in vars(p) if hook in {HOOKS}]"
        for name in sorted(OWN - {"alcore_testing"})
    ),
]
PROGRAM = """
import os, sys
for statement in {statements!r}:
    if not os.fork():
        exec(statement)
        for name in {names!r}:
            if name in sys.modules:
                print(f"`{{statement}}` loads {{name}}")
        sys.stdout.flush()
        os._exit(0)
    if os.wait()[1]:
        print(f"`{{statement}}` fails")
"""


def loads(statements: list[str], *names: str) -> list[str]:
    """Say which statements load which modules; each runs in a fork of one fresh process."""
    program = PROGRAM.format(statements=statements, names=names)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT / "tests")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_listing_plugins_and_asking_for_help_loads_no_torch() -> None:
    assert loads(STATEMENTS, "torch", "numpy", "sklearn", "pandas", "matplotlib") == []


def test_entry_of_the_command_is_reached_before_anything_heavy_is_loaded() -> None:
    """A signal that comes before is Python's business."""
    assert (
        loads(["import alcore.cli.main"], "typer", "rich", "pluggy", "sqlite3", "importlib.metadata", "logging") == []
    )


def test_importing_the_driver_loads_no_plugin() -> None:
    assert loads(["import alcore; alcore.Driver"], "torch", *OWN) == ["`import alcore; alcore.Driver` loads torch"]


# -- the checks themselves ------------------------------------------------------------------------------


def test_statements_that_load_too_much_or_fail_are_found() -> None:
    reports = loads(["import json", "import decimal", "import nowhere"], "decimal", "colorsys")
    assert reports == ["`import decimal` loads decimal", "`import nowhere` fails"]


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse(
        "import a.b\nfrom c import d as e\nif TYPE_CHECKING:\n    from f.g import h\n"
        "def i():\n    from j import k\ntry:\n    import m\nexcept ImportError:\n    from . import n\n"
    )
    imports = {(statement.module, statement.name) for statement in imports_of(tree)}
    assert imports == {("a.b", ""), ("c", "d"), ("f.g", "h"), ("j", "k"), ("m", ""), (".", "n")}


@pytest.mark.parametrize(
    "text",
    ["import alcore.driver", "from alcore.driver import Driver", "from alcore import codec", "from alcore import Drivr",
     "from alcore.store.reading import Run", "import alcore\nalcore.codec", "import alcore\nalcore.pools.Rowz",
     "from alcore.errors import UsageEror"],
)  # fmt: skip
def test_uses_of_what_is_not_public_are_found(text: str) -> None:
    assert not_public(ast.parse(text))


@pytest.mark.parametrize(
    "text",
    ["import alcore", "from alcore import Driver, config as c", "from alcore.errors import UsageError", "import torch",
     "import alcore\nalcore.hookimpl", "import alcore\nalcore.errors.UsageError", "from alcore import plugins"],
)  # fmt: skip
def test_uses_of_what_is_public_are_left_alone(text: str) -> None:
    assert not_public(ast.parse(text)) == []
