"""Checkpoints are dropped on the way, and a run that was cut off anywhere still ends as one that never was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alcore_testing.essence import essence_of
from helpers.experiment import Cut, Points

from alcore import Driver
from alcore.store.reading import Run
from alcore.store.run import RunStore
from alcore.strategies import BaseMetrology, PointwiseQuery

Build = Callable[..., Driver]
KEEPS = ["last=1", "last=2,every=3", "best=f1", "best=f1:min,every=4", "best=loss:min,last=2"]


class Unsure(PointwiseQuery):
    def score(self, outputs: Any) -> torch.Tensor:
        return -outputs.flatten().abs()


class Uneven(BaseMetrology):
    """Figures that go up and down."""

    def __init__(self, point: Points) -> None:
        super().__init__()
        self.point = point

    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.point()
        step = self.driver.active_learning_step_idx
        mean = float(self.driver.infer(self.driver.train_datapool.inputs(torch.arange(40))).mean())
        self.append_record(f1=[0.5, 0.2, 0.9, 0.4, 0.9, 0.1, 0.3][step], mean=mean)


@pytest.fixture
def make(build: Build, toys: Any) -> Callable[..., Driver]:
    def new(run_id: str, point: Points, keep: str, **config: Any) -> Driver:
        class Slow(toys.EchoLabel):
            def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
                while not queue_to_label.empty():
                    point()
                    serialize_queue.put(queue_to_label.get())

        torch.manual_seed(7)
        return build(
            run_id=run_id,
            keep=keep,
            max_active_learning_steps=7,
            query_strategies=[Unsure(2)],
            label_strategy=Slow(),
            metrology_strategies=[Uneven(point)],
            learner=torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1)),
            train_datapool=toys.pool(),
            **config,
        )

    return new


def outcome(folder: Path) -> dict[str, Any]:
    files = {path.name: path.read_bytes() for path in (folder / "ckpt").iterdir()}
    return essence_of(folder) | {"files": files}


@pytest.mark.parametrize(
    "config", [{}, {"checkpoint_interval": 2, "model_checkpoint_frequency": 1}], ids=["", "inside"]
)
@pytest.mark.parametrize("keep", KEEPS)
def test_cut_anywhere_and_resumed_equals_uninterrupted(make: Any, keep: str, config: dict[str, Any]) -> None:
    points = Points()
    whole = make("whole", points, keep, **config)
    whole.run()
    expected = outcome(whole.log_dir)
    assert set(expected["files"]) == set(expected["checkpoints"])
    assert 2 <= len(expected["files"]) < 7, "something was dropped, and something kept"
    for place in range(2, points.passed + 1, 5):
        with pytest.raises(Cut):
            make(f"cut-{place}", Points(place), keep, **config).run()
        again = make(f"cut-{place}", Points(), keep, **config)
        again.restore()
        again.run()
        assert outcome(again.log_dir) == expected, place


@pytest.mark.parametrize("when", ["before the rows", "between rows and files"])
@pytest.mark.parametrize("step", [1, 4])
def test_cut_while_pruning(make: Any, monkeypatch: pytest.MonkeyPatch, when: str, step: int) -> None:
    keep = "best=f1:min,last=1,every=3"
    whole = make("whole", Points(), keep)
    whole.run()
    prune, pruned = RunStore.prune, iter(range(9))

    def cut(store: RunStore, wanted: Any) -> Any:
        if next(pruned) != step:
            return prune(store, wanted)
        if when == "between rows and files":
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(RunStore, "_remove_checkpoints", lambda self, files: None)
                prune(store, wanted)
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "prune", cut)
        cut_off = make("cut", Points(), keep)
        with pytest.raises(Cut):
            cut_off.run()
    ahead = {path.name for path in (cut_off.log_dir / "ckpt").iterdir()}
    if when == "between rows and files":
        assert ahead > {checkpoint["file"] for checkpoint in Run(cut_off.log_dir).checkpoints()}, "files without a row"
    again = make("cut", Points(), keep)
    again.restore()
    again.run()
    assert outcome(again.log_dir) == outcome(whole.log_dir)


def test_resumed_from_an_older_checkpoint_where_the_last_is_damaged(make: Any) -> None:
    whole = make("whole", Points(), "last=2,every=2")
    whole.run()
    with pytest.raises(Cut):
        make("cut", Points(17), "last=2,every=2").run()
    folder = whole.log_dir.parent / "cut"
    older, last = [checkpoint["file"] for checkpoint in Run(folder).checkpoints()][-2:]
    content = bytearray((folder / "ckpt" / last).read_bytes())
    content[-1] ^= 1
    (folder / "ckpt" / last).write_bytes(content)
    again = make("cut", Points(), "last=2,every=2")
    again.restore(older)
    again.run()
    assert outcome(again.log_dir) == outcome(whole.log_dir)
