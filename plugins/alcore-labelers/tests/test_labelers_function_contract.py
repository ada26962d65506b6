"""The strategy ``function`` keeps the contract of label strategies, wherever its calls run."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from alcore_labelers import FunctionLabelStrategy
from alcore_testing import InProcessLabelContract, toy_pool

INPUTS = toy_pool("classes").inputs(torch.arange(40)).numpy()
EXECUTOR = ThreadPoolExecutor(2)


def class_of(point):
    """Sample i of the toy pool is of class i modulo 3."""
    return int(np.abs(INPUTS - point).sum(1).argmin()) % 3


class FunctionContract(InProcessLabelContract):
    name = "function"
    required_parameters = ("function",)
    generated = idempotent = True

    def make(self, **parameters):
        return FunctionLabelStrategy(**{"function": class_of, **self.given(), **parameters})

    def given(self):
        return {}


class TestHere(FunctionContract):
    pass


class TestThreads(FunctionContract):
    one_by_one = False

    def given(self):
        return {"run_in": "threads", "workers": 2}


class TestExecutor(FunctionContract):
    one_by_one = False

    def given(self):
        return {"executor": EXECUTOR}


class TestBatch(FunctionContract):
    one_by_one = False

    def given(self):
        return {
            "function": lambda points: np.array([class_of(point) for point in points]),
            "batch": True,
            "batch_size": 3,
        }


class TestWithEffects(FunctionContract):
    idempotent = False

    def given(self):
        return {"idempotent": False}


def test_threads_are_gone_after_a_phase():
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("labeling")] == []
