"""Encode the target column as class numbers or real values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import numpy as np

from alcore.errors import UsageError
from alcore_tabular.columns import MOSTLY_NUMBERS
from alcore_tabular.messages import listed, nearest, setting
from alcore_tabular.number_format import DecimalMark, exact, has_mark, number
from alcore_tabular.raw_table import Array, RawTable

Task = Literal["auto", "classification", "regression"]

_MOST_CLASSES = 20  # different integers that are classes ...
_ROWS_A_CLASS = 3  # ... if there are as many rows for each, on average


@dataclasses.dataclass(frozen=True)
class EncodedTarget:
    """Encoded targets.

    Parameters
    ----------
    task
        The task.
    values
        Shape (N,): class numbers from 0 as int64, or values in the units of the file as float32.
    names
        Names of the classes in the order of their numbers; empty for regression.
    """

    task: Literal["classification", "regression"]
    values: Array
    names: tuple[str, ...] = ()


def encode_target(
    raw: RawTable, task: Task, mark: DecimalMark = ".", classes: Sequence[str] = (), *, whole: bool = True
) -> EncodedTarget:
    """Encode the targets of rows without missing ones.

    Parameters
    ----------
    raw
        The table, without missing targets.
    task
        ``"auto"`` takes text, and few different whole numbers, for classes and other numbers for values.
    mark
        The decimal mark.
    classes
        Names of classes; those of the file are among them, if there are any.
    whole
        Whether all samples have a target, not some of them that are labeled already.

    Raises
    ------
    UsageError
        For text among numbers, infinite values, a single class and a class with a single member.
    """
    cells = [cell for cell in raw.target if cell is not None]
    if classes and task == "regression":
        raise UsageError("classes: a regression has none; leave them out, or leave out the task.")
    if classes:
        return _given_classes(raw, cells, mark, tuple(classes))
    if not cells:
        return _without_cells(raw, task)
    values = [number(cell, mark) for cell in cells]
    texts = [row for row, value in enumerate(values) if value is None]
    if task == "classification":
        return _classes(raw, cells, mark, numeric=not texts, whole=whole)
    if texts and (task == "regression" or len(cells) - len(texts) >= MOSTLY_NUMBERS * len(cells)):
        _refuse_text(raw, cells, texts)
    if texts:
        return _classes(raw, cells, mark, numeric=False, whole=whole)
    numbers = np.array(values, dtype=np.float64)
    if task == "auto" and not whole:
        _refuse_doubtful(raw, numbers)
    if task == "auto" and _are_codes(numbers):
        return _classes(raw, cells, mark, numeric=True, whole=whole)
    return _values(raw, numbers, whole=whole)


def _refuse_text(raw: RawTable, cells: list[str], texts: list[int]) -> NoReturn:
    mark = _mark_of(raw, cells[texts[0]])
    read = "" if mark is None else f"read it as a number with {setting('decimal', mark)}, "
    mend = {"task": "classification"} if mark is None else {"decimal": mark}
    raw.refuse(
        raw.target_name,
        f"is the target and has text where numbers belong: {raw.at(texts[0], raw.target_name)} "
        f"({len(texts)} of {len(cells)} values are not numbers). Correct it, {read}or take the values as "
        f"classes with {setting('task', 'classification')}",
        **mend,
    )


def _mark_of(raw: RawTable, cell: str) -> DecimalMark | None:
    """Return the decimal mark to read a cell with, if the numbers of the file have it; else None."""
    mark = raw.other_mark()
    return mark if has_mark(cell, mark) else None


def _are_codes(values: Array) -> bool:
    different = np.unique(values)
    return _are_whole(different) and len(different) <= min(_MOST_CLASSES, len(values) // _ROWS_A_CLASS)


def _are_whole(numbers: Array) -> bool:
    return bool(np.isfinite(numbers).all()) and bool((numbers == np.floor(numbers)).all())


def _refuse_doubtful(raw: RawTable, values: Array) -> None:
    """Refuse few labels that may be classes or quantities, since more of them would tell."""
    different = np.unique(values)
    if _are_whole(different) and len(values) // _ROWS_A_CLASS < len(different) <= _MOST_CLASSES:
        raw.refuse(
            raw.target_name,
            f"is the target, and its {len(values)} labels are whole numbers, which may be classes or quantities; say "
            f"which with {setting('task', 'classification')} or {setting('task', 'regression')}",
            task="classification",
        )


def _values(raw: RawTable, values: Array, *, whole: bool) -> EncodedTarget:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(single))
    name = raw.target_name
    if len(broken):
        raw.refuse(
            name,
            f"is the target and {len(broken)} of its values are infinite or beyond what float32 holds "
            f"(3.4e38): {raw.at(int(broken[0]), name)}. Correct it, or give the target in another unit",
        )
    if whole and values.min() == values.max():
        raw.refuse(name, f"is the target and is {values[0]:g} in every row, so there is nothing to learn")
    return EncodedTarget("regression", single)


def _classes(raw: RawTable, cells: list[str], mark: DecimalMark, *, numeric: bool, whole: bool) -> EncodedTarget:
    keys: list[Any] = [exact(cell, mark) for cell in cells] if numeric else list(cells)
    members: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        members.setdefault(key, []).append(row)
    order = sorted(members)  # numbers, or text
    names = tuple(_class_name(cells[members[key][0]], mark) if numeric else str(key) for key in order)
    if len(order) == 1 and not whole:
        raw.refuse(
            raw.target_name,
            f"is the target and is {names[0]!r} wherever it is not empty; name all classes with "
            f"{setting('classes', [names[0], '...'])}",
        )
    if len(order) == 1:
        raw.refuse(
            raw.target_name,
            f"is the target and is {names[0]!r} in every row, so there is nothing to learn. Name "
            "another target, or add rows of a second class",
        )
    lonely = [place for place, key in enumerate(order) if len(members[key]) == 1]
    if lonely and whole:
        _refuse_lonely(raw, [names[place] for place in lonely], members[order[lonely[0]]][0], len(order), mark, numeric)
    code = {key: place for place, key in enumerate(order)}
    return EncodedTarget("classification", np.array([code[key] for key in keys], dtype=np.int64), names)


def _given_classes(raw: RawTable, cells: list[str], mark: DecimalMark, names: tuple[str, ...]) -> EncodedTarget:
    """Encode targets whose classes are named; a number is the class of its value, however it is written."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len(names) < 2 or not all(name.strip() for name in names):
        fault = f"{listed(twice)} is there twice" if twice else f"{names[0]!r} alone leaves nothing to learn"
        fault = fault if all(name.strip() for name in names) else "a name is empty"
        raise UsageError(f"classes: {fault}; name each class once, two at least.")
    code = {name: place for place, name in enumerate(names)}
    classes = [code.get(cell, code.get(_class_name(cell, mark))) for cell in cells]
    if None in classes:
        row = classes.index(None)
        raw.refuse(
            raw.target_name,
            f"is the target, and {raw.at(row, raw.target_name)}, which is none of the classes {listed(names)}; add it "
            f"to data.csv.classes: {nearest(cells[row], names)}",
        )
    return EncodedTarget("classification", np.array(classes, dtype=np.int64), names)


