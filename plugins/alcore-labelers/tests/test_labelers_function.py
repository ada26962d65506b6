"""The strategy ``function``: what it gives, what it takes, what fails how, and what an interruption leaves."""

import contextlib
import functools
import itertools
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from alcore_labelers import FunctionLabelStrategy, Infeasible, Labeled
from alcore_testing import build_driver, differences, essence_of, run_command

from alcore import BaseQuery, DataInfo, Request, TensorPool
from alcore.errors import Interrupted, UsageError
from alcore.store import Run

SIMULATORS = '''
import ctypes, functools, os, subprocess, sys, time

def half(point):
    return float(point[0]) / 2

def mixed(point):
    """Sample 0 crashes, 1 segfaults, 2 hangs with a program that it started, 3 ends, 4 raises, 5 is infeasible."""
    import alcore_labelers
    kind = int(point[0])
    if kind == 0:
        os._exit(3)
    if kind == 1:
        ctypes.string_at(0)
    if kind == 2:
        subprocess.run(["sleep", "98765"])
    if kind == 3:
        sys.exit("enough")
    if kind == 4:
        raise OSError("the license server is away")
    if kind == 5:
        raise alcore_labelers.Infeasible("it diverges")
    if kind == 6:
        return object()
    print("on stdout")
    return float(kind)

def draws(point, seed):
    import random, numpy
    return [random.random(), float(numpy.random.rand()), seed]

def explode():
    raise ImportError("no such thing in a worker")

class Unloadable:
    def __reduce__(self):
        return explode, ()
    def __call__(self, point):
        return 0.0

def slow(named):
    with open("ledger", "a") as ledger:
        ledger.write("called\\n")
    time.sleep(0.1)
    return named["T"] / named["p"]
'''


