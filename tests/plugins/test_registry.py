"""`installed` and `Registry`: entry points are loaded one by one, and each failure is kept as data."""

from __future__ import annotations

import importlib.metadata
import time
import types

import pytest

import alcore
from alcore.errors import PluginError, UsageError
from alcore.hookspecs import Registration
from alcore.plugins import Offer, Plugin, Registry, installed, load_factory
from alcore.plugins.registry import KINDS, core_version, import_name


class Entry:
    """An entry point as `find_entry_points` returns it, with a module made on the spot."""

    version, fault = "1.5", None

    def __init__(self, distribution, name="one", requires=None, **functions):
        self.distribution, self.requires = distribution, tuple(requires or ())
        self.name, self.value = name, f"{distribution.replace('-', '_')}.{name}"
        self.loaded = 0
        self._functions = functions

    def place(self):
        return self.distribution, self.name

    def load(self):
        self.loaded += 1
        module = types.ModuleType(self.value)
        for name, function in self._functions.items():
            if isinstance(function, BaseException):
                raise function
            setattr(module, name, alcore.hookimpl(function))
        return module


@pytest.fixture
def install(monkeypatch):
    """Return a registry that finds these entry points only."""
    monkeypatch.delenv("ALCORE_BLOCK", raising=False)
    monkeypatch.delenv("ALCORE_ONLY", raising=False)

    def make(*entries):
        monkeypatch.setattr("alcore.plugins.registry.find_entry_points", lambda: sorted(entries, key=Entry.place))
        return installed()

    return make


def query(name, factory=dict):
    return {"alcore_query_strategies": lambda: {name: factory}}


def test_offered_name_leads_to_its_factory(install):
    registry = install(Entry("far-away", **query("first", dict)))
    assert registry.offer("query", "first").factory is dict
    assert str(registry.offer("query", "first").plugin) == "far-away 1.5"
    assert registry.make("query", "first", a=1) == {"a": 1}


@pytest.mark.parametrize(("kind", "hook"), KINDS.items())
def test_kind_is_offered_by_its_hook(install, kind, hook):
    registry = install(Entry("far-away", **{hook: lambda: {"mine": dict}}))
    assert registry.plugins[1].state == "ok"
    assert registry.plugins[1].offers == {kind: {"mine": dict}}
    assert registry.offer(kind, "mine").plugin is registry.plugins[1]


def test_registration_hooks_are_documented_and_called():
    hooks = {name for name in vars(Registration) if name.startswith("alcore_")}
    assert hooks == {*KINDS.values(), "alcore_commands", "alcore_data_files"}
    assert all(getattr(Registration, name).__doc__ for name in hooks)


def test_core_offers_queues_through_the_same_hooks(install):
    registry = install()
    assert registry.make("queue", "lifo").__class__.__name__ == "LifoQueue"


