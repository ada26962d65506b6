"""Print what `measure.py` printed as tables: means over tables, and the table on which a model is furthest behind.

Usage: python benchmarks/tables/report.py FILE.jsonl...

Of each table and number of labels a model has the means over the seeds that all its rivals were measured with. The best
rival is the one of most accuracy, or r2, on that table.
"""

from __future__ import annotations

import collections
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rivals import classifiers, regressors
from tables import KINDS, LABELS

Figures = Mapping[tuple[str, int, str], Mapping[str, float]]  # of (table, labels, model)
_RIVALS = {"classification": tuple(classifiers(0)), "regression": tuple(regressors(0, 1))}
_MAIN = {"classification": "accuracy", "regression": "r2"}


def means(paths: list[Path]) -> Figures:
    """Return the mean figures over the seeds."""
    rows: dict[tuple[str, int, str], dict[int, dict[str, float]]] = collections.defaultdict(dict)
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            key = row.pop("table"), row.pop("labels"), row.pop("model")
            rows[key][row.pop("seed")] = row
    seeds: dict[tuple[str, int], set[int]] = {}
    for (table, labels, _), of_seed in rows.items():
        seeds[table, labels] = seeds.get((table, labels), set(of_seed)) & set(of_seed)
    return {
        key: {
            name: float(np.mean([of_seed[seed][name] for seed in seeds[key[:2]]]))
            for name in next(iter(of_seed.values()))
        }
        for key, of_seed in rows.items()
        if seeds[key[:2]]
    }


def lines(figures: Figures, kind: str) -> Iterator[str]:
    """Yield the rows of a table in Markdown, model by model at each number of labels."""
    main, rivals = _MAIN[kind], _RIVALS[kind]
    columns = ["accuracy", "log_loss", "calibration_error"] if kind == "classification" else ["r2", "covered_90"]
    yield "| labels | model | tables | " + " | ".join(columns) + " | to the best rival | least | on | CPU s |"
    yield "|---:|---|---:|" + "---:|" * len(columns) + "---:|---:|---|---:|"
    for labels in LABELS:
        models = sorted({model for table, count, model in figures if count == labels and table in KINDS[kind]})
        for model in models:
            tables = [
                table for table in KINDS[kind] if all((table, labels, name) in figures for name in (model, *rivals))
            ]
            if not tables:
                continue
            of_tables = [figures[table, labels, model] for table in tables]
            cells = [_cell([of_table.get(column) for of_table in of_tables], column) for column in columns]
            behind = ["", "", ""]
            if main in of_tables[0]:
                best = [max(figures[table, labels, name][main] for name in rivals) for table in tables]
                gaps = [of_table[main] - value for of_table, value in zip(of_tables, best, strict=True)]
                behind = [f"{np.mean(gaps):+.3f}", f"{min(gaps):+.3f}", tables[int(np.argmin(gaps))]]
            cpu = _cell([of_table.get("cpu") for of_table in of_tables], "cpu")
            yield f"| {labels} | {model} | {len(tables)} | " + " | ".join([*cells, *behind, cpu]) + " |"


def worse_than_shares(figures: Figures) -> Iterator[str]:
    """Yield what has more log loss than the shares of the classes."""
    for (table, labels, model), row in figures.items():
        shares = figures.get((table, labels, "shares"))
        if shares is not None and row["log_loss"] > shares["log_loss"]:
            yield f"{model} on {table}, {labels} labels: {row['log_loss']:.3f}, shares {shares['log_loss']:.3f}"


def _cell(values: list[Any], column: str) -> str:
    given = [value for value in values if value is not None]
    if not given:
        return ""
    if column == "covered_90":
        return f"{np.mean(given):.2f} ({min(given):.2f} to {max(given):.2f})"
    return f"{np.mean(given):.2f}" if column == "cpu" else f"{np.mean(given):.3f}"


def main() -> None:
    figures = means([Path(name) for name in sys.argv[1:]])
    for kind in KINDS:
        if any(table in KINDS[kind] for table, _, _ in figures):
            print(f"\n{kind}\n", *lines(figures, kind), sep="\n")
    print("\nMore log loss than the shares of the classes:", *(list(worse_than_shares(figures)) or ["none"]), sep="\n")


if __name__ == "__main__":
    main()
