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
from alcore.store import retention
from alcore.store.database import Database
from alcore.store.retention import Retention, parse, prune, remove_litter, to_drop
from alcore.store.run import RunStore
from alcore.store.statements import Record

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
        ("best", Retention(best=True)),
        ("best=f1", Retention(best=True, metric="f1")),
        ("best=f1:max", Retention(best=True, metric="f1")),
        ("best=loss:min", Retention(best=True, metric="loss", lowest=True)),
        ("best=top:1:max", Retention(best=True, metric="top:1")),
        ("last=3,best,every=10", Retention(3, 10, True)),
        (" every = 2 , best = f1_metrology.f1 ", Retention(every=2, best=True, metric="f1_metrology.f1")),
    ],
)
def test_texts(text: str | None, expected: Retention | None) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lst=3", "keep 'lst=3': 'lst=3' is no rule: did you mean 'last'"),
        ("", "'' is no rule"),
        ("last=3,", "'' is no rule"),
        ("last", "last takes a whole number of at least 1, for instance last=3"),
        ("last=0", "last takes a whole number"),
        ("last=-1", "last takes a whole number"),
        ("last=2.5", "last takes a whole number"),
        ("last=٣", "last takes a whole number"),
        ("last=1_0", "last takes a whole number"),
        ("every=x", "every takes a whole number of at least 1, for instance every=3"),
        ("every=0", "every takes a whole number"),
        ("last=1,last=2", "'last' stands there twice"),
        ("best,best=f1", "'best' stands there twice"),
        ("all,last=1", "'all' keeps every checkpoint, so it stands alone"),
        ("all=1", "'all=1' is no rule"),
        ("best=", "name the metric"),
        ("best=:min", "name the metric"),
        ("best=f1:mim", "after f1: stands 'mim': did you mean 'min'"),
        (3, "keep is 3; it must be a text, for instance last=3"),
    ],
)
def test_texts_that_say_nothing_useful_are_refused(text: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
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
    best=st.booleans(),
    lowest=st.booleans(),
)
SCORES = st.dictionaries(st.integers(0, 8), st.sampled_from([0.0, 0.25, 0.5, -1.0, 1e9]))


def brute_force(rows: Sequence[Any], keep: Retention, scores: dict[int, float], intact: str) -> list[str]:
    """Ask of each checkpoint in turn whether any rule wants it."""
    ends = [one for one in rows if one["phase"] == "labeling" and one["step"] in scores]
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
            or one["file"] == intact
            or (ends_step and keep.every is not None and (one["step"] + 1) % keep.every == 0)
            or (keep.best and one in ends and not beaten(one))
        )

    return [one["file"] for place, one in enumerate(rows) if not wanted(place, one)]


@given(histories(), KEEPS, SCORES, st.data())
def test_the_choice_is_that_of_every_rule_asked_in_turn(rows: Any, keep: Retention, scores: Any, data: Any) -> None:
    intact = data.draw(st.sampled_from([one["file"] for one in rows]))
    dropped = to_drop(rows, keep, scores, intact)
    assert dropped == brute_force(rows, keep, scores, intact)
    left = [one for one in rows if one["file"] not in dropped]
    assert {INITIAL, rows[-1]["file"], intact} <= {one["file"] for one in left}
    assert to_drop(left, keep, scores, intact) == [], "a second time there is nothing more to drop"
    assert to_drop(rows, keep, scores, None) == []


@given(histories(), KEEPS, SCORES)
def test_dropping_at_each_step_leaves_what_dropping_once_leaves(rows: Any, keep: Retention, scores: Any) -> None:
    """So that a run which was cut off between a commit and its pruning ends with the same checkpoints."""
    scores = {step: scores.get(step, 0.0) for step in range(9)}
    left: list[dict[str, Any]] = []
    for place, one in enumerate(rows):
        left.append(one)
        if one["phase"] == "labeling" or place == len(rows) - 1:
            gone = to_drop(
                left, keep, {step: score for step, score in scores.items() if step <= one["step"]}, one["file"]
            )
            left = [other for other in left if other["file"] not in gone]
    gone = to_drop(rows, keep, scores, rows[-1]["file"])
    once = [other for other in rows if other["file"] not in gone]
    if not keep.best or any(one["phase"] == "labeling" for one in rows):
        assert left == once


def test_an_every_counts_steps_from_one() -> None:
    rows = [row(0, "start"), *(row(step, "labeling") for step in range(8))]
    left = {one["file"] for one in rows} - set(to_drop(rows, Retention(every=3), {}, end(7)))
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
    return {one["file"] for one in store.checkpoints()}


