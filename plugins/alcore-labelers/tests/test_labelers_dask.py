"""The strategy ``function`` on a cluster of Dask, of which workers are killed, and the driver."""

import collections
import functools
import multiprocessing
import os
import signal
import sys
import time

import pytest
from alcore_testing import differences, essence_of

from alcore.store import Run

distributed = pytest.importorskip("distributed")
N = 24  # half of them in each of two steps
SOLVER = '''
import os, time
from pathlib import Path

from alcore_labelers import Infeasible, Labeled

calls_of_this_worker = 0


def write(folder, text):
    with open(Path(folder) / "ledger", "a") as ledger:
        ledger.write(f"{text} {os.getpid()}\\n")


def solve(folder, point):
    """Label a sample; where there is a file ``hold``, the second call of each worker waits until it is gone."""
    global calls_of_this_worker
    number, hold = int(point[0]), Path(folder) / "hold"
    write(folder, f"begin {number}")
    if hold.exists():
        calls_of_this_worker += 1
        if calls_of_this_worker == 2 and (Path(folder) / "ledger").read_text().count("hold") < 2:
            write(folder, f"hold {number}")
            while hold.exists():
                time.sleep(0.02)
    time.sleep(0.02)
    write(folder, f"end {number}")
    if number == 5:
        raise Infeasible("it diverges", cost=0.5)
    return Labeled(number / 2, cost=2.5 if number == 6 else 1.0)
'''
CAMPAIGN = f'''
import functools
from pathlib import Path

import distributed
import torch
from alcore_labelers import FunctionLabelStrategy
from alcore_testing import build_driver
from solver import solve

from alcore import BaseQuery, DataInfo, TensorPool
from alcore.randomness import seed_everything


class AskForHalf(BaseQuery):
    def sample(self, query_queue, *args, **kwargs):
        step = self.driver.active_learning_step_idx
        query_queue.put_many(range(step * {N} // 2, (step + 1) * {N} // 2))


def drive(folder, address):
    """Make a run in a folder, or resume it."""
    seed_everything(0)
    pool = TensorPool(torch.arange({N}.0).reshape({N}, 1), info=DataInfo("regression", features=1))
    with distributed.Client(address) as client:
        strategy = FunctionLabelStrategy(functools.partial(solve, folder), executor=client.get_executor())
        driver = build_driver(
            Path(folder), AskForHalf(), pool=pool, learner=torch.nn.Linear(1, 1), label=strategy, run_id="run",
            max_active_learning_steps=2, skip_training=True,
        )
        if (Path(folder) / "run").exists():
            driver.restore()
        driver.run()
'''


class Campaign:
    """A run in a folder, whose calls the workers of a cluster make."""

    def __init__(self, folder, cluster):
        folder.mkdir()
        self.folder, self.client = folder, cluster
        self.context = multiprocessing.get_context("forkserver")

    def start(self):
        self.client.wait_for_workers(2)
        address = self.client.scheduler.address
        process = self.context.Process(target=__import__("campaign").drive, args=(str(self.folder), address))
        process.start()
        return process

    def finish(self, driver):
        driver.join(100)
        assert driver.exitcode == 0
        return essence_of(self.folder / "run")

    def ledger(self):
        """Return what the function has written: begin, hold or end, the sample, and the process."""
        ledger = self.folder / "ledger"
        return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []

    def count(self, what):
        return collections.Counter(int(number) for said, number, _ in self.ledger() if said == what)

    def labels(self):
        """Return the samples that have an answer in the run directory."""
        return {request["sample"] for request in Run(self.folder / "run").requests() if request["state"] != "open"}

    def hold(self):
        """Wait until each worker is within its second call, and all results before are taken; return the workers."""
        until(lambda: len(self.count("hold")) == 2)
        until(lambda: self.labels() == set(self.count("end")))
        until(functools.partial(self.client.run_on_scheduler, _keeps_no_result))
        return {int(pid) for said, _, pid in self.ledger() if said == "hold"}


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The client of two worker processes, which a nanny starts again where they end."""
    folder = tmp_path_factory.mktemp("dask")
    (folder / "solver.py").write_text(SOLVER)
    (folder / "campaign.py").write_text(CAMPAIGN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with (
            distributed.LocalCluster(**settings, local_directory=str(folder)) as started,
            distributed.Client(started) as client,
        ):
            yield client
    for name in ("solver", "campaign"):
        sys.modules.pop(name, None)


@pytest.fixture
def campaign(cluster, tmp_path):
    return Campaign(tmp_path / "run", cluster)


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    whole = Campaign(tmp_path_factory.mktemp("whole") / "run", cluster)
    return whole.finish(whole.start())


def check(campaign, essence, undisturbed, held):
    """Check that each call came to its end once, and that the run is the one that nobody disturbed."""
    assert differences(essence, undisturbed) == []
    assert campaign.count("end") == dict.fromkeys(range(N), 1)
    begun = campaign.count("begin")
    assert {one for one, times in begun.items() if times > 1} == set(held), "only what was cut off is called again"
    assert max(begun.values()) == 2


def test_killed_workers_of_dask_lose_no_label_and_no_call_is_paid_twice(campaign, undisturbed):
    (campaign.folder / "hold").touch()
    driver = campaign.start()
    workers, held = campaign.hold(), campaign.count("hold")
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    (campaign.folder / "hold").unlink()
    check(campaign, campaign.finish(driver), undisturbed, held)


def test_killed_driver_of_calls_in_dask_loses_no_label_and_pays_none_twice(campaign, undisturbed):
    (campaign.folder / "hold").touch()
    driver = campaign.start()
    workers, held = campaign.hold(), campaign.count("hold")
    os.kill(driver.pid, signal.SIGKILL)
    driver.join()
    until(functools.partial(campaign.client.run_on_scheduler, _is_idle))
    addresses = campaign.client.run_on_scheduler(_addresses)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    (campaign.folder / "hold").unlink()
    until(lambda: not addresses & campaign.client.run_on_scheduler(_addresses))
    check(campaign, campaign.finish(campaign.start()), undisturbed, held)


def _keeps_no_result(dask_scheduler):
    """Return whether the scheduler would have no call made again for a result that its worker has lost."""
    return all(task.state != "memory" for task in dask_scheduler.tasks.values())


def _addresses(dask_scheduler):
    return set(dask_scheduler.workers)


def _is_idle(dask_scheduler):
    """Return whether the scheduler has forgotten the calls of a client that is gone."""
    return not dask_scheduler.tasks
