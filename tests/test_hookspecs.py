"""Every hook is documented, and a recording plugin shows when it is called and with what."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from helpers.experiment import Cut

import alcore
from alcore import hookspecs, plugins
from alcore.cli.application import application
from alcore.plugins.listeners import RUN_HOOKS
from alcore.plugins.registry import KINDS

DOCS = Path(__file__).parent.parent / "docs" / "hooks.md"
REGISTRATION = [name for name in vars(hookspecs.Registration) if name.startswith("alcore_")]
LIFECYCLE = [name for name in vars(hookspecs.Lifecycle) if name.startswith("alcore_")]


def signature(owner: type, name: str) -> str:
    names = [parameter for parameter in inspect.signature(getattr(owner, name)).parameters if parameter != "self"]
    return f"`{name}({', '.join(names)})`"


@pytest.mark.parametrize(
    ("owner", "name"),
    [(hookspecs.Registration, name) for name in REGISTRATION] + [(hookspecs.Lifecycle, name) for name in LIFECYCLE],
)
def test_each_hook_is_documented_with_its_exact_signature(owner: type, name: str) -> None:
    assert f"| {signature(owner, name)} |" in DOCS.read_text(encoding="utf-8")
    assert inspect.getdoc(getattr(owner, name))


def test_page_documents_no_other_hook() -> None:
    named = set(re.findall(r"\| `(alcore_\w+)\(", DOCS.read_text(encoding="utf-8")))
    assert named == {*REGISTRATION, *LIFECYCLE}


RECORDING = """
import alcore
from alcore import hookspecs, plugins

CALLS = []

def _make(name):
    def hook():
        CALLS.append(name)
        return {"recorded": "builtins:dict"}
    hook.__name__ = name
    return alcore.hookimpl(hook)

for _name in vars(hookspecs.Registration):
    if _name.startswith("alcore_") and _name not in ("alcore_commands", "alcore_data_files"):
        globals()[_name] = _make(_name)

@alcore.hookimpl
def alcore_data_files():
    CALLS.append("alcore_data_files")
    return {".recorded": "recorded"}

@alcore.hookimpl
def alcore_commands(app):
    CALLS.append("alcore_commands")

    @app.command("recorded")
    def recorded():
        pass
"""


def test_each_registration_hook_is_called_and_offers_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recording_plugin.py").write_text(RECORDING)
    info = tmp_path / "recording_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: recording-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[alcore]\nrecording = recording_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        registry = plugins.installed()
        app = application(registry)
        calls = sys.modules["recording_plugin"].CALLS
    finally:
        sys.modules.pop("recording_plugin", None)
    assert sorted(calls) == sorted(REGISTRATION)
    for kind in KINDS:
        assert registry.offer(kind, "recorded").plugin.distribution == "recording-plugin"
    assert registry.reader_of("some.recorded") == "recorded"
    assert "recorded" in {command.name for command in app.registered_commands}
    assert isinstance(app, typer.Typer)


def recorder() -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    """Return an object with every lifecycle hook, each taking all of its arguments, and what they were called with."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def method(name: str) -> Any:
        names = [
            parameter
            for parameter in inspect.signature(getattr(hookspecs.Lifecycle, name)).parameters
            if parameter != "self"
        ]
        space: dict[str, Any] = {"calls": calls}
        pairs = ", ".join(f"{name!r}: {name}" for name in names)
        exec(f"def {name}(self, {', '.join(names)}): calls.append(({name!r}, {{{pairs}}}))", space)
        return alcore.runhook(space[name])

    return type("Recorder", (), {name: method(name) for name in LIFECYCLE})(), calls


def test_each_lifecycle_hook_is_called_in_its_place_with_all_its_arguments(build: Any) -> None:
    plugin, calls = recorder()
    driver = build(max_active_learning_steps=2, plugins=[plugin])
    driver.run()
    phases = ["training", "metrology"]
    expected = ["alcore_run_start"]
    for _ in range(2):
        expected += ["alcore_phase_start", "alcore_phase_end"] * len(phases)
        expected += ["alcore_should_stop"]
        expected += ["alcore_phase_start", "alcore_phase_end"] * 2
        expected += ["alcore_step_end"]
    expected += ["alcore_run_end"]
    assert [name for name, _ in calls] == expected
    assert tuple(dict.fromkeys(expected)) == RUN_HOOKS  # as its docstring says
    assert all(arguments["driver"] is driver for _, arguments in calls)
    started = [arguments["phase"] for name, arguments in calls if name == "alcore_phase_start"]
    assert started == [*alcore.Phase, *alcore.Phase]
    records = [arguments["record"] for name, arguments in calls if name == "alcore_step_end"]
    assert [record["step"] for record in records] == [0, 1]
    assert records[1]["metrics"] == {"count_metrology": [{"step": 1, "train_samples": 11, "labelled": 11.0}]}
    assert set(records[0]) == {
        "step", "train_samples", "requested", "labeled", "failed", "refused", "epochs", "losses", "metrics", "seconds",
    }  # fmt: skip
    assert calls[-1][1] == {"driver": driver, "reason": driver.end_reason, "error": None}


