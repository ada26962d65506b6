"""Say in a few digits what runs decide: ``python tests/project/fingerprint.py [--root DIR] [NAME ...]``.

It makes runs of fixed ids and seeds and prints a line of JSON for each, with a digest of every table: what was asked
for and answered, measured, trained and saved, but no times. Two trees decide alike if they print the same, on the same
machine and with the same versions of torch and the rest::

    python tests/project/fingerprint.py > before.jsonl
    python tests/project/fingerprint.py > after.jsonl
    diff before.jsonl after.jsonl

Runs are made by the installed command, or in Python by `experiments.py`. Only the root names of alcore and its plugins
are used, so that the modules behind them may move. Sets and dicts are hashed anew in each process: a run that depends
on their order shows as another fingerprint.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from helpers.ports import reserved_port

TABLES = {
    "requests": "SELECT id, step, ordinal, sample, item, strategy, score, rank, model, cost, attempt, state, closed"
    " FROM requests ORDER BY step, ordinal",
    "labels": "SELECT request, step, source, attempt, kind, value, cost, superseded FROM labels ORDER BY rowid",
    "records": "SELECT strategy, step, ordinal, value FROM records ORDER BY strategy, step, ordinal",
    "steps": "SELECT step, record FROM steps ORDER BY step",
    "refused": "SELECT request, step, kind, item, reason, cost FROM refused ORDER BY rowid",
    "queries": "SELECT step, model FROM queries ORDER BY step",
    "end": "SELECT key, value FROM run WHERE key IN ('status', 'reason', 'error') ORDER BY key",
    "checkpoint_files": "SELECT file, sha256 FROM checkpoints ORDER BY file",
}
EQUAL = {"repeat": "moons"} | dict.fromkeys(
    ("killed-labeling", "killed-answers", "killed-training", "killed-metrology", "interrupted", "doubt-ask"),
    "undisturbed",
)
"""Runs that must be the same as another one; one that was interrupted has one more checkpoint."""

MOONS = ("--query", "uq", "--metrology", "f1", "--steps", "12", "--run-id", "moons")
SETS = ("uq", "kcenter", "badge", "typiclust", "cluster-margin", "density", "random")

Made = Iterator[tuple[str, Path]]


class RunFailedError(Exception):
    """A run didn't end as it should; the message holds what it printed."""


