"""A run of classes in the style of PhysicsNeMo's active-learning module; only the imports are alcore's.

A one-dimensional "solver" is expensive. The query strategy makes up inputs of its own, where two small networks
disagree; the label strategy runs the solver; the metrology strategy measures on a grid. docs/from-physicsnemo.md
describes each name.
"""

from __future__ import annotations

import argparse
import logging
import queue
from typing import Any

import torch
from alcore_torchloop import DefaultTrainingLoop, StaticCaptureEvaluateNoGrad, StaticCaptureTraining

from alcore import (
    AbstractQueue,
    ActiveLearningPhase,
    DataInfo,
    DataPool,
    DistributedManager,
    Driver,
    DriverProtocol,
    Label,
    LearnerProtocol,
    UsageError,
    config,
)
from alcore import BaseLabel as LabelStrategy
from alcore import BaseMetrology as MetrologyStrategy
from alcore import BaseQuery as QueryStrategy


def solve(x: torch.Tensor) -> torch.Tensor:
    """Stand for a solver that takes a night."""
    return torch.sin(3 * x) + 0.3 * x


class Surrogate(torch.nn.Module):
    """Two networks; the output is their mean, and their difference says where they know little."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean prediction, shape (B, 1)."""
        return (self.nets[0](x) + self.nets[1](x)) / 2

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the mean loss of the two networks."""
        x, y = batch
        return sum(torch.nn.functional.mse_loss(net(x), y) for net in self.nets) / len(self.nets)  # type: ignore[return-value]


class Runs(DataPool[tuple[torch.Tensor, torch.Tensor]]):
    """Solver runs in memory."""

    info = DataInfo("regression", features=1, shape=(1,))

    def __init__(self, inputs: torch.Tensor) -> None:
        self.items = [(x, solve(x)) for x in inputs]

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return input and result of one run."""
        return self.items[index]

    def append(self, item: Label) -> None:
        """Add a run."""
        self.items.append((item.item, item.value))


class Disagreement(QueryStrategy):
    """Ask for the inputs, out of many made-up ones, where the networks differ most."""

    def __init__(self, max_samples: int) -> None:
        self.max_samples = max_samples

    def attach(self, driver: DriverProtocol) -> None:
        """Keep the driver."""
        self.driver = driver

    def sample(self, query_queue: AbstractQueue[torch.Tensor], *args: Any, **kwargs: Any) -> None:
        """Put inputs into the queue."""
        assert self.is_attached
        learner: Any = self.driver.learner
        inputs = 4 * torch.rand(256, 1, generator=self.generator("inputs")) - 2
        gaps = StaticCaptureEvaluateNoGrad(learner, label="disagreement", logger=self.logger)(
            lambda x: (learner.nets[0](x) - learner.nets[1](x)).abs().flatten()
        )(inputs)
        for place in gaps.topk(self.max_samples).indices.tolist():
            query_queue.put(inputs[place])


class Solver(LabelStrategy):
    """Run the solver for each input, and keep a note of it in a folder of its own."""

    def attach(self, driver: DriverProtocol) -> None:
        """Keep the driver."""
        self.driver = driver

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Deliver a label for each request."""
        while not queue_to_label.empty():
            x = queue_to_label.get()
            (self.strategy_dir / "last_input.txt").write_text(f"{x.item():.6f}\n")
            serialize_queue.put(Label(x, solve(x)))


class GridError(MetrologyStrategy):
    """Measure the error on a grid."""

    def attach(self, driver: DriverProtocol) -> None:
        """Keep the driver."""
        self.driver = driver

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Append the root mean squared error."""
        grid = torch.linspace(-2, 2, 101)[:, None]
        error = (self.driver.infer(grid) - solve(grid)).square().mean().sqrt().item()
        self.append({"step": self.driver.active_learning_step_idx, "rmse": error})
        self.logger.info("%d records, the last one %.3f", len(self), error)
        (self.checkpoint_dir / "last.txt").write_text(f"{error}\n")


def own_training_step(model: LearnerProtocol, batch: Any) -> torch.Tensor:
    """Return the loss of a batch."""
    return model.training_step(batch)


def check_loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    """Return the validation loss of a batch."""
    return torch.nn.functional.mse_loss(model(batch[0]), batch[1])


def own_loop(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **_: Any) -> None:
    """Train by hand, with a captured step."""
    step = StaticCaptureTraining(
        model=model, optim=optimizer, use_amp=False, amp_type=torch.bfloat16, compile=False,
        logger=logging.getLogger("alcore.example"), label="own loop",
    )(own_training_step)  # fmt: skip
    model.train()
    for _epoch in range(max_epochs):
        for batch in train_dataloader:
            step(model, batch)


def make(steps: int, *, by_hand: bool = False, run_id: str | None = None) -> Driver:
    """Return the driver."""
    torch.manual_seed(0)
    if not DistributedManager.is_initialized():
        DistributedManager.initialize()
    loop = DefaultTrainingLoop(
        train_step_fn=own_training_step,
        validate_step_fn=check_loss,
        device=torch.device("cpu"),
        dtype=torch.float32,
        checkpoint_frequency=100,
        use_progress_bars=False,
    )
    return Driver(
        config=config.DriverConfig(
            batch_size=8, max_active_learning_steps=steps, run_id=run_id, device="cpu", seed=0,
            checkpoint_on_training=True, checkpoint_on_metrology=False, checkpoint_on_query=False,
            checkpoint_on_labeling=True, dist_manager=DistributedManager(),
        ),
        learner=Surrogate(),
        strategies_config=config.StrategiesConfig([Disagreement(4)], queue.Queue, Solver(), [GridError()]),
        training_config=config.TrainingConfig(
            train_datapool=Runs(torch.linspace(-2, 2, 4)[:, None]),
            val_datapool=Runs(torch.linspace(-1.9, 1.9, 9)[:, None]),
            max_training_epochs=100,
            optimizer_config=config.OptimizerConfig(torch.optim.Adam, {"lr": 0.01}),
            train_loop_fn=own_loop if by_hand else loop,
        ),
    )  # fmt: skip


def main() -> None:
    """Run, and run again from what is on the disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--by-hand", action="store_true", help="use the training loop of this file")
    arguments = parser.parse_args()
    driver = make(arguments.steps, by_hand=arguments.by_hand)
    driver()
    records = driver.metrology_strategies[0].records
    print(f"{len(driver.train_datapool)} solver runs, RMSE {records[0]['rmse']:.3f} -> {records[-1]['rmse']:.3f}")
    try:
        Driver.load_checkpoint(driver.log_dir)
    except UsageError as error:
        print(f"load_checkpoint: {error}")
    longer = make(arguments.steps + 1, by_hand=arguments.by_hand, run_id=driver.run_id)
    longer.restore()
    longer()
    print(f"{len(longer.train_datapool)} solver runs after one more step; phases: {', '.join(ActiveLearningPhase)}")


if __name__ == "__main__":
    main()
