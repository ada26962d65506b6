"""What plugins implement, what they are given, and what passes between them and core.

A *part* is what a user gives to a run: a pool, a learner, a strategy, a training loop, an observer, a stop criterion.
The classes here are typing protocols: a part need not inherit from anything. Base classes that save typing are in
:mod:`alcore.strategies`. A protocol lists what is required. The class ``...Options`` beside it, and of a pool the
classes ``Pool...``, list what may be added: core looks for each of these members by name, and does without it where it
is missing.

Nothing in this module imports torch.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, get_args, runtime_checkable

if TYPE_CHECKING:
    import logging
    from pathlib import Path

    import torch

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Phase(enum.StrEnum):
    """The four phases of an active-learning step, in their order."""

    TRAINING = "training"
    METROLOGY = "metrology"
    QUERY = "query"
    LABELING = "labeling"


ActiveLearningPhase = Phase
"""Another name of `Phase`, as in PhysicsNeMo."""


class EndKind(enum.StrEnum):
    """Why a run ended, of the reasons that are no errors."""

    STEPS = "steps"
    """All steps are done."""
    CRITERION = "criterion"
    """A stop criterion said so."""
    BUDGET = "budget"
    """The budget has no room for another label."""
    POOL = "pool"
    """No candidate is left."""
    QUERY = "query"
    """The query strategies asked for nothing."""
    WAITING = "waiting"
    """The label strategy waits for answers that come from elsewhere."""
    START_WAITING = "start-waiting"
    """Nothing is labeled, and the requests of the start are open."""
    START_FAILED = "start-failed"
    """Nothing is labeled, and the requests of the start were given up."""
    LABELS_FAIL = "labels-fail"
    """Too many answers were failures."""
    LABELS_REFUSED = "labels-refused"
    """All answers of a step were refused, since none can be a label."""

    @property
    def status(self) -> str:
        """What the run has come to: ``"done"``, ``"waiting"`` for labels, or ``"failed"``."""
        return _STATUS.get(self, "done")


_STATUS = {
    EndKind.WAITING: "waiting",
    EndKind.START_WAITING: "waiting",
    EndKind.START_FAILED: "failed",
    EndKind.LABELS_FAIL: "failed",
    EndKind.LABELS_REFUSED: "failed",
}


@dataclasses.dataclass(frozen=True)
class EndReason:
    """Why a run ended.

    Parameters
    ----------
    kind
        What everything decides by: the status of the run, the exit code, and whether a resume adds steps.
    text
        For people; nothing is decided by it.
    """

    kind: EndKind
    text: str

    def __str__(self) -> str:
        return self.text


# -- data -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a learner or a strategy needs to know about data.

    Parameters
    ----------
    task
        ``"classification"`` or ``"regression"``.
    classes
        Number of classes; 2 is binary, 0 for regression.
    features
        Number of input features, where inputs are vectors.
    shape
        Shape of one input, without the batch dimension.
    names
        Names of the classes, in the order of their integer codes.
    class_weights
        How much each class weighs in the default loss; empty where all weigh the same.
        ``TrainingConfig.class_weights`` takes precedence.
    target_shape
        Of a regression: shape of one target, ``()`` for a number.
    """

    task: Literal["classification", "regression"] = "classification"
    classes: int = 0
    features: int = 0
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()
    target_shape: tuple[int, ...] = ()


@dataclasses.dataclass
class Data:
    """What a data factory returns.

    Parameters
    ----------
    train
        The pool that is trained on.
    val
        Held-out pool for validation and metrology.
    unlabeled
        Pool to choose from, where that is not `train`.
    info
        What is known about the data: required by learners whose factory takes ``info``. Where it isn't given, what a
        pool says (`PoolIdentity.info`).
    defaults
        Experiment tables that suit this data, as nested mappings; what the user says takes precedence. The
        name ``*`` is every part of a kind that has the parameter: ``{"query": {"*": {"max_samples": 5}}}``.
    preprocessing
        How the inputs were made of a file, so that those of a new file can be made alike; None where that is not known.
    parts
        Parts that suit this data, by kind: an experiment that names none of a kind uses the first of these names that
        is installed. ``{"start": ["design"]}`` is for a pool that begins without labels.
    """

    train: Any
    val: Any = None
    unlabeled: Any = None
    info: DataInfo = dataclasses.field(default_factory=DataInfo)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    parts: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.info == DataInfo() or self.info is None:
            said = (getattr(pool, "info", None) for pool in (self.train, self.unlabeled))
            self.info = next((info for info in said if isinstance(info, DataInfo)), DataInfo())


