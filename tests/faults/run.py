"""Inject every fault: ``python tests/faults/run.py [--random 1000] [--only kill] [--jobs 2] [--details FILE]``.

Prints one line of JSON a kind of fault (points, failures, seconds), the total last, and every failure to stderr.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import harness


def plan(servers: harness.Servers, names: list[str], kills: int) -> dict[str, list[harness.Task]]:
    """Return all tasks by the kind of their fault."""
    calls = servers.trace()
    points = harness.points(calls, names)
    if [harness.shape(call) for call in points] != [
        harness.shape(call) for call in harness.points(servers.trace(), names)
    ]:
        raise RuntimeError("two runs made other calls: no fault can be aimed")
    tasks = {"kill": [servers.lives(harness.at(point, "kill")) for point in points]}
    for place, error in enumerate(harness.ERRORS):
        again = {"again": True}  # every second call: the same process goes on, the others leave it to a new one
        tasks[error] = [
            servers.lives(harness.at(one, error, **(again if number % 2 == place else {})))
            for number, one in enumerate(points)
        ]
    writing = [i for i, one in enumerate(calls) if one in points and one.name in ("write", "pwrite64", "mkdir")]
    tasks["full disk"] = [servers.lives(harness.full_disk(calls, place)) for place in writing]
    # a run that is being taken up again is killed as well: after a commit cut short, inside training, at the end
    for cut in [points[int(len(points) * part)] for part in (0.45, 0.65, 0.97)]:
        first = harness.at(cut, "kill")
        resumed = harness.points(servers.trace(first), names)
        tasks.setdefault("kill while resuming", []).extend(
            servers.lives(first, harness.at(point, "kill")) for point in resumed[::2]
        )
        tasks.setdefault("error while resuming", []).extend(
            servers.lives(first, harness.at(one, harness.ERRORS[place % 2], again=place % 4 < 2))
            for place, one in enumerate(resumed[1::4])
        )
    tasks["random kills"] = [servers.lives(*harness.random_lives(servers.seconds, seed)) for seed in range(kills)]
    return tasks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=1000, help="runs that are killed at random times")
    parser.add_argument("--only", help="one kind of fault")
    parser.add_argument("--every", type=int, default=1, help="take each so-many-th point only")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--details", type=Path, help="where to write each failure in full")
    options = parser.parse_args()
    if (reason := harness.why_no_strace()) is not None:
        parser.error(f"{reason}; every fault but a random kill needs it")
    began, total, failed = time.monotonic(), 0, 0
    details = options.details.open("w") if options.details else None
    with harness.Servers(options.jobs) as servers:
        for kind, tasks in plan(servers, harness.CALLS, options.random).items():
            if options.only not in (None, kind):
                continue
            tasks = tasks[:: options.every]
            random.Random(0).shuffle(tasks)
            since, bad = time.monotonic(), 0
            calls = Counter(fault.get("call", "random") for task in tasks for fault in task["lives"][-1:])
            for answer in servers.ask_all(tasks):
                if answer["notes"]:
                    bad += 1
                    print(kind, json.dumps(answer["task"]["lives"]), answer["notes"], file=sys.stderr, flush=True)
                    if details:
                        details.write(json.dumps({"kind": kind, **answer}) + "\n")
                        details.flush()
            seconds = round(time.monotonic() - since, 1)
            line = {"fault": kind, "points": len(tasks), "failures": bad, "seconds": seconds, "calls": dict(calls)}
            print(json.dumps(line), flush=True)
            total, failed = total + len(tasks), failed + bad
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"fault": "all", "points": total, "failures": failed, "seconds": seconds}))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
