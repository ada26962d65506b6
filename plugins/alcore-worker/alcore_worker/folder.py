"""The exchange in a folder that machines share: a task is a file, which is claimed by renaming it."""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import math
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from alcore.errors import UsageError
from alcore_worker.exchange import AwayError, Claim, FullError
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
from alcore_worker.watch import Watch

_MARK = "alcore-exchange.txt"
_KINDS = ("waiting", "claimed", "answers", "blobs", "parts")
_WAITING = re.compile(r"(?P<task>[0-9a-f-]+)\.(?P<lost>[0-9]{1,6})\.json", re.ASCII)
_CLAIMED = re.compile(r"(?P<task>[0-9a-f-]+)\.(?P<lost>[0-9]{1,6})~(?P<worker>[A-Za-z0-9_-]+)\.json", re.ASCII)
_PART = re.compile(r"[0-9a-f]{16}|\.[0-9a-f]{16}\.part", re.ASCII)  # in a folder of such files, and beside others
_OLD = 86400.0  # seconds after which an unfinished file is removed, and that of a worker that says nothing
_IN_ONE_FILE, _BYTES_IN_ONE_FILE = 256, 2**20  # documents that are written together
_LARGEST_FILE = LARGEST_DOCUMENT + _BYTES_IN_ONE_FILE
_PASSED = 64  # tasks that are passed over at most, after one that somebody else has claimed
_STAMP_AGAIN = 60.0  # seconds after which a file is written to know the time of files
_FULL = {errno.ENOSPC, errno.EDQUOT}


