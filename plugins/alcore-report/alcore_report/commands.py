"""The commands ``alcore benchmark``, ``alcore compare``, ``alcore forecast`` and ``alcore report``.

Importing this module is quick, since the command imports it whenever it is called; what computes is imported when it is
needed.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alcore.commands import (
    DEFAULT_ROOT,
    INTERRUPTED,
    AllowCode,
    AllowCodeOfFile,
    DriverTable,
    ExperimentFile,
    Root,
    RunName,
    Target,
    part_option,
    say,
    takes_driver_flags,
)
from alcore.errors import UsageError

if TYPE_CHECKING:
    from alcore.store import Run
    from alcore_report.compare import Comparison
    from alcore_report.curves import Found

_NAMES = list[str] | None

Metric = Annotated[
    str | None, typer.Option(metavar="NAME", help="What to compare, e.g. f1 or f1_metrology.f1.", show_default=False)
]
Lower = Annotated[
    bool | None,
    typer.Option("--lower-is-better/--higher-is-better", help="By the name of the metric if not given."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("benchmark")(benchmark)
    app.command("compare")(compare)
    app.command("forecast")(forecast)
    app.command("report")(report)


@takes_driver_flags(
    steps=None,
    batch_size=None,
    budget="What all labels of a run may cost; one costs 1.",
    keep="Checkpoints to keep [last=1].",
    device=None,
    dtype=None,
    threads="CPU threads of each run [1].",
    queue=None,
    weights="Begin every run with these weights, of a safetensors file.",
)
def benchmark(
    *,
    experiment: ExperimentFile = None,
    query: Annotated[
        _NAMES,
        part_option(
            "query",
            "An arm: a query strategy, or several that share a step, A+B; repeat it for each. "
            "If not given: the file's, as one arm.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each arm, with seeds from --seed on.")] = 10,
    ceiling: Annotated[bool, typer.Option("--ceiling", help="Add runs that are trained on all labels.")] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Add the arm random, to compare the others with.")
    ] = True,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Runs at a time [as many as cores].", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the folder in DIR [that of file or data].")
    ] = None,
    buy: Annotated[bool, typer.Option("--buy", help="Buy labels that cost something, in every run.")] = False,
    metric: Metric = None,
    lower: Lower = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the curves are drawn [comparison.png in the folder].")
    ] = None,
    start: Annotated[str | None, part_option("query", "Query strategy that begins, if nothing is labeled.")] = None,
    label: Annotated[str | None, part_option("label", "Label strategy [dummy].")] = None,
    metrology: Annotated[_NAMES, part_option("metrology", "Metrology strategy [f1]; may repeat.")] = None,
    loop: Annotated[str | None, part_option("loop", "Training loop [default].")] = None,
    data: Annotated[str | None, part_option("data", "Data [moons], by name or as a file.")] = None,
    learner: Annotated[str | None, part_option("learner", "Learner [mlp], or your own package.module:name.")] = None,
    stop: Annotated[_NAMES, part_option("stop", "Stop criterion; may repeat.")] = None,
    observe: Annotated[_NAMES, part_option("observe", "Observer; may repeat.")] = None,
    target: Target = None,
    assign: Annotated[
        _NAMES,
        typer.Option(
            "--set",
            metavar="KIND.NAME.PARAMETER=VALUE",
            help="Any parameter, e.g. query.uq.max_samples=5; may repeat.",
        ),
    ] = None,
    driver: DriverTable,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the first run of each arm.")] = 0,
    root: Annotated[Path, typer.Option(metavar="DIR", help="Where the folder of the benchmark is.")] = DEFAULT_ROOT,
    allow_code: AllowCodeOfFile = False,
    as_json: AsJson = False,
) -> None:
    """Run each query strategy with several seeds, and say whether it beats random choice.

    Runs of one seed share split, initial labels, initial weights and the order of training, whatever the arm. What is
    done is not run again: the same command goes on after an interruption, and with more seeds or arms it extends.
    """
    from alcore.plugins import installed
    from alcore_report.arms import BenchmarkRequest, make_plan
    from alcore_report.benchmark import Benchmark, bought_labels, cores
    from alcore_report.cells import CellsInterrupted, run_cells, tell_above_bar
    from alcore_report.compare import compare_curves
    from alcore_report.plots import check_format

    if plot is not None:
        check_format(plot)
    singles = {"start": start, "label": label, "loop": loop, "data": data, "learner": learner}
    request = BenchmarkRequest(
        experiment,
        query or [],
        {
            **{kind: [value] for kind, value in singles.items() if value is not None},
            **{"metrology": metrology or [], "stop": stop or [], "observe": observe or []},
        },
        assign or [],
        driver,
        baseline,
        ceiling,
        allow_code,
        target,
    )
    with _warnings_as_messages():
        plan = make_plan(request, installed())
    found_name = _folder_name(name or plan.data)
    this = Benchmark(root / found_name, plan, range(seed, seed + seeds))
    this.check()
    jobs = cores() if jobs is None else jobs
    if not plan.free:
        price = bought_labels(this, root, jobs)
        if not buy:
            raise UsageError(
                f"label strategy {plan.label!r} may cost something for each label, and every run would buy its own: "
                f"{price}. Give --buy if that is what you want, or compare on a pool that knows its answers, with "
                "--label dummy."
            )
        tell_above_bar(f"buying labels: {price}.")
    else:
        tell_above_bar(f"{this.size()}; {jobs} at a time in {this.folder}")
    for note in plan.notes:
        tell_above_bar(f"note: {note}")
    this.write()
    cells = this.cells()
    try:
        run_cells(cells, jobs, tell_above_bar)
    except CellsInterrupted:
        tell_above_bar(f"interrupted; what is done is in {this.folder}. The same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    collected = this.found(cells)
    comparison = compare_curves(collected, metric=metric, lower=lower)
    _note_looks(collected, comparison)
    picture = this.folder / "comparison.png" if plot is None else plot
    _print(comparison, as_json)
    _draw(comparison, picture)
    if not as_json:
        again = f"alcore compare {shlex.quote(str(this.folder))} --metric NAME"
        typer.echo(f"\nPlot: {picture}\nNext: {again}, or more seeds with --seeds")
    if any(cell.failure is not None for cell in cells):
        raise typer.Exit(1)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs, a folder of runs, or CSV files with arm,seed,labels,metric."),
    ],
    metric: Metric = None,
    lower: Lower = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="ARM", help="The arm to compare with [random].", show_default=False)
    ] = None,
    ceiling_arm: Annotated[
        str | None,
        typer.Option(metavar="ARM", help="The arm that was trained on all labels [ceiling].", show_default=False),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the curves of all runs to a CSV file.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the curves: a .png or .svg file.")] = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Compare arms: learning curves, labels to close the gap, and whether one beats the baseline.

    A run belongs to the arm in its name, ARM-SEED, else to that of its query strategies.
    """
    from alcore_report.compare import compare_curves
    from alcore_report.curves import read, write_table
    from alcore_report.plots import check_format

    if plot is not None:
        check_format(plot)
    collected = read(runs, root)
    comparison = compare_curves(collected, metric=metric, lower=lower, baseline=baseline, ceiling=ceiling_arm)
    _note_looks(collected, comparison)
    _print(comparison, as_json)
    if table is not None:
        with _writing(table):
            write_table(comparison.curves, table)
    if plot is not None:
        _draw(comparison, plot)


