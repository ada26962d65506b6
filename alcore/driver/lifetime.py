"""How a driver's run is begun, taken up again, and ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from alcore import training
from alcore.config import TrainingConfig
from alcore.driver import checks, opening, resume
from alcore.driver import in_flight as doubt
from alcore.driver import stopping as ending
from alcore.driver.label_queue import LabelQueue
from alcore.driver.session import Session
from alcore.errors import UsageError
from alcore.plugins.listeners import Listeners
from alcore.pools.batches import place_learner
from alcore.protocols import TrainStep
from alcore.store.run import RunStore
from alcore.training.class_balance import Balance
from alcore.training.ddp import with_synchronised_normalisation

if TYPE_CHECKING:
    from alcore.driver import Driver


class Lifetime(Balance):
    """The part of a driver that opens and closes its run."""

    training_config: TrainingConfig | None
    train_loop_fn: Callable[..., Any] | None
    optimization: training.Optimization | None
    lifecycle: Listeners
    label_queue: LabelQueue | None
    run_id: str
    log_dir: Path
    stop_reason: str | None
    description: str | None
    _session: Session | None

    @property
    def _driver(self) -> Driver:
        """The object itself: it is a Driver, since nothing else is made of this class."""
        return cast("Driver", self)

    @contextlib.contextmanager
    def session(self, train_step_fn: TrainStep | None = None) -> Iterator[None]:
        """Make the run directory, for as long as the block runs; for those who call the steps themselves."""
        with self._telling_ranks():
            session = self._open(train_step_fn)
        try:
            with self._telling_ranks():
                yield
        except BaseException as error:
            session.close(error)
            raise
        session.close(None)

    @contextlib.contextmanager
    def _telling_ranks(self) -> Iterator[None]:
        """Let a failure end the other ranks too, and say whose failure is behind a broken connection."""
        try:
            yield
        except BaseException as error:
            cause = self.ranks.cause(error)
            self.ranks.fail(cause)
            if cause is not error:
                raise cause from error
            raise

    def restore(
        self,
        checkpoint: str | None = None,
        *,
        take_over: bool = False,
        in_doubt: doubt.Decision | None = None,
        other_ranks: bool = False,
    ) -> None:
        """Take up the run of this driver's id where it was committed last; `run` goes on from there.

        Give the driver what it was given when the run began, made anew: pools as they were before the run, the
        learner, the strategies. Training since the last checkpoint is done again, and its decisions are taken from
        the record; no label is asked for twice.

        Parameters
        ----------
        checkpoint
            File name of an older checkpoint to start from, where the last one is damaged.
        take_over
            Write to the run although another process holds it, one that can't be reached: it is refused at its next
            transaction.
        in_doubt
            What to do with requests that the label strategy was working on when the run was cut off, if it can't
            be polled and isn't idempotent: ``"ask"`` again, or ``"drop"``. Without it they are an error.
        other_ranks
            Go on with another number of processes than the run began with. Training gets other batches then.

        Raises
        ------
        UsageError
            When there is no such run, or a part is not the one of the run.
        RunLockedError
            When another process is writing to the run.
        """
        if self._session is not None:
            raise UsageError(f"run {self.run_id} is open already; make a new Driver to restore it.")
        with self._telling_ranks():
            self._restore(checkpoint, take_over, in_doubt, other_ranks)

    def _restore(
        self, checkpoint: str | None, take_over: bool, in_doubt: doubt.Decision | None, other_ranks: bool
    ) -> None:
        self._prepare()
        store = opening.reopen(self._driver, take_over=take_over, other_ranks=other_ranks)
        try:
            point = resume.restore(self._driver, store, checkpoint)
            self.stop_reason = resume.why_finished(self._driver, store) or ending.end_of_steps(self.config, point.step)
            doubt.decide(self.label_strategy, store, in_doubt)
            if self.stop_reason is None:
                store.set_meta(status="running", reason=None, error=None)
        except BaseException:
            store.close()
            raise
        self.active_learning_step_idx = point.step
        self._begin(store, point)

    def _committing(self) -> bool:
        return self._session is not None and self._session.store.database.committing

    def make_optimization(self) -> None:
        """Make optimizer and scheduler from the learner as it is now, which counts as its initial state."""
        if self.training_config is None or self.config.skip_training:
            return
        self.optimization = training.Optimization(
            self.training_config.optimizer_config,
            self.learner,
            fine_tuning_lr=self.config.fine_tuning_lr,
            fresh_each_step=self.config.reset_optim_states,
            reset_learner=self.training_config.reset_learner,
        )

    def _open(self, train_step_fn: TrainStep | None = None) -> Session:
        if self._session is None:
            checks.check_training_step(self._driver, train_step_fn)
            self._prepare()
            checks.check_columns(self._driver, train_step_fn)
            self.make_optimization()
            self._begin(opening.create(self._driver))
        assert self._session is not None
        if self._session.closed:
            raise UsageError(f"run {self.run_id} has ended; make a new Driver to run again.")
        return self._session

    def _prepare(self) -> None:
        checks.check_fit(self._driver)
        self.learner = place_learner(self.learner, self.device, self.dtype)
        manager = self.config.dist_manager
        if manager is not None and manager.distributed and manager.sync_batch_norm:
            self.learner = with_synchronised_normalisation(self.learner)
        checks.check_strategies(self._driver)

    def _begin(self, store: RunStore, point: resume.Point | None = None) -> None:
        try:
            self._session = Session(self._driver, store, point)
        except BaseException:
            store.close()  # or this process would hold the run's lock for as long as it lives
            raise
        self.label_queue = self._session.label_queue
        self._session.start()
