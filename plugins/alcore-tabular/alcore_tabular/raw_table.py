"""What was read from a file, whatever its format, and the checks that hold for every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NoReturn

import numpy as np

from alcore.errors import UsageError
from alcore_tabular.messages import capital, listed, setting, warn

Array = np.ndarray[Any, Any]
Missing = Literal["error", "drop", "fill"]

FEWEST_ROWS = 20


@dataclasses.dataclass(frozen=True)
class Content:
    """Rows of numbers and categories with their targets, none of them encoded yet.

    Parameters
    ----------
    file
        Name of the file, for messages.
    numbers
        Shape (N, F), float32 or float64; NaN where a value is missing.
    number_names
        Names of its columns.
    texts
        Shape (N, C), object: str, or None where a value is missing.
    text_names
        Names of its columns.
    target
        Length N, as text; None where a value is missing.
    target_name
        Name of the target's column or array.
    origin
        Shape (N,), int64: which row of the file each row is, from 0.
    describe
        Says where a row of the file is and what a column holds there, for messages.
    dropped
        What the user left out already, so that a remedy keeps it; None where a format has no named columns.
    """

    file: str
    numbers: Array
    number_names: list[str]
    texts: Array
    text_names: list[str]
    target: list[str | None]
    target_name: str
    origin: Array
    describe: Callable[[int, str], str]
    dropped: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.target)

    def take(self, rows: Array) -> Content:
        """Return these rows alone: `rows` are int64, shape (R,)."""
        return dataclasses.replace(
            self,
            numbers=self.numbers[rows],
            texts=self.texts[rows],
            target=[self.target[row] for row in rows.tolist()],
            origin=self.origin[rows],
        )

    def without(self, column: str) -> tuple[Content, Array]:
        """Split off a column of numbers: return the other columns, and its values, shape (N,)."""
        place = self.number_names.index(column)
        names = [name for name in self.number_names if name != column]
        rest = dataclasses.replace(self, numbers=np.delete(self.numbers, place, axis=1), number_names=names)
        return rest, self.numbers[:, place]

    def at(self, row: int, name: str) -> str:
        """Say where a value is and what it is, for instance ``line 14 has '?'``."""
        return self.describe(int(self.origin[row]), name)

    def leave_out(self, name: str) -> str:
        """Say how a column is left out."""
        if self.dropped is None:
            return "save the array without that column"
        return f"leave the column out with {setting('drop', [*self.dropped, name])}"

    def refuse(self, name: str, message: str) -> NoReturn:
        """Raise what is wrong with a column."""
        raise UsageError(f"{self.file}: column {name!r} {message}.")


def absent(texts: Array) -> Array:
    """Tell which cells of an array of objects are missing: bool, of the same shape."""
    return np.array([cell is None for cell in texts.flat], dtype=bool).reshape(texts.shape)


def refuse_infinite(content: Content) -> None:
    """Raise for the first infinite number, which no mean or standard deviation survives."""
    rows, columns = np.nonzero(np.isinf(content.numbers))
    if len(rows):
        name = content.number_names[columns[0]]
        content.refuse(
            name,
            f"has an infinite number, or one beyond 1.8e308: {content.at(int(rows[0]), name)} (the first of "
            f"{len(rows)} in the file). Correct it, or leave it empty and say what becomes of missing "
            f"values, for instance with {setting('missing', 'fill')}, or {content.leave_out(name)}",
        )


def settle_missing(content: Content, policy: Missing) -> Content:
    """Refuse missing values, or drop their rows, or leave them for the encoder to fill.

    Raises
    ------
    UsageError
        At ``"error"`` for any missing value, at ``"fill"`` for a missing target, and for an empty column.
    """
    gaps = np.concatenate(
        [
            np.array([cell is None for cell in content.target], dtype=bool)[:, None],
            np.isnan(content.numbers),
            absent(content.texts),
        ],
        axis=1,
    )
    if not gaps.any():
        return content
    names = [content.target_name, *content.number_names, *content.text_names]
    _refuse_empty(content, gaps, names, policy)
    rows = gaps.any(axis=1)
    if policy == "error":
        _refuse_missing(content, gaps, names)
    if policy == "drop":
        warn(f"{content.file}: {rows.sum()} of {len(content)} rows were left out, since a value is missing in them.")
        return content.take(np.flatnonzero(~rows))
    if gaps[:, 0].any():
        first = int(np.flatnonzero(gaps[:, 0])[0])
        content.refuse(
            content.target_name,
            f"is the target, and values are missing in {gaps[:, 0].sum()} of its {len(content)} rows: "
            f"{content.at(first, names[0])}. An answer can't be filled in; leave such rows out with "
            f"{setting('missing', 'drop')}",
        )
    warn(
        f"{content.file}: {gaps.sum()} missing values in {listed(_gappy(gaps, names))} are filled in: "
        "numbers with the median of the training part, categories with one of their own."
    )
    return content


def _refuse_empty(content: Content, gaps: Array, names: list[str], policy: Missing) -> None:
    for column in np.flatnonzero(gaps.all(axis=0)).tolist():
        if column == 0 or policy != "fill":
            remedy = content.leave_out(names[column]) if column else "Name another column as the target"
            content.refuse(names[column], f"is empty: all its {len(content)} values are missing. {capital(remedy)}")


def _refuse_missing(content: Content, gaps: Array, names: list[str]) -> NoReturn:
    row = int(np.flatnonzero(gaps.any(axis=1))[0])
    name = names[int(np.flatnonzero(gaps[row])[0])]
    if gaps[:, 0].any():
        fill = " (the target can't be filled in)"
    else:
        fill = (
            ", or fill the gaps (numbers with the median of the training part, categories with one of "
            f"their own) with {setting('missing', 'fill')}"
        )
    blanks = "; what counts as missing is the list data.csv.blanks" if content.dropped is not None else ""
    content.refuse(
        name,
        f"has a missing value: {content.at(row, name)}. Missing in all: {gaps.sum()} of {gaps.size} values, "
        f"in {gaps.any(axis=1).sum()} of {len(content)} rows, in {listed(_gappy(gaps, names))}. Leave such "
        f"rows out with {setting('missing', 'drop')}{fill}{blanks}",
    )


def _gappy(gaps: Array, names: list[str]) -> list[str]:
    return [names[column] for column in np.flatnonzero(gaps.any(axis=0)).tolist()]


def refuse_few(content: Content) -> None:
    """Raise where there are too few rows for a held-out part to tell anything."""
    if len(content) < FEWEST_ROWS:
        raise UsageError(
            f"{content.file}: {len(content)} usable rows are too few; at least {FEWEST_ROWS} are needed. "
            "With a quarter held out, fewer would measure a model on less than 5 rows, where one row more "
            "or less moves every score by over 20 %. Add rows, or check that the whole file was exported."
        )