def _note_looks(collected: Found, comparison: Comparison) -> None:
    """Note in benchmarks which seeds verdicts are on; one on more seeds takes earlier ones into account."""
    from alcore_report.curves import note_looks

    looked = {arm: seeds for axis in comparison.axes for arm, seeds in axis.tested().items()}
    try:
        note_looks(collected.benchmarks, looked)
    except OSError as error:
        say(f"note: which seeds this verdict is on could not be noted: {error}")


def forecast(
    run: RunName,
    labels: Annotated[int, typer.Option(metavar="N", min=1, help="How many more labels.")] = 100,
    metric: Metric = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the curve: a .png or .svg file.")] = None,
    root: Root = DEFAULT_ROOT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the forecast as JSON.")] = False,
) -> None:
    """Say what more labels would bring: the learning curve of a run, extended with an interval."""
    from alcore.store import find_run
    from alcore_report.curves import curve_of_run
    from alcore_report.forecasting import forecast_curve
    from alcore_report.plots import check_format, draw_forecast
    from alcore_report.text import forecast_as_text

    if plot is not None:
        check_format(plot)
    stored = find_run(root, run, verify=False)
    try:
        curve = curve_of_run(stored.folder)
    except UsageError as error:
        raise UsageError(f"nothing can be forecast for {run}: {str(error).rstrip('.')}.") from error
    expected = forecast_curve(curve, labels, metric)
    note = _no_more(stored)
    ahead = expected.ahead
    if as_json:
        names = ("labels", "expected", "low", "high", "change", "change_low", "change_high")
        points = zip(*(getattr(ahead, name).tolist() for name in names), strict=True)
        plain = {
            "metric": expected.metric,
            "measured": [{"labels": n, "value": y} for n, y in zip(expected.labels, expected.values, strict=True)],
            "forecast": [dict(zip(names, point, strict=True)) for point in points],
            "verdict": expected.verdict,
            "note": note,
        }
        typer.echo(json.dumps(plain, indent=1))
    else:
        typer.echo(forecast_as_text(expected) + (f"\n{note}" if note else ""))
    if plot is not None:
        with _writing(plot):
            draw_forecast(expected, plot)
        if not as_json:
            typer.echo(f"\nPlot: {plot}")


