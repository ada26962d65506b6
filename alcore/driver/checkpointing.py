"""The state of a run for its checkpoints: everything that its next step depends on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from alcore.config import DriverConfig
from alcore.distributed.ranks import Ranks, mean_over_ranks
from alcore.driver.agreement import compare_weights
from alcore.driver.interruption import Interruption
from alcore.driver.step_record import StepRecord
from alcore.errors import Interrupted, StaleWriterError, raised_by
from alcore.inference.learner import model_state
from alcore.protocols import Phase
from alcore.randomness import derive_seed, global_rng_state, seed_everything, set_global_rng_state
from alcore.store.retention import Retention, parse_retention
from alcore.store.run import RunStore
from alcore.training.trainer import Trainer


class Checkpointer:
    """Collects the state of the parts of a run, and gives it back to them.

    Parameters
    ----------
    learner
        Its weights and buffers.
    trainer
        Optimizer and scheduler, and the training loop's own state; None where the run doesn't train.
    strategies, listeners
        Objects by name; those with a ``state_dict`` are part of the state.
    ranks
        The processes of the run; each has global generators of its own.
    """

    def __init__(
        self,
        learner: Any,
        trainer: Trainer | None,
        strategies: Mapping[str, Any],
        listeners: Mapping[str, Any],
        ranks: Ranks,
    ) -> None:
        self._learner, self._trainer = learner, trainer
        self._strategies, self._listeners, self._ranks = strategies, listeners, ranks

    def collect(
        self,
        *,
        step: int,
        phase: str,
        epoch: int,
        record: Mapping[str, Any] | None = None,
        beside_learner: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the state for a checkpoint; all ranks must call this at once.

        Parameters
        ----------
        step, phase, epoch
            The state is that at the end of this phase of this step, or of this epoch inside it.
        record
            What the step has recorded so far.
        beside_learner
            An earlier result of `beside_learner`, to use in place of a new one.

        Returns
        -------
        dict
            ``model``, ``optimizer``, ``scheduler``, ``rng``, ``strategies``, ``plugins``, ``loop`` and ``at``. Labels
            are not part of it: the database has them, and a resumed run appends them to its pool.
        """
        optimization = None if self._trainer is None else self._trainer.optimization
        return {
            "at": {"step": step, "phase": phase, "epoch": epoch, "record": dict(record or {})},
            "model": model_state(self._learner),
            **({"optimizer": None, "scheduler": None} if optimization is None else optimization.state()),
            **(self.beside_learner() if beside_learner is None else beside_learner),
        }

    def beside_learner(self) -> dict[str, Any]:
        """Return the part of the state that phases after training may change: all but learner and optimizer."""
        rng = global_rng_state()
        everywhere = [rng] if self._ranks.size == 1 else self._ranks.gather(rng)
        return {
            "strategies": _states(self._strategies),
            "plugins": _states(self._listeners),
            "loop": None if self._trainer is None else _state("the training loop", self._trainer.loop),
            "rng": everywhere[0],
            **({"rng_of_ranks": everywhere[1:]} if self._ranks.size > 1 else {}),
        }

    def restore(self, state: Mapping[str, Any], seed: int) -> list[str]:
        """Give strategies, listeners, training loop and global generators their state of a checkpoint.

        Returns
        -------
        list of str
            Warnings.
        """
        warnings = []
        kinds = [("strategies", "strategy", self._strategies), ("plugins", "plugin", self._listeners)]
        for key, kind, parts in kinds:
            for name, saved in state[key].items():
                part = parts.get(name)
                if part is None:
                    warnings.append(f"the run had a {kind} {name!r} with state, and this driver has none")
                elif callable(getattr(part, "load_state_dict", None)):
                    with raised_by(f"load_state_dict() of {name}"):
                        part.load_state_dict(saved)
        loop = None if self._trainer is None else self._trainer.loop
        if state["loop"] is not None and callable(getattr(loop, "load_state_dict", None)):
            with raised_by("load_state_dict() of the training loop"):
                loop.load_state_dict(state["loop"])  # type: ignore[union-attr]
        rank, everywhere = self._ranks.rank, [state["rng"], *state.get("rng_of_ranks", [])]
        if rank < len(everywhere):
            set_global_rng_state(everywhere[rank])
        else:  # the run had fewer ranks
            seed_everything(derive_seed(seed, "rank", rank, state["at"]["step"]))
        return warnings


class CheckpointSchedule(NamedTuple):
    """When checkpoints are saved, and which are kept.

    Parameters
    ----------
    interval
        Steps between two checkpoints; 0 disables.
    phases
        The phases of such a step after which one is saved.
    retention
        Which ones to keep; None keeps all.
    """

    interval: int
    phases: frozenset[Phase] = frozenset({Phase.LABELING})
    retention: Retention | None = None

    @classmethod
    def of(cls, config: DriverConfig) -> CheckpointSchedule:
        """Return the schedule that a driver's settings ask for."""
        phases = frozenset(phase for phase in Phase if getattr(config, f"checkpoint_on_{phase}"))
        return cls(config.checkpoint_interval, phases, parse_retention(config.keep))

    def is_due_after_training(self, step: int) -> bool:
        """Whether one is due when this step has trained."""
        return self._is_due(step) and bool(self.phases - {Phase.LABELING})

    def is_due_after_step(self, step: int, *, is_last: bool) -> bool:
        """Whether one is due at the end of this step."""
        return self.interval > 0 and Phase.LABELING in self.phases and (is_last or self._is_due(step))

    def _is_due(self, step: int) -> bool:
        return self.interval > 0 and (step + 1) % self.interval == 0


