"""An open run: its directory, its log, its phases, and the record of the step under way."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from alcore.codec import dumps, loads
from alcore.distributed.ranks import Ranks
from alcore.driver.checkpointing import Checkpointer, TrainingProgress
from alcore.driver.interruption import Interruption
from alcore.driver.rank_scope import RankScope
from alcore.driver.request_queue import RequestQueue
from alcore.driver.run_log import RunLog, WarnOnce
from alcore.driver.step_record import StepRecord
from alcore.errors import UsageError
from alcore.plugins.listeners import Listeners
from alcore.protocols import EndReason, Phase, Spent
from alcore.randomness import global_rng_state
from alcore.store.endings import GOES_ON, facts_of, untrained
from alcore.store.replica import Replica
from alcore.store.retention import Retention
from alcore.store.run import RunStore
from alcore.store.tables import AskedRequest, Record, utc_now

_MOST_REASONS = 5
"""So many reasons of failures are logged after a labeling phase, the most frequent ones."""


class RunPosition:
    """Where a run is: the step and the phase under way.

    Attributes
    ----------
    step : int
        The step under way, or the number of finished ones between steps.
    phase : Phase or None
        The phase under way.
    """

    def __init__(self) -> None:
        self.step = 0
        self.phase: Phase | None = None


class RunSession:
    """An open run.

    Parameters
    ----------
    store
        Its directory.
    run_id, log_dir, logger, warn_once
        Its name, where ``console.log`` is written, and what writes there.
    position
        Where the run is; the session sets the phase.
    listeners
        Observers and stop criteria.
    checkpointer
        Collects the state for checkpoints.
    training
        Checkpoints inside a step; None where the run doesn't train.
    scope, interruption
        The processes of the run, and whether it was asked to end.
    checkpoint_on
        The phases of such a step after which one is saved.
    checkpoint_interval
        Save a checkpoint at the end of every so many steps.
    retention
        Which checkpoints to keep; None keeps all.
    budget
        What the run may spend; it stands beside the reason for its end.
    last_recorded
        The last step of which anything is on record, when the session begins; -1 if there is none.
    resumed_record
        What the step that is resumed has recorded already.
    """

    def __init__(
        self,
        store: RunStore,
        run_id: str,
        log_dir: Path,
        logger: logging.Logger,
        warn_once: WarnOnce,
        position: RunPosition,
        listeners: Listeners,
        checkpointer: Checkpointer,
        training: TrainingProgress | None,
        scope: RankScope,
        interruption: Interruption,
        *,
        checkpoint_interval: int,
        checkpoint_on: Collection[Phase] = (Phase.LABELING,),
        retention: Retention | None,
        budget: float | None,
        last_recorded: int = -1,
        resumed_record: Mapping[str, Any] | None = None,
    ) -> None:
        self.store, self.training = store, training
        self._run_id, self._logger, self._warn_once = run_id, logger, warn_once
        self._position, self._listeners = position, listeners
        self._checkpointer, self._scope, self._interruption = checkpointer, scope, interruption
        self._checkpoint_on = frozenset(checkpoint_on)
        self._checkpoint_interval, self._retention = checkpoint_interval, retention
        self._last_recorded, self._budget = last_recorded, budget
        self._resumed_record = dict(resumed_record or {})
        self._uncommitted: list[Record] = []
        self._ends = False
        self.record = StepRecord.begin(position.step, None)
        self.closed = False
        self.generators_at_end: Mapping[str, Any] = {}  # for a run that waits, and goes on in this process
        self._at_end: tuple[Spent, set[int]] | None = None  # what `spent` and `pending` return once the store is closed
        self._log = RunLog(logger, log_dir / "console.log", lambda: self.replaying)

    @property
    def replaying(self) -> bool:
        """Whether the step under way was run before, so that what it decided is on record."""
        return self._position.step <= self._last_recorded

    def begin_step(self, train_samples: int | None) -> None:
        """Begin the record of a step."""
        if self._ends:  # those who call the steps by hand go on
            self.store.set_meta(**GOES_ON)
        self.record = StepRecord.begin(self._position.step, train_samples)
        self.record.values |= self._resumed_record
        self._resumed_record = {}

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Tell observers of a phase, time it, and note in any exception where it was raised."""
        if self._position.phase is not None:
            raise UsageError(
                f"the {phase} phase of run {self._run_id} can't be run inside its {self._position.phase} phase."
            )
        self._interruption.agreed_safe_point()
        self._position.phase = phase
        self.store.tell_position(self._position.step, phase.value)
        self._listeners.tell("alcore_phase_start", phase=phase, replayed=self.replaying)
        began, failure = time.perf_counter(), None
        try:
            yield
        except BaseException as error:
            failure = error
            error.add_note(f"in the {phase} phase of step {self._position.step} of run {self._run_id}")
            raise
        finally:
            self._position.phase = None
            self.record.seconds[phase.value] = round(time.perf_counter() - began, 6)
            self._listeners.tell("alcore_phase_end", phase=phase, error=failure, replayed=self.replaying)

    def saves_after_training(self, step: int) -> bool:
        """Tell whether a checkpoint is due when this step has trained."""
        every = self._checkpoint_interval
        return every > 0 and (step + 1) % every == 0 and bool(self._checkpoint_on - {Phase.LABELING})

    def add_metrics(self, strategy: str, values: Sequence[Any]) -> Sequence[Any]:
        """Add records of a metrology strategy, to be committed with the requests of the step.

        Returns
        -------
        sequence
            What counts: the records of rank 0, and in a replay that came out differently, those on record.
        """
        step = self._position.step
        values = self._scope.current.share(lambda: list(values))
        known = self.record.metrics.setdefault(strategy, [])
        if self.replaying and (texts := self.store.record_texts(step, strategy)):
            recorded = [loads(text) for text in texts][len(known) : len(known) + len(values)]
            if [dumps(value) for value in recorded] != [dumps(value) for value in values]:
                self._logger.warning(
                    "%s measured differently when step %d was replayed; what is on record counts", strategy, step
                )
                values = recorded
        self._uncommitted += [Record(step, strategy, place, value) for place, value in enumerate(values, len(known))]
        known += values
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
        recorded = self.store.asked_requests(step) if self.replaying else None
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
        chosen = [{(one.strategy, dumps(one.request.item)) for one in side} for side in (asked, recorded)]
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
            for one in self.store.reasons(self._position.step)[:_MOST_REASONS]:
                self._logger.warning("%d times, %s: %s", one["count"], one["kind"], one["reason"])
        if counts.get("taken"):
            self._warn_once(
                "the label strategy has taken requests and not answered them; they are not handed out again until it "
                "answers them, reports alcore.Failed, or gives them back with queue_to_label.give_back(request)"
            )

    def end_step(self, reason: EndReason | None) -> None:
        """Commit the step, with a checkpoint if one is due, and tell the observers.

        Parameters
        ----------
        reason
            Why the run ends with this step, which is committed with it; None where it goes on.
        """
        step, every = self._position.step, self._checkpoint_interval
        self._ends = reason is not None
        due = Phase.LABELING in self._checkpoint_on and every > 0 and (self._ends or (step + 1) % every == 0)
        end = self._end(reason, None) if self._ends else None
        state = self._checkpointer.collect(step=step, phase=Phase.LABELING.value, epoch=0) if due else None
        records, self._uncommitted = self._uncommitted, []
        self.store.commit_step(step, self.record.values, self.record.seconds, records, state, end)
        if self.training is not None:
            self.training.end_step()
        self._prune()
        self._logger.info("step %d: %s", step, self.record.summary())
        self._listeners.tell("alcore_step_end", record=self.record.for_observers(), replayed=self.replaying)

    def spent(self) -> Spent:
        """Return how many labels were bought in earlier steps, and what they cost; also when the run has ended."""
        return self.store.bought(self._position.step) if self._at_end is None else self._at_end[0]

    def pending(self, queue: RequestQueue) -> set[int]:
        """Return the samples that were asked for and have no answer yet; also when the run has ended.

        Parameters
        ----------
        queue
            What is asked for now.
        """
        asked = {one.sample for one in queue.asked if one.sample is not None}
        if self._at_end is None:
            return asked.union(self.store.pending_samples(self._position.step, queue.first_ordinal))
        return self._at_end[1] | asked if self._position.phase is Phase.QUERY else self._at_end[1]

    def keep_pending(self, queue: RequestQueue) -> None:
        """Count what was asked for as pending from now on, where the run has ended: nobody answers it any more."""
        if self._at_end is not None:
            self._at_end[1].update(one.sample for one in queue.asked if one.sample is not None)

    def _prune(self) -> None:
        """Delete the checkpoints that the user doesn't want to keep."""
        if self._retention is not None and self._scope.all.main:
            for warning in self.store.prune(self._retention):
                self._warn_once(warning)

    def tell_again(self, step: int, listeners: Collection[str], metrology: Sequence[str]) -> None:
        """Tell listeners of the end of a step from whose checkpoint the run goes on: their state in it is older.

        Parameters
        ----------
        step
            The step, which is committed.
        listeners
            The names of those whose state the checkpoint has.
        metrology
            The names of the metrology strategies.
        """
        found = self.store.step_record(step)
        if found is None or not listeners:
            return
        seconds = found.pop("seconds")
        record = StepRecord(step, found, seconds)
        if Phase.METROLOGY.value in seconds:
            record.metrics = {name: [loads(text) for text in self.store.record_texts(step, name)] for name in metrology}
        now, self._position.step = self._position.step, step
        try:
            self._listeners.tell("alcore_step_end", only=listeners, record=record.for_observers(), replayed=True)
        finally:
            self._position.step = now

    def _log_untrained(self, reason: EndReason | None) -> None:
        """Log how many labels no training has used, where the run has done what it was started for."""
        if self.training is None or (reason is not None and reason.kind.status != "done"):
            return
        if left := untrained(self.store.untrained_labels()):
            self._logger.info("run %s: %s", self._run_id, left)

    def close(self, reason: EndReason | None, error: BaseException | None) -> None:
        """Commit how the run ended, tell the observers, and close everything that is open.

        What the last step has committed stands: an error that comes after it, a second Ctrl-C perhaps, is raised, and
        the run has ended nevertheless.
        """
        if self.closed:
            return
        self.closed = True
        end = self._end(reason, error)
        waits = end["status"] == "waiting"
        if waits:
            self.generators_at_end = global_rng_state()
        try:
            if self.training is not None:
                self.training.save_kept(error, waits=waits)
            if error is None:
                self._logger.info("run %s ends: %s", self._run_id, reason)
                self._log_untrained(reason)
            else:
                self._logger.error("run %s ends: %s", self._run_id, end["status"], exc_info=error)
            self._listeners.tell("alcore_run_end", reason=reason, error=error)
            records, self._uncommitted = self._uncommitted, []
            ended = self.store.meta().get("end") is not None  # also where the commit of the last step gave an error
            self.store.finish(records, **({} if ended else end))
            if error is None:  # the final training has saved one more
                self._prune()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"and this could not be recorded: {type(failure).__name__}: {failure}")
        finally:
            self._at_end = Spent(0, 0.0), set()
            with contextlib.suppress(Exception):  # the disk may be the reason for the end
                self._at_end = self.store.bought(self._position.step), set(self.store.open_samples())
            self.store.close()
            self._log.close()

    def _end(self, reason: EndReason | None, error: BaseException | None) -> dict[str, Any]:
        return facts_of(reason, error, ended=utc_now(), budget=self._budget)


