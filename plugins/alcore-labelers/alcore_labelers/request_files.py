"""Open requests as a file that a person or a program fills in: CSV, JSON lines or NPZ."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError, did_you_mean
from alcore.experiment import OpenRequest
from alcore.pools import leaves_of
from alcore.store import cant_write, export_json, write_whole

SUFFIXES = (".csv", ".jsonl", ".npz")
FIRST = ("request", "sample", "row", "line", "label")
"""The columns before what is shown of a sample."""
LAST = ("step", "attempt", "strategy", "score", "rank", "expected_cost", "status", "cost", "source", "comment")
"""The columns after it; the last four may be filled in, as `label` is."""
_ABOUT = (*FIRST[:-1], *LAST[:6])
_MOST_COLUMNS = 256  # of inputs, which are not shown where they have more numbers
_FORMULA = re.compile(r"[=+\-@\t\r]")  # a spreadsheet runs a cell that begins so
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


def check_requests_file(path: str | Path) -> Path:
    """Return a path whose suffix names a format; raise `UsageError` otherwise."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path} has no suffix of a format; {did_you_mean(path.suffix, SUFFIXES)}: a table, JSON lines, or arrays."
        )
    return path


def write_requests(requests: Sequence[OpenRequest], path: str | Path) -> None:
    """Write open requests to a file, which takes the place of one of this name.

    Parameters
    ----------
    requests
        What is asked for: what `alcore.Driver.ask` returned.
    path
        The file: ``.csv``, ``.jsonl`` or ``.npz``.
    """
    path = check_requests_file(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            text = requests_as_csv(requests)
            write_whole(path, text if text.isascii() else _BOM + text, durable=False)  # so that spreadsheets read it
        elif suffix == ".jsonl":
            write_whole(path, "".join(f"{line}\n" for line in _json_lines(requests)), durable=False)
        else:
            _write_npz(requests, path)
    except OSError as error:
        raise cant_write(path, error) from error


def requests_as_csv(requests: Sequence[OpenRequest]) -> str:
    """Return open requests as CSV, with empty cells to fill in."""
    shown = [_cells(request) for request in requests]
    names = list(dict.fromkeys(name for row in shown for name in row))
    file = io.StringIO(newline="")
    unknown = {name for name in ("row", "line") if all(getattr(request, name) is None for request in requests)}
    columns = [name for name in (*FIRST, *names, *LAST) if name not in unknown]
    writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for request, row in zip(requests, shown, strict=True):
        writer.writerow({**{name: _inert(value) for name, value in row.items()}, **_about(request)})
    return file.getvalue()


def _about(request: OpenRequest) -> dict[str, Any]:
    """Return what is known of a request, by column."""
    return {
        "request": request.request.id,
        "sample": request.sample,
        "row": request.row,
        "line": request.line,
        "step": request.request.step,
        "attempt": request.request.attempt,
        "strategy": request.strategy,
        "score": request.score,
        "rank": request.rank,
        "expected_cost": request.cost,
    }


def _cells(request: OpenRequest) -> dict[str, Any]:
    """Return what is shown of a sample, by column: the columns of its file, or else its input."""
    cells = dict(request.shown) or dict(_input_cells(request.input))
    taken = {*FIRST, *LAST}
    return {f"data.{name}" if name.strip().casefold() in taken else name: value for name, value in cells.items()}


def _input_cells(value: Any) -> Iterator[tuple[str, Any]]:
    if value is None:
        return
    if not isinstance(value, torch.Tensor | np.ndarray | np.generic):
        yield "input", value if isinstance(value, str | int | float) else _json(value)
        return
    numbers = _array(value)
    if numbers.size > _MOST_COLUMNS:
        yield "input", f"{' x '.join(map(str, numbers.shape))} numbers, which alcore ask --out FILE.npz writes"
    elif numbers.ndim == 0:
        yield "x", str(numbers[()])
    else:
        for place, number in zip(np.ndindex(numbers.shape), numbers.flat, strict=True):
            yield "x" + "_".join(map(str, place)), str(number)


def _inert(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula."""
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    return f"'{value}"


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    return np.asarray(value)


def _json(value: Any) -> str:
    return json.dumps(json.loads(export_json(value)), ensure_ascii=False)


def _json_lines(requests: Iterable[OpenRequest]) -> Iterator[str]:
    for request in requests:
        empty = dict.fromkeys(("label", "status", "cost", "source", "comment"))
        shown = {"shown": dict(request.shown), **({"units": dict(request.units)} if request.units else {})}
        yield _json({**_about(request), **shown, "input": request.input, **empty})


def _write_npz(requests: Sequence[OpenRequest], path: Path) -> None:
    """Write one array a column, and the inputs where they are arrays of one shape."""
    rows = [_about(request) for request in requests]
    arrays: dict[str, Any] = {}
    for name in _ABOUT:
        values = [row[name] for row in rows]
        if name in ("request", "strategy"):
            arrays[name] = np.array(values, dtype=np.str_)
        elif name in ("score", "expected_cost"):
            arrays[name] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        else:
            arrays[name] = np.array([-1 if value is None else value for value in values], dtype=np.int64)
    leaves = [leaves_of(request.input) for request in requests]
    single = [
        _array(leaves_of_request[0])
        for leaves_of_request in leaves
        if len(leaves_of_request) == 1 and leaves_of_request[0] is not None
    ]
    if requests and len(single) == len(requests) and len({(array.shape, array.dtype.kind) for array in single}) == 1:
        stacked = np.stack(single)
        if stacked.dtype.kind in "biufcU":
            arrays["input"] = stacked
    np.savez(path, **arrays)
