"""Names and parameters, from a TOML file and from the command line, become a Driver."""

from alcore.experiment.file import DEFAULTS, SETTINGS, BuiltInPythonError, Experiment, Part

__all__ = ["DEFAULTS", "SETTINGS", "BuiltInPythonError", "Experiment", "Part"]
