"""A run appears complete or not at all, and keeps what is committed to it."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from alcore.errors import EncodingError, RunExistsError, RunLockedError, StaleWriterError, UsageError
from alcore.protocols import Request
from alcore.store import checkpoints, creation, run
from alcore.store.checkpoints import StagedCheckpoint
from alcore.store.lock import RunLock, is_locked
from alcore.store.reading import Run
from alcore.store.retention import Retention
from alcore.store.rows import AcceptedLabel, AskedRequest, Record, request_id
from alcore.store.run import RunStore
from alcore.store.steps import Steps

Create = Callable[..., RunStore]
STATE = {"model": {"w": torch.arange(3.0)}}


@pytest.fixture
def create(tmp_path: Path) -> Iterator[Create]:
    stores: list[RunStore] = []

    def make(run_id: str = "r1", root: Path = tmp_path / "root", **changes: Any) -> RunStore:
        given = {"meta": {"seed": 3, "status": "running"}, "experiment": "[driver]\n", "state": STATE, **changes}
        stores.append(RunStore.create(root, run_id, **given))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def asked(ordinal: int, item: Any = None, *, step: int = 0, cost: float = 1.0) -> AskedRequest:
    request = Request(request_id("r1", step, ordinal), step, ordinal, ordinal if item is None else item)
    sample = request.item if type(request.item) is int else None
    return AskedRequest(request, sample, "uq", 0.5 - ordinal, ordinal, cost)


def second_writer(store: RunStore) -> RunStore:
    """Open a run once more, as on a file system where locks do not work."""
    (store.folder / "lock").unlink()
    return RunStore.open(store.folder.parent, store.folder.name)


# -- creation --------------------------------------------------------------------------------------------


def test_new_run_is_complete_and_locked(create: Create) -> None:
    store = create()
    assert {path.name for path in store.folder.iterdir()} == {"run.db", "ckpt", "inbox", "lock", "experiment.toml"}
    assert {path.name for path in store.folder.parent.iterdir()} == {"r1"}
    assert (store.folder / "experiment.toml").read_text() == "[driver]\n"
    assert is_locked(store.folder)
    (first,) = Run(store.folder).checkpoints()
    assert (first["phase"], first["step"], first["epoch"]) == ("start", 0, 0)
    checkpoint = checkpoints.load(store.folder / "ckpt" / first["file"], first["sha256"])
    assert torch.equal(checkpoint["model"]["w"], STATE["model"]["w"])
    assert Run(store.folder).meta() == {"seed": 3, "status": "running"}


def test_nothing_is_visible_before_the_rename(create: Create, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    publish, rename = checkpoints.publish, Path.rename

    def look(*args: Any) -> Any:
        seen.append([path.name for path in (tmp_path / "root").iterdir() if not path.name.startswith(".")])
        return publish(*args)

    def look_again(self: Path, target: Path) -> Path:
        if self.is_dir():
            seen.append([path.name for path in (tmp_path / "root").iterdir() if not path.name.startswith(".")])
            assert not list(self.glob("*-journal"))
            opened = {path.resolve() for path in Path("/proc/self/fd").iterdir()}
            assert self / "run.db" not in opened  # SQLite can't write across the rename
            connection = sqlite3.connect(f"file:{self / 'run.db'}?mode=ro", uri=True)
            assert connection.execute("SELECT COUNT(*) FROM checkpoints").fetchone() == (1,)
            connection.close()
        return rename(self, target)

    monkeypatch.setattr(checkpoints, "publish", look)
    monkeypatch.setattr(Path, "rename", look_again)
    create()
    assert seen == [[], []]


@pytest.mark.parametrize("what", ["empty folder", "full folder", "file"])
def test_existing_target_is_refused_and_untouched(create: Create, tmp_path: Path, what: str) -> None:
    root, target = tmp_path / "root", tmp_path / "root" / "r1"
    root.mkdir()
    if what == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        if what == "full folder":
            (target / "thesis.txt").write_text("mine")
    before, inode = tree(root), target.stat().st_ino
    with pytest.raises(RunExistsError, match="run 'r1' exists already"):
        create()
    assert tree(root) == before
    assert target.stat().st_ino == inode


def test_existing_run_is_not_written_over(create: Create) -> None:
    store = create()
    store.close()
    before = tree(store.folder)
    with pytest.raises(RunExistsError, match=r"exists already in .*--run-id"):
        create(meta={"seed": 4})
    assert tree(store.folder) == before
    assert {path.name for path in store.folder.parent.iterdir()} == {"r1"}


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_symbolic_link_is_refused_as_a_run(create: Create, tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "r1").symlink_to(tmp_path / target)
    with pytest.raises(UsageError, match="symbolic link"):
        create()
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"r1"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("place", ["write_whole", "Database", "RunLock", "fsync_path"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_error_during_creation_leaves_nothing(
    create: Create, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(creation if place == "fsync_path" else run, place, fail)
        with pytest.raises(type(error)):
            create()
    assert not list((tmp_path / "root").iterdir())
    create()  # the lock and the name are free again


def test_state_that_cannot_be_stored_creates_nothing(create: Create, tmp_path: Path) -> None:
    with pytest.raises(EncodingError, match=r"^strategies\.uq"):
        create(state={"strategies": {"uq": object()}})
    assert not list((tmp_path / "root").iterdir())


def test_creation_that_fails_at_any_fsync_leaves_nothing_or_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SQLite's own tests do it: fail at operation 1, 2, 3 ... and look at what is there."""
    real, failed = os.fsync, 0
    for place in range(20):
        root, count = tmp_path / str(place), iter(range(100))

        def fsync(descriptor: int, place: int = place, count: Iterator[int] = count) -> None:
            if next(count) == place:
                raise OSError("disk full")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            RunStore.create(root, "r1", meta={}, experiment="", state=STATE).close()
        except (OSError, UsageError):
            failed += 1
        else:
            assert len(Run(root / "r1").checkpoints()) == 1
            break
        assert not [path for path in root.iterdir() if path.name.startswith(".")]
        if (root / "r1").exists():  # the very last flush, after the rename
            assert len(Run(root / "r1").checkpoints()) == 1
            assert not is_locked(root / "r1")
    assert failed >= 4


