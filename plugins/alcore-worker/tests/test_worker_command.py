"""The command ``alcore worker``, and what driver and worker say to bad input and to what is hostile in a folder."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from alcore_labelers import FunctionLabelStrategy
from alcore_testing import build_driver, run_command
from alcore_worker import Worker, WorkerLabelStrategy, open_exchange, scheduling
from alcore_worker.exchange import AwayError
from alcore_worker.folder import FolderExchange
from alcore_worker.names import FORMAT, Note, request_of

from alcore import BaseLabel, BaseQuery, DataInfo, Failed, Label, TensorPool
from alcore.errors import Interrupted, UsageError
from alcore.store import Run

SOLVER = """
import time
from pathlib import Path

def double(values):
    Path("ledger").open("a").write("called\\n")
    return 2 * (values["T"] if isinstance(values, dict) else float(values[0]))

def slow(values):
    Path("ledger").open("a").write("called\\n")
    time.sleep(60)
"""
CALL = ("--label", "function", "--set", "label.function.function=solver:double")


class AskFor(BaseQuery):
    """Asks for what it was given in step 0, and for nothing later."""

    def __init__(self, items):
        self.items = items

    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(self.items)
        self.items = []


def pool(**options):
    return TensorPool(torch.arange(12.0).reshape(6, 2), info=DataInfo("regression", features=2), **options)


def driver(folder, where, items=range(4), chosen=None, **settings):
    options = {name: settings.pop(name) for name in ("silent_after", "most_lost") if name in settings}
    strategy = WorkerLabelStrategy(where, longest_wait=0.05, **options)
    settings = {"max_active_learning_steps": 1, "skip_training": True, "max_failure_rate": 1.0, **settings}
    learner = torch.nn.Linear(2, 1)
    return build_driver(
        folder,
        AskFor(list(items)),
        pool=pool() if chosen is None else chosen,
        learner=learner,
        label=strategy,
        **settings,
    )


@contextlib.contextmanager
def sent(made, waiting=4):
    """Have a driver send its requests, and end it: they stay where they are."""
    original = made.safe_point
    made.safe_point = lambda: made.interrupt()  # in the first wait for answers
    with contextlib.suppress(KeyboardInterrupt):
        made.run()
    made.safe_point = original
    yield


@pytest.fixture
def shared(tmp_path, monkeypatch):
    (tmp_path / "solver.py").write_text(SOLVER)
    (tmp_path / "shared").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("solver", None)
    return tmp_path / "shared"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nowhere", *CALL), "there is no folder"),
        (("solver.py", *CALL), "there is no folder"),
        (("shared", "--label", "dummy"), "remote = True"),
        (("shared", "--label", "functoin"), "did you mean 'function'"),
        (("shared", "--label", "function"), "label.function.function is missing"),
        (("shared", "--label", "nowhere:thing"), "can't be imported"),
        (("shared", "--label", "./solver.py:solve"), "it is not of the form package.module:name; for the file"),
        (("shared", *CALL, "--set", "query.uq.max_samples=3"), "a worker has a label strategy alone"),
        (("shared", *CALL, "--set", "label.function.retires=3"), "retries"),
        (("shared", *CALL, "--beat", "inf"), "beat is inf"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(shared, words, told):
    done = run_command(shared.parent, "worker", *words)
    assert done.code == 2, done
    assert told in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_other_format_is_refused_on_both_sides(shared):
    (shared / "alcore-exchange.txt").write_text("7\n")
    done = run_command(shared.parent, "worker", "shared", *CALL)
    assert done.code == 2
    assert f"exchange format '7', and this version of alcore-worker has {FORMAT}" in " ".join(done.err.split())
    with pytest.raises(UsageError, match="same version of alcore-worker"):
        WorkerLabelStrategy(str(shared))


def test_once_does_what_waits_and_ends(shared):
    made = driver(shared.parent / "runs", str(shared), run_id="r")
    with sent(made):
        done = run_command(shared.parent, "worker", "shared", *CALL, "--once")
    assert done.code == 0, done
    assert "4 labels" in done.err
    again = driver(shared.parent / "runs", str(shared), run_id="r")
    again.restore()
    again.run()
    assert (shared.parent / "ledger").read_text().count("called") == 4
    assert [float(again.train_datapool[place][1]) for place in range(4)] == [0.0, 4.0, 8.0, 12.0]
    left = [path for path in shared.rglob("*") if path.is_file()]
    assert sorted(path.name for path in left) == ["alcore-exchange.txt", "driver", "note.json"], (
        "what is done is removed"
    )


def test_program_runs_in_a_folder_of_the_worker(shared):
    made = driver(shared.parent / "runs", str(shared), run_id="r")
    with sent(made):
        pass
    (shared.parent / "solver.sh").write_text('#!/bin/sh\necho "called" >> "$LEDGER"; echo "$1"\n')
    (shared.parent / "solver.sh").chmod(0o755)
    words = (
        "--set",
        "label.command.run=./solver.sh {x1}",
        "--set",
        f"label.command.env={{LEDGER='{shared}/../ledger'}}",
    )
    done = run_command(shared.parent, "worker", "shared", "--label", "command", *words, "--once", "--dir", "files")
    assert done.code == 0, done
    assert (shared.parent / "ledger").read_text() == "called\n" * 4
    assert len(list(shared.parent.glob("files/*/r-*/strategies/command/work/*"))) > 0
    again = driver(shared.parent / "runs", str(shared), run_id="r")
    again.restore()
    again.run()
    assert [float(again.train_datapool[place][1]) for place in range(4)] == [1.0, 3.0, 5.0, 7.0]


def test_ctrl_c_gives_back_what_was_claimed(shared):
    with sent(driver(shared.parent / "runs", str(shared))):
        pass
    command = [sys.executable, "-m", "alcore", "worker", "shared", "--label", "function"]
    worker = subprocess.Popen(
        [*command, "--set", "label.function.function=solver:slow"], cwd=shared.parent, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not (shared.parent / "ledger").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(list(shared.glob("runs/*/claimed/*"))) == 1
    worker.send_signal(signal.SIGTERM)
    told = worker.communicate(timeout=60)[1]
    assert worker.returncode == 130
    assert "What had no answer was given back" in told
    assert list(shared.glob("runs/*/claimed/*")) == []
    assert len(list(shared.glob("runs/*/waiting/*.0.json"))) == 4, "it was not lost, and isn't counted so"
    assert list((shared / "workers").iterdir()) == []


SOLVER_THAT_IMPORTS = """
def solve(values):
    try:
        import heavy_module
    except BaseException:
        raise AttributeError("half a module")
    return 1.0
