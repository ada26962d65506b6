"""What driver and workers have in common: the place where tasks, claims and answers are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, cast


class AwayError(Exception):
    """The exchange can't be reached for the moment; the call may be made again."""


class FullError(AwayError):
    """The exchange has no room for more; what is in it can be read and removed."""


class Claim(NamedTuple):
    """A task that a worker has taken.

    Parameters
    ----------
    name
        Of the task.
    token
        What the exchange knows this claim by.
    document
        The task.
    fault
        Why it can't be read, where that is so.
    """

    name: str
    token: str
    document: bytes
    fault: str = ""


class Exchange(Protocol):
    """Where tasks wait, are claimed, and get answers. Each call may be made again if it raises `AwayError`.

    A task is waiting, claimed or answered, and unknown again once it is removed. It may come to be done twice, and has
    one answer: the first one. A task that was removed can still be answered, as long as its run is known: a worker that
    was thought dead has a label then that was paid for.
    """

    where: str
    """The place: what `open_exchange` takes."""

    # -- the driver's side -----------------------------------------------------------------------------

    def begin(self, run: str, note: bytes) -> None:
        """Make a run known, or change its note."""

    def attend(self, run: str) -> None:
        """Say that the run's driver lives."""

    def put(self, run: str, tasks: Mapping[str, bytes]) -> None:
        """Add tasks, by name; those that are known are left as they are. `FullError` where there is no room."""

    def known(self, run: str) -> set[str]:
        """Return the names of the tasks that wait, are claimed, or are answered."""

    def answered(self, run: str) -> list[str]:
        """Return the names of the tasks that have an answer."""

    def read_answer(self, run: str, name: str) -> bytes:
        """Return an answer; it is empty where it can't be read."""

    def remove(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks with their answers: the driver has committed these."""

    def give_up(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks that nobody is to work on any more; an answer that is there, or comes late, stays."""

    def withdraw(self, run: str, names: Iterable[str] | None = None) -> set[str]:
        """Remove tasks that wait, of these names or all: nobody is to begin them any more. Return which they were."""

    def take_back(self, run: str, silent_after: float, most_lost: int) -> list[str]:
        """Let tasks wait again whose workers have been silent for so many seconds; return those given up.

        These are the tasks that so many workers have fallen silent over; they are known until `give_up`.
        """

    def workers(self, silent_after: float) -> int:
        """Return how many workers were heard of in so many seconds."""

    # -- the worker's side -----------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """Return the runs that are known."""

    def fault_of(self, run: str) -> str | None:
        """Return why a run that is known can't be served, though the exchange can be reached; None where it can."""

    def is_attended(self, run: str, within: float) -> bool:
        """Return whether the run's driver was heard of in so many seconds."""

    def note(self, run: str) -> bytes:
        """Return what was noted about a run."""

    def waiting(self, run: str) -> int:
        """Return about how many tasks wait."""

    def claim(self, run: str, worker: str) -> Claim | None:
        """Take the oldest task that waits; None where none does.

        A claim that was made by an earlier call which raised `AwayError`, or that could not be given back, is taken
        first.
        """

    def beat(self, worker: str) -> None:
        """Say that a worker lives, and with it all of its claims; also where there is no room."""

    def answer(self, run: str, claim: Claim, document: bytes) -> None:
        """Answer a task; an answer that is there already stays. It is durable when this returns."""

    def give_back(self, run: str, claim: Claim) -> None:
        """Let a claimed task wait again."""

    def leave(self, worker: str) -> None:
        """Say that a worker has ended; what it has claimed waits again."""

    # -- both ------------------------------------------------------------------------------------------

    def put_blob(self, run: str, content: bytes) -> str:
        """Store the arrays of a document; return their SHA-256."""

    def get_blob(self, run: str, digest: str) -> bytes:
        """Return the arrays of this SHA-256; `DocumentError` if they are not there."""


class _CallingExchange:
    """An exchange each of whose methods is called by a function."""

    def __init__(self, exchange: Exchange, call: Callable[[Callable[[], Any]], Any]) -> None:
        self._exchange, self._call = exchange, call

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._exchange, name)
        if not callable(attribute):
            return attribute
        return lambda *args, **kwargs: self._call(lambda: attribute(*args, **kwargs))


def calling_by(call: Callable[[Callable[[], Any]], Any], exchange: Exchange) -> Exchange:
    """Return an exchange whose calls are made by a function, which is given each as a function without arguments."""
    return cast("Exchange", _CallingExchange(exchange, call))
