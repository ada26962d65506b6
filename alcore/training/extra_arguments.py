"""The arguments of `Driver.run` beyond the step functions: each function is given those that it takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from alcore.errors import UsageError, did_you_mean

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Taken(NamedTuple):
    """What a function takes beyond its own arguments.

    Parameters
    ----------
    names
        The parameters that can be given by name.
    any_name
        Whether it has ``**kwargs``.
    most
        How many positional arguments it takes; None with ``*args``.
    """

    names: tuple[str, ...]
    any_name: bool
    most: int | None

    def takes_all(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether it takes these positional arguments, none of them in the place of one that is given by name."""
        return (self.most is None or len(args) <= self.most) and not kwargs.keys() & {*self.names[: len(args)]}


class Taker(NamedTuple):
    """A function that is offered the arguments.

    Parameters
    ----------
    what
        The function in the words of a message.
    function
        The function.
    own
        How many positional arguments it is given in any case.
    by_name
        Whether it is offered keyword arguments alone.
    reserved
        Its parameters that it is given otherwise.
    """

    what: str
    function: Any
    own: int
    by_name: bool = False
    reserved: frozenset[str] = frozenset()


def taken_by(function: Any, own: int) -> Taken:
    """Return what a function takes beyond its first `own` positional arguments; anything if that can't be found out."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a signature that can't be read
        return Taken((), True, None)
    positional = [one for one in parameters if one.kind in _BY_POSITION]
    rest = [*positional[own:], *(one for one in parameters if one.kind is one.KEYWORD_ONLY)]
    names = tuple(one.name for one in rest if one.kind in _BY_NAME)
    kinds = {one.kind for one in parameters}
    most = None if inspect.Parameter.VAR_POSITIONAL in kinds else max(0, len(positional) - own)
    return Taken(names, inspect.Parameter.VAR_KEYWORD in kinds, most)


def accepted(
    function: Any, own: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return those of some arguments that a function takes: positional ones all or none, and keywords one by one.

    Parameters
    ----------
    function
        The function.
    own
        How many positional arguments it is given in any case.
    args, kwargs
        The arguments.
    """
    if not args and not kwargs:
        return args, kwargs
    taken = taken_by(function, own)
    keywords = {name: value for name, value in kwargs.items() if taken.any_name or name in taken.names}
    return (args if taken.takes_all(args, kwargs) else ()), keywords


def with_keywords(function: Callable[..., Any], own: int, kwargs: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function that is given those of some keyword arguments that it takes, also where its caller gives none.

    A training loop may pass on the arguments that it was given itself, or others; what it gives comes first.
    """
    if not kwargs:
        return function
    bound = accepted(function, own, (), kwargs)[1]
    refused = kwargs.keys() - bound.keys()

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        return function(*args, **{**bound, **{name: one for name, one in given.items() if name not in refused}})

    return call


def check_arguments(
    takers: Sequence[Taker], args: Sequence[Any], kwargs: Mapping[str, Any], warn: Callable[[str], None]
) -> None:
    """Refuse an argument that nothing takes, and warn of one that no function has a parameter for.

    Parameters
    ----------
    takers
        The functions that are offered the arguments.
    args, kwargs
        The arguments.
    warn
        Called with the warning.

    Raises
    ------
    UsageError
        If nothing takes an argument.
    """
    found = [(one, taken_by(one.function, one.own)) for one in takers]
    by_position = [one.what for one, _ in found if not one.by_name]
    if args and not any(one.takes_all(args, kwargs) for taker, one in found if not taker.by_name):
        shown = ", ".join(f"{value!r:.40}" for value in args)
        raise UsageError(
            f"nothing takes the positional arguments {shown} of the run: they are passed to strategies, and "
            f"{_listed(by_position)} can't be called with {len(args)} more. Give what is for a training step by name."
        )
    known = sorted({name for taker, one in found for name in one.names if name not in taker.reserved})
    for name, value in kwargs.items():
        if name in known:
            continue
        shown, near = f"{name}={value!r:.40}", did_you_mean(name, known)
        open_to = [taker.what for taker, one in found if one.any_name and name not in taker.reserved]
        if not open_to:
            raise UsageError(
                f"nothing takes the argument {shown} of the run: {_listed([one.what for one in takers])} have no such "
                f"parameter; {near}."
            )
        warn(
            f"no function has a parameter for the argument {shown} of the run, which has an effect only if one of "
            f"these reads it from its **kwargs: {', '.join(open_to)}; of parameters, {near}"
        )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) if words else "no function"
