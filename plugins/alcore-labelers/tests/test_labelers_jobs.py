"""The strategy `jobs` on this machine and on a made-up scheduler: each attempt runs once, whatever ends when."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alcore_labelers import (
    CommandLabelStrategy,
    FunctionLabelStrategy,
    Job,
    Jobs,
    JobsLabelStrategy,
    Known,
    NotSubmittedError,
    SchedulerError,
    SchedulerFault,
)
from alcore_labelers.command_jobs import CommandJobs
from alcore_labelers.flight import Backoff, Flight
from alcore_labelers.job_script import SCRIPT, Terms, how_it_ended, job_script, seconds_worked, terms_of
from alcore_labelers.local_jobs import LocalJobs
from alcore_labelers.programs import end_processes, running_in
from alcore_labelers.scheduler_commands import call
from alcore_testing import ElsewhereLabelContract, LabelContract, build_driver, run_command, toy_pool

from alcore import BaseQuery
from alcore.errors import UsageError
from alcore.protocols import Label, Request
from alcore.store import Run

ASKED = (9, 2, 30, 17)


class Asks(BaseQuery):
    def __init__(self, samples=ASKED):
        self.samples = samples

    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(self.samples)


def shell(folder, body, name="solver"):
    """Write a program for sh, and return its name."""
    path = folder / f"{name}.sh"
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return str(path)


def driver_of(folder, command, *, restore=None, **parameters):
    asks = Asks(parameters.pop("samples", ASKED))
    of_driver = ("label_retries", "max_failure_rate", "max_active_learning_steps")
    settings = {"max_active_learning_steps": 1} | {
        name: parameters.pop(name) for name in of_driver if name in parameters
    }
    given = {"max_in_flight": 4, "settle": 0.2, "heartbeat": 0.1, "lost_after": 0.5, **parameters}
    driver = build_driver(
        folder / "runs", asks, pool=toy_pool("classes"), label=JobsLabelStrategy(command, **given), run_id="r",
        skip_training=True, **settings,
    )  # fmt: skip
    if restore is not None:
        driver.restore(**restore)
    return driver


def run(folder, command, **parameters):
    driver = driver_of(folder, command, **parameters)
    driver.run()
    return Run(driver.log_dir)


def states(ran):
    return [request["state"] for request in ran.requests()]


def folders(folder):
    return sorted(folder.glob("runs/r/strategies/*/work/*/attempt-*"))


def ledger_of(folder):
    """Return what each start of the solver wrote: request and attempt."""
    path = folder / "ledger"
    return path.read_text().split() if path.exists() else []


def solver(folder, body="echo 1"):
    return shell(folder, f'echo "$ALCORE_REQUEST-$ALCORE_ATTEMPT" >> {folder}/ledger\n{body}')


def appears(found, seconds=20.0):
    until = time.monotonic() + seconds
    while not (known := found()):
        assert time.monotonic() < until, "it does not appear"
        time.sleep(0.02)
    return known


class TestContract(LabelContract):
    name = "jobs"
    required_parameters = ("run",)
    idempotent = True
    one_by_one = False
    batch = True

    def make(self, **parameters):
        labels = {sample: int(self.pool().answer(sample)[1]) for sample in range(40)}
        cases = " ".join(f"{sample}) echo {label};;" for sample, label in labels.items())
        command = f"sh -c 'case $ALCORE_SAMPLE in {cases} *) exit 1;; esac'"
        return JobsLabelStrategy(command, **{"settle": 0.2, "cost": "expected", **parameters})


class TestWithoutWaiting(ElsewhereLabelContract):
    """Jobs that nobody waits for, which end when a gate is opened."""

    name = "jobs"
    required_parameters = ("run",)
    idempotent = True
    polls = False

    @pytest.fixture(autouse=True)
    def _gate(self, tmp_path):
        self.folder = tmp_path
        yield
        self.work()

    def make(self, **parameters):
        cases = " ".join(f"{sample}) echo {int(self.pool().answer(sample)[1])};;" for sample in range(40))
        program = shell(
            self.folder,
            f"""
            echo $ALCORE_REQUEST >> {self.folder}/ledger
            while [ ! -e {self.folder}/gate ]; do sleep 0.02; done
            case $ALCORE_SAMPLE in {cases} *) exit 1;; esac
            """,
        )
        given = {"settle": 0.2, "cost": "expected", "wait": False, "max_in_flight": 4}
        return JobsLabelStrategy(program, **{**given, **parameters})

    def work(self):
        (self.folder / "gate").touch()
        time.sleep(0.2)

    def sent(self):
        """Each attempt has a folder, and its program is to run once there."""
        started = ledger_of(self.folder)
        twice = [one for place, one in enumerate(started) if one in started[:place]]
        return [place.parent.name for place in self.folder.rglob("attempt-*")] + twice


def test_arguments_of_a_job_are_not_seen_by_the_shell(tmp_path):
    argv = ["a b", "$(touch hacked)", "; touch hacked", "'\"\\", "x\ny", "*", ""]
    program = (
        f"import json, os, sys; json.dump([sys.argv[1:], os.environ['MINE']], open({str(tmp_path / 'got')!r}, 'w'))"
    )
    script = job_script(tmp_path, [sys.executable, "-c", program, *argv], {"MINE": "$(touch hacked)'"}, 5.0, 1.0)
    (tmp_path / "job.sh").write_bytes(script)
    subprocess.run(["sh", "job.sh"], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "got").read_text()) == [argv, "$(touch hacked)'"]
    assert not (tmp_path / "hacked").exists()
    (tmp_path / "got").unlink()
    subprocess.run(["sh", "job.sh"], cwd=tmp_path, check=True)
    assert not (tmp_path / "got").exists(), "a second start runs the program again"


@pytest.mark.parametrize(
    ("content", "code", "seconds", "timed_out"),
    [
        ("0 100.25 103.5", 0, 3.25, False),
        ("3 100.%N 103.%N", 3, 3, False),  # of a date(1) without fractions
        ("137 100 103", -9, 3, False),
        ("124 100 105", 124, 5, True),
        ("137 100 106", -9, 6, True),
        ("", None, 0, False),
    ],
)
def test_how_a_job_ended_is_read_from_what_it_wrote_last(tmp_path, content, code, seconds, timed_out):
    assert how_it_ended(tmp_path, 5.0) is None
    (tmp_path / "exit").write_text(content)
    ended = how_it_ended(tmp_path, 5.0)
    assert (ended.code, ended.seconds, ended.timed_out) == (code, seconds, timed_out)


def test_time_of_a_job_that_was_killed_ends_with_what_it_wrote_last(tmp_path):
    """A driver that looks days later doesn't pay for days."""
    assert seconds_worked(tmp_path) == 0
    for name, time_of in (("started", 1000), ("stdout", 1030), ("request.json", 990)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time_of, time_of))
    assert seconds_worked(tmp_path) == 30


# -- on this machine -------------------------------------------------------------------------------------------


def test_jobs_are_limited_and_cost_their_seconds(tmp_path):
    count = f"ls {tmp_path}/runs/r/strategies/*/work/*/*/working 2> /dev/null | wc -l"
    body = f"touch working; {count} >> {tmp_path}/at_once; sleep 0.3; rm working; echo 1"
    ran = run(tmp_path, solver(tmp_path, body), max_in_flight=2)
    assert states(ran) == ["labeled"] * 4
    assert {int(line) for line in (tmp_path / "at_once").read_text().split()} <= {1, 2}
    assert all(0.3 <= request["cost"] < 10 for request in ran.requests())


ENDS = {
    "exit code": ("echo no mesh >&2; exit 4", {}, "infrastructure", "exit code 4: no mesh"),
    "infeasible": ("exit 3", {"infeasible_exits": [3]}, "infeasible", "exit code 3"),
    "limit of time": ("sleep 30", {"time_limit": 0.3}, "timeout", "after 0.3"),
    "program killed": ("kill -9 $$", {}, "infrastructure", "ended by signal 9"),
    "job killed": ("kill -9 0", {}, "infrastructure", "ended without saying how"),
    "nothing": ("true", {}, "infrastructure", "left no answer"),
}


