"""How a run is configured: the dataclasses that a Driver is built from."""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, SupportsIndex

import torch

from alcore.distributed.manager import DistributedManager
from alcore.errors import UsageError, check_methods, check_no_class
from alcore.protocols import LabelStrategy, MetrologyStrategy, QueryStrategy, TrainingLoop
from alcore.store.files import check_run_id
from alcore.store.retention import parse_retention


def _are_weights(values: Any) -> bool:
    """Return whether these are finite numbers of at least 0, and one of them above."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        return False
    return any(numbers) and all(0 <= number < math.inf for number in numbers)


def _refuse(owner: object, name: str, must: str) -> NoReturn:
    """Raise the error of a field that has a wrong value."""
    raise UsageError(f"{type(owner).__name__}.{name} is {getattr(owner, name)!r}; it must be {must}.")


def _is_number(value: Any) -> bool:
    """Return whether this is one real number, NumPy's and a tensor's included; a bool and a text are none."""
    if isinstance(value, bool | str | bytes) or getattr(value, "shape", ()) != ():
        return False
    try:
        return not math.isnan(float(value))
    except (TypeError, ValueError, RuntimeError):
        return False


def _flags(owner: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(owner, name), bool):
            _refuse(owner, name, "True or False")


def _learning_rate(owner: object, name: str, value: Any) -> None:
    if not _is_number(value) or not 0 < float(value) < math.inf:
        raise UsageError(
            f"{type(owner).__name__}.{name} is {value!r}; a learning rate must be a positive number, for instance 1e-3."
        )


def _at_least(owner: object, least: int, *names: str, optional: bool = False) -> None:
    for name in names:
        value = getattr(owner, name)
        if optional and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            kind = f"an integer of at least {least}" + (", or None" if optional else "")
            raise UsageError(f"{type(owner).__name__}.{name} is {value!r}; it must be {kind}.")


@dataclasses.dataclass
class OptimizerConfig:
    """How the learner is optimized.

    Parameters
    ----------
    optimizer_cls
        Called as ``optimizer_cls(parameters, **optimizer_kwargs)``.
    optimizer_kwargs
        Its arguments.
    scheduler_cls
        Learning-rate scheduler, called as ``scheduler_cls(optimizer, **scheduler_kwargs)``.
    scheduler_kwargs
        Its arguments.
    """

    optimizer_cls: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    optimizer_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"lr": 1e-4})
    scheduler_cls: Callable[..., Any] | None = None
    scheduler_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self.optimizer_cls):
            _refuse(self, "optimizer_cls", "a class, for instance torch.optim.Adam")
        if self.scheduler_cls is not None and not callable(self.scheduler_cls):
            _refuse(self, "scheduler_cls", "None or a class, for instance torch.optim.lr_scheduler.StepLR")
        for name in ("optimizer_kwargs", "scheduler_kwargs"):
            if not isinstance(getattr(self, name), Mapping):
                _refuse(self, name, "a dictionary of arguments")
        if "lr" in self.optimizer_kwargs:
            _learning_rate(self, "optimizer_kwargs['lr']", self.optimizer_kwargs["lr"])
        if self.scheduler_kwargs and self.scheduler_cls is None:
            raise UsageError(
                f"OptimizerConfig.scheduler_kwargs is {dict(self.scheduler_kwargs)!r}, and there is no scheduler_cls "
                "that takes it; give one, for instance torch.optim.lr_scheduler.StepLR, or leave out the arguments."
            )


@dataclasses.dataclass
class TrainingConfig:
    """What is trained on, and for how long.

    Parameters
    ----------
    train_datapool
        The pool of labeled items; labels are appended to it.
    max_training_epochs
        Epochs in step 0.
    val_datapool
        Items for validation during training and for metrology.
    optimizer_config
        Optimizer and scheduler.
    max_fine_tuning_epochs
        Epochs in later steps; as `max_training_epochs` where it is None.
    reset_learner
        Start each step from the initial weights instead of the last ones.
    train_loop_fn
        The training loop; the plugin named ``default`` where it is None.
    sampler
        What an epoch goes through. None shuffles the labeled items; ``"balanced"`` shows every class that has any
        equally often, in as many items. A function is called at each epoch as ``sampler(pool, generator)`` and returns
        positions in the pool, as an iterable such as a `torch.utils.data.Sampler`; what it draws, from `generator` or
        the global generators, depends on seed, step and epoch alone.
    class_weights
        How classes weigh in the default loss of a classification, in training and validation: a weight a class,
        or ``"balanced"``, the number of items over the number of classes and of items of the class, anew at each step.
    """

    train_datapool: Any
    max_training_epochs: int
    val_datapool: Any = None
    optimizer_config: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    max_fine_tuning_epochs: int | None = None
    reset_learner: bool = False
    train_loop_fn: TrainingLoop | Callable[..., Any] | None = None
    sampler: Literal["balanced"] | Callable[[Any, torch.Generator], Iterable[int]] | None = None
    class_weights: Literal["balanced"] | Sequence[float] | None = None

    def __post_init__(self) -> None:
        _at_least(self, 0, "max_training_epochs")
        _at_least(self, 0, "max_fine_tuning_epochs", optional=True)
        _flags(self, "reset_learner")
        loop = self.train_loop_fn
        if inspect.isclass(loop):
            raise UsageError(
                f"TrainingConfig.train_loop_fn is the class {loop.__name__}; give an object of it: {loop.__name__}()."
            )
        if loop is not None and not callable(loop):
            _refuse(self, "train_loop_fn", "callable as loop(model, optimizer, train_dataloader, max_epochs, ...)")
        if not isinstance(self.optimizer_config, OptimizerConfig):
            _refuse(self, "optimizer_config", "an OptimizerConfig, for instance OptimizerConfig(torch.optim.Adam)")
        if not (self.sampler in (None, "balanced") or callable(self.sampler)):
            raise UsageError(
                f"TrainingConfig.sampler is {self.sampler!r}; give 'balanced', or a function that is called as "
                "sampler(pool, generator) and returns positions, such as lambda pool, generator: "
                "torch.utils.data.RandomSampler(pool, generator=generator)."
            )
        weights = self.class_weights
        if not (weights is None or (isinstance(weights, str) and weights == "balanced") or _are_weights(weights)):
            raise UsageError(
                f"TrainingConfig.class_weights is {weights!r}; give 'balanced', or a finite weight of at least 0 for "
                "each class, not all of them 0."
            )

    def epochs(self, step: int) -> int:
        """Return how many epochs a step trains for."""
        if step == 0 or self.max_fine_tuning_epochs is None:
            return self.max_training_epochs
        return self.max_fine_tuning_epochs


def _check_strategies(field: str, parts: Sequence[Any], kind: str, method: str) -> None:
    """Refuse what is not an object with this method and ``attach``, and an object that is given twice."""
    for part in parts:
        check_no_class(part, f"StrategiesConfig.{field}: the {kind} strategy")
        see = f"alcore.protocols.{kind.capitalize()}Strategy"
        check_methods(part, f"StrategiesConfig.{field}: {kind} strategy", (method, "attach"), see=see)
    if len({id(part) for part in parts}) < len(parts):
        raise UsageError(
            f"StrategiesConfig.{field}: one {kind} strategy object is given twice as a {kind} strategy; "
            "make two objects."
        )


@dataclasses.dataclass
class StrategiesConfig:
    """What chooses, labels and measures.

    Parameters
    ----------
    query_strategies
        Asked in this order; none of them can ask for what another one asked for.
    queue_cls
        Builds the queue between query and label strategies: anything with ``put`` and ``get``.
    label_strategy
        Answers the requests; None leaves them open.
    metrology_strategies
        Measure after each training; None skips metrology.
    unlabeled_datapool
        The pool to choose from, where that is not the training pool.
    start_strategy
        The query strategy that makes the first selection, while nothing is labeled: training and metrology wait for
        its labels. Without one the training pool must hold labeled samples at the start.
    """

    query_strategies: Sequence[QueryStrategy]
    queue_cls: Callable[[], Any]
    label_strategy: LabelStrategy | None = None
    metrology_strategies: Sequence[MetrologyStrategy] | None = None
    unlabeled_datapool: Any = None
    start_strategy: QueryStrategy | None = None

    def __post_init__(self) -> None:
        if not callable(self.queue_cls):
            raise UsageError(f"StrategiesConfig.queue_cls is {self.queue_cls!r}; give a class such as queue.Queue.")
        for name in ("query_strategies", "metrology_strategies"):
            value = getattr(self, name)
            if not isinstance(value, Sequence) and not (value is None and name == "metrology_strategies"):
                _refuse(self, name, "a list of strategies")
        _check_strategies("query_strategies", self.query_strategies, "query", "sample")
        _check_strategies("metrology_strategies", self.metrology_strategies or (), "metrology", "compute")
        for name, kind, method in (("label_strategy", "label", "label"), ("start_strategy", "query", "sample")):
            part = getattr(self, name)
            _check_strategies(name, () if part is None else (part,), kind, method)
        for part in self.metrology_strategies or ():
            if not isinstance(getattr(part, "records", None), list):
                raise UsageError(
                    f"StrategiesConfig.metrology_strategies: metrology strategy {type(part).__name__} needs a list "
                    "'records' that compute() appends to."
                )


@dataclasses.dataclass
class DriverConfig:
    """How the loop is run.

    Parameters
    ----------
    batch_size
        Items in a batch of the training and validation loaders.
    max_active_learning_steps
        End after this many steps; None goes on until something else ends the run.
    run_id
        Names the run directory; 8 hexadecimal digits where it is None.
    fine_tuning_lr
        Learning rate of every parameter group after step 0; None keeps the optimizer's.
    reset_optim_states
        Start each step with a fresh optimizer instead of the last one's state.
    skip_training, skip_metrology, skip_labeling
        Leave these phases out.
    checkpoint_interval
        Steps between two checkpoints, and one more at the end; 0 saves only the first state.
    checkpoint_on_training, checkpoint_on_metrology, checkpoint_on_query
        Save one after the training as well, in each step that `checkpoint_interval` names, so that a run which is
        killed later in the step does not train again. One file serves all three: what metrology and query strategies
        found is committed to the database in any case, and they run again from there.
    checkpoint_on_labeling
        Save one at the end of these steps.
    model_checkpoint_frequency
        Epochs between two checkpoints inside training; 0 disables these.
    keep
        Which checkpoints to keep when a step or the run ends, beside the first: rules with commas between them.
        ``last=3`` keeps the last three, that of a final training among them (without this rule, the last one),
        ``every=10`` that of each tenth step, ``best=f1`` that of the step with the highest ``f1``, ``best=loss:min``
        with the lowest ``loss``. None, as ``all``, keeps every one. Labels, requests and records are always kept.
    root_log_dir
        Where run directories are made.
    dist_manager
        Device and process handling; one process where it is None.
    collate_fn
        Makes a batch out of items, as in `torch.utils.data.DataLoader`.
    num_dataloader_workers
        Worker processes of the loaders, for pools that don't offer whole batches.
    drop_last
        Leave out a last batch that is smaller than `batch_size`.
    device
        Where learner and batches are put; the one of `dist_manager`, else torch's default, where it is None.
    dtype
        Floating-point type of learner and batches. Where it is None, which reads as torch's default, the learner keeps
        the types that it comes with, and batches get that of its parameters; where these have several, torch's default.
        Integer tensors keep theirs.
    seed
        Of every generator that the run derives; ``torch.initial_seed()`` where it is None.
    budget
        What labels may cost in all; a label costs 1.0 unless the label strategy says otherwise.
    label_retries
        How often a request is asked again of which infrastructure or a time-out was reported, or whose answer can't be
        a label; then it has failed for good.
    resume
        ``"auto"`` goes on with the run of this `run_id` where there is one, as `Driver.restore` does, and begins it
        where there is none; ``"never"`` refuses to run where there is one.
    samples_per_step
        How many samples all query strategies ask for together in a step, shared out evenly in their order; what one
        leaves goes to those after it. None lets each ask for its own ``max_samples``.
    per_cost
        Whether query strategies that can choose by score per expected cost do so, where labels differ in cost: a
        sample of half the score at a third of the cost comes first. Others choose as they do, and a warning says so.
    final_training
        Whether a run that ends because its steps are done trains and measures once more, on what it has labeled in the
        last one. If the run is extended later, this is the beginning of its next step.
    max_failure_rate
        The run ends where more of the last 20 answers than this share were failures: infrastructure, time-outs and
        refused answers. 1 lets it go on.
    feasibility
        What is made of samples that failed as infeasible. ``"exclude"``: candidates that are more likely to fail so
        than not, by a classifier that is trained on their inputs and those of labeled samples, are not offered to query
        strategies. ``"weight"``: the scores of strategies that score samples one by one
        (`alcore.inference.top_k`) are multiplied with the probability of a label, and others that choose from a subset
        are not offered these candidates. ``"off"``: nothing. A step's record says how many there are.
    weights
        A safetensors file with the weights that the learner begins with, such as ``model.safetensors`` of an export;
        its own initial weights where it is None. The run keeps them in its first checkpoint, so that it is resumed and
        forked without the file.
    weights_sha256
        What the SHA-256 of that file must be; not checked where it is None.

    Attributes
    ----------
    asked_dtype : torch.dtype or None
        The dtype that was given.
    """

    batch_size: int
    max_active_learning_steps: int | None = None
    run_id: str | None = None
    fine_tuning_lr: float | None = None
    reset_optim_states: bool = True
    skip_training: bool = False
    skip_metrology: bool = False
    skip_labeling: bool = False
    checkpoint_interval: int = 1
    checkpoint_on_training: bool = False
    checkpoint_on_metrology: bool = False
    checkpoint_on_query: bool = False
    checkpoint_on_labeling: bool = True
    model_checkpoint_frequency: int = 0
    keep: str | None = None
    root_log_dir: str | Path = "active_learning_logs"
    dist_manager: DistributedManager | None = None
    collate_fn: Callable[[list[Any]], Any] | None = None
    num_dataloader_workers: int = 0
    drop_last: bool = False
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    seed: int | None = None
    budget: float | None = None
    label_retries: int = 0
    samples_per_step: int | None = None
    per_cost: bool = False
    resume: Literal["never", "auto"] = "never"
    final_training: bool = False
    max_failure_rate: float = 0.5
    feasibility: Literal["off", "weight", "exclude"] = "off"
    weights: Path | None = None
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        _at_least(self, 1, "batch_size")
        _at_least(self, 0, "max_active_learning_steps", "samples_per_step", optional=True)
        _at_least(
            self,
            0,
            "checkpoint_interval",
            "model_checkpoint_frequency",
            "num_dataloader_workers",
            "label_retries",
        )
        _flags(self, "reset_optim_states", "skip_training", "skip_metrology", "skip_labeling", "drop_last")
        _flags(self, *(f"checkpoint_on_{phase}" for phase in ("training", "metrology", "query", "labeling")))
        _flags(self, "final_training", "per_cost")
        if not _is_number(self.max_failure_rate) or not 0 <= self.max_failure_rate <= 1:
            _refuse(self, "max_failure_rate", "a number from 0 to 1")
        if self.feasibility not in ("off", "weight", "exclude"):
            _refuse(self, "feasibility", "'off', 'weight' or 'exclude'")
        if self.collate_fn is not None and not callable(self.collate_fn):
            _refuse(self, "collate_fn", "callable as collate_fn(items), and return a batch")
        if self.weights is not None and not isinstance(self.weights, str | os.PathLike):
            _refuse(self, "weights", "the path of a safetensors file, or None")
        for name in ("keep", "run_id", "weights_sha256"):
            if not isinstance(getattr(self, name), str | None):
                _refuse(self, name, "a text, or None")
        parse_retention(self.keep)
        if self.run_id is not None:
            check_run_id(self.run_id)
        if self.resume not in ("never", "auto"):
            _refuse(self, "resume", "'never' or 'auto'")
        if self.resume == "auto" and self.run_id is None:
            raise UsageError("DriverConfig.resume is 'auto', and there is no run_id to go on with; give one.")
        if not isinstance(self.root_log_dir, str | os.PathLike):
            _refuse(self, "root_log_dir", "a path")
        if self.dist_manager is not None and not isinstance(self.dist_manager, DistributedManager):
            _refuse(self, "dist_manager", "an alcore.DistributedManager, or None")
        if self.fine_tuning_lr is not None:
            _learning_rate(self, "fine_tuning_lr", self.fine_tuning_lr)
        if self.budget is not None and not (_is_number(self.budget) and self.budget >= 0):
            _refuse(self, "budget", "a number of at least 0, or None")
        if self.seed is None:
            self.seed = torch.initial_seed()
        if isinstance(self.seed, bool) or not isinstance(self.seed, SupportsIndex):
            _refuse(self, "seed", "an integer, or None")
        self.seed = operator.index(self.seed)
        self.asked_dtype = self.dtype  # no field: a learner keeps its types only where none is asked for
        if self.dtype is None:
            self.dtype = torch.get_default_dtype()
        if not isinstance(self.dtype, torch.dtype) or not self.dtype.is_floating_point:
            _refuse(self, "dtype", "a floating-point type, for instance torch.float32")
        if self.device is None:
            self.device = self.dist_manager.device if self.dist_manager else torch.get_default_device()
        try:
            self.device = torch.device(self.device)
        except (RuntimeError, TypeError) as error:
            raise UsageError(f"DriverConfig.device: {str(error).splitlines()[0]}") from error