def test_registry_forgets_plugin_that_was_uninstalled(install):
    assert install(Entry("far-away", **query("first"))).offer("query", "first")
    with pytest.raises(PluginError, match="'first'"):
        install().offer("query", "first")


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ({"x": ImportError("no library")}, "ImportError: no library"),
        ({"x": SystemExit("bye")}, "SystemExit: bye"),
        ({"alcore_query_strategies": lambda: ["a"]}, "returned a list"),
        ({"alcore_query_strategies": lambda: None}, "returned a NoneType"),
        ({"alcore_query_strategies": lambda: {"a": 3}}, "'a'"),
        ({"alcore_query_strategies": lambda: {"a": "no colon"}}, "module:Name"),
        ({"alcore_query_strategies": lambda: 1 / 0}, "ZeroDivisionError"),
        ({"alcore_query_strategies": lambda wrong: {}}, "wrong"),
        ({"alcore_query_stratagems": lambda: {}}, "alcore_query_stratagems"),
        ({"alcore_query_strategy": lambda: {}}, "did you mean 'alcore_query_strategies'?"),
        ({"alcore_observer": lambda: {}}, "did you mean 'alcore_observers'?"),
        ({"alcore_command": lambda app: None}, "did you mean 'alcore_commands'?"),
        ({}, "no registration hook"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failing_plugin_is_kept_with_its_reason(install, functions, reason):
    registry = install(Entry("broken-one", **functions), Entry("fine-one", **query("first")))
    broken, fine = registry.plugins[1:]
    assert (broken.state, broken.offers, broken.commands) == ("broken", {}, [])
    assert reason in (broken.error or "")
    assert fine.state == "ok"
    assert registry.offer("query", "first").plugin is fine
    with pytest.raises(PluginError, match=r"broken-one 1\.5"):
        registry.offer("query", "absent")


@pytest.mark.parametrize("hook", sorted({*KINDS.values(), "alcore_commands", "alcore_data_files"}))
def test_hook_that_lacks_a_letter_gets_the_nearest(install, hook):
    (plugin,) = install(Entry("broken-one", **{hook[:-1]: lambda: {}})).plugins[1:]
    assert plugin.state == "broken"
    assert f"there is no hook {hook[:-1]!r}: did you mean {hook!r}?" in plugin.error


def test_hook_that_is_not_marked_is_a_fault(install):
    entry = Entry("far-away", **query("first"))
    load = entry.load

    def with_one_more():
        module = load()
        module.alcore_learners = lambda: {"mine": dict}
        return module

    entry.load = with_one_more
    (plugin,) = install(entry).plugins[1:]
    assert (plugin.state, plugin.offers) == ("faulty", {"query": {"first": dict}})
    assert plugin.error == "its function alcore_learners is not marked with @alcore.hookimpl, so that it is not called"


def test_time_of_an_import_is_counted_for_its_plugin(install):
    def slow():
        time.sleep(0.05)
        return {"first": dict}

    fast, slow = install(Entry("near-by", **query("other")), Entry("slow", alcore_query_strategies=slow)).plugins[1:]
    assert fast.seconds < 0.05 <= slow.seconds


def test_broken_plugin_offers_nothing(install):
    both = {**query("first"), "alcore_queues": lambda: 1 / 0, "alcore_commands": lambda app: None}
    registry = install(Entry("broken-one", **both))
    assert list(registry.offers("query")) == []
    assert registry.plugins[1].commands == []


def test_interruption_while_loading_is_raised(install):
    with pytest.raises(KeyboardInterrupt):
        install(Entry("far-away", x=KeyboardInterrupt()))


@pytest.mark.parametrize(
    ("requires", "state"),
    [
        (["alcore>=9"], "refused"),
        (["alcore<0.1"], "refused"),
        (["Alcore==0.2.*"], "refused"),
        (["alcore[standard]>=9"], "refused"),
        (["numpy", "alcore >= 9 ; python_version > '3'"], "refused"),
        (["alcore>=9; python_version < '3'"], "ok"),
        (["alcore>=9; extra == 'future'"], "ok"),
        (["alcore>=0.1,<0.2"], "ok"),
        (["alcore"], "ok"),
        (["alcore-uq>=9"], "ok"),
        (["this is not a requirement", "alcore<1"], "ok"),
        ([], "ok"),
        (None, "ok"),
    ],
    ids=str,
)
def test_plugin_for_another_core_is_refused_before_import(install, requires, state):
    entry = Entry("far-away", requires=requires, **query("first"))
    plugin = install(entry).plugins[1]
    assert plugin.state == state
    assert entry.loaded == (state == "ok")
    if state == "refused":
        assert core_version() in (plugin.error or "")


def test_development_version_of_core_fits(install, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1.1.dev3")
    assert install(Entry("far-away", requires=["alcore>=0.1,<0.2"], **query("first"))).plugins[1].state == "ok"


def test_core_that_is_not_installed_refuses_no_plugin(install, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    plugins = install(Entry("far-away", requires=["alcore>=9"], **query("first"))).plugins
    assert [(plugin.version, plugin.state) for plugin in plugins] == [("unknown", "ok"), ("1.5", "ok")]


def test_clash_names_both_plugins_and_the_remedy(install):
    registry = install(Entry("near-by", **query("first", list)), Entry("far-away", **query("first", dict)))
    with pytest.raises(PluginError) as error:
        registry.offer("query", "first")
    for fragment in ("query 'first'", "far-away 1.5", "near-by 1.5", "ALCORE_BLOCK="):
        assert fragment in str(error.value)
    (clash,) = registry.clashes()
    assert (clash.kind, clash.name) == ("query", "first")
    assert {plugin.distribution for plugin in clash.plugins} == {"far-away", "near-by"}
    assert str(error.value) == f"{clash}."


def test_clash_within_a_distribution_is_blocked_by_entry_point(install):
    registry = install(Entry("many", "a", **query("first")), Entry("many", "b", **query("first")))
    (clash,) = registry.clashes()
    assert str(clash).endswith("with ALCORE_BLOCK=b")


def test_name_of_a_blocked_plugin_says_what_is_blocked(install, monkeypatch):
    install()  # this clears both variables
    monkeypatch.setenv("ALCORE_BLOCK", "far-away")
    monkeypatch.setattr("alcore.plugins.registry.find_entry_points", lambda: [Entry("far-away", **query("first"))])
    with pytest.raises(PluginError, match=r"'first'.*Left out by ALCORE_BLOCK or --only: far-away\."):
        installed().offer("query", "first")


def test_same_name_of_two_kinds_does_not_clash(install):
    registry = install(Entry("near-by", **query("first")), Entry("far-away", alcore_queues=lambda: {"first": dict}))
    assert registry.clashes() == []
    assert registry.offer("query", "first").plugin.distribution == "near-by"


def test_entry_points_of_one_distribution_are_all_loaded(install):
    registry = install(
        Entry("many", "a", **query("first")),
        Entry("many", "a", **query("second")),
        Entry("many", "b", x=ValueError("b")),
    )
    assert [plugin.state for plugin in registry.plugins[1:]] == ["ok", "ok", "broken"]
    assert {offer.name for offer in registry.offers("query")} == {"first", "second"}


@pytest.mark.parametrize(
    ("variable", "value", "left"),
    [
        ("ALCORE_BLOCK", "far-away", {"near-by"}),
        ("ALCORE_BLOCK", " Far_Away ,", {"near-by"}),
        ("ALCORE_BLOCK", "far.away,near-by", set()),
        ("ALCORE_BLOCK", "two", {"near-by"}),
        ("ALCORE_BLOCK", "", {"near-by", "far-away"}),
        ("ALCORE_BLOCK", "far", {"near-by", "far-away"}),
        ("ALCORE_ONLY", "far-away", {"far-away"}),
        ("ALCORE_ONLY", "one", {"near-by"}),
        ("ALCORE_ONLY", "", set()),
    ],
)
def test_blocked_plugin_is_neither_offered_nor_imported(install, monkeypatch, variable, value, left):
    entries = [Entry("near-by", "one", **query("first")), Entry("far-away", "two", **query("second"))]
    install()  # this clears both variables
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("alcore.plugins.registry.find_entry_points", lambda: entries)
    registry = installed()
    assert {plugin.distribution for plugin in registry.plugins if plugin.state == "ok"} == {"alcore", *left}
    assert {entry.distribution for entry in entries if entry.loaded} == left, "what is blocked is not imported"


@pytest.mark.parametrize(("variable", "value", "offered"), [("ALCORE_ONLY", "other", 1), ("ALCORE_BLOCK", "one", 0)])
def test_standard_commands_are_left_out_only_by_name(install, monkeypatch, variable, value, offered):
    entries = [Entry(name, **query("q"), alcore_commands=lambda app: None) for name in ("alcore-report", "far-away")]
    install()  # this clears both variables
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("alcore.plugins.registry.find_entry_points", lambda: entries)
    standard, other = installed().plugins[1:]
    assert (standard.state, standard.offers, len(standard.commands)) == ("blocked", {}, offered)
    assert (other.state, other.offers, other.commands) == ("blocked", {}, [])
    assert [entry.loaded for entry in entries] == [offered, 0]


def test_unknown_name_gets_the_nearest_and_the_broken_plugins(install):
    registry = install(Entry("far-away", **query("farthest")), Entry("broken-one", x=ImportError("no library")))
    with pytest.raises(PluginError) as error:
        registry.offer("query", "fartest")
    assert str(error.value) == (
        "no plugin offers the query 'fartest': did you mean 'farthest'? There are: farthest. It may belong to a plugin "
        "that could not be loaded (broken-one 1.5: ImportError: no library). `alcore plugins` lists what is installed."
    )
    assert isinstance(error.value, UsageError)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("no_such_module:Thing", "ModuleNotFoundError"),
        ("math:Thing", "AttributeError"),
        ("math:pi", "not a class or a function"),
        ("alcore.plugins:Registry.absent", "AttributeError"),
    ],
)
def test_factory_that_fails_to_import_is_named_with_its_plugin(factory, reason):
    plugin = Plugin("far-away", "1.5", "one", "far_away")
    with pytest.raises(PluginError, match=r"far-away 1\.5") as error:
        load_factory(Offer("query", "first", factory, plugin))
    assert factory in str(error.value)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("./one.py:X", "; for the file ./one.py write one:X"),
        ("one.py:X", "; for the file one.py write one:X"),
        ("sub/two.py:make", "; for the file sub/two.py write sub.two:make"),
        ("{here}/sub/two.py:make", "; for the file {here}/sub/two.py write sub.two:make"),
        ("sub/two:make", "; for the file sub/two write sub.two:make"),
        ("../one.py:X", "; for the file ../one.py in its folder, {above}, write one:X"),
        ("./one.py:", "; for the file ./one.py write one:NAME"),
        *((text, "") for text in (".one:X", "..one:X", "one..two:X", ":X", "one:", "one", "one:X.", "one:.X", "")),
    ],
)
def test_text_that_names_no_module_is_refused_with_the_name_of_the_module(tmp_path, monkeypatch, text, advice):
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    (here / "one.py").touch()
    monkeypatch.chdir(here)
    places = {"here": here, "above": tmp_path}
    with pytest.raises(UsageError) as error:
        import_name(text.format(**places))
    assert str(error.value) == f"it is not of the form package.module:name{advice.format(**places)}"


