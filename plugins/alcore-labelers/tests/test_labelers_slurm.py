"""The strategy `jobs` on a real Slurm, which is started for these tests."""

from __future__ import annotations

import subprocess
import textwrap
import time

import pytest
from alcore_labelers import Job, JobsLabelStrategy, SchedulerError, SchedulerFault
from alcore_labelers.job_script import job_script
from alcore_labelers.scheduler_commands import Called
from alcore_labelers.slurm_jobs import SlurmJobs
from alcore_testing import build_driver, toy_pool
from helpers.slurm import slurm_cluster, why_not

from alcore import BaseQuery
from alcore.errors import AlcoreError, UsageError
from alcore.store import Run

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with slurm_cluster(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


@pytest.fixture
def cluster(started, monkeypatch):
    for name, value in started.env().items():
        monkeypatch.setenv(name, value)
    yield started
    subprocess.run(["scancel", "--quiet", "--me", "--signal=KILL", "--full"], check=False)


class Asks(BaseQuery):
    def __init__(self, items):
        self.items = items

    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(self.items)


def driver_of(folder, body, items=(9, 2, 30, 17), *, retries=0, restore=False, **parameters):
    path = folder / "solver.sh"
    path.write_text(f'#!/bin/sh\necho "$ALCORE_REQUEST-$ALCORE_ATTEMPT" >> {folder}/ledger\n{textwrap.dedent(body)}')
    path.chmod(0o755)
    given = {
        "scheduler": "slurm",
        "max_in_flight": 4,
        "poll_interval": 0.1,
        "settle": 0.5,
        "heartbeat": 0.3,
        "lost_after": 2.0,
    }
    given |= parameters
    driver = build_driver(
        folder / "runs", Asks(items), pool=toy_pool("classes"), label=JobsLabelStrategy(str(path), **given), run_id="r",
        skip_training=True, max_active_learning_steps=1, label_retries=retries,
    )  # fmt: skip
    if restore:
        driver.restore()
    return driver


def run(*args, **parameters):
    driver = driver_of(*args, **parameters)
    driver.run()
    return Run(driver.log_dir)


def ledger_of(folder):
    return (folder / "ledger").read_text().split()


def names_of(folder, asked):
    (token,) = folder.glob("runs/r/strategies/*/work/.token")
    return {f"job-{request['id']}-0.{token.read_text()}" for request in asked}


def job_in(folder, body="sleep 60", name="alone-0", limit=None):
    folder.mkdir()
    (folder / "job.sh").write_bytes(job_script(folder, ["sh", "-c", body], {}, None, 1.0))
    return Job(name, folder, folder / "job.sh", limit)


def until(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)
    return found


def test_jobs_answer_their_requests(cluster, tmp_path):
    ran = run(tmp_path, "echo 1")
    asked = ran.requests()
    assert [request["state"] for request in asked] == ["labeled"] * 4
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 4
    assert names_of(tmp_path, asked) <= set(cluster.names())
    assert all(request["cost"] < 10 for request in asked)


def test_jobs_outlive_the_driver_and_are_found_by_name(cluster, tmp_path, monkeypatch):
    """The driver ends after it has submitted its first job, and before it has committed that."""

    class Killed(BaseException):
        pass

    def cut(*_args):
        monkeypatch.setattr("alcore_labelers.jobs.give_back", lambda *_args: None)
        raise Killed

    body = f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo 1"
    with monkeypatch.context() as patch:
        patch.setattr(JobsLabelStrategy, "_commit", cut)
        with pytest.raises(Killed):
            run(tmp_path, body)
    monkeypatch.undo()
    for name, value in cluster.env().items():
        monkeypatch.setenv(name, value)
    until(lambda: (tmp_path / "ledger").exists())
    driver = driver_of(tmp_path, body, restore=True, wait=False)
    driver.run()
    assert driver.stop_reason.startswith("waiting")
    (tmp_path / "go").touch()
    driver = driver_of(tmp_path, body, restore=True)
    driver.run()
    asked = Run(driver.log_dir).requests()
    assert [request["state"] for request in asked] == ["labeled"] * 4
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 4
    names = cluster.names()
    assert [names.count(name) for name in names_of(tmp_path, asked)] == [1] * 4


def test_controller_that_forgets_its_jobs_delays_and_loses_nothing(cluster, tmp_path):
    """It is killed, and what it had saved is gone: it gives the numbers of jobs again that are at work."""
    body = f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo 1"
    driver = driver_of(tmp_path, body, [9, 2], wait=False)
    driver.run()
    until(lambda: len(ledger_of(tmp_path)) == 2 if (tmp_path / "ledger").exists() else False)
    before = [request["handle"] for request in Run(driver.log_dir).requests()]
    cluster.kill_controller()
    with pytest.raises(SchedulerFault):
        SlurmJobs().find(Job("x", tmp_path, tmp_path, None))
    for saved in (cluster.folder / "state").glob("job_state*"):
        saved.unlink()
    cluster.start_controller()
    until(cluster.is_ready)
    others = []
    while not set(before) <= set(others):
        assert len(others) < 50, "no number was given again"
        job = job_in(tmp_path / f"other{len(others)}", "true", name=f"other-{len(others)}")
        others.append(SlurmJobs().submit(job))
    (tmp_path / "go").touch()
    driver = driver_of(tmp_path, body, [9, 2], restore=True, retries=2)
    driver.run()
    ran = Run(driver.log_dir)
    assert [request["state"] for request in ran.requests()] == ["labeled"] * 2
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path))
    assert {refusal["kind"] for refusal in ran.refused()} <= {"infrastructure"}