@pytest.fixture
def simulators(tmp_path, monkeypatch):
    """A module that worker processes can import."""
    (tmp_path / "simulators.py").write_text(SIMULATORS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("simulators", None)
    return __import__("simulators")


class AskFor(BaseQuery):
    """Asks for what it was given in step 0, and for nothing later."""

    def __init__(self, items):
        self.items = items

    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(self.items)
        self.items = []


def counting_pool(n=20, **options):
    """Sample i has the input (i, 0); no label is known."""
    inputs = torch.stack([torch.arange(float(n)), torch.zeros(n)], dim=1)
    return TensorPool(inputs, info=DataInfo("regression", features=2), **options)


def build(folder, strategy, items=range(8), pool=None, **settings):
    settings = {"max_active_learning_steps": 1, "skip_training": True, "max_failure_rate": 1.0, **settings}
    return build_driver(
        folder,
        AskFor(list(items)),
        pool=counting_pool() if pool is None else pool,
        learner=torch.nn.Linear(2, 1),
        label=strategy,
        **settings,
    )


def run(folder, strategy, *args, **settings):
    driver = build(folder, strategy, *args, **settings)
    driver.run()
    return driver


def labels(driver):
    """The labels by sample."""
    pool = driver.train_datapool
    return {sample: pool[place][1] for place, sample in enumerate(pool.labeled_ids.tolist())}


def failures(driver):
    """Kind and reason of each failed attempt, by sample."""
    samples = {request["id"]: request["sample"] for request in Run(driver.log_dir).requests()}
    return {
        samples[refusal["request"]]: (refusal["kind"], refusal["reason"]) for refusal in Run(driver.log_dir).refused()
    }


# -- failures ----------------------------------------------------------------------------------------------------


def test_what_a_call_does_costs_only_its_own_item(tmp_path, simulators, capfd):
    strategy = FunctionLabelStrategy(simulators.mixed, "processes", workers=2, timeout=1.0, retries=0)
    driver = run(tmp_path, strategy, range(12))
    assert labels(driver) == {sample: float(sample) for sample in range(7, 12)}
    reasons = failures(driver)
    assert {sample: kind for sample, (kind, _) in reasons.items()} == dict(
        enumerate(["infrastructure"] * 2 + ["timeout"] + ["infrastructure"] * 2 + ["infeasible", "infrastructure"])
    )
    expected = [
        "its worker process ended with exit code 3", "its worker process was ended by SIGSEGV",
        "it took longer than 1 s",
        "it called sys.exit('enough')", "OSError: the license server is away (simulators.py, line ", "it diverges",
        "it returned a object; a label is a number, text, an array or a list",
    ]  # fmt: skip
    assert all(reasons[sample][1].startswith(reason) for sample, reason in enumerate(expected)), reasons
    assert "on stdout" not in capfd.readouterr().out
    assert subprocess.run(["pgrep", "-f", "sleep 98765"], capture_output=True, check=False).stdout == b""


@pytest.mark.parametrize("run_in", ["here", "threads"])
def test_each_try_is_given_the_same(tmp_path, run_in):
    given = []

    def writes(point):
        given.append(point.tolist())
        point += 100
        if len(given) == 1:
            raise OSError("once")
        return 1.0

    run(tmp_path, FunctionLabelStrategy(writes, run_in, backoff=0.0), [3])
    assert given == [[3.0, 0.0]] * 2


def test_failed_calls_are_tried_again_with_growing_waits(tmp_path):
    calls, times = [], []

    def fails_twice(point):
        calls.append(int(point[0]))
        times.append(time.monotonic())
        if calls.count(int(point[0])) <= 2:
            raise ConnectionError("busy")
        return 1.0

    driver = run(tmp_path, FunctionLabelStrategy(fails_twice, backoff=0.02, cost=2.5), [3, 4])
    assert calls == [3, 3, 3, 4, 4, 4]
    assert (np.diff(times)[:2] >= [0.01, 0.02]).all()
    assert Run(driver.log_dir).refused() == []
    assert driver.spent().cost == 2 * 3 * 2.5, "each try is paid"
    assert "ConnectionError: busy" in (driver.log_dir / "console.log").read_text()


def test_waits_are_drawn_from_the_generator_of_the_run(tmp_path):
    def waits(folder):
        strategy = FunctionLabelStrategy(half)
        driver = build(folder, strategy)
        driver.prepare()
        (call,) = strategy.calls([_request(driver, 3)])
        bad = [strategy._call.__class__(raises)(call.inputs)[0]]
        return [strategy.retry_after(call, bad) for _ in range(3)]

    first, second, last = waits(tmp_path / "a")
    assert (first, second, last) == tuple(waits(tmp_path / "b"))
    assert 0.5 <= first <= 1.5
    assert 1 <= second <= 3
    assert last is None


def half(point):
    return float(point[0]) / 2


def raises(point):
    raise ConnectionError


def _request(driver, sample):
    return Request("a" * 32, 0, 0, sample)


def test_named_exceptions_are_infeasible(tmp_path):
    def solve(point):
        if point[0] == 2:
            raise FloatingPointError("overflow")
        return np.float64(point[0])

    driver = run(tmp_path, FunctionLabelStrategy(solve, infeasible="ArithmeticError"), [1, 2, 3])
    assert labels(driver) == {1: 1.0, 3: 3.0}
    assert failures(driver) == {2: ("infeasible", "FloatingPointError: overflow")}


def test_workers_that_never_start_end_the_run_with_the_reason(tmp_path, simulators):
    strategy = FunctionLabelStrategy(simulators.Unloadable(), "processes", workers=1)
    driver = build(tmp_path, strategy)
    with pytest.raises(UsageError, match="all workers have ended 3 times before one call was done"):
        driver.run()
    assert {request["state"] for request in Run(driver.log_dir).requests()} == {"open"}


# -- what goes in and what comes out -----------------------------------------------------------------------------


def test_random_numbers_belong_to_the_request_wherever_it_is_called(tmp_path, simulators):
    draws = []
    for place in ({"run_in": "here"}, {"run_in": "processes", "workers": 2}):
        random.seed(os.urandom(8))
        driver = run(
            tmp_path / place["run_in"], FunctionLabelStrategy(simulators.draws, seed=True, **place), run_id="same"
        )
        draws.append({sample: value.tolist() for sample, value in labels(driver).items()})
    assert draws[0] == draws[1]
    assert len({tuple(arguments) for arguments in draws[0].values()}) == 8


@pytest.mark.parametrize("run_in", ["here", "threads"])
def test_batches_are_columns_and_bad_ones_are_refused(tmp_path, run_in):
    given = []

    def solve(points):
        given.append(points.tolist())
        if len(points) == 2:
            return [1.0]
        return [Infeasible("too hot") if point[0] == 1 else Labeled(point[0], cost=4.0) for point in points]

    strategy = FunctionLabelStrategy(solve, run_in, batch=True, batch_size=3, cost=2)
    driver = run(tmp_path, strategy)
    assert sorted(given) == [
        [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]],
        [[3.0, 0.0], [4.0, 0.0], [5.0, 0.0]],
        [[6.0, 0.0], [7.0, 0.0]],
    ]
    assert labels(driver) == {0: 0.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}
    wrong = "it returned 1 results for a batch of 2 items; it must return a list or an array of 2 results"
    assert failures(driver) == {
        1: ("infeasible", "too hot"),
        6: ("infrastructure", wrong),
        7: ("infrastructure", wrong),
    }
    assert driver.spent().cost == 5 * 4 + 3 * 2


