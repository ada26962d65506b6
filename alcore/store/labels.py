"""The labels of a run, and the answers that are none."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from typing import Any

from alcore.protocols import Request
from alcore.store.database import Source, reads, writes
from alcore.store.digests import delete_rows, replace_row
from alcore.store.rows import REQUEST, AcceptedLabel, LabelingState, accepted_of, request_of
from alcore.store.values import LabelValues

REFUSED = ("refused", "set aside")
"""The kinds of rows of the table ``refused`` that are refused answers; the others are failures and repeats."""
IS_AN_ATTEMPT = "(kind IN ('infrastructure', 'timeout', 'infeasible') OR kind = 'refused' AND cost NOT NULL)"
"""Whether a row of the table ``refused`` is an attempt. What a person told wrongly has no cost, and is none."""
_IS_THE_LABEL = (
    "(r.slot = 0 AND NOT EXISTS (SELECT 1 FROM requests s WHERE s.sample = r.sample AND s.slot > 0) OR r.sample IS NULL"
    " OR r.slot = (SELECT s.slot FROM requests s WHERE s.sample = r.sample AND s.state = 'labeled'"
    " ORDER BY s.closed, s.slot LIMIT 1))"
)
"""Whether the current answer to the request ``r`` is the label of its sample.

Of the labeled requests for one sample, this holds for the one that was closed in the earliest step; where several were
closed in that step, for the one with the lowest slot. It always holds for a request for a generated input.
"""


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of a run, and the answers that are none; `values` are the files of large ones."""

    source: Source
    values: LabelValues

    @reads
    def labeling(self, connection: sqlite3.Connection, step: int) -> LabelingState:
        """Return a labeling phase as it is committed."""
        committed = connection.execute("SELECT 1 FROM steps WHERE step = ?", (step,)).fetchone() is not None
        ended = _note(connection, "labeling_ended")
        given_up = connection.execute(
            "SELECT sample, id FROM requests WHERE closed = ? AND state = 'failed' AND sample IS NOT NULL", (step,)
        ).fetchall()
        asks = connection.execute("SELECT 1 FROM requests WHERE sample IS NOT NULL LIMIT 1").fetchone()
        refused = connection.execute(
            "SELECT id FROM requests WHERE state = 'open'"
            f" AND id IN (SELECT request FROM refused WHERE step = ? AND {IS_AN_ATTEMPT})",
            (step,),
        ).fetchall()
        expected = connection.execute(
            "SELECT id, cost FROM requests WHERE state = 'open'"
            " UNION ALL SELECT id, cost FROM requests WHERE closed = ? AND state = 'labeled'",
            (step,),
        ).fetchall()
        taken = connection.execute("SELECT id FROM requests WHERE state = 'open' AND taken").fetchall()
        return LabelingState(
            open=_open_requests(connection, step),
            expected={row["id"]: row["cost"] for row in expected},
            refused={row["id"] for row in refused},
            taken={row["id"] for row in taken},
            accepted=self._accepted(connection, step),
            given_up={row["sample"]: row["id"] for row in given_up},
            asks_for_samples=asks is not None,
            ended=committed or ended == str(step),
            committed=committed,
        )

    @writes
    def end_labeling(self, connection: sqlite3.Connection, step: int) -> None:
        """Write that a labeling phase is over, if it leaves requests open; else the request table says so."""
        if connection.execute("SELECT 1 FROM requests WHERE state = 'open' LIMIT 1").fetchone() is not None:
            replace_row(connection, "writer", "labeling_ended", str(step))

    @writes
    def reopen_labeling(self, connection: sqlite3.Connection) -> None:
        """Take back that a labeling phase is over."""
        delete_rows(connection, "writer", ["labeling_ended"])

    @reads
    def accepted(self, connection: sqlite3.Connection, step: int) -> list[AcceptedLabel]:
        """Return the answers accepted so far by a labeling phase that are labels, in the order of their requests.

        A second opinion on a sample that has its label is kept beside it, and is not among them.
        """
        return self._accepted(connection, step)

    def _accepted(self, connection: sqlite3.Connection, step: int) -> list[AcceptedLabel]:
        rows = connection.execute(
            f"SELECT {REQUEST}, l.kind, l.source, l.value, l.file, l.cost"
            " FROM labels l JOIN requests r ON r.id = l.request"
            f" WHERE l.step = ? AND l.superseded = 0 AND {_IS_THE_LABEL} ORDER BY r.step, r.ordinal",
            (step,),
        )
        # fetched first: where a file can't be read, an unfinished statement would keep the database locked
        return [accepted_of(row, self.values.read) for row in rows.fetchall()]

    @reads
    def second_opinions(self, connection: sqlite3.Connection, step: int) -> set[str]:
        """Return the requests that a labeling phase has labeled, and whose samples have another label than this."""
        rows = connection.execute(
            "SELECT r.id FROM labels l JOIN requests r ON r.id = l.request"
            f" WHERE l.step = ? AND l.superseded = 0 AND NOT {_IS_THE_LABEL}",
            (step,),
        )
        return {row["id"] for row in rows}

    @reads
    def samples(self, connection: sqlite3.Connection, before: int) -> list[int]:
        """Return the samples that were labeled before a step, in the order of their requests."""
        rows = connection.execute(
            "SELECT DISTINCT sample FROM requests r JOIN labels ON labels.request = r.id"
            " WHERE labels.superseded = 0 AND labels.step < ? AND sample IS NOT NULL ORDER BY r.step, r.ordinal",
            (before,),
        )
        return [row["sample"] for row in rows.fetchall()]

    @reads
    def counts(self, connection: sqlite3.Connection, step: int) -> dict[str, int]:
        """Return how many requests a labeling phase labeled or gave up, and how many answers it did not accept."""
        row = connection.execute(
            "SELECT (SELECT COUNT(*) FROM requests WHERE closed = ?1 AND state = 'labeled') AS labeled,"
            " (SELECT COUNT(*) FROM requests WHERE closed = ?1 AND state = 'failed') AS failed,"
            f" (SELECT COUNT(*) FROM refused WHERE step = ?1 AND kind IN {REFUSED}) AS refused,"
            " (SELECT COUNT(*) FROM refused WHERE step = ?1 AND kind = 'repeat') AS repeated",
            (step,),
        ).fetchone()
        return dict(row)

    @reads
    def last_answers(self, connection: sqlite3.Connection, most: int) -> list[bool]:
        """Return for each of the last answers, at most so many, whether it was a failure; the oldest comes first.

        Answers from before the last `forget_failures` are left out. So are answers that nobody asked for, repeats,
        answers to a request that had one already, and requests that were dropped.
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

    @writes
    def forget_failures(self, connection: sqlite3.Connection) -> None:
        """Write that answers which came so far don't count in `last_answers` any more."""
        replace_row(connection, "writer", "failures_since", repr(time.time()))

    @reads
    def reasons(self, connection: sqlite3.Connection, step: int | None = None) -> list[dict[str, Any]]:
        """Return why requests could not be labeled and answers were refused, by kind, the most frequent first."""
        of_step, values = ("", ()) if step is None else (" AND step = ?", (step,))  # or SQLite would not use the index
        rows = connection.execute(
            f"SELECT kind, reason, COUNT(*) AS count FROM refused WHERE kind <> 'repeat'{of_step}"
            " GROUP BY kind, reason ORDER BY COUNT(*) DESC, kind, reason",
            values,
        )
        return [dict(row) for row in rows]

    @reads
    def strategy_state(self, connection: sqlite3.Connection) -> str | None:
        """Return the state of the label strategy that was committed last, if one was."""
        row = connection.execute("SELECT state FROM label_strategy ORDER BY step DESC LIMIT 1").fetchone()
        return None if row is None else str(row["state"])

    @reads
    def inbox_file(self, connection: sqlite3.Connection) -> str | None:
        """Return the file of the inbox whose answers were committed last, if there was one."""
        return _note(connection, "inbox_file")

    @reads
    def untrained(self, connection: sqlite3.Connection) -> int:
        """Return how many current labels arrived after the last training; all of them where there was none."""
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM labels WHERE step >= ? AND superseded = 0", (_last_training_step(connection) or 0,)
        ).fetchone()
        return int(count)