@pytest.mark.parametrize("case", ENDS)
def test_end_of_a_job_is_told_with_its_kind(tmp_path, case):
    body, parameters, kind, reason = ENDS[case]
    ran = run(tmp_path, solver(tmp_path, body), **parameters)
    refusals = [(refusal["kind"], refusal["reason"]) for refusal in ran.refused()]
    assert {one for one, _ in refusals} == {kind}
    assert all(reason in text for _, text in refusals)
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 4


def test_failed_attempt_is_retried_in_a_folder_of_its_own(tmp_path):
    ran = run(
        tmp_path,
        solver(tmp_path, '[ "$ALCORE_ATTEMPT" = 1 ] && echo 1 || kill -9 0'),
        label_retries=1,
        max_failure_rate=1.0,
    )
    assert states(ran) == ["labeled"] * 4
    assert len(folders(tmp_path)) == len(set(ledger_of(tmp_path))) == 8


def test_run_that_does_not_wait_ends_and_is_resumed(tmp_path):
    command = solver(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo 1")
    first = driver_of(tmp_path, command, wait=False, max_in_flight=3)
    first.run()
    assert first.stop_reason.startswith("waiting")
    assert "3 jobs are under way, and 1 more are to be submitted" in first.stop_reason
    again = driver_of(tmp_path, command, wait=False, max_in_flight=3, restore={})
    again.run()
    assert again.stop_reason.startswith("waiting")
    again.run()
    assert again.stop_reason.startswith("waiting")
    (tmp_path / "go").touch()
    appears(lambda: len(list(tmp_path.glob("runs/r/strategies/*/work/*/*/exit"))) == 3)
    last = driver_of(tmp_path, command, restore={})
    last.run()
    assert states(Run(last.log_dir)) == ["labeled"] * 4
    assert len(ledger_of(tmp_path)) == len(set(ledger_of(tmp_path))) == 4


def test_no_more_jobs_are_submitted_where_labels_keep_failing(tmp_path):
    pool = toy_pool("classes")
    asked = pool.unlabeled_indices().tolist()[:40]

    class AsksForMany(BaseQuery):
        def sample(self, query_queue, *args, **kwargs):
            query_queue.put_many(asked)

    label = JobsLabelStrategy(solver(tmp_path, "exit 1"), max_in_flight=2)
    driver = build_driver(
        tmp_path / "runs", AsksForMany(), pool=pool, label=label, skip_training=True, max_active_learning_steps=1
    )
    driver.run()
    assert "keep failing" in driver.stop_reason
    assert len(ledger_of(tmp_path)) < len(asked)


def test_run_that_does_not_wait_notices_jobs_that_were_killed(tmp_path):
    driver = driver_of(tmp_path, solver(tmp_path, "sleep 60"), wait=False)
    driver.run()
    appears(lambda: len(ledger_of(tmp_path)) == 4)
    for processes in running_in(folders(tmp_path)).values():
        for process in processes:
            os.kill(process, signal.SIGKILL)
    again = driver_of(tmp_path, solver(tmp_path), wait=False, restore={})
    again.run()
    assert not again.stop_reason.startswith("waiting")
    refusals = Run(again.log_dir).refused()
    assert [refusal["kind"] for refusal in refusals] == ["infrastructure"] * 4
    assert all("ended without saying how" in refusal["reason"] for refusal in refusals)


def test_silence_of_a_job_begins_with_its_last_heartbeat(tmp_path, monkeypatch):
    flight = Flight(Request("0" * 32, 0, 0, 1), Job("n", tmp_path, tmp_path / SCRIPT, None), "n", heartbeat=10.0)
    now = [100.0]
    monkeypatch.setattr("alcore_labelers.flight.time.monotonic", lambda: now[0])
    assert flight.seconds_silent("1") == 0  # it may be of a job that is dead for days
    assert flight.is_ending
    now[0] = 130.0
    assert flight.seconds_silent("1") == 30
    assert flight.seconds_silent("2") == 0
    assert not flight.is_ending
    now[0] = 200.0
    assert flight.seconds_silent("2") == 0, "it is unknown again from now on"
    now[0] = 210.0
    assert flight.seconds_silent("2") == 10
    assert flight.is_ending
    flight.is_there()
    assert not flight.is_ending


@pytest.mark.parametrize("content", ["abc 1 2", "1e5 1 2", "0 nan 1", "0 1 inf", "0", "\xff"])
def test_damaged_end_of_a_job_is_a_failure(tmp_path, content):
    (tmp_path / "exit").write_text(content)
    ended = how_it_ended(tmp_path, 1.0)
    assert (ended.code, ended.reason) == (None, "the file exit of the job is damaged")


def test_interruption_leaves_jobs_running(tmp_path):
    command = solver(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo 1")

    def interrupt():
        appears(lambda: len(ledger_of(tmp_path)) == 4)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, command)
    assert len(running_in(folders(tmp_path))) == 4
    (tmp_path / "go").touch()
    driver = driver_of(tmp_path, command, restore={})
    driver.run()
    assert states(Run(driver.log_dir)) == ["labeled"] * 4
    assert len(ledger_of(tmp_path)) == len(set(ledger_of(tmp_path))) == 4


class Killed(BaseException):
    pass


def killing(patch):
    """Return a function that ends the driver as SIGKILL does: nothing is given back."""

    def cut(*_args):
        patch.setattr("alcore_labelers.jobs.give_back", lambda *_args: None)
        raise Killed

    return cut


POINTS = {
    "before submitting": (LocalJobs, "submit"),
    "between submitting and committing": (JobsLabelStrategy, "_commit"),
    "before the answer": (JobsLabelStrategy, "deliver"),
}


@pytest.mark.parametrize("point", POINTS)
def test_attempt_is_submitted_once_wherever_the_driver_ends(tmp_path, monkeypatch, point):
    command = solver(tmp_path, "sleep 0.2; echo 1")
    with monkeypatch.context() as patch:
        patch.setattr(*POINTS[point], killing(patch))
        with pytest.raises(Killed):
            run(tmp_path, command)
    driver = driver_of(tmp_path, command, restore={})
    driver.run()
    assert states(Run(driver.log_dir)) == ["labeled"] * 4
    assert len(ledger_of(tmp_path)) == len(set(ledger_of(tmp_path))) == 4
    assert {request["attempt"] for request in Run(driver.log_dir).requests()} == {0}


# -- on other schedulers ---------------------------------------------------------------------------------------


class Made:
    """A scheduler of this test: runs nothing before it is told to, and may fail."""

    interval = 0.01

    def __init__(self, finds=True):
        self.finds, self.submitted, self.states, self.faults = finds, [], {}, []

    def check(self): ...

    def fail(self):
        fault = self.faults.pop(0) if self.faults else None
        if callable(fault):
            fault()
        elif fault is not None:
            raise fault

    def submit(self, job):
        self.fail()
        self.submitted.append(job.name)
        subprocess.run(["sh", str(job.script)], cwd=job.folder, check=True)
        self.fail()
        return f"job {len(self.submitted)}"

    def find(self, job):
        return f"job {self.submitted.index(job.name) + 1}" if job.name in self.submitted else None

    def poll(self, jobs):
        return {handle: self.states.get(handle, Known("ended")) for handle in jobs}

    def fetch(self, job, handle): ...

    def cancel(self, jobs): ...


class Queued(Made):
    """Starts six jobs, and lets all others wait; what was cancelled may begin all the same."""

    def __init__(self):
        super().__init__()
        self.cancelled = {}

    def submit(self, job):
        self.submitted.append(job.name)
        if len(self.submitted) <= 6:
            subprocess.run(["sh", str(job.script)], cwd=job.folder, check=True)
        else:
            self.states[f"job {len(self.submitted)}"] = Known("waiting")
        return f"job {len(self.submitted)}"

    def cancel(self, jobs):
        self.cancelled |= jobs


def test_jobs_that_have_not_begun_are_taken_back_where_labels_keep_failing(tmp_path):
    queued, samples = Queued(), toy_pool("classes").unlabeled_indices()[:12].tolist()
    settings = {"jobs": queued, "max_in_flight": 12, "max_failure_rate": 0.5, "samples": samples}
    driver = driver_of(tmp_path, solver(tmp_path, "exit 1"), **settings)
    driver.run()
    assert "keep failing" in driver.stop_reason
    ran = Run(driver.log_dir)
    assert sorted(states(ran)) == ["failed"] * 6 + ["open"] * 6
    assert len(queued.cancelled) == 6
    for job in queued.cancelled.values():
        subprocess.run(["sh", str(job.script)], cwd=job.folder, check=False)  # it comes too late
    assert len(ledger_of(tmp_path)) == 6
    settings |= {"jobs": Made(), "max_active_learning_steps": 2}
    again = driver_of(tmp_path, solver(tmp_path), **settings, restore={})
    again.run()
    assert sorted(states(Run(again.log_dir))) == ["failed"] * 6 + ["labeled"] * 6
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 12


def test_a_scheduler_is_a_few_methods():
    assert isinstance(Made(), Jobs)
    assert isinstance(LocalJobs(), Jobs)


def test_scheduler_that_cant_be_reached_is_tried_again(tmp_path):
    made = Made()
    made.faults = [SchedulerFault("down"), None, SchedulerFault("lost the answer")]
    ran = run(tmp_path, solver(tmp_path), jobs=made)
    assert states(ran) == ["labeled"] * 4
    assert len(made.submitted) == len(set(made.submitted)) == 4


@pytest.mark.parametrize("finds", [True, False])
def test_refusal_of_the_scheduler_is_a_failure_of_its_request_and_costs_nothing(tmp_path, finds):
    made = Made(finds)
    made.faults = [SchedulerError("no such partition.")]
    ran = run(tmp_path, solver(tmp_path), jobs=made, cost="expected")
    assert states(ran) == ["failed", "labeled", "labeled", "labeled"]
    ((one),) = ran.refused()
    assert (one["kind"], one["cost"], "no such partition; see" in one["reason"]) == ("infrastructure", 0, True)
    assert len(made.submitted) == 3


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        (Known("infrastructure", "its node failed"), "infrastructure"),
        (Known("timeout", "its limit"), "timeout"),
        (Known("cancelled", "it was cancelled"), "dropped"),
    ],
)
def test_what_the_scheduler_says_decides_where_the_job_says_nothing(tmp_path, known, kind):
    made = Made()
    made.states["job 2"] = known
    ran = run(tmp_path, shell(tmp_path, '[ "$ALCORE_SAMPLE" = 2 ] && kill -9 $PPID || echo 1'), jobs=_Killing(made))
    assert states(ran) == ["labeled", "failed", "labeled", "labeled"]
    ((found, reason),) = [(refusal["kind"], refusal["reason"]) for refusal in ran.refused()]
    assert (found, known.reason in reason) == (kind, True)


