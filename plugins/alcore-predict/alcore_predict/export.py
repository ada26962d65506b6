"""Export the labels, the labeled data, the preprocessing and the learner of a run, for use without alcore."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from alcore.errors import AlcoreError, PluginError, UsageError, message_of
from alcore.experiment import BuiltInPythonError, Checkpoint, TrainedRun
from alcore.outputs import kind_of
from alcore.plugins import installed_versions
from alcore.pools import answer_of, has_batch, is_choosable, labeled_ids, plain_items, sources_of, total_of
from alcore.protocols import DataInfo
from alcore.store import Run, appearing_folder, export_json, loads
from alcore_predict import standalone
from alcore_predict.program import NoProgramError, program_of
from alcore_predict.readme import readme_of

_CELL = 30_000  # most characters of a value or an input in a cell; spreadsheets and csv readers have limits
_COLUMNS = [
    *("step", "ordinal", "request", "sample", "row", "line", "state", "label", "value", "source", "cost"),
    *("strategy", "score"),
]
_IN_PYTHON = "the run was built in Python, so its pool can't be made again from its experiment file"


def export_run(run: Run, folder: Path, *, learner: Any = None, allow_code: bool = False) -> list[tuple[str, str]]:
    """Write what a run has come to: labels, labeled data, preprocessing, weights, and the learner as a program.

    The folder appears whole, by one rename, or not at all. Values and generated inputs that are too long for a cell,
    such as fields, are arrays of ``values.npz``. ``README.txt`` in it says what each file is and how it is used.

    Parameters
    ----------
    run
        The run to export.
    folder
        A folder that does not exist yet.
    learner
        The learner, or the name of what makes it, in place of the one that the run's experiment names. A run that was
        built in Python needs it for ``model.py``.
    allow_code
        Whether to import ``package.module:name`` that the experiment names.

    Returns
    -------
    list of tuple
        The name of each file, and what it holds; for a file that can't be written, the reason.

    Raises
    ------
    UsageError
        When the folder exists.
    alcore.store.StorageError
        If the disk is full or fails.
    """
    with appearing_folder(folder) as hidden:
        written = list(_write_files(TrainedRun(run, allow_code), hidden, learner))
        about = [(name, what) for name, what in written if (hidden / name).exists()]
        (hidden / "README.txt").write_text(readme_of(run.folder.resolve().name, about), encoding="utf-8")
        return [*written, ("README.txt", "what each file is, and how to use it")]


def _write_files(trained: TrainedRun, folder: Path, given: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each file after it is written, and what it holds."""
    run = trained.run
    requests = run.requests()
    info, data, missing = _info_and_data(trained)
    labels = _Labels(trained, info, data)
    arrays, count = labels.write(folder / "labels.csv", requests)
    yield "labels.csv", f"{count} samples and requests, with label, row of the file, source, cost and score"
    if arrays:
        np.savez(folder / "values.npz", **arrays)
        yield "values.npz", f"{len(arrays)} arrays that are too long for a cell, under the names that labels.csv has"
    checkpoint = trained.checkpoint()
    weights = {
        name: value.contiguous().clone() for name, value in checkpoint.model.items() if isinstance(value, torch.Tensor)
    }
    if weights:
        save_file(weights, folder / "model.safetensors")
        yield "model.safetensors", f"the learner's state_dict from checkpoint {checkpoint.file}"
    else:
        yield "model.safetensors", "not written: the learner's state has no tensors"
    if data is None:
        yield "labeled.npz", f"not written: {missing}"
    else:
        labeled = _arrays(data.train, labels.rows)
        np.savez(folder / "labeled.npz", **labeled)
        yield "labeled.npz", f"{len(labeled['targets'])} labeled samples: {', '.join(labeled)}, in training order"
    if info is not None:
        (folder / "info.json").write_text(export_json(vars(info)), encoding="utf-8")
        yield "info.json", "task, classes and their names"
    has_inputs = yield from _write_preprocessing(trained, folder)
    yield from _write_learner(trained, folder, checkpoint, info, data, given, has_inputs=has_inputs)


def _info_and_data(trained: TrainedRun) -> tuple[DataInfo | None, Any, str]:
    """Return what is known about the data, the data with all labels, and the reason where it can't be made."""
    try:
        data = trained.data()
    except PluginError:
        raise  # the user may allow the code, or install what is missing
    except UsageError as error:
        info = trained.run.meta().get("info")
        reason = _IN_PYTHON if isinstance(error, BuiltInPythonError) else message_of(error).rstrip(".")
        return (None if info is None else trained.info()), None, reason
    return data.info, data, ""


