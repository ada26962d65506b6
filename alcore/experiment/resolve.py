"""Find every name of an experiment, check every parameter, and make the data, before anything else is built."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import json
import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alcore.errors import PluginError, UsageError, reason_of
from alcore.experiment.file import SETTINGS, STANDARD_PARTS, Experiment, Part
from alcore.experiment.settings import DRIVER, TORCH_TABLES, Settings, check_tables, make_settings
from alcore.plugins.registry import Registry, import_code, load_factory
from alcore.plugins.signatures import ParameterTable, RawValue, table_of
from alcore.protocols import Data, DataInfo
from alcore.randomness import seed_everything
from alcore.store.files import sha256_of

# The standard parts where the task is regression: the first that is installed.
_OF_REGRESSION = {"metrology": ("regression",), "query": ("igs", "random")}


@dataclasses.dataclass(frozen=True)
class ResolvedPart:
    """A part whose factory is found, and whose parameters are checked.

    Parameters
    ----------
    given
        What was given: names, and parameters as they were written.
    factory
        What makes the part.
    table
        The parameters of the factory.
    values
        The checked parameters: those that were given, and those that the data suggests.
    """

    given: Part
    factory: Callable[..., Any]
    table: ParameterTable
    values: dict[str, Any]

    @property
    def names_code(self) -> bool:
        """Whether it is the user's own code, or a parameter names code or a program."""
        return ":" in self.given.use or (bool(self.table.code) and bool(self.table.code_in(self.values)))


@dataclasses.dataclass(frozen=True)
class Resolved:
    """An experiment whose names are found, whose parameters are checked and whose data is made.

    Parameters
    ----------
    parts
        The parts by kind.
    data
        What the data factory returned.
    settings
        The checked settings.
    queue_cls
        The factory of the queue.
    names_code
        Whether a part is the user's own code, or a parameter names code or a program, so that an experiment file with
        them is run only with ``--allow-code``.
    """

    parts: dict[str, list[ResolvedPart]]
    data: Data
    settings: Settings
    queue_cls: Callable[[], Any]
    names_code: bool = False


def resolve(experiment: Experiment, registry: Registry, *, allow_code: bool = False) -> Resolved:
    """Find every name and check every parameter; all faults come in one error.

    What the user gave is checked first. Then the data is made, and what the data suggests where the user gave nothing
    is checked. So a value is checked once, and a fault that needs no data is found before the data is made.

    Parameters
    ----------
    experiment
        What is to be run; parts that are missing are filled in.
    registry
        The installed plugins.
    allow_code
        Whether to import ``package.module:name`` that a file names, and to take what a file gives for parameters that
        name code or a program (`alcore.protocols.FactoryOptions.code_parameters`).

    Returns
    -------
    Resolved
        The checked experiment with its data. The global generators of python, numpy and torch are seeded before the
        data is made.

    Raises
    ------
    UsageError
        With one line for each fault.
    """
    experiment.complete()
    parts: dict[str, list[ResolvedPart]] = {}
    faults = list(experiment.faults)
    for kind in STANDARD_PARTS:
        parts[kind], more = _resolve_parts(experiment.parts[kind], registry, allow_code)
        faults += more
    given, more = check_tables(experiment.settings)
    faults += more
    queue_cls: Any = None
    if "queue" in given["driver"]:
        queue_cls, more = _find_queue(registry, given["driver"]["queue"])
        faults += more
    _raise(faults)

    (data_part,) = parts["data"]
    data = _make_data(experiment, data_part, _seed(given))
    for kind, implied in _implied_parts(experiment, data, registry).items():
        parts[kind], faults = _resolve_parts(implied, registry, allow_code)
        _raise(_values_without_part(experiment.parts[kind], implied) + faults)
    faults = _epochs_without_use(experiment, parts)
    settings, more = _complete_settings(experiment, given, data)
    faults += more
    for kind, suggestions in data.defaults.items():
        for part in parts.get(kind, []) if kind != "data" else []:
            faults += _take_suggestions(part, suggestions)
    if queue_cls is None:
        queue_cls, more = _find_queue(registry, settings.driver["queue"])
        faults += more
    _raise(faults)
    _identify_weights(settings.driver)
    names_code = any(part.names_code for of_kind in parts.values() for part in of_kind)
    return Resolved(parts, data, settings, queue_cls, names_code)


