"""An open run: its directory, its log, its phases, and the record of the step under way; and what is left of it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from alcore.codec import dumps, loads
from alcore.driver.checkpointing import Checkpointer, CheckpointSchedule, TrainingProgress
from alcore.driver.interruption import Interruption
from alcore.driver.labeling import LabelingPhase
from alcore.driver.position import RunPosition
from alcore.driver.rank_scope import RankScope
from alcore.driver.request_queue import RequestQueue
from alcore.driver.run_log import RunLog, WarnOnce
from alcore.driver.step_record import StepRecord
from alcore.errors import UsageError
from alcore.plugins.listeners import Listeners
from alcore.protocols import EndReason, Phase, Spent
from alcore.store.endings import GOES_ON, facts_of, untrained
from alcore.store.facts import utc_now
from alcore.store.rows import AskedRequest, Record
from alcore.store.run import RunStore

_MOST_REASONS = 5
"""So many reasons of failures are logged after a labeling phase, the most frequent ones."""


@dataclasses.dataclass
class ClosedRun:
    """What is left in this process of a run whose directory is closed.

    Parameters
    ----------
    record
        What the step under way has done.
    bought
        How many labels were bought, and what they cost.
    unanswered
        The samples that were asked for and have no answer.
    position
        Where the run is.
    generators
        State of the global random generators, for a run that waits and goes on in this process.
    """

    record: StepRecord
    bought: Spent
    unanswered: set[int]
    position: RunPosition
    generators: Mapping[str, Any]

    def spent(self) -> Spent:
        """Return how many labels were bought, and what they cost."""
        return self.bought

    def pending(self, queue: RequestQueue) -> set[int]:
        """Return the samples that have no answer, with those that are asked for now."""
        return self.unanswered | samples_of(queue.asked) if self.position.phase is Phase.QUERY else self.unanswered


class RunSession:
    """An open run.

    Parameters
    ----------
    store
        Its directory.
    position
        Where the run is; the session sets the phase.
    logger, warn_once
        What writes to its log.
    listeners
        Observers and stop criteria.
    checkpointer, schedule
        Collects the state for checkpoints; when they are due.
    training
        Checkpoints inside a step; None where the run doesn't train.
    labeling
        The labeling phase.
    scope, interruption
        The processes of the run, and whether it was asked to end.
    budget
        What the run may spend; it stands beside the reason for its end.
    last_recorded
        The last step of which anything is on record, when the session begins; -1 if there is none.
    resumed_record
        What the step that is resumed has recorded already.

    Attributes
    ----------
    record : StepRecord
        What the step under way has done.
    """

    def __init__(
        self,
        store: RunStore,
        position: RunPosition,
        logger: logging.Logger,
        warn_once: WarnOnce,
        listeners: Listeners,
        checkpointer: Checkpointer,
        schedule: CheckpointSchedule,
        training: TrainingProgress | None,
        labeling: LabelingPhase,
        scope: RankScope,
        interruption: Interruption,
        *,
        budget: float | None = None,
        last_recorded: int = -1,
        resumed_record: Mapping[str, Any] | None = None,
    ) -> None:
        self.store, self.training, self.labeling = store, training, labeling
        self._position, self._logger, self._warn_once, self._listeners = position, logger, warn_once, listeners
        self._checkpointer, self._schedule = checkpointer, schedule
        self._scope, self._interruption = scope, interruption
        self._budget, self._last_recorded = budget, last_recorded
        self._resumed_record = dict(resumed_record or {})
        self._uncommitted: list[Record] = []
        self.record = StepRecord.begin(position.step, None)
        self._log = RunLog(logger, store.folder / "console.log", lambda: self.replaying)

    @property
    def replaying(self) -> bool:
        """Whether the step under way was run before, so that what it decided is on record."""
        return self._position.step <= self._last_recorded

    def begin_step(self, train_samples: int | None) -> None:
        """Begin the record of a step."""
        if self.record.end is not None:  # those who call the steps by hand go on
            self.store.set_meta(**GOES_ON)
        self.record = StepRecord.begin(self._position.step, train_samples)
        self.record.values |= self._resumed_record
        self._resumed_record = {}

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Call observers at both ends of a phase, time it, and note in any exception where it was raised."""
        if self._position.phase is not None:
            raise UsageError(
                f"the {phase} phase of run {self._position.run_id} can't be run inside its {self._position.phase} "
                "phase."
            )
        self._interruption.agreed_safe_point()
        self._position.phase = phase
        self.store.note_position(self._position.step, phase.value)
        self._listeners.call("alcore_phase_start", phase=phase, replayed=self.replaying)
        began, failure = time.perf_counter(), None
        try:
            yield
        except BaseException as error:
            failure = error
            error.add_note(f"in the {phase} phase of step {self._position.step} of run {self._position.run_id}")
            raise
        finally:
            self._position.phase = None
            self.record.seconds[phase.value] = round(time.perf_counter() - began, 6)
            self._listeners.call("alcore_phase_end", phase=phase, error=failure, replayed=self.replaying)

    def saves_after_training(self) -> bool:
        """Whether a checkpoint is due when the step under way has trained."""
        return self._schedule.is_due_after_training(self._position.step)

    def add_metrics(self, strategy: str, values: Sequence[Any]) -> Sequence[Any]:
        """Add records of a metrology strategy, to be committed with the requests of the step.

        Returns
        -------
        sequence
            What counts: the records of rank 0, and in a replay that came out differently, those on record.
        """
        step = self._position.step
        values = self._scope.current.share(lambda: list(values))
        kept = self.record.metrics.setdefault(strategy, [])
        if self.replaying and (texts := self.store.steps.record_texts(step, strategy)):
            recorded = [loads(text) for text in texts][len(kept) : len(kept) + len(values)]
            if [dumps(value) for value in recorded] != [dumps(value) for value in values]:
                self._logger.warning(
                    "%s measured differently when step %d was replayed; what is on record counts", strategy, step
                )
                values = recorded
        self._uncommitted += [Record(step, strategy, place, value) for place, value in enumerate(values, len(kept))]
        kept += values
        return values

    def commit_requests(self, queue: RequestQueue, model: str) -> None:
        """Commit what the query strategies asked for, and the records of metrology.

        Parameters
        ----------
        queue
            What was asked for. In a replay it gets what is on record, which was paid for.
        model
            Digest of the learner that chose.
        """
        step = self._position.step
        recorded = self.store.requests.asked(step) if self.replaying else None
        if recorded is not None:
            self._compare(queue.asked, recorded)
            queue.adopt(recorded)
        self.record.values["requested"] += len(queue.asked)
        for reason, count in sorted(queue.dropped.items()):
            self._logger.warning("%d requests were dropped: %s", count, reason)
        if recorded is None:
            self.store.commit_query(step, queue.asked, self._uncommitted, model)
        self._uncommitted = []

    def _compare(self, asked: Sequence[AskedRequest], recorded: Sequence[AskedRequest]) -> None:
        """Warn of query strategies that chose differently in a replay."""
        chosen = [
            {(asked_request.strategy, dumps(asked_request.request.item)) for asked_request in side}
            for side in (asked, recorded)
        ]
        for strategy in sorted({name for name, _ in chosen[0] ^ chosen[1]}):
            self._logger.warning(
                "%s asked for other samples when step %d was replayed; what is on record counts",
                strategy,
                self._position.step,
            )

    def add_label_counts(self, counts: Mapping[str, int]) -> None:
        """Record how many requests were labeled or failed, and how many answers were refused."""
        self.record.values |= {name: counts[name] for name in ("labeled", "failed", "refused")}
        for name, words in (("failed", "requests could not be labeled"), ("refused", "answers were refused")):
            if counts[name]:
                self._logger.warning("%d %s", counts[name], words)
        if counts["failed"] or counts["refused"]:
            for reason in self.store.labels.reasons(self._position.step)[:_MOST_REASONS]:
                self._logger.warning("%d times, %s: %s", reason["count"], reason["kind"], reason["reason"])
        if counts.get("taken"):
            self._warn_once(
                "the label strategy has taken requests and not answered them; they are not handed out again until it "
                "answers them, reports alcore.Failed, or gives them back with queue_to_label.give_back(request)"
            )

    def end_step(self, reason: EndReason | None) -> None:
        """Commit the step, with a checkpoint if one is due, and call the observers.

        Parameters
        ----------
        reason
            Why the run ends with this step, which is committed with it; None where it goes on.
        """
        step, self.record.end = self._position.step, reason
        due = self._schedule.is_due_after_step(step, is_last=reason is not None)
        end = None if reason is None else self._end(reason, None)
        state = self._checkpointer.collect(step=step, phase=Phase.LABELING.value, epoch=0) if due else None
        records, self._uncommitted = self._uncommitted, []
        self.store.commit_step(step, self.record.values, self.record.seconds, records, state, end)
        if self.training is not None:
            self.training.end_step()
        self._prune()
        self._logger.info("step %d: %s", step, self.record.summary())
        self._listeners.call("alcore_step_end", record=self.record.for_observers(), replayed=self.replaying)

    def spent(self) -> Spent:
        """Return how many labels were bought in earlier steps, and what they cost."""
        return self.store.costs.bought(self._position.step)

    def pending(self, queue: RequestQueue) -> set[int]:
        """Return the samples that were asked for and have no answer yet.

        Parameters
        ----------
        queue
            What is asked for now.
        """
        step = self._position.step
        if self._position.phase is Phase.QUERY:
            asked = [asked for asked in queue.asked if asked.request.step == step]  # an earlier step's, until it begins
            return samples_of(asked).union(self.store.requests.pending_samples(step, queue.first_ordinal))
        has_chosen = self.record.step == step and Phase.QUERY.value in self.record.seconds
        return set(self.store.requests.pending_samples(step + 1 if has_chosen else step))

    def _prune(self) -> None:
        """Delete the checkpoints that the user doesn't want to keep."""
        if self._schedule.retention is not None and self._scope.all.main:
            for warning in self.store.prune(self._schedule.retention):
                self._warn_once(warning)

    def repeat_step_end(self, step: int, listeners: Collection[str], metrology: Sequence[str]) -> None:
        """Repeat the hook ``alcore_step_end``: the state of these listeners in the checkpoint predates it.

        Parameters
        ----------
        step
            The step, which is committed.
        listeners
            Their names.
        metrology
            The names of the metrology strategies.
        """
        values = self.store.steps.record(step)
        if values is None or not listeners:
            return
        seconds = values.pop("seconds")
        record = StepRecord(step, values, seconds)
        if Phase.METROLOGY.value in seconds:
            record.metrics = {
                name: [loads(text) for text in self.store.steps.record_texts(step, name)] for name in metrology
            }
        now, self._position.step = self._position.step, step
        try:
            self._listeners.call("alcore_step_end", only=listeners, record=record.for_observers(), replayed=True)
        finally:
            self._position.step = now

    def _log_untrained(self, reason: EndReason | None) -> None:
        """Log how many labels no training has used, where the run has done what it was started for."""
        if self.training is None or (reason is not None and reason.kind.status != "done"):
            return
        if left := untrained(self.store.labels.untrained()):
            self._logger.info("run %s: %s", self._position.run_id, left)

    def end(self, reason: EndReason | None, error: BaseException | None) -> None:
        """Commit how the run ended, and call the observers.

        What the last step has committed stands: an error that comes after it, a second Ctrl-C perhaps, is raised, and
        the run has ended nevertheless.
        """
        end = self._end(reason, error)
        try:
            if self.training is not None:
                self.training.save_kept(error, waits=end["status"] == "waiting")
            if error is None:
                self._logger.info("run %s ends: %s", self._position.run_id, reason)
                self._log_untrained(reason)
            else:
                self._logger.error("run %s ends: %s", self._position.run_id, end["status"], exc_info=error)
            self._listeners.call("alcore_run_end", reason=reason, error=error)
            records, self._uncommitted = self._uncommitted, []
            ended = self.store.meta().get("end") is not None  # also where the commit of the last step gave an error
            self.store.finish(records, **({} if ended else end))
            if error is None:  # the final training has saved one more
                self._prune()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"and this could not be recorded: {type(failure).__name__}: {failure}")

    def close(self, generators: Mapping[str, Any]) -> ClosedRun:
        """Close everything that is open; return what is left of the run, with this state of the random generators."""
        closed = ClosedRun(self.record, Spent(0, 0.0), set(), self._position, generators)
        with contextlib.suppress(Exception):  # the disk may be the reason for the end
            closed.bought, closed.unanswered = self.spent(), set(self.store.requests.open_samples())
        self.store.close()
        self._log.close()
        return closed

    def _end(self, reason: EndReason | None, error: BaseException | None) -> dict[str, Any]:
        return facts_of(reason, error, ended=utc_now(), budget=self._budget)


def samples_of(asked: Sequence[AskedRequest]) -> set[int]:
    """Return the samples among what was asked for."""
    return {request.sample for request in asked if request.sample is not None}