class Preprocessing(Protocol):
    """How data makes inputs of a file: what ``Data.preprocessing`` holds. It may also offer `PreprocessingOptions`.

    It is fitted when the data is made, and fixed from then on.
    """

    def describe(self) -> Mapping[str, Any]:
        """Return everything that it consists of, as JSON: mappings, lists, text, finite numbers, booleans, None.

        Numbers are exact: an object that `FactoryOptions.preprocessing_from` makes of the description, after it was
        written as JSON and read, gives the same inputs bit for bit. Called when a run begins, which keeps the
        description, and when it is exported.
        """

    def read(self, path: Path, /) -> Any:
        """Return the inputs of all rows of a new file, in its order, as one batch like those of the pools.

        The file may lack the target, and what it says of the target is not read. Raise `UsageError` for a file, a
        column or a value that doesn't fit. Called by ``alcore predict``.
        """


class PreprocessingOptions(Protocol):
    """What a `Preprocessing` may also offer."""

    def source(self) -> str:
        """Return the source of a Python module that does without alcore; it needs NumPy and the standard library alone.

        It defines ``read(description, path)``, which returns the inputs that `read` makes, as an array of NumPy, where
        `description` is what `describe` returned; it raises ValueError for what doesn't fit. Written by
        ``alcore export`` beside the description.
        """


# -- requests and answers ---------------------------------------------------------------------------------


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
        What it cost, in the units of ``DriverConfig.budget``. None where it is not known: the expected cost was paid
        then.
    """

    item: Any
    value: Any
    source: str = ""
    cost: float | None = None


FailureKind = Literal["infrastructure", "timeout", "infeasible", "withdrawn"]
"""Why a request has no label."""
FAILURE_KINDS: tuple[str, ...] = get_args(FailureKind)
"""The values of `FailureKind`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Failed:
    """A report that a request could not be labeled, by a label strategy or a person.

    Parameters
    ----------
    item
        What was asked for: the sample id, the generated input, or the :class:`Request` itself.
    reason
        Why, for the person who reads the log.
    kind
        ``"infrastructure"`` (a machine or a service failed) or ``"timeout"``, where another attempt may succeed;
        ``"infeasible"`` where the item itself can't be labeled; ``"withdrawn"`` where nobody tries any more, for a
        reason that says nothing about the item: the request is given up, and doesn't count as a failure.
    cost
        What the attempt cost. None where it is not known: the expected cost was paid then, and nothing for what was
        withdrawn.
    """

    item: Any
    reason: str
    kind: FailureKind = "infrastructure"
    cost: float | None = None


class Pending(enum.Enum):
    """That a label strategy works on a request."""

    PENDING = "pending"


