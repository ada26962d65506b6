"""Commands that read: describe, runs, show, export."""

from __future__ import annotations

import csv
import json
import re

import pytest

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def folder(run_alcore, tmp_path_factory):
    """A folder with three runs: one that is done, one at another seed, one that failed."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "bad.py").write_text(
        "class Bad:\n"
        "    def attach(self, driver): self.driver = driver\n"
        "    def sample(self, queue):\n"
        "        if self.driver.active_learning_step_idx: raise RuntimeError('boom')\n"
        "        queue.put(int(next(self.driver.candidates())[3]))\n"
    )
    run_alcore("run", "--steps", "3", "--run-id", "done-run", "-q", cwd=folder)
    run_alcore("run", "--steps", "1", "--run-id", "seven", "-q", "--seed", "7", cwd=folder)
    run_alcore("run", "--query", "bad:Bad", "--steps", "3", "--run-id", "failed-run", "-q", cwd=folder, code=1)
    return folder


@pytest.fixture
def say(run_alcore, folder):
    return lambda *args, **options: run_alcore(*args, cwd=folder, **options)


def test_describe_has_types_defaults_and_documentation(here):
    text = here("describe", "query", "uq").out
    assert "query uq: alcore_uq.query.ClassifierUQQuery, from alcore-uq 0.1.0" in text
    assert re.search(r"max_samples \(int; default 10\)\n +How many samples to ask for in a step\.", text)
    assert "measure ('least_confidence' | 'margin' | 'entropy'; default \"least_confidence\")" in text
    assert "--set query.uq.PARAMETER=VALUE" in text


def test_describe_json(here):
    data = here("describe", "query", "uq", "--json").data
    assert (data["kind"], data["name"], data["package"], data["version"]) == ("query", "uq", "alcore-uq", "0.1.0")
    first, second = data["parameters"][:2]
    assert first == {
        "name": "max_samples", "type": "int", "required": False, "default": 10,
        "doc": "How many samples to ask for in a step.",
    }  # fmt: skip
    assert (second["name"], second["default"]) == ("measure", "least_confidence")


def test_runs_lists_state_and_last_metrics(say):
    listing, _, reasons = say("runs", env={"COLUMNS": "80"}).out.partition("\n\n")
    lines = listing.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:8] == ["run", "status", "steps", "labels", "data", "query", "learner", "seed"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert set(rows) == {"done-run", "seven", "failed-run"}
    assert rows["done-run"].split()[4:8] == ["moons", "uq", "mlp", "0"]
    assert rows["done-run"].split()[1:4] == ["done", "3", "30"]
    assert rows["failed-run"].split()[1:4] == ["failed", "1", "1"]
    assert "failed-run: RuntimeError: boom" in reasons
    assert re.search(r"f1=0\.\d{3}", rows["done-run"])


def test_runs_json_agrees_with_the_exports(say, folder):
    by_id = {run["run_id"]: run for run in say("runs", "--json").data}
    last = json.loads((folder / "active_learning_logs" / "done-run" / "f1_metrology.json").read_text())[-1]
    assert by_id["done-run"]["metrics"]["f1"] == last["f1"]
    assert (by_id["failed-run"]["status"], by_id["failed-run"]["labels"]) == ("failed", 1)


def test_runs_of_an_empty_folder(here):
    assert here("runs").out.startswith("No runs in active_learning_logs.")
    assert here("runs", "--json").data == []


def test_show_has_curve_counts_and_timings(say):
    text = say("show", "done-run").out
    assert text.startswith("Run done-run: done (all 3 steps are done)")
    assert "data moons, query uq, learner mlp, label dummy, metrology f1; seed 0" in text
    assert max(map(len, text.splitlines())) <= 80
    curve, _, steps = text.partition("\nsteps, with the seconds to train, measure, query, label\n")
    assert [line.split()[:2] for line in curve.splitlines() if re.match(r" +\d", line)] == [
        ["0", "50"], ["1", "60"], ["2", "70"], ["3", "80"],
    ]  # fmt: skip
    header = steps.splitlines()[0]
    assert header.split() == ["step", "samples", "requested", "labeled", "loss", "train", "measure", "query", "label"]
    assert [line.split()[2:4] for line in steps.splitlines()[1:4]] == [["10", "10"]] * 3


def test_show_json_is_the_whole_run(say, folder, rows):
    data = say("show", "done-run", "--json").data
    path = folder / "active_learning_logs" / "done-run"
    assert data["metrics"]["f1_metrology"] == json.loads((path / "f1_metrology.json").read_text())
    assert [step["labeled"] for step in data["steps"]] == [10, 10, 10]
    assert all(set(step["seconds"]) == {"training", "metrology", "query", "labeling"} for step in data["steps"])
    assert (data["status"], data["seed"]) == ("done", 0)


def test_show_step_has_samples_and_scores(say, folder, requests_of):
    data = say("show", "done-run", "--step", "1", "--json").data
    asked = [request for request in requests_of(folder / "active_learning_logs" / "done-run") if request[0] == 1]
    assert [(request["sample"], request["score"]) for request in data["requests"]] == [
        (request[2], request[4]) for request in asked
    ]
    scores = [request["score"] for request in data["requests"]]
    assert scores == sorted(scores, reverse=True)
    text = say("show", "done-run", "--step", "1").out
    assert [line.split()[1] for line in text.splitlines()[2:]] == [str(request[2]) for request in asked]


def test_run_is_found_by_the_start_of_its_id_and_by_its_folder(say):
    whole = say("show", "done-run").out
    assert say("show", "done").out == whole
    assert say("show", "active_learning_logs/done-run").out == whole
    message = say("show", "dune-run", code=2).message
    assert "did you mean 'done-run'?" in message


def test_show_of_a_failed_run_has_the_reason(say):
    assert say("show", "failed-run").out.startswith("Run failed-run: failed (RuntimeError: boom")


def test_export_reproduces_the_last_record(say, folder, requests_of, tmp_path):
    import numpy as np
    import torch
    from alcore_moons import MLP, MoonsPool
    from safetensors.torch import load_file

    out = tmp_path / "out"
    printed = say("export", "done-run", "--output", out).out
    for name in ("labels.csv", "model.safetensors", "labeled.npz"):
        assert f"{out / name}: " in printed
    model = MLP()
    model.load_state_dict(load_file(out / "model.safetensors"))
    pool = MoonsPool(seed=0)
    inputs, targets = pool.evaluation()
    with torch.no_grad():
        positive = model(inputs)[:, 0] >= 0
    true, false = (int((positive & (targets == value)).sum()) for value in (1, 0))
    last = json.loads((folder / "active_learning_logs" / "done-run" / "f1_metrology.json").read_text())[-1]
    assert last["precision"] == pytest.approx(true / (true + false), abs=1e-12)
    assert last["recall"] == pytest.approx(true / int(targets.sum()), abs=1e-12)
    assert last["f1"] == pytest.approx(2 * true / (true + false + int(targets.sum())), abs=1e-12)
    assert 0 < last["f1"] < 1

    picks = [request[2] for request in requests_of(folder / "active_learning_logs" / "done-run")]
    with np.load(out / "labeled.npz") as arrays:
        assert arrays["ids"].tolist() == [*pool.labeled_ids.tolist(), *picks]
        np.testing.assert_array_equal(arrays["inputs"], inputs[arrays["ids"]].numpy())
        np.testing.assert_array_equal(arrays["targets"], targets[arrays["ids"]].numpy())
    with (out / "labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    asked = [row for row in labels if row["request"]]
    assert [int(row["sample"]) for row in asked] == picks
    assert {row["state"] for row in asked} == {"labeled"}
    assert [int(row["sample"]) for row in labels if not row["request"]] == pool.labeled_ids.tolist()
    assert json.loads((out / "info.json").read_text())["task"] == "classification"


def test_reading_changes_no_file_of_a_run(say, folder, tmp_path):
    path = folder / "active_learning_logs" / "seven"
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    say("show", "seven")
    say("runs")
    say("export", "seven", "--output", tmp_path / "x")
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
