"""Rows come as they are in the array, can be written to, and consecutive in a file are not copied."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore.pools import rows
from alcore.pools.rows import GrowingRows, Rows, consecutive

VALUES = np.arange(60, dtype=np.float32).reshape(20, 3)


def saved(folder: Path, mode: str = "r") -> np.memmap[Any, Any]:
    np.save(folder / "x.npy", VALUES)
    found: np.memmap[Any, Any] = np.load(folder / "x.npy", mmap_mode=mode)  # type: ignore[call-overload]
    return found


def raw(folder: Path, offset: int, order: Any = "C") -> np.memmap[Any, Any]:
    with (folder / "x.raw").open("wb") as file:
        file.write(b"\0" * offset + VALUES.tobytes(order))
    return np.memmap(folder / "x.raw", np.float32, "r", offset, VALUES.shape, order)


def changed(folder: Path) -> np.memmap[Any, Any]:
    """Return an array with private changes, of which its file doesn't know."""
    array = saved(folder, "c")
    array += 0.5
    return array


FORMS: dict[str, Callable[[Path], Any]] = {
    "tensor": lambda _: torch.from_numpy(VALUES.copy()),
    "columns of a tensor": lambda _: torch.from_numpy(VALUES.T.copy()).T,
    "array": lambda _: VALUES.copy(),
    "file": saved,
    "file to write to": lambda folder: saved(folder, "r+"),
    "private changes": changed,
    "part of a file": lambda folder: saved(folder)[4:],
    "some columns": lambda folder: saved(folder)[:, 1:],
    "after a page": lambda folder: raw(folder, 5000),
    "not aligned": lambda folder: raw(folder, 3),
    "columns in a file": lambda folder: raw(folder, 64, "F"),
}
ASKED = [[0], [19], [*range(20)], [5, 6, 7, 8], [8, 7, 6, 5], [3, 5, 4, 6], [2, 2, 2], [1, 3, 5], []]


@pytest.fixture
def all_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_WORTH_MAPPING", 1)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, all_mapped: None) -> Iterator[list[str]]:
    """List the files that are opened."""
    del all_mapped
    names: list[str] = []
    ordinary = os.open

    def watched(path: Any, *args: Any, **kwargs: Any) -> int:
        names.append(Path(path).name)
        return ordinary(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", watched)
        yield names


@pytest.mark.usefixtures("all_mapped")
@pytest.mark.parametrize("form", FORMS)
def test_rows_are_those_of_the_array_and_may_be_written_to(form: str, tmp_path: Path) -> None:
    array = FORMS[form](tmp_path)
    expected = np.array(array.tolist(), np.float32)
    contents = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for asked in ASKED:
        ids = torch.tensor(asked, dtype=torch.int64).clamp(max=len(array) - 1)
        for _ in range(2):
            tensor = Rows(array).take(ids)
            assert tensor.is_contiguous()
            assert torch.equal(tensor, torch.from_numpy(expected[ids.numpy()]))
            tensor += 1  # seen neither in the array, nor in the file, nor by who asks next
    assert array.tolist() == expected.tolist()
    assert contents == {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("form", FORMS)
def test_a_row_that_is_not_there_is_refused(form: str, tmp_path: Path) -> None:
    array = FORMS[form](tmp_path)
    with pytest.raises(IndexError):
        Rows(array).take(torch.arange(15, len(array) + 1))


@pytest.mark.parametrize(("form", "windows"), [(form, form.startswith(("file", "after"))) for form in FORMS])
def test_consecutive_in_a_file_are_windows_of_it(form: str, windows: bool, opened: list[str], tmp_path: Path) -> None:
    reader = Rows(FORMS[form](tmp_path))
    opened.clear()
    reader.take(torch.tensor([3, 5]))
    assert not opened
    reader.take(torch.arange(2, 9))
    assert opened == (["x.raw" if form == "after a page" else "x.npy"] if windows else [])


def test_few_bytes_are_copied(opened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rows, "_WORTH_MAPPING", 100)
    reader = Rows(saved(tmp_path))
    for count, windows in ((8, 0), (9, 1)):  # of 12 bytes
        opened.clear()
        reader.take(torch.arange(count))
        assert len(opened) == windows


@pytest.mark.usefixtures("all_mapped")
@pytest.mark.skipif(sys.platform == "win32", reason="files in use can't be moved there")
@pytest.mark.parametrize("another", [True, False])
def test_rows_stay_those_of_the_array_when_its_file_is_gone(another: bool, tmp_path: Path) -> None:
    reader = Rows(saved(tmp_path))
    if another:
        np.save(tmp_path / "other.npy", VALUES + 1)
        (tmp_path / "other.npy").replace(tmp_path / "x.npy")
    else:
        (tmp_path / "x.npy").unlink()
    assert torch.equal(reader.take(torch.arange(20)), torch.from_numpy(VALUES))


@pytest.mark.usefixtures("all_mapped")
def test_rows_show_later_changes_of_the_file(tmp_path: Path) -> None:
    array = saved(tmp_path, "r+")
    reader = Rows(array)
    array[3] = -1
    assert reader.take(torch.arange(2, 5))[1].tolist() == [-1, -1, -1]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_that_of_the_rows_asked_for_even_if_they_are_written_to(tmp_path: Path) -> None:
    def anonymous() -> int:
        with Path("/proc/self/status").open() as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (2**14, 1024))  # 64 MiB
    reader = Rows(array)
    before, most = anonymous(), 0
    for start in range(0, len(array), 1024):
        reader.take(torch.arange(start, start + 1024)).add_(1)
        most = max(most, anonymous() - before)
    assert most < 3 * 4096


@given(
    st.lists(st.integers(-2, 12), max_size=6) | st.builds(lambda a, n: [*range(a, a + n)], *[st.integers(-1, 9)] * 2)
)
def test_consecutive_against_ranges(ids: list[int]) -> None:
    ranges = [range(first, last + 1) for first in range(10) for last in range(first, 10)]
    span = consecutive(torch.tensor(ids, dtype=torch.int64), 10)
    assert span == next((slice(numbers.start, numbers.stop) for numbers in ranges if [*numbers] == ids), None)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
@pytest.mark.parametrize("like", [torch.zeros(0, dtype=torch.int32), np.zeros(0, np.int32)])
def test_rows_that_grow_are_copied_a_few_times(shape: tuple[int, ...], like: Any) -> None:
    grown, places = GrowingRows(shape, like), set()
    for number in range(1000):
        grown.add(torch.full(shape, float(number), requires_grad=True))
        places.add(grown.rows.data_ptr())
    assert len(grown) == 1000
    assert torch.equal(
        grown.rows, torch.arange(1000, dtype=torch.int32).reshape(-1, *(1 for _ in shape)).expand(-1, *shape)
    )
    assert len(places) <= 10
    grown.cast(torch.float64)
    assert (grown.rows.dtype, grown.rows.requires_grad) == (torch.float64, False)
