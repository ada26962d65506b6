"""What a run has committed, as it is needed to replay it from an earlier checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from alcore.codec import loads
from alcore.protocols import Label, Request
from alcore.store.database import Database

CHECKPOINTS = "SELECT * FROM checkpoints ORDER BY phase <> 'start', step, phase <> 'training', epoch, file"
"""All checkpoints, oldest first."""


META = (
    "SELECT key, value FROM meta WHERE key NOT IN ('epoch', 'labeling_ended') AND key NOT LIKE 'labeler%' ORDER BY key"
)
"""What is known about a run as a whole, less what only its writer needs."""


RECORDS = "SELECT strategy, value FROM records ORDER BY strategy, step, ordinal"
"""All metrology records, for `records_by_strategy`."""


class Asked(NamedTuple):
    """A request with why it was made."""

    request: Request
    sample: int | None
    strategy: str
    score: float | None
    rank: int
    cost: float


def asked_as_list(ask: Asked) -> list[Any]:
    """Return a request and why it was made as plain data, for another rank."""
    one = ask.request
    return [[one.id, one.step, one.ordinal, one.item, one.attempt], *ask[1:]]


def asked_of_list(found: list[Any]) -> Asked:
    """Return what `asked_as_list` was given."""
    return Asked(Request(*found[0]), *found[1:])


class Delivered(NamedTuple):
    """An accepted answer: its request, what was put, and how it is stored."""

    request: Request
    item: Any
    kind: str
    source: str
    value: str | None
    cost: float


def asked_in(database: Database, step: int) -> list[Asked] | None:
    """Return what a query phase asked for, in order, or None if it is not committed."""
    if not database.read("SELECT 1 FROM queries WHERE step = ?", step):
        return None
    rows = database.read("SELECT * FROM requests WHERE step = ? ORDER BY ordinal", step)
    return [
        Asked(request_of(row), row["sample"], row["strategy"], row["score"], row["rank"], row["cost"]) for row in rows
    ]


def delivered_in(database: Database, step: int) -> list[Delivered]:
    """Return the answers that a labeling phase brought so far, in the order of their requests."""
    rows = database.read(
        "SELECT r.id, r.step, r.ordinal, r.sample, r.item, l.attempt, l.kind, l.source, l.value, l.cost"
        " FROM labels l JOIN requests r ON r.id = l.request"
        " WHERE l.step = ? AND l.superseded = 0 ORDER BY r.step, r.ordinal",
        step,
    )
    return [
        Delivered(
            request_of(row),
            put_item(request_of(row).item, row["kind"], row["value"], row["source"], row["cost"]),
            row["kind"],
            row["source"],
            row["value"],
            row["cost"],
        )
        for row in rows
    ]


def given_up_in(database: Database, step: int) -> dict[int, str]:
    """Return the samples that could not be labelled in a labeling phase, with the ids of their requests."""
    rows = database.read(
        "SELECT sample, id FROM requests WHERE closed = ? AND state = 'failed' AND sample IS NOT NULL", step
    )
    return {row["sample"]: row["id"] for row in rows}


def asks_for_samples(database: Database) -> bool:
    """Tell whether the run has ever asked for a sample, rather than for generated inputs alone."""
    return bool(database.read("SELECT 1 FROM requests WHERE sample IS NOT NULL LIMIT 1"))


def records_by_strategy(rows: Iterable[Any]) -> dict[str, list[Any]]:
    """Return the records that the rows of `RECORDS` hold, in the order of steps."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row["strategy"]].append(loads(row["value"]))
    return dict(found)


def samples_before(database: Database, step: int) -> list[int]:
    """Return the samples that were asked for in earlier steps."""
    rows = database.read("SELECT sample FROM requests WHERE step < ? AND sample IS NOT NULL", step)
    return [row["sample"] for row in rows]


def records_before(database: Database, step: int, strategy: str) -> list[Any]:
    """Return the records of a metrology strategy of earlier steps."""
    rows = database.read(
        "SELECT value FROM records WHERE step < ? AND strategy = ? ORDER BY step, ordinal", step, strategy
    )
    return [loads(row["value"]) for row in rows]


def records_in(database: Database, step: int, strategy: str) -> list[str]:
    """Return the stored text of a metrology strategy's records of a step."""
    rows = database.read("SELECT value FROM records WHERE step = ? AND strategy = ? ORDER BY ordinal", step, strategy)
    return [row["value"] for row in rows]


def label_counts(database: Database, step: int) -> dict[str, int]:
    """Return how many requests a labeling phase settled, and how many answers it did not take."""
    (row,) = database.read(
        "SELECT (SELECT COUNT(*) FROM requests WHERE closed = ?1 AND state = 'labelled') AS labelled,"
        " (SELECT COUNT(*) FROM requests WHERE closed = ?1 AND state = 'failed') AS failed,"
        " (SELECT COUNT(*) FROM refused WHERE step = ?1 AND NOT repeat) AS refused,"
        " (SELECT COUNT(*) FROM refused WHERE step = ?1 AND repeat) AS repeated",
        step,
    )
    return dict(row)


def has_ended(database: Database, step: int) -> bool:
    """Tell whether a step is committed as a whole."""
    return bool(database.read("SELECT 1 FROM steps WHERE step = ?", step))


def steps_ended(database: Database) -> int:
    """Return the step after the last one that is committed as a whole: those who call the phases may skip some."""
    (row,) = database.read("SELECT COALESCE(MAX(step) + 1, 0) AS steps FROM steps")
    return int(row["steps"])


def labeling_ended(database: Database, step: int) -> bool:
    """Tell whether the labeling phase of a step is over, though it left requests open."""
    rows = database.read("SELECT value FROM meta WHERE key = 'labeling_ended'")
    return has_ended(database, step) or bool(rows and loads(rows[0]["value"]) == step)


def waits_before(database: Database, step: int) -> bool:
    """Tell whether a request of an earlier step was open when this step began: what came since doesn't count."""
    return bool(
        database.read("SELECT 1 FROM requests WHERE step < ?1 AND (closed IS NULL OR closed >= ?1) LIMIT 1", step)
    )


def first_training(database: Database) -> int | None:
    """Return the first step that had anything to train on, in a run that began with nothing labelled."""
    (row,) = database.read("SELECT MIN(step) + 1 AS step FROM labels")
    return None if row["step"] is None else int(row["step"])


def last_step(database: Database) -> int:
    """Return the last step of which anything is committed, -1 if there is none."""
    (row,) = database.read(
        "SELECT MAX(COALESCE((SELECT MAX(step) FROM steps), -1), COALESCE((SELECT MAX(step) FROM queries), -1)) AS step"
    )
    return int(row["step"])


def request_of(row: Any) -> Request:
    """Return the request that a row of the table stands for."""
    item = row["sample"] if row["item"] is None else loads(row["item"])
    return Request(row["id"], row["step"], row["ordinal"], item, row["attempt"])


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