def _open_requests(connection: sqlite3.Connection, step: int) -> list[Request]:
    rows = connection.execute(
        f"SELECT {REQUEST} FROM requests r LEFT JOIN"
        f" (SELECT request, MAX(rowid) AS place FROM refused WHERE step = ? AND {IS_AN_ATTEMPT} GROUP BY request) f"
        " ON f.request = r.id"
        " WHERE r.state = 'open' ORDER BY f.place NULLS FIRST, r.step, r.ordinal",
        (step,),
    )
    return [request_of(row) for row in rows]


def _last_training_step(connection: sqlite3.Connection) -> int | None:
    """Return the last step that trained, the one that a run begins with its final training included; None without."""
    rows = connection.execute("SELECT step, seconds FROM steps ORDER BY step DESC")
    done = next((int(row["step"]) for row in rows if "training" in json.loads(row["seconds"])), None)
    (saved,) = connection.execute("SELECT MAX(step) FROM checkpoints WHERE phase = 'training'").fetchone()
    return max((step for step in (done, saved) if step is not None), default=None)


def refused(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the answers that were not accepted, with the reasons, in the order of their arrival."""
    rows = connection.execute("SELECT step, request, kind, item, reason, cost FROM refused ORDER BY rowid")
    return [dict(row) for row in rows]


def _note(connection: sqlite3.Connection, key: str) -> str | None:
    """Return what the writer has noted under a key, if it has."""
    row = connection.execute("SELECT value FROM writer WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])