def _complete_settings(
    experiment: Experiment, checked: Mapping[str, dict[str, Any]], data: Data
) -> tuple[Settings, list[str]]:
    """Return the settings with what the data suggests where the user gave nothing, and the faults of that."""
    given = experiment.settings
    suggested = {name: _suggested(data.defaults.get(name, {}), given[name]) for name in SETTINGS}
    torch_tables = {**given["training"], **suggested["training"]}
    if checked["training"].get("reset_learner", suggested["training"].get("reset_learner")):
        suggested["training"].pop("max_fine_tuning_epochs", None)  # a learner that begins anew isn't fine-tuned
        suggested["driver"].pop("fine_tuning_lr", None)
    for name in TORCH_TABLES:  # these are checked below, together with what the user gave of them
        suggested["training"].pop(name, None)
    values, faults = check_tables(suggested)
    complete = {name: {**checked[name], **values[name]} for name in SETTINGS}
    try_out = any(given["training"].get(name) for name in TORCH_TABLES)
    settings, more = make_settings(complete, torch_tables, try_out=try_out)
    return settings, faults + more


def _take_suggestions(part: ResolvedPart, suggestions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Add what the data suggests to the values of a part, where the user gave nothing; return the faults of that."""
    of_all = {name: value for name, value in suggestions.get("*", {}).items() if name in part.table.parameters}
    suggested = _suggested({**of_all, **suggestions.get(part.given.use, {})}, part.given.values)
    if not suggested:
        return []
    values, faults = part.table.validate(suggested, part.given.where, partial=True)
    part.values.update(values)
    return faults


def _implied_parts(experiment: Experiment, data: Data, registry: Registry) -> dict[str, list[Part]]:
    """Return the parts that take the place of standard ones, where nobody chose: of this data, or of its task.

    Without an installed metrology of regressions nothing is measured in one, with a warning. A training loop that the
    user chose gets the standard learner, since it may train no other.
    """
    parts: dict[str, list[Part]] = {}
    of_task = _OF_REGRESSION if data.info.task == "regression" else {}  # the standard parts are for classifiers
    for kind in sorted(experiment.implied - ({"learner"} if "loop" not in experiment.implied else set())):
        if not (suited := (*data.parts.get(kind, ()), *of_task.get(kind, ()))):
            continue
        offered = {offer.name for offer in registry.offers("query" if kind == "start" else kind)}
        name = next((name for name in suited if name in offered), None)
        if name in {part.name for part in experiment.parts[kind]}:
            continue
        if name is not None:
            parts[kind] = [Part(kind, name, name, True, {})]
        elif kind == "metrology" and kind in of_task:
            warnings.warn(
                f"this run measures nothing, since no plugin offers the metrology {suited[-1]!r}, the standard one of "
                "a regression; `pip install alcore-metrics` brings it, and --metrology NAME chooses another.",
                stacklevel=2,
            )
            parts[kind] = []
    return parts


def _values_without_part(standard: Sequence[Part], implied: Sequence[Part]) -> list[str]:
    """Return a fault for each value that was given to a standard part in whose place another one is used."""
    other = f"is {implied[0].use!r}" if implied else "is none"
    return [
        f"{part.where}.{name} is given, but no {part.kind} is chosen, and the standard one for this data {other}. "
        f"Choose with --{part.kind} {part.use}"
        + "".join(f", or --{of_data.kind} {of_data.use} with {of_data.where}.{name}" for of_data in implied)
        for part in standard
        for name in part.values
    ]


def _epochs_without_use(experiment: Experiment, parts: Mapping[str, Sequence[ResolvedPart]]) -> list[str]:
    """Return a fault for each setting of a training in epochs, if the learner is fitted to all labels at once.

    A file that names its learner may have such settings, since the file of a run is complete.
    """
    (learner,), (loop,) = parts["learner"], parts["loop"]
    if not callable(getattr(learner.factory, "fit_batches", None)) or loop.given.use not in STANDARD_PARTS["loop"]:
        return []
    is_chosen = "learner" not in experiment.implied
    use = learner.given.use
    which = f"the learner {use!r}" if is_chosen else f"the standard learner for this data, {use!r},"
    return [
        f"training.{name} is given, and {which} is fitted to all labels at once, not in epochs. "
        f"Leave it out, or choose --learner {STANDARD_PARTS['learner'][0]}"
        for name, value in experiment.settings["training"].items()
        if isinstance(value, RawValue) or not is_chosen
    ]


def load_data(experiment: Experiment, registry: Registry, *, allow_code: bool = False) -> Data:
    """Make only the data of an experiment, as it is at the start of a run.

    Parameters
    ----------
    experiment
        The experiment; its other parts need not be installed.
    registry
        The installed plugins.
    allow_code
        Whether to import ``package.module:name`` that a file names.
    """
    parts, faults = _resolve_parts(experiment.parts["data"], registry, allow_code)
    settings, more = check_tables(experiment.settings)
    _raise(faults + more)
    (part,) = parts
    return _make_data(experiment, part, _seed(settings))


def resolve_part(experiment: Experiment, kind: str, registry: Registry, *, allow_code: bool = False) -> ResolvedPart:
    """Return the one part of a kind, with its factory and its checked parameters; nothing is made.

    Parameters
    ----------
    experiment
        What names it; parts that are missing are filled in.
    kind
        ``"data"``, ``"learner"``, ``"loop"`` or ``"label"``.
    registry
        The installed plugins.
    allow_code
        Whether to import ``package.module:name`` that a file names.

    Raises
    ------
    UsageError
        If no plugin offers the name, or a parameter is wrong.
    """
    experiment.complete()
    parts, faults = _resolve_parts(experiment.parts[kind], registry, allow_code)
    _raise(faults)
    (part,) = parts
    return part


def _resolve_parts(parts: Iterable[Part], registry: Registry, allow_code: bool) -> tuple[list[ResolvedPart], list[str]]:
    """Return the parts whose factory is found, with their checked values, and a list of faults."""
    resolved: list[ResolvedPart] = []
    faults = []
    for part in parts:
        try:
            factory = _user_code(part, allow_code) if ":" in part.use else _plugin_factory(part, registry)
        except PluginError as error:
            faults.append(f"{error}{_several_in_one(part, registry)}")
            continue
        table = table_of(factory)
        values, wrong = table.validate(part.values, part.where)
        resolved.append(ResolvedPart(part, factory, table, values))
        faults += wrong
        if table.code and not allow_code:
            faults += _code_in_a_file(part, table)
    return resolved, faults


def _code_in_a_file(part: Part, table: ParameterTable) -> list[str]:
    """Return a fault for each parameter that names code or a program, and whose value was not typed by the user."""
    faults = []
    untyped = {name: value for name, value in part.values.items() if not isinstance(value, RawValue)}
    for name, value in table.code_in(untyped).items():
        type_it = f"--set {shlex.quote(f'{part.where}.{name}={_inline(value)}')}"
        faults.append(
            f"[{part.where}] of the experiment file has {name} = {value!r}, which names code to run. If you trust the "
            f"file, add --allow-code to this command; or give the value yourself, with {type_it}"
        )
    return faults


def _inline(value: Any) -> str:
    """Return a value of a file as ``--set`` takes it: text as it is, the rest as TOML on one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {json.dumps(item)}" for name, item in value.items()) + "}"
    return json.dumps(value, default=str)


