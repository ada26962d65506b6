"""What is to be run: the tables of an experiment file, and what the command line adds to them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alcore.codec import parse_toml
from alcore.errors import UsageError, did_you_mean
from alcore.names import unique_names
from alcore.plugins.registry import Registry
from alcore.plugins.signatures import RawValue

STANDARD_PARTS: dict[str, list[str]] = {
    "data": ["moons"],
    "learner": ["mlp"],
    "loop": ["default"],
    "start": [],
    "query": ["uq"],
    "label": ["dummy"],
    "metrology": ["f1"],
    "stop": [],
    "observe": [],
}
"""The kinds of parts, and the names that are used where none is chosen."""

SETTINGS = ("driver", "training")
"""The tables that hold settings."""

_TABLES = (*SETTINGS, *STANDARD_PARTS)
_SINGLE = ("data", "learner", "loop", "label")


class BuiltInPythonError(UsageError):
    """The file describes a run that was built in Python, so that it can't be built again from the file."""


@dataclasses.dataclass
class Part:
    """One table of an experiment, such as ``[query.uq]``.

    Parameters
    ----------
    kind, name
        The two words of the table's name.
    use
        The name that a plugin offers, or ``package.module:name``.
    trusted
        Whether `use` was typed by the user, so that the code it names may be imported; False if a file names it.
    values
        The parameters that were given; those that were typed by the user (``--set``) are `RawValue`.

    Attributes
    ----------
    where : str
        The name of the table, as messages use it.
    plugin_kind : str
        The kind under which plugins offer it; a start strategy is a query strategy.
    """

    kind: str
    name: str
    use: str
    trusted: bool
    values: dict[str, Any]

    def __post_init__(self) -> None:
        self.where = f"{self.kind}.{self.name}"
        self.plugin_kind = "query" if self.kind == "start" else self.kind


