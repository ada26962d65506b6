"""Jobs under fire: ``python tests/faults/jobs.py [--scheduler local] [--jobs 1000] [--kills 40] [--seed 0]``.

A run whose labels are jobs is killed at random times and taken up again, while its jobs are killed too, and Slurm's
controller is killed and started; jobs themselves fail, hang, end themselves, and answer for others. It must end as
the run in which nobody killed anything: the same picks, values, records and weights; no attempt may be submitted
twice, or run twice, and no label that is there may be lost. Prints one line of JSON, and every failure to stderr.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from alcore_labelers import JobsLabelStrategy
from alcore_labelers.programs import running_in
from alcore_testing import ToyMetrology, build_driver, toy_loop
from safetensors.torch import load_file

from alcore import DataInfo, TensorPool
from alcore.store import Run
from alcore.strategies import PointwiseQuery

sys.path.insert(0, str(Path(__file__).parents[1]))  # started as a script
from helpers.slurm import SlurmCluster, slurm_cluster

RUN_ID = "campaign"
STEPS = 2
_SOLVER = """\
#!/bin/sh
# Of the first attempts some fail, hang, end themselves with their job, or answer for others.
echo "$ALCORE_REQUEST-$ALCORE_ATTEMPT" >> {ledger}
label=$((ALCORE_SAMPLE % 3))
[ $((ALCORE_SAMPLE % 13)) = 0 ] && {{ echo '{{"status": "infeasible", "reason": "13"}}' > result.json; exit 1; }}
if [ "$ALCORE_ATTEMPT" = 0 ]; then
  case $((ALCORE_SAMPLE % 10)) in
    1) exit 4;;
    2) sleep 60;;
    3) kill -9 $PPID $$;;
    4) echo '{{"label": 0, "request": "00000000000000000000000000000000"}}' > result.json; exit 0;;
    5) echo '{{"label": ' > result.json; exit 0;;
  esac
fi
sleep 0.$((ALCORE_SAMPLE % 5))
echo 0; echo 1
echo "{{\\"label\\": $label}}" > result.json
"""


class Uncertain(PointwiseQuery):
    """Asks for what the learner is least sure of, so that picks depend on all labels before."""

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        return -outputs.softmax(-1).amax(-1)


def run(folder: Path, scheduler: str, jobs: int) -> None:
    """Begin the run, or go on with it, to its end."""
    torch.set_num_threads(1)
    count = 4 * jobs
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(3))
    info = DataInfo("classification", 3, 4, (4,), ("a", "b", "c"))
    pool = TensorPool(inputs, torch.arange(count) % 3, labeled=list(range(6)), info=info)
    label = JobsLabelStrategy(
        str(folder / "solver.sh"),
        scheduler=scheduler,  # type: ignore[arg-type]
        max_in_flight=32 if scheduler == "slurm" else 8,
        time_limit=1.0,
        poll_interval=0.2 if scheduler == "slurm" else None,
        settle=0.5 if scheduler == "slurm" else 0.3,
        heartbeat=0.5,
        lost_after=4.0,
    )
    driver = build_driver(
        folder / "runs",
        Uncertain(max_samples=jobs // STEPS),
        pool=pool,
        label=label,
        metrology=[ToyMetrology()],
        loop=toy_loop,
        run_id=RUN_ID,
        resume="auto",
        label_retries=100,
        max_failure_rate=1.0,
        max_active_learning_steps=STEPS,
    )
    driver.run()


def life(work: Callable[[], None], log: Path) -> int:
    """Fork a process, the leader of its own group, that does some work and ends."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    with contextlib.suppress(Exception):
        try:
            work()
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
            raise
    os._exit(code)


