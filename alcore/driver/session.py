"""What a run keeps while it is open: its directory, its log, the clock, and the books of the current step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alcore.codec import dumps, loads
from alcore.driver import agreement as sharing
from alcore.driver import answers, state
from alcore.driver import in_flight as doubt
from alcore.driver.books import means, sentence
from alcore.driver.label_queue import LabelQueue
from alcore.driver.labeling import LabelerState, value_check
from alcore.driver.midway import Midway
from alcore.driver.opening import now
from alcore.driver.resume import Point, labeler_state
from alcore.driver.run_log import RunLog
from alcore.errors import Interrupted
from alcore.protocols import Phase, Request
from alcore.store import history, retention
from alcore.store.history import Asked
from alcore.store.run import RunStore
from alcore.store.statements import Record

if TYPE_CHECKING:
    from alcore.driver import Driver


class Session:
    """An open run directory and the books of the step under way.

    Parameters
    ----------
    driver
        Whose run it is.
    store
        Its run directory.
    point
        Where it is taken up again, if it is.
    """

    def __init__(self, driver: Driver, store: RunStore, point: Point | None = None) -> None:
        self._driver, self.store = driver, store
        self._recorded = -1 if point is None else history.last_step(store.database)
        self.labeler = LabelerState(driver.label_strategy, None if point is None else labeler_state(store))
        self._log = RunLog(driver.logger, driver.log_dir / "console.log", lambda: self.replaying)
        self.label_queue = LabelQueue(
            store,
            driver.query_queue,
            value_check(driver.train_datapool),
            driver.label_cost,
            driver.config.label_retries,
            state=self.labeler.commit,
            after_commit=driver.safe_point,
        )
        self._notes_taken = doubt.must_be_noted(driver.label_strategy)
        step = history.steps_ended(store.database)  # a thread of its strategy may be early
        self.label_queue.begin(step + history.labeling_ended(store.database, step))
        self._on_record, self._appended = False, -1
        if self._notes_taken:
            driver.query_queue.on_take = store.mark_taken
        self.midway = Midway(driver, store, self._of_training, point)
        self.closed = False
        self._keep = retention.parse(driver.config.keep) if driver.ranks.main else None
        self._records: list[Record] = []
        self.begin_step()
        self._book |= {} if point is None else point.book
        self._resumed = point is not None
        self._taken: list[Any] | None = None

    @property
    def replaying(self) -> bool:
        """Whether the step under way was run before, so that what it decided is on record."""
        return self._driver.active_learning_step_idx <= self._recorded

    def start(self) -> None:
        """Tell the observers that the run begins."""
        verb = "goes on" if self._resumed else "begins"
        self._driver.logger.info("run %s %s in %s", self._driver.run_id, verb, self._driver.log_dir)
        self._driver.lifecycle.tell("alcore_run_start", driver=self._driver)

    def begin_step(self) -> None:
        """Open the books of a step, unless it is taken up in the middle."""
        if self.midway.resumed and hasattr(self, "_book"):
            return
        pool = self._driver.train_datapool
        self._seconds: dict[str, float] = {}
        self._metrics: dict[str, list[Any]] = {}
        self._book: dict[str, Any] = {
            "step": self._driver.active_learning_step_idx,
            "train_samples": None if pool is None else len(pool),
            "requested": 0, "labelled": 0, "failed": 0, "refused": 0,
        }  # fmt: skip

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Announce a phase, time it, and say in any exception where it was raised."""
        driver = self._driver
        driver.meeting_point()
        driver.phase = phase
        driver.lifecycle.tell("alcore_phase_start", driver=driver, phase=phase)
        began, failure = time.perf_counter(), None
        try:
            yield
        except BaseException as error:
            failure = error
            error.add_note(f"in the {phase} phase of step {driver.active_learning_step_idx} of run {driver.run_id}")
            raise
        finally:
            driver.phase = None
            self._seconds[phase.value] = round(time.perf_counter() - began, 6)
            driver.lifecycle.tell("alcore_phase_end", driver=driver, phase=phase, error=failure)

    def _of_training(self) -> dict[str, Any]:
        return {name: self._book[name] for name in ("epochs", "losses") if name in self._book}

    def end_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Note the losses of an epoch, and save a checkpoint inside training where that is wanted."""
        self.midway.end_epoch(epoch)
        self._book |= {"epochs": self.midway.epochs, "losses": means(self._driver.ranks.gather(dict(metrics)))}
        every = self._driver.config.model_checkpoint_frequency
        asked_to_end = self._driver.asked_to_end()
        if asked_to_end or (every and self.midway.epochs % every == 0):
            self.midway.save()
        if asked_to_end:
            raise Interrupted("it was asked to end")

    def record(self, strategy: str, values: Sequence[Any]) -> Sequence[Any]:
        """Keep records of a metrology strategy, to be committed with the requests of the step.

        Returns
        -------
        sequence
            What is kept: in a replay that came out otherwise, what is on record.
        """
        step = self._driver.active_learning_step_idx
        values = self._driver.ranks.share(lambda: list(values))
        known = self._metrics.setdefault(strategy, [])
        if self.replaying and (texts := history.records_in(self.store.database, step, strategy)):
            recorded = [loads(text) for text in texts][len(known) : len(known) + len(values)]
            if [dumps(value) for value in recorded] != [dumps(value) for value in values]:
                self._driver.logger.warning(
                    "%s measured otherwise when step %d was replayed; what is on record stands", strategy, step
                )
                values = recorded
        self._records += [Record(step, strategy, place, value) for place, value in enumerate(values, len(known))]
        known += values
        return values

    def allowance(self) -> float:
        """Return what may still be spent on labels."""
        budget = self._driver.config.budget
        return float("inf") if budget is None else budget - self.store.spent(self._driver.active_learning_step_idx)

    def commit_requests(self, model: str) -> None:
        """Commit what the query strategies asked for."""
        queue, step = self._driver.query_queue, self._driver.active_learning_step_idx
        recorded = history.asked_in(self.store.database, step) if self.replaying else None
        if recorded is not None:
            self._compare(queue.asked, recorded)
            queue.adopt(recorded)
        self._book["requested"] += len(queue.asked)
        for why, count in sorted(queue.dropped.items()):
            self._driver.logger.warning("%d requests were dropped: %s", count, why)
        if recorded is None:
            self.store.commit_query(step, queue.asked, self._records, model)
        self._records = []

    def _compare(self, asked: Sequence[Asked], recorded: Sequence[Asked]) -> None:
        """Warn of query strategies that chose otherwise in a replay; what is on record was paid for."""
        chosen = [{(one.strategy, dumps(one.request.item)) for one in side} for side in (asked, recorded)]
        for strategy in sorted({name for name, _ in chosen[0] ^ chosen[1]}):
            self._driver.logger.warning(
                "%s asked for other samples when step %d was replayed; what is on record stands",
                strategy,
                self._driver.active_learning_step_idx,
            )

    def begin_labeling(self) -> list[Request]:
        """Open the label queue, with what the phase brought before it was cut off; return what is to be labelled."""
        step, database = self._driver.active_learning_step_idx, self.store.database
        over = history.labeling_ended(database, step)
        self._on_record = over and (self.replaying or history.has_ended(database, step))
        if self._on_record:
            return []
        if over:
            self.store.begin_labeling(step)
        requests = self.label_queue.begin(step)
        if self.replaying and self._notes_taken:
            return doubt.poll(self._driver.label_strategy, self.store, self.label_queue)
        return requests

    def end_labeling(self) -> None:
        """Note that the label strategy has nothing in hand: what it didn't answer is asked for again."""
        if not self._on_record:
            self.store.end_labeling(self._driver.active_learning_step_idx)

    def share_labels(self) -> None:
        """Give the other ranks what rank 0 was brought."""
        if self._driver.ranks.main and self._driver.ranks.size > 1:
            self._taken = self._take()  # what comes from now on is of the next step, on all ranks
        sharing.share_labels(self._driver, self.store, self.label_queue)

    def _take(self) -> list[Any]:
        """End the labeling phase; return what it brought for the training pool."""
        step, unlabeled = self._driver.active_learning_step_idx, self._driver.unlabeled_datapool
        if self._on_record or history.has_ended(self.store.database, step):
            return answers.for_pool(history.delivered_in(self.store.database, step), unlabeled)
        return self.label_queue.take(unlabeled)

    def append(self) -> None:
        """Give the training pool what the labeling phase brought; one bad item doesn't keep the others."""
        step = self._appended = self._driver.active_learning_step_idx
        items, self._taken = self._take() if self._taken is None else self._taken, None
        errors = []
        for item in items if self._driver.train_datapool is not None else ():
            try:
                self._driver.train_datapool.append(item)
            except Exception as error:  # noqa: BLE001 - raised when the others are in
                errors.append(error)
        counts = history.label_counts(self.store.database, step)
        self._book |= {name: counts[name] for name in ("labelled", "failed", "refused")}
        for name in ("failed", "refused"):
            if counts[name]:
                self._driver.logger.warning("%d %s; the reasons are in the log", counts[name], _WORDS[name])
        if errors:
            raise errors[0]

    def append_late(self) -> None:
        """Give the training pool what came late in a step that has no labeling phase of its own."""
        if self._appended != self._driver.active_learning_step_idx:
            step = self._driver.active_learning_step_idx
            self._on_record = history.has_ended(self.store.database, step)
            if not self._on_record:
                self.label_queue.begin(step)
            self.share_labels()
            self.append()
            sharing.compare_labels(self._driver, self.store)

    @property
    def settled(self) -> bool:
        """Whether any request was labelled or given up in this step."""
        return bool(self._book["labelled"] or self._book["failed"])

    def end_step(self, *, last: bool) -> None:
        """Commit the step and tell the observers."""
        driver, every = self._driver, self._driver.config.checkpoint_interval
        step = driver.active_learning_step_idx
        wanted = every > 0 and (last or (step + 1) % every == 0)
        checkpoint = state.collect(driver, step=step, phase="labeling", epoch=0) if wanted else None
        records, self._records = self._records, []
        self.store.commit_step(step, self._book, self._seconds, records, checkpoint)
        self.midway.end_step()
        if self._keep is not None:
            for warning in retention.prune(self.store.database, self.store.folder / "ckpt", self._keep).warnings:
                driver.warn_once(warning)
        driver.logger.info("step %d: %s", step, sentence(self._book, self._metrics))
        record = {**self._book, "metrics": self._metrics, "seconds": self._seconds}
        driver.lifecycle.tell("alcore_step_end", driver=driver, record=record)

    def close(self, error: BaseException | None) -> None:
        """Commit how the run ended, tell the observers, and close everything that is open."""
        if self.closed:
            return
        self.closed = True
        driver = self._driver
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed" if error else "done"
        message = None if error is None else f"{type(error).__name__}: {error}"
        try:
            self.midway.save_behind_training(error)
            if error is None:
                driver.logger.info("run %s ends: %s", driver.run_id, driver.stop_reason)
            else:
                driver.logger.error("run %s ends: %s", driver.run_id, status, exc_info=error)
            driver.lifecycle.tell("alcore_run_end", driver=driver, reason=driver.stop_reason, error=error)
            records, self._records = self._records, []
            self.store.finish(records, status=status, reason=driver.stop_reason, error=message, ended=now())
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"and this could not be recorded: {type(failure).__name__}: {failure}")
        finally:
            self.store.close()
            self._log.close()


_WORDS = {"failed": "requests could not be labelled", "refused": "answers were refused"}
