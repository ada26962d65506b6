"""Retention: which checkpoints of a run are kept, and how the others are dropped."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alcore.codec import loads
from alcore.errors import UsageError, did_you_mean
from alcore.store.database import Database
from alcore.store.filenames import may_be_litter
from alcore.store.files import remove_file, sha256_of
from alcore.store.history import CHECKPOINTS

_RULES = ("last", "best", "every")
_EXAMPLE = "for instance last=3,best=f1,every=10, or all"


@dataclasses.dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept, beside the first one, the last one and the newest that reads back intact.

    Parameters
    ----------
    last
        So many of the newest, those inside training included.
    every
        The ends of steps number `every`, 2 `every`, 3 `every` and so on, where steps count from one.
    best
        The end of the step with the best metric.
    metric
        Its name: a figure of a metrology record (``f1``, or ``f1_metrology.f1``) or a loss of the training
        (``loss``). Where it is None: ``f1``, or the first fraction of the first metrology strategy.
    lowest
        Whether the lowest value is the best; the highest otherwise. Of equal ones the first is the best.
    """

    last: int = 1
    every: int | None = None
    best: bool = False
    metric: str | None = None
    lowest: bool = False


class Pruned(NamedTuple):
    """What pruning did: the files that are gone, and what the user should know."""

    dropped: list[str]
    warnings: list[str]