def kill_jobs(folder: Path, jobs: int, chance: random.Random, cluster: SlurmCluster | None) -> None:
    """Kill a third of the jobs, or one of their processes, and Slurm's controller, at random times."""
    for turn in itertools.count():
        time.sleep(chance.uniform(0.1, 0.8))
        if cluster is not None:
            cluster.resume_node()
        if turn >= jobs // 3:
            continue
        started = folder.glob(f"runs/{RUN_ID}/strategies/*/work/*/attempt-*/started")
        running = running_in(path.parent for path in started)
        if running:
            processes = running[chance.choice(sorted(running))]
            for process in processes if chance.random() < 0.5 else processes[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        if cluster is not None and chance.random() < 0.15:
            cluster.kill_controller()  # it forgets jobs of the last seconds, and gives their numbers again
            time.sleep(chance.uniform(0.1, 1.5))
            cluster.start_controller()


def campaign(folder: Path, scheduler: str, jobs: int, kills: int, seed: int, cluster: SlurmCluster | None) -> int:
    """Run to the end; return how often the driver was killed."""
    folder.mkdir()
    solver = folder / "solver.sh"
    solver.write_text(_SOLVER.format(ledger=folder / "ledger"))
    solver.chmod(0o755)
    chance, killed, log = random.Random(seed), 0, folder / "log"
    killer = life(lambda: kill_jobs(folder, jobs, random.Random(seed + 1), cluster), log) if kills else None
    try:
        while True:
            driver = life(lambda: run(folder, scheduler, jobs), log)
            until = time.monotonic() + (chance.uniform(0.2, 2.5) if killed < kills else 600.0)
            ended, status = 0, 0
            while not ended and time.monotonic() < until:
                time.sleep(0.01)
                ended, status = os.waitpid(driver, os.WNOHANG)
            if ended:
                if os.waitstatus_to_exitcode(status) == 0:
                    return killed
                raise RuntimeError(f"the driver failed:\n{log.read_text()[-3000:]}")
            if cluster is not None and chance.random() < 0.5:
                os.killpg(driver, signal.SIGKILL)  # with the commands of Slurm that it is calling
            else:
                os.kill(driver, signal.SIGKILL)
            os.waitpid(driver, 0)
            if killed >= kills:
                raise RuntimeError(f"the driver does not end:\n{log.read_text()[-3000:]}")
            killed += 1
    finally:
        if killer is not None:
            os.kill(killer, signal.SIGKILL)
            os.waitpid(killer, 0)
            if cluster is not None and not cluster.is_ready():
                cluster.start_controller()


def result_of(folder: Path) -> dict[str, Any]:
    """Return what must be equal: picks, values, records and weights; not attempts, failures, costs and times."""
    run = Run(folder / "runs" / RUN_ID)
    decisions = run.decisions()
    last = folder / "runs" / RUN_ID / "ckpt" / run.checkpoints()[-1]["file"]
    weights = {name: tensor.tolist() for name, tensor in load_file(last).items() if name.startswith("model.")}
    assert weights, "the checkpoint has no weights"
    return {
        "picks": [
            (request["step"], request["sample"], request["strategy"], request["score"]) for request in run.requests()
        ],
        "states": [request["state"] for request in run.requests()],
        "values": [(row[0], row[1], row[6]) for row in decisions["labels"]],
        "records": decisions["records"],
        "weights": weights,
    }


def faults(folder: Path, submitted: list[str], expected: dict[str, Any]) -> list[str]:
    """Return what is wrong with a run that has ended."""
    result = result_of(folder)
    wrong = [
        f"{name} differ: {_first(result[name], expected[name])}" for name in expected if result[name] != expected[name]
    ]
    if result["states"] != expected["states"]:
        run = Run(folder / "runs" / RUN_ID)
        reasons = {request["id"]: [] for request in run.requests()}
        for refusal in run.refused():
            reasons.setdefault(refusal["request"], []).append(f"{refusal['kind']}: {refusal['reason']}")
        wrong += [
            f"sample {one['sample']} is {one['state']}, not {state}: {reasons[one['id']]}"
            for one, state in zip(run.requests(), expected["states"], strict=False)
            if one["state"] != state
        ]
    wrong += _not_taken(folder)
    ledger = (folder / "ledger").read_text().split()
    for what, names in (("run", ledger), ("submitted", submitted)):
        wrong += [f"{name} was {what} {n} times" for name, n in collections.Counter(names).items() if n > 1]
    return wrong


def _not_taken(folder: Path) -> list[str]:
    """Return the attempts whose program ended well, and left a label, and whose label is not that of their request."""
    run = Run(folder / "runs" / RUN_ID)
    taken = {request["id"]: request["attempt"] for request in run.requests() if request["state"] == "labeled"}
    wrong = []
    for ended in folder.glob(f"runs/{RUN_ID}/strategies/*/work/*/attempt-*/exit"):
        request, attempt = ended.parent.parent.name, int(ended.parent.name.split("-")[1])
        words = ended.read_text().split()
        result = ended.with_name("result.json")
        if words[0] != "0" or "TERM" in words or not result.exists():
            continue
        with contextlib.suppress(ValueError):
            said = json.loads(result.read_text())
            if said.get("request", request) == request and taken.get(request) != attempt:
                wrong.append(f"the label of {request}, attempt {attempt}, is there and was not taken")
    return wrong


def _first(found: Any, expected: Any) -> str:
    """Return where two results differ first."""
    if isinstance(found, dict) or len(found) != len(expected):
        return f"{len(found)} in place of {len(expected)}"
    return next(f"{one!r:.200}, not {other!r:.200}" for one, other in zip(found, expected, strict=True) if one != other)


@contextlib.contextmanager
def counted_starts(folder: Path) -> Iterator[Callable[[], list[str]]]:
    """Note each job that is started on this machine: before ``setsid`` comes a program that writes it down."""
    log, own, real = folder / "started", folder / "bin", shutil.which("setsid")
    own.mkdir()
    (own / "setsid").write_text(f'#!/bin/sh\necho "$3" >> {log}\nexec {real} "$@"\n')
    (own / "setsid").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{own}{os.pathsep}{before}"
    try:
        yield lambda: log.read_text().split()
    finally:
        os.environ["PATH"] = before


@contextlib.contextmanager
def scheduler_at(folder: Path, name: str) -> Iterator[tuple[SlurmCluster | None, Callable[[], list[str]]]]:
    """Give the cluster, if there is one, and what tells which jobs were submitted."""
    if name == "local":
        with counted_starts(folder) as started:
            yield None, started
        return
    with slurm_cluster(folder / "cluster", forget=3000) as cluster:
        os.environ.update(cluster.env())
        yield cluster, cluster.names


def main() -> int:
    """Run the campaign; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--scheduler", choices=("local", "slurm"), default="local")
    parser.add_argument("--jobs", type=int, default=1000, help="how many labels are bought")
    parser.add_argument("--kills", type=int, default=40, help="how often the driver is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with scheduler_at(folder, options.scheduler) as (cluster, submitted):
            calm, fire = folder / "calm", folder / "fire"
            campaign(calm, options.scheduler, options.jobs, 0, options.seed, cluster)
            killed = campaign(fire, options.scheduler, options.jobs, options.kills, options.seed, cluster)
            expected = result_of(calm)
            wrong = faults(fire, submitted(), expected)
        attempts = len((fire / "ledger").read_text().split())
    if collections.Counter(expected["states"])["labeled"] < options.jobs // 2:
        wrong.append(f"the undisturbed run has too few labels: {collections.Counter(expected['states'])}")
    for fault in wrong:
        print(fault, file=sys.stderr)
    done = {"jobs": options.jobs, "kills": killed, "attempts": attempts, "wrong": len(wrong)}
    print(json.dumps({"scheduler": options.scheduler, **done, "seconds": round(time.monotonic() - begin, 1)}))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