PENDING = Pending.PENDING
"""What ``poll`` returns for a request that the label strategy works on."""


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
    slot
        Of the requests for one sample: 0 for the first, higher for a second opinion.
    handle
        What the label strategy called the job that answers this attempt (`LabelQueue.submitted`); None before that.
    """

    id: str
    step: int
    ordinal: int
    item: Any
    attempt: int = 0
    slot: int = 0
    handle: str | None = None


class Spent(NamedTuple):
    """What a run has bought: the number of labels, and their cost in the units of ``DriverConfig.budget``."""

    labels: int
    cost: float


# -- what a strategy, a training loop, an observer or a stop criterion is given ------------------------------


class RunContext(Protocol):
    """The run as its parts see it: what ``attach`` and the run hooks are given.

    The object is the :class:`alcore.Driver`. What a Driver has beyond this is not for plugins.
    """

    # the run

    @property
    def run_id(self) -> str:
        """Name of the run."""

    @property
    def log_dir(self) -> Path:
        """The run directory; known from the start, made when the run begins."""

    @property
    def logger(self) -> logging.Logger:
        """Logger of this run; it writes to ``console.log``."""

    @property
    def active_learning_step_idx(self) -> int:
        """The step under way, from 0; between steps, the number of finished ones."""

    @property
    def trains(self) -> bool:
        """Whether the run has a training phase."""

    @property
    def measures(self) -> bool:
        """Whether the run has a metrology phase."""

    def spent(self) -> Spent:
        """Return how many labels were bought in earlier steps, and what they cost."""

    # the learner

    @property
    def learner(self) -> Any:
        """The model, never wrapped."""

    @property
    def device(self) -> torch.device:
        """Where learner and batches are."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of batches, and of the learner unless it came with several."""

    @property
    def info(self) -> DataInfo | None:
        """What is known about the data, if a pool says."""

    def infer(self, inputs: Any) -> Any:
        """Return the learner's outputs: in eval mode, without gradients, on its device and in its dtype."""

    def probe(self, infer: Callable[[Any], Any] | None = None) -> Any:
        """Return the outputs for up to two candidates, the learner's or what `infer` gives; None without candidates."""

    # the pools

    @property
    def train_datapool(self) -> Any:
        """The pool that is trained on."""

    @property
    def val_datapool(self) -> Any:
        """Held-out items, or None."""

    @property
    def unlabeled_datapool(self) -> Any:
        """The pool to choose from where that is not the training pool, else None."""

    @property
    def training_pool(self) -> Any:
        """Another name of `train_datapool`, as in PhysicsNeMo."""

    @property
    def validation_pool(self) -> Any:
        """Another name of `val_datapool`, as in PhysicsNeMo."""

    @property
    def unlabeled_pool(self) -> Any:
        """Another name of `unlabeled_datapool`, as in PhysicsNeMo."""

    @property
    def choice_pool(self) -> Any:
        """The pool that samples are chosen from: `unlabeled_datapool`, else `train_datapool`."""

    def candidates(self, size: int = 2**16) -> Iterator[torch.Tensor]:
        """Yield the ids that the step under way chooses from, ascending, in int64 tensors of at most `size`.

        All that may be asked for, unless the pool offers a part of them in each step (`PoolWindows.step_range`).
        """

    def pending(self) -> torch.Tensor:
        """Return the samples that were asked for and have no answer yet: ids, int64 (P,), ascending.

        Those of earlier steps, and of earlier strategies of this step. They are no candidates, and count as chosen.
        """

    def ordered_batches(self, pool: Any) -> Iterable[Any]:
        """Return the batches of a pool's labeled items in the order of the pool."""

    # the strategy that is at work

    @property
    def metrology_strategies(self) -> Sequence[Any]:
        """The metrology strategies, with their `records`."""

    def strategy_name(self, strategy: Any) -> str:
        """Return the name of a strategy in this run."""

    def wanted(self, max_samples: int) -> int:
        """Return how many samples the query strategy at work is to ask for: `max_samples`, or its share of the step."""

    def costs(self, samples: torch.Tensor | Sequence[Any], /) -> torch.Tensor | None:
        """Return what labels of candidates, int64 (n,), or of generated inputs in a list, are expected to cost: (n,).

        None where strategies are not to choose by score per cost (``DriverConfig.per_cost``).
        """

    def generator(self, *purpose: object) -> torch.Generator:
        """Return a fresh generator derived from run seed, step, phase and purpose."""

    def safe_point(self) -> None:
        """End the run here if it was asked to end."""


DriverProtocol = RunContext
"""Another name of `RunContext`, as in PhysicsNeMo."""


class LabelingContext(RunContext, Protocol):
    """The run as a label strategy sees it that works for long: what it can ask for beyond `RunContext`.

    Each `alcore.Driver` is one; so is what ``alcore worker`` gives its strategy. Most label strategies need none of it.
    """

    def take_told(self) -> list[Request]:
        """Take in what was told to the run (`alcore tell`), while a label strategy works; return what that is to drop.

        These are requests which it had taken out and need not answer any more: they were answered, or failed and are
        handed out again. What is told to others is taken in when they have returned.
        """


# -- state and checks, of any part -------------------------------------------------------------------------


