"""Time the two-moons experiment against a hand-written loop that reaches the same F1 at every step.

The floor does the same training steps (batches indexed at once, zero_grad, backward, step), forward passes and
argsort without any framework, and draws its orders from the same generators. Both run in one process on one
thread, in turn, and CPU seconds are compared. What the run directory costs is measured by wrapping the
methods of its store (``clock.py``); it is subtracted from alcore's time and reported beside it.

Where PhysicsNeMo is installed, the experiment is run with it too, its static capture off and on, and the CPU seconds
of the whole run, checkpoints and all, are given over those of alcore's whole run.

Usage: python benchmarks/loop/moons.py [--repeats 5] [--steps 70]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import queue
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology
from alcore_moons import MLP, MoonsPool
from alcore_torchloop import DefaultTrainingLoop
from alcore_uq import ClassifierUQQuery

from alcore import Driver
from alcore import config as c
from alcore.randomness import derive_generator

sys.path.append(str(Path(__file__).parents[1]))
from clock import store_clock

SEED, BATCH, PICKS = 0, 16, 10


def floor(steps: int) -> list[float]:
    """Run the experiment without a framework; return the F1 of each step."""
    model = _model()
    pool = MoonsPool(seed=SEED)
    inputs, targets = pool.evaluation()
    truth = targets == 1
    labeled = pool.labeled_ids.tolist()
    unlabeled = torch.ones(len(inputs), dtype=torch.bool)
    unlabeled[pool.labeled_ids] = False
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    scores = []
    for step in range(steps):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.005 if step else 0.01)
        ids = torch.tensor(labeled)
        model.train()
        for epoch in range(5 if step else 10):
            order = ids[torch.randperm(len(ids), generator=derive_generator(SEED, step, "training", "order", epoch))]
            for x, y in zip(inputs[order].split(BATCH), targets[order].split(BATCH), strict=True):
                optimizer.zero_grad()
                loss_of(model(x).reshape(-1), y.float()).backward()
                optimizer.step()
        model.eval()
        with torch.no_grad():
            predicted = model(inputs).reshape(-1) >= 0
            hits = int((predicted & truth).sum())
            scores.append(2 * hits / (int(predicted.sum()) + int(truth.sum())))
            candidates = unlabeled.nonzero().flatten()
            picks = candidates[model(inputs[candidates]).reshape(-1).abs().argsort(stable=True)[:PICKS]]
        unlabeled[picks] = False
        labeled += picks.tolist()
    return scores


def framework(steps: int, root: str) -> list[float]:
    """Run the experiment with alcore; return the F1 of each step."""
    f1 = F1Metrology()
    Driver(
        config=c.DriverConfig(
            batch_size=BATCH, max_active_learning_steps=steps, fine_tuning_lr=0.005, root_log_dir=root, seed=SEED
        ),
        learner=_model(),
        strategies_config=c.StrategiesConfig(
            query_strategies=[ClassifierUQQuery(max_samples=PICKS)],
            queue_cls=queue.Queue,
            label_strategy=DummyLabelStrategy(),
            metrology_strategies=[f1],
        ),
        training_config=c.TrainingConfig(
            train_datapool=MoonsPool(seed=SEED),
            optimizer_config=c.OptimizerConfig(torch.optim.SGD, {"lr": 0.01}),
            max_training_epochs=10,
            max_fine_tuning_epochs=5,
            train_loop_fn=DefaultTrainingLoop(use_progress_bars=False),
        ),
    ).run()
    return [record["f1"] for record in f1.records]


def physicsnemo(steps: int, root: str, *, capture: bool) -> None:
    """Run the experiment with PhysicsNeMo; what it logs goes nowhere."""
    from moons_peers import physicsnemo as run  # type: ignore[import-not-found,unused-ignore]

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run(steps, root, model=_model(), seed=SEED, batch=BATCH, picks=PICKS, capture=capture)


def _model() -> MLP:
    torch.manual_seed(SEED)
    return MLP()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=70)
    options = parser.parse_args()
    torch.set_num_threads(1)
    floors, runs, stores = [], [], []
    names = ("physicsnemo", "physicsnemo captured") if importlib.util.find_spec("physicsnemo") else ()
    others: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as root:
        for repeat in range(options.repeats + 1):  # the first is a warm-up
            began = time.process_time()
            expected = floor(options.steps)
            between = time.process_time()
            with store_clock(time.process_time) as clock:
                reached = framework(options.steps, root)
            ended = time.process_time()
            if reached != expected:
                step = next(i for i, pair in enumerate(zip(reached, expected, strict=True)) if pair[0] != pair[1])
                sys.exit(f"F1 differs at step {step}: {reached[step]} with alcore, {expected[step]} without")
            if repeat:
                floors.append(between - began)
                runs.append(ended - between - clock["seconds"])
                stores.append(clock["seconds"])
            for name, seconds in others.items():
                began = time.process_time()
                physicsnemo(options.steps, root, capture="captured" in name)
                if repeat:
                    seconds.append(time.process_time() - began)
    median = statistics.median
    ratio = median(a / b for a, b in zip(runs, floors, strict=True))
    rows = [
        {"name": "moons/floor", "cpu_seconds": median(floors)},
        {"name": "moons/alcore", "cpu_seconds": median(runs), "ratio": ratio},
        {"name": "moons/store", "cpu_seconds": median(stores), "cpu_ms_a_step": 1000 * median(stores) / options.steps},
    ]
    for row in rows:
        figures = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
        print(json.dumps({**figures, "repeats": options.repeats, "steps": options.steps, "same_f1": True}))
    for name, seconds in others.items():
        over = median(one / (ours + store) for one, ours, store in zip(seconds, runs, stores, strict=True))
        row = {"name": f"moons/{name}", "cpu_seconds": round(median(seconds), 4), "over alcore": round(over, 3)}
        print(json.dumps({**row, "repeats": options.repeats, "steps": options.steps}))


if __name__ == "__main__":
    main()
