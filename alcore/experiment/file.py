"""Names and parameters, from a TOML file and from the command line, become a Driver."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alcore.errors import UsageError, did_you_mean
from alcore.plugins import signatures as parameters

DEFAULTS: dict[str, list[str]] = {
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
_SINGLE = ("data", "learner", "loop", "label")
SETTINGS = ("driver", "training")


class BuiltInPythonError(UsageError):
    """The file describes a run whose parts were made in Python."""


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
    def offered(self) -> str:
        """The kind of plugin that it is; the first selection is made by a query strategy."""
        return "query" if self.kind == "start" else self.kind

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
            elif kind in DEFAULTS:
                experiment.parts[kind] = [_read_part(path, kind, name, table) for name, table in content.items()]
            else:
                raise UsageError(
                    f"{path}: [{kind}] is no table of an experiment: {did_you_mean(kind, [*SETTINGS, *DEFAULTS])}."
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
        for kind in (*_SINGLE, "start"):
            if len(self.parts[kind]) != 1 and not (kind == "start" and not self.parts[kind]):
                listing = ", ".join(part.name for part in self.parts[kind]) or "none"
                raise UsageError(f"an experiment has one {kind}, and this one has {listing}.")

    def set(self, text: str) -> None:
        """Take in ``kind.name.parameter=value``, ``driver.parameter=value`` or ``training.parameter=value``."""
        path, equals, value = text.partition("=")
        words = path.strip().split(".")
        if not equals or len(words) < 2 or not all(words):
            raise UsageError(f"--set {text}: write kind.name.parameter=value, for instance query.uq.max_samples=10.")
        kind, given = words[0], parameters.Given(value.strip())
        if kind in SETTINGS:
            table = self.settings[kind]
            for word in words[1:-1]:
                table = table.setdefault(word, {})
                if not isinstance(table, dict):
                    raise UsageError(f"--set {text}: {kind}.{word} is {table!r} here, which has no parameters.")
            table[words[-1]] = given
            return
        if kind not in self.parts:
            raise UsageError(f"--set {text}: {kind!r} is no kind: {did_you_mean(kind, [*SETTINGS, *DEFAULTS])}.")
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


def _read_part(path: Path, kind: str, name: str, table: Any) -> Part:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {kind}.{name} must be a table, [{kind}.{name}].")
    values = dict(table)
    return Part(kind, name, str(values.pop("use", name)), False, values)
