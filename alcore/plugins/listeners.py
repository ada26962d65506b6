"""Call the run hooks of the observers and stop criteria of one run."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from alcore.errors import AlcoreError, UsageError, did_you_mean
from alcore.hookspecs import Lifecycle, runhook
from alcore.names import unique_names

if TYPE_CHECKING:
    from alcore.protocols import RunContext

RUN_HOOKS = tuple(name for name in vars(Lifecycle) if name.startswith("alcore_"))
"""The names of the run hooks, in the order in which a run calls each for the first time."""


class Listeners:
    """The observers and stop criteria of one run.

    Parameters
    ----------
    plugins
        Objects with methods marked ``@alcore.runhook``.
    logger
        Where the exception of an observer is logged.
    criteria_only
        Call stop criteria only, as on ranks other than 0.
    around
        Returns a context manager that is entered around each call of an observer.

    Attributes
    ----------
    parts : dict of str to object
        The plugins, each under a name of its own.

    Raises
    ------
    UsageError
        When an object implements no run hook, a hook that does not exist, a hook with a wrong argument, or a wrapper.
    """

    def __init__(
        self,
        plugins: Sequence[Any],
        logger: logging.Logger,
        *,
        criteria_only: bool = False,
        around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._logger, self._around = logger, around
        self._context: RunContext | None = None
        manager = pluggy.PluginManager("alcore_run")
        manager.add_hookspecs(Lifecycle)
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
        names = dict(zip(owners, unique_names(owners.values()), strict=True))
        self.parts: dict[str, Any] = dict(zip(names.values(), plugins, strict=True))
        places = {wrapper: place for place, wrapper in enumerate(owners)}
        criteria = {id(impl.plugin) for impl in manager.hook.alcore_should_stop.get_hookimpls()}
        self._listeners = {
            name: [
                _Listener(names[id(impl.plugin)], owners[id(impl.plugin)], impl.function, impl.argnames)
                for impl in sorted(
                    getattr(manager.hook, name).get_hookimpls(),
                    key=lambda impl: (impl.trylast - impl.tryfirst, places[id(impl.plugin)]),
                )
                if not criteria_only or id(impl.plugin) in criteria
            ]
            for name in RUN_HOOKS
        }

    def attach(self, context: RunContext) -> None:
        """Receive the run, which each hook is called with."""
        self._context = context

    def call(self, hook: str, *, only: Collection[str] | None = None, **arguments: Any) -> None:
        """Call a hook of every listener that has it; an exception is logged with the listener's name.

        Parameters
        ----------
        hook
            One of `RUN_HOOKS`.
        only
            The names, among `parts`, of those to call; all where it is None.
        **arguments
            The other arguments of the hook; each listener gets those that it names.
        """
        given = {"driver": self._context, **arguments}
        for listener in self._listeners[hook]:
            if only is not None and listener.name not in only:
                continue
            try:
                with self._around():
                    listener.call(given)
            except Exception as error:  # noqa: BLE001 - an observer's fault must not end the run
                self._logger.warning(
                    "observer %s raised in %s, and the run goes on: %s: %s",
                    listener.owner, hook, type(error).__name__, error,
                )  # fmt: skip

    @property
    def has_stop_criteria(self) -> bool:
        """Whether any of them may end the run."""
        return bool(self._listeners["alcore_should_stop"])

    def reason_to_stop(self) -> str | None:
        """Return the first reason that a stop criterion gives, or None; exceptions of criteria are not caught."""
        for listener in self._listeners["alcore_should_stop"]:
            reason = listener.call({"driver": self._context})
            if reason is not None and not isinstance(reason, str):
                raise AlcoreError(
                    f"stop criterion {listener.owner} returned {reason!r}; it must return the reason or None."
                )
            if reason:
                return reason
        return None


class _Listener(NamedTuple):
    """One hook of one plugin."""

    name: str
    owner: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]

    def call(self, arguments: dict[str, Any]) -> Any:
        return self.function(*(arguments[name] for name in self.argnames))


class _Wrapper:
    """The run hooks of one plugin, for pluggy, which refuses equal objects and one object twice."""

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