class NamedPool(TensorPool):
    """Shows its inputs as a CSV file does: as text."""

    def shown(self, samples):
        return {"T": [f"{sample}.5" for sample in samples], "fluid": ["water"] * len(samples)}


def test_named_values_are_given_by_name_and_numbers_as_numbers(tmp_path):
    inputs = torch.arange(20.0)[:, None].repeat(1, 2)
    make = functools.partial(NamedPool, inputs, info=DataInfo("regression", features=2))
    assert labels(run(tmp_path, FunctionLabelStrategy(lambda one: len(one["fluid"]) + one["T"]), [4], make())) == {
        4: 9.5
    }
    columns = FunctionLabelStrategy(lambda many: many["T"] * 2 + len(many["fluid"]), batch=True)
    assert labels(run(tmp_path, columns, [4, 5], make())) == {4: 11.0, 5: 13.0}
    plain = FunctionLabelStrategy(lambda one: one.sum(), give="input")
    assert labels(run(tmp_path, plain, [4], make())) == {4: 8.0}


def test_generated_inputs_are_given_as_they_are(tmp_path):
    strategy = FunctionLabelStrategy(lambda named: named["x0"] - named["x1"], give="values")
    driver = run(tmp_path, strategy, [torch.tensor([3.0, 1.0])], counting_pool(costs=torch.arange(20.0)))
    assert driver.train_datapool[0][1] == 2.0
    assert driver.spent().cost == 1


def test_generated_inputs_cost_what_the_data_says_of_them(tmp_path):
    pool = counting_pool(costs=torch.arange(20.0))
    pool.input_cost = lambda item: 10 * float(item[0])
    driver = run(tmp_path, FunctionLabelStrategy(lambda point: 1.0), [torch.tensor([3.0, 1.0]), 4], pool)
    assert driver.spent().cost == 34


def test_costs_of_many_samples_are_asked_for_with_one_look_at_the_data(tmp_path):
    pool, looks = NamedPool(torch.zeros(20, 2), info=DataInfo("regression", features=2)), []
    shown = pool.shown
    pool.shown = lambda samples: looks.append(len(samples)) or shown(samples)
    strategy = FunctionLabelStrategy(lambda named: named["T"], cost=lambda named: named["T"])
    driver = run(tmp_path, strategy, range(10), pool, budget=1000.0)
    assert driver.spent().cost == sum(sample + 0.5 for sample in range(10))
    assert len(looks) <= 4, "at the check, for the costs, and for the labels"


@pytest.mark.parametrize(
    ("cost", "expected"), [(3, 3 * 8), ("seconds", None), (lambda point: float(point[0]), sum(range(8))), (None, 8)]
)
def test_costs(tmp_path, cost, expected):
    driver = run(tmp_path, FunctionLabelStrategy(lambda point: time.sleep(0.01) or 1.0, cost=cost))
    if expected is None:
        assert 8 * 0.01 <= driver.spent().cost < 8
    else:
        assert driver.spent().cost == expected


def test_costs_of_the_data_are_paid(tmp_path):
    driver = run(tmp_path, FunctionLabelStrategy(half), [3, 4], counting_pool(costs=torch.arange(20.0)))
    assert driver.spent().cost == 7


# -- other places ------------------------------------------------------------------------------------------------


def test_an_executor_is_only_not_waited_for(tmp_path):
    go_on = threading.Event()

    def solve(point):
        if point[0] == 1:
            go_on.wait(20)
        return float(point[0])

    with ThreadPoolExecutor(2) as executor:
        driver = run(tmp_path, FunctionLabelStrategy(solve, executor=executor, timeout=0.4), [0, 1, 2, 3])
        go_on.set()
    assert failures(driver) == {1: ("timeout", "it took longer than 0.4 s")}
    assert labels(driver) == {0: 0.0, 2: 2.0, 3: 3.0}, "what comes after the deadline is dropped"


