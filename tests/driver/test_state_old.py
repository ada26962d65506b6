"""The state of a run is all of it, and survives a checkpoint."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from alcore.distributed.ranks import Ranks
from alcore.driver import state
from alcore.errors import UsageError
from alcore.store import checkpoints


class Strategy:
    def __init__(self, **seen: Any) -> None:
        self.seen = seen

    def state_dict(self) -> dict[str, Any]:
        return self.seen


def driver(learner: Any = None, **parts: Any) -> Any:
    given = {"optimization": None, "strategies": {}, "train_loop_fn": None, **parts}
    given.setdefault("lifecycle", SimpleNamespace(parts={}))
    given.setdefault("ranks", Ranks())
    return SimpleNamespace(learner=learner, **given)


def collect(of: Any) -> dict[str, Any]:
    return state.collect(of, step=3, phase="labeling", epoch=0)


def test_every_part_is_collected() -> None:
    learner = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(learner.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2])
    learner(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    found = collect(
        driver(
            learner,
            optimization=SimpleNamespace(optimizer=optimizer, scheduler=scheduler),
            strategies={"uq": Strategy(count=3), "first": object()},
            train_loop_fn=Strategy(captured=1),
            lifecycle=SimpleNamespace(parts={"patience": Strategy(best=0.5), "bar": object()}),
        )
    )
    assert found["at"] == {"step": 3, "phase": "labeling", "epoch": 0, "book": {}}
    assert list(found["model"]) == ["weight", "bias"]
    assert set(found["optimizer"]["state"]) == {0, 1}
    assert found["scheduler"]["milestones"] == {2: 1}
    assert found["strategies"] == {"uq": {"count": 3}}
    assert found["plugins"] == {"patience": {"best": 0.5}}
    assert found["loop"] == {"captured": 1}
    assert set(found["rng"]) >= {"torch", "numpy", "python"}


def test_parts_without_state() -> None:
    found = collect(driver(object(), train_loop_fn=lambda: None))
    assert found["model"] == found["strategies"] == {}
    assert found["optimizer"] is found["scheduler"] is found["loop"] is None


def test_a_collected_state_survives_a_checkpoint(tmp_path: Path) -> None:
    learner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    learner[0].weight = torch.nn.Parameter(torch.arange(4.0).reshape(2, 2).T)
    found = collect(driver(learner))
    published = checkpoints.publish(tmp_path, "c", found)
    loaded = checkpoints.load(tmp_path / published.file, published.sha256)
    assert list(loaded["model"]) == list(learner.state_dict())
    assert all(torch.equal(loaded["model"][name], value) for name, value in learner.state_dict().items())
    assert loaded["at"] == found["at"]
    again = checkpoints.publish(tmp_path, "again", loaded)
    assert again.sha256 == published.sha256


def test_global_generators_go_on_as_before_a_checkpoint(tmp_path: Path) -> None:
    random.gauss(0, 1)  # keeps a second number for later
    np.random.standard_normal()
    checkpoints.publish(tmp_path, "c", {"rng": state.global_generators()})
    drawn = (random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand(), torch.rand(3).tolist())
    found = checkpoints.load(tmp_path / "c.safetensors")["rng"]
    state.set_global_generators(found)
    assert drawn == (
        random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand(), torch.rand(3).tolist(),
    )  # fmt: skip


def test_looking_at_the_generators_does_not_move_them() -> None:
    first, second = state.global_generators(), state.global_generators()
    assert torch.equal(first["torch"], second["torch"])
    assert first["python"]["internal"].tolist() == second["python"]["internal"].tolist()
    assert (first["numpy"]["state"]["key"] == second["numpy"]["state"]["key"]).all()


# -- restoring -------------------------------------------------------------------------------------------


class Restored(Strategy):
    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.seen = saved


def test_parts_get_their_state_back(caplog: pytest.LogCaptureFixture) -> None:
    def made(**seen: Any) -> Any:
        return driver(
            object(),
            strategies={"uq": Restored(**seen), "plain": object()},
            lifecycle=SimpleNamespace(parts={"patience": Restored(**seen)}),
            train_loop_fn=Restored(**seen),
            logger=logging.getLogger("tests.state"),
        )

    saved = collect(made(count=3))
    saved["strategies"]["gone"] = {"a": 1}
    torch.rand(1)
    fresh = made(count=0)
    state.restore_parts(fresh, saved)
    parts = (fresh.strategies["uq"], fresh.lifecycle.parts["patience"], fresh.train_loop_fn)
    assert [one.seen for one in parts] == [{"count": 3}] * 3
    assert torch.equal(torch.get_rng_state(), saved["rng"]["torch"])
    assert "'gone'" in caplog.text


def test_weights_and_buffers_are_loaded() -> None:
    saved, fresh = (torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)) for _ in range(2))
    saved[1].running_mean += 1
    state.load_model(fresh, state.model_state(saved))
    assert state.model_digest(fresh) == state.model_digest(saved)


@pytest.mark.parametrize("other", [torch.nn.Linear(3, 1), torch.nn.Linear(2, 1, bias=False), torch.nn.ReLU()])
def test_weights_of_another_learner_are_refused(other: torch.nn.Module) -> None:
    with pytest.raises(UsageError, match="not the one of this run"):
        state.load_model(other, state.model_state(torch.nn.Linear(2, 1)))


def test_missing_weights_are_refused() -> None:
    with pytest.raises(UsageError, match=r"not the one of this run.*Missing"):
        state.load_model(torch.nn.Linear(2, 1), {"weight": torch.ones(1, 2)})


def test_a_learner_without_weights_needs_none() -> None:
    state.load_model(object(), {})


# -- the digest of a model -------------------------------------------------------------------------------


def model(**values: Any) -> Any:
    return SimpleNamespace(state_dict=lambda: values)


def test_a_model_is_known_by_names_weights_and_buffers() -> None:
    learner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    before = state.model_digest(learner)
    assert len(before) == 16
    assert state.model_digest(learner.eval()) == before
    learner[1].running_mean += 1
    assert state.model_digest(learner) != before
    assert state.model_digest(model(a=torch.ones(2))) != state.model_digest(model(b=torch.ones(2)))
    assert state.model_digest(model(a=1)) != state.model_digest(model(a=2))
    assert state.model_digest(object()) == state.model_digest(model())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64, torch.complex64])
def test_weights_of_any_type(dtype: torch.dtype) -> None:
    one, other = torch.tensor([1, 0]).to(dtype), torch.tensor([0, 1]).to(dtype)
    assert state.model_digest(model(a=one)) != state.model_digest(model(a=other))
    assert state.model_digest(model(a=one[0])) != state.model_digest(model(a=one[1]))  # no dimensions


def test_layout_in_memory_does_not_count() -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    assert state.model_digest(model(a=whole.T)) == state.model_digest(model(a=whole.T.contiguous()))