class TrainingProgress:
    """Checkpoints inside a step: at the end of an epoch, or of the training.

    Parameters
    ----------
    checkpointer
        Collects the state.
    store
        Where checkpoints go.
    trainer
        Whose training it is, and how many epochs it has between checkpoints; 0 disables.
    learner
        What is trained.
    ranks
        The processes of the run.
    interruption
        Says whether the run was asked to end.
    epochs_done
        How many epochs of the first training were done before the run was resumed.
    trained
        Whether the first training was over then.

    Notes
    -----
    The state at the end of the last epoch, and of the training, is kept in host memory until the step ends. It is
    saved where the run is interrupted or fails, so that a resumed run goes on from there. Several ranks end together
    between two epochs, so they keep the state at the end of the training alone.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        store: RunStore,
        trainer: Trainer,
        learner: Any,
        *,
        ranks: Ranks,
        interruption: Interruption,
        epochs_done: int = 0,
        trained: bool = False,
    ) -> None:
        self._checkpointer, self._store, self._trainer, self._learner = checkpointer, store, trainer, learner
        self._ranks, self._interruption = ranks, interruption
        self.epochs_done, self.trained = epochs_done, trained
        self._epochs = epochs_done
        self._kept: dict[str, Any] | None = None
        self._is_training = False
        self._record: StepRecord | None = None

    def begin(self, record: StepRecord) -> None:
        """Begin a training, whose losses go to this record."""
        self._record, self._kept, self._epochs, self._is_training = record, None, self.epochs_done, True

    def end_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the losses of an epoch, numbered from 0 in this call of the loop, and save a checkpoint if it is due.

        Raises
        ------
        Interrupted
            When the run was asked to end.
        """
        assert self._record is not None
        self._trainer.share_buffers()
        self._epochs = self.epochs_done + epoch + 1
        everywhere = self._ranks.gather(dict(metrics))
        losses = {
            name: mean_over_ranks([losses_of_rank[name] for losses_of_rank in everywhere]) for name in everywhere[0]
        }
        self._record.values |= {"epochs": self._epochs, "losses": losses}
        self._store.note_position(self._record.step, Phase.TRAINING.value, self._epochs)
        ends = self._interruption.agree()
        every = self._trainer.epochs_between_checkpoints
        if ends or (every and self._epochs % every == 0):
            self._save(self._collect())
        elif self._ranks.size == 1:
            self._kept = _copied(self._collect(), {})
        if ends:
            raise Interrupted("it was asked to end")

    def end_training(self) -> None:
        """Check that ranks agree on the weights, and keep the state that later phases may change."""
        self._trainer.share_buffers()
        compare_weights(self._ranks, self._learner)
        self._is_training = False
        self._kept = self._collect(_copied(self._checkpointer.beside_learner(), {}))
        self._kept["at"]["trained"] = True  # a loop may have ended before its last epoch
        self.epochs_done, self.trained = 0, False

    def save(self) -> None:
        """Save the state at the end of the training."""
        state = self._collect() if self._kept is None else self._kept
        state["at"]["trained"] = True
        self._save(state)

    def end_step(self) -> None:
        """Forget what was kept of the step."""
        self._kept, self.epochs_done, self.trained = None, 0, False

    def save_kept(self, error: BaseException | None, *, waits: bool = False) -> None:
        """Save the state that was kept, if this error, or that the run waits for labels, ended it inside a step.

        Not where the disk was the cause, or another writer, or a second Ctrl-C, which ends at once; nor where the
        training itself failed.
        """
        saves = waits or isinstance(error, Interrupted)
        saves = saves or (
            isinstance(error, Exception) and not self._is_training and not isinstance(error, OSError | StaleWriterError)
        )
        kept, self._kept = self._kept, None
        if kept is None or not saves:
            return
        try:
            self._save(kept)
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"and no checkpoint could be saved: {type(failure).__name__}: {failure}")

    def _collect(self, beside_learner: Mapping[str, Any] | None = None) -> dict[str, Any]:
        assert self._record is not None
        return self._checkpointer.collect(
            step=self._record.step,
            phase=Phase.TRAINING.value,
            epoch=self._epochs,
            record=self._record.of_training(),
            beside_learner=beside_learner,
        )

    def _save(self, state: Mapping[str, Any]) -> None:
        self._kept = None
        at = state["at"]
        self._store.commit_checkpoint(at["step"], Phase.TRAINING.value, at["epoch"], state)


def _state(name: str, part: Any) -> dict[str, Any] | None:
    if not callable(getattr(part, "state_dict", None)):
        return None
    with raised_by(f"state_dict() of {name}"):
        state = part.state_dict()
        return None if state is None else dict(state)


def _states(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: state for name, part in parts.items() if (state := _state(name, part)) is not None}


def _copied(value: Any, copies: dict[Any, torch.Tensor]) -> Any:
    """Return a copy of nested state in host memory; tensors that share their numbers do so in the copy too."""
    if isinstance(value, torch.Tensor):
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        if not value.numel() or key not in copies:
            copies[key] = value.detach().to("cpu", copy=True)
        return copies[key]
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        result = copy.copy(value)
        for key, member in value.items():
            result[key] = _copied(member, copies)
        return result
    if type(value) in (list, tuple):
        return type(value)(_copied(member, copies) for member in value)
    return copy.copy(value) if isinstance(value, set) else value
