"""How a run is created, opened, restored, reopened and closed in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from alcore.codec import learn_types
from alcore.distributed.ranks import Ranks
from alcore.driver import checks, stopping
from alcore.driver.agreement import begin_alike, compare_pools
from alcore.driver.answer_queue import AnswerQueue
from alcore.driver.answers import AnswerCheck
from alcore.driver.checkpointing import CheckpointSchedule, TrainingProgress
from alcore.driver.description import describe_run, environment
from alcore.driver.in_flight import InDoubt, check_decided, release_in_flight
from alcore.driver.labeling import LabelingPhase, LabelStrategyState
from alcore.driver.parts import RunParts
from alcore.driver.resume import ResumePoint, resume, why_finished
from alcore.driver.session import ClosedRun, RunSession
from alcore.errors import UsageError, raised_by
from alcore.inference.learner import place_learner
from alcore.inference.weights import load_weights
from alcore.plugins.discovery import plugins_compared
from alcore.pools.offers import pool_digest
from alcore.protocols import DataInfo, EndKind, Preprocessing
from alcore.randomness import global_rng_state, set_global_rng_state
from alcore.store.endings import GOES_ON, end_of
from alcore.store.facts import PREPROCESSING, utc_now
from alcore.store.replica import Replica
from alcore.store.run import RunStore

_HALF_WAY = "an earlier start or restore of this driver failed half-way; make a new Driver with fresh parts."


class RunState(enum.Enum):
    """Whether the run of a Driver is open in this process."""

    NEW = "new"
    """Nothing is open yet."""
    CHANGED = "changed"
    """Its parts are being restored, or to begin the run failed; a new Driver can go on."""
    OPEN = "open"
    """The run directory is open."""
    ENDING = "ending"
    """The run directory is open; observers are called with the end."""
    WAITING = "waiting"
    """Closed; the step under way waits for labels, and can go on in this process."""
    ENDED = "ended"
    """Closed."""


class RunLifecycle:
    """Opens and closes the directory of a run.

    Parameters
    ----------
    parts
        What the run consists of.

    Attributes
    ----------
    state : RunState
        Whether the run is open.
    folder : pathlib.Path
        The run directory; on ranks other than 0 a temporary folder while the run is open.
    label_queue : AnswerQueue or None
        Where a label strategy delivers its answers; made when the run is opened.
    label_stand_in : callable or None
        What is called in place of the label strategy's ``label``; see `alcore.Driver.label_with`.
    """

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts
        self.state = RunState.NEW
        self.folder = parts.root / parts.position.run_id
        self.label_queue: AnswerQueue | None = None
        self.label_stand_in: Callable[..., None] | None = None
        self._session: RunSession | None = None
        self._closed: ClosedRun | None = None

    @property
    def run(self) -> RunSession | ClosedRun | None:
        """The open run, or what is left of it; None where there was none."""
        return self._session or self._closed

    @property
    def session(self) -> RunSession:
        """The open run.

        Raises
        ------
        UsageError
            When it isn't open.
        """
        if self.state is RunState.CHANGED:
            raise UsageError(_HALF_WAY)
        if self.state is not RunState.OPEN or self._session is None:
            raise UsageError(f"run {self._parts.position.run_id} has ended; make a new Driver to run again.")
        return self._session

    @property
    def exists(self) -> bool:
        """Whether the run directory exists; all ranks must ask at once."""
        return self._parts.ranks.share((self.folder / "run.db").is_file)

    def prepare(self) -> None:
        """Check that all parts fit together, and place the learner; nothing is written."""
        parts = self._parts
        checks.check_asks_or_ends(parts.config, parts.strategies, has_stop_criteria=parts.listeners.has_stop_criteria)
        checks.check_fit(
            parts.config, parts.pools, parts.strategies.label, has_start_strategy=parts.strategies.start is not None
        )
        if not parts.config.skip_training:
            parts.balance.check(parts.pools.info)
        loop = {} if parts.trainer is None else {"the training loop": parts.trainer.loop}
        pools = [pool for pool in parts.pools if pool is not None]
        learn_types([*pools, *parts.strategies.by_name.values(), parts.learner, *loop.values()])
        place_learner(parts.learner, parts.device, parts.asked_dtype)
        if parts.trainer is not None:
            parts.trainer.check()
        if parts.config.per_cost:
            checks.warn_of_costs(parts.strategies, parts.warn_once)
        checks.run_checks({**parts.strategies.by_name, **loop})

    def create(
        self, check: Callable[[], None], *, description: str | None, preprocessing: Preprocessing | None
    ) -> RunSession:
        """Make the run directory, with its first checkpoint.

        Parameters
        ----------
        check
            Called when the learner is as it begins the run, before anything is written.
        description
            Text of ``experiment.toml``; None describes the parts.
        preprocessing
            How the data makes inputs of a file.
        """
        parts, position = self._parts, self._parts.position
        self.prepare()
        weights = self._load_weights()
        check()
        if parts.trainer is not None:
            parts.trainer.make_optimization()
        begin_alike(parts.ranks, parts.learner, parts.seed)
        pools = {name: pool_digest(pool) for name, pool in parts.pools.identified().items()}
        compare_pools(parts.ranks, parts.pools, pools)
        strategies = parts.strategies
        names = {
            "query": [strategies.name_of(strategy) for strategy in strategies.query],
            "metrology": [strategies.name_of(strategy) for strategy in strategies.metrology],
        }
        loop = None if parts.trainer is None else parts.trainer.loop
        store = create_run(
            parts.root,
            position.run_id,
            parts.ranks,
            meta={
                "run_id": position.run_id, "seed": parts.seed, "started": utc_now(), "status": "running",
                "environment": environment(), "pools": pools, "names": names,
                **self._about_inputs(preprocessing), **weights,
            },
            experiment=description
            or describe_run(parts.config, parts.training_config, parts.learner, strategies.by_name, loop),
            state=parts.checkpointer.collect(step=0, phase="start", epoch=0),
        )  # fmt: skip
        with self._opening(store):
            return self._begin(store)

    def restore(self, checkpoint: str | None, in_doubt: InDoubt | None, *, other_ranks: bool) -> RunSession:
        """Bring the parts to the last checkpoint of the run, or to the one of this file name, and open the run.

        Parameters
        ----------
        checkpoint, in_doubt, other_ranks
            As in `alcore.Driver.restore`.
        """
        parts, position = self._parts, self._parts.position
        if self.state is RunState.CHANGED:
            raise UsageError(_HALF_WAY)
        if self.state is not RunState.NEW:
            raise UsageError(f"run {position.run_id} is open already; make a new Driver to restore it.")
        self.prepare()
        compare_pools(parts.ranks, parts.pools, {})
        store = open_run(parts.root, position.run_id, parts.ranks, other_ranks=other_ranks)
        with self._opening(store):
            check_decided(parts.strategies.label, store, in_doubt)  # before any part is changed
            meta = store.meta()
            with plugins_compared(meta["environment"]):
                self.state = RunState.CHANGED
                parts.config = dataclasses.replace(parts.config, seed=meta["seed"])
                point = resume(store, checkpoint, meta=meta, parts=parts)
                position.step = point.step
                position.end_reason = why_finished(store, meta, parts.config.budget) or stopping.step_limit(
                    parts.config.max_active_learning_steps, point.step
                )
                release_in_flight(parts.strategies.label, store, in_doubt)
                end = end_of(meta)
                if end is not None and end.kind is EndKind.LABELS_FAIL:  # the user may have mended the cause
                    store.labels.forget_failures()
                if position.end_reason is None:
                    store.set_meta(**GOES_ON)
                session = self._begin(store, point)
                metrology = [parts.strategies.name_of(strategy) for strategy in parts.strategies.metrology]
                session.repeat_step_end(point.step - 1, point.one_step_behind, metrology)
                return session

    def reopen(self) -> RunSession:
        """Go on with a run that waited for labels in this process."""
        parts, position, closed = self._parts, self._parts.position, self._closed
        assert closed is not None
        store, step = open_run(parts.root, position.run_id, parts.ranks, other_ranks=False), position.step
        with self._opening(store):
            if parts.ranks.share(lambda: store.steps.last() != step or store.steps.is_committed(step)):
                raise UsageError(
                    f"run {position.run_id} waited for labels of step {step} here, and another process has gone on "
                    "with it since; make a new Driver with fresh parts to restore it."
                )
            store.set_meta(**GOES_ON)
            session = self._begin(store)
        session.record, position.end_reason = closed.record, None
        set_global_rng_state(closed.generators)
        return session

    def close(self, error: BaseException | None) -> None:
        """Commit how the run ended, with this error or for the reason that the position has, and close it."""
        session, reason = self.session, self._parts.position.end_reason
        waits = error is None and reason is not None and reason.kind is EndKind.WAITING
        generators = global_rng_state() if waits else {}
        self.state = RunState.ENDING
        try:
            session.end(reason, error)
        finally:
            self._closed, self._session = session.close(generators), None
            self.state = RunState.WAITING if waits else RunState.ENDED

    @contextlib.contextmanager
    def _opening(self, store: RunStore) -> Iterator[None]:
        """Close a run directory that was opened, or this process would hold its lock, where the block fails."""
        before = self.state
        try:
            yield
        except BaseException:
            if self._session is not None:
                self._session, self.state = None, before if before is RunState.WAITING else RunState.CHANGED
            store.close()
            raise

    def _begin(self, store: RunStore, point: ResumePoint | None = None) -> RunSession:
        """Make the parts that work on an open run directory, and call the observers."""
        parts = self._parts
        if not parts.ranks.main:
            self.folder = store.folder
        strategy = parts.strategies.label
        label_state = LabelStrategyState(strategy, None if point is None else store.labels.strategy_state())
        self.label_queue = AnswerQueue(
            store,
            parts.ledger,
            AnswerCheck(parts.pools),
            strategy_state=label_state.to_store,
            after_commit=parts.interruption.safe_point,
        )
        labeling = LabelingPhase(
            strategy,
            store,
            ledger=parts.ledger,
            requests=parts.query_queue,
            answers=self.label_queue,
            state=label_state,
            pools=parts.pools,
            scope=parts.scope,
            interruption=parts.interruption,
            stand_in=self.label_stand_in,
        )
        training = None
        if parts.trainer is not None:
            training = TrainingProgress(
                parts.checkpointer,
                store,
                parts.trainer,
                parts.learner,
                ranks=parts.ranks,
                interruption=parts.interruption,
                epochs_done=0 if point is None else point.epochs,
                trained=point is not None and point.trained,
            )
        self._session = RunSession(
            store,
            parts.position,
            parts.logger,
            parts.warn_once,
            parts.listeners,
            parts.checkpointer,
            CheckpointSchedule.of(parts.config),
            training,
            labeling,
            parts.scope,
            parts.interruption,
            budget=parts.config.budget,
            last_recorded=-1 if point is None else store.steps.last(),
            resumed_record=None if point is None else point.record,
        )
        self.state = RunState.OPEN
        parts.logger.info("run %s %s in %s", parts.position.run_id, "goes on" if point else "begins", self.folder)
        parts.listeners.call("alcore_run_start")
        return self._session

    def _load_weights(self) -> dict[str, Any]:
        """Give the learner the weights that it is to begin with, and return what the run records of them."""
        config = self._parts.config
        if config.weights is None:
            return {}
        path = Path(config.weights).expanduser().absolute()
        digest = load_weights(self._parts.learner, path, config.weights_sha256)
        self._parts.logger.info("the learner begins with the weights of %s, SHA-256 %s", path, digest)
        return {"weights": {"file": str(path), "sha256": digest}}

    def _about_inputs(self, preprocessing: Preprocessing | None) -> dict[str, Any]:
        """Return what is known about the data, and how it makes inputs of a file, for later use of the learner."""
        about: dict[str, Any] = {}
        if isinstance(info := self._parts.balance.weighted(self._parts.pools.info), DataInfo):
            about["info"] = dataclasses.asdict(info)
        if preprocessing is not None:
            with raised_by("describe() of the preprocessing"):
                about[PREPROCESSING] = preprocessing.describe()
        return about


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
        return torch.frombuffer(bytearray(made[0].transfer.image()), dtype=torch.uint8)

    shared = ranks.share(image)
    if made:
        return made[0]
    assert shared is not None
    return Replica(bytes(shared.numpy()))
