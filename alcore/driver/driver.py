"""The Driver: train, measure, query, label, until something ends the run."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alcore import training
from alcore.config import DriverConfig, StrategiesConfig, TrainingConfig
from alcore.distributed.ranks import Ranks
from alcore.driver import agreement as sharing
from alcore.driver import checks
from alcore.driver import stopping as ending
from alcore.driver.label_queue import LabelQueue
from alcore.driver.lifetime import Lifetime
from alcore.driver.midway import Midway
from alcore.driver.request_queue import RequestQueue
from alcore.driver.run_log import run_logger
from alcore.driver.session import Session
from alcore.driver.state import model_digest
from alcore.inference.extraction import FeatureCache
from alcore.names import snake_case, unique_names
from alcore.plugins.listeners import Listeners
from alcore.plugins.registry import installed
from alcore.pools.candidates import Candidates
from alcore.protocols import Phase, TrainStep, ValidateStep
from alcore.store import history
from alcore.store.files import free_run_id
from alcore.training.ddp import ParallelStep
from alcore.training.loader import BatchLoader


class Driver(Lifetime):
    """Runs active learning: each step trains, measures, chooses samples, and gets their labels.

    Parameters
    ----------
    config
        How the loop is run.
    learner
        The model: an `nn.Module`, or an object that behaves like one. It is moved to device and dtype when
        the run starts, and is never wrapped.
    strategies_config
        What chooses, labels and measures.
    training_config
        What is trained on, and for how long; may be None with ``skip_training``.
    inference_fn
        Called as ``inference_fn(learner, inputs)`` where strategies want outputs; ``learner(inputs)`` where
        it is None.
    plugins
        Observers and stop criteria: objects with methods marked ``@alcore.runhook``.

    Attributes
    ----------
    active_learning_step_idx : int
        The step that is under way, or the number of finished ones between steps.
    stop_reason : str or None
        Why the run ended.
    log_dir : pathlib.Path
        The run directory; it is made when the run starts.
    """

    def __init__(
        self,
        config: DriverConfig,
        learner: Any,
        strategies_config: StrategiesConfig,
        training_config: TrainingConfig | None = None,
        inference_fn: Callable[[Any, Any], Any] | None = None,
        plugins: Sequence[Any] = (),
    ) -> None:
        checks.check_parts(config, learner, strategies_config, training_config)
        self.config, self.strategies_config, self.training_config = config, strategies_config, training_config
        self.learner, self.inference_fn = learner, inference_fn
        self._group = config.dist_manager.join() if config.dist_manager else Ranks()
        self._group.begin(lambda: self._interrupted)
        self.run_id, self.config.seed = self.ranks.share(
            lambda: (config.run_id or free_run_id(Path(config.root_log_dir)), config.seed)
        )
        self.log_dir = Path(config.root_log_dir) / self.run_id
        self.logger = run_logger(self.run_id)
        checks.warn_of_separate_runs(config, self.logger)
        if not self.ranks.main:
            self.logger.setLevel(logging.ERROR)  # rank 0 tells it
        self.lifecycle = Listeners(plugins, self.logger, criteria_only=not self.ranks.main, around=self.solo)

        self.train_datapool: Any = training_config.train_datapool if training_config else None
        self.val_datapool: Any = training_config.val_datapool if training_config else None
        self.unlabeled_datapool: Any = strategies_config.unlabeled_datapool
        self.train_loop_fn = _training_loop(config, training_config)
        self._loop_leaves_out = training.not_taken(self.train_loop_fn) if self.train_loop_fn else set()
        self.optimization: training.Optimization | None = None

        self.query_strategies = list(strategies_config.query_strategies)
        self.start_strategy = strategies_config.start_strategy
        self.label_strategy = strategies_config.label_strategy
        self.metrology_strategies = list(strategies_config.metrology_strategies or ())
        parts: list[Any] = [*self.query_strategies, *self.metrology_strategies]
        parts += [one for one in (self.label_strategy, self.start_strategy) if one is not None]
        names = unique_names(snake_case(type(part).__name__) for part in parts)
        self.strategies: dict[str, Any] = dict(zip(names, parts, strict=True))

        self._candidates = Candidates(self.choice_pool)
        self.feature_cache = FeatureCache()
        transport = strategies_config.queue_cls() if self.ranks.main else queue.Queue()  # it may be one for all
        self.query_queue = RequestQueue(transport, self._candidates, self.run_id, self.label_cost)
        self.label_queue: LabelQueue | None = None
        self.active_learning_step_idx = 0
        self.first_training: int | None = None
        self.phase: Phase | None = None
        self.stop_reason: str | None = None
        self.description: str | None = None
        self._session: Session | None = None
        self._warned: set[str] = set()
        for part in parts:
            part.attach(self)

    # -- the loop ------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Do as `run` does."""
        self.run(*args, **kwargs)

    def run(
        self,
        train_step_fn: TrainStep | None = None,
        validate_step_fn: ValidateStep | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Make the run directory and run steps until something ends the run.

        Parameters
        ----------
        train_step_fn
            Called as ``train_step_fn(model, batch)``; returns the loss of a batch. The learner's own
            ``training_step(batch)``, else the default loss of the data's task, where it is None.
        validate_step_fn
            Called as ``validate_step_fn(model, batch)`` on batches of ``val_datapool``; may return a scalar.
        *args, **kwargs
            Passed on to the strategies.

        Raises
        ------
        UsageError
            When the parts don't fit together; nothing has been trained then.
        RunExistsError
            When the run id is taken.
        """
        with self.session(train_step_fn):
            self.stop_reason = self.stop_reason or ending.end_of_steps(self.config, self.active_learning_step_idx)
            while self.stop_reason is None:
                self.active_learning_step(train_step_fn, validate_step_fn, *args, **kwargs)

    def active_learning_step(
        self,
        train_step_fn: TrainStep | None = None,
        validate_step_fn: ValidateStep | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Run one step: training, metrology, query and labeling; the latter two where nothing is labelled yet."""
        session = self._open(train_step_fn)
        session.begin_step()
        started = self.starting
        if not started:
            if not self.config.skip_training:
                self._training_phase(train_step_fn, validate_step_fn)
            if not self.config.skip_metrology and self.metrology_strategies:
                self._metrology_phase(*args, **kwargs)
            reason = self.lifecycle.reason_to_stop(driver=self)
            self.stop_reason = self.ranks.share(lambda: reason)
        if self.stop_reason is None:
            self._query_phase(*args, **kwargs)
            if not self.config.skip_labeling and self.label_strategy is not None:
                self._labeling_phase(*args, **kwargs)
        session.append_late()
        if self.stop_reason is None:
            end_of_pool = ending.end_of_pool(self, started=started, settled=session.settled)
            self.stop_reason = self.ranks.share(lambda: end_of_pool) or ending.end_of_steps(
                self.config, self.active_learning_step_idx + 1
            )
        session.end_step(last=self.stop_reason is not None)
        self.active_learning_step_idx += 1

    # -- its four phases -----------------------------------------------------------------------------

    def _training_phase(
        self, train_step_fn: TrainStep | None = None, validate_step_fn: ValidateStep | None = None
    ) -> None:
        """Train the learner on what is labelled."""
        session = self._open(train_step_fn)
        assert self.training_config is not None
        assert self.optimization is not None
        assert self.train_loop_fn is not None
        step, info = self.active_learning_step_idx, self.info
        order = (self.config.seed, step, "training")
        with session.phase(Phase.TRAINING):
            midway = session.midway
            done = midway.resumed
            if self.first_training is None:
                self.first_training = step
            turn = step - self.first_training
            self.optimization.prepare(turn)
            step_fn = training.resolve_train_step(train_step_fn, self.learner, info)
            shard = (0, 1)
            if self.ranks.size > 1 and self.optimization.optimizer is not None:
                assert self.config.dist_manager is not None
                step_fn = ParallelStep(self.learner, step_fn, self.config.dist_manager)
                shard = (self.ranks.rank, self.ranks.size)
            loader = self._loader(
                self.train_datapool, seed=order, epoch=done, shard=shard, after_batch=midway.end_batch
            )
            midway.begin_training(loader)
            arguments: dict[str, Any] = {
                "optimizer": self.optimization.optimizer,
                "train_dataloader": loader,
                "max_epochs": self.training_config.epochs(turn) - done,
                "validation_dataloader": self._validation_loader(midway) if self.val_datapool is not None else None,
                "train_step_fn": step_fn,
                "validate_step_fn": training.resolve_validate_step(validate_step_fn, self.learner, info),
                "lr_scheduler": self.optimization.scheduler,
                "device": self.device,
                "dtype": self.dtype,
                "on_epoch_end": session.end_epoch,
            }
            for name in self._loop_leaves_out:
                del arguments[name]
            if not midway.trained and (not done or arguments["max_epochs"] > 0):
                self.train_loop_fn(self.learner, **arguments)
            midway.end_training()

    def _validation_loader(self, midway: Midway) -> BatchLoader:
        return self._loader(
            self.val_datapool, before_epoch=midway.begin_validation, after_batch=midway.end_validation_batch
        )

    def _metrology_phase(self, *args: Any, **kwargs: Any) -> None:
        """Measure the learner."""
        session = self._open()
        with session.phase(Phase.METROLOGY):
            for strategy in self.metrology_strategies:
                before = len(strategy.records)
                strategy.compute(*args, **kwargs)
                strategy.records[before:] = session.record(self.strategy_name(strategy), strategy.records[before:])
                serialize = getattr(strategy, "serialize_records", None)
                if callable(serialize) and self.ranks.main:
                    with self.solo():
                        serialize(*args, **kwargs)

    def _query_phase(self, *args: Any, **kwargs: Any) -> None:
        """Choose what to label next, and commit these requests."""
        session = self._open()
        with session.phase(Phase.QUERY):
            self.query_queue.begin(self.active_learning_step_idx, session.allowance())
            strategies = self.query_strategies
            if self.starting:  # what the start asked for may take its time, and is not asked for again
                waits = history.waits_before(session.store.database, self.active_learning_step_idx)
                strategies = [] if waits else [self.start_strategy]
            for left, strategy in zip(range(len(strategies), 0, -1), strategies, strict=True):
                self.query_queue.asking(self.strategy_name(strategy), self._share(left))
                strategy.sample(self.query_queue, *args, **kwargs)
                sharing.agree_on_requests(self)
            session.commit_requests(model_digest(self.learner))

    def _labeling_phase(self, *args: Any, **kwargs: Any) -> None:
        """Get the labels that were asked for, and train on them from now on."""
        session = self._open()
        label = self.label_strategy
        assert label is not None

        def work() -> None:
            with session.labeler.phase(self.active_learning_step_idx):
                self.query_queue.refill(session.begin_labeling())
                if not self.query_queue.empty():
                    with self.interruptible(), self.solo():
                        label.label(self.query_queue, self.label_queue, *args, **kwargs)
                session.end_labeling()

        with session.phase(Phase.LABELING):
            try:
                self.ranks.alone(work)
                session.share_labels()
            finally:
                session.append()
            sharing.compare_labels(self, session.store)

    def _share(self, strategies: int) -> int | None:
        """Divide what is left of the step's samples by the strategies that are still to ask, rounded up."""
        total = self.config.samples_per_step
        return None if total is None else -(-(total - len(self.query_queue.asked)) // strategies)


def _training_loop(config: DriverConfig, training_config: TrainingConfig | None) -> Callable[..., Any] | None:
    if training_config is None or config.skip_training:
        return None
    if training_config.train_loop_fn is not None:
        return training_config.train_loop_fn
    loop: Callable[..., Any] = installed().make("loop", "default")
    return loop