class _Killing:
    """A scheduler whose jobs may be killed."""

    def __init__(self, made):
        self._made, self.interval, self.finds = made, made.interval, made.finds
        self.check, self.find, self.poll, self.fetch, self.cancel = (
            made.check,
            made.find,
            made.poll,
            made.fetch,
            made.cancel,
        )

    def submit(self, job):
        try:
            return self._made.submit(job)
        except subprocess.CalledProcessError:
            return f"job {len(self._made.submitted)}"


@pytest.mark.parametrize("decision", ["ask", "drop"])
def test_request_is_in_doubt_where_a_scheduler_finds_nothing(tmp_path, monkeypatch, decision):
    """The driver is killed when the second of four jobs may have been submitted."""
    made, command = Made(finds=False), solver(tmp_path)
    with monkeypatch.context() as patch:
        made.faults = [None, None, killing(patch)]
        with pytest.raises(Killed):
            run(tmp_path, command, jobs=made, max_in_flight=1)
    with pytest.raises(UsageError, match="1 requests were with JobsLabelStrategy"):
        driver_of(tmp_path, command, jobs=made, restore={})
    driver = driver_of(tmp_path, command, jobs=made, restore={"in_doubt": decision})
    driver.run()
    assert states(Run(driver.log_dir)) == [
        "labeled",
        "labeled" if decision == "ask" else "failed",
        "labeled",
        "labeled",
    ]
    assert len(made.submitted) == len(set(made.submitted)) == (4 if decision == "ask" else 3)


def test_submission_whose_end_is_not_known_counts_as_an_attempt_where_nothing_can_be_found(tmp_path):
    """Its job can't begin any more, so that the next attempt is the only one."""
    made, command = Made(finds=False), solver(tmp_path)
    made.faults = [SchedulerFault("no answer")]
    ran = run(tmp_path, command, jobs=made, label_retries=1, heartbeat=0.1, lost_after=0.3)
    assert states(ran) == ["labeled"] * 4
    ((one),) = ran.refused()
    assert (one["kind"], "it was not taken: no answer" in one["reason"]) == ("infrastructure", True)
    first = next(
        folder for folder in folders(tmp_path) if (folder / "delivered").exists() and not (folder / "exit").exists()
    )
    subprocess.run(["sh", str(first / SCRIPT)], check=True)
    assert len(ledger_of(tmp_path)) == 4


class Far(Made):
    """A scheduler whose jobs run beside the driver, and which may know nothing of them, or something wrong."""

    id_variable = "FAR_ID"

    def __init__(self, said=None, found=None, numbers=(7, 8, 9, 10)):
        super().__init__()
        self.said, self.found, self.numbers, self.processes = said, found, list(numbers), []

    def submit(self, job):
        self.fail()
        self.submitted.append(job.name)
        number = str(self.numbers[len(self.submitted) - 1])
        env = {**os.environ, "FAR_ID": number}
        self.processes.append(subprocess.Popen(["sh", str(job.script)], env=env, start_new_session=True))
        appears(lambda: (job.folder / "heartbeat").exists() or self.processes[-1].poll() is not None)
        return number

    def find(self, job):
        return self.found

    def poll(self, jobs):
        self.fail()
        return {} if self.said is None else dict.fromkeys(jobs, self.said)

    def kill(self):
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("said", [None, Known("cancelled")])
def test_job_with_a_heartbeat_is_alive_whatever_the_scheduler_says(tmp_path, said):
    far = Far(said)
    ran = run(tmp_path, solver(tmp_path, "sleep 1; echo 1"), jobs=far, lost_after=0.4)
    assert states(ran) == ["labeled"] * 4
    assert len(ledger_of(tmp_path)) == len(set(ledger_of(tmp_path))) == len(far.submitted) == 4


@pytest.mark.parametrize(("said", "reason"), [(None, "gave no heartbeat for"), (Known("ended"), "without saying how")])
def test_job_without_a_heartbeat_is_lost_after_a_time_that_is_settable(tmp_path, said, reason):
    far = Far(said)
    driver = driver_of(tmp_path, solver(tmp_path, "sleep 60"), jobs=far, wait=False)
    driver.run()
    assert driver.stop_reason.startswith("waiting")
    appears(lambda: len(ledger_of(tmp_path)) == 4)
    far.kill()
    begin = time.monotonic()
    again = driver_of(tmp_path, solver(tmp_path), jobs=far, wait=False, restore={}, lost_after=1.0)
    again.run()
    assert (time.monotonic() - begin >= 1.0) == (said is None)
    refusals = Run(again.log_dir).refused()
    assert [(refusal["kind"], reason in refusal["reason"]) for refusal in refusals] == [("infrastructure", True)] * 4


def test_two_attempts_of_one_number_are_told_apart(tmp_path):
    """The scheduler forgot the first one, and gave its number again."""
    far = Far(Known("running"), numbers=(7, 7, 8, 9))
    ran = run(tmp_path, solver(tmp_path, "[ $ALCORE_SAMPLE = 9 ] && kill -9 0; sleep 0.2; echo 1"), jobs=far)
    assert states(ran) == ["failed", "labeled", "labeled", "labeled"]
    assert ["the scheduler doesn't know it" in refusal["reason"] for refusal in ran.refused()] == [True]


class Forgets(Far):
    """A scheduler that forgets its jobs before they begin."""

    def submit(self, job):
        self.submitted.append(job.name)
        return str(len(self.submitted))


