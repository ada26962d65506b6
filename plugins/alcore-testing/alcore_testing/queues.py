"""The contract of queues."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from alcore.store import Run
from alcore_testing.contract import Contract
from alcore_testing.drivers import build_driver
from alcore_testing.toys import toy_loss

PATIENCE = 20.0


class QueueContract(Contract):
    """What every queue promises between query and label strategies: small integers go in and come out, each once.

    An item is taken out only where one was put that nobody takes out; where it is still on its way, as between
    processes, ``get`` waits for it. What ``get`` does where nothing is left is not asked.

    Override ``make()``: a fresh, empty queue. Say what is claimed: `name`, `order`.

    Examples
    --------
    >>> class TestMyQueue(QueueContract):
    ...     name = "mine"
    ...     def make(self):
    ...         return MyQueue()
    """

    kind = "queue"

    order: ClassVar[str] = "fifo"
    """``fifo``, ``lifo``, ``lowest`` (the smallest first), or ``any``."""

    def test_each_item_comes_out_once(self) -> None:
        """What was put comes out as the integer it was, in the order that is claimed; nothing waits for a taker."""
        queue, items = self.make(), [7, 3, 11, 0, *range(100, 600)]
        in_time(lambda: [queue.put(item) for item in items])
        taken = in_time(lambda: [queue.get() for _ in items])
        assert all(type(item) is int for item in taken)
        assert sorted(taken) == sorted(items)
        expected = {"fifo": items, "lifo": items[::-1], "lowest": sorted(items)}
        assert taken == expected.get(self.order, taken)

    def test_emptied_queue_can_be_filled_again(self) -> None:
        """It can be emptied and filled again."""
        queue = self.make()
        for item in range(50):
            queue.put(item)
            assert in_time(queue.get) == item

    def test_two_queues_are_independent(self) -> None:
        """Each object is a queue of its own, as each run needs one."""
        one, other = self.make(), self.make()
        one.put(1)
        other.put(2)
        assert (in_time(one.get), in_time(other.get)) == (1, 2)

    def test_threads_get_each_item_once(self) -> None:
        """Items that several threads put and take at once all arrive, each once."""
        queue, taken, there = self.make(), list[Any](), threading.Semaphore(0)

        def put(start: int) -> None:
            for item in range(start, start + 50):
                queue.put(item)
                there.release()

        def take() -> None:
            for _ in range(50):
                there.acquire()
                try:
                    taken.append(queue.get())
                except Exception as error:  # noqa: BLE001 - it is what is looked for
                    taken.append(error)

        threads = [threading.Thread(target=take, daemon=True) for _ in range(4)]
        threads += [threading.Thread(target=put, args=(start,), daemon=True) for start in range(0, 200, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        errors = [item for item in taken if not isinstance(item, int)]
        assert not errors, f"an item was put, and get raised {errors[0]!r}"
        assert sorted(taken) == list(range(200))

    def test_run_labels_every_request(self, tmp_path: Path) -> None:
        """Every request of a run reaches the label strategy."""
        driver = build_driver(tmp_path, queue_cls=self.make, max_active_learning_steps=2)
        in_time(lambda: driver.run(toy_loss))
        assert [request["state"] for request in Run(driver.log_dir).requests()] == ["labeled"] * 6


def in_time(work: Callable[[], Any]) -> Any:
    """Return what a call returns; one that waits forever is an AssertionError."""
    result: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it waits, and nobody is there to wait for"
    if errors:
        raise errors[0]
    return result[0]
