"""What is installed: find plugins, load them, and look up the factory of a name.

Entry points of the group ``alcore`` name modules with ``@alcore.hookimpl`` functions. An entry point that fails to load
is kept in the registry with its reason; only those who ask for a name that it may offer get an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import inspect
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pluggy
from packaging.utils import canonicalize_name

from alcore.errors import PluginError, UsageError, did_you_mean, reason_of
from alcore.hookspecs import Registration
from alcore.plugins.discovery import Found, find_entry_points, misfit, one_line
from alcore.plugins.standard import has_standard_commands, package_of

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
"""The kinds of names that plugins offer, each with its registration hook."""

HOOKS = tuple(name for name in vars(Registration) if name.startswith("alcore_"))
"""The names of the registration hooks."""

_UNKNOWN = "unknown"
_SUFFIX = re.compile(r"(\.[a-z0-9_-]+)+")


@dataclasses.dataclass
class Plugin:
    """One entry point, and the result of loading it.

    Parameters
    ----------
    distribution, version
        The installed package.
    entry_point
        Its name in the group ``alcore``.
    module
        The module that the entry point names.
    state
        ``"ok"``, ``"faulty"`` (it works, and did something that it must not), ``"broken"`` (it failed to load),
        ``"refused"`` (it does not fit this core) or ``"blocked"``.
    error
        Why it is faulty, broken or refused.
    offers
        Factories by kind and name.
    commands
        Functions that add sub-commands.
    files
        The name of the data that reads a file, by the suffix of the file.
    seconds
        How long it took to import the module and to call its hooks. A module that several plugins import counts for
        the first of them.
    """

    distribution: str
    version: str
    entry_point: str
    module: str
    state: str = "ok"
    error: str | None = None
    offers: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    commands: list[Callable[..., object]] = dataclasses.field(default_factory=list)
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time that the block takes to `seconds`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begin

    def fault(self, reason: str) -> None:
        """Note something that is wrong with a plugin that works."""
        self.state, self.error = "faulty", f"{self.error}; {reason}" if self.error else reason

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


class Offer(NamedTuple):
    """A name, with its factory and the plugin that offers it."""

    kind: str
    name: str
    factory: Any
    plugin: Plugin


class Clash(NamedTuple):
    """A name that several plugins offer."""

    kind: str
    name: str
    plugins: Sequence[Plugin]

    def __str__(self) -> str:
        """Return who offers the name, and how to block one of them."""
        last = self.plugins[-1]
        same = any(plugin.distribution == last.distribution for plugin in self.plugins[:-1])
        return (
            f"{self.kind} {self.name!r} is offered by {' and by '.join(map(str, self.plugins))}; leave one out, for "
            f"instance with ALCORE_BLOCK={last.entry_point if same else last.distribution}"
        )


def installed() -> Registry:
    """Return the plugins that are installed now, less those that ``ALCORE_BLOCK`` and ``ALCORE_ONLY`` leave out."""
    version = core_version()
    core = Plugin("alcore", version, "builtins", "alcore.plugins.builtins")
    _collect(core, importlib.import_module("alcore.plugins.builtins"))
    plugins = [core, *(_load(entry_point, version) for entry_point in find_entry_points())]
    return Registry(plugins, _unknown_names(plugins))


def core_version() -> str:
    """Return the version of core; ``"unknown"`` where core is on the path without being installed."""
    try:
        return importlib.metadata.version("alcore")
    except importlib.metadata.PackageNotFoundError:
        return _UNKNOWN


class Registry:
    """A list of plugins, searched for the names that they offer.

    Parameters
    ----------
    plugins
        The plugins, in any state.
    warnings
        What is wrong with ``ALCORE_BLOCK`` and ``ALCORE_ONLY``, a sentence each.
    """

    def __init__(self, plugins: Sequence[Plugin], warnings: Sequence[str] = ()) -> None:
        self.plugins, self.warnings = list(plugins), list(warnings)

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
            When no plugin offers the name: the message has the nearest name and the plugins that failed to load. When
            several plugins offer it: the message has both, and how to block one.
        """
        offers = [offer for offer in self.offers(kind) if offer.name == name]
        if not offers:
            raise PluginError(self._not_offered(kind, name))
        if len(offers) > 1:
            raise PluginError(f"{Clash(kind, name, [offer.plugin for offer in offers])}.")
        return offers[0]

    def make(self, kind: str, name: str, /, **parameters: Any) -> Any:
        """Look up a name and call its factory with these parameters."""
        return load_factory(self.offer(kind, name))(**parameters)

    def file_suffixes(self) -> list[str]:
        """Return the suffixes of the files that data is read from, such as ``.csv``, sorted."""
        return sorted({suffix for plugin in self.plugins for suffix in plugin.files})

    def reader_of(self, file: Path | str) -> str | None:
        """Return the name of the data that reads a file, by the suffix of its name; None if no plugin reads such files.

        Raises
        ------
        PluginError
            When plugins offer different data for the suffix: the message has them, and how to choose one.
        """
        name = Path(file).name.lower()
        suffixes = [suffix for suffix in self.file_suffixes() if name.endswith(suffix)]
        if not suffixes:
            return None
        suffix = max(suffixes, key=len)  # .csv.gz before .gz
        data_of = {plugin.files[suffix]: plugin for plugin in self.plugins if suffix in plugin.files}
        if len(data_of) > 1:
            raise PluginError(
                f"{file}: files that end in {suffix} are read by "
                f"{' and by '.join(f'data {data!r} of {plugin}' for data, plugin in data_of.items())}; choose one, for "
                f"instance with --data {next(iter(data_of))} --set data.{next(iter(data_of))}.path=FILE."
            )
        return next(iter(data_of))

    def clashes(self) -> list[Clash]:
        """Return the names that more than one plugin offers."""
        owners: dict[tuple[str, str], list[Plugin]] = {}
        for kind in KINDS:
            for offer in self.offers(kind):
                owners.setdefault((kind, offer.name), []).append(offer.plugin)
        return [Clash(kind, name, who) for (kind, name), who in owners.items() if len(who) > 1]

    def check_offers(self) -> None:
        """Import what each plugin offers as ``"package.module:Name"``; one that can't be is a fault of its plugin."""
        for kind in KINDS:
            for offer in self.offers(kind):
                try:
                    load_factory(offer)
                except PluginError as error:
                    offer.plugin.fault(str(error).removesuffix("."))

    def _not_offered(self, kind: str, name: str) -> str:
        near = did_you_mean(name, {offer.name for offer in self.offers(kind)})
        return f"no plugin offers the {kind} {name!r}: {near}.{self._origin(kind, name)}"

    def check_command(self, name: str) -> None:
        """Raise `PluginError` if a command of this name, which isn't there, is that of a plugin of this repository."""
        if package_of("command", name) is not None:
            raise PluginError(f"there is no command {name!r}.{self._origin('command', name)}")

    def _origin(self, kind: str, name: str) -> str:
        """Return sentences that say where a name that is not offered comes from, or may come from."""
        message, package = "", package_of(kind, name)
        if package is not None and package not in {plugin.distribution for plugin in self.plugins}:
            message += (
                f" It comes with {package}: pip install {package}, or in a checkout of alcore "
                f"pip install -e plugins/{package}."
            )
        missing = [plugin for plugin in self.plugins if plugin.state in ("broken", "refused")]
        if missing:
            reasons = "; ".join(f"{plugin}: {plugin.error}" for plugin in missing)
            message += f" It may belong to a plugin that could not be loaded ({reasons})."
        blocked = [plugin.distribution for plugin in self.plugins if plugin.state == "blocked"]
        if blocked:
            message += f" Left out by ALCORE_BLOCK or --only: {', '.join(blocked)}."
        return message + " `alcore plugins` lists what is installed."


