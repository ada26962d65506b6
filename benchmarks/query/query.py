"""Time the choice of samples against hand-written floors: plain torch that finds the same without a framework.

Each figure is in CPU seconds on one thread: alcore and the floor, and with --peers other libraries, where they are
installed, take turns in one process, and the best of several rounds counts. Peak anonymous memory, above what stands
when the data are there, is measured in a process for each. Picks are compared with those of double precision, as sets
(``..._equal`` of ``of``) and in order (``picks_equal``). Figures and floors are in ``figures.py`` and ``sets.py``.

Usage: python benchmarks/query/query.py [FIGURE ...] [--repeats 5] [--peers] [--mapped-rows 10000000]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import POINTWISE, Figure, K
from peers import peers_of
from sets import SETS

FIGURES = {**POINTWISE, **SETS}


def parts_of(figure: Figure, name: str, peers: bool) -> dict[str, Callable[[], Any]]:
    """Return what is raced: ours, the floor, and the peers that are installed."""
    return {"ours": figure.ours, "floor": figure.floor} | (peers_of(name, figure.data, K) if peers else {})


def race(parts: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, list[int]]]:
    """Let all parts take turns, after a warm-up; return the least CPU seconds of each, and what it chose.

    What took longer than five seconds in the warm-up is not repeated.
    """
    seconds, chosen = dict.fromkeys(parts, float("inf")), {}
    for turn in range(repeats + 1):
        for name, part in parts.items():
            if turn == 1 and seconds[name] < 5:
                seconds[name] = float("inf")
            elif turn and seconds[name] >= 5:
                continue
            began = time.process_time()
            picks = part()
            seconds[name] = min(seconds[name], time.process_time() - began)
            chosen[name] = [int(pick) for pick in picks]
    return seconds, chosen


def anonymous() -> float:
    """Return the anonymous memory of this process in MB."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def peak(part: Callable[[], Any]) -> float:
    """Return by how many MB of anonymous memory a call goes above what stood before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = highest = anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    part()
    done.set()
    watcher.join()
    return max(highest, anonymous()) - before


def peak_of(figure: str, part: str, mapped: str, peers: bool) -> float:
    """Measure a part of a figure in a process of its own."""
    options = [figure, "--memory-of", part, "--mapped", mapped, *(["--peers"] if peers else [])]
    out = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True).stdout
    return float(out)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one comparison, or why there are none."""
    try:
        figure = FIGURES[name](options.mapped)
    except ImportError as error:
        return {"name": f"query/{name}", "skipped": str(error)}
    parts = parts_of(figure, name, options.peers)
    seconds, chosen = race(parts, options.repeats)
    row: dict[str, Any] = {"name": f"query/{name}", "ours": seconds["ours"], "floor": seconds["floor"]}
    row["ratio"] = row["ours"] / row["floor"]
    memory = {part: peak_of(name, part, options.mapped, options.peers) for part in parts}
    row |= {"ours_mb": memory["ours"], "floor_mb": memory["floor"]}
    if figure.expected is not None:
        expected = figure.expected().tolist()
        row |= {f"{part}_equal": len(set(picks) & set(expected)) for part, picks in chosen.items()}
        row["of"] = len(expected)
        row["picks_equal"] = chosen["ours"] == expected
    for part in parts:
        if part not in ("ours", "floor"):
            row[part] = {"seconds": round(seconds[part], 4), "mb": round(memory[part], 1)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", nargs="*", choices=[[], *FIGURES], help="all where none is named")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also time the other libraries that are installed")
    parser.add_argument("--mapped-rows", type=int, default=10**7)
    parser.add_argument("--mapped", default="", help="a file of float32 rows of 64, made where it is not given")
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        figure = FIGURES[options.figures[0]](options.mapped)
        print(peak(parts_of(figure, options.figures[0], options.peers)[options.memory_of]))
        return
    with tempfile.TemporaryDirectory() as folder:
        names = options.figures or list(FIGURES)
        if "mapped" in names and not options.mapped:
            options.mapped = str(Path(folder) / "pool.npy")
            write_rows(options.mapped, options.mapped_rows)
        for name in names:
            row = measure(name, options)
            figures = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            print(json.dumps({**figures, "repeats": options.repeats, "k": K}), flush=True)


def write_rows(path: str, rows: int) -> None:
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, 64))
    generator = np.random.default_rng(0)
    for start in range(0, rows, 2**16):
        array[start : start + 2**16] = generator.standard_normal((min(2**16, rows - start), 64), np.float32)
    array.flush()


if __name__ == "__main__":
    main()