def _several_in_one(part: Part, registry: Registry) -> str:
    """Return how to choose several names that were given as one."""
    names = [name.strip() for name in part.use.split(",")]
    names_of_kind = {offer.name for offer in registry.offers(part.plugin_kind)}
    if len(names) < 2 or not names_of_kind.issuperset(names):
        return ""
    return f" For several, repeat the flag: {' '.join(f'--{part.kind} {name}' for name in names)}."


def _plugin_factory(part: Part, registry: Registry) -> Callable[..., Any]:
    return load_factory(registry.offer(part.plugin_kind, part.use))


def _user_code(part: Part, allow_code: bool) -> Callable[..., Any]:
    if not part.trusted and not allow_code:
        raise PluginError(
            f"[{part.where}] of the experiment file names the code {part.use!r}; if you trust the file, run it with "
            f"--allow-code, or name the code yourself with --{part.kind} {part.use}."
        )
    try:
        factory = import_code(part.use)
        if not (isinstance(factory, type | functools.partial) or inspect.isroutine(factory)):
            raise TypeError(
                f"it is an object, a {type(factory).__name__}; name its class, or a function that makes one"
            )
        return factory
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"--{part.kind} {part.use} can't be imported: {reason_of(error)}. It is looked up as "
            "package.module:name from the current folder and the installed packages."
        ) from error


