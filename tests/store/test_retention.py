"""Which checkpoints are kept: the text, the choice, and what a crash in the middle leaves."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore.errors import StaleWriterError, UsageError
from alcore.store.database import Database
from alcore.store.reading import Run
from alcore.store.retention import Retention, parse_retention, to_drop
from alcore.store.rows import Record
from alcore.store.run import RunStore

INITIAL = "initial.safetensors"


def end(step: int) -> str:
    return f"{step:06d}-labeling-000000.safetensors"


def inside(step: int, epoch: int) -> str:
    return f"{step:06d}-training-{epoch:06d}.safetensors"


# -- the text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("all", None),
        (" all ", None),
        ("last=3", Retention(last=3)),
        ("every=10", Retention(every=10)),
        ("best=f1", Retention(best="f1")),
        ("best=f1:max", Retention(best="f1")),
        ("best=loss:min", Retention(best="loss", lowest=True)),
        ("best=top:1:max", Retention(best="top:1")),
        ("last=3,best=f1,every=10", Retention(3, 10, "f1")),
        (" every = 2 , best = f1_metrology.f1 ", Retention(every=2, best="f1_metrology.f1")),
    ],
)
def test_text_is_read_as_a_retention(text: str | None, expected: Retention | None) -> None:
    assert parse_retention(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lst=3", "keep 'lst=3': 'lst=3' is not a rule: did you mean 'last'"),
        ("", "'' is not a rule"),
        ("last=3,", "'' is not a rule"),
        ("last", "last takes a whole number of at least 1, for instance last=3"),
        ("last=0", "last takes a whole number"),
        ("last=-1", "last takes a whole number"),
        ("last=2.5", "last takes a whole number"),
        ("last=٣", "last takes a whole number"),
        ("last=1_0", "last takes a whole number"),
        ("every=x", "every takes a whole number of at least 1, for instance every=3"),
        ("every=0", "every takes a whole number"),
        ("last=1,last=2", "'last' is given twice"),
        ("best=f1,best=f1", "'best' is given twice"),
        ("best", "best takes the name of a metric, for instance best=f1 or best=loss:min"),
        ("all,last=1", "'all' keeps every checkpoint, so it stands alone"),
        ("all=1", "'all=1' is not a rule"),
        ("best=", "takes the name of a metric"),
        ("best=:min", "takes the name of a metric"),
        ("best=f1:mim", "'mim' follows f1:; did you mean 'min'"),
        (3, "keep is 3; it must be a text, for instance last=3"),
    ],
)
def test_text_that_is_not_a_retention_is_refused(text: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_retention(text)
    assert words in str(caught.value)


# -- the choice ------------------------------------------------------------------------------------------


def row(step: int, phase: str, epoch: int = 0) -> dict[str, Any]:
    file = {"start": INITIAL, "training": inside(step, epoch), "labeling": end(step)}[phase]
    return {"file": file, "step": step, "phase": phase, "epoch": epoch}


@st.composite
def histories(draw: Any) -> list[dict[str, Any]]:
    rows = [row(0, "start")]
    for step in range(draw(st.integers(0, 8))):
        rows += [row(step, "training", epoch) for epoch in range(1, draw(st.integers(0, 2)) + 1)]
        rows += [row(step, "labeling")] if draw(st.booleans()) else []
    return rows


KEEPS = st.builds(
    Retention,
    last=st.integers(1, 5),
    every=st.none() | st.integers(1, 4),
    best=st.none() | st.just("f1"),
    lowest=st.booleans(),
)
SCORES = st.dictionaries(st.integers(0, 8), st.sampled_from([0.0, 0.25, 0.5, -1.0, 1e9]))


def dropped_of(rows: Sequence[Any], keep: Retention, scores: dict[int, float]) -> list[str]:
    return to_drop(rows, keep, {step: {"f1": score, "other": -score} for step, score in scores.items()})[0]


def brute_force(rows: Sequence[Any], keep: Retention, scores: dict[int, float]) -> list[str]:
    """Ask of each checkpoint in turn whether any rule keeps it."""
    ends = [checkpoint for checkpoint in rows if checkpoint["phase"] == "labeling" and checkpoint["step"] in scores]
    if keep.best and not ends:
        return []

    def beaten(one: Any) -> bool:
        mine = scores[one["step"]]
        for other in ends:
            theirs = scores[other["step"]]
            if (theirs < mine) if keep.lowest else (theirs > mine):
                return True
            if theirs == mine and other["step"] < one["step"]:
                return True
        return False

    def wanted(place: int, one: Any) -> bool:
        newer = len(rows) - 1 - place
        ends_step = one["phase"] == "labeling"
        return (
            one["phase"] == "start"
            or newer < keep.last
            or (ends_step and keep.every is not None and (one["step"] + 1) % keep.every == 0)
            or (keep.best is not None and one in ends and not beaten(one))
        )

    return [one["file"] for place, one in enumerate(rows) if not wanted(place, one)]


@given(histories(), KEEPS, SCORES)
def test_choice_equals_that_of_every_rule_asked_in_turn(rows: Any, keep: Retention, scores: Any) -> None:
    dropped = dropped_of(rows, keep, scores)
    assert dropped == brute_force(rows, keep, scores)
    left = [checkpoint for checkpoint in rows if checkpoint["file"] not in dropped]
    assert {INITIAL, rows[-1]["file"]} <= {checkpoint["file"] for checkpoint in left}
    assert dropped_of(left, keep, scores) == [], "a second time there is nothing more to drop"


@given(histories(), KEEPS, SCORES)
def test_pruning_at_each_step_leaves_what_pruning_once_leaves(rows: Any, keep: Retention, scores: Any) -> None:
    """So that a run which was cut off between a commit and its pruning ends with the same checkpoints."""
    scores = {step: scores.get(step, 0.0) for step in range(9)}
    left: list[dict[str, Any]] = []
    for place, one in enumerate(rows):
        left.append(one)
        if one["phase"] == "labeling" or place == len(rows) - 1:
            gone = dropped_of(left, keep, {step: score for step, score in scores.items() if step <= one["step"]})
            left = [other for other in left if other["file"] not in gone]
    gone = dropped_of(rows, keep, scores)
    once = [other for other in rows if other["file"] not in gone]
    if not keep.best or any(checkpoint["phase"] == "labeling" for checkpoint in rows):
        assert left == once


def test_every_counts_steps_from_one() -> None:
    rows = [row(0, "start"), *(row(step, "labeling") for step in range(8))]
    left = {checkpoint["file"] for checkpoint in rows} - set(dropped_of(rows, Retention(every=3), {}))
    assert left == {INITIAL, end(2), end(5), end(7)}


# -- the act ---------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    made = RunStore.create(
        tmp_path, "r1", meta={"status": "running"}, experiment="", state={"model": {"w": torch.zeros(2)}}
    )
    yield made
    made.close()


def commit(store: RunStore, step: int, *records: Record, losses: dict[str, Any] | None = None) -> None:
    state = {"model": {"w": torch.full((2,), float(step))}}
    store.commit_step(step, {"step": step, "losses": losses or {}}, {}, records, state)


def f1(step: int, value: Any) -> Record:
    return Record(step, "f1_metrology", 0, {"step": step, "accuracy": 0.5, "f1": value})


def on_disk(store: RunStore) -> set[str]:
    return {path.name for path in (store.folder / "ckpt").iterdir()}


def named(store: RunStore) -> set[str]:
    return {checkpoint["file"] for checkpoint in store.steps.checkpoints()}


def prune(store: RunStore, text: str) -> list[str]:
    """Prune; return the warnings."""
    keep = parse_retention(text)
    assert keep is not None
    return store.prune(keep)


def tables(store: RunStore) -> dict[str, Any]:
    names = ["run", "writer", "label_strategy", "steps", "requests", "labels", "refused", "queries", "records"]
    return {name: [tuple(fields) for fields in Run(store.folder).read(f"SELECT * FROM {name}")] for name in names}


def test_prune_deletes_rows_and_files_and_nothing_else(store: RunStore) -> None:
    for step in range(5):
        commit(store, step, f1(step, 0.5))
    before = tables(store)
    assert prune(store, "last=2") == []
    assert named(store) == on_disk(store) == {INITIAL, end(3), end(4)}
    assert tables(store) == before
    assert prune(store, "last=2") == []
    assert named(store) == on_disk(store) == {INITIAL, end(3), end(4)}


@pytest.mark.parametrize(
    ("text", "best"),
    [("best=f1", 1), ("best=f1_metrology.f1:max", 1), ("best=f1:min", 2), ("best=loss:min", 3),
     ("best=accuracy", 0)],
)  # fmt: skip
def test_best_step_is_kept(store: RunStore, text: str, best: int) -> None:
    for step, (value, loss) in enumerate([(0.5, 3.0), (0.9, 2.0), (0.1, 4.0), (0.9, 1.0), (0.3, 5.0)]):
        commit(store, step, f1(step, value), losses={"loss": loss})
    assert prune(store, text) == []
    assert named(store) == on_disk(store) == {INITIAL, end(best), end(4)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.99", True, 10**400, torch.tensor(2.0)])
def test_value_that_is_not_a_finite_number_is_never_the_best(store: RunStore, value: Any) -> None:
    for step, one in enumerate([0.5, value, 0.2, 0.1]):
        commit(store, step, f1(step, one))
    prune(store, "best=f1")
    assert named(store) == {INITIAL, end(0), end(3)}


def test_best_may_be_an_integer(store: RunStore) -> None:
    for step, hits in enumerate([2, 7, 5]):
        commit(store, step, Record(step, "count", 0, {"hits": hits, 3: 0}), Record(step, "count", 1, [3]))
    prune(store, "best=hits")
    assert named(store) == {INITIAL, end(1), end(2)}


def test_best_of_equal_names_is_of_the_first_strategy_and_its_last_record(store: RunStore) -> None:
    for step, (first, second, last) in enumerate([(0.9, 0.1, 0.2), (0.1, 0.2, 0.3), (0.2, 0.3, 0.1), (0.0, 0.0, 0.0)]):
        commit(
            store,
            step,
            Record(step, "b", 0, {"score": 1.0 - last}),
            Record(step, "a", 0, {"score": first}),
            Record(step, "a", 1, {"score": second}),
            losses={"score": -float(step == 0)},
        )
    before = Run(store.folder).checkpoints()
    prune(store, "best=score")
    assert named(store) == {INITIAL, end(2), end(3)}
    for row in before:
        place = row["step"], row["phase"], row["epoch"]
        store.steps.name_checkpoint(*place, row["file"], row["sha256"], row["bytes"])
    prune(store, "best=b.score:min")
    assert named(store) == {INITIAL, end(1), end(3)}


def test_nothing_is_dropped_while_the_metric_is_not_measured(store: RunStore) -> None:
    for step in range(3):
        commit(store, step, Record(step, "count", 0, {"hits": step, 3: 4}), losses={"loss": 0.1})
    (warning,) = prune(store, "last=1,best=f2")
    assert "no checkpoint is deleted, since no step has recorded 'f2'" in warning
    assert "hits" in warning
    assert named(store) == on_disk(store) == {INITIAL, end(0), end(1), end(2)}


def test_checkpoint_inside_training_is_kept_by_last_alone(store: RunStore) -> None:
    for step in range(3):
        for epoch in (1, 2):
            store.commit_checkpoint(step, "training", epoch, {"step": step, "epoch": epoch})
        commit(store, step, f1(step, 0.5 - step))
    prune(store, "last=2,every=1,best=f1")
    assert named(store) == {INITIAL, end(0), end(1), inside(2, 2), end(2)}


def test_damaged_last_checkpoint_is_kept(store: RunStore) -> None:
    for step in range(3):
        commit(store, step)
    (store.folder / "ckpt" / end(2)).write_bytes(b"damaged")
    assert prune(store, "last=1") == []
    assert named(store) == on_disk(store) == {INITIAL, end(2)}


def test_pruning_reads_no_checkpoint_file(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(3):
        commit(store, step)
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("a file is read"))
    prune(store, "last=1")
    assert named(store) == {INITIAL, end(2)}


def test_files_are_removed_after_their_rows_are_committed(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(3):
        commit(store, step)
    seen: list[set[str]] = []
    unlink = Path.unlink

    def look(self: Path, **options: Any) -> None:
        with sqlite3.connect(store.folder / "run.db") as connection:
            seen.append({fields[0] for fields in connection.execute("SELECT file FROM checkpoints")})
        unlink(self, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", look)
        prune(store, "last=1")
    assert seen == [{INITIAL, end(2)}] * 2


@pytest.mark.parametrize("survives", [0, 1])
def test_files_that_a_crash_left_are_removed_at_the_next_opening(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    for step in range(4):
        commit(store, step)
    unlink, done = Path.unlink, iter(range(9))

    def crash(self: Path, **options: Any) -> None:
        if next(done) == survives:
            raise KeyboardInterrupt
        unlink(self, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", crash)
        with pytest.raises(KeyboardInterrupt):
            prune(store, "last=1")
    assert named(store) == {INITIAL, end(3)}
    assert on_disk(store) > named(store)
    store.close()
    again = RunStore.open(store.folder.parent, "r1")
    assert on_disk(again) == named(again) == {INITIAL, end(3)}
    again.close()


def test_stale_writer_prunes_nothing(store: RunStore) -> None:
    for step in range(3):
        commit(store, step)
    Database(store.folder / "run.db").close()
    with pytest.raises(StaleWriterError):
        prune(store, "last=1")
    assert len(on_disk(store)) == 4


def test_driver_prunes_at_the_end_of_each_step(build: Callable[..., Any]) -> None:
    seen: list[int] = []

    class Watch:
        from alcore import runhook

        @runhook
        def alcore_step_end(self, driver: Any) -> None:
            seen.append(len(list((driver.log_dir / "ckpt").iterdir())))

    driver = build(keep="last=2", max_active_learning_steps=5, plugins=[Watch()])
    driver.run()
    assert seen == [2, 3, 3, 3, 3]


def test_driver_warns_once_of_a_metric_that_is_not_measured(
    build: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    driver = build(keep="best=f2", max_active_learning_steps=3)
    driver.run()
    assert caplog.text.count("no checkpoint is deleted") == 1
    assert len(list((driver.log_dir / "ckpt").iterdir())) == 4


def test_driver_refuses_a_text_that_is_not_a_retention(build: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="did you mean 'every'"):
        build(keep="evry=2")
