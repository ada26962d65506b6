"""What a rank other than 0 has in place of the run directory: the same tables, in a temporary folder of its own."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alcore.store.database import Database
from alcore.store.inbox import Inbox
from alcore.store.run import RunStore


class Replica(RunStore):
    """The tables of a run as rank 0 has them, kept up to date by committing the same; it writes no file of the run.

    Parameters
    ----------
    image
        The database of rank 0, from `Transfer.image`.

    Attributes
    ----------
    folder : pathlib.Path
        A temporary folder for what strategies on this rank may write; removed by `close`.
    """

    def __init__(self, image: bytes) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="alcore-rank-"))
        self.inbox = Inbox(self.folder / "inbox")
        (self.folder / "run.db").write_bytes(image)  # a file, since a strategy or a criterion may want to read it
        self._use(Database(self.folder / "run.db", replica=True))
        self._export_due = math.inf  # never

    def apply_label_changes(self, changes: Mapping[str, Any]) -> None:
        """Commit what `Transfer.label_changes` returned on rank 0."""
        self.transfer.apply_label_changes(changes)
        self.costs.changed(changes["step"])

    def export(self) -> None:
        """Do nothing: rank 0 writes the exports."""

    def note_position(self, step: int, phase: str, epoch: int = 0) -> None:
        """Do nothing: rank 0 notes it."""

    def close(self) -> None:
        """Close the database and remove the temporary folder."""
        self._database.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def _staged(self, name: str, state: Mapping[str, Any]) -> Iterator[None]:
        """Write no checkpoint: rank 0 writes it."""
        del name, state
        yield

    def _remove_checkpoints(self, files: Sequence[str]) -> None:
        """Remove nothing: there are no files."""