def test_job_that_never_began_and_is_unknown_is_lost_and_can_begin_no_more(tmp_path):
    forgets = Forgets()
    ran = run(tmp_path, solver(tmp_path), jobs=forgets)
    assert states(ran) == ["failed"] * 4
    for refusal in ran.refused():
        silent = re.search(r"it has not begun, and for ([\d.]+) s the scheduler didn't know it", refusal["reason"])
        assert float(silent[1]) >= 0.5
        assert refusal["cost"] == 0
    for folder in folders(tmp_path):
        subprocess.run(["sh", str(folder / SCRIPT)], check=True)
    assert ledger_of(tmp_path) == []


def test_job_that_is_known_by_its_name_alone_is_taken_up(tmp_path):
    """Its number is another one's by now."""
    forgets = Forgets(found="99")
    driver = driver_of(tmp_path, solver(tmp_path), jobs=forgets, max_in_flight=1, wait=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forgets, "poll", lambda _self, jobs: {"99": Known("waiting")} if "99" in jobs else {})
        driver.run()
    assert driver.stop_reason.startswith("waiting")
    assert next(request["handle"] for request in Run(driver.log_dir).requests()) == "99"


def test_id_that_a_job_wrote_itself_is_its_handle(tmp_path):
    """The driver was killed before it knew the handle, or the scheduler forgot the job and was given another one."""
    far = Far(Known("running"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*POINTS["between submitting and committing"], killing(patch))
        with pytest.raises(Killed):
            run(tmp_path, solver(tmp_path, "sleep 1; echo 1"), jobs=far, max_in_flight=1)
    appears(lambda: ledger_of(tmp_path))
    driver = driver_of(tmp_path, solver(tmp_path), jobs=far, restore={}, max_in_flight=1, wait=False)
    driver.run()
    assert next(request["handle"] for request in Run(driver.log_dir).requests()) == "7"
    assert len(far.submitted) == 1


class Fails(Far):
    """A scheduler that takes jobs, and can't tell any more what has become of them."""

    def find(self, job):
        raise SchedulerError("something that was never seen")


@pytest.mark.parametrize("fault", [SchedulerError("something that was never seen"), OSError("no route")])
def test_fault_that_nobody_knows_is_told_once_and_ends_no_run(tmp_path, caplog, fault):
    far = Far(Known("running"))
    far.faults = [None, fault, fault]  # of the first submission, and of two polls
    ran = run(tmp_path, solver(tmp_path, "[ $ALCORE_SAMPLE = 9 ] && sleep 0.7; echo 1"), jobs=far, max_in_flight=1)
    assert states(ran) == ["labeled"] * 4
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [str(fault) in message for message in told] == [True, False]
    assert "answers again" in told[1]


def test_scheduler_that_is_gone_for_good_fails_its_requests_after_a_time_that_is_settable(tmp_path):
    far = Fails()
    far.faults = [None] * 4 + [SchedulerFault("no answer")] * 1000
    body = f"[ $ALCORE_SAMPLE = 9 ] && touch {tmp_path}/alive && sleep 2; [ $ALCORE_SAMPLE = 2 ] && kill -9 0; echo 1"
    ran = run(tmp_path, solver(tmp_path, body), jobs=far, give_up_after=0.6)
    assert (tmp_path / "alive").exists()
    assert states(ran) == ["labeled", "failed", "labeled", "labeled"]


def test_submission_that_is_refused_for_now_is_given_up_after_a_time(tmp_path):
    made = Made(finds=False)
    made.faults = [NotSubmittedError("the queue is full")] * 4  # the last one is told the second request
    ran = run(tmp_path, solver(tmp_path), jobs=made, give_up_after=0.5)
    assert states(ran) == ["failed", "labeled", "labeled", "labeled"]
    assert ["it was not taken: the queue is full" in refusal["reason"] for refusal in ran.refused()] == [True]
    assert len(ledger_of(tmp_path)) == 3


def test_job_is_judged_by_the_limit_that_it_was_submitted_with(tmp_path):
    far = Far(Known("timeout", "its limit"))
    command = solver(tmp_path, "sleep 0.6; exit 124")
    driver = driver_of(tmp_path, command, jobs=far, wait=False, time_limit=60.0)
    driver.run()
    appears(lambda: len(list(tmp_path.glob("runs/r/strategies/*/work/*/*/exit"))) == 4)
    again = driver_of(tmp_path, command, jobs=far, restore={}, time_limit=0.2)
    again.run()
    refusals = Run(again.log_dir).refused()
    assert {(refusal["kind"], "exit code 124" in refusal["reason"]) for refusal in refusals} == {
        ("infrastructure", True)
    }
    for damaged in ("", "{}", '{"time_limit": -1, "heartbeat": 1}', '{"time_limit": "x", "heartbeat": 1}', "["):
        (tmp_path / "job.json").write_text(damaged)
        assert terms_of(tmp_path, Terms(3.0, None)) == Terms(3.0, None)


COMMANDS = """
import os, pathlib, subprocess, sys
what, name = sys.argv[1:3]
book = pathlib.Path({book!r})
book.mkdir(exist_ok=True)
if what == "submit":
    with open(book / "log", "a") as file:
        file.write(name + "\\n")
    job = subprocess.Popen(["setsid", "sh", sys.argv[3]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (book / name).write_text(str(job.pid))
    print("submitted as\\n" + name)
elif what == "find":
    print(name if (book / name).exists() else "")
elif what == "poll":
    alive = os.path.exists("/proc/" + (book / name).read_text() + "/exe")
    print("running" if alive else "ended")
"""


def test_any_scheduler_by_commands(tmp_path, monkeypatch):
    (tmp_path / "batch.py").write_text(COMMANDS.format(book=str(tmp_path / "book")))
    monkeypatch.chdir(tmp_path)
    parameters = {
        "scheduler": "commands", "submit": f"{sys.executable} batch.py submit {{name}} {{script}}",
        "poll": f"{sys.executable} batch.py poll {{handle}}", "find": f"{sys.executable} batch.py find {{name}}",
        "poll_interval": 0.1,
    }  # fmt: skip
    ran = run(tmp_path, solver(tmp_path, "sleep 0.2; echo 1"), **parameters)
    assert states(ran) == ["labeled"] * 4
    submitted = (tmp_path / "book" / "log").read_text().split()
    assert sorted(request.split(".")[0] for request in submitted) == sorted(
        f"job-{request['id']}-0" for request in ran.requests()
    )


def test_find_ends_the_command_that_a_killed_driver_left_and_nothing_else(tmp_path):
    """A scheduler's client that waits with the job, and who looks at its script, are no such command."""
    (tmp_path / SCRIPT).touch()
    job = Job("n-0", tmp_path, tmp_path / SCRIPT, None)
    client = "setsid sh -c 'touch client; sleep 60; :' sh $2 > log 2>&1 &"
    submit = shell(tmp_path, f"cd {tmp_path}; {client} touch submitting; sleep 60; echo 7", "submit")
    commands = CommandJobs(f"{submit} {{name}} {{script}}", "true", find="echo 7")
    looker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(job.script)])
    driver = subprocess.Popen(
        [sys.executable, "-c", f"""if True:
            from pathlib import Path
            from alcore_labelers import Job
            from alcore_labelers.command_jobs import CommandJobs
            job = Job("n-0", Path(), Path({str(job.script)!r}), None)
            CommandJobs({f"{submit} {{name}} {{script}}"!r}, "true").submit(job)
        """]
    )  # fmt: skip

    def running(word):
        """Return the processes with a word in their command line."""
        pids = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if word.encode() in (path / "cmdline").read_bytes().replace(b"\0", b" "):
                    pids.append(int(path.name))
        return pids

    try:
        appears(lambda: (tmp_path / "submitting").exists() and (tmp_path / "client").exists())
        driver.kill()
        driver.wait()
        assert running(f"{submit} n-0")
        assert commands.find(job) == "7"
        assert not running(f"{submit} n-0")
        assert looker.poll() is None
        assert running(f"touch client; sleep 60; : sh {job.script}")
    finally:
        looker.kill()
        looker.wait()
        for process in running(str(tmp_path)):
            os.kill(process, signal.SIGKILL)


