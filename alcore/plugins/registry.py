"""Find, load and check plugins; give the factory of a name.

Entry points of the group ``alcore`` name modules with ``@alcore.hookimpl`` functions. One that can't be loaded
is kept as data with its reason, and stops nobody who doesn't need it.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import alcore
from alcore.errors import PluginError, did_you_mean
from alcore.hookspecs import Registration

KINDS = {
    "loop": "alcore_training_loops",
    "query": "alcore_query_strategies",
    "label": "alcore_label_strategies",
    "metrology": "alcore_metrology_strategies",
    "data": "alcore_data",
    "learner": "alcore_learners",
    "queue": "alcore_queues",
    "stop": "alcore_stop_criteria",
    "observe": "alcore_observers",
}


@dataclasses.dataclass
class Plugin:
    """What became of one entry point.

    Parameters
    ----------
    distribution, version
        The installed package.
    entry_point
        Its name in the group ``alcore``.
    module
        What it names.
    state
        ``"ok"``, ``"broken"`` (did not load), ``"refused"`` (does not fit this core) or ``"blocked"``.
    error
        Why it is not ok.
    offers
        Factories by kind and name.
    commands
        Functions that add sub-commands.
    """

    distribution: str
    version: str
    entry_point: str
    module: str
    state: str = "ok"
    error: str | None = None
    offers: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    commands: list[Callable[..., object]] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


class Offer(NamedTuple):
    """A name with the plugin that offers it."""

    kind: str
    name: str
    factory: Any
    plugin: Plugin


def registry() -> Registry:
    """Look at what is installed now; ``ALCORE_BLOCK`` and ``ALCORE_ONLY`` say what to leave out."""
    found = [_load(entry, alcore.__version__) for entry in _entry_points()]
    core = Plugin("alcore", alcore.__version__, "builtins", "alcore.plugins.builtins")
    _collect(core, importlib.import_module("alcore.plugins.builtins"))
    return Registry([core, *found])


class Registry:
    """The plugins that were found, and the names that they offer."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = list(plugins)

    def offers(self, kind: str) -> Iterator[Offer]:
        """Yield all offers of a kind."""
        for plugin in self.plugins:
            for name, factory in plugin.offers.get(kind, {}).items():
                yield Offer(kind, name, factory, plugin)

    def offer(self, kind: str, name: str) -> Offer:
        """Return the one offer of a name.

        Raises
        ------
        PluginError
            When nobody offers it, naming what is near and which plugins failed to load; or when two do,
            naming both and how to block one.
        """
        found = [offer for offer in self.offers(kind) if offer.name == name]
        if not found:
            raise PluginError(self._unknown(kind, name))
        if len(found) > 1:
            owners = [offer.plugin for offer in found]
            raise PluginError(f"{kind} {name!r} is offered by {' and by '.join(map(str, owners))}; {remedy(owners)}.")
        return found[0]

    def make(self, kind: str, name: str, /, **parameters: Any) -> Any:
        """Build the part that a name stands for."""
        return resolve(self.offer(kind, name))(**parameters)

    def clashes(self) -> list[tuple[str, str, list[Plugin]]]:
        """Return (kind, name, plugins) for each name that more than one plugin offers."""
        owners: dict[tuple[str, str], list[Plugin]] = {}
        for kind in KINDS:
            for offer in self.offers(kind):
                owners.setdefault((kind, offer.name), []).append(offer.plugin)
        return [(kind, name, who) for (kind, name), who in owners.items() if len(who) > 1]

    def _unknown(self, kind: str, name: str) -> str:
        message = f"no plugin offers the {kind} {name!r}: {did_you_mean(name, {o.name for o in self.offers(kind)})}."
        missing = [plugin for plugin in self.plugins if plugin.state in ("broken", "refused")]
        if missing:
            reasons = "; ".join(f"{plugin}: {plugin.error}" for plugin in missing)
            message += f" It may belong to a plugin that could not be loaded ({reasons})."
        blocked = [plugin.distribution for plugin in self.plugins if plugin.state == "blocked"]
        if blocked:
            message += f" Left out by ALCORE_BLOCK or --only: {', '.join(blocked)}."
        return message + " `alcore plugins` lists what is installed."


