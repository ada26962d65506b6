"""The learner of a run as one of its checkpoints has it, and the data of the run, for what is done after the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from alcore.driver.answers import append_labels
from alcore.driver.pool_set import PoolSet
from alcore.errors import UsageError, raised_by
from alcore.experiment.file import BuiltInPythonError, Experiment
from alcore.experiment.resolve import ResolvedPart, load_data, resolve_part
from alcore.inference.learner import floating_type, load_model, place_learner
from alcore.plugins.registry import installed
from alcore.pools.offers import labeled_ids
from alcore.protocols import Data, DataInfo, Preprocessing
from alcore.store import checkpoints
from alcore.store.files import checkpoint_path
from alcore.store.reading import Run

_IN_PYTHON = "the run was built in Python, so its data and learner can't be made again from its experiment file"
_TRIES = 3  # a run that is under way may remove a checkpoint between two reads


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint of a run.

    Parameters
    ----------
    file
        Its name in the folder ``ckpt``.
    step
        The step whose training its weights come from; None for those from before the first training.
    model
        What the learner's ``state_dict`` returned.
    """

    file: str
    step: int | None
    model: Mapping[str, Any]


@dataclasses.dataclass
class TrainedRun:
    """A run whose learner is used after it was trained; its parts are made when they are asked for.

    Parameters
    ----------
    run
        The run.
    allow_code
        Whether to import ``package.module:name`` that its experiment names.
    known_data
        What `data` is to return, where it was made before.

    Attributes
    ----------
    labeled_at_start : list of int
        Ids of the samples that were labeled when the run began, where the training pool has `labeled_ids`; known when
        `data` was called.
    """

    run: Run
    allow_code: bool = False
    known_data: dataclasses.InitVar[Data | None] = None

    def __post_init__(self, known_data: Data | None) -> None:
        self._data = known_data
        self.labeled_at_start: list[int] = []
        self._meta = self.run.meta()

    def experiment(self) -> Experiment:
        """Return the experiment of the run.

        Raises
        ------
        BuiltInPythonError
            If it was built in Python.
        """
        return Experiment.read(self.run.folder / "experiment.toml")

    def data(self) -> Data:
        """Return the data with all labels of the run, made of its file again, which must not have changed."""
        if self._data is None:
            data = load_data(self.experiment(), installed(), allow_code=self.allow_code)
            ids = labeled_ids(data.train)
            self.labeled_at_start = [] if ids is None else torch.as_tensor(ids).tolist()
            pools = PoolSet(data.train, data.val, data.unlabeled)
            last = self.run.first_and_last_step()
            append_labels(pools, self.run.accepted(0 if last is None else last[1] + 2))
            self._data = data
        return self._data

    def info(self) -> DataInfo:
        """Return what is known about the data: as the run has it, else made again."""
        info = self._meta.get("info")
        if info is None:
            return self.data().info
        fields = {field.name for field in dataclasses.fields(DataInfo)}  # a later version may know more
        values: dict[str, Any] = {name: value for name, value in info.items() if name in fields}
        return DataInfo(**values)

    def dtype(self, learner: Any) -> torch.dtype:
        """Return the floating-point type of a learner's batches."""
        return self._asked_dtype() or floating_type(learner)

    def _asked_dtype(self) -> torch.dtype | None:
        """Return the floating-point type that the experiment asks for; None where the learner keeps its own."""
        try:
            table = self.experiment().settings["driver"]
        except BuiltInPythonError:
            return None
        dtype = getattr(torch, str(table.get("dtype", "")), None)
        return dtype if isinstance(dtype, torch.dtype) else None

    def preprocessing(self) -> Preprocessing | None:
        """Return how the data makes inputs of a file: as the run has it, else as the data that is made again says."""
        description = self.run.preprocessing()
        if description is None:
            return self.data().preprocessing if "info" not in self._meta else None  # a run of an earlier version
        factory = resolve_part(self.experiment(), "data", installed(), allow_code=self.allow_code).factory
        make = getattr(factory, "preprocessing_from", None)
        if not callable(make):
            raise UsageError(
                f"run {self.run.folder.name} has a description of how its inputs were made, and the data factory "
                f"{getattr(factory, '__name__', factory)} has no preprocessing_from; install the version of its plugin "
                "that the run began with."
            )
        made: Preprocessing = make(description)
        return made

    def checkpoint(self, step: int | None = None) -> Checkpoint:
        """Return the last checkpoint, or the last one with the weights that a step has trained.

        Raises
        ------
        UsageError
            If there is none of this step, or it is damaged.
        """
        for left in range(_TRIES, 0, -1):
            row = self._row(step)
            try:
                state = checkpoints.load(checkpoint_path(self.run.folder, row["file"]), row["sha256"])
            except UsageError:
                if left == 1 or row["file"] in {checkpoint["file"] for checkpoint in self.run.checkpoints()}:
                    raise
                continue
            return Checkpoint(row["file"], None if row["phase"] == "start" else row["step"], state["model"])
        raise AssertionError

    def _row(self, step: int | None) -> dict[str, Any]:
        rows = self.run.checkpoints()
        if step is None:
            return rows[-1]
        trained = [row for row in rows if row["phase"] != "start"]
        of_step = [row for row in trained if row["step"] == step]
        if of_step:
            return of_step[-1]
        steps = sorted({row["step"] for row in trained})
        near = min(steps, key=lambda trained_step: abs(trained_step - step), default=None)
        name = self.run.folder.name
        if near is None:
            raise UsageError(f"run {name} has no checkpoint of step {step}: it has finished no training yet.")
        raise UsageError(
            f"run {name} has no checkpoint of step {step}; it has those of {_ranges(steps)}. Give --step {near}, or "
            "leave it out for the last one."
        )

    def learner(self, checkpoint: Checkpoint, given: Any = None) -> Any:
        """Return the learner with the weights of a checkpoint, on the CPU.

        Parameters
        ----------
        checkpoint
            From `checkpoint`.
        given
            A learner to load the weights into, or the name of one: what a plugin offers, or ``package.module:name``.
            The learner of the run's experiment where it is None.

        Raises
        ------
        UsageError
            If the learner can't be built, or its weights are not those of the run.
        """
        learner = self._make_learner(given) if given is None or isinstance(given, str) else given
        learner = place_learner(learner, torch.device("cpu"), self._asked_dtype())
        load_model(learner, checkpoint.model)
        if callable(getattr(learner, "rebuild", None)):  # its state is a function of what is labeled
            try:
                data = self.data()
            except UsageError as error:
                error.add_note("which is needed since this learner is fitted again to the labels of the run")
                raise
            with raised_by("rebuild() of the learner"):
                learner.rebuild(data.train)
        return learner

    def learner_part(self, name: str | None = None) -> ResolvedPart:
        """Return the factory of the learner with its parameters, which lack `info`."""
        try:
            experiment = self.experiment()
        except BuiltInPythonError:
            if name is None:
                raise UsageError(
                    f"run {self.run.folder.name} was built in Python, so its learner can't be made again from a file. "
                    "Name a class or a function that makes it, with --learner package.module:name; from Python, give "
                    "the learner itself, as alcore_predict.predict(run, path, learner=...)."
                ) from None
            experiment = Experiment()
        if name is not None:
            experiment.choose("learner", [name])
        return resolve_part(experiment, "learner", installed(), allow_code=self.allow_code)

    def _make_learner(self, name: str | None) -> Any:
        part = self.learner_part(name)
        values = {**part.values, "info": self.info()} if part.table.takes_info else part.values
        with raised_by(f"learner {part.given.use}"):
            return part.factory(**values)


