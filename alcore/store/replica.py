"""What a rank other than 0 has in place of the run directory: the same tables, in its memory alone."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alcore.store import statements
from alcore.store.database import Database
from alcore.store.run import RunStore


class Mirror(RunStore):
    """The tables of a run as rank 0 has them, kept up to date by committing the same; it writes no file of the run.

    Parameters
    ----------
    image
        The database of rank 0, from `alcore.store.database.Database.image`.

    Attributes
    ----------
    folder : pathlib.Path
        A temporary folder for what strategies on this rank may write; it is removed at the end.
    """

    def __init__(self, image: bytes) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="alcore-rank-"))
        (self.folder / "run.db").write_bytes(image)  # a file, since a strategy or a criterion may want to read it
        self.database = Database(self.folder / "run.db", mirror=True)
        self._exported = math.inf  # never

    @contextlib.contextmanager
    def _aside(self, name: str, state: Mapping[str, Any]) -> Iterator[None]:
        """Write no checkpoint: rank 0 saves it."""
        del name, state
        yield

    def take_labels(self, found: Mapping[str, Any]) -> None:
        """Commit what rank 0 was brought: what its `labels_of` returned."""
        with self.database.transaction() as connection:
            statements.put_labels(connection, found)

    def export(self) -> None:
        """Do nothing: rank 0 does it."""

    def close(self) -> None:
        """Forget everything."""
        self.database.close()
        shutil.rmtree(self.folder, ignore_errors=True)