def test_import_name_finds_member_of_a_class():
    assert import_name("alcore.plugins:Registry.clashes") is Registry.clashes


def test_plugins_of_this_environment_have_no_faults(monkeypatch):
    monkeypatch.delenv("ALCORE_BLOCK", raising=False)
    monkeypatch.delenv("ALCORE_ONLY", raising=False)
    registry = installed()
    assert [(str(plugin), plugin.error) for plugin in registry.plugins if plugin.state != "ok"] == []
    assert registry.clashes() == []


def test_all_that_the_plugins_of_this_environment_offer_can_be_imported(monkeypatch):
    monkeypatch.delenv("ALCORE_BLOCK", raising=False)
    monkeypatch.delenv("ALCORE_ONLY", raising=False)
    registry = installed()
    registry.check_offers()
    assert [(str(plugin), plugin.error) for plugin in registry.plugins if plugin.state != "ok"] == []


def reads(suffix, name, **more):
    return {"alcore_data": lambda: {name: dict}, "alcore_data_files": lambda: {suffix: name}, **more}


def test_file_is_read_by_the_data_of_its_suffix(install):
    registry = install(Entry("tables", **reads(".csv", "table")), Entry("packed", **reads(".csv.gz", "packed")))
    assert registry.file_suffixes() == [".csv", ".csv.gz"]
    assert registry.reader_of("folder.x/Some.CSV") == "table"
    assert registry.reader_of("some.csv.gz") == "packed"
    assert registry.reader_of("some.toml") is None


def test_two_readers_of_a_suffix_are_an_error_that_names_both(install):
    registry = install(Entry("one-kind", **reads(".csv", "one")), Entry("other-kind", **reads(".csv", "other")))
    with pytest.raises(PluginError, match=r"data 'one' of one-kind 1.5 and by data 'other' of other-kind 1.5.*--data"):
        registry.reader_of("a.csv")


@pytest.mark.parametrize(
    ("files", "reason"),
    [(["csv"], "list"), ({"csv": "table"}, "'csv'"), ({".CSV": "table"}, "lower case"), ({".csv": "tabel"}, "'tabel'")],
)
def test_impossible_suffixes_break_the_plugin(install, files, reason):
    registry = install(Entry("tables", alcore_data=lambda: {"table": dict}, alcore_data_files=lambda: files))
    (plugin,) = registry.plugins[1:]
    assert plugin.state == "broken"
    assert reason in plugin.error
    assert registry.file_suffixes() == []
