"""A run that ends because its steps are done trains and measures once more, where that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from alcore_random import RandomQuery
from alcore_testing import differences, essence_of
from helpers.experiment import Cut

import alcore
from alcore import Driver
from alcore.errors import Interrupted
from alcore.protocols import Phase
from alcore.store.reading import Run
from alcore.strategies import BaseMetrology

Make = Callable[..., Driver]


class Averaging(BaseMetrology):
    """A figure that depends on what was measured before."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = 0.0

    def compute(self, *args: Any, **kwargs: Any) -> None:
        pool = self.driver.train_datapool
        self.mean = 0.5 * self.mean + float(self.driver.infer(pool.inputs(torch.arange(40))).mean())
        self.append_record(mean=self.mean)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Any) -> None:
        self.mean = state["mean"]


class At:
    """Does something when a phase of a step begins."""

    def __init__(self, act: Callable[[Driver], Any], phase: str, step: int) -> None:
        self.act, self.when = act, (phase, step)

    @alcore.runhook
    def alcore_phase_start(self, driver: Driver, phase: Phase) -> None:
        if (phase, driver.active_learning_step_idx) == self.when:
            self.act(driver)


def cut(_driver: Driver) -> None:
    raise Cut


@pytest.fixture
def make(build: Make, toys: Any) -> Make:
    def new(run_id: str, steps: int, *plugins: Any, **settings: Any) -> Driver:
        parts = {
            "run_id": run_id, "max_active_learning_steps": steps, "final_training": True, "learner": toys.learner(3),
            "train_datapool": toys.pool(), "plugins": list(plugins), "metrology_strategies": [Averaging()],
            "optimizer_config": alcore.config.OptimizerConfig(torch.optim.Adam, {"lr": 0.1}),
        }  # fmt: skip
        return build(**(parts | settings))

    return new


def samples_measured(driver: Driver) -> list[int]:
    return [record["train_samples"] for record in Run(driver.log_dir).records()["averaging"]]


def go_on(driver: Driver) -> Driver:
    driver.restore()
    driver.run()
    return driver


def test_labels_of_the_last_step_are_trained_on_and_measured(make: Make) -> None:
    driver = make("r", 2)
    driver.run()
    assert samples_measured(driver) == [8, 11, 14]
    run = Run(driver.log_dir)
    assert len(run.steps()) == 2
    assert run.checkpoints()[-1]["step"] == 2
    assert (run.meta()["status"], run.meta()["reason"]) == ("done", "all 2 steps are done")


def test_default_is_as_many_trainings_as_steps(make: Make) -> None:
    driver = make("r", 2, final_training=False)
    driver.run()
    assert samples_measured(driver) == [8, 11]


@pytest.mark.parametrize("reset_optim_states", [True, False])
def test_run_extended_by_three_steps_equals_one_of_six(make: Make, reset_optim_states: bool) -> None:
    whole = make("whole", 6, reset_optim_states=reset_optim_states)
    whole.run()
    make("r", 3, reset_optim_states=reset_optim_states).run()
    extended = go_on(make("r", 6, reset_optim_states=reset_optim_states))
    assert differences(essence_of(extended.log_dir), essence_of(whole.log_dir)) == [
        "checkpoints: 000003-training-000002.safetensors"
    ]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("last=1", ["000003-training-000002"]),
        ("last=2", ["000002-labeling-000000", "000003-training-000002"]),
        ("every=2", ["000001-labeling-000000", "000003-training-000002"]),
    ],
)
def test_checkpoint_of_the_final_training_is_the_last_one(make: Make, keep: str, kept: list[str]) -> None:
    def files(driver: Driver) -> list[str]:
        named = [checkpoint["file"] for checkpoint in Run(driver.log_dir).checkpoints()]
        assert sorted(path.name for path in (driver.log_dir / "ckpt").iterdir()) == sorted(named)
        return named

    driver = make("r", 3, keep=keep)
    driver.run()
    assert files(driver) == ["initial.safetensors", *(f"{name}.safetensors" for name in kept)]
    whole = make("whole", 5, keep=keep)
    whole.run()
    extended = go_on(make("r", 5, keep=keep))
    assert files(extended) == files(whole)
    assert differences(essence_of(extended.log_dir), essence_of(whole.log_dir)) == []


