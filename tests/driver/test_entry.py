"""How a Driver is entered: once at a time, from any working directory, and again where a run is there already."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import alcore
from alcore import Driver, UsageError
from alcore.errors import AlcoreError, Interrupted, RunExistsError
from alcore.protocols import Phase
from alcore.store.reading import Run
from alcore.strategies import PointwiseQuery

Build = Callable[..., Driver]


# -- the root folder -------------------------------------------------------------------------------------------------


def test_run_stays_in_its_folder_when_the_working_directory_changes(
    build: Build, toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)

    class Wandering(toys.EchoLabel):  # type: ignore[misc]
        def label(self, *args: Any, **kwargs: Any) -> None:
            os.chdir(tmp_path / "there")
            super().label(*args, **kwargs)

    driver = build(root_log_dir="logs", run_id="one", label_strategy=Wandering())
    assert driver.log_dir == tmp_path / "logs" / "one"
    monkeypatch.chdir(tmp_path / "there")
    driver.run()
    assert not list((tmp_path / "there").iterdir())
    assert Run(tmp_path / "logs" / "one").meta()["status"] == "done"
    monkeypatch.chdir(tmp_path)
    longer = build(root_log_dir="logs", run_id="one", max_active_learning_steps=5, label_strategy=Wandering())
    monkeypatch.chdir(tmp_path / "there")
    longer.restore()
    longer.run()
    assert len(Run(tmp_path / "logs" / "one").steps()) == 5


# -- re-entry --------------------------------------------------------------------------------------------------------

ENTRIES: dict[str, Callable[[Driver], Any]] = {
    "run": lambda driver: driver.run(),
    "call": lambda driver: driver(),
    "session": lambda driver: driver.session().__enter__(),
    "restore": lambda driver: driver.restore(),
    "step": lambda driver: driver.active_learning_step(),
    "training": lambda driver: driver._training_phase(),
    "metrology": lambda driver: driver._metrology_phase(),
    "query": lambda driver: driver._query_phase(),
    "labeling": lambda driver: driver._labeling_phase(),
    "choose": lambda driver: driver.choose(),
}


@pytest.mark.parametrize("threaded", [False, True], ids=["same thread", "other thread"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_entering_a_run_inside_itself_is_refused_and_changes_nothing(
    build: Build, toys: Any, entry: str, threaded: bool
) -> None:
    seen: list[Exception] = []

    def enter(driver: Driver) -> None:
        try:
            ENTRIES[entry](driver)
        except Exception as error:  # noqa: BLE001 - what it is, is what is tested
            seen.append(error)

    class Query(toys.FirstQuery):  # type: ignore[misc]
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            if threaded:
                thread = threading.Thread(target=enter, args=(self.driver,))
                thread.start()
                thread.join()
            else:
                enter(self.driver)
            super().sample(query_queue)

    plain, driver = build(run_id="plain"), build(run_id="entered", query_strategies=[Query()])
    plain.run()
    driver.run()
    assert [type(error) for error in seen] == [UsageError] * 3
    assert all("entered" in str(error) for error in seen)
    asked = [[request["sample"] for request in Run(request.log_dir).requests()] for request in (plain, driver)]
    assert asked[0] == asked[1]


def test_observer_that_runs_the_run_is_refused_between_steps(build: Build) -> None:
    seen: list[str] = []

    class Eager:
        @alcore.runhook
        def alcore_step_end(self, driver: Any) -> None:
            with pytest.raises(UsageError) as error:
                driver.run()
            seen.append(str(error.value))

    driver = build(plugins=[Eager()])
    driver.run()
    assert len(seen) == 3
    assert driver.stop_reason == "all 3 steps are done"


# -- a run that is there already --------------------------------------------------------------------------------------


def test_error_of_a_run_that_exists_names_the_ways_to_go_on(build: Build) -> None:
    build(run_id="one").run()
    with pytest.raises(RunExistsError, match=r"driver\.restore\(\) before driver\.run\(\).*resume='auto'"):
        build(run_id="one").run()


def test_resume_auto_begins_a_run_then_goes_on_with_it_then_has_nothing_to_do(build: Build, toys: Any) -> None:
    def make(run_id: str, label: Any = None, steps: int = 3) -> Driver:
        settings = {"run_id": run_id, "resume": "auto", "max_active_learning_steps": steps}
        return build(**settings, learner=toys.learner(), label_strategy=label or toys.EchoLabel())

    class Ending(toys.EchoLabel):  # type: ignore[misc]
        idempotent = True

        def label(self, *args: Any, **kwargs: Any) -> None:
            if self.driver.active_learning_step_idx == 1:
                self.driver.interrupt()
            super().label(*args, **kwargs)

    whole, cut = make("whole"), make("cut", Ending())
    whole.run()
    with pytest.raises(Interrupted):
        cut.run()
    rest = make("cut")
    rest.run()
    assert torch.equal(rest.learner.weight, whole.learner.weight)
    assert [request["sample"] for request in Run(rest.log_dir).requests()] == [
        request["sample"] for request in Run(whole.log_dir).requests()
    ]
    ended = make("cut")
    ended.run()
    assert ended.stop_reason == "all 3 steps are done"
    stepwise = make("cut", steps=4)
    with stepwise.session():
        stepwise.active_learning_step()
    assert len(Run(rest.log_dir).steps()) == 4


# -- who raised an error -----------------------------------------------------------------------------------------------


class Faulty(PointwiseQuery):
    """Scores by the learner, until a method of it is replaced by one that fails."""

    def score(self, outputs: Any) -> torch.Tensor:
        return outputs.flatten()


def fail(*_arguments: Any, **_kwargs: Any) -> Any:
    raise RuntimeError("broken")


def nothing_finite(*_arguments: Any, **_kwargs: Any) -> float:
    return math.nan


@pytest.mark.parametrize(
    ("part", "method", "replaced", "named"),
    [
        ("query", "attach", fail, "attach() of faulty"),
        ("query", "check", fail, "check() of faulty"),
        ("query", "sample", fail, "sample() of faulty"),
        ("query", "state_dict", fail, "state_dict() of faulty"),
        ("query", "score", lambda outputs: outputs.flatten()[:1], "faulty can't be used here"),
        ("query", "infer", fail, "faulty"),
        ("label", "attach", fail, "attach() of echo_label"),
        ("label", "label", fail, "label() of EchoLabel"),
        ("label", "cost", fail, "cost() of EchoLabel"),
        ("label", "cost", nothing_finite, "label strategy's cost()"),
        ("label", "state_dict", fail, "state_dict() of "),
        ("metrology", "compute", fail, "compute() of count_metrology"),
        ("metrology", "serialize_records", fail, "serialize_records() of count_metrology"),
        ("metrology", "state_dict", fail, "state_dict() of count_metrology"),
        ("loop", "state_dict", fail, "state_dict() of the training loop"),
        ("loop", "check", fail, "check() of the training loop"),
        ("loop", "attach", fail, "attach() of the training loop"),
    ],
)
def test_error_of_any_method_of_a_part_names_it(
    build: Build, toys: Any, part: str, method: str, replaced: Any, named: str
) -> None:
    class Loop:
        def __call__(self, *_: Any, **__: Any) -> None: ...

    parts = {"query": Faulty(2), "label": toys.EchoLabel(), "metrology": toys.CountMetrology(), "loop": Loop()}
    setattr(parts[part], method, replaced)

    def start() -> None:
        build(
            query_strategies=[parts["query"]],
            label_strategy=parts["label"],
            metrology_strategies=[parts["metrology"]],
            train_loop_fn=parts["loop"],
        ).run()

    with pytest.raises((RuntimeError, AlcoreError)) as error:
        start()
    assert named in alcore.errors.message_of(error.value)


def test_score_that_fails_later_names_its_strategy_also_in_the_record_of_the_run(build: Build) -> None:
    class Late(Faulty):
        def score(self, outputs: Any) -> torch.Tensor:
            if self.driver.active_learning_step_idx == 1 and self._driver.phase is Phase.QUERY:  # type: ignore[union-attr]
                return torch.full((len(outputs),), torch.nan)
            return super().score(outputs)

    driver = build(query_strategies=[Late(2)])
    with pytest.raises(AlcoreError):
        driver.run()
    error = Run(driver.log_dir).meta()["error"]
    assert "raised by sample() of late" in error
    assert "in the query phase of step 1" in error
