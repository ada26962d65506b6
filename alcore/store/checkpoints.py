"""Checkpoints: one immutable safetensors file each, which is complete before the database names it."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from alcore.codec import decode, encode, parse_json
from alcore.errors import UsageError
from alcore.store.files import StorageError, cant_write, check_regular, fsync_path, sha256_of

_KEY = "alcore"  # one key: several would be written in another order from process to process


class Published(NamedTuple):
    """A checkpoint file that is complete, flushed and named."""

    file: str
    sha256: str
    bytes: int


class StagedCheckpoint(NamedTuple):
    """A checkpoint that is written and flushed under a temporary name."""

    path: Path
    name: str
    sha256: str
    bytes: int

    def publish(self, named: Mapping[str, str] | None = None) -> Published:
        """Rename the file to its final name, and flush the folder.

        Parameters
        ----------
        named
            The digests of the checkpoint files that the database names. None of these is replaced by another
            content, since this process may end before it commits the new digest: the name gets a number then.
        """
        file = _free_file(self.name, self.sha256, named or {})
        try:
            self.path.rename(self.path.with_name(file))
            fsync_path(self.path.parent)
        except OSError as error:
            raise cant_write(self.path.with_name(file), error) from error
        return Published(file, self.sha256, self.bytes)


def checkpoint_name(step: int, phase: str, epoch: int = 0) -> str:
    """Return the name of a checkpoint's file, without its ending."""
    return f"{step:06d}-{phase}-{epoch:06d}"


def _free_file(name: str, sha256: str, named: Mapping[str, str]) -> str:
    """Return the first of ``name``, ``name-2``, ``name-3``, ... that is not named with another digest."""
    files = (f"{name}{number and f'-{number}'}.safetensors" for number in itertools.chain([""], itertools.count(2)))
    return next(file for file in files if named.get(file, sha256) == sha256)


@contextlib.contextmanager
def staged(folder: Path, name: str, state: Mapping[str, Any]) -> Iterator[StagedCheckpoint]:
    """Write a checkpoint and flush it; the block may publish it, and if the block fails the file is removed.

    Parameters
    ----------
    folder
        The ``ckpt`` folder of the run.
    name
        File name without its ending.
    state
        Values that `alcore.codec.encode` accepts. The first keys become the first part of tensor names:
        ``model.*``, ``optimizer.*``, ``rng.*``.
    """
    tensors: dict[str, torch.Tensor] = {}
    described = encode(dict(state), tensors=tensors)
    unique, aliases = _store_once(tensors)
    header = {_KEY: json.dumps({"state": described, "aliases": aliases}, separators=(",", ":"))}
    path = folder / f".{name}.{secrets.token_hex(4)}.part"
    try:
        try:
            save_file(unique, path, metadata=header)
            path.chmod(0o644)
            fsync_path(path)
            digest, size = sha256_of(path), path.stat().st_size
        except (OSError, SafetensorError) as error:
            raise cant_write(folder / f"{name}.safetensors", error) from error
        yield StagedCheckpoint(path, name, digest, size)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            path.unlink(missing_ok=True)
        raise


def publish(folder: Path, name: str, state: Mapping[str, Any]) -> Published:
    """Write a checkpoint into a folder of which the database names no file yet; parameters as for `staged`."""
    with staged(folder, name, state) as checkpoint:
        return checkpoint.publish()


def load(path: Path, sha256: str | None = None, *, what: str = "checkpoint") -> dict[str, Any]:
    """Return the state that was published, with its tensors on the CPU.

    Parameters
    ----------
    path
        The checkpoint file.
    sha256
        Its digest, as the database has it.
    what
        What messages call it.

    Raises
    ------
    UsageError
        If the file is missing, damaged, a link, or not a checkpoint.
    StorageError
        If the disk fails while it is read.
    """
    check_regular(path)
    verified = False
    try:
        verified = sha256 is not None and sha256_of(path) == sha256
        if verified or sha256 is None:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                header = parse_json((file.metadata() or {})[_KEY], deepest=500)
            tensors |= {alias: tensors[name] for alias, name in header["aliases"].items()}
            return dict(decode(header["state"], tensors))
    except KeyError as error:
        raise UsageError(f"{path} is not a {what} of alcore: it has no {error}.") from error
    except (OSError, RuntimeError, SafetensorError, ValueError, TypeError, AttributeError, MemoryError) as error:
        # What was verified was read as a whole. safetensors and torch open the file once more, and report a failing
        # disk by errors of their own: safetensors by "No such file", torch by a RuntimeError.
        gone = isinstance(error, FileNotFoundError | PermissionError) and not verified
        disk = isinstance(error, OSError | MemoryError) or (verified and type(error) in (RuntimeError, SafetensorError))
        raise (StorageError if disk and not gone else UsageError)(f"{what} {path} can't be read: {error}.") from error
    raise UsageError(f"{what} {path} is damaged: its SHA-256 is not the one recorded for it.")


def _store_once(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Split tensors into those to write, each once and contiguous, and the aliases of tied ones."""
    unique: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        key = (storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
            continue
        seen[key] = name
        shares = tensor.numel() > 0 and storage in storages
        storages.add(storage)
        whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
        unique[name] = tensor if tensor.is_contiguous() and whole and not shares else tensor.clone().contiguous()
    return unique, aliases
