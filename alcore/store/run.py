"""The open run directory of a driver: everything that a run writes, and what it reads back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alcore.errors import UsageError
from alcore.store import checkpoints, exports, facts, retention
from alcore.store.answers import AnswerWriter
from alcore.store.checkpoints import StagedCheckpoint, checkpoint_name
from alcore.store.costs import Costs
from alcore.store.creation import appearing_run
from alcore.store.database import Database
from alcore.store.files import (
    cant_write,
    check_run_folder,
    checkpoint_path,
    records_path,
    remove_file,
    run_directory,
    write_whole,
)
from alcore.store.inbox import Inbox
from alcore.store.labels import Labels
from alcore.store.lock import RunLock
from alcore.store.requests import Requests
from alcore.store.rows import AskedRequest, Record
from alcore.store.steps import Steps
from alcore.store.transfer import Transfer, large_values
from alcore.store.values import LabelValues

_EXPORT_SECONDS = 1.0
"""The exports are not rewritten more often than that while the run goes on."""
_EXPORT_SHARE = 50
"""Nor before so many times as long has passed as the last rewriting took: a fiftieth of the time at most goes there."""


class RunStore:
    """The one writer of a run directory; made by `create` or `open`.

    Attributes
    ----------
    folder : pathlib.Path
        The run directory.
    inbox : Inbox
        Answers that arrived outside a labeling phase.
    requests : Requests
        What was asked for, and what has become of it.
    labels : Labels
        The labels, and the answers that are none.
    costs : Costs
        What was paid.
    steps : Steps
        The steps, with their metrology records and their checkpoints.
    transfer : Transfer
        What other ranks get of the database.
    """

    def __init__(self, folder: Path, lock: RunLock) -> None:
        self.folder = folder
        self.inbox = Inbox(folder / "inbox")
        self._use(Database(folder / "run.db"))
        self._lock = lock
        self._export_due = time.monotonic() + _EXPORT_SECONDS

    def _use(self, database: Database) -> None:
        """Read and write by this database."""
        self._database, self._values = database, LabelValues(self.folder / "labels")
        self.requests, self.labels = Requests(database), Labels(database, self._values)
        self.costs, self.steps = Costs(database), Steps(database)
        self.transfer = Transfer(database, self._values)

    @classmethod
    def create(
        cls, root: Path, run_id: str, *, meta: Mapping[str, Any], experiment: str, state: Mapping[str, Any]
    ) -> RunStore:
        """Make a run directory that appears complete, with its first checkpoint, or not at all.

        Parameters
        ----------
        root
            Folder of all runs; made if it does not exist.
        run_id
            Names the run.
        meta
            What is known about the run as a whole.
        experiment
            Text of ``experiment.toml``.
        state
            What the first checkpoint holds.

        Raises
        ------
        RunExistsError
            If something of this name exists; it is not touched.
        """
        with contextlib.ExitStack() as undo:
            with appearing_run(root, run_id) as hidden:
                lock = RunLock(hidden)
                undo.callback(lock.release)
                (hidden / "ckpt").mkdir()
                (hidden / "inbox").mkdir()
                write_whole(hidden / "experiment.toml", experiment, durable=True)
                database = Database(hidden / "run.db")
                first = checkpoints.publish(hidden / "ckpt", "initial", state)
                with database.transaction() as connection:
                    facts.set_meta(connection, meta)
                    Steps(database).name_checkpoint(0, "start", 0, *first)
                database.close()  # SQLite can't write across the rename
            store = cls(run_directory(root, run_id), lock)
            undo.pop_all()
        return store

    @classmethod
    def open(cls, root: Path, run_id: str) -> RunStore:
        """Open an existing run directory as its one writer; files in ``ckpt`` that the run does not name are removed.

        Raises
        ------
        UsageError
            If there is none.
        RunLockedError
            If another process is writing to it.
        """
        folder = run_directory(root, run_id)
        if not (folder / "run.db").is_file():
            raise UsageError(f"there is no run {run_id!r} in {root}; `alcore runs` lists what is there.")
        check_run_folder(folder, whole=True)
        with contextlib.ExitStack() as undo:
            lock = RunLock(folder)
            undo.callback(lock.release)
            store = cls(folder, lock)
            undo.callback(store._database.close)
            store._remove_unnamed()
            undo.pop_all()
        return store

    def meta(self) -> dict[str, Any]:
        """Return what is known about the run as a whole."""
        return self._database.read(facts.meta)

    def set_meta(self, **values: Any) -> None:
        """Commit what is known about the run as a whole; other keys stay."""
        with self._database.transaction() as connection:
            facts.set_meta(connection, values)

    def note_position(self, step: int, phase: str, epoch: int = 0) -> None:
        """Note for readers what is under way; nothing of it is kept.

        Parameters
        ----------
        step, phase
            The step and its phase.
        epoch
            How many epochs of the training are done.
        """
        self._lock.note(f"step {step} {phase} epoch {epoch}")

    def check_usable(self) -> None:
        """Raise `UsageError` if nothing can be written: after `close`, and in a forked child."""
        self._database.check_usable()

    @property
    def committing(self) -> bool:
        """Whether a transaction is under way."""
        return self._database.committing

    def export(self) -> None:
        """Rewrite the files that are made from the database.

        The longer that takes, since it grows with the run, the later they are due again.
        """
        began = time.perf_counter()
        try:
            self._database.read(lambda connection: exports.write_all(connection, self.folder))
        except OSError as error:
            raise cant_write(self.folder, error) from error
        took = time.perf_counter() - began
        self._export_due = time.monotonic() + max(_EXPORT_SECONDS, _EXPORT_SHARE * took)

    def finish(self, records: Sequence[Record], **end: Any) -> None:
        """Rewrite the exports, after a commit of what is not committed yet.

        Parameters
        ----------
        records
            Of metrology.
        **end
            How the run ended; nothing where its last step has committed that.
        """
        if records or end:
            with self._database.transaction() as connection:
                self.steps.insert_records(records)
                facts.set_meta(connection, end)
        self.export()

    def close(self) -> None:
        """Close the database and release the lock; calling it again does nothing."""
        self._database.close()
        self._lock.release()

    def commit_query(self, step: int, asked: Sequence[AskedRequest], records: Sequence[Record], model: str) -> None:
        """Commit the requests of a query phase together with the metrology records before it."""
        with self._database.transaction():
            self.requests.insert(step, asked, model)
            self.steps.insert_records(records)

    @contextlib.contextmanager
    def answering(self, step: int) -> Iterator[AnswerWriter]:
        """Give what writes answers of the labeling phase of a step, all of them in one transaction."""
        with self._database.transaction() as connection:
            writer = AnswerWriter(connection, step, self._values.write)
            try:
                yield writer
                writer.end()
            finally:
                self.costs.changed(writer.first_step)

    def reopen_requests(self, requests: Sequence[str]) -> None:
        """Commit that requests which were given up, or whose labels were set aside, are to be asked again."""
        self.requests.reopen(requests)
        self.costs.forget()

    def commit_checkpoint(self, step: int, phase: str, epoch: int, state: Mapping[str, Any]) -> None:
        """Publish a checkpoint inside a step, and name it."""
        staged = self._staged(checkpoint_name(step, phase, epoch), state)
        with staged as checkpoint, self._database.transaction():
            replaced = self._publish(step, phase, epoch, checkpoint)
        self._remove_checkpoints(replaced)

    def commit_step(
        self,
        step: int,
        record: Mapping[str, Any],
        seconds: Mapping[str, float],
        records: Sequence[Record],
        state: Mapping[str, Any] | None,
        end: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit the end of a step: its checkpoint file first, then its row and what was still uncommitted.

        Parameters
        ----------
        step
            Its number.
        record, seconds
            What it did, and how long its phases took.
        records
            Of metrology, those that are not committed yet.
        state
            For its checkpoint; None where none is due.
        end
            How the run ends with it; None where it goes on.
        """
        staged = contextlib.nullcontext() if state is None else self._staged(checkpoint_name(step, "labeling"), state)
        with staged as checkpoint, self._database.transaction() as connection:
            replaced = self._publish(step, "labeling", 0, checkpoint)
            self.steps.insert_records(records)
            self.steps.insert(step, record, seconds)
            facts.set_meta(connection, end or {})
        self._remove_checkpoints(replaced)
        if time.monotonic() >= self._export_due:
            self.export()

    def prune(self, keep: retention.Retention) -> list[str]:
        """Delete the checkpoints that a retention does not keep: their rows in one transaction, then the files.

        Returns
        -------
        list of str
            Warnings.
        """
        rows = self.steps.checkpoints()
        figures = {} if keep.best is None else self.steps.figures_at_checkpoints()
        dropped, warnings = retention.to_drop(rows, keep, figures)
        if dropped:
            self.steps.delete_checkpoints(dropped)
            self._remove_checkpoints(dropped)
        return warnings

    @contextlib.contextmanager
    def _staged(self, name: str, state: Mapping[str, Any]) -> Iterator[StagedCheckpoint | None]:
        """Write a checkpoint under a temporary name."""
        with checkpoints.staged(self.folder / "ckpt", name, state) as checkpoint:
            yield checkpoint

    def _publish(self, step: int, phase: str, epoch: int, checkpoint: StagedCheckpoint | None) -> list[str]:
        """Give a checkpoint its name, in the folder and in the database; return the files that it replaces."""
        if checkpoint is None:
            return []
        return self.steps.name_checkpoint(step, phase, epoch, *checkpoint.publish(self.steps.checkpoint_digests(step)))

    def _remove_checkpoints(self, files: Sequence[str]) -> None:
        """Remove checkpoint files that the database does not name any more."""
        for file in files:
            remove_file(checkpoint_path(self.folder, file))

    def _remove_unnamed(self) -> None:
        """Remove files that a killed process left and the database doesn't name; refuse names that lead out of here."""
        named = {checkpoint_path(self.folder, row["file"]) for row in self.steps.checkpoints()}
        for strategy in self.steps.recorded_strategies():
            records_path(self.folder, strategy)
        with contextlib.suppress(FileNotFoundError):
            for path in (self.folder / "ckpt").iterdir():
                if path not in named:
                    remove_file(path)
        self._values.remove_unnamed(self._database.read(large_values))
