"""A single process as the only rank, work shared in turns, and means over ranks."""

from __future__ import annotations

from typing import Any

import torch

from alcore.distributed.ranks import Ranks, RoundRobin, mean_over_ranks


def test_single_process_exchanges_with_itself() -> None:
    ranks, done = Ranks(), []
    assert ranks.main
    assert not ranks.is_detached
    assert ranks.by_itself() is ranks
    assert ranks.share(lambda: 3) == 3
    assert ranks.gather("a") == ["a"]
    assert ranks.differing("a") is None
    assert [ranks.any(True), ranks.any(False)] == [True, False]
    ranks.on_rank_0(lambda: done.append(1), lambda: True)
    assert done == [1]
    assert not ranks.others_ended()
    error = RuntimeError()
    assert ranks.root_cause(error) is error


class Played(Ranks):
    """Rank r of several; the test plays the others."""

    def __init__(self, rank: int, size: int, others: list[list[Any]]) -> None:
        self.rank, self.size, self.others = rank, size, others

    def gather(self, value: Any) -> list[Any]:
        values = self.others.pop(0)
        values[self.rank] = value
        return values


def test_differing_names_the_first_rank_that_differs_from_rank_0() -> None:
    assert Played(0, 4, [["a", "a", "b", "c"]]).differing("a") == 2
    assert Played(3, 4, [["a", "a", "a", None]]).differing("a") is None


def test_round_robin_computes_every_third_piece_and_returns_all_in_order() -> None:
    computed: list[int] = []

    def square(n: int) -> torch.Tensor:
        computed.append(n)
        return torch.tensor(n * n)

    results: list[list[Any]] = [[torch.tensor(n * n) for n in turn] for turn in ([0, 1, 2], [3, 4, 5])]
    results.append([torch.tensor(36), None, None])
    work = RoundRobin(Played(1, 3, results), square)
    pairs = [pair for n in range(7) for pair in work.add(n)] + list(work.rest())
    assert [(n, int(result)) for n, result in pairs] == [(n, n * n) for n in range(7)]
    assert computed == [1, 4]
    assert list(work.rest()) == []


def test_round_robin_of_single_process_computes_at_once() -> None:
    work = RoundRobin(Ranks(), lambda n: n + 1)
    assert list(work.add(3)) == [(3, 4)]
    assert list(work.rest()) == []


def test_mean_over_ranks_keeps_equal_values_exactly() -> None:
    assert mean_over_ranks([0.1, 0.1, 0.1]) == 0.1
    assert mean_over_ranks([1.0, 2.0, 6.0]) == 3.0
