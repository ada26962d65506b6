"""Whether what a crash of the machine may reorder is ordered by flushes, as a trace of system calls tells it.

SIGKILL keeps the page cache, so no killed run can show a missing flush. The rules, of which each holds of every
trace:

1. A file that is to stay is flushed after its last write and before it gets its name by a rename.
2. After such a rename its folder is flushed before anything else is changed.
3. A commit that names a checkpoint file comes after the rename that published it.
4. A run directory appears when all in it is flushed, and the folder itself after its last change; folders that were
   made for it are flushed into their parents.
5. In a transaction the journal is flushed, and known to its folder, before the database is written; the database
   before the journal is deleted; and that deletion, which is the commit, before anything else is changed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Any

FLUSHES = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")
CHECKPOINT = re.compile(r"(?:\d{6}-[a-z]+-\d{6}|initial)\.safetensors")
PASSING = re.compile(r"/(lock|console\.log|[^/]+\.json|\.[^/]*\.json\.[^/]*)$")  # locks, logs, exports


class Disk:
    """What of the folder of runs is not on the disk yet, call by call."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.files: dict[str, bool] = {}
        """Whether each file has been written to since it was flushed."""
        self.folders: dict[str, bool] = {".": False}
        """Whether entries of each folder have changed since it was flushed."""
        self.by_fsync: dict[str, bool] = {}
        """The same, where what SQLite flushes for itself, by ``fdatasync``, doesn't count."""
        self.owed: dict[str, str] = {}
        """Folders that must be flushed before anything else is changed, and why."""
        self.written: set[str] = set()
        """Files that were written to since they were made or opened."""
        self.published: set[str] = set()
        self.named: set[str] = set()
        self.early: set[str] = set()
        self.naming: set[str] = set()

    def call(self, name: str, paths: Sequence[str], text: str) -> None:
        """Take in one call."""
        if not paths or " = -1 " in text:
            return
        path = paths[0]
        if name in FLUSHES:
            self.flush(name, path)
            return
        making = name == "openat" and "O_CREAT" in text and path not in self.files
        if name == "openat" and not making:
            return
        for folder, reason in self.owed.items():
            self.wrong.append(f"{folder} is not flushed {reason} before {name} of {path}")
        self.owed.clear()
        if name in ("write", "pwrite64", "ftruncate"):
            self.write(path, text)
        elif making:
            self.files[path] = False
            self.change(posixpath.dirname(path))
        elif name == "mkdir":
            self.folders[path] = self.by_fsync[path] = False
            self.change(posixpath.dirname(path) or ".")
        elif name == "unlink":
            self.unlink(path)
        elif name in RENAMES:
            self.rename(path, paths[1])

    def flush(self, name: str, path: str) -> None:
        if path in self.folders:
            self.folders[path] = False
            self.by_fsync[path] = self.by_fsync.get(path, False) and name != "fsync"
            if name == "fsync" or self.owed.get(path) == "after a commit":
                self.owed.pop(path, None)
        else:
            self.files[path] = False

    def change(self, folder: str) -> None:
        self.folders[folder] = self.by_fsync[folder] = True

    def write(self, path: str, text: str) -> None:
        journal = path + "-journal"
        self.written.add(path)
        # a journal that nothing was written to was found, and is rolled back: it was flushed in another life
        if path.endswith("/run.db") and journal in self.files and journal in self.written:
            if self.files[journal]:
                self.wrong.append(f"{path} is written before its journal is flushed")
            if self.folders[posixpath.dirname(path)]:
                self.wrong.append(f"{path} is written before its folder knows of the journal")
        if path.endswith("/run.db"):
            self.naming |= set(CHECKPOINT.findall(text)) - self.named
        self.files[path] = True

    def unlink(self, path: str) -> None:
        folder = posixpath.dirname(path)
        self.files.pop(path, None)
        commits = path in self.written  # else it was rolled back
        self.written.discard(path)
        self.change(folder)
        if not path.endswith("/run.db-journal"):
            return
        if self.files.get(f"{folder}/run.db"):
            self.wrong.append(f"a transaction of {folder} is committed before the database is flushed")
        self.early |= self.naming - self.published
        self.named |= self.naming
        self.naming.clear()
        if commits:
            self.owed[folder] = "after a commit"

    def rename(self, old: str, new: str) -> None:
        if old in self.folders:
            self.appear(old, new)
        else:
            if self.stays(new) and self.files.get(old):
                self.wrong.append(f"{new} gets its name before it is flushed")
            self.files[new] = self.files.pop(old, False)
            if CHECKPOINT.fullmatch(posixpath.basename(new)):
                self.published.add(posixpath.basename(new))
        for folder in {posixpath.dirname(old), posixpath.dirname(new)}:
            self.change(folder)
        if self.stays(new):
            self.owed[posixpath.dirname(new)] = f"after the rename to {new}"

    def appear(self, old: str, new: str) -> None:
        for file, dirty in self.files.items():
            if file.startswith(old + "/") and dirty and not PASSING.search(file):
                self.wrong.append(f"the run directory appears before {file} is flushed")
        for folder in (name for name in self.folders if name == old or name.startswith(old + "/")):
            if self.folders[folder] or self.by_fsync.get(folder):
                self.wrong.append(f"the run directory appears before {folder} is flushed")
        if self.by_fsync.get("."):
            self.wrong.append("the run directory appears before the folder of runs is flushed into its parent")
        for table in (self.files, self.folders, self.by_fsync):
            moved = {new + key[len(old) :]: key for key in table if key == old or key.startswith(old + "/")}
            for there, here in moved.items():
                table[there] = table.pop(here)

    @staticmethod
    def stays(path: str) -> bool:
        return not posixpath.basename(path).startswith(".") and not PASSING.search(path)


def violations(calls: Sequence[Any], *, resumed: bool = False) -> list[str]:
    """Return what is out of order in a trace of a run, which may have had a life before; its data must be in it."""
    disk = Disk()
    for call in calls:
        if any(path == "." or path.startswith("root") for path in call.paths):
            disk.call(call.name, call.paths, call.text)
    disk.wrong += [f"{folder} is not flushed {reason}" for folder, reason in disk.owed.items()]
    early = disk.early & disk.published if resumed else disk.early
    disk.wrong += [f"{file} is named by the database before it is published" for file in sorted(early)]
    if not resumed and not {"initial.safetensors"} < disk.named:
        disk.wrong.append(f"only {sorted(disk.named)} were seen in the database: the trace is not whole")
    return disk.wrong