def test_find_lets_a_job_live_that_runs_here_with_its_script_as_argument(tmp_path):
    """The command that was submitting may be ended; a job that has begun may not."""
    (tmp_path / SCRIPT).write_bytes(job_script(tmp_path, ["sleep", "60"], {}, None, 1.0))
    job = Job("n-0", tmp_path, tmp_path / SCRIPT, None)
    process = subprocess.Popen(["sh", str(job.script)], start_new_session=True)
    try:
        appears(lambda: (tmp_path / "started").exists())
        assert CommandJobs("true", "true", find="echo 7").find(job) == "7"
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_jobs_of_another_run_directory_have_other_names(tmp_path):
    """A run that was deleted, and begun again under its name, must not take up the jobs of the first one."""
    made = Made()
    run(tmp_path, solver(tmp_path), jobs=made)
    (tmp_path / "runs").rename(tmp_path / "before")
    assert states(run(tmp_path, solver(tmp_path), jobs=made)) == ["labeled"] * 4
    assert len(set(made.submitted)) == 8
    assert len({name.split(".")[0] for name in made.submitted}) == 4


def test_commands_of_a_scheduler_are_called_with_the_job(tmp_path):
    job = Job("name-0", tmp_path / "a folder", tmp_path / "job.sh", 60.0)
    commands = CommandJobs(
        submit="echo {name} {time_limit}", poll="echo {handle}", find="true", interval=0.0,
        cancel=f"touch {tmp_path}/cancelled-{{handle}}", fetch=f"cp {tmp_path}/exit {tmp_path}/fetched-{{handle}}",
    )  # fmt: skip
    commands.check()
    assert commands.submit(job) == "name-0 60.0"
    assert commands.find(job) is None
    assert commands.poll({"Running": job, "unknown": job, "preempted": job}) == {
        "Running": Known("running", "Running"),
        "preempted": Known("infrastructure", "preempted"),
    }
    with pytest.raises(SchedulerFault, match="printed 'gone' for the job gone; it must print one of waiting, "):
        commands.poll({"gone": job})
    commands.cancel({"7": job})
    assert (tmp_path / "cancelled-7").exists()
    with pytest.raises(SchedulerFault, match="fetch failed with exit code 1"):
        commands.fetch(job, "7")
    (tmp_path / "exit").touch()
    commands.fetch(job, "7")
    assert (tmp_path / "fetched-7").exists()
    with pytest.raises(SchedulerError, match="submit failed with exit code 1"):
        CommandJobs(submit="false", poll="true").submit(job)
    for script, error in (
        ("exit 75", NotSubmittedError),
        ("echo qsub: cannot connect to server >&2; exit 111", SchedulerFault),
        ("exit 255", SchedulerFault),
        ("kill -9 $$", SchedulerFault),
    ):
        with pytest.raises(SchedulerFault, match="submit failed with exit code") as told:
            CommandJobs(submit=shlex.join(["sh", "-c", script]), poll="true").submit(job)
        assert told.type is error, script
    with pytest.raises(NotSubmittedError, match="can't be called"):
        CommandJobs(submit=f"{tmp_path}/nowhere", poll="true").submit(job)
    with pytest.raises(SchedulerFault, match="printed no handle"):
        CommandJobs(submit="true", poll="true").submit(job)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"scheduler": "pbs"}, "scheduler is 'pbs'"),
        ({"scheduler": "commands"}, "submit is missing"),
        ({"submit": "qsub"}, "submit is given, and only the scheduler 'commands'"),
        ({"options": ["-p x"]}, "options is given, and only the scheduler 'slurm'"),
        ({"scheduler": "slurm", "options": ["--mem=1G", "-Jwing"]}, "options has '-Jwing'.*leave --job-name out"),
        ({"scheduler": "slurm", "options": ["--job-na=wing"]}, "leave --job-name out"),
        ({"scheduler": "slurm", "options": ["--array=1-3"]}, "leave --array out"),
        ({"scheduler": "commands", "submit": "qsub {scrip}", "poll": "x"}, r"\{scrip\}.*did you mean 'script'"),
        ({"time_limit": 0.0}, "time_limit is 0.0"),
        ({"env": {"A": "a\0b"}}, "env: A: .*NUL"),
        ({"env": {"A": "\ud800"}}, "env: A: .*surrogate"),
        ({"max_in_flight": 0}, "max_in_flight is 0"),
    ],
)
def test_wrong_parameters_are_named(parameters, said):
    with pytest.raises(UsageError, match=said):
        JobsLabelStrategy("echo 1", **parameters)


BY_COMMANDS = {"scheduler": "commands", "submit": "true", "poll": "true"}


@pytest.mark.parametrize(
    ("parameters", "at_once"),
    [
        ({}, 1),
        ({"jobs": LocalJobs()}, 1),
        ({"scheduler": "slurm"}, 100),
        (BY_COMMANDS, 100),
        ({"jobs": Made()}, 100),
        ({"max_in_flight": 7}, 7),
        ({"max_in_flight": 1, "scheduler": "slurm"}, 1),
    ],
    ids=["local", "local object", "slurm", "commands", "object", "given", "given slurm"],
)
def test_a_scheduler_has_many_jobs_at_a_time_and_this_machine_one_unless_it_is_said(parameters, at_once):
    strategy = JobsLabelStrategy("echo 1", **parameters)
    assert (strategy.max_in_flight, strategy.at_once) == (at_once, at_once)


def test_all_requests_of_a_step_are_submitted_to_a_scheduler_at_once(tmp_path):
    class Waits(Made):
        def submit(self, job):
            self.submitted.append(job.name)
            self.states[job.name] = Known("waiting")
            return job.name

    waits, samples = Waits(), toy_pool("classes").unlabeled_indices()[:20].tolist()
    driver = driver_of(tmp_path, solver(tmp_path), jobs=waits, max_in_flight=None, wait=False, samples=samples)
    driver.run()
    assert driver.stop_reason == "waiting for labels: 20 jobs are under way"
    assert len(waits.submitted) == 20


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("label.jobs.run=echo 1",), "label jobs (one at a time),"),
        (("label.jobs.run=echo 1", "label.jobs.scheduler=commands", "label.jobs.submit=echo 1",
          "label.jobs.poll=echo waiting"), "label jobs (up to 100 at a time),"),
        (("label.command.run=echo 1",), "label command (one at a time),"),
        (("label.command.run=echo 1", "label.command.max_in_flight=3"), "label command (up to 3 at a time),"),
        (("label.function.function=math:prod",), "label function (one at a time),"),
        (("label.function.function=math:prod", "label.function.run_in=threads", "label.function.workers=5"),
         "label function (up to 5 at a time),"),
    ],
)  # fmt: skip
def test_first_line_of_a_run_says_how_many_labels_are_got_at_a_time(tmp_path, flags, said):
    name = flags[0].split(".")[1]
    wait = ("label.jobs.wait=false",) if name == "jobs" else ()
    words = [word for flag in (*flags, *wait) for word in ("--set", flag)]
    done = run_command(tmp_path, "run", "--label", name, *words, "--steps", "0", "--run-id", "r")
    assert said in next(line for line in done.err.splitlines() if line.startswith("Run r:"))


@pytest.mark.parametrize(
    ("parameters", "at_once"),
    [
        ({}, 1),
        ({"batch": True, "batch_size": 8}, 8),
        ({"run_in": "threads", "workers": 3}, 3),
        ({"run_in": "threads", "workers": 3, "max_in_flight": 2}, 2),
        ({"run_in": "processes", "workers": 3, "batch": True, "batch_size": 4}, 12),
        ({"executor": ThreadPoolExecutor(1), "max_in_flight": 9}, 9),
    ],
)
def test_function_says_how_many_requests_it_works_on_at_the_same_time(parameters, at_once):
    assert FunctionLabelStrategy(math.prod, **parameters).at_once == at_once


def test_command_says_how_many_requests_it_works_on_at_the_same_time():
    assert CommandLabelStrategy("solve {requests}", max_in_flight=3, batch=4).at_once == 12


