"""``alcore check``: one of each before a campaign, kept in a run that goes on as if it had not stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from alcore_testing import differences, essence_of

_CODE = '''
import torch
import alcore
from alcore.strategies import BaseLabel, BaseMetrology

class Simulator(BaseLabel):
    """Answers with class 1, and writes down what it was asked for."""
    idempotent = True

    def __init__(self, fails: str = "", at_once: int | None = None):
        self.fails = fails
        if at_once is not None:
            self.at_once = at_once

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            with open("asked.txt", "a") as file:
                print(request.id, file=file)
            if self.fails == "links":
                (self.work_dir / "mesh").symlink_to("/nowhere/mesh")
            if self.fails == "raises":
                raise RuntimeError("no license")
            if self.fails == "withdrawn":
                serialize_queue.put(alcore.Failed(request, "the lab is closed", "withdrawn"))
            elif self.fails == "diverges":
                serialize_queue.put(alcore.Failed(request, "diverged"))
            else:
                serialize_queue.put(alcore.Label(request, "cat" if self.fails == "wrong" else 1, cost=3.0))

class Broken(BaseMetrology):
    def compute(self, *args, **kwargs):
        raise ValueError("no such metric")

class Tracker:
    """Writes down, outside of the run directory, which runs it was told of."""
    @alcore.runhook
    def alcore_step_end(self, driver):
        self.note(driver)

    @alcore.runhook
    def alcore_run_start(self, driver):
        self.note(driver)

    def note(self, driver):
        with open("told.txt", "a") as file:
            print(driver.run_id, file=file)

class Forgets(torch.nn.Linear):
    """A learner that doesn't come back as it was saved."""
    def __init__(self, info):
        super().__init__(info.features, info.classes)
    def load_state_dict(self, *args, **kwargs):
        keys = super().load_state_dict(*args, **kwargs)
        torch.nn.init.zeros_(self.bias)
        return keys
