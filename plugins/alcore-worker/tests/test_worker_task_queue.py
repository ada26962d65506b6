"""The queues of a worker: what is claimed, when an answer is durable, what becomes of a claim that can't go back."""

import json
import logging
import queue

import pytest
from alcore_worker import open_exchange
from alcore_worker.exchange import AwayError
from alcore_worker.names import FORMAT, task_name
from alcore_worker.retry import ExchangeRetry
from alcore_worker.task_queue import TaskAnswerQueue, TaskQueue

from alcore import Label
from alcore.errors import UsageError

RUN, WORKER = "run-0123456789ab", "one-1-00000001"


class NoOtherRun:
    def is_over(self):
        return False


def task_queue(exchange):
    logger = logging.getLogger("alcore.worker")
    return TaskQueue(exchange, RUN, WORKER, ExchangeRetry(logger, lambda: None), logger, NoOtherRun())


@pytest.fixture
def exchange(place):
    """An exchange with three tasks, the first two of the same sample."""
    made = open_exchange(place)
    made.begin(RUN, b"{}")
    for number, sample in enumerate([7, 7, 8]):
        content = {"slot": 0, "sample": sample, "has_inputs": False, "values": {}, "input": None, "cost": None}
        document = json.dumps({"format": FORMAT, "content": content}).encode()
        made.put(RUN, {task_name(0, number, f"{number:032x}", 0): document})
    return made


def test_nothing_is_claimed_ahead(exchange):
    tasks = task_queue(exchange)
    tasks.get_many(1)
    assert exchange.waiting(RUN) == 2
    assert not tasks.empty()
    assert not tasks.empty()
    assert exchange.waiting(RUN) == 1, "what `empty` has claimed is taken out next"
    assert tasks.get_request().ordinal == 1
    assert exchange.waiting(RUN) == 1


def test_answer_is_durable_when_put_returns(exchange):
    tasks = task_queue(exchange)
    for number in range(3):
        TaskAnswerQueue(tasks).put(Label(tasks.get_request(), 1.0))
        assert len(exchange.answered(RUN)) == number + 1
    assert tasks.labeled == 3
    with pytest.raises(queue.Empty):
        tasks.get_request()


def test_values_of_a_sample_are_there_as_long_as_one_of_its_tasks_is(exchange):
    tasks = task_queue(exchange)
    first, second, _ = tasks.get_many(3)
    TaskAnswerQueue(tasks).put(Label(first, 1.0))
    assert set(tasks.sent) == {7, 8}
    tasks.give_back(second)
    assert set(tasks.sent) == {8}
    with pytest.raises(UsageError, match="didn't take, or has answered"):
        TaskAnswerQueue(tasks).put(Label(first, 1.0))


def test_claim_that_can_not_be_given_back_is_claimed_again(exchange, monkeypatch):
    tasks = task_queue(exchange)
    request = tasks.get_request()
    call = "_give_back" if hasattr(exchange, "_give_back") else "_call"

    def away(*args):
        raise AwayError("it is away")

    with monkeypatch.context() as failing:
        failing.setattr(exchange, call, away)
        tasks.give_back(request)
    assert exchange.waiting(RUN) == 2, "it is this worker's"
    assert tasks.get_request().id == request.id
