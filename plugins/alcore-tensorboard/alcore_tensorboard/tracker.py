"""Event files for TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from alcore import BaseTracker
from alcore.protocols import EndReason
from alcore.strategies import Tracked

_EVENTS = "events.out.tfevents."

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoardTracker(BaseTracker):
    """Write what each step measured for TensorBoard: over steps, over labels, and over cost.

    Parameters
    ----------
    path
        A folder, in which each run has one by its id; ``tensorboard`` in the run directory if it is not given.

    Notes
    -----
    TensorBoard draws over one axis, a whole number. So a run has three folders, ``by-step``, ``by-labels`` and
    ``by-cost``, with the same curves; costs are rounded to whole units. A step that is run again after an interruption
    takes the place of what was written before.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._given = path
        self._writers: dict[str, SummaryWriter] = {}

    @property
    def path(self) -> Path:
        """The folder of this run."""
        given = self._given
        return self.driver.log_dir / "tensorboard" if given is None else given.expanduser() / self.driver.run_id

    def begin(self, step: int, labels: int, cost: float) -> None:
        """Open an event file for each axis; what earlier ones have of this step and later ones is purged."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self.finish(None, None)
        self._wait_for_a_later_name()
        for axis, place in _axes(step, labels, cost).items():
            folder = self.path / f"by-{axis}"
            self._writers[axis] = SummaryWriter(str(folder), purge_step=place if folder.is_dir() else None)
        experiment = self.driver.log_dir / "experiment.toml"
        if not step and experiment.is_file():
            text = experiment.read_text(encoding="utf-8")
            self._writers["step"].add_text("experiment", "".join(f"    {line}\n" for line in text.splitlines()), 0)

    def _wait_for_a_later_name(self) -> None:
        """Wait until a new event file comes after those that are there: they are read in the order of their names.

        A name begins with the second in which the file was made, so that this takes a second at most.
        """
        names = (file.name.removeprefix(_EVENTS).partition(".")[0] for file in self.path.glob(f"by-*/{_EVENTS}*"))
        newest = max((int(second) for second in names if second.isdigit()), default=0)
        if newest >= (now := time.time()) - 1:
            time.sleep(min(max(newest + 1 - now, 0.0), 1.0))

    def write(self, tracked: Tracked) -> None:
        """Add a point to each curve."""
        for axis, place in _axes(tracked.step, tracked.labels, tracked.cost).items():
            writer = self._writers[axis]
            for name, value in tracked.values.items():
                writer.add_scalar(_tag(name), value, place)
            if axis == "step":
                writer.add_scalar("samples/labels", tracked.labels, place)
                writer.add_scalar("samples/cost", tracked.cost, place)
                for phase, seconds in tracked.seconds.items():
                    writer.add_scalar(f"seconds/{phase}", seconds, place)
            writer.flush()

    def finish(self, reason: EndReason | None, error: BaseException | None) -> None:
        """Close the event files."""
        del reason, error
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


def _axes(step: int, labels: int, cost: float) -> dict[str, int]:
    return {"step": step, "labels": labels, "cost": round(cost)}


def _tag(name: str) -> str:
    """Return the tag of a figure; what stands before its slash is its group in TensorBoard."""
    return name.replace(".", "/", 1) if "." in name else f"samples/{name}"
