"""Find every name of an experiment and check every parameter, before anything is built."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alcore import plugins
from alcore.errors import PluginError, UsageError
from alcore.experiment import DEFAULTS, SETTINGS, Experiment, Part
from alcore.experiment import settings as tables
from alcore.plugins import signatures as parameters
from alcore.pools import Data


@dataclasses.dataclass
class Resolved:
    """An experiment whose names are found and whose parameters are checked."""

    experiment: Experiment
    factories: dict[str, Callable[..., Any]]
    data: Data
    values: dict[str, dict[str, Any]]
    settings: tables.Settings


def resolve(experiment: Experiment, registry: plugins.Registry, *, allow_code: bool = False) -> Resolved:
    """Find every name and check every parameter; all faults come at once.

    Parameters
    ----------
    experiment
        What is to be run; completed here.
    registry
        The installed plugins.
    allow_code
        Import ``package.module:name`` that a file names.

    Returns
    -------
    Resolved
        With the data made, since it brings defaults for everything else. The global generators of python,
        numpy and torch are seeded on the way.

    Raises
    ------
    UsageError
        With one line a fault.
    """
    experiment.complete()
    parts = [part for kind in DEFAULTS for part in experiment.parts[kind]]
    factories, faults = _factories(parts, registry, allow_code)
    checked = {}
    for part in parts:
        if part.where in factories:
            checked[part.where], wrong = parameters.validate(factories[part.where], part.values, part.where)
            faults += wrong
    faults += tables.early_faults(experiment.settings, registry)
    _raise(faults)
    seed = tables.seed_of(experiment.settings)
    data = _make_data(experiment, factories, checked, seed)
    _take_defaults(experiment, data.defaults)
    if data.info.task == "regression" and "metrology" in experiment.implied:
        experiment.parts["metrology"] = []  # the standard one measures classifiers
        parts = [part for part in parts if part.kind != "metrology"]
    for part in parts:
        checked[part.where], wrong = parameters.validate(factories[part.where], part.values, part.where)
        faults += wrong
    settings, wrong = tables.check(experiment.settings, registry)
    _raise(faults + wrong)
    return Resolved(experiment, factories, data, checked, settings)


def load_data(experiment: Experiment, registry: plugins.Registry, *, allow_code: bool = False) -> Data:
    """Make the data of an experiment alone, as it is at the start of a run."""
    parts = experiment.parts["data"]
    factories, faults = _factories(parts, registry, allow_code)
    _raise(faults)
    checked = {}
    for part in parts:
        checked[part.where], wrong = parameters.validate(factories[part.where], part.values, part.where)
        faults += wrong
    _raise(faults)
    return _make_data(experiment, factories, checked, tables.seed_of(experiment.settings))


def _factories(
    parts: Sequence[Part], registry: plugins.Registry, allow_code: bool
) -> tuple[dict[str, Callable[..., Any]], list[str]]:
    found: dict[str, Callable[..., Any]] = {}
    faults = []
    for part in parts:
        try:
            if ":" in part.use:
                found[part.where] = _user_code(part, allow_code)
            else:
                found[part.where] = plugins.resolve(registry.offer(part.offered, part.use))
        except PluginError as error:
            faults.append(str(error))
    return found, faults


def _user_code(part: Part, allow_code: bool) -> Callable[..., Any]:
    if not part.trusted and not allow_code:
        raise PluginError(
            f"[{part.where}] of the experiment file names the code {part.use!r}; if you trust the file, run it with "
            f"--allow-code, or name the code yourself with --{part.kind} {part.use}."
        )
    here = str(Path.cwd())
    if here not in sys.path:  # as with python -m; only now, or a file of a run directory might be imported instead
        sys.path.insert(0, here)
    try:
        found = plugins.import_name(part.use)
        if not (isinstance(found, type | functools.partial) or inspect.isroutine(found)):
            raise TypeError(f"it is an object, a {type(found).__name__}; name its class, or a function that makes one")
        return found
    except Exception as error:
        raise PluginError(
            f"--{part.kind} {part.use} can't be imported: {type(error).__name__}: {error}. It is looked up as "
            "package.module:name from the current folder and the installed packages."
        ) from error


def _make_data(
    experiment: Experiment, factories: Mapping[str, Callable[..., Any]], checked: dict[str, Any], seed: int
) -> Data:
    from alcore.randomness import seed_everything

    (part,) = experiment.parts["data"]
    factory, values = factories[part.where], checked[part.where]
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = value.expanduser().resolve()
            part.values[name] = str(values[name])
    tables.check_digests(experiment.digests)
    if parameters.takes(factory, "seed") and values.get("seed") is None:
        values["seed"] = part.values["seed"] = seed
    seed_everything(seed)
    data = factory(**values)
    if not isinstance(data, Data):
        raise UsageError(f"{part.where} gave a {type(data).__name__}; a data factory returns alcore.Data.")
    return data


def _take_defaults(experiment: Experiment, defaults: Mapping[str, Any]) -> None:
    """Fill in what the data suggests, where the user said nothing."""
    for kind, content in defaults.items():
        if kind in SETTINGS:
            experiment.settings[kind] = _under(content, experiment.settings[kind])
        for part in experiment.parts.get(kind, []):
            part.values = _under(content.get(part.use, {}), part.values)


def _under(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(defaults))
    for name, value in given.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        # an optimizer's arguments belong to its class: another class takes none of the suggested ones
        same_class = both and value.get("cls", result[name].get("cls")) == result[name].get("cls")
        result[name] = _under(result[name], value) if same_class else value
    return result


def _raise(faults: Sequence[str]) -> None:
    unique = list(dict.fromkeys(faults))
    if len(unique) == 1:
        raise UsageError(unique[0] if unique[0].endswith(".") else f"{unique[0]}.")
    if unique:
        raise UsageError(f"{len(unique)} things are wrong:\n" + "\n".join(f"- {fault}" for fault in unique))