def test_command_that_does_not_wait_says_how_to_go_on(tmp_path):
    command = solver(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo 1")
    done = run_command(
        tmp_path, "run", "--label", "jobs", "--set", f"label.jobs.run={command}", "--set", "label.jobs.wait=false",
        "--set", "label.jobs.max_in_flight=20", "--steps", "1", "--run-id", "r",
    )  # fmt: skip
    assert done.code == 3, done.err
    assert "10 jobs are under way" in done.out
    assert "alcore resume r --allow-code" in done.out
    assert "alcore tell" not in done.out
    (tmp_path / "go").touch()
    assert run_command(tmp_path, "resume", "r", "--allow-code", "--set", "label.jobs.wait=true").code == 0
    assert len(ledger_of(tmp_path)) == 10


def test_job_of_this_machine_is_ended_with_all_its_processes(tmp_path):
    (tmp_path / "job.sh").write_bytes(job_script(tmp_path, ["sh", "-c", "sleep 60 & sleep 60"], {}, None, 1.0))
    jobs, job = LocalJobs(), Job("n-0", tmp_path, tmp_path / "job.sh", None)
    jobs.submit(job)
    assert jobs.poll({"n-0": job}) == {"n-0": Known("running")}
    assert jobs.find(job) == "n-0"
    jobs.cancel({"n-0": job})
    assert jobs.poll({"n-0": job}) == {"n-0": Known("ended")}
    assert not end_processes(Path(tmp_path))


def test_job_that_began_on_another_machine_is_left_alone(tmp_path):
    (tmp_path / "started").write_text("12 login1\n")
    job = Job("n-0", tmp_path, tmp_path / "job.sh", None)
    state = LocalJobs().poll({"n-0": job})["n-0"]
    assert state.state == "running"
    assert "began on the machine login1" in state.fault
    (tmp_path / "started").write_text(f"12 {socket.gethostname()}\n")
    assert LocalJobs().poll({"n-0": job}) == {"n-0": Known("ended")}
    (tmp_path / "started").write_text("12 \n")  # of a system without hostname(1)
    assert LocalJobs().poll({"n-0": job}) == {"n-0": Known("ended")}


def test_time_at_work_is_that_of_a_clock_that_nobody_sets(tmp_path, monkeypatch):
    flight = Flight(Request("0" * 32, 0, 0, 1), Job("n", tmp_path, tmp_path / SCRIPT, None), "n")
    now = [100.0]
    monkeypatch.setattr("alcore_labelers.flight.time.monotonic", lambda: now[0])
    (tmp_path / "started").touch()
    os.utime(tmp_path / "started", (0, 0))  # as after a jump of the clock, or by the clock of a file server
    assert flight.seconds_at_work(begun=False) == 0
    assert flight.seconds_at_work(begun=True) == 0
    now[0] = 130.0
    assert flight.seconds_at_work(begun=True) == 30


def test_one_poll_that_fails_leaves_the_other_jobs_known(tmp_path):
    job = Job("name-0", tmp_path, tmp_path / "job.sh", None)
    script = tmp_path / "state"
    script.write_text("#!/bin/sh\n[ $1 = lost ] && exit 153\necho ended\n")
    script.chmod(0o755)
    commands = CommandJobs(submit="true", poll=f"{script} {{handle}}")
    states = commands.poll({"lost": job, "7": job})
    assert states["7"] == Known("ended", "ended")
    assert states["lost"].state == "waiting"
    assert "exit code 153 for the job lost" in states["lost"].fault
    with pytest.raises(SchedulerFault, match="exit code 153"):
        commands.poll({"lost": job})


@pytest.mark.parametrize("run", ["./solve {x0} | tail -1", "./solve {x0} > out", "./a && ./b {x0}", "./a {x0}; ./b"])
def test_command_for_a_shell_is_refused(run):
    with pytest.raises(UsageError, match=r"no shell runs it.*Write a script"):
        JobsLabelStrategy(run)
    quoted = JobsLabelStrategy("./solve {x0} '|' 'a > b' \";\"")
    assert quoted.run.arguments({"x0": 1.5}) == ["./solve", "1.5", "|", "a > b", ";"]


def test_script_of_a_job_is_for_its_owner_alone(tmp_path):
    run(tmp_path, solver(tmp_path))
    scripts = list((tmp_path / "runs").rglob(SCRIPT))
    assert scripts
    assert {script.stat().st_mode & 0o777 for script in scripts} == {0o700}


# -- what is not known for sure ---------------------------------------------------------------------------------


SAYS = ["echo Connection timed out >&2; exit 1", "exit 255", "kill -9 $$", "exit 75", "exit 1", "true"]


@pytest.mark.parametrize("says", SAYS)
def test_attempt_is_submitted_and_run_once_whatever_the_command_says_that_submitted_it(tmp_path, says):
    """A job that has begun is taken up, also where the command claims that it was not submitted."""
    hand_over = (
        f"echo $1 >> {tmp_path}/names; setsid sh $2 > /dev/null 2>&1 & while [ ! -e $3/started ]; do sleep 0.01; done"
    )
    submit = shell(tmp_path, f"{hand_over}; {says}", "submit")
    commands = {"submit": f"{submit} {{name}} {{script}} {{folder}}", "poll": "echo running", "poll_interval": 0.02}
    ran = run(
        tmp_path,
        solver(tmp_path, "sleep 0.2; echo 1"),
        samples=(9, 2),
        scheduler="commands",
        lost_after=0.3,
        **commands,
    )
    assert states(ran) == ["labeled"] * 2
    for names in (ledger_of(tmp_path), (tmp_path / "names").read_text().split()):
        assert len(names) == len(set(names)) == 2


def test_submission_that_is_tried_again_has_another_folder_and_name(tmp_path):
    """The first one can begin no more, should it have been submitted all the same."""
    body = f"echo $1 $2 >> {tmp_path}/names; [ -e $3/../attempt-0-2 ] && echo 7 && exec sh $2; exit 75"
    submit = shell(tmp_path, body, "submit")
    commands = {"submit": f"{submit} {{name}} {{script}} {{folder}}", "poll": "echo ended", "poll_interval": 0.0}
    ran = run(tmp_path, solver(tmp_path), scheduler="commands", max_in_flight=1, samples=(9, 2), **commands)
    assert states(ran) == ["labeled"] * 2
    assert {request["attempt"] for request in ran.requests()} == {0}
    submitted = [line.split() for line in (tmp_path / "names").read_text().splitlines()]
    assert len({name for name, _ in submitted}) == len(submitted) == 4
    for _, script in submitted:
        subprocess.run(["sh", script], check=True)
    assert len(ledger_of(tmp_path)) == 2


def far(folder, fetch="cp $far/$1/* $2"):
    """Return commands of a scheduler whose jobs have folders of their own; those that it waits for have ended."""
    (folder / "far").mkdir()
    bodies = {
        "submit": """
            own=$far/$1; cp -r $3 $own; sed s#$3#$own#g $2 > $own/job.sh
            setsid sh $own/job.sh > /dev/null 2>&1 & echo $1""",
        "poll": "[ -e $far/$1/exit ] && echo ended || echo running",
        "fetch": fetch,
    }
    given = {"submit": "{name} {script} {folder}", "poll": "{handle}", "fetch": "{handle} {folder}"}
    made = {name: shell(folder, f"far={folder}/far\n{body}", name) for name, body in bodies.items()}
    return {"scheduler": "commands", "poll_interval": 0.05} | {name: f"{made[name]} {given[name]}" for name in made}


def test_label_is_taken_once_its_files_were_brought_whole(tmp_path):
    """What comes first is that the job has ended; the connection breaks then, twice."""
    breaks = (
        "cp $far/$1/exit $2; echo $1 >> $far/fetched; [ $(grep -c $1 $far/fetched) -lt 3 ] && exit 1; cp $far/$1/* $2"
    )
    solve = solver(tmp_path, "echo '{\"label\": 1}' > result.json")
    ran = run(tmp_path, solve, answer="result", samples=(9, 2), **far(tmp_path, breaks))
    assert states(ran) == ["labeled"] * 2
    assert ran.refused() == []
    fetched = (tmp_path / "far" / "fetched").read_text().split()
    assert [fetched.count(handle) for handle in set(fetched)] == [3] * 2, "what failed is tried again after a while"


class Apart(Queued):
    """Runs jobs where the driver doesn't see it: six fail, three run, two wait, and one waits and can't be ended."""

    fetches = True

    def submit(self, job):
        handle = super().submit(job)
        if 6 < len(self.submitted) <= 9:
            self.states[handle] = Known("running")
        return handle

    def cancel(self, jobs):
        for handle, job in jobs.items():
            if handle == "job 12":
                raise SchedulerFault("it can't be ended")
            self.cancelled[handle] = job
            self.states[handle] = Known("cancelled")

    def poll(self, jobs):
        if self.cancelled:  # some were taken back: the others run to their end
            for handle, job in jobs.items():
                subprocess.run(["sh", str(job.script)], cwd=job.folder, check=True)
                self.states[handle] = Known("ended")
        return super().poll(jobs)


def test_job_at_work_on_another_machine_is_not_taken_back(tmp_path):
    apart, samples = Apart(), toy_pool("classes").unlabeled_indices()[:12].tolist()
    settings = {"jobs": apart, "max_in_flight": 12, "max_failure_rate": 0.5, "samples": samples}
    driver = driver_of(tmp_path, solver(tmp_path, "exit 1"), **settings)
    driver.run()
    assert sorted(apart.cancelled) == ["job 10", "job 11"]
    assert sorted(states(Run(driver.log_dir))) == ["failed"] * 10 + ["open"] * 2
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 10


STOPS = "trap '{at_end} exit 0' TERM; echo 1; touch {folder}/on-$ALCORE_SAMPLE; while :; do sleep 0.02; done"


@pytest.mark.parametrize(
    ("said", "at_end", "answer", "kind", "reason"),
    [
        (Known("cancelled", "by hand"), "echo 2;", "auto", "dropped", "by hand"),
        (Known("infrastructure", "preempted"), "echo 2;", "auto", "infrastructure", "preempted"),
        (Known("timeout", "its limit"), "echo two;", "stdout", "timeout", "its limit"),
        (Known("ended"), "echo 2;", "auto", "infrastructure", "was sent SIGTERM"),
        (Known("ended"), "echo 2; echo 2 > result.json;", "stdout", "infrastructure", "was sent SIGTERM"),
        (Known("cancelled"), "echo 1 > result.json;", "auto", None, ""),
    ],
)
def test_last_line_of_a_job_that_was_sent_sigterm_is_no_label(tmp_path, said, at_end, answer, kind, reason):
    """A solver prints its iterates, and ends with exit code 0 where it is told to."""
    far = Far(said)
    command = solver(tmp_path, STOPS.format(at_end=at_end, folder=tmp_path))
    driver_of(tmp_path, command, jobs=far, wait=False, samples=(9, 2)).run()
    appears(lambda: len(list(tmp_path.glob("on-*"))) == 2)
    for process in far.processes:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
    again = driver_of(tmp_path, command, jobs=far, restore={}, samples=(9, 2), answer=answer)
    again.run()
    ran = Run(again.log_dir)
    assert states(ran) == ["labeled" if kind is None else "failed"] * 2
    assert [(refusal["kind"], reason in refusal["reason"]) for refusal in ran.refused()] == (
        [] if kind is None else [(kind, True)] * 2
    )


class Broken(Made):
    """A scheduler that can't say why a program was killed."""

    def __init__(self, said):
        super().__init__()
        self.said = said

    def poll(self, jobs):
        if self.said is None:
            raise SchedulerFault("Unknown Job Id")
        return dict.fromkeys(jobs, self.said)


@pytest.mark.parametrize("said", [None, Known("waiting", fault="Unknown Job Id"), Known("running")])
def test_job_that_says_that_it_is_over_is_over_whatever_the_scheduler_says(tmp_path, said):
    begin = time.monotonic()
    ran = run(tmp_path, solver(tmp_path, "kill -9 $$"), jobs=Broken(said), wait=False, samples=(9, 2))
    assert time.monotonic() - begin < 10
    assert [(refusal["kind"], "signal 9" in refusal["reason"]) for refusal in ran.refused()] == [
        ("infrastructure", True)
    ] * 2


@pytest.mark.parametrize("id_variable", ["FAR_ID", ""])
def test_job_that_is_cancelled_before_its_handle_was_committed_is_not_tried_again(tmp_path, id_variable):
    far = Far(Known("cancelled", "by hand"), found="7")
    far.id_variable = id_variable
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*POINTS["between submitting and committing"], killing(patch))
        with pytest.raises(Killed):
            run(tmp_path, solver(tmp_path, "sleep 60"), jobs=far, samples=(9,))
    appears(lambda: ledger_of(tmp_path))
    os.killpg(far.processes[0].pid, signal.SIGTERM)
    far.processes[0].wait(10)
    again = driver_of(tmp_path, solver(tmp_path), jobs=far, restore={}, samples=(9,), label_retries=2)
    again.run()
    kinds = [(refusal["kind"], "by hand" in refusal["reason"]) for refusal in Run(again.log_dir).refused()]
    assert kinds == [("dropped", True)]
    assert len(far.submitted) == 1


