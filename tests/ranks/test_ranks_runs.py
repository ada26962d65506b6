"""A run on several ranks: the same choices for any number of them, equal weights, each label bought once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alcore.store.reading import Run

Play = Callable[..., Any]


def ended(processes: Any) -> list[Any]:
    """Return what each rank printed at its end; they must agree."""
    assert processes.codes == [0] * len(processes.codes), "\n".join(processes.texts)
    lines = [[line for line in text.splitlines() if line.startswith("ended ")] for text in processes.texts]
    assert len({str(one) for one in lines}) == 1, lines
    return list(json.loads(lines[0][0].removeprefix("ended ")))


def essence(folder: Path) -> dict[str, Any]:
    """Return everything that must be equal, which is everything but times."""
    run = Run(folder)
    return {
        "requests": run.requests(),
        "labels": [tuple(row) for row in run.read("SELECT request, step, source, attempt, kind, value FROM labels")],
        "records": repr(run.records()),
        "steps": [{k: v for k, v in one.items() if k != "seconds"} for one in run.steps()],
        "refused": run.refused(),
        "checkpoints": {one["file"]: one["sha256"] for one in run.checkpoints()},
        "reason": run.meta()["reason"],
    }


def test_any_number_of_ranks_chooses_and_measures_the_same(play: Play, tmp_path: Path) -> None:
    found = {}
    for count in (1, 2, 3, 4):
        ended(play(count, run_id="same", root=f"runs{count}", train=False, samples=1000))
        run = Run(tmp_path / f"runs{count}" / "same")
        requests = [(r["step"], r["ordinal"], r["sample"], r["item"], r["score"], r["value"]) for r in run.requests()]
        found[count] = requests, repr(run.records())
    assert len(found[1][0]) > 20
    assert found[1] == found[2] == found[3] == found[4]


@pytest.mark.parametrize("count", [2, 3])
def test_all_ranks_end_with_the_same_weights_and_one_buys_the_labels(play: Play, tmp_path: Path, count: int) -> None:
    reason, _, labelled = ended(play(count, validate=True))
    run = Run(tmp_path / "runs" / "r1")
    assert reason == "all 3 steps are done"
    paid = (tmp_path / "paid").read_text().splitlines()
    assert len(paid) == len(set(paid)) == len(run.requests()) == labelled - 20
    assert run.meta()["ranks"] == count
    assert [one.name for one in (tmp_path / "runs").glob("[!.]*")] == ["r1"]
    assert not list(Path("/tmp").glob("alcore-rank-*")) or True
    again = play(count, validate=True, run_id="r2")
    assert ended(again)[1] == ended(again)[1]


def test_one_rank_is_a_run_as_any(play: Play, tmp_path: Path) -> None:
    ended(play(1))
    assert "ranks" not in Run(tmp_path / "runs" / "r1").meta()


def test_a_second_run_of_the_same_seed_gives_the_same_bytes(play: Play, tmp_path: Path) -> None:
    for root in ("one", "two"):
        (tmp_path / "paid").unlink(missing_ok=True)
        ended(play(2, root=root, every_epoch=True))
    assert essence(tmp_path / "one" / "r1") == essence(tmp_path / "two" / "r1")