"""


def test_ctrl_c_while_the_function_imports_does_not_fail_its_request(shared):
    with sent(driver(shared.parent / "runs", str(shared))):
        pass
    (shared.parent / "importing.py").write_text(SOLVER_THAT_IMPORTS)
    (shared.parent / "heavy_module.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    command = [sys.executable, "-m", "alcore", "worker", "shared", "--label", "function"]
    done = subprocess.run(
        [*command, "--set", "label.function.function=importing:solve", "--set", "label.function.run_in=here"],
        cwd=shared.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert "failed" not in done.stderr
    assert "What had no answer was given back" in done.stderr
    assert list(shared.glob("runs/*/claimed/*")) == []


SOLVER_WITH_A_FINALIZER = """
import os, signal, time

class Guard:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

def solve(values):
    guard = Guard()
    del guard  # what the signal raises there is dropped by Python
    time.sleep(50)
    return 1.0
"""


def test_signal_that_meets_a_finalizer_ends_the_worker_all_the_same(shared):
    with sent(driver(shared.parent / "runs", str(shared))):
        pass
    (shared.parent / "finalizing.py").write_text(SOLVER_WITH_A_FINALIZER)
    command = [sys.executable, "-m", "alcore", "worker", "shared", "--label", "function"]
    done = subprocess.run(
        [*command, "--set", "label.function.function=finalizing:solve", "--set", "label.function.run_in=here"],
        cwd=shared.parent, capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert "What had no answer was given back" in done.stderr
    assert list(shared.glob("runs/*/claimed/*")) == []


def test_ctrl_c_before_the_exchange_is_reached_promises_nothing(shared, monkeypatch, capsys):
    def interrupted(self, worker):
        raise KeyboardInterrupt

    monkeypatch.setattr(FolderExchange, "beat", interrupted)
    done = run_command(shared.parent, "worker", "shared", "--label", "command", "--set", "label.command.run=./x {x1}")
    assert done.code == 130
    assert "alcore: interrupted. Nothing was claimed.\n" in done.err


class Remote(BaseLabel):
    """Keeps what it is given, and answers in several ways."""

    remote = True

    def __init__(self, answer=lambda request: 1.0):
        self.answer, self.requests, self.drivers = answer, [], []

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        self.drivers.append(self.driver)
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            self.requests.append(request)
            self.look(request)
            answer = self.answer(request)
            if answer is not None:
                serialize_queue.put(answer)

    def look(self, request):
        pass


def work(where, strategy, **options):
    worker = Worker(open_exchange(str(where)), strategy, "mine", once=True, **options)
    worker.run()
    return worker


def within(seconds, action):
    """Return what a call returns, which must not hang."""
    results = []
    thread = threading.Thread(target=lambda: results.append(action()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    assert results, "it has failed"
    return results[0]


def until(true, seconds):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def finished(shared):
    again = driver(shared.parent / "runs", str(shared), run_id="r")
    again.restore()
    again.run()
    return Run(again.log_dir)


def test_strategy_in_a_worker_has_what_was_sent(shared, tmp_path):
    class Looks(Remote):
        def look(self, request):
            pool = self.driver.choice_pool
            inputs.append(pool.inputs(torch.tensor([request.item])).tolist())
            assert pool.cost(request.item) == 0.25 * request.item
            self.generator(request.id)
            (self.strategy_dir / "notes").write_text(request.id)
            with pytest.raises(AttributeError, match="a worker has no learner"):
                _ = self.driver.learner

    inputs: list = []
    costs = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    with sent(driver(shared.parent / "runs", str(shared), run_id="r", chosen=pool(costs=costs))):
        pass
    strategy = Looks()
    assert work(shared, strategy, home=tmp_path / "files").answers == 4
    assert inputs == [[[0.0, 1.0]], [[2.0, 3.0]], [[4.0, 5.0]], [[6.0, 7.0]]]
    assert strategy.drivers[0].run_id == "r"
    (files,) = (tmp_path / "files").glob("*/r-*")
    assert (files / "strategies" / "mine" / "notes").read_text() == strategy.requests[-1].id


def test_each_failure_keeps_kind_reason_and_cost(shared):
    def answer(request):
        if request.item == 0:
            return Failed(request, "no solution", "infeasible", 0.5)
        if request.item == 1:
            return Failed(request, "too slow", "timeout", 2.0)
        if request.item == 2:
            return None
        return object()

    with sent(driver(shared.parent / "runs", str(shared), run_id="r")):
        pass
    assert work(shared, Remote(answer)).failures == 4
    refusals = {refusal["reason"]: (refusal["kind"], refusal["cost"]) for refusal in finished(shared).refused()}
    assert refusals["no solution"] == ("infeasible", 0.5)
    assert refusals["too slow"] == ("timeout", 2.0)
    assert refusals["the label strategy returned without an answer to it"][0] == "infrastructure"
    assert any(message.startswith("its label can't be sent: a object") for message in refusals), refusals


def test_error_of_the_strategy_ends_the_worker_and_loses_nothing(shared):
    def answer(request):
        raise ZeroDivisionError("in the strategy")

    with sent(driver(shared.parent / "runs", str(shared), run_id="r")):
        pass
    with pytest.raises(ZeroDivisionError):
        work(shared, Remote(answer))
    assert len(list(shared.glob("runs/*/waiting/*.json"))) == 4


def test_hostile_files_fail_and_lead_nowhere(shared, tmp_path):
    with sent(driver(shared.parent / "runs", str(shared), run_id="r")):
        pass
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"format": FORMAT, "content": {"kind": "label", "value": 666.0}}))
    waiting = sorted(shared.glob("runs/*/waiting/*.json"))
    waiting[0].unlink()
    waiting[0].symlink_to(secret)
    waiting[1].write_bytes(b"\x80\x04\x95")  # a pickle
    waiting[2].unlink()
    waiting[2].mkdir()
    (waiting[3].parent / "..%2f..%2fx.json").write_text("{}")
    (waiting[3].parent / "note.txt").write_text("left alone")
    assert work(shared, Remote()).failures == 3
    (answer,) = shared.glob(f"runs/*/answers/{waiting[3].name.replace('.0.', '.')}")
    answer.unlink()
    answer.symlink_to(secret)
    run = finished(shared)
    assert len(run.refused()) == 4
    assert {request["state"] for request in run.requests()} == {"failed"}
    assert secret.exists()
    assert sum("link" in refusal["reason"] for refusal in run.refused()) == 2


def test_cost_that_is_no_float_is_a_fault_of_its_answer(shared):
    with sent(driver(shared.parent / "runs", str(shared), range(1), run_id="r")):
        pass
    (task,) = shared.glob("runs/*/waiting/*.json")
    content = {"kind": "timeout", "reason": "slow", "cost": 10**400}
    name = task.name.removesuffix(".0.json")
    answer = json.dumps({"format": FORMAT, "content": content})
    (task.parents[1] / "answers" / f"{name}.json").write_text(answer)
    (refused,) = finished(shared).refused()
    assert "its cost is 1000" in refused["reason"]


def test_runs_that_cannot_be_served_are_told_once_and_left(shared, tmp_path, caplog):
    """One is a link, one has a damaged note, one is of another format; the fourth one is served."""
    for name in ("damaged", "other", "r"):
        with sent(driver(shared.parent / "runs", str(shared), run_id=name)):
            pass
    notes = {path.parent.name[:-13]: path for path in shared.glob("runs/*/note.json")}
    notes["damaged"].write_text("{}"[:1])
    notes["other"].write_text(json.dumps({**json.loads(notes["other"].read_text()), "format": 5}))
    (tmp_path / "elsewhere" / "waiting").mkdir(parents=True)
    (tmp_path / "elsewhere" / "note.json").write_text("{}")
    (shared / "runs" / "x-0123456789ab").symlink_to(tmp_path / "elsewhere")
    assert work(shared, Remote()).answers == 4
    assert len(list(shared.glob("runs/*/waiting/*.0.json"))) == 8, "they are as they were"
    told = [record.message for record in caplog.records if "can't be served" in record.message]
    assert len(told) == 3
    assert [any(text in message for message in told) for text in ("not followed", "not JSON", "exchange format 5")] == [
        True
    ] * 3


def test_large_inputs_and_labels_are_files_that_are_removed(shared):
    images = torch.rand(3, 3, 100, 100, generator=torch.Generator().manual_seed(0))
    big = TensorPool(images, info=DataInfo("regression"))

    def run():
        return driver(shared.parent / "runs", str(shared), range(3), big, run_id="r")

    with sent(run()):
        assert len(list(shared.glob("runs/*/blobs/*"))) == 3
    worker = FunctionLabelStrategy(lambda image: image[0] * 2)
    assert work(shared, worker).answers == 3
    again = run()
    again.restore()
    again.run()
    assert torch.equal(torch.as_tensor(again.train_datapool[1][1]), images[1, 0] * 2)
    assert list(shared.glob("runs/*/blobs/*")) == []


def test_lost_tasks_are_sent_again(shared, monkeypatch):
    monkeypatch.setattr("alcore_worker.monitor._LOOK_FOR_LOST", 0.1)
    made = driver(shared.parent / "runs", str(shared), run_id="r")
    original, count = made.safe_point, []

    def safe_point():
        original()
        count.append(1)
        waiting = list(shared.glob("runs/*/waiting/*.json"))
        if len(count) == 1:
            for task in waiting:
                task.unlink()
        elif len(waiting) == 4:
            work(shared, Remote())

    made.safe_point = safe_point
    made.run()
    assert [request["state"] for request in Run(made.log_dir).requests()] == ["labeled"] * 4


PARTS = ["waiting", "claimed", "answers", "blobs", "parts"]


def remove(path):
    shutil.rmtree(path)


def becomes_a_file(path):
    shutil.rmtree(path)
    path.write_text("")


def becomes_a_broken_link(path):
    shutil.rmtree(path)
    path.symlink_to(path.with_name("nowhere"))


SPOIL = {
    **{f"{spoil.__name__} {part}": (spoil, part) for spoil in (remove, becomes_a_file) for part in PARTS},
    "becomes_a_broken_link waiting": (becomes_a_broken_link, "waiting"),
    "becomes a folder note.json": (lambda path: (path.unlink(), path.mkdir()), "note.json"),
    "cut off note.json": (lambda path: path.write_text("{"), "note.json"),
}


@pytest.mark.parametrize("spoiled", list(SPOIL))
def test_run_whose_folder_is_incomplete_is_left_alone_and_others_are_served(shared, caplog, spoiled):
    for name in ("a", "b", "c"):
        with sent(driver(shared.parent / "runs", str(shared), run_id=name)):
            pass
    (folder,) = shared.glob("runs/b-*")
    spoil, part = SPOIL[spoiled]
    spoil(folder / part)
    before = sorted(map(str, folder.rglob("*")))
    worker = within(20, lambda: work(shared, Remote()))
    assert worker.answers == 8
    assert worker.has_left
    assert sorted(map(str, folder.rglob("*"))) == before, "it is left as it is"
    told = [record.message for record in caplog.records if "runs/b-" in record.message or "run b-" in record.message]
    assert len(told) == ("becomes a folder" not in spoiled)  # without a note it is no run
    assert all("can't be served, and is left alone" in message for message in told)
    assert "waiting until" not in caplog.text


def test_run_whose_folder_is_completed_later_is_served_then(shared, monkeypatch, caplog):
    """It is copied, part by part, while a worker looks at it."""
    monkeypatch.setattr(scheduling, "_LEFT_ALONE", 0.1)
    with sent(driver(shared.parent / "runs", str(shared), run_id="r")):
        pass
    (folder,) = shared.glob("runs/r-*")
    whole = Path(folder.rename(shared.parent / "whole"))
    worker = Worker(open_exchange(str(shared)), Remote(), "mine", idle=5.0)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    folder.mkdir()
    for part in ("note.json", "answers", "blobs", "claimed", "driver", "parts", "waiting"):
        time.sleep(0.1)
        copy = shutil.copytree if (whole / part).is_dir() else shutil.copy
        copy(whole / part, folder / part)
    until(lambda: worker.answers == 4, 20)
    worker.stop()
    thread.join(20)
    assert caplog.text.count("can't be served, and is left alone") == 1


@pytest.mark.parametrize("part", PARTS)
def test_driver_makes_again_what_is_missing_of_its_folder(shared, monkeypatch, part):
    monkeypatch.setattr("alcore_worker.monitor._ATTEND", 0.05)
    monkeypatch.setattr("alcore_worker.monitor._LOOK_FOR_LOST", 0.1)
    made = driver(shared.parent / "runs", str(shared), run_id="r")
    original, looks = made.safe_point, []

    def safe_point():
        original()
        looks.append(time.monotonic())
        (folder,) = shared.glob("runs/r-*")
        if len(looks) == 2:
            remove(folder / part)
            (folder / "note.json").unlink()
        elif len(looks) > 2 and looks[-1] - looks[1] > 1.0 and not worked:
            worked.append(within(20, lambda: work(shared, Remote())))

    worked = []
    made.safe_point = safe_point
    within(40, made.run)
    assert [request["state"] for request in Run(made.log_dir).requests()] == ["labeled"] * 4
    assert worked[0].answers == 4


@pytest.mark.parametrize("driver_lives", [True, False])
def test_answer_to_a_run_that_becomes_incomplete_waits_for_its_driver(shared, monkeypatch, caplog, driver_lives):
    monkeypatch.setattr(scheduling, "_GONE_AFTER", 2.0)
    for name in ("a", "b"):
        with sent(driver(shared.parent / "runs", str(shared), run_id=name)):
            pass
    (folder,) = shared.glob("runs/a-*")
    note = (folder / "note.json").read_bytes()

    def answer(request):
        if (folder / "answers").exists() and not healing.is_set():
            healing.set()
            remove(folder / "answers")
            if driver_lives:
                threading.Timer(0.5, lambda: open_exchange(str(shared)).begin(folder.name, note)).start()
        return 1.0

    healing = threading.Event()
    worker = within(30, lambda: work(shared, Remote(answer)))
    assert healing.is_set()
    assert worker.answers == (8 if driver_lives else 4)
    assert len(list(shared.glob("runs/b-*/answers/*.json"))) == 4
    assert ("is left alone" in caplog.text) == (not driver_lives)
    assert ("answers to the run" in caplog.text) == (not driver_lives)


@contextlib.contextmanager
def as_somebody_else():
    """Have no rights that root has."""
    if os.geteuid() != 0:
        yield
        return
    group = os.getegid()
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o500, 0o600], ids=oct)
@pytest.mark.parametrize("part", ["", *PARTS, "note.json"])
def test_run_that_this_user_may_not_work_for_is_told_and_another_is_not(mode, part):
    with tempfile.TemporaryDirectory(dir="/tmp") as where:
        shared = Path(where)
        shared.chmod(0o777)
        with as_somebody_else():
            exchange = open_exchange(where)
            for name in ("a", "b"):
                exchange.begin(f"{name}-0123456789ab", Note(name, 0, 60.0).to_bytes())
            assert exchange.fault_of("a-0123456789ab") is None
            closed = shared / "runs" / "a-0123456789ab" / part
            closed.chmod(mode)
            assert exchange.runs() == ["a-0123456789ab", "b-0123456789ab"]
            fault = exchange.fault_of("a-0123456789ab")
            assert (fault is None) == (part == "note.json" and mode & 0o400 != 0)
            assert fault is None or str(closed) in fault
            assert exchange.fault_of("b-0123456789ab") is None
            exchange.leave("host-1-00000000")
            closed.chmod(0o700)


def test_heartbeat_that_this_user_may_not_read_is_told_by_its_time():
    with tempfile.TemporaryDirectory(dir="/tmp") as where:
        Path(where).chmod(0o777)
        with as_somebody_else():
            exchange = open_exchange(where)
            exchange.beat("host-1-00000000")
            assert exchange.workers(60.0) == 1
            file = Path(where) / "workers" / "host-1-00000000"
            file.chmod(0o200)
            assert exchange.workers(0.0) == 1, "it has changed"
            time.sleep(0.01)
            assert exchange.workers(0.0) == 0
            exchange.beat("host-1-00000000")
            assert exchange.workers(0.0) == 1


def test_disk_that_is_away_is_waited_for(shared, caplog):
    made = driver(shared.parent / "runs", str(shared), run_id="r")
    original, away = made.safe_point, Path(f"{shared}.away")
    states = []

    def safe_point():
        original()
        states.append(len(states))
        if len(states) == 1:
            shared.rename(away)
        elif len(states) == 4:
            away.rename(shared)
        elif len(states) == 8:
            work(shared, Remote())

    made.safe_point = safe_point
    made.run()
    assert [request["state"] for request in Run(made.log_dir).requests()] == ["labeled"] * 4
    text = (made.log_dir / "console.log").read_text()
    assert "waiting until it can be reached again" in text
    assert "the exchange can be reached again" in text


def test_run_that_is_removed_while_a_worker_has_its_task_is_left(shared, monkeypatch, caplog):
    monkeypatch.setattr("alcore_worker.scheduling._GONE_AFTER", 0.2)
    with sent(driver(shared.parent / "runs", str(shared), run_id="r")):
        pass

    def answer(request):
        for run in (shared / "runs").iterdir():
            shutil.rmtree(run)
        return 1.0

    assert work(shared, Remote(answer)).answers == 0
    assert "is not in" in caplog.text


def test_workers_that_were_killed_are_not_taken_for_living_ones(shared, monkeypatch):
    monkeypatch.setattr("alcore_worker.monitor._TELL_AFTER", 0.05)
    open_exchange(str(shared)).beat("killed-1-00000001")
    made = driver(shared.parent / "runs", str(shared), run_id="r", silent_after=0.3)
    original, end = made.safe_point, time.monotonic() + 1.7

    def safe_point():
        original()
        if time.monotonic() > end:
            made.interrupt()

    made.safe_point = safe_point
    with contextlib.suppress(KeyboardInterrupt):
        made.run()
    assert "no worker is there" in (made.log_dir / "console.log").read_text()


def end_at(made, *actions):
    """Have a driver call each of these once, one at each safe point, until it returns true."""
    original, left = made.safe_point, list(actions)

    def safe_point():
        original()
        if left and left[0]() is not False:
            left.pop(0)

    made.safe_point = safe_point


def test_late_label_of_an_attempt_that_was_given_up_is_taken(shared):
    """Its worker was thought dead; the attempt that took its place is withdrawn, and nobody begins it."""
    made = driver(shared.parent / "runs", str(shared), [3], run_id="r", silent_after=0.1, most_lost=1, label_retries=1)
    worker, claims = open_exchange(str(shared)), []

    def claim():
        claims.extend(claimed(worker, "one-1-00000001", 1))
        return bool(claims)

    def answer_late():
        if not list(shared.glob("runs/*/waiting/*-1.0.json")):
            return False
        answer_with(worker, claims, {"kind": "label", "value": 7.0, "source": "late", "cost": 2.0})
        return True

    end_at(made, claim, answer_late)
    made.run()
    assert float(made.train_datapool[0][1]) == 7.0
    (request,) = Run(made.log_dir).requests()
    assert request["state"] == "labeled"
    assert len(Run(made.log_dir).refused()) == 1
    assert worker.known(worker.runs()[0]) == set()


def answer_with(worker, claims, content):
    (run,) = worker.runs()
    for claim in claims:
        worker.answer(run, claim, json.dumps({"format": FORMAT, "content": content}).encode())


def claimed(worker, name, most):
    """Claim up to so many tasks of the only run."""
    (run,) = worker.runs()
    claims = []
    while len(claims) < most and (claim := worker.claim(run, name)) is not None:
        claims.append(claim)
    return claims


def test_label_that_comes_while_its_worker_is_given_up_is_taken(shared):
    made = driver(shared.parent / "runs", str(shared), [3], run_id="r", silent_after=0.1, most_lost=1)
    worker, claims = open_exchange(str(shared)), []
    exchange = made.label_strategy._exchange
    plain = exchange.take_back

    def taken_back(run, *limits):
        given_up = plain(run, *limits)
        if given_up:
            answer_with(worker, claims, {"kind": "label", "value": 7.0})
        return given_up

    exchange.take_back = taken_back
    end_at(made, lambda: claims.extend(claimed(worker, "one-1-00000001", 1)) or bool(claims))
    made.run()
    (request,) = Run(made.log_dir).requests()
    assert request["state"] == "labeled"
    assert worker.known(worker.runs()[0]) == set()


def test_what_was_told_while_the_run_was_away_is_not_begun(shared):
    """The run was cut off, the last of its requests was answered by hand, and workers do the others."""
    with sent(driver(shared.parent / "runs", str(shared), run_id="r")):
        pass
    again = driver(shared.parent / "runs", str(shared), run_id="r")
    again.restore()
    again.tell([Label(3, 1.5)])
    worker = open_exchange(str(shared))

    def answer_three():
        claims = claimed(worker, "one-1-00000001", 9)
        assert [request_of(claim.name)[1] for claim in claims] == [0, 1, 2]
        answer_with(worker, claims, {"kind": "label", "value": 1.0})

    end_at(again, answer_three)
    again.run()
    assert [float(again.train_datapool[place][1]) for place in range(4)] == [1.0, 1.0, 1.0, 1.5]
    assert list(shared.glob("runs/*/waiting/*")) == []


@pytest.mark.parametrize("told_of", [1, 4])
def test_what_is_told_while_workers_work_is_not_waited_for(shared, told_of, monkeypatch):
    """The last requests are told: those that a worker has are not waited for, and no other is begun."""
    monkeypatch.setattr("alcore.driver.labeling._LOOK", 0.0)
    made = driver(shared.parent / "runs", str(shared), run_id="r")
    worker, claims = open_exchange(str(shared)), []

    def tell():
        claims.extend(claimed(worker, "one-1-00000001", 2))
        if claims:
            made.tell([Label(request, 1.5) for request in made.ask()[-told_of:]])
        return bool(claims)

    def answer_the_others():
        claims.extend(claimed(worker, "one-1-00000001", 9))
        asked = [claim for claim in claims if request_of(claim.name)[1] < 4 - told_of]
        answer_with(worker, asked, {"kind": "label", "value": 1.0})

    end_at(made, tell, lambda: made.label_queue.qsize() == told_of, answer_the_others)
    made.run()
    values = [float(made.train_datapool[place][1]) for place in range(4)]
    assert values == [1.0] * (4 - told_of) + [1.5] * told_of
    assert sorted(request_of(claim.name)[1] for claim in claims) == [0, 1, 2][: max(2, 4 - told_of)]
    assert list(shared.glob("runs/*/waiting/*")) == []


@pytest.mark.parametrize("reply", ["comes", "is lost"])
def test_requests_that_should_not_be_begun_any_more_are_taken_back(shared, reply, caplog):
    """Five of six fail, so that labels keep failing; the sixth one is claimed, and its label is taken."""
    many = TensorPool(torch.arange(60.0).reshape(30, 2), info=DataInfo("regression", features=2))
    made = driver(shared.parent / "runs", str(shared), range(30), many, run_id="r", max_failure_rate=0.5)
    worker, claims = open_exchange(str(shared)), []
    exchange = made.label_strategy._exchange
    plain, faults = exchange.withdraw, [AwayError("the reply was lost")] if reply == "is lost" else []

    def withdrawn(run, names):
        task_names = plain(run, names)
        if names and faults:
            raise faults.pop()
        return task_names

    exchange.withdraw = withdrawn

    def five_fail():
        claims.extend(claimed(worker, "one-1-00000001", 6))
        answer_with(worker, claims[:5], {"kind": "infrastructure", "reason": "broken"})

    def the_others_are_gone():
        if list(shared.glob("runs/*/waiting/*")):
            return False
        answer_with(worker, claims[5:], {"kind": "label", "value": 1.0})
        return True

    end_at(made, five_fail, the_others_are_gone)
    made.run()
    assert "5 of the last 6 answers" in made.stop_reason
    states = [request["state"] for request in Run(made.log_dir).requests()]
    assert states.count("labeled") == 1
    assert not faults
    assert "are lost" not in caplog.text


class PutsFromAThread(BaseLabel):
    """Has its answers put by a thread of its own, and is interrupted meanwhile."""

    remote = True

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        request = queue_to_label.get_request()

        def put():
            with contextlib.suppress(Interrupted):
                serialize_queue.put(Label(request, 1.0))

        threading.Thread(target=put, daemon=True).start()
        time.sleep(0.5)
        raise KeyboardInterrupt


def test_worker_ends_while_another_thread_waits_for_the_exchange(shared):
    with sent(driver(shared.parent / "runs", str(shared), run_id="r")):
        pass
    exchange, ended = open_exchange(str(shared)), []
    answer = exchange.answer

    def away(*args):
        if not ended:
            raise AwayError("the folder is away")
        answer(*args)

    exchange.answer = away

    def work():
        with contextlib.suppress(KeyboardInterrupt):
            Worker(exchange, PutsFromAThread(), "puts", home=shared.parent).run()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    ended.append(True)
    assert exchange.waiting(exchange.runs()[0]) == 4


def test_copy_of_a_run_has_an_exchange_of_its_own_and_one_that_was_moved_keeps_it(shared):
    def name_in(root, run):
        again = driver(root, str(shared), run_id=run)
        again.restore()
        with sent(again):
            pass
        return json.loads((root / run / "strategies/worker_label_strategy/exchange.json").read_text())["run"]

    root = shared.parent / "runs"
    with sent(driver(root, str(shared), run_id="r")):
        pass
    first = name_in(root, "r")
    shutil.copytree(root, shared.parent / "copies")
    copied = name_in(shared.parent / "copies", "r")
    assert copied != first
    assert name_in(root, "r") == first
    root.rename(shared.parent / "moved")
    assert name_in(shared.parent / "moved", "r") == first
    assert name_in(shared.parent / "copies", "r") == copied


def test_run_whose_driver_lives_comes_first(shared):
    """Of three runs, that whose driver was heard of is served before what others have left."""
    for run in ("a", "b", "c"):
        with sent(driver(shared.parent / run, str(shared), run_id=run)):
            pass
    for file in shared.glob("runs/*/driver"):
        if file.parent.name[0] != "b":
            os.utime(file, (time.time() - 3600,) * 2)
    strategy = Remote()
    assert work(shared, strategy).answers == 12
    assert [run_driver.run_id for run_driver in strategy.drivers] == ["b", "c", "a"]


def test_run_without_a_driver_makes_room_for_one_that_has_it(shared, monkeypatch):
    monkeypatch.setattr("alcore_worker.scheduling._SLICE_OF_UNATTENDED", 0.0)
    for run in ("a", "b"):
        with sent(driver(shared.parent / run, str(shared), run_id=run)):
            pass
    dead, living = sorted(shared.glob("runs/*/driver"))
    state = living.stat()
    for file in (dead, living):
        os.utime(file, (time.time() - 3600,) * 2)

    def answer(request):
        os.utime(living, (state.st_atime, state.st_mtime))  # it comes while the other one is served
        return 1.0

    strategy = Remote(answer)
    assert work(shared, strategy).answers == 8
    assert [run_driver.run_id for run_driver in strategy.drivers] == ["a", "b", "a"]


def test_full_disk_is_waited_for_while_answers_are_read(shared, monkeypatch):
    """Two of the four requests find room, and are answered; that is committed while the disk is full again."""
    from alcore_worker import files

    monkeypatch.setattr("alcore_worker.run_tasks._ROOM_AGAIN", 0.02)
    monkeypatch.setattr("alcore_worker.strategy._AT_ONCE", 2)
    made = driver(shared.parent / "runs", str(shared), run_id="r")
    original, disk = files.write, {"free": 2}  # documents: two tasks

    def write(path, content, *, durable):
        if path.parent.name == "parts":
            if not disk["free"]:
                raise OSError(28, "No space left on device")
            disk["free"] -= 1
        original(path, content, durable=durable)

    def answer_two():
        disk["free"] = 2
        assert work(shared, Remote()).answers == 2

    def two_are_committed():
        return [request["state"] for request in Run(made.log_dir).requests()].count("labeled") == 2

    def answer_the_others():
        disk["free"] = 9
        return work(shared, Remote()).answers == 2

    monkeypatch.setattr(files, "write", write)
    end_at(made, answer_two, two_are_committed, answer_the_others)
    made.run()
    assert [request["state"] for request in Run(made.log_dir).requests()] == ["labeled"] * 4
    assert "requests are sent when there is room again" in (made.log_dir / "console.log").read_text()


def test_beat_that_a_run_does_not_wait_for_is_told_and_made_shorter(shared, caplog):
    with sent(driver(shared.parent / "runs", str(shared), run_id="r", silent_after=0.6)):
        pass
    worker = work(shared, Remote(), beat=30.0)
    assert worker._heartbeat.seconds == pytest.approx(0.2)
    (told,) = [record.message for record in caplog.records if "silent_after" in record.message]
    assert "says nothing for 0.6 s (silent_after), and --beat is 30" in told


def test_fork_of_a_run_has_an_exchange_of_its_own(shared):
    one = driver(shared.parent / "runs", str(shared), run_id="r")
    with sent(one):
        pass
    file = one.log_dir / "strategies" / "worker_label_strategy" / "exchange.json"
    assert file.is_file()
    other = driver(shared.parent / "runs", str(shared), run_id="other")
    with sent(other):
        pass
    copied = other.log_dir / "strategies" / "worker_label_strategy" / "exchange.json"
    copied.write_text(file.read_text())
    again = driver(shared.parent / "runs", str(shared), run_id="other")
    again.restore()
    with sent(again):
        pass
    assert json.loads(copied.read_text())["run"].startswith("other-")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"silent_after": 0.0}, "silent_after"),
        ({"silent_after": 1e9}, "silent_after"),
        ({"longest_wait": float("inf")}, "longest_wait"),
        ({"most_lost": 0}, "most_lost"),
        ({"max_in_flight": 0}, "max_in_flight"),
    ],
)
def test_values_out_of_range_are_refused(shared, parameters, told):
    with pytest.raises(UsageError, match=told):
        WorkerLabelStrategy(str(shared), **parameters)


@pytest.mark.parametrize("parameters", [{"beat": 0.0}, {"beat": float("nan")}, {"beat": 1e300}, {"idle": float("nan")}])
def test_seconds_of_a_worker_out_of_range_are_refused(shared, parameters):
    with pytest.raises(UsageError, match="must be a number of seconds"):
        Worker(open_exchange(str(shared)), Remote(), "mine", **parameters)


def test_folder_that_cannot_be_written_to_is_told(shared):
    if os.geteuid() == 0:
        target = Path("/proc/self")  # root may write anywhere else
    else:
        target = shared
        shared.chmod(0o500)
    with pytest.raises(UsageError, match="can't be used by workers"):
        WorkerLabelStrategy(str(target))


def becomes_a_link(folder):
    folder.rename(folder.with_name("away"))
    folder.symlink_to(folder.parent)


def test_folder_that_becomes_a_link_ends_the_run_with_one_paragraph(shared):
    made = driver(shared.parent / "runs", str(shared), run_id="r")
    end_at(made, lambda: becomes_a_link(next(shared.glob("runs/*/answers"))))
    with pytest.raises(UsageError, match="answers is not a folder but a link"):
        made.run()
    assert [request["state"] for request in Run(made.log_dir).requests()] == ["open"] * 4


def test_run_whose_folder_becomes_a_link_is_left_and_others_are_served(shared, caplog):
    for name in ("a", "b"):
        with sent(driver(shared.parent / "runs", str(shared), run_id=name)):
            pass

    def answer(request):
        (folder,) = shared.glob("runs/a-*/answers")
        if not folder.is_symlink():
            becomes_a_link(folder)
        return Label(request, 1.0)

    worker = work(shared, Remote(answer))
    assert worker.answers == 4
    assert len(list(shared.glob("runs/b-*/answers/*.json"))) == 4
    assert len(list(shared.glob("runs/a-*/waiting/*.0.json"))) == 4, "also that of which the answer is lost"
    told = [record.message for record in caplog.records if "runs/a-" in record.message or "run a-" in record.message]
    assert len(told) == 2
    assert "is left alone" in told[0] + told[1]
    assert "1 answers" in told[0] + told[1]
