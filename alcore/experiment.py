"""Names and parameters, from a TOML file and from the command line, become a Driver."""

from __future__ import annotations

import copy
import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alcore import parameters, plugins, tables
from alcore.errors import PluginError, UsageError, did_you_mean
from alcore.pools import Data

DEFAULTS: dict[str, list[str]] = {
    "data": ["moons"],
    "learner": ["mlp"],
    "loop": ["default"],
    "query": ["uq"],
    "label": ["dummy"],
    "metrology": ["f1"],
    "stop": [],
    "observe": [],
}
_SINGLE = ("data", "learner", "loop", "label")
_SETTINGS = ("driver", "training")


@dataclasses.dataclass
class Part:
    """One table of an experiment, such as ``[query.uq]``.

    Parameters
    ----------
    kind, name
        The two words of the table's name.
    use
        The plugin name, or ``package.module:name``.
    trusted
        Whether a ``package.module:name`` was typed by the user rather than read from a file.
    values
        The parameters that were given.
    """

    kind: str
    name: str
    use: str
    trusted: bool
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"{self.kind}.{self.name}"


class Experiment:
    """What is to be run: settings, and the parts with their parameters."""

    def __init__(self) -> None:
        self.settings: dict[str, dict[str, Any]] = {"driver": {}, "training": {}}
        self.parts: dict[str, list[Part]] = {}
        self.digests: dict[str, str] = {}
        self.implied: set[str] = set()
        """Kinds that nobody chose, so that they may be left out where they don't fit."""

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """Read an experiment file.

        Raises
        ------
        UsageError
            When it is missing, not TOML, or has a table that doesn't exist.
        """
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"experiment file {path} can't be read: {error}.") from error
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"experiment file {path} is not valid TOML: {error}.") from error
        experiment = cls()
        for kind, content in tree.items():
            if isinstance(content, list):
                raise UsageError(f"{path}: [[{kind}]] has no name; write [{kind}.NAME].")
            if not isinstance(content, dict):
                raise UsageError(f"{path}: {kind!r} stands outside any table; put it under [driver] or [training].")
            if kind in _SETTINGS:
                experiment.settings[kind] = content
            elif kind == "digests":
                experiment.digests = {str(name): str(value) for name, value in content.items()}
            elif kind in DEFAULTS:
                experiment.parts[kind] = [_read_part(path, kind, name, table) for name, table in content.items()]
            else:
                raise UsageError(
                    f"{path}: [{kind}] is no table of an experiment: {did_you_mean(kind, [*_SETTINGS, *DEFAULTS])}."
                )
        return experiment

    def choose(self, kind: str, names: Iterable[str]) -> None:
        """Use these plugins, in place of the file's; parameters that the file gives for a name stay."""
        known = {part.name: part for part in self.parts.get(kind, [])}
        chosen: list[Part] = []
        for use in names:
            base = use.rpartition(":")[2]
            name, count = base, 1
            while name in {part.name for part in chosen}:
                count += 1
                name = f"{base}-{count}"
            same = known.get(name)
            values = same.values if same is not None and same.use == use else {}
            chosen.append(Part(kind, name, use, True, dict(values)))
        self.parts[kind] = chosen

    def complete(self) -> None:
        """Fill in the standard part of each kind that is not chosen."""
        for kind, names in DEFAULTS.items():
            if kind not in self.parts:
                self.choose(kind, names)
                self.implied.add(kind)
        for kind in _SINGLE:
            if len(self.parts[kind]) != 1:
                listing = ", ".join(part.name for part in self.parts[kind]) or "none"
                raise UsageError(f"an experiment has one {kind}, and this one has {listing}.")

    def set(self, text: str) -> None:
        """Take in ``kind.name.parameter=value``, ``driver.parameter=value`` or ``training.parameter=value``."""
        path, equals, value = text.partition("=")
        words = path.strip().split(".")
        if not equals or len(words) < 2 or not all(words):
            raise UsageError(f"--set {text}: write kind.name.parameter=value, for instance query.uq.max_samples=10.")
        kind, given = words[0], parameters.Given(value.strip())
        if kind in _SETTINGS:
            table = self.settings[kind]
            for word in words[1:-1]:
                table = table.setdefault(word, {})
                if not isinstance(table, dict):
                    raise UsageError(f"--set {text}: {kind}.{word} is {table!r} here, which has no parameters.")
            table[words[-1]] = given
            return
        if kind not in self.parts:
            raise UsageError(f"--set {text}: {kind!r} is no kind: {did_you_mean(kind, [*_SETTINGS, *DEFAULTS])}.")
        if len(words) != 3:
            raise UsageError(f"--set {text}: write {kind}.name.parameter=value, for instance query.uq.max_samples=10.")
        for part in self.parts[kind]:
            if part.name == words[1]:
                part.values[words[2]] = given
                return
        raise UsageError(
            f"--set {text}: this experiment has no {kind} {words[1]!r}: "
            f"{did_you_mean(words[1], [part.name for part in self.parts[kind]])}. Choose it with --{kind} {words[1]}."
        )


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
                found[part.where] = plugins.resolve(registry.offer(part.kind, part.use))
        except PluginError as error:
            faults.append(str(error))
    return found, faults


def _user_code(part: Part, allow_code: bool) -> Callable[..., Any]:
    if not part.trusted and not allow_code:
        raise PluginError(
            f"[{part.where}] of the experiment file names the code {part.use!r}; if you trust the file, run it with "
            f"--allow-code, or name the code yourself with --{part.kind} {part.use}."
        )
    try:
        return plugins.import_name(part.use)
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
        if kind in _SETTINGS:
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


def _read_part(path: Path, kind: str, name: str, table: Any) -> Part:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {kind}.{name} must be a table, [{kind}.{name}].")
    values = dict(table)
    return Part(kind, name, str(values.pop("use", name)), False, values)


def _raise(faults: Sequence[str]) -> None:
    unique = list(dict.fromkeys(faults))
    if len(unique) == 1:
        raise UsageError(unique[0] if unique[0].endswith(".") else f"{unique[0]}.")
    if unique:
        raise UsageError(f"{len(unique)} things are wrong:\n" + "\n".join(f"- {fault}" for fault in unique))
