"""Tell the observers and stop criteria of one run what happens."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pluggy

from alcore.errors import AlcoreError, UsageError, did_you_mean
from alcore.hookspecs import Lifecycle as Specification
from alcore.hookspecs import runhook
from alcore.names import unique_names

RUN_HOOKS = tuple(name for name in vars(Specification) if name.startswith("alcore_"))


Around = Callable[[], contextlib.AbstractContextManager[None]]


class _Listener(NamedTuple):
    owner: str
    function: Any
    wants: tuple[str, ...]


class _Wrapper:
    """Stands for a plugin object: pluggy refuses equal objects, and one object twice."""

    def __init__(self, plugin: Any, owner: str) -> None:
        for name in dir(plugin):
            member = inspect.getattr_static(plugin, name)
            options = getattr(getattr(member, "__func__", member), runhook.project_name + "_impl", None)
            if options is None:
                continue
            if inspect.isclass(plugin) and inspect.isfunction(member):
                raise UsageError(f"plugin {plugin.__name__} is a class; give an object of it: {plugin.__name__}().")
            hook = options["specname"] or name
            if hook not in RUN_HOOKS and not options["optionalhook"]:
                raise UsageError(f"plugin {owner}: there is no run hook {hook!r}: {did_you_mean(hook, RUN_HOOKS)}.")
            if options["wrapper"] or options["hookwrapper"]:
                raise UsageError(
                    f"plugin {owner}: {name} is a hook wrapper, and a run calls its listeners one by one; "
                    "use alcore_phase_start and alcore_phase_end instead."
                )
            setattr(self, name, getattr(plugin, name))


class Lifecycle:
    """The observers and stop criteria of one run.

    Parameters
    ----------
    plugins
        Objects with methods marked ``@alcore.runhook``.
    logger
        Where an observer's exception is logged.
    criteria_only
        Tell nothing to those that are no stop criterion: on ranks other than 0.
    around
        Gives what is entered around each call: what a listener computes, it computes on its rank alone.

    Raises
    ------
    UsageError
        When an object implements no run hook, one that doesn't exist, one with a wrong argument, or a wrapper.
    """

    def __init__(
        self,
        plugins: Sequence[Any],
        logger: logging.Logger,
        *,
        criteria_only: bool = False,
        around: Around = contextlib.nullcontext,
    ) -> None:
        self._logger, self._around = logger, around
        manager = pluggy.PluginManager("alcore_run")
        manager.add_hookspecs(Specification)
        owners: dict[int, str] = {}
        for plugin in plugins:
            owner = plugin.__name__ if inspect.ismodule(plugin) else type(plugin).__name__
            wrapper = _Wrapper(plugin, owner)
            if not vars(wrapper):
                raise UsageError(
                    f"plugin {owner} implements no run hook: mark its methods with @alcore.runhook; the hooks are "
                    + ", ".join(RUN_HOOKS)
                )
            try:
                manager.register(wrapper)
            except pluggy.PluginValidationError as error:
                raise UsageError(f"plugin {owner}: {str(error).splitlines()[-1]}") from error
            owners[id(wrapper)] = owner
        names = unique_names(owners.values())
        self.parts: dict[str, Any] = dict(zip(names, plugins, strict=True))
        """The objects by a name of their own each."""
        places = {wrapper: place for place, wrapper in enumerate(owners)}
        self._listeners = {
            name: [
                _Listener(owners[id(impl.plugin)], impl.function, impl.argnames)
                for impl in sorted(
                    getattr(manager.hook, name).get_hookimpls(),
                    key=lambda impl: (impl.trylast - impl.tryfirst, places[id(impl.plugin)]),
                )
            ]
            for name in RUN_HOOKS
        }
        if criteria_only:
            owning = {listener.owner for listener in self._listeners["alcore_should_stop"]}
            for name, listeners in self._listeners.items():
                self._listeners[name] = [listener for listener in listeners if listener.owner in owning]

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call every listener of a hook; one that raises is logged with its owner."""
        for listener in self._listeners[hook]:
            try:
                with self._around():
                    listener.function(*(arguments[name] for name in listener.wants))
            except Exception as error:  # noqa: BLE001 - a faulty observer must not cost the run
                self._logger.warning(
                    "observer %s raised in %s and is passed over: %s: %s",
                    listener.owner, hook, type(error).__name__, error,
                )  # fmt: skip

    def reason_to_stop(self, **arguments: Any) -> str | None:
        """Return the first reason that a stop criterion gives; its exceptions are not caught."""
        for listener in self._listeners["alcore_should_stop"]:
            reason = listener.function(*(arguments[name] for name in listener.wants))
            if reason is not None and not isinstance(reason, str):
                raise AlcoreError(
                    f"stop criterion {listener.owner} returned {reason!r}; it must return the reason or None."
                )
            if reason:
                return reason
        return None
