"""All SQL of a run database: its tables, what the one writer of a run writes, and what is read from it.

Each function gets a connection of `alcore.store.database.Database` or `alcore.store.reading.Run`, whose rows can be
indexed by column name. Transactions are the caller's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from alcore.codec import dumps, loads, storable
from alcore.protocols import Label, Request
from alcore.store.endings import OF_THE_END

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
REFUSED = ("refused", "set aside")
"""The kinds of rows of the table ``refused`` that are refused answers; the others are failures and repeats."""
_IS_AN_ATTEMPT = "(kind IN ('infrastructure', 'timeout', 'infeasible') OR kind = 'refused' AND cost NOT NULL)"
"""Whether a row of the table ``refused`` is an attempt. What a person told wrongly has no cost, and is none."""
CHAINED = ("steps", "requests", "labels", "refused", "queries", "records")
"""Tables whose rows are only added: the digest of each row is made from that of the row before, too."""
PREPROCESSING = "preprocessing"
"""The key of the table ``run`` that has how the data makes inputs of a file."""
CHANGING = {"run": "key", "writer": "key", "label_strategy": "step", "checkpoints": "file"}
"""Tables whose rows may be replaced or deleted, by their key; their digest combines those of their rows."""


# -- rows -------------------------------------------------------------------------------------------------


class AskedRequest(NamedTuple):
    """A request and why it was made.

    Parameters
    ----------
    request
        What is asked for.
    sample
        Its sample id; None for a generated input.
    strategy
        Name of the query strategy.
    score
        What the strategy gave the item, if it gave scores.
    rank
        Its place among what the strategy asked for in this step, from 0.
    cost
        What the label is expected to cost.
    fidelity
        How exact it is to be, as JSON; None where the pool doesn't say.
    """

    request: Request
    sample: int | None
    strategy: str
    score: float | None
    rank: int
    cost: float
    fidelity: str | None = None

    def as_list(self) -> list[Any]:
        """Return this as plain data, for another rank."""
        return [list(vars(self.request).values()), *self[1:]]

    @classmethod
    def of_list(cls, found: Sequence[Any]) -> AskedRequest:
        """Return what `as_list` was called on."""
        return cls(Request(*found[0]), *found[1:])


class AcceptedLabel(NamedTuple):
    """An accepted answer.

    Parameters
    ----------
    request
        What it answers.
    item
        What the label strategy put: what the training pool receives.
    kind
        ``"id"`` for a bare sample id, ``"label"`` for a `Label`, ``"object"`` for anything else.
    source
        Who answered.
    value
        The stored value; None for a bare id.
    cost
        What the label cost.
    """

    request: Request
    item: Any
    kind: str
    source: str
    value: str | None
    cost: float


class RequestState(NamedTuple):
    """A request, and what has become of it.

    Parameters
    ----------
    asked
        The request and why it was made.
    state
        ``"open"``, ``"labeled"`` or ``"failed"`` (given up).
    kind, value, file, source
        Of its current label, as the table ``labels`` has them; None where there is none.
    failure, reason
        Kind and reason of its last failure; None where there was none.
    passed
        Whether the step in which it was labeled or given up is finished, so that the training pool has the label.
    """

    asked: AskedRequest
    state: str
    kind: str | None
    value: str | None
    file: str | None
    source: str | None
    failure: str | None
    reason: str | None
    passed: bool


@dataclasses.dataclass(frozen=True)
class Record:
    """One record of a metrology strategy: step, strategy, its place among that step's records, value."""

    step: int
    strategy: str
    ordinal: int
    value: Any


class LabelingState(NamedTuple):
    """A labeling phase as it is committed.

    Parameters
    ----------
    open
        The requests without an answer, in the order in which a label strategy gets them: oldest first, but
        those that failed in this phase after all others, in the order of their failures.
    accepted
        The answers of this phase that count, in the order of their requests.
    refused
        Ids of the open requests of which this phase has refused an answer.
    taken
        Ids of the open requests that are with the label strategy.
    given_up
        The samples that this phase gave up, with the ids of their requests.
    expected
        What the labels of these requests, open or accepted, are expected to cost, by their ids.
    asks_for_samples
        Whether the run has ever asked for a sample, not for generated inputs alone.
    ended
        Whether the phase is over.
    committed
        Whether the step is committed as a whole.
    """

    open: list[Request]
    accepted: list[AcceptedLabel]
    refused: set[str]
    taken: set[str]
    given_up: dict[int, str]
    expected: dict[str, float]
    asks_for_samples: bool
    ended: bool
    committed: bool


def request_id(run_id: str, step: int, ordinal: int) -> str:
    """Return the idempotency key of a request: 32 hexadecimal digits."""
    return hashlib.sha256(f"{run_id}/{step}/{ordinal}".encode()).hexdigest()[:32]


def put_item(asked: Any, kind: str, value: str | None, source: str, cost: float) -> Any:
    """Return what a label strategy put, from how it is stored.

    Parameters
    ----------
    asked
        What the request asked for.
    kind
        ``"id"``, ``"label"`` or ``"object"``.
    value, source, cost
        The stored answer.
    """
    if kind == "id":
        return asked
    answer = loads(value or "null")
    return Label(asked, answer, source, cost) if kind == "label" else answer


_REQUEST = "r.id, r.step, r.ordinal, r.sample, r.item, r.attempt, r.slot, r.handle"


def _request(row: sqlite3.Row) -> Request:
    item = row["sample"] if row["item"] is None else loads(row["item"])
    return Request(row["id"], row["step"], row["ordinal"], item, row["attempt"], row["slot"], row["handle"])


ReadValue = Callable[[str], str]
"""Returns the text of a large value, from the SHA-256 of its file."""


def value_text(row: Mapping[str, Any] | sqlite3.Row, read_value: ReadValue) -> str | None:
    """Return the text of the value in a row of labels, wherever it is; None for a bare id."""
    inside: str | None = row["value"]
    return read_value(row["file"]) if inside is None and row["file"] is not None else inside


def _accepted_label(row: sqlite3.Row, read_value: ReadValue) -> AcceptedLabel:
    request, value = _request(row), value_text(row, read_value)
    item = put_item(request.item, row["kind"], value, row["source"], row["cost"])
    return AcceptedLabel(request, item, row["kind"], row["source"], value, row["cost"])


# -- digests ----------------------------------------------------------------------------------------------


def row_digest(*values: object) -> bytes:
    """Return 16 bytes that identify the values of a row: texts, integers, floats, bytes and None.

    In SQL it is the function ``row_digest``, on connections that `prepare` was called with.
    """
    text = _FORMATS[len(values)] % values  # faster than to join them
    digest = _EMPTY.copy()  # faster than to make one
    digest.update(text.encode(errors="surrogatepass"))
    return digest.digest()


_EMPTY = hashlib.blake2b(digest_size=16)
_FORMATS = ["\0".join(["%s"] * count) for count in range(20)]


