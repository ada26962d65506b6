"""Plugins that others install: loading, clashes, broken imports, wrong versions, unknown names, blocked ones."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.system

STRATEGY = """
from alcore import BaseQuery


class {name}(BaseQuery):
    \"\"\"Ask for the first samples.

    Parameters
    ----------
    count
        How many.
    \"\"\"

    def __init__(self, count: int = 2) -> None:
        self.count = count

    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(next(self.driver.candidates())[: self.count].tolist())
"""


def offering(module, name, strategy="First"):
    """Return the two modules of a plugin that offers one query strategy."""
    hook = (
        "import alcore\n\n@alcore.hookimpl\ndef alcore_query_strategies():\n"
        f"    return {{{name!r}: '{module}_code:{strategy}'}}\n"
    )
    return {module: hook, f"{module}_code": STRATEGY.format(name=strategy)}


def state_of(here, env, name):
    (found,) = [
        plugin for plugin in here("plugins", "--json", env=env).data["plugins"] if plugin["distribution"] == name
    ]
    return found


def strategies(rows, folder):
    return {row[0] for row in rows(folder, "SELECT strategy FROM requests")}


def test_foreign_plugin_is_listed_described_and_run(here, distribution, rows, tmp_path):
    env = distribution("far-away", offering("far_away", "first"), version="3.1")
    state_of_plugin = state_of(here, env, "far-away")
    assert (state_of_plugin["version"], state_of_plugin["state"], state_of_plugin["offers"]) == (
        "3.1",
        "ok",
        {"query": ["first"]},
    )
    assert re.search(r"^far-away +3\.1 +ok +query: first$", here("plugins", env=env).out, re.MULTILINE)
    described = here("describe", "query", "first", env=env).out
    assert "from far-away 3.1" in described
    assert re.search(r"count \(int; default 2\)\n +How many\.", described)
    here("run", "--query", "first", "--set", "query.first.count=3", "--steps", "1", "-q", "--run-id", "r", env=env)
    assert strategies(rows, tmp_path / "active_learning_logs" / "r") == {"first"}
    assert len(rows(tmp_path / "active_learning_logs" / "r", "SELECT * FROM requests")) == 3
    message = here("describe", "query", "first", code=2).message
    assert "no plugin offers the query 'first'" in message, "the plugin is installed in no other environment"


BREAKAGES = {  # tests/plugins/test_registry.py has more of them
    "import error": ("import a_library_that_is_not_there", "a_library_that_is_not_there"),
    "exit": ("raise SystemExit('not today')", "not today"),
    "no hook": ("def alcore_query_strategies():\n    return {'rare': dict}", "hookimpl"),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_broken_plugin_is_listed_with_its_reason(here, distribution, case):
    source, reason = BREAKAGES[case]
    env = distribution("broken-one", source, version="0.4")
    state_of_plugin = state_of(here, env, "broken-one")
    assert (state_of_plugin["state"], state_of_plugin["version"], state_of_plugin["offers"]) == ("broken", "0.4", {})
    assert reason in state_of_plugin["error"]
    assert state_of(here, env, "alcore-uq")["state"] == "ok"
    assert "broken-one 0.4 is broken: " in here("plugins", env=env).out
    here("plugins", "check", env=env, code=1)


def test_run_without_the_broken_plugin_gets_a_warning(here, distribution):
    env = distribution("broken-one", BREAKAGES["import error"][0], version="0.4")
    result = here("run", "--steps", "1", env=env)
    (warning,) = [line for line in result.err.splitlines() if "broken-one" in line]
    assert warning.startswith("alcore: warning: plugin broken-one 0.4 could not be loaded: ModuleNotFoundError: ")
    assert "a_library_that_is_not_there" in warning
    assert "broken-one" not in result.out


def test_entry_point_that_names_nothing_is_broken(here, distribution):
    env = distribution("broken-one", "x = 1", entry_points={"e": "broken_one:absent"})
    state_of_plugin = state_of(here, env, "broken-one")
    assert state_of_plugin["state"] == "broken"
    assert "absent" in state_of_plugin["error"]


def test_factory_is_imported_when_it_is_used(here, distribution):
    source = "import alcore\n@alcore.hookimpl\ndef alcore_query_strategies():\n    return {'rare': 'far_away:Absent'}"
    env = distribution("far-away", source)
    assert state_of(here, env, "far-away")["state"] == "ok", "nothing is imported before it is needed"
    message = here("describe", "query", "rare", env=env, code=2).message
    for fragment in ("query 'rare'", "far-away 1.0", "far_away:Absent", "AttributeError"):
        assert fragment in message
    here("describe", "query", "random", env=env)


@pytest.fixture
def clash(distribution):
    return distribution("second-uq", offering("second_uq", "uq", "Usurper"), version="7.7")


def test_clash_names_both_plugins(here, clash):
    message = here("run", "--query", "uq", "--steps", "1", env=clash, code=2).message
    for fragment in ("query 'uq'", "alcore-uq 0.1.0", "second-uq 7.7", "ALCORE_BLOCK="):
        assert fragment in message
    assert here("describe", "query", "uq", env=clash, code=2).message == message


def test_clash_is_listed_and_other_names_work(here, clash):
    (listed,) = here("plugins", "--json", env=clash).data["clashes"]
    assert (listed["kind"], listed["name"]) == ("query", "uq")
    assert set(listed["plugins"]) == {"alcore-uq 0.1.0", "second-uq 7.7"}
    assert "query 'uq' is offered by " in here("plugins", env=clash).out
    here("plugins", "check", env=clash, code=1)
    here("run", "--query", "random", "--steps", "1", "-q", env=clash)


def test_remedy_of_a_clash_works(here, clash):
    message = here("describe", "query", "uq", env=clash, code=2).message
    remedy = re.search(r"ALCORE_BLOCK=([\w.-]+\w)", message)
    assert remedy
    described = here("describe", "query", "uq", "--json", env={**clash, "ALCORE_BLOCK": remedy.group(1)}).data
    assert {described["package"], remedy.group(1)} == {"second-uq", "alcore-uq"}


def test_blocked_plugin_is_left_out(here, clash):
    env = {**clash, "ALCORE_BLOCK": "Alcore_UQ , alcore-random"}
    assert here("describe", "query", "uq", "--json", env=env).data["package"] == "second-uq"
    states = {plugin["distribution"]: plugin["state"] for plugin in here("plugins", "--json", env=env).data["plugins"]}
    assert {name for name, state in states.items() if state == "blocked"} == {"alcore-uq", "alcore-random"}
    here("plugins", "check", env=env)


def test_only_leaves_other_plugins_out(here, clash, rows, tmp_path):
    wanted = "second-uq,alcore-moons,alcore-torchloop,alcore-dummy,alcore-f1"
    here("--only", wanted, "run", "--steps", "1", "-q", "--run-id", "r", env=clash)
    assert strategies(rows, tmp_path / "active_learning_logs" / "r") == {"usurper"}
    assert here(f"--only={wanted}", "describe", "query", "uq", "--json", env=clash).data["package"] == "second-uq"
    result = here("--only", "alcore-uq", "plugins", "--json", env=clash).data["plugins"]
    ok = {plugin["distribution"] for plugin in result if plugin["state"] == "ok"}
    assert ok == {"alcore", "alcore-uq"}


def test_blocked_plugin_is_not_imported(here, distribution, tmp_path):
    env = distribution("far-away", f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    here("plugins", env={**env, "ALCORE_BLOCK": "far-away"})
    assert not (tmp_path / "imported").exists()
    here("plugins", env=env)
    assert (tmp_path / "imported").exists(), "this test can't fail otherwise"


def test_plugin_for_another_core_is_refused_before_import(here, distribution, tmp_path):
    requires = "Alcore (<0.1)"
    env = distribution("too-new", f"open({str(tmp_path / 'imported')!r}, 'w').close()\n", requires=requires)
    state_of_plugin = state_of(here, env, "too-new")
    assert state_of_plugin["state"] == "refused"
    assert "0.1.0" in state_of_plugin["error"]
    assert not (tmp_path / "imported").exists()
    assert "too-new 1.0" in here("describe", "query", "rare", env=env, code=2).message
    here("plugins", "check", env=env, code=1)
    assert not (tmp_path / "imported").exists()


def test_distribution_may_have_several_entry_points(here, distribution):
    modules = {**offering("one", "first"), **offering("two", "second"), "three": "import absent_thing"}
    env = distribution("many", modules, entry_points="a = one\nb = two\nc = three\nb = one")
    plugins = {
        (plugin["entry_point"], plugin["module"]): plugin
        for plugin in here("plugins", "--json", env=env).data["plugins"]
        if plugin["distribution"] == "many"
    }
    assert plugins["a", "one"]["offers"] == {"query": ["first"]}
    assert plugins["b", "two"]["offers"] == {"query": ["second"]}, "pluggy skips a second entry point of one name"
    assert plugins["c", "three"]["state"] == "broken"
    assert set(plugins) == {("a", "one"), ("b", "two"), ("b", "one"), ("c", "three")}


def test_distribution_without_metadata_changes_nothing(here, distribution):
    # such as an interrupted uninstallation leaves
    env = distribution("half-gone", offering("half_gone", "first"), metadata="")
    plugins = here("plugins", "--json", env=env).data["plugins"]
    assert {plugin["state"] for plugin in plugins if plugin["distribution"] == "alcore-uq"} == {"ok"}
    assert len(plugins) > len(here("plugins", "--json").data["plugins"])


COMMANDS = """
import alcore