def parse(text: str | None) -> Retention | None:
    """Read a retention such as ``last=3,best=loss:min,every=10``; None, as ``all``, keeps everything.

    Raises
    ------
    UsageError
        When it can't be read, naming the part that is wrong.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise UsageError(f"keep is {text!r}; it must be a text, {_EXAMPLE}.")
    rules = [rule.strip() for rule in text.split(",")]
    if rules == ["all"]:
        return None
    found: dict[str, Any] = {}
    for rule in rules:
        name, equals, value = (part.strip() for part in rule.partition("="))
        if name == "all" and not equals:
            raise UsageError(f"keep {text!r}: 'all' keeps every checkpoint, so it stands alone.")
        if name not in _RULES:
            raise UsageError(f"keep {text!r}: {rule!r} is no rule: {did_you_mean(name, _RULES)}; {_EXAMPLE}.")
        if name in found:
            raise UsageError(f"keep {text!r}: {name!r} stands there twice; once is enough.")
        if name == "best":
            found |= {"best": True, **(_metric(text, value) if equals else {})}
        else:
            found[name] = _count(text, name, value)
    return Retention(**found)


def _count(text: str, name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value)):
        raise UsageError(f"keep {text!r}: {name} takes a whole number of at least 1, for instance {name}=3.")
    return int(value)


def _metric(text: str, value: str) -> dict[str, Any]:
    metric, colon, which = value.rpartition(":") if ":" in value else (value, "", "max")
    if not metric:
        raise UsageError(f"keep {text!r}: name the metric, for instance best=f1 or best=loss:min, or write best alone.")
    if which not in ("max", "min"):
        raise UsageError(
            f"keep {text!r}: after {metric}{colon} stands {which!r}: {did_you_mean(which, ['max', 'min'])}."
        )
    return {"metric": metric, "lowest": which == "min"}


def to_drop(
    rows: Sequence[Mapping[str, Any]], keep: Retention, scores: Mapping[int, float], intact: str | None
) -> list[str]:
    """Say which checkpoints to drop.

    Parameters
    ----------
    rows
        All checkpoints, oldest first, the initial one before them: ``file``, ``step`` and ``phase``.
    keep
        What is wanted.
    scores
        The metric of steps that have it.
    intact
        The newest checkpoint that was read back intact; None where there is none.

    Returns
    -------
    list of str
        Files, oldest first. Never the first, the last, or `intact`; none at all where nothing is intact, or where
        the best is wanted and no end of a step has the metric.
    """
    if intact is None:
        return []
    ends = [row for row in rows if row["phase"] == "labeling"]
    kept = {intact, *(row["file"] for row in [*rows[:1], *rows[-keep.last :]])}
    if keep.every is not None:
        kept |= {row["file"] for row in ends if (row["step"] + 1) % keep.every == 0}
    if keep.best:
        scored = [row for row in ends if row["step"] in scores]
        if not scored:
            return []
        sign = -1 if keep.lowest else 1
        kept.add(max(scored, key=lambda row: sign * scores[row["step"]])["file"])
    return [row["file"] for row in rows if row["file"] not in kept]


def prune(database: Database, folder: Path, keep: Retention) -> Pruned:
    """Drop checkpoints: their rows in one transaction, then the files.

    A crash between the two leaves files that the database doesn't name; `remove_litter` takes them away.

    Parameters
    ----------
    database
        Of the run.
    folder
        Its ``ckpt`` folder.
    keep
        What is wanted.
    """
    rows = [dict(row) for row in database.read(CHECKPOINTS)]
    metrics = _metrics(database, losses=keep.metric is not None) if keep.best else {}
    scores = _scores(metrics, keep)
    warnings = []
    if metrics and not scores:
        known = dict.fromkeys(name for figures in metrics.values() for name in figures)
        wanted = repr(keep.metric) if keep.metric else "a fraction"
        warnings.append(
            f"no checkpoint is dropped, since no step has recorded {wanted}, which says what the best one is: "
            f"{did_you_mean(keep.metric or 'f1', known)}."
        )
    if not to_drop(rows, keep, scores, rows[-1]["file"]):
        return Pruned([], warnings)
    intact, damaged = _newest_intact(folder, rows)
    warnings += [f"checkpoint {folder / file} is damaged, so an older one is kept in its place" for file in damaged]
    dropped = to_drop(rows, keep, scores, intact)
    with database.transaction() as connection:
        connection.executemany("DELETE FROM checkpoints WHERE file = ?", [(file,) for file in dropped])
    remove_unnamed(database, folder, dropped)
    return Pruned(dropped, warnings)


def remove_litter(database: Database, folder: Path) -> None:
    """Remove what earlier crashes left in the ``ckpt`` folder: half-written files, and those nobody names."""
    with contextlib.suppress(FileNotFoundError):
        remove_unnamed(database, folder, [path.name for path in folder.iterdir() if may_be_litter(path.name)])


def remove_unnamed(database: Database, folder: Path, files: Sequence[str]) -> None:
    """Remove those of some files in the ``ckpt`` folder that the database doesn't name.

    In a transaction, although it changes nothing: one who takes the run over meanwhile might name one of them.
    """
    if not files:
        return
    with contextlib.suppress(OSError), database.transaction() as connection:  # litter hurts nobody
        named = {file for (file,) in connection.execute("SELECT file FROM checkpoints")}
        for file in files:
            if file not in named:
                remove_file(folder / file)


def _newest_intact(folder: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[str | None, list[str]]:
    """Return the newest checkpoint whose file is what was written, and the damaged ones that are newer."""
    damaged: list[str] = []
    for row in reversed(rows):
        with contextlib.suppress(OSError):
            if sha256_of(folder / row["file"]) == row["sha256"]:
                return row["file"], damaged
        damaged.append(row["file"])
    return None, damaged


def _metrics(database: Database, *, losses: bool) -> dict[int, dict[str, Any]]:
    """Return the finite figures of each step whose end has a checkpoint, those of metrology before its losses."""
    ends = " JOIN checkpoints c ON c.step = one.step AND c.phase = 'labeling'"
    measured: defaultdict[int, defaultdict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for row in database.read(f"SELECT one.step, strategy, value FROM records one{ends} ORDER BY strategy, ordinal"):
        if isinstance(value := loads(row["value"]), dict):
            figures = {name: figure for name, figure in value.items() if isinstance(name, str)}
            measured[row["step"]][row["strategy"]] |= figures
    found: dict[int, dict[str, Any]] = {}
    for row in database.read(f"SELECT one.step, record FROM steps one{ends} ORDER BY one.step"):
        figures = found[row["step"]] = {}
        for strategy, values in measured[row["step"]].items():
            named = {f"{strategy}.{name}": figure for name, figure in values.items()}
            figures |= {**values, **named, **figures}  # of two strategies the first one's figure counts
        figures |= {**loads(row["record"]).get("losses", {}), **figures} if losses else {}
    return {
        step: {name: figure for name, figure in figures.items() if _is_figure(figure)}
        for step, figures in found.items()
    }


def _is_figure(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _scores(metrics: Mapping[int, Mapping[str, Any]], keep: Retention) -> dict[int, float]:
    """Return the metric that is wanted, of each step that has it."""
    name: str | None = keep.metric
    if name is None:
        fractions = [
            name for figures in metrics.values() for name, value in figures.items() if isinstance(value, float)
        ]
        name = "f1" if "f1" in fractions else next(iter(fractions), None)
    return {step: float(figures[name]) for step, figures in metrics.items() if name is not None and name in figures}
