"""The heartbeat: it goes on whatever the solver does, and ends with its worker."""

import logging
import signal
import subprocess
import sys
import time

import torch
from alcore_testing import build_driver
from alcore_worker import WorkerLabelStrategy, open_exchange
from alcore_worker.heartbeat import Heartbeat, is_stopped

from alcore import BaseQuery, DataInfo, TensorPool
from alcore.store import Run

WORKER = """
import ctypes, logging, sys, time
from alcore_worker import open_exchange
from alcore_worker.heartbeat import Heartbeat

exchange = open_exchange(sys.argv[1])
with Heartbeat(exchange, "one-1-00000001", 0.05, logging.getLogger()) as heart:
    time.sleep(0.6)
    print(heart._process.pid, flush=True)
    ctypes.PyDLL(None).sleep(60)  # Python's lock is held
"""


SOLVER = """
import ctypes, sys
from alcore_labelers import FunctionLabelStrategy
from alcore_worker import Worker, open_exchange

def solve(point):
    ctypes.PyDLL(None).usleep(900_000)  # Python's lock is held
    return 1.0

Worker(open_exchange(sys.argv[1]), FunctionLabelStrategy(solve), "function", beat=0.05).run()
"""


class AskForOne(BaseQuery):
    def sample(self, query_queue, *args, **kwargs):
        query_queue.put(0)


def beats(shared):
    return (shared / "workers" / "one-1-00000001").read_bytes()


def goes_on(shared, seconds=3.0):
    before, end = beats(shared), time.monotonic() + seconds
    while time.monotonic() < end:
        if beats(shared) != before:
            return True
        time.sleep(0.02)
    return False


def test_it_goes_on_while_the_lock_is_held_and_stops_with_its_worker(tmp_path):
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        process = int(worker.stdout.readline())
        time.sleep(0.2)
        assert goes_on(tmp_path)
        worker.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        assert not goes_on(tmp_path, 0.4), "a worker that is stopped is silent"
        worker.send_signal(signal.SIGCONT)
        assert goes_on(tmp_path)
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
    end = time.monotonic() + 5
    while not is_stopped(process):  # it is gone, or waits for its new parent to look
        assert time.monotonic() < end, "the process of the heartbeat outlived its worker"
        time.sleep(0.02)


def test_solver_that_holds_the_lock_is_not_taken_for_lost(tmp_path):
    (tmp_path / "shared").mkdir()
    driver = build_driver(
        tmp_path / "runs",
        AskForOne(),
        pool=TensorPool(torch.zeros(1, 2), info=DataInfo("regression", features=2)),
        learner=torch.nn.Linear(2, 1),
        label=WorkerLabelStrategy(str(tmp_path / "shared"), silent_after=0.4, most_lost=1, longest_wait=0.05),
        max_active_learning_steps=1,
        skip_training=True,
    )
    worker = subprocess.Popen([sys.executable, "-c", SOLVER, str(tmp_path / "shared")])
    try:
        driver.run()
    finally:
        worker.kill()
        worker.wait()
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["labeled"]
    assert Run(driver.log_dir).refused() == []


def test_process_that_ended_is_told_and_started_again(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("alcore_worker.heartbeat._AGAIN_AFTER", 0.05)
    with Heartbeat(open_exchange(str(tmp_path)), "one-1-00000001", 0.05, logging.getLogger("x")) as heart:
        for _ in range(2):
            process = heart._process
            process.kill()
            end = time.monotonic() + 5
            while heart._process is process:
                assert time.monotonic() < end
                time.sleep(0.02)
        while not (tmp_path / "workers" / "one-1-00000001").exists():
            time.sleep(0.02)
        assert goes_on(tmp_path)
    assert len([record for record in caplog.records if "it is started again" in record.message]) == 1
    time.sleep(0.1)
    assert not goes_on(tmp_path, 0.2)


def test_worker_is_heard_of_while_no_process_can_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr("alcore_worker.heartbeat._AGAIN_AFTER", 0.05)
    start, refused = subprocess.Popen, []

    def refuse(*args, **kwargs):
        refused.append(True)
        raise BlockingIOError("Resource temporarily unavailable")

    with Heartbeat(open_exchange(str(tmp_path)), "one-1-00000001", 0.05, logging.getLogger("x")) as heart:
        monkeypatch.setattr("alcore_worker.heartbeat.subprocess.Popen", refuse)
        process = heart._process
        process.kill()
        end = time.monotonic() + 5
        while len(refused) < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert goes_on(tmp_path)
        monkeypatch.setattr("alcore_worker.heartbeat.subprocess.Popen", start)
        while heart._process is process:
            assert time.monotonic() < end
            time.sleep(0.02)