def create_run(
    root: Path, run_id: str, ranks: Ranks, *, meta: Mapping[str, Any], experiment: str, state: Mapping[str, Any]
) -> RunStore:
    """Make a run directory on rank 0, and a replica of its tables on the others.

    Parameters
    ----------
    root
        Folder of all runs.
    run_id
        Names the run.
    ranks
        The processes of the run; all must call this at once.
    meta
        What is known about the run as a whole.
    experiment
        Text of ``experiment.toml``.
    state
        What the first checkpoint holds.
    """
    facts = {**meta, **({"ranks": ranks.size} if ranks.size > 1 else {})}
    return _on_all_ranks(ranks, lambda: RunStore.create(root, run_id, meta=facts, experiment=experiment, state=state))


def open_run(root: Path, run_id: str, ranks: Ranks, *, other_ranks: bool) -> RunStore:
    """Open a run directory on rank 0, and a replica of its tables on the others.

    Raises
    ------
    UsageError
        When there is none, or it was begun by another number of processes and `other_ranks` doesn't allow that.
    """

    def open_on_rank_0() -> RunStore:
        store = RunStore.open(root, run_id)
        before, here = store.meta().get("ranks", 1), ranks.size
        if before != here:
            if not other_ranks:
                store.close()
                raise UsageError(
                    f"run {run_id} is of {before} process{'es' if before > 1 else ''}, and here "
                    f"{'are' if here > 1 else 'is'} {here}: training would go on with other batches. Start it with "
                    f"{before}, or allow it with --other-ranks; from Python, restore(other_ranks=True)."
                )
            store.set_meta(ranks=here)
        return store

    return _on_all_ranks(ranks, open_on_rank_0)


def _on_all_ranks(ranks: Ranks, make: Any) -> RunStore:
    made: list[RunStore] = []

    def image() -> torch.Tensor | None:
        made.append(make())
        if ranks.size == 1:
            return None
        return torch.frombuffer(bytearray(made[0].image()), dtype=torch.uint8)

    shared = ranks.share(image)
    if made:
        return made[0]
    assert shared is not None
    return Replica(bytes(shared.numpy()))
