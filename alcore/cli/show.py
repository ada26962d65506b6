"""``alcore show``: one run, or one step of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from alcore.codec import export_json
from alcore.commands.options import DEFAULT_ROOT, AsJson, Root, RunName, integer
from alcore.commands.results import shell_name
from alcore.commands.tables import curve, left_out, some, table
from alcore.errors import UsageError
from alcore.store.endings import untrained
from alcore.store.labels import REFUSED
from alcore.store.reading import Run, find_run, parts_of, settings_of

_MOST = 20
_MOST_REASONS = 10
_VERBS = {"training": "train", "metrology": "measure", "query": "query", "labeling": "label"}


def show(
    run: RunName,
    step: Annotated[
        int | None, typer.Option(metavar="N", parser=integer, help="Show what this step asked for, and why.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every step.")] = False,
    refused: Annotated[bool, typer.Option("--refused", help="Show the answers that are no labels, and why.")] = False,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Show a run: its learning curve, requests and labels by step, and timings."""
    stored = find_run(root, run)
    if refused:
        content = {"run_id": stored.folder.name, "refused": stored.refused()}
    else:
        content = _step(stored, step) if step is not None else _whole(stored)
    if as_json:
        typer.echo(export_json(content), nl=False)
    elif refused:
        typer.echo(_refused_text(content, stored))
    elif step is not None:
        typer.echo(_step_text(content))
    else:
        typer.echo(_whole_text(content, 10**9 if every else _MOST))


def _whole(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.folder.name,
        "folder": str(run.folder),
        "parts": parts_of(settings_of(run.folder)),
        **run.meta(),
        "metrics": run.records(),
        "steps": run.steps(),
        "refused": run.refused(),
        "reasons": run.reasons(),
        "checkpoints": run.checkpoints(),
        "untrained": run.untrained_labels(),
    }


def _whole_text(run: dict[str, Any], most: int) -> str:
    name = shell_name(Path(run["folder"]))
    why = run.get("error") or run.get("reason")
    environment = run["environment"]
    parts = ", ".join(f"{kind} {names}" for kind, names in run["parts"].items() if names != "" and kind != "seed")
    everything = f"alcore show {name} --all"
    lines = [
        f"Run {run['run_id']}: {run['status']}" + (f" ({why})" if why else ""),
        "; ".join(filter(None, [parts, f"seed {run['seed']}"])),
        f"started {run['started']}" + (f", ended {run['ended']}" if "ended" in run else ""),
        f"alcore {environment['alcore']}, torch {environment['torch']}, threads {environment['threads']}",
        f"folder {run['folder']}, {len(run['checkpoints'])} checkpoints",
        *([left] if run["status"] == "done" and (left := untrained(run["untrained"])) else []),
    ]
    if run["metrics"]:
        lines += ["", curve(run["metrics"], most, everything)]
    if run["steps"]:
        phases = list(dict.fromkeys(phase for step in run["steps"] for phase in step["seconds"]))
        counts = [
            "requested",
            "labeled",
            *(name for name in ("failed", "refused") if any(map(_of(name), run["steps"]))),
        ]
        rows = [
            [
                *(step[name] for name in ("step", "train_samples", *counts)),
                step.get("losses", {}).get("loss"),
                *(None if (taken := step["seconds"].get(phase)) is None else f"{taken:.3f}" for phase in phases),
            ]
            for step in some(run["steps"], most)
        ]
        header = ["step", "samples", *counts, "loss", *(_VERBS.get(phase, phase) for phase in phases)]
        lines += ["", f"steps, with the seconds to {', '.join(header[-len(phases) :])}", table(rows, header)]
        lines += left_out(len(rows), len(run["steps"]), everything, "steps")
    if run["reasons"]:
        lines += ["", _reasons_text(run["reasons"], f"alcore show {name} --json")]
    if refused := [refusal for refusal in run["refused"] if refusal["kind"] in REFUSED]:
        lines += [
            "",
            f"{len(refused)} answers were refused, the last one: {refused[-1]['reason']}",
            f"All of them: alcore show {name} --refused",
        ]
    lines += ["", f"Next: alcore show {name} --step 0, or alcore export {name}"]
    return "\n".join(lines)


def _of(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda step: step[name]


def _reasons_text(reasons: list[dict[str, Any]], command: str) -> str:
    """Return why requests could not be labeled and answers were refused, the most frequent first."""
    rows = [[reason["count"], reason["kind"], reason["reason"]] for reason in reasons[:_MOST_REASONS]]
    lines = ["why labels failed and answers were refused", table(rows, ["count", "kind", "reason"])]
    return "\n".join([*lines, *left_out(len(rows), len(reasons), command, "reasons")])


def _refused_text(content: dict[str, Any], run: Run) -> str:
    if not content["refused"]:
        return f"Run {content['run_id']} refused no answer."
    rows = [
        [refusal["step"], (refusal["request"] or "none")[:12], refusal["kind"], refusal["item"][:60], refusal["reason"]]
        for refusal in content["refused"]
    ]
    return (
        table(rows, ["step", "request", "kind", "answer", "why it is no label"])
        + f"\n\nNext: alcore labels {shell_name(run.folder)}"
    )


def _step(run: Run, step: int) -> dict[str, Any]:
    steps = {entry["step"]: entry for entry in run.steps()}
    requests = run.requests(step)
    if step not in steps and not requests:
        raise UsageError(f"run {run.folder.name} has no step {step}; it has {len(steps)}, from 0.")
    return {
        "run_id": run.folder.name,
        "step": step,
        "record": steps.get(step),
        "requests": requests,
        "reasons": run.reasons(step),
    }


def _label_text(request: dict[str, Any]) -> str | None:
    if request["kind"] == "id":
        return "the pool's own"
    value: str | None = request["value"]
    return value if request["file"] is None else f"labels/{request['file']}.safetensors"


def _step_text(content: dict[str, Any]) -> str:
    rows = [
        [
            request["ordinal"],
            request["sample"] if request["item"] is None else request["item"][:40],
            request["strategy"],
            request["rank"],
            None if request["score"] is None else float(request["score"]),
            request["state"],
            _label_text(request),
            request["source"] or None,
            request["cost"],
        ]
        for request in content["requests"]
    ]
    if not rows:
        return f"Step {content['step']} of run {content['run_id']} asked for nothing."
    models = {request["model"] for request in content["requests"]}
    header = ["request", "sample", "strategy", "rank", "score", "state", "label", "source", "cost"]
    text = f"Step {content['step']} of run {content['run_id']}, chosen by model {', '.join(models)}\n"
    text += table(rows, header)
    return text + (
        "\n\n" + _reasons_text(content["reasons"], "the same command with --json") if content["reasons"] else ""
    )
