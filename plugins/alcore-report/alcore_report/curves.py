"""Learning curves: read from runs and from tables of other tools, and written as such a table."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alcore.errors import UsageError, did_you_mean
from alcore.store import Run, figures, find_run, parse_json, parse_toml, run_folders, runs_within, write_whole
from alcore_report.statistics import Array

MANIFEST = "benchmark.json"
"""Says in a benchmark's folder which runs are whose."""
_USUAL = ("f1", "f1_macro", "balanced_accuracy", "accuracy", "rmse", "relative_l2")
_LOWER = re.compile(
    r"(^|_|\b)(loss|error|err|rmse|mse|mae|mape|nll|crps|width|brier|ece|perplexity|deviance|relative_l[12]|calibration)\b"
)
_KEYS = ("arm", "seed", "labels")


@dataclasses.dataclass(frozen=True)
class Curve:
    """The learning curves of one run: each metric over the labels.

    Parameters
    ----------
    arm
        What is compared: the query strategies of the run, or another tool's name for them.
    seed
        Of the run. Runs of several arms with one seed are compared in pairs.
    labels
        Labeled samples that were trained on at each measurement, shape (K,), those of the start among them.
    cost
        What had been paid for labels and failed attempts then, shape (K,); None where it is not known.
    values
        The metrics by name, shape (K,) each; NaN where one was not measured.
    source
        Where it was read, for messages.
    """

    arm: str
    seed: int
    labels: Array
    cost: Array | None
    values: dict[str, Array]
    source: str
    on: tuple[str, ...] = ()
    data: str = ""


@dataclasses.dataclass
class Found:
    """What was read.

    Parameters
    ----------
    curves
        Those that can be compared.
    left_out
        The name of each run that can't be, and why.
    ceiling, baseline
        The arms that a benchmark says are these, if one does.
    looks
        By arm, the seeds of each earlier verdict of a benchmark, the first one first.
    benchmarks
        The folders of the benchmarks.
    """

    curves: list[Curve] = dataclasses.field(default_factory=list)
    left_out: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    ceiling: str | None = None
    baseline: str | None = None
    looks: dict[str, list[list[int]]] = dataclasses.field(default_factory=dict)
    benchmarks: list[Path] = dataclasses.field(default_factory=list)


def lower_is_better(metric: str) -> bool:
    """Return by its name whether a metric is better the lower it is: ``rmse``, ``log_loss``, ``max_error`` and such."""
    return _LOWER.search(metric.rpartition(".")[2].lower()) is not None


def read(words: Sequence[str], root: Path) -> Found:
    """Return the curves that a user means.

    Parameters
    ----------
    words
        Run ids, run directories, folders of runs, or CSV files.
    root
        Where runs are that are called by their ids.

    Raises
    ------
    UsageError
        If a word means nothing, a table can't be read, or two runs are of one arm and seed.
    """
    collected, folders = Found(), list[Path]()
    for word in words:
        path = Path(word)
        if path.is_file():
            collected.curves += curves_of_table(path)
        elif (folder := folder_of_runs(path, root)) is not None:
            chosen, others = runs_to_compare(folder)
            folders += chosen
            collected.left_out += others
        else:
            folders.append(find_run(root, word, verify=False).folder)
    more = curves_of_runs(list(dict.fromkeys(folders)))
    collected.curves += more.curves
    collected.left_out += more.left_out
    collected.ceiling, collected.baseline = more.ceiling, more.baseline
    collected.looks, collected.benchmarks = more.looks, more.benchmarks
    _refuse_repeated(collected.curves)
    return collected


def folder_of_runs(path: Path, root: Path) -> Path | None:
    """Return the folder of runs that is meant, if one is: as a path, or as the name of a benchmark in the root."""
    for folder in (path, root / path):
        if folder.is_dir() and not (folder / "run.db").exists():
            if runs_within(folder):
                return folder
            raise UsageError(f"{folder} holds no run; name runs, a folder of runs, or a CSV file of curves.")
    return None


