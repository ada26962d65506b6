"""Look at runs while they go on: the commands ``alcore dash`` and ``alcore watch``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    import typer

    from alcore_web.app import create_app
    from alcore_web.guard import Guard
    from alcore_web.runs import Detail, Row, Runs

__all__ = ["Detail", "Guard", "Row", "Runs", "create_app"]
__getattr__ = lazy_names(__name__, {"app": ["create_app"], "guard": ["Guard"], "runs": ["Detail", "Row", "Runs"]})


@alcore.hookimpl
def alcore_commands(app: typer.Typer) -> None:
    """Add ``dash`` and ``watch``; what they need is imported when they are called."""
    from alcore_web.commands import add_commands

    add_commands(app)
