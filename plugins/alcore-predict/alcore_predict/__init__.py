"""What the learner of a run predicts for a new file, and exports of a run that do without alcore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    import typer

    from alcore_predict.export import export_run
    from alcore_predict.prediction import Predictions, check_output, predict

__all__ = ["Predictions", "check_output", "export_run", "predict"]
__getattr__ = lazy_names(__name__, {"export": ["export_run"], "prediction": ["Predictions", "check_output", "predict"]})


@alcore.hookimpl
def alcore_commands(app: typer.Typer) -> None:
    """Add ``predict`` and ``export``; what they need is imported when they are called."""
    from alcore_predict.commands import add_commands

    add_commands(app)