class PartOptions(Protocol):
    """What a strategy, a training loop, an observer or a stop criterion may also offer."""

    def attach(self, context: RunContext, /) -> None:
        """Receive the run, before the first step; called on a training loop that has it (strategies must have it)."""

    def check(self) -> None:
        """Raise `UsageError` if the part can't work with this learner and data.

        Called on strategies and training loops when a run starts or resumes, before anything is trained or bought.
        """

    def state_dict(self) -> Mapping[str, Any]:
        """Return what the part must have back after an interruption: tensors, arrays, JSON, and containers of these.

        Called at each checkpoint; for a label strategy, whenever an answer is committed. A part without it is made
        anew when a run resumes; a metrology strategy's `records` are restored in any case.
        """

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take back what `state_dict` returned; called when a run resumes."""


# -- pools -------------------------------------------------------------------------------------------------


@runtime_checkable
class DataPool(Protocol):
    """A collection of labeled samples that grows; ``DataPool[...]`` may be written, and is the same.

    What a pool may also offer is in the protocols ``Pool...``, one for each purpose.
    """

    def __class_getitem__(cls, _item: Any) -> type[DataPool]:
        """Return the class itself."""
        return cls

    def __len__(self) -> int:
        """Return the number of labeled samples."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one labeled item; it may be augmented."""

    def append(self, item: Any, /) -> None:
        """Add one labeled sample, in memory.

        `item` is what a label strategy put: a sample id, a `Label`, or another value. Where samples are chosen from a
        separate unlabeled pool, it is ``(input, target)`` for a sample of that pool. Don't store it outside the run: a
        resumed run starts from the pool as it was before the run, and appends all labels again.
        """


@runtime_checkable
class ChoosablePool(Protocol):
    """A pool that shipped query strategies can choose from."""

    def unlabeled_indices(self) -> torch.Tensor:
        """Return the ids of the unlabeled samples: int64, shape (U,), ascending.

        A large pool (10^7 ids are 80 MB) takes ``unlabeled_indices(start, stop)`` and has `PoolWindows.total`; then
        its ids are never listed all at once.
        """

    def inputs(self, ids: torch.Tensor, /) -> Any:
        """Return the learner's inputs for these ids, as one batch, never augmented."""


class PoolIdentity(Protocol):
    """What a pool says of itself. Either member may be left out."""

    info: DataInfo
    """Of the training pool, else of the pool to choose from: what is known about the data. Strategies and learners read
    it as ``context.info``. Where it is missing, nothing is known but what ``Data.info`` says."""

    def digest(self) -> str:
        """Return text that identifies samples and labels.

        Called on the training pool and on a separate unlabeled pool when a run begins, and compared when it resumes.
        Where it is missing, a pool is identified by its length and its unlabeled ids.
        """


class PoolWindows(Protocol):
    """What a large pool to choose from has, so that its ids are never listed all at once.

    It takes ``unlabeled_indices(start, stop)`` too. Where `total` is missing, the ids are listed whole.
    """

    total: int
    """The number of samples, labeled or not; the ids are 0 to ``total - 1``. Read to list the ids in windows."""

    def step_range(self, step: int, /) -> tuple[int, int]:
        """Return which ids a step chooses from: those in ``range(start, stop)``, with ``0 <= start <= stop <= total``.

        Called by each pass over the candidates; so a step on a pool of 10^9 samples takes the time of those that it
        chooses from. The same for the same step. Any unlabeled sample may be asked for by its id all the same. It may
        be left out; then a step chooses from all.
        """


class PoolTraining(Protocol):
    """How the labeled items of the training and the validation pool are read. Each member may be left out."""

    def batch(self, positions: torch.Tensor, /) -> Any:
        """Return the labeled items at these positions of the training order, as one batch; it may be augmented.

        Called by the loaders. Where it is missing, they call `__getitem__` for each item.
        """

    plain: Any
    """The labeled items without augmentation, with ``len`` and ``[index]`` as in the pool itself, which is read where
    it is missing. Read wherever labeled items are not trained on."""

    labeled_ids: torch.Tensor
    """Of the training pool: ids of the labeled samples in training order, int64, shape (L,). Read when features of
    labeled samples are extracted, and by ``alcore export``. Where it is missing, a labeled item has no id."""


class PoolAnswers(Protocol):
    """What a pool knows of labels that the run has not bought. Each member may be left out."""

    knows_answers: bool
    """Of the pool to choose from: whether a sample id alone is enough to label it. Read before step 0. Where it is
    missing: True."""

    def answer(self, sample: int, /) -> Any:
        """Return ``(input, target)`` of any sample whose label is known.

        Called on a separate unlabeled pool when a label strategy answers with a bare sample id; ``pool[sample]`` is
        used where it is missing. Called on the pool to choose from where metrology measures on unlabeled samples; that
        is an error where it is missing.
        """

    def evaluation(self) -> tuple[Any, torch.Tensor]:
        """Return inputs and targets to measure on.

        Called on the training pool where there is no validation pool. Where it is missing, the labeled items
        themselves are measured on, with a warning.
        """


