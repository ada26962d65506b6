"""A fork begins with what was committed at the end of a step, and goes on as the run itself would."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tampering import forged

import alcore
from alcore import Driver, Failed, Label, UsageError
from alcore.errors import RunExistsError
from alcore.store.fork import fork_run
from alcore.store.reading import Run
from alcore.strategies import BaseLabel, BaseMetrology, BaseQuery

Make = Callable[..., Driver]
TABLES = {
    "requests": "step, ordinal", "labels": "rowid", "refused": "rowid", "queries": "step",
    "records": "strategy, step, ordinal", "steps": "step", "checkpoints": "file", "label_strategy": "step",
}  # fmt: skip


class Wandering(BaseQuery):
    """Draws from the global generators, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        (ids,) = self.driver.candidates()
        places = torch.randperm(len(ids))[: 2 + self.calls % 2]
        query_queue.put_many(ids[places].tolist(), [random.random() for _ in places])
        query_queue.put(torch.rand(2))

    def state_dict(self) -> Mapping[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


class Late(BaseLabel):
    """Answers most requests one step later, fails at some, and gives up others; draws from global generators."""

    def __init__(self, drawing: bool = True) -> None:
        self.drawing, self.answers = drawing, 0

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        step, later = self.driver.active_learning_step_idx, []
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            if request.step == step and request.ordinal % 3:
                later.append(request)
                continue
            self.answers += 1
            if request.ordinal == 1 and request.step % 2 and request.attempt <= request.step:
                serialize_queue.put(Failed(request, "not now"))
            elif isinstance(request.item, int):
                value = int(self.drawing and torch.rand(()) + self.answers % 2 > 1)
                serialize_queue.put(Label(request, 1 - value, source="noise", cost=2.0))
                serialize_queue.put(Label(request, value, source="noise", cost=2.0))
            else:
                serialize_queue.put(Label(request, 1, source="noise"))
        for request in later:
            queue_to_label.give_back(request)

    def state_dict(self) -> Mapping[str, Any]:
        return {"answers": self.answers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.answers = state["answers"]


class Stateless(Late):
    """Gives the same answers whatever it gave before."""

    state_dict = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(drawing=False)


class Mean(BaseMetrology):
    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.append_record(mean=float(self.driver.infer(self.driver.train_datapool.inputs(torch.arange(40))).mean()))


class Snapshots:
    """Copies the run directory at the end of each step."""

    @alcore.runhook
    def alcore_step_end(self, driver: Any, record: Any) -> None:
        shutil.copytree(driver.log_dir, driver.log_dir.parent / f"at-{record['step']}")


@pytest.fixture
def make(build: Make, toys: Any) -> Make:
    def new(run_id: str, *plugins: Any, label: Callable[[], Any] = Late, **config: Any) -> Driver:
        torch.manual_seed(7)
        random.seed(7)
        return build(
            **{
                "run_id": run_id,
                "max_active_learning_steps": 5,
                "label_retries": 2,
                "query_strategies": [Wandering()],
                "label_strategy": label(),
                "metrology_strategies": [Mean()],
                "learner": torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1)),
                "train_datapool": toys.pool(),
                "plugins": list(plugins),
                **config,
            }
        )

    return new


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return every row of a run but what tells the time."""
    times = {"arrived", "seconds"}
    return {
        table: [
            {name: value for name, value in dict(row).items() if name not in times and "digest" not in name}
            for row in Run(folder).read(f"SELECT * FROM {table} ORDER BY {order}")
        ]
        for table, order in TABLES.items()
    }


def without_ids(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    place = {request["id"]: f"{request['step']}/{request['ordinal']}" for request in rows["requests"]}
    pattern = re.compile("|".join(place))

    def named(value: Any) -> Any:
        return pattern.sub(lambda found: place[found[0]], value) if isinstance(value, str) else value

    return {
        table: [{name: named(value) for name, value in row.items()} for row in content]
        for table, content in rows.items()
    }


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def checkpoint_files(folder: Path) -> dict[str, bytes]:
    return files(folder / "ckpt")


INTERVALS: dict[str, dict[str, Any]] = {
    "each step": {},
    "each epoch": {"model_checkpoint_frequency": 1},
    "every second step": {"checkpoint_interval": 2, "label": Stateless},
    "none but the first": {"checkpoint_interval": 0, "label": Stateless},
    "thinned": {"keep": "last=1,every=2", "label": Stateless},
}


@pytest.mark.parametrize("name", INTERVALS)
def test_fork_is_what_was_committed_and_goes_on_as_the_run_itself(make: Make, name: str) -> None:
    settings = INTERVALS[name]
    whole = make("whole", Snapshots(), **settings)
    whole.run()
    root, expected = whole.log_dir.parent, without_ids(tables(whole.log_dir))
    assert {request["state"] for request in expected["requests"]} == {"open", "labeled", "failed"}
    for step in range(5):
        made = fork_run(Run(whole.log_dir), step, run_id=f"fork-{step}")
        assert made.folder == root / f"fork-{step}"
        assert made.warnings == []
        then = tables(root / f"at-{step}")
        if name == "thinned":  # what has been dropped since is not to be had any more
            named = {checkpoint["file"] for checkpoint in expected["checkpoints"]}
            then["checkpoints"] = [checkpoint for checkpoint in then["checkpoints"] if checkpoint["file"] in named]
        assert tables(made.folder) == then
        assert set(checkpoint_files(made.folder)) == {checkpoint["file"] for checkpoint in then["checkpoints"]}
        assert checkpoint_files(made.folder).items() <= checkpoint_files(root / f"at-{step}").items()
        meta = Run(made.folder).meta()
        assert (meta["status"], meta["forked_from"], meta["forked_at"]) == ("interrupted", "whole", step)
        again = make(made.folder.name, **settings)
        again.restore()
        again.run()
        contents = without_ids(tables(made.folder))
        if name == "thinned":
            del contents["checkpoints"]
            assert contents == {table: rows for table, rows in expected.items() if table != "checkpoints"}
        else:
            assert contents == expected
            assert checkpoint_files(made.folder) == checkpoint_files(whole.log_dir)
        assert Run(made.folder).meta()["reason"] == Run(whole.log_dir).meta()["reason"]


def test_every_table_is_compared(make: Make) -> None:
    whole = make("whole", max_active_learning_steps=0)
    whole.run()
    tables = {row["name"] for row in Run(whole.log_dir).read("SELECT name FROM sqlite_master WHERE type = 'table'")}
    others = {"run", "writer", "digests"}
    assert tables == {*TABLES, *others}, "say in alcore.store.transfer.copy_until what a fork keeps of a new table"


def test_old_requests_keep_their_ids_and_new_ones_get_their_own(make: Make) -> None:
    whole = make("whole")
    whole.run()
    made = fork_run(Run(whole.log_dir), 1, run_id="fork")
    again = make("fork")
    again.restore()
    again.run()
    ids = [{request["id"] for request in Run(folder).requests()} for folder in (whole.log_dir, made.folder)]
    assert ids[0] & ids[1] == {request["id"] for step in (0, 1) for request in Run(whole.log_dir).requests(step)}
    assert len(ids[0]) == len(ids[1])


def test_nothing_of_later_steps_is_left_in_the_database_file(make: Make) -> None:
    whole = make("whole")
    whole.run()
    made = fork_run(Run(whole.log_dir), 0)
    later = {request["id"] for step in range(1, 5) for request in Run(whole.log_dir).requests(step)}
    content = (made.folder / "run.db").read_bytes()
    assert later
    assert not [text for text in later if text.encode() in content]
    assert [tuple(row) for row in Run(made.folder).read("PRAGMA freelist_count")] == [(0,)]


def test_fork_has_the_folder_of_a_run(make: Make) -> None:
    whole = make("whole")
    whole.run()
    made = fork_run(Run(whole.log_dir), 2)
    assert len(made.folder.name) == 8
    assert {path.name for path in made.folder.iterdir()} == {
        "run.db", "ckpt", "inbox", "lock", "experiment.toml", "driver_log.json", "mean.json"
    }  # fmt: skip
    assert (made.folder / "experiment.toml").read_bytes() == (whole.log_dir / "experiment.toml").read_bytes()
    assert list((made.folder / "inbox").iterdir()) == []
    assert made.checkpoint == "000002-labeling-000000.safetensors"
    meta, original = Run(made.folder).meta(), Run(whole.log_dir).meta()
    assert meta["run_id"] == made.folder.name
    assert {"ended", "reason", "error"}.isdisjoint(meta)
    for name in ("seed", "environment", "pools", "names"):
        assert meta[name] == original[name]


def test_damage_to_the_fork_leaves_the_original_untouched(make: Make) -> None:
    whole = make("whole")
    whole.run()
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in whole.log_dir.rglob("*")}
    content = files(whole.log_dir)
    made = fork_run(Run(whole.log_dir), 3)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in whole.log_dir.rglob("*")} == before
    mine = [path for path in made.folder.rglob("*") if path.is_file()]
    assert len(mine) > 8
    assert not {path.stat().st_ino for path in mine} & {inode for inode, _ in before.values()}
    assert not [path for path in mine if path.is_symlink() or path.stat().st_nlink != 1]
    for path in mine:
        path.write_bytes(b"x" * path.stat().st_size)
    shutil.rmtree(made.folder)
    assert files(whole.log_dir) == content
    again = make("whole", max_active_learning_steps=6)
    again.restore()
    again.run()


def test_run_can_be_forked_while_it_goes_on(make: Make) -> None:
    class Forking:
        @alcore.runhook
        def alcore_step_end(self, driver: Any, record: Any) -> None:
            if record["step"] == 2:
                fork_run(Run(driver.log_dir), 1, run_id="fork")

    whole = make("whole", Forking())
    whole.run()
    again = make("fork")
    again.restore()
    again.run()
    contents = [without_ids(tables(whole.log_dir.parent / name)) for name in ("whole", "fork")]
    assert contents[0] == contents[1]


def test_checkpoint_that_the_running_source_prunes_meanwhile_is_left_out(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make("whole", label=Stateless)
    whole.run()
    run, copy = Run(whole.log_dir), Run.copy_database

    def prune(self: Run, target: Path, step: int) -> None:
        copy(self, target, step)
        with sqlite3.connect(self.folder / "run.db") as connection:
            connection.execute("DELETE FROM checkpoints WHERE step = 1")
        for path in (self.folder / "ckpt").glob("000001*"):
            path.unlink()

    monkeypatch.setattr(Run, "copy_database", prune)
    made = fork_run(run, 1)
    assert made.warnings == []
    assert made.checkpoint == "000000-labeling-000000.safetensors"
    assert [checkpoint["step"] for checkpoint in Run(made.folder).checkpoints()] == [0, 0]


@pytest.mark.parametrize("how", ["missing", "changed"])
def test_damaged_checkpoint_is_left_out_with_a_warning(make: Make, how: str) -> None:
    whole = make("whole", label=Stateless)
    whole.run()
    path = whole.log_dir / "ckpt" / "000002-labeling-000000.safetensors"
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    made = fork_run(Run(whole.log_dir), 2, run_id="fork")
    (warning,) = made.warnings
    assert "000002-labeling-000000.safetensors is left out, since it is damaged: its" in warning
    assert made.checkpoint == "000001-labeling-000000.safetensors"
    assert not (made.folder / "ckpt" / path.name).exists()
    again = make("fork", label=Stateless)
    again.restore()
    again.run()
    contents = [without_ids(tables(folder)) for folder in (whole.log_dir, made.folder)]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("step", range(5))
def test_fork_without_a_checkpoint_has_the_label_strategy_state_of_its_step(make: Make, step: int) -> None:
    whole = make("whole", checkpoint_interval=0)
    whole.run()
    made = fork_run(Run(whole.log_dir), step, run_id="fork")
    assert made.warnings == []
    again = make("fork", checkpoint_interval=0)
    again.restore()
    again.run()
    contents = [without_ids(tables(folder)) for folder in (whole.log_dir, made.folder)]
    assert contents[0] == contents[1]


def test_fork_at_the_last_step_keeps_the_label_strategy_state(make: Make) -> None:
    whole = make("whole", checkpoint_interval=0)
    whole.run()
    made = fork_run(Run(whole.log_dir), 4)
    assert made.warnings == []
    ours, theirs = (
        [tuple(row) for row in Run(folder).read("SELECT step, state FROM label_strategy ORDER BY step")]
        for folder in (made.folder, whole.log_dir)
    )
    assert ours == theirs
    assert len(ours) > 1


def test_answer_that_was_corrected_later_is_current_again(make: Make) -> None:
    whole = make("whole", label=Stateless)
    whole.run()
    with forged(whole.log_dir) as connection:
        key, old = connection.execute(
            "SELECT request, rowid FROM labels WHERE step = 1 AND superseded = 0 ORDER BY rowid LIMIT 1"
        ).fetchone()
        connection.execute("UPDATE labels SET superseded = 1 WHERE rowid = ?", (old,))
        values = "(?, 3, 'noise', 0, 'label', '9', NULL, 2.0, 0.0, '', 0, '')"
        connection.execute(f"INSERT INTO labels VALUES {values}", (key,))
    made = fork_run(Run(whole.log_dir), 2)
    rows = Run(made.folder).read("SELECT value, superseded FROM labels WHERE request = ? ORDER BY rowid", key)
    assert [row["superseded"] for row in rows] == [1, 0]
    assert rows[-1]["value"] != "9"


def test_attempts_of_later_steps_are_not_counted(make: Make) -> None:
    whole = make("whole", label=Stateless)
    whole.run()
    with forged(whole.log_dir) as connection:
        (key,) = connection.execute("SELECT request FROM labels WHERE step = 2 ORDER BY rowid LIMIT 1").fetchone()
        connection.execute("DELETE FROM labels WHERE request = ?", (key,))
        connection.execute("UPDATE requests SET state = 'open', closed = NULL, attempt = 2 WHERE id = ?", (key,))
        connection.executemany(
            "INSERT INTO refused VALUES (?, ?, 'timeout', '', 'not now', NULL, 0.0, '')",
            [(key, step) for step in (2, 4)],
        )
    made = fork_run(Run(whole.log_dir), 2)
    ((attempt, state),) = Run(made.folder).read("SELECT attempt, state FROM requests WHERE id = ?", key)
    assert (attempt, state) == (1, "open")


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "nearest"), [(-1, 0), (2, 1), (99, 1)])
def test_missing_step_is_refused(make: Make, step: int, nearest: int) -> None:
    whole = make("whole", max_active_learning_steps=2)
    whole.run()
    with pytest.raises(UsageError, match=f"no step {step}; it has 0 to 1: fork it with --step {nearest}"):
        fork_run(Run(whole.log_dir), step, run_id="fork")
    assert {path.name for path in whole.log_dir.parent.iterdir()} == {"whole"}


def test_run_without_a_finished_step_is_refused(make: Make) -> None:
    whole = make("whole", max_active_learning_steps=0)
    whole.run()
    with pytest.raises(UsageError, match="has finished no step yet"):
        fork_run(Run(whole.log_dir), 0)


def test_step_under_way_is_refused(make: Make) -> None:
    class Early:
        @alcore.runhook
        def alcore_phase_start(self, driver: Any, phase: Any) -> None:
            if driver.active_learning_step_idx == 1 and phase == "labeling":
                with pytest.raises(UsageError, match="no step 1; it has 0 to 0"):
                    fork_run(Run(driver.log_dir), 1)
                seen.append(phase)

    seen: list[Any] = []
    make("whole", Early(), max_active_learning_steps=2).run()
    assert len(seen) == 1


@pytest.mark.parametrize("target", ["whole", "empty", "file"])
def test_existing_target_is_refused_and_untouched(make: Make, target: str) -> None:
    whole = make("whole", max_active_learning_steps=1)
    whole.run()
    root = whole.log_dir.parent
    (root / "empty").mkdir()
    (root / "file").write_text("mine")
    before = files(root)
    with pytest.raises(RunExistsError, match=f"run '{target}' exists already"):
        fork_run(Run(whole.log_dir), 0, run_id=target)
    assert files(root) == before
    assert sorted(path.name for path in root.glob("[!.]*")) == ["empty", "file", "whole"]


def test_run_id_that_leads_out_of_the_root_is_refused(make: Make) -> None:
    whole = make("whole", max_active_learning_steps=1)
    whole.run()
    with pytest.raises(UsageError, match="run id"):
        fork_run(Run(whole.log_dir), 0, run_id="../out")


def test_damaged_first_checkpoint_is_refused(make: Make) -> None:
    whole = make("whole", max_active_learning_steps=1)
    whole.run()
    (whole.log_dir / "ckpt" / "initial.safetensors").unlink()
    with pytest.raises(UsageError, match=r"initial\.safetensors is damaged: its file is missing"):
        fork_run(Run(whole.log_dir), 0, run_id="fork")
    assert {path.name for path in whole.log_dir.parent.iterdir()} == {"whole"}


def test_fork_that_fails_at_any_fsync_leaves_nothing_or_a_whole_run(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make("whole", max_active_learning_steps=2)
    whole.run()
    real, failed = os.fsync, 0
    for place in range(40):
        passed = iter(range(100))

        def fsync(descriptor: int, place: int = place, passed: Any = passed) -> None:
            if next(passed) == place:
                raise OSError("disk full")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        folder = whole.log_dir.parent / f"fork-{place}"
        try:
            fork_run(Run(whole.log_dir), 1, run_id=folder.name)
        except alcore.AlcoreError:
            failed += 1
            assert not [path for path in folder.parent.iterdir() if path.name.startswith(".alcore-building")]
            assert not folder.exists() or len(Run(folder).checkpoints()) == 3
        else:
            break
    assert failed >= 6