@pytest.mark.parametrize("idempotent", [True, False])
def test_interrupted_in_threads(tmp_path, idempotent):
    """What is done is committed, what has not begun is given back, and what has begun is in doubt if it has effects."""
    begun, release = queue.SimpleQueue(), threading.Event()

    def solve(point):
        begun.put(int(point[0]))
        if next(calls) >= 2:  # two calls return, and the next two hang
            release.wait(20)
        return half(point)

    calls = itertools.count()
    strategy = FunctionLabelStrategy(solve, "threads", workers=2, idempotent=idempotent)
    driver = build(tmp_path, strategy)

    def interrupt():
        for _ in range(4):
            begun.get(timeout=20)
        driver.interrupt()

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted):
        driver.run()
    release.set()
    states = [request["state"] for request in Run(driver.log_dir).requests()]
    done = states.count("labeled")
    assert done >= 2
    assert set(states) == {"labeled", "open"}
    resumed = build(tmp_path, FunctionLabelStrategy(half, idempotent=idempotent), run_id=driver.run_id)
    if not idempotent:
        with pytest.raises(UsageError, match="2 requests were with FunctionLabelStrategy"):
            resumed.restore()
    resumed.restore(in_doubt=None if idempotent else "ask")
    resumed.run()
    assert labels(resumed) == {sample: sample / 2 for sample in range(8)}


def test_command_that_is_ended_leaves_no_process_and_loses_nothing(tmp_path, simulators):
    rows = [f"{T},{p},{T / p}" for T in range(1, 11) for p in (1, 2, 4, 8)]
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        folder.mkdir()
        (folder / "points.csv").write_text("\n".join(["T,p,ratio", *rows]))
    (folder / "simulators.py").write_text(SIMULATORS)
    given = {
        "label.function.function": "simulators:slow",
        "label.function.run_in": "processes",
        "label.function.workers": "2",
        "query.random.max_samples": "6",
    }
    flags = ["points.csv", "--target", "ratio", "--label", "function", "--query", "random", "--steps", "2"]
    flags += [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
    assert run_command(tmp_path / "whole", "run", *flags, "--run-id", "same").code == 0
    assert _end(folder, signal.SIGINT, 3, "run", *flags, "--run-id", "same") == 130
    assert _end(folder, signal.SIGKILL, 9, "resume", "same", "--allow-code") == -signal.SIGKILL
    resumed = run_command(folder, "resume", "same", "--allow-code")
    assert resumed.code == 0, resumed.err
    assert _lines(folder / "ledger") <= 12 + 2 * 4, "no more than what was in flight is called again"
    whole, cut = (essence_of(tmp_path / name / "active_learning_logs" / "same") for name in ("whole", "cut"))
    extra = "checkpoints: 000000-training-"  # what the interruption saved
    assert [difference for difference in differences(whole, cut) if not difference.startswith(extra)] == []


def _end(folder, number, calls, *words):
    """Send a signal to a command after some calls; return its exit code when nothing works in the folder any more."""
    command = [str(Path(sys.executable).with_name("alcore")), *words]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while _lines(folder / "ledger") < calls and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
    end = time.monotonic() + 5
    while (left := _working_in(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []
    return process.returncode


def _lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def _working_in(folder):
    """The processes that work in a folder."""
    commands = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "cwd").readlink() == folder:
                commands.append((path / "cmdline").read_bytes())
    return commands


# -- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"function": "solver"}, "function is 'solver'; it must be module:name"),
        ({"function": "nowhere:solve"}, "'nowhere:solve' can't be imported: ModuleNotFoundError"),
        ({"function": "./solver.py:solve"}, "imported: it is not of the form package.module:name; for the file"),
        ({"function": "math:sinn"}, "In math, did you mean 'sin'"),
        ({"function": "math:pi"}, "is a float, not a class or a function"),
        ({"function": 3}, "function is a int, which can't be called"),
        ({"function": lambda x: x, "run_in": "processes"}, "can't be sent to worker processes"),
        ({"run_in": "cluster"}, "run_in is 'cluster'"),
        ({"workers": 2}, "set run_in to 'processes' or 'threads'"),
        ({"workers": 0, "run_in": "threads"}, "workers is 0"),
        ({"timeout": 3.0}, "run_in 'here' can't end a call"),
        ({"timeout": 0.0, "run_in": "processes"}, "timeout is 0.0; it must be a number of seconds, above 0"),
        ({"backoff": float("nan")}, "backoff is nan"),
        ({"retries": 1, "idempotent": False}, "would be made twice"),
        ({"infeasible": ["solver:Error"]}, "infeasible 'solver:Error' can't be imported"),
        ({"infeasible": "print"}, "infeasible has 'print'"),
        ({"cost": -1}, "cost is -1"),
        ({"cost": "minutes"}, "cost is 'minutes'"),
        ({"executor": 3}, "executor is a int"),
        ({"executor": ThreadPoolExecutor(1), "workers": 2}, "an executor has its own workers"),
        ({"batch_size": True}, "batch_size is True"),
    ],
)
def test_wrong_parameters_are_refused_when_it_is_made(parameters, fault):
    with pytest.raises(UsageError) as error:
        FunctionLabelStrategy(**{"function": half, **parameters})
    assert fault in str(error.value)