class PoolChecks(Protocol):
    """What a training pool refuses, before it is committed. Either member may be left out."""

    def check(self, value: Any, /) -> str | None:
        """Return what is wrong with the value of a label, or None.

        Called before a label is committed; of a class, `value` is its integer code. Where it is missing,
        `PoolIdentity.info` decides.
        """

    def check_item(self, item: Any, /) -> str | None:
        """Return what keeps an item from being appended, or None.

        Called before an answer is committed that is neither a sample id nor a `Label`. Where it is missing, only what
        can't be stored is refused.
        """


class PoolInputs(Protocol):
    """What a pool knows of inputs that query strategies generate. Either member may be left out."""

    def check_input(self, item: Any, /) -> str | None:
        """Return what is wrong with an input that a query strategy generated, or None.

        Called on the training pool, else on the pool to choose from, before the input is asked for. Where it is
        missing, the input must have the structure of the pool's own.
        """

    def as_input(self, item: Any, /) -> Any:
        """Return the learner's input of a generated one, which is a mapping of named values, for instance.

        Called on the pool to choose from, to learn from generated inputs that failed as infeasible
        (``DriverConfig.feasibility``). Where it is missing, what was generated is the input.
        """


class PoolPrice(Protocol):
    """What the pool to choose from expects labels to cost. Called where the label strategy has no `cost`.

    Each member may be left out. What has no price costs the mean of what was paid so far, at first 1.0.
    """

    def cost(self, sample: int, /) -> float | None:
        """Return what the label of a sample is expected to cost, or None if that is not known."""

    def costs_of(self, samples: torch.Tensor, /) -> torch.Tensor | None:
        """Return what `cost` does for many samples, int64 (n,): float64 (n,), or None if it is known for none.

        Called in place of `cost`, where strategies choose by score per cost; where it is missing, `cost` is.
        """

    def input_cost(self, item: Any, /) -> float | None:
        """Return what the label of a generated input is expected to cost, or None if that is not known."""


class PoolFidelity(Protocol):
    """How exact the labels of the pool to choose from are to be. Each member may be left out: labels are alike then."""

    def fidelity(self, sample: int, /) -> Any:
        """Return how exact the label of a sample is to be, as JSON, or None where all labels are alike.

        Called when a sample is asked for; the run keeps it with the request.
        """

    def input_fidelity(self, item: Any, /) -> Any:
        """Return how exact the label of a generated input is to be, as `fidelity` does for a sample."""

    def at_highest_fidelity(self, samples: torch.Tensor, /) -> torch.Tensor | None:
        """Return the inputs that these samples, int64 (n,), have at the highest fidelity; None where labels are alike.

        Called on a pool whose inputs are one tensor, by strategies that lower the variance of predictions: those at
        the highest fidelity are what is to be learned.
        """


class PoolProvenance(Protocol):
    """Where the samples of the pool to choose from are from, for people and programs that label them.

    Each member may be left out.
    """

    def shown(self, samples: Sequence[int], /) -> Mapping[str, Sequence[Any]]:
        """Return what a person is shown of these samples who labels them: text, numbers or None, by column.

        Called by ``alcore ask``, by ``alcore report`` and by label strategies. For samples of a file, its columns
        without the target. Where it is missing, the inputs are shown.
        """

    units: Mapping[str, str]
    """The units of the columns that `shown` gives, by column, such as ``{"T": "K"}``. Read by ``alcore ask`` and by
    label strategies that run programs. Where it is missing, no units are shown."""

    source_rows: torch.Tensor | None
    """The row of the file of each sample, by id: int64, shape (N,), from 0. A header and blank lines don't count, as in
    ``pandas.read_csv(path).iloc[row]`` and ``array[row]``. Read by ``alcore export`` and ``alcore ask``; where it is
    missing or None, they name no rows."""

    source_lines: torch.Tensor | None
    """The line of a text file on which each sample begins, by id: int64, shape (N,), from 1; None where the file is not
    text. Read by ``alcore export`` and ``alcore ask``; where it is missing, they name no lines."""


# -- queues -------------------------------------------------------------------------------------------------


class LabelingProgress(NamedTuple):
    """How far the labels of a step are.

    Parameters
    ----------
    requested
        How many requests the query phase of the step made.
    answered
        How many of these were labeled or given up.
    """

    requested: int
    answered: int


