"""What is read of runs: equal to the records, again only where something has changed, and damage as such."""

from __future__ import annotations

import os
import time

import pytest
from alcore_web import Runs
from alcore_web.runs import MissingRunError

from alcore.errors import UsageError
from alcore.store import Run


def by_name(runs: Runs) -> dict:
    return {row.name: row for row in runs.rows()}


def test_rows_say_what_the_records_say(kept):
    rows = by_name(Runs(kept))
    assert set(rows) == {"moons", "reasons", "failed", "bench/uq-0", "bench/uq-1"}
    run, row = Run(kept / "moons"), rows["moons"]
    assert (row.outcome, row.steps, row.limit, row.labels) == ("done", 3, 3, 21)
    last = run.records()["f1_metrology"][-1]
    assert row.metrics == {name: last[name] for name in ("precision", "recall", "f1", "accuracy")}
    assert (row.metric, row.on) == (f"f1 {last['f1']:.3f}", "pool")
    assert row.parts | {"seed": "0"} == row.parts
    assert [row.parts[kind] for kind in ("data", "query", "learner", "label")] == ["moons", "uq", "mlp", "dummy"]
    assert row.started == run.meta()["started"][:19].replace("T", " ")
    assert rows["failed"].outcome == "failed"
    assert rows["reasons"].limit == 3


def test_details_are_those_of_the_records(kept):
    detail, run = Runs(kept).detail("moons", verify=True), Run(kept / "moons")
    records = run.records()["f1_metrology"]
    assert detail.curves[0].name == "f1_metrology: f1"
    assert list(detail.curves[0].points) == [(record["train_samples"], record["f1"]) for record in records]
    losses = [(step["train_samples"], step["losses"]["loss"]) for step in run.steps()]
    assert (detail.curves[-1].name, list(detail.curves[-1].points)) == ("training loss", losses)
    assert detail.picked_in == 2
    assert list(detail.picks) == run.requests(2)
    assert detail.picked == {"open": 0, "labeled": 7, "failed": 0}
    assert detail.log[-1].endswith("run moons ends: all 3 steps are done")
    assert (detail.pending, detail.doing, detail.seconds_left) == ([], "", None)


def test_requests_without_a_label_come_with_their_reasons(kept):
    detail, run = Runs(kept).detail("reasons"), Run(kept / "reasons")
    assert list(detail.pending) == run.unlabeled_requests()[:20]
    states = [request["state"] for request in run.requests()]
    assert detail.requested == {state: states.count(state) for state in ("open", "labeled", "failed")}
    assert detail.requested["failed"] == detail.reasons[0]["count"] == 3


def test_a_running_run_says_its_phase(paced, tmp_path):
    runs = Runs(tmp_path / "root")
    assert by_name(runs)["live"].outcome == "running"
    assert runs.detail("live").doing == "step 0, labeling, 0 of 4 labels"
    paced.go_on()
    paced.wait()
    assert runs.detail("live").doing == "step 1, labeling, 0 of 4 labels"
    assert by_name(runs)["live"].steps == 1
    paced.end()
    assert (by_name(runs)["live"].outcome, runs.detail("live").doing) == ("done", "")


def test_what_has_not_changed_is_not_read_again(root, monkeypatch):
    for folder in root.rglob("run.db"):
        os.utime(folder, (time.time() - 60,) * 2)
    runs = Runs(root)
    before = runs.rows()
    read = []
    summary = Run.summary
    monkeypatch.setattr(Run, "summary", lambda run: read.append(run.folder.name) or summary(run))
    assert runs.rows() == before
    assert read == []
    os.utime(root / "moons" / "run.db", (time.time() - 30,) * 2)
    assert runs.rows() == before
    assert read == ["moons"]


def test_a_run_that_was_just_written_is_read_again_since_time_stamps_are_coarse(root, monkeypatch):
    runs = Runs(root)
    os.utime(root / "moons" / "run.db")
    runs.rows()
    read = []
    summary = Run.summary
    monkeypatch.setattr(Run, "summary", lambda run: read.append(run.folder.name) or summary(run))
    runs.rows()
    assert "moons" in read


def test_damaged_runs_and_links_are_shown_as_such(root):
    (root / "moons" / "run.db").write_bytes(b"no database")
    (root / "linked").symlink_to(root / "reasons")
    deep = root / "failed" / "experiment.toml"
    deep.write_text("a = " + "[" * 100_000)
    rows = by_name(Runs(root))
    assert (rows["moons"].outcome, rows["linked"].outcome) == ("unreadable", "unreadable")
    assert "file is not a database" in rows["moons"].reason
    assert "is a symbolic link, which is not followed" in rows["linked"].reason
    assert (rows["failed"].outcome, rows["failed"].parts["data"]) == ("failed", "")
    with pytest.raises(UsageError, match="symbolic link"):
        Runs(root).detail("linked")


@pytest.mark.parametrize("name", ["mons", "../root/moons", "/etc", "bench", "bench/../moons", "", "."])
def test_only_listed_runs_can_be_named(root, name):
    with pytest.raises(MissingRunError, match="there is no run"):
        Runs(root).detail(name)


def test_a_folder_may_appear_later(tmp_path):
    runs = Runs(tmp_path / "later")
    assert runs.rows() == []
    (tmp_path / "later").mkdir()
    assert runs.rows() == []
