"""A table as read from a file of any format, and the checks for all formats."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

import numpy as np

from alcore.errors import UsageError
from alcore_tabular.faults import ColumnError, Faults
from alcore_tabular.messages import capital, listed, setting, warn
from alcore_tabular.number_format import DecimalMark

Array = np.ndarray[Any, Any]
Missing = Literal["error", "drop", "fill"]
Unlabeled = Literal["error", "drop", "ask"]

FEWEST_ROWS = 20
_OF_UNLABELED = (
    f"Rows without a label are samples to be labeled, by people for instance, with {setting('unlabeled', 'ask')}, or "
    f"left out with {setting('unlabeled', 'drop')}"
)


@dataclasses.dataclass(frozen=True)
class RawTable:
    """Rows of numbers and categories with their targets, not encoded yet.

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
        Shape (N,), int64: row of the file of each row, from 0.
    describe
        Describes where a row of the file is and the value of a column there, for messages.
    dropped
        Columns that the user left out already, which a remedy keeps; None for a format without named columns.
    made
        Of a column of numbers that is made of a column of another name or form: the ``source`` in the file, ``as`` what
        it is read, and what else its description needs.
    free
        Those of the columns of text that are free text, not categories.
    lines
        Line of the file on which each row of the file begins, from 1: int64; None for a file that is not text.
    shape
        Shape of one input in the file, of which the columns are made; None for a table.
    other_mark
        Returns the decimal mark that the numbers of the file have, where it is not the one that they are read with;
        else None.
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
    made: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    free: tuple[str, ...] = ()
    lines: Array | None = None
    shape: tuple[int, ...] | None = None
    other_mark: Callable[[], DecimalMark | None] = lambda: None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.target)

    def take(self, rows: Array) -> RawTable:
        """Return these rows alone: `rows` are int64, shape (R,)."""
        return dataclasses.replace(
            self,
            numbers=self.numbers[rows],
            texts=self.texts[rows],
            target=[self.target[row] for row in rows.tolist()],
            origin=self.origin[rows],
        )

    @property
    def labeled(self) -> Array:
        """The rows that have a target: int64, ascending."""
        return np.array([row for row, cell in enumerate(self.target) if cell is not None], dtype=np.int64)

    def without(self, column: str) -> tuple[RawTable, Array]:
        """Split off a column of numbers: return the other columns, and its values, shape (N,)."""
        place = self.number_names.index(column)
        names = [name for name in self.number_names if name != column]
        rest = dataclasses.replace(self, numbers=np.delete(self.numbers, place, axis=1), number_names=names)
        return rest, self.numbers[:, place]

    def at(self, row: int, name: str) -> str:
        """Describe a value and its place, for instance ``line 14 has '?'``."""
        return self.describe(int(self.origin[row]), self.source(name))

    def source(self, name: str) -> str:
        """Return the column of the file that a column is made of."""
        source: str = self.made.get(name, {}).get("source", name)
        return source

    def leave_out(self, name: str) -> str:
        """Describe how to leave a column out."""
        if self.dropped is None:
            return "save the array without that column"
        return f"leave the column out with {setting('drop', [*self.dropped, self.source(name)])}"

    def refuse(self, name: str, message: str, **mend: Any) -> NoReturn:
        """Raise `ColumnError` for a column; `mend` are the parameters of one remedy."""
        raise ColumnError(f"{self.file}: column {name!r} {message}.", mend)

    def dropping(self, name: str) -> dict[str, Any]:
        """Return the parameters that leave a column out."""
        return {} if self.dropped is None else {"drop": [self.source(name)]}


def absent(texts: Array) -> Array:
    """Return which cells of an array of objects are missing: bool, of the same shape."""
    return np.array([cell is None for cell in texts.flat], dtype=bool).reshape(texts.shape)


def refuse_infinite(raw: RawTable, faults: Faults) -> None:
    """Find each column with infinite numbers, since means and standard deviations need finite ones."""
    infinite = np.isinf(raw.numbers)
    for place in np.flatnonzero(infinite.any(axis=0)).tolist():
        name, rows = raw.number_names[place], np.flatnonzero(infinite[:, place])
        with faults.gather():
            raw.refuse(
                name,
                f"has an infinite number, or one beyond 1.8e308: {raw.at(int(rows[0]), name)} (the first of "
                f"{len(rows)} in the column). Correct it, or leave it empty and choose what happens to missing "
                f"values, for instance with {setting('missing', 'fill')}, or {raw.leave_out(name)}",
                **raw.dropping(name),
            )


