"""What the learner of a run predicts for a new file, and exports of a run that do without alcore."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    import typer

    from alcore_predict.export import export_run
    from alcore_predict.prediction import Predictions, check_output, predict

_HOME = {"Predictions": "prediction", "check_output": "prediction", "export_run": "export", "predict": "prediction"}
__all__ = ["Predictions", "check_output", "export_run", "predict"]


@alcore.hookimpl
def alcore_commands(app: typer.Typer) -> None:
    """Add ``predict`` and ``export``; what they need is imported when they are called."""
    from alcore_predict.commands import add_commands

    add_commands(app)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
