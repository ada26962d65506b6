"""What a label strategy is given of a run where it works for it on another machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from alcore.protocols import LabelingContext, Request
from alcore.randomness import derive_generator


class Sent(NamedTuple):
    """What was sent of the sample of a task.

    Parameters
    ----------
    values
        What the pool shows of it, by name; empty where it shows nothing.
    input
        The learner's input; None where the pool doesn't give inputs.
    cost
        What the pool says that its label costs; None where it doesn't.
    """

    values: Mapping[str, Any]
    input: Any
    cost: float | None


class SentPool:
    """The samples of the tasks in hand, in place of the pool to choose from.

    Parameters
    ----------
    sent
        What is known of them, by sample id; the worker adds to it.
    """

    def __init__(self, sent: Mapping[int, Sent]) -> None:
        self._sent = sent

    def shown(self, samples: Sequence[int]) -> dict[str, list[Any]]:
        """Return what the pool shows of samples, by name."""
        values = [self._sent[int(sample)].values for sample in samples]
        return {
            name: [values_of_sample.get(name) for values_of_sample in values] for name in (values[0] if values else ())
        }

    def cost(self, sample: int) -> float | None:
        """Return what the pool says that the label of a sample costs."""
        return self._sent[int(sample)].cost


class SentInputs(SentPool):
    """A `SentPool` of samples that were sent with their inputs."""

    def unlabeled_indices(self) -> torch.Tensor:
        """Return the ids of the samples in hand."""
        return torch.tensor(sorted(self._sent), dtype=torch.int64)

    def inputs(self, ids: torch.Tensor) -> Any:
        """Return the inputs of samples, as one batch."""
        return stacked([self._sent[sample].input for sample in ids.tolist()])


class WorkerContext:
    """The part of `alcore.protocols.LabelingContext` that there is without a Driver.

    Parameters
    ----------
    run_id
        Name of the run.
    seed
        What `generator` derives from.
    log_dir
        A folder of this worker for the run; made when a strategy writes to it.
    logger
        Where a strategy says what happens.
    strategy_name
        The name of the label strategy.
    sent
        What was sent of the samples in hand.
    has_inputs
        Whether that are inputs, too.
    safe_point
        Raises where the worker is to end.
    step
        The step that asked.
    """

    trains = measures = False
    unlabeled_datapool = val_datapool = train_datapool = None

    def __init__(
        self,
        run_id: str,
        seed: int,
        log_dir: Path,
        logger: logging.Logger,
        strategy_name: str,
        sent: Mapping[int, Sent],
        has_inputs: bool,
        safe_point: Callable[[], None],
        step: int = 0,
    ) -> None:
        self.run_id, self.log_dir, self.logger = run_id, log_dir, logger
        self.choice_pool = SentInputs(sent) if has_inputs else SentPool(sent)
        self.active_learning_step_idx = step
        self._seed, self._name, self._sent, self._safe_point = seed, strategy_name, sent, safe_point

    def __getattr__(self, name: str) -> Any:
        if hasattr(LabelingContext, name):
            raise AttributeError(
                f"a worker has no {name}: it works without the run's Driver. A label strategy that needs it can't "
                "declare remote = True."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def strategy_name(self, strategy: Any) -> str:
        """Return the name of the label strategy."""
        del strategy
        return self._name

    def pending(self) -> torch.Tensor:
        """Return the samples in hand: ids, int64 (P,), ascending."""
        return torch.tensor(sorted(self._sent), dtype=torch.int64)

    def generator(self, *purpose: object) -> torch.Generator:
        """Return a fresh generator derived from the run's seed and the purpose."""
        return derive_generator(self._seed, *purpose)

    def safe_point(self) -> None:
        """End the work here if the worker was asked to end."""
        self._safe_point()

    def take_told(self) -> list[Request]:
        """Return nothing: the run withdraws what no worker has claimed."""
        return []


def stacked(rows: Sequence[Any]) -> Any:
    """Return the inputs of single samples as one batch."""
    first = rows[0]
    if isinstance(first, Mapping):
        return {key: stacked([row[key] for row in rows]) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(stacked(list(part)) for part in zip(*rows, strict=True))
    if isinstance(first, torch.Tensor):
        return torch.stack(list(rows))
    return np.stack(rows) if isinstance(first, np.ndarray | np.generic) else first