def load_factory(offer: Offer) -> Callable[..., Any]:
    """Return the factory of an offer; one that is given as ``"package.module:Name"`` is imported."""
    if not isinstance(offer.factory, str):
        return offer.factory  # type: ignore[no-any-return]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            return import_name(offer.factory)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(
            f"{offer.kind} {offer.name!r} of {offer.plugin} can't be loaded from {offer.factory!r}: {reason_of(error)}."
        ) from error


def import_name(text: str) -> Callable[..., Any]:
    """Import the class or function that ``"package.module:Name"`` names.

    Raises
    ------
    UsageError
        When the text has another form, such as the path of a file: the message has the name of the module.
    TypeError
        When what it names can't be called.
    """
    module_name, _, name = text.partition(":")
    _check_form(module_name, name)
    value: Any = importlib.import_module(module_name)
    for part in name.split("."):
        value = getattr(value, part)
    if not callable(value):
        raise TypeError(f"{text} is a {type(value).__name__}, not a class or a function")
    return value  # type: ignore[no-any-return]


def _check_form(module: str, name: str) -> None:
    is_path = os.sep in module or (module.endswith(".py") and Path(module).is_file())
    if not is_path and all([*module.split("."), *name.split(".")]):
        return
    advice = ""
    if is_path:
        path, here = Path(module).expanduser().resolve(), Path.cwd().resolve()
        path = path.with_suffix("") if path.suffix == ".py" else path
        there = path.is_relative_to(here)
        words = ".".join(path.relative_to(here).parts) if there else path.name
        where = "" if there else f"in its folder, {path.parent}, "
        advice = f"; for the file {module} {where}write {words}:{name or 'NAME'}"
    raise UsageError(f"it is not of the form package.module:name{advice}")


