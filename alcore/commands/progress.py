"""What a run shows on the terminal while it goes on: one progress bar over its steps, on stderr."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from alcore.hookspecs import runhook
from alcore.protocols import Phase
from alcore.store.reading import figures

if TYPE_CHECKING:
    from alcore.driver import Driver

_FORMATS = [  # the narrower the terminal, the less there is room for beside the numbers
    (76, None),
    (56, "{desc}{n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"),
    (0, "{desc}{n_fmt}/{total_fmt}{postfix}"),
]
"""From how many columns tqdm's format is which; None is its own, with a bar."""


class Progress:
    """An observer that draws a bar with phase, labels and metric; no bar where stderr is not a terminal.

    Attributes
    ----------
    headline : str
        Printed above the bar when the run starts.
    """

    def __init__(self) -> None:
        self.headline = ""
        self._bar: Any = None
        self._shown = 0.0
        self._labels = 0

    @runhook
    def alcore_run_start(self, driver: Driver) -> None:
        """Show the bar."""
        if self.headline:
            print(self.headline, file=sys.stderr)
        self._bar = tqdm(
            total=driver.config.max_active_learning_steps,
            unit="step",
            file=sys.stderr,
            disable=None,
            **_form(),
        )

    @runhook
    def alcore_phase_start(self, phase: Phase) -> None:
        """Name the phase, at most ten times a second."""
        self._fit()
        self._bar.set_description(f"{phase:<9}", refresh=time.monotonic() - self._shown > 0.1)

    @runhook
    def alcore_step_end(self, record: Mapping[str, Any]) -> None:
        """Move on by one step."""
        self._labels += record["labeled"]
        shown: dict[str, Any] = {"labels": self._labels}
        for entries in record["metrics"].values():
            values = figures(entries[-1]) if entries else {}
            name = "f1" if "f1" in values else next(iter(values), None)
            if name is not None:
                shown[name] = f"{values[name]:.3f}"
        self._fit()
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()
        self._shown = time.monotonic()

    @runhook
    def alcore_run_end(self) -> None:
        """Leave the bar as it stands."""
        self._fit()
        self._bar.set_description("done", refresh=True)
        self._bar.close()

    def _fit(self) -> None:
        """Fit the bar to the terminal as wide as it is now."""
        for name, value in _form().items():
            setattr(self._bar, name, value)


def _form() -> dict[str, Any]:
    """Return the width of the terminal, and what tqdm shows in it."""
    columns = _columns()
    return {"ncols": columns, "bar_format": next(form for least, form in _FORMATS if columns >= least)}


def _columns() -> int:
    """Return the width of the terminal that stderr is."""
    with contextlib.suppress(OSError, ValueError):
        if "COLUMNS" not in os.environ and (columns := os.get_terminal_size(sys.stderr.fileno()).columns):
            return columns
    return shutil.get_terminal_size().columns  # 80 where nobody knows


class WarningHandler(logging.Handler):
    """Writes warnings above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one warning; errors are left out, since the command prints the exception itself."""
        if record.levelno >= logging.ERROR:
            return
        tqdm.write(f"alcore: {record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)