def _without_cells(raw: RawTable, task: Task) -> EncodedTarget:
    if task == "regression":
        return EncodedTarget("regression", np.empty(0, dtype=np.float32))
    raw.refuse(
        raw.target_name,
        f"is the target and is empty, so it is not known what labels are: name the classes with "
        f"{setting('classes', ['...', '...'])}, or say that they are numbers with {setting('task', 'regression')}",
    )


def _refuse_lonely(
    raw: RawTable, lonely: list[str], row: int, classes: int, mark: DecimalMark, numeric: bool
) -> NoReturn:
    mend: dict[str, Any] = {}
    if (other := _mark_of(raw, lonely[0])) is not None:
        mend = {"decimal": other}
        hint = f". If {lonely[0]!r} is a number, give {setting('decimal', other)}"
    elif has_mark(lonely[0], "," if mark == "." else "."):
        hint = f". If {lonely[0]!r} is a number, write it with a {'point' if mark == '.' else 'comma'}"
    elif numeric:
        hint = f". If the target is a quantity, give {setting('task', 'regression')}"
    elif 2 * classes > len(raw):
        hint = ". It looks like ids or free text; if it is, name another target"
    else:
        hint = ""
    raw.refuse(
        raw.target_name,
        f"is the target, and {len(lonely)} of its {classes} classes {'has' if len(lonely) == 1 else 'have'} "
        f"a single member: {listed(lonely)}; {raw.at(row, raw.target_name)}. A class needs two "
        "rows, one to train on and one to be measured on: add rows, take these out, or merge such "
        f"classes{hint}",
        **mend,
    )


def _class_name(cell: str, mark: DecimalMark) -> str:
    """Return an integer without its decimal point, and any other text unchanged."""
    value = number(cell, mark)
    whole = value is not None and abs(value) < 2**53 and value == math.floor(value)
    return str(int(value)) if value is not None and whole else cell
