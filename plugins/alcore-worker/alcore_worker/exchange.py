"""What driver and workers have in common: the place where tasks, claims and answers are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol


class AwayError(Exception):
    """The exchange can't be reached for the moment; the call may be made again."""


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
    one answer: the first one.
    """

    where: str
    """The place, for messages."""

    # -- the driver's side -----------------------------------------------------------------------------

    def begin(self, run: str, note: bytes) -> None:
        """Make a run known."""

    def put(self, run: str, tasks: Mapping[str, bytes]) -> None:
        """Add tasks, by name; those that are known are left as they are."""

    def known(self, run: str) -> set[str]:
        """Return the names of the tasks that wait, are claimed, or are answered."""

    def answered(self, run: str) -> list[str]:
        """Return the names of the tasks that have an answer."""

    def read_answer(self, run: str, name: str) -> bytes:
        """Return an answer."""

    def remove(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks with their answers: the driver has committed these."""

    def take_back(self, run: str, silent_after: float, most_lost: int) -> list[str]:
        """Let tasks wait again whose workers have been silent for so many seconds; return those given up.

        These are the tasks that so many workers have fallen silent over; they are still known.
        """

    def workers(self, silent_after: float) -> int:
        """Return how many workers were heard of in so many seconds."""

    # -- the worker's side -----------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """Return the runs that are known."""

    def note(self, run: str) -> bytes:
        """Return what was noted about a run."""

    def waiting(self, run: str) -> int:
        """Return about how many tasks wait."""

    def claim(self, run: str, worker: str, most: int) -> list[Claim]:
        """Take up to so many tasks, the oldest first."""

    def beat(self, worker: str) -> None:
        """Say that a worker lives, and with it all of its claims."""

    def answer(self, run: str, claim: Claim, document: bytes) -> None:
        """Answer a task; an answer that is there already stays. It is durable when this returns."""

    def give_back(self, run: str, claim: Claim) -> None:
        """Let a claimed task wait again."""

    def leave(self, worker: str) -> None:
        """Say that a worker has ended."""

    # -- both ------------------------------------------------------------------------------------------

    def put_blob(self, run: str, content: bytes) -> str:
        """Store the arrays of a document; return their SHA-256."""

    def get_blob(self, run: str, digest: str) -> bytes:
        """Return the arrays of this SHA-256; `DocumentError` if they are not there."""


def open_exchange(where: str) -> Exchange:
    """Return the exchange at a place.

    Parameters
    ----------
    where
        A folder that exists, or the address of a Redis server: ``redis://HOST``, ``rediss://HOST``, ``unix:///PATH``.

    Raises
    ------
    UsageError
        If it is not there, or of another format.
    """
    if "://" in where:
        from alcore_worker.redis_streams import RedisExchange

        return RedisExchange(where)
    from alcore_worker.folder import FolderExchange

    return FolderExchange(where)