def _no_more(run: Run) -> str:
    """Return what a forecast must say of a run whose last step asked for no label; else nothing."""
    steps = run.steps()
    if not steps or steps[-1]["requested"]:
        return ""
    return "Note: the last step of this run asked for no label, so it may have none left to ask for."


def report(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN|FOLDER", help="Run id, the start of one, a run directory, or a folder of runs."),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page, a .html file [RUN-report.html].", show_default=False)
    ] = None,
    png: Annotated[bool, typer.Option("--png/--no-png", help="Write the main figures as a picture beside it.")] = True,
    root: Root = DEFAULT_ROOT,
    allow_code: AllowCode = False,
) -> None:
    """Write a page about a run or a folder of runs: curves, picks, a map of the pool, and advice.

    One HTML file that needs no network and no scripts. A run may be under way: it is only read.
    """
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {output}: the page is an HTML file; name it {output.stem or 'report'}.html.")
    from alcore.store import find_run, write_whole
    from alcore_report.curves import folder_of_runs

    if output is not None and not output.parent.is_dir():
        raise UsageError(f"{output} can't be written: there is no folder {output.parent}; make it first.")
    with _warnings_as_messages():
        if (folder := folder_of_runs(Path(run), root)) is not None:
            from alcore_report.page.folder import report_folder

            page, name = report_folder(folder), folder.resolve().name
        else:
            from alcore_report.page.report import report_run

            stored = find_run(root, run)
            page, name = report_run(stored, allow_code=allow_code), stored.folder.resolve().name
    target = output or Path(f"{name}-report.html")
    with _writing(target):
        write_whole(target, page.html, durable=False)
        if png:
            target.with_suffix(".png").write_bytes(page.png)
    for card in page.cards:
        typer.echo(f"{card.title}. {card.seen}")
    for note in page.notes:
        typer.echo(note)
    typer.echo(f"Page: {target}" + (f"\nPicture: {target.with_suffix('.png')}" if png else ""))


def _print(comparison: Comparison, as_json: bool) -> None:
    if as_json:
        from alcore_report.compare import as_json as to_plain_data

        typer.echo(json.dumps(to_plain_data(comparison), indent=1))
    else:
        from alcore_report.text import as_text

        typer.echo(as_text(comparison))


def _draw(comparison: Comparison, path: Path) -> None:
    from alcore_report.plots import draw

    with _writing(path):
        draw(comparison, path)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say plainly that a file can't be written."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror or error}.") from error


@contextlib.contextmanager
def _warnings_as_messages() -> Iterator[None]:
    """Show warnings as messages of the command, each once."""
    shown = set()

    def show(message: Warning | str, *_where: Any) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _folder_name(name: str) -> str:
    """Return a name that is one part of a path, or raise `UsageError`."""
    if not name or name != Path(name).name or name.startswith((".", "-")):
        raise UsageError(f"--name {name!r} is not the name of a folder; use letters, digits, dots and dashes.")
    return name