class Queue(Protocol):
    """What ``StrategiesConfig.queue_cls`` builds: anything with ``put`` and ``get``, as `queue.Queue` has."""

    def put(self, item: Any, /) -> Any:
        """Add an item."""

    def get(self) -> Any:
        """Take an item out: one that was put, waiting for it where it is on its way, as between processes.

        Called once for each item that was put, and never where nothing is left; so it may wait then, as `queue.Queue`
        does, or raise.
        """


class AbstractQueue(Protocol[T]):
    """A queue as a strategy sees it, for annotations, as in PhysicsNeMo; `QueryQueue` and `LabelQueue` have more."""

    def put(self, item: T, /) -> None:
        """Add an item."""

    def get(self) -> T:
        """Take an item out; raises `queue.Empty` when nothing is left."""

    def empty(self) -> bool:
        """Return whether nothing is left."""


class QueryQueue(Protocol):
    """The queue between query and label strategies."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None, *, score: float | None = None) -> None:
        """Ask for the label of a sample id or of a generated input."""

    def put_many(self, items: Iterable[Any], scores: Sequence[float] | None = None) -> None:
        """Ask for several labels, best first."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take out what was put; raises `queue.Empty` when nothing is left."""

    def get_request(self) -> Request:
        """Take out the next request with its idempotency key.

        It stays with the label strategy, also when `label` returns, until it is answered, reported as failed, or given
        back.
        """

    def get_many(self, n: int) -> list[Request]:
        """Take out up to `n` requests, in one transaction; none when nothing is left."""

    def give_back(self, request: Any) -> None:
        """Let a request, or an item that `get` returned, be handed out again: in this phase, or in the next one."""

    def recalled(self) -> list[Request]:
        """Return the requests that the label strategy has taken out and should not begin any more.

        They are those over the budget, or all where labels keep failing. A label strategy that takes out more than it
        begins at once asks now and then, and gives back those that it has not begun. The answer to one that it has
        begun is accepted as ever.
        """

    def empty(self) -> bool:
        """Return whether nothing is left to label."""

    def qsize(self) -> int:
        """Return how many requests are left to label."""


class LabelQueue(Protocol):
    """The queue that labels are delivered to; each `put` is durable when it returns."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Deliver one answer, from any thread. One that can't be a label of the data is an attempt that failed."""

    def put_many(self, items: Iterable[Any]) -> None:
        """Deliver several answers in one transaction.

        An answer that took effort is better put by itself, at once: it is durable then.
        """

    def submitted(self, request: Request, handle: str) -> None:
        """Commit the name of the job that answers a request, at a scheduler for instance.

        When the request is handed out again, after an interruption or in a later step, `Request.handle` shows it.
        """

    def progress(self) -> LabelingProgress:
        """Return how many requests the step made, and how many of them were labeled or given up so far."""


# -- strategies ---------------------------------------------------------------------------------------------


@runtime_checkable
class QueryStrategy(Protocol):
    """Chooses what to label next. It may also offer what `PartOptions` and `QueryStrategyOptions` list."""

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Put sample ids, or generated inputs, into the queue."""

    def attach(self, driver: RunContext, /) -> None:
        """Receive the run, before the first step."""


class QueryStrategyOptions(Protocol):
    """What a query strategy may also offer."""

    weighs_costs: bool
    """Whether it chooses by score per expected cost where `RunContext.costs` gives costs. A run that wants that
    (``DriverConfig.per_cost``) warns of a strategy that doesn't."""


@runtime_checkable
class LabelStrategy(Protocol):
    """Gets labels for what was asked. It may also offer what `PartOptions` and `LabelStrategyOptions` list."""

    def label(self, queue_to_label: QueryQueue, serialize_queue: LabelQueue, *args: Any, **kwargs: Any) -> None:
        """Take requests out of the query queue and put answers into the label queue.

        The names of the arguments are PhysicsNeMo's.
        """

    def attach(self, driver: RunContext, /) -> None:
        """Receive the run, before the first step."""


class ImmediateLabelOptions(Protocol):
    """What a label strategy may also offer whose labels are there at once: looked up, or known to the pool."""

    labels_by_id: bool
    """Whether it answers with bare sample ids at once, so that the pool must know the answers. Then, as it buys nothing
    and draws nothing, its requests are not tracked while they are in flight, and the global generators are not restored
    after it."""