def test_second_writer_is_refused(create: Create) -> None:
    store = create()
    with pytest.raises(RunLockedError, match="run r1 is being written by process"):
        RunLock(store.folder)
    store.close()
    RunLock(store.folder).release()


# -- requests and records --------------------------------------------------------------------------------


def test_request_id_depends_on_run_step_and_ordinal() -> None:
    ids = {request_id(name, step, ordinal) for name in ("a", "b") for step in range(12) for ordinal in range(12)}
    assert len(ids) == 288
    assert all(len(id_) == 32 and int(id_, 16) >= 0 for id_ in ids)
    assert request_id("a", 0, 0) == hashlib.sha256(b"a/0/0").hexdigest()[:32]  # stored ids must keep their meaning


def test_commit_query_is_one_transaction(create: Create) -> None:
    store = create()
    with pytest.raises(EncodingError):
        store.commit_query(0, [asked(0)], [Record(0, "f1", 0, object())], "m")
    assert store.labels.labeling(0).open == []
    store.commit_query(0, [asked(0)], [Record(0, "f1", 0, {"f1": 0.5})], "m")
    assert [request.item for request in store.labels.labeling(0).open] == [0]
    assert Run(store.folder).records() == {"f1": [{"f1": 0.5}]}


def test_open_requests_come_back_as_they_were_made(create: Create) -> None:
    store = create()
    items = [7, torch.arange(3.0), {"x": (1, 2)}, "text", True, 2**62]
    store.commit_query(0, [asked(place, item) for place, item in enumerate(items)], [], "m")
    requests = store.labels.labeling(0).open
    assert [request.ordinal for request in requests] == list(range(6))
    assert [request.id for request in requests] == [request_id("r1", 0, ordinal) for ordinal in range(6)]
    assert requests[0].item == 7
    assert torch.equal(requests[1].item, items[1])
    assert [request.item for request in requests[2:]] == items[2:]
    assert requests[4].item is True


def test_scores_ranks_and_model_are_kept(create: Create) -> None:
    store = create()
    store.commit_query(0, [asked(0), asked(1, cost=2.5)], [], "abc")
    rows = Run(store.folder).requests()
    assert [(row["score"], row["rank"], row["model"], row["strategy"]) for row in rows] == [
        (0.5, 0, "abc", "uq"),
        (-0.5, 1, "abc", "uq"),
    ]
    assert store.costs.committed() == 3.5


# -- steps -----------------------------------------------------------------------------------------------


def test_commit_step_names_its_checkpoint(create: Create) -> None:
    store = create()
    store.commit_step(0, {"step": 0}, {"training": 0.25}, [Record(0, "f1", 0, 1.0)], STATE)
    store.commit_step(1, {"step": 1}, {}, [], None)
    stored = Run(store.folder)
    assert stored.steps() == [{"step": 0, "seconds": {"training": 0.25}}, {"step": 1, "seconds": {}}]
    assert [(checkpoint["step"], checkpoint["phase"]) for checkpoint in stored.checkpoints()] == [
        (0, "start"),
        (0, "labeling"),
    ]
    for checkpoint in stored.checkpoints():
        checkpoints.load(store.folder / "ckpt" / checkpoint["file"], checkpoint["sha256"])


