"""The store without one of its flushes, for the test of their order to find."""

from __future__ import annotations

import os
import sqlite3
import sys
from typing import Any

MUTANT = "ALCORE_FAULT_MUTANT"
"""The environment variable that says which flush is left out."""


def leave_out(mutant: str | None) -> None:
    """Leave out one flush: ``FILE:FIRST-LAST`` names the lines of its call, ``synchronous=X`` those of SQLite."""
    if mutant is None:
        return
    if mutant.startswith("synchronous="):
        connect = sqlite3.connect

        class Careless(sqlite3.Connection):
            def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
                return super().execute(statement.replace("synchronous = EXTRA", mutant), *parameters)

        sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Careless, **kwargs)  # type: ignore[assignment]
        return
    name, _, lines = mutant.partition(":")
    first, last = map(int, lines.split("-"))
    real = os.fsync

    def fsync(descriptor: Any) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.endswith(f"alcore/store/{name}") and first <= frame.f_lineno <= last:
                return
            frame = frame.f_back
        real(descriptor)

    os.fsync = fsync
