"""What a driver offers to its strategies: candidates, outputs, random numbers, names."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from alcore.config import DriverConfig
from alcore.distributed.ranks import Ranks
from alcore.driver.request_queue import RequestQueue
from alcore.errors import Interrupted, UsageError
from alcore.inference import evaluation
from alcore.inference.features import FeatureCache
from alcore.inference.learner import evaluating
from alcore.pools import DataInfo, is_choosable
from alcore.pools.batches import tensors_of, to_device
from alcore.pools.candidates import Candidates
from alcore.protocols import Phase, Spent
from alcore.randomness import derive_generator
from alcore.training.loader import BatchLoader


class Services:
    """The part of a driver that strategies use; `alcore.driver.Driver` is the other part."""

    config: DriverConfig
    learner: Any
    inference_fn: Callable[[Any, Any], Any] | None
    train_datapool: Any
    val_datapool: Any
    unlabeled_datapool: Any
    label_strategy: Any
    metrology_strategies: list[Any]
    start_strategy: Any
    strategies: dict[str, Any]
    active_learning_step_idx: int
    phase: Phase | None
    logger: logging.Logger
    _candidates: Candidates
    query_queue: RequestQueue
    _group: Ranks
    _solo = False
    feature_cache: FeatureCache
    _warned: set[str]
    _interrupted: bool = False
    _labeler_works: bool = False

    def _committing(self) -> bool:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where learner and batches are."""
        return torch.device(self.config.device or "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of learner and batches."""
        return self.config.dtype or torch.get_default_dtype()

    @property
    def info(self) -> DataInfo | None:
        """What is known about the data, if the pool says."""
        info = getattr(self.train_datapool, "info", None) or getattr(self.choice_pool, "info", None)
        return info if isinstance(info, DataInfo) else None

    @property
    def choice_pool(self) -> Any:
        """The pool that samples are chosen from."""
        return self.train_datapool if self.unlabeled_datapool is None else self.unlabeled_datapool

    @property
    def training_pool(self) -> Any:
        """Another name of `train_datapool`."""
        return self.train_datapool

    @property
    def validation_pool(self) -> Any:
        """Another name of `val_datapool`."""
        return self.val_datapool

    @property
    def unlabeled_pool(self) -> Any:
        """Another name of `unlabeled_datapool`."""
        return self.unlabeled_datapool

    @property
    def trains(self) -> bool:
        """Whether the run has a training phase."""
        return not self.config.skip_training

    @property
    def measures(self) -> bool:
        """Whether the run has a metrology phase."""
        return bool(not self.config.skip_metrology and self.metrology_strategies)

    @property
    def batch_size(self) -> int:
        """Items in a training batch."""
        return self.config.batch_size

    def spent(self) -> Spent:
        """Return how many labels were bought in earlier steps, and what they cost."""
        from alcore.store.reading import Run

        bought = "SELECT COUNT(*), COALESCE(SUM(cost), 0) FROM labels WHERE superseded = 0 AND step < ?"
        ((labels, cost),) = Run(self.log_dir).read(bought, self.active_learning_step_idx)
        return Spent(int(labels), float(cost))

    @property
    def choosable(self) -> bool:
        """Whether the pool lists its unlabelled samples and gives their inputs."""
        return is_choosable(self.choice_pool)

    @property
    def starting(self) -> bool:
        """Whether nothing is labelled, so that the start strategy is to choose."""
        return self.start_strategy is not None and self.train_datapool is not None and not len(self.train_datapool)

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to end."""
        return self._interrupted

    def interrupt(self) -> None:
        """Ask the run to end at the next safe point; usable from a signal handler or another thread.

        Safe points are between batches, scored chunks, puts and phases. What a label strategy waits for can take
        days, so that it is interrupted at once, unless a commit is under way.
        """
        self._interrupted = True
        if self._labeler_works and threading.current_thread() is threading.main_thread() and not self._committing():
            self.safe_point()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let an interruption end the block wherever it is, but not within a commit."""
        self._labeler_works = True
        try:
            self.safe_point()
            yield
        finally:
            self._labeler_works = False

    def safe_point(self) -> None:
        """End here if the run was asked to end."""
        if self._interrupted and (self._group.size == 1 or self._labeler_works):  # several end together
            raise Interrupted("it was asked to end")

    @property
    def ranks(self) -> Ranks:
        """The processes of the run; this one alone, while it does what the others don't."""
        if not self._solo:
            return self._group
        alone = Ranks()
        alone.is_alone = True
        return alone

    @property
    def is_solo(self) -> bool:
        """Whether this rank, one of several, does what the others don't."""
        return self._solo

    @contextlib.contextmanager
    def solo(self) -> Iterator[None]:
        """Let what this rank does in the block be done by itself: the others do something else, or nothing."""
        before, self._solo = self._solo, self._group.size > 1
        try:
            yield
        finally:
            self._solo = before

    def asked_to_end(self) -> bool:
        """Tell all ranks alike whether one of them was asked to end; all must ask at once."""
        self._interrupted = self._group.any(self._interrupted)
        return self._interrupted

    def meeting_point(self) -> None:
        """End here, on all ranks, if one of them was asked to end; all must come here."""
        if self.asked_to_end():
            raise Interrupted("it was asked to end")

    def pools(self) -> dict[str, Any]:
        """The pools whose state belongs to the run, by name."""
        named = {"train": self.train_datapool, "unlabeled": self.unlabeled_datapool}
        return {name: pool for name, pool in named.items() if pool is not None}

    def take(self, samples: Iterable[int]) -> None:
        """Mask samples: they are no candidates any more."""
        self._candidates.take(samples)

    def candidates(self, size: int = 2**16) -> Iterator[torch.Tensor]:
        """Yield the ids that may be asked for, ascending, in int64 tensors of at most `size`."""
        for ids in self._candidates.chunks(size):
            self.safe_point()
            yield ids

    def infer(self, inputs: Any) -> Any:
        """Return the learner's outputs: in eval mode, without gradients, on its device and in its dtype."""
        with evaluating(self.learner):
            placed = to_device(inputs, self.device, self.dtype)
            return self.learner(placed) if self.inference_fn is None else self.inference_fn(self.learner, placed)

    def probe(self, infer: Callable[[Any], Any] | None = None) -> Any:
        """Return the outputs for up to two candidates, the learner's or what `infer` gives; None if there are none."""
        ids = next(self.candidates(2), None)
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

    def ordered_batches(self, pool: Any) -> BatchLoader:
        """Return batches of a pool's labelled items in the order of the pool."""
        rows = evaluation.EVALUATION_ROWS if callable(getattr(pool, "batch", None)) else self.config.batch_size
        return self._loader(pool, batch_size=rows)

    def wanted(self, max_samples: int) -> int:
        """Return how many samples the query strategy that is at work is to ask for.

        Parameters
        ----------
        max_samples
            Its own number, which counts unless ``DriverConfig.samples_per_step`` gives it a share.
        """
        share = self.query_queue.share
        return max_samples if share is None else share

    def generator(self, *purpose: object) -> torch.Generator:
        """Return a fresh generator derived from run seed, step, phase and purpose."""
        return derive_generator(int(self.config.seed or 0), self.active_learning_step_idx, self.phase, *purpose)

    def label_cost(self, item: Any) -> float:
        """Return what the label of an item is expected to cost: as the label strategy says, else the pool, else 1."""
        cost = getattr(self.label_strategy, "cost", None)
        if not callable(cost) and isinstance(item, int):
            cost = getattr(self.choice_pool, "cost", None)
        return float(cost(item)) if callable(cost) else 1.0

    def strategy_name(self, strategy: Any) -> str:
        """Return the name of a strategy in this run."""
        for name, part in self.strategies.items():
            if part is strategy:
                return name
        raise UsageError(f"{type(strategy).__name__} is not a strategy of this driver.")

    def warn_once(self, message: str) -> None:
        """Log a warning, unless the run has it already."""
        if message not in self._warned:
            self._warned.add(message)
            self.logger.warning(message)

    def _loader(
        self,
        pool: Any,
        *,
        batch_size: int | None = None,
        seed: tuple[Any, ...] | None = None,
        epoch: int = 0,
        shard: tuple[int, int] = (0, 1),
        before_epoch: Callable[[], None] | None = None,
        after_batch: Callable[[], None] | None = None,
    ) -> BatchLoader:
        config = self.config
        return BatchLoader(
            pool,
            batch_size or config.batch_size,
            device=self.device,
            dtype=self.dtype,
            seed=seed,
            epoch=epoch,
            drop_last=config.drop_last and seed is not None,
            collate_fn=config.collate_fn,
            workers=config.num_dataloader_workers,
            shard=shard,
            before_epoch=before_epoch,
            after_batch=after_batch or self.safe_point,
        )
