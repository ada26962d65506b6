"""Files for people and other programs, rewritten from the database: the driver log and metrology records."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from alcore.codec import export_json
from alcore.store import facts
from alcore.store.database import Opened
from alcore.store.files import records_path, write_whole
from alcore.store.labels import refused
from alcore.store.steps import Steps


def write_all(connection: sqlite3.Connection, folder: Path) -> None:
    """Rewrite ``driver_log.json`` and one ``<strategy>.json`` for each metrology strategy."""
    write_whole(folder / "driver_log.json", export_json(driver_log(connection)), durable=False)
    for strategy, records in Steps(Opened(connection)).records_by_strategy().items():
        write_whole(records_path(folder, strategy), export_json(records), durable=False)


def driver_log(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what happened: the run as a whole, its steps, and the answers that were not accepted."""
    return {
        **facts.meta(connection),
        "steps": Steps(Opened(connection)).finished(),
        "refused": refused(connection),
    }
