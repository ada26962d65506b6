"""All SQL of a run database: its tables, what the one writer of a run writes, and what is read from it.

Each function gets a connection of `alcore.store.database.Database` or `alcore.store.reading.Run`, whose rows can be
indexed by column name. Transactions are the caller's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from alcore.codec import dumps, loads
from alcore.protocols import Label, Request, Spent

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE steps(
    step INTEGER PRIMARY KEY,
    record TEXT NOT NULL,       -- what the step did, the same in every run of this experiment
    seconds TEXT NOT NULL);     -- how long its phases took
CREATE TABLE requests(
    id TEXT PRIMARY KEY,
    step INTEGER NOT NULL, ordinal INTEGER NOT NULL,
    sample INTEGER, item TEXT,  -- a sample id, or a generated input: exactly one of the two
    strategy TEXT NOT NULL, score REAL, rank INTEGER NOT NULL, model TEXT NOT NULL,
    cost REAL NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    taken INTEGER NOT NULL DEFAULT 0,  -- the label strategy has taken it out, and not answered yet
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'labelled', 'failed')),
    closed INTEGER,             -- the step in which it was labelled or given up
    UNIQUE (step, ordinal),
    CHECK ((sample IS NULL) <> (item IS NULL)));
CREATE INDEX open_requests ON requests(step, ordinal) WHERE state = 'open';
CREATE TABLE labels(
    request TEXT NOT NULL REFERENCES requests(id),
    step INTEGER NOT NULL,      -- the step in which it arrived
    source TEXT NOT NULL, attempt INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('id', 'label', 'object')),
    value TEXT,                 -- NULL for a bare id: the pool knows the answer
    cost REAL NOT NULL,
    superseded INTEGER NOT NULL DEFAULT 0,  -- a later answer of this source took its place
    arrived REAL NOT NULL);
CREATE UNIQUE INDEX current_label ON labels(request) WHERE superseded = 0;
CREATE TABLE refused(
    request TEXT, step INTEGER NOT NULL, item TEXT NOT NULL, reason TEXT NOT NULL,
    repeat INTEGER NOT NULL,    -- the same answer once more: nothing is wrong with it
    arrived REAL NOT NULL);
CREATE TABLE queries(           -- the query phases that are committed, with the model that chose
    step INTEGER PRIMARY KEY, model TEXT NOT NULL);
CREATE TABLE records(
    step INTEGER NOT NULL, strategy TEXT NOT NULL, ordinal INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (strategy, step, ordinal)) WITHOUT ROWID;
CREATE TABLE checkpoints(
    file TEXT PRIMARY KEY,
    step INTEGER NOT NULL, phase TEXT NOT NULL, epoch INTEGER NOT NULL,
    sha256 TEXT NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
"""


SET_ASIDE = "the training pool refused it: "
"""How the reasons begin for which an answer was set aside that had been accepted."""


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
    """

    request: Request
    sample: int | None
    strategy: str
    score: float | None
    rank: int
    cost: float

    def as_list(self) -> list[Any]:
        """Return this as plain data, for another rank."""
        one = self.request
        return [[one.id, one.step, one.ordinal, one.item, one.attempt], *self[1:]]

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


def _request(row: sqlite3.Row) -> Request:
    item = row["sample"] if row["item"] is None else loads(row["item"])
    return Request(row["id"], row["step"], row["ordinal"], item, row["attempt"])


def _accepted_label(row: sqlite3.Row) -> AcceptedLabel:
    request = _request(row)
    item = put_item(request.item, row["kind"], row["value"], row["source"], row["cost"])
    return AcceptedLabel(request, item, row["kind"], row["source"], row["value"], row["cost"])


# -- meta -------------------------------------------------------------------------------------------------


def epoch(connection: sqlite3.Connection) -> int:
    """Return how often the database was opened for writing."""
    (value,) = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    return int(value)


def set_epoch(connection: sqlite3.Connection, value: int) -> None:
    """Write how often the database was opened for writing."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (str(value),))


def meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what is known about the run as a whole, without what only its writer needs."""
    rows = connection.execute(
        "SELECT key, value FROM meta WHERE key NOT IN ('epoch', 'labeling_ended', 'inbox_file')"
        " AND key NOT LIKE 'labeler%' ORDER BY key"
    )
    return {row["key"]: loads(row["value"]) for row in rows}


def utc_now() -> str:
    """Return the time in UTC, to the second: the form of ``started`` and ``ended``."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def set_meta(connection: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    """Write what is known about the run as a whole; other keys stay."""
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(key, dumps(value)) for key, value in values.items()],
    )


def label_strategy_state(connection: sqlite3.Connection) -> str | None:
    """Return the state of the label strategy that was committed last, if one was."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'labeler'").fetchone()
    return None if row is None else str(loads(row["value"]))


def keep_label_strategy_state(connection: sqlite3.Connection, step: int) -> None:
    """Keep the label strategy's state under this step, for forks, unless the step is committed already."""
    connection.execute(
        "INSERT OR IGNORE INTO meta SELECT 'labeler-' || ?1, value FROM meta WHERE key = 'labeler'"
        " AND NOT EXISTS (SELECT 1 FROM steps WHERE step = ?1)",
        (step,),
    )


# -- requests ---------------------------------------------------------------------------------------------


def insert_query(connection: sqlite3.Connection, step: int, asked: Sequence[AskedRequest], model: str) -> None:
    """Write what a query phase asked for."""
    connection.executemany(
        "INSERT INTO requests(id, step, ordinal, sample, item, strategy, score, rank, model, cost)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                one.request.id,
                one.request.step,
                one.request.ordinal,
                one.sample,
                None if one.sample is not None else dumps(one.request.item),
                one.strategy,
                one.score,
                one.rank,
                model,
                one.cost,
            )
            for one in asked
        ],
    )
    connection.execute("INSERT OR IGNORE INTO queries VALUES (?, ?)", (step, model))


def asked_requests(connection: sqlite3.Connection, step: int) -> list[AskedRequest] | None:
    """Return what a query phase asked for, in order; None if it is not committed."""
    if connection.execute("SELECT 1 FROM queries WHERE step = ?", (step,)).fetchone() is None:
        return None
    rows = connection.execute("SELECT * FROM requests WHERE step = ? ORDER BY ordinal", (step,))
    return [
        AskedRequest(_request(row), row["sample"], row["strategy"], row["score"], row["rank"], row["cost"])
        for row in rows
    ]


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


def requests(connection: sqlite3.Connection, step: int | None) -> list[dict[str, Any]]:
    """Return requests with their current labels, in order; those of one step, or all."""
    rows = connection.execute(
        "SELECT r.step, r.ordinal, r.id, r.sample, r.item, r.strategy, r.score, r.rank, r.model, r.attempt,"
        " r.state, l.kind, l.value, l.source, l.cost FROM requests r"
        " LEFT JOIN labels l ON l.request = r.id AND l.superseded = 0"
        " WHERE ?1 IS NULL OR r.step = ?1 ORDER BY r.step, r.ordinal",
        (step,),
    )
    return [dict(row) for row in rows]


def waits_before(connection: sqlite3.Connection, step: int) -> bool:
    """Tell whether a request of an earlier step was open when this step began."""
    found = connection.execute(
        "SELECT 1 FROM requests WHERE step < ?1 AND (closed IS NULL OR closed >= ?1) LIMIT 1", (step,)
    )
    return found.fetchone() is not None


def committed_cost(connection: sqlite3.Connection, before: int | None) -> float:
    """Return what the current labels cost, plus what the open requests are expected to cost.

    Parameters
    ----------
    connection
        Of the run.
    before
        As it was known at the query phase of this step; now where it is None.
    """
    (cost,) = connection.execute(
        "SELECT COALESCE(SUM(CASE WHEN r.closed IS NULL OR r.closed >= ?1 THEN r.cost"
        " ELSE COALESCE(l.cost, 0) END), 0)"
        " FROM requests r LEFT JOIN labels l ON l.request = r.id AND l.superseded = 0 WHERE r.step < ?1",
        (2**62 if before is None else before,),
    ).fetchone()
    return float(cost)


