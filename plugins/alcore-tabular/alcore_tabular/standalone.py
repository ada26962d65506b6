"""Make inputs of a CSV or NPZ file as they were made when a model was trained.

This file needs NumPy and the standard library alone. ``alcore export`` writes it beside ``preprocessing.json``:
``read(description, path)`` takes the content of that file and a new file, and returns the inputs of its rows.
"""

from __future__ import annotations

import csv
import datetime
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MISSING = "(missing)"
"""The category of cells that are missing values."""


def read(description: Mapping[str, Any], path: str | Path) -> np.ndarray[Any, Any]:
    """Return the inputs of all rows of a file: float32, shape (N, features).

    Parameters
    ----------
    description
        The content of ``preprocessing.json``.
    path
        The file: CSV in UTF-8 whose columns may stand in any order, or NPZ. The target may be missing, and is not read.

    Raises
    ------
    ValueError
        For columns that are missing or not known, for values that don't fit, and for a file without rows.

    Warns
    -----
    UserWarning
        For categories that are not known; they count as none.
    """
    if description["file"]["format"] == "npz":
        with np.load(path, allow_pickle=False) as archive:
            columns: Mapping[str, Any] = array_columns(description, archive[description["file"]["array"]])
            return encode(description, columns)
    cells = csv_columns(description, path)
    for column in description["columns"]:
        if unknown := unknown_categories(column, cells[column["name"]]):
            warnings.warn(f"{Path(path).name}: {unknown}", stacklevel=2)
    return encode(description, cells)


def array_columns(description: Mapping[str, Any], array: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns of an array of inputs by name."""
    shape = tuple(description["file"]["shape"])
    if array.shape[1:] != shape or array.dtype.kind not in "biuf":
        raise ValueError(f"inputs of shape {('N', *shape)} are needed, of numbers, not {array.shape} of {array.dtype}")
    exact = np.float32 if np.result_type(array.dtype, np.float32) == np.float32 else np.float64
    flat = array.reshape(len(array), math.prod(shape)).astype(exact)
    return dict(zip(array_names(description["file"]["array"], shape), flat.T, strict=True))


def array_names(name: str, shape: Iterable[int]) -> list[str]:
    """Return the names of the columns of an array whose inputs have a shape."""
    return [f"{name}[{', '.join([':', *map(str, place)])}]" for place in np.ndindex(*shape)]


def csv_columns(description: Mapping[str, Any], path: str | Path) -> dict[str, list[str | None]]:
    """Return the cells of the columns that inputs are made of, by name; None where a value is missing."""
    wanted = source_names(description)
    blanks = {blank.strip().casefold() for blank in description["file"]["blanks"]}
    given = description["file"]["delimiter"]
    tables = [table(path, delimiter) for delimiter in ([given] if given else [",", ";", "\t", "|"])]
    names, rows = max(tables, key=lambda table: len(set(wanted) & set(table[0])))  # of equal ones the first
    if not names:
        raise ValueError(f"{path} holds no text; it needs a line of column names, then one line a sample")
    columns = {*wanted, *description["left_out"], description["target"]["name"]}
    problems = [f"lacks a column {name!r}" for name in wanted if name not in names]
    problems += [f"has {names.count(name)} columns {name!r}" for name in wanted if names.count(name) > 1]
    problems += [f"has a column {name!r}, which is not known" for name in names if name not in columns]
    if problems:
        raise ValueError(f"{path} {'; '.join(problems)}")
    if uneven := [number for number, row in enumerate(rows) if len(row) != len(names)]:
        raise ValueError(f"{path}: row {uneven[0]} has {len(rows[uneven[0]])} cells, and the header has {len(names)}")
    if not rows:
        raise ValueError(f"{path} has a header, but no row below it")
    places = {column["name"]: names.index(source_of(column)) for column in description["columns"]}
    return {
        name: [None if row[place].casefold() in blanks else row[place] for row in rows]
        for name, place in places.items()
    }


def source_of(column: Mapping[str, Any]) -> str:
    """Return the column of the file that a column of the description is made of; a date makes several."""
    source: str = column.get("source", column["name"])
    return source


def source_names(description: Mapping[str, Any]) -> list[str]:
    """Return the columns of the file that inputs are made of, each once."""
    return list(dict.fromkeys(map(source_of, description["columns"])))


def table(path: str | Path, delimiter: str) -> tuple[list[str], list[list[str]]]:
    """Return the names in the first line of a CSV file, and the cells of the others; blank lines don't count."""
    with Path(path).open(encoding="utf-8-sig", newline="") as stream:
        records = csv.reader(stream, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True)
        try:
            names, *rows = [[cell.strip() for cell in record] for record in records if record] or [[]]
        except csv.Error:  # text that another delimiter may divide well
            return [], []
    return names, rows


def encode(description: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]) -> np.ndarray[Any, Any]:
    """Return the inputs that are made of columns: float32, shape (N, features).

    Parameters
    ----------
    description
        The content of ``preprocessing.json``.
    columns
        For each column its cells: text, numbers, or None where a value is missing.
    """
    mark, fills = description["file"].get("decimal", "."), description["missing"] == "fill"
    rows = len(next(iter(columns.values())))
    parts = []
    for column in description["columns"]:
        cells = columns[column["name"]]
        if not fills and (gaps := [row for row, cell in enumerate(cells) if cell is None or cell != cell]):
            raise ValueError(f"a value of {column['name']!r} is missing in row {gaps[0]}, counted from 0")
        if column["kind"] == "number":
            parts.append(numbers(column, cells, mark)[:, None])
        elif column["kind"] == "category":
            parts.append(indicators(column["categories"], cells))
        elif column["kind"] == "text":
            parts.append(word_weights(column["words"], column["weights"], cells))
        else:
            raise ValueError(f"columns of the kind {column['kind']!r} are not known")
    return np.concatenate([np.empty((rows, 0), dtype=np.float32), *parts], axis=1)