def import_code(text: str) -> Callable[..., Any]:
    """Import what a user named as ``"package.module:name"``: from the current folder, or of what is installed."""
    here = str(Path.cwd())
    # As with python -m; only now, or a file of a run directory might be imported instead.
    if here not in sys.path:  # noqa: TID251 - the folder in which the user named or allowed the code
        sys.path.insert(0, here)  # noqa: TID251
    return import_name(text)


def _load(entry_point: Found, core: str) -> Plugin:
    plugin = Plugin(entry_point.distribution, entry_point.version, entry_point.name, entry_point.value)
    reason = _left_out_by(plugin)
    if reason == "block" or (reason == "only" and not has_standard_commands(plugin.distribution)):
        plugin.state = "blocked"
        return plugin
    if entry_point.fault:
        plugin.state, plugin.error = "broken", entry_point.fault
        return plugin
    printed = io.StringIO()
    try:
        with plugin.timed(), contextlib.redirect_stdout(printed):
            if core != _UNKNOWN and (misfits := misfit(entry_point, core)):
                plugin.state, plugin.error = "refused", misfits
                return plugin
            _collect(plugin, entry_point.load())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything at import
        plugin.state, plugin.error = "broken", one_line(error)
        plugin.offers, plugin.commands, plugin.files = {}, [], {}
        return plugin
    if text := printed.getvalue():
        plugin.fault(f"it printed {one_line(text)[:80]!r} when it was imported, which was kept from stdout")
    if reason == "only":  # its commands stay
        plugin.state, plugin.error, plugin.offers, plugin.files = "blocked", None, {}, {}
    return plugin


def _check_hooks(plugin: Plugin, module: Any) -> None:
    """Raise `TypeError` for a hook that does not exist, and note one that is not marked, so that nothing calls it."""
    members = {name: inspect.getattr_static(module, name) for name in dir(module) if name.startswith("alcore_")}
    marked = {name: getattr(member, "alcore_impl", None) for name, member in members.items()}
    for name, options in marked.items():
        hook = name if options is None else options["specname"] or name
        if options is not None and hook not in HOOKS and not options["optionalhook"]:
            raise TypeError(f"there is no hook {hook!r}: {did_you_mean(hook, HOOKS)}")
        if options is None and hook in HOOKS and inspect.isroutine(members[name]):
            plugin.fault(f"its function {name} is not marked with @alcore.hookimpl, so that it is not called")