# -- requests in flight -----------------------------------------------------------------------------------


def set_taken(connection: sqlite3.Connection, requests: Iterable[str], taken: bool) -> None:
    """Write whether a label strategy works on requests; of those that are closed, it doesn't."""
    connection.executemany(
        "UPDATE requests SET taken = ? WHERE id = ? AND state = 'open'", [(taken, one) for one in requests]
    )


def in_flight(connection: sqlite3.Connection) -> list[Request]:
    """Return the open requests that a label strategy has taken out and not answered, oldest first."""
    rows = connection.execute(
        "SELECT id, step, ordinal, sample, item, attempt FROM requests WHERE state = 'open' AND taken"
        " ORDER BY step, ordinal"
    )
    return [_request(row) for row in rows]


def give_up_in_flight(connection: sqlite3.Connection, step: int, kept: Iterable[str]) -> None:
    """Give up the requests in flight, but for those that are kept, in the labeling phase of this step."""
    dropped = "state = 'open' AND taken AND id NOT IN (SELECT value FROM json_each(?))"
    ids = json.dumps(list(kept))
    connection.execute(
        "INSERT INTO refused SELECT id, ?, 'null', 'in doubt when the run was cut off, and dropped', 0, ?"
        f" FROM requests WHERE {dropped}",
        (step, time.time(), ids),
    )
    connection.execute(f"UPDATE requests SET state = 'failed', closed = ? WHERE {dropped}", (step, ids))


def clear_taken(connection: sqlite3.Connection) -> None:
    """Write that no request is in flight."""
    connection.execute("UPDATE requests SET taken = 0 WHERE taken")


# -- labels -----------------------------------------------------------------------------------------------


