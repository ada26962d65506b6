"""``alcore plugins``; tests/system/test_plugins.py has what others install."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from alcore.plugins import registry as module
from alcore.plugins.registry import Plugin, Registry


def test_plugins_lists_package_version_offers_and_state(command):
    out, _ = command("plugins")
    lines = out.splitlines()
    assert lines[0].split() == ["package", "version", "state", "offers"]
    packages = {line.split()[0]: line.split(maxsplit=3)[1:] for line in lines if line.startswith("alcore")}
    assert packages["alcore-uq"] == ["0.1.0", "ok", "query: uq"]
    assert packages["alcore-moons"] == ["0.1.0", "ok", "data: moons; learner: mlp"]
    assert packages["alcore"][2].startswith("queue: fifo")
    assert command("plugins", "list")[0] == out
    assert command("plugins", "check")[0] == out


def test_plugins_json(command):
    data = json.loads(command("plugins", "--json")[0])
    by_name = {plugin["distribution"]: plugin for plugin in data["plugins"]}
    assert by_name["alcore-f1"].pop("seconds") > 0
    assert by_name["alcore-f1"] == {
        "distribution": "alcore-f1", "version": "0.1.0", "entry_point": "f1", "module": "alcore_f1",
        "state": "ok", "error": None, "offers": {"metrology": ["f1"]}, "files": {},
    }  # fmt: skip
    assert data["clashes"] == []


def test_unknown_action_is_refused_with_the_known_ones(command):
    assert "alcore plugins chekc: write list or check" in command("plugins", "chekc", code=2)[1]


FAULTS = {
    "broken": [Plugin("far-away", "3.1", "far", "far", state="broken", error="it raised KeyError: 1")],
    "refused": [Plugin("far-away", "3.1", "far", "far", state="refused", error="it needs alcore>=9")],
    "clash": [Plugin(name, "3.1", name, name, offers={"query": {"near": dict}}) for name in ("far-away", "nearby")],
}


@pytest.mark.parametrize("case", FAULTS)
def test_check_alone_exits_with_1_for_a_fault_that_both_name(command, monkeypatch, case):
    monkeypatch.setattr(module, "installed", lambda: Registry(FAULTS[case]))
    listed, _ = command("plugins")
    assert command("plugins", "check", code=1)[0] == listed
    for plugin in FAULTS[case]:
        expected = "query 'near' is offered by far-away 3.1 and by nearby 3.1" if case == "clash" else plugin.error
        assert expected in listed
    data = json.loads(command("plugins", "check", "--json", code=1)[0])
    assert [(clash["kind"], clash["name"], clash["plugins"]) for clash in data["clashes"]] == (
        [("query", "near", ["far-away 3.1", "nearby 3.1"])] if case == "clash" else []
    )


OFFERS = {
    "no-module": "alcore_nowhere.query:Query",
    "no-name": "collections:Query",
    "no-class": "math:pi",
    "no-form": "./query.py:Query",
}


def test_check_names_each_offer_whose_target_cannot_be_imported(command, monkeypatch):
    plugin = Plugin("far-away", "3.1", "far", "far", offers={"query": {**OFFERS, "fine": "queue:Queue"}})
    monkeypatch.setattr(module, "installed", lambda: Registry([plugin]))
    listed, _ = command("plugins")
    assert plugin.state == "ok", "a list imports nothing that is offered"
    checked, _ = command("plugins", "check", code=1)
    assert plugin.state == "faulty"
    for name, target in OFFERS.items():
        assert f"query {name!r} of far-away 3.1 can't be loaded from {target!r}: " in checked
        assert target not in listed
    assert "'fine'" not in checked
    assert "UsageError" not in checked


def test_list_of_plugins_imports_no_torch():
    words = "import sys; sys.argv = ['alcore', 'plugins', '--timings']; from alcore.cli.main import main\n"
    words += "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"


def test_timings_show_the_slowest_plugin_first(command, monkeypatch):
    def add(app):
        time.sleep(0.05)

    plugins = [
        Plugin("far-away", "3.1", "far", "far", offers={"query": {"a": dict}}, seconds=0.03),
        Plugin("nearby", "1.0", "near", "near", commands=[add]),
        Plugin("slow", "2.0", "slow", "slow", offers={"query": {"b": dict}}, seconds=5.25),
    ]
    monkeypatch.setattr(module, "installed", lambda: Registry(plugins))
    lines = command("plugins", "--timings")[0].splitlines()
    assert lines[0].split() == ["package", "version", "state", "seconds", "offers"]
    assert [line.split()[0] for line in lines[1:4]] == ["slow", "nearby", "far-away"]
    assert lines[1].split()[3] == "5.2500"
    assert "seconds" not in command("plugins")[0]
    data = json.loads(command("plugins", "--json")[0])["plugins"]
    assert data[1]["seconds"] >= 0.05, "the time of adding its commands counts"


@pytest.mark.parametrize(
    ("block", "only", "words"),
    [
        ("alcore-uqq", None, ["ALCORE_BLOCK names 'alcore-uqq'", "did you mean 'alcore-uq'?"]),
        ("uqq, random", None, ["ALCORE_BLOCK names 'uqq'", "did you mean 'uq'?"]),
        ("alcore", None, ["ALCORE_BLOCK names 'alcore'"]),
        ("", "alcore-moonss", ["--only or ALCORE_ONLY names 'alcore-moonss'", "did you mean 'alcore-moons'?"]),
        ("", "alcore,moons,Alcore_UQ", []),
        ("uq, alcore.random ,", None, []),
    ],
)
def test_unknown_names_of_plugins_to_leave_out_are_warned_of_once(command, monkeypatch, block, only, words):
    installed = module.installed

    def of_environment():
        monkeypatch.setenv("ALCORE_BLOCK", block)  # the command is called without variables of the environment
        return installed()

    monkeypatch.setattr(module, "installed", of_environment)
    options = () if only is None else ("--only", only)
    err = command(*options, "plugins")[1]
    assert err.count("warning: ") == bool(words)
    assert all(word in err for word in words)


def test_blocked_plugin_is_no_fault(command, monkeypatch):
    monkeypatch.setattr(
        module, "installed", lambda: Registry([Plugin("far-away", "3.1", "far", "far", state="blocked")])
    )
    out, _ = command("plugins", "check")
    assert out.splitlines()[1].split() == ["far-away", "3.1", "blocked", "-"]
