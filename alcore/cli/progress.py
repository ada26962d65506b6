"""What a run shows on the terminal while it goes on: one progress bar over its steps, on stderr."""

from __future__ import annotations

import logging
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
            ncols=shutil.get_terminal_size().columns,  # some terminals say 0, and then it gives 80
        )

    @runhook
    def alcore_phase_start(self, phase: Phase) -> None:
        """Name the phase, at most ten times a second."""
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
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()
        self._shown = time.monotonic()

    @runhook
    def alcore_run_end(self) -> None:
        """Leave the bar as it stands."""
        self._bar.set_description("done", refresh=True)
        self._bar.close()


class WarningHandler(logging.Handler):
    """Writes warnings above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one warning; errors are left out, since the command prints the exception itself."""
        if record.levelno >= logging.ERROR:
            return
        tqdm.write(f"alcore: {record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)