@pytest.mark.parametrize("failing", ["exit 153", "sleep 5"])
def test_job_that_cant_be_asked_for_hides_no_other(tmp_path, monkeypatch, failing):
    monkeypatch.setattr("alcore_labelers.command_jobs.call", lambda words: call(words, 0.5))
    job = Job("name-0", tmp_path, tmp_path / "job.sh", None)
    poll = shell(tmp_path, f"[ $1 = lost ] && {failing}; echo ended", "poll")
    states = CommandJobs(submit="true", poll=f"{poll} {{handle}}").poll({"lost": job, "7": job})
    assert states["7"] == Known("ended", "ended")
    assert (states["lost"].state, "job lost" in states["lost"].fault) == ("waiting", True)


def test_what_commands_say_is_kept_in_part(tmp_path):
    job = Job("name-0", tmp_path, tmp_path / "job.sh", None)
    talks = shell(
        tmp_path, "echo ended; yes | head -c 100000; [ $1 = 8 ] && yes >&2 | head -c 100000 >&2; exit 0", "talks"
    )
    states = CommandJobs(submit="true", poll=f"{talks} {{handle}}").poll({"7": job})
    assert states["7"].state == "ended"
    assert len(states["7"].reason) <= 500
    fails = shell(tmp_path, "yes no | head -c 100000 >&2; exit 3", "fails")
    with pytest.raises(SchedulerError) as told:
        CommandJobs(submit=fails, poll="true").submit(job)
    assert len(str(told.value)) < 600


def test_command_cancel_that_fails_or_is_missing_ends_no_job(tmp_path):
    job = Job("name-0", tmp_path, tmp_path / "job.sh", None)
    for cancel, said in (("", "no command cancel"), ("false", "cancel failed with exit code 1")):
        with pytest.raises(SchedulerFault, match=said):
            CommandJobs(submit="true", poll="true", cancel=cancel).cancel({"7": job})


def test_template_that_cant_be_filled_is_told_before_anything_is_bought():
    with pytest.raises(UsageError, match=r"submit: the value of \{time_limit\} is None"):
        CommandJobs(submit="true {time_limit:.0f}", poll="true").check()
    CommandJobs(submit="true {time_limit:.0f}", poll="true", time_limit=60.0).check()


def test_name_of_a_job_begins_with_a_letter(tmp_path):
    """Grid Engine takes no other."""
    made = Made()
    run(tmp_path, solver(tmp_path), jobs=made)
    assert all(re.fullmatch(r"job-[0-9a-f]{32}-0\.[0-9a-f]{6}", name) for name in made.submitted)


