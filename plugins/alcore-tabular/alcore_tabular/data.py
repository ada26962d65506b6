"""The factory of ``--data csv``: a pool to choose from and a held-out pool from a file."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from alcore.errors import UsageError, did_you_mean
from alcore.pools import Data, DataInfo, TensorPool
from alcore.protocols import Label
from alcore_tabular.arrays import read_npz
from alcore_tabular.columns import Columns, DateOrder, read_csv
from alcore_tabular.csv_reader import read_rows
from alcore_tabular.encoding import fit
from alcore_tabular.faults import Faults
from alcore_tabular.messages import listed, nearest, setting, warn
from alcore_tabular.number_format import DecimalMark
from alcore_tabular.preprocessing import Reading, TablePreprocessing, describe
from alcore_tabular.raw_table import (
    FEWEST_ROWS,
    Array,
    Missing,
    RawTable,
    Unlabeled,
    refuse_few,
    refuse_infinite,
    settle_missing,
)
from alcore_tabular.splitting import count_initial, draw_few, draw_initial, first_labels, hold_out, plan_steps
from alcore_tabular.targets import EncodedTarget, Task, encode_target

_BLANKS = ("", "na", "n/a", "nan", "null", "none", "?")
_TABLES = {".csv", ".tsv", ".npz"}
_LEARNER = {"classification": "deep-ensemble", "regression": "gp"}
_MOST_ROWS_OF_GP = 100_000
"""To predict for more takes a Gaussian process longer than the other phases of a step."""
_DRIVER: dict[str, Any] = {"batch_size": 32}
_OPTIMIZER: dict[str, Any] = {"cls": "AdamW", "lr": 0.01}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "classification": {
        "driver": _DRIVER,
        "training": {"max_training_epochs": 50, "max_fine_tuning_epochs": 20, "optimizer": _OPTIMIZER},
    },
    # Each step trains anew until more epochs change little, so that a score depends on the labels, not on how long was
    # trained before.
    "regression": {
        "driver": _DRIVER,
        "training": {"max_training_epochs": 100, "reset_learner": True, "optimizer": _OPTIMIZER},
        "learner": {"gp": {"starts": 1, "search_labels": 256, "linear": True, "max_labels": 4000}},
    },
}
_logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where a table was read from: the CSV file, what separates its cells (None: guessed), and its target."""

    path: Path
    delimiter: str | None
    target: str


class TablePool(TensorPool):
    """A `TensorPool` that knows the categories of its samples as they are in the file.

    Attributes
    ----------
    columns : dict of str to numpy.ndarray
        The columns of categories by name: for each sample id its category, a str, or None where it is missing.
    source_rows : torch.Tensor
        Row of the file of each sample, by sample id: int64, shape (N,), from 0 without the header.
    source_lines : torch.Tensor or None
        Line of the file on which each sample begins, from 1, by sample id: int64, shape (N,); None for an NPZ file.
    source : Source or None
        The file, for `shown`; None for an NPZ file.
    """

    columns: dict[str, Array]
    source_rows: torch.Tensor
    source_lines: torch.Tensor | None
    source: Source | None = None

    def shown(self, samples: Sequence[int]) -> dict[str, list[str]]:
        """Return the columns of a CSV file but the target for these samples, as they are in the file.

        The file is read again. Of an NPZ file, and of one that has changed so that it can't be read, nothing is shown.
        """
        if self.source is None:
            return {}
        try:
            text = read_rows(self.source.path, self.source.delimiter, None)
        except (OSError, UsageError) as error:
            _logger.warning("the columns of %s can't be shown: %s", self.source.path, error)
            return {}
        rows = [text.rows[row] for row in self.source_rows[torch.tensor(list(samples), dtype=torch.int64)].tolist()]
        names = [(place, name) for place, name in enumerate(text.names) if name != self.source.target]
        return {name: [row[place] for row in rows] for place, name in names}


