"""The Driver: train, measure, query, label, until something ends the run."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from alcore.codec import learn_types
from alcore.config import DriverConfig, StrategiesConfig, TrainingConfig
from alcore.distributed.ranks import Ranks
from alcore.driver import checks, stopping
from alcore.driver.agreement import agree_on_end, agree_on_requests, begin_alike, compare_pools
from alcore.driver.answer_files import SOURCE, given_answers
from alcore.driver.answer_queue import AnswerQueue
from alcore.driver.answers import AnswerCheck
from alcore.driver.asking import OpenRequest, open_requests
from alcore.driver.budget import Budget, FailureRate
from alcore.driver.checkpointing import Checkpointer, TrainingProgress
from alcore.driver.description import describe_run, environment
from alcore.driver.expected_costs import ExpectedCosts
from alcore.driver.feasibility import Feasibility
from alcore.driver.in_flight import InDoubt, check_decided, release_in_flight
from alcore.driver.interruption import Interruption
from alcore.driver.labeling import LabelingPhase, LabelStrategyState
from alcore.driver.ledger import RequestLedger
from alcore.driver.pool_set import InputCheck, PoolSet
from alcore.driver.rank_scope import RankScope
from alcore.driver.request_files import write_requests
from alcore.driver.request_queue import OVER_BUDGET, RequestQueue
from alcore.driver.resume import ResumePoint, resume, why_finished
from alcore.driver.run_log import WarnOnce, run_logger
from alcore.driver.session import RunPosition, RunSession, create_run, open_run
from alcore.driver.strategy_set import StrategySet
from alcore.driver.telling import Told, tell
from alcore.errors import UsageError, raised_by
from alcore.inference.features import FeatureCache
from alcore.inference.learner import evaluating, floating_type, model_digest, place_learner
from alcore.inference.weights import load_weights
from alcore.plugins.discovery import plugins_compared
from alcore.plugins.listeners import Listeners
from alcore.plugins.registry import installed
from alcore.pools.batches import tensors_of, to_device
from alcore.pools.candidates import Candidates
from alcore.pools.tensor_pool import pool_digest
from alcore.protocols import DataInfo, EndKind, EndReason, Phase, Preprocessing, Request, Spent, TrainStep, ValidateStep
from alcore.randomness import derive_generator, set_global_rng_state
from alcore.store import retention
from alcore.store.endings import GOES_ON, end_of
from alcore.store.files import free_run_id
from alcore.store.reading import Run
from alcore.store.run import RunStore
from alcore.store.tables import PREPROCESSING, AskedRequest, utc_now
from alcore.training.class_balance import ClassBalance
from alcore.training.ddp import with_synchronized_normalization
from alcore.training.extra_arguments import accepted, check_arguments
from alcore.training.loader import BatchLoader, LoaderFactory
from alcore.training.steps import own_step, resolve_train_step
from alcore.training.trainer import Trainer


class Driver:
    """Runs active learning: each step trains, measures, chooses samples, and gets their labels.

    A Driver is also the `alcore.protocols.RunContext` that strategies, training loops, observers and stop criteria
    are given.

    Parameters
    ----------
    config
        How the loop is run.
    learner
        The model: an `nn.Module`, or an object that behaves like one. It is moved to the device, and to the dtype if
        one is given, when the run starts, and is never wrapped.
    strategies_config
        What chooses, labels and measures.
    training_config
        What is trained on, and for how long; may be None with ``skip_training``.
    inference_fn
        Called as ``inference_fn(learner, inputs)`` where strategies want outputs; ``learner(inputs)`` where
        it is None.
    plugins
        The listeners of the run, observers and stop criteria: objects with methods marked ``@alcore.runhook``.

    Attributes
    ----------
    config : DriverConfig
        A copy of the one that was given, with the seed of the run, and the dtype of its batches.
    learner : object
        The model.
    train_datapool, val_datapool, unlabeled_datapool : object or None
        The pools.
    query_queue : RequestQueue
        What query strategies ask for, and a label strategy takes out.
    label_queue : AnswerQueue or None
        Where a label strategy delivers its answers; made when the run starts.
    position : RunPosition
        The step and the phase under way. A test of a strategy may set them on a Driver that doesn't run.
    end_reason : EndReason or None
        Why the run ended; None while it goes on.
    preprocessing : Preprocessing or None
        How the data makes inputs of a file. Set before the run begins, it is described in the run, for ``alcore
        export`` and, where the run has an experiment file, ``alcore predict``.
    names_code : bool
        Whether its experiment names the user's own code, so that ``alcore resume`` needs ``--allow-code``.
    run_id, log_dir, logger
        Name, directory and logger of the run. The directory is made when the run starts.
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
        checks.check_others(inference_fn, plugins)
        ranks = config.dist_manager.join() if config.dist_manager else Ranks()
        ranks.begin()
        self.run_id, seed = ranks.share(lambda: (config.run_id or free_run_id(Path(config.root_log_dir)), config.seed))
        self._asked_dtype = config.asked_dtype
        self._dtype = config.asked_dtype or floating_type(learner)
        self.config = dataclasses.replace(config, run_id=self.run_id, seed=seed, dtype=self._dtype)
        self.training_config, self.inference_fn = training_config, inference_fn
        self._root = Path(config.root_log_dir).absolute()  # now, since the working directory may change
        self.log_dir = self._root / self.run_id
        self.logger = run_logger(self.run_id, logging.INFO if ranks.main else logging.ERROR)
        checks.warn_of_separate_runs(config, self.logger)
        self.warn_once = WarnOnce(self.logger)
        self._scope, self._interruption = RankScope(ranks), Interruption(ranks)
        self.listeners = Listeners(plugins, self.logger, criteria_only=not ranks.main, around=self._scope.by_itself)
        self.position = RunPosition()

        manager = config.dist_manager
        if manager is not None and manager.distributed and manager.sync_batch_norm:
            learner = with_synchronized_normalization(learner)
        self.learner = learner
        self._pools = PoolSet(
            training_config.train_datapool if training_config else None,
            training_config.val_datapool if training_config else None,
            strategies_config.unlabeled_datapool,
        )
        self._loaders = LoaderFactory(
            batch_size=config.batch_size,
            drop_last=config.drop_last,
            collate_fn=config.collate_fn,
            workers=config.num_dataloader_workers,
            device=self.device,
            dtype=self.dtype,
            before_batch=self._interruption.safe_point,
        )
        self._balance = ClassBalance(
            self._pools.train,
            training_config.sampler if training_config else None,
            training_config.class_weights if training_config else None,
            self.warn_once,
        )
        self._trainer = self._make_trainer(config, training_config)

        self._strategies = StrategySet(strategies_config)
        self._candidates = Candidates(self._pools.choice)
        self.feasibility = Feasibility(config.feasibility, self.warn_once)
        self.feature_cache = FeatureCache()
        transport = strategies_config.queue_cls() if ranks.main else queue.Queue()  # one for all ranks, perhaps
        self._costs = ExpectedCosts(self._strategies.label, self._pools.choice)
        self._ledger = RequestLedger(
            checks.check_queue(transport),
            Budget(config.budget),
            FailureRate(config.max_failure_rate),
            config.label_retries,
        )
        self.query_queue = RequestQueue(
            self._ledger,
            self._candidates,
            self.run_id,
            self._costs.of,
            config.samples_per_step,
            InputCheck(self._pools),
            self._pools.fidelity,
            self._costs.of_many,
            self._pools.as_input,
        )
        self.label_queue: AnswerQueue | None = None
        self._checkpointer = Checkpointer(
            self.learner, self._trainer, self._strategies.by_name, self.listeners.parts, ranks
        )
        self._in_session = self._in_step = False
        self._waits = False  # whether the step under way waits for labels
        self.end_reason: EndReason | None = None
        self.description: str | None = None
        self.preprocessing: Preprocessing | None = None
        self.names_code = False
        self._session: RunSession | None = None
        self._half_restored = False  # whether a restore has begun to change parts
        self._labeling: LabelingPhase | None = None

        self.listeners.attach(self)
        for name, part in self._strategies.by_name.items():
            with raised_by(f"attach() of {name}"):
                part.attach(self)
        if self._trainer is not None and callable(getattr(self._trainer.loop, "attach", None)):
            with raised_by("attach() of the training loop"):
                self._trainer.loop.attach(self)  # type: ignore[attr-defined]

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
            Passed on to the strategies; keyword arguments to step functions and training loop, too. Each is given those
            that it has parameters for, or all with ``*args, **kwargs``.

        Raises
        ------
        UsageError
            When the parts don't fit together, or nothing takes an argument; nothing has been trained then.
        RunExistsError
            When the run id is taken; `restore`, or ``DriverConfig(resume="auto")``, goes on with that run.
        """
        with self.session(train_step_fn, validate_step_fn, *args, **kwargs):
            self.end_reason = self.end_reason or self._step_limit(self.position.step)
            while self.end_reason is None:
                self.active_learning_step(train_step_fn, validate_step_fn, *args, **kwargs)
            if self._ends_with_training(self.end_reason):
                self._train_finally(train_step_fn, validate_step_fn, *args, **kwargs)

    def active_learning_step(
        self,
        train_step_fn: TrainStep | None = None,
        validate_step_fn: ValidateStep | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Run one step: training, metrology, query, labeling.

        While nothing is labeled there is no training; nor metrology, where a start strategy chooses.
        """
        with self._step_entered():
            self._check_arguments(train_step_fn, validate_step_fn, args, kwargs)
            self._step(train_step_fn, validate_step_fn, *args, **kwargs)

    def _step(self, train_step_fn: Any, validate_step_fn: Any, *args: Any, **kwargs: Any) -> None:
        session = self._ensure_session(train_step_fn, validate_step_fn, kwargs)
        if self._waits:  # for labels of this step, which has chosen
            self._waits, self.end_reason, cold_start = False, None, self._is_cold_start
        else:
            session.begin_step(None if self.train_datapool is None else len(self.train_datapool))
            cold_start = self._is_cold_start
            self._until_query(cold_start, train_step_fn, validate_step_fn, *args, **kwargs)
        if self.end_reason is None and not self.config.skip_labeling and self.label_strategy is not None:
            self._labeling_phase(*args, **kwargs)
        if not self._waits:
            self._end_step(session, cold_start)

    def _until_query(
        self, cold_start: bool, train_step_fn: Any, validate_step_fn: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Run the phases of a step before its labeling, as far as no stop criterion ends it."""
        if not cold_start:
            if self.trains and not len(self.train_datapool):
                checks.warn_of_untrained_start(self.warn_once)
            elif self.trains:
                self._training_phase(train_step_fn, validate_step_fn, *args, **kwargs)
            if self.measures:
                self._metrology_phase(*args, **kwargs)
            text = self.listeners.reason_to_stop()
            self.end_reason = agree_on_end(self.ranks, EndReason(EndKind.CRITERION, text) if text else None)
        if self.end_reason is None:
            self._query_phase(*args, **kwargs)

    def _train_finally(
        self, train_step_fn: TrainStep | None, validate_step_fn: ValidateStep | None, *args: Any, **kwargs: Any
    ) -> None:
        """Train and measure on the labels of the last step: the beginning of a step that the run may be extended by."""
        session = self._ensure_session(train_step_fn, None, kwargs)
        assert session.training is not None
        session.begin_step(len(self.train_datapool))
        self._training_phase(train_step_fn, validate_step_fn, *args, **kwargs)
        session.training.save()
        if self.measures:
            self._metrology_phase(*args, **kwargs)

    def _ends_with_training(self, reason: EndReason | None) -> bool:
        """Whether a run that ends for this reason trains once more."""
        return (
            self.config.final_training
            and self.trains
            and reason is not None
            and reason.kind is EndKind.STEPS
            and len(self.train_datapool) > 0
        )

    # -- its four phases -----------------------------------------------------------------------------

    def _training_phase(
        self,
        train_step_fn: TrainStep | None = None,
        validate_step_fn: ValidateStep | None = None,
        *_args: Any,
        **kwargs: Any,
    ) -> None:
        """Train the learner on what is labeled."""
        session = self._ensure_session(train_step_fn, validate_step_fn, kwargs)
        assert self._trainer is not None
        assert session.training is not None
        with session.phase(Phase.TRAINING):
            session.training.begin(session.record)
            self._trainer.train(
                self.position.step,
                self.info,
                seed=self._seed,
                epochs_done=session.training.epochs_done,
                finished=session.training.trained,
                train_step_fn=train_step_fn,
                validate_step_fn=validate_step_fn,
                on_epoch_end=session.training.end_epoch,
                keywords=kwargs,
            )
            session.training.end_training()
            if session.saves_after_training(self.position.step):
                session.training.save()

    def _metrology_phase(self, *args: Any, **kwargs: Any) -> None:
        """Measure the learner."""
        session = self._ensure_session(keywords=kwargs)
        with session.phase(Phase.METROLOGY):
            for strategy in self.metrology_strategies:
                before, known, name = strategy.records, len(strategy.records), self.strategy_name(strategy)
                first = before[0] if before else None
                given, named = accepted(strategy.compute, 0, args, kwargs)
                with raised_by(f"compute() of {name}"):
                    strategy.compute(*given, **named)
                if _were_reset(strategy.records, before, known, first):
                    known = 0
                strategy.records[known:] = session.add_metrics(name, strategy.records[known:])
                serialize = getattr(strategy, "serialize_records", None)
                if callable(serialize) and self.ranks.main:
                    given, named = accepted(serialize, 0, args, kwargs)
                    with self._scope.by_itself(), raised_by(f"serialize_records() of {name}"):
                        serialize(*given, **named)

    def _query_phase(self, *args: Any, **kwargs: Any) -> None:
        """Choose what to label next, and commit these requests."""
        session = self._ensure_session(keywords=kwargs)
        with session.phase(Phase.QUERY):
            strategies = self.query_strategies
            if self._is_cold_start:  # its labels may take a while, and are not asked for again
                strategies = [] if session.store.waits_before(self.position.step) else [self.start_strategy]
            with self._feasibility_learned(session):
                self._choose(strategies, session.store, *args, **kwargs)
            session.commit_requests(self.query_queue, model_digest(self.learner))

    def _labeling_phase(self, *args: Any, **kwargs: Any) -> None:
        """Get the labels that were asked for, and append them to the training pool."""
        session = self._ensure_session(keywords=kwargs)
        assert self._labeling is not None
        with session.phase(Phase.LABELING):
            counts = self._labeling.run(self.position.step, session.replaying, *args, **kwargs)
            self._waits = self._labeling.waits_for is not None
            if self._waits:
                self.end_reason = stopping.waits(self._labeling.waits_for)
            else:
                session.add_label_counts(counts)

    # -- between the phases --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _feasibility_learned(self, session: RunSession) -> Iterator[None]:
        """Know which candidates are likely to have no label, as far as that is wanted and can be learned."""
        failed = session.store.infeasible(self.position.step) if self.feasibility.is_on else []
        if failed and self._candidates.known and self.train_datapool is not None:
            labeled = self._labeled_inputs(session.store)
            found = self.feasibility.learn(self.choice_pool, labeled, failed, self.candidates())
            if found is not None:
                session.record.values["feasibility"] = found
        try:
            yield
        finally:
            self.feasibility.forget()

    def _labeled_inputs(self, store: RunStore) -> Iterator[Any]:
        """Return the inputs of the training samples, and of those that the run labeled and holds out, by batches."""
        yield from (batch[0] for batch in self.ordered_batches(self.train_datapool))
        trained = getattr(self.train_datapool, "labeled_ids", None)
        if trained is not None and self.train_datapool is self.choice_pool:
            held_out = set(store.labeled_samples(self.position.step)) - set(trained.tolist())
            if held_out:
                yield self.choice_pool.inputs(torch.tensor(sorted(held_out)))

    def _choose(self, strategies: Sequence[Any], store: RunStore | None, *args: Any, **kwargs: Any) -> None:
        """Let query strategies ask for samples, one after the other."""
        step = self.position.step
        if store is None:
            self.query_queue.begin(step, float("inf"))
        else:
            self.query_queue.begin(step, *self._left_and_usual_cost(store), lambda: store.infeasible(step))
        for left, strategy in zip(range(len(strategies), 0, -1), strategies, strict=True):
            self.query_queue.begin_strategy(self.strategy_name(strategy), left)
            given, named = accepted(strategy.sample, 1, args, kwargs)
            with raised_by(f"sample() of {self.strategy_name(strategy)}"):
                strategy.sample(self.query_queue, *given, **named)
            agree_on_requests(self.ranks, self.query_queue)

    def _end_step(self, session: RunSession, cold_start: bool) -> None:
        """Take in answers that arrived late, find out whether the run ends here, and commit the step."""
        assert self._labeling is not None
        if (counts := self._labeling.take_late_answers(self.position.step)) is not None:
            session.add_label_counts(counts)
        if self.end_reason is None:
            reason = stopping.nothing_to_label(
                requested=bool(self.query_queue.asked),
                over_budget=self.query_queue.dropped[OVER_BUDGET] > 0,
                candidates=self._candidates,
                cold_start=cold_start,
                settled=session.record.settled,
                waiting=cold_start and session.store.waits_before(self.position.step + 1),
                has_query_strategies=bool(self.query_strategies),
                max_steps=self.config.max_active_learning_steps,
                budget=self.config.budget,
            )
            failing = None if self.label_queue is None else self.label_queue.keeps_failing
            reason = (
                stopping.keeps_failing(failing, self.config.max_failure_rate)
                or stopping.all_refused(session.record.values, lambda: session.store.reasons(self.position.step))
                or reason
            )
            self.end_reason = agree_on_end(self.ranks, reason) or self._step_limit(self.position.step + 1)
        session.end_step(None if self._ends_with_training(self.end_reason) else self.end_reason)
        self.position.step += 1

    def _step_limit(self, done: int) -> EndReason | None:
        return stopping.step_limit(self.config.max_active_learning_steps, done)

    def _left_and_usual_cost(self, store: RunStore) -> tuple[float, float]:
        """Return what may still be spent, and what a label is expected to cost of which nobody says so."""
        if self.config.budget is None:
            return float("inf"), 1.0
        step, usual = self.position.step, store.mean_cost(self.position.step)
        return self.config.budget - store.committed_cost(step), 1.0 if usual is None else usual

    @property
    def _is_cold_start(self) -> bool:
        """Whether nothing is labeled, so that the start strategy is to choose."""
        return self.start_strategy is not None and self.train_datapool is not None and not len(self.train_datapool)

    # -- how a run is begun, resumed and ended ---------------------------------------------------------

    @contextlib.contextmanager
    def session(
        self,
        train_step_fn: TrainStep | None = None,
        validate_step_fn: ValidateStep | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Iterator[None]:
        """Make the run directory, and keep it open while the block runs; for those who call the steps themselves.

        The arguments are those of `run`, for the checks before the run begins.
        """
        if self._in_session:
            raise UsageError(
                f"run {self.run_id} is under way already, and can't be run again inside itself: by a strategy, an "
                "observer or another thread."
            )
        self._in_session = True
        try:
            with self._failures_reported():
                self._check_arguments(train_step_fn, validate_step_fn, args, kwargs)
                session = self._ensure_session(train_step_fn, validate_step_fn, kwargs)
            try:
                with self._failures_reported():
                    yield
            except BaseException as error:
                session.close(self.end_reason, error)
                raise
            session.close(self.end_reason, None)
        finally:
            self._in_session = False

    @contextlib.contextmanager
    def _step_entered(self) -> Iterator[None]:
        """Refuse a step inside a step."""
        if self._in_step:
            raise UsageError(
                f"step {self.position.step} of run {self.run_id} is under way already, and another one can't be run "
                "inside it: by a strategy, an observer or another thread."
            )
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False

    def restore(
        self, checkpoint: str | None = None, *, in_doubt: InDoubt | None = None, other_ranks: bool = False
    ) -> None:
        """Resume the run of this driver's id from what was committed last; `run` goes on from there.

        Give the driver what it was given when the run began, made anew: pools as they were before the run, the
        learner, the strategies. Training since the last checkpoint is repeated. What query and metrology strategies
        decided in that time is read from the database. No request that was answered is asked again.

        Parameters
        ----------
        checkpoint
            File name of an older checkpoint to start from, where the last one is damaged.
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
        if self._half_restored:
            raise UsageError("an earlier restore of this driver failed half-way; make a new Driver with fresh parts.")
        with self._failures_reported():
            self._restore(checkpoint, in_doubt, other_ranks=other_ranks)

    def _restore(self, checkpoint: str | None, in_doubt: InDoubt | None, *, other_ranks: bool) -> None:
        self.prepare()
        compare_pools(self.ranks, self._pools, {})
        store = open_run(self._root, self.run_id, self.ranks, other_ranks=other_ranks)
        with contextlib.ExitStack() as undo:
            undo.callback(store.close)
            check_decided(self.label_strategy, store, in_doubt)  # before any part is changed
            meta = store.meta()
            undo.enter_context(plugins_compared(meta["environment"]))
            self.config, self._half_restored = dataclasses.replace(self.config, seed=meta["seed"]), True
            point = self._resume(store, checkpoint, meta)
            self.end_reason = why_finished(store, meta, self.config.budget) or self._step_limit(point.step)
            release_in_flight(self.label_strategy, store, in_doubt)
            end = end_of(meta)
            if end is not None and end.kind is EndKind.LABELS_FAIL:  # the user may have mended the cause
                store.forget_failures()
            if self.end_reason is None:
                store.set_meta(**GOES_ON)
            self.position.step = point.step
            self._begin(store, point)
            assert self._session is not None
            metrology = [self.strategy_name(one) for one in self.metrology_strategies]
            self._session.tell_again(point.step - 1, point.one_step_behind, metrology)
            undo.pop_all()

    def ask(self, path: str | Path | None = None) -> list[OpenRequest]:
        """Return the requests of the run that have no answer, oldest first; write them to a file, too.

        Parameters
        ----------
        path
            A file to fill in: ``.csv``, ``.jsonl`` or ``.npz``.
        """
        requests = open_requests(Run(self.log_dir), self._pools.choice)
        if path is not None:
            write_requests(requests, Path(path))
        return requests

    def tell(self, answers: str | Path | Iterable[Any], source: str = SOURCE) -> Told:
        """Give answers to open requests of the run; those that are right are on the disk when this returns.

        A run that goes on takes them in at its next labeling phase, one that waits when `run` goes on. Telling an
        answer once more changes nothing.

        Parameters
        ----------
        answers
            `alcore.Label` and `alcore.Failed`, each for what `ask` returned, a request, its id, or a sample id; or a
            file: ``.csv``, ``.jsonl`` or ``.npz``.
        source
            Who answered, where a file doesn't say.

        Returns
        -------
        Told
            What became of each answer. One that is refused doesn't keep the others from being accepted.
        """
        given = given_answers(answers, self._pools.info, source)
        return tell(Run(self.log_dir), given, AnswerCheck(self._pools))

    def prepare(self) -> None:
        """Check that all parts fit together, and place the learner; nothing is written.

        `run` and `restore` begin with it.

        Raises
        ------
        UsageError
            When they don't.
        """
        checks.check_asks_or_ends(self.config, self._strategies, has_stop_criteria=self.listeners.has_stop_criteria)
        checks.check_fit(
            self.config, self._pools, self.label_strategy, has_start_strategy=self.start_strategy is not None
        )
        if self.trains:
            self._balance.check(self._pools.info)
        loops = [] if self._trainer is None else [self._trainer.loop]
        pools = [pool for pool in self._pools if pool is not None]
        learn_types([*pools, *self.strategies.values(), self.learner, *loops])
        place_learner(self.learner, self.device, self._asked_dtype)
        if self._trainer is not None:
            self._trainer.check()
        if self.config.per_cost:
            checks.warn_of_costs(self._strategies, self.warn_once)
        loop = {} if self._trainer is None else {"the training loop": self._trainer.loop}
        checks.run_checks({**self._strategies.by_name, **loop})

    def choose(self, *args: Any, **kwargs: Any) -> list[AskedRequest]:
        """Let the query strategies choose, as in the query phase of the next step; nothing is committed.

        Parameters
        ----------
        *args, **kwargs
            Passed on to the strategies.

        Returns
        -------
        list of AskedRequest
            What they asked for; these samples are not candidates any more.
        """
        if self.position.phase is not None:
            raise UsageError(
                f"choose() was called inside the {self.position.phase} phase of run {self.run_id}; call it before or "
                "after the run, or between two steps."
            )
        self.position.phase = Phase.QUERY
        try:
            self._choose(self.query_strategies, None, *args, **kwargs)
        finally:
            self.position.phase = None
            if self._session is not None:
                self._session.keep_pending(self.query_queue)
        return self.query_queue.asked

    @classmethod
    def load_checkpoint(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise `UsageError` with what to call instead; PhysicsNeMo's method of this name has no counterpart here."""
        raise UsageError(
            "a run is not loaded from a checkpoint file: make the Driver as it was made for the run, with the same "
            "run_id and fresh parts, and call driver.restore() (or restore('FILE') for an older checkpoint) before "
            "driver.run(), or give DriverConfig(resume='auto'). For the weights alone: alcore export RUN."
        )

    def save_checkpoint(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise `UsageError` with what to set instead; PhysicsNeMo's method of this name has no counterpart here."""
        raise UsageError(
            "a run saves its checkpoints itself, where it can go on from: at the end of each step, as often as "
            "DriverConfig(checkpoint_interval=...) says, after a training with checkpoint_on_training=True, and "
            "between epochs with model_checkpoint_frequency=..."
        )

    def interrupt(self) -> None:
        """Ask the run to end at the next safe point; usable from a signal handler or another thread."""
        self._interruption.request()

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to end."""
        return self._interruption.requested

    def _check_arguments(self, train: Any, validate: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments of a run that nothing takes."""
        if not args and not kwargs:
            return
        takers = self._strategies.takers()
        if self._trainer is not None:
            takers += self._trainer.takers(train, validate)
        check_arguments(takers, args, kwargs, self.warn_once)

    def _ensure_session(
        self,
        train_step_fn: TrainStep | None = None,
        validate_step_fn: ValidateStep | None = None,
        keywords: Mapping[str, Any] | None = None,
    ) -> RunSession:
        if self._trainer is not None:
            train_step_fn, validate_step_fn = self._trainer.step_functions(train_step_fn, validate_step_fn)
            checks.check_step_functions(train_step_fn, validate_step_fn, self._pools, keywords or {})
        if self._session is None:
            if self.config.resume == "auto" and self.ranks.share((self.log_dir / "run.db").is_file):
                self._restore(None, None, other_ranks=False)
            else:
                self._create(train_step_fn, keywords)
        assert self._session is not None
        if self._session.closed and self._waits:
            self._open_again(self._session)
        if self._session.closed:
            raise UsageError(f"run {self.run_id} has ended; make a new Driver to run again.")
        return self._session

    def _create(self, train_step_fn: TrainStep | None, keywords: Mapping[str, Any] | None) -> None:
        """Check everything, and make the run directory with its first checkpoint."""
        if self.trains:
            assert self.training_config is not None
            resolve_train_step(train_step_fn, self.learner, self.info, keywords or {})
            checks.check_class_weights(self.training_config, self.learner, train_step_fn, self.info)
        self.prepare()
        weights = self._load_weights()
        self._check_columns(train_step_fn)
        if self._trainer is not None:
            self._trainer.make_optimization()
        begin_alike(self.ranks, self.learner, self._seed)
        pools = {name: pool_digest(pool) for name, pool in self._pools.identified().items()}
        compare_pools(self.ranks, self._pools, pools)
        names = {
            "query": [self.strategy_name(one) for one in self.query_strategies],
            "metrology": [self.strategy_name(one) for one in self.metrology_strategies],
        }
        store = create_run(
            self._root,
            self.run_id,
            self.ranks,
            meta={
                "run_id": self.run_id, "seed": self._seed, "started": utc_now(), "status": "running",
                "environment": environment(), "pools": pools, "names": names, **self._about_inputs(), **weights,
            },
            experiment=self.description or self._describe(),
            state=self._checkpointer.collect(step=0, phase="start", epoch=0),
        )  # fmt: skip
        try:
            self._begin(store)
        except BaseException:
            store.close()  # or this process would hold the run's lock for as long as it lives
            raise

    def _open_again(self, before: RunSession) -> None:
        """Go on with a run that waited for labels in this process."""
        store, step = open_run(self._root, self.run_id, self.ranks, other_ranks=False), self.position.step
        with contextlib.ExitStack() as undo:
            undo.callback(store.close)
            if self.ranks.share(lambda: store.last_step() != step or store.is_committed(step)):
                raise UsageError(
                    f"run {self.run_id} waited for labels of step {step} here, and another process has gone on with "
                    "it since; make a new Driver with fresh parts to restore it."
                )
            store.set_meta(**GOES_ON)
            self._begin(store)
            undo.pop_all()
        assert self._session is not None
        self._session.record, self.end_reason = before.record, None
        set_global_rng_state(before.generators_at_end)

    def _load_weights(self) -> dict[str, Any]:
        """Give the learner the weights that it is to begin with, and return what the run records of them."""
        if self.config.weights is None:
            return {}
        path = Path(self.config.weights).expanduser().absolute()
        digest = load_weights(self.learner, path, self.config.weights_sha256)
        self.logger.info("the learner begins with the weights of %s, SHA-256 %s", path, digest)
        return {"weights": {"file": str(path), "sha256": digest}}

    def _about_inputs(self) -> dict[str, Any]:
        """Return what is known about the data, and how it makes inputs of a file, for later use of the learner."""
        found: dict[str, Any] = {}
        if isinstance(self.info, DataInfo):
            found["info"] = dataclasses.asdict(self.info)
        if self.preprocessing is not None:
            with raised_by("describe() of the preprocessing"):
                found[PREPROCESSING] = self.preprocessing.describe()
        return found

    def _check_columns(self, train_step_fn: TrainStep | None) -> None:
        """Compare the learner's outputs with the number of classes, where the default loss trains it."""
        info = self.info
        own = own_step(train_step_fn, self.learner) is not None or self.inference_fn is not None
        if not self.trains or own or info is None or not self._pools.choosable:
            return
        if info.task == "classification":
            checks.check_columns(info, self.learner, self.probe(), self.warn_once)

    def _resume(self, store: RunStore, checkpoint: str | None, meta: Mapping[str, Any]) -> ResumePoint:
        return resume(
            store,
            checkpoint,
            meta=meta,
            learner=self.learner,
            trainer=self._trainer,
            pools=self._pools,
            candidates=self._candidates,
            strategies=self._strategies,
            checkpointer=self._checkpointer,
            ranks=self.ranks,
            logger=self.logger,
        )

    def _begin(self, store: RunStore, point: ResumePoint | None = None) -> None:
        """Make the parts that work on an open run directory, and tell the observers."""
        if not self.ranks.main:
            self.log_dir = store.folder
        state = LabelStrategyState(self.label_strategy, None if point is None else store.label_strategy_state())
        self.label_queue = AnswerQueue(
            store,
            self._ledger,
            AnswerCheck(self._pools),
            strategy_state=state.to_store,
            after_commit=self._interruption.safe_point,
        )
        self._labeling = LabelingPhase(
            self.label_strategy, store, self._ledger, self.query_queue, self.label_queue, state, self._pools,
            self._scope, self._interruption,
        )  # fmt: skip
        training = None
        if self._trainer is not None:
            training = TrainingProgress(
                self._checkpointer, store, self._trainer, self.learner, self._trainer.epochs_between_checkpoints,
                self.ranks, self._interruption,
                epochs_done=0 if point is None else point.epochs,
                trained=point is not None and point.trained,
            )  # fmt: skip
        self._session = RunSession(
            store,
            self.run_id,
            self.log_dir,
            self.logger,
            self.warn_once,
            self.position,
            self.listeners,
            self._checkpointer,
            training,
            self._scope,
            self._interruption,
            checkpoint_interval=self.config.checkpoint_interval,
            checkpoint_on={phase for phase in Phase if getattr(self.config, f"checkpoint_on_{phase}")},
            retention=retention.parse(self.config.keep),
            budget=self.config.budget,
            last_recorded=-1 if point is None else store.last_step(),
            resumed_record=None if point is None else point.record,
        )
        self.logger.info("run %s %s in %s", self.run_id, "goes on" if point else "begins", self.log_dir)
        self.listeners.tell("alcore_run_start")

    @contextlib.contextmanager
    def _failures_reported(self) -> Iterator[None]:
        """Let a failure end the other ranks too, and raise the failure of another rank that caused this one."""
        try:
            yield
        except BaseException as error:
            cause = self.ranks.root_cause(error)
            self.ranks.fail(cause)
            if cause is not error:
                raise cause from error
            raise

    def _make_trainer(self, config: DriverConfig, training_config: TrainingConfig | None) -> Trainer | None:
        if training_config is None or config.skip_training:
            return None
        loop = training_config.train_loop_fn or installed().make("loop", "default")
        return Trainer(
            loop,
            self.learner,
            training_config,
            self._loaders,
            self._balance,
            device=self.device,
            dtype=self.dtype,
            fine_tuning_lr=config.fine_tuning_lr,
            reset_optim_states=config.reset_optim_states,
            model_checkpoint_frequency=config.model_checkpoint_frequency,
            ranks=self.ranks,
            manager=config.dist_manager,
        )

    def _describe(self) -> str:
        loop = None if self._trainer is None else self._trainer.loop
        return describe_run(self.config, self.training_config, self.learner, self._strategies.by_name, loop)

    # -- what strategies, loops and observers are given: `alcore.protocols.RunContext` --------------------

    @property
    def active_learning_step_idx(self) -> int:
        """The step under way, or the number of finished ones between steps."""
        return self.position.step

    @property
    def stop_reason(self) -> str | None:
        """Why the run ended, in words; None while it goes on. `end_reason` has the kind of the reason, too."""
        return None if self.end_reason is None else self.end_reason.text

    @property
    def phase(self) -> Phase | None:
        """The phase under way."""
        return self.position.phase

    @property
    def trains(self) -> bool:
        """Whether the run has a training phase."""
        return not self.config.skip_training

    @property
    def measures(self) -> bool:
        """Whether the run has a metrology phase."""
        return not self.config.skip_metrology and bool(self._strategies.metrology)

    def spent(self) -> Spent:
        """Return how many labels were bought in earlier steps, and what they cost."""
        return Spent(0, 0.0) if self._session is None else self._session.spent()

    @property
    def device(self) -> torch.device:
        """Where learner and batches are."""
        return torch.device(self.config.device or "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of batches, and of the learner unless it came with several."""
        return self._dtype

    @property
    def info(self) -> DataInfo | None:
        """What is known about the data, if a pool says, with the weights that its classes have now."""
        return self._balance.weighted(self._pools.info)

    def infer(self, inputs: Any) -> Any:
        """Return the learner's outputs: in eval mode, without gradients, on its device and in its dtype."""
        with evaluating(self.learner):
            placed = to_device(inputs, self.device, self.dtype)
            return self.learner(placed) if self.inference_fn is None else self.inference_fn(self.learner, placed)

    def probe(self, infer: Callable[[Any], Any] | None = None) -> Any:
        """Return the outputs for up to two candidates, the learner's or what `infer` gives; None without candidates."""
        ids = None if self.choice_pool is None else next(self.candidates(2), None)
        if ids is None:
            return None
        inputs = self.choice_pool.inputs(ids)
        try:
            with torch.random.fork_rng():
                return (infer or self.infer)(inputs)
        except UsageError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape[1:])) for tensor in tensors_of(inputs))
            raise UsageError(
                f"the learner {type(self.learner).__name__} can't take this data's inputs, of shape {shapes} each: "
                f"{' '.join(str(error).split())}. A learner factory that takes info is told the data's number of "
                "features and classes."
            ) from error

    @property
    def train_datapool(self) -> Any:
        """The pool that is trained on."""
        return self._pools.train

    @property
    def val_datapool(self) -> Any:
        """Held-out items, or None."""
        return self._pools.validation

    @property
    def unlabeled_datapool(self) -> Any:
        """The pool to choose from where that is not the training pool, else None."""
        return self._pools.unlabeled

    training_pool, validation_pool, unlabeled_pool = train_datapool, val_datapool, unlabeled_datapool
    """Other names of the pools, as in PhysicsNeMo."""

    @property
    def choice_pool(self) -> Any:
        """The pool that samples are chosen from."""
        return self._pools.choice

    def candidates(self, size: int = 2**16) -> Iterator[torch.Tensor]:
        """Yield the ids that the step under way chooses from, ascending, in int64 tensors of at most `size`."""
        if self.choice_pool is None:
            raise UsageError(
                "this run has no pool to choose from, so that its query strategies can only ask for generated inputs; "
                "give a training_config, or an unlabeled_datapool."
            )
        for ids in map(self.feasibility.offered, self._candidates.chunks(size, self.active_learning_step_idx)):
            self._interruption.safe_point()
            if len(ids):
                yield ids

    def pending(self) -> torch.Tensor:
        """Return the samples that were asked for and have no answer yet: ids, int64 (P,), ascending."""
        if self._session is None:
            return torch.tensor(self._candidates.waiting(), dtype=torch.int64)
        return torch.tensor(sorted(self._session.pending(self.query_queue)), dtype=torch.int64)

    def ordered_batches(self, pool: Any) -> BatchLoader:
        """Return the batches of a pool's labeled items in the order of the pool."""
        return self._loaders.large_batches(pool)

    @property
    def query_strategies(self) -> list[Any]:
        """The query strategies, in their order."""
        return self._strategies.query

    @property
    def start_strategy(self) -> Any:
        """The query strategy of the first selection, or None."""
        return self._strategies.start

    @property
    def label_strategy(self) -> Any:
        """The label strategy, or None."""
        return self._strategies.label

    @property
    def metrology_strategies(self) -> list[Any]:
        """The metrology strategies, in their order."""
        return self._strategies.metrology

    @property
    def strategies(self) -> dict[str, Any]:
        """All strategies by their names in this run."""
        return self._strategies.by_name

    def strategy_name(self, strategy: Any) -> str:
        """Return the name of a strategy in this run."""
        return self._strategies.name_of(strategy)

    def wanted(self, max_samples: int) -> int:
        """Return how many samples the query strategy at work is to ask for.

        Parameters
        ----------
        max_samples
            Its own number, which counts unless ``DriverConfig.samples_per_step`` gives it a share.
        """
        quota = self.query_queue.quota
        return max_samples if quota is None else quota

    def costs(self, samples: torch.Tensor | Sequence[Any]) -> torch.Tensor | None:
        """Return what labels are expected to cost, float64 (n,), where strategies are to choose by score per cost.

        Parameters
        ----------
        samples
            Ids of candidates, int64 (n,); or sample ids and generated inputs in a list of n.

        Returns
        -------
        torch.Tensor or None
            None where ``DriverConfig.per_cost`` is not set.
        """
        return self._costs.of_samples(samples, self.query_queue.usual_cost) if self.config.per_cost else None

    def generator(self, *purpose: object) -> torch.Generator:
        """Return a fresh generator derived from run seed, step, phase and purpose."""
        return derive_generator(self._seed, self.position.step, self.position.phase, *purpose)

    def safe_point(self) -> None:
        """End the run here if it was asked to end."""
        self._interruption.safe_point()

    def take_told(self) -> list[Request]:
        """Take in what was told to the run, while a label strategy works.

        Returns
        -------
        list of Request
            Those which the label strategy had taken out and is not to answer any more, since they were answered, or
            failed and are handed out again. At most once a second something is looked for.
        """
        return [] if self._labeling is None else self._labeling.take_told()

    @property
    def _seed(self) -> int:
        return int(self.config.seed or 0)

    # -- what `alcore.inference` uses beyond that: `alcore.inference.InferenceContext` ---------------------

    @property
    def batch_size(self) -> int:
        """Items in a training batch."""
        return self.config.batch_size

    @property
    def ranks(self) -> Ranks:
        """The processes that compute together; this one alone while it works by itself."""
        return self._scope.current


def _were_reset(records: list[Any], before: list[Any], known: int, first: Any) -> bool:
    """Tell whether a metrology strategy has begun its records anew, in a list of its own or in the same one."""
    if len(records) < known:
        return True
    return records is not before and bool(known) and records[0] is not first
