"""Rows of an array by sample id: consecutive rows as one slice, and those of a file without a copy."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from alcore.pools.info import ArrayLike

_WORTH_MAPPING = 2**18  # bytes; copying fewer is faster than mapping them


class Rows:
    """Gives rows of a tensor, an array or a memory-mapped array.

    Parameters
    ----------
    array
        Shape (N, ...).

    Notes
    -----
    Consecutive rows of a file are a private map of it: they are read when they are used, and writing to them changes
    the memory of this process, never the file. Memory is that of the requested rows.
    """

    def __init__(self, array: ArrayLike) -> None:
        self.array = array
        self._file = _file_of(array)

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        """Return rows, shape (B, ...), by number, int64 (B,). Writing to them does not change the array."""
        part = consecutive(ids, len(self.array))
        if isinstance(self.array, torch.Tensor):
            return self.array[ids] if part is None else self.array[part].clone(memory_format=torch.contiguous_format)
        if part is None:
            return torch.from_numpy(np.ascontiguousarray(self.array[ids.numpy()]))
        window = None if self._file is None else self._file.window(self.array, part)
        return torch.from_numpy(np.array(self.array[part], order="C") if window is None else window)


class GrowingRows:
    """Rows of one shape that are added one by one; room is doubled when it is used up, so that few are copied.

    Parameters
    ----------
    shape
        Of one row.
    like
        An array whose dtype and device the rows have.
    """

    def __init__(self, shape: tuple[int, ...], like: ArrayLike) -> None:
        example = like if isinstance(like, torch.Tensor) else torch.from_numpy(np.empty(0, like.dtype))
        self._room, self._count = example.new_empty((0, *shape)), 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._count

    @property
    def rows(self) -> torch.Tensor:
        """All rows: shape (N, ...), a view."""
        return self._room[: self._count]

    def add(self, row: torch.Tensor) -> None:
        """Add a row, cast to the dtype."""
        if self._count == len(self._room):
            room = self._room.new_empty((max(4, 2 * self._count), *self._room.shape[1:]))
            room[: self._count] = self._room
            self._room = room
        self._room[self._count] = row.detach()
        self._count += 1

    def cast(self, dtype: torch.dtype) -> None:
        """Give all rows another dtype."""
        if dtype != self._room.dtype:
            self._room = self._room.to(dtype)


def consecutive(ids: torch.Tensor, total: int) -> slice | None:
    """Return consecutive ids, int64 (B,), below `total` as a slice; None for other ids."""
    if ids.dtype != torch.int64 or ids.dim() != 1 or not ids.shape[0] or ids.is_cuda:
        return None
    numbers = ids.numpy()  # several times as fast as torch here
    first, last = int(numbers[0]), int(numbers[-1])
    if first < 0 or last >= total or last - first + 1 != len(numbers):
        return None
    return slice(first, last + 1) if (numbers[1:] - numbers[:-1] == 1).all() else None


class _MappedFile(NamedTuple):
    """The file of a memory-mapped array: its path, and its inode, since another file may replace it."""

    path: str
    device: int
    inode: int

    def window(self, array: Any, part: slice) -> np.ndarray[Any, Any] | None:
        """Return a map of consecutive rows; None where a copy is better, or the file is not the same."""
        width = array.strides[0]
        length = (part.stop - part.start) * width
        if length < _WORTH_MAPPING:
            return None
        start = array.offset + part.start * width
        lead = start % mmap.ALLOCATIONGRANULARITY
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:  # the file was removed
            return None
        try:
            status = os.fstat(file)
            if (status.st_dev, status.st_ino) != (self.device, self.inode):
                return None
            mapped = mmap.mmap(file, length + lead, access=mmap.ACCESS_COPY, offset=start - lead)
        except (OSError, ValueError):  # the file was truncated
            return None
        finally:
            os.close(file)
        return np.ndarray((part.stop - part.start, *array.shape[1:]), array.dtype, mapped, lead)


def _file_of(array: Any) -> _MappedFile | None:
    """Return the file that an array maps as a whole; None for a map with private changes, or a part of one."""
    whole = isinstance(array, np.memmap) and isinstance(getattr(array, "base", None), mmap.mmap) and array.mode != "c"
    if not (whole and array.filename and array.nbytes and array.flags.c_contiguous and array.flags.aligned):
        return None
    try:
        status = Path(array.filename).stat()
    except OSError:
        return None
    return _MappedFile(os.fspath(array.filename), status.st_dev, status.st_ino)