def table(
    path: Path,
    target: str | None = None,
    inputs: str = "X",
    task: Literal["auto", "classification", "regression"] = "auto",
    initial: int | float | None = None,
    validation: float = 0.25,
    drop: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    texts: tuple[str, ...] = (),
    vocabulary: int = 500,
    missing: Literal["error", "drop", "fill"] = "error",
    unlabeled: Literal["error", "drop", "ask"] = "error",
    classes: tuple[str, ...] = (),
    blanks: tuple[str, ...] = _BLANKS,
    delimiter: str | None = None,
    decimal: Literal[".", ","] = ".",
    thousands: bool | None = None,
    date_order: Literal["auto", "dmy", "mdy"] = "auto",
    cost: str | None = None,
    seed: int | None = None,
) -> Data:
    """Learn from a table: a CSV file of numbers and categories, or the arrays of an NPZ file.

    Parameters
    ----------
    path
        The file: CSV in UTF-8 whose first line names the columns, or NPZ if its name ends in ``.npz``.
    target
        The column to predict, or the array of an NPZ file (``y`` if not given).
    inputs
        The array of inputs in an NPZ file: numbers of shape (N, ...), flattened.
    task
        ``auto``: text, and at most 20 different integers (with three rows each on average), are classes, and other
        numbers are a regression.
    initial
        Samples that are labeled at the start: a share of the training part below 1, rounded up to one
        of each class, or a whole number; 0 leaves the first selection to a start strategy. If it is not given: five of
        each class, or 20 for a regression, and at most a quarter of the training part.
    validation
        Share of the rows that is held out, stratified by class; it is not used for the standardization.
    drop
        Columns to leave out, such as ids.
    categories
        Columns to take as categories although they have numbers, or many values.
    texts
        Columns of free text: the words of each become features, by TF-IDF.
    vocabulary
        How many words of a column of free text become features at most: the most frequent ones of the training part.
    missing
        Refuse missing values (``error``), leave out their rows (``drop``), or fill them with the median
        of the training part or a category of their own (``fill``).
    unlabeled
        Refuse rows without a target (``error``), leave them out (``drop``), or take them for samples whose labels are
        not known yet, and all others for labeled ones (``ask``).
    classes
        Names of the classes, in the order of their numbers; if it is not given, those in the file, sorted. Needed where
        there are classes that no row of the file has.
    blanks
        Cells of a CSV file that are missing values, compared without case.
    delimiter
        Separator of the cells; if it is not given, a comma, semicolon, tab or bar is detected.
    decimal
        The decimal mark, a point or a comma.
    thousands
        Whether ``1,204`` is above a thousand. If it is not given, it is where a column leaves no doubt, as ``1,204.50``
        does; other columns are refused.
    date_order
        Order of day and month in dates such as 03/04/2024: ``dmy``, ``mdy``, or ``auto`` where a column leaves no
        doubt.
    cost
        The column, or array of an NPZ file, with the cost of the label of each row, in the units of the budget;
        it is not an input. A label costs 1 if it is not given.
    seed
        Seed of the choice of rows that are held out and of those that are labeled at the start; by default the run's
        seed, or 0.

    Returns
    -------
    Data
        A pool with the training part, float32 inputs of shape (N, features) in the order of the file and
        int64 or float32 targets of shape (N,); the held-out pool, all labeled; and what is known about them. With fewer
        than 20 labeled rows, which ``unlabeled="ask"`` allows, none is held out, nor the only one of a class.

    Raises
    ------
    UsageError
        For a file or a parameter that can't be used as it is, with the remedy.

    Warns
    -----
    TableWarning
        When something was left out, filled in, or looks like a mistake.
    """
    path = Path(path).expanduser()
    _check_choices(
        task=(task, Task),
        missing=(missing, Missing),
        unlabeled=(unlabeled, Unlabeled),
        decimal=(decimal, DecimalMark),
        date_order=(date_order, DateOrder),
    )
    _check_names(drop=drop, categories=categories, texts=texts, blanks=blanks, classes=classes)
    if vocabulary < 1:
        raise UsageError(f"vocabulary: {vocabulary} is not a number of words; {setting('vocabulary', 500)} is usual.")
    if not 0 < validation < 1:
        raise UsageError(
            f"validation: {validation} is not a fraction between 0 and 1; a quarter is {setting('validation', 0.25)}."
        )
    faults = Faults(path.name, {"drop": drop, "categories": categories, "texts": texts, "blanks": blanks})
    try:
        _find(path)
        if path.suffix.lower() == ".npz":
            _refuse_csv_options(
                drop=bool(drop),
                categories=bool(categories),
                texts=bool(texts),
                blanks=tuple(blanks) != _BLANKS,
                delimiter=delimiter is not None,
                decimal=decimal != ".",
                thousands=thousands is not None,
                date_order=date_order != "auto",
            )
            raw = read_npz(path, inputs, "y" if target is None else target, cost)
        else:
            if inputs != "X":
                raise UsageError(f"inputs: {inputs!r} names an array of an NPZ file, and {path.name} is read as CSV.")
            said = Columns(drop, categories, texts, blanks, delimiter, decimal, thousands, date_order, classes)
            raw = read_csv(path, target, said, faults)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from None
    if cost is not None:
        _check_cost(raw, cost)
    raw = settle_missing(raw, missing, unlabeled, faults)
    refuse_infinite(raw, faults)
    answers = _answers(raw, task, decimal, classes, faults)
    costs = None
    if cost is not None:
        raw, costs = raw.without(cost)
        if not raw.number_names and not raw.text_names:
            raise UsageError(f"{raw.file}: no column is left to learn from beside the cost {cost!r}.")
    if raw.shape is None:
        file: dict[str, Any] = {"format": "csv", "delimiter": delimiter, "decimal": decimal, "blanks": list(blanks)}
    else:
        file = {"format": "npz", "array": inputs, "shape": list(raw.shape)}
    left_out = [*drop, *([] if cost is None else [cost])]
    reading = Reading(file, missing, left_out, vocabulary)
    source = None if raw.shape is not None else Source(path.absolute(), delimiter, raw.target_name)
    return _assemble(raw, answers, costs, initial, validation, 0 if seed is None else seed, reading, source)


