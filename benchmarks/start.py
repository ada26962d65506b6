"""Measure what a run spends before it works: CPU seconds of whole commands, and of the imports that they can't avoid.

Each command runs in a process of its own, in turn with the others; the figure is the median, and the least beside it.
``torch`` and ``optimizer`` are floors: importing torch, and making its first optimizer, which imports torch._dynamo.

Usage: python benchmarks/start.py [NAME ...] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile

FIRST = "import torch; torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)"
RUN = ("-m", "alcore", "run", "-q", "--query", "uq", "--metrology", "f1")
COMMANDS = {
    "start/torch": ("-c", "import torch"),
    "start/optimizer": ("-c", FIRST),
    "start/help": ("-m", "alcore", "--help"),
    "start/run-1-step": (*RUN, "--steps", "1"),
    "start/run-70-steps": RUN,
    "start/run-sklearn": (*RUN, "--learner", "sklearn", "--steps", "1"),
}


def cpu_seconds(command: tuple[str, ...], folder: str) -> float:
    """Run a command to its end; return its CPU seconds, of user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Print one JSON line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMMANDS)}; all if none is given")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.names) - set(COMMANDS):
        parser.error(f"there is no {sorted(unknown)[0]!r}; there are {', '.join(COMMANDS)}")
    found: dict[str, list[float]] = {name: [] for name in options.names or COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for name, seconds in found.items():
                seconds.append(cpu_seconds(COMMANDS[name], folder))
    for name, seconds in found.items():
        median, least = round(statistics.median(seconds), 2), round(min(seconds), 2)
        print(json.dumps({"benchmark": name, "cpu_seconds": median, "least": least}), flush=True)


if __name__ == "__main__":
    main()
