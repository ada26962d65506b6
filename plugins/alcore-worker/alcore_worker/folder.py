"""The exchange in a folder that machines share: a task is a file, which is claimed by renaming it."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

from alcore.errors import UsageError
from alcore_worker.change_timer import ChangeTimer
from alcore_worker.exchange import AwayError, Claim, FullError
from alcore_worker.files import (
    FULL,
    check_folder,
    fault_of_folder,
    flush,
    make_folder,
    may,
    may_be_file,
    open_own,
    read,
    remove,
    remove_old,
    state_of,
    unlink,
    write,
    write_new,
)
from alcore_worker.names import (
    FORMAT,
    LARGEST_BLOB,
    LARGEST_DOCUMENT,
    DocumentError,
    blob_of,
    is_digest,
    is_run,
    is_task,
    is_worker,
    other_format,
)

_MARK = "alcore-exchange.txt"
_KINDS = ("waiting", "claimed", "answers", "blobs", "parts")
_WAITING = re.compile(r"(?P<task>[0-9a-f-]+)\.(?P<lost>[0-9]{1,6})\.json", re.ASCII)
_CLAIMED = re.compile(r"(?P<task>[0-9a-f-]+)\.(?P<lost>[0-9]{1,6})~(?P<worker>[A-Za-z0-9_-]+)\.json", re.ASCII)
_PART = re.compile(r"[0-9a-f]{16}|\.[0-9a-f]{16}\.part", re.ASCII)  # in a folder of such files, and beside others
_STAMP_AGAIN = 60.0  # seconds after which a file is written to know the time of files


class FolderExchange:
    """An exchange in a folder.

    ``runs/RUN/waiting/TASK.LOST.json`` is a task that waits, where LOST counts the workers that fell silent over it. A
    worker claims it by renaming it to ``claimed/TASK.LOST~WORKER.json``, and answers by ``answers/TASK.json``.
    Arrays are in ``blobs/SHA256.safetensors``. Each file is written whole under another name, in ``parts``. The
    file ``workers/WORKER`` holds a number that changes as long as the worker lives, and ``runs/RUN/driver`` one for the
    driver; nobody compares clocks of machines.

    Parameters
    ----------
    where
        The folder, which exists.

    Raises
    ------
    UsageError
        If it doesn't, can't be written to, or is of another format.
    """

    def __init__(self, where: str | Path) -> None:
        self._root = Path(where).expanduser().absolute()
        self.where = str(self._root)
        if not self._root.is_dir():
            raise UsageError(
                f"there is no folder {self._root} for workers; make it (mkdir), on a disk that the run and its workers "
                "share, and give the same folder to both."
            )
        try:
            for kind in ("runs", "workers"):
                make_folder(self._root / kind)
            self._check_format()
        except OSError as error:
            raise UsageError(
                f"{self._root} can't be used by workers: {error.strerror or error}. Give a folder that the run and its "
                "workers can write to."
            ) from error
        except DocumentError as error:
            raise UsageError(f"{error}.") from error
        self._unchanged = ChangeTimer()
        self._held: set[tuple[str, str]] = set()  # runs and tokens of the claims that this worker knows of
        self._stamped = 0.0, -math.inf  # the time of a file that was written, and when that was by this process's clock
        self._lock = threading.Lock()  # of claims: another thread is not to find what is being claimed or given back

    def _check_format(self) -> None:
        mark = self._root / _MARK
        if not os.path.lexists(mark):
            with contextlib.suppress(FileExistsError):
                write_new(self._probe(), str(mark), f"{FORMAT}\n".encode())
                flush(self._root)
        try:
            format_found = read(mark, 100).decode(errors="replace").strip()
        except DocumentError as error:
            raise DocumentError(
                f"{error}, and not what workers write there; remove it, or use another folder"
            ) from error
        if format_found != str(FORMAT):
            raise UsageError(other_format(f"the folder {self._root}", format_found))

    # -- the driver's side -----------------------------------------------------------------------------

    def begin(self, run: str, note: bytes) -> None:
        """Make a run known, or change its note."""
        with _away(self.where):
            if not is_run(run):
                raise DocumentError(f"{run!r:.80} can't be the name of a run")
            make_folder(self._top("runs") / run)
            for kind in _KINDS:
                make_folder(self._root / "runs" / run / kind)
            remove_old(self._folder(run, "parts"), _PART.fullmatch)
            remove_old(self._root, _PART.fullmatch)
            remove_old(self._top("workers"), is_worker)
            target = self._root / "runs" / run / "note.json"
            with contextlib.suppress(FileNotFoundError, DocumentError):
                if read(target, 1000) == note:
                    return
            part = self._part(run)
            write(part, note, durable=True)
            part.rename(target)
            flush(target.parent)

    def attend(self, run: str) -> None:
        """Say that the run's driver lives; `AwayError` where a part of its folder is gone: `begin` makes it again."""
        with _away(self.where):
            for kind in _KINDS:
                self._folder(run, kind)
            os.lstat(self._root / "runs" / run / "note.json")
            self._change(self._root / "runs" / run / "driver")

    def put(self, run: str, tasks: Mapping[str, bytes]) -> None:
        """Add tasks, by name; those that are known are left as they are. `FullError` where there is no room."""
        with _away(self.where):
            folder, tasks_known = self._folder(run, "waiting"), self.known(run)
            for name in [task for task in tasks if task not in tasks_known]:
                with contextlib.suppress(FileExistsError):
                    write_new(self._part(run), f"{folder}/{name}.0.json", tasks[name])
            flush(folder)

    def known(self, run: str) -> set[str]:
        """Return the names of the tasks that wait, are claimed, or are answered."""
        with _away(self.where):
            names: set[str] = set()
            # a task moves on while this looks, or is given back once
            for kind in ("waiting", "claimed", "answers", "waiting"):
                names.update(task for task, _ in self._tasks(run, kind))
            return names

    def answered(self, run: str) -> list[str]:
        """Return the names of the tasks that have an answer."""
        with _away(self.where):
            return sorted(task for task, _ in self._tasks(run, "answers"))

    def read_answer(self, run: str, name: str) -> bytes:
        """Return an answer; it is empty where it can't be read."""
        with _away(self.where):
            try:
                return read(self._folder(run, "answers") / f"{name}.json", LARGEST_DOCUMENT)
            except (FileNotFoundError, DocumentError):
                return b""

    def remove(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks with their answers: the driver has committed these."""
        gone = set(names)
        if not gone:
            return
        with _away(self.where):
            self._remove_tasks(run, gone)
            answers = self._folder(run, "answers")
            for name in sorted(gone):  # the answer last: until then the task is known
                self._remove_one(run, f"{answers}/{name}.json")

    def give_up(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks that nobody is to work on any more; an answer that is there, or comes late, stays."""
        with _away(self.where):
            self._remove_tasks(run, set(names))

    def _remove_tasks(self, run: str, names: Set[str]) -> None:
        """Remove tasks that wait or are claimed, as one does that is answered by a worker that was thought dead."""
        for kind in ("waiting", "claimed", "waiting"):  # one may be given back meanwhile
            folder = self._folder(run, kind)
            for file in os.listdir(folder):  # noqa: PTH208
                if file.split(".")[0] in names:
                    self._remove_one(run, f"{folder}/{file}")

    def _remove_one(self, run: str, path: str) -> None:
        """Remove a document with its arrays, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._remove_blob(run, self._blob_at(path))
        unlink(path)

    def _blob_at(self, path: str) -> str | None:
        with contextlib.suppress(DocumentError):
            return blob_of(read(Path(path), LARGEST_DOCUMENT))
        return None

    def withdraw(self, run: str, names: Iterable[str] | None = None) -> set[str]:
        """Remove tasks that wait, of these names or all: nobody is to begin them any more. Return which they were."""
        wanted, gone = None if names is None else set(names), set()
        with _away(self.where):
            folder = self._folder(run, "waiting")
            for task, file in list(self._tasks(run, "waiting")):
                if wanted is None or task in wanted:
                    with contextlib.suppress(FileNotFoundError):  # a worker has claimed it meanwhile
                        digest = self._blob_at(f"{folder}/{file}")
                        remove(f"{folder}/{file}")
                        self._remove_blob(run, digest)
                        gone.add(task)
        return gone

    def take_back(self, run: str, silent_after: float, most_lost: int) -> list[str]:
        """Let tasks wait again whose workers have been silent for so many seconds; return those given up."""
        given_up = []
        with _away(self.where):
            answered = {task for task, _ in self._tasks(run, "answers")}
            claimed, waiting = self._folder(run, "claimed"), self._folder(run, "waiting")
            silent: dict[str, bool] = {}
            for task, file in list(self._tasks(run, "claimed")):
                parts = _CLAIMED.fullmatch(file)
                if parts is None or task in answered:
                    continue
                worker = parts["worker"]
                if worker not in silent:
                    silent[worker] = self._is_silent(worker, silent_after)
                if not silent[worker]:
                    continue
                lost = int(parts["lost"]) + 1
                if lost >= most_lost:
                    given_up.append(task)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    (claimed / file).rename(waiting / f"{task}.{lost}.json")
            for worker in silent:  # if it lives after all, it writes the file again
                if silent[worker] and is_worker(worker):
                    unlink(str(self._top("workers") / worker))
        return given_up

    def workers(self, silent_after: float) -> int:
        """Return how many workers were heard of in so many seconds."""
        with _away(self.where):
            names = [name for name in os.listdir(self._top("workers")) if is_worker(name)]  # noqa: PTH208
            return sum(not self._is_silent(name, silent_after) for name in names)

    def _is_silent(self, worker: str, silent_after: float) -> bool:
        """Return whether what a worker writes has not changed for so many seconds of this process."""
        return self._unchanged.unchanged(worker, state_of(self._top("workers") / worker)) > silent_after

    # -- the worker's side -----------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """Return the runs that are known."""
        with _away(self.where):
            names = sorted(os.listdir(self._top("runs")))  # noqa: PTH208
            return [name for name in names if is_run(name) and may_be_file(self._root / "runs" / name / "note.json")]

    def fault_of(self, run: str) -> str | None:
        """Return why a run that is known can't be served, though the disk can be reached; None where it can.

        Its folder may be incomplete, after a copy or `rm -r` that was cut off, or belong to somebody else.
        """
        with _away(self.where):
            folder = self._top("runs") / run
            if not os.path.lexists(folder):
                return None
            parts = [folder, *(folder / kind for kind in _KINDS)]
            faults = (fault_of_folder(part) for part in parts)
            fault = next((fault for fault in faults if fault is not None), None)
            if fault is None and not may(folder / "note.json", os.R_OK):
                fault = f"{folder / 'note.json'} may not be read by this user"
            return fault

    def is_attended(self, run: str, within: float) -> bool:
        """Return whether the run's driver was heard of in so many seconds, of the clock that stamps the files."""
        with _away(self.where):
            driver = state_of(self._root / "runs" / run / "driver")
            if driver is None:
                return False
            return self._time_of_files() - driver[1] / 1e9 < within

    def _time_of_files(self) -> float:
        """Return the time now, of the clock that stamps the files: the disk's, and not that of this machine."""
        written, at = self._stamped
        if time.monotonic() - at > _STAMP_AGAIN:
            probe = self._probe()
            try:
                write(probe, b"", durable=False)
                written, at = self._stamped = probe.stat().st_mtime, time.monotonic()
            finally:
                probe.unlink(missing_ok=True)
        return written + time.monotonic() - at

    def note(self, run: str) -> bytes:
        """Return what was noted about a run."""
        with _away(self.where):
            self._folder(run, "waiting")
            return read(self._root / "runs" / run / "note.json", 1000)

    def waiting(self, run: str) -> int:
        """Return about how many tasks wait."""
        with _away(self.where):
            return sum(1 for _ in self._tasks(run, "waiting"))

    def claim(self, run: str, worker: str) -> Claim | None:
        """Take the oldest task that waits; None where none does."""
        with self._lock, _away(self.where):
            waiting, claimed = self._folder(run, "waiting"), self._folder(run, "claimed")
            for file in self._claims_of(run, worker):
                if (run, file) not in self._held and (claim := self._begin_claim(run, file)) is not None:
                    return claim
            for _, file in self._tasks(run, "waiting"):
                token = f"{file.removesuffix('.json')}~{worker}.json"
                try:
                    (waiting / file).rename(claimed / token)
                except FileNotFoundError:  # another worker was first
                    if not os.path.lexists(claimed / token):  # NFS may report so where a message was repeated
                        continue
                if (claim := self._begin_claim(run, token)) is not None:
                    return claim
            return None

    def _claims_of(self, run: str, worker: str) -> list[str]:
        """Return the files of the tasks that a worker has claimed."""
        parts = [_CLAIMED.fullmatch(file) for _, file in self._tasks(run, "claimed")]
        return sorted(part[0] for part in parts if part is not None and part["worker"] == worker)

    def _begin_claim(self, run: str, token: str) -> Claim | None:
        """Return the claim of which the file has this name; None where nothing is to be done."""
        path, name = self._folder(run, "claimed") / token, token.split(".")[0]
        if os.path.lexists(self._folder(run, "answers") / f"{name}.json"):  # by a worker that was thought dead
            unlink(str(path))
            return None
        try:
            claim = Claim(name, token, read(path, LARGEST_DOCUMENT))
        except FileNotFoundError:  # removed by the driver meanwhile
            return None
        except DocumentError as error:
            claim = Claim(name, token, b"", str(error))
        self._held.add((run, token))
        return claim

    def beat(self, worker: str) -> None:
        """Say that a worker lives, and with it all of its claims; also where the disk is full."""
        if not is_worker(worker):
            raise ValueError(f"{worker!r} can't be the name of a worker")
        with _away(self.where):
            self._change(self._top("workers") / worker)

    def _change(self, path: Path) -> None:
        """Change the number in a file, in its place; on a full disk, the time of the file alone."""
        descriptor = open_own(path)
        try:
            os.pwrite(descriptor, f"{os.getpid():010d} {time.monotonic_ns():020d}\n".encode(), 0)
        except OSError as error:
            if error.errno not in FULL:
                raise
            os.utime(descriptor)
        finally:
            os.close(descriptor)

    def answer(self, run: str, claim: Claim, document: bytes) -> None:
        """Answer a task; an answer that is there already stays. It is durable when this returns."""
        with _away(self.where):
            folder = self._folder(run, "answers")
            path = f"{folder}/{claim.name}.json"
            try:
                write_new(self._part(run), path, document)
            except FileExistsError:
                self._remove_blob_of_second_answer(run, path, document)
            flush(folder)
            self._remove_blob(run, blob_of(claim.document))
            unlink(f"{self._folder(run, 'claimed')}/{claim.token}")
            self._held.discard((run, claim.token))

    def _remove_blob_of_second_answer(self, run: str, first: str, document: bytes) -> None:
        digest = blob_of(document)
        with contextlib.suppress(DocumentError, FileNotFoundError):
            if digest != blob_of(read(Path(first), LARGEST_DOCUMENT)):
                self._remove_blob(run, digest)

    def _remove_blob(self, run: str, digest: str | None) -> None:
        if digest is not None:
            unlink(f"{self._folder(run, 'blobs')}/{digest}.safetensors")

    def give_back(self, run: str, claim: Claim) -> None:
        """Let a claimed task wait again."""
        with self._lock, _away(self.where):
            self._held.discard((run, claim.token))  # first: if this fails, it is claimed again
            self._give_back(run, claim.token)

    def _give_back(self, run: str, token: str) -> None:
        claimed, waiting = self._folder(run, "claimed"), self._folder(run, "waiting")
        with contextlib.suppress(FileNotFoundError):
            (claimed / token).rename(waiting / f"{token.partition('~')[0]}.json")

    def leave(self, worker: str) -> None:
        """Say that a worker has ended; what it has claimed waits again."""
        with _away(self.where):
            for run in self.runs():
                try:
                    for token in self._claims_of(run, worker):
                        self._give_back(run, token)
                except (OSError, AwayError, DocumentError):
                    if self.fault_of(run) is None:
                        raise
            (self._top("workers") / worker).unlink(missing_ok=True)

    # -- both ------------------------------------------------------------------------------------------

    def put_blob(self, run: str, content: bytes) -> str:
        """Store the arrays of a document; return their SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        with _away(self.where), contextlib.suppress(FileExistsError):
            folder = self._folder(run, "blobs")
            write_new(self._part(run), f"{folder}/{digest}.safetensors", content)
            flush(folder)
        return digest

    def get_blob(self, run: str, digest: str) -> bytes:
        """Return the arrays of this SHA-256; `DocumentError` if they are not there."""
        if not is_digest(digest):
            raise DocumentError(f"{digest!r:.80} is not a SHA-256")
        with _away(self.where):
            try:
                return read(self._folder(run, "blobs") / f"{digest}.safetensors", LARGEST_BLOB)
            except FileNotFoundError:
                raise DocumentError(f"its arrays {digest[:12]} are not there") from None

    # -- names and files -------------------------------------------------------------------------------

    def _tasks(self, run: str, kind: str) -> Iterator[tuple[str, str]]:
        """Yield the tasks in a folder, the oldest first, with their files; what has another name is left alone."""
        for file in sorted(os.listdir(self._folder(run, kind))):  # noqa: PTH208
            if kind == "answers":
                task = file.removesuffix(".json")
            else:
                parts = (_WAITING if kind == "waiting" else _CLAIMED).fullmatch(file)
                task = parts["task"] if parts else ""
            if is_task(task):
                yield task, file

    def _folder(self, run: str, kind: str) -> Path:
        if not is_run(run):
            raise DocumentError(f"{run!r:.80} can't be the name of a run")
        folder = self._top("runs") / run
        check_folder(folder)
        check_folder(folder / kind)
        return folder / kind

    def _top(self, kind: str) -> Path:
        """Return the folder of all runs, or of the workers; `UsageError` where it is none any more."""
        folder = self._root / kind
        try:
            check_folder(folder)
        except DocumentError as error:
            raise UsageError(f"{error}.") from error
        return folder

    def _probe(self) -> Path:
        return self._root / f".{secrets.token_hex(8)}.part"

    def _part(self, run: str) -> Path:
        return self._folder(run, "parts") / secrets.token_hex(8)


@contextlib.contextmanager
def _away(where: str) -> Iterator[None]:
    """Raise `AwayError` for a disk that fails, is full, or can't be reached."""
    try:
        yield
    except OSError as error:
        kind = FullError if error.errno in FULL else AwayError
        raise kind(f"{where}: {error.strerror or error}") from error
