"""The commands ``alcore predict`` and ``alcore export``.

Importing this module is quick, since the command imports it whenever it is called; what computes is imported when it is
needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alcore.commands import (
    DEFAULT_ROOT,
    AllowCode,
    AsJson,
    LearnerOfRun,
    Root,
    RunName,
    integer,
    prepare,
    results_alone,
    say,
    table,
)
from alcore.store import export_json, find_run

if TYPE_CHECKING:
    from alcore_predict.prediction import Predictions

_SHOWN = 20  # rows


def add_commands(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("predict")(predict)
    app.command("export")(export)


def predict(
    context: typer.Context,
    run: RunName,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A file like that of the run's data, without the target; for other data NPZ."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all predictions: .csv, .json, or .npz (arrays).")
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(metavar="N", parser=integer, help="With the weights that this step trained [the last]."),
    ] = None,
    level: Annotated[
        float, typer.Option(metavar="P", help="Probability of intervals, of a learner that predicts variances.")
    ] = 0.9,
    learner: LearnerOfRun = None,
    allow_code: AllowCode = False,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Predict the target for each row of a new file, with the uncertainty that the learner has.

    The run may be under way. Rows are counted from 0, without the header.
    """
    from alcore_predict.prediction import check_output
    from alcore_predict.prediction import predict as predict_rows

    if output is not None:
        check_output(output)
    prepare(context)
    stored = find_run(root, run)
    with results_alone():
        made = predict_rows(stored, file, step=step, learner=learner, allow_code=allow_code, level=level)
    if made.step is None:
        say("warning: the run has finished no training yet, so these are the predictions of its initial weights.")
    if output is not None:
        made.write(output)
    if as_json:
        typer.echo(export_json(made.as_json()), nl=False)
    elif output is not None:
        typer.echo(f"{output}: {_what(made)}")
    else:
        typer.echo(_text(made))


def export(
    context: typer.Context,
    run: RunName,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write [RUN-export].")] = None,
    learner: LearnerOfRun = None,
    root: Root = DEFAULT_ROOT,
    allow_code: AllowCode = False,
) -> None:
    """Write labels, labeled data, preprocessing and learner of a run, for use without alcore; README.txt explains."""
    from alcore_predict.export import export_run

    prepare(context)
    stored = find_run(root, run)
    target = output or Path(f"{stored.folder.name}-export")
    with results_alone():
        written = export_run(stored, target, learner=learner, allow_code=allow_code)
    for name, what in written:
        typer.echo(f"{target / name}: {what}")


def _what(made: Predictions) -> str:
    when = "initial weights" if made.step is None else f"weights of step {made.step}"
    posterior = f", {made.samples} posterior samples of {made.posterior}" if made.posterior else ""
    return f"{len(made)} predictions of run {made.run}, {when}{posterior}"


def _text(made: Predictions) -> str:
    columns = [name for name in made.columns() if not name.startswith("p(")]
    shown: list[list[object]] = []
    for row in made.rows():
        if len(shown) == _SHOWN:
            break
        shown.append([row[name] for name in columns])
    lines = [table(shown, columns), "", f"{_what(made)}."]
    if made.low is not None:
        lines.append(f"A label is between low and high with a probability of {made.level:.4g}, if variances are right.")
    if len(made) > _SHOWN:
        lines.append(f"{len(made) - _SHOWN} more rows; --output FILE.csv writes all.")
    elif made.probabilities is not None:
        lines.append("--output FILE.csv has the probability of each class.")
    return "\n".join(lines)
