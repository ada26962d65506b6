"""``alcore runs``: list runs with their state and last metrics."""

from __future__ import annotations

import shlex
import shutil
from typing import Annotated, Any

import typer

from alcore.codec import export_json
from alcore.commands.messages import say
from alcore.commands.options import DEFAULT_ROOT, AsJson, Root
from alcore.commands.tables import table
from alcore.store.creation import remove_unfinished_runs, unfinished_runs
from alcore.store.reading import parts_of, settings_of, summaries


def runs(
    root: Root = DEFAULT_ROOT,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what processes left that were killed while they made a run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the runs of a folder, and of the folders in it, such as those of benchmarks, oldest first."""
    if clean:
        say(f"removed {_count(len(remove_unfinished_runs(root)))} from {root}.")
    if left := unfinished_runs(root):
        where = "" if root == DEFAULT_ROOT else f" --root {shlex.quote(str(root))}"
        say(f"{root} has {_count(len(left))} of processes that were killed; alcore runs{where} --clean removes them.")
    table = [{**summary._asdict(), **parts_of(settings_of(root / summary.run_id))} for summary in summaries(root)]
    if as_json:
        typer.echo(export_json(table), nl=False)
        return
    if not table:
        typer.echo(f"No runs in {root}. Make one with: alcore run --query uq --metrology f1")
        return
    typer.echo(_text(table, shutil.get_terminal_size((80, 24)).columns))


_HEADER = ["run", "status", "steps", "labels", "data", "query", "learner", "seed", "last metric"]
_MORE = ["on", "started", "why it ended"]  # for as many as there is room


def _text(runs: list[dict[str, Any]], width: int) -> str:
    rows = [
        [
            run["run_id"],
            run["status"],
            run["steps"],
            run["labels"],
            _short(run["data"], 10),
            _short(run["query"], 12),
            _short(run["learner"], 10),
            run["seed"],
            _main_metric(run["metrics"]),
        ]
        for run in runs
    ]
    more = [[run["on"], run["started"].replace("+00:00", "Z"), run["reason"] or ""] for run in runs]
    text = table(rows, _HEADER)
    for count in range(1, len(_MORE) + 1):
        both = [[*row, *others[:count]] for row, others in zip(rows, more, strict=True)]
        wider = table(both, [*_HEADER, *_MORE[:count]])
        if max(map(len, wider.splitlines())) > width:
            break
        text = wider
    failed = [f"{run['run_id']}: {run['reason']}" for run in runs if run["status"] in ("failed", "unreadable")]
    return "\n".join([text, *(["", *failed] if failed else [])])


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _main_metric(metrics: dict[str, float]) -> str:
    """Return the metric by which runs are compared most often, among those of a record."""
    name = next((metric for metric in _FIRST if metric in metrics), next(iter(metrics), None))
    return "" if name is None else f"{name}={metrics[name]:.3f}"


_FIRST = ("f1", "accuracy", "r2", "rmse", "relative_l2")


def _count(number: int) -> str:
    return f"{number} unfinished run{'' if number == 1 else 's'}"
