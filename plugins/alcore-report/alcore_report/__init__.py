"""Whether a strategy beats random choice, what a run shows, and what more labels would bring."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    import typer

    from alcore_report.compare import Comparison, compare_curves
    from alcore_report.curves import Curve, Found, curves_of_runs, curves_of_table, write_table
    from alcore_report.everything import EverythingQuery
    from alcore_report.forecasting import Forecast, RunForecast, forecast, forecast_curve
    from alcore_report.page.folder import report_folder
    from alcore_report.page.report import Page, report_run

_HOME = {
    "Comparison": "compare",
    "Curve": "curves",
    "EverythingQuery": "everything",
    "Forecast": "forecasting",
    "Found": "curves",
    "Page": "page.report",
    "RunForecast": "forecasting",
    "compare_curves": "compare",
    "curves_of_runs": "curves",
    "curves_of_table": "curves",
    "forecast": "forecasting",
    "forecast_curve": "forecasting",
    "report_folder": "page.folder",
    "report_run": "page.report",
    "write_table": "curves",
}
__all__ = [
    "Comparison",
    "Curve",
    "EverythingQuery",
    "Forecast",
    "Found",
    "Page",
    "RunForecast",
    "compare_curves",
    "curves_of_runs",
    "curves_of_table",
    "forecast",
    "forecast_curve",
    "report_folder",
    "report_run",
    "write_table",
]


@alcore.hookimpl
def alcore_commands(app: typer.Typer) -> None:
    """Add the commands; what they need is imported when they are called."""
    from alcore_report.commands import add_commands

    add_commands(app)


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``everything``, which the ceiling of a benchmark asks with."""
    return {"everything": "alcore_report.everything:EverythingQuery"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
