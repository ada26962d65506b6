"""Build a driver in one line, let its query strategies choose, interrupt a run and resume it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from alcore import Driver, Phase, runhook
from alcore import config as c
from alcore.randomness import derive_generator, preserve_rng_state, seed_everything
from alcore_testing.essence import checkpoint_differences, differences, essence_of
from alcore_testing.toys import Case, ToyLabel, ToyQuery, toy_learner, toy_loop, toy_pool

STEPS, LATE = 7, 5
"""Of a run that is cut off late: how many steps it has, and in which it is cut off, so that slow changes show."""

ROUNDS = 50
"""How often a run may wait for labels."""


class ToyDriver(Driver):
    """A Driver that can stand at a later step without a run.

    Attributes
    ----------
    ahead : int
        How many steps it is ahead of what its run, if there is one, has done.
    while_waiting : Callable or None
        Called where a run waits for labels, which goes on then; None lets `run` return.
    """

    ahead = 0
    while_waiting: Callable[[], None] | None = None

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Do as `Driver.run` does; where the run waits, let what it waits for happen, and go on."""
        super().run(*args, **kwargs)
        for _ in range(ROUNDS if self.while_waiting else 0):
            if self.end_reason is None or self.end_reason.kind.status != "waiting":
                return
            assert self.while_waiting is not None
            self.while_waiting()
            super().run(*args, **kwargs)
        assert self.while_waiting is None, f"the run still waits, after {ROUNDS} rounds of work(): {self.stop_reason}"

    @property
    def active_learning_step_idx(self) -> int:
        """The step under way."""
        return super().active_learning_step_idx + self.ahead

    def generator(self, *purpose: object) -> torch.Generator:
        """Return a generator as a run has it in this step and phase."""
        if not self.ahead:
            return super().generator(*purpose)
        return derive_generator(int(self.config.seed or 0), self.active_learning_step_idx, self.phase, *purpose)


D = TypeVar("D", bound=Driver)


def build_driver(
    folder: Path,
    *queries: Any,
    case: Case | str = "classes",
    pool: Any = None,
    learner: Any = None,
    label: Any = None,
    metrology: Sequence[Any] = (),
    plugins: Sequence[Any] = (),
    unlabeled: Any = None,
    validation: Any = None,
    inference_fn: Callable[[Any, Any], Any] | None = None,
    epochs: int = 1,
    loop: Any = toy_loop,
    queue_cls: Callable[[], Any] = queue.Queue,
    **settings: Any,
) -> ToyDriver:
    """Return a driver of a toy problem; nothing is written before it runs.

    Parameters
    ----------
    folder
        Where run directories are made.
    *queries
        Query strategies; a `ToyQuery` where there is none.
    case
        What `toy_pool` and `toy_learner` are made for.
    pool, learner, label
        In place of the toys.
    metrology, plugins, unlabeled, validation, inference_fn, epochs, loop, queue_cls
        The other parts, as the configs have them.
    **settings
        Fields of `DriverConfig`.
    """
    given = {"batch_size": 8, "max_active_learning_steps": 3, "device": "cpu", "seed": 0, "root_log_dir": folder}
    return ToyDriver(
        c.DriverConfig(**{**given, **settings}),
        toy_learner(case) if learner is None else learner,
        c.StrategiesConfig(
            list(queries) or [ToyQuery()],
            queue_cls,
            ToyLabel() if label is None else label,
            list(metrology),
            unlabeled,
        ),
        c.TrainingConfig(
            toy_pool(case) if pool is None else pool,
            max_training_epochs=epochs,
            val_datapool=validation,
            optimizer_config=c.OptimizerConfig(torch.optim.SGD, {"lr": 0.05}),
            train_loop_fn=loop,
        ),
        inference_fn=inference_fn,
        plugins=plugins,
    )


def prepare(driver: D) -> D:
    """Do what comes before step 0: check that everything fits together, and place the learner; return the driver."""
    driver.prepare()
    return driver


def ask(driver: Driver, *args: Any, **kwargs: Any) -> list[int]:
    """Let the query strategies of a driver choose, as in its query phase; nothing is written.

    Parameters
    ----------
    driver
        Whose strategies.
    *args, **kwargs
        Passed on to the strategies.

    Returns
    -------
    list of int
        The sample ids that were asked for, in their order; they are not candidates any more.

    Raises
    ------
    AssertionError
        When a strategy asked for something that can't be asked for: a sample that is labeled, was asked for
        before, or is not in the pool; or for more than its share.
    """
    asked = [request.sample for request in driver.choose(*args, **kwargs)]
    refused = dict(driver.query_queue.dropped)
    assert not refused, f"asked for what can't be asked for: {refused}"
    assert None not in asked, "asked for a generated input, not for a sample"
    return [sample for sample in asked if sample is not None]


class CutOff:
    """An observer that ends a run when a phase of a step begins, as a kill would: nothing is saved."""

    def __init__(self, step: int, phase: Phase) -> None:
        self._step, self._phase = step, phase

    @runhook
    def alcore_phase_start(self, driver: Driver, phase: Phase) -> None:
        """End the run, if it is time."""
        if driver.active_learning_step_idx == self._step and phase is self._phase:
            raise KeyboardInterrupt("cut off, to be resumed")


def whole_and_resumed(
    build: Callable[..., Driver], folder: Path, step: int, phase: Phase, train_step_fn: Any = None
) -> tuple[Driver, Driver]:
    """Return a driver that ran without a break, and one that was cut off and resumed.

    Parameters
    ----------
    build
        Called as ``build(folder, plugins=, run_id=)``; returns a driver of fresh parts, always the same ones.
    folder
        Where the runs are made.
    step, phase
        Where the second run is cut off: as this phase begins.
    train_step_fn
        Of both runs.
    """
    with preserve_rng_state():
        seed_everything(0)
        whole = build(folder / "whole", plugins=[])
        whole.run(train_step_fn)
        seed_everything(0)
        cut = build(folder / "cut", plugins=[CutOff(step, phase)])
        try:
            cut.run(train_step_fn)
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError(f"the run ended before the {phase} phase of step {step}: {cut.stop_reason}")
        seed_everything(1)
        resumed = build(folder / "cut", plugins=[], run_id=cut.run_id)
        resumed.restore()
        resumed.run(train_step_fn)
    return whole, resumed


def assert_same_run(resumed: Driver, whole: Driver) -> None:
    """Raise AssertionError where a resumed run differs from one without a break; both are done.

    Compared is what `essence_of` returns: requests, labels, records and steps, and the checkpoints, which hold the
    weights and the states of all parts.
    """
    assert resumed.stop_reason == whole.stop_reason
    lines = differences(essence_of(resumed.log_dir), essence_of(whole.log_dir))
    for file in [line.removeprefix("checkpoints: ") for line in lines if line.startswith("checkpoints: ")][:1]:
        parts = checkpoint_differences(resumed.log_dir / "ckpt" / file, whole.log_dir / "ckpt" / file)
        lines.append(f"first of them, in {file}: {', '.join(parts[:10])}")
    assert not lines, "resumed, it differs from the run without a break in " + "; ".join(lines)
