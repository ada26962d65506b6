"""Two moons, built in Python: the default experiment of ``alcore run``.

A small classifier starts from 50 labeled points, most of them of one class, and at first misses most of the other
class. Each step asks for the ten points about which it is least certain. ``f1_metrology.json`` in the run directory
shows how recall and F1 rise with the labels.

Usage: python examples/moons.py [--steps 70] [--custom-loop]
"""

from __future__ import annotations

import argparse
import queue
from collections.abc import Iterable
from typing import Any

import torch
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology
from alcore_moons import MLP, MoonsPool
from alcore_torchloop import DefaultTrainingLoop, StaticCaptureTraining
from alcore_uq import ClassifierUQQuery

from alcore import Driver
from alcore import config as c


def training_step(model: torch.nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Compute the loss of one batch; the training loop does backward and the optimizer step."""
    inputs, targets = data
    logits = model(inputs).squeeze(-1)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def training_loop(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    train_dataloader: Iterable[Any],
    max_epochs: int,
    **kwargs: Any,
) -> None:
    """Train without the default loop: any callable with these arguments is a training loop.

    The decorated function is a complete training step: zero_grad, forward, backward and optimizer step.
    """
    step = StaticCaptureTraining(model=model, optim=optimizer)(training_step)
    model.train()
    for _ in range(max_epochs):
        for batch in train_dataloader:
            step(model, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=70, help="active-learning steps")
    parser.add_argument("--custom-loop", action="store_true", help="train with the loop of this file")
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)  # such small batches are slower on more threads
    dataset = MoonsPool(seed=0)
    uq_model = MLP()

    # configure how training/fine-tuning is done within active learning
    training_config = c.TrainingConfig(
        train_datapool=dataset,
        optimizer_config=c.OptimizerConfig(
            torch.optim.SGD,
            optimizer_kwargs={"lr": 0.01},
        ),
        # configure different times for initial training and subsequent
        # fine-tuning
        max_training_epochs=10,
        max_fine_tuning_epochs=5,
        # this configures the training loop
        train_loop_fn=training_loop
        if options.custom_loop
        else DefaultTrainingLoop(
            use_progress_bars=True,
        ),
    )
    f1 = F1Metrology()
    strategy_config = c.StrategiesConfig(
        query_strategies=[ClassifierUQQuery(max_samples=10)],
        queue_cls=queue.Queue,
        label_strategy=DummyLabelStrategy(),
        metrology_strategies=[f1],
    )
    driver_config = c.DriverConfig(
        batch_size=16,
        max_active_learning_steps=options.steps,
        fine_tuning_lr=0.005,
        device=torch.device("cpu"),  # set to other accelerators if needed
    )
    driver = Driver(
        config=driver_config,
        learner=uq_model,
        strategies_config=strategy_config,
        training_config=training_config,
    )
    # our model doesn't implement a `training_step` method but in principle
    # it could be implemented, and we wouldn't need to pass the step function here
    driver(train_step_fn=training_step)

    for record in (f1.records[0], f1.records[-1]):
        print(f"step {record['step']:2}: {record['train_samples']} samples, F1 {record['f1']:.3f}")
    print(f"{driver.stop_reason}; outputs in {driver.log_dir}")


if __name__ == "__main__":
    main()
