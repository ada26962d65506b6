"""Read run directories while they may be written."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alcore.codec import parse_toml
from alcore.errors import UsageError, did_you_mean
from alcore.store import facts
from alcore.store.database import Opened
from alcore.store.files import check_regular, check_run_folder, run_directory
from alcore.store.inbox import Inbox
from alcore.store.labels import Labels, refused
from alcore.store.lock import is_locked, noted
from alcore.store.reader import Reader
from alcore.store.requests import Requests
from alcore.store.rows import AcceptedLabel, RequestOutcome, value_text
from alcore.store.steps import Steps
from alcore.store.transfer import copy_until, decisions
from alcore.store.values import LabelValues
from alcore.store.verification import check_sound

_MOST_LOG = 65536  # bytes of the log that are read
_POSITION = re.compile(r"step ([0-9]{1,18}) ([a-z]{1,20}) epoch ([0-9]{1,18})", re.ASCII)


class Summary(NamedTuple):
    """A run on one line.

    Parameters
    ----------
    run_id
        Names the run.
    status
        ``done``, ``waiting`` (for labels), ``failed``, ``interrupted``, ``running``, ``stopped`` (its process is gone
        and recorded no reason), or ``unreadable``.
    reason
        Why it ended, or can't be read, if that is known.
    started
        When it began, in ISO 8601 format.
    steps
        Number of finished steps.
    labels
        Number of labels.
    metrics
        The fractions of its last metrology record, by name.
    on
        Where they were measured, if the record says: ``"pool"``, ``"validation"`` or ``"train"``.
    """

    run_id: str
    status: str
    reason: str | None
    started: str
    steps: int
    labels: int
    metrics: dict[str, float]
    on: str = ""


class Position(NamedTuple):
    """What a running process is doing.

    Parameters
    ----------
    step, phase
        The step under way, and its phase.
    epoch
        In the training phase, how many of its epochs are done.
    """

    step: int
    phase: str
    epoch: int


class Run:
    """A run directory, for reading.

    Parameters
    ----------
    folder
        The run directory.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "run.db").is_file():
            raise UsageError(f"{folder} is not a run directory: it has no run.db.")
        check_run_folder(folder, whole=False)
        self.folder, self._reader, self._values = folder, Reader(folder), LabelValues(folder / "labels")
        self._requests, self._steps = Requests(self._reader), Steps(self._reader)
        self._labels = Labels(self._reader, self._values)

    def meta(self) -> dict[str, Any]:
        """Return what is known about the run as a whole; ``status`` is ``stopped`` where the writer is gone."""
        return self._with_status(self._reader.read(facts.meta))

    def preprocessing(self) -> dict[str, Any] | None:
        """Return how the data makes inputs of a file, as it was when the run began; None where the data didn't say."""
        return self._reader.read(facts.preprocessing)

    def position(self) -> Position | None:
        """Return what the process that writes to the run is doing; None where there is none, or it has not begun."""
        position = _POSITION.fullmatch(noted(self.folder))
        return None if position is None else Position(int(position[1]), position[2], int(position[3]))

    def log(self, most: int) -> list[str]:
        """Return the last lines of ``console.log``, at most so many, and of its last 64 KiB."""
        try:
            descriptor = os.open(
                self.folder / "console.log", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            )
        except OSError:
            return []
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            size = os.fstat(descriptor).st_size
            file.seek(max(size - _MOST_LOG, 0))
            text = file.read(_MOST_LOG).decode(errors="replace")
        lines = text.splitlines()
        return lines[1 if size > _MOST_LOG else 0 :][-most:]

    def steps(self) -> list[dict[str, Any]]:
        """Return the records of the finished steps, with ``seconds`` by phase."""
        return self._steps.finished()

    def records(self) -> dict[str, list[Any]]:
        """Return the metrology records by strategy."""
        return self._steps.records_by_strategy()

    def requests(self, step: int | None = None, most: int | None = None) -> list[dict[str, Any]]:
        """Return requests with their current labels, in order; those of one step, or all; at most so many."""
        return self._requests.rows(step, most)

    def request_counts(self, step: int | None = None) -> dict[str, int]:
        """Return how many requests are ``open``, ``labeled`` and ``failed``; those of one step, or all."""
        return self._requests.counts(step)

    def states(self) -> list[RequestOutcome]:
        """Return what was asked for and what has become of it, in order."""
        return self._requests.states()

    @property
    def inbox(self) -> Inbox:
        """The answers that the run has not taken in yet."""
        return Inbox(self.folder / "inbox")

    def label_text(self, request: Mapping[str, Any]) -> str | None:
        """Return the value of a label as text, wherever it is, of a row of `requests`; None where there is none."""
        return value_text(request, self._values.read)

    def accepted(self, before: int) -> list[AcceptedLabel]:
        """Return the labels of the steps before this one, in the order in which the training pool got them."""
        with self._reader.connection() as connection:
            labels = Labels(Opened(connection), self._values)
            return [label for step in range(before) for label in labels.accepted(step)]

    def refused(self) -> list[dict[str, Any]]:
        """Return the answers that were not accepted, with the reasons."""
        return self._reader.read(refused)

    def unlabeled_requests(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return the requests whose label the training pool lacks, each with the last reason; at most so many.

        Their ``state`` is ``open``, ``failed`` (given up), or ``set aside``: the training pool refused the label.
        """
        return self._requests.unlabeled(most)

    def reasons(self, step: int | None = None) -> list[dict[str, Any]]:
        """Return why requests could not be labeled and answers were refused: ``kind``, ``reason``, ``count``."""
        return self._labels.reasons(step)

    def untrained_labels(self) -> int:
        """Return how many labels came after the last training, so that the learner doesn't know them.

        0 where the run doesn't train at all.
        """
        if _table(settings_of(self.folder), "driver").get("skip_training"):
            return 0
        return self._labels.untrained()

    def decisions(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return what the run decided, as rows by table: equal for equal runs, resumed or not, whatever their ids."""
        return self._reader.read(decisions)

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the checkpoints, oldest first: file, step, phase, epoch, sha256 and bytes."""
        return self._steps.checkpoints()

    def first_and_last_step(self) -> tuple[int, int] | None:
        """Return the first and the last finished step; None if there is none."""
        return self._steps.first_and_last()

    def is_committed(self, step: int) -> bool:
        """Return whether a step is finished."""
        return self._steps.is_committed(step)

    def summary(self) -> Summary:
        """Return the run on one line."""
        with self._reader.connection() as connection:
            meta, totals = self._with_status(facts.meta(connection)), Steps(Opened(connection)).totals()
        return Summary(
            self.folder.name,
            meta.get("status", "?"),
            meta.get("error") or meta.get("reason"),
            meta.get("started", ""),
            totals.steps,
            totals.labels,
            figures(totals.record),
            str(totals.record.get("on", "")) if isinstance(totals.record, dict) else "",
        )

    def read(self, query: str, *parameters: object) -> list[sqlite3.Row]:
        """Return all rows of one query, and close the database."""
        return self._reader.read(lambda connection: connection.execute(query, parameters).fetchall())

    def copy_database(self, target: Path, step: int) -> None:
        """Write what the database had at the end of a step, as it is at one moment, to a new file.

        What was answered later is open again.
        """
        with (
            self._reader.connection() as connection,
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            copy_until(connection, copy, step)

    def verify(self, *, until: int | None = None) -> None:
        """Check that the database is as its writers left it.

        Parameters
        ----------
        until
            The last step that matters; all of it where it is None.

        Raises
        ------
        UsageError
            If it is damaged, naming what is, and the newest step that is sound.
        """
        with self._reader.connection() as connection:
            check_sound(connection, self.folder / "run.db", until=until)

    def _with_status(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Return what is known about the run, with the status ``stopped`` where its writer is gone."""
        if meta.get("status") == "running" and not is_locked(self.folder):
            meta["status"] = "stopped"
        return meta


def figures(record: Any) -> dict[str, float]:
    """Return the fractions in a metrology record, which learning curves are drawn from."""
    if not isinstance(record, dict):
        return {}
    return {name: value for name, value in record.items() if isinstance(value, float)}


def step_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what a step measured, as observers get it with the hook ``alcore_step_end``: one number a name.

    Parameters
    ----------
    record
        With ``metrics``, and ``losses`` where the step trained.

    Returns
    -------
    dict of str to float
        ``STRATEGY.METRIC`` for each fraction in the records of the step, of equal names the last; ``loss.NAME`` for
        each loss.
    """
    losses = {f"loss.{name}": float(value) for name, value in record.get("losses", {}).items()}
    return losses | {
        f"{strategy}.{name}": value
        for strategy, records in record["metrics"].items()
        for metrics in records
        for name, value in figures(metrics).items()
    }


def settings_of(folder: Path) -> dict[str, Any]:
    """Return the tables of a run's ``experiment.toml``; empty where it is missing or can't be read.

    Of a run that was built in Python, those that describe it: ``driver``, ``learner``, ``strategies``, ``training``.
    """
    try:
        tree = parse_toml(check_regular(folder / "experiment.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return _table(tree, "python") or tree


def parts_of(tree: dict[str, Any]) -> dict[str, Any]:
    """Return what a run consists of, by its `settings_of`: ``data``, ``query``, ``learner``, ``label`` and more.

    The names of a kind are joined by commas. Of a run that was built in Python these are classes, where they are known;
    what is not known is empty.
    """
    parts: dict[str, Any] = dict.fromkeys(("data", "query", "learner", "label", "metrology", "seed"), "")
    parts["seed"] = _table(tree, "driver").get("seed", "")
    if "strategies" in tree:  # built in Python
        classes = {"data": ("training", "train_datapool"), "learner": ("learner", "class")}
        return parts | {
            kind: str(_table(tree, table).get(key, "")).rpartition(".")[2] for kind, (table, key) in classes.items()
        }
    for kind in ("data", "query", "learner", "label", "metrology"):
        table = _table(tree, kind)
        parts[kind] = ",".join(str(_table(table, name).get("use", name)) for name in table)
    return parts


def _table(tree: dict[str, Any], name: str) -> dict[str, Any]:
    table = tree.get(name, {})
    return table if isinstance(table, dict) else {}


def run_folders(root: Path) -> list[Path]:
    """Return the run directories in a root, in the order of their names."""
    if not root.is_dir():
        return []
    return sorted(
        folder for folder in root.iterdir() if not folder.name.startswith(".") and (folder / "run.db").is_file()
    )


def runs_within(root: Path) -> dict[str, Path]:
    """Return the run directories in a root, and those in its folders, such as that of a benchmark.

    Returns
    -------
    dict of str to pathlib.Path
        By their names relative to the root, ``a1`` or ``moons/uq-0``; first those in the root itself.
    """
    runs = {folder.name: folder for folder in run_folders(root)}
    for inside in sorted(root.iterdir()) if root.is_dir() else ():
        if not inside.name.startswith(".") and inside.name not in runs and not inside.is_symlink():
            runs |= {f"{inside.name}/{folder.name}": folder for folder in run_folders(inside)}
    return runs


def summaries(root: Path) -> Iterator[Summary]:
    """Yield every run of `runs_within`, oldest first; one that can't be read has the status ``unreadable``.

    The ``run_id`` of one in a folder of the root is its name relative to the root.
    """
    rows = []
    for name, folder in runs_within(root).items():
        try:
            rows.append(Run(folder).summary()._replace(run_id=name))
        except ValueError as error:  # a UsageError, or text that is not JSON
            rows.append(Summary(name, "unreadable", str(error), "", 0, 0, {}))
    yield from sorted(rows, key=lambda summary: (summary.started, summary.run_id))


def find_run(root: Path, text: str, *, verify: bool = True) -> Run:
    """Return the run that a user means, by its id, the start of its id, or its folder.

    Parameters
    ----------
    root
        Where runs are.
    text
        What the user calls it.
    verify
        Whether to check that its database is as its writers left it; what goes on with a run, or forks it, checks that
        itself.

    Raises
    ------
    UsageError
        If there is none, naming the nearest, or more than one; if it is damaged.
    """
    run = _found(root, text)
    if verify:
        run.verify()
    return run


def _found(root: Path, text: str) -> Run:
    if "/" in text or (Path(text) / "run.db").is_file():
        folder = Path(text)
        if not folder.exists() and text in (within := runs_within(root)):
            return Run(run_directory(within[text].parent, folder.name))
        return Run(folder if folder.name not in ("", "..") else folder.resolve())  # "./" has no name
    names = [folder.name for folder in run_folders(root)]
    if text in names:
        return Run(run_directory(root, text))
    matches = [name for name in names if name.startswith(text)]
    if len(matches) == 1:
        return Run(run_directory(root, matches[0]))
    if matches:
        raise UsageError(f"{text!r} is the start of {len(matches)} runs in {root}: {', '.join(matches)}.")
    raise UsageError(f"there is no run {text!r} in {root}: {did_you_mean(text, names)}. `alcore runs` lists them.")