class Experiment:
    """What is to be run: settings, and the parts with their parameters.

    Attributes
    ----------
    settings : dict
        The tables ``driver`` and ``training``, as they were given.
    parts : dict of str to list of Part
        The parts by kind.
    digests : dict of str to str
        The SHA-256 that data files must have, by path.
    implied : set of str
        The kinds that `complete` filled in. Such a part is replaced where it does not fit the task of the data.
    faults : list of str
        What is known to be wrong already; `resolve` raises it with all that it finds.
    data_file : pathlib.Path or None
        The file that `choose_data` was given in place of a name.
    """

    def __init__(self) -> None:
        self.settings: dict[str, dict[str, Any]] = {"driver": {}, "training": {}}
        self.parts: dict[str, list[Part]] = {}
        self.digests: dict[str, str] = {}
        self.implied: set[str] = set()
        self.faults: list[str] = []
        self.data_file: Path | None = None

    @classmethod
    def open(cls, path: Path, registry: Registry) -> Experiment:
        """Read an experiment file; of a file of data that a plugin reads, return an experiment on that data.

        Parameters
        ----------
        path
            The file.
        registry
            The installed plugins, which say what files they read data from.

        Raises
        ------
        UsageError
            As `read` does.
        """
        if registry.reader_of(path) is None:
            try:
                return cls.read(path)
            except UsageError as error:
                if path.suffix in ("", ".toml"):
                    raise
                files = ", ".join(registry.file_suffixes()) or "no file"
                raise UsageError(f"{error} Experiments are .toml files, and data is read from {files}.") from error
        experiment = cls()
        experiment.choose_data(str(path), registry)
        return experiment

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """Read an experiment file.

        Raises
        ------
        UsageError
            When the file can't be read, is not valid TOML, holds no table, or has a table that does not exist.
        """
        if path.exists() and not path.is_file():
            raise UsageError(
                f"experiment file {path} can't be read: it is {'a folder' if path.is_dir() else 'a device or a pipe'}, "
                "not a regular file."
            )
        try:
            tree = parse_toml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"experiment file {path} can't be read: {error}.") from error
        except ValueError as error:
            raise UsageError(f"experiment file {path} is not valid TOML: {error}.") from error
        if not tree:  # else any empty file would run the standard experiment
            raise UsageError(
                f"experiment file {path} holds no table, so it does not say what to run. Write a table into it, such "
                "as [data.moons], or leave the file out: the standard experiment needs none."
            )
        if "python" in tree:
            raise BuiltInPythonError(
                f"{path} describes a run that was built in Python, which can't be built again from a file; make a "
                "Driver with the same parts and the same run_id, call driver.restore(), then run it."
            )
        experiment = cls()
        for kind, content in tree.items():
            if isinstance(content, list):
                raise UsageError(f"{path}: [[{kind}]] has no name; write [{kind}.NAME].")
            if not isinstance(content, dict):
                raise UsageError(f"{path}: {kind!r} stands outside any table; put it under [driver] or [training].")
            if kind in SETTINGS:
                experiment.settings[kind] = content
            elif kind == "digests":
                experiment.digests = {str(name): str(value) for name, value in content.items()}
            elif kind in STANDARD_PARTS:
                experiment.parts[kind] = [_read_part(path, kind, name, table) for name, table in content.items()]
            else:
                raise UsageError(f"{path}: [{kind}] is not a table of an experiment: {did_you_mean(kind, _TABLES)}.")
        return experiment

    def choose(self, kind: str, names: Iterable[str]) -> None:
        """Use these names instead of those in the file; the parameters that the file has for a name stay.

        Parameters
        ----------
        kind
            One of `STANDARD_PARTS`.
        names
            Names that plugins offer, or ``package.module:name``. A repeated name gets a number: ``uq``, ``uq-2``.
        """
        part_of = {part.name: part for part in self.parts.get(kind, [])}
        used = list(names)
        chosen: list[Part] = []
        for use, name in zip(used, unique_names((use.rpartition(":")[2] for use in used), reserved=()), strict=True):
            same = part_of.get(name)
            values = same.values if same is not None and same.use == use else {}
            chosen.append(Part(kind, name, use, True, dict(values)))
        self.parts[kind] = chosen

    def choose_data(self, given: str, registry: Registry) -> None:
        """Use this data, as ``--data`` does.

        Parameters
        ----------
        given
            The name that a plugin offers, ``package.module:name``, or a file that a plugin reads: the name of its data
            is used, and the file is the parameter `path`.
        registry
            The installed plugins, which say what files they read data from.

        Raises
        ------
        UsageError
            For a file of a kind that no plugin reads, and for another choice than the file that was chosen already.
        """
        reader = registry.reader_of(given)
        if reader is None and ":" not in given and Path(given).suffix:
            raise UsageError(
                f"{given}: no plugin reads data from files that end in {Path(given).suffix}; "
                f"{', '.join(registry.file_suffixes()) or 'no file'} can be read. `alcore plugins` lists data by name."
            )
        name = given if reader is None else reader
        if self.data_file is not None and (reader is not None or name != self.parts["data"][0].use):
            raise UsageError(f"the data is the file {self.data_file} already; leave --data {given} out.")
        self.choose("data", [name])
        if reader is not None:
            self.data_file = Path(given)
            self.parts["data"][0].values["path"] = given

    def complete(self) -> None:
        """Fill in the standard part of each kind that is not chosen.

        Raises
        ------
        UsageError
            When a kind of which an experiment has one has none or several.
        """
        for kind, names in STANDARD_PARTS.items():
            if kind not in self.parts:
                self.parts[kind] = [Part(kind, name, name, True, {}) for name in names]
                self.implied.add(kind)
        for kind in (*_SINGLE, "start"):
            if len(self.parts[kind]) != 1 and not (kind == "start" and not self.parts[kind]):
                listing = ", ".join(part.name for part in self.parts[kind]) or "none"
                raise UsageError(f"an experiment has one {kind}, and this one has {listing}.")

    def set(self, text: str) -> None:
        """Set one parameter, as ``--set`` does.

        Parameters
        ----------
        text
            ``kind.name.parameter=value``, ``driver.parameter=value`` or ``training.parameter=value``. More words reach
            into a parameter that is a table: ``data.space.variables.T.low=900``.

        Raises
        ------
        UsageError
            When the text has another form, or names a kind or a part that the experiment does not have.
        """
        path, equals, value = text.partition("=")
        words = path.strip().split(".")
        if not equals or len(words) < 2 or not all(words):
            raise UsageError(f"--set {text}: write kind.name.parameter=value, for instance query.uq.max_samples=10.")
        kind, given = words[0], RawValue(value.strip())
        if kind in SETTINGS:
            _set_in(self.settings[kind], words[1:], given, text, kind)
            return
        if kind not in self.parts:
            raise UsageError(f"--set {text}: {kind!r} is not a kind: {did_you_mean(kind, _TABLES)}.")
        if len(words) < 3:
            raise UsageError(f"--set {text}: write {kind}.name.parameter=value, for instance query.uq.max_samples=10.")
        for part in self.parts[kind]:
            if part.name == words[1]:
                inside = given if len(words) == 3 else given.parsed()  # of a table, no type is known
                _set_in(part.values, words[2:], inside, text, part.where)
                return
        raise UsageError(
            f"--set {text}: this experiment has no {kind} {words[1]!r}: "
            f"{did_you_mean(words[1], [part.name for part in self.parts[kind]])}. Choose it with --{kind} {words[1]}."
        )

    def unset(self, text: str) -> None:
        """Take one parameter out, so that it has its default, as ``--unset`` does.

        Parameters
        ----------
        text
            ``kind.name.parameter``, ``driver.parameter`` or ``training.parameter``.

        Raises
        ------
        UsageError
            When the experiment gives no such parameter.
        """
        tables = dict(self.settings)
        tables |= {part.where: part.values for parts in self.parts.values() for part in parts}
        for where, table in tables.items():
            if not text.strip().startswith(f"{where}."):
                continue
            *words, name = text.strip().removeprefix(f"{where}.").split(".")
            inner: Any = table
            for word in words:
                inner = inner.get(word) if isinstance(inner, dict) else None
            if isinstance(inner, dict) and name in inner:
                del inner[name]
                return
        given = [f"{where}.{name}" for where, table in tables.items() for name in table]
        raise UsageError(f"--unset {text}: this experiment does not give it: {did_you_mean(text, given)}.")


def _set_in(table: dict[str, Any], words: Sequence[str], value: Any, text: str, where: str) -> None:
    """Set a value in a table, or in the tables inside of it, which are made where they are missing."""
    for word in words[:-1]:
        inner = table.get(word, {})
        inner = inner.parsed() if isinstance(inner, RawValue) else inner
        where = f"{where}.{word}"
        if not isinstance(inner, dict):
            raise UsageError(f"--set {text}: {where} is {inner!r} here, which has no parameters.")
        table[word] = inner
        table = inner
    table[words[-1]] = value


def _read_part(path: Path, kind: str, name: str, table: Any) -> Part:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {kind}.{name} must be a table, [{kind}.{name}].")
    values = copy.deepcopy(table)
    return Part(kind, name, str(values.pop("use", name)), False, values)
