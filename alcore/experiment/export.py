"""Export the labels, the labeled data and the model of a run as CSV, NPZ and safetensors, for use without alcore."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from alcore.codec import export_json, loads
from alcore.driver.answers import completed_item
from alcore.experiment.file import BuiltInPythonError, Experiment
from alcore.experiment.resolve import load_data
from alcore.plugins.registry import installed
from alcore.store import checkpoints
from alcore.store.files import checkpoint_path
from alcore.store.folders import appearing_folder
from alcore.store.reading import Run
from alcore.store.tables import put_item

_CELL = 30_000  # most characters of a value or an input in a cell; spreadsheets and csv readers have limits
_COLUMNS = ["step", "ordinal", "request", "sample", "state", "value", "source", "cost", "strategy", "score"]


def export_run(run: Run, folder: Path, *, allow_code: bool = False) -> list[tuple[str, str]]:
    """Write ``labels.csv``, ``model.safetensors`` and, where the data can be made again, ``labelled.npz``.

    The folder appears whole, by one rename, or not at all. Values and generated inputs that are too long for a cell,
    such as fields, are arrays of ``values.npz``.

    Parameters
    ----------
    run
        The run to export.
    folder
        A folder that does not exist yet.
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
        return list(_write_files(run, hidden, allow_code))


def _write_files(run: Run, folder: Path, allow_code: bool) -> Iterator[tuple[str, str]]:
    """Yield the name of each file after it is written, and what it holds."""
    requests = run.requests()
    arrays = _write_labels(folder / "labels.csv", requests)
    yield (
        "labels.csv",
        f"{len(requests)} requests, with label, source, cost and the score they were chosen by",
    )
    if arrays:
        np.savez(folder / "values.npz", **arrays)
        yield "values.npz", f"{len(arrays)} arrays that are too long for a cell, under the names that labels.csv has"
    point = run.checkpoints()[-1]
    state = checkpoints.load(checkpoint_path(run.folder, point["file"]), point["sha256"])
    model = {
        name: value.contiguous().clone() for name, value in state["model"].items() if isinstance(value, torch.Tensor)
    }
    save_file(model, folder / "model.safetensors")
    yield "model.safetensors", f"the learner's state_dict from checkpoint {point['file']}"
    data = _data_of(run, allow_code)
    if isinstance(data, str):
        yield "labelled.npz", f"not written: {data}"
        return
    for request in requests:
        if request["kind"] is not None:
            data.train.append(_item(request, data.unlabeled))
    arrays = _arrays(data.train)
    np.savez(folder / "labelled.npz", **arrays)
    yield "labelled.npz", f"{len(arrays['targets'])} labeled samples: {', '.join(arrays)}, in training order"
    (folder / "info.json").write_text(export_json(vars(data.info)), encoding="utf-8")
    yield "info.json", "task, classes and their names"


def _write_labels(path: Path, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the table, and return the arrays that are too long for a cell."""
    arrays: dict[str, Any] = {}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for request in requests:
            row = {**request, "request": request["id"]}
            if row["sample"] is None:
                row["sample"] = _cell(request["item"], f"{request['id']}-input", arrays) or request["item"]
            if request["value"] is not None:
                row["value"] = _cell(request["value"], request["id"], arrays) or json.dumps(
                    json.loads(export_json(loads(request["value"])))
                )
            writer.writerow([row[name] for name in _COLUMNS])
    return arrays


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


def _data_of(run: Run, allow_code: bool) -> Any:
    """Return the data of a run as it was at its start, or the reason why it can't be made."""
    try:
        experiment = Experiment.read(run.folder / "experiment.toml")
    except BuiltInPythonError:
        return "the run was built in Python, so its pool can't be made again from its experiment file"
    return load_data(experiment, installed(), allow_code=allow_code)


def _item(request: dict[str, Any], unlabeled: Any) -> Any:
    asked = request["sample"] if request["item"] is None else loads(request["item"])
    item = put_item(asked, request["kind"], request["value"], request["source"], request["cost"])
    return item if unlabeled is None else completed_item(asked, request["kind"], item, unlabeled)


def _arrays(pool: Any) -> dict[str, Any]:
    if callable(getattr(pool, "batch", None)):
        inputs, targets = pool.batch(torch.arange(len(pool)))
    else:
        items = [pool[position] for position in range(len(pool))]
        inputs, targets = (torch.stack([torch.as_tensor(item[part]) for item in items]) for part in (0, 1))
    arrays = {"inputs": _as_array(inputs), "targets": _as_array(targets)}
    ids = getattr(pool, "labeled_ids", None)
    return arrays if ids is None else {"ids": ids.numpy(), **arrays}
