"""The requests of a run: what was asked for, why, and what has become of it."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from alcore.codec import dumps
from alcore.protocols import Request
from alcore.store.answers import AnswerWriter, supersede
from alcore.store.database import Source, reads, writes
from alcore.store.digests import add_rows, set_state
from alcore.store.rows import REQUEST, AskedRequest, RequestOutcome, asked_of, request_of


@dataclasses.dataclass(frozen=True)
class Requests:
    """The requests of a run."""

    source: Source

    @writes
    def insert(self, connection: sqlite3.Connection, step: int, asked: Sequence[AskedRequest], model: str) -> None:
        """Write what a query phase asked for."""
        again = _is_asked(connection, step)
        rows = []
        for request, sample, strategy, score, rank, cost, fidelity in asked:
            item = None if sample is not None else dumps(request.item)
            of_request = (request.id, request.step, request.ordinal, sample, item, request.slot)
            rows.append((*of_request, fidelity, strategy, score, rank, model, cost))
        add_rows(connection, "requests", rows)
        if not again:
            add_rows(connection, "queries", [(step, model)])

    @reads
    def asked(self, connection: sqlite3.Connection, step: int) -> list[AskedRequest] | None:
        """Return what a query phase asked for, in order; None if it is not committed."""
        if not _is_asked(connection, step):
            return None
        rows = connection.execute(
            f"SELECT {REQUEST}, strategy, score, rank, cost, fidelity FROM requests r WHERE step = ? ORDER BY ordinal",
            (step,),
        )
        return [asked_of(row) for row in rows]

    @reads
    def samples(self, connection: sqlite3.Connection, before: int) -> list[int]:
        """Return the samples that were asked for in the steps before this one."""
        rows = connection.execute("SELECT sample FROM requests WHERE step < ? AND sample IS NOT NULL", (before,))
        return [row["sample"] for row in rows]

    @reads
    def pending_samples(self, connection: sqlite3.Connection, step: int, ordinal: int = 0) -> list[int]:
        """Return the samples that were pending when the query phase of a step began.

        Parameters
        ----------
        step
            The step. Requests of earlier steps count if they are open, or were closed in this step or a later one.
        ordinal
            Requests of this step with a lower ordinal, which an earlier query phase of it made, count if they are open.
        """
        rows = connection.execute(
            "SELECT sample FROM requests WHERE state = 'open' AND sample IS NOT NULL AND (step, ordinal) < (?1, ?2)"
            " UNION ALL"
            " SELECT sample FROM requests WHERE closed >= ?1 AND sample IS NOT NULL AND step < ?1",
            (step, ordinal),
        )
        return [row["sample"] for row in rows]

    @reads
    def open_samples(self, connection: sqlite3.Connection) -> list[int]:
        """Return the samples that were asked for and have no answer."""
        rows = connection.execute("SELECT sample FROM requests WHERE state = 'open' AND sample IS NOT NULL")
        return [row["sample"] for row in rows]

    @reads
    def infeasible(self, connection: sqlite3.Connection, before: int) -> list[Any]:
        """Return the samples and inputs that failed as infeasible before a step, and had no label then, in order."""
        rows = connection.execute(
            f"SELECT {REQUEST} FROM requests r"
            " WHERE r.id IN (SELECT request FROM refused WHERE kind = 'infeasible' AND step < ?1)"
            " AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.request = r.id AND labels.step < ?1)"
            " ORDER BY r.step, r.ordinal",
            (before,),
        )
        return [request_of(row).item for row in rows.fetchall()]

    @reads
    def waits_before(self, connection: sqlite3.Connection, step: int) -> bool:
        """Return whether a request of an earlier step was open when this step began."""
        rows = connection.execute(
            "SELECT 1 FROM requests WHERE step < ?1 AND (closed IS NULL OR closed >= ?1) LIMIT 1", (step,)
        )
        return rows.fetchone() is not None

    @reads
    def rows(self, connection: sqlite3.Connection, step: int | None, most: int | None = None) -> list[dict[str, Any]]:
        """Return requests with their current labels, in order; those of one step, or all; at most so many.

        A large value is not among them: ``file`` has the SHA-256 of its file, and ``value`` is None.
        """
        of_step, values = ("", ()) if step is None else (" WHERE r.step = ?", (step,))  # so that the index is used
        rows = connection.execute(
            "SELECT r.step, r.ordinal, r.id, r.sample, r.slot, r.item, r.fidelity, r.strategy, r.score, r.rank,"
            " r.model, r.attempt, r.state, r.handle, l.kind, l.value, l.file, l.source, l.cost FROM requests r"
            " LEFT JOIN labels l ON l.request = r.id AND l.superseded = 0"
            f"{of_step} ORDER BY r.step, r.ordinal LIMIT ?",
            (*values, -1 if most is None else most),
        )
        return [dict(row) for row in rows]

    @reads
    def counts(self, connection: sqlite3.Connection, step: int | None) -> dict[str, int]:
        """Return how many requests are in each state; those of one step, or all."""
        of_step, values = ("", ()) if step is None else (" WHERE step = ?", (step,))
        rows = connection.execute(f"SELECT state, COUNT(*) FROM requests{of_step} GROUP BY state", values)
        return {"open": 0, "labeled": 0, "failed": 0} | dict(rows.fetchall())

    @reads
    def states(self, connection: sqlite3.Connection) -> list[RequestOutcome]:
        """Return what was asked for and what has become of it, in order."""
        rows = connection.execute(
            f"SELECT {REQUEST}, r.strategy, r.score, r.rank, r.cost, r.fidelity, r.state,"
            " EXISTS (SELECT 1 FROM steps s WHERE s.step = r.closed) AS passed,"
            " l.kind, l.value, l.file, l.source, f.kind AS failure, f.reason FROM requests r"
            " LEFT JOIN labels l ON l.request = r.id AND l.superseded = 0"
            " LEFT JOIN (SELECT f.request, MAX(f.rowid) AS place FROM refused f JOIN requests q ON q.id = f.request"
            "  WHERE f.kind <> 'repeat' AND (f.kind <> 'refused' OR q.state = 'failed') GROUP BY f.request)"
            " g ON g.request = r.id LEFT JOIN refused f ON f.rowid = g.place"
            " ORDER BY r.step, r.ordinal"
        )
        return [
            RequestOutcome(
                asked_of(row),
                passed=bool(row["passed"]),
                **{name: row[name] for name in ("state", "kind", "value", "file", "source", "failure", "reason")},
            )
            for row in rows
        ]

    @reads
    def unlabeled(self, connection: sqlite3.Connection, most: int | None = None) -> list[dict[str, Any]]:
        """Return the requests whose label the training pool lacks, in order, with the last reasons; at most so many."""
        rows = connection.execute(
            "SELECT r.step, r.id, r.sample, r.item, r.attempt,"
            " CASE WHEN r.state = 'labeled' THEN 'set aside' ELSE r.state END AS state, f.reason FROM requests r"
            " LEFT JOIN refused f ON f.rowid ="
            " (SELECT MAX(rowid) FROM refused WHERE request = r.id AND kind <> 'repeat')"
            " WHERE r.state <> 'labeled' OR EXISTS ("
            "  SELECT 1 FROM refused s JOIN labels l ON l.request = s.request AND l.superseded = 0"
            "  WHERE s.request = r.id AND s.kind = 'set aside') ORDER BY r.step, r.ordinal LIMIT ?",
            (-1 if most is None else most,),
        )
        return [dict(row) for row in rows]

    @reads
    def in_flight(self, connection: sqlite3.Connection) -> list[Request]:
        """Return the open requests that a label strategy has taken out and not answered, oldest first."""
        rows = connection.execute(
            f"SELECT {REQUEST} FROM requests r WHERE state = 'open' AND taken ORDER BY step, ordinal"
        )
        return [request_of(row) for row in rows]

    def mark_taken(self, requests: Sequence[Request]) -> None:
        """Write that a label strategy is about to work on requests; of those that are closed, it doesn't."""
        self._set_taken(requests, True)

    def mark_given_back(self, requests: Sequence[Request]) -> None:
        """Write that a label strategy doesn't work on requests any more, and has not answered them."""
        self._set_taken(requests, False)

    @writes
    def _set_taken(self, connection: sqlite3.Connection, requests: Sequence[Request], taken: bool) -> None:
        connection.executemany(
            f"UPDATE requests SET {set_state('requests', taken='?1')} WHERE id = ?2 AND state = 'open'",
            [(int(taken), request.id) for request in requests],
        )

    @writes
    def set_handle(self, connection: sqlite3.Connection, request: Request, handle: str) -> bool:
        """Write the name of the job that answers a request; return whether the request is open."""
        changed = connection.execute(
            f"UPDATE requests SET {set_state('requests', handle='?2')} WHERE id = ?1 AND state = 'open'",
            (request.id, handle),
        )
        return changed.rowcount == 1

    @writes
    def release_in_flight(
        self, connection: sqlite3.Connection, *, drop_in: int | None = None, kept: Iterable[str] = ()
    ) -> None:
        """Make requests in flight plain open ones, or give them up in the labeling phase of a step, but for some."""
        if drop_in is not None:
            writer, keep = AnswerWriter(connection, drop_in), set(kept)
            for request in self.in_flight():
                if request.id not in keep:
                    writer.refuse(request.id, "null", "in doubt when the run was cut off, and dropped", kind="dropped")
                    writer.give_up(request.id)
            writer.end()
        connection.execute(f"UPDATE requests SET {set_state('requests', taken='0')} WHERE state = 'open' AND taken")

    @writes
    def reopen(self, connection: sqlite3.Connection, requests: Iterable[str]) -> None:
        """Open requests again that were given up, or whose labels were set aside; those labels don't count."""
        reopened = set_state("requests", state="'open'", closed="NULL", taken="0", handle="NULL")
        for request in requests:
            supersede(connection, request)
            connection.execute(f"UPDATE requests SET {reopened} WHERE id = ?", (request,))


def _is_asked(connection: sqlite3.Connection, step: int) -> bool:
    return connection.execute("SELECT 1 FROM queries WHERE step = ?", (step,)).fetchone() is not None