def numbers(column: Mapping[str, Any], cells: Sequence[Any], mark: str) -> np.ndarray[Any, Any]:
    """Return a column of numbers, standardized: float32, shape (N,)."""
    values = np.empty(len(cells), dtype=np.float64)
    for row, cell in enumerate(cells):
        value = column_number(column, cell, mark) if isinstance(cell, str) else cell
        if cell is not None and value is None:
            raise ValueError(f"{cell!r} in column {column['name']!r} and row {row}, counted from 0, is not a number")
        values[row] = column["median"] if value is None or value != value else value
    with np.errstate(over="ignore"):
        result: np.ndarray[Any, Any] = ((values - column["mean"]) / column["deviation"]).astype(np.float32)
    if len(far := np.flatnonzero(~np.isfinite(result))):
        raise ValueError(f"a value of {column['name']!r} is infinite or too large in row {far[0]}, counted from 0")
    return result


def unknown_categories(column: Mapping[str, Any], cells: Sequence[str | None]) -> str:
    """Return in words which cells hold categories that are not known; empty where there are none."""
    if column["kind"] != "category":
        return ""
    categories = set(column["categories"])
    values = [MISSING if cell is None else cell for cell in cells]
    new = [value for value in values if value not in categories]
    if not new:
        return ""
    example = new[0] if len(new[0]) <= 40 else new[0][:39] + "\N{HORIZONTAL ELLIPSIS}"
    return (
        f"column {source_of(column)!r} holds categories that the model doesn't know, in {len(new)} of {len(cells)} "
        f"rows, for instance {example!r}; they count as none."
    )


def indicators(categories: Sequence[str], cells: Sequence[str | None]) -> np.ndarray[Any, Any]:
    """Return one feature a category, 1 where a cell is of it: float32, shape (N, categories)."""
    places = {category: place for place, category in enumerate(categories)}
    result = np.zeros((len(cells), len(places)), dtype=np.float32)
    for row, cell in enumerate(cells):
        place = places.get(MISSING if cell is None else cell)
        if place is not None:
            result[row, place] = 1
    return result


