"""Files for people and other programs, rewritten from the database: the driver log and metrology records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alcore.codec import export_json, loads
from alcore.store.database import Database
from alcore.store.files import write_whole
from alcore.store.history import META, RECORDS, records_by_strategy


def write_all(database: Database, folder: Path) -> None:
    """Rewrite ``driver_log.json`` and one ``<strategy>.json`` for each metrology strategy."""
    write_whole(folder / "driver_log.json", export_json(driver_log(database)), durable=False)
    for strategy, records in metrology_records(database).items():
        write_whole(folder / f"{strategy}.json", export_json(records), durable=False)


def driver_log(database: Database) -> dict[str, Any]:
    """Return what happened: the run as a whole, its steps, and answers that were refused."""
    meta = {row["key"]: row["value"] for row in database.read(META)}
    steps = [
        {**loads(row["record"]), "seconds": json.loads(row["seconds"])}
        for row in database.read("SELECT record, seconds FROM steps ORDER BY step")
    ]
    refused = [dict(row) for row in database.read("SELECT request, step, item, reason FROM refused ORDER BY rowid")]
    return {**{key: loads(value) for key, value in meta.items()}, "steps": steps, "refused": refused}


def metrology_records(database: Database) -> dict[str, list[Any]]:
    """Return the records of each metrology strategy, in the order of steps."""
    return records_by_strategy(database.read(RECORDS))