class InProcessLabelOptions(Protocol):
    """What a label strategy may also offer that works for hours inside `label`, and ends with its process."""

    idempotent: bool
    """Whether it may be asked again under the same request id at no cost. Then it doesn't matter which requests it was
    working on when a run was cut off. Not read where there is `poll`."""

    remote: bool
    """Whether it also works on another machine, in ``alcore worker`` of the plugin alcore-worker. There is no Driver
    there: of `RunContext` it has `run_id`, `log_dir` (a folder of the worker), `logger`, `active_learning_step_idx`,
    `strategy_name`, `pending`, `generator` and `safe_point`, of `LabelingContext` also `take_told`, and a `choice_pool`
    that knows the samples in hand by `shown`, `cost` and `inputs`. `check` is not called, and no state is kept. Where
    it is missing: False."""

    def is_in_doubt(self, request: Request, /) -> bool:
        """Return whether a taken request may have been carried out without the strategy being able to find out.

        Called when a run goes on that was cut off, for each request in flight that has no answer. Those in doubt need
        the user's decision (``--in-doubt``), the others are handed out again. Where it is missing, all are in doubt.
        Not called where there is `poll`, or `idempotent` is True.
        """


class ElsewhereLabelOptions(Protocol):
    """What a label strategy may also offer whose work goes on elsewhere, for days perhaps, while no process runs."""

    waits: bool
    """Whether it may raise `alcore.errors.Waiting`. Then `label` is called while requests of the step are open, also
    where none of them is left to hand out, since its only answer was refused for instance."""

    told: bool
    """Whether the answers that it waits for are told to the run (``alcore tell``); False where it gets them itself.
    Read for what the command advises to do next. Where it is missing: True."""

    def poll(self, request_id: str, /) -> Any:
        """Return the answer to a request that was taken, ``alcore.PENDING``, or None if the strategy never got it.

        A value, a `Label` or a `Failed` is the answer to that request, whatever stands in its ``item``. Called at the
        beginning of each labeling phase, for each request that was taken and not answered. A pending one is polled
        again in the next phase; one that the strategy never got is handed out. A strategy that offers this needs no
        decision after an interruption, and its `idempotent` isn't read.
        """


class LabelStrategyOptions(ImmediateLabelOptions, InProcessLabelOptions, ElsewhereLabelOptions, Protocol):
    """What a label strategy may also offer: this, and what belongs to one of three ways to get labels.

    They are in `ImmediateLabelOptions`, `InProcessLabelOptions` and `ElsewhereLabelOptions`. Members of several may be
    offered together.
    """

    at_once: int
    """How many requests it works on at the same time, at most. Read for the first line of a run and by `alcore check`.
    Where it is missing, nothing is said of it."""

    def cost(self, item: Any, /) -> float:
        """Return what the label of an item will cost.

        Where it is missing: the pool's `cost`, else the mean of what was paid so far, else 1.0.
        """

    def costs_of(self, samples: torch.Tensor, /) -> torch.Tensor | None:
        """Return what `cost` does for many samples, int64 (n,): float64 (n,); called in place of it for samples."""


