"""Rows of an array by sample id: neighbours at once, and those of a file without a copy."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from alcore.pools.info import ArrayLike

_WORTH_MAPPING = 2**18  # bytes; fewer are copied sooner than they are mapped


class Rows:
    """Gives rows of a tensor, an array or a memory-mapped array.

    Parameters
    ----------
    array
        Shape (N, ...).

    Notes
    -----
    Rows n, n + 1, n + 2 ... of a file are a private window of it: they are read where they are used, and what is
    written to them goes to memory of this process, never to the file. Memory is that of the rows asked for.
    """

    def __init__(self, array: ArrayLike) -> None:
        self.array = array
        self._file = _file_of(array)

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        """Return rows that may be written to, by number: int64 (B,); shape (B, ...)."""
        part = neighbours(ids, len(self.array))
        if isinstance(self.array, torch.Tensor):
            return self.array[ids] if part is None else self.array[part].clone(memory_format=torch.contiguous_format)
        if part is None:
            return torch.from_numpy(np.ascontiguousarray(self.array[ids.numpy()]))
        window = None if self._file is None else self._file.window(self.array, part)
        return torch.from_numpy(np.array(self.array[part], order="C") if window is None else window)


def neighbours(ids: torch.Tensor, total: int) -> slice | None:
    """Return ids n, n + 1, n + 2 ... below `total` as a slice, and None for others; int64 (B,)."""
    if ids.dtype != torch.int64 or ids.dim() != 1 or not ids.shape[0] or ids.is_cuda:
        return None
    numbers = ids.numpy()  # several times as fast as torch here
    first, last = int(numbers[0]), int(numbers[-1])
    if first < 0 or last >= total or last - first + 1 != len(numbers):
        return None
    return slice(first, last + 1) if (numbers[1:] - numbers[:-1] == 1).all() else None


class _File(NamedTuple):
    """The file behind a memory-mapped array: where it is, and which one that is, since another may take its place."""

    path: str
    device: int
    inode: int

    def window(self, array: Any, part: slice) -> np.ndarray[Any, Any] | None:
        """Return neighbouring rows, to be read from the file when they are used; None where a copy is better."""
        width = array.strides[0]
        length = (part.stop - part.start) * width
        if length < _WORTH_MAPPING:
            return None
        start = array.offset + part.start * width
        lead = start % mmap.ALLOCATIONGRANULARITY
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:  # it is gone
            return None
        try:
            found = os.fstat(file)
            if (found.st_dev, found.st_ino) != (self.device, self.inode):
                return None
            mapped = mmap.mmap(file, length + lead, access=mmap.ACCESS_COPY, offset=start - lead)
        except (OSError, ValueError):  # it is shorter
            return None
        finally:
            os.close(file)
        return np.ndarray((part.stop - part.start, *array.shape[1:]), array.dtype, mapped, lead)


def _file_of(array: Any) -> _File | None:
    """Return the file that an array is a map of, as a whole; None for one with private changes, or a part."""
    whole = isinstance(array, np.memmap) and isinstance(getattr(array, "base", None), mmap.mmap) and array.mode != "c"
    if not (whole and array.filename and array.nbytes and array.flags.c_contiguous and array.flags.aligned):
        return None
    try:
        found = Path(array.filename).stat()
    except OSError:
        return None
    return _File(os.fspath(array.filename), found.st_dev, found.st_ino)