@pytest.mark.parametrize(("how", "phase"), [("cut", "training"), ("cut", "metrology"), ("interrupted", "training")])
def test_run_that_was_cut_off_in_its_final_training_ends_the_same(make: Make, phase: str, how: str) -> None:
    whole = make("whole", 2)
    whole.run()
    act, error = {"cut": (cut, Cut), "interrupted": (Driver.interrupt, Interrupted)}[how]
    with pytest.raises(error):
        make("r", 2, At(act, phase, 2)).run()
    again = go_on(make("r", 2))
    assert samples_measured(again) == [8, 11, 14]
    assert differences(essence_of(again.log_dir), essence_of(whole.log_dir)) == []


def test_run_that_has_ended_is_measured_once_however_often_it_is_resumed(make: Make) -> None:
    make("r", 2).run()
    before = essence_of(make("r", 2).log_dir)
    again = go_on(make("r", 2))
    assert differences(essence_of(again.log_dir), before) == []


@pytest.mark.parametrize(
    ("settings", "measured"),
    [
        ({"skip_training": True}, [8, 11]),
        ({"budget": 5.0}, [8, 11, 13]),  # its last step has trained on all labels, and bought none
        ({"max_active_learning_steps": 0}, [8]),
    ],
)
def test_run_that_ends_otherwise_does_not_train_once_more(
    make: Make, settings: dict[str, Any], measured: list[int]
) -> None:
    driver = make("r", settings.pop("max_active_learning_steps", 9 if "budget" in settings else 2), **settings)
    driver.run()
    assert samples_measured(driver) == measured


def test_learner_without_an_optimizer_is_kept_as_it_was_trained(make: Make) -> None:
    class Fitted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.new_zeros(len(inputs), 1) + self.count

    def loop(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        model.count += sum(len(batch[0]) for batch in train_dataloader)

    settings: dict[str, Any] = {"train_loop_fn": loop}
    whole = make("whole", 4, learner=Fitted(), **settings)
    whole.run()
    make("r", 2, learner=Fitted(), **settings).run()
    extended = go_on(make("r", 4, learner=Fitted(), **settings))
    assert extended.learner.count == whole.learner.count
    assert Run(extended.log_dir).records() == Run(whole.log_dir).records()


@pytest.mark.parametrize(
    ("settings", "untrained"),
    [
        ({"final_training": False}, 3),
        ({"final_training": False, "metrology_strategies": []}, 3),
        ({"final_training": False, "checkpoint_interval": 0}, 3),
        ({"final_training": False, "max_active_learning_steps": 1, "start_strategy": RandomQuery(4)}, 4),
        ({"final_training": True}, 0),
        ({"final_training": True, "metrology_strategies": [], "keep": "last=1"}, 0),
        ({"final_training": False, "skip_training": True}, 0),
        ({"final_training": False, "budget": 5.0, "max_active_learning_steps": 9}, 0),
    ],
)
def test_end_of_a_run_says_how_many_labels_no_training_has_used(
    make: Make, toys: Any, settings: dict[str, Any], untrained: int
) -> None:
    if "start_strategy" in settings:
        settings |= {"train_datapool": toys.pool(labeled=0)}
    driver = make("r", settings.pop("max_active_learning_steps", 2), **settings)
    driver.run()
    lines = [line for line in Run(driver.log_dir).log(9) if "after the last training" in line]
    assert Run(driver.log_dir).untrained_labels() == untrained
    assert len(lines) == (untrained > 0)
    assert all(f" {untrained} labels came after the last training" in line for line in lines)


def test_labels_without_a_training_are_trained_on_where_the_run_goes_on_with_a_final_one(make: Make) -> None:
    make("r", 2, final_training=False).run()
    driver = go_on(make("r", 2))
    assert samples_measured(driver) == [8, 11, 14]
    assert Run(driver.log_dir).untrained_labels() == 0
