"""The requests of a labeling phase that are taken out and not answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from alcore.protocols import Failed, Label, LabelQueue, Request
from alcore_worker.names import request_of, task_name


class OpenRequests:
    """The requests that a labeling phase has taken out, and not answered yet; each has the name of its task.

    Parameters
    ----------
    answers
        The label queue.
    answered
        Ids of requests that have a label, or can't have one; it is added to.

    Attributes
    ----------
    by_name, unsent : dict of str to Request
        All of them, and those that are not in the exchange yet.
    """

    def __init__(self, answers: LabelQueue, answered: set[str]) -> None:
        self._answers, self._answered = answers, answered
        self.by_name: dict[str, Request] = {}
        self.unsent: dict[str, Request] = {}
        self._by_id: dict[str, Request] = {}  # the open ones, and those that have failed and have no label since

    def take(self, requests: Sequence[Request]) -> None:
        """Add requests that were taken out."""
        for request in requests:
            self.by_name[name_of(request)] = self.unsent[name_of(request)] = self._by_id[request.id] = request

    def drop(self, name: str) -> None:
        """Forget a request that was given back, or answered by somebody else."""
        del self._by_id[self.by_name.pop(name).id]
        self.unsent.pop(name, None)

    def are_sent(self, names: Iterable[str]) -> None:
        """Note that requests are in the exchange."""
        for name in list(names):
            self.unsent.pop(name, None)

    def has_retries(self) -> bool:
        """Return whether an earlier attempt may have been made of one that is not sent."""
        return any(request.attempt for request in self.unsent.values())

    def of_other_attempt(self, name: str) -> Request | None:
        """Return the request that an answer to another attempt is for, as long as that has no label."""
        return self._by_id.get(request_of(name)[2])

    def deliver(self, answers: Mapping[str, Label | Failed]) -> None:
        """Put answers to requests, by name, in one transaction."""
        if not answers:
            return
        self._answers.put_many(list(answers.values()))
        for name, answer in answers.items():
            self.by_name.pop(name, None)
            self.unsent.pop(name, None)
            if isinstance(answer, Label) or answer.kind == "infeasible":  # others are tried again, now or later
                key = request_of(name)[2]
                self._by_id.pop(key, None)
                self._answered.add(key)

    def fail(self, names: Iterable[str], reason: str, cost: float | None = None) -> None:
        """Report that requests have no label."""
        self.deliver({name: Failed(self.by_name[name], reason, "infrastructure", cost) for name in names})


def name_of(request: Request) -> str:
    """Return the name of the task of a request."""
    return task_name(request.step, request.ordinal, request.id, request.attempt)
