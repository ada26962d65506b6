"""The queues of core keep the contract, and queues with one fault each don't."""

from __future__ import annotations

import collections
import multiprocessing
import queue
import threading
from typing import Any, ClassVar

import pytest
from alcore_testing import QueueContract, queues


class TestFifo(QueueContract):
    def make(self, **parameters: Any) -> Any:
        return queue.Queue()


class TestLifo(QueueContract):
    order = "lifo"

    def make(self, **parameters: Any) -> Any:
        return queue.LifoQueue()


class TestPriority(QueueContract):
    order = "lowest"

    def make(self, **parameters: Any) -> Any:
        return queue.PriorityQueue()


class TestSimple(QueueContract):
    def make(self, **parameters: Any) -> Any:
        return queue.SimpleQueue()


class Deque:
    """It raises where nothing is left, and doesn't wait; core doesn't ask it then."""

    def __init__(self) -> None:
        self._items: collections.deque[Any] = collections.deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()


class TestOneThatDoesNotWait(QueueContract):
    def make(self, **parameters: Any) -> Any:
        return Deque()


class TestProcess(QueueContract):
    order = "any"  # items of several threads may overtake each other

    def make(self, **parameters: Any) -> Any:
        return multiprocessing.Queue()


class Mutant(queue.Queue):  # type: ignore[type-arg]
    test, words, waits = "", "", False


class ReturnsText(Mutant):
    """What was a number comes out as text."""

    test, words = "test_each_item_comes_out_once", "assert"

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return str(super().get(*args, **kwargs))


class ComesOutBackwards(Mutant):
    """It says that it is first in, first out."""

    test, words = "test_each_item_comes_out_once", "assert"

    def _get(self) -> Any:
        return self.queue.pop()


class IsFull(Mutant):
    """It holds ten items, and then waits for somebody to take one."""

    test, words = "test_each_item_comes_out_once", "nobody is there to wait for"
    waits = True

    def __init__(self) -> None:
        super().__init__(maxsize=10)


class TakesEachItemOnce(Mutant):
    """Emptied, it takes no more."""

    test, words = "test_emptied_queue_can_be_filled_again", "nobody is there to wait for"
    waits = True
    done = False

    def put(self, *args: Any, **kwargs: Any) -> None:
        if not self.done:
            super().put(*args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        item = super().get(*args, **kwargs)
        self.done = not self.qsize()
        return item


class IsOneForAll(Mutant):
    """All objects share their items."""

    test, words = "test_two_queues_are_independent", "assert"
    shared: ClassVar[collections.deque[Any]] = collections.deque()

    def _init(self, maxsize: int) -> None:
        self.queue = self.shared

    def _get(self) -> Any:
        return self.queue.pop()


class ComesTooLate(Mutant):
    """An item takes a moment to arrive, as between processes, and is not waited for."""

    test, words = "test_each_item_comes_out_once", "Empty"

    def put(self, *args: Any, **kwargs: Any) -> None:
        threading.Timer(0.05, super().put, args).start()

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return super().get(block=False)


class RaisesNowAndThen(Mutant):
    """An item was put, and every hundredth ``get`` raises all the same."""

    test, words = "test_threads_get_each_item_once", "an item was put, and get raised Empty"
    taken = 0

    def get(self, *args: Any, **kwargs: Any) -> Any:
        self.taken += 1
        if self.taken % 100 == 0:
            raise queue.Empty
        return super().get(*args, **kwargs)


class IsForOneThread(Mutant):
    """Only the thread that made it may put items in; those of others are lost."""

    test, words = "test_threads_get_each_item_once", "assert"
    waits = True

    def __init__(self) -> None:
        super().__init__()
        self._owner = threading.get_ident()

    def put(self, *args: Any, **kwargs: Any) -> None:
        if threading.get_ident() == self._owner:
            super().put(*args, **kwargs)


class RaisesWhenTaken(Mutant):
    """It breaks when a run takes out its third item."""

    test, words = "test_run_labels_every_request", "IndexError"
    taken = 0

    def get(self, *args: Any, **kwargs: Any) -> Any:
        self.taken += 1
        if self.taken == 3:
            raise IndexError
        return super().get(*args, **kwargs)


MUTANTS: list[Any] = Mutant.__subclasses__()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutant.waits:
        monkeypatch.setattr(queues, "PATIENCE", 0.3)
    check_mutant(QueueContract, mutant)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(QueueContract, MUTANTS)
