"""Exceptions, each with the exit code of the command.

A message says what, where, the nearest valid thing and the remedy, in one paragraph.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import FrameType

__all__ = [
    "AlcoreError",
    "DivergedError",
    "EncodingError",
    "Interrupted",
    "PluginError",
    "QueryError",
    "RunExistsError",
    "RunLockedError",
    "StaleWriterError",
    "UsageError",
    "Waiting",
    "check_choice",
    "did_you_mean",
    "is_importing",
    "message_of",
    "reason_of",
]


class AlcoreError(Exception):
    """Something went wrong while a run was under way; the command exits with 1."""

    exit_code = 1


class UsageError(AlcoreError, ValueError):
    """What the user asked for can't be done as asked; the command exits with 2."""

    exit_code = 2


class PluginError(UsageError):
    """A plugin is missing, broken, blocked, or clashes with another one."""


class RunExistsError(UsageError):
    """A run of this id exists already; a run is never written over."""


class RunLockedError(UsageError):
    """Another process is writing to this run."""


class StaleWriterError(AlcoreError):
    """Another writer took this run over; nothing more is written by this one."""


class EncodingError(UsageError):
    """A value can't be stored, since it would not come back as it was."""


class DivergedError(AlcoreError):
    """The training loss became NaN or infinite."""


class QueryError(AlcoreError):
    """A query strategy gave something that can't be asked for."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to end, and has come to a safe point."""


def is_importing(frame: FrameType | None) -> bool:
    """Return whether a module is being imported where a frame is; a signal handler must not raise there.

    What it raises could be swallowed or turned into another error by the module, and would leave it half imported.

    Parameters
    ----------
    frame
        The frame that a signal handler is given.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


class Waiting(Exception):  # noqa: N818
    """A label strategy raises this where the run can't go on before answers arrive from elsewhere.

    The run ends with the status ``waiting``, inside its step; ``alcore resume`` takes the answers in and calls the
    label strategy again.

    Parameters
    ----------
    reason
        What it waits for.
    max_wait
        Seconds after which the run goes on nevertheless, from when the step waited first; None for no limit.
    """

    def __init__(self, reason: str, max_wait: float | None = None) -> None:
        super().__init__(reason)
        self.max_wait = max_wait


class raised_by:  # noqa: N801
    """Note in any exception who raised it, for the message of the command and the traceback.

    Parameters
    ----------
    what
        For instance ``"sample() of the query strategy uq"``.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            error.add_note(f"raised by {self._what}")


def message_of(error: BaseException) -> str:
    """Return the text of an exception with its notes, as one sentence without its full stop."""
    text = str(error)
    notes = getattr(error, "__notes__", ())
    return ", ".join([text.rstrip(".") if notes else text, *notes]) if text else ", ".join(notes)


def reason_of(error: BaseException) -> str:
    """Return type and text of an exception, or the text alone, without its full stop, of one that alcore raises."""
    return str(error).removesuffix(".") if isinstance(error, AlcoreError) else f"{type(error).__name__}: {error}"


def check_choice(owner: str, name: str, value: object, known: Iterable[str]) -> None:
    """Raise `UsageError` unless a parameter has one of the known values.

    Parameters
    ----------
    owner, name
        Whose parameter, and which.
    value
        What was given.
    known
        The valid values, in the order in which they are listed.
    """
    words = list(known)
    if value not in words:
        raise UsageError(f"{owner}: {name} is {value!r}; it must be one of {', '.join(words)}.")


def check_no_class(part: object, what: str) -> None:
    """Raise `UsageError` if a class was given in place of an object of it; `what` names the part in the message."""
    if isinstance(part, type):
        raise UsageError(f"{what} is the class {part.__name__}; give an object of it: {part.__name__}(...).")


def check_methods(part: object, what: str, methods: Iterable[str], *, see: str = "alcore.protocols") -> None:
    """Raise `UsageError` if a part lacks one of these methods.

    Parameters
    ----------
    part
        What was given.
    what
        Names the part in the message, before its type.
    methods
        The names of the methods.
    see
        Where the methods are documented.
    """
    missing = [method for method in methods if not callable(getattr(part, method, None))]
    if missing:
        raise UsageError(f"{what} {type(part).__name__} has no {' and no '.join(missing)}; see {see}.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Say what is nearest to a mistyped word, and what there is.

    Parameters
    ----------
    word
        What was asked for.
    known
        The valid words.

    Returns
    -------
    str
        For instance ``"did you mean 'uq'? There are: random, uq"``, or what to say when nothing is near.
    """
    words = sorted(known)
    if not words:
        return "there are none"
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    listing = "here are: " + ", ".join(words[:40]) + (f" and {len(words) - 40} more" if len(words) > 40 else "")
    return f"did you mean {near[0]!r}? T{listing}" if near else f"t{listing}"