def test_checkpoint_file_is_published_before_its_row(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    store = create()
    publish = StagedCheckpoint.publish

    def published(*args: Any) -> Any:
        done = publish(*args)
        assert (store.folder / "ckpt" / done.file).is_file()
        assert len(Run(store.folder).checkpoints()) == 1
        assert Run(store.folder).steps() == []
        return done

    monkeypatch.setattr(StagedCheckpoint, "publish", published)
    store.commit_step(0, {"step": 0}, {}, [], STATE)
    assert len(Run(store.folder).checkpoints()) == 2


def test_replay_with_another_result_replaces_the_checkpoint(create: Create) -> None:
    store = create()
    folder = store.folder / "ckpt"
    for value, number in [(1, ""), (2, "-2"), (3, ""), (3, "")]:
        store.commit_step(0, {"step": 0}, {}, [], {"model": {}, "value": value})
        store.commit_checkpoint(1, "training", 2, {"value": value})
        files = [f"000000-labeling-000000{number}", f"000001-training-000002{number}"]
        checkpoints_found = store.steps.checkpoints()
        assert [checkpoint["file"] for checkpoint in checkpoints_found] == [
            "initial.safetensors",
            *(f"{file}.safetensors" for file in files),
        ]
        assert {path.name for path in folder.iterdir()} == {checkpoint["file"] for checkpoint in checkpoints_found}
        assert [
            checkpoints.load(folder / checkpoint["file"], checkpoint["sha256"])["value"]
            for checkpoint in checkpoints_found[1:]
        ] == [value] * 2


def test_named_checkpoint_survives_a_replay_that_is_cut_off(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    store = create()
    store.commit_step(0, {"step": 0}, {}, [], {"value": 1})

    def cut(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "insert_records", cut)
        with pytest.raises(KeyboardInterrupt):
            store.commit_step(0, {"step": 0}, {}, [Record(0, "f1", 0, 1.0)], {"value": 2})
    last = store.steps.checkpoints()[-1]
    assert checkpoints.load(store.folder / "ckpt" / last["file"], last["sha256"]) == {"value": 1}
    store.close()
    again = RunStore.open(store.folder.parent, "r1")
    assert {path.name for path in (store.folder / "ckpt").iterdir()} == {"initial.safetensors", last["file"]}
    again.close()


def test_stale_writer_replaces_no_checkpoint(create: Create) -> None:
    stale = create()
    stale.commit_step(0, {"step": 0}, {}, [], {"value": 1})
    successor = second_writer(stale)
    successor.commit_step(1, {"step": 1}, {}, [], {"value": 1})
    for step in range(3):
        with pytest.raises(StaleWriterError):
            stale.commit_step(step, {"step": step}, {}, [], {"value": 2})
        with pytest.raises(StaleWriterError):
            stale.commit_checkpoint(step, "labeling", 0, {"value": 2})
    files = {checkpoint["file"]: checkpoint["sha256"] for checkpoint in successor.steps.checkpoints()}
    assert {path.name for path in (successor.folder / "ckpt").iterdir()} == set(files)
    for file, sha256 in files.items():
        checkpoints.load(successor.folder / "ckpt" / file, sha256)
    for writer in (successor, stale):
        writer.close()


def test_failed_checkpoint_commits_no_step(create: Create) -> None:
    store = create()
    with pytest.raises(EncodingError):
        store.commit_step(0, {"step": 0}, {}, [], {"x": object()})
    assert Run(store.folder).steps() == []
    assert len(list((store.folder / "ckpt").iterdir())) == 1


def test_checkpoints_are_listed_oldest_first(create: Create) -> None:
    store = create()
    store.commit_step(0, {"step": 0}, {}, [], STATE)
    for epoch in (2, 10):
        store.commit_checkpoint(1, "training", epoch, STATE)
    store.commit_step(1, {"step": 1}, {}, [], STATE)
    places = [
        (checkpoint["step"], checkpoint["phase"], checkpoint["epoch"]) for checkpoint in Run(store.folder).checkpoints()
    ]
    assert places == [
        (0, "start", 0), (0, "labeling", 0), (1, "training", 2), (1, "training", 10), (1, "labeling", 0),
    ]  # fmt: skip


def test_finish_commits_and_exports(create: Create) -> None:
    store = create()
    store.finish([Record(3, "f1", 0, {"f1": 1.0})], status="done", reason="all 3 steps are done")
    assert (store.folder / "driver_log.json").exists()
    assert (store.folder / "f1.json").exists()
    store.close()
    meta = Run(store.folder).meta()
    assert (meta["status"], meta["reason"], meta["seed"]) == ("done", "all 3 steps are done", 3)


def test_exports_are_written_at_most_once_a_second(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(run.time, "monotonic", lambda: now)
    store = create()
    log = store.folder / "driver_log.json"
    store.commit_step(0, {"step": 0}, {}, [], None)
    assert not log.exists()
    now = 1.0
    store.commit_step(1, {"step": 1}, {}, [], None)
    inode = log.stat().st_ino
    now = 1.9
    store.commit_step(2, {"step": 2}, {}, [], None)
    assert log.stat().st_ino == inode
    now = 2.0
    store.commit_step(3, {"step": 3}, {}, [], None)
    assert log.stat().st_ino != inode


def test_exports_that_take_long_are_written_less_often(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time that they take, which grows with the run, would be spent each second."""
    now, took = 0.0, iter([0.0, 0.5, 0.0, 0.001])
    monkeypatch.setattr(run.time, "monotonic", lambda: now)
    monkeypatch.setattr(run.time, "perf_counter", lambda: next(took))
    store = create()
    written = []
    for step, now in enumerate([1.0, 25.9, 26.0, 26.9, 27.0]):  # noqa: B007 - the clock reads it
        log = store.folder / "driver_log.json"
        before = log.stat().st_ino if log.exists() else None
        if step == 4:
            took = iter([0.0, 0.0])
        store.commit_step(step, {"step": step}, {}, [], None)
        written.append(log.stat().st_ino != before)
    assert written == [True, False, True, False, True]


def test_closing_twice_does_nothing(create: Create) -> None:
    store = create()
    store.close()
    store.close()
    assert not is_locked(store.folder)


# -- opening -------------------------------------------------------------------------------------------------


def test_opening_removes_unnamed_files_from_the_checkpoint_folder(create: Create) -> None:
    store = create()
    store.commit_step(0, {"step": 0}, {}, [], STATE)
    store.close()
    folder, before = store.folder / "ckpt", {checkpoint["file"] for checkpoint in Run(store.folder).checkpoints()}
    for name in ("000007-labeling-000000.safetensors", ".000001-training-000001.0a1b2c3d.part", ".tmpq1w2e3", "mine"):
        (folder / name).write_text("x")
    (folder / "link").symlink_to("../experiment.toml")
    (folder / "folder").mkdir()
    RunStore.open(store.folder.parent, "r1").close()
    assert {path.name for path in folder.iterdir()} == {*before, "link", "folder"}
    assert (store.folder / "experiment.toml").exists()


def test_opening_goes_on_if_unnamed_files_cannot_be_removed(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    store = create()
    store.close()
    (store.folder / "ckpt" / "mine").write_text("x")

    def fail(path: Path, **_: Any) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(Path, "unlink", fail)
    RunStore.open(store.folder.parent, "r1").close()
    assert (store.folder / "ckpt" / "mine").exists()


def test_opening_a_locked_run_removes_nothing(create: Create) -> None:
    store = create()
    (store.folder / "ckpt" / ".000000-labeling-000000.0a1b2c3d.part").write_text("half")
    with pytest.raises(RunLockedError, match=r"wait for it to end, or stop it\.$"):
        RunStore.open(store.folder.parent, "r1")
    assert len(list((store.folder / "ckpt").iterdir())) == 2


def test_opening_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run 'r1' in .*`alcore runs` lists"):
        RunStore.open(tmp_path, "r1")
    assert list(tmp_path.iterdir()) == []


# -- cost ----------------------------------------------------------------------------------------------------


def test_each_act_of_a_run_is_one_transaction_and_a_labeling_phase_is_read_in_one(create: Create) -> None:
    store = create()
    statements: list[str] = []
    store._database._connection.set_trace_callback(statements.append)

    def count(act: Callable[[], Any]) -> tuple[int, int]:
        """Return the number of transactions that write, and of those that read."""
        statements.clear()
        act()
        return statements.count("BEGIN IMMEDIATE"), statements.count("BEGIN")

    first = asked(0)

    def answer() -> None:
        with store.answering(0) as writer:
            writer.accept(first.request, AcceptedLabel(first.request, 0, "id", "", None, 1.0))
            writer.keep_state("state")

    assert count(lambda: store.commit_query(0, [first], [Record(0, "f1", 0, 1.0)], "m")) == (1, 0)
    assert count(lambda: store.labels.labeling(0)) == (0, 1)
    assert count(answer) == (1, 0)
    assert count(lambda: store.commit_checkpoint(0, "training", 1, STATE)) == (1, 0)
    assert count(lambda: store.commit_step(0, {"step": 0}, {}, [], STATE)) == (1, 0)
    assert count(lambda: store.commit_step(1, {"step": 1}, {}, [], STATE)) == (1, 0)
    assert count(lambda: store.prune(Retention())) == (1, 1)
    assert count(lambda: store.prune(Retention())) == (0, 1)