def prepare(connection: sqlite3.Connection) -> None:
    """Let a connection write: SQL computes the digests of what it changes."""
    connection.create_function("row_digest", -1, row_digest, deterministic=True)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, empty, inside the transaction that is open."""
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    rows = [(table, 0, row_digest(table)) for table in CHAINED] + [(table, 0, bytes(16)) for table in CHANGING]
    connection.executemany("INSERT INTO digests VALUES (?, ?, ?)", rows)


class _Chain:
    """The digests of the rows that are added to a table of `CHAINED`.

    Parameters
    ----------
    connection
        With an open transaction.
    table
        The table.
    """

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self._connection, self._table = connection, table
        query = "SELECT rows, digest FROM digests WHERE name = ?"
        self._rows, self._last = connection.execute(query, (table,)).fetchone()

    def add(self, *values: object) -> bytes:
        """Return the digest of the next row, from its values as they are stored."""
        self._rows += 1
        last = self._last = row_digest(self._last, *values)
        return last

    def end(self) -> None:
        """Write how many rows the table has now, and the digest of the last one."""
        self._connection.execute(
            "UPDATE digests SET rows = ?, digest = ? WHERE name = ?", (self._rows, self._last, self._table)
        )


def _combined(first: bytes, *others: bytes) -> bytes:
    """Return digests as one, in which each may be taken out again by adding it once more."""
    number = int.from_bytes(first, "big")
    for other in others:
        number ^= int.from_bytes(other, "big")
    return number.to_bytes(16, "big")


def _replace(connection: sqlite3.Connection, table: str, *values: object) -> None:
    """Write a row of a table of `CHANGING`, its key first, in place of one with the same key."""
    digest, old = row_digest(*values), _digest_of(connection, table, values[0])
    places = ", ".join("?" * len(values))
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places}, ?)", (*values, digest))
    _count(connection, table, not old, digest, *old)


def _delete(connection: sqlite3.Connection, table: str, keys: Iterable[object]) -> None:
    """Delete rows of a table of `CHANGING`; keys that it doesn't have are ignored."""
    for key in keys:
        if old := _digest_of(connection, table, key):
            connection.execute(f"DELETE FROM {table} WHERE {CHANGING[table]} = ?", (key,))
            _count(connection, table, -1, *old)


def _digest_of(connection: sqlite3.Connection, table: str, key: object) -> list[bytes]:
    """Return the digest of a row of `CHANGING` in a list, empty where there is no such row."""
    return [found for (found,) in connection.execute(f"SELECT digest FROM {table} WHERE {CHANGING[table]} = ?", (key,))]


def _count(connection: sqlite3.Connection, table: str, more: int, *digests: bytes) -> None:
    """Take a change of a table of `CHANGING` into its number of rows and its digest."""
    query = "SELECT digest FROM digests WHERE name = ?"
    (before,) = connection.execute(query, (table,)).fetchone()
    connection.execute(
        "UPDATE digests SET rows = rows + ?, digest = ? WHERE name = ?", (more, _combined(before, *digests), table)
    )


# -- the run as a whole, what its writer needs, the state of the label strategy ---------------------------


def epoch(connection: sqlite3.Connection) -> int:
    """Return how often the database was opened for writing."""
    return int(_note(connection, "epoch") or 0)


def set_epoch(connection: sqlite3.Connection, value: int) -> None:
    """Write how often the database was opened for writing."""
    _replace(connection, "writer", "epoch", str(value))


