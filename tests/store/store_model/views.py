"""What others see of a run, in the form that the model has it in."""

from __future__ import annotations

import contextlib
from typing import Any

from alcore.codec import loads
from alcore.protocols import Label, Request
from alcore.store.reading import Run


class Onlooker(Run):
    """Another process that reads a run: all that it wants to know at one moment."""

    def __enter__(self) -> Onlooker:
        self._opened = self._reader.connection()
        kept = self._opened.__enter__()
        self._reader.connection = lambda: contextlib.nullcontext(kept)
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)


def tables(run: Run) -> dict[str, Any]:
    """Return what another process reads of a run, as `Model.tables` has it."""
    asked = run.requests()
    places = {row["id"]: (row["step"], row["ordinal"]) for row in asked} | {None: None}
    refused = run.read("SELECT request, step, item, kind FROM refused ORDER BY rowid")
    told = run.refused()
    assert all(row["reason"] for row in told)
    assert [row["item"] for row in told] == [row["item"] for row in refused]
    of_request = ["strategy", "score", "rank", "model", "handle", "attempt", "state", "kind", "source", "cost"]
    of_answer = ["step", "source", "attempt", "kind", "cost"]
    return {
        "requests": [
            {
                **{name: row[name] for name in of_request},
                "place": places[row["id"]],
                "item": row["sample"] if row["item"] is None else loads(row["item"]),
                "value": _value(run.label_text(dict(row))),
            }
            for row in asked
        ],
        "taken": {places[row["id"]] for row in run.read("SELECT id FROM requests WHERE taken")},
        "answers": [
            {
                **{name: row[name] for name in of_answer},
                "place": places[row["request"]],
                "value": _value(run.label_text(dict(row))),
                "superseded": bool(row["superseded"]),
            }
            for row in run.read("SELECT * FROM labels ORDER BY rowid")
        ],
        "refused": [
            (row["step"], places[row["request"]], repr(_value(row["item"])), row["kind"] == "repeat") for row in refused
        ],
        "records": repr(run.records()),
        "steps": run.steps(),
        "queries": {row["step"]: row["model"] for row in run.read("SELECT * FROM queries")},
        "checkpoints": [(row["file"], row["step"], row["phase"], row["epoch"]) for row in run.checkpoints()],
        "meta": run.meta(),
        "label_strategy": {row["step"]: row["state"] for row in run.read("SELECT * FROM label_strategy")},
    }


def _value(text: str | None) -> Any:
    """Return a stored value; what could not be stored is there as text."""
    try:
        return None if text is None else loads(text)
    except ValueError:
        return text


def shown(item: Any) -> Any:
    """Return what the training pool is to append in a form that can be compared."""
    if not isinstance(item, Label):
        return item
    asked = item.item.item if isinstance(item.item, Request) else item.item
    return ("label", asked, item.value, item.source, item.cost)