def test_variables_of_slurms_commands_change_nothing(cluster, tmp_path, monkeypatch):
    for name, value in {
        "SQUEUE_STATES": "PENDING", "SQUEUE_USERS": "nobody", "SQUEUE_FORMAT": "%i", "SQUEUE_FORMAT2": "JobID",
        "SQUEUE_PARTITION": "first", "SQUEUE_NAMES": "x", "SBATCH_ARRAY_INX": "1-3", "SBATCH_WAIT": "1",
        "SBATCH_JOB_NAME": "mine", "SCANCEL_NAME": "mine", "SCANCEL_STATE": "PENDING",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    jobs, job = SlurmJobs(), job_in(tmp_path / "job", name="plain-0")
    number = jobs.submit(job)
    until((job.folder / "heartbeat").exists)  # from now on it writes what it is sent
    assert jobs.find(job) == number
    jobs.cancel({number: job._replace(name="another")})
    assert jobs.poll({number: job})[number].state == "running", "a job is ended by its number alone"
    jobs.cancel({number: job})
    until(lambda: jobs.poll({number: job})[number].state == "cancelled")
    jobs.cancel({number: job})
    jobs.cancel({"999999": job})


def test_job_that_was_cancelled_by_hand_is_told_apart_after_slurm_has_forgotten_it(cluster, tmp_path, monkeypatch):
    """The job asks why it is ended, and keeps the answer."""
    driver = driver_of(tmp_path, "sleep 60", [9], wait=False)
    driver.run()
    until(lambda: list(tmp_path.glob("runs/r/strategies/*/work/*/*/heartbeat")))
    (number,) = [request["handle"] for request in Run(driver.log_dir).requests()]
    subprocess.run(["scancel", "--quiet", number], check=True)
    until(lambda: list(tmp_path.glob("runs/r/strategies/*/work/*/*/terminated")))
    monkeypatch.setattr(SlurmJobs, "_jobs", lambda *_: [])
    driver = driver_of(tmp_path, "sleep 60", [9], restore=True)
    driver.run()
    kinds = [(refusal["kind"], "it was cancelled" in refusal["reason"]) for refusal in Run(driver.log_dir).refused()]
    assert kinds == [("dropped", True)]


def test_job_that_slurm_itself_cancels_is_not_cancelled_by_hand(tmp_path, monkeypatch):
    """It may not be queued again, and its number is at work already, or the controller doesn't know it any more."""
    jobs = {str(number): Job(f"n-{number}", tmp_path / str(number), tmp_path, None) for number in range(6)}
    for job in jobs.values():
        job.folder.mkdir()
    for number in "145":
        (jobs[number].folder / "started").touch()
    (jobs["1"].folder / "terminated").write_text("")
    (jobs["5"].folder / "exit").write_text("1 1.0 2.0 TERM\n")
    states = {"2": "CANCELLED||None", "3": "RUNNING|a|None"}
    lines = [f"{number}|n-{number}|{states.get(number, 'CANCELLED|node0|None')}" for number in "01245"]
    lines.append("3|x|RUNNING|a|None")
    monkeypatch.setattr("alcore_labelers.slurm_jobs.call", lambda _words, **_: Called(0, "\n".join(lines), ""))
    state_of = {number: known.state for number, known in SlurmJobs().poll(jobs).items()}
    assert state_of == {
        "0": "infrastructure", "1": "cancelled", "2": "cancelled", "4": "infrastructure", "5": "cancelled"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("JobId=7 JobName=n-0 JobState=COMPLETING RunTime=01:00:03 TimeLimit=01:00:00 PreemptTime=None", "timeout"),
        ("JobId=7 JobName=n-0 JobState=COMPLETING RunTime=1-00:00:03 TimeLimit=2-00:00:00", "cancelled"),
        ("JobId=7 JobName=n-0 JobState=COMPLETING RunTime=00:00:03 PreemptTime=2026-11-26T19:00:45", "infrastructure"),
        ("JobId=7 JobName=n-0 JobState=NODE_FAIL RunTime=00:00:03 TimeLimit=UNLIMITED", "infrastructure"),
        ("JobId=7 JobName=n-0 JobState=RUNNING", None),
        ("JobId=7 JobName=other JobState=CANCELLED", None),
        ("JobId=8 JobName=n-0 JobState=CANCELLED", None),
        ("slurm_load_jobs error: Invalid job id specified", None),
    ],
)
def test_what_a_job_was_told_at_its_end(tmp_path, said, state):
    end = SlurmJobs().understood(said, Job("n-0", tmp_path, tmp_path, None), "7")
    assert (end.state if end else None) == state


