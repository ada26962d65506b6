"""Checkpoints in the middle of a step, where a run is interrupted: inside an epoch, or behind the training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from alcore.driver import state
from alcore.driver.opening import compare_weights
from alcore.driver.resume import Point
from alcore.errors import Interrupted, StaleWriterError
from alcore.protocols import Phase
from alcore.store.run import RunStore
from alcore.training.ddp import share_buffers
from alcore.training.loader import BatchLoader

if TYPE_CHECKING:
    from alcore.driver import Driver


class Midway:
    """Knows how far the training of a step is, and saves it.

    Parameters
    ----------
    driver, store
        Whose training, and where checkpoints go.
    book
        Gives what the step has noted so far.
    point
        Where the run is taken up, if it is.

    Notes
    -----
    Inside an epoch a checkpoint needs a training loop that can go on from there: it declares
    ``resumes_inside_epoch = True``, and ``state_dict`` carries what it has gathered of the epoch. Phases after the
    training leave the learner alone, so that what changed since is small, and is kept in memory until the step ends.
    """

    def __init__(
        self, driver: Driver, store: RunStore, book: Callable[[], Mapping[str, Any]], point: Point | None
    ) -> None:
        self._driver, self._store, self._book = driver, store, book
        self.resumed = self.epochs = 0 if point is None else point.epochs
        self._position = None if point is None else point.position
        self.trained = point is not None and point.trained
        """Whether the training of the step that is taken up was over."""
        self._loader: BatchLoader | None = None
        self._generators: dict[str, Any] | None = None
        self._trained: dict[str, Any] | None = None
        self._before = 0  # epochs that were done when the loop was called

    def begin_training(self, loader: BatchLoader) -> None:
        """Take up the loader of this phase, where it was left if it was."""
        self._loader, self._trained = loader, None
        self._before, self.epochs, self.resumed = self.resumed, self.resumed, 0
        if self._position is not None:
            loader.resume(self._position)
            self._position = None

    def end_epoch(self, epoch: int) -> None:
        """Note that an epoch is done, numbered from 0 in this call of the loop."""
        share_buffers(self._driver.learner, self._driver.ranks)
        self.epochs = self._before + epoch + 1

    def end_training(self) -> None:
        """Keep what the phases to come may change, in case that they are interrupted."""
        self._loader = None
        share_buffers(self._driver.learner, self._driver.ranks)
        if self._driver.ranks.size > 1:
            compare_weights(self._driver.ranks, state.model_digest(self._driver.learner))
        if self.epochs and self._driver.optimization is not None and self._driver.optimization.optimizer is not None:
            self._trained = copy.deepcopy(state.collect_small(self._driver))

    def end_step(self) -> None:
        """Forget what was kept of the step."""
        self._trained, self.trained = None, False

    def end_batch(self) -> None:
        """End here, with a checkpoint, if the run was asked to end."""
        if self._driver.interrupted and self._driver.ranks.size == 1:  # several end together, between two epochs
            self._save_inside(at_end=False, generators=None)
            self._driver.safe_point()

    def begin_validation(self) -> None:
        """Keep the global generators as they are before the validation, which begins anew if it is interrupted."""
        share_buffers(self._driver.learner, self._driver.ranks)
        self._generators = state.global_generators()

    def end_validation_batch(self) -> None:
        """End here, with a checkpoint of the moment before the validation, if the run was asked to end."""
        if self._driver.interrupted and self._driver.ranks.size == 1:
            self._save_inside(at_end=True, generators=self._generators)
            self._driver.safe_point()

    def save(self) -> None:
        """Save a checkpoint between two epochs."""
        self._store.commit_checkpoint(self._step, Phase.TRAINING.value, self.epochs, self._collect())

    def save_behind_training(self, error: BaseException | None) -> None:
        """Save a checkpoint of the end of the training, if a later phase of this step was cut off by this error.

        Not where the disk was to blame, or another writer, or a second ctrl-C, which ends at once.
        """
        cut = isinstance(error, Interrupted | Exception) and not isinstance(error, OSError | StaleWriterError)
        if self._trained is None or not cut:
            return
        trained, self._trained = self._trained, None
        try:
            snapshot = self._collect(trained)
            snapshot["at"]["trained"] = True  # a loop may have ended before its last epoch
            self._store.commit_checkpoint(self._step, Phase.TRAINING.value, self.epochs, snapshot)
        except Exception as failure:  # noqa: BLE001 - what ended the run is what matters
            assert error is not None
            error.add_note(f"and no checkpoint could be saved: {type(failure).__name__}: {failure}")

    @property
    def _step(self) -> int:
        return self._driver.active_learning_step_idx

    def _collect(self, small: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return state.collect(
            self._driver, step=self._step, phase=Phase.TRAINING.value, epoch=self.epochs, book=self._book(), small=small
        )

    def _save_inside(self, *, at_end: bool, generators: dict[str, Any] | None) -> None:
        if self._loader is None or not getattr(self._driver.train_loop_fn, "resumes_inside_epoch", False):
            return
        position = self._loader.position(at_end=at_end)
        if position is None:
            return
        snapshot = self._collect()
        snapshot["at"]["position"] = position
        if generators is not None:
            snapshot["rng"] = generators
        batches = position["batches"]
        self._store.commit_checkpoint(self._step, Phase.TRAINING.value, self.epochs, snapshot, batches)
