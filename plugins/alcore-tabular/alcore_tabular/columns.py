"""Read a CSV file, and tell columns of numbers from columns of categories."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from alcore.errors import UsageError
from alcore_tabular.csv_reader import TextTable, read_rows
from alcore_tabular.faults import ColumnError, Faults
from alcore_tabular.messages import listed, nearest, setting, shown, warn
from alcore_tabular.number_format import DecimalMark, has_mark, number, other_mark
from alcore_tabular.overview import overview
from alcore_tabular.raw_table import Array, RawTable
from alcore_tabular.standalone import DATE_PARTS, date, date_part, grouped_number

DateOrder = Literal["auto", "dmy", "mdy"]

MOSTLY_NUMBERS = 0.8  # with this share of numbers, text in a column is an error
_MOST_CATEGORIES = 50  # without the user naming the column
_MOST_BLANKS = 3  # different texts among numbers that may mean a missing value
_SEASONS = 180  # days; dates of a shorter time have no seasons
_SAME = 1e-9  # numbers of a date that differ by less are the same
_WORDS_OF_TEXT = 2.5  # a cell, on average: free text, not a name
_MOST_NAMED = 1000  # if the user names the column; each category is a feature


@dataclasses.dataclass(frozen=True)
class Columns:
    """What the user says about the columns of a CSV file.

    Parameters
    ----------
    drop, categories, texts
        Columns to leave out, and columns to take as categories, and as free text, whatever their values.
    blanks
        Cells that are missing values, compared without case.
    delimiter, mark
        What separates cells (None: guessed), and the decimal mark.
    thousands
        Whether ``1,204`` is above a thousand; None: where a column leaves no doubt.
    date_order
        Order of day and month between slashes: ``auto`` where a column leaves no doubt.
    classes
        Names of classes, which are no blanks in the target.
    """

    drop: Sequence[str] = ()
    categories: Sequence[str] = ()
    texts: Sequence[str] = ()
    blanks: Sequence[str] = ()
    delimiter: str | None = None
    mark: DecimalMark = "."
    thousands: bool | None = None
    date_order: DateOrder = "auto"
    classes: Sequence[str] = ()


def read_csv(path: Path, target: str | None, said: Columns, faults: Faults) -> RawTable:
    """Read a CSV file, and tell numbers, dates, categories and free text from each other.

    Parameters
    ----------
    path
        The file.
    target
        The column to predict.
    said
        What the user says about the columns.
    faults
        Takes the columns that can't be used, which are left out of the result.

    Raises
    ------
    UsageError
        For a file that is not CSV, and a name that is not a column.
    """
    csv_text = read_rows(path, said.delimiter, said.drop)
    missing = {blank.strip().casefold() for blank in said.blanks}
    if target is None and len(csv_text.names) > 1:
        raise UsageError(
            f"{csv_text.file}: which column is to be predicted? Name it with --target COLUMN, for instance "
            f"--target {shlex.quote(csv_text.names[-1])}. The columns:\n{overview(csv_text, missing, said.mark)}"
        )
    answer = _check_roles(csv_text, target, said)
    columns = _Reader(csv_text, said)
    left_out = {answer, *said.drop}
    numbers_only = said.mark == "." and all(number(blank) is None for blank in missing)
    for name, cells in zip(csv_text.names, zip(*csv_text.rows, strict=True), strict=True):
        if name in left_out or (numbers_only and columns.add_numbers(name, cells)):
            continue
        with faults.gather():
            columns.add(name, [None if cell.casefold() in missing else cell for cell in cells])
    if not columns.numbers and not columns.texts and not faults.found:
        raise UsageError(f"{csv_text.file}: no column is left to learn from beside the target {answer!r}.")
    no_label = missing - {name.strip().casefold() for name in said.classes}
    target_cells = columns.target(
        answer, [None if cell.casefold() in no_label else cell for cell in csv_text.column(answer)], faults
    )
    return RawTable(
        file=csv_text.file,
        numbers=_stack(list(columns.numbers.values()), len(csv_text.rows), np.float64),
        number_names=list(columns.numbers),
        texts=_stack(list(columns.texts.values()), len(csv_text.rows), object),
        text_names=list(columns.texts),
        target=target_cells,
        target_name=answer,
        origin=np.arange(len(csv_text.rows)),
        describe=csv_text.describe,
        dropped=tuple(said.drop),
        free=tuple(said.texts),
        made=columns.made,
        lines=np.array(csv_text.lines),
        other_mark=lambda: columns.other_mark,
    )


def _check_roles(csv_text: TextTable, target: str | None, said: Columns) -> str:
    drop, kinds = said.drop, {"categories": said.categories, "texts": said.texts}
    names = csv_text.names
    if len(names) == 1:
        raise UsageError(
            f"{csv_text.file}: there is one column, {names[0]!r}; a target and a feature are needed. If cells "
            f"are separated by something else, name it, for instance with {setting('delimiter', ':')}; where none "
            "is named, a comma, a semicolon, a tab and a bar are tried."
        )
    if target is None or target not in names:
        raise UsageError(
            f"{csv_text.file}: there is no column {target!r} to be the target; {nearest(target or '', names)}. Name "
            f"one with --target COLUMN; the first line of the file must be the names."
        )
    if target in drop:
        raise UsageError(
            f"{csv_text.file}: {target!r} is both the target and in data.csv.drop; take it out of one of them."
        )
    for kind, name in [(kind, name) for kind, listing in kinds.items() for name in listing]:
        if name not in names:
            raise UsageError(f"{csv_text.file}: there is no column {name!r} to take as {kind}; {nearest(name, names)}.")
        if name in drop:
            raise UsageError(
                f"{csv_text.file}: {name!r} is in data.csv.drop and data.csv.{kind}; name it in one of them."
            )
        if name == target:
            raise UsageError(
                f"{csv_text.file}: {name!r} is the target; to take it as classes, give "
                f"{setting('task', 'classification')} instead of listing it in data.csv.{kind}."
            )
    if both := [name for name in kinds["texts"] if name in kinds["categories"]]:
        raise UsageError(
            f"{csv_text.file}: {both[0]!r} is in data.csv.categories and data.csv.texts; name it in one of them."
        )
    return target


class _Reader:
    """Feature columns sorted by kind, in the order of the file."""

    def __init__(self, csv_text: TextTable, said: Columns) -> None:
        self.csv_text, self.said, self.mark = csv_text, said, said.mark
        self.made: dict[str, dict[str, Any]] = {}
        self.numbers: dict[str, Array] = {}
        self.texts: dict[str, Array] = {}

    @functools.cached_property
    def other_mark(self) -> DecimalMark | None:
        """The decimal mark of the file's numbers, where it is not the one that they are read with; looked for once."""
        return other_mark(self.csv_text.rows, self.mark)

    def add_numbers(self, name: str, cells: Sequence[str]) -> bool:
        """Add a column as `add` does, if all its cells are numbers with a point; return whether it was added."""
        try:
            values = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            return False
        if name in self.said.categories or name in self.said.texts or np.isnan(values).any() or "_" in "".join(cells):
            return False
        self.numbers[name] = values
        self._suspect_row_number(name)
        return True

    def add(self, name: str, cells: list[str | None]) -> None:
        """Add a column."""
        if name in self.said.texts:
            self._add_texts(name, cells)
            return
        named = name in self.said.categories
        read = {cell: number(cell, self.mark) for cell in set(cells) if cell is not None}
        values = [None if cell is None else read[cell] for cell in cells]
        texts = [row for row, cell in enumerate(cells) if cell is not None and values[row] is None]
        present = sum(cell is not None for cell in cells)
        if not named and not texts:
            self.numbers[name] = np.array([np.nan if value is None else value for value in values])
            self._suspect_row_number(name)
            return
        if not named and (self._add_grouped(name, cells) or self._add_dates(name, cells)):
            return
        if not named and present - len(texts) >= MOSTLY_NUMBERS * present:
            self._refuse_text(name, texts, present)
        distinct = len({cell for cell in cells if cell is not None})
        if distinct > _MOST_NAMED or (not named and (distinct > _MOST_CATEGORIES or 2 * distinct > present)):
            self._refuse_many(name, distinct, present, texts[0] if texts else 0, named)
        self._add_texts(name, cells)

    def _add_grouped(self, name: str, cells: list[str | None]) -> bool:
        """Add a column of numbers whose thousands are grouped; return whether it is one."""
        values = {cell: grouped_number(cell, self.mark) for cell in set(cells) if cell is not None}
        if not values or self.said.thousands is False or None in values.values():
            return False
        self._refuse_doubtful(name, cells)
        self.numbers[name] = np.array([np.nan if cell is None else values[cell] for cell in cells], dtype=np.float64)
        self.made[name] = {"as": "grouped"}
        return True

    def _refuse_doubtful(self, name: str, cells: list[str | None]) -> None:
        """Raise `ColumnError` unless a cell shows that the sign between thousands is no decimal mark."""
        group = "," if self.mark == "." else "."
        present = [cell for cell in cells if cell is not None]
        if self.said.thousands or any(cell.count(group) > 1 or self.mark in cell for cell in present):
            return
        example = next(cell for cell in present if number(cell, self.mark) is None)
        as_decimals = f"say that it has three decimals with {setting('decimal', group)}" if self.other_mark else ""
        raise ColumnError(
            f"{self.csv_text.file}: column {name!r} has numbers such as {shown(example)}, which may be above a "
            f"thousand or have three decimals: {self.csv_text.describe(cells.index(example), name)}. Say that it is "
            f"above a thousand with {setting('thousands', True)}, {as_decimals or 'correct such cells'}, or "
            f"{self._out(name)}.",
            {"decimal": group} if self.other_mark else {"thousands": True},
        )

    def target(self, name: str, cells: list[str | None], faults: Faults) -> list[str | None]:
        """Return the cells of the target without the signs between thousands, if it has numbers with them."""
        values = {cell: grouped_number(cell, self.mark) for cell in set(cells) if cell is not None}
        grouped = [cell for cell in values if number(cell, self.mark) is None]
        if self.said.thousands is False or None in values.values() or not grouped:
            return cells
        with faults.gather():
            self._refuse_doubtful(name, cells)
        group = "," if self.mark == "." else "."
        plain = {cell: cell.replace(group, "") for cell in grouped}
        return [None if cell is None else plain.get(cell, cell) for cell in cells]

    def _add_dates(self, name: str, cells: list[str | None]) -> bool:
        """Add the numbers that dates are made into; return whether the column is one of dates."""
        values = {cell for cell in cells if cell is not None}
        orders = ("dmy", "mdy") if self.said.date_order == "auto" else (self.said.date_order,)
        read = {order: {cell: date(cell, order) for cell in values} for order in orders}
        fitting = [order for order, dates in read.items() if values and None not in dates.values()]
        if not fitting:
            return False
        if len(fitting) == 2 and read["dmy"] != read["mdy"]:
            example = next(cell for cell in cells if cell is not None and read["dmy"][cell] != read["mdy"][cell])
            raise ColumnError(
                f"{self.csv_text.file}: column {name!r} has dates whose day and month can't be told apart: "
                f"{self.csv_text.describe(cells.index(example), name)}. Say which comes first, with "
                f"{setting('date_order', 'dmy')} or {setting('date_order', 'mdy')}, or {self._out(name)}.",
                {"date_order": "dmy"},
            )
        moments = {cell: moment for cell, moment in read[fitting[0]].items() if moment is not None}
        for part in DATE_PARTS:
            numbers = {cell: date_part(moment, part) for cell, moment in moments.items()}
            days = {date_part(moment, "day") for moment in moments.values()}
            if part.startswith("season") and max(days) - min(days) < _SEASONS:
                continue
            if part == "day" or max(numbers.values()) - min(numbers.values()) > _SAME:
                column = f"{name} ({part})"
                if column in self.csv_text.names and column not in self.said.drop:
                    raise ColumnError(
                        f"{self.csv_text.file}: column {name!r} has dates, of which a feature {column!r} is made, and "
                        f"the file has a column of this name too. Rename it in the file, or {self._out(name)}.",
                        {"drop": [name]},
                    )
                self.numbers[column] = np.array(
                    [np.nan if cell is None else numbers[cell] for cell in cells], dtype=np.float64
                )
                self.made[column] = {"source": name, "as": part, "order": fitting[0]}
        return True

    def _add_texts(self, name: str, cells: list[str | None]) -> None:
        column = np.empty(len(cells), dtype=object)
        column[:] = cells
        self.texts[name] = column

    def _refuse_text(self, name: str, texts: list[int], present: int) -> NoReturn:
        odd = sorted({self.csv_text.column(name)[row] for row in texts})
        blank = self._blank(odd)
        raise ColumnError(
            f"{self.csv_text.file}: column {name!r} has text where numbers belong: "
            f"{self.csv_text.describe(texts[0], name)}, and {present - len(texts)} of its {present} values are "
            f"numbers. Correct the cell, {blank}{self._ways_out(name, texts[0])}.",
            {"blanks": odd, "missing": "fill"} if blank else self._mend(name, texts[0]),
        )

    def _blank(self, odd: Sequence[str]) -> str:
        """Return how to take some texts among numbers for missing values; nothing if there are many."""
        if len(odd) > _MOST_BLANKS or any(any(sign.isdigit() for sign in cell) for cell in odd):
            return ""
        return f"take {listed(odd)} for missing with {setting('blanks', [*self.said.blanks, *odd])}, "

    def _refuse_many(self, name: str, distinct: int, present: int, row: int, named: bool) -> NoReturn:
        limit = _MOST_NAMED if named else _MOST_CATEGORIES
        why = f"more than {limit}" if distinct > limit else "more than half of them"
        words = sum(len(cell.split()) for cell in self.csv_text.column(name)) / len(self.csv_text.rows)
        is_text = words >= _WORDS_OF_TEXT
        text = setting("texts", [*self.said.texts, name])
        free = f"take its words as features (TF-IDF) with {text}, " if is_text else ""
        raise ColumnError(
            f"{self.csv_text.file}: column {name!r} has text where numbers or categories belong: {distinct} "
            f"different values in {present} rows, which is {why}, for instance "
            f"{self.csv_text.describe(row, name)}. Each category is a feature, and a model learns nothing from names "
            f"and ids: {free}{self._out(name) if named else self._ways_out(name, row)}.",
            {"texts": [name]} if is_text else self._mend(name, row),
        )

    def _ways_out(self, name: str, row: int) -> str:
        cell, mark = self.csv_text.column(name)[row], self._mark_of(name, row)
        read = "" if mark is None else f"read {shown(cell)} as a number with {setting('decimal', mark)}, "
        return (
            f"{read}{self._out(name)}, or take its values as categories with "
            f"{setting('categories', [*self.said.categories, name])}"
        )

    def _mark_of(self, name: str, row: int) -> DecimalMark | None:
        """Return the decimal mark to read a cell with, if the numbers of the file have it; None for a bad cell."""
        is_number = has_mark(self.csv_text.column(name)[row], "," if self.mark == "." else ".")
        return self.other_mark if is_number else None

    def _mend(self, name: str, row: int) -> dict[str, Any]:
        mark = self._mark_of(name, row)
        return {"drop": [name]} if mark is None else {"decimal": mark}

    def _out(self, name: str) -> str:
        return f"leave the column out with {setting('drop', [*self.said.drop, name])}"

    def _suspect_row_number(self, name: str) -> None:
        values = self.numbers[name]
        if (
            len(values) > 1
            and values[1] == values[0] + 1
            and np.array_equal(values, values[0] + np.arange(len(values)))
        ):
            warn(
                f"{self.csv_text.file}: column {name!r} only counts the rows, from {values[0]:g} on. In a "
                f"sorted file that gives the answer away; {self._out(name)}."
            )


def _stack(columns: list[Array], rows: int, dtype: type) -> Array:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0), dtype=dtype)