def _answers(raw: RawTable, task: Task, mark: DecimalMark, classes: Sequence[str], faults: Faults) -> EncodedTarget:
    """Encode the targets that there are, if nothing is wrong with them and with the columns before."""
    there = raw.take(raw.labeled)
    if not faults.found or len(there) >= FEWEST_ROWS:
        refuse_few(raw if not faults.found else there)
        with faults.gather():
            answers = encode_target(there, task, mark, classes, whole=len(there) == len(raw))
    faults.check()
    return answers


def _check_cost(raw: RawTable, cost: str) -> None:
    if cost not in raw.number_names:
        if cost in raw.text_names:
            raw.refuse(cost, "holds categories, and a cost is a number")
        raise UsageError(f"{raw.file}: there is no column {cost!r} to be the cost; {nearest(cost, _names(raw))}.")
    values = raw.without(cost)[1]
    bad = np.flatnonzero(~(values >= 0))
    if len(bad):
        raw.refuse(cost, f"says what labels cost, and {raw.at(int(bad[0]), cost)}; costs must be at least 0")


def _names(raw: RawTable) -> list[str]:
    return [*raw.number_names, *raw.text_names]


def _assemble(
    raw: RawTable,
    answers: EncodedTarget,
    costs: Array | None,
    initial: int | float | None,
    validation: float,
    seed: int,
    reading: Reading,
    source: Source | None,
) -> Data:
    train, held, labeled = _split(raw, answers, initial, validation, seed)
    values = np.zeros(len(raw), answers.values.dtype)
    values[raw.labeled] = answers.values
    is_whole = len(answers.values) == len(raw)
    part, rest = raw.take(train), raw.take(held)
    encoder = fit(part, fills=reading.missing == "fill", vocabulary=reading.vocabulary)
    info = DataInfo(answers.task, len(answers.names), encoder.features, (encoder.features,), answers.names)

    def pool(rows: RawTable, where: Array, ids: Array, *, knows_all: bool) -> TablePool:
        inputs, targets = torch.from_numpy(encoder.transform(rows)), torch.from_numpy(values[where])
        prices = None if costs is None else costs[where]
        if knows_all:
            made = TablePool(inputs, targets, labeled=ids, info=info, costs=prices)
        else:
            made = TablePool(inputs, info=info, costs=prices)
            for sample in ids.tolist():
                made.append(Label(sample, targets[sample]))
        made.columns = dict(zip(rows.text_names, rows.texts.T, strict=True))
        made.source = source
        made.source_rows = torch.from_numpy(rows.origin)
        made.source_lines = None if rows.lines is None else torch.from_numpy(rows.lines[rows.origin])
        return made

    _logger.info(
        "%s: %s of %s, %d classes, %d features; %d rows to choose from, %d of them labeled, %d held out",
        *(raw.file, answers.task, raw.target_name, info.classes, info.features),
        *(len(train), len(labeled), len(held)),
    )
    defaults = copy.deepcopy(_DEFAULTS[answers.task])
    steps, a_step = plan_steps(len(train), len(labeled), first := first_labels(len(train), len(answers.names)))
    defaults["driver"]["max_active_learning_steps"] = steps
    defaults |= {"query": {"*": {"max_samples": a_step}}, "start": {"*": {"max_samples": first}}}
    parts: dict[str, tuple[str, ...]] = {} if is_whole else {"label": ("ask",)}
    if not is_whole and not len(labeled):
        parts["start"] = ("random",)
    if answers.task == "classification" or len(train) <= _MOST_ROWS_OF_GP:
        parts["learner"] = (_LEARNER[answers.task],)
    return Data(
        pool(part, train, labeled, knows_all=is_whole),
        pool(rest, held, np.arange(len(held)), knows_all=True) if len(held) else None,
        info=info,
        defaults=defaults,
        preprocessing=describe(encoder, part, answers, reading),
        parts=parts,
    )


