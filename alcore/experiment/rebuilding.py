"""Make the data and the learner of a run again, from its experiment file, its labels and its last checkpoint."""

from __future__ import annotations

from typing import Any

import torch

from alcore.driver.answers import append_labels
from alcore.driver.pool_set import PoolSet
from alcore.experiment.build import make_part
from alcore.experiment.file import BuiltInPythonError, Experiment
from alcore.experiment.resolve import check_learner, load_data
from alcore.experiment.settings import DRIVER, check_tables
from alcore.inference.learner import load_model, place_learner
from alcore.plugins.registry import installed
from alcore.protocols import Data
from alcore.store import checkpoints
from alcore.store.files import checkpoint_path
from alcore.store.reading import Run


def rebuild_data(run: Run, *, allow_code: bool = False) -> Data:
    """Return the data of a run with the labels that it had at its last checkpoint.

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
    data = load_data(_experiment(run), installed(), allow_code=allow_code)
    point = run.checkpoints()[-1]
    append_labels(  # what the pool refuses, it has refused in the run, too
        PoolSet(data.train, data.val, data.unlabeled), run.accepted(point["step"] + (point["phase"] == "labeling"))
    )
    return data


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
    experiment = _experiment(run)
    factory, values = check_learner(experiment, installed(), allow_code=allow_code)
    settings, _ = check_tables(experiment.settings)
    dtype = settings["driver"].get("dtype", DRIVER.defaults()["dtype"])
    learner = place_learner(
        make_part(experiment.parts["learner"][0].where, factory, values, data.info), torch.device("cpu"), dtype
    )
    point = run.checkpoints()[-1]
    load_model(learner, checkpoints.load(checkpoint_path(run.folder, point["file"]), point["sha256"])["model"])
    if callable(getattr(learner, "rebuild", None)):  # its state is a function of what is labeled
        learner.rebuild(data.train)
    return learner.eval() if isinstance(learner, torch.nn.Module) else learner


def _experiment(run: Run) -> Experiment:
    try:
        return Experiment.read(run.folder / "experiment.toml")
    except BuiltInPythonError as error:
        raise BuiltInPythonError(
            "the run was built in Python, so its data and learner can't be made again from its experiment file"
        ) from error
