"""Reading a CSV file into rows of text, each with its line number."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from alcore.errors import UsageError
from alcore_tabular.messages import listed, nearest, setting, shown
from alcore_tabular.number_format import number

_DELIMITERS = ",;\t|"
_TYPED = {"\\t": "\t", "tab": "\t"}  # a tab on a command line
_LOOK = 20  # records from which the delimiter is guessed
_FORMATS = {
    b"PK\x03\x04": "a ZIP archive, as Excel workbooks are; export the sheet as CSV (NPZ files end in .npz)",
    b"\x1f\x8b": "compressed with gzip; unpack it with gunzip",
    b"BZh": "compressed with bzip2; unpack it with bunzip2",
    b"PAR1": "a Parquet file; convert it, for instance with pandas.read_parquet(path).to_csv(...)",
    b"\x93NUMPY": "an NPY file; save inputs and targets together with numpy.savez(path, X=..., y=...)",
    b"\x89HDF": "an HDF5 file; export the table as CSV",
    b"SQLite format 3\0": "an SQLite database; export the table as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; export the sheet as CSV",
    b"%PDF": "a PDF document; the table in it must be exported as CSV",
    b"\xff\xfe": "text in UTF-16; save it as 'CSV UTF-8', or convert it with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "text in UTF-16; save it as 'CSV UTF-8', or convert it with iconv -f UTF-16 -t UTF-8",
}


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table of text.

    Parameters
    ----------
    file
        Name of the file, for messages.
    names
        Names of the columns.
    rows
        Cells without surrounding white space; as many in each row as there are names.
    lines
        Line of the file on which each row begins, from 1.
    """

    file: str
    names: list[str]
    rows: list[list[str]]
    lines: list[int]

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """The place of each column by its name; of columns of one name, the first."""
        return {name: place for place, name in reversed(list(enumerate(self.names)))}

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        place = self.places[name]
        return [row[place] for row in self.rows]

    def describe(self, row: int, name: str) -> str:
        """Describe where a row is and the value of a column there."""
        cell = self.rows[row][self.places[name]]
        return f"line {self.lines[row]} {f'has {shown(cell)}' if cell else 'is empty there'}"


def read_rows(path: Path, delimiter: str | None = None, drop: Sequence[str] | None = ()) -> TextTable:
    """Read a CSV file in UTF-8 whose first line names the columns.

    Parameters
    ----------
    path
        The file.
    delimiter
        Separator of the cells; guessed from the first records if None.
    drop
        Columns that need no unique name, since they are left out; where it is None, the names are not checked.

    Raises
    ------
    UsageError
        For anything that is not such a file.
    """
    text = _text(path)
    separator = _guess(text) if delimiter is None else _TYPED.get(delimiter, delimiter)
    if len(separator) != 1 or separator in '\r\n"':
        raise UsageError(
            f"delimiter: {delimiter!r} is not one character; for a tab, give {setting('delimiter', 'tab')}."
        )
    records = _records(text, separator, path.name)
    _, names = next(records, (0, []))
    if not names:
        raise UsageError(
            f"{path.name}: the file holds no text. It needs a line of column names, then one line a sample."
        )
    csv_text = TextTable(path.name, names, [], [])
    for line, row in records:
        if len(row) != len(names):
            raise UsageError(
                f"{path.name}, line {line}: {len(row)} cells, but the header has {len(names)} columns. Check "
                f"that line for a cell that holds {separator!r} without quotes around it; if the cells are "
                "separated otherwise, say how, for instance with "
                f"{setting('delimiter', ';' if separator != ';' else ',')}."
            )
        csv_text.rows.append(row)
        csv_text.lines.append(line)
    if not csv_text.rows:
        raise UsageError(f"{path.name}: there is a header, {listed(names)}, but no row below it.")
    _check_header(csv_text)
    if drop is not None:
        _check_names(csv_text, drop)
    return csv_text


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if b"\0" in raw:
        _refuse_format(path, raw)
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise UsageError(
            f"{path.name}, line {line}: there is a zero byte, so this is not a text file. Export the table as CSV."
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse_format(path, raw)
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start : error.start + 1]
        raise UsageError(
            f"{path.name}, line {line}: byte 0x{byte.hex()} is not UTF-8. If the file is text from Windows, "
            f"that byte is {byte.decode('cp1252', 'replace')!r}; save it as 'CSV UTF-8', or convert it with "
            "iconv -f CP1252 -t UTF-8."
        ) from None


def _refuse_format(path: Path, raw: bytes) -> None:
    for start, what in _FORMATS.items():
        if raw.startswith(start):
            raise UsageError(f"{path.name} can't be read as CSV: it is {what}.")


def _records(text: str, delimiter: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line on which it begins; blank lines are skipped."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True
    )
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise UsageError(
                f"{file}, line {line}: the record that begins there is not valid CSV ({error}). Look for a "
                "quotation mark that is not closed or not doubled."
            ) from None
        if record is None:
            return
        if record:
            yield line, [cell.strip() for cell in record]


def _guess(text: str) -> str:
    """Return the delimiter with the most cells in equally long first records, else the one with the longest header."""

    def merit(delimiter: str) -> tuple[bool, int]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            widths = [len(record) for record in itertools.islice(filter(None, reader), _LOOK)]
        except csv.Error:
            return False, 0
        return len(set(widths)) == 1 and widths[0] > 1, widths[0] if widths else 0

    return max(_DELIMITERS, key=merit)  # of equal ones the first: a comma


def _check_header(csv_text: TextTable) -> None:
    """Raise `UsageError` for a first line that is data, and for one that is repeated.

    Names may be numbers, such as years, pixels and wavelengths, but only different ones that are not negative.
    """
    for line, row in zip(csv_text.lines, csv_text.rows, strict=True):
        if row == csv_text.names:
            raise UsageError(
                f"{csv_text.file}, line {line}: the line is the same as the first one. If that is a header, "
                "take the repetition out (joined files have it); if it is data, put a line of column names "
                "above it."
            )
    numbers, texts = [], []
    for name in filter(None, csv_text.names):
        value = number(name)
        if value is None or math.isinf(value):  # "inf" may be a name
            texts.append(name)
        else:
            numbers.append(value)
    if texts:
        data = all(name in csv_text.column(name) for name in texts)
    else:
        data = not all(name.isdigit() for name in csv_text.names if name)
    if data or len(set(numbers)) < len(numbers) or min(numbers, default=0) < 0:
        raise UsageError(
            f"{csv_text.file}, line 1: this looks like data, not like column names: {listed(csv_text.names)}. The "
            "first line must name the columns; add such a line to the file."
        )


def _check_names(csv_text: TextTable, drop: Sequence[str]) -> None:
    names = csv_text.names
    for name in drop:
        if name not in names:
            raise UsageError(f"{csv_text.file}: there is no column {name!r} to drop; {nearest(name, names)}.")
    if "" in names and "" not in drop:
        raise UsageError(
            f"{csv_text.file}: column {names.index('') + 1} of {len(names)} has no name in the header, as when "
            "pandas writes its index. Name it in the file, or leave it out with "
            f"{setting('drop', [*drop, ''])}."
        )
    for name, count in Counter(names).items():
        if count > 1 and name not in drop:
            places = [str(place + 1) for place, other in enumerate(names) if other == name]
            raise UsageError(
                f"{csv_text.file}: {count} columns are named {name!r} (columns {', '.join(places)}). Rename "
                f"them in the file, or leave all of them out with {setting('drop', [*drop, name])}."
            )
