"""Whatever is changed in the file of a database is seen, and said; or it makes no difference.

``python tests/store/test_verification.py --flips 1000`` flips more bits than the test does.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))
from helpers.tampering import forged

from alcore.codec import dumps
from alcore.errors import UsageError
from alcore.protocols import Label, Request
from alcore.store import digests, schema
from alcore.store.database import Database
from alcore.store.fork import fork_run
from alcore.store.lock import RunLock
from alcore.store.reading import Run, find_run, summaries
from alcore.store.rows import AcceptedLabel, AskedRequest, Record, request_id
from alcore.store.run import RunStore

STEPS, PICKS = 5, 3
RUN_TABLES = [*digests.CHAINED, *digests.CHANGING]


def make_run(root: Path, seed: int = 3) -> Path:
    """Make a run with something in every table."""
    store = RunStore.create(
        root, "r1", meta={"run_id": "r1", "seed": seed, "status": "running", "started": "2026-01-01"}, experiment="",
        state={"model": {"w": torch.zeros(3)}},
    )  # fmt: skip
    for step in range(STEPS):
        requests = [Request(request_id("r1", step, n), step, n, 10 * step + n) for n in range(PICKS)]
        asked = [AskedRequest(one, one.item, "uq", 0.25, n, 1.0) for n, one in enumerate(requests)]
        generated = Request(request_id("r1", step, PICKS), step, PICKS, [step, 0.5])
        asked.append(AskedRequest(generated, None, "gan", None, 0, 2.0))
        store.commit_query(step, asked, [Record(step, "f1", 0, {"f1": step / 7})], "model")
        store.requests.mark_taken(requests[:1])
        store.requests.set_handle(requests[0], "job")
        with store.answering(step) as writer:
            for n, request in enumerate(requests[:2]):
                writer.accept(request, _label(request, n))
            writer.accept(requests[1], _label(requests[1], 5), corrects=True)
            writer.refuse(requests[2].id, "7", "it broke", kind="timeout", cost=0.5)
            writer.retry(requests[2].id, 1)
            writer.keep_state(f"after step {step}")
            writer.note_inbox_file(f"{step}.json")
        store.commit_step(step, {"step": step, "labeled": 2}, {"query": 0.5}, [], {"model": {"w": torch.ones(3)}})
    store.finish([], status="done", reason="all 5 steps are done", error=None)
    store.close()
    return store.folder


def _label(request: Request, value: Any) -> AcceptedLabel:
    return AcceptedLabel(request, Label(request.item, value), "label", "ann", dumps(value), 1.5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def _no_garbage_collector() -> Iterator[None]:
    """What is freed in the test has no references left."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "root" / "r1"))


def everything(folder: Path) -> dict[str, Any]:
    """Return all that anybody reads of a run."""
    run = Run(folder)
    return {
        **run.decisions(), "meta": run.meta(), "steps": run.steps(), "records": run.records(), "all": run.requests(),
        "refused": run.refused(), "checkpoints": run.checkpoints(), "without a label": run.unlabeled_requests(),
    }  # fmt: skip


