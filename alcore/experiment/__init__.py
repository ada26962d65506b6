"""Experiments: names and parameters, from a TOML file and from the command line, become a Driver.

The commands of plugins use these names as ``alcore run`` does: make an `Experiment` (`Experiment.read`, `choose`,
`set`), check it with `resolve`, and make the Driver with `build`.
"""

from alcore.driver.asking import OpenRequest, reopen_requests
from alcore.driver.telling import GivenAnswer, Told, ToldAnswer
from alcore.experiment.build import build, to_toml
from alcore.experiment.file import STANDARD_PARTS, BuiltInPythonError, Experiment, Part
from alcore.experiment.labeling import Labeling
from alcore.experiment.resolve import Resolved, ResolvedPart, load_data, resolve
from alcore.experiment.settings import Settings
from alcore.experiment.trained import Checkpoint, TrainedRun, rebuild_data, rebuild_learner

__all__ = [
    "STANDARD_PARTS",
    "BuiltInPythonError",
    "Checkpoint",
    "Experiment",
    "GivenAnswer",
    "Labeling",
    "OpenRequest",
    "Part",
    "Resolved",
    "ResolvedPart",
    "Settings",
    "Told",
    "ToldAnswer",
    "TrainedRun",
    "build",
    "load_data",
    "rebuild_data",
    "rebuild_learner",
    "reopen_requests",
    "resolve",
    "to_toml",
]
