"""Distributions with every fault that a newcomer may meet: each is a row of ``alcore plugins``, and the rest works."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alcore_testing import run_command
from alcore_testing import run_command as run_in_this_process

from alcore.plugins.discovery import differences, find_entry_points, plugins_compared

METADATA = "Metadata-Version: 2.1\nName: far-away\nVersion: 1.5\n"
FINE = """
import alcore

@alcore.hookimpl
def alcore_query_strategies():
    return {"rare": dict}
"""


def commands(body: str) -> str:
    """Return a plugin that offers a strategy, and whose hook for commands has this body."""
    return FINE + "\n@alcore.hookimpl\ndef alcore_commands(app):\n" + textwrap.indent(textwrap.dedent(body), "    ")


def offering(names: str) -> str:
    """Return a plugin that offers these strategies."""
    return FINE.replace('{"rare": dict}', names)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution of one module ``far_away``."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "far_away", raising=False)

    def install(
        source: str = FINE,
        *,
        metadata: str | bytes | None = METADATA,
        entry_points: str | bytes = "[alcore]\nfar = far_away\n",
        name: str = "far_away-1.5.dist-info",
    ) -> None:
        (folder / "far_away.py").write_text(source)
        info = folder / name
        info.mkdir()
        for file, content in (("METADATA", metadata), ("entry_points.txt", entry_points)):
            if content is not None:
                (info / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        importlib.invalidate_caches()

    yield install
    sys.modules.pop("far_away", None)


# name: what is installed, and what its row says
FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no metadata": ({"metadata": None}, "broken", "its metadata in far_away-1.5.dist-info has no name and no version"),
    "empty metadata": ({"metadata": ""}, "broken", "has no name and no version"),
    "no name": ({"metadata": "Metadata-Version: 2.1\nVersion: 1.5\n"}, "broken", "has no name"),
    "no version": ({"metadata": "Metadata-Version: 2.1\nName: far-away\n"}, "broken", "has no version"),
    "metadata not text": ({"metadata": b"Name: far-\xff\nVersion: 1"}, "broken", "metadata can't be read"),
    "entry points not text": ({"entry_points": b"[alcore]\nfar = \xff\n"}, "broken", "entry_points.txt can't be read"),
    "entry point without =": (
        {"entry_points": "[alcore]\nfar_away\n"}, "broken", "not every line of its entry_points.txt is of the form",
    ),
    "odd line in another group": (
        {"entry_points": "[alcore]\nfar = far_away\n[other]\nodd\n"}, "broken", "not every line of its entry_points",
    ),
    "entry point without module": ({"entry_points": "[alcore]\nfar =\n"}, "broken", "not of the form name = module"),
    "entry point of odd form": ({"entry_points": "[alcore]\nfar = !!\n"}, "broken", "AttributeError"),
    "requirement of odd form": ({"metadata": METADATA + "Requires-Dist: ???\n"}, "ok", ""),
    "missing module": ({"entry_points": "[alcore]\nfar = not_there_at_all\n"}, "broken", "ModuleNotFoundError"),
    "import error": ({"source": "import no_library_of_this_name"}, "broken", "no_library_of_this_name"),
    "syntax error": ({"source": "def :"}, "broken", "SyntaxError"),
    "exit": ({"source": "raise SystemExit(3)"}, "broken", "SystemExit: 3"),
    "base exception": ({"source": "raise GeneratorExit('odd')"}, "broken", "GeneratorExit: odd"),
    "exception without text": (
        {"source": "class E(Exception):\n    def __str__(self): raise ValueError\nraise E"}, "broken", "E",
    ),
    "many lines": ({"source": "raise ValueError('one\\ntwo\\x1b[31m')"}, "broken", "ValueError: one two [31m"),
    "print": ({"source": "print('hello', 3)\n" + FINE}, "faulty", "it printed 'hello 3'"),
    "print in a hook": ({"source": FINE.replace("    return", "    print('hi')\n    return")}, "faulty", "'hi'"),
    "name None": ({"source": offering("{None: dict}")}, "broken", "name that can't be used, None"),
    "name of a number": ({"source": offering("{3: dict, 'b': dict}")}, "broken", "name that can't be used, 3"),
    "empty name": ({"source": offering("{'': dict}")}, "broken", "name that can't be used, ''"),
    "name with a dot": ({"source": offering("{'a.b': dict}")}, "broken", "name that can't be used, 'a.b'"),
    "name with a space": ({"source": offering("{'a b': dict}")}, "broken", "name that can't be used, 'a b'"),
    "name of two lines": ({"source": offering("{'a\\n': dict}")}, "broken", "name that can't be used"),
    "name like an option": ({"source": offering("{'-q': dict}")}, "broken", "name that can't be used, '-q'"),
    "long name": ({"source": offering("{'a' * 99: dict}")}, "broken", "name that can't be used"),
    "name with a colon": ({"source": offering("{'os:system': dict}")}, "broken", "name that can't be used"),
    "odd factory": ({"source": offering("{'a': 3}")}, "broken", "'a' as 3"),
    "command of core": ({"source": commands("@app.command()\ndef run(): pass")}, "faulty", "its command 'run' is left"),
    "two commands": (
        {"source": commands("@app.command('x')\ndef a(): pass\n@app.command('x')\ndef b(): pass")}, "faulty", "'x'",
    ),
    "group over core": (
        {"source": commands("import typer\napp.add_typer(typer.Typer(), name='show')")}, "faulty", "its command 'show'",
    ),
    "callback": ({"source": commands("@app.callback()\ndef c(): pass")}, "faulty", "callback of the whole command"),
    "commands are gone": ({"source": commands("app.registered_commands.clear()")}, "ok", ""),
    "odd command": (
        {"source": commands("@app.command('x')\ndef a(x: int | str): pass")}, "faulty", "commands are left",
    ),
    "commands raise": ({"source": commands("raise RuntimeError('no')")}, "faulty", "left out: RuntimeError: no"),
    "commands exit": ({"source": commands("raise SystemExit(0)")}, "faulty", "left out: SystemExit: 0"),
    "commands print": ({"source": commands("print('hi')")}, "ok", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_fault_is_a_row_and_every_other_command_works(site: Callable[..., None], tmp_path: Path, case: str) -> None:
    installation, state, reason = FAULTS[case]
    site(**installation)

    def run_command(*arguments: Any) -> Any:  # as a process of its own would
        sys.modules.pop("far_away", None)
        return run_in_this_process(*arguments)

    listed = run_command(tmp_path, "plugins", "--json")
    rows = json.loads(listed.out)["plugins"]
    assert {row["state"] for row in rows if row["distribution"].startswith("alcore")} == {"ok"}
    (row,) = [row for row in rows if not row["distribution"].startswith("alcore")]
    assert row["state"] == state
    assert reason in (row["error"] or "")
    assert all(character.isprintable() for character in row["error"] or "")
    assert ("rare" in row["offers"].get("query", [])) == (state != "broken"), "what works of it is offered"
    table = run_command(tmp_path, "plugins").out
    assert row["distribution"] in table
    assert (row["error"] or "") in table
    assert run_command(tmp_path, "plugins", "check").code == (0 if state == "ok" else 1)
    assert json.loads(run_command(tmp_path, "describe", "query", "random", "--json").out)["name"] == "random"
    assert json.loads(run_command(tmp_path, "runs", "--json").out) == []
    assert "Show a run" in run_command(tmp_path, "show", "--help").out


@pytest.mark.parametrize("case", ["no metadata", "print", "command of core", "import error", "odd command"])
def test_run_beside_a_faulty_plugin_prints_json_alone(site: Callable[..., None], tmp_path: Path, case: str) -> None:
    site(**FAULTS[case][0])
    done = run_command(tmp_path, "run", "--query", "random", "--steps", "1", "--json")
    assert (done.code, json.loads(done.out)["steps"]) == (0, 1)


def test_distribution_of_another_group_may_be_as_odd_as_it_likes(site: Callable[..., None]) -> None:
    before = find_entry_points()
    site(metadata=b"\xff", entry_points="[console_scripts]\nodd\n\n[other]\n= =\n")
    assert find_entry_points() == before


@pytest.mark.parametrize("metadata", [None, "Metadata-Version: 2.1\nVersion: 1.5\n", b"Name: far-\xff\n"])
def test_distribution_without_a_name_has_that_of_its_folder(site: Callable[..., None], metadata: Any) -> None:
    site(metadata=metadata)
    (found,) = [entry_point for entry_point in find_entry_points() if entry_point.value == "far_away"]
    assert found.distribution == "far_away-1.5.dist-info"
    assert found.version == ("1.5" if isinstance(metadata, str) else "?")


def test_first_distribution_of_a_name_counts(site: Callable[..., None]) -> None:
    site()
    site(metadata=METADATA.replace("far-away", "Far_Away"), name="far_away-1.4.dist-info")
    assert len([entry_point for entry_point in find_entry_points() if entry_point.value == "far_away"]) == 1


def test_what_a_part_prints_goes_to_stderr(site: Callable[..., None], tmp_path: Path) -> None:
    site(
        "import alcore\nfrom alcore_random import RandomQuery\n\n"
        "class Loud(RandomQuery):\n"
        "    def __init__(self, max_samples: int = 2) -> None:\n"
        "        super().__init__(max_samples)\n        print('made')\n"
        "    def sample(self, *args, **kwargs):\n        print('asked')\n        super().sample(*args, **kwargs)\n\n"
        "@alcore.hookimpl\ndef alcore_query_strategies():\n    return {'loud': Loud}\n"
    )
    done = run_command(tmp_path, "run", "--query", "loud", "--steps", "1", "--json")
    assert json.loads(done.out)["labels"] == 2
    assert "made" in done.err
    assert "asked" in done.err


# -- versions --------------------------------------------------------------------------------------------------------


def test_differences_say_which_plugins_have_another_version(site: Callable[..., None]) -> None:
    site()
    then = {"plugins": ["far-away 1.4", "gone-away 2.0", "alcore-uq 0.1.0"]}
    changes = ["far-away was 1.4 then and is 1.5 now", "gone-away was 2.0 then and is not installed now"]
    assert differences(then) == changes
    assert differences({}) == []

    def fail() -> None:
        with plugins_compared(then), plugins_compared(then):
            raise ValueError("x")

    with pytest.raises(ValueError, match="x") as error:
        fail()
    assert error.value.__notes__ == [f"with other plugins than the run began with: {'; '.join(changes)}"]


STRATEGY = """
import alcore
from alcore_random import RandomQuery

