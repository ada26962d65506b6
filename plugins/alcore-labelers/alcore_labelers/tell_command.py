"""``alcore tell``: answers for a run, from a file that was filled in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alcore.commands import DEFAULT_ROOT, AllowCode, AsJson, Root, RunName, prepare, results_alone, say, shell_name
from alcore.store import Run, export_json, find_run

if TYPE_CHECKING:
    from alcore.experiment import Told

_MOST_FAULTS = 20


def tell(
    context: typer.Context,
    run: RunName,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file of alcore ask, filled in: CSV, .jsonl, or .npz.")
    ],
    source: Annotated[
        str, typer.Option("--source", metavar="NAME", help="Who answered, where the file has no column source.")
    ] = "tell",
    allow_code: AllowCode = False,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Give a run the answers of a file: labels, and what failed or was withdrawn.

    Rows may be in any order, and some of them. Each is checked; one that is refused, with the reason, doesn't keep the
    others from being accepted, and the exit code is 1 then. Telling a file once more changes nothing.
    """
    from alcore.experiment import Labeling
    from alcore_labelers.answer_files import read_answers

    prepare(context)
    stored = find_run(root, run)
    with results_alone():
        labeling = Labeling(stored, allow_code)
        told = labeling.tell(read_answers(file, labeling.info, source))
    if labeling.fault:
        say(f"labels are compared with what the run knows alone, as the data can't be made again: {labeling.fault}.")
    if as_json:
        content = {
            "run_id": stored.folder.name,
            "answers": [dataclasses.asdict(answer) for answer in told.answers],
            "unanswered": told.unanswered,
        }
        typer.echo(export_json(content), nl=False)
    else:
        typer.echo(_text(told, file))
        if following := _next(stored, file, told):
            typer.echo(following)
    if told.of("refused"):
        raise typer.Exit(1)


def _text(told: Told, file: Path) -> str:
    accepted = told.of("accepted")
    kinds = [answer.kind for answer in accepted]
    parts = [_count(kinds.count("label"), "label")] if "label" in kinds else []
    parts += [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds) if kind != "label"]
    lines = [f"{file}: {_count(len(accepted), 'answer')} accepted" + (f" ({', '.join(parts)})" if accepted else "")]
    if corrected := told.of("corrected"):
        lines.append(f"{_count(len(corrected), 'label')} corrected")
    if repeated := told.of("repeated"):
        lines.append(f"{_count(len(repeated), 'answer')} told before, which change{'s' * (len(repeated) == 1)} nothing")
    if told.unanswered:
        lines.append(f"{_count(told.unanswered, 'row')} without an answer")
    if refused := told.of("refused"):
        lines.append(f"{_count(len(refused), 'answer')} refused:")
        lines += [f"  {answer.place}: {answer.reason}" for answer in refused[:_MOST_FAULTS]]
        if len(refused) > _MOST_FAULTS:
            lines.append(f"  and {len(refused) - _MOST_FAULTS} more; --json lists all")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _next(run: Run, file: Path, told: Told) -> str:
    status, name = run.meta().get("status"), shell_name(run.folder)
    if told.of("refused"):
        return f"Next: correct these rows, and tell again: alcore tell {name} {file}"
    if status == "running":
        return (
            "The run is under way, and takes answers in at its next labeling phase, or at once if it waits for jobs or "
            "workers."
        )
    if status == "done" and not told.of("accepted", "corrected"):
        return ""
    if status == "done":
        return f"The run has ended; it takes answers in when it goes on: alcore resume {name} --steps N"
    return f"Next: alcore resume {name}"