class _Labels:
    """Writes the table of labels.

    Parameters
    ----------
    trained
        The run.
    info
        What is known about the data, for names of classes.
    data
        The data with all labels; None where it can't be made.
    """

    def __init__(self, trained: TrainedRun, info: DataInfo | None, data: Any) -> None:
        self._run, self._info = trained.run, info
        self._choice: Any = None if data is None else (data.train if data.unlabeled is None else data.unlabeled)
        self._known = trained.labeled_at_start if data is not None and data.unlabeled is None else []
        self.rows, self._lines = sources_of(self._choice)

    def write(self, path: Path, requests: list[dict[str, Any]]) -> tuple[dict[str, Any], int]:
        """Write the samples that were labeled at the start, and all requests.

        Returns
        -------
        tuple
            The arrays that are too long for a cell, by name, and the number of rows.
        """
        arrays: dict[str, Any] = {}
        rows = [*self._initial(), *(self._of(request, arrays) for request in requests)]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return arrays, len(rows)

    def _initial(self) -> Iterator[dict[str, Any]]:
        """Yield the samples that were labeled when the run began, where they are of the pool to choose from."""
        for sample in self._known:
            target = _target(self._choice, sample)
            yield {"sample": sample, "state": "initial", "value": target, **self._about(sample, target)}

    def _of(self, request: Mapping[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
        row = {**request, "request": request["id"]}
        sample, value = request["sample"], None
        if sample is None:
            row["sample"] = _cell(request["item"], f"{request['id']}-input", arrays) or request["item"]
        if (text := self._run.label_text(request)) is not None:
            value = json.loads(export_json(loads(text)))
            row["value"] = _cell(text, request["id"], arrays) or json.dumps(value)
        elif request["kind"] == "id" and self._choice is not None:
            row["value"] = value = _target(self._choice, sample)
        return {**row, **self._about(sample, value)}

    def _about(self, sample: int | None, value: Any) -> dict[str, Any]:
        """Return the name of a class, or the value of a short label, and where the sample is in its file."""
        about: dict[str, Any] = {}
        if type(value) in (int, float) and self._info is not None and self._info.task == "classification":
            code = int(value)
            about["label"] = self._info.names[code] if 0 <= code < len(self._info.names) else code
        elif isinstance(value, int | float | str):
            about["label"] = value
        for name, places in (("row", self.rows), ("line", self._lines)):
            if places is not None and sample is not None and sample < len(places):
                about[name] = int(places[sample])
        return about


def _target(pool: Any, sample: int) -> Any:
    """Return the target of a sample that the pool knows, if it is one number; else None."""
    answer = answer_of(pool)
    if answer is None:
        return None
    target = torch.as_tensor(answer(sample)[1])
    if target.numel() != 1:
        return None
    value = target.item()
    return float(str(np.float32(value))) if target.dtype == torch.float32 else value


def _cell(stored: str | None, name: str, arrays: dict[str, Any]) -> str | None:
    """Put an array that is too long for a cell among the others, and return what is written in its place."""
    value = None if stored is None or len(stored) <= _CELL else loads(stored)
    if not isinstance(value, torch.Tensor | np.ndarray):
        return None
    arrays[name] = _as_array(value)
    return json.dumps({"file": "values.npz", "array": name})


def _as_array(value: torch.Tensor | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array of NumPy, which lacks bfloat16."""
    if not isinstance(value, torch.Tensor):
        return value
    array: np.ndarray[Any, Any] = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return array


def _arrays(pool: Any, rows: Any) -> dict[str, Any]:
    if has_batch(pool):
        inputs, targets = pool.batch(torch.arange(len(pool)))
    else:
        items = [plain_items(pool)[position] for position in range(len(pool))]
        inputs, targets = (torch.stack([torch.as_tensor(item[part]) for item in items]) for part in (0, 1))
    arrays = {"inputs": _as_array(inputs), "targets": _as_array(targets)}
    ids = labeled_ids(pool)
    if ids is None:
        return arrays
    if rows is not None and sources_of(pool).rows is not None and bool((ids < len(rows)).all()):  # none was generated
        arrays["rows"] = rows[ids].numpy()
    return {"ids": ids.numpy(), **arrays}


def _write_preprocessing(trained: TrainedRun, folder: Path) -> Any:
    """Yield the files of how inputs are made, and return whether a program can make them."""
    try:
        preprocessing = trained.preprocessing()
    except BuiltInPythonError:
        preprocessing = None
    except AlcoreError as error:
        yield "preprocessing.json", f"not written: {message_of(error).rstrip('.')}"
        return False
    description = trained.run.preprocessing() if preprocessing is None else preprocessing.describe()
    if description is None:
        return True  # inputs are arrays
    text = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "preprocessing.json").write_text(text + "\n", encoding="utf-8")
    yield "preprocessing.json", "how inputs are made of a file: columns, categories, means, deviations, classes"
    source: Callable[[], str] | None = getattr(preprocessing, "source", None)
    if source is None:
        return False
    (folder / "inputs.py").write_text(source(), encoding="utf-8")
    yield "inputs.py", "read(description, path) makes inputs of a new file with NumPy alone"
    return True


def _write_learner(
    trained: TrainedRun,
    folder: Path,
    checkpoint: Checkpoint,
    info: DataInfo | None,
    data: Any,
    given: Any,
    *,
    has_inputs: bool,
) -> Iterator[tuple[str, str]]:
    """Yield the files that describe the learner, and that predict with it."""
    try:
        learner: Any = trained.learner(checkpoint, given)
        reason = ""
    except AlcoreError as error:
        learner, reason = None, message_of(error).rstrip(".")
    about = _describe(trained, checkpoint, learner, info, given if isinstance(given, str) else None)
    inputs = None if learner is None else _example(info, data, trained.dtype(learner))
    about["casts"] = inputs is None or inputs.is_floating_point()
    (folder / "learner.json").write_text(export_json(about), encoding="utf-8")
    yield "learner.json", "class and parameters of the learner, how it is built, and the shapes of its weights"
    try:
        if learner is None:
            raise NoProgramError(reason)
        if inputs is None:
            raise NoProgramError("the shape of the inputs is not known")
        program = program_of(learner, inputs, f"The learner of run {trained.run.folder.resolve().name} as a program.")
    except NoProgramError as error:
        other = "" if learner is None else f". Predict with: alcore predict {trained.run.folder.name} NEW"
        yield "model.py", f"not written: {error}{other}"
        return
    if program.constants:
        save_file(program.constants, folder / "constants.safetensors")
        yield "constants.safetensors", "tensors that model.py needs beside the weights"
    (folder / "model.py").write_text(program.source, encoding="utf-8")
    yield "model.py", "the learner as a graph of PyTorch's operators: load()(inputs) gives its outputs, without alcore"
    if has_inputs and info is not None:
        (folder / "predict.py").write_text(Path(standalone.__file__).read_text(encoding="utf-8"), encoding="utf-8")
        yield "predict.py", "python predict.py NEW PREDICTIONS.csv predicts for a new file, without alcore"


def _describe(
    trained: TrainedRun, checkpoint: Checkpoint, learner: Any, info: DataInfo | None, name: str | None
) -> dict[str, Any]:
    """Return what the learner is, and how it is built again."""
    about: dict[str, Any] = {
        "run": trained.run.folder.resolve().name,
        "checkpoint": checkpoint.file,
        "step": checkpoint.step,
        "task": None if info is None else info.task,
        "classes": [] if info is None else list(info.names),
        "outputs": None,
        "dtype": str(trained.dtype(learner)).removeprefix("torch."),
    }
    try:
        part = trained.learner_part(name)
        about["learner"] = {
            "name": part.given.use,
            "factory": f"{part.factory.__module__}:{part.factory.__qualname__}",
            "parameters": {name: value if _is_plain(value) else str(value) for name, value in part.values.items()},
            "info": None if info is None else vars(info),
        }
    except AlcoreError:
        about["learner"] = None
    if learner is not None:
        about["class"] = f"{type(learner).__module__}:{type(learner).__qualname__}"
        about["outputs"] = kind_of(learner, "classification" if info is None else info.task)
    about["state"] = {
        name: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        if isinstance(value, torch.Tensor)
        else {"value": value if _is_plain(value) else str(value)}
        for name, value in checkpoint.model.items()
    }
    about["packages"] = dict(sorted(installed_versions().items()))
    return about


def _is_plain(value: Any) -> bool:
    """Return whether a value is JSON."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def _example(info: DataInfo | None, data: Any, dtype: torch.dtype) -> torch.Tensor | None:
    """Return a batch of inputs like those of the data; None where they are not known to be one tensor."""
    inputs: Any = None
    if data is not None:
        pool = data.train if is_choosable(data.train) else data.unlabeled
        if is_choosable(pool) and (total_of(pool) or 0) > 2:
            inputs = pool.inputs(torch.arange(3))
    elif info is not None and (info.shape or info.features):
        inputs = torch.zeros(3, *(info.shape or (info.features,)))
    if not isinstance(inputs, torch.Tensor):
        return None
    return inputs.to(dtype) if inputs.is_floating_point() else inputs