'''
_MOONS = """\
[data.moons]
samples = 60
initial = 0.2
[driver]
max_active_learning_steps = 2
[training]
max_training_epochs = 2
"""
_SIMULATOR = '[label.simulator]\nuse = "mine:Simulator"\n'


@pytest.fixture
def check(command, tmp_path, monkeypatch):
    """Return a function that checks an experiment with code of its own, and returns what it found, as the JSON says."""
    (tmp_path / "mine.py").write_text(_CODE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(toml: str, *flags: str, code: int = 0):
        (tmp_path / "experiment.toml").write_text(toml)
        out, _ = command("check", "experiment.toml", "--allow-code", "--run-id", "checked", "--json", *flags, code=code)
        return json.loads(out)

    return run


def asked(tmp_path: Path) -> list[str]:
    file = tmp_path / "asked.txt"
    return file.read_text().split() if file.exists() else []


@pytest.mark.parametrize("start", ["", "[start.random]\n"], ids=["labeled", "nothing-labeled"])
@pytest.mark.parametrize("flags", [(), ("--no-label",)], ids=["label", "no-label"])
def test_a_checked_campaign_equals_one_that_was_not_checked(check, command, tmp_path, start, flags):
    moons = _MOONS.replace("0.2", "0") if start else _MOONS
    toml = moons + _SIMULATOR + start
    result = check(toml, *flags)
    assert result["faults"] == []
    assert len(asked(tmp_path)) == (0 if flags else 1)
    assert {"start", "training", "metrology", "query", "resume"} <= set(result["seconds"])
    command("resume", "checked", "--allow-code")
    bought = asked(tmp_path)
    assert len(bought) == len(set(bought)) == 20
    command("run", "experiment.toml", "--allow-code", "--run-id", "alone")
    logs = tmp_path / "active_learning_logs"
    lines = differences(essence_of(logs / "checked"), essence_of(logs / "alone"))
    assert [line for line in lines if "-training-" not in line] == []  # the one from which the check was resumed
    assert sorted(path.name for path in logs.iterdir()) == ["alone", "checked"]  # nothing of a rehearsal


@pytest.mark.parametrize("learner", ["deep-ensemble", "sklearn", "mlp"])
def test_a_learner_of_tables_comes_back_as_it_was_saved(check, learner):
    result = check(f"[data.moons]\nsamples = 60\n[driver]\nmax_active_learning_steps = 2\n[learner.{learner}]\n")
    assert result["faults"] == []


def test_forecast_counts_what_was_seen(check):
    result = check(_MOONS + _SIMULATOR)
    assert result["cost"] == 3.0
    assert result["label"] == "1"
    assert result["forecast"]["labels"] == 20
    assert result["forecast"]["cost"] == 60.0
    assert result["forecast"]["labeling"] == pytest.approx(20 * result["seconds"]["label"])
    assert result["forecast"]["bytes"] > 4 * result["checkpoint"] > 0


@pytest.mark.parametrize(
    ("at_once", "in_turn", "said"),
    [
        (None, 20, "if one label follows the other"),
        (1, 20, "if one label follows the other"),
        (4, 2 * 3, "if up to 4 labels of a step are got at a time"),
        (100, 2, "if up to 100 labels of a step are got at a time"),
    ],
)
def test_labels_that_are_got_at_the_same_time_are_said_and_forecast_so(check, command, at_once, in_turn, said):
    toml = _MOONS + _SIMULATOR + ("" if at_once is None else f"at_once = {at_once}\n")
    result = check(toml)
    assert result["at_once"] == at_once
    assert result["forecast"]["labeling"] == pytest.approx(in_turn * result["seconds"]["label"])
    out, _ = command("check", "experiment.toml", "--allow-code", "--run-id", "again")
    (labeling,) = (line for line in out.splitlines() if line.startswith("labeling"))
    assert labeling.endswith(said)
    (label,) = (line for line in out.splitlines() if line.startswith("label "))
    rest = {None: "", 1: "; the run gets one at a time"}.get(at_once, f"; the run gets up to {at_once} at a time")
    assert label.endswith(f"1 label, which cost 3{rest}")


def test_forecast_of_costs_is_that_of_candidates_in_proportion_to_what_was_paid(check, tmp_path):
    space = """\
[data.space]
cost = "10 + 1000 * x"
[data.space.variables.x]
low = 0
high = 1
[label.function]
function = "twice:twice"
[driver]
max_active_learning_steps = 10
"""
    (tmp_path / "twice.py").write_text(
        "from alcore_labelers import Labeled\n\ndef twice(named):\n"
        "    return Labeled(2 * named['x'], cost=2 * (10 + 1000 * named['x']))\n"
    )
    result = check(space)
    assert result["cost"] == pytest.approx(2 * result["expected"])
    assert result["forecast"]["cost"] == pytest.approx(2 * 510 * result["forecast"]["labels"], rel=0.1)


@pytest.mark.parametrize(("set_", "labels"), [("driver.budget=25", 8), ("driver.max_active_learning_steps=100", 48)])
def test_forecast_ends_where_budget_or_pool_do(check, set_, labels):
    assert check(_MOONS + _SIMULATOR, "--set", set_)["forecast"]["labels"] == labels


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            '[label.simulator]\nuse = "mine:Simulator"\nfails = "diverges"\n',
            "label fails: infrastructure: diverged",
        ),
        ('[label.simulator]\nuse = "mine:Simulator"\nfails = "wrong"\n', "the label fails: refused: 'cat' is not one"),
        ('[label.simulator]\nuse = "mine:Simulator"\nfails = "raises"\n', "labeling fails: RuntimeError: no license"),
        ('[metrology.b]\nuse = "mine:Broken"\n', "metrology fails: ValueError: no such metric"),
        ('[learner.mine]\nuse = "mine:Forgets"\n', "a resumed run has another learner"),
        ('[start.random]\n[metrology.b]\nuse = "mine:Broken"\n', "no such metric (seen in a rehearsal"),
    ],
)
def test_what_would_end_the_campaign_is_a_fault(check, change, fault):
    moons = _MOONS.replace("0.2", "0") if "start" in change else _MOONS
    result = check(moons + change, code=1)
    assert fault in " ".join(result["faults"])
    assert result["forecast"] is None


def test_withdrawn_label_is_no_fault(check):
    result = check(_MOONS + '[label.simulator]\nuse = "mine:Simulator"\nfails = "withdrawn"\n')
    assert result["faults"] == []


def test_a_rehearsal_is_told_to_no_tracker(check, tmp_path):
    result = check(_MOONS.replace("0.2", "0") + _SIMULATOR + '[start.random]\n[observe.mine]\nuse = "mine:Tracker"\n')
    assert result["rehearsed"]
    assert result["faults"] == []
    assert set((tmp_path / "told.txt").read_text().split()) == {"checked"}


def test_links_of_the_users_program_are_copied_as_links(check):
    result = check(_MOONS + '[label.simulator]\nuse = "mine:Simulator"\nfails = "links"\n')
    assert result["faults"] == []
    assert result["seconds"]["resume"] > 0


def test_forecast_of_a_pool_whose_steps_look_at_other_candidates_is_not_ended_by_one_part(check):
    toml = "[data.space]\ncandidates_per_step = 20\n[data.space.variables.x]\nlow = 0\nhigh = 1\n" + _SIMULATOR
    toml += "[driver]\nmax_active_learning_steps = 20\n[training]\nmax_training_epochs = 1\n"
    assert check(toml)["forecast"]["labels"] == 10 + 19 * 5


def test_too_large_a_run_directory_is_a_fault(check, monkeypatch):
    full = shutil._ntuple_diskusage(10**6, 10**6 - 10, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert "keep fewer checkpoints" in " ".join(check(_MOONS, code=1)["faults"])


def test_forecast_counts_the_first_selection_of_a_cold_start_once(check):
    result = check(_MOONS.replace("0.2", "0") + _SIMULATOR + "[start.random]\nmax_samples = 17\n")
    assert (result["labeled"], result["asked"]) == (17, 10)
    assert result["forecast"]["labels"] == 27


def test_people_who_label_are_waited_for(command):
    out, _ = command("check", "--set", "driver.max_active_learning_steps=2", code=0)
    assert "No faults were found.\nGo on with: alcore resume " in out
    Path("ask.toml").write_text("[label.ask]\n")
    out, _ = command("check", "ask.toml")
    assert "Note: no label has come yet, so nothing is known of labeling: waiting for labels: 0 of 10 requests" in out


def test_a_step_that_asks_for_nothing_is_a_fault(check):
    result = check(_MOONS + "[query.uq]\nmax_samples = 0\n", code=1)
    assert result["faults"] == ["the first step asks for nothing; look at the query strategies and their max_samples"]


def test_bad_input_begins_no_run(command, tmp_path):
    _, err = command("check", "--set", "query.uq.max_sample=5", code=2)
    assert "max_samples" in err
    (tmp_path / "mine.toml").write_text(_SIMULATOR)
    _, err = command("check", "mine.toml", code=2)
    assert "--allow-code" in err
    assert not (tmp_path / "active_learning_logs").exists()
