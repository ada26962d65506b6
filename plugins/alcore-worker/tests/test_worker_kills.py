"""SIGKILL of workers and of the driver: no label is lost, and the run is that of one without a break."""

import collections
import multiprocessing
import os
import signal
import sys
import time

import pytest
from alcore_testing import differences, essence_of

from alcore.store import Run

CREW = '''
import contextlib, os, time
from pathlib import Path

import torch
from alcore_labelers import FunctionLabelStrategy, Infeasible, Labeled
from alcore_testing import build_driver
from alcore_worker import Worker, WorkerLabelStrategy, open_exchange

from alcore import BaseQuery, DataInfo, TensorPool
from alcore.randomness import seed_everything

N = 24


class AskForAll(BaseQuery):
    """Asks for half of the samples in each of two steps."""

    def sample(self, query_queue, *args, **kwargs):
        step = self.driver.active_learning_step_idx
        query_queue.put_many(range(step * N // 2, (step + 1) * N // 2))


def solve(point):
    number = int(point[0])
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(f"{number} {os.getpid()}\\n")
    time.sleep(0.06)
    if number == 5:
        raise Infeasible("it diverges", cost=0.5)
    if number == 6:
        return Labeled(float(number), cost=2.5)
    return float(number) / 2


def drive(folder, where):
    seed_everything(0)
    pool = TensorPool(torch.arange(float(N)).reshape(N, 1), info=DataInfo("regression", features=1))
    strategy = WorkerLabelStrategy(where, silent_after=2.0, longest_wait=0.1)
    driver = build_driver(
        Path(folder), AskForAll(), pool=pool, learner=torch.nn.Linear(1, 1), label=strategy, run_id="run",
        max_active_learning_steps=2, skip_training=True,
    )
    if (Path(folder) / "run").exists():
        driver.restore()
    driver.run()


def work(where, ledger):
    os.environ["LEDGER"] = ledger  # a fork server has the environment of the first test
    worker = Worker(open_exchange(where), FunctionLabelStrategy(solve), "function", beat=0.1)
    with contextlib.suppress(KeyboardInterrupt):
        worker.run()
'''


class Crew:
    """Starts processes that import PyTorch once for all of them, and kills them."""

    def __init__(self, folder):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["alcore_worker.worker", "alcore_worker.strategy", "alcore_testing"])
        self.crew, self.folder, self.where, self.started = __import__("crew"), folder, "", []

    def start(self, target, *args):
        process = self.context.Process(target=target, args=args)
        process.start()
        self.started.append(process)
        return process

    def driver(self, folder="runs"):
        return self.start(self.crew.drive, str(self.folder / folder), self.where)

    def worker(self):
        return self.start(self.crew.work, self.where, str(self.folder / "ledger"))

    def called(self):
        ledger = self.folder / "ledger"
        return ledger.read_text().split("\n")[:-1] if ledger.exists() else []

    def until_called(self, times):
        end = time.monotonic() + 60
        while len(self.called()) < times:
            assert time.monotonic() < end, f"the solver was called {len(self.called())} times"
            time.sleep(0.02)


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def finish(driver):
    driver.join(100)
    assert driver.exitcode == 0


@pytest.fixture
def crew(tmp_path, monkeypatch):
    (tmp_path / "crew.py").write_text(CREW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("crew", None)
    made = Crew(tmp_path)
    yield made
    for process in made.started:
        if process.is_alive():
            kill(process)


@pytest.fixture(scope="module")
def uninterrupted():
    """What a run without a break is, once it is known: it is the same through any exchange."""
    return []


@pytest.mark.parametrize("program", ["redis-server", "valkey-server"])
def test_killed_server_loses_nothing(crew, own_server, program):
    """The server is killed and started again; driver and workers wait for it."""
    server = own_server(program)
    crew.where = server.where
    workers = [crew.worker(), crew.worker()]
    driver = crew.driver()
    crew.until_called(5)
    server.kill()
    kill(workers[0])
    time.sleep(0.3)
    assert driver.is_alive()
    assert workers[1].is_alive()
    server.start()
    finish(driver)
    calls = collections.Counter(line.split()[0] for line in crew.called())
    assert set(calls) == {str(number) for number in range(24)}
    # a call whose answer the server may have lost is made again by nobody but a worker that takes over
    assert sum(calls.values()) <= 26
    states = [request["state"] for request in Run(crew.folder / "runs" / "run").requests()]
    assert sorted(states) == ["failed", *["labeled"] * 23]


def test_killed_driver_and_workers_lose_nothing(crew, place, uninterrupted):
    """The driver and a worker are killed, and what was answered meanwhile is not asked again."""
    crew.where = place
    workers = [crew.worker(), crew.worker()]
    driver = crew.driver()
    crew.until_called(6)
    kill(driver)
    before = len(crew.called())
    crew.until_called(before + 2)  # workers go on
    kill(workers[0])
    crew.until_called(11)  # the killed one may have claimed one more, and not begun
    time.sleep(0.3)
    numbers = [line.split()[0] for line in crew.called()]
    assert len(set(numbers)) == len(numbers), "nobody takes over while there is no driver"
    driver = crew.driver()
    crew.until_called(16)
    workers.append(crew.worker())
    kill(workers[1])
    finish(driver)
    calls = collections.Counter(line.split()[0] for line in crew.called())
    assert set(calls) == {str(number) for number in range(24)}
    twice = [one for one, times in calls.items() if times > 1]
    assert len(twice) <= 2, f"two workers were killed, and {twice} were carried out again"

    if not uninterrupted:
        finish(crew.driver("whole"))
        uninterrupted.append(essence_of(crew.folder / "whole" / "run"))
    assert differences(essence_of(crew.folder / "runs" / "run"), uninterrupted[0]) == []
    assert [refusal["reason"] for refusal in Run(crew.folder / "runs" / "run").refused()] == ["it diverges"]
