"""Time the default training loop against hand-written ones that train the same weights.

The floor fetches an epoch's batches by one index and splits them, then does zero_grad, forward, backward and step; the
"raw" loop is the one in most tutorials, a DataLoader that collates item by item. All train the same model on the same
batches in the same order, in turn, in one process on one thread; CPU seconds are compared, and weights must be
equal to the bit. One JSON line a case, with microseconds a batch, the ratios to the floor, and which loops came to
other weights. Lightning Fabric and PhysicsNeMo, the latter with its static capture off and on, are timed too where
they are installed; they get a DataLoader that collates item by item, since neither brings a loader of its own.

Usage: python benchmarks/loop/train.py [--repeats 7] [--epochs 20]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib.util
import io
import itertools
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from alcore_moons import MLP
from alcore_torchloop import DefaultTrainingLoop
from torch.utils.data import DataLoader, TensorDataset

from alcore import TensorPool
from alcore.randomness import derive_generator
from alcore.training import BatchLoader

SEED = (0, 0, "training")
Train = Callable[[torch.nn.Module, torch.optim.Optimizer, int], None]


class Case:
    """A model with its data, batch size, loss and optimizer."""

    def __init__(self, name: str, batch: int) -> None:
        torch.manual_seed(0)
        self.batch = batch
        if name == "moons":
            self.model: torch.nn.Module = MLP()
            self.inputs, self.targets = torch.randn(400, 2), torch.randint(0, 2, (400,))
        else:
            sizes = (64, 256, 256, 10)
            layers = [part for a, b in itertools.pairwise(sizes) for part in (torch.nn.Linear(a, b), torch.nn.ReLU())]
            self.model = torch.nn.Sequential(*layers[:-1])
            self.inputs, self.targets = torch.randn(3200, 64), torch.randint(0, 10, (3200,))

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        """Return the loss of a batch."""
        inputs, targets = batch
        outputs = model(inputs)
        if outputs.shape[-1] == 1:
            return torch.nn.functional.binary_cross_entropy_with_logits(outputs.reshape(-1), targets.float())
        return torch.nn.functional.cross_entropy(outputs, targets)

    def order(self, epoch: int) -> torch.Tensor:
        """Return the order of an epoch, which all loops share."""
        return torch.randperm(len(self.targets), generator=derive_generator(*SEED, "order", epoch))

    def floor(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        """Train with batches that are indexed at once."""
        model.train()
        for epoch in range(epochs):
            order, losses = self.order(epoch), []
            parts = zip(self.inputs[order].split(self.batch), self.targets[order].split(self.batch), strict=True)
            for batch in parts:
                optimizer.zero_grad()
                loss = self.loss(model, batch)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            float(torch.stack(losses).mean())

    def raw(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        """Train with a DataLoader that collates item by item."""
        model.train()
        for epoch in range(epochs):
            total = 0.0
            for batch in self.loader(epoch):
                optimizer.zero_grad()
                loss = self.loss(model, batch)
                loss.backward()
                optimizer.step()
                total += loss.item()

    def alcore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        """Train with the default loop and the loader that a Driver gives it."""
        pool = TensorPool(self.inputs, self.targets, labeled=range(len(self.targets)))
        loader = BatchLoader(
            pool, self.batch, device=torch.device("cpu"), dtype=torch.float32, seed=SEED, before_batch=lambda: None
        )
        loop = DefaultTrainingLoop(use_progress_bars=False)
        loop(model, optimizer, loader, epochs, train_step_fn=self.loss, device=torch.device("cpu"), dtype=torch.float32)

    def loader(self, epoch: int) -> DataLoader[Any]:
        """Return the batches of an epoch, collated item by item."""
        return DataLoader(TensorDataset(self.inputs, self.targets), self.batch, sampler=self.order(epoch).tolist())

    def fabric(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        """Train with Lightning Fabric."""
        from lightning.fabric import Fabric  # type: ignore[import-not-found]

        fabric = Fabric(accelerator="cpu", devices=1)
        wrapped, optim = fabric.setup(model, optimizer)
        wrapped.train()
        for epoch in range(epochs):
            for batch in fabric.setup_dataloaders(self.loader(epoch)):
                optim.zero_grad()
                loss = self.loss(wrapped, batch)
                fabric.backward(loss)
                optim.step()

    def physicsnemo(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, epochs: int, *, capture: bool = False
    ) -> None:
        """Train with PhysicsNeMo's default loop, an epoch at a time so that the order is the same."""
        from physicsnemo.active_learning import DefaultTrainingLoop as Theirs  # type: ignore[import-not-found]
        from physicsnemo.core import ModelMetaData, Module  # type: ignore[import-not-found]

        class Learner(Module):  # type: ignore[misc]
            """The model, as it asks for it."""

            def forward(self, inputs: torch.Tensor) -> Any:
                return model(inputs)

        def step(learner: Any, batch: Any) -> torch.Tensor:
            inputs, targets = batch
            return self.loss(learner, (inputs, targets.long()))  # it makes floats of labels

        learner = Learner(meta=ModelMetaData())
        learner.inner = model
        loop = Theirs(enable_static_capture=capture, use_progress_bars=False)
        for epoch in range(epochs):
            with contextlib.redirect_stdout(io.StringIO()):
                loop(learner, optimizer, self.loader(epoch), 1, train_step_fn=step)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
}


def measure(case: Case, optimizer: str, repeats: int, epochs: int) -> dict[str, Any]:
    """Time all loops in turn; return median microseconds a batch."""
    loops: dict[str, Train] = {"floor": case.floor, "alcore": case.alcore, "raw": case.raw}
    if importlib.util.find_spec("lightning"):
        loops["fabric"] = case.fabric
    if importlib.util.find_spec("physicsnemo"):
        loops["physicsnemo"] = case.physicsnemo
        loops["physicsnemo captured"] = functools.partial(case.physicsnemo, capture=True)
    batches = -(-len(case.targets) // case.batch) * epochs
    taken: dict[str, list[float]] = {name: [] for name in loops}
    ends: dict[str, list[torch.Tensor]] = {}
    for repeat in range(repeats + 1):  # the first is a warm-up
        for name, loop in loops.items():
            model = copy.deepcopy(case.model)
            optim = OPTIMIZERS[optimizer](model.parameters())
            began = time.process_time()
            loop(model, optim, epochs)
            if repeat:
                taken[name].append((time.process_time() - began) / batches * 1e6)
            ends[name] = list(model.parameters())
    others = [name for name, end in ends.items() if not all(map(torch.equal, ends["floor"], end))]
    ratios = {
        name: round(statistics.median(one / floor for one, floor in zip(values, taken["floor"], strict=True)), 3)
        for name, values in taken.items()
        if name != "floor"
    }
    return {
        "us": {name: round(statistics.median(values), 1) for name, values in taken.items()},
        "over the floor": ratios,
        "weights equal": "alcore" not in others,
        "other weights": others,
    }


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # what the others have to say
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name, batch in (("mlp 64-256-256-10", 64), ("moons", 16)):
        for optimizer in OPTIMIZERS:
            case = Case(name, batch)
            figures = measure(case, optimizer, options.repeats, options.epochs)
            print(
                json.dumps({"benchmark": "train", "case": name, "batch": batch, "optimizer": optimizer, **figures}),
                flush=True,
            )


if __name__ == "__main__":
    main()
