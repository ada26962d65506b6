"""What is shown of runs, read as any reader does: each read opens the database, fetches, and closes it."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from alcore.errors import UsageError, did_you_mean
from alcore.store import Position, Run, figures, parts_of, runs_within, settings_of
from alcore_web.text import short

MOST_REQUESTS = 20
MOST_PENDING = 20
MOST_REASONS = 10
MOST_LOG = 100
_SETTLED = 2.0
"""Seconds after which a file that was not written to is taken for unchanged: its time stamp may be that coarse."""
_FIRST = ("f1", "accuracy", "r2", "rmse", "relative_l2")
"""The metrics by which runs are compared most often; the first one of these that a run has stands for it."""


class MissingRunError(UsageError):
    """There is no run of this name."""


class Row(NamedTuple):
    """A run on one line.

    Parameters
    ----------
    name
        Its folder, relative to the root: ``a1``, or ``moons/uq-0`` of a benchmark.
    outcome
        As the status of `alcore.store.Summary`.
    reason
        Why it ended, or can't be read; empty if that is not known.
    started
        When it began, in UTC: ``2026-01-31 12:00:00``.
    steps, limit
        How many steps are finished, and are to be; None where that is not known.
    labels
        Number of labels.
    parts
        What it consists of, by kind: ``data``, ``query``, ``learner``, ``label``, ``metrology``, ``seed``.
    metrics
        The fractions of its last metrology record.
    on
        Where they were measured; empty if the record doesn't say.
    """

    name: str
    outcome: str
    reason: str
    started: str
    steps: int
    limit: int | None
    labels: int
    parts: Mapping[str, str]
    metrics: Mapping[str, float]
    on: str

    @property
    def metric(self) -> str:
        """The metric that stands for the run, as text; empty where nothing was measured."""
        name = main_metric(self.metrics)
        return "" if name is None else f"{name} {self.metrics[name]:.3f}"

    @property
    def lives(self) -> bool:
        """Whether a process is writing to it."""
        return self.outcome == "running"


class MetricCurve(NamedTuple):
    """One metric of a run.

    Parameters
    ----------
    name
        Of the metric, with the metrology strategy: ``f1_metrology: f1``.
    points
        Labeled samples and value, in the order of measurement; finite.
    """

    name: str
    points: Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Detail:
    """Everything that is shown of one run.

    Parameters
    ----------
    row
        The run on one line.
    ended
        When it ended, in UTC; empty while it goes on.
    position
        What its process is doing; None where there is none.
    epochs
        How many epochs the training under way has; None where that is not known.
    steps
        The records of the finished steps.
    curves
        One of each metric and of the training loss, the one that stands for the run first.
    picked_in
        The last step that asked for labels; None if there is none.
    picks
        The first requests of that step.
    picked
        How many of its requests are ``open``, ``labeled`` and ``failed``.
    requested
        The same of all steps.
    pending
        The first requests without a label, of all steps, with the last reason if there was one.
    reasons
        All reasons why requests could not be labeled and answers were refused, the most frequent first.
    log
        The last lines of its log.
    untrained
        How many labels came after the last training of a run that is done.
    """

    row: Row
    ended: str
    position: Position | None
    epochs: int | None
    steps: Sequence[Mapping[str, Any]]
    curves: Sequence[MetricCurve]
    picked_in: int | None
    picks: Sequence[Mapping[str, Any]]
    picked: Mapping[str, int]
    requested: Mapping[str, int]
    pending: Sequence[Mapping[str, Any]]
    reasons: Sequence[Mapping[str, Any]]
    log: Sequence[str]
    untrained: int = 0

    @property
    def doing(self) -> str:
        """What its process is doing, in words; empty where there is none."""
        if self.position is None:
            return "starting" if self.row.lives else ""
        step, phase, epoch = self.position
        text = f"step {step}, {phase}"
        if phase == "training" and epoch:
            text += f", epoch {epoch}" + (f" of {self.epochs}" if self.epochs else "")
        if phase == "labeling" and self.picked_in == step:
            text += f", {self.picked['labeled']} of {sum(self.picked.values())} labels"
        return text

    @property
    def seconds_left(self) -> float | None:
        """How long the remaining steps take if they take as long as the last five; None where that is not known."""
        if not self.row.lives or self.row.limit is None or not self.steps:
            return None
        last = [sum(_numbers(step.get("seconds"))) for step in self.steps[-5:]]
        return sum(last) / len(last) * max(self.row.limit - self.row.steps, 0)


class Runs:
    """The runs of a folder, and of the folders in it, such as those of benchmarks; safe for threads.

    Parameters
    ----------
    root
        The folder. It may appear later.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._rows: dict[Path, tuple[tuple[Any, ...], Row]] = {}
        self._lock = threading.Lock()

    def rows(self) -> list[Row]:
        """Return all runs, the newest first; what has not changed is not read again."""
        with self._lock:
            rows = {folder: self._row(name, folder) for name, folder in runs_within(self.root).items()}
            self._rows = {folder: self._rows[folder] for folder in rows if folder in self._rows}
        return sorted(rows.values(), key=lambda row: (row.started, row.name), reverse=True)

    def detail(self, name: str, *, verify: bool = False) -> Detail:
        """Return everything that is shown of one run.

        Parameters
        ----------
        name
            As `Row` has it. Only runs that are listed can be named.
        verify
            Whether to check that its database is as its writers left it.

        Raises
        ------
        MissingRunError
            If there is no such run, naming the nearest.
        UsageError
            If it can't be read.
        """
        folders = runs_within(self.root)
        if name not in folders:
            raise MissingRunError(f"there is no run {name!r} in {self.root}: {did_you_mean(name, list(folders))}.")
        return detail_of(_run(folders[name]), name, verify=verify)

    def _row(self, name: str, folder: Path) -> Row:
        before = _stamp(folder)
        cached = self._rows.get(folder)
        if cached is not None and before is not None and cached[0] == before:
            return cached[1]
        try:
            row = row_of(_run(folder), name)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others are shown
            row = Row(name, "unreadable", str(error), "", 0, None, 0, {}, {}, "")
        # what lives may end without another write
        if before is not None and not row.lives and time.time() - before[0] / 1e9 > _SETTLED:
            self._rows[folder] = before, row
        else:
            self._rows.pop(folder, None)
        return row