class Mine(RandomQuery):
    {renamed}
    def __init__(self, {parameter}: int = 2) -> None:
        super().__init__({parameter})

@alcore.hookimpl
def alcore_query_strategies():
    return {{"mine": Mine}}
"""


def test_renamed_parameter_does_not_lock_a_run(site: Callable[..., None], tmp_path: Path) -> None:
    site(STRATEGY.format(renamed="", parameter="count"))
    command = ("run", "--query", "mine", "--steps", "1", "--run-id", "r", "-q", "--set", "query.mine.count=3")
    assert run_command(tmp_path, *command).code == 0

    def update(renamed: str) -> None:
        sys.modules.pop("far_away", None)
        folder = tmp_path / "site"
        (folder / "far_away.py").write_text(STRATEGY.format(renamed=renamed, parameter="size"))
        (folder / "far_away-1.5.dist-info" / "METADATA").write_text(METADATA.replace("1.5", "2.0"))
        importlib.invalidate_caches()

    def requested(run: str) -> list[int]:
        steps = json.loads(run_command(tmp_path, "show", run, "--json").out)["steps"]
        return [step["requested"] for step in steps]

    update("")
    refused = run_command(tmp_path, "resume", "r", "--steps", "2")
    assert refused.code == 2
    assert "query.mine has no parameter 'count'" in refused.err
    assert "far-away was 1.5 then and is 2.0 now" in refused.err
    forked = run_command(tmp_path, "fork", "r", "--step", "0", "--run-id", "f", "--set", "query.mine.size=5")
    assert "far-away was 1.5 then and is 2.0 now" in forked.err, "the old name is still there"
    change = ("--unset", "query.mine.count", "--set", "query.mine.size=5")
    assert run_command(tmp_path, "fork", "r", "--step", "0", "--run-id", "f", *change).code == 0
    assert run_command(tmp_path, "resume", "f", "--steps", "2", "-q").code == 0
    assert run_command(tmp_path, "resume", "r", "--steps", "2", "-q", *change).code == 0
    assert requested("r") == requested("f") == [3, 5]
    assert run_command(tmp_path, "resume", "r", "--steps", "3", "-q").code == 0, "the change was written down"

    update("renamed_parameters = {'count': 'size', 'gone': None}")
    again = tmp_path / "again.toml"
    again.write_text("[query.mine]\ncount = 4\ngone = 1\n")
    done = run_command(tmp_path, "run", str(again), "--steps", "1", "--run-id", "a", "-q")
    assert done.code == 0, done.err
    assert "query.mine.count is called query.mine.size now" in done.err
    assert "query.mine has no parameter 'gone' any more" in done.err
    assert requested("a") == [4]
    both = run_command(tmp_path, "run", str(again), "--steps", "1", "--set", "query.mine.size=2")
    assert (both.code, "both are given" in both.err) == (2, True)


def test_parameter_that_is_not_given_can_not_be_unset(tmp_path: Path) -> None:
    run_command(tmp_path, "run", "--query", "random", "--steps", "1", "--run-id", "r", "-q")
    refused = run_command(tmp_path, "resume", "r", "--unset", "query.random.max_sample")
    assert refused.code == 2
    assert "did you mean 'query.random.max_samples'?" in refused.err