def change(run: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(run / "run.db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def refusal(run: Path) -> str:
    """Return what reading and opening say of a damaged run, which is the same; nothing is changed by it."""
    before = (run / "run.db").read_bytes()
    with pytest.raises(UsageError, match="is damaged") as reading:
        find_run(run.parent, "r1")
    with pytest.raises(UsageError) as opening:
        RunStore.open(run.parent, "r1")
    assert str(reading.value) == str(opening.value)
    assert (run / "run.db").read_bytes() == before
    RunLock(run).release()  # nobody holds it
    return str(reading.value)


def test_sound_run_passes(whole: Path, run: Path) -> None:
    assert find_run(run.parent, "r1").folder == run
    RunStore.open(run.parent, "r1").close()
    made = fork_run(Run(run), 2, run_id="forked")
    Run(made.folder).verify()
    RunStore.open(run.parent, "forked").close()
    assert everything(run) == everything(whole)


# -- rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("table", RUN_TABLES)
def test_deleted_row_is_seen(run: Path, table: str, place: str) -> None:
    key = digests.CHANGING.get(table, "rowid")
    with contextlib.closing(sqlite3.connect(run / "run.db")) as connection:
        keys = [row[0] for row in connection.execute(f"SELECT {key} FROM {table} ORDER BY {key}")]
        chosen = keys[{"first": 0, "middle": len(keys) // 2, "last": -1}[place]]
        connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (chosen,))
        connection.commit()
    assert f"table {table}" in refusal(run)


def columns() -> list[tuple[str, str]]:
    """Return every column of every table."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.create(connection)
        return [
            (table, row[1])
            for table in [*RUN_TABLES, "digests"]
            for row in connection.execute(f"PRAGMA table_info({table})")
        ]


@pytest.mark.parametrize(("table", "column"), columns())
def test_changed_value_is_seen(run: Path, table: str, column: str) -> None:
    """Of each column: another value of its type, if the table takes it."""
    order = digests.CHANGING.get(table, "name" if table == "digests" else "rowid")
    with contextlib.closing(sqlite3.connect(run / "run.db")) as connection:
        some = f"WHERE {column} NOT NULL" if column in ("item", "sample") else ""
        rows = connection.execute(f"SELECT {order}, {column} FROM {table} {some} ORDER BY {order}").fetchall()
        key, value = rows[len(rows) // 2]
        others = {
            int: [value + 1, value + 100] if isinstance(value, int) else [], float: [0.125], bytes: [b"x" * 16],
            str: [f"{value}0"], type(None): [7, "7", 0.5],
        }[type(value)]  # fmt: skip
        others += ["labeled", "failed", "repeat", "object"]
        for other in (other for other in others if other != value):
            with contextlib.suppress(sqlite3.IntegrityError):
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {order} = ?", (other, key))
                break
        else:
            pytest.fail("no other value could be written")
        connection.commit()
    refusal(run)


def test_values_of_two_runs_that_are_swapped_are_seen(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", seed=4)
    change(
        run,
        f"ATTACH '{other / 'run.db'}' AS theirs",
        "UPDATE run SET (value, digest) = (SELECT value, digest FROM theirs.run WHERE key = 'seed') WHERE key = 'seed'",
    )
    assert "table run" in refusal(run)


def test_rows_in_another_order_are_seen(run: Path) -> None:
    change(
        run,
        "UPDATE labels SET rowid = 900 WHERE rowid = 4",
        "UPDATE labels SET rowid = 4 WHERE rowid = 5",
        "UPDATE labels SET rowid = 5 WHERE rowid = 900",
    )
    assert "table labels" in refusal(run)


def test_older_state_of_a_row_with_its_own_digest_is_seen_where_a_label_is_there(run: Path) -> None:
    """As where a page of an older version of the file is in place of a newer one."""
    key = request_id("r1", 1, 0)
    change(
        run,
        "DELETE FROM labels WHERE request = '" + key + "'",
    )
    refusal(run)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TRIGGER evil AFTER INSERT ON labels BEGIN UPDATE labels SET cost = 0; END", "trigger 'evil'"),
        ("CREATE VIEW evil AS SELECT * FROM labels", "view 'evil'"),
        ("CREATE TABLE evil(x)", "table 'evil'"),
        ("CREATE INDEX evil ON labels(cost)", "index 'evil'"),
        ("DROP INDEX label_of_step", "index 'label_of_step', which is gone"),
        ("ALTER TABLE steps ADD COLUMN evil", "table 'steps', which is changed"),
        ("ALTER TABLE labels RENAME TO evil", "index 'current_label', which is changed"),
    ],
)
def test_what_is_planted_in_the_schema_is_named(run: Path, statement: str, words: str) -> None:
    change(run, statement)
    assert words in refusal(run)


# -- what is said ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "sound"),
    [
        ("UPDATE labels SET cost = 9 WHERE rowid = 10", 2),  # the first of step 3; it might be of the step before it
        ("UPDATE labels SET cost = 9 WHERE rowid = 11", 2),
        ("UPDATE requests SET attempt = 9 WHERE step = 2 AND ordinal = 1", 1),
        ("DELETE FROM records WHERE step = 4", 2),
        ("UPDATE steps SET record = '{}' WHERE step = 0", -1),
        ("UPDATE run SET value = '9' WHERE key = 'seed'", -1),
        ("UPDATE run SET value = '9' WHERE key = 'reason'", 4),
        ("UPDATE writer SET value = '9'", 4),
        ("UPDATE checkpoints SET bytes = 9 WHERE step = 3", 2),
        ("DELETE FROM checkpoints WHERE step = 3", 4),
        ("UPDATE label_strategy SET state = 'x' WHERE step = 2", 1),
    ],
)
def test_newest_sound_step_is_named_and_can_be_forked(whole: Path, run: Path, statement: str, sound: int) -> None:
    change(run, statement)
    said = refusal(run)
    if sound < 0:
        assert "No step of it is sure to be sound: restore the run directory from a copy" in said
        with pytest.raises(UsageError, match="is damaged"):
            fork_run(Run(run), 0)
        return
    step = int(said.partition("Its steps up to ")[2].split()[0])
    assert step <= sound <= step + 1, "at most one step is given up that is sound"
    assert f"alcore fork r1 --step {step} makes a run of them" in said
    made = fork_run(Run(run), step, run_id="saved")
    expected = fork_run(Run(whole), step, run_id="expected", root=run.parent)
    Run(made.folder).verify()
    mine, theirs = (everything(run.folder) for run in (made, expected))
    for rows_of_run in (mine, theirs):
        rows_of_run["meta"] = {key: rows_of_run["meta"][key] for key in ("seed", "status", "forked_at")}
        rows_of_run["checkpoints"] = [
            row for row in rows_of_run["checkpoints"] if "DELETE FROM checkpoints" not in statement
        ]
    assert mine == theirs
    if step < STEPS - 1:
        with pytest.raises(UsageError, match="is damaged"):
            fork_run(Run(run), STEPS - 1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE run SET value = '{' WHERE key = 'seed'",
        "UPDATE run SET value = '{\"$later\": 1}' WHERE key = 'seed'",
        "UPDATE records SET value = '[' WHERE step = 2",
        "UPDATE steps SET record = '7' WHERE step = 2",
        "UPDATE steps SET seconds = 'x' WHERE step = 2",
        "UPDATE labels SET value = '{\"$tensor\": 1}' WHERE step = 2",
        "UPDATE requests SET sample = NULL, item = '{' WHERE step = 2 AND ordinal = 1",
        "UPDATE records SET value = CAST(x'ff41' AS TEXT) WHERE step = 2",
        "UPDATE requests SET strategy = CAST(x'fffe' AS TEXT) WHERE step = 2",
        "UPDATE labels SET file = 'ab', value = NULL WHERE step = 2",
    ],
)
@pytest.mark.usefixtures("_no_garbage_collector")
def test_value_that_does_not_decode_is_told_without_a_traceback(run: Path, statement: str) -> None:
    """Even where somebody has made the digests fit."""
    with forged(run) as connection:
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        connection.execute(statement)
    failures: list[str] = []
    acts: list[Callable[[], Any]] = [
        lambda: everything(run), lambda: [Run(run).label_text(request) for request in Run(run).requests()],
        lambda: list(summaries(run.parent)), lambda: fork_run(Run(run), 3, run_id="forked"), lambda: _write(run),
    ]  # fmt: skip
    for act in acts:
        try:
            act()
        except UsageError as error:
            failures.append(str(error))
    assert failures
    assert all("run.db" in failure or "labels" in failure for failure in failures)
    with contextlib.closing(sqlite3.connect(run / "run.db", timeout=0)) as connection:
        connection.execute("BEGIN EXCLUSIVE")  # no cursor of a read that failed holds a lock


def _write(run: Path) -> None:
    """Do what a driver does that goes on with a run."""
    store = RunStore.open(run.parent, "r1")
    try:
        (
            store.meta(),
            store.steps.checkpoints(),
            store.steps.last(),
            store.requests.in_flight(),
            store.labels.strategy_state(),
        )
        for step in range(STEPS):
            (
                store.labels.labeling(step),
                store.labels.accepted(step),
                store.requests.asked(step),
                store.steps.records(step, "f1"),
            )
        store.export()
    finally:
        store.close()


def test_digests_are_right_after_whatever_was_written(whole: Path, run: Path) -> None:
    """What is kept up from row to row is what is made of all rows at once."""
    with contextlib.closing(sqlite3.connect(run / "run.db")) as connection:
        before = [
            list(connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")) for table in [*RUN_TABLES, "digests"]
        ]
    with forged(run):
        pass
    with contextlib.closing(sqlite3.connect(run / "run.db")) as connection:
        after = [list(connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")) for table in [*RUN_TABLES, "digests"]]
    assert after == before


def test_other_writers_are_not_kept_waiting_by_what_was_verified(run: Path) -> None:
    stored = find_run(run.parent, "r1")
    database = Database(run / "run.db")
    with database.transaction():
        pass
    assert stored.meta()["seed"] == 3
    database.close()


# -- bits ------------------------------------------------------------------------------------------------


def flipped(whole: Path, place: Path, number: int) -> str:
    """Flip a bit of the file, and return what became of it: ``seen``, ``same``, or what is wrong."""
    draw = random.Random(number)
    root = place / str(number)
    run = Path(shutil.copytree(whole, root / "r1"))
    content = bytearray((run / "run.db").read_bytes())
    places = [range(100), range(len(content)), *2 * [[n for n, byte in enumerate(content) if byte]]][number % 4]
    at = draw.choice(places)  # the header of the file, and what is in use, more often than their shares
    content[at] ^= 1 << draw.randrange(8)
    (run / "run.db").write_bytes(content)
    try:
        try:
            find_run(root, "r1")
            tables = everything(run)
        except UsageError as error:
            if "run.db" not in str(error):
                return f"byte {at}: its message names no file: {error}"
        else:
            return "same" if tables == everything(whole) else f"byte {at}: it is another run, and nobody says so"
        list(summaries(root))
        with contextlib.suppress(UsageError):
            fork_run(Run(run), 1, run_id="forked")
        if (root / "forked").exists() and everything(root / "forked")["labels"] != everything(whole)["labels"][: 3 * 2]:
            return f"byte {at}: the fork of what is said to be sound is another run"
        try:
            RunStore.open(root, "r1").close()
        except UsageError:
            return "seen"
        return f"byte {at}: it is opened all the same"
    except Exception as error:  # noqa: BLE001 - a traceback is what must not be
        return f"byte {at}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(root)


def test_flipped_bit_is_seen_or_makes_no_difference(whole: Path, tmp_path: Path) -> None:
    outcomes = [flipped(whole, tmp_path, number) for number in range(60)]
    assert [outcome for outcome in outcomes if outcome not in ("seen", "same")] == []
    assert outcomes.count("seen") > 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=1000)
    with tempfile.TemporaryDirectory() as folder:
        whole = make_run(Path(folder) / "whole")
        outcomes = [flipped(whole, Path(folder), number) for number in range(parser.parse_args().flips)]
    wrong = [outcome for outcome in outcomes if outcome not in ("seen", "same")]
    print(
        f"{len(outcomes)} bits were flipped: {outcomes.count('seen')} seen, "
        f"{outcomes.count('same')} without a difference"
    )
    print(*wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