def rebuild_data(run: Run, *, allow_code: bool = False) -> Data:
    """Return the data of a run with all its labels, made of its file again.

    The run is only read, and may be under way.

    Parameters
    ----------
    run
        The run.
    allow_code
        Whether to import ``package.module:name`` that the experiment names.

    Raises
    ------
    UsageError
        If the run was built in Python, a plugin or a file of the data is missing, or the file has changed. An error of
        the data's own factory is not caught.
    """
    return _of_a_file(TrainedRun(run, allow_code)).data()


def rebuild_learner(run: Run, data: Data, *, allow_code: bool = False) -> Any:
    """Return the learner of a run with the weights of its last checkpoint, on the CPU and in eval mode.

    Parameters
    ----------
    run
        The run.
    data
        What `rebuild_data` returned.
    allow_code
        Whether to import ``package.module:name`` that the experiment names.

    Raises
    ------
    UsageError
        If the run was built in Python, the plugin of the learner is missing, or the learner is not that of the run.
    """
    trained = _of_a_file(TrainedRun(run, allow_code, data))
    learner = trained.learner(trained.checkpoint())
    return learner.eval() if isinstance(learner, torch.nn.Module) else learner


def _of_a_file(trained: TrainedRun) -> TrainedRun:
    """Return a run whose parts can be made of its experiment file; raise `BuiltInPythonError` for another."""
    try:
        trained.experiment()
    except BuiltInPythonError as error:
        raise BuiltInPythonError(_IN_PYTHON) from error
    return trained


def _ranges(steps: list[int]) -> str:
    """Return ascending numbers as text, such as ``0 to 4, 6``."""
    parts: list[list[int]] = []
    for step in steps:
        if parts and parts[-1][1] == step - 1:
            parts[-1][1] = step
        else:
            parts.append([step, step])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in parts)