class AnswerWriter:
    """Writes what becomes of answers, in one transaction.

    Parameters
    ----------
    connection
        With an open transaction.
    step
        The step whose labeling phase the answers belong to.
    """

    def __init__(self, connection: sqlite3.Connection, step: int) -> None:
        self._connection, self._step = connection, step

    def accept(self, request: Request, answer: AcceptedLabel, *, corrects: bool = False) -> None:
        """Accept an answer; one that corrects an earlier answer is kept beside it."""
        if corrects:
            self._connection.execute("UPDATE labels SET superseded = 1 WHERE request = ?", (request.id,))
        else:
            self._close(request.id, "labelled")
        self._connection.execute(
            "INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
            (
                request.id,
                self._step,
                answer.source,
                request.attempt,
                answer.kind,
                answer.value,
                answer.cost,
                time.time(),
            ),
        )

    def retry(self, request_id: str, attempt: int) -> None:
        """Leave a request open for its next attempt."""
        self._connection.execute("UPDATE requests SET attempt = ?, taken = 0 WHERE id = ?", (attempt, request_id))

    def give_up(self, request_id: str) -> None:
        """Close a request that could not be labeled."""
        self._close(request_id, "failed")

    def refuse(self, request_id: str | None, item: str, reason: str, *, repeat: bool = False) -> None:
        """Keep an answer that was not accepted.

        Parameters
        ----------
        request_id
            The request that it was for; None if there is none.
        item
            What was put, as text.
        reason
            Why it was not accepted.
        repeat
            Whether the same answer was accepted before.
        """
        self._connection.execute(
            "INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?)",
            (request_id, self._step, item, reason, repeat, time.time()),
        )

    def set_aside(self, request_id: str, item: str, reason: str) -> None:
        """Keep that the training pool refused an accepted answer; once for each reason, as a replay tries it again."""
        reason = SET_ASIDE + reason
        known = self._connection.execute(
            "SELECT 1 FROM refused WHERE request = ? AND step = ? AND reason = ?", (request_id, self._step, reason)
        )
        if known.fetchone() is None:
            self.refuse(request_id, item, reason)

    def keep_state(self, text: str) -> None:
        """Keep the state of the label strategy after these answers; a fork reads its key ``step``."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('labeler', ?)", (dumps(text),))

    def note_inbox_file(self, name: str) -> None:
        """Note the file of the inbox that these answers are from, so that it is not taken in again."""
        set_meta(self._connection, {"inbox_file": name})

    def _close(self, request_id: str, state: str) -> None:
        self._connection.execute(
            "UPDATE requests SET state = ?, closed = ?, taken = 0 WHERE id = ?", (state, self._step, request_id)
        )


def labeling(connection: sqlite3.Connection, step: int) -> LabelingState:
    """Return a labeling phase as it is committed."""
    committed = is_committed(connection, step)
    ended = connection.execute("SELECT value FROM meta WHERE key = 'labeling_ended'").fetchone()
    given_up = connection.execute(
        "SELECT sample, id FROM requests WHERE closed = ? AND state = 'failed' AND sample IS NOT NULL", (step,)
    )
    asks = connection.execute("SELECT 1 FROM requests WHERE sample IS NOT NULL LIMIT 1").fetchone()
    refused = connection.execute(
        "SELECT r.id FROM requests r JOIN refused f ON f.request = r.id WHERE r.state = 'open' AND f.step = ?", (step,)
    )
    return LabelingState(
        open=_open_requests(connection, step),
        refused={row["id"] for row in refused},
        taken={one.id for one in in_flight(connection)},
        accepted=accepted(connection, step),
        given_up={row["sample"]: row["id"] for row in given_up},
        asks_for_samples=asks is not None,
        ended=committed or (ended is not None and loads(ended["value"]) == step),
        committed=committed,
    )


def _open_requests(connection: sqlite3.Connection, step: int) -> list[Request]:
    rows = connection.execute(
        "SELECT r.id, r.step, r.ordinal, r.sample, r.item, r.attempt FROM requests r LEFT JOIN"
        " (SELECT request, MAX(rowid) AS place FROM refused WHERE step = ? GROUP BY request) f ON f.request = r.id"
        " WHERE r.state = 'open' ORDER BY f.place NULLS FIRST, r.step, r.ordinal",
        (step,),
    )
    return [_request(row) for row in rows]


def end_labeling(connection: sqlite3.Connection, step: int) -> None:
    """Write that a labeling phase is over, if it leaves requests open; else the request table says so."""
    if connection.execute("SELECT 1 FROM requests WHERE state = 'open' LIMIT 1").fetchone() is not None:
        set_meta(connection, {"labeling_ended": step})
        keep_label_strategy_state(connection, step)


def reopen_labeling(connection: sqlite3.Connection, step: int) -> None:
    """Take back that a labeling phase is over."""
    connection.execute("DELETE FROM meta WHERE key IN ('labeling_ended', 'labeler-' || ?)", (step,))


def inbox_file(connection: sqlite3.Connection) -> str | None:
    """Return the file of the inbox whose answers were committed last, if there was one."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'inbox_file'").fetchone()
    return None if row is None else str(loads(row["value"]))


def accepted(connection: sqlite3.Connection, step: int) -> list[AcceptedLabel]:
    """Return the answers that a labeling phase has accepted so far, in the order of their requests."""
    rows = connection.execute(
        "SELECT r.id, r.step, r.ordinal, r.sample, r.item, l.attempt, l.kind, l.source, l.value, l.cost"
        " FROM labels l JOIN requests r ON r.id = l.request"
        " WHERE l.step = ? AND l.superseded = 0 ORDER BY r.step, r.ordinal",
        (step,),
    )
    return [_accepted_label(row) for row in rows]


def label_counts(connection: sqlite3.Connection, step: int) -> dict[str, int]:
    """Return how many requests a labeling phase labeled or gave up, and how many answers it did not accept."""
    row = connection.execute(
        "SELECT (SELECT COUNT(*) FROM requests WHERE closed = ?1 AND state = 'labelled') AS labelled,"
        " (SELECT COUNT(*) FROM requests WHERE closed = ?1 AND state = 'failed') AS failed,"
        " (SELECT COUNT(*) FROM refused WHERE step = ?1 AND NOT repeat) AS refused,"
        " (SELECT COUNT(*) FROM refused WHERE step = ?1 AND repeat) AS repeated",
        (step,),
    ).fetchone()
    return dict(row)