def _find_queue(registry: Registry, name: str) -> tuple[Any, list[str]]:
    try:
        return load_factory(registry.offer("queue", name)), []
    except PluginError as error:
        return None, [f"driver.queue: {error}"]


def _seed(settings: Mapping[str, Mapping[str, Any]]) -> int:
    seed: int = settings["driver"].get("seed", DRIVER.defaults["seed"])
    return seed


def _make_data(experiment: Experiment, part: ResolvedPart, seed: int) -> Data:
    """Call the data factory; its paths become absolute, and its seed the run's, in the values of the part too."""
    where, values = part.given.where, part.values
    values.update({name: value.expanduser().resolve() for name, value in values.items() if isinstance(value, Path)})
    _check_digests(experiment.digests)
    if values.get("seed") is None and "seed" in part.table.parameters:
        values["seed"] = seed
    seed_everything(seed)
    data = part.factory(**values)
    if not isinstance(data, Data):
        raise UsageError(f"{where} gave a {type(data).__name__}; a data factory returns alcore.Data.")
    if not isinstance(data.info, DataInfo):
        raise UsageError(f"{where} gave Data whose info is a {type(data.info).__name__}; it is an alcore.DataInfo.")
    _tell_pools(data)
    return data


def _tell_pools(data: Data) -> None:
    """Give what `data` says of itself to its pools that say nothing, since a run asks them."""
    for pool in (data.train, data.unlabeled):
        if pool is not None and getattr(pool, "info", None) is None and data.info != DataInfo():
            with contextlib.suppress(AttributeError, TypeError):  # of a pool that takes no attributes
                pool.info = data.info


def _identify_weights(driver: dict[str, Any]) -> None:
    """Make the path of the initial weights absolute, and note the digest; a run that is resumed needs no such file."""
    if driver.get("weights") is None:
        return
    driver["weights"] = path = driver["weights"].expanduser().resolve()
    if driver.get("weights_sha256") is None and path.is_file():
        driver["weights_sha256"] = sha256_of(path)


def _check_digests(digests: Mapping[str, str]) -> None:
    """Refuse data files that have changed since the experiment was written."""
    for name, digest in digests.items():
        path = Path(name)
        if path.is_file() and sha256_of(path) != digest:
            raise UsageError(
                f"{path} has changed since this experiment was written, so it would not repeat; take its line out of "
                "[digests] to run on the new content."
            )


def _suggested(suggestions: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to take of the data's suggestions: keys that are not given, and tables that are given in part."""
    suggested: dict[str, Any] = {}
    for name, value in suggestions.items():
        own = given.get(name)
        if name not in given:
            suggested[name] = copy.deepcopy(value)
        # an optimizer's arguments belong to its class: another class takes none of the suggested ones
        elif isinstance(own, dict) and isinstance(value, dict) and own.get("cls", value.get("cls")) == value.get("cls"):
            suggested[name] = {**copy.deepcopy(value), **own, **_suggested(value, own)}
    return suggested


def _raise(faults: Sequence[str]) -> None:
    unique = list(dict.fromkeys(faults))
    if len(unique) == 1:
        raise UsageError(unique[0] if unique[0].endswith(".") else f"{unique[0]}.")
    if unique:
        raise UsageError(f"{len(unique)} things are wrong:\n" + "\n".join(f"- {fault}" for fault in unique))