def _split(
    raw: RawTable, answers: EncodedTarget, initial: int | float | None, validation: float, seed: int
) -> tuple[Array, Array, Array]:
    """Return the rows to choose from, the held-out ones, and the places of those of the first that are labeled."""
    splits, draws = (np.random.default_rng([seed % 2**64, purpose]) for purpose in (0, 1))
    codes = answers.values if answers.task == "classification" else None
    labeled = raw.labeled
    if len(labeled) < len(raw):
        return _split_labeled(raw, labeled, codes, answers.names, initial, validation, splits)
    train, held = hold_out(codes, len(raw), validation, splits)
    classes = None if codes is None else codes[train]
    if initial is None:
        return train, held, draw_few(classes, len(train), draws)
    count = count_initial(initial, len(train), len(answers.names))
    return train, held, draw_initial(classes, len(train), count, draws)


def _split_labeled(
    raw: RawTable,
    labeled: Array,
    codes: Array | None,
    names: Sequence[str],
    initial: int | float | None,
    validation: float,
    rng: np.random.Generator,
) -> tuple[Array, Array, Array]:
    """Split a table of which some rows are labeled: a share of them is held out, and the others are trained on."""
    if initial is not None:
        raise UsageError(
            f"initial: {initial} is given, and {len(raw) - len(labeled)} rows have no label, so all labeled rows that "
            "are not held out are labeled at the start; leave it out."
        )
    trained, held = labeled, labeled[:0]
    if len(labeled) >= FEWEST_ROWS:
        places, others = hold_out(codes, len(labeled), validation, rng)
        trained, held = labeled[places], labeled[others]
        missing = [] if codes is None else np.setdiff1d(np.arange(len(names)), codes[others]).tolist()
        if missing and len(held):
            warn(
                f"{raw.file}: no labeled row of {listed([names[number] for number in missing])} is held out, since a "
                "class needs two labeled rows for that; so metrics say nothing of it."
            )
    train = np.setdiff1d(np.arange(len(raw)), held)
    return train, held, np.searchsorted(train, trained)


table.preprocessing_from = TablePreprocessing  # type: ignore[attr-defined]  # see alcore.protocols.FactoryOptions


def _check_choices(**given: tuple[str, Any]) -> None:
    for name, (value, choices) in given.items():
        if value not in get_args(choices):
            raise UsageError(f"{name}: {value!r} is not possible; {did_you_mean(str(value), get_args(choices))}.")


def _check_names(**given: Sequence[str]) -> None:
    for name, value in given.items():
        if isinstance(value, str):
            raise UsageError(f"{name}: {value!r} is not a list; give {setting(name, [value])}.")


def _refuse_csv_options(**given: bool) -> None:
    for name, present in given.items():
        if present:
            raise UsageError(f"{name}: it is for the columns of a CSV file, and an NPZ file has none; leave it out.")


def _find(path: Path) -> None:
    """Raise `UsageError` for a path that is not a file; the message has the nearest names."""
    if path.is_dir():
        tables = _tables(path)
        held = f"it holds {listed(tables)}" if tables else "it holds no .csv, .tsv or .npz file"
        raise UsageError(f"path: {path} is a directory, not a file; {held}.")
    if path.is_file():
        return
    if path.exists():
        raise UsageError(
            f"path: {path} is a device, a pipe or a socket, not a regular file; copy what it gives into a file, which "
            "a resumed run can read again."
        )
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"path: {path} does not exist, and neither does the folder {folder.absolute()}.")
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir() if entry.is_file()])
    names = {*near, *_tables(folder)[:10]}
    hint = did_you_mean(path.name, names) if names else "no table is there"
    raise UsageError(f"path: there is no file {path.name!r} in {folder.absolute()}; {hint}.")


def _tables(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _TABLES)
