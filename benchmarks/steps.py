"""Measure whether steps stay flat: CPU a step of a long run without training, early and late, and of taking it up.

Each life of the run is a process of its own; what it needs until its first step is measured by a run of one step.

- ``steps/flat``: mean CPU milliseconds of 100 steps near the end of the run, over that of steps 100 to 199.
- ``steps/resume``: CPU seconds of taking the whole run up for one more step, and of a new run of one step.

Usage: python benchmarks/steps.py [--steps 2000] [--repeats 3] [--root FOLDER]
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SAMPLES, PICKS = 40_000, 10


def live(root: Path, steps: int) -> None:
    """Run the experiment, or take it up where it is there; print its CPU seconds, and those after each step."""
    import torch
    from alcore_dummy import DummyLabelStrategy
    from alcore_random import RandomQuery

    import alcore
    from alcore import Driver, TensorPool
    from alcore import config as c

    torch.set_num_threads(1)
    at: list[float] = []

    class Clock:
        @alcore.runhook
        def alcore_step_end(self) -> None:
            at.append(time.process_time())

    inputs = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(0))
    driver = Driver(
        config=c.DriverConfig(
            batch_size=16, max_active_learning_steps=steps, run_id="long", root_log_dir=root, seed=0,
            skip_training=True, skip_metrology=True,
        ),
        learner=torch.nn.Linear(2, 1),
        strategies_config=c.StrategiesConfig([RandomQuery(max_samples=PICKS)], queue.Queue, DummyLabelStrategy()),
        training_config=c.TrainingConfig(
            train_datapool=TensorPool(inputs, (inputs[:, 0] > 0).long(), labeled=range(10)), max_training_epochs=1
        ),
        plugins=[Clock()],
    )  # fmt: skip
    if driver.log_dir.exists():
        driver.restore()
    driver.run()
    print(json.dumps({"cpu_s": time.process_time(), "at": at}))


def life(root: Path, steps: int) -> dict[str, Any]:
    """Have one life of the run in a process of its own."""
    command = [sys.executable, __file__, "--live", str(root), "--steps", str(steps)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def measured(root: Path, steps: int) -> dict[str, float]:
    """Return the figures of one long run."""
    at = life(root / "long", steps)["at"]

    def mean(first: int) -> float:
        return 1000 * (at[first + 99] - at[first - 1]) / 100

    return {
        "early_ms": mean(100),
        "late_ms": mean(steps - 100),
        "resume_s": life(root / "long", steps + 1)["cpu_s"],
        "one_step_s": life(root / "short", 1)["cpu_s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--root", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--live", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.live is not None:
        live(options.live, options.steps)
        return
    repeats = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory(dir=options.root) as folder:
            repeats.append(measured(Path(folder), options.steps))
    median = {name: statistics.median(times[name] for times in repeats) for name in repeats[0]}
    rows = [
        {"name": "steps/flat", "early_ms": median["early_ms"], "late_ms": median["late_ms"],
         "ratio": statistics.median(times["late_ms"] / times["early_ms"] for times in repeats), "limit": 1.1},
        {"name": "steps/resume", "resume_s": median["resume_s"], "one_step_s": median["one_step_s"],
         "more_s": statistics.median(times["resume_s"] - times["one_step_s"] for times in repeats), "limit": 2.0},
    ]  # fmt: skip
    for row in rows:
        figures = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
        print(json.dumps({**figures, "steps": options.steps, "repeats": options.repeats}))


if __name__ == "__main__":
    main()
