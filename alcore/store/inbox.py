"""The inbox of a run: answers that come from other processes, or outside a labeling phase, until the driver takes them.

Each file is one batch of answers, one line of `alcore.codec` JSON::

    {"format": 2, "answers": [
        {"kind": "label", "request": "<id>", "value": 1, "source": "ann", "cost": 1.0},
        {"kind": "failed", "item": 7, "reason": "the sample is lost", "failure": "infeasible", "cost": null},
        {"kind": "value", "value": 7}]}

A `Label` or `Failed` has either
``request``, the id of a request, or ``item``, what was asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alcore.codec import dumps, loads
from alcore.protocols import Failed, Label, Request
from alcore.store.files import cant_write, check_folder, write_whole

FORMAT = 2
_FILE = re.compile(r"\d{20}-[0-9a-f]{8}(-told)?\.json", re.ASCII)
_REQUEST_ID = re.compile(r"[0-9a-f]{32}")


class Inbox:
    """The ``inbox`` folder of a run; any process may publish, the writer of the run reads and removes.

    Parameters
    ----------
    folder
        The folder; it need not exist.

    Notes
    -----
    A file is named after the time at which it was published, in nanoseconds, and 8 random hexadecimal digits; one that
    a person told ends with ``-told``. Whatever has another name, or is not a regular file, is ignored; symbolic links
    are not followed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock, self._last = threading.Lock(), 0

    def publish(self, answers: Sequence[Any], *, told: bool = False) -> Path:
        """Write answers to a file of their own, which appears whole; they are on the disk when this returns.

        Parameters
        ----------
        answers
            `Label`, `Failed`, sample ids, or any values that can be stored. Of a `Request` its id is stored.
        told
            Whether a person told them: then one that can't be a label is no attempt, and can be corrected.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        EncodingError
            If an answer can't be stored; nothing is written then.
        alcore.store.StorageError
            If the disk is full or fails.
        """
        text = dumps({"format": FORMAT, "answers": [_encoded(answer) for answer in answers]})
        path = self.folder / f"{self._next_name()}{'-told' if told else ''}.json"
        try:
            check_folder(self.folder).mkdir(exist_ok=True)
            write_whole(path, text + "\n", durable=True)
        except OSError as error:
            raise cant_write(path, error) from error
        return path

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others who use this from the block; who only publishes or reads is not kept."""
        try:
            check_folder(self.folder).mkdir(exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError as error:
            raise cant_write(self.folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Iterator[tuple[Path, list[Any] | None, str]]:
        """Yield each file in the order of arrival.

        Yields
        ------
        path : pathlib.Path
            The file; it stays until `remove` or `set_aside`.
        answers : list or None
            What was published. A request is a `Request` that has nothing but its id. None if the file is malformed.
        fault : str
            What is wrong with a malformed file; empty otherwise.
        """
        for name in self._names():
            path, answers, fault = self.folder / name, None, ""
            try:
                answers = _decoded(_content(path))
            except (FileNotFoundError, _NotRegularError):
                continue
            except Exception as error:  # noqa: BLE001 - a malformed file can't end the run
                fault = f"{type(error).__name__}: {error}"
            yield path, answers, fault

    def is_told(self, path: Path) -> bool:
        """Return whether a person told the answers of a file."""
        return path.stem.endswith("-told")

    def remove(self, path: Path) -> None:
        """Remove a file whose answers are committed."""
        path.unlink(missing_ok=True)

    def set_aside(self, path: Path) -> None:
        """Move a malformed file into the folder ``refused``."""
        refused = check_folder(self.folder / "refused")
        refused.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.replace(refused / path.name)

    def _next_name(self) -> str:
        with self._lock:
            self._last = max(time.time_ns(), self._last + 1)
            return f"{self._last:020d}-{secrets.token_hex(4)}"

    def _names(self) -> list[str]:
        try:
            return sorted(file.name for file in check_folder(self.folder).iterdir() if _FILE.fullmatch(file.name))
        except FileNotFoundError:
            return []


class _NotRegularError(Exception):
    """A link, a folder, a pipe or a device, which alcore did not put there."""


def _content(path: Path) -> str:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _NotRegularError
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        return file.read().decode()


def _encoded(answer: Any) -> dict[str, Any]:
    match answer:
        case Label():
            return {"kind": "label", **_item(answer.item), "value": answer.value, "source": answer.source,
                    "cost": answer.cost}  # fmt: skip
        case Failed():
            return {"kind": "failed", **_item(answer.item), "reason": answer.reason, "failure": answer.kind,
                    "cost": answer.cost}  # fmt: skip
    return {"kind": "value", "value": answer}


def _item(item: Any) -> dict[str, Any]:
    return {"request": item.id} if isinstance(item, Request) else {"item": item}


def _decoded(text: str) -> list[Any]:
    """Return the answers of a file; raises whatever a malformed file makes go wrong."""
    batch = loads(text)
    if not isinstance(batch, dict) or batch.get("format") != FORMAT:
        raise ValueError(f"it is not a batch of answers of format {FORMAT}")
    if set(batch) != {"format", "answers"} or not isinstance(batch["answers"], list):
        raise ValueError("a batch has a format and a list of answers, and nothing else")
    return [_answer(answer) for answer in batch["answers"]]


_MEMBERS = {
    "label": {"value", "source", "cost"},
    "failed": {"reason", "failure", "cost"},
    "value": {"value"},
}


def _answer(members: Any) -> Any:
    kind = members.get("kind") if isinstance(members, dict) else None
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise ValueError(f"an answer is of kind {kind!r}; it must be one of {', '.join(_MEMBERS)}")
    given = set(members) - {"kind"}
    names = given & {"request", "item"}
    if given != _MEMBERS[kind] | names or len(names) != (kind != "value"):
        raise ValueError(f"an answer of kind {kind} has the members {', '.join(map(repr, members))}")
    if kind == "value":
        return members["value"]
    item = _named_request(members["request"]) if "request" in members else members["item"]
    if kind == "label":
        return Label(item, members["value"], members["source"], members["cost"])
    return Failed(item, members["reason"], members["failure"], members["cost"])


def _named_request(key: Any) -> Request:
    if not isinstance(key, str) or not _REQUEST_ID.fullmatch(key):
        raise ValueError(f"a request has the id {key!r:.100}; it must be 32 hexadecimal digits")
    return Request(key, 0, 0, None)
