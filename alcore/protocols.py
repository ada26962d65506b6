"""What a plugin implements, and what passes between core and plugins.

The classes here are typing protocols: a strategy need not inherit from anything. Base classes that
save typing are in :mod:`alcore.strategies`. Nothing in this module imports torch.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import torch

    from alcore.driver import Driver

T_co = TypeVar("T_co", covariant=True)


class Phase(enum.StrEnum):
    """The four phases of an active-learning step, in their order."""

    TRAINING = "training"
    METROLOGY = "metrology"
    QUERY = "query"
    LABELING = "labeling"


@dataclasses.dataclass(frozen=True, eq=False)
class Label:
    """An answer to a request that carries its value.

    Parameters
    ----------
    item
        What was asked for: the sample id, the generated input, or the :class:`Request` itself.
    value
        The label: a number, string, tensor, array, or a container of these.
    source
        Who answered (an expert, a machine); part of the key under which the label is stored.
    cost
        What it cost, in the units of ``DriverConfig.budget``.
    """

    item: Any
    value: Any
    source: str = ""
    cost: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Failed:
    """The word of a label strategy that a request could not be labelled.

    Parameters
    ----------
    item
        What was asked for: the sample id, the generated input, or the :class:`Request` itself.
    reason
        Why, for the person who reads the log.
    """

    item: Any
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """One thing that needs a label.

    Parameters
    ----------
    id
        32 hexadecimal digits, a hash of run, step and ordinal: the idempotency key of the request.
    step, ordinal
        The step that asked, and the place among the requests of that step, both from 0.
    item
        A sample id, or a generated input.
    attempt
        How often it was tried before, from 0.
    """

    id: str
    step: int
    ordinal: int
    item: Any
    attempt: int = 0


@runtime_checkable
class DataPool(Protocol):
    """A collection of labelled samples that grows."""

    def __len__(self) -> int:
        """Return the number of labelled samples."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one labelled item; it may be augmented."""

    def append(self, item: Any, /) -> None:
        """Take in what a label strategy delivered."""


@runtime_checkable
class ChoosablePool(Protocol):
    """A pool that samples can be chosen from.

    A large pool (10^7 ids are 80 MB) may also take ``unlabeled_indices(start, stop)`` and tell its size
    as ``total``; then its ids are never listed all at once.
    """

    def unlabeled_indices(self) -> torch.Tensor:
        """Return the ids of the unlabelled samples: int64, shape (U,), ascending."""

    def inputs(self, ids: torch.Tensor, /) -> Any:
        """Return the learner's inputs for these ids, as one batch, never augmented."""


class Queue(Protocol):
    """What ``StrategiesConfig.queue_cls`` builds: anything with ``put`` and ``get``, as `queue.Queue` has."""

    def put(self, item: Any, /) -> Any:
        """Add an item."""

    def get(self) -> Any:
        """Take an item out."""


class QueryQueue(Protocol):
    """The queue between query and label strategies."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None, *, score: float | None = None) -> None:
        """Ask for the label of a sample id or of a generated input."""

    def put_many(self, items: Iterable[Any], scores: Sequence[float] | None = None) -> None:
        """Ask for several labels, best first."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take out what was put; raises `queue.Empty` when nothing is left."""

    def get_request(self) -> Request:
        """Take out the next request with its idempotency key."""

    def empty(self) -> bool:
        """Tell whether nothing is left to label."""

    def qsize(self) -> int:
        """Return how many requests are left to label."""


class LabelQueue(Protocol):
    """The queue that labels are delivered to; each `put` is committed when it returns."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Deliver one answer, from any thread."""

    def put_many(self, items: Iterable[Any]) -> None:
        """Deliver answers that cost nothing, in one transaction."""


@runtime_checkable
class QueryStrategy(Protocol):
    """Chooses what to label next."""

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Put sample ids, or generated inputs, into the queue."""

    def attach(self, driver: Driver, /) -> None:
        """Receive the driver, before the first step."""


@runtime_checkable
class LabelStrategy(Protocol):
    """Gets labels for what was asked.

    It may also offer ``cost(item) -> float`` (1.0 where it doesn't), and ``poll(request_id)``, which returns the
    answer to a request that it was working on when the run was cut off, or None if it never got it. One that may
    simply be asked again under the same request id declares ``idempotent = True``.
    """

    def label(self, queue_to_label: QueryQueue, serialize_queue: LabelQueue, *args: Any, **kwargs: Any) -> None:
        """Take requests out of the first queue and put answers into the second."""

    def attach(self, driver: Driver, /) -> None:
        """Receive the driver, before the first step."""


@runtime_checkable
class MetrologyStrategy(Protocol):
    """Measures the learner.

    It may also offer ``serialize_records(*args, **kwargs)``, called after each `compute`.
    """

    records: list[Any]

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure, and append what was found to `records`."""

    def attach(self, driver: Driver, /) -> None:
        """Receive the driver, before the first step."""


class TrainStep(Protocol):
    """Computes the loss of one batch; the training loop does backward and step."""

    def __call__(self, model: Any, batch: Any, /) -> torch.Tensor:
        """Return a scalar loss."""


class ValidateStep(Protocol):
    """Looks at one validation batch; may return a scalar."""

    def __call__(self, model: Any, batch: Any, /) -> torch.Tensor | float | None:
        """Return a scalar, or nothing."""


class EpochEnd(Protocol):
    """What a training loop calls after each epoch, so that the driver can log and checkpoint."""

    def __call__(self, epoch: int, metrics: Mapping[str, float], /) -> None:
        """Receive the epoch, from 0 in this call of the loop, and its mean losses."""


class TrainingLoop(Protocol):
    """Trains the learner for a number of epochs.

    A loop that goes through the training loader once an epoch, and through the validation loader only after that, may
    declare ``resumes_inside_epoch = True``: a run that is interrupted inside an epoch is then saved there, and the
    loader's first epoch is the rest of that one. What the loop has gathered of it must be in its ``state_dict()``.
    """

    def __call__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer | None,
        train_dataloader: Iterable[Any],
        max_epochs: int,
        validation_dataloader: Iterable[Any] | None = None,
        train_step_fn: TrainStep | None = None,
        validate_step_fn: ValidateStep | None = None,
        lr_scheduler: Any | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        on_epoch_end: EpochEnd | None = None,
        **kwargs: Any,
    ) -> None:
        """Train `model` in place."""


Factory = type[T_co] | Callable[..., T_co] | str
"""A class, a callable, or the string ``"package.module:Name"`` that names one without importing it."""
