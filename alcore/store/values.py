"""Large values of labels: one immutable safetensors file each, which is complete before the database names it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from alcore.codec import dumps, loads
from alcore.errors import UsageError
from alcore.store.files import cant_write, fsync_path, remove_file

LARGE = 2**16
"""Values whose text has more characters than this lie beside the database."""
_MOST_JSON = 2**26
"""A value with more JSON than this stays in the database: a safetensors file has no room for it."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class LabelValues:
    """The folder ``labels`` of a run directory.

    Parameters
    ----------
    folder
        The folder; it is made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, text: str) -> str | None:
        """Write a value to a file that is named after its content, if it is large.

        Parameters
        ----------
        text
            The value, as `alcore.codec.dumps` gives it.

        Returns
        -------
        str or None
            The SHA-256 of the file, which is on the disk; None for a value that belongs in the database.

        Raises
        ------
        StorageError
            If the disk is full or fails.
        """
        if len(text) <= LARGE:
            return None
        from alcore.codec import encode
        from alcore.store import checkpoints

        value = loads(text)
        if len(str(encode(value, tensors={}))) > _MOST_JSON:
            return None
        try:
            self._folder.mkdir(exist_ok=True)  # SQLite flushes the folder above it before it commits
            with checkpoints.staged(self._folder, "value", {"value": value}) as staged:
                staged.path.rename(self.path(staged.sha256))
            fsync_path(self._folder)
        except OSError as error:
            raise cant_write(self._folder, error) from error
        return staged.sha256

    def read(self, sha256: str) -> str:
        """Return the text of the value in a file.

        Raises
        ------
        UsageError
            If it is missing or damaged.
        """
        from alcore.store import checkpoints

        return dumps(checkpoints.load(self.path(sha256), sha256, what="label file")["value"])

    def path(self, sha256: str) -> Path:
        """Return the file of a value; `UsageError` if the database names something else."""
        if not _SHA256.fullmatch(sha256):
            raise UsageError(
                f"{self._folder.parent / 'run.db'} names a file of a label {sha256!r}, which must be a SHA-256."
            )
        return self._folder / f"{sha256}.safetensors"

    def remove_unnamed(self, named: Iterable[str]) -> None:
        """Remove what a process that was killed left; what the database names stays."""
        kept = {self.path(sha256) for sha256 in named}
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                if path not in kept:
                    remove_file(path)