@runtime_checkable
class MetrologyStrategy(Protocol):
    """Measures the learner. It may also offer what `PartOptions` and `MetrologyStrategyOptions` list."""

    records: list[Any]
    """What was measured, the oldest first; core stores what each `compute` added, and restores it on resume."""

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure, and append what was found to `records`."""

    def attach(self, driver: RunContext, /) -> None:
        """Receive the run, before the first step."""


class MetrologyStrategyOptions(Protocol):
    """What a metrology strategy may also offer."""

    def serialize_records(self, *args: Any, **kwargs: Any) -> None:
        """Write the records somewhere; called after each `compute`, on rank 0."""


# -- learners -----------------------------------------------------------------------------------------------


class LearnerProtocol(Protocol):
    """A learner with steps of its own, for annotations, as in PhysicsNeMo; none of its methods is required."""

    def __call__(self, inputs: Any, /) -> Any:
        """Return the outputs of a batch of inputs."""

    def training_step(self, batch: Any, /) -> torch.Tensor:
        """Return the loss of a batch; the loop does backward and step."""

    def validation_step(self, batch: Any, /) -> torch.Tensor | float | None:
        """Look at a validation batch; may return a scalar."""

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """Return the trainable parameters."""


class LearnerOptions(Protocol):
    """What a learner may offer beside being callable; an `nn.Module` has some of it anyway."""

    outputs: str
    """Of a classifier ``"logits"`` (where it doesn't say) or ``"probabilities"``. Of a regression ``"values"`` (where
    it doesn't say), or ``"mean-variance"`` for twice as many columns or channels, (B, 2 T), (K, B, 2 T) or (B, 2 C,
    ...): the predicted means of all quantities, then the variances of labels around them, above 0, in the unit of the
    target squared."""

    def training_step(self, batch: Any, /) -> torch.Tensor:
        """Return the loss of a batch; used where no ``train_step_fn`` is given."""

    def validation_step(self, batch: Any, /) -> torch.Tensor | float | None:
        """Look at a validation batch; used where no ``validate_step_fn`` is given."""

    def fit_batches(self, batches: Iterable[Any], generator: torch.Generator, /) -> None:
        """Fit to all labeled items at once, batch by batch (inputs, targets), in place of a training in epochs.

        The default loop, and `alcore.training.FittingLoop`, call it in each step; `generator`, on the CPU, is the only
        source of what it draws. In a run ``batches.dataset`` is the training pool, and ``batches.dtype`` that of the
        run.
        """

    def features(self, inputs: Any, /) -> Any:
        """Return the features of a batch, shape (B, ...); used in place of the input of the last linear layer."""

    def posterior_covariance(self, a: Any, b: Any = None, /) -> torch.Tensor:
        """Return the covariance of predictions between A and B inputs given the labels: shape (T, A, B).

        It is of T quantities, without the noise of labels, in the unit of the target squared; without `b` the variances
        alone, (T, A). Called by query strategies that choose by what a label would say about others.
        """

    def parameters(self) -> Iterable[Any]:
        """Return the trainable parameters; without any there is no optimizer."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return weights and buffers for a checkpoint.

        A learner without it, or with an empty one, has nothing that a checkpoint must hold: `rebuild` makes its state.
        """

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Take back what `state_dict` returned; needed where that is not empty, and for ``reset_learner``."""

    def begin_training(self, batches: Iterable[Any], /) -> None:
        """Look at the labeled items before a step trains on them; what is learned of them belongs in the state.

        Called on each rank when a training begins, after ``reset_learner`` restored the initial state, and not again
        when the training is resumed. `batches` are those of all labeled items in the order of the pool, on the
        learner's device. They are made as they are read, and may be read several times. Rank 0's buffers are then
        copied to all.
        """

    def rebuild(self, pool: DataPool, /) -> None:
        """Make the state anew from the labeled items; called when a run resumes, for learners that are fitted whole."""


# -- training loops -----------------------------------------------------------------------------------------


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


class TrainingLoopOptions(Protocol):
    """What a training loop may also offer."""

    train_step_fn: TrainStep | None
    """Its training step, used where `Driver.run` is given none, before the learner's own and the default loss."""

    validate_step_fn: ValidateStep | None
    """Its validation step, likewise."""

    checkpoint_frequency: int
    """Epochs between two checkpoints, as ``DriverConfig.model_checkpoint_frequency``; 0 disables these."""


class TrainingLoop(Protocol):
    """Trains the learner for a number of epochs. It may also offer what `PartOptions` lists.

    Any callable will do. Of the optional arguments it is given those that it takes. Resumed inside training, it is
    called with the epochs that are left; what it has gathered over earlier ones must be in its ``state_dict()``.
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
        validation_asked_for: bool = True,
        **kwargs: Any,
    ) -> None:
        """Train `model` in place.

        Where `validation_asked_for` is False, the validation step is the default loss of the task, and nobody looks at
        its losses but for that of the last epoch, which the run records.
        """


class FactoryOptions(Protocol):
    """What a factory of a plugin, a class or a function, may also offer."""

    renamed_parameters: Mapping[str, str | None]
    """Earlier names of its parameters, each with the name that it has now, or None where it is gone."""

    code_parameters: frozenset[str]
    """Its parameters that name code or a program, which is the user's own. What an experiment file gives for them is
    taken only with ``--allow-code``, as is ``package.module:name``; what the user gives with ``--set`` is trusted."""

    def preprocessing_from(self, description: Mapping[str, Any], /) -> Preprocessing:
        """Rebuild ``Data.preprocessing`` from what its `describe` returned; the file is not needed.

        An attribute of a data factory. Raise `UsageError` for a description that can't be understood, such as one of
        a later version. Called by ``alcore predict``.
        """


Factory = type[T_co] | Callable[..., T_co] | str
"""A class, a callable, or the string ``"package.module:Name"`` that names one without importing it."""
