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

_COLUMNS = ["step", "ordinal", "request", "sample", "state", "value", "source", "cost", "strategy", "score"]


def export_run(run: Run, folder: Path, *, allow_code: bool = False) -> list[tuple[str, str]]:
    """Write ``labels.csv``, ``model.safetensors`` and, where the data can be made again, ``labelled.npz``.

    The folder appears whole, by one rename, or not at all.

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
    _write_labels(folder / "labels.csv", run, requests)
    yield (
        "labels.csv",
        f"{len(requests)} requests, with label, source, cost and the score they were chosen by",
    )
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
            data.train.append(_item(run, request, data.unlabeled))
    arrays = _arrays(data.train)
    np.savez(folder / "labelled.npz", **arrays)
    yield "labelled.npz", f"{len(arrays['targets'])} labeled samples: {', '.join(arrays)}, in training order"
    (folder / "info.json").write_text(export_json(vars(data.info)), encoding="utf-8")
    yield "info.json", "task, classes and their names"


def _write_labels(path: Path, run: Run, requests: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for request in requests:
            row = {**request, "request": request["id"]}
            if row["sample"] is None:
                row["sample"] = request["item"]
            if (text := run.label_text(request)) is not None:
                row["value"] = json.dumps(json.loads(export_json(loads(text))))
            writer.writerow([row[name] for name in _COLUMNS])


def _data_of(run: Run, allow_code: bool) -> Any:
    """Return the data of a run as it was at its start, or the reason why it can't be made."""
    try:
        experiment = Experiment.read(run.folder / "experiment.toml")
    except BuiltInPythonError:
        return "the run was built in Python, so its pool can't be made again from its experiment file"
    return load_data(experiment, installed(), allow_code=allow_code)


def _item(run: Run, request: dict[str, Any], unlabeled: Any) -> Any:
    asked = request["sample"] if request["item"] is None else loads(request["item"])
    item = put_item(asked, request["kind"], run.label_text(request), request["source"], request["cost"])
    return item if unlabeled is None else completed_item(asked, request["kind"], item, unlabeled)


def _arrays(pool: Any) -> dict[str, Any]:
    if callable(getattr(pool, "batch", None)):
        inputs, targets = pool.batch(torch.arange(len(pool)))
    else:
        items = [pool[position] for position in range(len(pool))]
        inputs, targets = (torch.stack([torch.as_tensor(item[part]) for item in items]) for part in (0, 1))
    arrays = {"inputs": inputs.numpy(), "targets": targets.numpy()}
    ids = getattr(pool, "labeled_ids", None)
    return arrays if ids is None else {"ids": ids.numpy(), **arrays}