def row_of(run: Run, name: str) -> Row:
    """Return a run on one line.

    Parameters
    ----------
    run
        The run.
    name
        What it is called.

    Raises
    ------
    UsageError
        If it can't be read.
    """
    summary, settings = run.summary(), settings_of(run.folder)
    parts = {kind: short(str(value), 60) for kind, value in parts_of(settings).items()}
    limit = _table(settings, "driver").get("max_active_learning_steps")
    return Row(
        name,
        summary.status,
        short(str(summary.reason or ""), 1000),
        _time(summary.started),
        summary.steps,
        limit if isinstance(limit, int) else None,
        summary.labels,
        parts,
        summary.metrics,
        summary.on,
    )


def detail_of(run: Run, name: str, *, verify: bool = False) -> Detail:
    """Return everything that is shown of one run; the parameters are those of `row_of`, and of `Runs.detail`."""
    if verify:
        run.verify()
    position = run.position()
    row, meta, steps = row_of(run, name), run.meta(), run.steps()
    # the step under way may have asked for labels already
    asking = [int(step["step"]) for step in steps if step.get("requested")]
    under_way = int(steps[-1]["step"]) + 1 if steps else 0
    picked_in = next((step for step in (under_way, *asking[-1:]) if run.requests(step, 1)), None)
    training = _table(settings_of(run.folder), "training")
    fine_tunes = "max_fine_tuning_epochs" in training and (position is not None and position.step > 0)
    epochs = training.get("max_fine_tuning_epochs" if fine_tunes else "max_training_epochs")
    return Detail(
        row,
        "" if row.lives else _time(meta.get("ended", "")),
        position,
        epochs if isinstance(epochs, int) else None,
        steps,
        curves_of(run.records(), steps),
        picked_in,
        [] if picked_in is None else run.requests(picked_in, MOST_REQUESTS),
        run.request_counts(picked_in) if picked_in is not None else {},
        run.request_counts(),
        run.unlabeled_requests(MOST_PENDING),
        run.reasons(),
        run.log(MOST_LOG),
        run.untrained_labels() if row.outcome == "done" else 0,
    )


def curves_of(records: Mapping[str, Sequence[Any]], steps: Sequence[Mapping[str, Any]]) -> list[MetricCurve]:
    """Return the curve of each metric, the one that stands for the run first, and of the training loss last.

    Parameters
    ----------
    records
        The metrology records by strategy.
    steps
        The records of the steps.
    """
    samples = {step.get("step"): step.get("train_samples") for step in steps}
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for strategy, entries in records.items():
        for entry in entries:
            for metric, value in figures(entry).items():
                x = entry.get("train_samples", samples.get(entry.get("step")))
                if _is_number(x) and math.isfinite(value):
                    curves.setdefault((strategy, metric), []).append((float(x), value))
    first = main_metric({metric: 0.0 for _, metric in curves})
    home = next((strategy for strategy, metric in curves if metric == first), "")
    ordered = sorted(curves, key=lambda key: (key[0] != home, key[1] != first))
    curves_shown = [MetricCurve(f"{strategy}: {metric}", curves[strategy, metric]) for strategy, metric in ordered]
    losses = [(step.get("train_samples"), _table(step, "losses").get("loss")) for step in steps]
    loss = [(float(x), float(y)) for x, y in losses if _is_number(x) and _is_number(y)]
    return [*curves_shown, *([MetricCurve("training loss", loss)] if loss else [])]


def main_metric(names: Mapping[str, float]) -> str | None:
    """Return the name of the metric that stands for a run, of those that it has."""
    return next((metric for metric in _FIRST if metric in names), next(iter(names), None))


def _run(folder: Path) -> Run:
    if folder.is_symlink():
        raise UsageError(f"{folder} is a symbolic link, which is not followed: it may lead out of the folder of runs.")
    return Run(folder)


def _stamp(folder: Path) -> tuple[Any, ...] | None:
    """Return what changes whenever the database does, with the time of the last change first, in nanoseconds."""
    try:
        status = (folder / "run.db").lstat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, (folder / "run.db-journal").exists()


def _time(text: Any) -> str:
    return str(text)[:19].replace("T", " ")


def _table(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tree.get(name)
    return table if isinstance(table, dict) else {}


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values.values() if _is_number(value)] if isinstance(values, dict) else []