def runs_to_compare(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """Return the runs that a folder of runs means, and which others are left out, with the reason.

    Its own ones; where it has none, those in its folders, such as the one that ``benchmark --root FOLDER`` makes.
    """
    own, within = run_folders(folder), runs_within(folder)
    if not own:
        return list(within.values()), []
    groups = Counter(name.partition("/")[0] for name in within if "/" in name)
    return own, [
        (f"{name}/", f"compare its {count} run{'' if count == 1 else 's'} by themselves: {folder / name}")
        for name, count in groups.items()
    ]


def _refuse_repeated(curves: Iterable[Curve]) -> None:
    curve_of: dict[tuple[str, int], Curve] = {}
    for curve in curves:
        same = curve_of.setdefault((curve.arm, curve.seed), curve)
        if same is not curve:
            raise UsageError(
                f"{same.source} and {curve.source} are both of arm {curve.arm} and seed {curve.seed}, so which of them "
                "counts is not known; name only one of them."
            )


# -- runs --------------------------------------------------------------------------------------------------------


def curves_of_runs(folders: Iterable[Path]) -> Found:
    """Return the curves of run directories; runs that are not done are left out, with the reason.

    A run in the folder of a benchmark belongs to the arm that this says. Any other belongs to the arm that its id
    names, if that is ``ARM-SEED``, else to the arm of its query strategies.
    """
    collected = Found()
    manifests: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        home = folder.resolve().parent
        if home not in manifests:
            manifests[home] = read_manifest(home)
            if manifests[home]:
                collected.benchmarks.append(home)
                collected.looks.update(_looks(manifests[home]))
        manifest = manifests[home]
        try:
            run = Run(folder)
            run.verify()
            meta = run.meta()
            if why := unfinished(meta):
                collected.left_out.append((folder.name, why))
                continue
            collected.curves.append(_curve_of(run, meta, manifest.get("arms", {})))
        except ValueError as error:  # a UsageError, or text that is not JSON
            collected.left_out.append((folder.name, str(error).rstrip(".")))
            continue
        collected.ceiling = collected.ceiling or manifest.get("ceiling")
        collected.baseline = collected.baseline or manifest.get("baseline")
    return collected


def curve_of_run(folder: Path) -> Curve:
    """Return the curve of a run, which may be under way or have failed.

    Raises
    ------
    UsageError
        If it is damaged, or nothing was measured in it yet.
    """
    run = Run(folder)
    run.verify()
    return _curve_of(run, run.meta(), {})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a benchmark wrote about the runs in its folder; an empty dict where there is no such file.

    Raises
    ------
    UsageError
        If the file is damaged.
    """
    path = folder / MANIFEST
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {error}. Remove it to compare the runs by their names.") from error
    if not isinstance(content, dict) or not isinstance(content.get("arms"), dict):
        raise UsageError(f"{path} does not say which runs are of which arm. Remove it to compare them by their names.")
    return content


def _looks(manifest: Mapping[str, Any]) -> dict[str, list[list[int]]]:
    """Return the seeds of each verdict that a benchmark has given, by arm; what is no such list is left out."""
    given = manifest.get("looks")
    return {
        arm: [look for look in looks if isinstance(look, list) and all(isinstance(seed, int) for seed in look)]
        for arm, looks in (given.items() if isinstance(given, dict) else ())
        if isinstance(looks, list)
    }


def note_looks(folders: Iterable[Path], seeds_of: Mapping[str, Sequence[int]]) -> None:
    """Add to benchmarks that a verdict was given, unless it is on the same seeds as one before.

    Parameters
    ----------
    folders
        The folders of the benchmarks.
    seeds_of
        The seeds of the verdict on each arm. Arms that a benchmark doesn't have are left out.
    """
    for folder in folders:
        manifest = read_manifest(folder)
        looks = _looks(manifest)
        for arm, seeds in seeds_of.items():
            if arm in manifest["arms"] and sorted(seeds) not in looks.setdefault(arm, []):
                looks[arm].append(sorted(seeds))
        write_manifest(folder, {**manifest, "looks": looks})


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write what a benchmark says about the runs in its folder."""
    write_whole(folder / MANIFEST, json.dumps(content, indent=1) + "\n", durable=True)


def unfinished(meta: dict[str, Any]) -> str | None:
    """Return why a run's curve can't be compared, else None."""
    status, reason = str(meta.get("status", "?")), str(meta.get("error") or meta.get("reason") or "")
    if status == "done":
        return None
    return f"it is {status}" + (f": {reason.rstrip('.')}" if reason else "")


def _curve_of(run: Run, meta: dict[str, Any], arms: dict[str, str]) -> Curve:
    name, seed = run.folder.resolve().name, int(meta["seed"])
    stem = name.removesuffix(f"-{seed}")
    if stem in arms.values():
        arm = next(arm for arm, folder in arms.items() if folder == stem)
    elif stem != name:
        arm = stem
    else:
        arm = "+".join(_query_names(run.folder) or meta.get("names", {}).get("query", [])) or "no query strategy"
    samples = {step["step"]: step["train_samples"] for step in run.steps()}
    points: dict[int, tuple[int, dict[str, float]]] = {}
    places: list[str] = []
    for strategy, entries in run.records().items():
        for entry in entries:
            values = figures(entry)
            if not values or not isinstance(step := entry.get("step"), int):
                continue
            if (count := entry.get("train_samples", samples.get(step))) is None:
                continue
            if isinstance(entry.get("on"), str):
                places.append(entry["on"])
            points.setdefault(step, (int(count), {}))[1].update({f"{strategy}.{k}": v for k, v in values.items()})
    if not points:
        raise UsageError("it has no metric that was measured in a step")
    steps = sorted(points)
    paid = np.zeros(steps[-1] + 2)
    for request in (*run.requests(), *run.refused()):  # labels, and attempts that failed
        if request["step"] <= steps[-1]:
            paid[request["step"] + 1] += request["cost"] or 0.0
    names = list(dict.fromkeys(name for step in steps for name in points[step][1]))
    return Curve(
        arm,
        seed,
        np.array([points[step][0] for step in steps], dtype=np.float64),
        np.cumsum(paid)[steps],
        {name: np.array([points[step][1].get(name, math.nan) for step in steps]) for name in names},
        str(run.folder),
        tuple(dict.fromkeys(places)),
        json.dumps(meta.get("pools"), sort_keys=True),
    )


def _query_names(folder: Path) -> list[str]:
    """Return how the experiment of a run calls its query strategies; none where it was built in Python."""
    try:
        tables = parse_toml((folder / "experiment.toml").read_text(encoding="utf-8")).get("query", {})
    except (OSError, ValueError):
        return []
    return list(tables) if isinstance(tables, dict) else []


# -- tables ------------------------------------------------------------------------------------------------------


def curves_of_table(path: Path) -> list[Curve]:
    """Return the curves of a CSV file, as other tools may write it and as `write_table` does.

    Parameters
    ----------
    path
        A file with the columns ``arm``, ``seed`` and ``labels``, perhaps ``cost``, and one for each metric; a line a
        measurement. An empty cell was not measured.

    Raises
    ------
    UsageError
        If a column is missing, or a cell is not a number, naming its line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header, lines = list(reader.fieldnames or []), [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} can't be read as a CSV file of curves: {error}.") from error
    for name in _KEYS:
        if name not in header:
            raise UsageError(
                f"{path} has no column {name!r}: {did_you_mean(name, header)}. A table of curves has the columns arm, "
                "seed, labels, perhaps cost, and one for each metric."
            )
    metrics = [name for name in header if name not in (*_KEYS, "cost")]
    if not metrics or not lines:
        missing = "line below its header" if metrics else "column of a metric beside arm, seed, labels and cost"
        raise UsageError(f"{path} has no {missing}.")

    def number(line: int, row: dict[str, str], name: str) -> float:
        text = (row.get(name) or "").strip()
        try:
            return float(text) if text or name in _KEYS else math.nan
        except ValueError:
            raise UsageError(f"{path}, line {line}: {name} is {text!r}, which is not a number.") from None

    groups: dict[tuple[str, int], list[dict[str, float]]] = {}
    for line, row in lines:
        values = {name: number(line, row, name) for name in header if name != "arm"}
        if values["seed"] != int(values["seed"]):
            raise UsageError(f"{path}, line {line}: seed is {row['seed']!r}, which is not a whole number.")
        groups.setdefault((str(row["arm"]).strip(), int(values["seed"])), []).append(values)
    curves = []
    for (arm, seed), points in groups.items():
        points.sort(key=lambda point: point["labels"])
        columns = {name: np.array([point[name] for point in points]) for name in header if name != "arm"}
        cost = columns.get("cost")
        if cost is not None and np.isnan(cost).any():
            cost = None
        measured = {name: columns[name] for name in metrics if not np.isnan(columns[name]).all()}
        curves.append(Curve(arm, seed, columns["labels"], cost, measured, f"arm {arm}, seed {seed} of {path}"))
    return curves


def write_table(curves: Iterable[Curve], path: Path) -> None:
    """Write curves as a CSV file that `curves_of_table` reads: a line a measurement, a column a metric."""
    shown = list(curves)
    metrics = list(dict.fromkeys(name for curve in shown for name in curve.values))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_KEYS, "cost", *metrics])
        for curve in shown:
            for place, labels in enumerate(curve.labels.tolist()):
                cost = "" if curve.cost is None else f"{curve.cost[place]:.12g}"
                cells = [float(curve.values[name][place]) if name in curve.values else math.nan for name in metrics]
                shown_cells = ["" if math.isnan(cell) else repr(cell) for cell in cells]
                writer.writerow([curve.arm, curve.seed, f"{labels:.12g}", cost, *shown_cells])


# -- one metric --------------------------------------------------------------------------------------------------


def metric_name(curves: Sequence[Curve], wanted: str | None) -> str:
    """Return the full name of the metric to compare.

    Parameters
    ----------
    curves
        At least one.
    wanted
        As the user says: ``f1``, or with the metrology strategy, ``f1_metrology.f1``; a usual one where it is None.

    Raises
    ------
    UsageError
        If none, or more than one, is meant.
    """
    names = list(dict.fromkeys(name for curve in curves for name in curve.values))
    if wanted is None:
        return usual_metric(names)
    meant = [name for name in names if wanted in (name, name.rpartition(".")[2])]
    if len(meant) == 1 or wanted in meant:
        return wanted if wanted in meant else meant[0]
    if meant:
        raise UsageError(f"--metric {wanted}: {len(meant)} metrology strategies measure it; give {' or '.join(meant)}.")
    raise UsageError(f"--metric {wanted}: it was not measured: {did_you_mean(wanted, names)}.")


def usual_metric(names: Sequence[str]) -> str:
    """Return the one of these full names, at least one, that is compared where the user names none."""
    last = [name.rpartition(".")[2] for name in names]
    return next((names[last.index(usual)] for usual in _USUAL if usual in last), names[0])


def points_of(curve: Curve, metric: str, *, over_cost: bool) -> tuple[Array, Array]:
    """Return one metric of a curve over labels or cost: places, ascending and each once, and values.

    Where several measurements have one place, the last one counts. The step before a measurement is what it cost.

    Raises
    ------
    UsageError
        If it was never measured, or is infinite or not a number.
    """
    x = curve.cost if over_cost else curve.labels
    values = curve.values.get(metric)
    if x is None or values is None:
        raise UsageError(f"{metric} was not measured" if values is None else "its cost is not known")
    is_measured = ~np.isnan(values)
    x, values = x[is_measured], values[is_measured]
    if not len(x):
        raise UsageError(f"{metric} was not measured")
    if not np.isfinite(values).all() or not np.isfinite(x).all():
        raise UsageError(f"{metric} is infinite at {x[~np.isfinite(values)][:1].tolist()}")
    order = np.argsort(x, kind="stable")
    x, values = x[order], values[order]
    last = np.append(np.diff(x) > 0, True)
    return x[last], values[last]
