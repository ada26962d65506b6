"""What ranks say to each other arrives as it was sent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from alcore.distributed import packing as wire
from alcore.distributed.ranks import Ranks, RoundRobin

VALUES: list[Any] = [
    None, 3, "ü", [1, (2.5, float("inf"))], {1: {"a": b"xyz"}}, torch.arange(6).reshape(2, 3), torch.tensor(True),
    torch.empty(0, 4), torch.ones(2, 2, dtype=torch.bfloat16).t(), torch.tensor([1 + 2j]).conj(), torch.tensor(2.5),
    {"w": torch.ones(3), "again": [torch.zeros(1, dtype=torch.int8)]},
]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.resolve_conj(), other.resolve_conj())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:20])
def test_what_is_packed_comes_back(value: Any) -> None:
    assert same(wire.unpack(wire.pack(value)), value)


def test_one_rank_speaks_to_itself() -> None:
    alone, done = Ranks(), []
    assert alone.main
    assert alone.share(lambda: 3) == 3
    assert alone.gather("a") == ["a"]
    assert [alone.any(True), alone.any(False)] == [True, False]
    alone.alone(lambda: done.append(1))
    assert done == [1]
    error = RuntimeError()
    assert alone.cause(error) is error


class Recorded(Ranks):
    """Rank r of several, whose others are played by the test."""

    def __init__(self, rank: int, size: int, others: list[list[Any]]) -> None:
        self.rank, self.size, self.others = rank, size, others

    def gather(self, value: Any, *, soon: bool = False) -> list[Any]:
        found = self.others.pop(0)
        found[self.rank] = value
        return found


def test_work_is_dealt_in_turns_and_comes_back_in_its_order() -> None:
    done: list[int] = []

    def square(n: int) -> torch.Tensor:
        done.append(n)
        return torch.tensor(n * n)

    results: list[list[Any]] = [[torch.tensor(n * n) for n in turn] for turn in ([0, 1, 2], [3, 4, 5])]
    results.append([torch.tensor(36), None, None])
    work = RoundRobin(Recorded(1, 3, results), square)
    found = [pair for n in range(7) for pair in work.add(n)] + list(work.rest())
    assert [(n, int(result)) for n, result in found] == [(n, n * n) for n in range(7)]
    assert done == [1, 4]
    assert list(work.rest()) == []


def test_one_rank_works_at_once() -> None:
    work = RoundRobin(Ranks(), lambda n: n + 1)
    assert list(work.add(3)) == [(3, 4)]
    assert list(work.rest()) == []


SPEAKING = """
import sys, time, torch
sys.path.insert(0, {here!r})
from test_group import VALUES, same
from alcore import DistributedManager
from alcore.distributed import average

manager = DistributedManager(timeout=1.5)
ranks = manager.join()
assert manager.join() is ranks
ranks.begin(lambda: False)
for value in VALUES:
    assert same(ranks.share(lambda: value if ranks.main else 1 / 0), value), value
    assert all(same(one, value) for one in ranks.gather(value)), value
assert ranks.gather(torch.arange(ranks.rank)) [2].tolist() == [0, 1]
assert ranks.gather(10 * ranks.rank) == [0, 10, 20]
assert ranks.any(ranks.rank == 1) is True
assert ranks.any(False) is False
assert average(float(ranks.rank)) == 1.0
assert average(0.1) == 0.1
times = []
ranks.alone(lambda: time.sleep(1.5))
time.sleep(ranks.rank)  # whoever comes late is waited for, longer than an exchange may take
ranks.alone(lambda: times.append(ranks.rank))
assert times == ([0] if ranks.main else [])
print("well")
"""


def test_several_ranks_hear_each_other(start: Any, tmp_path: Path) -> None:
    script = tmp_path / "speaking.py"
    script.write_text(SPEAKING.format(here=str(Path(__file__).parent)))
    processes = start(3, script).wait()
    assert processes.codes == [0, 0, 0], "\n".join(processes.texts)
    assert all("well" in text for text in processes.texts)


SILENT = """
import os, signal, sys, time
from alcore import DistributedManager
from alcore.distributed.group import Group

ranks = DistributedManager(timeout=15.0).join()
assert isinstance(ranks, Group)
ranks.beat_seconds, ranks.dead_after = 0.2, 2.0
ranks.begin(lambda: False)

def work():
    time.sleep(4)  # longer than it takes to count as dead, but with signs of life
    print("still there", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

ranks.alone(work)
"""


def test_rank_0_may_work_for_long_but_not_be_silent(start: Any, tmp_path: Path) -> None:
    script = tmp_path / "silent.py"
    script.write_text(SILENT)
    processes = start(2, script)
    until = time.monotonic() + 60
    while "no sign of life" not in processes.said(1) and time.monotonic() < until:
        time.sleep(0.1)
    assert "still there" in processes.said(0)
    assert "rank 0 has given no sign of life for 2 s" in processes.said(1)
