"""What a labeling phase writes of the answers that it gets."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

from alcore.codec import storable
from alcore.protocols import Request
from alcore.store.digests import add_rows, replace_row, set_state
from alcore.store.rows import AcceptedLabel


def supersede(connection: sqlite3.Connection, request: str) -> list[int]:
    """Write that the label of a request, if it has one, is no longer the current one; return the step of that label."""
    rows = connection.execute(
        f"UPDATE labels SET {set_state('labels', superseded='1')} WHERE request = ? AND superseded = 0 RETURNING step",
        (request,),
    )
    return [step for (step,) in rows.fetchall()]


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
            answer.cost,
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
        row = (request_id, self._step, kind, storable(item), storable(reason), cost, time.time())
        add_rows(self._connection, "refused", [row])

    def set_aside(self, request_id: str, item: str, reason: str) -> None:
        """Keep that the training pool refused an accepted answer; once for each reason, as a replay tries it again."""
        reason = storable(f"the training pool refused it: {reason}")
        rows = self._connection.execute(
            "SELECT 1 FROM refused WHERE request = ? AND step = ? AND reason = ?", (request_id, self._step, reason)
        )
        if rows.fetchone() is None:
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
