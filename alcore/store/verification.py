"""Whether a run database is as its writers left it: what is damaged is named, with the newest step that is sound."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alcore.errors import UsageError
from alcore.store.digests import AFTERWARDS, Damage, any_text, damage, integrity
from alcore.store.schema import damage_of_schema


def check_sound(connection: sqlite3.Connection, path: Path, *, until: int | None = None) -> None:
    """Refuse a database that is damaged, or in which somebody has planted something.

    Parameters
    ----------
    connection
        To the database, outside a transaction.
    path
        Its file, for the message.
    until
        The last step that matters; all of it where it is None.

    Raises
    ------
    UsageError
        Naming what is damaged, and the newest step that is sound.
    """
    last, text_factory = -1, connection.text_factory
    connection.text_factory = any_text  # what isn't UTF-8 is damage, too
    connection.execute("BEGIN")  # all of it at one moment
    try:
        damages = _damage(connection)
        last = _last_step(connection) if damages else -1
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter in the text of SQLite's own message
        wrong = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR
        if isinstance(error, sqlite3.OperationalError) and not wrong:  # the disk, or a lock
            raise
        damages = [Damage(f"the file: {error}", -1)]
    finally:
        connection.text_factory = text_factory
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    concerned = [damaged for damaged in damages if until is None or damaged.step <= until]
    if concerned:
        raise UsageError(_message(path, concerned, min([last, *(damaged.step - 1 for damaged in damages)])))


def _damage(connection: sqlite3.Connection) -> list[Damage]:
    if damages := damage_of_schema(connection):
        return damages
    damages = damage(connection)
    return damages + [Damage(f"the file: {what}", AFTERWARDS) for what in integrity(connection)]


def _last_step(connection: sqlite3.Connection) -> int:
    try:
        (last,) = connection.execute("SELECT MAX(step) FROM steps").fetchone()
    except sqlite3.DatabaseError:
        return -1
    return last if type(last) is int else -1


def _message(path: Path, damages: list[Damage], sound: int) -> str:
    run = path.parent.name
    more = f", and {len(damages) - 1} more places" if len(damages) > 1 else ""
    remedy = (
        f"Its steps up to {sound} are sound: alcore fork {run} --step {sound} makes a run of them."
        if sound >= 0
        else "No step of it is sure to be sound: restore the run directory from a copy of it."
    )
    what = damages[0].what.encode(errors="backslashreplace").decode().replace("\n", " ")
    return f"{path} is damaged: {what}{more}. Nothing in it was changed now. {remedy}"
