"""Add the sub-commands of plugins to the command, so that a faulty one takes none of the others away."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.main import get_command, get_command_name
from typer.models import TyperInfo

from alcore.cli.interruption import interruptible
from alcore.commands.messages import say
from alcore.plugins.discovery import one_line
from alcore.plugins.registry import Registry


def add_plugin_commands(app: typer.Typer, registry: Registry) -> None:
    """Let each plugin add its commands; what is wrong with them is noted in the plugin, and they are left out."""
    for plugin in registry.plugins:
        for hook in plugin.commands:
            with plugin.timed():
                fault = _add(app, hook)
            if fault:
                plugin.fault(fault)
                say(f"warning: plugin {plugin}: {fault}.")


def _add(app: typer.Typer, hook: Callable[..., object]) -> str | None:
    """Add the commands of one hook; return what is wrong with them, and leave the application as it was then."""
    own = typer.Typer()  # so that nothing that is there can be changed
    try:
        with contextlib.redirect_stdout(sys.stderr):
            hook(own)
            trial = typer.Typer()
            trial.registered_commands, trial.registered_groups = own.registered_commands, own.registered_groups
            if own.registered_commands or own.registered_groups:
                get_command(trial)  # typer looks at parameters only now, at those of all commands
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a faulty plugin must not take the other commands away
        return f"its commands are left out: {one_line(error)}"
    make_interruptible(own)
    hidden: list[Any] = []
    homes: list[tuple[list[Any], list[Any]]] = [
        (own.registered_commands, app.registered_commands),
        (own.registered_groups, app.registered_groups),
    ]
    for added, there in homes:
        for info in added:
            (hidden if _name(info) in _names(app) else there).append(info)
    faults = [f"its command {_name(command)!r} is left out, since there is one of that name" for command in hidden]
    if own.registered_callback is not None:
        faults.append("its callback of the whole command is left out; a plugin adds commands alone")
    return "; ".join(faults) or None


def make_interruptible(app: typer.Typer) -> None:
    """Let the commands of an application, and of its groups, report ctrl-C as those of core do."""
    for info in app.registered_commands:
        if info.callback is not None:
            info.callback = interruptible(info.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            make_interruptible(group.typer_instance)


def _names(app: typer.Typer) -> set[str]:
    return {_name(command) for command in (*app.registered_commands, *app.registered_groups)}


def _name(info: Any) -> str:
    """Return the name of a command or a group, as typer makes it."""
    if isinstance(info.name, str) and info.name:
        return info.name
    if isinstance(info, TyperInfo) and info.typer_instance is not None:
        return _name(info.typer_instance.info)
    return get_command_name(info.callback.__name__) if callable(info.callback) else ""
