"""Files that a program left in its folder: read without following links, and never as code."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from alcore.store import parse_json


class FileFault(Exception):  # noqa: N818
    """A file of a program can't be read; the text says which, and why."""


def read_file(folder: Path, name: str, limit: int, *, tail: bool = False) -> bytes | None:
    """Return what is in a file; None where there is none.

    Parameters
    ----------
    folder
        The folder, which must be no link.
    name
        The file in it: a regular one, not a link.
    limit
        The most bytes that are read.
    tail
        Whether to read the last bytes of a file that is longer, which is refused otherwise.

    Raises
    ------
    FileFault
        If it is something else than a regular file, is too long, or can't be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        inside = os.open(folder, flags | os.O_DIRECTORY)
    except OSError as error:
        raise FileFault(f"{folder} can't be read: {error.strerror}") from error
    try:
        descriptor = os.open(name, flags, dir_fd=inside)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileFault(f"{name} can't be read, or is a link: {error.strerror}") from error
    finally:
        os.close(inside)
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise FileFault(f"{name} is no regular file")
        if about.st_size > limit and not tail:
            raise FileFault(f"{name} has {about.st_size} bytes, more than the {limit} that are read")
        try:
            if tail:
                file.seek(max(about.st_size - limit, 0))
            content = file.read(limit + 1)
        except OSError as error:
            raise FileFault(f"{name} can't be read: {error.strerror}") from error
    if len(content) > limit and not tail:
        raise FileFault(f"{name} has more than the {limit} bytes that are read")
    return content[:limit]


def read_json(folder: Path, name: str, limit: int) -> Any:
    """Return the content of a JSON file; None where there is none, or raise `FileFault`."""
    content = read_file(folder, name, limit)
    if content is None:
        return None
    try:
        return parse_json(content)
    except ValueError as error:
        raise FileFault(f"{name} is not valid JSON: {error}") from error


def read_arrays(folder: Path, name: str, limit: int) -> dict[str, np.ndarray] | None:
    """Return the arrays of an NPZ file; None where there is none, or raise `FileFault`.

    Arrays of Python objects are refused: to read them would run code.
    """
    content = read_file(folder, name, limit)
    if content is None:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > limit:
            raise FileFault(f"the arrays of {name} have {size} bytes, more than the {limit} that are read")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: np.asarray(arrays[key]) for key in arrays.files}
    except FileFault:
        raise
    except Exception as error:
        raise FileFault(f"{name} can't be read as arrays: {error}") from error


def last_line(folder: Path, name: str, limit: int = 1 << 16) -> str:
    """Return the last line of a text file that is not blank; empty where there is none, or raise `FileFault`."""
    content = read_file(folder, name, limit, tail=True) or b""
    lines = [line for line in content.decode("utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
