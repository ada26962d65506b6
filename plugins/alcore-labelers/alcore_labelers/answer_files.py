"""Answers from a file that was filled in: CSV as spreadsheets save it, JSON lines or NPZ."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError, did_you_mean
from alcore.experiment import GivenAnswer
from alcore.protocols import FAILURE_KINDS, DataInfo, Failed, Label, Request
from alcore.store import parse_json

SOURCE = "tell"
"""The source of answers that don't say theirs."""
_READ = ("request", "sample", "attempt", "label", "status", "cost", "source", "comment")
_LABELED = ("", "labeled", "labelled", "label", "ok", "done")
_KINDS = {kind: kind for kind in FAILURE_KINDS} | {"failed": "infrastructure"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+|[+-]?\d{1,3}(\.\d{3})+")
_DELIMITERS = ",;\t|"


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of a file: its place, the value of each column that is read, and what is wrong with it as a whole."""

    place: str
    values: Mapping[str, Any]
    fault: str = ""


class _FaultError(Exception):
    """Why a row can't be understood."""


@dataclasses.dataclass(frozen=True)
class _Form:
    """How the cells of a file are read.

    Parameters
    ----------
    info
        What is known about the data.
    source
        Of answers that don't say theirs.
    delimiter
        Between the cells of a CSV file; empty for a format whose values have types.
    commas
        Whether the file writes decimal commas.
    """

    info: DataInfo | None
    source: str
    delimiter: str = ""
    commas: bool = False


def read_answers(path: str | Path, info: DataInfo | None, source: str = SOURCE) -> list[GivenAnswer]:
    """Return the answers in a file that was filled in, as `alcore.Driver.tell` takes them.

    Parameters
    ----------
    path
        The file: ``.jsonl`` or ``.npz``; anything else is read as CSV.
    info
        What is known about the data (`alcore.Driver.info`): names of classes, or that labels are numbers.
    source
        Of the answers that don't say theirs.

    Returns
    -------
    list of GivenAnswer
        One for each row. A row that is not filled in has neither answer nor fault.

    Raises
    ------
    UsageError
        For a file that holds no table of answers. What is wrong with a row is a `GivenAnswer.fault`.
    """
    path, form = Path(path), _Form(info, source)
    try:
        if path.suffix.lower() == ".npz":
            rows = _npz_rows(path)
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            rows = _json_rows(path)
        else:
            rows, delimiter = _csv_rows(path.name, _text(path))
            form = dataclasses.replace(form, delimiter=delimiter, commas=_has_commas(rows, delimiter))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from None
    return [_given(row, form) for row in rows]


# -- formats ------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """Return the text of a file in UTF-8, in UTF-16 as Excel's "Unicode text" is, or else in code page 1252."""
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    if raw.startswith(b"PK\x03\x04"):
        raise UsageError(f"{path} is a workbook or another ZIP archive; save the sheet as CSV, and tell that.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def _csv_rows(name: str, text: str) -> tuple[list[_Row], str]:
    lines = text.splitlines(keepends=True)
    skipped = 1 if lines and re.fullmatch(r"sep=.\s*", lines[0]) else 0  # Excel reads it, and doesn't show it
    header, delimiter = _header(name, lines[skipped] if len(lines) > skipped else "")
    rows: list[_Row] = []
    reader = csv.reader(io.StringIO("".join(lines[skipped:]), newline=""), delimiter=delimiter)
    line = skipped + 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{name}, line {line}: it can't be read as CSV: {error}.") from None
        if cells is None:
            return rows, delimiter
        if line > skipped + 1 and any(map(str.strip, cells)):
            fault = ""
            if any(map(str.strip, cells[len(header) :])):
                fault = (
                    f"it has {len(cells)} cells, the header has {len(header)}; quote a cell that holds {delimiter!r}"
                )
            values = {column: cell.strip() for column, cell in zip(header, cells, strict=False) if column in _READ}
            rows.append(_Row(f"line {line}", values, fault))
        line = skipped + reader.line_num + 1


def _header(name: str, line: str) -> tuple[list[str], str]:
    """Return the names of the columns, and the delimiter: the one that gives the most columns that are read."""

    def columns(delimiter: str) -> list[str]:
        return [cell.strip().casefold() for cell in next(csv.reader([line], delimiter=delimiter), [])]

    delimiter = max(_DELIMITERS, key=lambda delimiter: len(set(columns(delimiter)) & set(_READ)))
    names = columns(delimiter)
    _check_columns(name, names)
    return names, delimiter


def _check_columns(name: str, columns: Sequence[str]) -> None:
    names = [column for column in columns if column in _READ]
    if twice := sorted({column for column in names if names.count(column) > 1}):
        raise UsageError(f"{name}: {' and '.join(twice)} is a column twice; keep the one that was filled in.")
    if not {"request", "sample"} & set(names) or not {"label", "status"} & set(names):
        has = ", ".join(filter(None, columns[:20])) or "none"
        raise UsageError(
            f"{name}: answers need a column request (or sample) and a column label (or status), named in the first "
            f"line; it has {has}. alcore ask RUN --out FILE.csv writes a table to fill in."
        )


def _json_rows(path: Path) -> list[_Row]:
    rows = []
    for place, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            rows.append(_Row(f"line {place}", {}, f"it is not JSON: {error}"))
            continue
        if isinstance(row, dict):
            rows.append(_Row(f"line {place}", {name: row[name] for name in _READ if row.get(name) is not None}))
        else:
            rows.append(_Row(f"line {place}", {}, 'it is not an object, such as {"request": ..., "label": ...}'))
    return rows


def _npz_rows(path: Path) -> list[_Row]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _READ if name in file}
            names = list(file)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{path} can't be read as arrays without pickle: {error}.") from None
    _check_columns(path.name, names)
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UsageError(f"{path}: its arrays have different lengths: {shown}; each has one entry a request.")
    count = next(iter(lengths.values()))
    return [
        _Row(
            f"entry {place}",
            {name: entry for name, array in arrays.items() if (entry := _entry(name, array[place])) is not None},
        )
        for place in range(count)
    ]


def _entry(name: str, value: Any) -> Any:
    """Return an entry of an array; None for NaN, an empty text, and a sample id of -1."""
    if value.ndim:
        return None if value.dtype.kind == "f" and np.isnan(value).all() else torch.from_numpy(value.copy())
    plain = value.item()
    if isinstance(plain, bytes):
        plain = plain.decode(errors="replace")
    missing = plain == "" or plain != plain or (name == "sample" and plain == -1)
    return None if missing else plain


# -- rows ---------------------------------------------------------------------------------------------------


def _given(row: _Row, form: _Form) -> GivenAnswer:
    """Return the answer of a row."""
    values = {name: value for name, value in row.values.items() if not (isinstance(value, str) and not value.strip())}
    if not row.fault and "label" not in values and "status" not in values:
        return GivenAnswer(row.place)
    try:
        if row.fault:
            raise _FaultError(row.fault)
        sample = _whole(values["sample"], "sample") if "sample" in values else None
        return GivenAnswer(row.place, _answer(values, sample, form), sample=sample)
    except _FaultError as fault:
        return GivenAnswer(row.place, None, str(fault))


def _answer(values: Mapping[str, Any], sample: int | None, form: _Form) -> Label | Failed:
    item: Any = values.get("request", sample)
    if item is None:
        raise _FaultError("it names no request and no sample")
    if "request" in values and "attempt" in values:
        item = Request(str(item), 0, 0, None, _whole(values["attempt"], "attempt"))
    cost = _number(values["cost"], form, "cost") if "cost" in values else None
    status = str(values.get("status", "")).strip().casefold()
    comment = str(values.get("comment", ""))
    if status in _LABELED:
        if "label" not in values:
            raise _FaultError(f"its status is {status!r}, and it has no label")
        value = _value(values["label"], form)
        expected: Any = cost  # None: what was expected
        return Label(item, value, str(values.get("source", form.source)), expected)
    kind: Any = _KINDS.get(status)
    if kind is None:
        raise _FaultError(f"its status is {status!r}; {did_you_mean(status, ['labeled', *_KINDS])}")
    if "label" in values:
        raise _FaultError(f"it has a label, and the status {status!r}; clear one of the two")
    return Failed(item, comment, kind, cost)


def _value(label: Any, form: _Form) -> Any:
    """Return the value of a label as the data has it: a code of a class, a number, or an array."""
    info = form.info
    if info is not None and info.task == "classification":
        return _class(label, info)
    if not isinstance(label, str):
        return torch.tensor(label) if isinstance(label, list) and _is_numeric(label) else label
    if label[:1] == "[":
        try:
            value = parse_json(label)
        except ValueError:
            value = None
        if _is_numeric(value):
            return torch.tensor(value)
    if info is None and not _NUMBER.fullmatch(_plain(label, form)):
        return label
    number = _number(label, form, "label")
    return int(number) if info is None and number.is_integer() and "." not in label else number


def _class(label: Any, info: DataInfo) -> Any:
    """Return the code of a class, by its name, also in other case or as a spreadsheet writes numbers, or its code."""
    if not isinstance(label, str):
        label = _named_number(label, info) if isinstance(label, int | float) else label
        return torch.tensor(label) if isinstance(label, list) and _is_numeric(label) else label
    if label in info.names:
        return info.names.index(label)
    alike = [code for code, name in enumerate(info.names) if name.strip().casefold() == label.strip().casefold()]
    if len(alike) == 1:
        return alike[0]
    text = label.strip().replace(",", ".")
    if _NUMBER.fullmatch(text):
        number = float(text)
        return _named_number(int(number) if number.is_integer() else number, info)
    return label


def _named_number(number: int | float, info: DataInfo) -> int | float:
    """Return the code of a class whose name is a number; where no name is one, the number is the code."""
    numbers = {float(name): code for code, name in enumerate(info.names) if _NUMBER.fullmatch(name.strip())}
    if not numbers:
        return number
    if float(number) not in numbers:
        raise _FaultError(f"{number:g} is not one of the classes, which are {', '.join(info.names[:20])}")
    return numbers[float(number)]


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        if not value or not all(map(_is_numeric, value)):
            return False
        lengths = {len(part) if isinstance(part, list) else -1 for part in value}
        return len(lengths) == 1
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- cells --------------------------------------------------------------------------------------------------


def _plain(text: str, form: _Form) -> str:
    """Return the text of a number with a decimal point.

    Raises
    ------
    _FaultError
        Where it can be read in two ways.
    """
    plain = text.strip().replace("\N{MINUS SIGN}", "-").replace("\N{NO-BREAK SPACE}", "").replace("\u202f", "")
    grouped = _THOUSANDS.fullmatch(plain)
    if "," in plain and "." in plain:
        raise _FaultError(f"{text!r} has a point and a comma; write the number without separators of thousands")
    if "," in plain:
        if grouped and (plain.count(",") > 1 or form.delimiter == ","):
            raise _FaultError(f"{text!r} can be read in two ways; write the number with a decimal point")
        return plain.replace(",", ".")
    if (grouped and plain.count(".") > 1) or (grouped and "." in plain and form.commas):
        raise _FaultError(f"{text!r} can be read in two ways, as the file has decimal commas; write it without points")
    return plain


def _number(value: Any, form: _Form, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _FaultError(f"its {name} is a {type(value).__name__}, and must be a number")
    if not isinstance(value, str):
        return float(value)
    text = _plain(value, form)
    if not _NUMBER.fullmatch(text):
        raise _FaultError(f"its {name} is {value[:60]!r}, which is not a number")
    return float(text)


def _whole(value: Any, name: str) -> int:
    text = str(value).strip().replace(",", ".")
    number = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not number.is_integer() or not 0 <= number < 2**53:
        raise _FaultError(f"its {name} is {str(value)[:60]!r}, which is not a whole number of at least 0")
    return int(number)


def _has_commas(rows: Sequence[_Row], delimiter: str) -> bool:
    """Return whether a CSV file writes decimal commas."""
    cells: Iterator[str] = (str(row.values.get(name, "")) for row in rows for name in ("label", "cost"))
    return delimiter != "," and any(re.fullmatch(r"[+-]?\d+,\d+", cell) for cell in cells)