def test_coroutines_are_refused():
    async def solve(point):
        return 1.0

    with pytest.raises(UsageError, match="is a coroutine function"):
        FunctionLabelStrategy(solve)


def test_missing_names_are_told_before_anything_is_called(tmp_path):
    strategy = FunctionLabelStrategy(half, give="values")
    image = TensorPool(torch.zeros(12, 2, 2), info=DataInfo("regression"))
    with pytest.raises(UsageError, match="give is 'values', and the data names none"):
        build(tmp_path, strategy, [8], image).run()


@pytest.mark.parametrize("run_in", ["here", "threads"])
def test_error_of_the_cost_ends_the_run_and_loses_nothing(tmp_path, run_in):
    asked = []

    def cost(point):
        asked.append(point)
        if len(asked) == 9:  # the first after those of the query phase
            raise ZeroDivisionError("no price")
        return 1.0

    driver = build(tmp_path, FunctionLabelStrategy(half, run_in, cost=cost))
    with pytest.raises(ZeroDivisionError, match="no price"):
        driver.run()
    assert {request["state"] for request in Run(driver.log_dir).requests()} <= {"open", "labeled"}
    resumed = build(tmp_path, FunctionLabelStrategy(half), run_id=driver.run_id)
    resumed.restore()
    resumed.run()
    assert labels(resumed) == {sample: sample / 2 for sample in range(8)}


def test_function_of_an_experiment_file_is_called_only_where_code_is_allowed(tmp_path, simulators):
    (tmp_path / "stranger.toml").write_text('[label.function]\nfunction = "simulators:half"\n')
    refused = run_command(tmp_path, "run", "stranger.toml", "--steps", "1")
    assert refused.code == 2
    assert "function = 'simulators:half', which names code to run" in refused.err
    assert not (tmp_path / "active_learning_logs").exists()


def keeps_failing(folder, items, **parameters):
    """Run a function that always fails, in one thread; return how often it was called, and the states of requests."""
    called = []

    def down(point):
        called.append(int(point[0]))
        time.sleep(0.02)
        raise OSError("the license server is away")

    with ThreadPoolExecutor(1) as pool:
        strategy = FunctionLabelStrategy(down, executor=pool, max_in_flight=items, **parameters)
        driver = run(folder, strategy, range(items), counting_pool(items), max_failure_rate=0.5)
    assert str(driver.stop_reason).startswith("labels keep failing")
    return called, [request["state"] for request in Run(driver.log_dir).requests()]


def test_calls_that_have_not_begun_are_given_back_where_labels_keep_failing(tmp_path):
    called, states = keeps_failing(tmp_path, 50, retries=0)
    assert len(called) <= 20, "five fail, and some have begun meanwhile"
    assert states.count("failed") == len(called)
    assert states.count("open") == 50 - len(called)


def test_calls_are_not_tried_again_where_labels_keep_failing(tmp_path):
    called, states = keeps_failing(tmp_path, 20, retries=1, backoff=1.0)  # the second tries are spread over a second
    assert len(called) < 40
    assert states == ["failed"] * 20, "what has begun has an answer"
