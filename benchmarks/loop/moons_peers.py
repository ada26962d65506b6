"""The two-moons experiment with PhysicsNeMo, as its own example does it, for `moons.py` where it is installed."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from alcore_moons import MoonsPool


class Points:
    """The pool of its example: all points, and which of them are labeled."""

    def __init__(self, seed: int) -> None:
        pool = MoonsPool(seed=seed)
        self.inputs, targets = pool.evaluation()
        self.targets, self.ids = targets.float(), pool.labeled_ids.tolist()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[self.ids[index]], self.targets[self.ids[index]]

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, range(len(self)))

    def append(self, item: int) -> None:
        """Label a point."""
        self.ids.append(int(item))


def physicsnemo(
    steps: int, root: str, *, model: torch.nn.Module, seed: int, batch: int, picks: int, capture: bool
) -> list[float]:
    """Run the experiment; return the F1 of each step."""
    from physicsnemo import active_learning as al  # type: ignore[import-not-found]
    from physicsnemo.active_learning import protocols as p  # type: ignore[import-not-found]
    from physicsnemo.core import ModelMetaData, Module  # type: ignore[import-not-found]

    class Learner(Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(meta=ModelMetaData())
            self.inner = model

        def forward(self, inputs: torch.Tensor) -> Any:
            return model(inputs)

    class Query(p.QueryStrategy):  # type: ignore[misc]
        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            pool = self.driver.train_datapool
            unlabeled = torch.ones(len(pool.inputs), dtype=torch.bool)
            unlabeled[pool.ids] = False
            candidates = unlabeled.nonzero().flatten()
            with torch.no_grad():
                outputs = self.driver.learner(pool.inputs[candidates]).reshape(-1)
            for sample in candidates[outputs.abs().argsort(stable=True)[:picks]].tolist():
                query_queue.put(sample)

    class Label(p.LabelStrategy):  # type: ignore[misc]
        __is_external_process__ = False

        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            while not queue_to_label.empty():
                serialize_queue.put(queue_to_label.get())

    class F1(p.MetrologyStrategy):  # type: ignore[misc]
        def __init__(self) -> None:
            self.records: list[float] = []

        def compute(self, *args: Any, **kwargs: Any) -> None:
            pool = self.driver.train_datapool
            with torch.no_grad():
                predicted, truth = self.driver.learner(pool.inputs).reshape(-1) >= 0, pool.targets == 1
            self.records.append(2 * int((predicted & truth).sum()) / (int(predicted.sum()) + int(truth.sum())))

        def serialize_records(self, *args: Any, **kwargs: Any) -> None:
            self.strategy_dir.mkdir(parents=True, exist_ok=True)
            (self.strategy_dir / "f1.json").write_text(str(self.records))

        def load_records(self, *args: Any, **kwargs: Any) -> None: ...

    for part in (Query, Label, F1):  # as its example does, where a driver is kept by attach
        part.attach = _attach
        part.is_attached = property(lambda self: hasattr(self, "driver"))
    f1 = F1()
    driver = al.Driver(
        config=al.DriverConfig(
            batch_size=batch, max_active_learning_steps=steps, fine_tuning_lr=0.005, root_log_dir=Path(root),
            device=torch.device("cpu"),
        ),
        learner=Learner(),
        strategies_config=al.StrategiesConfig(
            query_strategies=[Query()], queue_cls=queue.Queue, label_strategy=Label(), metrology_strategies=[f1]
        ),
        training_config=al.TrainingConfig(
            train_datapool=Points(seed),
            optimizer_config=al.OptimizerConfig(torch.optim.SGD, optimizer_kwargs={"lr": 0.01}),
            max_training_epochs=10,
            max_fine_tuning_epochs=5,
            train_loop_fn=al.DefaultTrainingLoop(use_progress_bars=False, enable_static_capture=capture),
        ),
    )  # fmt: skip

    def step(learner: Any, data: Any) -> torch.Tensor:
        inputs, targets = data
        return torch.nn.functional.binary_cross_entropy_with_logits(learner(inputs).reshape(-1), targets)

    driver(train_step_fn=step)
    return f1.records


def _attach(self: Any, other: Any) -> None:
    self.driver = other
