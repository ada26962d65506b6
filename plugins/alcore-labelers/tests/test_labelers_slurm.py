"""The strategy `jobs` on a real Slurm, which is started for these tests."""

from __future__ import annotations

import subprocess
import textwrap
import threading
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
    given = {"scheduler": "slurm", "max_in_flight": 4, "poll_interval": 0.1, "settle": 0.5, **parameters}
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
    return {f"{one['id']}-0.{token.read_text()}" for one in asked}


def job_in(folder, body="sleep 60", name="alone-0"):
    folder.mkdir()
    (folder / "job.sh").write_bytes(job_script(folder, ["sh", "-c", body], {}, None, 1.0))
    return Job(name, folder, folder / "job.sh", None)


def until(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)
    return found


def test_jobs_answer_their_requests(cluster, tmp_path):
    ran = run(tmp_path, "echo 1")
    asked = ran.requests()
    assert [one["state"] for one in asked] == ["labeled"] * 4
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 4
    assert names_of(tmp_path, asked) <= set(cluster.names())
    assert all(one["cost"] < 10 for one in asked)


def test_jobs_outlive_the_driver_and_are_found_by_name(cluster, tmp_path, monkeypatch):
    """The driver ends after it has submitted its first job, and before it has committed that."""

    class Killed(BaseException):
        pass

    def cut(*_args):
        monkeypatch.setattr("alcore_labelers.jobs._give_back", lambda *_args: None)
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
    assert [one["state"] for one in asked] == ["labeled"] * 4
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 4
    names = cluster.names()
    assert [names.count(name) for name in names_of(tmp_path, asked)] == [1] * 4


def test_controller_that_is_killed_meanwhile_delays_and_loses_nothing(cluster, tmp_path):
    driver = driver_of(tmp_path, "sleep 1; echo 1", [9, 2], wait=False)
    driver.run()
    saved, before = cluster.folder / "state" / "job_state", time.time()
    until(lambda: saved.exists() and saved.stat().st_mtime > before)  # what it had not saved, it would forget
    cluster.kill_controller()
    with pytest.raises(SchedulerFault):
        SlurmJobs().find(Job("x", tmp_path, tmp_path, None))
    later = threading.Timer(1.0, cluster.start_controller)
    later.start()
    driver = driver_of(tmp_path, "sleep 1; echo 1", [9, 2], restore=True, settle=5.0)
    driver.run()
    later.join()
    assert [one["state"] for one in Run(driver.log_dir).requests()] == ["labeled"] * 2
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 2


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
        until(lambda: jobs.poll({number: job})[number].state == "running")
        subprocess.run([word.format(number=number) for word in command], check=True)
        known = until(lambda: (now := jobs.poll({number: job})[number]).state != "running" and now)
        assert known.state == state
        assert reason in known.reason
    finally:
        subprocess.run(["scontrol", "update", "nodename=node0", "state=resume"], check=False, capture_output=True)
        until(cluster.is_ready)


def test_job_that_gives_way_is_infrastructure(cluster, tmp_path):
    jobs, job = SlurmJobs(["--exclusive"]), job_in(tmp_path / "job", name="gives-way-0")
    number = jobs.submit(job)
    until(lambda: jobs.poll({number: job})[number].state == "running")
    other = job_in(tmp_path / "other", "true", name="goes-first-0")
    SlurmJobs(["--exclusive", "--partition=first"]).submit(other)
    known = until(lambda: (now := jobs.poll({number: job})[number]).state != "running" and now)
    assert known.state == "infrastructure"
    assert "goes first" in known.reason


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
    of_sample = f"$(grep -l 'ALCORE_SAMPLE=9$' {tmp_path}/runs/r/strategies/*/work/*/*/job.sh)"
    name = f"$(basename $(dirname $(dirname {of_sample})))-0.$(cat {tmp_path}/runs/r/strategies/*/work/.token)"
    script = f"while [ ! -e {tmp_path}/cancel ]; do sleep 0.1; done; scancel --quiet --name={name}"
    watcher = subprocess.Popen(["sh", "-c", script])
    ran = run(tmp_path, body, time_limit=2.0, infeasible_exits=[3], retries=1)
    watcher.wait(10)
    assert [one["state"] for one in ran.requests()] == ["failed", "failed", "failed", "labeled"]
    kinds = {}
    for one in ran.refused():
        kinds.setdefault(one["sample"] if "sample" in one else one["request"], set()).add(one["kind"])
    by_id = {one["id"]: one["sample"] for one in ran.requests()}
    found = {by_id.get(key, key): kind for key, kind in kinds.items()}
    assert found == {9: {"dropped"}, 2: {"timeout"}, 30: {"infeasible"}, 17: {"infrastructure"}}
    assert len(set(ledger_of(tmp_path))) == len(ledger_of(tmp_path)) == 6


def test_refusal_says_what_sbatch_said(cluster, tmp_path):
    with pytest.raises(AlcoreError, match=r"sbatch refused: .*partition"):
        run(tmp_path, "echo 1", options=["--partition=nowhere"])
    with pytest.raises(SchedulerError):
        SlurmJobs(["--partition=nowhere"]).submit(job_in(tmp_path / "job"))


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
        ("invalid partition specified: nowhere", SchedulerError),
        ("unrecognized option '--partitoin=x'", SchedulerError),
    ],
)
def test_what_passes_is_told_from_what_is_refused(tmp_path, monkeypatch, said, error):
    monkeypatch.setattr("alcore_labelers.slurm_jobs.call", lambda _words: Called(1, "", f"sbatch: error: {said}"))
    with pytest.raises(error, match="sbatch"):
        SlurmJobs().submit(job_in(tmp_path / "job"))


def test_missing_slurm_is_told_before_anything_is_bought(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="sbatch, which is not on the PATH"):
        SlurmJobs().check()