def _collect(plugin: Plugin, module: Any) -> None:
    """Add what the registration hooks of a module return; raise `TypeError` when that is not valid."""
    _check_hooks(plugin, module)
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
                if not isinstance(name, str) or not re.fullmatch(r"[^\W_][\w-]{0,63}", name, re.ASCII):
                    raise TypeError(
                        f"{hook} offers a name that can't be used, {name!r}; a name has ASCII letters, digits, - and "
                        "_, and begins with a letter or a digit"
                    )
                if not (callable(factory) or (isinstance(factory, str) and ":" in factory)):
                    raise TypeError(f"{hook} offers {name!r} as {factory!r}; give a class, a function or 'module:Name'")
            plugin.offers.setdefault(kind, {}).update(offered)
    for implementation in manager.hook.alcore_data_files.get_hookimpls():
        plugin.files.update(_checked_files(implementation.function(), plugin.offers.get("data", {})))
    plugin.commands += [implementation.function for implementation in manager.hook.alcore_commands.get_hookimpls()]
    if not plugin.offers and not plugin.commands:
        raise TypeError(f"{plugin.module} implements no registration hook; mark its functions with @alcore.hookimpl")


def _checked_files(given: Any, data: Mapping[str, Any]) -> Mapping[str, str]:
    """Return what `alcore_data_files` gave; raise `TypeError` when that is not valid."""
    if not isinstance(given, Mapping):
        raise TypeError(f"alcore_data_files returned a {type(given).__name__}; it must map suffixes to names of data")
    for suffix, name in given.items():
        if not isinstance(suffix, str) or not _SUFFIX.fullmatch(suffix):
            raise TypeError(f"alcore_data_files names the suffix {suffix!r}; write it in lower case, such as '.csv'")
        if name not in data:
            raise TypeError(
                f"alcore_data_files gives {suffix} files to data {name!r}, which alcore_data does not offer"
            )
    return given


def _names(plugin: Plugin) -> set[str]:
    """Return the names by which a plugin is left out or chosen: of its package, and of its entry point."""
    return {str(canonicalize_name(plugin.distribution)), str(canonicalize_name(plugin.entry_point))}


def _unknown_names(plugins: Sequence[Plugin]) -> list[str]:
    """Return a sentence for each name in ``ALCORE_BLOCK`` and ``ALCORE_ONLY`` that no plugin has."""
    core, *others = plugins
    names_of_others = set().union(*map(_names, others))
    packages, entries = (
        {plugin.distribution for plugin in others},
        {plugin.entry_point for plugin in others if plugin.entry_point},
    )
    given = {
        "ALCORE_BLOCK": ("", names_of_others),
        "ALCORE_ONLY": ("--only or ", names_of_others | _names(core)),
    }  # core is always there
    return [
        f"{flag}{variable} names {name!r}, which is no package and no entry point of a plugin: "
        f"{did_you_mean(name, packages if '-' in name else entries)}"
        for variable, (flag, names) in given.items()
        for name in sorted(_listed(os.environ.get(variable, "")) - names)
    ]


def _left_out_by(plugin: Plugin) -> Literal["block", "only"] | None:
    """Return which of ``ALCORE_BLOCK`` and ``ALCORE_ONLY`` leaves out a plugin."""
    names, only = _names(plugin), os.environ.get("ALCORE_ONLY")
    if names & _listed(os.environ.get("ALCORE_BLOCK", "")):
        return "block"
    return "only" if only is not None and not names & _listed(only) else None


def _listed(text: str) -> set[str]:
    return {canonicalize_name(word.strip()) for word in text.split(",") if word.strip()}