class FolderExchange:
    """An exchange in a folder.

    ``runs/RUN/waiting/TASK.LOST.json`` is a task that waits, where LOST counts the workers that fell silent over it. A
    worker claims it by renaming it to ``claimed/TASK.LOST~WORKER.json``, and answers by ``answers/TASK.json``. Tasks or
    answers that are there at once are lines of one file, of which each name is a hard link, and which is flushed once.
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
                _make_folder(self._root / kind)
            self._check_format()
        except OSError as error:
            raise UsageError(
                f"{self._root} can't be used by workers: {error.strerror or error}. Give a folder that the run and its "
                "workers can write to."
            ) from error
        except DocumentError as error:
            raise UsageError(f"{error}.") from error
        self._ahead: dict[str, collections.deque[str]] = {}  # names that waited when a worker last looked, by run
        self._watch = Watch()
        self._bundles = _Bundles()
        self._held: set[tuple[str, str]] = set()  # runs and tokens of the claims that this worker knows of
        self._fell_over: set[str] = set()  # runs where a claim failed, so that there may be one that is not known here
        self._lost: dict[str, set[str]] = {}  # the counts of lost workers that names may have, by run
        self._blobs_of_answers: dict[str, str | None] = {}  # of those that were read, and not removed yet
        self._stamped = 0.0, -math.inf  # the time of a file that was written, and when that was by this process's clock
        self._count = 0
        self._lock = threading.Lock()

    def _check_format(self) -> None:
        mark = self._root / _MARK
        if not os.path.lexists(mark):
            with contextlib.suppress(FileExistsError):
                _write_new(self._probe(), str(mark), f"{FORMAT}\n".encode())
                _flush(self._root)
        try:
            found = _read(mark, 100).decode(errors="replace").strip()
        except DocumentError as error:
            raise DocumentError(
                f"{error}, and not what workers write there; remove it, or use another folder"
            ) from error
        if found != str(FORMAT):
            raise UsageError(other_format(f"the folder {self._root}", found))

    # -- the driver's side -----------------------------------------------------------------------------

    def begin(self, run: str, note: bytes) -> None:
        """Make a run known, or change its note."""
        with _away(self.where):
            if not is_run(run):
                raise DocumentError(f"{run!r:.80} can't be the name of a run")
            _make_folder(self._top("runs") / run)
            for kind in _KINDS:
                _make_folder(self._root / "runs" / run / kind)
            _remove_old(self._folder(run, "parts"), _PART.fullmatch)
            _remove_old(self._root, _PART.fullmatch)
            _remove_old(self._top("workers"), is_worker)
            target = self._root / "runs" / run / "note.json"
            with contextlib.suppress(FileNotFoundError, DocumentError):
                if _read(target, 1000) == note:
                    return
            part = self._part(run)
            _write(part, note, durable=True)
            part.rename(target)
            _flush(target.parent)

    def attend(self, run: str) -> None:
        """Say that the run's driver lives; `AwayError` where a part of its folder is gone: `begin` makes it again."""
        with _away(self.where):
            for kind in _KINDS:
                self._folder(run, kind)
            os.lstat(self._root / "runs" / run / "note.json")
            self._count_up(self._root / "runs" / run / "driver")

    def put(self, run: str, tasks: Mapping[str, bytes]) -> None:
        """Add tasks, by name; those that are known are left as they are. `FullError` where there is no room."""
        with _away(self.where):
            waiting, answers = self._folder(run, "waiting"), self._folder(run, "answers")
            # looked for in the order in which a task moves, which workers do meanwhile
            lost = self._lost_counts(run)
            new = {one for one in tasks if not any(os.path.lexists(f"{waiting}/{one}.{n}.json") for n in lost)}
            new -= {task for task, _ in self._tasks(run, "claimed")}
            new -= {one for one in new if os.path.lexists(f"{answers}/{one}.json")}
            documents = {name: document for name, document in tasks.items() if name in new}
            self._write_documents(run, waiting, documents, lambda name: f"{name}.0.json")

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

    def read_answers(self, run: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return answers by name; one that can't be read is empty."""
        found = {}
        with _away(self.where):
            folder = self._folder(run, "answers")
            for name in names:
                try:
                    found[name] = self._bundles.read(f"{folder}/{name}.json", name)
                    self._blobs_of_answers[name] = blob_of(found[name])
                except (FileNotFoundError, DocumentError):
                    found[name] = b""
        return found

    def remove(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks with their answers: the driver has committed these."""
        gone = set(names)
        if not gone:
            return
        with _away(self.where):
            self._remove_tasks(run, gone)
            answers = self._folder(run, "answers")
            for name in sorted(gone):  # the answer last: until then the task is known
                if name in self._blobs_of_answers:
                    self._remove_blob(run, self._blobs_of_answers.pop(name))
                    _unlink(f"{answers}/{name}.json")
                else:
                    self._remove_one(run, f"{answers}/{name}.json", name)

    def give_up(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks that nobody is to work on any more; an answer that is there, or comes late, stays."""
        with _away(self.where):
            self._remove_tasks(run, set(names))

    def _remove_tasks(self, run: str, names: Set[str]) -> None:
        """Remove tasks that wait or are claimed, as one does that is answered by a worker that was thought dead."""
        waiting, claimed = self._folder(run, "waiting"), self._folder(run, "claimed")
        paths = [(name, f"{waiting}/{name}.{lost}.json") for name in names for lost in self._lost_counts(run)]
        for name, path in paths:
            self._remove_one(run, path, name)
        for task, file in list(self._tasks(run, "claimed")):
            if task in names:
                self._remove_one(run, f"{claimed}/{file}", task)
        for name, path in paths:  # one may have been given back since
            self._remove_one(run, path, name)

    def _remove_one(self, run: str, path: str, name: str) -> None:
        if os.path.lexists(path):
            with contextlib.suppress(FileNotFoundError):
                self._remove_blob(run, self._blob_at(path, name))
            _unlink(path)

    def _blob_at(self, path: str, name: str) -> str | None:
        with contextlib.suppress(DocumentError):
            return blob_of(self._bundles.read(path, name))
        return None

    def _lost_counts(self, run: str) -> set[str]:
        """Return the counts of lost workers that stand in names of files, as they stand there."""
        if run not in self._lost:
            found = [_WAITING.fullmatch(file) for _, file in self._tasks(run, "waiting")]
            found += [_CLAIMED.fullmatch(file) for _, file in self._tasks(run, "claimed")]
            self._lost[run] = {"0", *(parts["lost"] for parts in found if parts is not None)}
        return self._lost[run]

    def withdraw(self, run: str, names: Iterable[str] | None = None) -> set[str]:
        """Remove tasks that wait, of these names or all: nobody is to begin them any more. Return which they were."""
        wanted, gone = None if names is None else set(names), set()
        with _away(self.where):
            folder = self._folder(run, "waiting")
            for task, file in list(self._tasks(run, "waiting")):
                if wanted is None or task in wanted:
                    with contextlib.suppress(FileNotFoundError):  # a worker has claimed it meanwhile
                        digest = self._blob_at(f"{folder}/{file}", task)
                        _remove(f"{folder}/{file}")
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
                self._lost_counts(run).add(str(lost))
            for worker in silent:  # if it lives after all, it writes the file again
                if silent[worker] and is_worker(worker):
                    _unlink(str(self._top("workers") / worker))
        return given_up

    def workers(self, silent_after: float) -> int:
        """Return how many workers were heard of in so many seconds."""
        with _away(self.where):
            names = [one for one in os.listdir(self._top("workers")) if is_worker(one)]  # noqa: PTH208
            return sum(not self._is_silent(one, silent_after) for one in names)

    def _is_silent(self, worker: str, silent_after: float) -> bool:
        """Tell whether what a worker writes has not changed for so many seconds of this process."""
        return self._watch.unchanged(worker, _state_of(self._top("workers") / worker)) > silent_after

    # -- the worker's side -----------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """Return the runs that are known."""
        with _away(self.where):
            names = sorted(os.listdir(self._top("runs")))  # noqa: PTH208
            return [one for one in names if is_run(one) and _may_be_file(self._root / "runs" / one / "note.json")]

    def fault_of(self, run: str) -> str | None:
        """Return why a run that is known can't be served, though the disk can be reached; None where it can.

        Its folder may be incomplete, after a copy or `rm -r` that was cut off, or belong to somebody else.
        """
        with _away(self.where):
            folder = self._top("runs") / run
            if not os.path.lexists(folder):
                return None
            parts = [folder, *(folder / kind for kind in _KINDS)]
            faults = (_fault_of_folder(one) for one in parts)
            fault = next((one for one in faults if one is not None), None)
            if fault is None and not _may(folder / "note.json", os.R_OK):
                fault = f"{folder / 'note.json'} may not be read by this user"
            return fault

    def is_attended(self, run: str, within: float) -> bool:
        """Tell whether the run's driver was heard of in so many seconds, of the clock that stamps the files."""
        with _away(self.where):
            driver = _state_of(self._root / "runs" / run / "driver")
            if driver is None:
                return False
            return self._time_of_files() - driver[1] / 1e9 < within

    def _time_of_files(self) -> float:
        """Return the time now, of the clock that stamps the files: the disk's, and not that of this machine."""
        written, at = self._stamped
        if time.monotonic() - at > _STAMP_AGAIN:
            probe = self._probe()
            try:
                _write(probe, b"", durable=False)
                written, at = self._stamped = probe.stat().st_mtime, time.monotonic()
            finally:
                probe.unlink(missing_ok=True)
        return written + time.monotonic() - at

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
            folders = {kind: str(self._folder(run, kind)) for kind in ("waiting", "claimed", "answers")}
            looked, fell_over = False, run in self._fell_over
            self._fell_over.add(run)
            if fell_over:
                for _, file in list(self._tasks(run, "claimed")):
                    parts = _CLAIMED.fullmatch(file)
                    if parts is not None and parts["worker"] == worker and (run, file) not in self._held:
                        found.append(self._claimed(folders["claimed"], parts["task"], file))
            passed: list[str] = []
            step = 0
            while len(found) < most:
                if not ahead:
                    if looked and (found or not passed):
                        break
                    waiting = passed if looked else sorted(file for _, file in self._tasks(run, "waiting"))
                    ahead.extend(waiting)
                    looked, passed, step = True, [], 0
                elif (claim := self._claim_one(folders, worker, ahead.popleft())) is not None:
                    found.append(claim)
                    step = 0
                else:  # others claim here: go on behind what they may be about to claim
                    passed += [ahead.popleft() for _ in range(min(step, len(ahead)))]
                    step = min(2 * step + 1, _PASSED)
            ahead.extendleft(reversed(passed))
            self._fell_over.discard(run)
            self._held.update((run, one.token) for one in found)
        return found

    def _claim_one(self, folders: Mapping[str, str], worker: str, file: str) -> Claim | None:
        token = f"{file.removesuffix('.json')}~{worker}.json"
        target = f"{folders['claimed']}/{token}"
        try:
            os.rename(f"{folders['waiting']}/{file}", target)  # noqa: PTH104 - a Path takes as long as the call
        except FileNotFoundError:
            if not os.path.lexists(target):  # NFS may report so where it was renamed, after a message was repeated
                return None
        name = file.split(".")[0]
        if os.path.lexists(f"{folders['answers']}/{name}.json"):  # by a worker that was thought dead
            _unlink(target)
            return None
        try:
            return self._claimed(folders["claimed"], name, token)
        except FileNotFoundError:  # removed by the driver meanwhile
            return None

    def _claimed(self, folder: str, name: str, token: str) -> Claim:
        try:
            return Claim(name, token, self._bundles.read(f"{folder}/{token}", name))
        except DocumentError as error:
            return Claim(name, token, b"", str(error))

    def beat(self, worker: str) -> None:
        """Say that a worker lives, and with it all of its claims; also where the disk is full."""
        if not is_worker(worker):
            raise ValueError(f"{worker!r} can't be the name of a worker")
        with self._lock, _away(self.where):
            self._count_up(self._top("workers") / worker)

    def _count_up(self, path: Path) -> None:
        """Change the number in a file, in its place; on a full disk, the time of the file alone."""
        self._count += 1
        descriptor = _open_own(path)
        try:
            os.pwrite(descriptor, f"{os.getpid():010d} {self._count:010d}\n".encode(), 0)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            os.utime(descriptor)
        finally:
            os.close(descriptor)

    def answer(self, run: str, answers: Sequence[tuple[Claim, bytes]]) -> None:
        """Answer tasks; an answer that is there already stays. They are durable when this returns."""
        with _away(self.where):
            folder, claimed = self._folder(run, "answers"), self._folder(run, "claimed")
            documents = {claim.name: document for claim, document in answers}
            for name in self._write_documents(run, folder, documents, lambda name: f"{name}.json"):
                self._remove_blob_of_second_answer(run, f"{folder}/{name}.json", name, documents[name])
            for claim, _ in answers:
                self._remove_blob(run, blob_of(claim.document))
                _unlink(f"{claimed}/{claim.token}")
                self._held.discard((run, claim.token))

    def _remove_blob_of_second_answer(self, run: str, first: str, name: str, document: bytes) -> None:
        digest = blob_of(document)
        with contextlib.suppress(DocumentError, FileNotFoundError):
            if digest != blob_of(self._bundles.read(first, name)):
                self._remove_blob(run, digest)

    def _remove_blob(self, run: str, digest: str | None) -> None:
        if digest is not None:
            _unlink(f"{self._folder(run, 'blobs')}/{digest}.safetensors")

    def give_back(self, run: str, claims: Iterable[Claim]) -> None:
        """Let claimed tasks wait again."""
        with _away(self.where):
            claimed, waiting = self._folder(run, "claimed"), self._folder(run, "waiting")
            for claim in claims:
                file = f"{claim.token.partition('~')[0]}.json"
                with contextlib.suppress(FileNotFoundError):
                    (claimed / claim.token).rename(waiting / file)
                self._held.discard((run, claim.token))

    def leave(self, worker: str) -> None:
        """Say that a worker has ended; what it had claimed without knowing it, when it was interrupted, waits again."""
        with _away(self.where):
            for run in self.runs():
                try:
                    self._give_back_claims_of(run, worker)
                except (OSError, AwayError, DocumentError):
                    if self.fault_of(run) is None:
                        raise
            (self._top("workers") / worker).unlink(missing_ok=True)

    def _give_back_claims_of(self, run: str, worker: str) -> None:
        found = [(one, _CLAIMED.fullmatch(one[1])) for one in self._tasks(run, "claimed")]
        mine = [one for one, parts in found if parts is not None and parts["worker"] == worker]
        self.give_back(run, [Claim(task, file, b"") for task, file in mine])

    # -- both ------------------------------------------------------------------------------------------

    def put_blob(self, run: str, content: bytes) -> str:
        """Store the arrays of a document; return their SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        with _away(self.where), contextlib.suppress(FileExistsError):
            folder = self._folder(run, "blobs")
            _write_new(self._part(run), f"{folder}/{digest}.safetensors", content)
            _flush(folder)
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

    def _write_documents(
        self, run: str, folder: Path, documents: Mapping[str, bytes], file_of: Callable[[str], str]
    ) -> list[str]:
        """Write documents, many to a file; return the names of those that were there before."""
        before = []
        for some in _bundled(documents):
            part = str(self._part(run))
            lines = {name: b"%s %s\n" % (name.encode(), documents[name]) for name in some}
            try:
                _write(Path(part), b"".join(lines.values()), durable=True)
                for name, line in lines.items():
                    try:
                        _link(part, f"{folder}/{file_of(name)}", line)
                    except FileExistsError:
                        before.append(name)
            finally:
                _unlink(part)
        if documents:
            _flush(folder)
        return before

    def _folder(self, run: str, kind: str) -> Path:
        if not is_run(run):
            raise DocumentError(f"{run!r:.80} can't be the name of a run")
        folder = self._top("runs") / run
        _check_folder(folder)
        _check_folder(folder / kind)
        return folder / kind

    def _top(self, kind: str) -> Path:
        """Return the folder of all runs, or of the workers; `UsageError` where it is none any more."""
        folder = self._root / kind
        try:
            _check_folder(folder)
        except DocumentError as error:
            raise UsageError(f"{error}.") from error
        return folder

    def _probe(self) -> Path:
        return self._root / f".{secrets.token_hex(8)}.part"

    def _part(self, run: str) -> Path:
        return self._folder(run, "parts") / secrets.token_hex(8)


class _Bundles:
    """Reads documents from files that hold several; the last files are remembered, so that each is read once."""

    _REMEMBERED = 4

    def __init__(self) -> None:
        self._found: collections.OrderedDict[tuple[int, ...], dict[bytes, bytes]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, name: str) -> bytes:
        """Return the document of a name in a file; `DocumentError` if it isn't there, or the file can't be read."""
        identity = _identity(os.lstat(path))  # that of a link is never known
        with self._lock:
            known = self._found.get(identity, {})
        document = known.get(name.encode())
        if document is None:
            with _opened(path) as descriptor:
                status = os.fstat(descriptor)
                content = _content(path, descriptor, status, _LARGEST_FILE)
            found = {one: text for one, _, text in (line.partition(b" ") for line in content.split(b"\n"))}
            with self._lock:
                self._found[_identity(status)] = found
                while len(self._found) > self._REMEMBERED:
                    self._found.popitem(last=False)
            document = found.get(name.encode())
        if document is None:
            raise DocumentError(f"{path} doesn't hold it")
        return document


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file, with its content, from all others."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _bundled(documents: Mapping[str, bytes]) -> Iterator[list[str]]:
    """Yield the names of the documents that are written together."""
    some: list[str] = []
    size = 0
    for name, document in documents.items():
        if some and (len(some) == _IN_ONE_FILE or size + len(document) > _BYTES_IN_ONE_FILE):
            yield some
            some, size = [], 0
        some.append(name)
        size += len(document)
    if some:
        yield some


def _make_folder(path: Path) -> None:
    """Make a folder, if it is not there; `DocumentError` where something else is, which is not followed."""
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    _check_folder(path)


def _check_folder(folder: Path) -> None:
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise DocumentError(
            f"{folder} is not a folder but a link or something else, which is not followed; remove it, or use another "
            "folder for workers"
        )


def _fault_of_folder(folder: Path) -> str | None:
    """Return why a folder is none that can be worked in; None where it is one."""
    try:
        _check_folder(folder)
    except FileNotFoundError:
        return f"{folder} is missing; a copy or a removal may have been cut off"
    except (PermissionError, DocumentError) as error:
        return str(error)
    return None if _may(folder, os.R_OK | os.W_OK | os.X_OK) else f"{folder} may not be read and written by this user"


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _may_be_file(path: Path) -> bool:
    """Tell whether a file is there, or may be in a folder that can't be looked into."""
    try:
        return path.is_file()
    except PermissionError:
        return True


def _remove_old(folder: Path, is_ours: Callable[[str], object]) -> None:
    """Remove the files that processes left which were killed; who still needs one makes it again."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                is_file = is_ours(entry.name) and entry.is_file(follow_symlinks=False)
                if is_file and entry.stat(follow_symlinks=False).st_mtime < time.time() - _OLD:
                    Path(entry.path).unlink()


@contextlib.contextmanager
def _away(where: str) -> Iterator[None]:
    """Raise `AwayError` for a disk that fails, is full, or can't be reached."""
    try:
        yield
    except OSError as error:
        kind = FullError if error.errno in _FULL else AwayError
        raise kind(f"{where}: {error.strerror or error}") from error


def _write_new(part: Path, target: str, content: bytes) -> None:
    """Write a file that is durable, and whole when it has its name; `FileExistsError` if another one has it."""
    try:
        _write(part, content, durable=True)
        _link(str(part), target, content)
    finally:
        part.unlink(missing_ok=True)


def _link(part: str, target: str, content: bytes) -> None:
    """Give a file one more name; where the file system has no hard links, write this content under it."""
    try:
        os.link(part, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in _FULL or not os.path.lexists(part):
            raise
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        own = Path(part).with_name(secrets.token_hex(8))
        _write(own, content, durable=True)
        own.rename(target)


def _write(path: Path, content: bytes, *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)  # it may take the last room there is
        raise


def _open_own(path: Path) -> int:
    """Open a file to write into its place; where it has a second name, it is not ours, and another one is made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    _unlink(str(path))  # it may be gone, where the driver found the worker silent
    return os.open(path, flags | os.O_EXCL, 0o666)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        _remove(path)


def _remove(path: str) -> None:
    """Remove a file; a folder in its place is moved out of the way, into the name of a file that nobody reads."""
    try:
        os.unlink(path)  # noqa: PTH108
    except (IsADirectoryError, PermissionError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise
        Path(path).rename(Path(path).with_name(f"folder-{secrets.token_hex(8)}"))


def _state_of(path: Path) -> tuple[bytes, int] | None:
    """Return what a file holds, and when it was changed; None where it is not there, or is none of this kind."""
    try:
        with _opened(path) as descriptor:
            status = os.fstat(descriptor)
            return _content(path, descriptor, status, 100), status.st_mtime_ns
    except (FileNotFoundError, NotADirectoryError, DocumentError):
        return None
    except PermissionError:  # that of another user, who lets nobody read it: its time tells
        with contextlib.suppress(OSError):
            return b"", path.lstat().st_mtime_ns
        return None


def _read(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most so many bytes; links are not followed."""
    with _opened(path) as descriptor:
        return _content(path, descriptor, os.fstat(descriptor), most)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if os.path.islink(path):  # noqa: PTH114
            raise DocumentError(f"{path} is a link, which is not followed") from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _content(path: str | Path, descriptor: int, status: os.stat_result, most: int) -> bytes:
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError(f"{path} is not a regular file")
    if status.st_size > most:
        raise DocumentError(f"{path} has {status.st_size} bytes; {most} is the most")
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read(most + 1)
