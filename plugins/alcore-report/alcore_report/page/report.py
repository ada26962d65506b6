"""The page about one run."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from alcore.store import Run
from alcore_report.page import figures as fig
from alcore_report.page.advice import Card, review
from alcore_report.page.canvas import Figure, empty, image_bytes, picture
from alcore_report.page.facts import Facts, command_name, read_facts
from alcore_report.page.html import render
from alcore_report.page.samples import Samples, find_samples, is_field
from alcore_report.words import counted, duration

_MOST_SHOWN = 36  # picks as pictures or texts
_MOST_LAST = 40  # picks in the table
_MOST_REASONS = 20
_MOST_TEXT = 600
_MOST_CONFUSION = 12  # classes


class Page(NamedTuple):
    """A page, and the same as a picture.

    Parameters
    ----------
    html
        The whole file.
    png
        The figures that matter most.
    cards
        The advice on the page.
    notes
        What is not on it, and why.
    """

    html: str
    png: bytes
    cards: list[Card]
    notes: list[str]


def report_run(run: Run, *, allow_code: bool = False) -> Page:
    """Return the page about a run, which may be under way.

    The run is read, never locked. Data and learner are made again from its experiment file and its last checkpoint;
    where that is not possible, the page says why and has the rest.

    Parameters
    ----------
    run
        The run.
    allow_code
        Whether to import ``package.module:name`` that the experiment names.

    Raises
    ------
    UsageError
        If the run can't be read.
    """
    facts = read_facts(run)
    shown = _shown(facts)
    samples = find_samples(facts, shown, allow_code=allow_code)
    cards, sound = review(facts, samples)
    metrics = fig.metric_figures(facts)
    picks = _present(
        fig.class_figure(samples),
        fig.class_history_figure(samples, facts),
        fig.score_figure(facts),
        fig.map_figure(samples),
    )
    fields = fig.field_figures(samples)
    learner = [*_present(fig.calibration_figure(samples), fig.parity_figure(samples)), *fields]
    effort = _present(fig.time_figure(facts), fig.cost_figure(facts), fig.loss_figure(facts))
    gallery = _gallery(facts, samples, shown)
    gone = _gone(samples)
    learner_gone = _learner_gone(samples)
    confusion = _confusion(facts, samples)
    sections = [
        ("advice", f"Advice ({len(cards)})"),
        *([("curves", "Learning curves")] if metrics else []),
        *([("picks", "What was picked")] if picks or gallery or gone else []),
        *([("learner", "What the learner knows")] if learner or learner_gone or confusion else []),
        ("effort", "Time, cost and failures"),
        ("made", "How it was made"),
    ]
    values = {
        "title": f"Run {facts.name}",
        "command": f"alcore report {command_name(run.folder)}",
        "facts": facts,
        "status": status_words(facts),
        "lead": lead(facts),
        "reason": facts.reason.strip(),
        "under_way": _under_way(facts),
        "sections": sections,
        "figures_of_run": _tiles(facts),
        "cards": cards,
        "checked": _checked(sound),
        "metric_figures": metrics,
        "measured_on": _measured_on(facts),
        "pick_figures": picks,
        "gallery": gallery,
        "gallery_title": _gallery_title(len(gallery), sum(request["sample"] is not None for request in facts.requests)),
        "has_pictures": bool(samples.pictures),
        "gone": gone,
        "last_picks": _last_picks(facts, samples),
        "learner_figures": learner,
        "learner_gone": learner_gone,
        "confusion": confusion,
        "effort_figures": effort,
        "reasons": [{**reason, "reason": _cut(reason["reason"])} for reason in facts.reasons[:_MOST_REASONS]],
        "more_reasons": _more_reasons(facts),
        "parts": _parts(facts),
    }
    main = [
        *metrics[:1],
        *(figure for figure in picks if figure.key in ("map", "classes", "scores")),
        *learner[:1],
        *effort[:1],
    ]
    drawn = [figure for figure in main if figure.panels == 1][:6] or [empty("No finished step yet")]
    return Page(
        render("run.html.j2", values),
        picture(drawn, f"Run {facts.name}: {lead(facts)}"),
        cards,
        [*gone, *([learner_gone] if learner_gone else [])],
    )


def _checked(sound: Sequence[str]) -> str:
    """Return what was checked in a run that has no card."""
    return f"No advice. What was checked: {'; '.join(sound)}." if sound else "No advice: nothing could be checked."


def _present(*figures: Figure | None) -> list[Figure]:
    return [figure for figure in figures if figure is not None]


def status_words(facts: Facts) -> str:
    """Return the status of a run as people say it."""
    return {"running": "under way", "stopped": "stopped without a reason"}.get(facts.status, facts.status)


def lead(facts: Facts) -> str:
    """Return the run in one sentence or two."""
    query = " and ".join(facts.parts.get("query", [])) or "no query strategy"
    data = ", ".join(facts.parts.get("data", [])) or "data given in Python"
    learner = ", ".join(facts.parts.get("learner", []))
    text = f"{query} on {data}" + (f" with {learner}" if learner else "")
    text += f": {counted(len(facts.steps), 'step', ',')}, {counted(len(facts.labeled), 'label', ',')} bought."
    if facts.metrics and (curve := facts.curve(facts.metrics[0])):
        name, first, last = facts.short(facts.metrics[0]), curve[0], curve[-1]
        at = [f" at {value[1]:,} labeled samples" if value[1] is not None else "" for value in (first, last)]
        text += f" {name} went from {fig.short_number(first[2])}{at[0]} to {fig.short_number(last[2])}{at[1]}."
    return text


def _under_way(facts: Facts) -> str:
    if facts.status not in ("running", "stopped"):
        return ""
    last = f"the last finished step is {facts.steps[-1]['step']}" if facts.steps else "no step is finished"
    waiting = f" Requests that wait for a label: {facts.waiting:,}." if facts.waiting else ""
    if facts.status == "running":
        return f"Read while the run was going on; {last}.{waiting} Later it will say more."
    return (
        f"Its process is gone and recorded no reason; {last}.{waiting} Go on with: alcore resume "
        f"{command_name(facts.run.folder)}"
    )


def _tiles(facts: Facts) -> list[tuple[str, str, str]]:
    tiles = []
    for metric in facts.metrics[:2]:
        if curve := facts.curve(metric):
            best = (min if facts.lower(metric) else max)(curve, key=lambda point: point[2])
            tiles.append(
                (
                    facts.short(metric),
                    fig.short_number(curve[-1][2]),
                    f"best {fig.short_number(best[2])} in step {best[0]}",
                )
            )
    tiles.append(("labels bought", f"{len(facts.labeled):,}", _trained(facts)))
    tiles.append(("finished steps", f"{len(facts.steps):,}", ""))
    if facts.paid:
        _, labels, failures = facts.paid[-1]
        tiles.append(("cost", f"{labels + failures:,.6g}", f"{failures:,.6g} for failed attempts" if failures else ""))
    seconds = math.fsum(facts.seconds(phase) for phase in facts.phases)
    tiles.append(
        (
            "time in steps",
            duration(seconds),
            f"{duration(seconds / len(facts.steps))} a step" if facts.steps else "",
        )
    )
    failed = sum(refusal["kind"] != "repeat" for refusal in facts.refused)
    tiles.append(("failed or refused", f"{failed:,}", f"{facts.given_up:,} given up" if facts.given_up else ""))
    if facts.waiting:
        tiles.append(("waiting for a label", f"{facts.waiting:,}", ""))
    return tiles


def _trained(facts: Facts) -> str:
    """Return what the last training had, with the samples that were labeled at the start, beside the labels bought."""
    said = [] if facts.trained_on is None else [f"last trained on {counted(facts.trained_on, 'sample', ',')}"]
    if facts.status == "done" and facts.untrained and said:
        said.append(f"{facts.untrained:,} not trained on")
    return ", ".join(said)


def _measured_on(facts: Facts) -> str:
    records = [entry for entries in facts.records.values() for entry in entries if isinstance(entry, dict)]
    places = list(dict.fromkeys(str(entry["on"]) for entry in records if "on" in entry))
    text = f"Measured on {' and '.join(map(fig.place_name, places))}." if places else ""
    if len(facts.metrics) > fig.MOST_METRICS:
        text += f" {fig.MOST_METRICS} of {len(facts.metrics)} metrics are drawn; alcore show has them all."
    return text


def _gone(samples: Samples) -> list[str]:
    """Return what is missing among the picks, with the reasons."""
    missing = samples.missing
    if "data" in missing:
        return [f"No map of the pool, and no classes that only the pool knows: {_cut(missing['data'])}."]
    words = {"map": "No map of the pool", "surface": "No decision surface", "classes": "No classes of the picks",
             "pictures": "No pictures of the picks", "texts": "No texts of the picks"}  # fmt: skip
    return [f"{text}: {_cut(missing[key])}." for key, text in words.items() if key in missing]


def _learner_gone(samples: Samples) -> str:
    for key in ("learner", "evaluation", "predictions"):
        if key in samples.missing:
            return f"No predictions: {_cut(samples.missing[key])}."
    return ""


def _shown(facts: Facts) -> list[dict[str, Any]]:
    """Return the picks that are shown: the first ones and the last ones."""
    picks = [request for request in facts.requests if request["slot"] == 0]
    if len(picks) <= _MOST_SHOWN:
        return picks
    return [*picks[: _MOST_SHOWN // 3], *picks[-(_MOST_SHOWN - _MOST_SHOWN // 3) :]]


def _gallery_title(shown: int, total: int) -> str:
    if shown < total and shown == _MOST_SHOWN:
        return f"The first {_MOST_SHOWN // 3} and the last {_MOST_SHOWN - _MOST_SHOWN // 3} of {total:,} picks"
    return "Picks in their order"


def _gallery(facts: Facts, samples: Samples, shown: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    gallery = []
    pictures = samples.pictures
    low = min((float(np.nanmin(picture)) for picture in pictures.values()), default=0.0)
    high = max((float(np.nanmax(picture)) for picture in pictures.values()), default=1.0)
    for request in shown:
        if request["id"] not in pictures and request["id"] not in samples.texts:
            continue
        label = _label(facts, samples, request)
        name = "generated" if request["sample"] is None else f"sample {request['sample']}"
        words = f"{name}, step {request['step']}"
        image = pictures.get(request["id"])
        gallery.append(
            {
                "picture": "" if image is None else base64.b64encode(image_bytes(image, low, high)).decode(),
                "height": 0 if image is None else round(96 * image.shape[0] / image.shape[1]),
                "alt": f"Input of {name}",
                "text": _cut(samples.texts.get(request["id"], "")),
                "label": label,
                "words": words,
            }
        )
    return gallery


def _label(facts: Facts, samples: Samples, request: dict[str, Any]) -> str:
    """Return the label of a request in words."""
    if request["id"] in samples.classes:
        return samples.class_name(samples.classes[request["id"]])
    if request["kind"] is None:
        return "waits" if request["state"] == "open" else "no label"
    if request["kind"] == "id":
        return "the pool's own"
    return _cut(facts.run.label_text(request) or "", 60) if request["file"] is None else "a large value"


def _last_picks(facts: Facts, samples: Samples) -> list[list[str]]:
    return [
        [
            "generated" if request["sample"] is None else str(request["sample"]),
            str(request["step"]),
            request["strategy"],
            fig.short_number(request["score"]),
            request["state"],
            _label(facts, samples, request),
            request["source"] or "-",
            "-" if request["cost"] is None else f"{request['cost']:g}",
        ]
        for request in facts.requests[-_MOST_LAST:]
    ]


def _confusion(facts: Facts, samples: Samples) -> dict[str, Any] | None:
    """Return the last confusion matrix, of the records or else of the predictions; of at most twelve classes."""
    entry, note = facts.last_entry("confusion"), ""
    if entry is not None:
        matrix, note = entry["confusion"], f"Measured in step {entry.get('step')}."
    elif (predictions := samples.predictions) is not None and samples.info is not None:
        if samples.info.task != "classification" or is_field(predictions):
            return None
        size = predictions.outputs.shape[1]
        codes = predictions.targets.astype(np.int64).reshape(-1) * size + predictions.outputs.argmax(axis=1)
        matrix = np.bincount(codes, minlength=size * size).reshape(size, size).tolist()
        note = f"On {len(predictions.targets)} {fig.place_name(predictions.on)}."
    else:
        return None
    if len(matrix) > _MOST_CONFUSION:
        return None
    names = [samples.class_name(code) for code in range(len(matrix))]
    return {
        "header": ["true class", *(f"as {name}" for name in names)],
        "rows": [[name, *map(str, row)] for name, row in zip(names, matrix, strict=True)],
        "note": f"Each row: how the samples of a class were classified. {note}",
    }


def _more_reasons(facts: Facts) -> str:
    more = len(facts.reasons) - _MOST_REASONS
    return (
        f"{more} rarer reasons are not shown; alcore show {command_name(facts.run.folder)} --refused has them."
        if more > 0
        else ""
    )


def _parts(facts: Facts) -> list[list[str]]:
    environment = facts.meta.get("environment", {})
    rows = [[kind, ", ".join(names)] for kind, names in facts.parts.items()]
    rows += [
        [name, str(facts.meta[key])]
        for name, key in (("seed", "seed"), ("started", "started"), ("ended", "ended"))
        if facts.meta.get(key) is not None
    ]
    rows += [
        [name, str(environment[name])]
        for name in ("alcore", "torch", "python", "threads", "device")
        if name in environment
    ]
    return rows


def _cut(text: str, most: int = _MOST_TEXT) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
