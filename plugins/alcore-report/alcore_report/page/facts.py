"""What a page says of a run and can be read from its directory alone, while the run goes on, too."""

from __future__ import annotations

import dataclasses
import functools
import math
import shlex
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from alcore.errors import UsageError
from alcore.store import Run, figures, parse_json, parse_toml
from alcore_report.curves import lower_is_better, usual_metric

KINDS = ("data", "learner", "loop", "start", "query", "label", "metrology", "stop", "observe")
PHASES = ("training", "metrology", "query", "labeling")


class Point(NamedTuple):
    """The metrics that were measured in a step, by their full names, ``strategy.metric``."""

    step: int
    labels: int | None
    values: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Facts:
    """A run, as its directory has it.

    Parameters
    ----------
    run
        The directory.
    meta
        What is known about the run as a whole.
    parts
        The names of its parts by kind; of a run built in Python, the classes.
    python
        Whether it was built in Python, so that no command can build it again.
    experiment
        The text of its experiment file.
    steps, records, requests, refused, reasons
        As `alcore.store.Run` returns them.
    waiting, given_up
        How many requests have no label yet, and how many will get none.
    """

    run: Run
    meta: dict[str, Any]
    parts: dict[str, list[str]]
    python: bool
    experiment: str
    steps: list[dict[str, Any]]
    records: dict[str, list[Any]]
    requests: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    reasons: list[dict[str, Any]]
    waiting: int
    given_up: int

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.run.folder.resolve().name

    @property
    def status(self) -> str:
        """What `alcore runs` calls its status."""
        return str(self.meta.get("status", "?"))

    @property
    def reason(self) -> str:
        """Why it ended; empty where that is not known."""
        return str(self.meta.get("error") or self.meta.get("reason") or "")

    @functools.cached_property
    def labeled(self) -> list[dict[str, Any]]:
        """The requests that have a label."""
        return [request for request in self.requests if request["kind"] is not None]

    @functools.cached_property
    def points(self) -> list[Point]:
        """The measurements by step; where a strategy measured several times in one, the last counts."""
        trained = {step["step"]: step["train_samples"] for step in self.steps}
        points: dict[int, Point] = {}
        for strategy, entries in self.records.items():
            for entry in entries:
                if not isinstance(entry, dict) or not isinstance(step := entry.get("step"), int):
                    continue
                labels = entry.get("train_samples", trained.get(step))
                point = points.setdefault(step, Point(step, labels if isinstance(labels, int) else None, {}))
                point.values.update({f"{strategy}.{name}": value for name, value in figures(entry).items()})
        return [points[step] for step in sorted(points) if points[step].values]

    @functools.cached_property
    def metrics(self) -> list[str]:
        """The full names of all metrics, the usual one first; what two strategies measure alike is there once."""
        names: list[str] = []
        for name in dict.fromkeys(name for point in self.points for name in point.values):
            last = name.rpartition(".")[2]
            if not any(
                metric.rpartition(".")[2] == last and self.curve(metric) == self.curve(name) for metric in names
            ):
                names.append(name)
        return sorted(names, key=lambda name: name != usual_metric(names)) if names else []

    def short(self, metric: str) -> str:
        """Return the name of a metric without that of its strategy, where no other strategy has it."""
        strategy, _, last = metric.rpartition(".")
        alone = sum(name.rpartition(".")[2] == last for name in self.metrics) == 1
        return last if alone else f"{last} ({strategy})"

    def curve(self, metric: str) -> list[tuple[int, int | None, float]]:
        """Return step, labels and value of each measurement of a metric that is a finite number."""
        return [
            (point.step, point.labels, point.values[metric])
            for point in self.points
            if math.isfinite(point.values.get(metric, math.nan))
        ]

    def last(self, name: str) -> float | None:
        """Return the last value of the first metric of this short name; None where none was measured."""
        for metric in self.metrics:
            if metric.rpartition(".")[2] == name and (curve := self.curve(metric)):
                return curve[-1][2]
        return None

    def lower(self, metric: str) -> bool:
        """Return whether a metric is better the lower it is."""
        return lower_is_better(metric)

    def last_entry(self, key: str) -> dict[str, Any] | None:
        """Return the last record that has this key."""
        with_key = [
            entry for entries in self.records.values() for entry in entries if isinstance(entry, dict) and key in entry
        ]
        return max(with_key, key=lambda entry: entry.get("step", -1), default=None)

    @functools.cached_property
    def paid(self) -> list[tuple[int, float, float]]:
        """The steps, and what had been paid after each: for labels, and for attempts that failed."""
        steps = sorted({entry["step"] for entry in (*self.steps, *self.labeled, *self.refused)})
        labels, failures = defaultdict[int, float](float), defaultdict[int, float](float)
        for request in self.labeled:
            labels[request["step"]] += request["cost"] or 0.0
        for refusal in self.refused:
            failures[refusal["step"]] += refusal["cost"] or 0.0
        rows, label_sum, failure_sum = [], 0.0, 0.0
        for step in steps:
            label_sum, failure_sum = label_sum + labels[step], failure_sum + failures[step]
            rows.append((step, label_sum, failure_sum))
        return rows

    @functools.cached_property
    def untrained(self) -> int:
        """How many labels came after the last training."""
        return self.run.untrained_labels()

    @functools.cached_property
    def trained_on(self) -> int | None:
        """How many samples the last training had, those of the start included; None where that is not known."""
        counts = [(step["step"], step["train_samples"]) for step in self.steps if "training" in step["seconds"]]
        if counts and counts[-1][0] == self.steps[-1]["step"] and not self.untrained:
            # a final training has used the labels of the last step; what was measured after it says how many there were
            final = [(point.step, point.labels) for point in self.points if point.step > counts[-1][0]]
            return final[-1][1] if final or self.steps[-1]["labeled"] else counts[-1][1]
        return counts[-1][1] if counts else None

    @property
    def costs_differ(self) -> bool:
        """Whether labels cost something else than 1 each, or failed attempts cost anything."""
        return any(request["cost"] != 1 for request in self.labeled) or any(refusal["cost"] for refusal in self.refused)

    def seconds(self, phase: str) -> float:
        """Return how long a phase took in all steps."""
        return math.fsum(step["seconds"].get(phase, 0.0) for step in self.steps)

    @functools.cached_property
    def phases(self) -> list[str]:
        """The phases that were timed, in their order."""
        names = dict.fromkeys(name for step in self.steps for name in step["seconds"])
        return [*(name for name in PHASES if name in names), *(name for name in names if name not in PHASES)]