def _note(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM writer WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what is known about the run as a whole, without what `preprocessing` returns, which may be large."""
    rows = connection.execute("SELECT key, value FROM run WHERE key != ? ORDER BY key", (PREPROCESSING,))
    return {row["key"]: loads(row["value"]) for row in rows}


def preprocessing(connection: sqlite3.Connection) -> dict[str, Any] | None:
    """Return how the data makes inputs of a file, as the data described it when the run began; None if it did not."""
    row = connection.execute("SELECT value FROM run WHERE key = ?", (PREPROCESSING,)).fetchone()
    return None if row is None else dict(loads(row["value"]))


def utc_now() -> str:
    """Return the time in UTC, to the second: the form of ``started`` and ``ended``."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def set_meta(connection: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    """Write what is known about the run as a whole; other keys stay."""
    for key, value in values.items():
        _replace(connection, "run", key, dumps(value))


def label_strategy_state(connection: sqlite3.Connection) -> str | None:
    """Return the state of the label strategy that was committed last, if one was."""
    row = connection.execute("SELECT state FROM label_strategy ORDER BY step DESC LIMIT 1").fetchone()
    return None if row is None else str(row["state"])


# -- requests ---------------------------------------------------------------------------------------------


_INSERT_REQUEST = "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 'open', NULL, NULL, NULL)"


def insert_query(connection: sqlite3.Connection, step: int, asked: Sequence[AskedRequest], model: str) -> None:
    """Write what a query phase asked for."""
    chain, rows = _Chain(connection, "requests"), []
    for one in asked:
        request = one.request
        row = (
            request.id,
            request.step,
            request.ordinal,
            one.sample,
            None if one.sample is not None else dumps(request.item),
            request.slot,
            one.fidelity,
            one.strategy,
            _stored(one.score),
            one.rank,
            model,
            _stored(one.cost),
        )
        rows.append((*row, chain.add(*row)))
    connection.executemany(_INSERT_REQUEST, rows)
    chain.end()
    if asked_requests(connection, step) is None:
        chain = _Chain(connection, "queries")
        connection.execute("INSERT INTO queries VALUES (?, ?, ?)", (step, model, chain.add(step, model)))
        chain.end()


def _stored(number: float | None) -> float | None:
    """Return a number as SQLite gives it back: NaN is NULL, and no zero is negative."""
    return None if number is None or math.isnan(number) else float(number) + 0.0


def asked_requests(connection: sqlite3.Connection, step: int) -> list[AskedRequest] | None:
    """Return what a query phase asked for, in order; None if it is not committed."""
    if connection.execute("SELECT 1 FROM queries WHERE step = ?", (step,)).fetchone() is None:
        return None
    rows = connection.execute(
        f"SELECT {_REQUEST}, strategy, score, rank, cost, fidelity FROM requests r WHERE step = ? ORDER BY ordinal",
        (step,),
    )
    return [_asked(row) for row in rows]


def _asked(row: sqlite3.Row) -> AskedRequest:
    why = (row[name] for name in ("sample", "strategy", "score", "rank", "cost", "fidelity"))
    return AskedRequest(_request(row), *why)


def requested_samples(connection: sqlite3.Connection, before: int) -> list[int]:
    """Return the samples that were asked for in the steps before this one."""
    rows = connection.execute("SELECT sample FROM requests WHERE step < ? AND sample IS NOT NULL", (before,))
    return [row["sample"] for row in rows]


def pending_samples(connection: sqlite3.Connection, step: int, ordinal: int) -> list[int]:
    """Return the samples that were asked for and had no answer when a query phase began; what is newer doesn't count.

    Parameters
    ----------
    connection
        Of the run.
    step, ordinal
        The first request of that query phase.
    """
    rows = connection.execute(
        "SELECT sample FROM requests WHERE state = 'open' AND sample IS NOT NULL AND (step, ordinal) < (?1, ?2)"
        " UNION ALL"
        " SELECT sample FROM requests WHERE closed >= ?1 AND sample IS NOT NULL AND step < ?1",
        (step, ordinal),
    )
    return [row["sample"] for row in rows]


def open_samples(connection: sqlite3.Connection) -> list[int]:
    """Return the samples that were asked for and have no answer."""
    rows = connection.execute("SELECT sample FROM requests WHERE state = 'open' AND sample IS NOT NULL")
    return [row["sample"] for row in rows]


def infeasible(connection: sqlite3.Connection, before: int) -> list[Any]:
    """Return the samples and inputs that failed as infeasible before a step, and had no label then, in their order."""
    rows = connection.execute(
        f"SELECT {_REQUEST} FROM requests r"
        " WHERE r.id IN (SELECT request FROM refused WHERE kind = 'infeasible' AND step < ?1)"
        " AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.request = r.id AND labels.step < ?1)"
        " ORDER BY r.step, r.ordinal",
        (before,),
    )
    return [_request(row).item for row in rows.fetchall()]


def labeled_samples(connection: sqlite3.Connection, before: int) -> list[int]:
    """Return the samples that were labeled before a step, in the order of their requests."""
    rows = connection.execute(
        "SELECT DISTINCT sample FROM requests r JOIN labels ON labels.request = r.id"
        " WHERE labels.superseded = 0 AND labels.step < ? AND sample IS NOT NULL ORDER BY r.step, r.ordinal",
        (before,),
    )
    return [row["sample"] for row in rows.fetchall()]


def requests(connection: sqlite3.Connection, step: int | None, most: int | None = None) -> list[dict[str, Any]]:
    """Return requests with their current labels, in order; those of one step, or all; at most so many.

    A large value is not among them: ``file`` has the SHA-256 of its file, and ``value`` is None.
    """
    of_step, values = ("", ()) if step is None else (" WHERE r.step = ?", (step,))  # or SQLite would not use the index
    rows = connection.execute(
        "SELECT r.step, r.ordinal, r.id, r.sample, r.slot, r.item, r.fidelity, r.strategy, r.score, r.rank, r.model,"
        " r.attempt, r.state, r.handle, l.kind, l.value, l.file, l.source, l.cost FROM requests r"
        " LEFT JOIN labels l ON l.request = r.id AND l.superseded = 0"
        f"{of_step} ORDER BY r.step, r.ordinal LIMIT ?",
        (*values, -1 if most is None else most),
    )
    return [dict(row) for row in rows]


def request_counts(connection: sqlite3.Connection, step: int | None) -> dict[str, int]:
    """Return how many requests are in each state; those of one step, or all."""
    of_step, values = ("", ()) if step is None else (" WHERE step = ?", (step,))
    rows = connection.execute(f"SELECT state, COUNT(*) FROM requests{of_step} GROUP BY state", values)
    return {"open": 0, "labeled": 0, "failed": 0} | dict(rows.fetchall())


def states(connection: sqlite3.Connection) -> list[RequestState]:
    """Return what was asked for and what has become of it, in order."""
    rows = connection.execute(
        f"SELECT {_REQUEST}, r.strategy, r.score, r.rank, r.cost, r.fidelity, r.state,"
        " EXISTS (SELECT 1 FROM steps s WHERE s.step = r.closed) AS passed,"
        " l.kind, l.value, l.file, l.source, f.kind AS failure, f.reason FROM requests r"
        " LEFT JOIN labels l ON l.request = r.id AND l.superseded = 0"
        " LEFT JOIN (SELECT f.request, MAX(f.rowid) AS place FROM refused f JOIN requests q ON q.id = f.request"
        "  WHERE f.kind <> 'repeat' AND (f.kind <> 'refused' OR q.state = 'failed') GROUP BY f.request)"
        " g ON g.request = r.id LEFT JOIN refused f ON f.rowid = g.place"
        " ORDER BY r.step, r.ordinal"
    )
    return [
        RequestState(
            _asked(row),
            passed=bool(row["passed"]),
            **{name: row[name] for name in ("state", "kind", "value", "file", "source", "failure", "reason")},
        )
        for row in rows
    ]


def waits_before(connection: sqlite3.Connection, step: int) -> bool:
    """Tell whether a request of an earlier step was open when this step began."""
    found = connection.execute(
        "SELECT 1 FROM requests WHERE step < ?1 AND (closed IS NULL OR closed >= ?1) LIMIT 1", (step,)
    )
    return found.fetchone() is not None


def reserved(connection: sqlite3.Connection, before: int) -> list[tuple[float, int]]:
    """Return what the requests that were open when a step began are expected to cost, and how many cost it."""
    rows = connection.execute(
        "SELECT cost, COUNT(*) FROM (SELECT cost FROM requests WHERE state = 'open' AND step < ?1"
        " UNION ALL SELECT cost FROM requests WHERE closed >= ?1 AND step < ?1) GROUP BY cost",
        (before,),
    )
    return [(cost, count) for cost, count in rows]


def paid_for_labels(connection: sqlite3.Connection, first: int, end: int) -> list[tuple[float, int]]:
    """Return what the current labels cost that arrived from step `first` to before `end`, and how many cost it."""
    rows = connection.execute(
        "SELECT cost, COUNT(*) FROM labels WHERE step >= ? AND step < ? AND superseded = 0 GROUP BY cost", (first, end)
    )
    return [(cost, count) for cost, count in rows]


def paid_for_failures(connection: sqlite3.Connection, first: int, end: int) -> list[tuple[float, int]]:
    """Return what answers cost that are no labels, of the steps from `first` to before `end`, and how many cost it."""
    rows = connection.execute(
        "SELECT cost, COUNT(*) FROM refused WHERE step >= ? AND step < ? AND cost NOT NULL GROUP BY cost", (first, end)
    )
    return [(cost, count) for cost, count in rows]


# -- requests in flight -----------------------------------------------------------------------------------


def set_taken(connection: sqlite3.Connection, requests: Iterable[str], taken: bool) -> None:
    """Write whether a label strategy works on requests; of those that are closed, it doesn't."""
    connection.executemany(
        "UPDATE requests SET taken = ?1, state_digest = row_digest(id, attempt, ?1, state, closed, handle)"
        " WHERE id = ?2 AND state = 'open'",
        [(int(taken), one) for one in requests],
    )


def set_handle(connection: sqlite3.Connection, request: str, handle: str) -> bool:
    """Write the name of the job that answers a request; return whether the request is open."""
    changed = connection.execute(
        "UPDATE requests SET handle = ?2, state_digest = row_digest(id, attempt, taken, state, closed, ?2)"
        " WHERE id = ?1 AND state = 'open'",
        (request, handle),
    )
    return changed.rowcount == 1


def in_flight(connection: sqlite3.Connection) -> list[Request]:
    """Return the open requests that a label strategy has taken out and not answered, oldest first."""
    rows = connection.execute(
        f"SELECT {_REQUEST} FROM requests r WHERE state = 'open' AND taken ORDER BY step, ordinal"
    )
    return [_request(row) for row in rows]


def give_up_in_flight(connection: sqlite3.Connection, step: int, kept: Iterable[str]) -> None:
    """Give up the requests in flight, but for those that are kept, in the labeling phase of this step."""
    writer, known = AnswerWriter(connection, step), set(kept)
    for request in in_flight(connection):
        if request.id not in known:
            writer.refuse(request.id, "null", "in doubt when the run was cut off, and dropped", kind="dropped")
            writer.give_up(request.id)
    writer.end()


def clear_taken(connection: sqlite3.Connection) -> None:
    """Write that no request is in flight."""
    connection.execute(
        "UPDATE requests SET taken = 0, state_digest = row_digest(id, attempt, 0, state, closed, handle)"
        " WHERE state = 'open' AND taken"
    )


# -- labels -----------------------------------------------------------------------------------------------


class AnswerWriter:
    """Writes what becomes of answers, in one transaction. Labels are not in the tables before `end`.

    Parameters
    ----------
    connection
        With an open transaction.
    step
        The step whose labeling phase the answers belong to.
    write_value
        Writes a value to a file if it is large; returns the SHA-256 of the file, or None.

    Attributes
    ----------
    first_step : int
        The first step of whose answers any is changed.
    """

    def __init__(
        self, connection: sqlite3.Connection, step: int, write_value: Callable[[str], str | None] = lambda _text: None
    ) -> None:
        self._connection, self._step, self._write_value = connection, step, write_value
        self.first_step = step
        self._chains: dict[str, _Chain] = {}
        self._labels: list[tuple[Any, ...]] = []
        self._closed: list[tuple[str, int, str]] = []

    def accept(self, request: Request, answer: AcceptedLabel, *, corrects: bool = False) -> None:
        """Accept an answer; one that corrects an earlier answer is kept beside it."""
        if corrects:
            self._write()
            self.first_step = min([self.first_step, *supersede(self._connection, request.id)])
        else:
            self._close(request.id, "labeled")
        file = None if answer.value is None else self._write_value(answer.value)
        row = (
            request.id,
            self._step,
            answer.source,
            request.attempt,
            answer.kind,
            answer.value if file is None else None,
            file,
            _stored(answer.cost),
            time.time(),
        )
        self._labels.append((*row, self._chain("labels").add(*row)))

    def retry(self, request_id: str, attempt: int) -> None:
        """Leave a request open for its next attempt, which will be another job."""
        self._write()
        self._connection.execute(
            "UPDATE requests SET attempt = ?1, taken = 0, handle = NULL,"
            " state_digest = row_digest(id, ?1, 0, state, closed, NULL) WHERE id = ?2",
            (attempt, request_id),
        )

    def give_up(self, request_id: str) -> None:
        """Close a request that could not be labeled."""
        self._close(request_id, "failed")

    def refuse(
        self, request_id: str | None, item: str, reason: str, *, kind: str = "refused", cost: float | None = None
    ) -> None:
        """Keep an answer that was not accepted.

        Parameters
        ----------
        request_id
            The request that it was for; None if there is none.
        item
            What was put, as text.
        reason
            Why it was not accepted.
        kind
            ``"refused"``; ``"repeat"`` where the same answer was accepted before; ``"set aside"`` where the training
            pool refused a label; ``"dropped"``; or the kind of a `Failed`.
        cost
            What was paid for it; None where that is not known.
        """
        row = (request_id, self._step, kind, storable(item), storable(reason), _stored(cost), time.time())
        digest = self._chain("refused").add(*row)
        self._connection.execute("INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, digest))

    def set_aside(self, request_id: str, item: str, reason: str) -> None:
        """Keep that the training pool refused an accepted answer; once for each reason, as a replay tries it again."""
        reason = storable(f"the training pool refused it: {reason}")
        known = self._connection.execute(
            "SELECT 1 FROM refused WHERE request = ? AND step = ? AND reason = ?", (request_id, self._step, reason)
        )
        if known.fetchone() is None:
            self.refuse(request_id, item, reason, kind="set aside")

    def keep_state(self, text: str) -> None:
        """Keep the state of the label strategy after these answers."""
        _replace(self._connection, "label_strategy", self._step, text)

    def note_inbox_file(self, name: str) -> None:
        """Note the file of the inbox that these answers are from, so that it is not taken in again."""
        _replace(self._connection, "writer", "inbox_file", name)

    def end(self) -> None:
        """Write the labels, and what is known of the tables as a whole."""
        self._write()
        for chain in self._chains.values():
            chain.end()

    def _chain(self, table: str) -> _Chain:
        if table not in self._chains:
            self._chains[table] = _Chain(self._connection, table)
        return self._chains[table]

    def _close(self, request_id: str, state: str) -> None:
        self._closed.append((state, self._step, request_id))

    def _write(self) -> None:
        """Write the labels so far, and which requests are closed: many rows by one statement take less time."""
        self._connection.executemany(
            "UPDATE requests SET state = ?1, closed = ?2, taken = 0,"
            " state_digest = row_digest(id, attempt, 0, ?1, ?2, handle) WHERE id = ?3",
            self._closed,
        )
        self._connection.executemany("INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL)", self._labels)
        self._closed.clear()
        self._labels.clear()


def labeling(connection: sqlite3.Connection, step: int, read_value: ReadValue) -> LabelingState:
    """Return a labeling phase as it is committed."""
    committed = is_committed(connection, step)
    ended = _note(connection, "labeling_ended")
    given_up = connection.execute(
        "SELECT sample, id FROM requests WHERE closed = ? AND state = 'failed' AND sample IS NOT NULL", (step,)
    ).fetchall()
    asks = connection.execute("SELECT 1 FROM requests WHERE sample IS NOT NULL LIMIT 1").fetchone()
    refused = connection.execute(
        "SELECT id FROM requests WHERE state = 'open'"
        f" AND id IN (SELECT request FROM refused WHERE step = ? AND {_IS_AN_ATTEMPT})",
        (step,),
    ).fetchall()
    expected = connection.execute(
        "SELECT id, cost FROM requests WHERE state = 'open'"
        " UNION ALL SELECT id, cost FROM requests WHERE closed = ? AND state = 'labeled'",
        (step,),
    ).fetchall()
    return LabelingState(
        open=_open_requests(connection, step),
        expected={row["id"]: row["cost"] for row in expected},
        refused={row["id"] for row in refused},
        taken={one.id for one in in_flight(connection)},
        accepted=accepted(connection, step, read_value),
        given_up={row["sample"]: row["id"] for row in given_up},
        asks_for_samples=asks is not None,
        ended=committed or ended == str(step),
        committed=committed,
    )


def _open_requests(connection: sqlite3.Connection, step: int) -> list[Request]:
    rows = connection.execute(
        f"SELECT {_REQUEST} FROM requests r LEFT JOIN"
        f" (SELECT request, MAX(rowid) AS place FROM refused WHERE step = ? AND {_IS_AN_ATTEMPT} GROUP BY request) f"
        " ON f.request = r.id"
        " WHERE r.state = 'open' ORDER BY f.place NULLS FIRST, r.step, r.ordinal",
        (step,),
    )
    return [_request(row) for row in rows]


def end_labeling(connection: sqlite3.Connection, step: int) -> None:
    """Write that a labeling phase is over, if it leaves requests open; else the request table says so."""
    if connection.execute("SELECT 1 FROM requests WHERE state = 'open' LIMIT 1").fetchone() is not None:
        _replace(connection, "writer", "labeling_ended", str(step))


def reopen_labeling(connection: sqlite3.Connection) -> None:
    """Take back that a labeling phase is over."""
    _delete(connection, "writer", ["labeling_ended"])


def inbox_file(connection: sqlite3.Connection) -> str | None:
    """Return the file of the inbox whose answers were committed last, if there was one."""
    return _note(connection, "inbox_file")


_IS_THE_LABEL = (
    "(r.slot = 0 AND NOT EXISTS (SELECT 1 FROM requests s WHERE s.sample = r.sample AND s.slot > 0) OR r.sample IS NULL"
    " OR r.slot = (SELECT s.slot FROM requests s WHERE s.sample = r.sample AND s.state = 'labeled'"
    " ORDER BY s.closed, s.slot LIMIT 1))"
)
"""Of the answers to the requests for one sample, its label is the current one of the request that was closed first; of
those closed in one step, of the lowest slot."""


def accepted(connection: sqlite3.Connection, step: int, read_value: ReadValue) -> list[AcceptedLabel]:
    """Return the answers that a labeling phase has accepted so far and that are labels, in the order of their requests.

    A second opinion on a sample that has its label is kept beside it, and is not among them.
    """
    rows = connection.execute(
        f"SELECT {_REQUEST}, l.kind, l.source, l.value, l.file, l.cost"
        " FROM labels l JOIN requests r ON r.id = l.request"
        f" WHERE l.step = ? AND l.superseded = 0 AND {_IS_THE_LABEL} ORDER BY r.step, r.ordinal",
        (step,),
    )
    # fetched first: where a file can't be read, an unfinished statement would keep the database locked
    return [_accepted_label(row, read_value) for row in rows.fetchall()]


def second_opinions(connection: sqlite3.Connection, step: int) -> set[str]:
    """Return the requests that a labeling phase has labeled, and whose samples have another label than this."""
    rows = connection.execute(
        "SELECT r.id FROM labels l JOIN requests r ON r.id = l.request"
        f" WHERE l.step = ? AND l.superseded = 0 AND NOT {_IS_THE_LABEL}",
        (step,),
    )
    return {row["id"] for row in rows}


def label_counts(connection: sqlite3.Connection, step: int) -> dict[str, int]:
    """Return how many requests a labeling phase labeled or gave up, and how many answers it did not accept."""
    row = connection.execute(
        "SELECT (SELECT COUNT(*) FROM requests WHERE closed = ?1 AND state = 'labeled') AS labeled,"
        " (SELECT COUNT(*) FROM requests WHERE closed = ?1 AND state = 'failed') AS failed,"
        f" (SELECT COUNT(*) FROM refused WHERE step = ?1 AND kind IN {REFUSED}) AS refused,"
        " (SELECT COUNT(*) FROM refused WHERE step = ?1 AND kind = 'repeat') AS repeated",
        (step,),
    ).fetchone()
    return dict(row)


def last_answers(connection: sqlite3.Connection, most: int) -> list[bool]:
    """Return whether each of the last answers was a failure, the oldest first, since the run was resumed after many.

    An answer that nobody asked for, a repeat, one that came second, and a request that was dropped are none.
    """
    since = float(_note(connection, "failures_since") or 0)
    rows = connection.execute(
        "SELECT failed FROM ("
        " SELECT * FROM (SELECT arrived, 0 AS failed FROM labels ORDER BY rowid DESC LIMIT ?1)"
        " UNION ALL SELECT * FROM (SELECT arrived, kind <> 'infeasible' AS failed FROM refused"
        "  WHERE request IS NOT NULL AND cost IS NOT NULL AND kind <> 'dropped' ORDER BY rowid DESC LIMIT ?1))"
        " WHERE arrived > ?2 ORDER BY arrived DESC LIMIT ?1",
        (most, since),
    )
    return [bool(row["failed"]) for row in rows][::-1]


def forget_failures(connection: sqlite3.Connection) -> None:
    """Write that answers which came so far don't count in `last_answers` any more."""
    _replace(connection, "writer", "failures_since", repr(time.time()))


def reasons(connection: sqlite3.Connection, step: int | None) -> list[dict[str, Any]]:
    """Return why requests could not be labeled and answers were refused, the most frequent first; of a step, or all."""
    of_step, values = ("", ()) if step is None else (" AND step = ?", (step,))  # or SQLite would not use the index
    rows = connection.execute(
        f"SELECT kind, reason, COUNT(*) AS count FROM refused WHERE kind <> 'repeat'{of_step}"
        " GROUP BY kind, reason ORDER BY COUNT(*) DESC, kind, reason",
        values,
    )
    return [dict(row) for row in rows]


def first_training_step(connection: sqlite3.Connection) -> int | None:
    """Return the first step that had anything to train on, in a run that began with nothing labeled."""
    (step,) = connection.execute("SELECT MIN(step) + 1 FROM labels").fetchone()
    return None if step is None else int(step)


def last_training_step(connection: sqlite3.Connection) -> int | None:
    """Return the last step that trained, the one that a run begins with its final training included; None without."""
    rows = connection.execute("SELECT step, seconds FROM steps ORDER BY step DESC")
    done = next((int(row["step"]) for row in rows if "training" in json.loads(row["seconds"])), None)
    (saved,) = connection.execute("SELECT MAX(step) FROM checkpoints WHERE phase = 'training'").fetchone()
    return max((one for one in (done, saved) if one is not None), default=None)


def labels_from(connection: sqlite3.Connection, step: int) -> int:
    """Return how many current labels arrived in this step or later."""
    (count,) = connection.execute("SELECT COUNT(*) FROM labels WHERE step >= ? AND superseded = 0", (step,)).fetchone()
    return int(count)


def untrained_labels(connection: sqlite3.Connection) -> int:
    """Return how many current labels arrived after the last training; all of them where there was none."""
    last = last_training_step(connection)
    return labels_from(connection, 0 if last is None else last)


def refused(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the answers that were not accepted, with the reasons, in the order of their arrival."""
    rows = connection.execute("SELECT step, request, kind, item, reason, cost FROM refused ORDER BY rowid")
    return [dict(row) for row in rows]


def decisions(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows that equal runs have in common, by table: all but times, and ids made from the id of the run."""
    queries = {
        "requests": "SELECT step, ordinal, sample, item, slot, fidelity, strategy, score, rank, model, cost, attempt,"
        " state, closed, handle FROM requests ORDER BY step, ordinal",
        "labels": "SELECT r.step, r.ordinal, l.step, l.source, l.attempt, l.kind, l.value, l.file, l.cost, l.superseded"
        " FROM labels l JOIN requests r ON r.id = l.request"
        " ORDER BY r.step, r.ordinal, l.attempt, l.superseded DESC, l.rowid",
        "refused": "SELECT f.step, f.kind, f.item, f.reason, f.cost"
        " FROM refused f LEFT JOIN requests r ON r.id = f.request"
        " WHERE f.kind <> 'repeat' ORDER BY f.step, r.step, r.ordinal, f.rowid",
        "queries": "SELECT step, model FROM queries ORDER BY step",
        "records": "SELECT strategy, step, ordinal, value FROM records ORDER BY strategy, step, ordinal",
        "steps": "SELECT step, record FROM steps ORDER BY step",
    }
    return {table: [tuple(row) for row in connection.execute(query)] for table, query in queries.items()}


def unlabeled_requests(connection: sqlite3.Connection, most: int | None = None) -> list[dict[str, Any]]:
    """Return the requests whose label the training pool lacks, in order, each with the last reason; at most so many."""
    rows = connection.execute(
        "SELECT r.step, r.id, r.sample, r.item, r.attempt,"
        " CASE WHEN r.state = 'labeled' THEN 'set aside' ELSE r.state END AS state, f.reason FROM requests r"
        " LEFT JOIN refused f ON f.rowid = (SELECT MAX(rowid) FROM refused WHERE request = r.id AND kind <> 'repeat')"
        " WHERE r.state <> 'labeled' OR EXISTS ("
        "  SELECT 1 FROM refused s JOIN labels l ON l.request = s.request AND l.superseded = 0"
        "  WHERE s.request = r.id AND s.kind = 'set aside') ORDER BY r.step, r.ordinal LIMIT ?",
        (-1 if most is None else most,),
    )
    return [dict(row) for row in rows]


def reopen_request(connection: sqlite3.Connection, request: str) -> None:
    """Make a request open again that was given up, or whose label was set aside; the label no longer counts."""
    supersede(connection, request)
    connection.execute(
        "UPDATE requests SET state = 'open', closed = NULL, taken = 0, handle = NULL,"
        " state_digest = row_digest(id, attempt, 0, 'open', NULL, NULL) WHERE id = ?",
        (request,),
    )


def supersede(connection: sqlite3.Connection, request: str) -> list[int]:
    """Write that the label of a request, if it has one, is no longer the current one; return the step of that label."""
    rows = connection.execute(
        "UPDATE labels SET superseded = 1, state_digest = row_digest(digest, 1) WHERE request = ? AND superseded = 0"
        " RETURNING step",
        (request,),
    )
    return [step for (step,) in rows.fetchall()]


# -- labels for the other ranks ---------------------------------------------------------------------------


def label_rows(connection: sqlite3.Connection, step: int) -> list[list[Any]]:
    """Return the labels that arrived in a step, as rows that are equal on all ranks."""
    rows = connection.execute(
        "SELECT request, step, source, attempt, kind, CASE WHEN file IS NULL THEN value END, file, cost, superseded"
        " FROM labels WHERE step = ? ORDER BY rowid",
        (step,),
    )
    return [list(row) for row in rows]


def label_changes(connection: sqlite3.Connection, step: int, read_value: ReadValue) -> dict[str, Any]:
    """Return what the labeling phase of a step has changed, for `apply_label_changes` on another rank.

    Large values are in it, since another rank has no files of the run.
    """
    requests = "SELECT id, attempt, taken, state, closed, handle FROM requests WHERE state = 'open' OR closed = ?"
    found: dict[str, Any] = {"step": step, "requests": [list(row) for row in connection.execute(requests, (step,))]}
    for table in ("labels", "refused"):
        rows = connection.execute(f"SELECT * FROM {table} WHERE step = ? ORDER BY rowid", (step,))
        found[table] = [{name: "" if "digest" in name else one for name, one in dict(row).items()} for row in rows]
    for row in found["labels"]:
        row["value"] = value_text(row, read_value)
    states = connection.execute("SELECT step, state FROM label_strategy ORDER BY step DESC LIMIT 1")
    return found | {"label_strategy": [list(row) for row in states]}


def apply_label_changes(connection: sqlite3.Connection, found: Mapping[str, Any]) -> None:
    """Write what `label_changes` returned; a replica's digests are not kept up, and not read."""
    connection.executemany(
        "UPDATE requests SET attempt = ?2, taken = ?3, state = ?4, closed = ?5, handle = ?6 WHERE id = ?1",
        found["requests"],
    )
    for table in ("labels", "refused"):
        connection.execute(f"DELETE FROM {table} WHERE step = ?", (found["step"],))
        for row in found[table]:
            places = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} VALUES ({places})", list(row.values()))
    for step, state in found["label_strategy"]:
        _replace(connection, "label_strategy", step, state)


def large_values(connection: sqlite3.Connection) -> list[str]:
    """Return the SHA-256 of each file that holds the value of a label."""
    return [file for (file,) in connection.execute("SELECT DISTINCT file FROM labels WHERE file IS NOT NULL")]


def take_value_in(connection: sqlite3.Connection, file: str, value: str) -> None:
    """Write the value of a file into the labels that name it, in a copy for another rank."""
    connection.execute("UPDATE labels SET value = ? WHERE file = ?", (value, file))


# -- records ----------------------------------------------------------------------------------------------


def insert_records(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Write metrology records; those that a replay repeats are left as they are."""
    if not records:
        return
    chain = _Chain(connection, "records")
    for record in records:
        place = record.strategy, record.step, record.ordinal
        known = connection.execute(
            "SELECT 1 FROM records WHERE strategy = ? AND step = ? AND ordinal = ?", place
        ).fetchone()
        row = (record.step, record.strategy, record.ordinal, dumps(record.value))
        if known is None:
            connection.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", (*row, chain.add(*row)))
    chain.end()


def records(connection: sqlite3.Connection, before: int, strategy: str) -> list[Any]:
    """Return the records of a metrology strategy in the steps before this one."""
    rows = connection.execute(
        "SELECT value FROM records WHERE step < ? AND strategy = ? ORDER BY step, ordinal", (before, strategy)
    )
    return [loads(row["value"]) for row in rows]


def record_texts(connection: sqlite3.Connection, step: int, strategy: str) -> list[str]:
    """Return a metrology strategy's records of a step as they are stored."""
    rows = connection.execute(
        "SELECT value FROM records WHERE step = ? AND strategy = ? ORDER BY ordinal", (step, strategy)
    )
    return [row["value"] for row in rows]


def recorded_strategies(connection: sqlite3.Connection) -> list[str]:
    """Return the metrology strategies that have records."""
    return [strategy for (strategy,) in connection.execute("SELECT DISTINCT strategy FROM records")]


def records_by_strategy(connection: sqlite3.Connection) -> dict[str, list[Any]]:
    """Return all metrology records by strategy, in the order of steps."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for row in connection.execute("SELECT strategy, value FROM records ORDER BY strategy, step, ordinal"):
        found[row["strategy"]].append(loads(row["value"]))
    return dict(found)


# -- steps ------------------------------------------------------------------------------------------------


def insert_step(
    connection: sqlite3.Connection, step: int, record: Mapping[str, Any], seconds: Mapping[str, float]
) -> None:
    """Write the end of a step; one that a replay repeats is left as it is."""
    if is_committed(connection, step):
        return
    chain, row = _Chain(connection, "steps"), (step, dumps(dict(record)), json.dumps(dict(seconds)))
    connection.execute("INSERT INTO steps VALUES (?, ?, ?, ?)", (*row, chain.add(*row)))
    chain.end()


def steps(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the records of the finished steps, with ``seconds`` by phase."""
    rows = connection.execute("SELECT record, seconds FROM steps ORDER BY step")
    return [{**loads(row["record"]), "seconds": json.loads(row["seconds"])} for row in rows]


def step_record(connection: sqlite3.Connection, step: int) -> dict[str, Any] | None:
    """Return the record of a step, with ``seconds`` by phase; None where it is not finished."""
    row = connection.execute("SELECT record, seconds FROM steps WHERE step = ?", (step,)).fetchone()
    return None if row is None else {**loads(row["record"]), "seconds": json.loads(row["seconds"])}


def is_committed(connection: sqlite3.Connection, step: int) -> bool:
    """Tell whether a step is committed as a whole."""
    return connection.execute("SELECT 1 FROM steps WHERE step = ?", (step,)).fetchone() is not None


def steps_committed(connection: sqlite3.Connection) -> int:
    """Return the step after the last one that is committed as a whole; there may be gaps before it."""
    (step,) = connection.execute("SELECT COALESCE(MAX(step) + 1, 0) FROM steps").fetchone()
    return int(step)


def last_step(connection: sqlite3.Connection) -> int:
    """Return the last step of which anything is committed; -1 if there is none."""
    (step,) = connection.execute(
        "SELECT MAX(COALESCE((SELECT MAX(step) FROM steps), -1), COALESCE((SELECT MAX(step) FROM queries), -1))"
    ).fetchone()
    return int(step)


def first_and_last_step(connection: sqlite3.Connection) -> tuple[int, int] | None:
    """Return the first and the last step that are committed as a whole; None if there is none."""
    first, last = connection.execute("SELECT MIN(step), MAX(step) FROM steps").fetchone()
    return None if first is None else (first, last)


class Totals(NamedTuple):
    """A run in figures: its finished steps, its labels, and its last metrology record."""

    steps: int
    labels: int
    record: Any


def totals(connection: sqlite3.Connection) -> Totals:
    """Return a run in figures."""
    steps, labels = connection.execute(
        "SELECT (SELECT COUNT(*) FROM steps), (SELECT COUNT(*) FROM labels WHERE superseded = 0)"
    ).fetchone()
    last = connection.execute("SELECT value FROM records ORDER BY step DESC, strategy, ordinal LIMIT 1").fetchone()
    return Totals(steps, labels, None if last is None else loads(last["value"]))


# -- checkpoints ------------------------------------------------------------------------------------------


def checkpoints(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the checkpoints, oldest first: file, step, phase, epoch, sha256 and bytes."""
    rows = connection.execute(
        "SELECT file, step, phase, epoch, sha256, bytes FROM checkpoints"
        " ORDER BY phase <> 'start', step, phase <> 'training', epoch, file"
    )
    return [dict(row) for row in rows]


def checkpoint_digests(connection: sqlite3.Connection, step: int) -> dict[str, str]:
    """Return the SHA-256 of each checkpoint file of a step."""
    rows = connection.execute("SELECT file, sha256 FROM checkpoints WHERE step = ?", (step,))
    return {row["file"]: row["sha256"] for row in rows}


def name_checkpoint(
    connection: sqlite3.Connection, step: int, phase: str, epoch: int, file: str, sha256: str, size: int
) -> list[str]:
    """Name the checkpoint file of a point of the run; return the files that it replaces."""
    rows = connection.execute(
        "SELECT file FROM checkpoints WHERE step = ? AND phase = ? AND epoch = ? AND file <> ?",
        (step, phase, epoch, file),
    )
    replaced = [row["file"] for row in rows]
    delete_checkpoints(connection, replaced)
    _replace(connection, "checkpoints", file, step, phase, epoch, sha256, size)
    return replaced


def delete_checkpoints(connection: sqlite3.Connection, files: Iterable[str]) -> None:
    """Delete the rows of checkpoint files."""
    _delete(connection, "checkpoints", files)


def figures_at_checkpoints(connection: sqlite3.Connection) -> dict[int, dict[str, Any]]:
    """Return what was measured in each step whose end has a checkpoint.

    Returns
    -------
    dict
        By step, the figures by name, for instance ``f1`` and ``f1_metrology.f1``, then the losses of its training. Of
        equal names the first metrology strategy counts, and of its records the last.
    """
    ends = " JOIN checkpoints c ON c.step = one.step AND c.phase = 'labeling'"
    measured: defaultdict[int, defaultdict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    rows = connection.execute(f"SELECT one.step, strategy, value FROM records one{ends} ORDER BY strategy, ordinal")
    for row in rows:
        if isinstance(value := loads(row["value"]), dict):
            named = {name: figure for name, figure in value.items() if isinstance(name, str)}
            measured[row["step"]][row["strategy"]] |= named
    found: dict[int, dict[str, Any]] = {}
    for row in connection.execute(f"SELECT one.step, record FROM steps one{ends} ORDER BY one.step"):
        figures: dict[str, Any] = {}
        for strategy, values in measured[row["step"]].items():
            qualified = {f"{strategy}.{name}": figure for name, figure in values.items()}
            figures |= {**values, **qualified, **figures}
        found[row["step"]] = {**loads(row["record"]).get("losses", {}), **figures}
    return found


# -- forks ------------------------------------------------------------------------------------------------


def copy_until(old: sqlite3.Connection, new: sqlite3.Connection, step: int) -> None:
    """Write what was committed by the end of a step into the empty tables of a new database.

    What was closed after it is open again. The old rows up to this step must have been verified; others may be damaged.
    """
    for table in (*CHAINED, "checkpoints", "label_strategy", "run"):
        wanted = "step <= ?" if table != "run" else f"key NOT IN {OF_THE_END} AND ? >= 0"
        rows = old.execute(f"SELECT * FROM {table} NOT INDEXED WHERE {wanted}", (step,))
        with contextlib.suppress(sqlite3.DatabaseError):  # in what comes later
            while (row := rows.fetchone()) is not None:
                new.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", tuple(row))
    set_epoch(new, 1)
    _open_again_after(new, step)
    make_digests(new)


def _open_again_after(connection: sqlite3.Connection, step: int) -> None:
    connection.execute(
        "UPDATE requests SET state = 'open', closed = NULL, taken = 0, attempt ="
        f" (SELECT COUNT(*) FROM refused WHERE request = requests.id AND {_IS_AN_ATTEMPT})"
        " WHERE closed IS NULL OR closed > ?",
        (step,),
    )
    connection.execute(  # an answer that was corrected later is the current one again
        "UPDATE labels SET superseded = NOT (rowid IN (SELECT MAX(rowid) FROM labels GROUP BY request)"
        " AND request IN (SELECT id FROM requests WHERE state = 'labeled'))"
    )


_CONSTANT = {
    "steps": "step, record, seconds",
    "requests": "id, step, ordinal, sample, item, slot, fidelity, strategy, score, rank, model, cost",
    "labels": "request, step, source, attempt, kind, value, file, cost, arrived",
    "refused": "request, step, kind, item, reason, cost, arrived",
    "queries": "step, model",
    "records": "step, strategy, ordinal, value",
}
_WHOLE = {
    "run": "key, value",
    "writer": "key, value",
    "label_strategy": "step, state",
    "checkpoints": "file, step, phase, epoch, sha256, bytes",
}
_NEW = {"requests": (0, 0, "open", None, None), "labels": (0,)}
"""The state of a new row."""
_STATE = {"requests": "id, attempt, taken, state, closed, handle", "labels": "digest, superseded"}
"""The columns that the digests of a row are made of, in their order: what never changes, all of it, what changes."""


def make_digests(connection: sqlite3.Connection) -> None:
    """Make all digests anew, of what the tables hold now."""
    for table, columns in _CONSTANT.items():
        last, digests = row_digest(table), []
        for rowid, *values in connection.execute(f"SELECT rowid, {columns} FROM {table} ORDER BY rowid").fetchall():
            last = row_digest(last, *values)
            digests.append((last, rowid))
        connection.executemany(f"UPDATE {table} SET digest = ? WHERE rowid = ?", digests)
        connection.execute("UPDATE digests SET rows = ?, digest = ? WHERE name = ?", (len(digests), last, table))
    for table, columns in _STATE.items():
        new = " AND ".join(
            f"{name} IS {value!r}".replace("None", "NULL")
            for name, value in zip(columns.split(", ")[1:], _NEW[table], strict=True)
        )
        connection.execute(
            f"UPDATE {table} SET state_digest = row_digest({columns}) WHERE state_digest NOT NULL OR NOT ({new})"
        )
    for table, columns in _WHOLE.items():
        connection.execute(f"UPDATE {table} SET digest = row_digest({columns})")
        found = [digest for (digest,) in connection.execute(f"SELECT digest FROM {table}")]
        connection.execute(
            "UPDATE digests SET rows = ?, digest = ? WHERE name = ?",
            (len(found), _combined(bytes(16), *found), table),
        )


# -- damage -----------------------------------------------------------------------------------------------


class Damage(NamedTuple):
    """Something in a database that no writer has written.

    Parameters
    ----------
    what
        What it is.
    step
        The first step that may be concerned; -1 for all of them, `AFTERWARDS` where none is.
    """

    what: str
    step: int


AFTERWARDS = 2**62
"""The step of what only goes on, and matters for nothing that is committed."""


def damage_of_schema(connection: sqlite3.Connection) -> list[Damage]:
    """Return what is not as `create` makes it: tables and indexes, triggers and views of others.

    Nothing else may be read of a database in which there is something else.
    """
    found, expected = _schema(connection), _expected_schema()
    wrong = []
    for place in sorted(found.keys() | expected.keys()):
        what = f"the {place[0]} {place[1]!r:.60}, which "
        if place not in expected:
            wrong.append(Damage(f"{what}alcore doesn't make", -1))
        elif found.get(place) != expected[place]:
            wrong.append(Damage(f"{what}is {'changed' if place in found else 'gone'}", -1))
    return wrong


def _schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {(str(row[0]), str(row[1])): f"{row[2]} {row[3]}" for row in rows}


@functools.cache
def _expected_schema() -> dict[tuple[str, str], str]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create(connection)
        return _schema(connection)


def integrity(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds wrong with the pages of the file."""
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    return [] if found == ["ok"] else found


def damage(connection: sqlite3.Connection) -> list[Damage]:
    """Return what in the rows of a database is not as it was written; nothing in a sound one.

    The schema must be that of `create`.
    """
    heads = {name: (rows, digest) for name, rows, digest in connection.execute("SELECT * FROM digests")}
    found: list[Damage] = []
    for table in (*CHAINED, *CHANGING):
        damage_of = _damage_of_chain if table in CHAINED else _damage_of_set
        try:
            found += damage_of(connection, table, heads.get(table))
        except sqlite3.DatabaseError as error:
            found.append(Damage(f"table {table}: {error}", -1))
    return found or list(_damage_of_links(connection))


def _damage_of_chain(connection: sqlite3.Connection, table: str, head: tuple[int, bytes] | None) -> Iterator[Damage]:
    """Yield what is wrong with a table whose rows are only added."""
    last, rows, step = row_digest(table), 0, 0
    state = _STATE.get(table)
    names = f"step, digest, {'NULL' if state is None else 'state_digest'}, {_CONSTANT[table]}"
    names += "" if state is None else f", {state}"
    count = len(_CONSTANT[table].split(","))
    more = head is None or head[0] > connection.execute(f"SELECT COUNT(*) FROM {table} NOT INDEXED").fetchone()[0]
    reader = connection.execute(f"SELECT {names} FROM {table} NOT INDEXED ORDER BY rowid")
    while True:
        try:
            row = reader.fetchone()
        except sqlite3.DatabaseError as error:
            yield Damage(f"table {table} after row {rows}: {error}", step)
            return
        if row is None:
            break
        rows += 1
        found_step, digest, state_digest, *values = row
        here = found_step if type(found_step) is int else 0
        if row_digest(last, *values[:count]) != digest:
            what = "rows are gone or changed" if more else "it is changed, or out of its order"
            yield Damage(f"row {rows} of table {table}, of step {found_step!r:.20}: {what}", min(step, here))
        elif state is not None and state_digest not in (row_digest(*values[count:]), _unchanged(table, values[count:])):
            yield Damage(f"row {rows} of table {table}, of step {here}: its state is changed", here)
        else:
            step = here
        last = digest
    if head is None or head != (rows, last):
        yield Damage(f"the end of table {table}: it has {rows} rows, and {head[0] if head else 'more'} on record", step)


def _unchanged(table: str, state: Sequence[object]) -> bytes | None:
    """Return the digest of a state that hasn't changed since its row was written, which is None; of others, none."""
    return None if tuple(state[1:]) == _NEW[table] else b""


def _damage_of_set(connection: sqlite3.Connection, table: str, head: tuple[int, bytes] | None) -> Iterator[Damage]:
    """Yield what is wrong with a table whose rows may change."""
    total, rows, wrong = bytes(16), 0, False
    of_step = "step" in _WHOLE[table]
    key = CHANGING[table]
    for digest, step, name, *values in connection.execute(
        f"SELECT digest, {'step' if of_step else '-1'}, {key}, {_WHOLE[table]} FROM {table} NOT INDEXED"
    ):
        rows += 1
        if row_digest(*values) != digest:
            wrong = True
            concerned = AFTERWARDS if table == "writer" or name in OF_THE_END else step if type(step) is int else -1
            yield Damage(f"the row {name!r:.60} of table {table}: it is changed", concerned)
        else:
            total = _combined(total, digest)
    if not wrong and (head is None or head != (rows, total)):
        concerned = -1 if table in ("run", "label_strategy") else AFTERWARDS
        yield Damage(f"table {table}: it has {rows} rows, and {head[0] if head else 'more'} on record", concerned)


def _damage_of_links(connection: sqlite3.Connection) -> Iterator[Damage]:
    """Yield the rows that name a request that isn't there."""
    for table in ("labels", "refused"):
        for (step,) in connection.execute(
            f"SELECT t.step FROM {table} t LEFT JOIN requests r ON r.id = t.request"
            " WHERE t.request IS NOT NULL AND r.id IS NULL"
        ):
            yield Damage(f"table {table} names a request that is not there", step if type(step) is int else -1)