@alcore.hookimpl
def alcore_commands(app):
    @app.command("greet")
    def greet(name: str) -> None:
        \"\"\"Say hello.\"\"\"
        print(f"hello {name}")
"""


def test_plugin_adds_a_command(here, distribution):
    env = distribution("greeter", COMMANDS)
    assert re.search(r"^  greet +Say hello\.$", here("--help", env=env).out, re.MULTILINE)
    assert here("greet", "moon", env=env).out == "hello moon\n"
    assert state_of(here, env, "greeter")["state"] == "ok"
    assert "greet" not in here("--help").out


LISTENERS = """
import alcore


@alcore.hookimpl
def alcore_observers():
    return {"noisy": Noisy}


@alcore.hookimpl
def alcore_stop_criteria():
    return {"enough": Enough}


class Noisy:
    @alcore.runhook
    def alcore_step_end(self, record):
        raise RuntimeError(f"seen {record['step']}")


class Enough:
    def __init__(self, labels: int) -> None:
        self.labels = labels

    @alcore.runhook
    def alcore_should_stop(self, driver):
        have = len(driver.train_datapool)
        return f"{have} samples are enough" if have >= self.labels else None
"""


def test_observer_and_stop_criterion_are_chosen_by_name(here, distribution):
    env = distribution("listening", LISTENERS)
    result = here(
        *("run", "--observe", "noisy", "--stop", "enough", "--set", "stop.enough.labels=70", "--json"), env=env
    )
    assert (result.data["reason"], result.data["labels"]) == ("70 samples are enough", 20)
    assert "observer Noisy raised in alcore_step_end" in result.err
    assert "seen 0" in result.err
