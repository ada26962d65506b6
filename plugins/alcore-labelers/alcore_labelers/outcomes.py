"""What a program answered: a label with its cost, or why there is none."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from alcore.protocols import FailureKind
from alcore.store import parse_json
from alcore_labelers.attempts import Ended, Place
from alcore_labelers.program_files import FileFault, last_line, read_arrays, read_json

Answer = Literal["auto", "result", "stdout"]
"""Where the answer of a program is read: in its files, or in the last line of what it printed."""
ANSWERS: tuple[str, ...] = get_args(Answer)
_STATUS: dict[str, FailureKind] = {
    "infeasible": "infeasible",
    "infrastructure": "infrastructure",
    "failed": "infrastructure",
    "timeout": "timeout",
    "withdrawn": "withdrawn",
}
_JSON_LIMIT = 16 * 1024 * 1024
_LONGEST_REASON = 500


class Outcome(NamedTuple):
    """What became of an attempt.

    Parameters
    ----------
    value
        The label, where `kind` is None.
    cost
        What the program says that it cost; None where it doesn't.
    kind
        Why there is no label.
    reason
        The same in words.
    """

    value: Any = None
    cost: float | None = None
    kind: FailureKind | None = None
    reason: str = ""


class AnswerReader:
    """Reads what programs answer.

    Parameters
    ----------
    answer
        Where the answer is: ``"result"`` for ``result.json`` and ``result.npz``, ``"stdout"`` for the last line that
        the program printed, ``"auto"`` for that line where neither file is there.
    infeasible_exits
        Exit codes with which the program says that the item has no label.
    limit
        The most bytes that are read of ``result.npz``, and the most that its arrays may have.
    """

    def __init__(self, answer: Answer, infeasible_exits: Collection[int], limit: int) -> None:
        self._answer, self._infeasible_exits, self._limit = answer, frozenset(infeasible_exits), limit

    def read(self, place: Place, ended: Ended) -> Outcome:
        """Return the outcome of one request of a folder whose program has ended."""
        try:
            return self._read(place, ended)
        except FileFault as fault:
            return Outcome(kind="infrastructure", reason=f"the program's answer can't be taken: {fault}")

    def _read(self, place: Place, ended: Ended) -> Outcome:
        folder = place.folder
        if ended.code is None:
            return Outcome(kind="infrastructure", reason=f"the program could not be run: {ended.reason}")
        if ended.timed_out:
            return Outcome(kind="timeout", reason=f"the program was ended after {ended.seconds:.3g} s, its limit")
        said = self._said(place, ended) if self._answer != "stdout" or ended.code == 0 else None
        if said is not None and said.kind is not None:
            return said
        if ended.code in self._infeasible_exits or (ended.code < 0 and 128 - ended.code in self._infeasible_exits):
            return Outcome(kind="infeasible", reason=_with_stderr(place, f"exit code {ended.code}"))
        if ended.code != 0:
            how = f"exit code {ended.code}" if ended.code > 0 else f"it was ended by signal {-ended.code}"
            return Outcome(kind="infrastructure", reason=_with_stderr(place, f"the program failed, {how}"))
        if said is not None:
            return said
        if ended.was_terminated:
            return Outcome(
                kind="infrastructure",
                reason=f"the job was sent SIGTERM, and the program left no result file in {folder.name}; what it "
                "printed last is not taken then",
            )
        wanted = {
            "auto": "no result.json, no result.npz and nothing on stdout",
            "result": "no result.json and no result.npz",
            "stdout": "nothing on stdout",
        }[self._answer]
        return Outcome(kind="infrastructure", reason=f"the program left no answer in {folder.name}: {wanted}")

    def left_files(self, place: Place) -> bool:
        """Return whether the program left a file that is taken for its answer."""
        return self._answer != "stdout" and any(
            (place.folder / name).exists() for name in ("result.json", "result.npz")
        )

    def _said(self, place: Place, ended: Ended) -> Outcome | None:
        """Return what the program answered; None where it said nothing."""
        if self._answer != "stdout":
            table = read_json(place.folder, "result.json", _JSON_LIMIT)
            arrays = None
            if not isinstance(table, dict) or "status" not in table:
                arrays = read_arrays(place.folder, "result.npz", self._limit)
            if table is not None or arrays is not None:
                return _of_files(table, arrays, place)
            if self._answer == "result":
                return None
        if ended.was_terminated:
            return None
        line = last_line(place.folder, "stdout")
        if not line:
            return None
        try:
            answer = parse_json(line)
        except ValueError:
            answer = line  # the name of a class
        return _of_json(_of_place(answer, place, "the last line of stdout"), place)


def _of_files(table: Any, arrays: Mapping[str, np.ndarray] | None, place: Place) -> Outcome:
    said = Outcome()
    if table is not None:
        said = _of_json(_of_place(table, place, "result.json"), place, needs_label=arrays is None)
        if said.kind is not None or said.value is not None or arrays is None:
            return said
    named = arrays or {}
    label = named.get("label", next(iter(named.values())) if len(named) == 1 else None)
    if label is None:
        raise FileFault(f"result.npz has no array named label, but {', '.join(named) or 'none at all'}")
    if "cost" in named and said.cost is None:
        said = said._replace(cost=_cost(np.ravel(_part(named["cost"], place, "cost")).tolist()))
    return said._replace(value=_part(label, place, "label"))


def _part(array: np.ndarray, place: Place, name: str) -> np.ndarray:
    """Return what of an array belongs to a request: all of it, or its place in a batch."""
    if place.position is None:
        return array
    if array.ndim == 0 or len(array) != place.size:
        raise FileFault(f"{name} in result.npz has the shape {array.shape}; the batch has {place.size} requests")
    return np.asarray(array[place.position])


def _of_place(content: Any, place: Place, where: str) -> Any:
    """Return what of an answer belongs to a request."""
    if place.position is None:
        return content
    if isinstance(content, dict) and "status" in content:
        return content  # of the batch as a whole
    if isinstance(content, dict) and isinstance(content.get("label"), list):
        shared = {name: value for name, value in content.items() if name not in ("label", "cost")}
        costs = content.get("cost")
        content = [{**shared, "label": label} for label in content["label"]]
        if isinstance(costs, list) and len(costs) == len(content):
            content = [{**entry, "cost": cost} for entry, cost in zip(content, costs, strict=True)]
    if not isinstance(content, list) or len(content) != place.size:
        raise FileFault(f"{where} must be a list with an answer for each of the {place.size} requests, in their order")
    return content[place.position]


def _of_json(content: Any, place: Place, *, needs_label: bool = True) -> Outcome:
    """Return what an object with label, cost, status and reason says, or a bare label."""
    if not isinstance(content, dict):
        return Outcome(value=_value(content))
    if content.get("request", place.request) != place.request:
        raise FileFault(f"it answers the request {content['request']!r}, and this one is {place.request}")
    cost = _cost(content.get("cost"))
    status, reason = content.get("status"), text_of_reason(content.get("reason"))
    if status is not None and status != "ok":
        if not isinstance(status, str) or status not in _STATUS:
            words = ", ".join(["ok", *_STATUS])
            raise FileFault(f"its status is {status!r}, which is none of {words}")
        return Outcome(cost=cost, kind=_STATUS[status], reason=reason or f"the program says {status}")
    value = content.get("label")
    if value is None and needs_label:
        raise FileFault("it has no label, and no status that says why")
    return Outcome(value=None if value is None else _value(value), cost=cost)


def _value(value: Any) -> Any:
    """Return a label; nested lists of numbers become an array."""
    if value is None:
        raise FileFault("the label is null")
    if isinstance(value, list):
        try:
            array = np.asarray(value)
        except ValueError:
            raise FileFault("the label is a list of lists of several lengths") from None
        return array if array.dtype.kind in "fiub" else value
    return value


def _cost(value: Any) -> float | None:
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise FileFault(f"its cost is {value!r}, which is not a number of at least 0")
    return float(value)


def text_of_reason(reason: Any) -> str:
    """Return a reason as text that can be stored: not too long, and JSON may have half of a character."""
    text = str(reason or "")[:_LONGEST_REASON]
    return text.encode("utf-8", errors="backslashreplace").decode()


def _with_stderr(place: Place, reason: str) -> str:
    """Return a reason with the last line that the program wrote to stderr."""
    try:
        line = last_line(place.folder, "stderr", 1 << 12)
    except FileFault:
        line = ""
    return f"{reason}: {line[:300]}" if line else f"{reason}; see {place.folder}"