def test_observers_are_told_when_a_step_is_replayed(build: Any, toys: Any) -> None:
    class Ending(toys.EchoLabel):
        idempotent = True

        def label(self, *args: Any, **kwargs: Any) -> None:
            if self.driver.active_learning_step_idx == 1:
                raise KeyboardInterrupt
            super().label(*args, **kwargs)

    plugin, calls = recorder()
    with pytest.raises(KeyboardInterrupt):
        build(run_id="one", label_strategy=Ending(), plugins=[plugin]).run()
    assert not any(arguments.get("replayed") for _, arguments in calls)
    plugin, calls = recorder()
    again = build(run_id="one", plugins=[plugin])
    again.restore()
    again.run()
    told = [(name, one["driver"], one["replayed"]) for name, one in calls if "replayed" in one]
    assert {name for name, *_ in told} == {"alcore_phase_start", "alcore_phase_end", "alcore_step_end"}
    steps = [one["replayed"] for name, one in calls if name == "alcore_step_end"]
    assert steps == [True, False], "step 1 had requests on record, and step 2 was new"
    assert [replayed for _, _, replayed in told] == [True] * 9 + [False] * 9


class Remembers:
    """An observer whose state holds all that it was told of, and what it drew from torch's global generator."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.replayed: list[tuple[int, bool]] = []

    @alcore.runhook
    def alcore_phase_end(self, driver: Any, phase: Any) -> None:
        self.told.append([driver.active_learning_step_idx, str(phase)])

    @alcore.runhook
    def alcore_step_end(self, driver: Any, record: Any, replayed: bool) -> None:
        self.replayed.append((record["step"], replayed))
        assert all(seconds >= 0 for seconds in record["seconds"].values())
        record = {**record, "seconds": list(record["seconds"])}
        spent = driver.spent()
        seen = [driver.active_learning_step_idx, spent.labels, spent.cost, len(driver.train_datapool)]
        self.told.append([record, *seen, torch.rand(1).item()])

    def state_dict(self) -> dict[str, Any]:
        return {"told": list(self.told)}

    def load_state_dict(self, state: Any) -> None:
        self.told = list(state["told"])


class CutIn:
    """Cuts a run off in a hook of one step."""

    def __init__(self, hook: str, step: int) -> None:
        def cut(driver: Any) -> None:
            if driver.active_learning_step_idx == step:
                raise Cut

        setattr(self, hook, alcore.runhook(cut))


@pytest.mark.parametrize("settings", [{}, {"checkpoint_interval": 2}, {"skip_metrology": True}], ids=str)
@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("hook", ["alcore_phase_start", "alcore_step_end"])
def test_observer_with_state_is_told_of_each_step_once_whether_the_run_was_resumed_or_not(
    build: Any, hook: str, before: bool, step: int, settings: dict[str, Any]
) -> None:
    def run(run_id: str, *others: Any, resume: bool = False) -> Remembers:
        torch.manual_seed(0)
        observer = Remembers()
        plugins = [*others, observer] if before else [observer, *others]
        driver = build(run_id=run_id, max_active_learning_steps=4, plugins=plugins, **settings)
        if resume:
            driver.restore()
        driver.run()
        return observer

    whole = run("whole")
    assert len(whole.replayed) == 4
    with pytest.raises(Cut):
        run("cut", CutIn(hook, step))
    resumed = run("cut", resume=True)
    assert resumed.told == whole.told
    on_record = step if hook == "alcore_step_end" else step - 1
    assert {told for told, replayed in resumed.replayed if replayed} <= set(range(on_record + 1))
    assert [told for told, replayed in resumed.replayed if not replayed] == list(range(on_record + 1, 4))


def test_only_observers_with_state_are_told_again_of_the_step_of_the_checkpoint(build: Any) -> None:
    build(run_id="one", max_active_learning_steps=2, plugins=[Remembers()]).run()
    plugin, calls = recorder()
    observer = Remembers()
    driver = build(run_id="one", max_active_learning_steps=2, plugins=[plugin, observer])
    driver.restore()
    assert observer.replayed == [(1, True)]
    assert driver.active_learning_step_idx == 2
    assert [name for name, _ in calls] == ["alcore_run_start"]


def test_error_of_a_phase_reaches_phase_end_and_run_end(build: Any, toys: Any) -> None:
    class Broken(toys.FirstQuery):
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no idea")

    plugin, calls = recorder()
    driver = build(query_strategies=[Broken()], plugins=[plugin])
    with pytest.raises(RuntimeError) as caught:
        driver.run()
    (name, at_phase), (last, at_run) = calls[-2:]
    assert (name, at_phase["phase"], at_phase["error"]) == ("alcore_phase_end", "query", caught.value)
    assert (last, at_run["reason"], at_run["error"]) == ("alcore_run_end", None, caught.value)


def test_run_directory_exists_at_the_start_and_its_log_is_closed_at_the_end(build: Any) -> None:
    seen: list[bool] = []

    class Watch:
        @alcore.runhook
        def alcore_run_start(self, driver: Any) -> None:
            seen.append((driver.log_dir / "run.db").is_file())

    driver = build(plugins=[Watch()])
    driver.run()
    assert seen == [True]
    assert driver.logger.handlers == []
