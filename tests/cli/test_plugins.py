"""``alcore plugins``; tests/system/test_plugins.py has what others install."""

from __future__ import annotations

import json

import pytest

from alcore.plugins import registry as module
from alcore.plugins.registry import Plugin, Registry


def test_plugins_lists_package_version_offers_and_state(command):
    out, _ = command("plugins")
    lines = out.splitlines()
    assert lines[0].split() == ["package", "version", "state", "offers"]
    found = {line.split()[0]: line.split(maxsplit=3)[1:] for line in lines if line.startswith("alcore")}
    assert found["alcore-uq"] == ["0.1.0", "ok", "query: uq"]
    assert found["alcore-moons"] == ["0.1.0", "ok", "data: moons; learner: mlp"]
    assert found["alcore"][2].startswith("queue: fifo")
    assert command("plugins", "list")[0] == out
    assert command("plugins", "check")[0] == out


def test_plugins_json(command):
    data = json.loads(command("plugins", "--json")[0])
    by_name = {one["distribution"]: one for one in data["plugins"]}
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
    assert [(one["kind"], one["name"], one["plugins"]) for one in data["clashes"]] == (
        [("query", "near", ["far-away 3.1", "nearby 3.1"])] if case == "clash" else []
    )


def test_blocked_plugin_is_no_fault(command, monkeypatch):
    monkeypatch.setattr(
        module, "installed", lambda: Registry([Plugin("far-away", "3.1", "far", "far", state="blocked")])
    )
    out, _ = command("plugins", "check")
    assert out.splitlines()[1].split() == ["far-away", "3.1", "blocked", "-"]
