"""Kill ranks at random times: ``python tests/distributed/kills.py [--kills 50] [--ranks 2] [--ends 50]``.

In each of ``--kills`` runs one rank, or all ranks, are killed once or twice. The run is started again by the same
command, and must end as the run in which none was killed, with each label bought once. ``--ends`` more runs, in new
interpreters, aren't disturbed, and must end without an abort. Prints one line of JSON, and every failure to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from alcore_testing.essence import differences, essence_of

sys.path.append(str(Path(__file__).parents[1]))
from helpers.ports import reserved_port
from helpers.processes import ForkServer
from outcomes import without_training_checkpoints

from conftest import HERE, Processes

OPTIONS = {"restore": True, "every_epoch": True, "validate": True}


def live(server: ForkServer, folder: Path, ranks: int, kill_at: float | None, rank: int | None) -> Processes:
    """Start the ranks; after so many seconds kill one rank, or all where `rank` is None."""
    processes = Processes(server, ranks, [str(HERE / "experiment.py"), json.dumps(OPTIONS)], folder)
    if kill_at is not None:
        time.sleep(kill_at)
        processes.kill(rank)
    return processes.wait()


def undisturbed(folder: Path, ranks: int) -> list[int]:
    """Run in new interpreters, which end as interpreters do; return their exit codes."""
    with reserved_port() as port:
        own = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        children = []
        for rank in range(ranks):
            environment = {**os.environ, **own, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, str(HERE / "experiment.py"), json.dumps(OPTIONS)]
            children.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL))
        return [child.wait(120) for child in children]


def judge(folder: Path, expected: dict[str, Any], bought: set[str], lives: int) -> list[str]:
    """Return what is wrong with a run that has ended."""
    essence = without_training_checkpoints(essence_of(folder / "runs" / "r1"))
    wrong = differences(expected, essence)
    paid = (folder / "paid").read_text().splitlines()
    if set(paid) != bought or len(paid) - len(bought) > lives:
        wrong.append(f"{len(paid)} answers were bought, and {len(bought)} are needed")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--ends", type=int, default=50)
    options = parser.parse_args()
    server, began, failures = ForkServer({**os.environ, "OMP_NUM_THREADS": "1"}), time.monotonic(), 0
    root = Path(tempfile.mkdtemp(prefix="alcore-kills-"))
    try:
        folder = root / "whole"
        folder.mkdir()
        since = time.monotonic()
        whole = live(server, folder, options.ranks, None, None)
        seconds = time.monotonic() - since
        if any(whole.codes):
            raise RuntimeError("\n".join(whole.texts))
        expected = without_training_checkpoints(essence_of(folder / "runs" / "r1"))
        bought = set((folder / "paid").read_text().splitlines())
        for number in range(options.kills + options.ends):
            dice = random.Random(number)
            folder = root / str(number)
            folder.mkdir()
            lives, texts = dice.choice([1, 1, 2]) if number < options.kills else 0, []
            for _ in range(lives):
                rank = dice.choice([*range(options.ranks), None])
                live(server, folder, options.ranks, dice.uniform(0, 1.1 * seconds), rank)
            if lives:
                last = live(server, folder, options.ranks, None, None)
                codes, texts = last.codes, last.texts
            else:
                codes = undisturbed(folder, options.ranks)
            wrong = [f"ended with {codes}"] if any(codes) else judge(folder, expected, bought, lives)
            if wrong:
                failures += 1
                print(number, wrong, *texts, file=sys.stderr, sep="\n", flush=True)
            shutil.rmtree(folder)
    finally:
        server.close()
        shutil.rmtree(root, ignore_errors=True)
    row = {"fault": "killed ranks", "ranks": options.ranks, "runs": options.kills, "undisturbed": options.ends}
    print(json.dumps(row | {"failures": failures, "seconds": round(time.monotonic() - began, 1)}), flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
