"""Exchanges between processes, and what a rank learns of the failure of another one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alcore.distributed.group import Group, RankError
from alcore.errors import Interrupted

BROKEN = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:26517")


@pytest.fixture
def ranks() -> list[Group]:
    """Two ranks in this process, which share a store; they can't exchange tensors."""
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    groups = [Group(store, None, rank, 2) for rank in range(2)]
    for group in groups:
        group.begin()
    return groups


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin some work in a thread; return what waits for its result, or raises its error."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    def result() -> Any:
        thread.join(30)
        assert not thread.is_alive()
        if errors:
            raise errors[0]
        return results[0]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return result


# -- reports of failures -----------------------------------------------------------------------------------


def test_reported_failure_replaces_broken_connection(ranks: list[Group]) -> None:
    ranks[1].fail(ValueError("trouble in\ntraining"))
    cause = ranks[0].root_cause(BROKEN)
    assert isinstance(cause, RankError)
    assert cause.reported
    assert str(cause) == "rank 1 failed, so that rank 0 ends too: ValueError: trouble in training"


def test_first_report_of_a_failure_stands(ranks: list[Group]) -> None:
    ranks[1].fail(ValueError("first"))
    ranks[0].fail(ranks[0].root_cause(BROKEN))
    ranks[1].fail(ValueError("second"))
    assert "first" in str(ranks[0].root_cause(BROKEN))
    assert ranks[1].root_cause(KeyboardInterrupt()).args == ()


def test_broken_connection_without_report_names_what_can_be_wrong(ranks: list[Group]) -> None:
    cause = ranks[0].root_cause(BROKEN)
    assert isinstance(cause, RankError)
    assert not cause.reported
    assert "rank 0 of 2 lost its connection to the others: [gloo" in str(cause)
    assert "Another rank was killed, or did not come to the same exchange within 1800 s" in str(cause)


@pytest.mark.parametrize("error", [ValueError("gloo"), RuntimeError("shapes differ"), KeyboardInterrupt()], ids=repr)
def test_root_cause_keeps_errors_of_this_rank(ranks: list[Group], error: BaseException) -> None:
    assert ranks[0].root_cause(error) is error


@pytest.mark.parametrize("error", [BROKEN, KeyboardInterrupt(), Interrupted("by SIGTERM")], ids=repr)
def test_interruption_of_another_rank_interrupts_this_one(ranks: list[Group], error: BaseException) -> None:
    ranks[1].fail(Interrupted("it was asked to end"))
    cause = ranks[0].root_cause(error)
    assert isinstance(cause, Interrupted)
    assert str(cause) == "rank 1 was asked to end"


def test_new_run_ignores_failures_of_earlier_runs(ranks: list[Group]) -> None:
    ranks[1].fail(ValueError("trouble"))
    for rank in ranks:
        rank.begin()
    assert not ranks[0].others_ended()
    assert ranks[0].root_cause(KeyboardInterrupt()).args == ()


def test_new_run_is_refused_after_an_exchange_that_was_left(ranks: list[Group]) -> None:
    ranks[0]._unfinished = SimpleNamespace(is_completed=lambda: False)
    with pytest.raises(RankError, match="rank 0 left an exchange with the other ranks before its end"):
        ranks[0].begin()


# -- rank 0 alone ------------------------------------------------------------------------------------------


def test_by_itself_exchanges_nothing(ranks: list[Group]) -> None:
    one = ranks[1].by_itself()
    assert (one.rank, one.size, one.is_detached) == (0, 1, True)
    assert not ranks[1].is_detached
    assert one.gather(3) == [3]


def test_other_ranks_wait_until_rank_0_has_worked(ranks: list[Group]) -> None:
    worked: list[int] = []
    for turn in range(3):
        waits = in_thread(lambda: ranks[1].on_rank_0(lambda: worked.append(-1)))
        time.sleep(0.1)
        ranks[0].on_rank_0(lambda turn=turn: worked.append(turn))  # type: ignore[misc]
        waits()
    assert worked == [0, 1, 2]