def pruned(store: RunStore, text: str) -> retention.Pruned:
    keep = parse(text)
    assert keep is not None
    return prune(store.database, store.folder / "ckpt", keep)


def tables(store: RunStore) -> dict[str, Any]:
    names = ["meta", "steps", "requests", "labels", "refused", "queries", "records"]
    return {name: [tuple(one) for one in store.database.read(f"SELECT * FROM {name}")] for name in names}


def test_rows_and_files_go_and_nothing_else(store: RunStore) -> None:
    for step in range(5):
        commit(store, step, f1(step, 0.5))
    before = tables(store)
    assert pruned(store, "last=2") == ([end(0), end(1), end(2)], [])
    assert named(store) == on_disk(store) == {INITIAL, end(3), end(4)}
    assert tables(store) == before
    assert pruned(store, "last=2") == ([], [])


@pytest.mark.parametrize(
    ("text", "best"),
    [("best=f1", 1), ("best", 1), ("best=f1_metrology.f1:max", 1), ("best=f1:min", 2), ("best=loss:min", 3),
     ("best=accuracy", 0)],
)  # fmt: skip
def test_the_best_step(store: RunStore, text: str, best: int) -> None:
    for step, (value, loss) in enumerate([(0.5, 3.0), (0.9, 2.0), (0.1, 4.0), (0.9, 1.0), (0.3, 5.0)]):
        commit(store, step, f1(step, value), losses={"loss": loss})
    assert pruned(store, text).warnings == []
    assert named(store) == on_disk(store) == {INITIAL, end(best), end(4)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.99", True, 10**400, torch.tensor(2.0)])
def test_what_is_no_finite_number_is_never_the_best(store: RunStore, value: Any) -> None:
    for step, one in enumerate([0.5, value, 0.2, 0.1]):
        commit(store, step, f1(step, one))
    pruned(store, "best=f1")
    assert named(store) == {INITIAL, end(0), end(3)}


def test_integers_count_where_they_are_named(store: RunStore) -> None:
    for step, hits in enumerate([2, 7, 5]):
        commit(store, step, Record(step, "count", 0, {"hits": hits, 3: 0}), Record(step, "count", 1, [3]))
    pruned(store, "best=hits")
    assert named(store) == {INITIAL, end(1), end(2)}


def test_of_equal_names_the_first_strategy_counts_and_of_its_records_the_last(store: RunStore) -> None:
    for step, (first, second, last) in enumerate([(0.9, 0.1, 0.2), (0.1, 0.2, 0.3), (0.2, 0.3, 0.1), (0.0, 0.0, 0.0)]):
        commit(
            store,
            step,
            Record(step, "b", 0, {"score": 1.0 - last}),
            Record(step, "a", 0, {"score": first}),
            Record(step, "a", 1, {"score": second}),
            losses={"score": -float(step == 0)},
        )
    before = store.database.read("SELECT * FROM checkpoints")
    pruned(store, "best=score")
    assert named(store) == {INITIAL, end(2), end(3)}
    with store.database.transaction() as connection:
        connection.executemany("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)", map(tuple, before))
    pruned(store, "best=b.score:min")
    assert named(store) == {INITIAL, end(1), end(3)}


def test_a_best_without_a_name_is_the_first_fraction_where_there_is_no_f1(store: RunStore) -> None:
    for step, (mean, other) in enumerate([(0.1, 0.9), (0.3, 0.8), (0.2, 0.7), (0.0, 0.6)]):
        commit(store, step, Record(step, "smoothed", 0, {"of": 9 - step, "mean": mean, "other": other}))
    pruned(store, "best")
    assert named(store) == {INITIAL, end(1), end(3)}


@pytest.mark.parametrize("text", ["last=1,best=f2", "best"])
def test_nothing_is_dropped_while_nobody_measures_what_the_best_is(store: RunStore, text: str) -> None:
    for step in range(3):
        commit(store, step, Record(step, "count", 0, {"hits": step, 3: 4}), losses={"loss": 0.1})
    (warning,) = pruned(store, text).warnings
    assert "no checkpoint is dropped, since no step has recorded" in warning
    assert "hits" in warning
    assert named(store) == on_disk(store) == {INITIAL, end(0), end(1), end(2)}


def test_checkpoints_inside_training_count_as_the_newest_only(store: RunStore) -> None:
    for step in range(3):
        for epoch in (1, 2):
            store.commit_checkpoint(step, "training", epoch, {"step": step, "epoch": epoch})
        commit(store, step, f1(step, 0.5 - step))
    pruned(store, "last=2,every=1,best=f1")
    assert named(store) == {INITIAL, end(0), end(1), inside(2, 2), end(2)}


def damage(store: RunStore, file: str) -> None:
    path = store.folder / "ckpt" / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_newest_intact_one_is_kept(store: RunStore) -> None:
    for step in range(5):
        commit(store, step)
    damage(store, end(4))
    (store.folder / "ckpt" / end(3)).unlink()
    dropped, warnings = pruned(store, "last=1")
    assert dropped == [end(0), end(1), end(3)]
    assert named(store) == {INITIAL, end(2), end(4)}
    assert [end(4) in warnings[0], end(3) in warnings[1], len(warnings)] == [True, True, 2]


def test_where_nothing_is_intact_nothing_is_dropped(store: RunStore) -> None:
    for step in range(3):
        commit(store, step)
    for file in named(store):
        damage(store, file)
    assert pruned(store, "last=1").dropped == []
    assert named(store) == on_disk(store) == {INITIAL, end(0), end(1), end(2)}


def test_files_are_removed_after_their_rows_are_gone_for_good(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(3):
        commit(store, step)
    seen: list[set[str]] = []
    unlink = Path.unlink

    def look(self: Path, **options: Any) -> None:
        with sqlite3.connect(store.folder / "run.db") as connection:
            seen.append({one[0] for one in connection.execute("SELECT file FROM checkpoints")})
        unlink(self, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", look)
        pruned(store, "last=1")
    assert seen == [{INITIAL, end(2)}] * 2


@pytest.mark.parametrize("survives", [0, 1])
def test_what_a_crash_between_rows_and_files_left_is_gone_at_the_next_opening(
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
            pruned(store, "last=1")
    assert named(store) == {INITIAL, end(3)}
    assert on_disk(store) > named(store)
    store.close()
    again = RunStore.open(store.folder.parent, "r1")
    assert on_disk(again) == named(again) == {INITIAL, end(3)}
    again.close()


def test_litter_is_what_checkpoints_are_called_and_nobody_names(store: RunStore) -> None:
    commit(store, 0)
    folder = store.folder / "ckpt"
    litter = [end(7), inside(1, 3), f"1{end(7)}", f".{end(1)[:-12]}.0a1b2c3d.part", ".tmpz4iq1c"]
    own = [
        "mine.safetensors",
        "notes.part",
        f"{end(8)}.txt",
        f"copy-{end(8)}",
        ".tmp",
        ".tmpfolder1",
        ".best.part",
        f"{end(7)[:-12]}-1.safetensors",
        "000009-labeling-000000.safetensorz",
    ]
    for name in [*litter, *own]:
        (folder / name).write_text("x")
    (folder / f".{end(2)[:-12]}.0a1b2c3d.part").mkdir()
    remove_litter(store.database, folder)
    assert on_disk(store) == {INITIAL, end(0), *own, f".{end(2)[:-12]}.0a1b2c3d.part"}


def test_litter_that_cannot_be_removed_hurts_nobody(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store, 0)
    (store.folder / "ckpt" / end(7)).write_text("x")

    def fail(path: Path, **_: Any) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(Path, "unlink", fail)
    remove_litter(store.database, store.folder / "ckpt")
    assert on_disk(store) == {INITIAL, end(0), end(7)}


def test_a_writer_that_was_taken_over_drops_nothing(store: RunStore) -> None:
    for step in range(3):
        commit(store, step)
    Database(store.folder / "run.db").close()
    with pytest.raises(StaleWriterError):
        pruned(store, "last=1")
    assert len(on_disk(store)) == 4


def test_a_driver_prunes_at_the_end_of_each_step(build: Callable[..., Any]) -> None:
    seen: list[int] = []

    class Watch:
        from alcore import runhook

        @runhook
        def alcore_step_end(self, driver: Any) -> None:
            seen.append(len(list((driver.log_dir / "ckpt").iterdir())))

    driver = build(keep="last=2", max_active_learning_steps=5, plugins=[Watch()])
    driver.run()
    assert seen == [2, 3, 3, 3, 3]


def test_a_driver_warns_once(build: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    driver = build(keep="best=f2", max_active_learning_steps=3)
    driver.run()
    assert caplog.text.count("no checkpoint is dropped") == 1
    assert len(list((driver.log_dir / "ckpt").iterdir())) == 4


def test_a_driver_refuses_what_can_not_be_read(build: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="did you mean 'every'"):
        build(keep="evry=2")
