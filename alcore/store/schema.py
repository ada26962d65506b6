"""The tables of a run database, as they are made and as they must be found."""

from __future__ import annotations

import contextlib
import functools
import sqlite3

from alcore.store.digests import CHAINED, CHANGING, Damage, row_digest

SCHEMA = """
CREATE TABLE run(               -- what is known about the run as a whole
    key TEXT PRIMARY KEY, value TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE writer(            -- what only its writer needs
    key TEXT PRIMARY KEY, value TEXT NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE label_strategy(    -- the state of the label strategy after the last answer of a step
    step INTEGER PRIMARY KEY, state TEXT NOT NULL, digest BLOB NOT NULL);
CREATE TABLE steps(
    step INTEGER NOT NULL,
    record TEXT NOT NULL,       -- what the step did, the same in every run of this experiment
    seconds TEXT NOT NULL,      -- how long its phases took
    digest BLOB NOT NULL);
CREATE UNIQUE INDEX one_step ON steps(step);
CREATE TABLE requests(
    id TEXT NOT NULL,
    step INTEGER NOT NULL, ordinal INTEGER NOT NULL,
    sample INTEGER, item TEXT,  -- a sample id, or a generated input: exactly one of the two
    slot INTEGER NOT NULL,      -- of the requests for one sample: 0, then second opinions
    fidelity TEXT,              -- how exact the answer is to be, as JSON; NULL where the experiment has one fidelity
    strategy TEXT NOT NULL, score REAL, rank INTEGER NOT NULL, model TEXT NOT NULL,
    cost REAL NOT NULL,         -- what the label is expected to cost
    digest BLOB NOT NULL,       -- of all before it
    attempt INTEGER NOT NULL,
    taken INTEGER NOT NULL,     -- the label strategy has taken it out, and not answered yet
    state TEXT NOT NULL CHECK (state IN ('open', 'labeled', 'failed')),
    closed INTEGER,             -- the step in which it was labeled or given up
    handle TEXT,                -- the name of its job, at a scheduler for instance
    state_digest BLOB,          -- of what changes; NULL where nothing has changed
    CHECK ((sample IS NULL) <> (item IS NULL)));
CREATE UNIQUE INDEX request_id ON requests(id);
CREATE UNIQUE INDEX request_of_step ON requests(step, ordinal);
CREATE UNIQUE INDEX request_of_sample ON requests(sample, slot) WHERE sample IS NOT NULL;
CREATE INDEX open_requests ON requests(step, ordinal) WHERE state = 'open';
CREATE INDEX closed_requests ON requests(closed) WHERE closed IS NOT NULL;
CREATE TABLE labels(
    request TEXT NOT NULL REFERENCES requests(id),
    step INTEGER NOT NULL,      -- the step in which it arrived
    source TEXT NOT NULL, attempt INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('id', 'label', 'object')),
    value TEXT,                 -- NULL for a bare id, since the pool knows the answer, and where it is in a file
    file TEXT,                  -- the SHA-256 of labels/<sha256>.safetensors, which holds a large value
    cost REAL NOT NULL,
    arrived REAL NOT NULL,
    digest BLOB NOT NULL,       -- of all before it
    superseded INTEGER NOT NULL,  -- a later answer took its place, or its request was opened again
    state_digest BLOB);
CREATE UNIQUE INDEX current_label ON labels(request) WHERE superseded = 0;
CREATE INDEX label_of_step ON labels(step, superseded, cost);
CREATE TABLE refused(           -- answers that are no labels
    request TEXT REFERENCES requests(id), step INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN (
        'refused', 'repeat',    -- nothing is wrong with a repeat: it is the same answer once more
        'infrastructure', 'timeout', 'infeasible',  -- reported by the label strategy
        'set aside',            -- a label that the training pool refused
        'dropped')),            -- in doubt when the run was cut off, and given up by its user
    item TEXT NOT NULL, reason TEXT NOT NULL,
    cost REAL,                  -- what was paid; NULL where nobody said
    arrived REAL NOT NULL,
    digest BLOB NOT NULL);
CREATE INDEX refused_of_step ON refused(step);
CREATE TABLE queries(           -- the query phases that are committed, with the model that chose
    step INTEGER NOT NULL, model TEXT NOT NULL, digest BLOB NOT NULL);
CREATE UNIQUE INDEX one_query ON queries(step);
CREATE TABLE records(
    step INTEGER NOT NULL, strategy TEXT NOT NULL, ordinal INTEGER NOT NULL, value TEXT NOT NULL,
    digest BLOB NOT NULL);
CREATE UNIQUE INDEX one_record ON records(strategy, step, ordinal);
CREATE TABLE checkpoints(
    file TEXT PRIMARY KEY,
    step INTEGER NOT NULL, phase TEXT NOT NULL, epoch INTEGER NOT NULL,
    sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX checkpoint_of_step ON checkpoints(step);
CREATE TABLE digests(           -- of each table: how many rows it has, and one digest of them all
    name TEXT PRIMARY KEY, rows INTEGER NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
"""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, empty, inside the transaction that is open."""
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    rows = [(table, 0, row_digest(table)) for table in CHAINED] + [(table, 0, bytes(16)) for table in CHANGING]
    connection.executemany("INSERT INTO digests VALUES (?, ?, ?)", rows)


def damage_of_schema(connection: sqlite3.Connection) -> list[Damage]:
    """Return what is not as `create` makes it: tables and indexes, triggers and views of others.

    Nothing else may be read of a database in which there is something else.
    """
    actual, expected = _schema(connection), _expected_schema()
    wrong = []
    for place in sorted(actual.keys() | expected.keys()):
        what = f"the {place[0]} {place[1]!r:.60}, which "
        if place not in expected:
            wrong.append(Damage(f"{what}alcore doesn't make", -1))
        elif actual.get(place) != expected[place]:
            wrong.append(Damage(f"{what}is {'changed' if place in actual else 'gone'}", -1))
    return wrong


def _schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {(str(row[0]), str(row[1])): f"{row[2]} {row[3]}" for row in rows}


@functools.cache
def _expected_schema() -> dict[tuple[str, str], str]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create(connection)
        return _schema(connection)
