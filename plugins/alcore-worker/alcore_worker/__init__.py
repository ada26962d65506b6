"""Other machines take the labeling work of a run: the label strategy ``worker``, the command ``alcore worker``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    import typer

    from alcore_worker.exchange import Exchange
    from alcore_worker.opening import open_exchange
    from alcore_worker.redis_queue import RedisQueue
    from alcore_worker.strategy import WorkerLabelStrategy
    from alcore_worker.worker import Worker

__all__ = ["Exchange", "RedisQueue", "Worker", "WorkerLabelStrategy", "open_exchange"]
__getattr__ = lazy_names(
    __name__,
    {
        "exchange": ["Exchange"],
        "opening": ["open_exchange"],
        "redis_queue": ["RedisQueue"],
        "strategy": ["WorkerLabelStrategy"],
        "worker": ["Worker"],
    },
)


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
