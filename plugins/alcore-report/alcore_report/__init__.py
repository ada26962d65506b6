"""Whether a strategy beats random choice, what a run shows, and what more labels would bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    import typer

    from alcore_report.compare import Comparison, compare_curves
    from alcore_report.curves import Curve, Found, curves_of_runs, curves_of_table, write_table
    from alcore_report.everything import EverythingQuery
    from alcore_report.forecasting import Forecast, RunForecast, forecast, forecast_curve
    from alcore_report.page.folder import report_folder
    from alcore_report.page.report import Page, report_run

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
__getattr__ = lazy_names(
    __name__,
    {
        "compare": ["Comparison", "compare_curves"],
        "curves": ["Curve", "Found", "curves_of_runs", "curves_of_table", "write_table"],
        "everything": ["EverythingQuery"],
        "forecasting": ["Forecast", "RunForecast", "forecast", "forecast_curve"],
        "page.folder": ["report_folder"],
        "page.report": ["Page", "report_run"],
    },
)


@alcore.hookimpl
def alcore_commands(app: typer.Typer) -> None:
    """Add the commands; what they need is imported when they are called."""
    from alcore_report.commands import add_commands

    add_commands(app)


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``everything``, which the ceiling of a benchmark asks with."""
    return {"everything": "alcore_report.everything:EverythingQuery"}