def word_weights(words: Sequence[str], weights: Sequence[float], cells: Sequence[str | None]) -> np.ndarray[Any, Any]:
    """Return one feature a word, TF-IDF: how often a text has it, times its weight, each row scaled to length 1.

    The same as ``TfidfVectorizer`` of scikit-learn with its default parameters and this vocabulary. Words have two
    characters at least, in lower case. A missing text has none.

    Parameters
    ----------
    words, weights
        The vocabulary, and the inverse document frequency of each word in it.
    cells
        The texts.
    """
    places = {word: place for place, word in enumerate(words)}
    counts = np.zeros((len(cells), len(places)), dtype=np.float64)
    for row, cell in enumerate(cells):
        for word in re.findall(r"\b\w\w+\b", (cell or "").lower()):
            if (place := places.get(word)) is not None:
                counts[row, place] += 1
    counts *= np.array(weights, dtype=np.float64)
    lengths = np.sqrt((counts * counts).sum(axis=1, keepdims=True))
    return (counts / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def column_number(column: Mapping[str, Any], cell: str, mark: str) -> float | None:
    """Return the number that a column of numbers makes of a cell, or None if the cell holds something else."""
    kind = column.get("as", "number")
    if kind == "number":
        return number(cell, mark)
    if kind == "grouped":
        return grouped_number(cell, mark)
    moment = date(cell, column["order"])
    return None if moment is None else date_part(moment, kind)


def grouped_number(cell: str, mark: str) -> float | None:
    """Return the number in a cell whose thousands may be grouped, as in ``1,204.50``, or None if it is text."""
    group = "," if mark == "." else "."
    pattern = rf"[-+]?[1-9]\d{{0,2}}({re.escape(group)}\d{{3}})+({re.escape(mark)}\d+)?"
    return number(cell.replace(group, "") if re.fullmatch(pattern, cell) else cell, mark)


MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TIME = (
    r"(?:(?:T|,? +)(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d(?:\.\d+)?))?(?: ?(?P<zone>Z|[-+]\d\d:?\d\d))?)?"
)
_DATES = (
    r"(?P<year>\d{4})(?P<sign>[-/.])(?P<month>\d\d?)(?P=sign)(?P<day>\d\d?)",
    r"(?P<first>\d\d?)(?P<sign>[-/])(?P<second_>\d\d?)(?P=sign)(?P<year>\d{4})",
    r"(?P<day>\d\d?)\.(?P<month>\d\d?)\.(?P<year>\d{4})",
    r"(?P<day>\d\d?)[- ](?P<word>[A-Za-z]{3,9})\.?,?[- ](?P<year>\d{4})",
    r"(?P<word>[A-Za-z]{3,9})\.? (?P<day>\d\d?),? (?P<year>\d{4})",
)
_PATTERNS = [re.compile(pattern + _TIME) for pattern in _DATES]


def date(cell: str, order: str) -> datetime.datetime | None:
    """Return the date in a cell, with its time of day if it has one, or None if it is something else.

    Parameters
    ----------
    cell
        Such as ``2024-01-31``, ``2024-01-31T14:30:00Z``, ``31.01.2024``, ``31/01/2024``, ``31 Jan 2024`` or
        ``January 31, 2024``. Times with a zone become UTC.
    order
        How day and month are ordered between slashes or hyphens before a year: ``dmy`` or ``mdy``.
    """
    matched = next((match for pattern in _PATTERNS if (match := pattern.fullmatch(cell))), None)
    if matched is None:
        return None
    part = matched.groupdict()
    if "first" in part:
        part["day"], part["month"] = part["first"], part["second_"]
        if order == "mdy":
            part["day"], part["month"] = part["month"], part["day"]
    elif "word" in part:
        near = [place for place, name in enumerate(MONTHS, 1) if part["word"].lower().startswith(name)]
        part["month"] = str(near[0]) if near else "0"
    try:
        moment = datetime.datetime(int(part["year"]), int(part["month"]), int(part["day"]))
        time = datetime.timedelta(
            hours=int(part["hour"] or 0), minutes=int(part["minute"] or 0), seconds=float(part["second"] or 0)
        )
        zone = part["zone"]
        if zone not in (None, "Z"):
            ahead = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
            time += ahead if zone[0] == "-" else -ahead
        return moment + time
    except (ValueError, OverflowError):  # no such day
        return None


DATE_PARTS = ("day", "season sine", "season cosine", "weekday sine", "weekday cosine", "time sine", "time cosine")
"""The numbers that a date is made into."""


def date_part(moment: datetime.datetime, part: str) -> float:
    """Return a number of `DATE_PARTS`: days since 1970, or the place in the year, week or day on a circle."""
    days = (moment - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1)
    if part == "day":
        return days
    cycle, wave = part.split()
    share = {
        "season": (moment.timetuple().tm_yday - 1) / 365.25,
        "weekday": moment.weekday() / 7,
        "time": days % 1,
    }[cycle]
    angle = 2 * math.pi * share
    return math.sin(angle) if wave == "sine" else math.cos(angle)


def number(cell: str, mark: str = ".") -> float | None:
    """Return the number in a cell, infinite if it is too large, or None if it is text.

    Parameters
    ----------
    cell
        Its text.
    mark
        The decimal mark; if it is a comma, a cell with a point is text, since the point may group thousands.
    """
    plain = without_mark(cell, mark)
    if plain is None:
        return None
    try:
        value = float(plain)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def without_mark(cell: str, mark: str) -> str | None:
    """Return a cell with a point as the decimal mark, or None if it is no number."""
    if "_" in cell or (mark == "," and "." in cell):
        return None
    return cell.replace(",", ".") if mark == "," else cell
