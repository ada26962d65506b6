"""Folders in which programs work on requests: what they are given, and when an attempt is over."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alcore.errors import UsageError
from alcore.pools import units_of
from alcore.protocols import Request, RunContext
from alcore.store import fsync_path, parse_json, write_whole
from alcore_labelers.items import Item
from alcore_labelers.program_files import FileFault, read_file, read_json

DONE = "done.json"
"""Written last, once the program has ended: exit code, seconds, whether it was out of time."""
BEGUN = "started"
"""Made before the program is started, exclusively: an attempt that has it is not started again."""
INTERRUPTED = "interrupted"
"""Made once alcore itself has ended the program."""
_DELIVERED = "delivered"  # its answer was put; made when that is committed
_BATCH = "batch.json"  # in the folder of a request that was answered in another one's
_PLACE = re.compile(r"[0-9a-f]{32}/attempt-[0-9]{1,9}(-[0-9]{1,9})?")
_TOKEN = re.compile(r"[0-9a-f]{6}")
_LIMIT = 64 * 1024 * 1024  # bytes of what alcore itself has written, requests of a batch


class Ended(NamedTuple):
    """How a program ended.

    Parameters
    ----------
    code
        Its exit code, negative for a signal; None where it could not be started.
    seconds
        How long it ran.
    timed_out
        Whether it was ended since it ran too long.
    reason
        Why it could not be started, else empty.
    was_terminated
        Whether its job was sent SIGTERM before that: what it printed last may be no answer.
    """

    code: int | None
    seconds: float
    timed_out: bool = False
    reason: str = ""
    was_terminated: bool = False


class Place(NamedTuple):
    """Where the answer to a request is, or will be.

    Parameters
    ----------
    folder
        Of the attempt.
    request
        The id of the request.
    position
        The request's place in a batch that is answered there; None where it has the folder for itself.
    size
        How many requests the folder answers.
    """

    folder: Path
    request: str
    position: int | None = None
    size: int = 1


class AttemptFolders:
    """The folders of a label strategy: ``<request id>/attempt-<n>``, so that a retry doesn't see an earlier result.

    Parameters
    ----------
    work
        The folder that holds them.
    """

    def __init__(self, work: Path) -> None:
        self.work = work

    def find(self, request: Request) -> Place | None:
        """Return where an attempt was begun, or None.

        One that was begun and whose answer was delivered is not found: the request was opened again since.

        Raises
        ------
        UsageError
            If the folder is a link, which may lead out of the run directory.
        """
        folder = self._newest(request)
        if folder is None or (folder / _DELIVERED).exists():
            return None
        if (folder / "requests.json").exists():
            return self._in_batch({"folder": f"{request.id}/{folder.name}", "place": 0}, request)
        if (folder / _BATCH).exists():
            try:
                return self._in_batch(read_json(folder, _BATCH, _LIMIT), request)
            except FileFault:
                return None
        return Place(folder, request.id)

    def prepare(self, request: Request) -> Path:
        """Return the name of a folder for an attempt that begins; what was there of one that did not begin is removed.

        An attempt whose program was started has another folder each time, ``attempt-<n>-2`` for instance.
        """
        newest = self._newest(request)
        if newest is None:
            return self.work / request.id / f"attempt-{request.attempt}"
        if (newest / _DELIVERED).exists() or (newest / BEGUN).exists():
            number = int(newest.name.split("-")[2]) if newest.name.count("-") > 1 else 1
            return newest.with_name(f"attempt-{request.attempt}-{number + 1}")
        shutil.rmtree(newest)
        return newest

    def token(self) -> str:
        """Return six digits that tell this run directory from another one of the same run id; made once."""
        path = self.work / ".token"
        _refuse_link(path)
        if not path.exists():
            write_whole(path, secrets.token_hex(3), durable=True)
        token = (read_file(self.work, path.name, 64) or b"").decode(errors="replace")
        if not _TOKEN.fullmatch(token):
            raise UsageError(f"{path} is damaged; it has six hexadecimal digits, a part of the names of jobs.")
        return token

    def make(self, folder: Path, files: Mapping[str, bytes], executable: Sequence[str] = ()) -> None:
        """Make a folder with these files; it appears whole, and is on the disk when this returns."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.parent / f".{folder.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for name, content in files.items():
            path = part / name
            path.write_bytes(content)
            path.chmod(0o700 if name in executable else 0o644)
        part.rename(folder)
        fsync_path(folder)
        fsync_path(folder.parent)

    def note_batch(self, requests: Sequence[Request], folder: Path) -> None:
        """Write in the folders of the later requests of a batch where they are answered."""
        for index, request in enumerate(requests[1:], start=1):
            where = {"folder": str(folder.relative_to(self.work)), "place": index}
            self.make(self.prepare(request), {_BATCH: json.dumps(where).encode()})

    def note_delivered(self, request: Request, *, remove: bool = False) -> None:
        """Write that the answer of an attempt was put; remove the folder instead if it is not to be kept.

        Where that can't be written, on a disk that is full for instance, a request that is opened again gets this
        answer once more.
        """
        folder = self._newest(request)
        if folder is None:
            return
        if remove:
            shutil.rmtree(folder, ignore_errors=True)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        else:
            _note(folder, _DELIVERED)

    def _newest(self, request: Request) -> Path | None:
        """Return the folder of an attempt that was made last."""
        of_request = self.work / request.id
        for path in (self.work, of_request):
            _refuse_link(path)
        name, number = f"attempt-{request.attempt}", 1
        if not (of_request / name).exists():
            return None
        while (of_request / f"{name}-{number + 1}").exists():
            number += 1
        folder = of_request / (name if number == 1 else f"{name}-{number}")
        _refuse_link(folder)
        return folder

    def _in_batch(self, where: Any, request: Request) -> Place | None:
        """Return the place in the folder of a batch; None where that has become another one's since."""
        try:
            if not _PLACE.fullmatch(where["folder"]) or type(where["place"]) is not int:
                return None
            shared = self.work / where["folder"]
            _refuse_link(shared.parent)
            asked = read_json(shared, "requests.json", _LIMIT)
            entry = asked[where["place"]]
            is_same = (entry["request"], entry["attempt"]) == (request.id, request.attempt)
            return Place(shared, request.id, where["place"], len(asked)) if is_same else None
        except (FileFault, LookupError, TypeError):
            return None


def write_done(folder: Path, ended: Ended) -> None:
    """Write the marker that an attempt is over; it appears whole.

    Where it can't be written, on a disk that is full for instance, the attempt counts as one whose end is not known if
    its answer isn't committed either.
    """
    _note(folder, DONE, json.dumps(ended._asdict()), durable=True)


def begin(folder: Path) -> None:
    """Write that the program of an attempt is about to be started; raise `OSError` where that can't be written."""
    (folder / BEGUN).touch(exist_ok=False)
    fsync_path(folder)


def note_interrupted(folder: Path) -> None:
    """Write that alcore has ended the program of an attempt, which may be started again, in another folder."""
    _note(folder, INTERRUPTED)


def is_cut_off(folder: Path) -> bool:
    """Return whether the program of an attempt was started, and it is not known how it ended."""
    return (folder / BEGUN).exists() and not (folder / INTERRUPTED).exists() and read_done(folder) is None


def read_done(folder: Path) -> Ended | None:
    """Return how the program of a folder ended; None where it has not, or what is there can't be read."""
    try:
        content = read_file(folder, DONE, 1 << 16)
        if content is None:
            return None
        done = parse_json(content)
        code, seconds = done["code"], float(done["seconds"])
        if not 0 <= seconds < math.inf:
            return None
        return Ended(None if code is None else int(code), seconds, bool(done["timed_out"]), str(done["reason"]))
    except (FileFault, ValueError, LookupError, TypeError, OverflowError):
        return None


def request_files(driver: RunContext, item: Item, seed: int) -> dict[str, bytes]:
    """Return the files that a program is given: ``request.json``, and ``input.npz`` where the input is an array."""
    files = {"request.json": _json(about(driver, item, seed))}
    if (arrays := _arrays(item)) is not None:
        files["input.npz"] = _npz(arrays)
    return files


def batch_files(driver: RunContext, items: Sequence[Item], seeds: Sequence[int]) -> dict[str, bytes]:
    """Return the files of a batch: ``requests.json``, a list, and ``input.npz`` with arrays of shape (N, ...)."""
    files = {"requests.json": _json([about(driver, item, seed) for item, seed in zip(items, seeds, strict=True)])}
    arrays = [_arrays(item) for item in items]
    present = [array for array in arrays if array is not None]
    if len(present) == len(items) and all(array.keys() == present[0].keys() for array in present):
        with contextlib.suppress(ValueError):  # inputs of several shapes; requests.json has the values
            files["input.npz"] = _npz({name: np.stack([array[name] for array in present]) for name in present[0]})
    return files


def about(driver: RunContext, item: Item, seed: int) -> dict[str, Any]:
    """Return what ``request.json`` says of a request."""
    request, values = item.request, item.named
    units = {name: unit for name, unit in units_of(driver.choice_pool).items() if name in values}
    return {
        "request": request.id,
        "run": driver.run_id,
        "step": request.step,
        "sample": item.sample,
        "attempt": request.attempt,
        "seed": seed,
        "values": {name: _jsonable(value) for name, value in values.items()},
        **({"units": units} if units else {}),
    }


def environment(driver: RunContext, folder: Path, request: Request, sample: int | None, seed: int) -> dict[str, str]:
    """Return the variables that tell a program what it works on."""
    return {
        "ALCORE_RUN": driver.run_id,
        "ALCORE_FOLDER": str(folder),
        "ALCORE_REQUEST": request.id,
        "ALCORE_STEP": str(request.step),
        "ALCORE_SAMPLE": "" if sample is None else str(sample),
        "ALCORE_ATTEMPT": str(request.attempt),
        "ALCORE_SEED": str(seed),
    }


def _note(folder: Path, name: str, text: str = "", *, durable: bool = False) -> None:
    """Write a file in the folder of a program, in place of a link if there is one, unless that can't be done."""
    with contextlib.suppress(OSError, UsageError):  # the disk is full, or a pipe has that name
        write_whole(folder / name, text, durable=durable)


def _arrays(item: Item) -> dict[str, Any] | None:
    """Return the arrays of an input by name; None where values by name say it all, or it has none."""
    if item.values:
        arrays = {name: value for name, value in item.values.items() if isinstance(value, np.ndarray)}
        return arrays or None
    if isinstance(item.input, np.ndarray):
        return {"input": item.input}
    if isinstance(item.input, list | tuple):
        return {f"input{place}": part for place, part in enumerate(item.input) if isinstance(part, np.ndarray)} or None
    return None


def _jsonable(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, default=str) + "\n").encode()


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()})
    return buffer.getvalue()


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UsageError(f"{path} is a symbolic link, which may lead out of the run directory; remove it.")
