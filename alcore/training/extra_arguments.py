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
    positional = [parameter for parameter in parameters if parameter.kind in _BY_POSITION]
    rest = [*positional[own:], *(parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)]
    names = tuple(parameter.name for parameter in rest if parameter.kind in _BY_NAME)
    kinds = {parameter.kind for parameter in parameters}
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
        return function(*args, **{**bound, **{name: value for name, value in given.items() if name not in refused}})

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
    pairs = [(taker, taken_by(taker.function, taker.own)) for taker in takers]
    by_position = [taker.what for taker, _ in pairs if not taker.by_name]
    if args and not any(taken.takes_all(args, kwargs) for taker, taken in pairs if not taker.by_name):
        shown = ", ".join(f"{value!r:.40}" for value in args)
        raise UsageError(
            f"nothing takes the positional arguments {shown} of the run: they are passed to strategies, and "
            f"{_listed(by_position)} can't be called with {len(args)} more. Give what is for a training step by name."
        )
    names = sorted({name for taker, taken in pairs for name in taken.names if name not in taker.reserved})
    for name, value in kwargs.items():
        if name in names:
            continue
        shown, near = f"{name}={value!r:.40}", did_you_mean(name, names)
        open_to = [taker.what for taker, taken in pairs if taken.any_name and name not in taker.reserved]
        if not open_to:
            raise UsageError(
                f"nothing takes the argument {shown} of the run: {_listed([taker.what for taker in takers])} have no "
                f"such parameter; {near}."
            )
        warn(
            f"no function has a parameter for the argument {shown} of the run, which has an effect only if one of "
            f"these reads it from its **kwargs: {', '.join(open_to)}; of parameters, {near}"
        )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) if words else "no function"