def read_facts(run: Run) -> Facts:
    """Read a run, also while it goes on.

    Raises
    ------
    UsageError
        If it can't be read.
    """
    meta = run.meta()
    try:
        text = (run.folder / "experiment.toml").read_text(encoding="utf-8")
        tree = parse_toml(text)
    except FileNotFoundError:
        text, tree = "", {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{run.folder / 'experiment.toml'} can't be read: {error}.") from error
    parts = _parts_in_python(tree["python"], meta) if "python" in tree else _parts(tree)
    unlabeled = run.unlabeled_requests()
    return Facts(
        run,
        meta,
        {kind: names for kind, names in parts.items() if names},
        "python" in tree or not tree,
        text,
        run.steps(),
        run.records(),
        run.requests(),
        run.refused(),
        run.reasons(),
        sum(request["state"] == "open" for request in unlabeled),
        sum(request["state"] != "open" for request in unlabeled),
    )


def _parts(tree: dict[str, Any]) -> dict[str, list[str]]:
    tables = {kind: tree[kind] for kind in KINDS if isinstance(tree.get(kind), dict)}
    return {
        kind: [str(part.get("use", name)) if isinstance(part, dict) else name for name, part in table.items()]
        for kind, table in tables.items()
    }


def _parts_in_python(tree: Any, meta: dict[str, Any]) -> dict[str, list[str]]:
    """Return the classes of the parts of a run that was built in Python, and the names of its strategies."""
    parts = {}
    for kind, (table, key) in {"data": ("training", "train_datapool"), "learner": ("learner", "class")}.items():
        section = tree.get(table) if isinstance(tree, dict) else None
        if isinstance(section, dict) and key in section:
            parts[kind] = [str(section[key]).rpartition(".")[2]]
    names = meta.get("names", {})
    return parts | {kind: [str(name) for name in names.get(kind, [])] for kind in ("query", "metrology")}


def class_of(text: str | None, names: Iterable[str]) -> int | None:
    """Return the class that the stored value of a label stands for; None where it is not one.

    Parameters
    ----------
    text
        The value, as `alcore.store.Run.label_text` returns it.
    names
        Of the classes, in the order of their codes.
    """
    if text is None or len(text) > 200:
        return None
    try:
        value = parse_json(text)
    except ValueError:
        return None
    classes = list(names)
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    if isinstance(value, float) and not classes:  # it may be a quantity
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 0:
        return None
    return int(value)


def command_name(folder: Path) -> str:
    """Return a run directory as it is typed in a command."""
    path = Path(folder)
    here = Path.cwd()
    resolved = path.resolve()
    shown = resolved.relative_to(here) if resolved.is_relative_to(here) else resolved
    standard = Path("active_learning_logs") / resolved.name
    return shlex.quote(resolved.name if shown == standard else str(shown))
