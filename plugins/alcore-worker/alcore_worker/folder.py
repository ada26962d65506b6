"""The exchange in a folder that machines share: a task is a file, which is claimed by renaming it."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from alcore.errors import UsageError
from alcore_worker.documents import (
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
from alcore_worker.exchange import AwayError, Claim

_MARK = "alcore-exchange.txt"
_KINDS = ("waiting", "claimed", "answers", "blobs", "parts")
_WAITING = re.compile(r"(?P<task>[0-9a-f-]+)\.(?P<lost>[0-9]{1,6})\.json", re.ASCII)
_CLAIMED = re.compile(r"(?P<task>[0-9a-f-]+)\.(?P<lost>[0-9]{1,6})~(?P<worker>[A-Za-z0-9_-]+)\.json", re.ASCII)
_OLD = 86400.0  # seconds after which an unfinished file is removed


class FolderExchange:
    """An exchange in a folder.

    ``runs/RUN/waiting/TASK.LOST.json`` is a task that waits, where LOST counts the workers that fell silent over it. A
    worker claims it by renaming it to ``claimed/TASK.LOST~WORKER.json``, and answers by ``answers/TASK.json``. Arrays
    are in ``blobs/SHA256.safetensors``. Each file is written whole under another name, in ``parts``. The file
    ``workers/WORKER`` holds a number that changes as long as the worker lives; nobody compares clocks.

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
            for folder in (self._root / "runs", self._root / "workers"):
                folder.mkdir(exist_ok=True)
            self._check_format()
        except OSError as error:
            raise UsageError(
                f"{self._root} can't be used by workers: {error.strerror or error}. Give a folder that the run and its "
                "workers can write to."
            ) from error
        self._ahead: dict[str, collections.deque[str]] = {}  # names that waited when a worker last looked, by run
        self._beats: dict[str, tuple[bytes | None, float]] = {}  # what a worker wrote last, and since when it is so
        self._held: set[str] = set()  # tokens of the claims that this worker knows of
        self._fell_over = (
            False  # whether the disk failed while it claimed, so that it may have one that it doesn't know
        )
        self._count = 0
        self._lock = threading.Lock()

    def _check_format(self) -> None:
        mark = self._root / _MARK
        if not os.path.lexists(mark):
            with contextlib.suppress(FileExistsError):
                _write_new(self._root / f".{secrets.token_hex(8)}.part", mark, f"{FORMAT}\n".encode())
        found = _read(mark, 100).decode(errors="replace").strip()
        if found != str(FORMAT):
            raise UsageError(other_format(f"the folder {self._root}", found))

    # -- the driver's side -----------------------------------------------------------------------------

    def begin(self, run: str, note: bytes) -> None:
        """Make a run known."""
        with _away(self.where):
            self._check_folder(self._root / "runs")
            (self._root / "runs" / run).mkdir(exist_ok=True)
            for kind in _KINDS:
                (self._root / "runs" / run / kind).mkdir(exist_ok=True)
            self._remove_old_parts(run)
            with contextlib.suppress(FileExistsError):
                _write_new(self._part(run), self._root / "runs" / run / "note.json", note)

    def put(self, run: str, tasks: Mapping[str, bytes]) -> None:
        """Add tasks, by name; those that are known are left as they are."""
        known = self.known(run)
        with _away(self.where):
            folder = self._folder(run, "waiting")
            for name, document in tasks.items():
                if name not in known:
                    with contextlib.suppress(FileExistsError):
                        _write_new(self._part(run), folder / f"{name}.0.json", document, flush_folder=False)
            _flush(folder)

    def known(self, run: str) -> set[str]:
        """Return the names of the tasks that wait, are claimed, or are answered."""
        with _away(self.where):
            found: set[str] = set()
            # a task moves on while this looks, or is given back once
            for kind in ("waiting", "claimed", "answers", "waiting"):
                found.update(task for task, _ in self._tasks(run, kind))
            return found

    def answered(self, run: str) -> list[str]:
        """Return the names of the tasks that have an answer."""
        with _away(self.where):
            return sorted(task for task, _ in self._tasks(run, "answers"))

    def read_answer(self, run: str, name: str) -> bytes:
        """Return an answer."""
        with _away(self.where):
            try:
                return _read(self._folder(run, "answers") / f"{name}.json", LARGEST_DOCUMENT)
            except FileNotFoundError:
                raise DocumentError("it was removed") from None

    def remove(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks with their answers: the driver has committed these."""
        gone = set(names)
        if not gone:
            return
        with _away(self.where):
            for kind in ("waiting", "claimed", "answers"):  # the answer last: until then the task is known
                for task, file in list(self._tasks(run, kind)):
                    if task in gone:
                        self._remove_one(run, self._folder(run, kind) / file)

    def _remove_one(self, run: str, path: Path) -> None:
        with contextlib.suppress(DocumentError, FileNotFoundError):
            self._remove_blob(run, blob_of(_read(path, LARGEST_DOCUMENT)))
        _unlink(path)

    def take_back(self, run: str, silent_after: float, most_lost: int) -> list[str]:
        """Let tasks wait again whose workers have been silent for so many seconds; return those given up."""
        given_up = []
        with _away(self.where):
            answered = {task for task, _ in self._tasks(run, "answers")}
            claimed, waiting = self._folder(run, "claimed"), self._folder(run, "waiting")
            silent = set()
            for task, file in list(self._tasks(run, "claimed")):
                parts = _CLAIMED.fullmatch(file)
                if parts is None or task in answered or not self._is_silent(parts["worker"], silent_after):
                    continue
                lost = int(parts["lost"]) + 1
                if lost >= most_lost:
                    given_up.append(task)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    (claimed / file).rename(waiting / f"{task}.{lost}.json")
                silent.add(parts["worker"])
            for worker in silent:  # if it lives after all, it writes the file again
                (self._root / "workers" / worker).unlink(missing_ok=True)
        return given_up

    def workers(self, silent_after: float) -> int:
        """Return how many workers were heard of in so many seconds."""
        with _away(self.where):
            names = [one for one in os.listdir(self._root / "workers") if is_worker(one)]  # noqa: PTH208
            return sum(not self._is_silent(one, silent_after) for one in names)

    def _is_silent(self, worker: str, silent_after: float) -> bool:
        """Tell whether what a worker writes has not changed for so many seconds of this process."""
        try:
            said: bytes | None = _read(self._root / "workers" / worker, 100)
        except (FileNotFoundError, DocumentError):
            said = None
        before, since = self._beats.get(worker, (b"", 0.0))
        if worker not in self._beats or before != said:
            since = time.monotonic()
            self._beats[worker] = (said, since)
        return time.monotonic() - since > silent_after

    # -- the worker's side -----------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """Return the runs that are known."""
        with _away(self.where):
            names = sorted(os.listdir(self._root / "runs"))  # noqa: PTH208
            return [one for one in names if is_run(one) and (self._root / "runs" / one / "note.json").is_file()]

    def note(self, run: str) -> bytes:
        """Return what was noted about a run."""
        with _away(self.where):
            self._folder(run, "waiting")
            return _read(self._root / "runs" / run / "note.json", 1000)

    def waiting(self, run: str) -> int:
        """Return about how many tasks wait."""
        with _away(self.where):
            return sum(1 for _ in self._tasks(run, "waiting"))

    def claim(self, run: str, worker: str, most: int) -> list[Claim]:
        """Take up to so many tasks, the oldest first."""
        found: list[Claim] = []
        with self._lock, _away(self.where):
            ahead = self._ahead.setdefault(run, collections.deque())
            looked, fell_over, self._fell_over = False, self._fell_over, True
            if fell_over:
                for _, file in list(self._tasks(run, "claimed")):
                    parts = _CLAIMED.fullmatch(file)
                    if parts is not None and parts["worker"] == worker and file not in self._held:
                        found.append(self._claimed(run, parts["task"], file))
            while len(found) < most:
                if not ahead:
                    if looked:
                        break
                    looked = True
                    ahead.extend(sorted(file for _, file in self._tasks(run, "waiting")))
                    continue
                claim = self._claim_one(run, worker, ahead.popleft())
                if claim is not None:
                    found.append(claim)
            self._fell_over = False
            self._held.update(one.token for one in found)
        return found

    def _claim_one(self, run: str, worker: str, file: str) -> Claim | None:
        token = f"{file.removesuffix('.json')}~{worker}.json"
        target = self._folder(run, "claimed") / token
        try:
            (self._folder(run, "waiting") / file).rename(target)
        except FileNotFoundError:
            if not os.path.lexists(target):  # NFS may report so where it was renamed, after a message was repeated
                return None
        name = file.split(".")[0]
        if os.path.lexists(self._folder(run, "answers") / f"{name}.json"):  # by a worker that was thought dead
            _unlink(target)
            return None
        try:
            return self._claimed(run, name, token)
        except FileNotFoundError:  # removed by the driver meanwhile
            return None

    def _claimed(self, run: str, name: str, token: str) -> Claim:
        try:
            return Claim(name, token, _read(self._folder(run, "claimed") / token, LARGEST_DOCUMENT))
        except DocumentError as error:
            return Claim(name, token, b"", str(error))

    def beat(self, worker: str) -> None:
        """Say that a worker lives, and with it all of its claims."""
        with self._lock, _away(self.where):
            self._count += 1
            part = self._root / "workers" / f".{worker}.part"
            part.unlink(missing_ok=True)
            _write(part, f"{self._count}\n".encode(), durable=False)
            part.rename(self._root / "workers" / worker)

    def answer(self, run: str, claim: Claim, document: bytes) -> None:
        """Answer a task; an answer that is there already stays. It is durable when this returns."""
        with _away(self.where):
            answer = self._folder(run, "answers") / f"{claim.name}.json"
            try:
                _write_new(self._part(run), answer, document)
            except FileExistsError:
                self._remove_blob_of_second_answer(run, answer, document)
            self._remove_blob(run, blob_of(claim.document))
            _unlink(self._folder(run, "claimed") / claim.token)
            self._held.discard(claim.token)

    def _remove_blob_of_second_answer(self, run: str, first: Path, document: bytes) -> None:
        digest = blob_of(document)
        with contextlib.suppress(DocumentError, FileNotFoundError):
            if digest != blob_of(_read(first, LARGEST_DOCUMENT)):
                self._remove_blob(run, digest)

    def _remove_blob(self, run: str, digest: str | None) -> None:
        if digest is not None:
            _unlink(self._folder(run, "blobs") / f"{digest}.safetensors")

    def give_back(self, run: str, claim: Claim) -> None:
        """Let a claimed task wait again."""
        with _away(self.where), contextlib.suppress(FileNotFoundError):
            file = f"{claim.token.partition('~')[0]}.json"
            self._held.discard(claim.token)
            (self._folder(run, "claimed") / claim.token).rename(self._folder(run, "waiting") / file)

    def leave(self, worker: str) -> None:
        """Say that a worker has ended; what it had claimed without knowing it, when it was interrupted, waits again."""
        with _away(self.where):
            for run in self.runs():
                for task, file in list(self._tasks(run, "claimed")):
                    parts = _CLAIMED.fullmatch(file)
                    if parts is not None and parts["worker"] == worker:
                        self.give_back(run, Claim(task, file, b""))
            (self._root / "workers" / worker).unlink(missing_ok=True)

    # -- both ------------------------------------------------------------------------------------------

    def put_blob(self, run: str, content: bytes) -> str:
        """Store the arrays of a document; return their SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        with _away(self.where), contextlib.suppress(FileExistsError):
            _write_new(self._part(run), self._folder(run, "blobs") / f"{digest}.safetensors", content)
        return digest

    def get_blob(self, run: str, digest: str) -> bytes:
        """Return the arrays of this SHA-256; `DocumentError` if they are not there."""
        if not is_digest(digest):
            raise DocumentError(f"{digest!r:.80} is not a SHA-256")
        with _away(self.where):
            try:
                return _read(self._folder(run, "blobs") / f"{digest}.safetensors", LARGEST_BLOB)
            except FileNotFoundError:
                raise DocumentError(f"its arrays {digest[:12]} are not there") from None

    # -- names and files -------------------------------------------------------------------------------

    def _tasks(self, run: str, kind: str) -> Iterator[tuple[str, str]]:
        """Yield the tasks in a folder with the names of their files; what has another name is left alone."""
        for file in os.listdir(self._folder(run, kind)):  # noqa: PTH208
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
        folder = self._root / "runs" / run
        self._check_folder(folder)
        self._check_folder(folder / kind)
        return folder / kind

    def _check_folder(self, folder: Path) -> None:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise UsageError(
                f"{folder} is not a folder but a link or something else, which is not followed; remove it, or use "
                "another folder for workers."
            )

    def _part(self, run: str) -> Path:
        return self._folder(run, "parts") / secrets.token_hex(8)

    def _remove_old_parts(self, run: str) -> None:
        """Remove what processes left that were killed while they wrote."""
        for entry in os.scandir(self._folder(run, "parts")):
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < time.time() - _OLD:
                    Path(entry.path).unlink()


@contextlib.contextmanager
def _away(where: str) -> Iterator[None]:
    """Raise `AwayError` for a disk that fails, is full, or can't be reached."""
    try:
        yield
    except OSError as error:
        raise AwayError(f"{where}: {error.strerror or error}") from error


def _write_new(part: Path, target: Path, content: bytes, *, flush_folder: bool = True) -> None:
    """Write a file that is durable, and whole when it has its name; `FileExistsError` if another one has it."""
    _write(part, content, durable=True)
    try:
        try:
            os.link(part, target, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(target):
                raise FileExistsError(target) from None
            part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    if flush_folder:
        _flush(target.parent)


def _write(path: Path, content: bytes, *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: Path) -> None:
    """Remove a file; a folder in its place is moved out of the way, into the name of a file that nobody reads."""
    try:
        path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise
        path.rename(path.with_name(f"folder-{secrets.token_hex(8)}"))


def _read(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most so many bytes; links are not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise DocumentError(f"{path} is a link, which is not followed") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DocumentError(f"{path} is not a regular file")
        if status.st_size > most:
            raise DocumentError(f"{path} has {status.st_size} bytes; {most} is the most")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(most + 1)
    finally:
        os.close(descriptor)
