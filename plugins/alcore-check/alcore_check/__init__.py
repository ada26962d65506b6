"""Try an experiment before a campaign: one training, one query, one label, one checkpoint, and what all will take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    import typer

    from alcore_check.checking import Check, Forecast, check_experiment

__all__ = ["Check", "Forecast", "check_experiment"]
__getattr__ = lazy_names(__name__, {"checking": ["Check", "Forecast", "check_experiment"]})


@alcore.hookimpl
def alcore_commands(app: typer.Typer) -> None:
    """Add ``check``; what it needs is imported when it is called."""
    from alcore_check.command import check

    app.command("check")(check)
