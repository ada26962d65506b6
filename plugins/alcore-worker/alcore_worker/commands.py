"""The command ``alcore worker``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alcore.errors import UsageError, reason_of

if TYPE_CHECKING:
    from alcore_worker.worker import Worker


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("worker")(worker)


def worker(
    *,
    where: Annotated[
        str, typer.Argument(metavar="WHERE", help="The folder that the run and its workers share, or redis://HOST.")
    ],
    label: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Label strategy that does the work: function, command, or your own package.module:name.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter, e.g. label.function.function=solver:solve."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when nothing waits.")] = False,
    idle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="End after so many seconds without work.", show_default=False),
    ] = None,
    beat: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.05, help="Say so often that this worker lives.")
    ] = 2.0,
    files: Annotated[
        Path,
        typer.Option("--dir", metavar="DIR", help="For files of the label strategy, such as the folders of programs."),
    ] = Path("alcore_worker_files"),
) -> None:
    """Do the labeling work of runs on other machines: of those with `--label worker` and the same WHERE."""
    from alcore_worker.opening import open_exchange
    from alcore_worker.worker import Worker

    exchange = open_exchange(where)
    name, strategy = _strategy(label, settings or [])
    logger = logging.getLogger("alcore.worker")
    serving = Worker(
        exchange, strategy, name, once=once, idle=idle, beat=beat, home=files, logger=logger, handles_signals=True
    )
    logger.addHandler(to_stderr := logging.StreamHandler())
    logger.setLevel(logging.INFO)
    ends = "when nothing waits" if once else "at Ctrl-C" if idle is None else f"after {idle:g} s without work"
    logger.info("worker %s waits for work in %s; it ends %s", serving.id, exchange.where, ends)
    try:
        serving.run()
    except KeyboardInterrupt:
        print(f"alcore: interrupted. {_what_became_of(serving)}", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        failed = f", {serving.failures} failed" if serving.failures else ""
        logger.info("%d label%s%s", serving.answers, "" if serving.answers == 1 else "s", failed)
        logger.removeHandler(to_stderr)


def _what_became_of(serving: Worker) -> str:
    """Say what became of the requests of a worker that was interrupted."""
    if not serving.has_come:
        return "Nothing was claimed."
    number = f"{serving.unwritten} request{'' if serving.unwritten == 1 else 's'}"
    if serving.has_left:
        unwritten = f", and {number} whose answer could not be written" if serving.unwritten else ""
        return f"What had no answer was given back{unwritten}."
    unwritten = f"; so may be {number} whose answer was not written in time" if serving.unwritten else ""
    return (
        "What had no answer could not be given back, since the exchange could not be reached: it is given to others "
        f"when this worker has been silent for the run's silent_after{unwritten}."
    )


def _strategy(label: str, settings: list[str]) -> tuple[str, Any]:
    """Return the name of a label strategy, and the strategy with its parameters."""
    from alcore.experiment import Experiment
    from alcore.plugins import import_code, installed, load_factory, validate
    from alcore_worker.worker import check_remote

    experiment = Experiment()
    experiment.choose("label", [label])
    for text in settings:
        if not text.strip().startswith("label."):
            raise UsageError(f"--set {text}: a worker has a label strategy alone; write label.{label}.PARAMETER=VALUE.")
        experiment.set(text)
    (part,) = experiment.parts["label"]
    if ":" in part.use:
        try:
            factory = import_code(part.use)
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"--label {part.use} can't be imported: {reason_of(error)}. It is looked up as "
                "package.module:name from the current folder and the installed packages."
            ) from error
    else:
        factory = load_factory(installed().offer("label", part.use))
    if isinstance(factory, type):
        check_remote(part.use, factory)
    values, faults = validate(factory, part.values, part.where)
    if faults:
        raise UsageError("; ".join(faults) + ".")
    return part.name, factory(**values)
