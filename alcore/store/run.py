"""The open run directory of a driver: everything that a run writes, and what it reads back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alcore.errors import UsageError
from alcore.protocols import Request, Spent
from alcore.store import checkpoints, exports, retention, tables
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
from alcore.store.lock import RunLock
from alcore.store.tables import AcceptedLabel, AnswerWriter, AskedRequest, LabelingState, Record
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
    """

    def __init__(self, folder: Path, lock: RunLock) -> None:
        self.folder = folder
        self.inbox = Inbox(folder / "inbox")
        self._values = LabelValues(folder / "labels")
        self._database = Database(folder / "run.db")
        self._costs = Costs()
        self._lock = lock
        self._export_due = time.monotonic() + _EXPORT_SECONDS

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
                    tables.set_meta(connection, meta)
                    tables.name_checkpoint(connection, 0, "start", 0, *first)
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
            store._check_names()
            store._remove_unnamed_checkpoints()
            store._values.remove_unnamed(store._database.read(tables.large_values))
            undo.pop_all()
        return store

    # -- the run as a whole ----------------------------------------------------------------------------------

    def meta(self) -> dict[str, Any]:
        """Return what is known about the run as a whole."""
        return self._database.read(tables.meta)

    def set_meta(self, **values: Any) -> None:
        """Commit what is known about the run as a whole; other keys stay."""
        with self._database.transaction() as connection:
            tables.set_meta(connection, values)

    def tell_position(self, step: int, phase: str, epoch: int = 0) -> None:
        """Tell readers what is under way; nothing of it is kept.

        Parameters
        ----------
        step, phase
            The step and its phase.
        epoch
            How many epochs of the training are done.
        """
        self._lock.tell(f"step {step} {phase} epoch {epoch}")

    def check_usable(self) -> None:
        """Raise `UsageError` if nothing can be written: after `close`, and in a forked child."""
        self._database.check_usable()

    @property
    def committing(self) -> bool:
        """Whether a transaction is under way."""
        return self._database.committing

    def image(self) -> bytes:
        """Return the whole database as bytes, for `alcore.store.replica.Replica`."""
        return self._database.image(self._values.read)

    def export(self) -> None:
        """Rewrite the files that are made from the database.

        The longer that takes, since it grows with the run, the later they are due again.
        """
        began = time.perf_counter()
        try:
            self._database.read(exports.write_all, self.folder)
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
                tables.insert_records(connection, records)
                tables.set_meta(connection, end)
        self.export()

    def close(self) -> None:
        """Close the database and release the lock; calling it again does nothing."""
        self._database.close()
        self._lock.release()

    # -- requests --------------------------------------------------------------------------------------------

    def commit_query(self, step: int, asked: Sequence[AskedRequest], records: Sequence[Record], model: str) -> None:
        """Commit the requests of a query phase together with the metrology records before it."""
        with self._database.transaction() as connection:
            tables.insert_query(connection, step, asked, model)
            tables.insert_records(connection, records)

    def asked_requests(self, step: int) -> list[AskedRequest] | None:
        """Return what a query phase asked for, in order; None if it is not committed."""
        return self._database.read(tables.asked_requests, step)

    def requested_samples(self, before: int) -> list[int]:
        """Return the samples that were asked for in the steps before this one."""
        return self._database.read(tables.requested_samples, before)

    def pending_samples(self, step: int, ordinal: int = 0) -> list[int]:
        """Return the samples of requests before this one that had no answer when this step's query phase began."""
        return self._database.read(tables.pending_samples, step, ordinal)

    def open_samples(self) -> list[int]:
        """Return the samples that were asked for and have no answer."""
        return self._database.read(tables.open_samples)

    def infeasible(self, before: int) -> list[Any]:
        """Return the samples and inputs that failed as infeasible before this step, and had no label then."""
        return self._database.read(tables.infeasible, before)

    def labeled_samples(self, before: int) -> list[int]:
        """Return the samples that were labeled in the steps before this one."""
        return self._database.read(tables.labeled_samples, before)

    def waits_before(self, step: int) -> bool:
        """Tell whether a request of an earlier step was open when this step began."""
        return self._database.read(tables.waits_before, step)

    def committed_cost(self, before: int | None = None) -> float:
        """Return what the current labels cost, plus what the open requests are expected to cost.

        Parameters
        ----------
        before
            As it was known at the query phase of this step; now where it is None.
        """
        return self._database.read(self._costs.committed, before)

    def mean_cost(self, before: int) -> float | None:
        """Return what an answer has cost on average before a step; None before the first."""
        return self._database.read(self._costs.mean, before)

    def last_answers(self, most: int) -> list[bool]:
        """Return whether each of the last answers was a failure, the oldest first."""
        return self._database.read(tables.last_answers, most)

    def reasons(self, step: int | None) -> list[dict[str, Any]]:
        """Return why requests could not be labeled and answers were refused, by kind, with their number."""
        return self._database.read(tables.reasons, step)

    def forget_failures(self) -> None:
        """Commit that answers which came so far don't count as failures any more, since the user resumes the run."""
        with self._database.transaction() as connection:
            tables.forget_failures(connection)

    def untrained_labels(self) -> int:
        """Return how many current labels arrived after the last training; all of them where there was none."""
        return self._database.read(tables.untrained_labels)

    def bought(self, before: int) -> Spent:
        """Return how many current labels arrived before a step, and what they and failed attempts cost."""
        paid = self._database.read(self._costs.paid, before)
        return Spent(paid.labels, float(paid.cost))

    def mark_taken(self, requests: Sequence[Request]) -> None:
        """Commit that a label strategy is about to work on requests."""
        with self._database.transaction() as connection:
            tables.set_taken(connection, [one.id for one in requests], True)

    def mark_given_back(self, requests: Sequence[Request]) -> None:
        """Commit that a label strategy doesn't work on requests any more, and has not answered them."""
        with self._database.transaction() as connection:
            tables.set_taken(connection, [one.id for one in requests], False)

    def set_handle(self, request: Request, handle: str) -> bool:
        """Commit the name of the job that answers a request; return whether the request is open."""
        with self._database.transaction() as connection:
            return tables.set_handle(connection, request.id, handle)

    def in_flight(self) -> list[Request]:
        """Return the open requests that a label strategy has taken out and not answered, oldest first."""
        return self._database.read(tables.in_flight)

    def release_in_flight(self, *, drop_in: int | None = None, kept: Iterable[str] = ()) -> None:
        """Make requests in flight plain open ones, or give them up in the labeling phase of a step, but for some."""
        with self._database.transaction() as connection:
            if drop_in is not None:
                tables.give_up_in_flight(connection, drop_in, kept)
            tables.clear_taken(connection)

    def reopen_requests(self, requests: Sequence[str]) -> None:
        """Commit that requests which were given up, or whose labels were set aside, are to be asked again."""
        with self._database.transaction() as connection:
            for request in requests:
                tables.reopen_request(connection, request)
        self._costs.forget()

    # -- labels ----------------------------------------------------------------------------------------------

    def labeling(self, step: int) -> LabelingState:
        """Return a labeling phase as it is committed."""
        return self._database.read(tables.labeling, step, self._values.read)

    @contextlib.contextmanager
    def answering(self, step: int) -> Iterator[AnswerWriter]:
        """Give what writes answers of the labeling phase of a step, all of them in one transaction."""
        with self._database.transaction() as connection:
            writer = AnswerWriter(connection, step, self._values.write)
            try:
                yield writer
                writer.end()
            finally:
                self._costs.changed(writer.first_step)

    def inbox_file(self) -> str | None:
        """Return the file of the inbox whose answers were committed last; it may not have been removed yet."""
        return self._database.read(tables.inbox_file)

    def end_labeling(self, step: int) -> None:
        """Commit that a labeling phase is over, which matters where it leaves requests open."""
        with self._database.transaction() as connection:
            tables.end_labeling(connection, step)

    def reopen_labeling(self) -> None:
        """Take back that a labeling phase is over, for those who call the phases by hand and begin it again."""
        with self._database.transaction() as connection:
            tables.reopen_labeling(connection)

    def accepted(self, step: int) -> list[AcceptedLabel]:
        """Return the labels that a labeling phase has accepted so far, in the order of their requests."""
        return self._database.read(tables.accepted, step, self._values.read)

    def second_opinions(self, step: int) -> set[str]:
        """Return the requests that a labeling phase has labeled, and whose samples have another label than this."""
        return self._database.read(tables.second_opinions, step)

    def label_counts(self, step: int) -> dict[str, int]:
        """Return how many requests a labeling phase labeled or gave up, and how many answers it did not accept."""
        return self._database.read(tables.label_counts, step)

    def label_strategy_state(self) -> str | None:
        """Return the state of the label strategy that was committed last, if one was."""
        return self._database.read(tables.label_strategy_state)

    def label_rows(self, step: int) -> list[list[Any]]:
        """Return the labels that arrived in a step, as rows."""
        return self._database.read(tables.label_rows, step)

    def label_changes(self, step: int) -> dict[str, Any]:
        """Return what the labeling phase of a step has changed, for `Replica.apply_label_changes`."""
        return self._database.read(tables.label_changes, step, self._values.read)

    # -- records ---------------------------------------------------------------------------------------------

    def records(self, before: int, strategy: str) -> list[Any]:
        """Return the records of a metrology strategy in the steps before this one."""
        return self._database.read(tables.records, before, strategy)

    def record_texts(self, step: int, strategy: str) -> list[str]:
        """Return a metrology strategy's records of a step as they are stored."""
        return self._database.read(tables.record_texts, step, strategy)

    # -- steps and checkpoints -------------------------------------------------------------------------------

    def commit_checkpoint(self, step: int, phase: str, epoch: int, state: Mapping[str, Any]) -> None:
        """Publish a checkpoint inside a step, and name it."""
        staged = self._staged(checkpoint_name(step, phase, epoch), state)
        with staged as checkpoint, self._database.transaction() as connection:
            replaced = _publish(connection, step, phase, epoch, checkpoint)
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
            replaced = _publish(connection, step, "labeling", 0, checkpoint)
            tables.insert_records(connection, records)
            tables.insert_step(connection, step, record, seconds)
            tables.set_meta(connection, end or {})
        self._remove_checkpoints(replaced)
        if time.monotonic() >= self._export_due:
            self.export()

    def step_record(self, step: int) -> dict[str, Any] | None:
        """Return the record of a step, with ``seconds`` by phase; None where it is not finished."""
        return self._database.read(tables.step_record, step)

    def is_committed(self, step: int) -> bool:
        """Tell whether a step is committed as a whole."""
        return self._database.read(tables.is_committed, step)

    def steps_committed(self) -> int:
        """Return the step after the last one that is committed as a whole; there may be gaps before it."""
        return self._database.read(tables.steps_committed)

    def last_step(self) -> int:
        """Return the last step of which anything is committed; -1 if there is none."""
        return self._database.read(tables.last_step)

    def first_training_step(self) -> int | None:
        """Return the first step that had anything to train on, in a run that began with nothing labeled."""
        return self._database.read(tables.first_training_step)

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the checkpoints, oldest first: file, step, phase, epoch, sha256 and bytes."""
        return self._database.read(tables.checkpoints)

    def prune(self, keep: retention.Retention) -> list[str]:
        """Delete the checkpoints that a retention does not keep: their rows in one transaction, then the files.

        Returns
        -------
        list of str
            Warnings.
        """
        rows = self.checkpoints()
        figures = {} if keep.best is None else self._database.read(tables.figures_at_checkpoints)
        dropped, warnings = retention.to_drop(rows, keep, figures)
        if dropped:
            with self._database.transaction() as connection:
                tables.delete_checkpoints(connection, dropped)
            self._remove_checkpoints(dropped)
        return warnings

    @contextlib.contextmanager
    def _staged(self, name: str, state: Mapping[str, Any]) -> Iterator[StagedCheckpoint | None]:
        """Write a checkpoint under a temporary name."""
        with checkpoints.staged(self.folder / "ckpt", name, state) as checkpoint:
            yield checkpoint

    def _check_names(self) -> None:
        """Refuse names in the database that would lead out of the run directory."""
        for row in self.checkpoints():
            checkpoint_path(self.folder, row["file"])
        for strategy in self._database.read(tables.recorded_strategies):
            records_path(self.folder, strategy)

    def _remove_checkpoints(self, files: Sequence[str]) -> None:
        """Remove checkpoint files that the database does not name any more."""
        for file in files:
            remove_file(checkpoint_path(self.folder, file))

    def _remove_unnamed_checkpoints(self) -> None:
        """Remove what a process that was killed left in the ``ckpt`` folder."""
        named = {checkpoint_path(self.folder, row["file"]) for row in self.checkpoints()}
        with contextlib.suppress(FileNotFoundError):
            for path in (self.folder / "ckpt").iterdir():
                if path not in named:
                    remove_file(path)


def _publish(connection: Any, step: int, phase: str, epoch: int, checkpoint: StagedCheckpoint | None) -> list[str]:
    """Give a checkpoint its name, in the folder and in the database; return the files that it replaces."""
    if checkpoint is None:
        return []
    published = checkpoint.publish(tables.checkpoint_digests(connection, step))
    return tables.name_checkpoint(connection, step, phase, epoch, *published)
