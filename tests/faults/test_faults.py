"""A run that was killed, or met a full disk or an I/O error, equals the uninterrupted one when it is taken up again.

This is a sample; ``make faults`` takes every system call that touches the run directory, and many more random times.
What is checked after each fault is in `run_task` of ``server.py`` and in ``verdict.py``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from alcore_testing import differences


def done(servers: Any, tasks: list[Any]) -> None:
    """Have all tasks done, and fail with what went wrong in any."""
    wrong = [answer for answer in servers.ask_all(tasks) if answer["notes"]]
    said = "\n".join(
        f"{result['task']['lives']}: {result['notes']}\n{result.get('stderr', '')[-1500:]}" for result in wrong[:5]
    )
    assert not wrong, f"{len(wrong)} of {len(tasks)} runs went wrong:\n{said}"


def test_the_fork_server_changes_nothing(servers: Any) -> None:
    """A plain process has the same result, and is taken up again by another one after a kill."""
    with tempfile.TemporaryDirectory(dir=servers.folder) as folder:
        for name, seconds in (("whole", None), ("cut", 1.0)):
            place = Path(folder) / name
            place.mkdir()
            command = [sys.executable, str(Path(__file__).with_name("experiment.py")), str(place / "root")]
            command.append(str(place / "log"))
            if seconds is not None:  # in its imports, or in its life: both are times to be killed at
                with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
                    try:
                        first.wait(seconds)
                    except subprocess.TimeoutExpired:
                        first.kill()
            subprocess.run(command, check=True, timeout=60, stderr=subprocess.DEVNULL)
            essence = servers.ask({"essence": str(place)})["essence"]
            differing = differences(essence, servers.expected)
            assert {name.partition(":")[0] for name in differing} <= {
                "experiment.toml"
            }  # it names the module of the parts


def test_the_experiment_is_worth_breaking(servers: Any) -> None:
    labels = [arrived for _, _, arrived, *_ in servers.expected["labels"]]
    assert [labels.count(step) for step in range(3)] == [3, 2, 2]
    assert servers.paid == 10, "three answers of ten were failures"
    assert any(item is not None for _, _, _, item, *_ in servers.expected["requests"]), "a generated input"
    assert len(servers.expected["checkpoints"]) == 6
    assert sum("/labels/" in name for name in servers.expected["files"]) == 3, "large values"
    assert servers.expected["reason"] == "that was too much"


def test_killed_at_random_times(servers: Any, harness: Any) -> None:
    done(servers, [servers.lives(*harness.random_lives(servers.seconds, seed)) for seed in range(5000, 5060)])


def test_killed_in_the_first_milliseconds(servers: Any) -> None:
    done(servers, [servers.lives({"after": place * 0.0005}) for place in range(40)])


@pytest.mark.usefixtures("strace")
def test_killed_at_system_calls(servers: Any, harness: Any) -> None:
    calls = harness.points(servers.trace(), harness.CALLS)
    assert {call.name for call in calls} == set(harness.CALLS)
    assert {call.thread for call in calls} == {"main", "worker"}
    done(servers, [servers.lives(harness.at(call, "kill")) for call in harness.spread(calls, 60, seed=1)])


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_failing_system_calls(servers: Any, harness: Any, error: str) -> None:
    calls = harness.spread(harness.points(servers.trace(), harness.CALLS), 40, seed=len(error))
    done(servers, [servers.lives(harness.at(call, error, again=place % 2 > 0)) for place, call in enumerate(calls)])


@pytest.mark.usefixtures("strace")
def test_a_disk_that_stays_full(servers: Any, harness: Any) -> None:
    calls = servers.trace()
    writing = harness.points(calls, ["write", "pwrite64", "mkdir"])
    chosen = [calls.index(call) for call in harness.spread(writing, 15, seed=3)]
    done(servers, [servers.lives(harness.full_disk(calls, place)) for place in chosen])


@pytest.mark.usefixtures("strace")
def test_killed_again_while_it_is_taken_up(servers: Any, harness: Any) -> None:
    calls = harness.points(servers.trace(), ["pwrite64"])
    tasks = []
    for part in (0.5, 0.8):
        first = harness.at(calls[int(len(calls) * part)], "kill")
        resumed = harness.points(servers.trace(first), harness.CALLS)
        tasks += [servers.lives(first, harness.at(call, "kill")) for call in harness.spread(resumed, 15, seed=4)]
    done(servers, tasks)


def test_the_second_driver_is_refused_at_once_and_told_who_holds_the_run(servers: Any) -> None:
    answer = servers.ask({"contend": str(servers.folder), "at_birth": False})
    second = answer["second"]
    assert (second["how"], second["type"]) == ("error", "RunLockedError")
    assert f"process {answer['holder']} on " in second["message"]
    assert answer["seconds"] < 2
    assert answer["first"] == {"how": "done"}
    assert (answer["essence"], answer["wrong"], answer["paid"]) == (servers.expected, [], servers.paid)


def test_of_two_drivers_that_make_one_run_one_does(servers: Any) -> None:
    for _ in range(10):
        answer = servers.ask({"contend": str(servers.folder), "at_birth": True})
        both = answer["first"], answer["second"]
        assert [told for told in both if told["how"] == "done"]
        refused = [told["type"] for told in both if told["how"] == "error"]
        assert set(refused) <= {"RunExistsError", "RunLockedError"}
        assert (answer["essence"], answer["wrong"], answer["paid"]) == (servers.expected, [], servers.paid)
