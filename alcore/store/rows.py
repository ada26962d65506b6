"""Rows of a run database as objects: requests, labels, and records of metrology."""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from alcore.codec import loads
from alcore.protocols import Label, Request


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
    def of_list(cls, plain: Sequence[Any]) -> AskedRequest:
        """Return what `as_list` was called on."""
        return cls(Request(*plain[0]), *plain[1:])


class RequestOutcome(NamedTuple):
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


@dataclasses.dataclass(frozen=True)
class Record:
    """One record of a metrology strategy: step, strategy, its place among that step's records, value."""

    step: int
    strategy: str
    ordinal: int
    value: Any


def request_id(run_id: str, step: int, ordinal: int) -> str:
    """Return the idempotency key of a request: 32 hexadecimal digits."""
    return hashlib.sha256(f"{run_id}/{step}/{ordinal}".encode()).hexdigest()[:32]


REQUEST = "r.id, r.step, r.ordinal, r.sample, r.item, r.attempt, r.slot, r.handle"
"""The columns of a request, with `r` for its table."""


def request_of(row: sqlite3.Row) -> Request:
    """Return the request of a row that has the columns `REQUEST`."""
    item = row["sample"] if row["item"] is None else loads(row["item"])
    return Request(row["id"], row["step"], row["ordinal"], item, row["attempt"], row["slot"], row["handle"])


def asked_of(row: sqlite3.Row) -> AskedRequest:
    """Return the request of a row with the columns `REQUEST`, and why it was made."""
    why = (row[name] for name in ("sample", "strategy", "score", "rank", "cost", "fidelity"))
    return AskedRequest(request_of(row), *why)


ReadValue = Callable[[str], str]
"""Returns the text of a large value, from the SHA-256 of its file."""


def value_text(row: Mapping[str, Any] | sqlite3.Row, read_value: ReadValue) -> str | None:
    """Return the text of the value in a row of labels, wherever it is; None for a bare id."""
    inside: str | None = row["value"]
    return read_value(row["file"]) if inside is None and row["file"] is not None else inside


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


def accepted_of(row: sqlite3.Row, read_value: ReadValue) -> AcceptedLabel:
    """Return the label of a row with the columns `REQUEST` and those of its label."""
    request, value = request_of(row), value_text(row, read_value)
    item = put_item(request.item, row["kind"], value, row["source"], row["cost"])
    return AcceptedLabel(request, item, row["kind"], row["source"], value, row["cost"])
