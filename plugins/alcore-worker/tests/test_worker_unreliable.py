"""A disk or a server that fails now and then: each label is bought once, none is lost, and nothing is left behind."""

import collections
import contextlib
import errno
import os
import random
import threading
import time

import pytest
import redis
import torch
from alcore_labelers import FunctionLabelStrategy
from alcore_testing import build_driver
from alcore_worker import Worker, WorkerLabelStrategy, open_exchange, retry

from alcore import BaseQuery, DataInfo, TensorPool

N = 60
EACH = 0.05  # of the calls fail before they have their effect, and as many after it


class AskForAll(BaseQuery):
    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(range(N))


class Fate:
    """Says which calls fail, as long as it is told to."""

    def __init__(self, seed):
        self.random, self.lock, self.is_on, self.failed = random.Random(seed), threading.Lock(), True, 0

    def draw(self):
        with self.lock:
            drawn = self.random.random() if self.is_on else 0.5
            self.failed += abs(drawn - 0.5) > 0.5 - EACH
            return drawn

    def around(self, call, error):
        """Return a function that fails now and then, before or after it has had its effect."""

        def perhaps(*args, **kwargs):
            drawn = self.draw()
            if drawn < EACH:
                raise error()
            result = call(*args, **kwargs)
            if drawn > 1 - EACH:
                if call is os.open:
                    os.close(result)
                raise error()
            return result

        return perhaps


def break_disk(monkeypatch, fate, place):
    """Have what is done to files in a folder fail."""
    for name in ("rename", "link", "unlink", "listdir", "open", "lstat"):
        plain = getattr(os, name)
        failing = fate.around(plain, lambda: OSError(errno.EIO, "the disk fails"))

        def perhaps(path, *args, plain=plain, failing=failing, **kwargs):
            return (failing if str(path).startswith(place) else plain)(path, *args, **kwargs)

        monkeypatch.setattr(os, name, perhaps)


def break_connections(monkeypatch, fate):
    """Have connections break before a command is sent, and before its reply has come."""

    def breaking(name):
        plain = getattr(redis.connection.AbstractConnection, name)

        def perhaps(self, *args, **kwargs):
            drawn = fate.draw() if self.is_connected else 0.5
            result = None if drawn < EACH and name == "send_packed_command" else plain(self, *args, **kwargs)
            if drawn < EACH:
                self.disconnect()
                raise redis.ConnectionError("the connection broke")
            return result

        monkeypatch.setattr(redis.connection.AbstractConnection, name, perhaps)

    breaking("send_packed_command")
    breaking("read_response")


@pytest.mark.parametrize("seed", range(3))
def test_each_label_is_bought_once_where_calls_fail(place, seed, tmp_path, monkeypatch):
    fate, calls = Fate(seed), collections.Counter()

    def solve(point):
        number = int(point[0])
        calls[number] += 1
        fate.is_on = len(calls) < N / 2  # what was missed by then would be missed for ever
        time.sleep(0.12 if number % 20 == 7 else 0.002)
        return number / 2

    made = build_driver(
        tmp_path / "runs",
        AskForAll(),
        pool=TensorPool(torch.arange(float(N)).reshape(N, 1), info=DataInfo("regression", features=1)),
        learner=torch.nn.Linear(1, 1),
        label=WorkerLabelStrategy(place, silent_after=600.0, longest_wait=0.05, max_in_flight=25),
        run_id="run",
        max_active_learning_steps=1,
        skip_training=True,
    )
    crew = [Worker(open_exchange(place), FunctionLabelStrategy(solve), "function", beat=60.0) for _ in range(2)]
    monkeypatch.setattr(retry, "sleep", lambda seconds, safe_point: (safe_point(), time.sleep(0.002)))
    if place.startswith("unix:"):
        break_connections(monkeypatch, fate)
    else:
        break_disk(monkeypatch, fate, place)

    def work(worker):
        with contextlib.suppress(KeyboardInterrupt):
            worker.run()

    threads = [threading.Thread(target=work, args=(member,), daemon=True) for member in crew]
    for thread in threads:
        thread.start()
    try:
        driving = threading.Thread(target=made.run, daemon=True)
        driving.start()
        driving.join(60)
        assert not driving.is_alive(), f"it waits for {sorted(set(range(N)) - set(calls))}, or for what was not sent"
    finally:
        for member in crew:
            member.stop()
        fate.is_on = False
        for thread in threads:
            thread.join(30)
    assert fate.failed > 10
    assert [float(made.train_datapool[place][1]) for place in range(N)] == [place / 2 for place in range(N)]
    assert calls == dict.fromkeys(range(N), 1)
    exchange = open_exchange(place)
    (run,) = exchange.runs()
    assert exchange.known(run) == set()
