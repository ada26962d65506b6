"""Find the entry points of the group ``alcore``, distribution by distribution, whatever the others' metadata holds.

`importlib.metadata.entry_points` reads all distributions in one go, and a damaged one anywhere ends it. Here what is
wrong with one is kept as data.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

GROUP = "alcore"
UNKNOWN = "?"


class Found(NamedTuple):
    """An entry point of a distribution, or a distribution whose entry points can't be read.

    Parameters
    ----------
    distribution, version
        The installed package; where its metadata doesn't say, the name of its metadata's folder, and ``"?"``.
    name, value
        The entry point: its name, and the module that it names; empty where it can't be read.
    requires
        What the distribution depends on.
    fault
        What is wrong with the metadata, or None.
    """

    distribution: str
    version: str
    name: str
    value: str
    requires: tuple[str, ...] = ()
    fault: str | None = None

    def load(self) -> object:
        """Import the module."""
        entry = importlib.metadata.EntryPoint(self.name, self.value, GROUP)
        return entry.load()


def find_entry_points() -> list[Found]:
    """Return the entry points of all distributions, sorted; of two distributions of one name, the first on the path."""
    entry_points: list[Found] = []
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        of_one = list(_of_one(distribution))
        name = canonicalize_name(of_one[0].distribution) if of_one else ""
        if name not in seen:
            entry_points += of_one
        seen |= {name} - {"", UNKNOWN}
    return sorted(entry_points, key=lambda entry_point: (entry_point.distribution, entry_point.name, entry_point.value))


def installed_versions() -> dict[str, str]:
    """Return the version of each distribution that has an entry point of the group."""
    return {entry_point.distribution: entry_point.version for entry_point in find_entry_points()}


def differences(environment: Mapping[str, Any]) -> list[str]:
    """Return how the plugins that are installed now differ from those of a run, in words.

    Parameters
    ----------
    environment
        What the run recorded when it began; its ``plugins`` are names with versions.
    """
    now = installed_versions()
    before = [plugin.rpartition(" ")[::2] for plugin in sorted(environment.get("plugins", ()))]
    return [
        f"{name} was {version} then and is {now.get(name, 'not installed')} now"
        for name, version in before
        if now.get(name) != version
    ]


@contextlib.contextmanager
def plugins_compared(environment: Mapping[str, Any]) -> Iterator[None]:
    """Note in an error which plugins have another version now than when the run began."""
    try:
        yield
    except Exception as error:
        if changes := differences(environment):
            note = f"with other plugins than the run began with: {'; '.join(changes)}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
        raise


def _of_one(distribution: importlib.metadata.Distribution) -> Iterator[Found]:
    try:
        if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
            return  # whatever else is in it
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it
        name, version, _ = _identity(distribution)
        yield Found(name, version, "", "", fault=f"its entry_points.txt can't be read: {one_line(error)}")
        return
    name, version, fault = _identity(distribution)
    try:
        entry_points = distribution.entry_points.select(group=GROUP)
    except Exception:  # noqa: BLE001 - which one depends on the version of Python
        fault = "not every line of its entry_points.txt is of the form name = module"
        yield Found(name, version, "", "", fault=fault)
        return
    requires: tuple[str, ...] = ()
    try:
        requires = tuple(distribution.requires or ())
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it
        fault = fault or f"what it requires can't be read: {one_line(error)}"
    for entry in entry_points:
        line = f"{entry.name} = {entry.value}".strip()
        wrong = fault if entry.name and entry.value else f"its entry point {line!r} is not of the form name = module"
        yield Found(name, version, entry.name, entry.value, requires, wrong)


def _identity(distribution: importlib.metadata.Distribution) -> tuple[str, str, str | None]:
    """Return name and version, and what is wrong with the metadata; without a name there, that of its folder."""
    folder = one_line(Path(str(getattr(distribution, "_path", UNKNOWN))).name)
    try:
        metadata = distribution.metadata  # read once: `name` and `version` of the distribution read it anew
        keys = set(metadata)
        name, version = (metadata[key] if key in keys else None for key in ("Name", "Version"))
    except FileNotFoundError:  # raised by importlib_metadata, which replaces the standard finder where it is installed
        name = version = None
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it
        return folder, UNKNOWN, f"its metadata can't be read: {one_line(error)}"
    missing = [word for word, value in (("name", name), ("version", version)) if not value]
    fault = f"its metadata in {folder} has no {' and no '.join(missing)}" if missing else None
    return one_line(name or "") or folder, one_line(version or "") or UNKNOWN, fault


def one_line(value: object) -> str:
    """Return text without line breaks and control characters."""
    try:
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    except Exception:  # noqa: BLE001 - an exception whose text can't be made
        text = type(value).__name__
    return "".join(character if character.isprintable() else " " for character in " ".join(text.split()))


def misfit(entry_point: Found, core: str) -> str | None:
    """Return why a plugin's own dependency refuses this core, or None."""
    for line in entry_point.requires:
        try:
            requirement = Requirement(line)
            concerned = canonicalize_name(requirement.name) == "alcore" and (
                not requirement.marker or requirement.marker.evaluate()
            )
        except (InvalidRequirement, ValueError):
            continue
        if concerned and not requirement.specifier.contains(core, prereleases=True):
            return f"it needs alcore{requirement.specifier}, and this is alcore {core}"
    return None
