"""Compare uncertainty sampling with random choice and with training on all points, on two moons.

Each of ten seeds has its own points, initial labels and network. Uncertainty and random runs share them, and ask for
ten labels a step. The roofline is the same network trained on all 1000 points for the total number of epochs of a run.
The metric is F1 of class 1 on all points: mean and standard deviation over the seeds.

Usage: python examples/baselines.py [--seeds 10] [--steps 70] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import tempfile
from pathlib import Path

import torch
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology
from alcore_moons import MLP, MoonsPool
from alcore_random import RandomQuery
from alcore_torchloop import DefaultTrainingLoop
from alcore_uq import ClassifierUQQuery

from alcore import Driver
from alcore import config as c
from alcore.protocols import QueryStrategy


def curve(
    seed: int, query: list[QueryStrategy], *, steps: int, root: str, initial: float = 0.05, epochs: int = 10
) -> list[tuple[int, float]]:
    """Run one experiment; return (training samples, F1) at each step."""
    torch.manual_seed(seed)
    f1 = F1Metrology()
    Driver(
        config=c.DriverConfig(
            batch_size=16,
            max_active_learning_steps=steps,
            fine_tuning_lr=0.005,
            checkpoint_interval=0,
            root_log_dir=root,
            seed=seed,
        ),
        learner=MLP(),
        strategies_config=c.StrategiesConfig(query, queue.Queue, DummyLabelStrategy() if query else None, [f1]),
        training_config=c.TrainingConfig(
            train_datapool=MoonsPool(initial=initial, seed=seed),
            optimizer_config=c.OptimizerConfig(torch.optim.SGD, {"lr": 0.01}),
            max_training_epochs=epochs,
            max_fine_tuning_epochs=5,
            train_loop_fn=DefaultTrainingLoop(use_progress_bars=False),
        ),
    ).run()
    return [(record["train_samples"], record["f1"]) for record in f1.records]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=70)
    parser.add_argument("--output", type=Path, default=Path("baselines"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    uncertain, random, everything = [], [], []
    with tempfile.TemporaryDirectory() as root:
        for seed in range(options.seeds):
            uncertain.append(curve(seed, [ClassifierUQQuery(max_samples=10)], steps=options.steps, root=root))
            random.append(curve(seed, [RandomQuery(max_samples=10)], steps=options.steps, root=root))
            epochs = 10 + 5 * (options.steps - 1)  # as many as the other two see in all their steps
            everything.append(curve(seed, [], steps=1, root=root, initial=1.0, epochs=epochs)[-1][1])

    labels = [samples for samples, _ in uncertain[0]]
    rows = []
    for step, count in enumerate(labels):
        row: dict[str, float] = {"step": step, "labels": count}
        for name, runs in (("uncertainty", uncertain), ("random", random)):
            scores = [run[step][1] for run in runs]
            row[name], row[f"{name}_sd"] = statistics.fmean(scores), statistics.pstdev(scores)
        rows.append(row)
    roofline = statistics.fmean(everything)
    options.output.mkdir(parents=True, exist_ok=True)
    result = {"seeds": options.seeds, "roofline": roofline, "roofline_sd": statistics.pstdev(everything), "curve": rows}
    (options.output / "baselines.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plot(rows, roofline, options.output / "baselines.png")

    print("labels  uncertainty       random")
    for row in rows[:: max(1, len(rows) // 7)] + rows[-1:]:
        print(
            f"{row['labels']:6}  {row['uncertainty']:.3f} +- {row['uncertainty_sd']:.3f}"
            f"   {row['random']:.3f} +- {row['random_sd']:.3f}"
        )
    print(f"all 1000 points: {roofline:.3f} +- {result['roofline_sd']:.3f}")
    print(f"outputs in {options.output}/")


def plot(rows: list[dict[str, float]], roofline: float, path: Path) -> None:
    """Draw both learning curves with their spread, and the roofline."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    labels = [row["labels"] for row in rows]
    for name, colour in (("uncertainty", "tab:blue"), ("random", "tab:orange")):
        mean, spread = [row[name] for row in rows], [row[f"{name}_sd"] for row in rows]
        axes.plot(labels, mean, color=colour, label=f"{name} query")
        low = [m - s for m, s in zip(mean, spread, strict=True)]
        high = [min(m + s, 1.0) for m, s in zip(mean, spread, strict=True)]
        axes.fill_between(labels, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(roofline, color="0.3", linestyle="--", label="all 1000 points labeled")
    axes.set(xlabel="labeled points", ylabel="F1 of class 1, on all points", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