def remedy(owners: Sequence[Plugin]) -> str:
    """Say how to leave out one of several plugins that offer one name."""
    last = owners[-1]
    same = any(one.distribution == last.distribution for one in owners[:-1])
    return f"leave one out, for instance with ALCORE_BLOCK={last.entry_point if same else last.distribution}"


def resolve(offer: Offer) -> Callable[..., Any]:
    """Return the factory of an offer, importing it if it is given as a string."""
    if not isinstance(offer.factory, str):
        return offer.factory  # type: ignore[no-any-return]
    try:
        return import_name(offer.factory)
    except Exception as error:
        raise PluginError(
            f"{offer.kind} {offer.name!r} of {offer.plugin} can't be loaded from {offer.factory!r}: "
            f"{type(error).__name__}: {error}."
        ) from error


def import_name(text: str) -> Callable[..., Any]:
    """Import ``"package.module:Name"`` and return what it names, which must be callable."""
    module_name, _, name = text.partition(":")
    value: Any = importlib.import_module(module_name)
    for part in name.split("."):
        value = getattr(value, part)
    if not callable(value):
        raise TypeError(f"{text} is a {type(value).__name__}, not a class or a function")
    return value  # type: ignore[no-any-return]


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    entries = importlib.metadata.entry_points(group="alcore")
    return sorted(entries, key=lambda entry: ((entry.dist.name if entry.dist else "") or "?", entry.name, entry.value))


def _load(entry: importlib.metadata.EntryPoint, core_version: str) -> Plugin:
    distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else (None, None)
    plugin = Plugin(distribution or "?", version or "?", entry.name, entry.value)
    if _is_blocked(plugin):
        plugin.state = "blocked"
        return plugin
    if misfit := _misfit(entry, core_version):
        plugin.state, plugin.error = "refused", misfit
        return plugin
    try:
        _collect(plugin, entry.load())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin does at import is its own fault
        plugin.state, plugin.error = "broken", f"{type(error).__name__}: {error}"
        plugin.offers, plugin.commands = {}, []
    return plugin


def _collect(plugin: Plugin, module: Any) -> None:
    """Call the registration hooks of one plugin; raise when one is wrong."""
    manager = pluggy.PluginManager("alcore")
    manager.add_hookspecs(Registration)
    manager.register(module)
    manager.check_pending()
    for kind, hook in KINDS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            offered = implementation.function()
            if not isinstance(offered, Mapping):
                raise TypeError(f"{hook} returned a {type(offered).__name__}; it must map names to factories")
            for name, factory in offered.items():
                if not (callable(factory) or (isinstance(factory, str) and ":" in factory)):
                    raise TypeError(f"{hook} offers {name!r} as {factory!r}; give a class, a function or 'module:Name'")
            plugin.offers.setdefault(kind, {}).update(offered)
    plugin.commands += [one.function for one in manager.hook.alcore_commands.get_hookimpls()]
    if not plugin.offers and not plugin.commands:
        raise TypeError(f"{plugin.module} implements no registration hook; mark its functions with @alcore.hookimpl")


def _is_blocked(plugin: Plugin) -> bool:
    names = {canonicalize_name(plugin.distribution), canonicalize_name(plugin.entry_point)}
    only = os.environ.get("ALCORE_ONLY")
    return bool(names & _listed(os.environ.get("ALCORE_BLOCK", ""))) or (only is not None and not names & _listed(only))


def _listed(text: str) -> set[str]:
    return {canonicalize_name(word.strip()) for word in text.split(",") if word.strip()}


def _misfit(entry: importlib.metadata.EntryPoint, core_version: str) -> str | None:
    """Say that a plugin's own dependency asks for another core, or None."""
    for line in (entry.dist.requires or []) if entry.dist else []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) != "alcore" or (
            requirement.marker and not requirement.marker.evaluate()
        ):
            continue
        if not requirement.specifier.contains(core_version, prereleases=True):
            return f"it needs alcore{requirement.specifier}, and this is alcore {core_version}"
    return None
