"""Opens the exchange at a place."""

from __future__ import annotations

from alcore_worker.exchange import Exchange


def open_exchange(where: str) -> Exchange:
    """Return the exchange at a place.

    Parameters
    ----------
    where
        A folder that exists, or the address of a Redis server: ``redis://HOST``, ``rediss://HOST``, ``unix:///PATH``.

    Raises
    ------
    UsageError
        If it is not there, or of another format.
    """
    if "://" in where:
        from alcore_worker.redis_streams import RedisExchange

        return RedisExchange(where)
    from alcore_worker.folder import FolderExchange

    return FolderExchange(where)