def settle_missing(raw: RawTable, policy: Missing, unlabeled: Unlabeled, faults: Faults) -> RawTable:
    """Refuse missing values, or drop their rows, or leave them to the encoder, which fills them.

    Of inputs, faults are found at ``"error"`` for any missing value, and for an empty column. A missing target is a
    fault at ``"error"`` unless the row is left out for it, and nothing to settle at ``"ask"``.
    """
    gaps = np.concatenate(
        [
            np.array([cell is None for cell in raw.target], dtype=bool)[:, None],
            np.isnan(raw.numbers),
            absent(raw.texts),
        ],
        axis=1,
    )
    if unlabeled == "drop" and gaps[:, 0].any() and not gaps[:, 0].all():
        warn(f"{raw.file}: {gaps[:, 0].sum()} of {len(raw)} rows were left out, since they have no label.")
        kept = ~gaps[:, 0]
        raw, gaps = raw.take(np.flatnonzero(kept)), gaps[kept]
    if unlabeled == "ask":
        gaps[:, 0] = False
    if not gaps.any():
        return raw
    names = [raw.target_name, *map(raw.source, raw.number_names), *raw.text_names]
    _refuse_empty(raw, gaps, names, policy, faults)
    gaps[:, gaps.all(axis=0) & (policy != "fill")] = False  # told of already
    rows = gaps.any(axis=1)
    if policy == "error":
        if rows.any():
            with faults.gather():
                _refuse_missing(raw, gaps, names)
        return raw
    if not rows.any():
        return raw
    if policy == "drop":
        warn(f"{raw.file}: {rows.sum()} of {len(raw)} rows were left out, since a value is missing in them.")
        return raw.take(np.flatnonzero(~rows))
    if gaps[:, 0].any():
        first = int(np.flatnonzero(gaps[:, 0])[0])
        with faults.gather():
            raw.refuse(
                raw.target_name,
                f"is the target, and values are missing in {gaps[:, 0].sum()} of its {len(raw)} rows: "
                f"{raw.at(first, names[0])}. An answer can't be filled in. {_OF_UNLABELED}",
                unlabeled="drop",
            )
        return raw
    warn(
        f"{raw.file}: {gaps.sum()} missing values in {listed(_gappy(gaps, names))} are filled in: "
        "numbers with the median of the training part, categories with one of their own."
    )
    return raw


def _refuse_empty(raw: RawTable, gaps: Array, names: list[str], policy: Missing, faults: Faults) -> None:
    for column in np.flatnonzero(gaps.all(axis=0)).tolist():
        if column == 0 or policy != "fill":
            remedy = raw.leave_out(names[column]) if column else f"Name another column as the target. {_OF_UNLABELED}"
            message = f"is empty: all its {len(raw)} values are missing. {capital(remedy)}"
            with faults.gather():
                raw.refuse(names[column], message, **(raw.dropping(names[column]) if column else {}))


def _refuse_missing(raw: RawTable, gaps: Array, names: list[str]) -> NoReturn:
    row = int(np.flatnonzero(gaps.any(axis=1))[0])
    name = names[int(np.flatnonzero(gaps[row])[0])]
    blanks = "; what counts as missing is the list data.csv.blanks" if raw.dropped is not None else ""
    if not gaps[:, 1:].any():
        remedy = f"{_OF_UNLABELED}{blanks}"
        mend = {"unlabeled": "drop"}
    elif gaps[:, 0].any():
        remedy = (
            f"Leave such rows out with {setting('missing', 'drop')} (the target can't be filled in){blanks}. "
            f"{_OF_UNLABELED}"
        )
        mend = {"missing": "drop"}
    else:
        remedy = (
            f"Leave such rows out with {setting('missing', 'drop')}, or fill the gaps (numbers with the median of the "
            f"training part, categories with one of their own) with {setting('missing', 'fill')}{blanks}"
        )
        mend = {"missing": "fill"}
    raw.refuse(
        name,
        f"has a missing value: {raw.at(row, name)}. Missing in all: {gaps.sum()} of {gaps.size} values, "
        f"in {gaps.any(axis=1).sum()} of {len(raw)} rows, in {listed(_gappy(gaps, names))}. {remedy}",
        **mend,
    )


def _gappy(gaps: Array, names: list[str]) -> list[str]:
    return list(dict.fromkeys(names[column] for column in np.flatnonzero(gaps.any(axis=0)).tolist()))


def refuse_few(raw: RawTable) -> None:
    """Raise `UsageError` if there are too few rows for a held-out part."""
    if len(raw) < FEWEST_ROWS:
        raise UsageError(
            f"{raw.file}: {len(raw)} usable rows are too few; at least {FEWEST_ROWS} are needed. "
            "With a quarter held out, fewer would measure a model on less than 5 rows, where one row more "
            "or less moves every score by over 20 %. Add rows, or check that the whole file was exported."
        )