def environment() -> dict[str, str]:
    """Return the environment of all runs: this one, less what others may have set, with one thread."""
    dropped = ("ALCORE_", "FORCE_", "LOCAL_", "MASTER_", "MKL_", "OMP_", "PYTHONHASHSEED", "RANK", "TORCH", "WORLD_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def command(folder: Path, *words: str | Path, launcher: Iterable[str] = ()) -> str:
    """Run alcore's command in a folder and return what it printed; `RunFailedError` if it fails."""
    line = [sys.executable, *launcher, "-m", "alcore", *map(str, words)]
    done = subprocess.run(line, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RunFailedError(f"{' '.join(line)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def child(function: Callable[..., None], *arguments: Any) -> int:
    """Call a function in a process of its own, and return its exit code; what it prints goes to a file."""

    def live() -> None:
        with (arguments[0] / "output.txt").open("a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=live)
    process.start()
    process.join()
    return process.exitcode if process.exitcode is not None else 1


def finish(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a process of its own that must do its work to the end."""
    if code := child(function, *arguments):
        text = (arguments[0] / "output.txt").read_text()
        raise RunFailedError(f"{function.__name__} in {arguments[0]} ended with {code}:\n{text}")


def imported() -> Any:
    """Import the experiments, and what torch imports late, once for all processes that are forked."""
    import experiments
    import torch

    experiments.begin()
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    return experiments


# -- the runs -------------------------------------------------------------------------------------------------


def by_command(name: str, *words: str | Path) -> Callable[[Path], Made]:
    """Return a function that makes one run by the command."""

    def make(folder: Path) -> Made:
        command(folder, "run", *words, "--run-id", name, "--root", folder, "--seed", "0", "--quiet")
        yield name, folder / name

    return make


def by_python(name: str) -> Callable[[Path], Made]:
    """Return a function that makes one run in Python."""

    def make(folder: Path) -> Made:
        finish(getattr(imported(), name), folder)
        yield name, folder / name

    return make


def moons(folder: Path) -> Made:
    """Make the run that the command makes when nothing else is asked for, shortened."""
    command(folder, "run", *MOONS, "--root", folder)
    yield "moons", folder / "moons"


def the_moons(folder: Path) -> Path:
    """Return the run of `moons`, which is made where it is missing."""
    beside = folder.with_name("moons")
    if not beside.exists():
        beside.mkdir()
        list(moons(beside))
    return beside / "moons"


def repeat(folder: Path) -> Made:
    """Make the moons once more, from the experiment file of that run."""
    command(folder, "run", the_moons(folder) / "experiment.toml", "--run-id", "moons", "--root", folder)
    yield "repeat", folder / "moons"


def fork(folder: Path) -> Made:
    """Fork the moons, and go on to the end, and two steps further."""
    command(folder, "fork", the_moons(folder), "--step", "6", "--run-id", "fork")
    made = the_moons(folder).with_name("fork")
    yield "forked", made
    command(folder, "resume", made, "--steps", "14")
    yield "fork", made


def csv(folder: Path) -> Made:
    """Make a run on a table with two classes, numbers and a category."""
    words = ("--query", "uq", "--metrology", "f1", "--steps", "6", "--stop", "stabilizing-predictions")
    sets = ("training.class_weights=balanced", "query.uq.max_samples=4", "learner.mlp.dropout=0.1")
    path = write_table(folder, target="kind")
    yield from by_command("csv", *table_words(path, "kind"), *words, "--keep", "last=2,best=f1", *assigned(*sets))(
        folder
    )


def regression(folder: Path) -> Made:
    """Make a run on a table with a quantity to predict."""
    words = ("--query", "igs", "--query", "emcm", "--metrology", "regression", "--steps", "4")
    path = write_table(folder, target="weight")
    yield from by_command("regression", *table_words(path, "weight"), *words, *assigned("driver.samples_per_step=5"))(
        folder
    )


def table_words(path: Path, target: str) -> tuple[str, ...]:
    """Return what names the table on the command line."""
    return ("--data", "csv", *assigned(f"data.csv.path={path}", f"data.csv.target={target}"))


def assigned(*settings: str) -> tuple[str, ...]:
    """Return ``--set`` before each setting."""
    return tuple(word for setting in settings for word in ("--set", setting))


def write_table(folder: Path, target: str) -> Path:
    """Write a table of 160 rows, and return its path."""
    draw = random.Random(7)
    lines = [f"length,width,colour,{target}"]
    for _ in range(160):
        length, width, colour = draw.gauss(5, 2), draw.uniform(1, 3), draw.choice(["red", "green", "blue"])
        weight = length * width + 4 * (colour == "red") + draw.gauss(0, 1)
        value = f"{weight:.4f}" if target == "weight" else ("heavy" if weight > 11 else "light")
        lines.append(f"{length:.4f},{width:.4f},{colour},{value}")
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def ranks(folder: Path) -> Made:
    """Make a run on two ranks."""
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--log-dir", str(folder / "torchrun"))
    words = ("run", "--query", "uq", "--query", "badge", "--metrology", "f1", "--steps", "5", "--run-id", "ranks")
    sets = assigned("driver.samples_per_step=9", "learner.mlp.dropout=0.2")
    with reserved_port() as port:
        address = ("--master-addr", "127.0.0.1", "--master-port", str(port))
        command(folder, *words, "--root", folder, *sets, launcher=(*launcher, *address))
    yield "ranks", folder / "ranks"


def killed(folder: Path) -> Made:
    """Make a run that is left alone, and the same one where its process ends early and another one goes on."""
    experiments = imported()
    for name, ending in experiments.ENDINGS.items():
        root = folder / name
        root.mkdir()
        code = child(experiments.killed, root, ending, 1)
        if code != (0 if ending.place is None else 130 if ending.number == signal.SIGINT else -ending.number):
            raise RunFailedError(f"the first life of {name} ended with {code}:\n{(root / 'output.txt').read_text()}")
        if ending.place is not None:
            finish(experiments.killed, root, ending, 2)
        yield name, root / "killed"


RUNS: dict[str, Callable[[Path], Made]] = {
    "moons": moons,
    "repeat": repeat,
    "csv": csv,
    "regression": regression,
    "sklearn": by_command(
        "sklearn", "--learner", "sklearn", "--query", "sklearn-uq", "--query", "uq", "--steps", "4"
    ),
    "bayes": by_command(
        "bayes", "--query", "batchbald", "--query", "qbc", "--learner", "ensemble", "--steps", "4",
        *assigned("learner.ensemble.members=3", "query.batchbald.max_samples=3", "query.batchbald.candidates=0.5"),
    ),
    "sets": by_command(
        "sets", *(word for name in SETS for word in ("--query", name)), "--steps", "4",
        *assigned("driver.samples_per_step=16", "query.kcenter.candidates=0.5"),
    ),
    "start": by_command("start", "--start", "random", "--steps", "5", *assigned("data.moons.initial=0")),
    "fork": fork,
    "ranks": ranks,
    "loop": by_python("loop"),
    "generated": by_python("generated"),
    "tensors": by_python("tensors"),
    "failures": by_python("failures"),
    "killed": killed,
}  # fmt: skip


# -- their digests --------------------------------------------------------------------------------------------


def digest(content: Any) -> str:
    """Return 16 hexadecimal digits of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def digests(run: Path) -> dict[str, str]:
    """Return the digest of each table of a run, and of the tensors of its checkpoints."""
    with contextlib.closing(sqlite3.connect(f"{run.resolve().as_uri()}/run.db?mode=ro", uri=True)) as connection:
        by_table = {table: digest(connection.execute(query).fetchall()) for table, query in TABLES.items()}
        files = [file for (file,) in connection.execute("SELECT file FROM checkpoints ORDER BY file")]
    by_table["checkpoints"] = digest([tensors_of(run / "ckpt" / file) for file in files])
    return by_table


def tensors_of(path: Path) -> list[Any]:
    """Return name, type, shape and digest of each tensor of learner, optimizer and generators in a checkpoint."""
    import safetensors

    return [
        (name, tensor["dtype"], list(tensor["shape"]), hashlib.sha256(tensor["data"]).hexdigest())
        for name, tensor in sorted(safetensors.deserialize(path.read_bytes()))
        if name.startswith(("model.", "optimizer.", "rng."))
    ]


def differences(label: str, seen: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the tables in which a run differs from the one that it must be equal to."""
    mine, other = seen[label], seen.get(EQUAL.get(label, label), seen[label])
    return [
        table
        for table in mine
        if mine[table] != other[table] and not (label == "interrupted" and table.startswith("checkpoint"))
    ]


def fingerprint(root: Path, names: Iterable[str]) -> int:
    """Print the digests of these runs; return 1 where one fails, or runs differ that must be the same."""
    seen: dict[str, dict[str, str]] = {}
    wrong = 0
    for name in names:
        began = time.monotonic()
        (root / name).mkdir(exist_ok=name == "moons")
        try:
            for label, run in RUNS[name](root / name):
                seen[label] = digests(run)
                print(json.dumps({"run": label, **seen[label]}), flush=True)
                if differing := differences(label, seen):
                    wrong = 1
                    print(f"{label} differs from {EQUAL[label]} in {', '.join(differing)}", file=sys.stderr)
        except RunFailedError as error:
            wrong = 1
            print(f"{name}: {error}", file=sys.stderr)
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="where runs are made and kept; a temporary folder by default")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which runs: {', '.join(RUNS)}; all by default")
    options = parser.parse_args()
    names = [name for name in RUNS if name in options.names or not options.names]
    if unknown := sorted(set(options.names) - set(RUNS)):
        parser.error(f"there is no run {', '.join(unknown)}; there are {', '.join(RUNS)}")
    print(f"alcore of {find_spec('alcore').origin}", file=sys.stderr)
    fixed = environment()
    os.environ.clear()
    os.environ.update(fixed)
    if options.root is None:
        with tempfile.TemporaryDirectory(prefix="alcore-fingerprint-") as folder:
            return fingerprint(Path(folder), names)
    root = options.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    if there := [name for name in ("moons", *names) if (root / name).exists()]:
        parser.error(f"{root} holds {', '.join(dict.fromkeys(there))} already; give another folder")
    return fingerprint(root, names)


if __name__ == "__main__":
    sys.exit(main())
