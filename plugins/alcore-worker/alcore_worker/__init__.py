"""Other machines take the labeling work of a run: the label strategy ``worker``, the command ``alcore worker``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    import typer

    from alcore_worker.exchange import Exchange
    from alcore_worker.opening import open_exchange
    from alcore_worker.redis_queue import RedisQueue
    from alcore_worker.strategy import WorkerLabelStrategy
    from alcore_worker.worker import Worker

_HOME = {
    "Exchange": "exchange",
    "RedisQueue": "redis_queue",
    "Worker": "worker",
    "WorkerLabelStrategy": "strategy",
    "open_exchange": "opening",
}
__all__ = ["Exchange", "RedisQueue", "Worker", "WorkerLabelStrategy", "open_exchange"]


@alcore.hookimpl
def alcore_label_strategies() -> dict[str, Any]:
    """Offer ``worker``."""
    return {"worker": "alcore_worker.strategy:WorkerLabelStrategy"}


@alcore.hookimpl
def alcore_queues() -> dict[str, Any]:
    """Offer ``redis``."""
    return {"redis": "alcore_worker.redis_queue:RedisQueue"}


@alcore.hookimpl
def alcore_commands(app: typer.Typer) -> None:
    """Add the command; what it needs is imported when it is called."""
    from alcore_worker.commands import add_commands

    add_commands(app)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
