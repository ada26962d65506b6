"""Look at runs while they go on: the commands ``alcore dash`` and ``alcore watch``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    import typer

    from alcore_web.app import create_app
    from alcore_web.guard import Guard
    from alcore_web.runs import Detail, Row, Runs

_HOME = {"Detail": "runs", "Guard": "guard", "Row": "runs", "Runs": "runs", "create_app": "app"}
__all__ = ["Detail", "Guard", "Row", "Runs", "create_app"]


@alcore.hookimpl
def alcore_commands(app: typer.Typer) -> None:
    """Add ``dash`` and ``watch``; what they need is imported when they are called."""
    from alcore_web.commands import add_commands

    add_commands(app)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
