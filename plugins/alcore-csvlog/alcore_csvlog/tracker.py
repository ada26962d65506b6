"""A CSV file with one row for each step."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from alcore import BaseTracker, UsageError
from alcore.store import write_whole
from alcore.strategies import Tracked

_FIRST = ["step", "labels", "cost"]


class CsvTracker(BaseTracker):
    """Write each step to a CSV file: step, labels, cost, and everything that was measured.

    Parameters
    ----------
    path
        The file; ``metrics.csv`` in the run directory if it is not given. ``{run}`` in it stands for the run's id.

    Notes
    -----
    A step adds a row. Columns are added as they come, which rewrites the file; a cell is empty where a step did not
    measure what its column names, or measured NaN. Times are not in it: the file is the same in every run of the
    experiment, and in one that was interrupted and resumed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._given = path
        self._rows: list[dict[str, str]] = []
        self._columns = list(_FIRST)

    @property
    def path(self) -> Path:
        """The file of this run."""
        if self._given is None:
            return self.driver.log_dir / "metrics.csv"
        return Path(str(self._given).replace("{run}", self.driver.run_id)).expanduser()

    def begin(self, step: int, labels: int, cost: float) -> None:
        """Keep what the file has of earlier steps."""
        del labels, cost
        self._rows, self._columns = [], list(_FIRST)
        if self.path.is_file():
            text = self.path.read_text(encoding="utf-8")
            lines = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))  # a killed process may leave half a line
            columns = list(lines.fieldnames or [])
            if text and columns[: len(_FIRST)] != _FIRST:
                raise UsageError(
                    f"{self.path} was not written by this tracker: its first columns are not {', '.join(_FIRST)}. Name "
                    "another file with --set observe.csv.path=FILE."
                )
            self._rows = [row for row in lines if int(row["step"]) < step]
            self._columns += [
                name for name in columns if any(row.get(name) for row in self._rows) and name not in _FIRST
            ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rewrite()

    def write(self, tracked: Tracked) -> None:
        """Add a row."""
        row = {"step": str(tracked.step), "labels": str(tracked.labels), "cost": _text(tracked.cost)}
        row |= {name: _text(value) for name, value in tracked.values.items()}
        new = [name for name in row if name not in self._columns]
        self._columns += new
        if new:
            self._rows.append(row)
            self._rewrite()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._lines([row]))
        self._rows.append(row)

    def _rewrite(self) -> None:
        header = dict(zip(self._columns, self._columns, strict=True))
        write_whole(self.path, self._lines([header, *self._rows]), durable=False)

    def _lines(self, rows: list[dict[str, str]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n", extrasaction="ignore").writerows(rows)
        return text.getvalue()


def _text(number: float) -> str:
    """Return a number so that reading it gives the same one; nothing for NaN."""
    return "" if math.isnan(number) else str(number)