def bought(connection: sqlite3.Connection, before: int) -> Spent:
    """Return the number and the cost of the current labels that arrived before a step."""
    (labels, cost) = connection.execute(
        "SELECT COUNT(*), COALESCE(SUM(cost), 0) FROM labels WHERE superseded = 0 AND step < ?", (before,)
    ).fetchone()
    return Spent(int(labels), float(cost))


def first_training_step(connection: sqlite3.Connection) -> int | None:
    """Return the first step that had anything to train on, in a run that began with nothing labeled."""
    (step,) = connection.execute("SELECT MIN(step) + 1 FROM labels").fetchone()
    return None if step is None else int(step)


def refused(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the answers that were not accepted, with the reasons, in the order of their arrival."""
    rows = connection.execute("SELECT step, request, item, reason FROM refused ORDER BY rowid")
    return [dict(row) for row in rows]


def decisions(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows that equal runs have in common, by table: all but times, and ids made from the id of the run."""
    queries = {
        "requests": "SELECT step, ordinal, sample, item, strategy, score, rank, model, cost, attempt, state, closed"
        " FROM requests ORDER BY step, ordinal",
        "labels": "SELECT r.step, r.ordinal, l.step, l.source, l.attempt, l.kind, l.value, l.cost, l.superseded"
        " FROM labels l JOIN requests r ON r.id = l.request"
        " ORDER BY r.step, r.ordinal, l.attempt, l.superseded DESC, l.rowid",
        "refused": "SELECT f.step, f.item, f.reason FROM refused f LEFT JOIN requests r ON r.id = f.request"
        " WHERE f.repeat = 0 ORDER BY f.step, r.step, r.ordinal, f.rowid",
        "queries": "SELECT step, model FROM queries ORDER BY step",
        "records": "SELECT strategy, step, ordinal, value FROM records ORDER BY strategy, step, ordinal",
        "steps": "SELECT step, record FROM steps ORDER BY step",
    }
    return {table: [tuple(row) for row in connection.execute(query)] for table, query in queries.items()}


def unlabeled_requests(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the requests whose label the training pool lacks, in order, each with the last reason."""
    rows = connection.execute(
        "SELECT r.step, r.id, r.sample, r.item, r.attempt,"
        " CASE WHEN r.state = 'labelled' THEN 'set aside' ELSE r.state END AS state, f.reason FROM requests r"
        " LEFT JOIN refused f ON f.rowid = (SELECT MAX(rowid) FROM refused WHERE request = r.id AND repeat = 0)"
        " WHERE r.state <> 'labelled' OR EXISTS ("
        "  SELECT 1 FROM refused s JOIN labels l ON l.request = s.request AND l.superseded = 0"
        "  WHERE s.request = r.id AND substr(s.reason, 1, ?1) = ?2)"
        " ORDER BY r.step, r.ordinal",
        (len(SET_ASIDE), SET_ASIDE),
    )
    return [dict(row) for row in rows]


def reopen_request(connection: sqlite3.Connection, request: str) -> None:
    """Make a request open again that was given up, or whose label was set aside; the label no longer counts."""
    connection.execute("UPDATE labels SET superseded = 1 WHERE request = ?", (request,))
    connection.execute("UPDATE requests SET state = 'open', closed = NULL, taken = 0 WHERE id = ?", (request,))


# -- labels for the other ranks ---------------------------------------------------------------------------


def label_rows(connection: sqlite3.Connection, step: int) -> list[list[Any]]:
    """Return the labels that arrived in a step, as rows."""
    rows = connection.execute("SELECT * FROM labels WHERE step = ? ORDER BY rowid", (step,))
    return [list(row) for row in rows]


def label_changes(connection: sqlite3.Connection, step: int) -> dict[str, Any]:
    """Return what the labeling phase of a step has changed, for `apply_label_changes` on another rank."""
    requests = "SELECT id, attempt, taken, state, closed FROM requests WHERE state = 'open' OR closed = ?"
    refused = "SELECT * FROM refused WHERE step = ? ORDER BY rowid"
    return {
        "step": step,
        "requests": [list(row) for row in connection.execute(requests, (step,))],
        "labels": label_rows(connection, step),
        "refused": [list(row) for row in connection.execute(refused, (step,))],
        "labeler": [value for (value,) in connection.execute("SELECT value FROM meta WHERE key = 'labeler'")],
    }


def apply_label_changes(connection: sqlite3.Connection, found: Mapping[str, Any]) -> None:
    """Write what `label_changes` returned."""
    connection.executemany(
        "UPDATE requests SET attempt = ?2, taken = ?3, state = ?4, closed = ?5 WHERE id = ?1", found["requests"]
    )
    for table, columns in (("labels", 9), ("refused", 6)):
        connection.execute(f"DELETE FROM {table} WHERE step = ?", (found["step"],))
        places = ", ".join("?" * columns)
        connection.executemany(f"INSERT INTO {table} VALUES ({places})", found[table])
    connection.executemany("INSERT OR REPLACE INTO meta VALUES ('labeler', ?)", [(one,) for one in found["labeler"]])


# -- records ----------------------------------------------------------------------------------------------


def insert_records(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Write metrology records; those that a replay repeats are left as they are."""
    connection.executemany(
        "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?)",
        [(record.step, record.strategy, record.ordinal, dumps(record.value)) for record in records],
    )


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
    connection.execute(
        "INSERT OR IGNORE INTO steps VALUES (?, ?, ?)", (step, dumps(dict(record)), json.dumps(dict(seconds)))
    )


def steps(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the records of the finished steps, with ``seconds`` by phase."""
    rows = connection.execute("SELECT record, seconds FROM steps ORDER BY step")
    return [{**loads(row["record"]), "seconds": json.loads(row["seconds"])} for row in rows]


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
        "SELECT * FROM checkpoints ORDER BY phase <> 'start', step, phase <> 'training', epoch, file"
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
    connection.execute(
        "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)", (file, step, phase, epoch, sha256, size)
    )
    return replaced


def delete_checkpoints(connection: sqlite3.Connection, files: Iterable[str]) -> None:
    """Delete the rows of checkpoint files."""
    connection.executemany("DELETE FROM checkpoints WHERE file = ?", [(file,) for file in files])


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


def delete_after(connection: sqlite3.Connection, step: int) -> None:
    """Delete what was committed after the end of a step, and open again what was closed after it."""
    for table in ("labels", "refused", "requests", "queries", "records", "steps", "checkpoints"):
        connection.execute(f"DELETE FROM {table} WHERE step > ?", (step,))
    connection.execute(  # an answer that was corrected later is the current one again
        "UPDATE labels SET superseded = 0 WHERE rowid IN (SELECT MAX(rowid) FROM labels GROUP BY request)"
    )
    connection.execute(  # what was refused of an open request is its failed attempts
        "UPDATE requests SET state = 'open', closed = NULL, taken = 0, attempt ="
        " (SELECT COUNT(*) FROM refused WHERE request = requests.id) WHERE closed IS NULL OR closed > ?",
        (step,),
    )


def set_meta_of_fork(connection: sqlite3.Connection, step: int, values: Mapping[str, Any]) -> None:
    """Write what a fork is, over what is known of the run that it was copied from at the end of a step."""
    rows = connection.execute("SELECT key, value FROM meta WHERE key <> 'epoch'")
    found = {row["key"]: row["value"] for row in rows}
    if f"labeler-{step}" in found:
        found["labeler"] = found[f"labeler-{step}"]
    elif "labeler" in found and loads(loads(found["labeler"]))["step"] > step:
        del found["labeler"]  # of a later step; nothing had been answered by the end of this one
    for later in [key for key in found if key.startswith("labeler-") and int(key.partition("-")[2]) > step]:
        del found[later]
    for gone in ("labeling_ended", "inbox_file", "ended", "reason", "error"):
        found.pop(gone, None)
    connection.execute("DELETE FROM meta WHERE key <> 'epoch'")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", found.items())
    set_meta(connection, values)