@pytest.mark.parametrize("strategy", [JobsLabelStrategy, CommandLabelStrategy])
@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_value_that_no_program_can_be_given_is_a_failure_of_its_request(tmp_path, monkeypatch, strategy, value):
    placeholders = strategy.placeholders

    def with_word(self, item, *args):
        return placeholders(self, item, *args) | {"word": value if item.sample == 2 else "plain"}

    monkeypatch.setattr(strategy, "placeholders", with_word)
    driver = build_driver(
        tmp_path / "runs", Asks((9, 2)), pool=toy_pool("classes"), label=strategy(f"{solver(tmp_path)} {{word}}"),
        run_id="r", skip_training=True, max_active_learning_steps=1,
    )  # fmt: skip
    driver.run()
    ran = Run(driver.log_dir)
    assert states(ran) == ["labeled", "failed"]
    assert ["can't be given to a program" in refusal["reason"] for refusal in ran.refused()] == [True]


@pytest.mark.parametrize("strategy", [JobsLabelStrategy, CommandLabelStrategy])
def test_program_whose_name_has_a_value_is_found_where_alcore_was_started(tmp_path, monkeypatch, strategy):
    monkeypatch.chdir(tmp_path)
    for sample in toy_pool("classes").unlabeled_indices().tolist():
        shell(tmp_path, "echo 1", f"solver_{sample}")
    settings = {"pool": toy_pool("classes"), "run_id": "r", "skip_training": True, "max_active_learning_steps": 1}
    driver = build_driver(tmp_path / "runs", Asks((9,)), label=strategy("./solver_{sample}.sh"), **settings)
    driver.run()
    assert states(Run(driver.log_dir)) == ["labeled"]
    with pytest.raises(UsageError, match=r"'.*/mesher_\d+' can't be run"):
        build_driver(tmp_path / "other", Asks((9,)), label=strategy("./mesher_{sample}"), **settings).run()


def test_damaged_end_of_a_job_is_paid_by_the_time_that_it_wrote(tmp_path):
    body = "touch -d '1 hour ago' started; echo broken > exit; kill -9 $PPID"
    ran = run(tmp_path, solver(tmp_path, body), samples=(9,))
    ((one),) = ran.refused()
    assert "exit of the job is damaged" in one["reason"]
    assert 3590 <= one["cost"] < 3700


@pytest.mark.parametrize("strategy", [JobsLabelStrategy, CommandLabelStrategy])
def test_link_that_a_program_left_is_not_followed(tmp_path, strategy):
    names = ("delivered", ".delivered.part", "done.json", ".done.json.part", "interrupted")
    links = "; ".join(f"ln -s {tmp_path}/outside-{name} {name}" for name in names)
    label = strategy(solver(tmp_path, f"{links}; echo 1"))
    driver = build_driver(
        tmp_path / "runs", Asks((9,)), pool=toy_pool("classes"), label=label, run_id="r", skip_training=True,
        max_active_learning_steps=1,
    )  # fmt: skip
    driver.run()
    assert states(Run(driver.log_dir)) == ["labeled"]
    assert list(tmp_path.glob("outside*")) == []
    assert all(
        (folder / "delivered").is_file() and not (folder / "delivered").is_symlink() for folder in folders(tmp_path)
    )


def test_exit_code_of_a_shell_may_mean_that_a_sample_has_no_label(tmp_path):
    ran = run(tmp_path, solver(tmp_path, "exit 139"), infeasible_exits=[139])
    assert [refusal["kind"] for refusal in ran.refused()] == ["infeasible"] * 4


class Lost(Far):
    """A scheduler that has forgotten its jobs, which are silent."""

    def submit(self, job):
        number = super().submit(job)
        parent = self.processes[-1].pid
        for child in map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()):
            if b"heartbeat" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
        return number

    def cancel(self, jobs):
        self.ended = [*getattr(self, "ended", []), *jobs]


def test_job_that_counts_as_lost_is_ended_as_far_as_that_can_be(tmp_path):
    lost = Lost()
    ran = run(tmp_path, solver(tmp_path, "sleep 60"), jobs=lost, samples=(9,))
    assert ["the scheduler doesn't know it" in refusal["reason"] for refusal in ran.refused()] == [True]
    assert lost.ended == ["7"]
    lost.kill()


def test_what_a_person_should_know_of_a_job_is_told_once(tmp_path, caplog):
    queued = Queued()
    queued.submitted = ["before"] * 6  # so that all wait
    waits = Known("waiting", warning="waits, and will not start by itself: its limit")
    queued.poll = lambda jobs: dict.fromkeys(jobs, waits)
    driver = driver_of(tmp_path, solver(tmp_path), jobs=queued, wait=False)
    driver.run()
    assert driver.stop_reason.startswith("waiting for labels: 4 jobs are under way")
    assert caplog.text.count("waits, and will not start by itself: its limit; this is told once") == 1


def test_suspended_time_is_not_time_at_work(tmp_path, monkeypatch):
    flight = Flight(Request("0" * 32, 0, 0, 1), Job("n", tmp_path, tmp_path / SCRIPT, None), "n")
    now = [100.0]
    monkeypatch.setattr("alcore_labelers.flight.time.monotonic", lambda: now[0])
    seconds = []
    for at, is_suspended in ((100, False), (110, False), (150, True), (170, True), (180, False)):
        now[0] = at
        seconds.append(flight.seconds_at_work(begun=True, is_suspended=is_suspended))
    assert seconds == [0, 10, 10, 10, 20]


def test_drivers_that_do_not_wait_give_up_after_the_time_that_they_failed_together(tmp_path, caplog):
    made = Made()
    made.submit = lambda _job: (_ for _ in ()).throw(SchedulerFault("the queue is full"))
    given = {"jobs": made, "wait": False, "samples": (9,), "give_up_after": 0.6}
    driver = driver_of(tmp_path, solver(tmp_path), **given)
    driver.run()
    begin, drivers = time.monotonic(), 1
    while driver.stop_reason.startswith("waiting"):
        assert time.monotonic() - begin < 5
        driver, drivers = driver_of(tmp_path, solver(tmp_path), **given, restore={}), drivers + 1
        driver.run()
    assert drivers > 2
    ((one),) = Run(driver.log_dir).refused()
    assert "it was not taken: the queue is full" in one["reason"]


def test_time_in_which_nobody_asked_counts_for_ten_minutes(tmp_path, monkeypatch):
    """Two tries of a laptop that is offline, a week apart, are no reason to give up what takes a day."""
    first = Backoff(tmp_path / "kept")
    first.failed("offline", 1.0)
    wall = time.time()
    monkeypatch.setattr("alcore_labelers.flight.time.time", lambda: wall + 7 * 86400)
    later = Backoff(tmp_path / "kept")
    assert later.seconds == 0
    assert later.failed("offline", 1.0)
    assert 600 <= later.seconds < 610
    assert later.succeeded()
    assert not (tmp_path / "kept").exists()
    for damaged in ("", "x", "nan 1", "1 nan", "1e400 5", "-5 0", "1"):
        (tmp_path / "kept").write_text(damaged)
        later = Backoff(tmp_path / "kept")
        later.failed("offline", 1.0)
        assert 0 <= later.seconds <= 610


@pytest.mark.parametrize("finds", [True, False])
def test_answer_that_is_told_takes_the_place_of_one_that_a_job_would_give(tmp_path, finds):
    """It is heard at once, and the jobs of the other requests go on."""
    jobs = LocalJobs()
    jobs.finds = finds
    body = f"[ $ALCORE_SAMPLE = 9 ] && sleep 60; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo 1"

    def tell():
        appears(lambda: len(ledger_of(tmp_path)) == 4)
        ran = Run(tmp_path / "runs" / "r")
        asked = next(request for request in ran.requests() if request["sample"] == 9)
        ran.inbox.publish([Label(Request(asked["id"], 0, 0, 9), 0, source="ann")])
        appears(lambda: not any(ran.inbox.read()))
        (tmp_path / "go").touch()

    teller = threading.Thread(target=tell)
    teller.start()
    begin = time.monotonic()
    try:
        ran = run(tmp_path, solver(tmp_path, body), jobs=jobs)
        assert time.monotonic() - begin < 30
        assert states(ran) == ["labeled"] * 4
        assert [ran.label_text(request) == "0" for request in ran.requests()] == [True, False, False, False]
        assert len(ledger_of(tmp_path)) == len(set(ledger_of(tmp_path))) == 4
    finally:
        teller.join()
        for folder in folders(tmp_path):
            end_processes(folder, 0.5)
