"""A checkpoint is one whole file or none, and is read only if it is intact."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from alcore.errors import EncodingError, UsageError
from alcore.store import checkpoints
from alcore.store.files import StorageError


def header_of(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


def test_state_comes_back(tmp_path: Path) -> None:
    state = {
        "model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(True), "e": torch.empty(0, 2)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, float("inf"))},
        "half": torch.ones(3, dtype=torch.bfloat16),
        "complex": torch.ones(2, dtype=torch.complex128),
    }
    published = checkpoints.publish(tmp_path, "first", state)
    checkpoint = checkpoints.load(tmp_path / published.file, published.sha256)
    assert published.bytes == (tmp_path / "first.safetensors").stat().st_size
    assert torch.equal(checkpoint["model"]["w"], state["model"]["w"])
    assert checkpoint["model"]["b"].dtype == torch.bool
    assert checkpoint["model"]["e"].shape == (0, 2)
    assert torch.equal(checkpoint["optimizer"]["state"][0]["step"], torch.tensor(3.0))
    assert checkpoint["optimizer"]["betas"] == (0.9, float("inf"))
    assert torch.equal(checkpoint["half"], state["half"])
    assert torch.equal(checkpoint["complex"], state["complex"])


def test_order_of_keys_is_kept(tmp_path: Path) -> None:
    checkpoints.publish(tmp_path, "c", {"z": {"b": 1, "a": torch.zeros(1), "10": 2, "9": 3}, "y": 0})
    checkpoint = checkpoints.load(tmp_path / "c.safetensors")
    assert list(checkpoint) == ["z", "y"]
    assert list(checkpoint["z"]) == ["b", "a", "10", "9"]


def test_tensors_have_the_names_of_their_places_and_the_rest_is_one_header_key(tmp_path: Path) -> None:
    checkpoints.publish(tmp_path, "c", {"model": {"w": torch.ones(2)}, "rng": {"torch": torch.zeros(1)}, "n": 1})
    with safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"model.w", "rng.torch"}
        assert list(file.metadata()) == ["alcore"]


def test_tied_tensors_are_written_once(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(50, 20))
    published = checkpoints.publish(tmp_path, "c", {"model": {"a": weight, "b": weight, "c": weight.detach()}})
    assert [name for name in header_of(tmp_path / "c.safetensors") if name != "__metadata__"] == ["model.a"]
    assert published.bytes < 1.5 * weight.numel() * 4
    checkpoint = checkpoints.load(tmp_path / "c.safetensors")["model"]
    assert all(torch.equal(checkpoint[name], weight) for name in "abc")
    assert checkpoint["a"].data_ptr() == checkpoint["b"].data_ptr()


def test_views_of_one_storage_are_all_kept(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = {
        "whole": base,
        "head": base[:6],
        "same_place": base[:6].reshape(2, 3),
        "bits": base.view(torch.int32),
        "transposed": base.reshape(4, 6).T,
        "square": base[:4].reshape(2, 2),
        "square_transposed": base[:4].reshape(2, 2).T,
        "strided": base[::5],
        "expanded": base[3:4].expand(7),
        "one": base.reshape(4, 6)[:1, 1],
        "empty": base[:0],
        "other_empty": base[:0].reshape(0, 4),
    }
    checkpoints.publish(tmp_path, "c", state)
    checkpoint = checkpoints.load(tmp_path / "c.safetensors")
    for name, tensor in state.items():
        assert checkpoint[name].dtype == tensor.dtype, name
        assert torch.equal(checkpoint[name], tensor), name


def test_small_view_is_stored_without_its_whole_storage(tmp_path: Path) -> None:
    published = checkpoints.publish(tmp_path, "c", {"row": torch.zeros(10_000, 10)[5]})
    assert published.bytes < 1000


def test_conjugate_is_not_an_alias(tmp_path: Path) -> None:
    value = torch.tensor([1 + 2j, 3 - 1j])
    checkpoints.publish(tmp_path, "c", {"a": value, "b": value.conj()})
    checkpoint = checkpoints.load(tmp_path / "c.safetensors")
    assert torch.equal(checkpoint["a"], value)
    assert torch.equal(checkpoint["b"], value.conj())


def test_original_tensor_is_not_changed(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    checkpoints.publish(tmp_path, "c", {"a": tensor})
    assert not tensor.is_contiguous()
    assert torch.equal(tensor, torch.arange(6.0).reshape(2, 3).T)


def test_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    state = {"model": {"w": torch.ones(3), "n": torch.ones(2, dtype=torch.int64)}, "s": {"a", "b"}, 3: (1, 2)}
    one = checkpoints.publish(tmp_path, "one", state)
    other = checkpoints.publish(tmp_path, "other", state)
    assert one.sha256 == other.sha256
    assert (tmp_path / one.file).read_bytes() == (tmp_path / other.file).read_bytes()


_PROGRAM = """
import sys, torch
from pathlib import Path
from alcore.store import checkpoints
torch.manual_seed(0)
state = {"model": torch.nn.Linear(3, 2).state_dict(), "seen": {"b", "a", "ccc"}, "rng": {"torch": torch.ones(4)}}
print(checkpoints.publish(Path(sys.argv[1]), sys.argv[2], state).sha256)
"""


def test_same_state_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(tmp_path), f"c{seed}"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in "12"
    }
    assert len(digests) == 1


def test_file_can_be_read_by_other_users(tmp_path: Path) -> None:
    checkpoints.publish(tmp_path, "c", {"a": torch.zeros(1)})
    assert stat.S_IMODE((tmp_path / "c.safetensors").stat().st_mode) == 0o644


def test_file_is_flushed_renamed_and_its_folder_flushed(tmp_path: Path, disk_events: list[Any]) -> None:
    checkpoints.publish(tmp_path, "c", {"a": torch.zeros(100)})
    content = (tmp_path / "c.safetensors").read_bytes()
    assert disk_events == [("fsync", content), ("rename", "c.safetensors"), ("fsync folder", tmp_path.name)]


@pytest.mark.parametrize("where", ["save_file", "fsync", "rename"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_error_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    def fail(*args: Any, **kwargs: object) -> None:
        if where == "save_file":
            args[1].write_bytes(b"half")
        raise error

    place = {"save_file": (checkpoints, "save_file"), "fsync": (os, "fsync"), "rename": (Path, "rename")}[where]
    monkeypatch.setattr(*place, fail)
    with pytest.raises(type(error)):
        checkpoints.publish(tmp_path, "c", {"a": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_named_file_with_another_content_is_not_replaced(tmp_path: Path) -> None:
    named: dict[str, str] = {}
    for value, file in [(1, "c"), (2, "c-2"), (3, "c-3"), (2, "c-2"), (1, "c")]:
        with checkpoints.staged(tmp_path, "c", {"a": value}) as staged:
            published = staged.publish(named)
        assert published.file == f"{file}.safetensors"
        named[published.file] = published.sha256
    assert {path.name for path in tmp_path.iterdir()} == set(named)
    for file, sha256 in named.items():
        checkpoints.load(tmp_path / file, sha256)


def test_unnamed_file_is_replaced(tmp_path: Path) -> None:
    first = checkpoints.publish(tmp_path, "c", {"a": 1})
    assert checkpoints.publish(tmp_path, "c", {"a": 2}).file == first.file
    assert [path.name for path in tmp_path.iterdir()] == [first.file]


def test_two_processes_that_write_one_checkpoint_write_two_files(tmp_path: Path) -> None:
    with checkpoints.staged(tmp_path, "c", {"a": 1}) as one:
        with checkpoints.staged(tmp_path, "c", {"a": 2}) as other:
            assert one.path != other.path
        assert checkpoints.load(one.path, one.sha256) == {"a": 1}


def test_staged_file_is_removed_if_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), checkpoints.staged(tmp_path, "c", {"a": 1}):
        raise ConnectionError
    assert list(tmp_path.iterdir()) == []


def test_state_that_cannot_be_stored_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(EncodingError, match=r"^strategies\.uq\.pool: a builtins\.object"):
        checkpoints.publish(tmp_path, "c", {"strategies": {"uq": {"pool": object()}}})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def published(tmp_path: Path) -> checkpoints.Published:
    return checkpoints.publish(tmp_path, "c", {"a": torch.arange(8.0), "n": {"b": (1, 2)}})


def test_flipped_bit_is_refused(tmp_path: Path, published: checkpoints.Published) -> None:
    path = tmp_path / published.file
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"c\.safetensors is damaged: its SHA-256 is not the one"):
            checkpoints.load(path, published.sha256)


@pytest.mark.parametrize("left", [0, 4, 8, 50, -1])
def test_truncated_file_is_refused(tmp_path: Path, published: checkpoints.Published, left: int) -> None:
    path = tmp_path / published.file
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UsageError, match=r"c\.safetensors is damaged"):
        checkpoints.load(path, published.sha256)
    with pytest.raises(UsageError, match=r"c\.safetensors can't be read"):
        checkpoints.load(path)


def test_damage_without_a_digest_is_a_usage_error_or_not_noticed(
    tmp_path: Path, published: checkpoints.Published
) -> None:
    path = tmp_path / published.file
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        with contextlib.suppress(UsageError):
            checkpoints.load(path)
            continue
        refused += 1
    assert refused > 100


def test_missing_file_is_named_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.safetensors can't be read: .*No such file"):
        checkpoints.load(tmp_path / "gone.safetensors", "0" * 64)


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        RuntimeError("Input/output error (5)"),  # as torch says it
        FileNotFoundError("No such file or directory"),  # as safetensors says it, of a file that is there
        MemoryError("Input/output error"),
    ],
    ids=repr,
)
def test_failing_disk_is_a_storage_error_not_a_fault_of_the_run(
    tmp_path: Path, published: checkpoints.Published, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_given: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(checkpoints, "safe_open", fails)
    with pytest.raises(StorageError, match=r"c\.safetensors can't be read: "):
        checkpoints.load(tmp_path / published.file, published.sha256)


def test_file_of_another_program_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UsageError, match=r"foreign\.safetensors is not a checkpoint of alcore"):
        checkpoints.load(tmp_path / "foreign.safetensors")
