"""Names, limits and notes of an exchange: what needs no PyTorch, so that the process of a heartbeat starts at once."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from alcore.store import parse_json

FORMAT = 4
"""The format of what worker and driver exchange; both must have the same one."""
LARGEST_DOCUMENT = 2**24
"""Bytes of a document at most."""
LARGEST_BLOB = 2**31
"""Bytes of the arrays of a document at most."""
LONGEST_SILENCE = 1e9
"""Seconds below which a run's `silent_after` is."""
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}-[0-9a-f]{12}", re.ASCII)
_TASK = re.compile(r"[0-9]{6,9}-[0-9]{6,9}-[0-9a-f]{32}-[0-9]{1,6}", re.ASCII)
_WORKER = re.compile(r"[A-Za-z0-9_-]{1,40}-[0-9]{1,10}-[0-9a-f]{8}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class DocumentError(Exception):
    """A document is damaged, too large, or not one of this format; or a value can't be sent."""


class Note(NamedTuple):
    """What is noted about a run.

    Parameters
    ----------
    run_id
        Its id.
    seed
        What its workers derive random numbers from.
    silent_after
        Seconds after which it takes a worker that says nothing for lost.
    """

    run_id: str
    seed: int
    silent_after: float

    def to_bytes(self) -> bytes:
        """Return the document that says it."""
        return json.dumps({"format": FORMAT, **self._asdict()}).encode()


def is_run(name: str) -> bool:
    """Return whether a text can be the name of a run in an exchange."""
    return bool(_RUN.fullmatch(name))


def is_task(name: str) -> bool:
    """Return whether a text can be the name of a task."""
    return bool(_TASK.fullmatch(name))


def is_worker(name: str) -> bool:
    """Return whether a text can be the name of a worker."""
    return bool(_WORKER.fullmatch(name))


def is_digest(name: str) -> bool:
    """Return whether a text can be a SHA-256."""
    return bool(_SHA256.fullmatch(name))


def task_name(step: int, ordinal: int, request_id: str, attempt: int) -> str:
    """Return the name of a task, which is that of a request and its attempt; names sort as requests were made."""
    return f"{step:06d}-{ordinal:06d}-{request_id}-{attempt}"


def request_of(name: str) -> tuple[int, int, str, int]:
    """Return step, ordinal, id and attempt of the request that a task's name stands for."""
    step, ordinal, request_id, attempt = name.split("-")
    return int(step), int(ordinal), request_id, int(attempt)


def blob_of(document: bytes) -> str | None:
    """Return the SHA-256 of the arrays that a document names; None if it names none."""
    if b'"blob"' not in document:
        return None
    try:
        blob = parsed(document).get("blob")
    except DocumentError:
        return None
    return blob if isinstance(blob, str) and is_digest(blob) else None


def parsed(text: bytes) -> dict[str, Any]:
    """Return a document as JSON, whatever its content; `DocumentError` if it is none."""
    if len(text) > LARGEST_DOCUMENT:
        raise DocumentError(f"it has {len(text)} bytes; {LARGEST_DOCUMENT} is the most")
    try:
        document = parse_json(text)
    except ValueError as error:
        raise DocumentError(f"it is not JSON: {error!s:.200}") from error
    if not isinstance(document, dict):
        raise DocumentError("it is not a JSON object")
    return document


def read_note(text: bytes, run: str, where: str) -> Note:
    """Return what is noted about a run.

    Raises
    ------
    DocumentError
        If it is damaged, or of another format.
    """
    document = parsed(text)
    if document.get("format") != FORMAT:
        raise DocumentError(other_format(f"the run {run} at {where}", document.get("format")).rstrip("."))
    run_id, seed, silent_after = (document.get(name) for name in Note._fields)
    if (
        not isinstance(run_id, str)
        or run != f"{run_id}-{run[-12:]}"
        or type(seed) is not int
        or not 0 <= seed < 2**63
        or not isinstance(silent_after, int | float)
        or not 0 < silent_after < LONGEST_SILENCE
    ):
        raise DocumentError(f"{where}: the note of the run {run} is damaged")
    return Note(run_id, seed, float(silent_after))


def other_format(what: str, format_found: Any) -> str:
    """Return what to say where driver and worker exchange different formats."""
    return (
        f"{what} has the exchange format {format_found!r:.40}, and this version of alcore-worker has {FORMAT}. Install "
        "the same version of alcore-worker where the run is and where its workers are, and give each version a place "
        "of its own."
    )
