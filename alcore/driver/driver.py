"""The Driver: train, measure, query, label, until something ends the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from alcore.config import DriverConfig, StrategiesConfig, TrainingConfig
from alcore.distributed.ranks import Ranks
from alcore.driver import checks, stopping
from alcore.driver.agreement import agree_on_end
from alcore.driver.answer_queue import AnswerQueue
from alcore.driver.answers import AnswerCheck
from alcore.driver.asking import OpenRequest, open_requests
from alcore.driver.expected_costs import ExpectedCosts
from alcore.driver.feasibility import Feasibility
from alcore.driver.in_flight import InDoubt
from alcore.driver.lifecycle import RunLifecycle, RunState
from alcore.driver.parts import make_parts
from alcore.driver.query_phase import QueryPhase
from alcore.driver.request_queue import OVER_BUDGET
from alcore.driver.session import ClosedRun, RunSession, samples_of
from alcore.driver.telling import Told, tell
from alcore.errors import UsageError, raised_by
from alcore.inference.features import FeatureCache
from alcore.inference.learner import model_digest
from alcore.outputs.modes import evaluating
from alcore.pools.batches import tensors_of, to_device
from alcore.protocols import DataInfo, EndKind, EndReason, Phase, Preprocessing, Request, Spent, TrainStep, ValidateStep
from alcore.randomness import derive_generator
from alcore.store.reading import Run
from alcore.store.rows import AskedRequest
from alcore.training.extra_arguments import accepted, check_arguments
from alcore.training.loader import BatchLoader
from alcore.training.steps import own_step, resolve_train_step


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
    preprocessing
        How the data makes inputs of a file. It is described in the run when that begins, for ``alcore export`` and,
        where the run has an experiment file, ``alcore predict``.
    description
        The experiment file that the run directory gets, as `alcore.experiment.to_toml` returns it; made of the parts,
        and of no use to ``alcore resume``, where it is None.
    names_code
        Whether the experiment names the user's own code, so that ``alcore resume`` needs ``--allow-code``.

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
        *,
        preprocessing: Preprocessing | None = None,
        description: str | None = None,
        names_code: bool = False,
    ) -> None:
        checks.check_parts(config, learner, strategies_config, training_config)
        checks.check_others(inference_fn, plugins)
        self._parts = parts = make_parts(config, learner, strategies_config, training_config, plugins)
        self.learner, self.training_config, self.inference_fn = parts.learner, training_config, inference_fn
        self.run_id, self.position, self.query_queue = parts.position.run_id, parts.position, parts.query_queue
        self.logger, self.warn_once, self.listeners = parts.logger, parts.warn_once, parts.listeners
        self.feasibility, self.feature_cache = Feasibility(config.feasibility, self.warn_once), FeatureCache()
        self.preprocessing, self.description, self.names_code = preprocessing, description, names_code
        self._lifecycle = RunLifecycle(parts)
        self._query = QueryPhase(parts, self.feasibility, self.candidates)
        self._entered: set[str] = set()  # "run", "step": what is under way, and can't be entered inside itself

        self.listeners.attach(self)
        for name, strategy in self.strategies.items():
            with raised_by(f"attach() of {name}"):
                strategy.attach(self)
        if parts.trainer is not None and callable(getattr(parts.trainer.loop, "attach", None)):
            with raised_by("attach() of the training loop"):
                parts.trainer.loop.attach(self)  # type: ignore[attr-defined]

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
        with self._entering(
            "step", f"step {self.position.step} of run {self.run_id}", "another one can't be run inside it"
        ):
            self._check_arguments(train_step_fn, validate_step_fn, args, kwargs)
            session = self._open(train_step_fn, validate_step_fn, kwargs)
            cold_start = self._is_cold_start
            if session.record.waits:  # for labels of this step, which has chosen
                session.record.end = self.end_reason = None
            else:
                session.begin_step(None if self.train_datapool is None else len(self.train_datapool))
                if not cold_start:
                    self._training_phase(train_step_fn, validate_step_fn, *args, **kwargs)
                    self._metrology_phase(*args, **kwargs)
                    self.end_reason = self._stop_criterion()
                if self.end_reason is None:
                    self._query_phase(*args, **kwargs)
            if self.end_reason is None:
                self._labeling_phase(*args, **kwargs)
            if not session.record.waits:
                self._end_step(session, cold_start)

    def _train_finally(
        self, train_step_fn: TrainStep | None, validate_step_fn: ValidateStep | None, *args: Any, **kwargs: Any
    ) -> None:
        """Train and measure on the labels of the last step: the beginning of a step that the run may be extended by."""
        session = self._open(train_step_fn, validate_step_fn, kwargs)
        assert session.training is not None
        session.begin_step(len(self.train_datapool))
        self._training_phase(train_step_fn, validate_step_fn, *args, **kwargs)
        session.training.save()
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
        """Train the learner on what is labeled; nothing where the run doesn't train, or nothing is labeled."""
        session, trainer = self._open(train_step_fn, validate_step_fn, kwargs), self._parts.trainer
        if trainer is None or session.training is None:
            return
        if not len(self.train_datapool):
            checks.warn_of_untrained_start(self.warn_once)
            return
        with session.phase(Phase.TRAINING):
            session.training.begin(session.record)
            trainer.train(
                self.position.step,
                self.info,
                seed=self._parts.seed,
                epochs_done=session.training.epochs_done,
                finished=session.training.trained,
                train_step_fn=train_step_fn,
                validate_step_fn=validate_step_fn,
                on_epoch_end=session.training.end_epoch,
                keywords=kwargs,
            )
            session.training.end_training()
            if session.saves_after_training():
                session.training.save()

    def _metrology_phase(self, *args: Any, **kwargs: Any) -> None:
        """Measure the learner; nothing where the run doesn't measure."""
        session = self._session(kwargs)
        if not self.measures:
            return
        with session.phase(Phase.METROLOGY):
            for strategy in self.metrology_strategies:
                before, count, name = strategy.records, len(strategy.records), self.strategy_name(strategy)
                first = before[0] if before else None
                given, named = accepted(strategy.compute, 0, args, kwargs)
                with raised_by(f"compute() of {name}"):
                    strategy.compute(*given, **named)
                if _were_reset(strategy.records, before, count, first):
                    count = 0
                strategy.records[count:] = session.add_metrics(name, strategy.records[count:])
                serialize = getattr(strategy, "serialize_records", None)
                if callable(serialize) and self.ranks.main:
                    given, named = accepted(serialize, 0, args, kwargs)
                    with self._parts.scope.by_itself(), raised_by(f"serialize_records() of {name}"):
                        serialize(*given, **named)

    def _query_phase(self, *args: Any, **kwargs: Any) -> None:
        """Choose what to label next, and commit these requests."""
        session = self._session(kwargs)
        with session.phase(Phase.QUERY):
            strategies = self.query_strategies
            if self._is_cold_start:  # its labels may take a while, and are not asked for again
                strategies = [] if session.store.requests.waits_before(self.position.step) else [self.start_strategy]
            if (learned := self._query.run(strategies, session.store, args, kwargs)) is not None:
                session.record.values["feasibility"] = learned
            session.commit_requests(self.query_queue, model_digest(self.learner))

    def _labeling_phase(self, *args: Any, **kwargs: Any) -> None:
        """Get the labels that were asked for, and append them to the training pool; nothing without a strategy."""
        session = self._session(kwargs)
        if self.config.skip_labeling or self.label_strategy is None:
            return
        with session.phase(Phase.LABELING):
            counts = session.labeling.run(self.position.step, session.replaying, *args, **kwargs)
            session.record.end = stopping.waits(session.labeling.waits_for)
            if session.record.waits:
                self.end_reason = session.record.end
            else:
                session.add_label_counts(counts)

    # -- between the phases --------------------------------------------------------------------------

    def _stop_criterion(self) -> EndReason | None:
        """Return the reason of a stop criterion to end the run, else None."""
        text = self.listeners.reason_to_stop()
        return agree_on_end(self.ranks, EndReason(EndKind.CRITERION, text) if text else None)

    def _end_step(self, session: RunSession, cold_start: bool) -> None:
        """Take in answers that arrived late, find out whether the run ends here, and commit the step."""
        if (counts := session.labeling.take_late_answers(self.position.step)) is not None:
            session.add_label_counts(counts)
        if self.end_reason is None:
            reason = stopping.nothing_to_label(
                requested=bool(self.query_queue.asked),
                over_budget=self.query_queue.dropped[OVER_BUDGET] > 0,
                candidates=self._parts.candidates,
                cold_start=cold_start,
                settled=session.record.settled,
                waiting=cold_start and session.store.requests.waits_before(self.position.step + 1),
                has_query_strategies=bool(self.query_strategies),
                max_steps=self.config.max_active_learning_steps,
                budget=self.config.budget,
            )
            failing = None if self.label_queue is None else self.label_queue.keeps_failing
            reason = (
                stopping.keeps_failing(failing, self.config.max_failure_rate)
                or stopping.all_refused(session.record.values, lambda: session.store.labels.reasons(self.position.step))
                or reason
            )
            self.end_reason = agree_on_end(self.ranks, reason) or self._step_limit(self.position.step + 1)
        session.end_step(None if self._ends_with_training(self.end_reason) else self.end_reason)
        self.position.step += 1

    def _step_limit(self, done: int) -> EndReason | None:
        return stopping.step_limit(self.config.max_active_learning_steps, done)

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
        with self._entering("run", f"run {self.run_id}", "can't be run again inside itself"):
            with self._failures_reported():
                self._check_arguments(train_step_fn, validate_step_fn, args, kwargs)
                self._open(train_step_fn, validate_step_fn, kwargs)
            try:
                with self._failures_reported():
                    yield
            except BaseException as error:
                self._lifecycle.close(error)
                raise
            self._lifecycle.close(None)

    @contextlib.contextmanager
    def _entering(self, what: str, named: str, refusal: str) -> Iterator[None]:
        """Refuse to enter a run, or a step, inside itself."""
        if what in self._entered:
            raise UsageError(
                f"{named} is under way already, and {refusal}: by a strategy, an observer or another thread."
            )
        self._entered.add(what)
        try:
            yield
        finally:
            self._entered.remove(what)

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
        with self._failures_reported():
            self._lifecycle.restore(checkpoint, in_doubt, other_ranks=other_ranks)

    def ask(self) -> list[OpenRequest]:
        """Return the requests of the run that have no answer, oldest first."""
        return open_requests(Run(self.log_dir), self.choice_pool)

    def tell(self, answers: Iterable[Any]) -> Told:
        """Give answers to open requests of the run; those that are right are on the disk when this returns.

        A run that goes on takes them in at its next labeling phase, one that waits when `run` goes on. Telling an
        answer once more changes nothing.

        Parameters
        ----------
        answers
            `alcore.Label` and `alcore.Failed`, each for what `ask` returned, a request, its id, or a sample id; or what
            `alcore_labelers.read_answers` read from a file.

        Returns
        -------
        Told
            What became of each answer. One that is refused doesn't keep the others from being accepted.
        """
        return tell(Run(self.log_dir), answers, AnswerCheck(self._parts.pools))

    def label_with(self, label: Callable[..., None]) -> None:
        """Have a function called in place of the label strategy's ``label``, as for a rehearsal of a campaign.

        All else is that of the label strategy: its name and its state are those of the run, which another Driver can
        restore and go on with.

        Parameters
        ----------
        label
            Called as ``label(queue_to_label, serialize_queue)``, and with the arguments of the run that it has
            parameters for. It may call the strategy's own, and raise `alcore.errors.Waiting`, which ends the run inside
            its step. Unlike a label strategy it is called, too, where open requests are all taken out.

        Raises
        ------
        UsageError
            When the run has begun.
        """
        if self._lifecycle.state is not RunState.NEW:
            raise UsageError(f"run {self.run_id} has begun; call label_with() before.")
        self._lifecycle.label_stand_in = label

    def prepare(self) -> None:
        """Check that all parts fit together, and place the learner; nothing is written.

        `run` and `restore` begin with it.

        Raises
        ------
        UsageError
            When they don't.
        """
        self._lifecycle.prepare()

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
            self._query.run(self.query_strategies, None, args, kwargs)
        finally:
            self.position.phase = None
            if isinstance(closed := self._lifecycle.run, ClosedRun):  # nobody answers these any more
                closed.unanswered |= samples_of(self.query_queue.asked)
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
        self._parts.interruption.request()

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to end."""
        return self._parts.interruption.requested

    @property
    def expected_costs(self) -> ExpectedCosts:
        """What labels are expected to cost, as the label strategy or the pool says; `costs` is for strategies."""
        return self._parts.costs

    def _check_arguments(self, train: Any, validate: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments of a run that nothing takes."""
        if not args and not kwargs:
            return
        trainer = self._parts.trainer
        takers = self._parts.strategies.takers() + ([] if trainer is None else trainer.takers(train, validate))
        check_arguments(takers, args, kwargs, self.warn_once)

    def _open(
        self, train_step_fn: TrainStep | None, validate_step_fn: ValidateStep | None, keywords: Mapping[str, Any]
    ) -> RunSession:
        """Return the open run, for training with these step functions; it is opened where it isn't open yet."""
        if self._parts.trainer is not None:
            train_step_fn, validate_step_fn = self._parts.trainer.step_functions(train_step_fn, validate_step_fn)
            checks.check_step_functions(train_step_fn, validate_step_fn, self._parts.pools, keywords)
        lifecycle = self._lifecycle
        if lifecycle.state is RunState.WAITING:
            return lifecycle.reopen()
        if lifecycle.state is not RunState.NEW:
            return lifecycle.session
        if self.config.resume == "auto" and lifecycle.exists:
            return lifecycle.restore(None, None, other_ranks=False)
        if self.trains:
            assert self.training_config is not None
            resolve_train_step(train_step_fn, self.learner, self.info, keywords)
            checks.check_class_weights(self.training_config, self.learner, train_step_fn, self.info)
        return lifecycle.create(
            lambda: self._check_columns(train_step_fn), description=self.description, preprocessing=self.preprocessing
        )

    def _session(self, keywords: Mapping[str, Any]) -> RunSession:
        """Return the open run, for a phase that doesn't train; it is opened where the phase is called by hand."""
        is_open = self._lifecycle.state is RunState.OPEN
        return self._lifecycle.session if is_open else self._open(None, None, keywords)

    def _check_columns(self, train_step_fn: TrainStep | None) -> None:
        """Compare the learner's outputs with the number of classes, where the default loss trains it."""
        info = self.info
        own = own_step(train_step_fn, self.learner) is not None or self.inference_fn is not None
        if not self.trains or own or info is None or not self._parts.pools.choosable:
            return
        if info.task == "classification":
            checks.check_columns(info, self.learner, self.probe(), self.warn_once)

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

    # -- what strategies, loops and observers are given: `alcore.protocols.RunContext` --------------------

    @property
    def config(self) -> DriverConfig:
        """How the loop is run, with the seed of the run, and the dtype of its batches."""
        return self._parts.config

    @property
    def log_dir(self) -> Path:
        """Directory of the run, made when the run starts."""
        return self._lifecycle.folder

    @property
    def label_queue(self) -> AnswerQueue | None:
        """Where a label strategy delivers its answers; made when the run starts."""
        return self._lifecycle.label_queue

    @property
    def end_reason(self) -> EndReason | None:
        """Why the run ended; None while it goes on."""
        return self.position.end_reason

    @end_reason.setter
    def end_reason(self, reason: EndReason | None) -> None:
        self.position.end_reason = reason

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
        return not self.config.skip_metrology and bool(self._parts.strategies.metrology)

    def spent(self) -> Spent:
        """Return how many labels were bought in earlier steps, and what they cost."""
        run = self._lifecycle.run
        return Spent(0, 0.0) if run is None else run.spent()

    @property
    def device(self) -> torch.device:
        """Where learner and batches are."""
        return self._parts.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of batches, and of the learner unless it came with several."""
        return self._parts.dtype

    @property
    def info(self) -> DataInfo | None:
        """What is known about the data, if a pool says, with the weights that its classes have now."""
        return self._parts.balance.weighted(self._parts.pools.info)

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
                f"{' '.join(str(error).split())}. A learner factory that takes info gets the data's number of "
                "features and classes."
            ) from error

    @property
    def train_datapool(self) -> Any:
        """The pool that is trained on."""
        return self._parts.pools.train

    @property
    def val_datapool(self) -> Any:
        """Held-out items, or None."""
        return self._parts.pools.validation

    @property
    def unlabeled_datapool(self) -> Any:
        """The pool to choose from where that is not the training pool, else None."""
        return self._parts.pools.unlabeled

    training_pool, validation_pool, unlabeled_pool = train_datapool, val_datapool, unlabeled_datapool
    """Other names of the pools, as in PhysicsNeMo."""

    @property
    def choice_pool(self) -> Any:
        """The pool that samples are chosen from."""
        return self._parts.pools.choice

    def candidates(self, size: int = 2**16) -> Iterator[torch.Tensor]:
        """Yield the ids that the step under way chooses from, ascending, in int64 tensors of at most `size`."""
        if self.choice_pool is None:
            raise UsageError(
                "this run has no pool to choose from, so that its query strategies can only ask for generated inputs; "
                "give a training_config, or an unlabeled_datapool."
            )
        for ids in map(self.feasibility.offered, self._parts.candidates.chunks(size, self.active_learning_step_idx)):
            self._parts.interruption.safe_point()
            if len(ids):
                yield ids

    def pending(self) -> torch.Tensor:
        """Return the samples that were asked for and have no answer yet: ids, int64 (P,), ascending."""
        run = self._lifecycle.run
        samples = self._parts.candidates.waiting() if run is None else sorted(run.pending(self.query_queue))
        return torch.tensor(samples, dtype=torch.int64)

    def ordered_batches(self, pool: Any) -> BatchLoader:
        """Return the batches of a pool's labeled items in the order of the pool."""
        return self._parts.loaders.large_batches(pool)

    @property
    def query_strategies(self) -> list[Any]:
        """The query strategies, in their order."""
        return self._parts.strategies.query

    @property
    def start_strategy(self) -> Any:
        """The query strategy of the first selection, or None."""
        return self._parts.strategies.start

    @property
    def label_strategy(self) -> Any:
        """The label strategy, or None."""
        return self._parts.strategies.label

    @property
    def metrology_strategies(self) -> list[Any]:
        """The metrology strategies, in their order."""
        return self._parts.strategies.metrology

    @property
    def strategies(self) -> dict[str, Any]:
        """All strategies by their names in this run."""
        return self._parts.strategies.by_name

    def strategy_name(self, strategy: Any) -> str:
        """Return the name of a strategy in this run."""
        return self._parts.strategies.name_of(strategy)

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
        return self._parts.costs.of_samples(samples, self.query_queue.usual_cost) if self.config.per_cost else None

    def generator(self, *purpose: object) -> torch.Generator:
        """Return a fresh generator derived from run seed, step, phase and purpose."""
        return derive_generator(self._parts.seed, self.position.step, self.position.phase, *purpose)

    def safe_point(self) -> None:
        """End the run here if it was asked to end."""
        self._parts.interruption.safe_point()

    def take_told(self) -> list[Request]:
        """Take in what was told to the run, while a label strategy works.

        Returns
        -------
        list of Request
            Those which the label strategy had taken out and is not to answer any more, since they were answered, or
            failed and are handed out again. At most once a second something is looked for.
        """
        run = self._lifecycle.run
        return run.labeling.take_told() if isinstance(run, RunSession) else []

    # -- what `alcore.inference` uses beyond that: `alcore.inference.InferenceContext` ---------------------

    @property
    def batch_size(self) -> int:
        """Items in a training batch."""
        return self.config.batch_size

    @property
    def ranks(self) -> Ranks:
        """The processes that compute together; this one alone while it works by itself."""
        return self._parts.scope.current


def _were_reset(records: list[Any], before: list[Any], recorded: int, first: Any) -> bool:
    """Return whether a metrology strategy has begun its records anew, in a list of its own or in the same one."""
    if len(records) < recorded:
        return True
    return records is not before and bool(recorded) and records[0] is not first