def test_failure_of_the_work_of_rank_0_ends_the_waiting_ranks(ranks: list[Group]) -> None:
    waits = in_thread(lambda: ranks[1].on_rank_0(lambda: None))
    with pytest.raises(ZeroDivisionError):
        ranks[0].on_rank_0(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(RankError, match="rank 0 failed, so that rank 1 ends too: ZeroDivisionError"):
        waits()


def test_runtime_error_of_the_work_of_rank_0_is_not_taken_for_a_broken_connection(ranks: list[Group]) -> None:
    def work() -> None:
        raise RuntimeError("trouble")

    with pytest.raises(RuntimeError, match=r"^trouble$"):
        ranks[0].on_rank_0(work)


def test_interruption_of_a_waiting_rank_is_told_by_others_ended(ranks: list[Group]) -> None:
    interrupted = threading.Event()
    waits = in_thread(lambda: ranks[1].on_rank_0(lambda: None, interrupted.is_set))
    assert not ranks[0].others_ended()
    interrupted.set()
    with pytest.raises(Interrupted, match="it was asked to end"):
        waits()
    until = time.monotonic() + 30
    while not ranks[0].others_ended() and time.monotonic() < until:
        time.sleep(0.05)
    assert str(ranks[0].root_cause(Interrupted("asked to end"))) == "rank 1 was asked to end"


class Counting:
    """A store that counts what it is asked."""

    def __init__(self) -> None:
        self.store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        self.asked = 0

    def check(self, keys: list[str]) -> bool:
        self.asked += 1
        return bool(self.store.check(keys))


def test_others_ended_asks_the_store_at_most_once_a_second() -> None:
    store = Counting()
    one = Group(store, None, 0, 2)
    assert not any(one.others_ended() for _ in range(100))
    assert store.asked <= 1 + 1  # a slow machine may need more than a second


# -- processes ---------------------------------------------------------------------------------------------

EXCHANGING = """
import sys, time, torch
sys.path.insert(0, {here!r})
from outcomes import VALUES, same
from alcore import DistributedManager
from alcore.distributed import average

manager = DistributedManager(timeout=3.0)
ranks = manager.join()
assert manager.join() is ranks
ranks.begin()
for value in VALUES:
    assert same(ranks.share(lambda: value if ranks.main else 1 / 0), value), value
    assert all(same(copy, value) for copy in ranks.gather(value)), value
assert ranks.gather(torch.arange(ranks.rank))[2].tolist() == [0, 1]
assert ranks.gather(10 * ranks.rank) == [0, 10, 20]
assert ranks.any(ranks.rank == 1) is True
assert ranks.any(False) is False
assert ranks.differing(min(ranks.rank, 1)) == 1
assert average(float(ranks.rank)) == 1.0
assert average(0.1) == 0.1
times = []
ranks.on_rank_0(lambda: time.sleep(5))  # longer than the time-out
ranks.on_rank_0(lambda: times.append(ranks.rank))
assert times == ([0] if ranks.main else [])
time.sleep(0.7 * ranks.rank)  # one that comes late is waited for
assert ranks.share(lambda: 3) == 3
print("done")
"""


def test_values_arrive_unchanged_on_three_ranks(start: Any, tmp_path: Path) -> None:
    script = tmp_path / "exchanging.py"
    script.write_text(EXCHANGING.format(here=str(Path(__file__).parent)))
    processes = start(3, script).wait()
    assert processes.codes == [0, 0, 0], "\n".join(processes.texts)
    assert all("done" in text for text in processes.texts)


WAITING = """
import os, signal, time, torch
torch.distributed.set_debug_level_from_env()  # the fork server has imported torch with another environment
from alcore import DistributedManager
from alcore.distributed import group

group._STORE_SECONDS = 2.0
ranks = DistributedManager(timeout={timeout}).join()
ranks.begin()
ranks.any(True)
print("begins", flush=True)
if ranks.rank == {rank}:
    {action}
ranks.any(True)
"""


def waiting(start: Any, tmp_path: Path, *, rank: int, action: str, timeout: float = 100.0, **environment: str) -> Any:
    """Start two ranks of which one does something while the other waits for it in an exchange."""
    script = tmp_path / "waiting.py"
    script.write_text(WAITING.format(rank=rank, action=action, timeout=timeout))
    processes = start(2, script, **environment)
    until = time.monotonic() + 60
    while not all("begins" in processes.said(rank) for rank in (0, 1)) and time.monotonic() < until:
        time.sleep(0.05)
    return processes


def said(processes: Any, rank: int, text: str, seconds: float) -> bool:
    """Wait until a rank has written some text."""
    until = time.monotonic() + seconds
    while text not in processes.said(rank) and time.monotonic() < until:
        time.sleep(0.05)
    return text in processes.said(rank)


def test_waiting_rank_learns_of_a_failure_although_the_other_process_lives_on(start: Any, tmp_path: Path) -> None:
    processes = waiting(start, tmp_path, rank=1, action="ranks.fail(ValueError('trouble')); time.sleep(1000)")
    assert said(processes, 0, "rank 1 failed, so that rank 0 ends too: ValueError: trouble", 30)


def test_killed_rank_ends_the_others(start: Any, tmp_path: Path) -> None:
    action = "os.kill(os.getpid(), signal.SIGKILL)"
    processes = waiting(start, tmp_path, rank=1, action=action, TORCHELASTIC_USE_AGENT_STORE="False").wait(60)
    assert processes.codes == [1, -signal.SIGKILL]
    assert "rank 0 of 2 lost its connection to the others" in processes.texts[0]


@pytest.mark.parametrize("rank", [0, 1])
def test_stopped_rank_ends_the_others_at_the_timeout(start: Any, tmp_path: Path, rank: int) -> None:
    """Without torchrun, rank 0 holds the store, which doesn't answer any more."""
    action = "os.kill(os.getpid(), signal.SIGSTOP)"
    environment = {"TORCHELASTIC_USE_AGENT_STORE": "False"}
    processes = waiting(start, tmp_path, rank=rank, action=action, timeout=4.0, **environment)
    assert said(processes, 1 - rank, "did not come to the same exchange within 4 s", 60)
    assert processes.ends(1 - rank, 60) == 1


def test_ctrl_c_ends_a_rank_that_waits_for_another_one(start: Any, tmp_path: Path) -> None:
    processes = waiting(start, tmp_path, rank=1, action="time.sleep(1000)")
    time.sleep(0.5)
    processes.kill(0, signal.SIGINT)
    assert processes.ends(0, 30) == 130
    assert "KeyboardInterrupt" in processes.said(0)


def test_torch_names_the_exchange_in_which_ranks_differ(start: Any, tmp_path: Path) -> None:
    environment = {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}
    processes = waiting(start, tmp_path, rank=1, action="ranks.gather(3)", **environment).wait(60)
    assert all(processes.codes)
    assert any("exchanges something else than another rank" in text for text in processes.texts)
    assert any("ALLGATHER" in text and "ALLREDUCE" in text for text in processes.texts)