STATES = {
    "cancelled by hand": (["scancel", "--quiet", "{number}"], "cancelled", "it was cancelled"),
    "node failed": (
        ["scontrol", "update", "nodename=node0", "state=down", "reason=test"],
        "infrastructure",
        "node failed",
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_end_of_a_job_is_told_apart(cluster, tmp_path, case):
    command, state, reason = STATES[case]
    jobs, job = SlurmJobs(), job_in(tmp_path / "job", name=f"{case.replace(' ', '-')}-0")
    number = jobs.submit(job)
    try:
        until((job.folder / "heartbeat").exists)  # from now on it writes what it is sent
        subprocess.run([word.format(number=number) for word in command], check=True)
        end = until(lambda: (now := jobs.poll({number: job})[number]).state == state and now)  # it may write it late
        assert reason in end.reason
    finally:
        subprocess.run(["scontrol", "update", "nodename=node0", "state=resume"], check=False, capture_output=True)
        until(cluster.is_ready)


def test_job_that_gives_way_is_infrastructure(cluster, tmp_path):
    jobs, job = SlurmJobs(["--exclusive"]), job_in(tmp_path / "job", name="gives-way-0")
    number = jobs.submit(job)
    until(lambda: jobs.poll({number: job})[number].state == "running")
    other = job_in(tmp_path / "other", "true", name="goes-first-0")
    SlurmJobs(["--exclusive", "--partition=first"]).submit(other)
    state = until(lambda: (now := jobs.poll({number: job})[number]).state != "running" and now)
    assert state.state == "infrastructure"
    assert "goes first" in state.reason


def test_requests_get_what_their_jobs_came_to(cluster, tmp_path):
    """One is cancelled by hand, one runs into its limit, one says that it is infeasible, one kills itself once."""
    body = f"""
    case $ALCORE_SAMPLE in
      9) touch {tmp_path}/cancel; sleep 60;;
      2) sleep 60;;
      30) exit 3;;
      17) [ $ALCORE_ATTEMPT = 1 ] && echo 1 || kill -9 $PPID $$;;
    esac
    """
    of_sample = f"$(grep -l 'ALCORE_SAMPLE=9 ' {tmp_path}/runs/r/strategies/*/work/*/*/job.sh)"
    name = f"job-$(basename $(dirname $(dirname {of_sample})))-0.$(cat {tmp_path}/runs/r/strategies/*/work/.token)"
    script = f"while [ ! -e {tmp_path}/cancel ]; do sleep 0.1; done; scancel --quiet --name={name}"
    watcher = subprocess.Popen(["sh", "-c", script])
    ran = run(tmp_path, body, time_limit=2.0, infeasible_exits=[3], retries=1)
    watcher.wait(10)
    assert [request["state"] for request in ran.requests()] == ["failed", "failed", "failed", "labeled"]
    kinds = {}
    for refusal in ran.refused():
        kinds.setdefault(refusal["sample"] if "sample" in refusal else refusal["request"], set()).add(refusal["kind"])
    by_id = {request["id"]: request["sample"] for request in ran.requests()}
    by_sample = {by_id.get(key, key): kind for key, kind in kinds.items()}
    assert by_sample == {9: {"dropped"}, 2: {"timeout"}, 30: {"infeasible"}, 17: {"infrastructure"}}
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 6


def test_job_whose_limit_is_that_of_its_partition_starts(cluster, tmp_path):
    jobs = SlurmJobs(["--partition=short"], time_limit=600.0)
    jobs.check()
    job = job_in(tmp_path / "job", "sleep 60", "ten-minutes-0", limit=600.0)
    number = jobs.submit(job)
    assert until(lambda: (now := jobs.poll({number: job})[number]).state != "waiting" and now).state == "running"


def test_job_that_will_not_start_by_itself_is_told(cluster, tmp_path):
    cases = {
        "PartitionTimeLimit": ["--partition=short", "--time=11"],
        "JobHeldUser": ["--hold"],
        "BeginTime": ["--begin=now+1hour"],
    }
    for reason, options in cases.items():
        jobs, job = SlurmJobs(options), job_in(tmp_path / reason, name=f"{reason}-0")
        number = jobs.submit(job)
        state = jobs.poll({number: job})[number]
        end = time.monotonic() + 20
        while reason not in state.reason and time.monotonic() < end:
            time.sleep(0.05)
            state = jobs.poll({number: job})[number]
        assert (state.state, reason in state.reason) == ("waiting", True)
        assert (f"will not start by itself: Slurm says {reason}" in state.warning) == (reason != "BeginTime")


def test_what_no_node_can_run_is_refused_when_it_is_submitted(cluster, tmp_path, caplog):
    """What the nodes could run is taken, also while they are drained."""
    with pytest.raises(SchedulerError, match="node configuration is not available"):
        SlurmJobs(["--nodes=5"]).submit(job_in(tmp_path / "wide"))
    subprocess.run(["scontrol", "update", "nodename=node0", "state=drain", "reason=test"], check=True)
    try:
        SlurmJobs().check()
        assert "no node can run such jobs now" in caplog.text
        assert SlurmJobs().submit(job_in(tmp_path / "fits"))
    finally:
        subprocess.run(["scontrol", "update", "nodename=node0", "state=resume"], check=False)
        until(cluster.is_ready)


def test_refusal_says_what_sbatch_said(cluster, tmp_path):
    with pytest.raises(AlcoreError, match=r"sbatch refused: .*partition"):
        run(tmp_path, "echo 1", options=["--partition=nowhere"])
    with pytest.raises(SchedulerError):
        SlurmJobs(["--partition=nowhere"]).submit(job_in(tmp_path / "job"))
    assert not (tmp_path / "ledger").exists()
    assert "job-0" not in cluster.names()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Batch job submission failed: Unexpected missing socket error", SchedulerFault),
        ("Batch job submission failed: Unable to contact slurm controller (connect failure)", SchedulerFault),
        ("Batch job submission failed: Socket timed out on send/recv operation", SchedulerFault),
        ("Batch job submission failed: Job violates accounting/QOS policy (job submit limit)", SchedulerFault),
        (
            "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
            SchedulerError,
        ),
        ("Batch job submission failed: Something that no version has said before", SchedulerFault),
        ("Batch job submission failed: Invalid job credential", SchedulerFault),
        ("Batch job submission failed: Requested node configuration is not available", SchedulerError),
        ("Batch job submission failed: CPU/Task count specification invalid", SchedulerError),
        ("Batch job submission failed: Task distribution specification invalid", SchedulerError),
        ("Batch job submission failed: Memory required by task is not available", SchedulerError),
        ("Batch job submission failed: Job dependency problem", SchedulerError),
        ("Batch job submission failed: Requested nodes not in this partition", SchedulerError),
        ("Batch job submission failed: Duplicate generic resource", SchedulerError),
        ("Batch job submission failed: No partition specified or system default partition", SchedulerError),
        ("Batch job submission failed: Invalid authentication credential", SchedulerFault),
        ("Batch job submission failed: Invalid account or account/partition combination specified", SchedulerError),
        ("Batch job submission failed: User's group not permitted to use this partition", SchedulerError),
        ("invalid partition specified: nowhere", SchedulerError),
        ("unrecognized option '--partitoin=x'", SchedulerError),
    ],
)
def test_what_passes_is_told_from_what_is_refused(tmp_path, monkeypatch, said, error):
    monkeypatch.setattr(
        "alcore_labelers.scheduler_commands.call", lambda *_, **__: Called(1, "", f"sbatch: error: {said}")
    )
    with pytest.raises(error, match="sbatch"):
        SlurmJobs().submit(job_in(tmp_path / "job"))


def test_missing_slurm_is_told_before_anything_is_bought(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="sbatch, which is not on the PATH"):
        SlurmJobs().check()
