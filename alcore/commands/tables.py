"""Tables in plain text: the same on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alcore.store.reading import figures


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Return a table with a header: columns of numbers are aligned to the right, others to the left."""
    cells = [list(header)] + [[_text(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(isinstance(row[column], int | float | None) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def some(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` items, evenly spaced: the first, the last, and some between."""
    if len(items) <= most:
        return list(items)
    places = {round(i * (len(items) - 1) / (most - 1)) for i in range(most)}
    return [items[place] for place in sorted(places)]


def left_out(shown: int, total: int, command: str, what: str = "rows") -> list[str]:
    """Return a line for below a table that says how many rows it leaves out, and which command has them all."""
    return [f"... {total - shown} of {total} {what} are left out; {command} has them all."] if shown < total else []


_PLACES = {
    "pool": "all points of the pool, labeled or not",
    "validation": "the held-out validation pool",
    "train": "the training set itself",
    "unlabeled": "the unlabeled samples, by the pool's answers",
}


def measured_on(place: str) -> str:
    """Return what a record's ``on`` says in words; a word of another metrology stands for itself."""
    return _PLACES.get(place, place)


def curve(records: dict[str, list[Any]], most: int, command: str) -> str:
    """Return the learning curve of each metrology strategy as a table of at most `most` rows.

    Parameters
    ----------
    records
        The records by strategy.
    most
        How many rows a table has at most; a line below one says how many it leaves out.
    command
        What shows all rows.
    """
    blocks = []
    for strategy, entries in records.items():
        shown = [entry for entry in some(entries, most) if isinstance(entry, dict)]
        names = list(dict.fromkeys(name for entry in shown for name in figures(entry)))
        rows = [
            [entry.get("step"), entry.get("train_samples"), *(entry.get(name) for name in names)] for entry in shown
        ]
        places = dict.fromkeys(str(entry["on"]) for entry in shown if "on" in entry)
        title = f"{strategy}, measured on {' and '.join(map(measured_on, places))}" if places else strategy
        lines = [title, table(rows, ["step", "samples", *names]), *left_out(len(rows), len(entries), command)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def losses(steps: Sequence[dict[str, Any]], most: int, command: str) -> str:
    """Return the training losses of a run as a table of at most `most` rows; the parameters are those of `curve`."""
    rows = [[step["step"], step["train_samples"], step.get("losses", {}).get("loss")] for step in some(steps, most)]
    return "\n".join([table(rows, ["step", "samples", "loss"]), *left_out(len(rows), len(steps), command)])
