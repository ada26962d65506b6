"""A benchmark: arms times seeds in one folder, which can be interrupted and extended."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from alcore.errors import UsageError
from alcore.store import Run, parse_toml, run_folders, write_whole
from alcore_report.arms import BASELINE, CEILING, Arm, Plan, differences
from alcore_report.cells import Cell, each_cell
from alcore_report.curves import Found, curves_of_runs, read_manifest, write_manifest
from alcore_report.words import counted, rough_duration

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The folder of a benchmark and what is to be run in it.

    Parameters
    ----------
    folder
        ``ROOT/NAME``.
    plan
        The arms.
    seeds
        The seeds.
    """

    folder: Path
    plan: Plan
    seeds: Sequence[int]

    def cells(self) -> list[Cell]:
        """Return one cell for each arm and seed, seed by seed."""
        arms = {arm.name: arm for arm in self.plan.arms}
        return [self._cell(arms[name], seed) for name, seed in each_cell(list(arms), self.seeds)]

    def _cell(self, arm: Arm, seed: int) -> Cell:
        name = f"{arm.stem}-{seed}"
        return Cell(
            arm.name,
            seed,
            self.folder / name,
            self._experiment(arm),
            self.folder / "logs" / f"{name}.txt",
            arm.steps,
            int(arm.tree["driver"].get("threads", 1)),
            arm.allow_code,
        )

    def _experiment(self, arm: Arm) -> Path:
        return self.folder / f"{arm.stem}.toml"

    def check(self) -> None:
        """Raise `UsageError` if the folder holds something else than a part of this benchmark."""
        if (self.folder / "run.db").exists():
            raise UsageError(f"{self.folder} is a run; give the benchmark another name with --name.")
        for arm in self.plan.arms:
            path = self._experiment(arm)
            try:
                before = parse_toml(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"{path} can't be read: {error}. Give the benchmark another name with --name."
                ) from error
            if changed := differences(before, arm.tree):
                more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
                raise UsageError(
                    f"{self.folder} holds runs of another experiment for the arm {arm.name}: {'; '.join(changed[:4])}"
                    f"{more}. Runs of both can't be compared. Give this one another name with --name, or remove "
                    f"{self.folder}."
                )

    def write(self) -> None:
        """Write the experiments of the arms, and which runs are whose."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for arm in self.plan.arms:
            if not self._experiment(arm).exists():
                write_whole(self._experiment(arm), arm.toml, durable=True)
        manifest = read_manifest(self.folder)
        names = [arm.name for arm in self.plan.arms]
        content = {
            **manifest,
            "format": _FORMAT,
            "arms": {**manifest.get("arms", {}), **{arm.name: arm.stem for arm in self.plan.arms}},
            "ceiling": CEILING if CEILING in names else manifest.get("ceiling"),
            "baseline": BASELINE if BASELINE in names else manifest.get("baseline"),
        }
        write_manifest(self.folder, content)

    def found(self, cells: Sequence[Cell]) -> Found:
        """Return the curves of the cells that are done, and why the others are not."""
        failed = [cell for cell in cells if cell.failure is not None]
        curves = curves_of_runs(cell.folder for cell in cells if cell.failure is None)
        curves.left_out += [(cell.folder.name, str(cell.failure)) for cell in failed]
        return curves

    def size(self) -> str:
        """Say how many runs, steps and labels it has."""
        arms, seeds = len(self.plan.arms), len(self.seeds)
        labels = self.labels()
        bought = "an unknown number of labels" if labels is None else f"at most {labels} labels"
        if any(arm.tree.get("start") for arm in self.plan.arms):
            bought += " and those of the start"
        return (
            f"{counted(arms, 'arm')} ({', '.join(arm.name for arm in self.plan.arms)}) x {counted(seeds, 'seed')} = "
            f"{counted(arms * seeds, 'run')}, {bought}"
        )

    def labels(self) -> int | None:
        """Return how many labels all runs take together, at most; None where that is not known."""
        each = [arm.labels for arm in self.plan.arms]
        return None if None in each else len(self.seeds) * sum(counts for counts in each if counts is not None)


def bought_labels(benchmark: Benchmark, root: Path, jobs: int) -> str:
    """Say what labels of a benchmark would be bought, and how long it would take by earlier runs."""
    labels = benchmark.labels()
    rate = _seconds_a_label([*run_folders(root), *run_folders(benchmark.folder)], benchmark.plan.label)
    if labels is None or rate is None:
        time = (
            f"how long that takes is not known, since no finished run in {root} has such labels; one alcore run with "
            "these flags would tell"
        )
    else:
        time = f"about {rough_duration(labels * rate / jobs)} with {jobs} at a time, as an earlier run in {root} took"
    return f"{benchmark.size()}; {time}"


def _seconds_a_label(folders: Sequence[Path], label: str) -> float | None:
    """Return how long the newest finished run with this label strategy took for a label, all phases together."""
    newest: tuple[str, float] | None = None
    for folder in folders:
        try:
            tables = parse_toml((folder / "experiment.toml").read_text(encoding="utf-8"))
            used = {str(table.get("use", name)) for name, table in tables.get("label", {}).items()}
            run = Run(folder)
            meta, steps = run.meta(), run.steps()
        except (OSError, ValueError):
            continue
        labeled = sum(step["labeled"] for step in steps)
        if label in used and meta.get("status") == "done" and labeled:
            seconds = sum(sum(step["seconds"].values()) for step in steps)
            newest = max(newest or ("", 0.0), (str(meta.get("started", "")), seconds / labeled))
    return None if newest is None else newest[1]


def cores() -> int:
    """Return on how many cores this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
