"""All SQL of a run database: its tables, what the one writer of a run writes, and what is read from it.

Each function gets a connection of `alcore.store.database.Database` or `alcore.store.reading.Run`, whose rows can be
indexed by column name. Transactions are the caller's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from alcore.codec import dumps, loads, storable
from alcore.protocols import Label, Request
from alcore.store.digests import CHAINED, add_rows, delete_rows, make_digests, replace_row, set_state
from alcore.store.endings import OF_THE_END

REFUSED = ("refused", "set aside")
"""The kinds of rows of the table ``refused`` that are refused answers; the others are failures and repeats."""
_IS_AN_ATTEMPT = "(kind IN ('infrastructure', 'timeout', 'infeasible') OR kind = 'refused' AND cost NOT NULL)"
"""Whether a row of the table ``refused`` is an attempt. What a person told wrongly has no cost, and is none."""
PREPROCESSING = "preprocessing"
"""The key of the table ``run`` that has how the data makes inputs of a file."""


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


# -- the run as a whole, what its writer needs, the state of the label strategy ---------------------------


def epoch(connection: sqlite3.Connection) -> int:
    """Return how often the database was opened for writing."""
    return int(_note(connection, "epoch") or 0)


def set_epoch(connection: sqlite3.Connection, value: int) -> None:
    """Write how often the database was opened for writing."""
    replace_row(connection, "writer", "epoch", str(value))


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
        replace_row(connection, "run", key, dumps(value))


def label_strategy_state(connection: sqlite3.Connection) -> str | None:
    """Return the state of the label strategy that was committed last, if one was."""
    row = connection.execute("SELECT state FROM label_strategy ORDER BY step DESC LIMIT 1").fetchone()
    return None if row is None else str(row["state"])


# -- requests ---------------------------------------------------------------------------------------------


def insert_query(connection: sqlite3.Connection, step: int, asked: Sequence[AskedRequest], model: str) -> None:
    """Write what a query phase asked for."""
    rows = []
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
        rows.append(row)
    add_rows(connection, "requests", rows)
    if asked_requests(connection, step) is None:
        add_rows(connection, "queries", [(step, model)])


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
        f"UPDATE requests SET {set_state('requests', taken='?1')} WHERE id = ?2 AND state = 'open'",
        [(int(taken), one) for one in requests],
    )


def set_handle(connection: sqlite3.Connection, request: str, handle: str) -> bool:
    """Write the name of the job that answers a request; return whether the request is open."""
    changed = connection.execute(
        f"UPDATE requests SET {set_state('requests', handle='?2')} WHERE id = ?1 AND state = 'open'",
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
    connection.execute(f"UPDATE requests SET {set_state('requests', taken='0')} WHERE state = 'open' AND taken")


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
        self._labels.append(row)

    def retry(self, request_id: str, attempt: int) -> None:
        """Leave a request open for its next attempt, which will be another job."""
        self._write()
        self._connection.execute(
            f"UPDATE requests SET {set_state('requests', attempt='?1', taken='0', handle='NULL')} WHERE id = ?2",
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
        add_rows(self._connection, "refused", [row])

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
        replace_row(self._connection, "label_strategy", self._step, text)

    def note_inbox_file(self, name: str) -> None:
        """Note the file of the inbox that these answers are from, so that it is not taken in again."""
        replace_row(self._connection, "writer", "inbox_file", name)

    def end(self) -> None:
        """Write the labels."""
        self._write()

    def _close(self, request_id: str, state: str) -> None:
        self._closed.append((state, self._step, request_id))

    def _write(self) -> None:
        """Write the labels so far, and which requests are closed: many rows by one statement take less time."""
        self._connection.executemany(
            f"UPDATE requests SET {set_state('requests', state='?1', closed='?2', taken='0')} WHERE id = ?3",
            self._closed,
        )
        add_rows(self._connection, "labels", self._labels)
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
        replace_row(connection, "writer", "labeling_ended", str(step))


def reopen_labeling(connection: sqlite3.Connection) -> None:
    """Take back that a labeling phase is over."""
    delete_rows(connection, "writer", ["labeling_ended"])


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
    replace_row(connection, "writer", "failures_since", repr(time.time()))


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


_REOPENED = set_state("requests", state="'open'", closed="NULL", taken="0", handle="NULL")


def reopen_request(connection: sqlite3.Connection, request: str) -> None:
    """Make a request open again that was given up, or whose label was set aside; the label no longer counts."""
    supersede(connection, request)
    connection.execute(
        f"UPDATE requests SET {_REOPENED} WHERE id = ?",
        (request,),
    )


def supersede(connection: sqlite3.Connection, request: str) -> list[int]:
    """Write that the label of a request, if it has one, is no longer the current one; return the step of that label."""
    rows = connection.execute(
        f"UPDATE labels SET {set_state('labels', superseded='1')} WHERE request = ? AND superseded = 0 RETURNING step",
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
        replace_row(connection, "label_strategy", step, state)


def large_values(connection: sqlite3.Connection) -> list[str]:
    """Return the SHA-256 of each file that holds the value of a label."""
    return [file for (file,) in connection.execute("SELECT DISTINCT file FROM labels WHERE file IS NOT NULL")]


def take_value_in(connection: sqlite3.Connection, file: str, value: str) -> None:
    """Write the value of a file into the labels that name it, in a copy for another rank."""
    connection.execute("UPDATE labels SET value = ? WHERE file = ?", (value, file))


# -- records ----------------------------------------------------------------------------------------------


def insert_records(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Write metrology records; those that a replay repeats are left as they are."""
    query = "SELECT 1 FROM records WHERE strategy = ? AND step = ? AND ordinal = ?"
    new = [one for one in records if not connection.execute(query, (one.strategy, one.step, one.ordinal)).fetchone()]
    add_rows(connection, "records", [(one.step, one.strategy, one.ordinal, dumps(one.value)) for one in new])


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
    add_rows(connection, "steps", [(step, dumps(dict(record)), json.dumps(dict(seconds)))])


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
    replace_row(connection, "checkpoints", file, step, phase, epoch, sha256, size)
    return replaced


def delete_checkpoints(connection: sqlite3.Connection, files: Iterable[str]) -> None:
    """Delete the rows of checkpoint files."""
    delete_rows(connection, "checkpoints", files)


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
