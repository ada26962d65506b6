"""The strategy ``worker`` keeps the contract of label strategies; its workers call a function."""

import contextlib
import threading

import numpy as np
import pytest
import torch
from alcore_labelers import FunctionLabelStrategy
from alcore_testing import LabelContract, toy_pool
from alcore_worker import Worker, WorkerLabelStrategy, open_exchange

INPUTS = toy_pool("classes").inputs(torch.arange(40)).numpy()


def class_of(point):
    """Sample i of the toy pool is of class i modulo 3."""
    return int(np.abs(INPUTS - point).sum(1).argmin()) % 3


@pytest.mark.parametrize("place", ["folder", "redis-server"], indirect=True)
class TestWorker(LabelContract):
    name = "worker"
    required_parameters = ("where",)
    generated = idempotent = True
    one_by_one = False
    batch = True  # up to max_in_flight requests are sent out before the first answer comes

    @pytest.fixture(autouse=True)
    def _workers(self, place, tmp_path):
        self.place = place
        worker = Worker(open_exchange(place), FunctionLabelStrategy(class_of), "function", home=tmp_path / "files")

        def work():
            with contextlib.suppress(KeyboardInterrupt):
                worker.run()

        thread = threading.Thread(target=work)
        thread.start()
        yield
        worker.stop()
        thread.join()

    def make(self, **parameters):
        return WorkerLabelStrategy(**{"where": self.place, "longest_wait": 0.05, **parameters})
