"""How a table's inputs were made, so that those of a new file are made alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from alcore.errors import UsageError
from alcore_tabular import standalone
from alcore_tabular.arrays import read_inputs
from alcore_tabular.csv_reader import TextTable, read_rows
from alcore_tabular.encoding import Encoder
from alcore_tabular.messages import listed, nearest, warn
from alcore_tabular.raw_table import Missing, RawTable
from alcore_tabular.targets import EncodedTarget

_FORMAT = "alcore-table 1"


class Reading(NamedTuple):
    """How a file is read.

    Parameters
    ----------
    file
        For CSV ``format``, ``delimiter``, ``decimal`` and ``blanks``; for NPZ ``format``, ``array`` and ``shape``.
    missing
        What happens to missing values.
    left_out
        Columns that are no inputs, as the user said.
    vocabulary
        How many words of a column of free text become features at most.
    """

    file: Mapping[str, Any]
    missing: Missing
    left_out: Sequence[str]
    vocabulary: int = 500


class TablePreprocessing:
    """What makes inputs of the rows of a CSV or NPZ file, as when the data was made.

    Parameters
    ----------
    description
        What `describe` returns. ``file`` says how a file is read, ``columns`` which of its columns become features and
        how, in the order of the features, ``left_out`` which other columns were there, and ``target`` what is
        predicted.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        if description.get("format") != _FORMAT:
            raise UsageError(
                f"this preprocessing has the format {description.get('format')!r}, and this version of alcore-tabular "
                f"reads {_FORMAT!r}; install the version of alcore-tabular that made it."
            )
        self._description = description

    def describe(self) -> Mapping[str, Any]:
        """Return how inputs are made, as JSON whose numbers are exact."""
        return self._description

    def source(self) -> str:
        """Return the source of a module that reads files as this does, with NumPy alone."""
        return Path(standalone.__file__).read_text(encoding="utf-8")

    def read(self, path: Path) -> torch.Tensor:
        """Return the inputs of all rows of a new file: float32, shape (N, features).

        Columns may stand in any order, and the target and columns that were left out may be missing.

        Raises
        ------
        UsageError
            For columns that are missing or not known, and for values that don't fit; with the line.

        Warns
        -----
        TableWarning
            For categories that are not known; they count as none.
        """
        file = self._description["file"]
        try:
            if file["format"] == "npz":
                columns: dict[str, Any] = self._of_arrays(path)
            else:
                columns = self._of_csv(path)
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror or error}.") from None
        return torch.from_numpy(standalone.encode(self._description, columns))

    def _of_arrays(self, path: Path) -> dict[str, Any]:
        name = self._description["file"]["array"]
        array = read_inputs(path, name)
        try:
            columns = standalone.array_columns(self._description, array)
        except ValueError as error:
            raise UsageError(f"{path.name}: array {name!r}: {error}.") from None
        for column in self._description["columns"]:
            values = columns[column["name"]]
            for row in np.flatnonzero(~np.isfinite(values))[:1].tolist():
                missing = np.isnan(values[row])
                if not (missing and self._description["missing"] == "fill"):
                    raise UsageError(
                        f"{path.name}: array {name!r} has {'a missing' if missing else 'an infinite'} value in row "
                        f"{row}, counted from 0. Correct it, or leave the row out."
                    )
        return dict(columns)

    def _of_csv(self, path: Path) -> dict[str, list[str | None]]:
        table = read_rows(path, self._description["file"]["delimiter"], drop=None)
        self._check_names(table)
        blanks = {blank.strip().casefold() for blank in self._description["file"]["blanks"]}
        columns = {}
        for column in self._description["columns"]:
            source = standalone.source_of(column)
            cells = [None if cell.casefold() in blanks else cell for cell in table.column(source)]
            self._check_cells(table, column, cells)
            columns[column["name"]] = cells
        return columns

    def _check_names(self, table: TextTable) -> None:
        """Raise `UsageError` that lists all columns that are missing, and all that are not known."""
        wanted = standalone.source_names(self._description)
        columns = {*wanted, *self._description["left_out"], self._description["target"]["name"]}
        lacking = [name for name in wanted if name not in table.names]
        unknown = [name for name in table.names if name not in columns]
        faults = [
            f"{table.names.count(name)} columns are named {name!r}" for name in wanted if table.names.count(name) > 1
        ]
        if lacking:
            faults.append(
                f"{'a column that the model needs is' if len(lacking) == 1 else 'columns that the model needs are'} "
                f"missing: {listed(lacking, 10)}"
            )
        if unknown:
            near = next((f" ({hint})" for name in unknown if (hint := nearest(name, lacking)).startswith("did")), "")
            faults.append(
                f"{'a column is' if len(unknown) == 1 else 'columns are'} not of the table that the model was trained "
                f"on: {listed(unknown, 10)}{near}"
            )
        if faults:
            raise UsageError(
                f"{table.file}: {'; '.join(faults)}. The file must have the columns {listed(wanted, 20)}, in any "
                "order; rename columns, add them, or take those out that the model doesn't know."
            )

    def _check_cells(self, table: TextTable, column: Mapping[str, Any], cells: list[str | None]) -> None:
        """Raise `UsageError` for values that can't be encoded, and warn of categories that are not known."""
        name, mark = standalone.source_of(column), self._description["file"]["decimal"]
        gaps = [row for row, cell in enumerate(cells) if cell is None]
        if gaps and self._description["missing"] != "fill":
            raise UsageError(
                f"{table.file}: column {name!r} has a missing value: {table.describe(gaps[0], name)} (in {len(gaps)} "
                f"of {len(cells)} rows). The run's data was read without missing values; fill them in, leave those "
                "rows out, or train a model that fills gaps, with --set data.csv.missing=fill."
            )
        if column["kind"] == "number":
            filled = [row for row, cell in enumerate(cells) if cell is not None]
            values = [standalone.column_number(column, str(cells[row]), mark) for row in filled]
            if None in values:
                needed = "dates" if "order" in column else "numbers"
                raise UsageError(
                    f"{table.file}: column {name!r} has text where the model needs {needed}: "
                    f"{table.describe(filled[values.index(None)], name)}. Correct the cell, or leave the row out."
                )
            with np.errstate(over="ignore"):
                scaled = (np.array(values, dtype=np.float64) - column["mean"]) / column["deviation"]
                far = np.flatnonzero(~np.isfinite(scaled.astype(np.float32)))
            if len(far):
                row = filled[int(far[0])]
                raise UsageError(
                    f"{table.file}: column {name!r} has a value that is infinite or too far from those that the "
                    f"model was trained on: {table.describe(row, name)}. Correct the cell, or leave the row out."
                )
        if unknown := standalone.unknown_categories(column, cells):
            warn(f"{table.file}: {unknown}")


def describe(encoder: Encoder, raw: RawTable, answers: EncodedTarget, reading: Reading) -> TablePreprocessing:
    """Describe how a table was encoded.

    Parameters
    ----------
    encoder
        The encoder, fitted to the training part.
    raw
        The table that it was fitted to.
    answers
        The encoded targets.
    reading
        How its file was read.
    """
    columns = encoder.describe(raw)
    used = {column["name"] for column in columns}
    constant = [raw.source(name) for name in [*raw.number_names, *raw.text_names] if name not in used]
    return TablePreprocessing(
        {
            "format": _FORMAT,
            "file": dict(reading.file),
            "missing": reading.missing,
            "columns": columns,
            "left_out": [*dict.fromkeys([*reading.left_out, *constant])],
            "target": {"name": raw.target_name, "task": answers.task, "classes": list(answers.names)},
        }
    )
