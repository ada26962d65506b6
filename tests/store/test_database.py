"""What a transaction writes is there in whole or not at all, and only from the one writer."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alcore.errors import AlcoreError, StaleWriterError, UsageError
from alcore.store.database import Database
from alcore.store.formats import FORMAT

INSERT = "INSERT INTO run VALUES (?, ?, '')"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "run.db")
    yield database
    database.close()


def read(database: Database, query: str) -> list[Any]:
    return database.read(lambda connection: connection.execute(query).fetchall())


def keys(path: Path) -> list[str]:
    """Read by a connection of its own."""
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT key FROM run ORDER BY key")]
    finally:
        connection.close()


def test_new_database_has_its_tables_and_format(database: Database) -> None:
    tables = {row["name"] for row in read(database, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {
        "run", "writer", "label_strategy", "steps", "requests", "labels", "refused", "records", "checkpoints",
        "queries", "digests",
    }  # fmt: skip
    assert read(database, "PRAGMA user_version")[0][0] == FORMAT


def test_commits_survive_a_crash_of_the_machine(database: Database) -> None:
    assert read(database, "PRAGMA journal_mode")[0][0] == "delete"
    assert read(database, "PRAGMA synchronous")[0][0] == 3


def test_transaction_is_visible_when_it_ends(tmp_path: Path, database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(INSERT, ("a", "1"))
        assert database.committing
        assert keys(tmp_path / "run.db") == []
    assert not database.committing
    assert keys(tmp_path / "run.db") == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, sqlite3.IntegrityError])
def test_error_undoes_all_of_a_transaction(tmp_path: Path, database: Database, error: type[BaseException]) -> None:
    with pytest.raises(error), database.transaction() as connection:  # noqa: PT012
        connection.execute(INSERT, ("a", "1"))
        if error is sqlite3.IntegrityError:
            connection.execute(INSERT, ("a", "2"))
        raise error
    assert not database.committing
    assert keys(tmp_path / "run.db") == []
    with database.transaction() as connection:
        connection.execute(INSERT, ("b", "1"))
    assert keys(tmp_path / "run.db") == ["b"]


def test_transaction_inside_another_is_a_part_of_it(tmp_path: Path, database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(INSERT, ("a", "1"))
        database.write(lambda inner: inner.execute(INSERT, ("b", "1")))
        assert database.committing
        assert keys(tmp_path / "run.db") == []
    assert keys(tmp_path / "run.db") == ["a", "b"]
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:  # noqa: PT012
        connection.execute(INSERT, ("c", "1"))
        database.write(lambda inner: inner.execute(INSERT, ("a", "2")))
    assert not database.committing
    assert keys(tmp_path / "run.db") == ["a", "b"]


def test_read_sees_one_moment_and_blocks_no_other_reader(tmp_path: Path, database: Database) -> None:
    def look(connection: sqlite3.Connection) -> None:
        assert connection.execute("SELECT COUNT(*) FROM run").fetchone()[0] == 0
        assert keys(tmp_path / "run.db") == []
        assert not database.committing
        other = sqlite3.connect(tmp_path / "run.db", isolation_level=None, timeout=0)
        other.execute("BEGIN IMMEDIATE")
        other.execute(INSERT, ("other", "1"))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("COMMIT")
        assert connection.execute("SELECT COUNT(*) FROM run").fetchone()[0] == 0
        other.execute("ROLLBACK")
        other.close()

    database.read(look)
    with database.transaction() as connection:
        connection.execute(INSERT, ("a", "1"))


def test_read_inside_a_transaction_sees_what_it_wrote(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(INSERT, ("a", "1"))
        assert len(read(database, "SELECT * FROM run")) == 1


def test_read_inside_another_sees_the_same_moment(tmp_path: Path, database: Database) -> None:
    def look(connection: sqlite3.Connection) -> None:
        connection.execute(INSERT, ("a", "1"))
        assert len(read(database, "SELECT * FROM run")) == 1
        assert connection.in_transaction

    database.read(look)
    assert keys(tmp_path / "run.db") == []


def test_read_undoes_what_is_written_in_it(tmp_path: Path, database: Database) -> None:
    database.read(lambda connection: connection.execute(INSERT, ("a", "1")))
    assert keys(tmp_path / "run.db") == []


def test_stale_writer_is_refused(tmp_path: Path, database: Database) -> None:
    successor = Database(tmp_path / "run.db")
    with pytest.raises(StaleWriterError, match="opened this run for writing"), database.transaction() as connection:
        connection.execute(INSERT, ("old", "1"))
    with successor.transaction() as connection:
        connection.execute(INSERT, ("new", "1"))
    successor.close()
    assert keys(tmp_path / "run.db") == ["new"]


def test_each_opening_is_a_new_epoch(tmp_path: Path, database: Database) -> None:
    epochs = []
    for _ in range(3):
        epochs.append(int(read(database, "SELECT value FROM writer WHERE key = 'epoch'")[0]["value"]))
        Database(tmp_path / "run.db").close()
    assert epochs == [1, 2, 3]


def test_newer_format_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match=rf"format {FORMAT + 1}, .* reads format {FORMAT} alone; upgrade"):
        Database(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"garbage " * 1000, b"SQLite format 3\x00" + b"\xff" * 4000])
def test_file_of_another_kind_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.db"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.db is not a run database"):
        Database(path)
    assert path.read_bytes() == content


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "run.db")
    connection.execute("CREATE TABLE other(a)")
    connection.close()
    with pytest.raises(UsageError, match="belongs to another program"):
        Database(tmp_path / "run.db")


def test_transactions_of_two_threads_do_not_mix(tmp_path: Path, database: Database) -> None:
    inside, outside = threading.Event(), threading.Event()

    def first() -> None:
        with database.transaction() as connection:
            connection.execute(INSERT, ("a1", "1"))
            inside.set()
            assert outside.wait(10)
            connection.execute(INSERT, ("a2", "1"))

    def second() -> None:
        assert inside.wait(10)
        outside.set()
        with pytest.raises(ValueError, match="undone"), database.transaction() as connection:  # noqa: PT012
            connection.execute(INSERT, ("b", "1"))
            raise ValueError("undone")

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert keys(tmp_path / "run.db") == ["a1", "a2"]


def test_many_threads_commit_everything(tmp_path: Path, database: Database) -> None:
    def work(name: str) -> None:
        for count in range(10):
            with database.transaction() as connection:
                connection.execute(INSERT, (f"{name}{count}", "1"))
            read(database, "SELECT COUNT(*) FROM run")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(keys(tmp_path / "run.db")) == 30


def test_database_that_another_program_keeps_locked_is_an_error(tmp_path: Path, database: Database) -> None:
    database._connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / "run.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with (
        pytest.raises(AlcoreError, match=r"run.db has been in the middle of another process's transaction"),
        database.transaction(),
    ):
        pytest.fail("must not get here")
    assert not database.committing
    other.close()
    with database.transaction() as connection:
        connection.execute(INSERT, ("a", "1"))
    assert keys(tmp_path / "run.db") == ["a"]


@pytest.mark.parametrize(
    "row",
    [
        "NULL, NULL",
        "1, '1'",
    ],
    ids=["neither", "both"],
)
def test_request_is_for_a_sample_or_an_input(database: Database, row: str) -> None:
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.execute(
            f"INSERT INTO requests VALUES ('x', 0, 0, {row}, 0, NULL, 's', NULL, 0, 'm', 1, '', 0, 0, 'open',"
            " NULL, NULL, '')"
        )


def test_closing_twice_does_nothing(database: Database) -> None:
    database.close()
    database.close()
